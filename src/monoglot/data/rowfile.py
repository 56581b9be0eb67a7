"""A JSONL file as a list: only where its lines begin is held in memory, a row is parsed when it is asked for."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np

from monoglot.data.rows import parse_row
from monoglot.errors import InputError
from monoglot.nouns import Sample


class RowFile:
    """Rows by number. Memory: 16 bytes a row."""

    def __init__(self, path: Path, *, limit: int | None = None):
        self.path = Path(path)
        try:
            with open(self.path, "rb") as file:
                starts, lines, at = [], [], 0
                for number, line in enumerate(file, start=1):
                    if line.strip():
                        starts.append(at)
                        lines.append(number)
                        if limit is not None and len(starts) == limit:
                            break
                    at += len(line)
            self._file = open(self.path, "rb")  # noqa: SIM115 (kept open as long as the list lives)
        except OSError as error:
            raise InputError.at(
                self.path,
                "data",
                f"cannot be read ({error.strerror})",
                "build it with `monoglot data build`, or correct the path",
            ) from None
        self._starts, self._lines = np.array(starts, dtype=np.int64), np.array(lines, dtype=np.int64)

    def __len__(self) -> int:
        return len(self._starts)

    def fingerprint(self) -> str:
        import hashlib

        return hashlib.sha256(self.path.read_bytes()).hexdigest()

    def where(self, row: int) -> str:
        """`file:line`, for messages."""
        return f"{self.path}:{self._lines[row]}"

    def __getitem__(self, row: int) -> Sample:
        """Raises InputError when the line is not a row."""
        start = int(self._starts[row])
        line = os.pread(self._file.fileno(), 1 << 16, start).split(b"\n", 1)
        if len(line) == 1:  # longer than the first look
            self._file.seek(start)
            line = [self._file.readline()]
        number = int(self._lines[row])
        try:
            given = json.loads(line[0])
        except (ValueError, RecursionError) as error:
            raise InputError.at(
                self.path, "", f"broken JSON ({error})", "expected one object a line", line=number
            ) from None
        return parse_row(given, where_file=self.path, line=number, base=self.path.parent)
