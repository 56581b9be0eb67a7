"""The pack `spoken`: names of emoji by synthetic voices, and whether a picture and a spoken name belong together.

    emoji pack's concepts -> espeak-ng reads each name -> {picture, sound} -> yes or no;  {sound} -> its words

A test hears voices (accent and timbre both) and sees a drawing style (noto) that never trained; the names are the same.
Pictures stay where the pack `emoji` put them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from monoglot.data.packs.base import PACKS, Pack, PackWriter
from monoglot.data.packs.emoji import STYLES, Concept, pick_other, read_concepts, taught
from monoglot.data.packs.sounds import flac, slug, trim
from monoglot.data.packs.speech import SPEECH_RATE, VOICES, Voice, draw_voice, espeak, espeak_package
from monoglot.rng import stream

TAKES = {"train": 2, "valid": 1, "test": 1}
"""How many times a name is spoken in a split."""
NAMES = {"train": None, "valid": 200, "test": 500}
"""How many names `spoken_names` asks for; None: all."""
PAIRS = {"train": 3000, "valid": 200, "test": 500}
"""Rows of `matching`: half yes, half no; half of the wrong names come from the picture's own subgroup."""


def speakable(concepts: Sequence[Concept]) -> list[Concept]:
    """Concepts whose name is plain words and nobody else's."""
    names = [concept.name for concept in concepts]
    return [c for c in concepts if re.fullmatch(r"[A-Za-z][A-Za-z' -]+", c.name) and names.count(c.name) == 1]


class Studio:
    """Records names in the voices of one split, each take once."""

    def __init__(self, writer: PackWriter, split: str):
        self.writer, self.split = writer, split
        self._takes: dict[tuple[str, int], tuple[str, Voice]] = {}

    def record(self, concept: Concept, take: int) -> tuple[str, Voice]:
        """The path and the voice of one take of a concept's name."""
        key = (concept.hexcode, take)
        if key not in self._takes:
            voice = draw_voice(self.split, stream(self.writer.seed, "spoken", "voice", self.split, *key))
            speech = flac(trim(espeak(concept.name, voice), SPEECH_RATE), SPEECH_RATE)
            path = self.writer.media(f"{self.split}/{slug(concept.name)}-{take}.flac", speech)
            self._takes[key] = path, voice
        return self._takes[key]


def add_names(writer: PackWriter, studio: Studio, concepts: Sequence[Concept]) -> None:
    """Write `spoken_names`: what is said?"""
    split, count = studio.split, NAMES[studio.split]
    order = stream(writer.seed, "spoken", "names", split).permutation(len(concepts))[:count]
    for index in writer.track(sorted(int(k) for k in order), f"names, {split}"):
        for take in range(TAKES[split]):
            if writer.full("spoken_names", split):
                return
            concept = concepts[index]
            audio, voice = studio.record(concept, take)
            row = {"id": f"spoken_names/{split}/{concept.hexcode}/{take}", "task": "transcribe", "audio": audio}
            row |= {"text": "", "target": concept.name, "concept": concept.hexcode, "licence": "MIT"}
            writer.add("spoken_names", split, row | voice.fields)


def add_pairs(writer: PackWriter, studio: Studio, concepts: Sequence[Concept]) -> None:
    """Write `matching`: does the spoken name belong to the picture?"""
    split = studio.split
    licences = {style.name: style.licence for style in STYLES if style.split == split and "SA" not in style.licence}
    drawn = [concept for concept in concepts if set(concept.styles) & set(licences)]
    related: dict[str, list[Concept]] = {}
    for concept in concepts:
        related.setdefault(concept.subgroup, []).append(concept)
    for number in writer.track(range(min(PAIRS[split], 4 * len(drawn))), f"pairs, {split}"):
        if writer.full("matching", split):
            return
        chance = stream(writer.seed, "spoken", "pair", split, number)
        # Go round all pictures in a new order each time; each round answers yes to every second picture.
        turn, place = divmod(number, len(drawn))
        concept = drawn[int(stream(writer.seed, "spoken", "round", split, turn).permutation(len(drawn))[place])]
        styles = [style for style in concept.styles if style in licences]
        style = styles[int(chance.integers(len(styles)))]
        said, hard = concept, False
        if number % 2:
            near = pick_other(concept, related[concept.subgroup], chance) if number % 4 == 1 else None
            far = near or pick_other(concept, concepts, chance)
            if far is None:
                continue
            said, hard = far, near is not None
        audio, voice = studio.record(said, int(chance.integers(TAKES[split])))
        row = {
            "id": f"matching/{split}/{number:04d}",
            "task": "matching",
            "image": f"../emoji/media/{style}/{concept.hexcode}.png",
            "audio": audio,
            "text": "",
            "target": "yes" if said is concept else "no",
            "choices": ["yes", "no"],
            "style": style,
            "voice": voice.name,
            "concept": concept.hexcode,
            "spoken": said.hexcode,
            "hard": hard,
            "licence": licences[style],
        }
        writer.add("matching", split, row)


def build(writer: PackWriter) -> None:
    """Speak the names of the emoji pack's concepts and pair them with its pictures."""
    program = espeak_package()
    writer.source(program)
    concepts = speakable(taught(read_concepts(writer.out / "emoji")))
    for split in VOICES:
        studio = Studio(writer, split)
        add_names(writer, studio, concepts)
        add_pairs(writer, studio, concepts)
    writer.notice(f"Speech by espeak-ng {program.version}", "GPL-3+ for the program, not for what it says", "")
    writer.notice("Names and pictures", "see the NOTICE.md of the pack `emoji`", "Each row says its picture's licence.")


PACKS.add("spoken", Pack("spoken", "spoken names: what is said, and does it belong to the picture", build, ("emoji",)))
