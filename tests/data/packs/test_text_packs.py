"""The text packs `docstrings` and `packages`, built from a small library and small lists made here; no network."""

import json
from itertools import product
from pathlib import Path

import pytest

from monoglot.data.packs import docstrings, packages
from monoglot.data.packs.base import PackWriter
from monoglot.data.packs.fetch import MissingSource, Package
from monoglot.data.rows import check_rows

LONG = "It walks over the edges of the graph and adds up their weights, one after another, until none of them is left."


def rows_of(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


# ---------------------------------------------------------------------------------------------------------- docstrings


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (f"{LONG}\n\nParameters\n----------\nG : graph", LONG),
        (f"{LONG}\n\nArgs:\n    G: graph\n\nMore.", LONG),
        (f"{LONG}\n:param G: graph", LONG),
        (f"{LONG}\n\n:Parameters:\n    G: graph", LONG),
        (f"{LONG}\n\n>>> weigh(G)\n3", LONG),
        (f"{LONG}\n\n.. code-block:: python\n\n    weigh(G)\n\nLoops count twice.", f"{LONG} Loops count twice."),
        (f"{LONG}\n\n```python\nweigh(G)\n\nx = 3\n```\n\nLoops count twice.", f"{LONG} Loops count twice."),
        (f"{LONG} As in ``f(x) = 2``. Loops count twice.", f"{LONG} Loops count twice."),
        (f"{LONG}\nSee :func:`weigh`.\nThe sum is of:\n\n    - loops", LONG),
        (f"{LONG} They are:\n\n- loops,\n- :class:`~a.b.Edge`", f"{LONG} loops. Edge."),
        (f"weight\n    A number.\n\n{LONG}", LONG),
    ],
    ids="numpydoc google sphinx fields doctest directive fence formula dangling list definition".split(),  # noqa: SIM905
)
def test_text_is_the_prose_below_the_summary(body, text):
    assert docstrings.split_docstring(f"Sum of the weights\nof all edges.\n\n{body}") == (
        text,
        "Sum of the weights of all edges",
    )


def test_rest_of_the_first_paragraph_belongs_to_the_text():
    found = docstrings.split_docstring(f"Sum the weights of all edges. {LONG}")
    assert found == (LONG, "Sum the weights of all edges")


@pytest.mark.parametrize(
    "doc",
    [
        f"Weights.\n\n{LONG}",
        f"Sum of the weights in `edge_list`.\n\n{LONG}",
        f"Sum of the weights: {{x}} edges.\n\n{LONG}",
        f"Deprecated sum of the weights of all edges.\n\n{LONG}",
        f"An utterly different thing altogether.\n\n{LONG}",
        "Sum of the weights of all edges.\n\nIt adds up the weights.",
        f"Sum of the weights of all edges.\n\nSum of the weights of all edges: {LONG}",
        f"Args: weights of all the edges\n\n{LONG}",
        f"Weights of edges\n================\n\n{LONG}",
        "",
    ],
    ids="short identifier template deprecated unrelated little-text repeated section title empty".split(),  # noqa: SIM905
)
def test_bad_examples_are_left_out(doc):
    assert docstrings.split_docstring(doc) is None


def test_long_text_ends_with_a_sentence():
    text, _ = docstrings.split_docstring("Sum the weights of all edges.\n\n" + f"{LONG} " * 20)
    assert text == " ".join([LONG] * (110 // len(LONG.split())))


def wheel(folder: Path, name: str, licence: str, functions: dict[str, str]) -> Path:
    """An unpacked wheel with one module."""
    info = folder / f"{name}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nLicense: {licence}\n\nText.\n")
    (info / "LICENSE").write_text("Copyright (c) 2020 Somebody\n(c) You must not\n")
    code = "".join(f'def {n}():\n    """{doc}"""\n' for n, doc in functions.items())
    (folder / name / "tests").mkdir(parents=True)
    (folder / name / "core.py").write_text(code + "raise SystemExit('must not be imported')\n")
    (folder / name / "tests" / "test_it.py").write_text(code.replace("weights", "colours"))
    (folder / name / "other.py").write_text("# under the GPL\n" + code.replace("weights", "lengths"))
    (folder / name / "broken.py").write_text("def {{ name }}(:\n")
    return folder


def docs(*things: str) -> dict[str, str]:
    return {f"f{i}": f"Sum the {t} of all edges.\n\n{LONG} The {t} are added." for i, t in enumerate(things)}


@pytest.fixture
def libraries(tmp_path, monkeypatch):
    folders = {
        "held": wheel(tmp_path / "held", "held", "BSD-3-Clause", docs("weights")),
        "small": wheel(tmp_path / "small", "small", "MIT", {}),
        "seen": wheel(tmp_path / "seen", "seen", "Apache 2.0", docs("weights", "prices")),
        "free": wheel(tmp_path / "free", "free", "GPL-3.0", docs("colours")),
    }

    def pip(name, version):
        if name not in folders:
            raise MissingSource(f"pip package {name}=={version}: not served")
        return Package("pip", name, version, "0" * 64, folders[name])

    monkeypatch.setattr(docstrings, "pip", pip)
    monkeypatch.setattr(docstrings, "TEST", {"held": "1.0"})
    monkeypatch.setattr(docstrings, "VALID", {"small": "1.0"})
    monkeypatch.setattr(docstrings, "TRAIN", {"seen": "1.0", "free": "1.0", "gone": "1.0"})


def test_docstrings_pack(libraries, tmp_path):
    with PackWriter("docstrings", tmp_path) as writer:
        docstrings._build(writer)
    folder = tmp_path / "docstrings"
    assert rows_of(folder / "summaries.test.jsonl") == [
        {
            "id": "held/held.core.f0",
            "task": "summarize",
            "text": f"{LONG} The weights are added.",
            "target": "Sum the weights of all edges",
            "lang": "en",
            "library": "held",
            "licence": "BSD",
        }
    ]
    # nothing of the test library, of a file or library under the GPL, of tests
    assert [row["target"] for row in rows_of(folder / "summaries.train.jsonl")] == ["Sum the prices of all edges"]
    assert check_rows(folder / "summaries.train.jsonl").ok
    sources = json.loads((folder / "sources.json").read_text())
    assert [skip.split(":")[0] for skip in sources["skipped"]] == ["free 1.0", "gone 1.0"]
    notice = (folder / "NOTICE.md").read_text()
    assert "## held 1.0\n\nLicence: BSD\n\nFull text: licences/held.txt. Copyright (c) 2020 Somebody" in notice
    assert "free" not in notice
    assert (folder / "licences" / "seen.txt").read_text().startswith("Copyright")


def test_docstrings_of_one_pattern_are_thinned(tmp_path):
    names = ("BertModel", "GPTModel", "ViTModel", "T5Model", "CLIPModel")
    found = [docstrings.Doc(n, f"Model {n} {LONG}", f"Settings of {n} and edges") for n in names]
    rows = docstrings._rows(PackWriter("docstrings", tmp_path), "seen", "MIT", found, set())
    assert [row["id"] for row in rows] == ["seen/BertModel", "seen/GPTModel", "seen/ViTModel"]


def test_no_library_at_all_is_told(libraries, tmp_path, monkeypatch):
    for name, split in product(("TEST", "VALID", "TRAIN"), ({"gone": "1.0"},)):
        monkeypatch.setattr(docstrings, name, split)
    with pytest.raises(MissingSource, match="none of the Python libraries"), PackWriter("docstrings", tmp_path) as out:
        docstrings._build(out)


def test_pins_are_in_one_split_each():
    names = [*docstrings.TEST, *docstrings.VALID, *docstrings.TRAIN]
    assert len(names) == len(set(names))


# ------------------------------------------------------------------------------------------------------------ packages

GAME = (
    "Slide the tiles and add them up to win the game. The field has four rows, and no other puzzle is as old as this."
)
SPIEL = (
    "タイルを動かして数を合わせるゲームです。盤面は四行四列で、これより古いパズルはありません。端末の中でも遊べます。"
)


def described(package: str, lang: str, summary: str, body: str) -> str:
    lines = "\n".join(f" {line}" for line in body.replace("\n\n", "\n.\n").split("\n"))
    return f"Package: {package}\nDescription-md5: 0\nDescription-{lang}: {summary}\n{lines}\n"


def test_description_lists_and_wrapping():
    body = (
        " Slide tiles of\n this puzzle:\n  * up, or\n  * down\n .\n See http://x.org/ for more. Others\n are fine too"
    )
    text, summary = packages.read_description(f"tile puzzle\n{body}, say all the puzzlers.", "en")
    assert summary == "tile puzzle"
    assert text == "Slide tiles of this puzzle: up. down. Others are fine too, say all the puzzlers."
    body = (
        " タイルを動かして数を\n 合わせる Linux 用の\n パズルゲームです。 盤面は四行四列で\n .\n 端末の中でも遊べます"
    )
    text, _ = packages.read_description("Linux パズルゲーム\n" + body, "ja")
    assert text == "タイルを動かして数を合わせる Linux 用のパズルゲームです。盤面は四行四列で。端末の中でも遊べます。"


def test_the_last_paragraph_is_kept_when_the_text_is_cut():
    body = "\n .\n".join([f" {GAME}"] * 9 + [" This package holds the game's manual."])
    text, _ = packages.read_description("puzzle game with tiles - manual\n" + body, "en")
    assert len(text.split()) <= 110
    assert text.endswith("This package holds the game's manual.")


@pytest.mark.parametrize(
    ("summary", "body", "lang"),
    [
        ("puzzle game", "Short.", "en"),
        ("mail server", GAME, "en"),
        ("slide the tiles", GAME, "en"),
        ("puzzle game with tiles", SPIEL, "ja"),
        ("パズルゲーム", GAME, "ja"),
        ("パズルゲーム", SPIEL + "<trans>", "ja"),
    ],
    ids="short unrelated repeated summary-untranslated untranslated half-translated".split(),  # noqa: SIM905
)
def test_bad_descriptions_are_left_out(summary, body, lang):
    assert packages.read_description(f"{summary}\n {body}", lang) is None


@pytest.fixture
def lists(tmp_path, monkeypatch):
    def family(i: int, kind: str = "game") -> str:
        return f"Number {i} of all games. {GAME} {GAME} This one is {kind}."

    english = [
        described(f"game{i}{suffix}", "en", f"tile puzzle {i}{suffix}", family(i, suffix or "plain"))
        for i in range(20)
        for suffix in ("", "-data", "-doc", "-extra")
    ]
    english += [
        described("librust-a-dev", "en", "tile puzzle", GAME),
        described("game9z", "en", "tile puzzle 9", GAME),
        described("game0", "en", "again", GAME),
    ]
    japanese = [described(f"game{i}", "ja", f"タイルのパズル {i}", f"ゲーム{i}番目。{SPIEL}") for i in range(10)]
    folder = tmp_path / "lists"
    folder.mkdir()
    (folder / "d_main_i18n_Translation-en").write_text("\n".join(english), encoding="utf-8")
    (folder / "d_main_i18n_Translation-ja").write_text("\n".join(japanese), encoding="utf-8")
    (folder / "d_InRelease").write_text("Origin: D\nVersion: 12.0\nCodename: bookworm\n")
    names = [f"game{i}{suffix}" for i in range(20) for suffix in ("", "-data", "-doc")]
    sections = [f"Package: {n}\nSection: {'doc' if n.endswith('doc') else 'contrib/games'}\n" for n in names]
    (folder / "d_binary-amd64_Packages").write_text("\n".join(sections))
    monkeypatch.setattr(packages, "fetch_lists", lambda: folder)
    monkeypatch.setattr(packages, "_read", lambda path: path.read_text(encoding="utf-8"))
    monkeypatch.setattr(packages, "HELD_OUT", {"valid": {"ja": 2, "en": 3}, "test": {"ja": 3, "en": 5}})
    monkeypatch.setattr(packages, "MIN_ROWS_A_SECTION", 5)


def test_packages_pack(lists, tmp_path):
    for out in (tmp_path, tmp_path / "again"):
        with PackWriter("packages", out) as writer:
            packages._build(writer)
    files = {path.stem: rows_of(path) for path in (tmp_path / "packages").glob("*.jsonl")}
    assert files == {path.stem: rows_of(path) for path in (tmp_path / "again" / "packages").glob("*.jsonl")}
    assert {name: len(rows) for name, rows in files.items()} == {
        **{"summaries_en.train": 12 * 3, "summaries_en.valid": 3, "summaries_en.test": 5},
        **{"summaries_ja.train": 5, "summaries_ja.valid": 2, "summaries_ja.test": 3},
        **{"sections.train": 12 * 3, "sections.valid": 3, "sections.test": 5},
    }
    groups = {name: {row["group"] for row in rows} for name, rows in files.items()}
    for lang, split in product(("en", "ja"), ("valid", "test")):
        others = set().union(*(found for name, found in groups.items() if not name.endswith(split)))
        assert not groups[f"summaries_{lang}.{split}"] & others  # neither in its own nor in the other language
        assert len(groups[f"summaries_{lang}.{split}"]) == len(files[f"summaries_{lang}.{split}"])
    assert files["sections.test"][0]["choices"] == ["doc", "games"]
    assert all(check_rows(path).ok for path in (tmp_path / "packages").glob("*.jsonl"))
    sources = json.loads((tmp_path / "packages" / "sources.json").read_text())
    assert [(p["name"], p["version"]) for p in sources["packages"]] == [
        ("Translation-en", "12.0-bookworm"),
        ("Translation-ja", "12.0-bookworm"),
    ]


def test_without_apt_the_message_says_so(tmp_path, monkeypatch):
    monkeypatch.setenv("MONOGLOT_CACHE", str(tmp_path))
    monkeypatch.setattr(packages.shutil, "which", lambda name: None)
    with pytest.raises(MissingSource, match="the command apt-get is missing; it comes with Debian and Ubuntu"):
        packages.fetch_lists()
