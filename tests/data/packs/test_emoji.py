"""The pack `emoji`, built from a tiny world of coloured shapes instead of the real drawings. No network."""

import json
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from monoglot.data.packs import emoji_concepts, emoji_scenes
from monoglot.data.packs.base import PackWriter
from monoglot.data.packs.emoji import build_emoji, read_concepts, split_of
from monoglot.data.packs.emoji_concepts import STYLES, Concept, confusable, drawings, iconify_svg, is_countable
from monoglot.data.packs.emoji_scenes import SCENE, Cast, compose, overlap
from monoglot.data.packs.emoji_words import KINDS, is_plural, plural, with_article
from monoglot.data.packs.fetch import MissingSource, Package
from monoglot.data.packs.svg import render
from monoglot.errors import InputError, MediaError
from monoglot.rng import stream

pytest.importorskip("resvg_py")

THINGS = [  # code, English, Japanese, group, subgroup
    ("1F408", "cat", "ネコ", 3, 34),
    ("1F415", "dog", "イヌ", 3, 34),
    ("1F98A", "fox", "キツネ", 3, 34),
    ("1F347", "grapes", "ブドウ", 4, 42),
    ("1F34C", "banana", "バナナ", 4, 42),
    ("1F35E", "bread", "パン", 4, 44),
    ("1F528", "hammer", "金づち", 7, 78),
    ("1FA93", "axe", "斧", 7, 78),
    ("2702-FE0F", "scissors", "はさみ", 7, 76),
    ("1F680", "rocket", "ロケット", 5, 56),
    ("1F3B8", "guitar", "ギター", 7, 68),
    ("1F419", "octopus", "タコ", 3, 38),
    ("1F44D", "thumbs up", "サムズアップ", 1, 19),
    ("2764-FE0F", "red heart", "赤いハート", 0, 14),
    ("1F989", "owl", "フクロウ", 3, 34),
    ("1F941", "drum", "ドラム", 7, 68),
]
KEPT_OUT = {"owl", "drum"}
LEFT_OUT = [
    ("1F468-200D-1F467", "family: man, girl", "家族", 1, 30),
    ("1F3C3-200D-2640-FE0F", "woman running", "走る女", 1, 27),
    ("1F3FB", "light skin tone", "薄い肌色", 2, 32),
]


def write(path: Path, data: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(data, ensure_ascii=False), encoding="utf-8")


def shape(number: int) -> str:
    """A wide bar of a colour of its own in the middle of a 32 x 32 field."""
    return (
        f'<path fill="#{(number * 37 + 20) % 256:02x}40{(200 - number * 9) % 256:02x}" d="M2 10h28v{6 + number}H2z"/>'
    )


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Fake packages for every style but OpenMoji, which is gone, and streamline, which has changed its licence."""
    tmp_path = tmp_path_factory.mktemp("world")
    home = tmp_path / "packages"
    names = home / "emojibase-data"
    for language, column in (("en", 1), ("ja", 2)):
        listed = [
            {"hexcode": t[0], "label": t[column], "emoji": "x", "tags": [], "group": t[3], "subgroup": t[4]}
            for t in THINGS + LEFT_OUT
        ]
        write(names / language / "data.json", [*listed, {"hexcode": "1F1E6", "label": "letter", "emoji": "x"}])
    groups = "smileys-emotion people-body component animals-nature food-drink travel-places activities objects symbols"
    subgroups = {
        34: "animal-mammal",
        38: "animal-marine",
        42: "food-fruit",
        44: "food-prepared",
        78: "tool",
        14: "heart",
    }
    subgroups |= {76: "office", 56: "transport-air", 68: "musical-instrument", 19: "hand-fingers-closed", 30: "family"}
    subgroups |= {27: "person-activity", 32: "skin-tone"}
    numbered = {str(number): name for number, name in enumerate(groups.split())}
    write(names / "meta/groups.json", {"groups": numbered, "subgroups": {str(k): v for k, v in subgroups.items()}})
    write(names / "meta/unicode-names.json", {"1F408": "CAT"})

    for style in STYLES:
        folder = home / style.name
        if style.kind == "webp":
            for number, thing in enumerate(THINGS):
                picture = render(
                    f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 32 32">{shape(number)}</svg>', 64
                )
                (folder / "assets").mkdir(parents=True, exist_ok=True)
                picture.save(folder / "assets" / f"{thing[0].lower()}.webp", lossless=True)
            continue
        icons = {t[1].replace(" ", "-"): {"body": shape(number)} for number, t in enumerate(THINGS)}
        licence = "GPL-2.0" if style.name == "streamline" else style.licence
        write(folder / "info.json", {"license": {"spdx": licence}})
        write(folder / "icons.json", {"icons": icons, "width": 32, "height": 32})
        named = style.name in ("emojione", "fxemoji")
        write(folder / "chars.json", {} if named else {t[0].lower(): t[1].replace(" ", "-") for t in THINGS})

    by_package = {style.package: style.name for style in STYLES} | {"emojibase-data": "emojibase-data"}

    def npm(name: str, version: str) -> Package:
        if by_package[name] == "openmoji":
            raise MissingSource("npm package openmoji: gone")
        return Package("npm", name, version, "00", home / by_package[name])

    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(emoji_concepts, "npm", npm)
        monkeypatch.setattr(emoji_concepts, "KEPT_OUT", KEPT_OUT)
        monkeypatch.setattr(emoji_scenes, "SCENES", {"train": 12, "valid": 2, "test": 6})
        monkeypatch.setattr(emoji_scenes, "ONES", {"train": 12, "valid": 2, "test": 6})
        monkeypatch.setenv("MONOGLOT_CACHE", str(tmp_path / "cache"))
        yield tmp_path


def build(out: Path, **settings) -> dict[str, list[dict]]:
    """Build the pack; {"<subset>.<split>": rows}."""
    with PackWriter("emoji", out, **settings) as writer:
        build_emoji(writer)
    return {
        path.name.removesuffix(".jsonl"): [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        for path in sorted((out / "emoji").glob("*.jsonl"))
    }


@pytest.fixture(scope="module")
def pack(world):
    return build(world / "packs")


def test_every_subset_is_there_and_every_row_is_whole(pack, world):
    single = ["names_en", "names_ja", "kinds", "yesno", "yesno_far"]
    subsets = [*single, "grounding", "grounding_one", "region_caption", "counting", "leftright", "captions", "matching"]
    kept_out = {f"{subset}_kept_out.test" for subset in ("names_en", "names_ja", "choose_en", "choose_ja")}
    assert set(pack) == {f"{subset}.{split}" for subset in subsets for split in ("train", "test")} | kept_out
    ids = [row["id"] for rows in pack.values() for row in rows]
    assert len(ids) == len(set(ids))
    for name, rows in pack.items():
        for row in rows:
            assert (world / "packs/emoji" / row["image"]).is_file()
            assert row["lang"] == ("ja" if "_ja" in name else "en")
            assert row.get("target") or row.get("box"), row
            if "targets" in row:
                assert row["targets"][0] == row["target"]
            if "choices" in row:
                assert row["target"] in row["choices"]


def test_the_test_style_is_never_seen_in_training(pack):
    for name, rows in pack.items():
        split = name.split(".")[1]
        for row in rows:
            assert {split_of(style) for style in row["style"].split("+")} == {split}, row
            assert ("noto" in row["image"] or "scenes/test" in row["image"] or "one-test" in row["image"]) == (
                split == "test"
            )


def test_concepts_that_are_kept_out_are_in_no_row_but_their_own(pack):
    codes = {thing[0].lower() for thing in THINGS if thing[1] in KEPT_OUT}
    for name, rows in pack.items():
        for row in rows:
            words = str([row.get(key) for key in ("text", "target", "targets", "choices")])
            shown = {row.get("concept"), row.get("asked"), *row.get("concepts", ())}
            named = any(thing in words for thing in ("owl", "drum", "フクロウ", "ドラム"))
            assert bool(shown & codes) == named == ("kept_out" in name), (name, row)
    (owl, drum) = sorted(pack["choose_en_kept_out.test"], key=lambda row: row["target"], reverse=True)
    assert owl["choices"] == drum["choices"] == ["drum", "owl"]  # no name among them was ever taught
    assert [row["target"] for row in pack["names_ja_kept_out.test"]] == ["フクロウ", "ドラム"]


def test_sources_that_fail_are_skipped_and_told(pack, world):
    told = json.loads((world / "packs/emoji/sources.json").read_text())["skipped"]
    assert any("streamline" in line and "its licence is GPL-2.0, expected CC-BY-4.0" in line for line in told)
    assert any("openmoji" in line and "gone" in line for line in told)
    assert any("scenes of valid" in line for line in told)
    notice = (world / "packs/emoji/NOTICE.md").read_text()
    assert "Twemoji, copyright Twitter" in notice
    assert "https://creativecommons.org/licenses/by/4.0/" in notice
    assert "OpenMoji" not in notice


def test_without_the_test_style_there_is_no_pack(world, tmp_path, monkeypatch):
    fetch = emoji_concepts.npm

    def npm(name, version):
        if name.endswith("/noto"):
            raise MissingSource("noto is gone")
        return fetch(name, version)

    monkeypatch.setattr(emoji_concepts, "npm", npm)
    with pytest.raises(MissingSource, match="noto is gone"):
        build(tmp_path / "packs")


def test_concepts_are_joined_and_read_back(pack, world):
    concepts = {c.name: c for c in read_concepts(world / "packs/emoji")}
    assert set(concepts) == {t[1] for t in THINGS}
    heart = concepts["red heart"]
    assert (heart.hexcode, heart.names_ja, heart.kind) == ("2764", ("赤いハート",), "heart")
    assert set(heart.styles) == {s.name for s in STYLES} - {"streamline", "openmoji"}
    for style in heart.styles:
        picture = Image.open(world / f"packs/emoji/media/{style}/2764.png")
        assert (picture.size, picture.mode) == ((192, 192), "RGBA")
    raw = json.loads((world / "packs/emoji/concepts.json").read_text(encoding="utf-8"))
    assert raw[0]["name"] == raw[0]["names_en"][0]
    with pytest.raises(InputError, match="build the pack `emoji` first"):
        read_concepts(world)


@pytest.mark.parametrize("subset", ["yesno", "yesno_far"])
def test_yes_and_no_are_balanced_and_true(pack, subset):
    rows = pack[f"{subset}.train"]
    assert len(set(Counter(row["target"] for row in rows).values())) == 1
    name_of = {t[0].lower().replace("-fe0f", ""): t[1] for t in THINGS}
    for row in rows:
        assert (name_of[row["concept"]] in row["text"]) == (row["target"] == "yes")


def test_the_same_seed_makes_the_same_bytes(pack, world, tmp_path):
    build(tmp_path / "again")
    build(tmp_path / "other", seed=1, limit=2)
    first, again, other = world / "packs/emoji", tmp_path / "again/emoji", tmp_path / "other/emoji"
    files = sorted(path.relative_to(first) for path in first.rglob("*") if path.is_file())
    assert len(files) > 100
    assert all((first / file).read_bytes() == (again / file).read_bytes() for file in files)
    scene = "media/scenes/train-00000.jpg"
    assert (first / scene).read_bytes() != (other / scene).read_bytes()


def test_a_limited_pack_starts_with_the_same_scenes(pack, tmp_path):
    few = build(tmp_path, limit=3)
    assert all(len(rows) <= 3 for rows in few.values())
    assert few["grounding.train"] == pack["grounding.train"][:3]


def cast_of(world: Path) -> Cast:
    folder = world / "packs/emoji"
    return Cast(folder / "media", read_concepts(folder), ["twemoji", "fluent-flat"])


def test_boxes_are_tight_around_what_is_seen(pack, world, monkeypatch):
    """Paint the same scene without its stickers: the pixels that differ lie in the boxes and reach all their sides."""
    cast = cast_of(world)
    monkeypatch.setattr(emoji_scenes, "background", lambda rng: Image.new("RGB", (SCENE, SCENE), (0, 255, 0)))
    for index in range(20):
        scene = compose(cast, stream(0, "boxes", index))
        seen = np.abs(np.asarray(scene.picture).astype(int) - (0, 255, 0)).max(-1) > 24
        inside = np.zeros_like(seen)
        for sticker in scene.stickers:
            x0, y0, x1, y1 = (round(v * SCENE) for v in sticker.box)
            inside[y0:y1, x0:x1] = True
            assert seen[y0 : y0 + 3, x0:x1].any()
            assert seen[y1 - 3 : y1, x0:x1].any()
            assert seen[y0:y1, x0 : x0 + 3].any()
            assert seen[y0:y1, x1 - 3 : x1].any()
        assert not (seen & ~inside).any()


def test_stickers_hardly_overlap_and_are_told_apart(pack, world):
    cast, kinds = cast_of(world), Counter()
    for index in range(40):
        scene = compose(cast, stream(0, "overlap", index))
        kinds[scene.kind] += 1
        for i, a in enumerate(scene.stickers):
            assert all(overlap(a.box, b.box) < 0.06 for b in scene.stickers[:i])
            assert not any(
                confusable(a.concept, b.concept) for b in scene.stickers if b.concept.hexcode != a.concept.hexcode
            )
        if scene.kind == "pair":
            assert len(scene.stickers) == 2
    assert set(kinds) == {"mixed", "pair", "count"}


def test_scenes_of_one_sticker(pack):
    rows = pack["grounding_one.train"]
    assert all(len(row["concepts"]) == 1 and row["task"] == "grounding" for row in rows)
    assert len({row["image"] for row in rows}) == len(rows)
    sides = [max(row["box"][2] - row["box"][0], row["box"][3] - row["box"][1]) for row in rows]
    assert min(sides) > 0.15
    assert max(sides) < 0.75


def test_answers_about_scenes_follow_from_their_boxes(pack):
    scenes: dict[str, dict[str, list]] = defaultdict(dict)
    for row in pack["grounding.train"] + pack["grounding.test"]:
        x0, y0, x1, y1 = row["box"]
        assert 0 <= x0 < x1 <= 1
        assert 0 <= y0 < y1 <= 1
        scenes[row["image"]][row["text"]] = row["box"]
    checked = 0
    for row in pack["leftright.train"] + pack["leftright.test"]:
        boxes = scenes[row["image"]]
        if "choices" not in row:
            continue
        places = sorted(boxes.items(), key=lambda item: row["text"].index(f"the {item[0]}"))
        (_, a), (_, b) = places
        axis = 0 if "left" in row["choices"] else 1
        before = a[axis] + a[axis + 2] < b[axis] + b[axis + 2]
        assert row["target"] == row["choices"][0 if before else 1]
        checked += 1
    assert checked
    for row in pack["counting.train"]:
        assert row["target"] in "12345"
        assert Counter(row["concepts"]).most_common()[0][1] >= int(row["target"])
    for row in pack["captions.train"]:
        assert row["target"].count(",") + 2 == len(row["concepts"])


def test_matching_says_yes_and_no_as_often(pack):
    rows = pack["matching.train"]
    assert Counter(row["target"] for row in rows)["yes"] * 2 == len(rows)


def test_iconify_aliases_and_sizes():
    icons = {"icons": {"a": {"body": "<g/>", "width": 9, "left": -1}}, "height": 4}
    icons["aliases"] = {"b": {"parent": "a"}, "c": {"parent": "a", "hFlip": True}, "d": {"parent": "d"}}
    assert 'viewBox="-1 0 9 4"' in iconify_svg(icons, "b")
    assert iconify_svg(icons, "c") is None
    assert iconify_svg(icons, "d") is None
    assert iconify_svg(icons, "e") is None


def test_misleading_names_of_fxemoji_are_read_right(tmp_path):
    style = next(s for s in STYLES if s.name == "fxemoji")
    write(tmp_path / "info.json", {"license": {"spdx": "Apache-2.0"}})
    icons = {name: {"body": f"<g id='{name}'/>"} for name in ("cat", "catside", "wave", "hampster", "owl")}
    write(tmp_path / "icons.json", {"icons": icons})
    known = {"cat": "c", "catface": "cf", "wave": "w", "hamster": "h", "owl": "o"}
    found = drawings(style, Package("npm", "x", "1", "", tmp_path), known)
    assert set(found) == {"c", "cf", "h", "o"}
    assert "catside" in found["c"]
    assert "id='cat'" in found["cf"]


def test_every_subgroup_has_a_plain_kind():
    assert len(KINDS) >= 99
    assert 35 <= len(set(KINDS.values())) <= 60


@pytest.mark.parametrize(
    ("name", "one", "many"),
    [
        ("ox", "an ox", "oxen"),
        ("hot dog", "a hot dog", "hot dogs"),
        ("bottle with popping cork", "a bottle with popping cork", "bottles with popping cork"),
        ("octopus", "an octopus", "octopuses"),
        ("witch", "a witch", "witches"),
        ("fish", "a fish", "fish"),
        ("scarf", "a scarf", "scarves"),
        ("UFO", "a UFO", "UFOs"),
    ],
)
def test_english(name, one, many):
    assert (with_article(name), plural(name), is_plural(name)) == (one, many, False)


def test_what_can_be_counted():
    def thing(name, subgroup="tool", group="objects"):
        return Concept("0", "", (name,), ("",), (), (), group, subgroup, "tool")

    assert is_countable(thing("hammer"))
    for name in ("scissors", "bread", "nut and bolt", "Statue of Liberty", "locked"):
        assert not is_countable(thing(name))
    assert not is_countable(thing("judge", "person-role", "people-body"))


def test_svg_that_cannot_be_drawn_is_a_media_error():
    with pytest.raises(MediaError, match="svg: cannot be drawn"):
        render("<svg", 8)
