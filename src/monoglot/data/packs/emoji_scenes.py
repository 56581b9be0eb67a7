"""Scenes of the pack `emoji`: stickers laid out on a background, and what can be asked about them.

Cast (who may play) -> compose -> Scene (picture + where each sticker is seen) -> ask -> rows
"""

from __future__ import annotations

import io
import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from monoglot.data.packs.base import PackWriter
from monoglot.data.packs.emoji_concepts import SHAREALIKE, STYLES, Concept, confusable, in_scenes, is_countable
from monoglot.data.packs.emoji_words import PLAIN, is_plural, listing, plural, with_article
from monoglot.nouns import Box
from monoglot.rng import stream

SCENE = 224
"""Side of a scene, pixels."""
SCENES = {"train": 6000, "valid": 300, "test": 800}
"""How many scenes a split has."""
VISIBLE = 8
"""A pixel of a sticker counts as seen from this alpha (of 255) on; below lie the hardly visible tails of soft edges."""
ONES = {"train": 4000, "valid": 100, "test": 200}
"""How many scenes of a single sticker a split has: where it is, before there is anything to tell it from."""
OVERLAP = 0.05
"""Largest IoU of two stickers' boxes in a scene."""


@dataclass(frozen=True)
class Sticker:
    """One picture in a scene. `box` is tight around what is seen of it, as fractions of the scene."""

    concept: Concept
    style: str
    box: Box

    @property
    def centre(self) -> tuple[float, float]:
        x0, y0, x1, y1 = self.box
        return (x0 + x1) / 2, (y0 + y1) / 2


@dataclass(frozen=True)
class Scene:
    """A composed picture and what lies where. `kind` is 'mixed', 'pair', 'count' or 'one'."""

    kind: str
    picture: Image.Image
    stickers: tuple[Sticker, ...]


def scene_rows(writer: PackWriter, concepts: Sequence[Concept]) -> None:
    """grounding, region_caption, counting, leftright, captions, matching, all from the same scenes; grounding_one from others."""
    for split in SCENES:
        styles = [s.name for s in STYLES if s.split == split and s.name != SHAREALIKE]
        cast = Cast(writer.folder / "media", concepts, styles)
        if len(cast.all) < 8:
            writer.skip(f"scenes of {split}", f"its styles draw only {len(cast.all)} things")
            continue
        for prefix, make, wanted in (("", compose, SCENES[split]), ("one-", compose_one, ONES[split])):
            count = wanted if writer.limit is None else min(wanted, writer.limit)
            for index in writer.track(range(count), f"{split} scenes"):
                rng = stream(writer.seed, "emoji", f"{prefix}scene", split, index)
                scene = make(cast, rng)
                file = io.BytesIO()
                scene.picture.save(file, "JPEG", quality=92)
                image = writer.media(f"scenes/{prefix}{split}-{index:05d}.jpg", file.getvalue())
                used = {sticker.style for sticker in scene.stickers}
                held = {
                    "style": "+".join(sorted(used)),
                    "concepts": [sticker.concept.hexcode for sticker in scene.stickers],
                    "licence": " AND ".join(sorted({s.licence for s in STYLES if s.name in used})),
                }
                for number, (subset, row) in enumerate(ask(scene, cast, rng)):
                    asked = {"id": f"emoji/{prefix}scene/{split}/{index:05d}/{number}", "image": image, "lang": "en"}
                    writer.add(subset, split, asked | row | held)


class Cast:
    """Who may play in the scenes of one split: each style's things, and their pictures."""

    def __init__(self, media: Path, concepts: Sequence[Concept], styles: Sequence[str]):
        self.by_style = {s: [c for c in concepts if s in c.styles and in_scenes(c)] for s in styles}
        self.by_style = {style: found for style, found in self.by_style.items() if len(found) >= 8}
        self.styles = list(self.by_style)
        playing = {c.hexcode for found in self.by_style.values() for c in found}
        self.all = [c for c in concepts if c.hexcode in playing]
        self.picture = lru_cache(maxsize=512)(
            lambda style, code: Image.open(media / style / f"{code}.png").convert("RGBA")
        )

    def draw(
        self, rng: np.random.Generator, taken: Iterable[Concept], style: str | None, *, countable: bool = False
    ) -> tuple[Concept, str]:
        """A thing that cannot be confused with those taken, and the style that draws it."""
        taken = list(taken)
        while True:
            hand = style or self.styles[int(rng.integers(len(self.styles)))]
            found = self.by_style[hand]
            concept = found[int(rng.integers(len(found)))]
            if countable and not is_countable(concept):
                continue
            if not any(confusable(concept, other) for other in taken):
                return concept, hand


def compose(cast: Cast, rng: np.random.Generator) -> Scene:
    """Draw one scene. Half keep to one style, as pictures in the world do; half mix styles, to teach the thing."""
    while True:  # a crowded attempt is thrown away whole, so that sizes stay independent of luck
        kind = ("mixed", "mixed", "pair", "count")[int(rng.integers(4))]
        style = cast.styles[int(rng.integers(len(cast.styles)))] if rng.random() < 0.5 else None
        things: list[tuple[Concept, str]] = []
        if kind == "count":
            first = cast.draw(rng, (), style, countable=True)
            copies = int(rng.integers(1, 6))
            others = int(rng.integers(min(1, 5 - copies), 7 - copies))  # at most six stickers
            things = [first] * copies
        else:
            others = 2 if kind == "pair" else int(rng.integers(3, 6))
        for _ in range(others):
            things.append(cast.draw(rng, {c for c, _ in things}, style))
        things = [things[int(i)] for i in rng.permutation(len(things))]
        scene = _lay_out(kind, things, cast, rng)
        if scene is not None:
            return scene


def compose_one(cast: Cast, rng: np.random.Generator) -> Scene:
    """Draw a scene of one sticker."""
    while (scene := _lay_out("one", [cast.draw(rng, (), None)], cast, rng)) is None:
        pass
    return scene


def _lay_out(kind: str, things: Sequence[tuple[Concept, str]], cast: Cast, rng: np.random.Generator) -> Scene | None:
    """Find a place for every sticker and paste them; None when they do not fit."""
    largest = {1: 0.6, 2: 0.48, 3: 0.44, 4: 0.38, 5: 0.34}.get(len(things), 0.30)
    layers: list[tuple[Image.Image, int, int]] = []
    boxes: list[tuple[int, int, int, int]] = []
    for concept, style in things:
        sticker = turn(cast.picture(style, concept.hexcode), concept, SCENE * rng.uniform(0.22, largest), rng)
        for _ in range(40):
            x, y = (int(rng.integers(0, SCENE - side + 1)) for side in sticker.size)
            box = (x, y, x + sticker.width, y + sticker.height)
            if all(overlap(box, other) < OVERLAP for other in boxes):
                break
        else:
            return None
        layers.append((sticker, x, y))
        boxes.append(box)
    picture = background(rng)
    seen: list[np.ndarray] = []
    for sticker, x, y in layers:
        picture.paste(sticker, (x, y), sticker)
        alpha = np.zeros((SCENE, SCENE), np.uint8)
        alpha[y : y + sticker.height, x : x + sticker.width] = np.asarray(sticker)[..., 3]
        seen = [mask & (alpha < 128) for mask in seen]  # what lies on top hides what is below
        seen.append(alpha >= VISIBLE)
    stickers = tuple(Sticker(c, s, tight_box(mask)) for (c, s), mask in zip(things, seen))
    return Scene(kind, picture, stickers)


def turn(picture: Image.Image, concept: Concept, side: float, rng: np.random.Generator) -> Image.Image:
    """A picture as a sticker: scaled to a longer side of `side` pixels, then turned a little, perhaps mirrored."""
    if concept.group in ("animals-nature", "food-drink") and rng.random() < 0.5:
        picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    # Clear pixels may hold any colour, which would bleed into the edges: work with alpha multiplied in.
    picture = crop(picture.convert("RGBa"))
    scale = side / max(picture.size)
    width, height = (max(1, round(length * scale)) for length in picture.size)
    small = picture.resize((width, height), Image.Resampling.LANCZOS)
    return crop(small.rotate(rng.uniform(-12, 12), Image.Resampling.BICUBIC, expand=True)).convert("RGBA")


_SEEN = [0] * VISIBLE + [255] * (256 - VISIBLE)


def crop(picture: Image.Image) -> Image.Image:
    """Cut away what is not seen around a picture (RGBA or RGBa)."""
    box = picture.getchannel(3).point(_SEEN).getbbox()
    return picture.crop(box) if box else picture


def overlap(a: Sequence[float], b: Sequence[float]) -> float:
    """How much two boxes share: their intersection over their union."""
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (a, b)]
    return width * height / (sum(areas) - width * height)


def tight_box(mask: np.ndarray) -> Box:
    """bool[H, W] -> the box around its true pixels, as fractions.

    >>> tight_box(np.array([[False, False], [False, True]]))
    (0.5, 0.5, 1.0, 1.0)
    """
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    height, width = mask.shape
    x0, x1 = int(columns[0]) / width, (int(columns[-1]) + 1) / width
    y0, y1 = int(rows[0]) / height, (int(rows[-1]) + 1) / height
    return round(x0, 4), round(y0, 4), round(x1, 4), round(y1, 4)


def background(rng: np.random.Generator) -> Image.Image:
    """A plain, graded or lightly textured square, mostly light."""
    base = rng.uniform(0.62, 1.0, 3) if rng.random() < 0.8 else rng.uniform(0.05, 0.4, 3)
    field = np.broadcast_to(base.astype(np.float32), (SCENE, SCENE, 3)).copy()
    y, x = np.meshgrid(*[np.arange(SCENE, dtype=np.float32) / SCENE] * 2, indexing="ij")
    pattern = ("plain", "graded", "stripes", "dots", "grain")[int(rng.integers(5))]
    angle = rng.uniform(0, 2 * math.pi)
    along = x * math.cos(angle) + y * math.sin(angle)
    if pattern == "graded":
        field += ((along - along.min()) / np.ptp(along) * 0.35)[..., None] * rng.uniform(-1, 1, 3)
    elif pattern == "stripes":
        field += (np.sin(along * rng.uniform(30, 120)) > 0)[..., None] * rng.uniform(-0.07, 0.07, 3)
    elif pattern == "dots":
        step = rng.uniform(0.05, 0.14)
        dots = (x % step - step / 2) ** 2 + (y % step - step / 2) ** 2 < (step * 0.22) ** 2
        field += dots[..., None] * rng.uniform(-0.09, 0.09, 3)
    elif pattern == "grain":
        field += rng.normal(0, 0.02, (SCENE, SCENE, 1))
    return Image.fromarray((field.clip(0, 1) * 255).astype(np.uint8))


# Rows about scenes ----------------------------------------------------------------------------------------------------


def ask(scene: Scene, cast: Cast, rng: np.random.Generator) -> Iterator[tuple[str, dict[str, Any]]]:
    """(subset, row) for everything that one scene can teach."""
    if scene.kind == "one":
        (only,) = scene.stickers
        yield "grounding_one", {"task": "grounding", "text": only.concept.name, "box": list(only.box)}
        return
    tally: dict[str, int] = defaultdict(int)
    for sticker in scene.stickers:
        tally[sticker.concept.name] += 1
    unique = [s for s in scene.stickers if tally[s.concept.name] == 1]
    shuffled = [unique[int(i)] for i in rng.permutation(len(unique))]

    for sticker in shuffled[:2]:
        yield "grounding", {"task": "grounding", "text": sticker.concept.name, "box": list(sticker.box)}
    for sticker in shuffled[-2:]:
        row = {"task": "region_caption", "text": "", "box": list(sticker.box)}
        yield "region_caption", row | _targets(sticker.concept)
    if scene.kind == "count":
        countable = [s.concept for s in scene.stickers if is_countable(s.concept)]
        repeated = max(countable, key=lambda concept: tally[concept.name])
        others = [s.concept for s in shuffled if is_countable(s.concept) and s.concept != repeated]
        asked = [repeated, *others[:1]]
        for concept in asked[: 2 if rng.random() < 0.3 else 1]:
            text = f"how many {plural(concept.name)} are there?"
            yield "counting", {"task": "vqa", "text": text, "target": str(tally[concept.name])}
    if scene.kind == "pair":
        yield from _order(scene, rng)
    caption = None
    if scene.kind != "count":
        ordered = sorted(scene.stickers, key=lambda s: s.centre[0])
        gaps = [b.centre[0] - a.centre[0] for a, b in pairwise(ordered)]
        if min(gaps) > 0.06:  # otherwise "from left to right" is a matter of taste
            caption = [s.concept for s in ordered]
            yield "captions", {"task": "caption", "text": "", "target": listing([c.name for c in caption])}
    yield from _matching(scene, cast, caption, rng)


def _targets(concept: Concept) -> dict[str, Any]:
    more = {"targets": list(concept.names_en)} if len(concept.names_en) > 1 else {}
    return {"target": concept.name} | more


def _order(scene: Scene, rng: np.random.Generator) -> Iterator[tuple[str, dict[str, Any]]]:
    """Left or right, above or below, when it is plain to see."""
    a, b = scene.stickers if rng.random() < 0.5 else scene.stickers[::-1]
    across, down = (a.centre[i] - b.centre[i] for i in (0, 1))
    for distance, before, after in ((across, "left", "right"), (down, "above", "below")):
        if abs(distance) < 0.12:
            continue
        word = before if distance < 0 else after
        lead = f"{'are' if is_plural(a.concept.name) else 'is'} {_the(a.concept)}"
        of = " of" if before == "left" else ""
        text = f"{lead} {before} or {after}{of} {_the(b.concept)}?"
        yield "leftright", {"task": "vqa", "text": text, "target": word, "choices": [before, after]}
        text = f"what is {word}{of} {_the(b.concept)}?"
        yield "leftright", {"task": "vqa", "text": text} | _targets(a.concept)


def _the(concept: Concept) -> str:
    return concept.name if concept.name in PLAIN else f"the {concept.name}"


def _matching(
    scene: Scene, cast: Cast, caption: list[Concept] | None, rng: np.random.Generator
) -> Iterator[tuple[str, dict[str, Any]]]:
    """One text that fits and one that does not: both names, or both captions that differ in one name."""
    there = [sticker.concept for sticker in scene.stickers]
    one = there[int(rng.integers(len(there)))]
    near = [c for c in cast.all if c.subgroup == one.subgroup] if rng.random() < 0.5 else cast.all
    absent = _absent(near, there, rng) or _absent(cast.all, there, rng)
    if absent is None:
        return
    if caption is not None and rng.random() < 0.5:
        right, wrong = listing([c.name for c in caption]), listing([(absent if c == one else c).name for c in caption])
    else:
        right, wrong = with_article(one.name), with_article(absent.name)
    for text, target in ((right, "yes"), (wrong, "no")):
        yield "matching", {"task": "matching", "text": text, "target": target, "choices": ["yes", "no"]}


def _absent(among: Sequence[Concept], there: Sequence[Concept], rng: np.random.Generator) -> Concept | None:
    for _ in range(20 if among else 0):
        other = among[int(rng.integers(len(among)))]
        if not any(confusable(other, concept) for concept in there):
            return other
    return None
