"""The packs clips and sprites, from a tiny set of coloured shapes: what a film shows is read back from its pixels."""

from __future__ import annotations

import io
import json
from collections import Counter
from dataclasses import asdict
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image, ImageDraw

from monoglot.data.packs import Package, build, clips, sprites
from monoglot.data.packs.clips import Cast, encode, make, plain_code
from monoglot.data.packs.emoji_concepts import Concept
from monoglot.data.packs.fetch import MissingSource
from monoglot.errors import InputError
from monoglot.rng import stream

STYLES = {"twemoji": "train", "fxemoji": "train", "streamline": "valid", "noto": "test"}

COLOURS = {
    "redbird": (230, 20, 20),
    "greenbird": (20, 230, 20),
    "bluebird": (20, 20, 230),
    "yellowbird": (240, 240, 10),
    "pinkbird": (240, 10, 240),
    "cyanbird": (10, 240, 240),
}
CODES = {name: f"1f60{index}" for index, name in enumerate(COLOURS)}


@pytest.fixture(scope="module")
def packs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished emoji pack: six arrows of one colour each, in four styles."""
    out = tmp_path_factory.mktemp("packs")
    emoji = out / "emoji"
    for style in STYLES:
        (emoji / "media" / style).mkdir(parents=True)
        for name, colour in COLOURS.items():
            picture = Image.new("RGBA", (192, 192))
            corners = [(20, 20), (170, 60), (110, 90), (150, 170), (120, 180), (80, 110), (40, 150)]
            ImageDraw.Draw(picture).polygon(corners, fill=(*colour, 255))
            picture.save(emoji / "media" / style / f"{CODES[name]}.png")
    write_concepts(emoji)
    (emoji / "sources.json").write_text("{}")
    return out


def write_concepts(emoji: Path) -> None:
    concepts = [
        Concept(code, "?", (name,), (), (), (), "objects", "tool", "tool", tuple(STYLES))
        for name, code in CODES.items()
    ]
    (emoji / "concepts.json").write_text(json.dumps([asdict(concept) for concept in concepts]))


@pytest.fixture(scope="module")
def cast(packs: Path) -> Cast:
    return Cast(packs / "emoji")


def decode(data: bytes | Path) -> np.ndarray:
    """uint8[F, H, W, 3]"""
    with av.open(io.BytesIO(data) if isinstance(data, bytes) else str(data)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def shown(film: np.ndarray, name: str) -> np.ndarray:
    """bool[F, H, W] true where the film has the colour of that arrow."""
    return np.abs(film.astype(int) - np.array(COLOURS[name])).sum(-1) < 110


def film_of(cast: Cast, subset: str, index: int, split: str = "train") -> tuple[np.ndarray, dict]:
    _, film, row = make(cast, subset, split, index)
    return decode(encode(film, row["fps"])), row


def name_of(row: dict) -> str:
    return next(name for name, code in CODES.items() if code == row["concept"])


def other_choice(row: dict) -> str:
    return next(choice for choice in row["choices"] if choice != row["target"])


@pytest.mark.parametrize("index", range(12))
def test_the_mover_goes_where_the_answer_says(cast: Cast, index: int) -> None:
    film, row = film_of(cast, "direction", index)
    assert name_of(row) in row["text"]
    mask = shown(film, name_of(row))
    where = [np.argwhere(mask[frame])[:, ::-1].mean(0) for frame in (0, -1)]  # x y
    shift = where[1] - where[0]
    axis = int(np.abs(shift).argmax())
    assert row["target"] == (("left", "right"), ("up", "down"))[axis][int(shift[axis] > 0)]


def test_the_middle_frame_does_not_tell_the_direction(cast: Cast) -> None:
    places: dict[str, list] = {answer: [] for answer in clips.STEPS}
    for index in range(240):
        scene = clips.direction(stream(0, "middle", index), cast, "twemoji", 21, index)
        mover = scene.actors[-1]
        places[scene.target].append((mover.x[10], mover.y[10], mover.size[10]))
    assert {len(found) for found in places.values()} == {60}
    everything = np.array([place for found in places.values() for place in found])
    for found in places.values():
        error = everything.std(0) / np.sqrt(len(found))
        assert (np.abs(np.mean(found, 0) - everything.mean(0)) < 3.5 * error).all()


@pytest.mark.parametrize("index", range(8))
def test_what_appears_first(cast: Cast, index: int) -> None:
    film, row = film_of(cast, "order", index)
    counts = {name: shown(film, name).sum((1, 2)) for name in row["choices"]}
    begins = {name: int((seen - seen[0] > 60).argmax()) for name, seen in counts.items()}
    assert all(seen[-1] - seen[0] > 60 for seen in counts.values()), "both are there in the end"
    asked_last = "last" in row["text"]
    assert row["target"] == (max if asked_last else min)(begins, key=lambda name: begins[name])


@pytest.mark.parametrize("index", range(8))
def test_only_the_answer_moves(cast: Cast, index: int) -> None:
    film, row = film_of(cast, "which_moves", index)
    changed = {name: float((shown(film, name) ^ shown(film, name)[:1]).sum()) for name in row["choices"]}
    assert changed[row["target"]] > 5 * changed[other_choice(row)]


@pytest.mark.parametrize("index", range(8))
def test_what_changes(cast: Cast, index: int) -> None:
    film, row = film_of(cast, "change", index)
    mask = shown(film, name_of(row))
    area = mask.sum((1, 2)).astype(float)
    if row["target"] in ("grow", "shrink"):
        assert (area[-1] > 1.5 * area[0]) == (row["target"] == "grow")
        return
    centres = np.array([np.argwhere(frame).mean(0) for frame in mask])
    assert (np.ptp(centres, axis=0).max() > 20) == (row["target"] == "slide")


def test_choices_are_balanced_and_hold_the_answer(cast: Cast) -> None:
    for subset in ("direction", "order", "which_moves", "change"):
        rows = [make(cast, subset, "train", index)[2] for index in range(6)]
        assert all(row["target"] in row["choices"] and row["task"] == "vqa" for row in rows)
    targets = Counter(make(cast, "direction", "valid", index)[2]["target"] for index in range(8))
    assert set(targets.values()) == {2}


def test_the_test_style_never_acts_in_train(cast: Cast) -> None:
    for subset in clips.SUBSETS:
        for split in ("train", "valid", "test"):
            styles = {make(cast, subset, split, index)[2]["style"] for index in range(4)}
            assert styles <= {style for style, its_split in STYLES.items() if its_split == split}


def test_same_seed_same_bytes(cast: Cast) -> None:
    def data(index: int, seed: int = 0) -> bytes:
        _, film, row = make(cast, "which_moves", "train", index, seed=seed)
        return encode(film, row["fps"])

    assert data(3) == data(3)
    assert data(3) != data(4)
    assert data(3) != data(3, seed=1)


def test_films_are_short_and_keep_their_rate(cast: Cast) -> None:
    _, film, row = make(cast, "clip_names", "train", 0)
    with av.open(io.BytesIO(encode(film, row["fps"]))) as container:
        track = container.streams.video[0]
        assert track.codec_context.name == "h264"
        assert (track.average_rate, track.height, track.width) == (row["fps"], clips.SIZE, clips.SIZE)
    assert 16 <= len(film) <= 24
    assert "text" not in row
    assert row["task"] == "name"


def test_a_ball_does_not_turn_visibly() -> None:
    ball = Image.new("RGBA", (96, 96))
    ImageDraw.Draw(ball).ellipse((0, 0, 95, 95), fill=(200, 30, 30, 255))
    arrow = Image.new("RGBA", (96, 96))
    ImageDraw.Draw(arrow).polygon([(0, 0), (95, 20), (30, 95)], fill=(200, 30, 30, 255))
    assert not clips.turns_visibly(ball)
    assert clips.turns_visibly(arrow)


def test_unfinished_emoji_pack_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"concepts\.json: not there; build the pack `emoji` first"):
        Cast(tmp_path)


def animation(path: Path, frames: int = 73) -> None:
    pictures = []
    for frame in range(frames):
        picture = Image.new("RGBA", (64, 64))
        ImageDraw.Draw(picture).ellipse((frame % 40, 20, frame % 40 + 20, 40), fill=(200, 30, 30, 255))
        pictures.append(picture)
    pictures[0].save(path, save_all=True, append_images=pictures[1:], duration=42, lossless=True)


def test_animation_keeps_its_speed_on_white(tmp_path: Path) -> None:
    animation(tmp_path / "a.webp")
    film, fps = clips.read_animation(tmp_path / "a.webp")
    assert film.shape == (25, 160, 160, 3)  # every third of 73
    assert fps == round(25 / (73 * 0.042))
    assert (film[0, 0, 0] == 255).all()


def test_hexcodes_meet_concepts() -> None:
    assert plain_code("1f32c-fe0f") == ("1f32c", False)
    assert plain_code("1f385-1f3fb") == ("1f385", True)


def test_build_clips(packs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assets = tmp_path / "assets"
    assets.mkdir()
    for code in [*CODES.values(), "1f999", f"{CODES['redbird']}-1f3fb", f"{CODES['greenbird']}-1f3fb"]:
        animation(assets / f"{code}.webp", frames=3)
    monkeypatch.setattr(clips, "npm", lambda *_: Package("npm", "anim", "1", "0" * 64, tmp_path))
    folder = build("clips", packs, limit=3, force=True)
    rows = {path.name: [json.loads(line) for line in path.open()] for path in folder.glob("*.jsonl")}
    assert len(rows) == 5 * 3 + 2
    assert len({row["id"] for found in rows.values() for row in found}) == sum(map(len, rows.values()))
    for found in rows.values():
        for row in found:
            assert len(decode(folder / row["video"])) >= 3
    concepts = {split: {row["concept"] for row in rows[f"animated.{split}.jsonl"]} for split in ("train", "test")}
    assert not concepts["train"] & concepts["test"]
    assert concepts["train"] | concepts["test"] <= set(CODES.values())
    assert "MIT" in (folder / "NOTICE.md").read_text()


def test_build_clips_without_the_animations(packs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_: str) -> Package:
        raise MissingSource("npm package anim: the command npm is missing")

    monkeypatch.setattr(clips, "npm", missing)
    folder = build("clips", packs, limit=1, force=True)
    assert not list(folder.glob("animated.*"))
    assert "animated: npm package" in json.loads((folder / "sources.json").read_text())["skipped"][0]


UNIT = """
[attack]
    name=bow
    range=ranged
[/attack]
[attack_anim]
    [filter_attack]
        name=bow
    [/filter_attack]
    [frame]
        image="units/elves-wood/archer-draw-[1~3].png:100"
    [/frame]
[/attack_anim]
[standing_anim]
    image="units/elves-wood/archer-fly-[1~3].png:100"
[/standing_anim]
"""


def test_build_sprites(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    core = tmp_path / "usr/share/games/wesnoth/1.16/data/core"
    names = ("elves-wood/archer-draw-ne", "elves-wood/archer-fly", "orcs/grunt-die", "trolls/whelp/whelp-melee")
    for name in (*names, "bats/x-odd"):
        for number in (1, 2, 3):
            path = core / "images/units" / f"{name}-{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGBA", (72, 72), (0xEC, 0, 0x8C, 255)).save(path)
    (core / "units").mkdir()
    (core / "units/archer.cfg").write_text(UNIT)
    monkeypatch.setattr(sprites, "apt", lambda name: Package("apt", name, "1", "0" * 64, tmp_path))
    folder = build("sprites", tmp_path / "packs")
    rows = [json.loads(line) for path in sorted(folder.glob("*.jsonl")) for line in path.open()]
    found = {row["group"]: (row["family"], row["target"]) for row in rows}
    assert found == {
        "elves-wood/archer-draw-ne": ("elves-wood", "shoot"),  # the unit file says so
        "elves-wood/archer-fly": ("elves-wood", "move"),  # the word goes first
        "orcs/grunt-die": ("orcs", "die"),
        "trolls/whelp/whelp-melee": ("trolls", "attack"),
    }
    families = [{row["family"] for row in map(json.loads, path.open())} for path in folder.glob("*.jsonl")]
    assert sum(map(len, families)) == len(set.union(*families))
    assert len(decode(folder / rows[0]["video"])) == sprites.FRAMES
    assert "GPL" in (folder / "NOTICE.md").read_text()


def test_team_colour_replaces_magenta_only() -> None:
    picture = Image.new("RGBA", (2, 1), (0xEC, 0, 0x8C, 255))
    picture.putpixel((1, 0), (10, 120, 30, 255))
    painted = np.asarray(sprites.repaint(picture, np.array([0.0, 0.0, 1.0])))
    assert painted[0, 0, 2] > painted[0, 0, 0]
    assert tuple(painted[0, 1]) == (10, 120, 30, 255)


def test_no_wesnoth_data_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sprites, "apt", lambda name: Package("apt", name, "1", "0" * 64, tmp_path))
    with pytest.raises(InputError, match="holds no wesnoth data"):
        build("sprites", tmp_path / "packs")
