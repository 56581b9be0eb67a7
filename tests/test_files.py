"""Writing whole files or none."""

from __future__ import annotations

import os

import pytest

from monoglot.errors import InputError
from monoglot.files import atomic_path, read_json, write_json, write_text


def test_text_and_json_come_back(tmp_path):
    path = tmp_path / "new" / "folder" / "a.json"
    value = {"é": [1, None, "日本"], "b": {"c": 0.1}}
    write_json(path, value)
    assert read_json(path, "x") == value
    assert "日本" in path.read_text(encoding="utf-8")
    write_text(path, "two\nlines")
    assert path.read_text() == "two\nlines"
    assert [p.name for p in path.parent.iterdir()] == ["a.json"]


@pytest.mark.parametrize("error", [ValueError("ours"), KeyboardInterrupt()])
def test_what_fails_leaves_the_old_file(tmp_path, error):
    path = tmp_path / "a.txt"
    path.write_text("old")

    def fail():
        with atomic_path(path) as temporary:
            temporary.write_text("half")
            assert path.read_text() == "old"
            raise error

    with pytest.raises(type(error)):
        fail()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_full_disk_is_told(tmp_path, monkeypatch):
    path = tmp_path / "a.txt"
    path.write_text("old")

    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(InputError, match=r"a\.txt: cannot be written \(No space left on device\); free some space"):
        write_text(path, "new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_places_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file" / "a.txt", tmp_path / "file" / "b" / "a.txt"):
        with pytest.raises(InputError, match=r"a\.txt: cannot be written") as caught:
            write_text(path, "new")
        assert "\n" not in str(caught.value)
    (tmp_path / "folder").mkdir()
    with pytest.raises(InputError, match="folder: cannot be written"):
        write_text(tmp_path / "folder", "new")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no such file; expected a list of things"),
        (b"{", "cannot be read as JSON"),
        (b"\xff", "cannot be read as JSON"),
    ],
)
def test_json_that_cannot_be_read(tmp_path, content, message):
    path = tmp_path / "a.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=message) as caught:
        read_json(path, "a list of things")
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)
