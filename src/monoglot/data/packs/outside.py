"""What packs of pictures from elsewhere share: none of them trains, each asks whether names learnt from drawings hold outside.

    a picture + what its makers call it -> Thing -> which emoji concept is that? -> taught | known | other -> rows

`taught`: drawings of it train, so its name is asked for freely. `known`: a concept that nothing trains on (KEPT_OUT), asked for
freely and among CHOICES names that were all kept out. `other`: no concept has this name; asked among CHOICES names of the same sort.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from monoglot.data.packs.base import PackWriter
from monoglot.data.packs.emoji_concepts import Concept, png, read_concepts, squash
from monoglot.data.packs.svg import render
from monoglot.rng import stream

SIDE = 256
"""Longer side of a picture, pixels."""
CHOICES = 10
"""Names to choose from."""
PALE = 0.85
"""Pictures brighter than this where they are seen (1: white) are laid on grey, for they would vanish on white."""


class Names:
    """Which emoji concepts a name means; case, marks, an article and the number aside.

    Args:
        concepts: of the pack `emoji`.
        also: {words: the first name of a concept}, for what is written in other words.
    """

    def __init__(self, concepts: Iterable[Concept], also: dict[str, str] | None = None):
        self._by_name: dict[str, list[Concept]] = {}
        for concept in concepts:
            for name in concept.names_en:
                self._by_name.setdefault(squash(name), []).append(concept)
        self._also = {squash(words): squash(name) for words, name in (also or {}).items()}

    @classmethod
    def of(cls, packs: Path, also: dict[str, str] | None = None) -> Names:
        """From the built pack `emoji` in the folder of all packs."""
        return cls(read_concepts(packs / "emoji"), also)

    def find(self, words: str) -> list[Concept]:
        """The concepts that share this name, those with it as their first name in front; empty if there is none."""
        word = squash(words)
        word = self._also.get(word, word)
        for form in (word, f"{word}s", re.sub("s$", "", word), re.sub("es$", "", word)):
            if form in self._by_name:
                return sorted(self._by_name[form], key=lambda concept: squash(concept.name) != form)
        return []


@dataclass(frozen=True)
class Thing:
    """A picture and its names."""

    id: str
    image: str
    """Path in the pack."""
    name: str
    """What its makers call it, without article."""
    name_ja: str
    sort: str
    """Wrong choices come from the same sort where it has enough."""
    concepts: tuple[Concept, ...]

    @cached_property
    def role(self) -> str:
        """'taught', 'known' or 'other'."""
        if not self.concepts:
            return "other"
        return "known" if any(concept.kept_out for concept in self.concepts) else "taught"

    def names(self, lang: str) -> list[str]:
        """Every name that counts as right, the usual one first."""
        if lang == "en":
            found = [*(name for c in self.concepts for name in c.names_en), self.name]
        else:
            found = [*(c.names_ja[0] for c in self.concepts), *([self.name_ja] if self.name_ja else [])]
        return list({name.lower(): name for name in found}.values())


def add_things(writer: PackWriter, things: Sequence[Thing], langs: Sequence[str], **held: Any) -> None:
    """Write `taught`, `known`, `known_choose` and `other_choose`, in each language with a suffix but English; all test."""
    for lang in langs:
        suffix = "" if lang == "en" else f"_{lang}"
        for thing in things:
            names = thing.names(lang)
            if not names:
                continue
            row = {"id": f"{writer.name}/{lang}/{thing.id}", "task": "name", "image": thing.image, "text": ""}
            row |= {"lang": lang, "target": names[0], "group": thing.names("en")[0]} | held
            if thing.role != "other":
                more = {"targets": names} if len(names) > 1 else {}
                writer.add(f"{thing.role}{suffix}", "test", row | more)
            if thing.role != "taught":
                wrong = others(thing, things, lang, stream(writer.seed, writer.name, "choices", lang, thing.id))
                if len(wrong) == CHOICES - 1:
                    asked = {"id": f"{row['id']}/choices", "choices": sorted([names[0], *wrong])}
                    writer.add(f"{thing.role}_choose{suffix}", "test", row | asked)


def others(thing: Thing, things: Sequence[Thing], lang: str, rng: np.random.Generator) -> list[str]:
    """CHOICES - 1 names of other things in the same role, of the same sort first, that share no word with its own."""
    own = {word for name in thing.names(lang) for word in _words(name)}
    right = {name.lower() for name in thing.names(lang)}
    found: dict[str, None] = {}
    shuffled = [things[int(k)] for k in rng.permutation(len(things))]
    for other in sorted(shuffled, key=lambda other: other.sort != thing.sort):
        names = other.names(lang)
        if other.role == thing.role and names and names[0].lower() not in right and not own & _words(names[0]):
            found.setdefault(names[0])
    return list(found)[: CHOICES - 1]


def _words(name: str) -> set[str]:
    return set(re.findall(r"\w+", name.lower()))


def opaque(picture: Image.Image) -> bytes:
    """A picture as the bytes of an RGB PNG of at most SIDE pixels, laid on white, or on grey if it is nearly white itself."""
    picture = picture.convert("RGBA")
    picture.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    values = np.asarray(picture, np.float32) / 255
    alpha = values[..., 3]
    bright = float((values[..., :3].mean(-1) * alpha).sum() / max(float(alpha.sum()), 1e-6))
    ground = Image.new("RGBA", picture.size, "grey" if bright > PALE and alpha.mean() < 0.99 else "white")
    ground.alpha_composite(picture)
    return png(ground.convert("RGB"))


def open_picture(data: bytes, name: str) -> Image.Image:
    """A picture file, or an SVG by its name's ending.

    Raises:
        MediaError, OSError: it cannot be read.
    """
    return render(data.decode("utf-8"), SIDE) if name.endswith(".svg") else Image.open(io.BytesIO(data))
