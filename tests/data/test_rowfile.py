"""A file of rows as a list, against the reader that goes through it line by line."""

from __future__ import annotations

import json

import pytest

from monoglot.data.rowfile import RowFile
from monoglot.data.rows import read_rows
from monoglot.errors import InputError


def write(tmp_path, content: bytes):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(content)
    return path


def line(number: int, text: str = "x") -> bytes:
    return json.dumps({"task": "summarize", "text": f"{text}{number}"}).encode()


@pytest.mark.parametrize("ending", [b"\n", b"\r\n"])
@pytest.mark.parametrize("last", [True, False])
def test_same_as_reading_in_order(tmp_path, ending, last):
    lines = [line(1), b"", line(2), b"  ", line(3, "長い" * 40_000), line(4)]
    path = write(tmp_path, ending.join(lines) + (ending if last else b""))
    rows = RowFile(path)
    expected = list(read_rows(path))
    assert len(rows) == 4
    assert [rows[index] for index in (3, 0, 2, 1)] == [expected[index] for index in (3, 0, 2, 1)]
    assert rows[2].where == f"{path}:5" == rows.where(2)


def test_byte_order_mark(tmp_path):
    assert RowFile(write(tmp_path, b"\xef\xbb\xbf" + line(7)))[0].text == "x7"


def test_limit(tmp_path):
    path = write(tmp_path, b"\n".join(map(line, range(9))))
    assert len(RowFile(path, limit=3)) == 3
    assert RowFile(path, limit=3)[2].text == "x2"
    assert len(RowFile(path, limit=99)) == 9
    assert len(RowFile(write(tmp_path, b"\n\n"))) == 0


@pytest.mark.parametrize("broken", [b"{", b"[1]", b"\xff\xff", b'{"task": "vqa"}', b"[" * 100_000])
def test_a_broken_line_is_told_by_its_number(tmp_path, broken):
    path = write(tmp_path, b"\n".join([line(1), b"", broken, line(2)]))
    rows = RowFile(path)
    with pytest.raises(InputError) as caught:
        rows[1]
    assert str(caught.value).startswith(f"{path}:3: ")
    assert "\n" not in str(caught.value)
    assert rows[2].text == "x2"


def test_paths_start_from_the_file(tmp_path):
    path = write(tmp_path, b'{"task": "name", "image": "a.png"}')
    assert RowFile(path)[0].media[0].source == str(tmp_path / "a.png")


@pytest.mark.parametrize("name", ["absent.jsonl", "."])
def test_files_that_cannot_be_read(tmp_path, name):
    with pytest.raises(InputError, match=r"data: cannot be read .*; build it with `monoglot data build`"):
        RowFile(tmp_path / name)
