"""The pack `stamps`: Tux Paint's stamps, photo cut-outs and drawings by many hands, with captions in English and Japanese. All test.

    stamp.png | stamp.svg + stamp.txt -> caption -> what it is called -> Thing -> rows;  stamp_desc.ogg -> what is said

GPL-2: for tests on your own machine; no weights that ship have seen it. `known_concepts.json` lists the concepts of KEPT_OUT that
were found, with the captions that say them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from monoglot.data.packs import fetch
from monoglot.data.packs.base import PACKS, Pack, PackWriter, write_atomic
from monoglot.data.packs.outside import Names, Thing, add_things, opaque, open_picture
from monoglot.data.packs.sounds import flac, read_mono, slug, trim
from monoglot.data.packs.speech import SPEECH_RATE
from monoglot.errors import InputError

LICENCE = "GPL-2.0"
LONGEST = 5
"""Words; longer captions are sentences about a thing, not its name."""
LEFT_OUT = r"symbols/(alphabets|math|money|chess|music|faces)|town/roadsigns/(?!no_?entry|stop)|seasonal/hanukkah|military/ammunition"
"""Folders whose captions are signs, letters and rules of games."""
SAY_NO_NAME = r"^(eat|enter|say|remember|down at|it's|this|that|we|with|please|because|you|left|right|penguins|tux) ?\b"

ALSO: dict[str, str] = {  # a caption's words -> the emoji that shows the same
    **dict.fromkeys(("bunny", "floppy-eared bunny", "little rabbit", "big eared rabbit"), "rabbit"),
    **dict.fromkeys(("Magellanic penguin", "little penguin"), "penguin"),
    **dict.fromkeys(("cup of coffee", "cup of espresso coffee"), "hot beverage"),
    **dict.fromkeys(("digital camera", "big digital camera"), "camera"),
    **dict.fromkeys(("gravestone", "tombstone", "grave marker", "another tombstone"), "headstone"),
    **dict.fromkeys(("bunch of grapes", "cluster of grapes"), "grapes"),
    **dict.fromkeys(("garlic bulb", "string of garlic"), "garlic"),
    **dict.fromkeys(("lemon slice", "yellow lemon"), "lemon"),
    **dict.fromkeys(("head of lettuce", "head of red lettuce"), "leafy green"),
    **dict.fromkeys(("jacket", "grey jacket"), "coat"),
    **dict.fromkeys(("classical guitar", "electric guitar"), "guitar"),
    **dict.fromkeys(("open scissors", "closed scissors"), "scissors"),
    **dict.fromkeys(("green bus", "double decker bus", "yellow school bus"), "bus"),
    **dict.fromkeys(("race car", "formula one race car"), "racing car"),
    **dict.fromkeys(("sports car", "sedan car"), "automobile"),
    **dict.fromkeys(("inkjet printer", "laser printer"), "printer"),
    **dict.fromkeys(("green pepper", "yellow pepper"), "bell pepper"),
    **dict.fromkeys(("blue eye", "brown eye", "green eye", "yellow eye"), "eye"),
    **dict.fromkeys(("lit candle", "tealight candle"), "candle"),
    **dict.fromkeys(("“Sierra Beauty” apple", "“Fuji” apple"), "red apple"),
    "“Granny Smith” apple": "green apple",
    "chick": "baby chick",
    "closed padlock": "locked",
    "open padlock": "unlocked",
    "laptop computer": "laptop",
    "mobile telephone": "mobile phone",
    "trophy cup": "trophy",
    "saw": "carpentry saw",
    "sheep": "ewe",
    "avocado fruit": "avocado",
    "motor bike": "motorcycle",
    "tennis ball": "tennis",
    "steam locomotive": "locomotive",
    "white locomotive": "train",
    "chile pepper": "hot pepper",
    "knife": "kitchen knife",
    "happy snail": "snail",
    "male black rhino": "rhinoceros",
    "dromedary": "camel",
    "blue bicycle": "bicycle",
    "ripe, red tomato": "tomato",
    "brown potato": "potato",
    "sweet yellow corn": "ear of corn",
    "red umbrella": "umbrella",
    "pink flamingo": "flamingo",
    "colorful rooster": "rooster",
    "brown hen": "chicken",
    "blue jeans": "jeans",
    "yellow pear": "pear",
    "sliced orange": "orange",
    "sliced lime": "lime",
    "white kitten": "cat",
    "black dress": "dress",
    "red high-heeled shoe": "high-heeled shoe",
    "yellow hard hat": "rescue worker's helmet",
    "ball point pen": "pen",
    "large paintbrush": "paintbrush",
    "baseball cap": "billed cap",
    "big fireworks": "fireworks",
    "two wild boars": "boar",
    "Sumatran tiger": "tiger",
    "Tamworth pig": "pig",
    "red kangaroo": "kangaroo",
    "monarch butterfly": "butterfly",
    "european bear": "bear",
    "happy lion": "lion",
    "toy rocket": "rocket",
    "silver garbage can": "wastebasket",
    "quarter of pizza": "pizza",
    "red handbag": "handbag",
    "passenger carriage": "railway car",
    "four leaf clover is said to bring good luck": "four leaf clover",
}


@dataclass(frozen=True)
class Stamp:
    """One stamp: its place below `stamps`, without suffix, its picture and its captions."""

    path: str
    picture: Path
    caption: str
    caption_ja: str
    speech: Path | None
    """The English caption, read by somebody."""


def called(caption: str) -> str:
    """What a caption calls the thing: its first sentence without article, "pair of" and full stop.

    >>> called("A pair of glasses."), called("A camera.  Say Cheese!"), called("A baby sheep (a lamb).")
    ('glasses', 'camera', 'baby sheep')
    """
    first = re.split(r"(?<=[.!?])\s", caption.strip())[0].strip(" .!?。！")
    bare = re.sub(r"\s*\(.*?\)", "", first)
    return re.sub(r"^(an?|the|some)\s+(pair of\s+)?", "", bare, flags=re.IGNORECASE)


def read_stamps(folder: Path) -> Iterator[Stamp]:
    """Every stamp that has a picture and a caption and shows a thing, in order of its path."""
    for text in sorted(folder.rglob("*.txt")):
        path = text.relative_to(folder).with_suffix("").as_posix()
        picture = next((p for p in (text.with_suffix(".png"), text.with_suffix(".svg")) if p.is_file()), None)
        lines = text.read_text(encoding="utf-8").splitlines()
        if picture is None or not lines or not lines[0].strip() or re.match(LEFT_OUT, path):
            continue
        japanese = next((line.partition("=")[2] for line in lines if line.startswith("ja.utf8=")), "")
        speech = text.with_name(f"{text.stem}_desc.ogg")
        yield Stamp(path, picture, lines[0].strip(), japanese.strip(), speech if speech.is_file() else None)


def plain_ja(caption: str) -> str:
    """A Japanese caption as a name: no full stop, spaces between phrases closed.

    >>> plain_ja("おおきな アオサギ。")
    'おおきなアオサギ'
    """
    return re.sub(r"\s+", "", caption).strip("。.！!")


def build(writer: PackWriter) -> None:
    """Write the rows about pictures, then what is said."""
    package = fetch.apt("tuxpaint-stamps-default")
    writer.source(package)
    names = Names.of(writer.out, ALSO)
    things: list[Thing] = []
    said: dict[str, set[str]] = {}
    for stamp in writer.track(list(read_stamps(package.folder / "usr/share/tuxpaint/stamps")), "stamps"):
        name = called(stamp.caption)
        concepts = tuple(names.find(name))
        if not concepts and (len(name.split()) > LONGEST or re.match(SAY_NO_NAME, name.lower())):
            continue
        try:
            picture = opaque(open_picture(stamp.picture.read_bytes(), stamp.picture.name))
        except (InputError, OSError) as unreadable:
            writer.skip(stamp.path, unreadable)
            continue
        image = writer.media(f"{stamp.path}.png", picture)
        sort = stamp.path.split("/")[0]
        things.append(Thing(stamp.path, image, name, plain_ja(stamp.caption_ja), sort, concepts))
        for concept in concepts:
            if concept.kept_out:
                said.setdefault(concept.name, set()).add(stamp.caption)
        if stamp.speech:
            add_speech(writer, stamp)
    add_things(writer, things, ("en", "ja"), licence=LICENCE)
    known = {name: sorted(captions) for name, captions in sorted(said.items())}
    write_atomic(writer.folder / "known_concepts.json", json.dumps(known, ensure_ascii=False, indent=1).encode())
    writer.notice(
        f"Tux Paint stamps (apt {package.name} {package.version})",
        LICENCE,
        "Copyright 2002-2022 Bill Kendrick and the contributors of Tux Paint, https://tuxpaint.org. Pictures made smaller and laid "
        "on white or grey, speech converted to FLAC.",
    )


def add_speech(writer: PackWriter, stamp: Stamp) -> None:
    """Write a row of `speech`: the caption, as somebody reads it whose voice is in no other pack."""
    assert stamp.speech is not None
    sound = flac(trim(read_mono(stamp.speech, SPEECH_RATE), SPEECH_RATE, longest=20.0), SPEECH_RATE)
    audio = writer.media(f"speech/{slug(stamp.path)}.flac", sound)
    row = {"id": f"stamps/speech/{stamp.path}", "task": "transcribe", "audio": audio, "text": ""}
    writer.add("speech", "test", row | {"target": stamp.caption.strip(" ."), "licence": LICENCE})


PACKS.add(
    "stamps",
    Pack(
        "stamps",
        "Tux Paint's photo cut-outs and drawings: names (en, ja); spoken captions; GPL-2, tests only",
        build,
        ("emoji",),
    ),
)
