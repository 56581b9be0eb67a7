"""What frozen encoders said, kept on disk: a picture is encoded once, however often it is drawn.

One append-only file of float16 numbers and one index, a line an item with its checksum. A run that is killed leaves at
most one item without an index line, and an item that is not what its line says is simply encoded again. Runs and their
processes may share a cache. The file never grows beyond its bound; what no longer fits is encoded each time.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
import weakref
import zlib
from pathlib import Path

import numpy as np
from torch import nn

from monoglot.data.collate import Keyed
from monoglot.data.prepare import Preparer
from monoglot.data.rows import TAR
from monoglot.modalities.base import Grid
from monoglot.nouns import Media, Sample


class FeatureCache:
    """float16[L, C] arrays by name, with the grid of each."""

    def __init__(self, folder: Path, max_bytes: int):
        folder.mkdir(parents=True, exist_ok=True)
        self.max_bytes = max_bytes
        # Every write lands whole at the end, wherever other runs have moved it.
        self._data, self._lines = (
            os.open(folder / name, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o666)
            for name in ("features.bin", "index.jsonl")
        )
        self._closing = weakref.finalize(self, _close, self._data, self._lines)
        self._index: dict[str, tuple[int, tuple[int, int], Grid, int]] = {}
        self._lock, self._read = threading.Lock(), 0  # bytes of the index that are known
        self.refresh()
        if os.fstat(self._lines).st_size > self._read:  # the last line of a run that was killed
            os.write(self._lines, b"\n")

    def refresh(self) -> None:
        """Take note of what other processes have kept since; costs nothing when they kept nothing."""
        with self._lock:
            grown = os.fstat(self._lines).st_size - self._read
            if grown <= 0:
                return
            text = os.pread(self._lines, grown, self._read)
            text = text[: text.rfind(b"\n") + 1]  # a line that is being written is read next time
            self._read += len(text)
            for line in text.splitlines():
                try:
                    key, offset, rows, channels, grid, checksum = json.loads(line)
                    self._index[key] = (offset, (rows, channels), Grid(*grid[:3], *map(tuple, grid[3:])), checksum)
                except (ValueError, TypeError):
                    continue  # a run was killed while it wrote this one

    def __len__(self) -> int:
        return len(self._index)

    def get(self, key: str) -> tuple[np.ndarray, Grid] | None:
        """The features of an item, or None."""
        found = self._index.get(key)
        if found is None:
            return None
        offset, shape, grid, checksum = found
        raw = os.pread(self._data, 2 * shape[0] * shape[1], offset)
        if zlib.crc32(raw) != checksum:  # the file lost its end
            self._index.pop(key, None)
            return None
        return np.frombuffer(raw, dtype=np.float16).reshape(shape), grid

    def put(self, key: str, features: np.ndarray, grid: Grid) -> None:
        """Keep the features of an item, if there is room."""
        data = np.ascontiguousarray(features, dtype=np.float16).tobytes()
        if key in self._index or os.fstat(self._data).st_size + len(data) > self.max_bytes:
            return
        try:
            whole = os.write(self._data, data) == len(data)
            end = os.lseek(self._data, 0, os.SEEK_CUR)
            if whole:
                entry = (end - len(data), (features.shape[0], features.shape[1]), grid, zlib.crc32(data))
                line = json.dumps([key, entry[0], *entry[1], list(grid), entry[3]]) + "\n"
                os.write(self._lines, line.encode())
                self._index[key] = entry
        except OSError:  # the disk is full: training goes on without keeping more
            self.max_bytes = 0

    def close(self) -> None:
        """Also done when nobody holds the cache any more."""
        self._closing()


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


def _close(*files: int) -> None:
    for file in files:
        os.close(file)


def _key(media: Media, variant: int) -> str | None:
    """What a file's features are kept under; a changed file, or shard, has another size or time. None for what is in memory."""
    if not isinstance(media.source, str) or media.hidden is not None:
        return None
    shard, in_shard, _ = media.source.removeprefix(TAR).partition(".tar#")
    try:
        stat = os.stat(f"{shard}.tar" if in_shard else media.source)
    except OSError:
        return None
    return f"{media.modality}|{os.path.normpath(media.source)}|{stat.st_size}|{stat.st_mtime_ns}|{media.start}|{media.end}|{variant}"


def fingerprint(encoders: nn.Module, settings: object) -> str:
    """Twelve letters that change when the encoders' weights or settings do."""
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode())
    for name, tensor in encoders.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:12]
