"""A file of rows as a list, against the reader that goes through it line by line. Packs as lists: test_pack.py."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import pickle
from concurrent.futures import ThreadPoolExecutor

import pytest

from monoglot.data import rowfile
from monoglot.data.pack import pack
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


# --- as a list --------------------------------------------------------------------------------------------------------


def test_it_ends_where_lists_end(tmp_path):
    rows = RowFile(write(tmp_path, b"\n".join(map(line, range(9)))), limit=4)
    assert [sample.text for sample in rows] == ["x0", "x1", "x2", "x3"]
    for row in (-1, 4, 8):
        with pytest.raises(IndexError, match=f"row {row} of .*rows.jsonl, which has 4"):
            rows[row]
        with pytest.raises(IndexError):
            rows.where(row)


@pytest.mark.parametrize("packed", [False, True])
def test_threads_processes_and_pickles_read_the_same(tmp_path, packed):
    path = write(tmp_path, b"\n".join(map(line, range(300))))
    if packed:
        pack(path, tmp_path / "shards")
        path = tmp_path / "shards"
    rows = RowFile(path, limit=200)
    expected = [f"x{row}" for row in range(200)]
    with ThreadPoolExecutor(4) as pool:
        assert [sample.text for sample in pool.map(rows.__getitem__, range(200))] == expected
    with multiprocessing.get_context("fork").Pool(2) as pool:
        assert [sample.text for sample in pool.map(rows.__getitem__, range(200), chunksize=7)] == expected
    copy = pickle.loads(pickle.dumps(rows))
    assert [sample.text for sample in copy] == expected
    assert len(copy) == 200


# --- fingerprints -----------------------------------------------------------------------------------------------------


def test_fingerprint_of_a_small_file_sees_every_change(tmp_path):
    path = write(tmp_path, b"\n".join(map(line, range(99))))
    before = RowFile(path).fingerprint()
    assert before == RowFile(path, limit=3).fingerprint() == f"whole-{hashlib.sha256(path.read_bytes()).hexdigest()}"
    content = path.read_bytes()
    for changed in (content[:-1], content.replace(b"x50", b"x5O"), content + b"\n"):
        path.write_bytes(changed)
        assert RowFile(path).fingerprint() != before


def test_fingerprint_of_a_large_file_sees_its_size_and_some_places(tmp_path, monkeypatch):
    monkeypatch.setattr(rowfile, "WHOLE", 1000)
    monkeypatch.setattr(rowfile, "PIECE", 10)
    content = b"\n".join(map(line, range(999)))
    path = write(tmp_path, content)
    before = RowFile(path).fingerprint()
    assert before.startswith("sampled-")
    size, pieces = len(content), 66
    looked_at = {place * (size - 10) // (pieces - 1) + byte for place in range(pieces) for byte in range(10)}
    for place in range(0, size, 397):
        other = bytearray(content)
        other[place] ^= 1
        path.write_bytes(other)
        assert (_without_index(path).fingerprint() != before) == (place in looked_at)  # as the docstring says
    for changed in (content + b"\n", b" " + content[1:], content[:-1] + b" "):
        path.write_bytes(changed)
        assert _without_index(path).fingerprint() != before


def _without_index(path) -> RowFile:
    return RowFile(path, limit=1)


def test_fingerprint_of_a_pack_is_of_its_shards(tmp_path):
    path = write(tmp_path, b"\n".join(map(line, range(99))))
    pack(path, tmp_path / "a")
    pack(path, tmp_path / "b")
    path.write_bytes(path.read_bytes().replace(b"x50", b"x5O"))
    pack(path, tmp_path / "c")
    a, b, c = (RowFile(tmp_path / name).fingerprint() for name in "abc")
    assert a == b != c
    assert a.startswith("pack-")
