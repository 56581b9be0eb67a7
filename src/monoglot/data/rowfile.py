"""Rows by number, of a JSONL file or of a folder of shards that `monoglot data pack` made: no row is read before it is asked for.

    path -> RowFile -> [row] -> (pread of its bytes) -> parse_row -> Sample

Opening costs the same for ten rows and ten million, except for the first pass over a JSONL file (see lines.py), and
memory stays flat: indices are mapped from disk. Reading moves no file position, so that threads and forked processes may
share a RowFile; one that is pickled opens its file again.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from monoglot.data.lines import line_index
from monoglot.data.rows import TAR, parse_row
from monoglot.errors import InputError
from monoglot.files import read_json
from monoglot.nouns import Sample
from monoglot.plugins import media_kinds

MANIFEST, INDEX, MEDIA = "pack.json", "index.npy", "media.npy"
"""What lies beside the shards of a pack; see docs/packing.md."""
PACK_VERSION = 1
ROW = np.dtype([("shard", "<u4"), ("length", "<u4"), ("offset", "<u8"), ("number", "<u8"), ("media", "<u8")])
"""One row of index.npy: number of its shard in pack.json; bytes and place of its JSON in there; its number where it came
from, which names its members; its first entry in media.npy (the next row's comes after its last)."""
MEMBER = np.dtype([("offset", "<u8"), ("length", "<u8")])
"""One media item of media.npy: where its bytes are in the shard of its row."""

WHOLE = 8 * 2**20
"""Bytes up to which a file's fingerprint is a hash of all of it."""
PIECE = 64 * 2**10  # bytes hashed at the head, the tail and each place between
PIECES = 64


class RowFile:
    """Rows by number.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "rows.jsonl")
    ...     written = path.write_text('{"task": "summarize", "text": "a"}\\n\\n{"task": "summarize", "text": "b"}\\n')
    ...     rows = RowFile(path)
    ...     len(rows), rows[1].text, rows.where(1) == f"{path}:3"
    (2, 'b', True)
    """

    def __init__(self, path: str | os.PathLike[str], *, limit: int | None = None):
        """
        Args:
            path: a JSONL file, or a folder with a pack.json.
            limit: at most so many rows, the first ones.

        Raises:
            InputError: nothing is there, or it cannot be read.
        """
        self.path = Path(path)
        self._limit = limit
        packed = (self.path / MANIFEST).is_file()
        self._rows: _Rows = _Shards(self.path) if packed else _Lines(self.path, limit)
        self._length = len(self._rows) if limit is None else min(limit, len(self._rows))

    def __len__(self) -> int:
        return self._length

    def where(self, row: int) -> str:
        """`file:line` or `shard.tar#member`, for messages."""
        return self._rows.where(self._checked(row))

    def __getitem__(self, row: int) -> Sample:
        """Raises InputError when there is no row where it should be."""
        return self._rows.read(self._checked(row))

    def fingerprint(self) -> str:
        """Tells whether the rows changed, at a cost that does not grow with them.

        Packed rows: a hash of what pack.json says of every shard and index, among it their sha256; a shard that was
        changed later without its pack.json is missed. A JSONL file up to `WHOLE` bytes: a hash of all of it. A larger
        one: of its size, and of `PIECE` bytes at its head, at its tail and at 64 places evenly between; missed is a
        change that keeps the size and falls between those places. Never looked at: the media that a JSONL file names.
        """
        return self._rows.fingerprint()

    def _checked(self, row: int) -> int:
        if not 0 <= row < self._length:
            raise IndexError(f"row {row} of {self.path}, which has {self._length}")
        return row

    def __reduce__(self) -> tuple[Any, ...]:
        return _open, (self.path, self._limit)


def _open(path: Path, limit: int | None) -> RowFile:
    return RowFile(path, limit=limit)


class _Rows(Protocol):
    def __len__(self) -> int: ...
    def where(self, row: int) -> str: ...
    def read(self, row: int) -> Sample: ...
    def fingerprint(self) -> str: ...


class _Lines:
    """A JSONL file."""

    def __init__(self, path: Path, limit: int | None):
        self.path = path
        try:
            self._file = open(path, "rb", buffering=0)  # noqa: SIM115 (kept open as long as the rows live)
            self._index = line_index(path, self._file, limit=limit)
        except OSError as error:
            raise _unreadable(path, error) from None

    def __len__(self) -> int:
        return len(self._index)

    def where(self, row: int) -> str:
        return f"{self.path}:{self._index.number(row)}"

    def read(self, row: int) -> Sample:
        start, end = self._index.starts[row : row + 2].tolist()
        number = self._index.number(row)
        try:
            raw = os.pread(self._file.fileno(), end - start, start)
        except OSError as error:
            raise _unreadable(self.path, error) from None
        given = _decoded(raw.split(b"\n", 1)[0], self.path, number)
        return parse_row(given, where_file=self.path, line=number, base=self.path.parent)

    def fingerprint(self) -> str:
        descriptor = self._file.fileno()
        size = os.fstat(descriptor).st_size
        if size <= WHOLE:
            return f"whole-{hashlib.sha256(os.pread(descriptor, size, 0)).hexdigest()}"
        digest = hashlib.sha256(str(size).encode())
        for place in range(PIECES + 2):
            digest.update(os.pread(descriptor, PIECE, (size - PIECE) * place // (PIECES + 1)))
        return f"sampled-{digest.hexdigest()}"


class _Shards:
    """A folder of tar shards with an index."""

    def __init__(self, folder: Path):
        self.folder = folder
        manifest = read_json(folder / MANIFEST, "what `monoglot data pack` wrote")
        fix = "pack the rows again"
        try:
            version, count = manifest["pack_version"], manifest["rows"]
            self._names: list[str] = [str(shard["url"]) for shard in manifest["shardlist"]]
            self._hashes = [str(one["sha256"]) for one in (*manifest["shardlist"], *manifest["index"].values())]
        except (KeyError, TypeError, AttributeError) as error:
            raise InputError.at(folder / MANIFEST, "data", f"is no page of a pack ({error!r})", fix) from None
        if version != PACK_VERSION:
            wrong = f"is version {version}, known is {PACK_VERSION}"
            raise InputError.at(folder / MANIFEST, "pack_version", wrong, fix)
        try:
            missing = sorted({*self._names, INDEX, MEDIA} - set(os.listdir(folder)))
            if missing:
                raise InputError.at(folder / missing[0], "data", "no such file", "copy the whole folder, or " + fix)
            self._index, self._media = (_mapped(folder / name) for name in (INDEX, MEDIA))
        except OSError as error:
            raise _unreadable(folder, error) from None
        if self._index.dtype != ROW or self._media.dtype != MEMBER or len(self._index) != count:
            raise InputError.at(folder / INDEX, "data", f"does not fit {MANIFEST}", fix)

    def __len__(self) -> int:
        return len(self._index)

    def where(self, row: int) -> str:
        shard, _, _, number, _ = self._index[row].tolist()
        return f"{os.path.join(self.folder, self._names[shard])}#{number:09d}.json"

    def read(self, row: int) -> Sample:
        shard, length, offset, number, first = self._index[row].tolist()
        path = os.path.join(self.folder, self._names[shard])
        where = f"{path}#{number:09d}.json"
        try:
            with open(path, "rb", buffering=0) as file:  # not kept open: shards may be many
                raw = os.pread(file.fileno(), length, offset)
        except OSError as error:
            raise _unreadable(path, error) from None
        given = _decoded(raw, where, None)
        behind = int(self._index[row + 1]["media"]) if row + 1 < len(self._index) else len(self._media)
        places = self._media[first:behind].tolist()
        named = [key for key in given if key in media_kinds()] if isinstance(given, dict) else []
        for key in named:
            names = given[key] if isinstance(given[key], list) else [given[key]]
            # The place spares the reader a pass over the headers of the shard; see modalities/source.py.
            given[key] = [f"{TAR}{self._names[shard]}#{name}@{at}+{size}" for name, (at, size) in zip(names, places)]
            places = places[len(names) :]
        return parse_row(given, where_file=where, base=self.folder)

    def fingerprint(self) -> str:
        return f"pack-{hashlib.sha256(' '.join(self._hashes).encode()).hexdigest()}"


def _mapped(path: Path) -> np.ndarray:
    try:
        return np.asarray(np.load(path, mmap_mode="r", allow_pickle=False))
    except (ValueError, EOFError) as error:
        raise InputError.at(path, "data", f"cannot be read ({error})", "pack the rows again") from None


def _decoded(raw: bytes, where: str | Path, line: int | None) -> Any:
    try:
        return json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise InputError.at(where, "", f"broken JSON ({error})", "expected one object a line", line=line) from None


def _unreadable(path: str | Path, error: OSError) -> InputError:
    fix = "build it with `monoglot data build`, or correct the path"
    return InputError.at(path, "data", f"cannot be read ({error.strerror})", fix)
