"""A pack appears whole or not at all, and says what it was made from."""

import json
import os
from pathlib import Path

import pytest

from monoglot.data.packs import base
from monoglot.data.packs.base import Pack, PackWriter, build
from monoglot.data.packs.fetch import MissingSource, Package
from monoglot.errors import InputError
from monoglot.registry import Registry

ROW = {"id": "a", "task": "name", "target": "cat"}


def rows(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_files_get_their_names_only_at_the_end(tmp_path):
    with PackWriter("toy", tmp_path) as writer:
        writer.add("names", "train", ROW)
        assert not list((tmp_path / "toy").glob("*.jsonl"))
        assert not (tmp_path / "toy/sources.json").exists()
    assert rows(tmp_path / "toy/names.train.jsonl") == [ROW]
    assert sorted(path.name for path in (tmp_path / "toy").iterdir()) == [
        "NOTICE.md",
        "names.train.jsonl",
        "sources.json",
    ]


def test_a_failure_leaves_no_rows_and_no_finished_mark_but_keeps_media(tmp_path):
    with PackWriter("toy", tmp_path) as writer:
        writer.add("names", "train", ROW)
    writer = PackWriter("toy", tmp_path)
    writer.__enter__()
    writer.add("names", "train", {**ROW, "image": writer.media("x/a.png", b"picture"), "target": "dog"})
    writer.__exit__(RuntimeError)
    assert rows(tmp_path / "toy/names.train.jsonl") == [ROW], "the rows of the last whole build stay"
    assert not (tmp_path / "toy/sources.json").exists()
    assert (tmp_path / "toy/media/x/a.png").read_bytes() == b"picture"
    assert not list((tmp_path / "toy").glob(".*")), "no temporary file is left"


def test_what_an_earlier_build_left_goes(tmp_path):
    with PackWriter("toy", tmp_path) as writer:
        writer.add("old", "train", {**ROW, "image": writer.media("old.png", b"1")})
        writer.add("names", "train", {**ROW, "id": "b"})
    with PackWriter("toy", tmp_path) as writer:
        writer.media("kept.png", b"2")
        writer.add("names", "train", ROW)
    assert [path.name for path in (tmp_path / "toy").glob("*.jsonl")] == ["names.train.jsonl"]
    assert [path.name for path in (tmp_path / "toy/media").iterdir()] == ["kept.png"]


def test_what_a_killed_build_left_goes_after_an_hour(tmp_path):
    (tmp_path / "toy").mkdir()
    old, new = tmp_path / "toy/.a.train.1.tmp", tmp_path / "toy/.a.train.2.tmp"
    old.touch()
    new.touch()
    os.utime(old, (0, 0))
    with PackWriter("toy", tmp_path):
        pass
    assert (old.exists(), new.exists()) == (False, True)


def test_media_are_rewritten_only_when_they_change(tmp_path):
    with PackWriter("toy", tmp_path) as writer:
        assert writer.media("a/b.png", b"one") == "media/a/b.png"
        path = tmp_path / "toy/media/a/b.png"
        before = path.stat().st_ino
        writer.media("a/b.png", b"one")
        assert path.stat().st_ino == before
        writer.media("a/b.png", b"two")
        assert path.read_bytes() == b"two"
        assert [p.name for p in path.parent.iterdir()] == ["b.png"]


@pytest.mark.parametrize(
    ("change", "split", "message"),
    [
        ({}, "dev", "split is 'dev', expected one of train, valid, test"),
        ({"id": ""}, "train", "missing id"),
        ({"task": None}, "train", "missing task"),
        ({"target": ""}, "train", "missing one of target, targets, box"),
        ({"image": "media/none.png"}, "train", "image 'media/none.png' is not a file"),
        ({"image": ["media/none.png"]}, "train", "'media/none.png' is not a file"),
    ],
)
def test_a_wrong_row_is_loud(tmp_path, change, split, message):
    with PackWriter("toy", tmp_path) as writer, pytest.raises(ValueError, match="pack toy, names") as told:
        writer.add("names", split, ROW | change)
    assert message in str(told.value)


def test_ids_are_unique_in_the_whole_pack(tmp_path):
    with PackWriter("toy", tmp_path) as writer:
        writer.add("names", "train", ROW)
        with pytest.raises(ValueError, match="used before"):
            writer.add("kinds", "test", ROW)


def test_limit_counts_each_file(tmp_path):
    with PackWriter("toy", tmp_path, limit=2) as writer:
        for number in range(5):
            assert writer.full("names", "train") == (number >= 2)
            writer.add("names", "train", {**ROW, "id": f"{number}"})
        writer.add("names", "test", {**ROW, "id": "t"})
        assert writer.counts() == {"names.test": 1, "names.train": 2}


def test_sources_and_notice(tmp_path):
    package = Package("npm", "pens", "1.0", "ab", tmp_path)
    with PackWriter("toy", tmp_path, seed=3) as writer:
        writer.source(package)
        writer.source(package)
        writer.notice("Pens", "MIT", "By someone.")
        writer.skip("crayons", "gone")
        writer.add("names", "train", ROW)
    told = json.loads((tmp_path / "toy/sources.json").read_text())
    assert told["packages"] == [{"kind": "npm", "name": "pens", "version": "1.0", "sha256": "ab"}]
    assert (told["seed"], told["skipped"], told["rows"]) == (3, ["crayons: gone"], {"names.train": 1})
    assert "## Pens\n\nLicence: MIT\n\nBy someone." in (tmp_path / "toy/NOTICE.md").read_text()


def test_build_makes_needs_first_once_and_again_only_by_force(tmp_path, monkeypatch):
    built: list[str] = []

    def maker(name):
        def make(writer):
            built.append(name)
            writer.add("names", "train", ROW)

        return make

    packs: Registry[Pack] = Registry("pack")
    packs.add("base", Pack("base", "", maker("base")))
    packs.add("top", Pack("top", "", maker("top"), needs=("base",)))
    monkeypatch.setattr(base, "PACKS", packs)
    assert build("top", tmp_path) == tmp_path / "top"
    build("top", tmp_path)
    assert built == ["base", "top"]
    build("top", tmp_path, force=True)
    assert built == ["base", "top", "top"]
    with pytest.raises(InputError, match="no pack named 'tip'; closest: 'top'"):
        build("tip", tmp_path)


def test_a_missing_source_that_is_needed_is_one_clear_line(tmp_path, monkeypatch):
    def make(writer):
        raise MissingSource("npm package pens@1.0: the command npm is missing")

    packs: Registry[Pack] = Registry("pack")
    packs.add("toy", Pack("toy", "", make))
    monkeypatch.setattr(base, "PACKS", packs)
    with pytest.raises(InputError, match=r"pack toy: source: npm package pens@1\.0: the command npm is missing"):
        build("toy", tmp_path)
    assert not (tmp_path / "toy/sources.json").exists()
