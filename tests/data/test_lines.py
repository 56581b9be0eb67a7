"""Where lines begin, against Python's own reading of lines; and the index that is kept of it."""

from __future__ import annotations

import multiprocessing
import os
import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from monoglot.data import lines
from monoglot.data.lines import line_index


def by_reading(path) -> tuple[list[int], list[int]]:
    """(start, line number) of each line that is not blank."""
    starts, numbers, at = [], [], 0
    with open(path, "rb") as file:
        for number, line in enumerate(file, start=1):
            text = line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line
            if text.strip():
                starts.append(at)
                numbers.append(number)
            at += len(line)
    return starts, numbers


def found(path, limit=None):
    with open(path, "rb", buffering=0) as file:
        return line_index(path, file, limit=limit)


def check(path):
    index = found(path)
    starts, numbers = by_reading(path)
    assert index.starts[:-1].tolist() == starts
    assert index.starts[-1] == path.stat().st_size
    assert [index.number(row) for row in range(len(index))] == numbers


PIECES = st.sampled_from(
    [b"a", b"{}", b" ", b"\t", b"\r", b"\n", b"\n\n", b"\r\n", b" x", b"\xef\xbb\xbf", b"\x0c", b"long" * 9]
)


@given(st.lists(PIECES, max_size=40), st.sampled_from([1, 2, 3, 7, 64, 1 << 20]))
def test_same_as_reading_line_by_line(tmp_path_factory, pieces, block):
    path = tmp_path_factory.mktemp("lines") / "rows.jsonl"
    path.write_bytes(b"".join(pieces))
    with pytest.MonkeyPatch.context() as patch:
        if block >= 3 or not path.read_bytes().startswith(b"\xef"):  # a mark that is cut in two
            patch.setattr(lines, "BLOCK", block)
        check(path)


def test_many_blocks(tmp_path, monkeypatch):
    monkeypatch.setattr(lines, "BLOCK", 1 << 12)
    rng = np.random.default_rng(0)
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b"\n".join(bytes(rng.choice([32, 97, 98], rng.integers(0, 9000))) for _ in range(300)))
    check(path)


@pytest.fixture
def kept(tmp_path, monkeypatch):
    """Every file's index is kept, in a cache of this test."""
    monkeypatch.setenv("MONOGLOT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(lines, "KEPT_FROM", 0)
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b"one\n\ntwo\nthree\n")
    return path


def cached(path):
    return list((path.parent / "cache" / "lines").glob("*"))


def no_scan(*_):
    raise AssertionError("the file is scanned again")


def test_a_kept_index_is_mapped_and_not_made_again(kept, monkeypatch):
    first = found(kept)
    monkeypatch.setattr(lines, "scan", no_scan)
    again = found(kept)
    assert again.starts.tolist() == first.starts.tolist() == [0, 5, 9, 15]
    assert again.blanks.tolist() == [1]
    base = again.starts
    while not isinstance(base, np.memmap):
        base = base.base
    assert len(cached(kept)) == 1
    assert len(found(kept, limit=2)) == 3  # the whole index is there anyway


def test_a_changed_file_gets_a_new_index_in_place_of_the_old(kept):
    found(kept)
    kept.write_bytes(b"one\nTWO!\nthree")
    assert found(kept).starts.tolist() == [0, 4, 9, 14 - 0]
    status = kept.stat()
    kept.write_bytes(b"o\nTWO!\n three")  # as long, and as old
    os.utime(kept, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    assert found(kept).starts.tolist() == [0, 2, 7, 13]
    assert len(cached(kept)) == 1


@pytest.mark.parametrize("content", [b"", b"12345", bytes(48), bytes(4800)])
def test_a_broken_index_is_made_again(kept, content):
    found(kept)
    cached(kept)[0].write_bytes(content)
    assert found(kept).starts.tolist() == [0, 5, 9, 15]
    whole = cached(kept)[0].read_bytes()
    cached(kept)[0].write_bytes(whole[:-8])
    assert found(kept).starts.tolist() == [0, 5, 9, 15]
    assert cached(kept)[0].read_bytes() == whole


def test_a_cache_that_cannot_be_written_is_done_without(kept, monkeypatch):
    (kept.parent / "file").touch()
    monkeypatch.setenv("MONOGLOT_CACHE", str(kept.parent / "file" / "below"))
    check(kept)

    def nobody():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(lines, "cache_dir", nobody)
    check(kept)


def test_small_files_are_not_kept(kept, monkeypatch):
    monkeypatch.setattr(lines, "KEPT_FROM", 1 << 20)
    check(kept)
    assert cached(kept) == []


def test_with_a_limit_the_pass_ends_early_and_nothing_is_kept(kept, monkeypatch):
    monkeypatch.setattr(lines, "BLOCK", 4)
    path = kept.parent / "many.jsonl"
    path.write_bytes(b"\n".join(b"row" for _ in range(1000)))
    blocks = []
    whole_scan = lines.scan

    def counted(*given):
        for block in whole_scan(*given):
            blocks.append(block)
            yield block

    monkeypatch.setattr(lines, "scan", counted)
    index = found(path, limit=5)
    assert index.starts.tolist() == [0, 4, 8, 12, 16, 20]
    assert len(blocks) < 8
    assert cached(path) == []
    assert len(found(path, limit=5000)) == 1000


def open_and_count(path, counts):
    lines.KEPT_FROM = 0
    counts.put(len(found(path)))


def test_two_processes_and_two_threads_may_make_it_at_once(kept):
    kept.write_bytes(b"row\n" * 100_000)
    context = multiprocessing.get_context("fork")
    counts = context.Queue()
    makers = [context.Process(target=open_and_count, args=(kept, counts)) for _ in range(3)]
    makers += [threading.Thread(target=open_and_count, args=(kept, counts)) for _ in range(3)]
    for maker in makers:
        maker.start()
    assert [counts.get(timeout=120) for _ in makers] == [100_000] * 6
    for maker in makers:
        maker.join()
    assert len(cached(kept)) == 1
    check(kept)
