"""The pack `lineart`: OpenMoji's black line drawings of the emoji pack's concepts, without colour. All test.

    openmoji black/svg -> joined by code point -> Thing -> names of what is taught (en, ja); one of ten of what is not

Share-alike (CC BY-SA 4.0), and of the hand that draws `names_*_sharealike` in colour; nothing trains on either.
"""

from __future__ import annotations

import re

from monoglot.data.packs.base import PACKS, Pack, PackWriter
from monoglot.data.packs.emoji_concepts import SHAREALIKE, STYLES, draw, join_key, read_concepts
from monoglot.data.packs.fetch import MissingSource, npm
from monoglot.data.packs.outside import Thing, add_things, opaque, open_picture

COLOURS = r"\b(red|orange|yellow|green|blue|purple|brown|black|white|pink|gr[ae]y)\b"
"""Names with such a word are left out: an outline does not show it."""
STYLE = next(style for style in STYLES if style.name == SHAREALIKE)


def build(writer: PackWriter) -> None:
    """Draw every concept that OpenMoji has, and ask for its name."""
    package = npm(STYLE.package, STYLE.version)
    writer.source(package)
    drawings = {join_key(path.stem): path for path in sorted(package.folder.glob("black/svg/*.svg"))}
    concepts = [
        c for c in read_concepts(writer.out / "emoji") if c.hexcode in drawings and not re.search(COLOURS, c.name)
    ]
    if not concepts:
        raise MissingSource(f"{STYLE.package}: holds no line drawings under black/svg; the package has changed")
    if writer.limit is not None:
        concepts = concepts[: writer.limit]
    things = []
    for concept in writer.track(concepts, "line drawings"):
        picture = opaque(open_picture(draw(drawings[concept.hexcode]), "drawing.png"))
        image = writer.media(f"{concept.hexcode}.png", picture)
        things.append(Thing(concept.hexcode, image, concept.name, "", concept.group, (concept,)))
    add_things(writer, things, ("en", "ja"), licence=STYLE.licence)
    note = f"{STYLE.credit}. Changes: the outlines, drawn to pixels on white."
    writer.notice(f"{STYLE.package} {STYLE.version}, black", STYLE.licence, note)


PACKS.add(
    "lineart",
    Pack("lineart", "OpenMoji's black line drawings: names (en, ja); CC BY-SA, tests only", build, ("emoji",)),
)
