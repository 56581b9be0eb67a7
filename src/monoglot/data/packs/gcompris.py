"""The pack `gcompris`: photographs, word cards, instruments and animal voices of GCompris, a suite of games for children. All test.

    *.rcc -> files by name -> Thing -> names;  photographs by subject -> which kind is this?;  picture + sound -> do they belong together?

GPL-3: for tests on your own machine; no weights that ship have seen it.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from monoglot.data.packs import fetch
from monoglot.data.packs.base import PACKS, Pack, PackWriter
from monoglot.data.packs.outside import CHOICES, Names, Thing, add_things, opaque, open_picture
from monoglot.data.packs.sounds import RATE, flac, read_mono, slug, trim
from monoglot.errors import MediaError
from monoglot.rng import stream

LICENCE = "GPL-3.0-or-later"

PHOTOS = {  # file's stem without its number -> what is seen; others are views of places, or show several things
    **{name: name for name in ("scissors", "sickle", "multimeter", "wrench", "hammer", "windmill", "dam", "fish")},
    **{
        name: name
        for name in ("chair", "baseball", "volleyball", "igloo", "pillow", "plate", "cup", "bucket", "pencil")
    },
    **{"tweezer": "tweezers", "screwDriver": "screwdriver", "plier": "pliers", "nailCutter": "nail clipper"},
    **{"measuringTape": "measuring tape", "spray": "spray bottle", "solar": "solar panel", "bulb": "light bulb"},
    **{"spoons": "spoons", "pan": "frying pan", "erasers": "eraser", "weighingMachine": "scales"},
    **{
        "leaningTowerOfPisa": "leaning tower of Pisa",
        "eiffelTower": "Eiffel tower",
        "greatWall": "Great Wall of China",
    },
    **{"tajMahal": "Taj Mahal", "colosseum": "Colosseum", "parthenon": "Parthenon", "greatPyramid": "pyramid"},
    **{"statueOfLiberty": "Statue of Liberty", "mountRushmore": "Mount Rushmore", "operaHouse": "opera house"},
    **{name: name for name in ("dog", "cow", "cat", "chicken", "horse", "duck", "sheep", "owl", "pig", "crocodile")},
    **{
        name: name
        for name in ("giraffe", "koala", "bison", "jaguar", "hedgehog", "kangaroo", "narwhal", "moose", "panda")
    },
    **{"chameleon": "chameleon", "lemur": "lemur", "polar_bear": "polar bear", "scarlet_macaw": "parrot"},
}
UNCLEAR = {"screwDriver3", "measuringTape5", "solar1", "solar2", "solar3", "wrench2", "chickens"}
"""Files that show another thing than the others of their name, or hardly anything of it."""
KINDS = {"tools": "tool", "fishes": "fish", "monuments": "monument", "renewable": "power station"}
"""Folder of photographs -> the answer to KIND_QUESTION."""
KIND_QUESTION = "what kind of thing is this?"
CARDS = """
    apple bear bee beetle bird butterfly camel cat chicken coconut cow dog dolphin dragon duck fish foot fox frog giraffe gorilla
    hedgehog hippopotamus horse kangaroo kiwi lemon lizard melon mosquito mouse mouth nose orange owl panda peach pear pig rabbit
    rhinoceros shark sheep snail snake spider strawberry turkey turtle whale wolf brain apricot plum raspberry bull
"""
"""Word cards that show one thing and no arrow."""
ALSO = {
    "sheep": "ewe",
    "saw": "carpentry saw",
    "kiwi": "kiwi fruit",
    "apple": "red apple",
    "bulb": "light bulb",
    "bull": "ox",
}
INSTRUMENT_QUESTION = "which instrument is this?"


def resources(file: Path) -> Iterator[tuple[str, bytes]]:
    """(path, bytes) of every file in a Qt resource file.

    Source: the format as Qt's rcc writes it (qtbase, src/tools/rcc/rcc.cpp and qresource.cpp): a header "qres", version, and where
    the tree, the data and the names begin; a node has 14 bytes, from version 2 on 22; all numbers are big-endian.

    Raises:
        MediaError: it is no resource file, or packed in a way that this does not read (zstd).
    """
    data = file.read_bytes()
    if data[:4] != b"qres":
        raise MediaError.at(file, "", "is no Qt resource file", "the package has changed")
    version, tree, payload, names = struct.unpack_from(">4I", data, 4)
    size = 14 if version < 2 else 22

    def walk(node: int, folder: str) -> Iterator[tuple[str, bytes]]:
        start = tree + node * size
        label, flags = struct.unpack_from(">IH", data, start)
        (letters,) = struct.unpack_from(">H", data, names + label)
        name = data[names + label + 6 : names + label + 6 + 2 * letters].decode("utf-16-be") if node else ""
        path = f"{folder}/{name}" if folder else name
        if flags & 2:  # a folder
            count, first = struct.unpack_from(">II", data, start + 6)
            for child in range(first, first + count):
                yield from walk(child, path)
            return
        if flags & 4:
            raise MediaError.at(file, name, "is packed with zstd", "this reader knows zlib")
        (offset,) = struct.unpack_from(">I", data, start + 10)
        (length,) = struct.unpack_from(">I", data, payload + offset)
        found = data[payload + offset + 4 : payload + offset + 4 + length]
        yield path, zlib.decompress(found[4:]) if flags & 1 else found  # the first four bytes are the length unpacked

    yield from walk(0, "")


def photo_name(stem: str) -> str | None:
    """What a photograph's file name says is on it.

    >>> photo_name("hammer6"), photo_name("polar_bear"), photo_name("zimniPalace")
    ('hammer', 'polar bear', None)
    """
    return None if stem in UNCLEAR else PHOTOS.get(re.sub(r"\d+$", "", stem))


def build(writer: PackWriter) -> None:
    """Write photographs (names, kinds), word cards, instruments by ear, and pictures with sounds."""
    package = fetch.apt("gcompris-qt-data")
    writer.source(package)
    home = package.folder / "usr/share/gcompris-qt/rcc"
    files: dict[str, bytes] = {}
    for name in ("categorization", "explore_farm_animals", "explore_world_animals", "lang", "instruments"):
        for path, data in resources(home / f"{name}.rcc"):
            files[path.removeprefix("gcompris/src/activities/")] = data
    names = Names.of(writer.out, ALSO)
    add_things(writer, photographs(writer, files, names), ("en",), licence=LICENCE, media="photograph")
    add_cards(writer, files, names)
    add_kinds(writer, files)
    add_sounds(writer, files)
    writer.notice(
        f"GCompris (apt {package.name} {package.version})",
        LICENCE,
        "Copyright 2000-2023 Timothée Giet and the developers of GCompris, https://gcompris.net; single photographs by their authors as "
        "the package's own files say. Pictures made smaller, sounds cut and converted to FLAC.",
    )


def add_picture(writer: PackWriter, path: str, data: bytes) -> str:
    """Write one picture of the package; its path in the pack."""
    stem = path.rsplit(".", 1)[0].replace("/resource/", "/")
    return writer.media(f"{stem}.png", opaque(open_picture(data, path)))


def photographs(writer: PackWriter, files: dict[str, bytes], names: Names) -> list[Thing]:
    """The photographs whose name is known."""
    found = []
    for path, data in sorted(files.items()):
        folder, _, file = path.rpartition("/")
        name = photo_name(file.removesuffix(".webp"))
        if name and file.endswith(".webp") and not folder.startswith("lang"):
            image = add_picture(writer, path, data)
            sort = folder.split("/")[-1]
            found.append(Thing(f"{sort}/{file}", image, name, "", sort, tuple(names.find(name))))
    return found


def add_cards(writer: PackWriter, files: dict[str, bytes], names: Names) -> None:
    """Write `cards`: drawings by one hand whose names are taught, and `cards_known`: those of concepts that are not."""
    for name in CARDS.split():
        path = f"lang/resource/words_sample/{name}.webp"
        if path not in files:
            continue
        concepts = tuple(names.find(name))
        thing = Thing(f"cards/{name}", add_picture(writer, path, files[path]), name, "", "cards", concepts)
        if thing.role == "other":
            continue
        right = thing.names("en")
        row: dict[str, Any] = {
            "id": f"gcompris/{thing.id}",
            "task": "name",
            "image": thing.image,
            "text": "",
            "lang": "en",
        }
        row |= {"target": right[0], "licence": LICENCE} | ({"targets": right} if len(right) > 1 else {})
        writer.add("cards" if thing.role == "taught" else "cards_known", "test", row)


def add_kinds(writer: PackWriter, files: dict[str, bytes]) -> None:
    """Write `kinds`: a photograph, to be sorted into one of KINDS."""
    for path, data in sorted(files.items()):
        folder, _, file = path.rpartition("/")
        kind = KINDS.get(folder.split("/")[-1])
        if kind and file.endswith(".webp"):
            row: dict[str, Any] = {"id": f"gcompris/kinds/{file}", "task": "classify"}
            row |= {
                "image": add_picture(writer, path, data),
                "text": KIND_QUESTION,
                "target": kind,
                "choices": list(KINDS.values()),
                "licence": LICENCE,
            }
            writer.add("kinds", "test", row)


def add_sounds(writer: PackWriter, files: dict[str, bytes]) -> None:
    """Write `instruments`: which one is heard?; and `matching`: does a sound belong to a picture (instruments, animals)?"""
    instruments = _pairs(writer, files, "instruments/resource")
    names = sorted(instruments)
    for name, (_, audio) in instruments.items():
        wrong = [other for other in names if other != name]
        order = stream(writer.seed, "gcompris", "instruments", name).permutation(len(wrong))[: CHOICES - 1]
        choices = sorted([name, *(wrong[int(k)] for k in order)])
        row = {"id": f"gcompris/instruments/{name}", "task": "classify", "audio": audio, "text": INSTRUMENT_QUESTION}
        writer.add("instruments", "test", row | {"target": name, "choices": choices, "licence": LICENCE})
    for group in (instruments, _pairs(writer, files, "explore_farm_animals/resource/animals")):
        _match(writer, group)


def _pairs(writer: PackWriter, files: dict[str, bytes], folder: str) -> dict[str, tuple[str, str]]:
    """{name: (picture, sound)} of what has both."""
    found = {}
    for path, data in sorted(files.items()):
        stem = path.rsplit(".", 1)[0]
        if path.startswith(f"{folder}/") and path.endswith(".ogg") and f"{stem}.svg" in files:
            picture = add_picture(writer, f"{stem}.svg", files[f"{stem}.svg"])
            sound = writer.media(f"sounds/{slug(stem)}.flac", flac(trim(read_mono(data, RATE), RATE), RATE))
            found[stem.split("/")[-1].replace("_", " ")] = picture, sound
    return found


def _match(writer: PackWriter, group: dict[str, tuple[str, str]]) -> None:
    """Each picture with its own sound and with another's of the same group: half yes, half no."""
    names: Sequence[str] = sorted(group)
    for name in names if len(names) > 1 else ():
        wrong = [other for other in names if other != name]
        other = wrong[int(stream(writer.seed, "gcompris", "matching", name).integers(len(wrong)))]
        for heard, target in ((name, "yes"), (other, "no")):
            row: dict[str, Any] = {
                "id": f"gcompris/matching/{slug(name)}/{target}",
                "task": "matching",
                "image": group[name][0],
            }
            row |= {
                "audio": group[heard][1],
                "text": "",
                "target": target,
                "choices": ["yes", "no"],
                "licence": LICENCE,
            }
            writer.add("matching", "test", row)


PACKS.add(
    "gcompris",
    Pack(
        "gcompris",
        "photographs, word cards, instruments and animal voices of GCompris; GPL-3, tests only",
        build,
        ("emoji",),
    ),
)
