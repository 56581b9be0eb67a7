"""What frozen encoders said, kept on disk: a picture is encoded once, however often it is drawn.

One append-only file of float16 numbers and one index, a line an item. A run that is killed leaves at most one item without an index line, which is then
simply encoded again. The file never grows beyond its bound; what no longer fits is encoded each time.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import numpy as np
from torch import nn

from monoglot.data.collate import Keyed
from monoglot.data.prepare import Preparer
from monoglot.modalities.base import Grid
from monoglot.nouns import Media, Sample


class FeatureCache:
    """float16[L, C] arrays by name, with the grid of each."""

    def __init__(self, folder: Path, max_bytes: int):
        folder.mkdir(parents=True, exist_ok=True)
        self.max_bytes = max_bytes
        self._path, self._index_path = folder / "features.bin", folder / "index.jsonl"
        self._index: dict[str, tuple[int, tuple[int, int], Grid]] = {}
        self._end = 0
        self._read_index()
        self._data = open(self._path, "ab")  # noqa: SIM115 (kept open as long as the cache lives)
        self._reader = open(self._path, "rb")  # noqa: SIM115
        self._lines = open(self._index_path, "a", encoding="utf-8")  # noqa: SIM115

    def _read_index(self) -> None:
        size = self._path.stat().st_size if self._path.exists() else 0
        if self._index_path.exists():
            for line in self._index_path.read_text(encoding="utf-8").splitlines():
                try:
                    key, offset, rows, channels, grid = json.loads(line)
                except ValueError:
                    continue  # the last line of a run that was killed
                end = offset + 2 * rows * channels
                if end <= size:
                    self._index[key] = (offset, (rows, channels), Grid(*grid))
        self._end = size

    def __len__(self) -> int:
        return len(self._index)

    def get(self, key: str) -> tuple[np.ndarray, Grid] | None:
        """The features of an item, or None."""
        found = self._index.get(key)
        if found is None:
            return None
        offset, shape, grid = found
        raw = os.pread(self._reader.fileno(), 2 * shape[0] * shape[1], offset)
        return np.frombuffer(raw, dtype=np.float16).reshape(shape), grid

    def put(self, key: str, features: np.ndarray, grid: Grid) -> None:
        """Keep the features of an item, if there is room."""
        data = np.ascontiguousarray(features, dtype=np.float16)
        if key in self._index or self._end + data.nbytes > self.max_bytes:
            return
        self._data.write(data.tobytes())
        self._data.flush()
        self._lines.write(json.dumps([key, self._end, *data.shape, list(grid)]) + "\n")
        self._index[key] = (self._end, (data.shape[0], data.shape[1]), grid)
        self._end += data.nbytes

    def close(self) -> None:
        for file in (self._data, self._reader, self._lines):
            file.close()


class CachingPreparer(Preparer):
    """Reads a media item only when its features are not kept yet."""

    cache: FeatureCache | None = None

    def read(self, media: Media, variant: int, sample: Sample) -> tuple[object, Grid]:
        key = _key(media, variant)
        if self.cache is None or key is None:
            return super().read(media, variant, sample)
        if (kept := self.cache.get(key)) is not None:
            return Keyed(key, kept[0], encoded=True), kept[1]
        item, grid = super().read(media, variant, sample)
        return Keyed(key, item, encoded=False), grid


def _key(media: Media, variant: int) -> str | None:
    """What a file's features are kept under; a changed file has another size or time. None for what is not a plain file."""
    if not isinstance(media.source, str):
        return None
    try:
        stat = os.stat(media.source)
    except OSError:
        return None
    return f"{media.modality}|{media.source}|{stat.st_size}|{stat.st_mtime_ns}|{media.start}|{media.end}|{variant}"


def fingerprint(encoders: nn.Module, settings: object) -> str:
    """Twelve letters that change when the encoders' weights or settings do."""
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode())
    for name, tensor in encoders.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:12]
