"""The pack `emoji`: the same things drawn by several hands, named in English and Japanese, alone and in small scenes.

    styles (packages) -> join by code point -> Concept -> one picture a style -> rows about single pictures
                                                       -> scenes of 2 to 6 stickers -> rows about places, numbers, order

A style is never split. `noto` draws every test picture and nothing else; `streamline` draws every valid picture and
nothing else; all others train. So a test asks whether a thing learnt from other drawings is known in an unseen hand.
The concepts of KEPT_OUT train nothing and are in no other test: `names_*_kept_out` asks for them, freely and by choice.

Other packs read `concepts.json` (see `read_concepts`) and `media/<style>/<hexcode>.png` (RGBA, 192 x 192).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from itertools import islice
from typing import Any

import numpy as np

from monoglot.data.packs.base import PACKS, Pack, PackWriter
from monoglot.data.packs.emoji_concepts import (
    SHAREALIKE,
    STYLES,
    TEST_STYLE,
    Concept,
    collect,
    confusable,
    picture_path,
    read_concepts,
    split_of,
    taught,
)
from monoglot.data.packs.emoji_scenes import scene_rows
from monoglot.data.packs.emoji_words import GROUPS, NOT_THINGS, is_plural, with_article
from monoglot.rng import stream

__all__ = ["STYLES", "Concept", "build_emoji", "read_concepts", "split_of", "taught"]

CHOICES = 10
"""Names to choose from where a free answer would be asking for a name that was never taught."""


def single_rows(writer: PackWriter, concepts: Sequence[Concept]) -> None:
    """names_en, names_ja, kinds, yesno, yesno_far (the other thing is any other); and names_*_sharealike, the pictures of OpenMoji."""
    askable = [concept for concept in concepts if concept.name not in NOT_THINGS]
    related: dict[str, list[Concept]] = defaultdict(list)
    for concept in askable:
        related[concept.subgroup].append(concept)
    licences = {style.name: style.licence for style in STYLES}
    same = same_drawings(writer, concepts)
    for concept in concepts:
        for style in concept.styles:
            split = split_of(style)
            image = f"media/{picture_path(style, concept.hexcode)}"
            held = {"style": style, "concept": concept.hexcode, "licence": licences[style]}

            def row(subset: str, task: str, text: str, targets: Sequence[str], lang: str = "en", **more: Any) -> None:
                key = f"emoji/{subset}/{style}/{concept.hexcode}" + (f"/{more.pop('part')}" if "part" in more else "")  # noqa: B023
                asked = {"id": key, "task": task, "image": image, "text": text, "lang": lang}  # noqa: B023
                answer = {"target": targets[0]} | ({"targets": list(targets)} if len(targets) > 1 else {})
                writer.add(subset, split, asked | answer | more | held)  # noqa: B023

            twins = [twin for twin in same[style, concept.hexcode] if twin is not concept]
            english = [*concept.names_en, *(twin.name for twin in twins)]
            japanese = [*concept.names_ja, *(twin.names_ja[0] for twin in twins)]
            if style == SHAREALIKE:
                row("names_en_sharealike", "name", "", english)
                row("names_ja_sharealike", "name", "", japanese, "ja")
                continue
            row("names_en", "name", "", english)
            row("names_ja", "name", "", japanese, "ja")
            row("kinds", "vqa", "what kind of thing is this?", [concept.kind], part="kind")
            choices = list(GROUPS.values())
            broad = "which broad group does this belong to?"
            row("kinds", "vqa", broad, [GROUPS[concept.group]], part="group", choices=choices)
            if concept.name in NOT_THINGS:
                continue
            rng = stream(writer.seed, "emoji", "yesno", style, concept.hexcode)
            near = related[concept.subgroup] if rng.random() < 0.5 else []
            other = pick_other(concept, near, rng) or pick_other(concept, askable, rng)
            row("yesno", "vqa", is_this(concept.name), ["yes"], part="yes", choices=["yes", "no"])
            if other is not None:
                row("yesno", "vqa", is_this(other.name), ["no"], part="no", choices=["yes", "no"], asked=other.hexcode)
            far = pick_other(concept, askable, stream(writer.seed, "emoji", "yesno_far", style, concept.hexcode))
            row("yesno_far", "vqa", is_this(concept.name), ["yes"], part="yes", choices=["yes", "no"])
            if far is not None:
                row("yesno_far", "vqa", is_this(far.name), ["no"], part="no", choices=["yes", "no"], asked=far.hexcode)


def kept_out_rows(writer: PackWriter, concepts: Sequence[Concept]) -> None:
    """names_en_kept_out, names_ja_kept_out: what is this?, and among CHOICES names of which none was ever taught."""
    kept = [concept for concept in concepts if concept.kept_out]
    licence = next(style.licence for style in STYLES if style.name == TEST_STYLE)
    for concept in kept:
        held = {"style": TEST_STYLE, "concept": concept.hexcode, "licence": licence}
        image = f"media/{picture_path(TEST_STYLE, concept.hexcode)}"
        others = pick_others(concept, kept, CHOICES - 1, stream(writer.seed, "emoji", "kept out", concept.hexcode))
        for lang, names in (("en", concept.names_en), ("ja", concept.names_ja)):
            row: dict[str, Any] = {
                "id": f"emoji/kept_out/{lang}/{concept.hexcode}",
                "task": "name",
                "image": image,
                "text": "",
            }
            row |= {"target": names[0], "lang": lang} | ({"targets": list(names)} if len(names) > 1 else {}) | held
            writer.add(f"names_{lang}_kept_out", "test", row)
            choices = sorted([names[0], *(o.name if lang == "en" else o.names_ja[0] for o in others)])
            named = {"id": f"{row['id']}/choices", "choices": choices, "target": names[0], "targets": [names[0]]}
            writer.add(f"choose_{lang}_kept_out", "test", row | named)


def pick_others(concept: Concept, among: Sequence[Concept], count: int, rng: np.random.Generator) -> list[Concept]:
    """Up to `count` of `among`, in random order, that nobody would take for `concept`."""
    order = (among[int(k)] for k in rng.permutation(len(among)))
    return list(islice((other for other in order if not confusable(concept, other, careful=True)), count))


def same_drawings(writer: PackWriter, concepts: Sequence[Concept]) -> dict[tuple[str, str], list[Concept]]:
    """{(style, hexcode): the concepts that this style draws with the very same picture, itself among them}."""
    shared: dict[tuple[str, bytes], list[Concept]] = defaultdict(list)
    found = {}
    for concept in concepts:
        for style in concept.styles:
            picture = (writer.folder / "media" / picture_path(style, concept.hexcode)).read_bytes()
            found[style, concept.hexcode] = shared[style, picture]
            found[style, concept.hexcode].append(concept)
    return found


def pick_other(concept: Concept, among: Sequence[Concept], rng: np.random.Generator) -> Concept | None:
    """One of `among` that nobody would take for `concept`; None if twenty draws find none."""
    for _ in range(20 if among else 0):
        other = among[int(rng.integers(len(among)))]
        if not confusable(concept, other, careful=True):
            return other
    return None


def is_this(name: str) -> str:
    """The question.

    >>> is_this("owl"), is_this("grapes")
    ('is this an owl?', 'are these grapes?')
    """
    return f"{'are these' if is_plural(name) else 'is this'} {with_article(name)}?"


def build_emoji(writer: PackWriter) -> None:
    """Draw all concepts, then write the rows about single pictures, then scenes and the rows about them."""
    concepts = collect(writer)
    single_rows(writer, taught(concepts))
    kept_out_rows(writer, concepts)
    scene_rows(writer, taught(concepts))


EMOJI = PACKS.add(
    "emoji",
    Pack(
        name="emoji",
        summary="things in 8 drawing styles: names (en, ja), kinds, yes or no; scenes to ground, count, order, caption",
        build=build_emoji,
    ),
)
