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
    """Rows by number. Memory: 8 bytes a row."""

    def __init__(self, path: Path, *, limit: int | None = None):
        self.path = Path(path)
        try:
            with open(self.path, "rb") as file:
                starts, at = [], 0
                for line in file:
                    if line.strip():
                        starts.append(at)
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
        self._starts = np.array(starts, dtype=np.int64)

    def __len__(self) -> int:
        return len(self._starts)

    def __getitem__(self, row: int) -> Sample:
        start = int(self._starts[row])
        line = os.pread(self._file.fileno(), 1 << 16, start).split(b"\n", 1)
        if len(line) == 1:  # longer than the first look
            self._file.seek(start)
            line = [self._file.readline()]
        return parse_row(json.loads(line[0]), where_file=self.path, line=row + 1, base=self.path.parent)
