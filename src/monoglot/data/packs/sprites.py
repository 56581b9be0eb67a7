"""The pack `sprites`: what does the little figure do? Hand-drawn frame sequences of a strategy game, under the GPL.

    PNG files -> sequences (name + running number) -> label (from the name or the game's unit files) -> mp4

A pack of its own, because weights that ship with the project are not trained on GPL rows. Split by family, which is the
folder of the units (dwarves, elves, ...): units of one family share drawings.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from monoglot.data.film import encode
from monoglot.data.packs.base import PACKS, Pack, PackWriter
from monoglot.data.packs.fetch import apt
from monoglot.errors import InputError
from monoglot.rng import stream

SOURCE = "wesnoth-1.16-data"

SIZE = 144
"""Height and width of a film in pixels: twice the 72 pixels of most figures."""

FRAMES = 12
"""A film has at least this many frames: short sequences show each drawing several times."""

FPS = 10

QUESTION = "what does it do?"

CHOICES = ("attack", "shoot", "idle", "die", "move")
"""attack: from near; shoot: from afar (bow, sling, spell); idle: stand and wait; move: run, ride or fly."""

TEST_FAMILIES = ("drakes", "elves-wood", "merfolk", "ogres", "undead-skeletal")
VALID_FAMILIES = ("goblins", "orcs")

TRAIN_COPIES = 3
"""Films of each training sequence, each with its own background, team colour and side."""

ANIMATIONS = {
    "standing_anim": "idle",
    "idle_anim": "idle",
    "movement_anim": "move",
    "pre_movement_anim": "move",
    "death": "die",
}
"""What the game plays an animation for, by tag; attacks are told apart by their range."""

RANGES = {"melee": "attack", "ranged": "shoot"}

WORDS = {
    "attack": "melee sword blade axe hammer bite claws slash pincer mace kick sting stinger fist horn tail",
    "shoot": "ranged bow crossbow throw javelin sling longbow",
    "idle": "idle bob stand standing hover",
    "die": "die dying death",
    "move": "run fly flying move moving",
}
"""The last word of a file name that says what a sequence shows; the unit files have the say on all other names."""

TEAM_RAMP = """3f0016 55002a 690039 7b0045 8c0051 9e005d b10069 c30074 d6007f
ec008c ee3d96 ef5ba1 f172ac f287b6 f49ac1 f6adcd f8c1d9 fad5e5 fde9f1"""
"""The magentas that the game repaints in a team's colour, dark to light (its team_colors.cfg)."""


@dataclass(frozen=True)
class Sequence:
    """One animation: its name below the folder of all units, and its drawings in order."""

    name: str
    frames: tuple[Path, ...]

    @property
    def family(self) -> str:
        return self.name.split("/")[0]


def sequences(folder: Path) -> Iterator[Sequence]:
    """Files `<name>1.png`, `<name>-2.png`, ... with at least three drawings in a row, in order of their names."""
    found: dict[str, dict[int, Path]] = defaultdict(dict)
    for path in sorted(folder.rglob("*.png")):
        numbered = re.fullmatch(r"(.*?)-?(\d+)", path.relative_to(folder).with_suffix("").as_posix())
        if numbered:
            found[numbered[1]].setdefault(int(numbered[2]), path)
    for name, numbers in sorted(found.items()):
        if len(numbers) >= 3:
            yield Sequence(name, tuple(numbers[number] for number in sorted(numbers)))


def plain_name(name: str) -> str:
    """A name without the compass direction in it, so that both views of an animation meet.

    >>> plain_name("dwarves/fighter-ne-axe")
    'dwarves/fighter-axe'
    """
    return re.sub(r"-(n|ne|se|s|sw|nw)(?=-|$)", "", name)


def read_labels(folder: Path) -> dict[str, str]:
    """What the game's unit files (`*.cfg`) use each sequence for: plain name -> one of CHOICES, by majority."""
    votes: dict[str, Counter[str]] = defaultdict(Counter)
    for path in sorted(folder.rglob("*.cfg")):
        text = path.read_text(encoding="utf-8", errors="replace")
        ranges: dict[str, str] = {}
        for attack in _blocks(text, "attack"):
            name, reach = re.search(r"\bname=\s*\"?([^\"\n]+)", attack), re.search(r"\brange=(\w+)", attack)
            if name and reach:
                ranges[name[1].strip()] = reach[1]
        for tag in (*ANIMATIONS, "attack_anim"):
            for block in _blocks(text, tag):
                label = ANIMATIONS.get(tag) or _reach(block, ranges)
                for image in re.findall(r"image\w*=\"?units/([^:\"\n~]+)", block):
                    stem = re.sub(r"-?(\[.*|\d+)(\.png.*)?$", "", image)
                    if label:
                        votes[plain_name(stem)][label] += 1
    return {name: counted.most_common(1)[0][0] for name, counted in votes.items()}


def _blocks(text: str, tag: str) -> list[str]:
    return re.findall(rf"\[{tag}\](.*?)\[/{tag}\]", text, flags=re.DOTALL)


def _reach(block: str, ranges: dict[str, str]) -> str | None:
    """attack or shoot, from the range that an attack animation names or that the attack it belongs to has."""
    stated = re.search(r"\brange=(\w+)", block)
    if stated:
        return RANGES.get(stated[1])
    named = re.search(r"\bname=\s*\"?([^\"\n]+)", block)
    found = {ranges.get(name.strip()) for name in named[1].split(",")} if named else set()
    return RANGES.get(found.pop() or "") if len(found) == 1 else None


def label_of(name: str, labels: dict[str, str]) -> str | None:
    """What a sequence shows: from the last word of its name, else from the unit files, else None.

    A word goes first because a figure that hovers also uses its flight when it stands.
    """
    plain = plain_name(name)
    last = re.sub(r"\d+$", "", re.split(r"[-/]", plain)[-1])
    by_word = next((label for label, words in WORDS.items() if last in words.split()), None)
    return by_word or labels.get(plain)


def draw(sequence: Sequence, rng: np.random.Generator, *, copy: int = 0) -> np.ndarray:
    """The film of a sequence: uint8[F, H, W, 3], F >= 12, on a plain ground. Copies after the first may be mirrored."""
    pictures = [Image.open(path).convert("RGBA") for path in sequence.frames]
    width, height = max(p.width for p in pictures), max(p.height for p in pictures)
    scale = 2 if max(width, height) <= SIZE // 2 else SIZE / max(width, height)
    team, ground = rng.uniform(0, 1, 3), tuple(int(value) for value in rng.integers(40, 216, 3))
    mirror = bool(copy and rng.random() < 0.5)
    film = []
    for picture in pictures:
        figure = repaint(picture, team)
        size = (max(1, round(figure.width * scale)), max(1, round(figure.height * scale)))
        figure = figure.resize(size, Image.Resampling.NEAREST if scale == 2 else Image.Resampling.BICUBIC)
        stage = Image.new("RGB", (SIZE, SIZE), ground)
        stage.paste(figure, ((SIZE - size[0]) // 2, (SIZE - size[1]) // 2), figure)
        film.append(np.asarray(stage)[:, ::-1] if mirror else np.asarray(stage))
    hold = -(-FRAMES // len(film))
    return np.repeat(np.stack(film), hold, axis=0)


def repaint(picture: Image.Image, team: np.ndarray) -> Image.Image:
    """Put a team's colour (float[3] in [0, 1]) in place of the magentas that stand for it, shade by shade."""
    pixels = np.array(picture)
    colours = (pixels[..., 0].astype(int) << 16) | (pixels[..., 1].astype(int) << 8) | pixels[..., 2]
    ramp = [int(shade, 16) for shade in TEAM_RAMP.split()]
    for shade, light in zip(ramp, np.linspace(0.15, 1.85, len(ramp))):
        painted = team * light if light <= 1 else team + (1 - team) * (light - 1)
        pixels[..., :3][colours == shade] = np.round(255 * painted)
    return Image.fromarray(pixels, "RGBA")


def split_of(family: str) -> str:
    return "test" if family in TEST_FAMILIES else "valid" if family in VALID_FAMILIES else "train"


def build(writer: PackWriter) -> None:
    """Find the sequences, label them, draw a film of each (three in train)."""
    package = apt(SOURCE)
    writer.source(package)
    core = next(package.folder.glob("usr/share/games/wesnoth/*/data/core"), None)
    if core is None:
        raise InputError.at(package.folder, "", "holds no wesnoth data", "the package has changed; leave this pack out")
    labels = read_labels(core / "units")
    for sequence in writer.track(list(sequences(core / "images" / "units")), "figures"):
        label, split = label_of(sequence.name, labels), split_of(sequence.family)
        if label is None:
            continue
        for copy in range(TRAIN_COPIES if split == "train" else 1):
            if writer.full("sprites", split):
                break
            film = draw(sequence, stream(writer.seed, "sprites", sequence.name, copy), copy=copy)
            key = f"{sequence.name.replace('/', '+')}-{copy}"
            row = {
                "id": f"sprites-{key}",
                "task": "vqa",
                "video": writer.media(f"{key}.mp4", encode(film, FPS)),
                "text": QUESTION,
                "target": label,
                "choices": list(CHOICES),
                "lang": "en",
                "family": sequence.family,
                "group": sequence.name,
                "licence": "GPL-2.0-or-later",
            }
            writer.add("sprites", split, row)
    writer.notice(
        f"The Battle for Wesnoth (apt {package.name} {package.version})",
        "GPL-2.0-or-later",
        "Drawings: Copyright (C) 2003 onwards, David White and the contributors of The Battle for Wesnoth "
        "(https://www.wesnoth.org). The sequences were coloured, enlarged, laid on plain backgrounds and encoded.",
    )


PACKS.add("sprites", Pack("sprites", "what does the figure do: attack, shoot, idle, die, move (GPL)", build))
