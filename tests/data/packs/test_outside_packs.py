"""Packs of pictures from elsewhere, built from miniatures of their packages. No network."""

from __future__ import annotations

import io
import json
import struct
import zlib
from collections import Counter
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import soundfile
from PIL import Image

from monoglot.data.packs import PACKS, PackWriter, fetch, gcompris, lineart, photos, stamps
from monoglot.data.packs.emoji_concepts import Concept
from monoglot.data.packs.emoji_words import KEPT_OUT
from monoglot.data.packs.fetch import MissingSource, Package
from monoglot.data.packs.outside import CHOICES, Names, opaque, others
from monoglot.errors import MediaError

SVG = b'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 4 4"><path fill="#00f" d="M1 1h2v2H1z"/></svg>'


def concept(*names: str, ja: str = "名") -> Concept:
    return Concept(names[0].encode().hex(), "", names, (ja,), (), (), "animals-nature", "animal-mammal", "animal")


TAUGHT = [
    concept("cat", ja="ネコ"),
    concept("cat face", "cat", ja="ネコの顔"),
    concept("scissors", ja="はさみ"),
    concept("blue book"),
]
UNTAUGHT = [concept("dog face", "dog"), concept("dog", ja="イヌ"), *(concept(name) for name in sorted(KEPT_OUT)[20:34])]


def png(colour: object = "red", size: tuple[int, int] = (40, 20), mode: str = "RGB") -> bytes:
    file = io.BytesIO()
    Image.new(mode, size, colour).save(file, "PNG")
    return file.getvalue()


def webp() -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (30, 30), "green").save(file, "WEBP")
    return file.getvalue()


def ogg() -> bytes:
    file = io.BytesIO()
    soundfile.write(file, np.sin(np.arange(8000) / 5), 16_000, format="OGG", subtype="VORBIS")
    return file.getvalue()


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """The folder of packs with an emoji pack's concepts."""
    (tmp_path / "packs/emoji").mkdir(parents=True)
    rows = json.dumps([asdict(c) for c in TAUGHT + UNTAUGHT])
    (tmp_path / "packs/emoji/concepts.json").write_text(rows)
    return tmp_path / "packs"


def build(name: str, out: Path) -> dict[str, list[dict]]:
    with PackWriter(name, out) as writer:
        PACKS[name].build(writer)
    return {
        path.name.removesuffix(".test.jsonl"): [json.loads(line) for line in path.read_text("utf-8").splitlines()]
        for path in (out / name).glob("*.jsonl")
    }


# Names ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "first"),
    [("Cat", "cat"), ("cats", "cat"), ("DOG", "dog"), ("scissor", "scissors"), ("hound", "dog"), ("bicycle", None)],
)
def test_names_are_found_without_case_number_and_in_other_words(words, first):
    found = Names(TAUGHT + UNTAUGHT, {"hound": "dog"}).find(words)
    assert [c.name for c in found[:1]] == ([first] if first else [])


def test_choices_hold_the_right_name_once_and_share_no_word_with_it(out, monkeypatch):
    rows = stamps_pack(out, monkeypatch)["known_choose"]
    assert rows
    for row in rows:
        assert len(set(row["choices"])) == CHOICES
        own = set(row["target"].lower().split())
        assert [name for name in row["choices"] if own & set(name.lower().split())] == [row["target"]]


def test_pale_pictures_are_laid_on_grey():
    ghost = Image.new("RGBA", (20, 20), (255, 255, 255, 0))
    ghost.paste((250, 250, 250, 255), (5, 5, 15, 15))
    dark = ghost.copy()
    dark.paste((10, 10, 10, 255), (5, 5, 15, 15))
    corner = [Image.open(io.BytesIO(opaque(picture))).getpixel((0, 0)) for picture in (ghost, dark)]
    assert corner == [(128, 128, 128), (255, 255, 255)]


# Stamps --------------------------------------------------------------------------------------------------------------


def stamps_pack(out: Path, monkeypatch) -> dict[str, list[dict]]:
    home = out.parent / "tuxpaint"
    folder = home / "usr/share/tuxpaint/stamps"
    captions = {
        "animals/dog": "A dog.\nja.utf8=イヌ。",
        "animals/kitten": "A white kitten.\nja.utf8=しろい こねこ",
        "animals/yak": "A yak.\nja.utf8=ヤク",
        "animals/riddle": "Eat your broccoli!",
        "animals/nobody": "A thing without a picture.",
        "symbols/math/plus": "Plus.",
        **{f"household/{k}": f"A {c.name}." for k, c in enumerate(UNTAUGHT[2:])},
        **{
            f"animals/rare{k}": f"A {name}."
            for k, name in enumerate(["emu", "gnu", "ibex", "kudu", "lynx", "orca", "puma", "saiga", "tapir"])
        },
    }
    for path, text in captions.items():
        file = folder / f"{path}.txt"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
        if path != "animals/nobody":
            file.with_suffix(".png").write_bytes(png())
    (folder / "animals/dog_desc.ogg").write_bytes(ogg())
    package = Package("apt", "tuxpaint-stamps-default", "1", "00", home)
    monkeypatch.setattr(fetch, "apt", lambda name: package)
    return build("stamps", out)


def test_stamps_are_sorted_by_whether_their_names_are_taught(out, monkeypatch):
    found = stamps_pack(out, monkeypatch)
    assert [row["target"] for row in found["taught"]] == ["cat"]
    assert found["taught"][0]["targets"] == ["cat", "cat face", "white kitten"]
    assert found["taught_ja"][0]["targets"] == ["ネコ", "ネコの顔", "しろいこねこ"]
    names = Counter(row["target"] for row in found["known"])
    assert set(names) == {"dog", *(c.name for c in UNTAUGHT[2:])}
    assert {row["target"] for row in found["other_choose"]} >= {"yak", "emu"}
    assert not {"broccoli", "plus"} & {row["target"].lower() for rows in found.values() for row in rows}
    assert all(
        (out / "stamps" / row["image"]).is_file() for name, rows in found.items() if name != "speech" for row in rows
    )
    known = json.loads((out / "stamps/known_concepts.json").read_text())
    assert known["dog"] == ["A dog."]
    assert set(known) <= KEPT_OUT


def test_a_caption_that_is_read_aloud_is_a_transcript(out, monkeypatch):
    (row,) = stamps_pack(out, monkeypatch)["speech"]
    assert (row["task"], row["target"]) == ("transcribe", "A dog")
    assert soundfile.info(out / "stamps" / row["audio"]).samplerate == 16_000


def test_every_known_caption_names_a_concept_by_its_own_name():
    """ALSO may only point at names that exist as words: no entry maps to itself or to nothing."""
    for words, name in stamps.ALSO.items():
        assert name
        assert stamps.called(f"A {words}.") != name, words


# GCompris ------------------------------------------------------------------------------------------------------------


def rcc(files: dict[str, bytes], *, version: int = 2, packed: bool = True) -> bytes:
    """A Qt resource file, written from the layout that Qt documents: breadth first, children of a folder side by side."""
    tree: list[tuple[str, dict | bytes]] = [("", {})]
    root: dict = {}
    for path, data in files.items():
        *folders, name = path.split("/")
        place = root
        for folder in folders:
            place = place.setdefault(folder, {})
        place[name] = data
    tree = [("", root)]
    first: dict[int, int] = {}
    for index, (_, node) in enumerate(tree):  # grows while it is walked
        if isinstance(node, dict):
            first[index] = len(tree)
            tree.extend(node.items())
    names, data, nodes = b"", b"", b""
    for index, (name, node) in enumerate(tree):
        label = len(names)
        names += struct.pack(">HI", len(name), 0) + name.encode("utf-16-be")
        if isinstance(node, dict):
            nodes += struct.pack(">IHII", label, 2, len(node), first[index])
        else:
            body = struct.pack(">I", len(node)) + zlib.compress(node) if packed else node
            nodes += struct.pack(">IHHHI", label, int(packed), 0, 0, len(data))
            data += struct.pack(">I", len(body)) + body
        nodes += struct.pack(">Q", 0) if version >= 2 else b""
    start = 20
    return (
        b"qres"
        + struct.pack(">4I", version, start, start + len(nodes), start + len(nodes) + len(data))
        + nodes
        + data
        + names
    )


@pytest.mark.parametrize(("version", "packed"), [(1, False), (1, True), (2, True), (2, False)])
def test_resource_files_are_read(tmp_path, version, packed):
    files = {"a/b/ü.txt": b"one" * 50, "a/c.bin": b"", "d": bytes(range(256))}
    (tmp_path / "x.rcc").write_bytes(rcc(files, version=version, packed=packed))
    assert dict(gcompris.resources(tmp_path / "x.rcc")) == files


def test_a_file_that_is_no_resource_file_is_told(tmp_path):
    (tmp_path / "x.rcc").write_bytes(b"PK\x03\x04")
    with pytest.raises(MediaError, match="no Qt resource file"):
        list(gcompris.resources(tmp_path / "x.rcc"))


@pytest.fixture
def children(out: Path, monkeypatch) -> Path:
    home = out.parent / "gcompris"
    folder = home / "usr/share/gcompris-qt/rcc"
    folder.mkdir(parents=True)
    at = "gcompris/src/activities/"
    photo = {
        f"categorization/resource/images/tools/{name}.webp": webp() for name in ("scissors1", "scissors2", "hammer3")
    }
    photo |= {f"categorization/resource/images/fishes/fish{n}.webp": webp() for n in (1, 2)}
    others = [
        "sickle",
        "multimeter",
        "tweezer",
        "nailCutter",
        "plate",
        "pillow",
        "igloo",
        "cup",
        "spray",
        "dam1",
        "lemur",
    ]
    photo |= {f"categorization/resource/images/others/{name}.webp": webp() for name in others}
    farm = {
        f"explore_farm_animals/resource/animals/{n}": d
        for n, d in (("cat.svg", SVG), ("cat.ogg", ogg()), ("cat.webp", webp()))
    }
    farm |= {f"explore_farm_animals/resource/animals/{n}": d for n, d in (("dog.svg", SVG), ("dog.ogg", ogg()))}
    music = {
        f"instruments/resource/{n}.{kind}": SVG if kind == "svg" else ogg()
        for n in ("tuba", "drum_kit")
        for kind in ("svg", "ogg")
    }
    cards = {f"lang/resource/words_sample/{n}.webp": webp() for n in ("cat", "dog", "grandmother")}
    parts = {
        "categorization": photo,
        "explore_farm_animals": farm,
        "explore_world_animals": {"x": b""},
        "lang": cards,
        "instruments": music,
    }
    for name, files in parts.items():
        (folder / f"{name}.rcc").write_bytes(rcc({at + path: data for path, data in files.items()}))
    package = Package("apt", "gcompris-qt-data", "1", "00", home)
    monkeypatch.setattr(fetch, "apt", lambda name: package)
    return out


def test_gcompris(children):
    pytest.importorskip("resvg_py")
    found = build("gcompris", children)
    assert Counter(row["target"] for row in found["taught"]) == {"scissors": 2, "cat": 1}
    assert [row["target"] for row in found["cards"]] == ["cat"]
    assert [row["target"] for row in found["cards_known"]] == ["dog"]
    assert Counter(row["target"] for row in found["kinds"]) == {"tool": 3, "fish": 2}
    assert {row["target"] for row in found["instruments"]} == {"tuba", "drum kit"}
    pairs = {
        (row["image"].split("/")[-1][:3], row["audio"].split("-")[-1][:3]): row["target"] for row in found["matching"]
    }
    assert Counter(pairs.values()) == {"yes": 4, "no": 4}
    assert (pairs["cat", "cat"], pairs["cat", "dog"]) == ("yes", "no")


# Line drawings -------------------------------------------------------------------------------------------------------


def test_line_drawings_are_joined_to_concepts(out, monkeypatch):
    pytest.importorskip("resvg_py")
    monkeypatch.setenv("MONOGLOT_CACHE", str(out.parent / "cache"))
    folder = out.parent / "openmoji"
    (folder / "black/svg").mkdir(parents=True)
    monkeypatch.setattr(lineart, "npm", lambda name, version: Package("npm", name, version, "00", folder))
    with pytest.raises(MissingSource, match="no line drawings"):
        build("lineart", out)
    for thing in (TAUGHT[0], UNTAUGHT[0], TAUGHT[3]):
        (folder / f"black/svg/{thing.hexcode.upper()}.svg").write_bytes(SVG)
    found = build("lineart", out)
    assert [row["target"] for row in found["taught"]] == ["cat"]
    assert [row["target"] for row in found["taught_ja"]] == ["ネコ"]
    assert [row["target"] for row in found["known"]] == ["dog face"]
    assert (out / "lineart" / found["taught"][0]["image"]).is_file()


# Photographs ---------------------------------------------------------------------------------------------------------


def test_photos_and_a_package_that_is_gone(out, monkeypatch):
    def pip(name: str, version: str) -> Package:
        if name == "scikit-learn":
            raise MissingSource("pip package scikit-learn==1: gone")
        source = next(s for s in (*photos.PICTURES, photos.CLIPS) if s.name == name)
        folder = out.parent / name
        (folder / source.folder).mkdir(parents=True)
        for file in source.files:
            (folder / source.folder / file).write_bytes(b"film" if file.endswith("mp4") else png())
        return Package("pip", name, version, "00", folder)

    monkeypatch.setattr(fetch, "pip", pip)
    found = build("photos", out)
    assert len(found["pictures"]) == len(photos.PICTURES[0].files)
    assert len(found["clips"]) == 3
    assert all(row["target"] in row["choices"] for rows in found.values() for row in rows)
    assert "gone" in json.loads((out / "photos/sources.json").read_text())["skipped"][0]


def test_wrong_choices_come_from_the_same_sort_first():
    from monoglot.data.packs.outside import Thing

    things = [Thing(f"{sort}{n}", "", f"{sort}{n}", "", sort, ()) for sort in ("a", "b") for n in range(12)]
    assert {name[0] for name in others(things[0], things, "en", np.random.default_rng(0))} == {"a"}
    few = [*things[:3], *things[12:]]
    wrong = others(few[0], few, "en", np.random.default_rng(0))
    assert [name[0] for name in wrong] == ["a"] * 2 + ["b"] * (CHOICES - 3)
