"""The pack `clips`: short films with questions about what happens in them, and animated emoji to be named.

    concepts.json -> Cast -> (a subset poses) -> Scene: actors + question + answer -> render -> encode -> mp4

The actors are the pictures of the pack `emoji`; each subset is one function on this page. Drawing styles
are split as the emoji pack splits them: the style that draws the test films is in no other film.

A question about motion is worth asking only if one picture does not answer it. The middle frame says nothing in `direction`,
`which_moves` and `change`; frames near the ends say something in `direction` and in grow or shrink, as any path must.

Letters: F frames, H height, W width.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from monoglot.data.film import encode
from monoglot.data.packs.base import PACKS, Pack, PackWriter
from monoglot.data.packs.emoji_concepts import (
    SHAREALIKE,
    STYLES,
    Concept,
    confusable,
    in_scenes,
    join_key,
    read_concepts,
    split_of,
    taught,
)
from monoglot.data.packs.emoji_words import PLAIN, is_plural
from monoglot.data.packs.fetch import MissingSource, npm
from monoglot.errors import InputError
from monoglot.rng import stream

SIZE = 128
"""Height and width of a film in pixels."""

ANIMATED_SIZE = 160
"""Height and width of an animated emoji; the source has 256 pixels."""

ANIMATED_FRAMES = 36
"""At most this many frames of an animated emoji are kept; the source has mostly 72 at 24 a second."""

ROWS = {"train": 900, "valid": 80, "test": 250}
"""Films of each subset."""

ANIMATION = ("@lobehub/fluent-emoji-anim-1", "1.0.0")

SKIN_TONES = {f"1f3f{digit}" for digit in "bcdef"}


# The cast -------------------------------------------------------------------------------------------------------------


class Cast:
    """The emoji pictures of one pack folder, by style.

    Args:
        folder: a finished emoji pack: `concepts.json` and `media/<style>/<hexcode>.png`.

    Raises:
        InputError: the emoji pack is not built.
    """

    def __init__(self, folder: Path):
        self.folder = Path(folder)
        self.by_code = {concept.hexcode: concept for concept in taught(read_concepts(self.folder))}
        self.by_style: dict[str, list[Concept]] = {}
        for concept in self.by_code.values():
            for style in concept.styles:
                self.by_style.setdefault(style, []).append(concept)

    def styles(self, split: str) -> list[str]:
        """The styles whose pictures may act in the films of a split: as the emoji pack splits them."""
        found = [style for style in self.by_style if style != SHAREALIKE and split_of(style) == split]
        if not found:
            raise InputError.at(self.folder, "concepts.json", f"no style for {split}", "build the pack emoji again")
        return found

    def pick(self, rng: np.random.Generator, style: str, count: int = 1, *, turning: bool = False) -> list[Concept]:
        """Choose concepts that nobody would take for each other, with names that read well in a question.

        `turning`: only pictures that look different when turned.
        """
        chosen: list[Concept] = []
        for index in rng.permutation(len(self.by_style[style])):
            concept = self.by_style[style][index]
            if not in_scenes(concept) or any(confusable(concept, other) for other in chosen):
                continue
            if turning and not turns_visibly(self.picture(style, concept)):
                continue
            chosen.append(concept)
            if len(chosen) == count:
                return chosen
        raise InputError.at(
            self.folder, style, f"holds too few concepts that fit ({count} wanted)", "build emoji again"
        )

    def picture(self, style: str, concept: Concept) -> Image.Image:
        """RGBA, cut to its ink, longer side at most 96 pixels."""
        return _picture(self.folder / "media" / style / f"{concept.hexcode}.png")


@lru_cache(maxsize=8192)
def _picture(path: Path) -> Image.Image:
    with Image.open(path) as opened:
        picture = opened.convert("RGBA")
    box = picture.getchannel("A").point(lambda alpha: 255 if alpha > 16 else 0).getbbox()
    picture = picture.crop(box) if box else picture
    picture.thumbnail((96, 96), Image.Resampling.LANCZOS)
    return picture


def turns_visibly(picture: Image.Image) -> bool:
    """Whether a picture looks different after every turn: balls, suns and clock-like discs do not."""
    side = max(picture.size)
    flat = Image.new("RGBA", (side, side), (128, 128, 128, 255))
    flat.alpha_composite(picture, ((side - picture.width) // 2, (side - picture.height) // 2))
    flat = flat.convert("RGB").resize((32, 32), Image.Resampling.BOX)
    plain = np.asarray(flat, np.float32)
    turned = [np.asarray(flat.rotate(angle, fillcolor=(128, 128, 128)), np.float32) for angle in (45, 90, 180)]
    return min(float(np.abs(plain - other).mean()) for other in turned) > 18


# The stage ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Actor:
    """A picture and where it is in each frame; every array has shape [F]."""

    picture: Image.Image
    x: np.ndarray
    """Centre in pixels, to the right."""
    y: np.ndarray
    """Centre in pixels, down."""
    size: np.ndarray
    """Longer side in pixels."""
    angle: np.ndarray
    """Degrees, counter-clockwise."""
    seen: np.ndarray
    """Opacity in [0, 1]."""

    def frozen(self, frame: int) -> Actor:
        """The same actor, standing as it stands in one frame."""
        tracks = (self.x, self.y, self.size, self.angle, self.seen)
        return Actor(self.picture, *(np.full_like(track, track[frame]) for track in tracks))


def act(picture: Image.Image, frames: int, *, x=SIZE / 2, y=SIZE / 2, size=40.0, angle=0.0, seen=1.0) -> Actor:
    """An actor from numbers (the same in all frames) or arrays [F]."""
    fill = (np.broadcast_to(np.asarray(value, np.float64), (frames,)) for value in (x, y, size, angle, seen))
    return Actor(picture, *fill)


@dataclass(frozen=True)
class Scene:
    """A film before it is drawn: who acts and how, what is asked, what is right."""

    actors: tuple[Actor, ...]
    text: str
    target: str
    choices: tuple[str, ...] = ()
    concepts: tuple[Concept, ...] = ()
    """The one the answer is about comes first."""
    motion: str = ""
    """What happens, for tables of results."""


def render(scene: Scene, backdrop: Image.Image) -> np.ndarray:
    """Draw a scene: uint8[F, H, W, 3]. Later actors stand in front."""
    frames = len(scene.actors[0].x)
    film = np.empty((frames, backdrop.height, backdrop.width, 3), np.uint8)
    ready: dict[tuple, Image.Image] = {}  # most actors keep their size and angle: draw each pose once
    for frame in range(frames):
        stage = backdrop.copy()
        for number, actor in enumerate(scene.actors):
            if actor.seen[frame] <= 0:
                continue
            pose = (round(actor.size[frame], 1), round(actor.angle[frame] % 360, 1), round(actor.seen[frame], 2))
            if (number, pose) not in ready:
                ready[number, pose] = _posed(actor.picture, *pose)
            sticker = ready[number, pose]
            corner = (round(actor.x[frame] - sticker.width / 2), round(actor.y[frame] - sticker.height / 2))
            stage.paste(sticker, corner, sticker)
        film[frame] = np.asarray(stage)
    return film


def _posed(picture: Image.Image, size: float, angle: float, seen: float) -> Image.Image:
    scale = size / max(picture.size)
    width, height = (max(1, round(side * scale)) for side in picture.size)
    sticker = picture.resize((width, height), Image.Resampling.BILINEAR, reducing_gap=2.0)
    if angle:
        sticker = sticker.rotate(angle, Image.Resampling.BICUBIC, expand=True)
    if seen < 1:
        sticker.putalpha(sticker.getchannel("A").point(lambda alpha: round(alpha * seen)))
    return sticker


def paint_backdrop(rng: np.random.Generator, actors: Sequence[Actor] = ()) -> Image.Image:
    """A plain, gradient, striped or cloudy background: of three, the one that the actors stand out from most."""
    inks = [_ink(actor.picture) for actor in actors]
    candidates = [_paint(rng) for _ in range(3)]

    def contrast(painted: np.ndarray) -> float:
        return min((float(np.abs(painted.mean((0, 1)) - ink).sum()) for ink in inks), default=0.0)

    return Image.fromarray(max(candidates, key=contrast).round().astype(np.uint8), "RGB")


def _ink(picture: Image.Image) -> np.ndarray:
    pixels = np.asarray(picture, np.float32)
    alpha = pixels[..., 3:]
    return (pixels[..., :3] * alpha).sum((0, 1)) / max(float(alpha.sum()), 1.0)


def _paint(rng: np.random.Generator) -> np.ndarray:
    """float32[H, W, 3] in [0, 255]."""
    first, second = rng.uniform(20, 245, (2, 3)).astype(np.float32)
    second = first + (second - first) * np.float32(0.45)  # near enough that the pattern does not hide the actors
    y, x = np.mgrid[0:SIZE, 0:SIZE].astype(np.float32) / SIZE - 0.5
    turn = rng.uniform(0, 2 * np.pi)
    along = np.cos(turn) * x + np.sin(turn) * y
    kind = rng.choice(["plain", "gradient", "stripes", "clouds"])
    if kind == "plain":
        share = np.zeros_like(x)
    elif kind == "gradient":
        share = np.clip(along + 0.5, 0, 1)
    elif kind == "stripes":
        share = 0.5 + 0.5 * np.sin(along * 2 * np.pi * rng.uniform(3, 9))
    else:
        noise = Image.fromarray(rng.uniform(0, 1, (6, 6)).astype(np.float32))
        share = np.asarray(noise.resize((SIZE, SIZE), Image.Resampling.BICUBIC)).clip(0, 1)
    return first + (second - first) * share[..., None].astype(np.float32)


# The subsets ----------------------------------------------------------------------------------------------------------
# Each takes (rng, cast, style, frames, index) and returns a Scene. `index` deals the answers out evenly.

STEPS = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}


def direction(rng: np.random.Generator, cast: Cast, style: str, frames: int, index: int) -> Scene:
    """Which way does it move? The middle of the path is the same for all answers: the middle frame says nothing."""
    answer = tuple(STEPS)[index % 4]
    step = np.array(STEPS[answer])
    mover, *others = cast.pick(rng, style, 2 if rng.random() < 0.5 else 1)
    middle = SIZE / 2 + rng.uniform(-22, 22, 2)  # nearly as wide as the path is long: the ends say little, too
    time = np.linspace(-0.5, 0.5, frames)
    if rng.random() < 0.5:
        time = np.sin(np.pi * time) / 2  # eases in and out
    along, drift = rng.uniform(34, 54), rng.uniform(-6, 6)
    path = middle + np.outer(time, step * along + step[::-1] * drift)
    actors = [act(cast.picture(style, mover), frames, x=path[:, 0], y=path[:, 1], size=rng.uniform(30, 38))]
    for other in others:  # in the corner farthest from the middle of the path, whichever way that leads
        corner = np.where(middle > SIZE / 2, 17, SIZE - 17) + rng.uniform(-3, 3, 2)
        actors.insert(0, act(cast.picture(style, other), frames, x=corner[0], y=corner[1], size=rng.uniform(24, 30)))
    does, it, be = _said(mover)
    question = (f"which way {does} {it} move?", f"in which direction {does} {it} go?", f"which way {be} {it} going?")
    return Scene(tuple(actors), question[rng.integers(3)], answer, tuple(STEPS), (mover, *others), "slide")


def order(rng: np.random.Generator, cast: Cast, style: str, frames: int, index: int) -> Scene:
    """What appears first? Both are there in the end; the middle frame may show none, one or both."""
    first, second = cast.pick(rng, style, 2)
    spots = _two_spots(rng)
    start = int(rng.integers(1, frames - 8))
    starts = (start, int(rng.integers(start + 6, frames - 2)))  # far enough apart for a reader of few frames
    fade = int(rng.integers(1, 4))
    actors = []
    for concept, spot, start in zip((first, second), spots, starts):
        seen = np.clip((np.arange(frames) - start + 1) / fade, 0, 1)
        picture, size = cast.picture(style, concept), rng.uniform(36, 50)
        actors.append(act(picture, frames, x=spot[0], y=spot[1], size=size, seen=seen))
    asked, answer = ("last", second) if index % 4 == 3 else ("first", first)
    other = first if answer is second else second
    choices = (first.name, second.name) if rng.random() < 0.5 else (second.name, first.name)
    question = rng.choice([f"what appears {asked}?", f"which one comes {asked}?"])
    return Scene(tuple(actors), str(question), answer.name, choices, (answer, other), f"appear {asked}")


def which_moves(rng: np.random.Generator, cast: Cast, style: str, frames: int, index: int) -> Scene:
    """Which one moves? The other is frozen at a random moment of the same kind of motion: no single frame tells."""
    motion = ("slide", "circle", "turn", "zoom")[index % 4]
    mover, other = cast.pick(rng, style, 2, turning=motion == "turn")
    spots = _two_spots(rng)
    moving = _sway(rng, cast.picture(style, mover), frames, motion, spots[0])
    still = _sway(rng, cast.picture(style, other), frames, motion, spots[1]).frozen(int(rng.integers(frames)))
    choices = (mover.name, other.name) if rng.random() < 0.5 else (other.name, mover.name)
    question = rng.choice(["which one moves?", "what is moving?", "which one does not stay still?"])
    return Scene((moving, still), str(question), mover.name, choices, (mover, other), motion)


def change(rng: np.random.Generator, cast: Cast, style: str, frames: int, index: int) -> Scene:
    """Does it grow or shrink? Does it turn or slide?"""
    answer = ("grow", "turn", "shrink", "slide")[index % 4]
    sizes = answer in ("grow", "shrink")
    (concept,) = cast.pick(rng, style, turning=not sizes)
    picture = cast.picture(style, concept)
    if sizes:  # the size in the middle frame is drawn from the same range for both answers
        ratio = rng.uniform(1.6, 2.3) ** (1 if answer == "grow" else -1)
        size = 30 * 2.3 ** rng.random() * ratio ** np.linspace(-0.5, 0.5, frames)
        x, y = SIZE / 2 + rng.uniform(-14, 14, 2)
        actor = act(picture, frames, x=x, y=y, size=size)
        choices = ("grow", "shrink")
    else:  # both have a place on a slide and an angle; one of the two is frozen
        centre = np.full(2, SIZE / 2)
        slide = _sway(rng, picture, frames, "slide", centre, size=rng.uniform(42, 60), reach=24)
        start = rng.uniform(0, 360)
        turn = start + rng.choice([-1, 1]) * rng.uniform(120, 330) * np.linspace(0, 1, frames)
        held = slide if answer == "slide" else slide.frozen(int(rng.integers(frames)))
        angle = turn if answer == "turn" else np.full(frames, start)
        actor = Actor(picture, held.x, held.y, held.size, angle, held.seen)
        choices = ("turn", "slide")
    does, it, _ = _said(concept)
    question = f"{does} {it} {choices[0]} or {choices[1]}?"
    return Scene((actor,), question, answer, choices, (concept,), answer)


def clip_names(rng: np.random.Generator, cast: Cast, style: str, frames: int, index: int) -> Scene:
    """What is it? One sticker that moves about, to be named."""
    concepts = cast.by_style[style]
    concept = concepts[int(rng.integers(len(concepts)))]
    motion = ("slide", "circle", "turn", "zoom")[index % 4]
    centre = SIZE / 2 + rng.uniform(-10, 10, 2)
    actor = _sway(rng, cast.picture(style, concept), frames, motion, centre, size=rng.uniform(64, 88), reach=20)
    if motion == "turn":  # names are learnt near the upright: rock to and fro by at most 40 degrees
        angle = 40 * np.sin(np.deg2rad(actor.angle))
        actor = Actor(actor.picture, actor.x, actor.y, actor.size, angle, actor.seen)
    return Scene((actor,), "", concept.name, (), (concept,), motion)


def _said(concept: Concept) -> tuple[str, str, str]:
    """How a question speaks of a thing: ("does", "the cat", "is") or ("do", "the grapes", "are")."""
    it = concept.name if concept.name in PLAIN else f"the {concept.name}"
    return ("do", it, "are") if is_plural(concept.name) else ("does", it, "is")


def _two_spots(rng: np.random.Generator) -> np.ndarray:
    """Centres of two places beside or above each other, in random order: float64[2, 2] (place, x y)."""
    gap, level = 31 + rng.uniform(-2, 2), rng.uniform(-16, 16)
    spots = SIZE / 2 + np.array([[-gap, level], [gap, -level]])
    if rng.random() < 0.5:
        spots = spots[:, ::-1]
    return spots if rng.random() < 0.5 else spots[::-1]


def _sway(
    rng: np.random.Generator,
    picture: Image.Image,
    frames: int,
    motion: str,
    centre: np.ndarray,
    *,
    size: float | None = None,
    reach: float = 10,
) -> Actor:
    """A motion from a random phase on: a slide to and fro, a circle, a turn, a zoom. `reach` is in pixels."""
    size = rng.uniform(34, 42) if size is None else size
    phase = 2 * np.pi * (rng.random() + rng.choice([-1, 1]) * rng.uniform(0.7, 1.4) * np.linspace(0, 1, frames))
    heading = rng.uniform(0, 2 * np.pi)
    x, y = centre
    if motion == "slide":
        x, y = x + reach * np.cos(heading) * np.sin(phase), y + reach * np.sin(heading) * np.sin(phase)
    elif motion == "circle":
        x, y = x + reach * np.cos(phase), y + reach * np.sin(phase)
    elif motion == "zoom":
        size = size * 1.45 ** np.sin(phase)
    angle = np.rad2deg(phase) if motion == "turn" else 0.0
    return act(picture, frames, x=x, y=y, size=size, angle=angle)


@dataclass(frozen=True)
class Subset:
    task: str
    pose: Callable[[np.random.Generator, Cast, str, int, int], Scene]


SUBSETS = {
    "direction": Subset("vqa", direction),
    "order": Subset("vqa", order),
    "which_moves": Subset("vqa", which_moves),
    "change": Subset("vqa", change),
    "clip_names": Subset("name", clip_names),
}


def make(cast: Cast, subset: str, split: str, index: int, *, seed: int = 0) -> tuple[Scene, np.ndarray, dict[str, Any]]:
    """One film: its scene, its frames uint8[F, H, W, 3] and its row without the path. Depends on the arguments only."""
    rng = stream(seed, "clips", subset, split, index)
    styles = cast.styles(split)
    style = styles[int(rng.integers(len(styles)))]
    frames, fps = int(rng.choice([17, 19, 21, 23])), int(rng.choice([8, 10, 12]))  # odd: there is one middle frame
    scene = SUBSETS[subset].pose(rng, cast, style, frames, index)
    film = render(scene, paint_backdrop(rng, scene.actors))
    row: dict[str, Any] = {"id": f"clips-{subset}-{split}-{index:04d}", "task": SUBSETS[subset].task}
    if scene.text:
        row["text"] = scene.text
    row["target"] = scene.target
    if SUBSETS[subset].task == "name" and len(scene.concepts[0].names_en) > 1:
        row["targets"] = list(scene.concepts[0].names_en)
    if scene.choices:
        row["choices"] = list(scene.choices)
    licence = next(drawn.licence for drawn in STYLES if drawn.name == style)
    row |= {
        "lang": "en",
        "style": style,
        "licence": licence,
        "concept": scene.concepts[0].hexcode,
        "motion": scene.motion,
        "fps": fps,
    }
    if scene.concepts[1:]:
        row["others"] = [concept.hexcode for concept in scene.concepts[1:]]
    return scene, film, row


# Animated emoji -------------------------------------------------------------------------------------------------------


def animated_split(code: str) -> str:
    """Half of the concepts for training, half for test, by the hash of the hexcode."""
    return ("train", "test")[hashlib.sha256(code.encode()).digest()[0] % 2]


def plain_code(stem: str) -> tuple[str, bool]:
    """The hexcode as concepts write it, and whether a skin tone was dropped from it.

    >>> plain_code("1f3c3-1f3fd-200d-2640-fe0f")
    ('1f3c3-2640', True)
    """
    parts = join_key(stem).split("-")
    bare = [part for part in parts if part not in SKIN_TONES]
    return "-".join(bare), len(bare) < len(parts)


def read_animation(path: Path) -> tuple[np.ndarray, int]:
    """Read an animated WebP on white: uint8[F, 160, 160, 3] with F <= 36, and the frames a second for its speed."""
    with Image.open(path) as animation:
        count = getattr(animation, "n_frames", 1)
        step = -(-count // ANIMATED_FRAMES)
        film, milliseconds = [], 0
        for index in range(count):
            animation.seek(index)
            animation.load()
            milliseconds += int(animation.info.get("duration") or 42)
            if index % step == 0:
                picture = animation.convert("RGBA")
                white = Image.new("RGBA", picture.size, "white")
                white.alpha_composite(picture)
                film.append(np.asarray(white.convert("RGB").resize((ANIMATED_SIZE,) * 2, Image.Resampling.LANCZOS)))
    return np.stack(film), max(1, round(1000 * len(film) / milliseconds))


def add_animated(writer: PackWriter, cast: Cast, folder: Path) -> None:
    """The subset `animated`: name a moving emoji. Split by concept; skin tones add training films only.

    The drawings are those of the style fluent-3d, which the emoji pack trains on: what a test film adds is motion.
    """
    stems = sorted(path.stem for path in folder.glob("*.webp"))
    for stem in writer.track(stems, "animated"):
        code, toned = plain_code(stem)
        split = animated_split(code)
        if code not in cast.by_code or (toned and split == "test") or writer.full("animated", split):
            continue
        film, fps = read_animation(folder / f"{stem}.webp")
        if len(film) < 2:  # half of the files are still pictures
            continue
        video = writer.media(f"animated/{stem}.mp4", encode(film, fps))
        names = cast.by_code[code].names_en
        row: dict[str, Any] = {"id": f"clips-animated-{stem}", "task": "name", "video": video, "target": names[0]}
        row |= {"targets": list(names)} if len(names) > 1 else {}
        row |= {"lang": "en", "style": "fluent-animated", "licence": "MIT", "concept": code, "fps": fps}
        writer.add("animated", split, row)


# The pack -------------------------------------------------------------------------------------------------------------


def build(writer: PackWriter) -> None:
    """Draw every film of every subset, then the animated emoji."""
    cast = Cast(writer.out / "emoji")
    for subset in SUBSETS:
        for split, count in ROWS.items():
            for index in writer.track(range(count), f"{subset}.{split}"):
                if writer.full(subset, split):
                    break
                _, film, row = make(cast, subset, split, index, seed=writer.seed)
                row["video"] = writer.media(f"{subset}/{split}/{index:04d}.mp4", encode(film, row["fps"]))
                writer.add(subset, split, row)
    writer.notice(
        "Stickers",
        "as in the pack emoji (Apache-2.0, MIT, CC BY 4.0; a row's `style` says which)",
        "The films are drawn by monoglot from the pictures of the pack `emoji`; its NOTICE.md names their authors. "
        "Backgrounds and motions are monoglot's own.",
    )
    try:
        package = npm(*ANIMATION)
    except MissingSource as why:
        writer.skip("animated", why)
        return
    writer.source(package)
    add_animated(writer, cast, package.folder / "assets")
    writer.notice(
        f"Fluent Emoji, animated (npm {package.name}@{package.version})",
        "MIT",
        "Animations: Copyright (c) Microsoft Corporation. Package: Copyright (c) 2023 LobeHub. Subset `animated`; "
        "the films were made smaller, laid on white and re-encoded.",
    )


SUMMARY = "films of moving stickers: direction, order, change, names; animated emoji"
PACKS.add("clips", Pack("clips", SUMMARY, build, needs=("emoji",)))
