"""Where the lines of a file begin: found by one fast pass, kept in the cache, mapped by every later start.

    file -> (scan: newlines, block by block) -> starts and blank lines -> (cache) -> LineIndex

What is kept is one file of int64 for each path, `lines/<hash of the path>.bin` in the cache folder:

    version, size, mtime in ns, inode, rows N, blank lines B | N starts, end of the last row | B numbers of rows above a blank line

Letters: N rows, B blank lines.
"""

from __future__ import annotations

import hashlib
import io
import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from monoglot.cache import cache_dir
from monoglot.errors import InputError
from monoglot.files import atomic_path

VERSION = 1
KEPT_FROM = 16 * 2**20
"""Bytes from which on a file's index is kept; a smaller file is scanned again in some ten milliseconds."""
SHOWN_FROM = 2 * 2**30
"""Bytes from which on a progress bar is shown."""
BLOCK = 4 * 2**20  # bytes read at a time
_NUMBER = np.dtype("<i8")
_HEADER = 6  # numbers before the first start
_NEWLINE = 10
_SPACES = np.isin(np.arange(256), list(b" \t\n\r\x0b\x0c"))  # what bytes.strip() takes away
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_building = threading.Lock()  # two threads of a process would share a temporary file


@dataclass(frozen=True)
class LineIndex:
    """The lines that are not blank, as rows 0 .. N - 1."""

    starts: np.ndarray
    """int64[N + 1]: where each row begins; then the end of the last. A row reaches at most to the start of the next."""
    blanks: np.ndarray
    """int64[B], rising: how many rows stand above each blank line."""

    def __len__(self) -> int:
        return len(self.starts) - 1

    def number(self, row: int) -> int:
        """The line of a row as editors count, from 1."""
        return row + 1 + int(np.searchsorted(self.blanks, row, side="right"))


def line_index(path: Path, file: BinaryIO, *, limit: int | None = None) -> LineIndex:
    """The index of an open file, from the cache or by a pass over it.

    Args:
        file: unbuffered; its position is moved.
        limit: rows that are wanted. Without a kept index the pass ends there, and nothing is kept.

    Raises:
        OSError: the file cannot be read. A cache that cannot be written is no error: the index is then held in memory.
    """
    status = os.fstat(file.fileno())
    # A file of the same size, time and inode counts as the same.
    key = (VERSION, status.st_size, status.st_mtime_ns, status.st_ino)
    if status.st_size < KEPT_FROM:
        return _in_memory(file, status.st_size, key, limit)
    with _building:
        found = _kept(path, file, key, build=limit is None)
    return found or _in_memory(file, status.st_size, key, limit)


def _kept(path: Path, file: BinaryIO, key: tuple[int, ...], *, build: bool) -> LineIndex | None:
    """The index in the cache, written there first if it is not and `build` is set; None without a usable cache."""
    try:
        kept = cache_dir() / "lines" / f"{hashlib.sha256(os.path.realpath(path).encode()).hexdigest()[:32]}.bin"
        found = _read(kept, key)
        if found is None and build:
            with atomic_path(kept) as draft, open(draft, "wb") as into:
                _write(file, key[1], key, into)
            found = _read(kept, key)
    except (InputError, RuntimeError):  # cannot be written; nobody's home
        return None
    return found


def scan(file: BinaryIO, size: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """For each block of a file, from its beginning: (int64[n] starts of the rows in it, int64[b] rows above each blank line in it)."""
    buffer = memoryview(bytearray(BLOCK))
    at, rows, begins = 0, 0, True  # begins: the block begins with a line
    file.seek(0)
    while at < size and (count := file.readinto(buffer[: size - at])):  # type: ignore[attr-defined]
        block = np.frombuffer(buffer, np.uint8, count)
        starts = np.flatnonzero(block == _NEWLINE) + 1
        if begins:
            starts = np.concatenate([[0], starts])
        begins = bool(block[-1] == _NEWLINE)
        if begins:
            starts = starts[:-1]  # that line is the next block's
        first = block[starts]
        blank = _SPACES[first]
        mark = len(_BYTE_ORDER_MARK) if at == 0 and bytes(block[:3]) == _BYTE_ORDER_MARK else 0
        blank[:1] |= mark > 0
        for line in np.flatnonzero(blank & (first != _NEWLINE)):  # spaces alone, or a row behind spaces or the mark
            blank[line] = _is_blank(file, at + int(starts[line]) + (0 if line else mark))
        above = rows + np.cumsum(~blank)
        yield starts[~blank] + at, above[blank]
        rows = int(above[-1]) if len(above) else rows
        at += count
        file.seek(at)


def _is_blank(file: BinaryIO, start: int) -> bool:
    file.seek(start)
    while piece := file.read(4096):
        line, newline, _ = piece.partition(b"\n")
        if line.strip():
            return False
        if newline:
            return True
    return True


def _in_memory(file: BinaryIO, size: int, key: tuple[int, ...], limit: int | None) -> LineIndex:
    into = io.BytesIO()
    _write(file, size, key, into, limit)
    index = _parse(np.frombuffer(into.getbuffer(), _NUMBER), key)
    assert index is not None
    return index


def _write(file: BinaryIO, size: int, key: tuple[int, ...], into: BinaryIO, limit: int | None = None) -> None:
    """Write the index of a file, or of its first `limit` rows; blank lines behind those may be missing."""
    into.write(bytes(_HEADER * _NUMBER.itemsize))
    rows, all_blanks, end = 0, [np.zeros(0, _NUMBER)], 0
    for starts, blanks in _with_progress(file, size):
        if limit is not None and rows + len(starts) > limit:
            starts, end = starts[: limit - rows], int(starts[limit - rows])
        into.write(starts.astype(_NUMBER, copy=False).tobytes())
        all_blanks.append(blanks)
        rows += len(starts)
        if end:
            break
    numbers = np.concatenate([[end or size], *all_blanks])
    into.write(numbers.astype(_NUMBER).tobytes())
    into.seek(0)
    into.write(np.array([*key, rows, len(numbers) - 1], _NUMBER).tobytes())


def _with_progress(file: BinaryIO, size: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    if size < SHOWN_FROM:
        yield from scan(file, size)
        return
    from rich.console import Console
    from rich.progress import Progress

    screen = Console(stderr=True)
    with Progress(console=screen, transient=True, disable=not screen.is_terminal) as progress:
        bar = progress.add_task("finding the rows", total=size)
        for number, found in enumerate(scan(file, size), start=1):
            progress.update(bar, completed=min(number * BLOCK, size))
            yield found


def _read(kept: Path, key: tuple[int, ...]) -> LineIndex | None:
    """The kept index if it is there, whole, and of this very file."""
    try:
        return _parse(np.memmap(kept, _NUMBER, mode="r"), key)
    except (OSError, ValueError):  # ValueError: empty, or no whole numbers
        return None


def _parse(numbers: np.ndarray, key: tuple[int, ...]) -> LineIndex | None:
    if len(numbers) < _HEADER or tuple(numbers[: len(key)].tolist()) != key:
        return None
    rows, blanks = numbers[len(key) : _HEADER].tolist()
    if rows < 0 or len(numbers) != _HEADER + rows + 1 + blanks:
        return None
    starts, above = np.split(np.asarray(numbers[_HEADER:]), [rows + 1])
    return LineIndex(starts, above)
