"""What frozen encoders said, kept on disk or in memory: a picture is encoded once, however often it is drawn or asked about.

    Media -> key -> (kept features | prepare -> encode, keep) -> features

On disk (`FeatureCache`): one append-only file of float16 numbers and one index, a line an item with its checksum. A run
that is killed leaves at most one item without an index line, and an item that is not what its line says is simply encoded
again. Runs and their processes may share a cache. The file never grows beyond its bound; what no longer fits is encoded
each time. In memory (`RecentFeatures`): exact, by content, and what was used last stays.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
import weakref
import zlib
from collections import OrderedDict
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import nn

from monoglot.data.collate import Keyed
from monoglot.data.prepare import Preparer
from monoglot.data.rows import TAR
from monoglot.errors import InputError
from monoglot.modalities.base import Grid
from monoglot.modalities.source import open_source
from monoglot.nouns import Media, Sample

RECENT_BYTES = 64 * 2**20
"""Of features that a `Predictor` holds: those of 390 pictures of nano's, or of 46 of its clips."""
LATELY_BYTES = 16 * 2**20
"""Of media that were read last and may be asked about again before they are encoded."""
HASHED = 8 * 2**20
"""Bytes up to which a file goes by its content; a longer one, such as a film of which rows take parts, by its name, size and time."""


class KeptFeatures(Protocol):
    """[L, C] arrays by name, with the grid of each."""

    dtype: torch.dtype
    """What numbers are kept as."""
    spares_reading: bool
    """An item whose features are kept is not read at all: its batch holds features in its place, whoever uses it."""

    def key(self, media: Media, variant: int) -> str | None:
        """The name of an item that is not read yet, or None."""

    def key_of(self, modality: str, item: np.ndarray) -> str | None:
        """The name of an item that had none before it was prepared; None: it is not kept."""

    def get(self, key: str) -> tuple[np.ndarray, Grid] | None:
        """The features of an item, or None."""

    def put(self, key: str, features: np.ndarray, grid: Grid) -> None:
        """Keep the features of an item, if there is room."""


class RecentFeatures:
    """In memory: what was asked for last stays. Files are known by their bytes, and what is in memory by what it was prepared to.

    >>> kept = RecentFeatures(max_bytes=1000)
    >>> kept.put("cup", np.zeros((25, 8), np.float32), Grid(1, 5, 5))
    >>> kept.put("cat", np.zeros((25, 8), np.float32), Grid(1, 5, 5))
    >>> kept.get("cup") is None, kept.get("cat")[0].shape
    (True, (25, 8))
    """

    dtype, spares_reading = torch.float32, False

    def __init__(self, max_bytes: int = RECENT_BYTES):
        self.max_bytes, self._bytes = max_bytes, 0
        self._kept: OrderedDict[str, tuple[np.ndarray, Grid]] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._kept)

    def key(self, media: Media, variant: int) -> str | None:
        """By content; None for what is in memory, and for what cannot be read."""
        if not isinstance(media.source, (str, bytes, os.PathLike)):
            return None
        try:
            file, _ = open_source(media)
            with file:
                data = media.source if isinstance(media.source, bytes) else file.read(HASHED + 1)
        except (InputError, OSError):  # whoever reads it will say so
            return None
        if len(data) > HASHED and not isinstance(media.source, bytes):
            return _key(media, variant)
        content = hashlib.blake2b(data, digest_size=16).hexdigest()
        return f"{media.modality}|{content}|{media.start}|{media.end}|{variant}"

    def key_of(self, modality: str, item: np.ndarray) -> str | None:
        """By content."""
        digest = hashlib.blake2b(item.tobytes(), digest_size=16)
        return f"{modality}|{digest.hexdigest()}|{item.dtype}|{item.shape}"

    def get(self, key: str) -> tuple[np.ndarray, Grid] | None:
        """The features of an item, or None. Nobody writes to them."""
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
            return self._kept.get(key)

    def put(self, key: str, features: np.ndarray, grid: Grid) -> None:
        """Keep the features of an item; what was not asked for longest makes room."""
        if features.nbytes > self.max_bytes:
            return
        features = features if features.base is None else features.copy()  # a view would hold its whole batch
        with self._lock:
            if key not in self._kept:
                self._kept[key] = features, grid
                self._bytes += features.nbytes
            while self._bytes > self.max_bytes:
                self._bytes -= self._kept.popitem(last=False)[1][0].nbytes


class FeatureCache:
    """On disk: float16[L, C] arrays by name, with the grid of each."""

    dtype, spares_reading = torch.float16, True

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
                    self._index[key] = (
                        offset,
                        (rows, channels),
                        Grid(*grid[:3], *map(tuple, grid[3:4]), *grid[4:]),
                        checksum,
                    )
                except (ValueError, TypeError):
                    continue  # a run was killed while it wrote this one

    def __len__(self) -> int:
        return len(self._index)

    def key(self, media: Media, variant: int) -> str | None:
        """By the file's name, size and time; None for what is in memory."""
        return _key(media, variant)

    def key_of(self, modality: str, item: np.ndarray) -> str | None:
        """None: what is in memory is not kept."""
        return None

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

    cache: KeptFeatures | None = None
    lately: RecentFeatures | None = None
    """Items that were prepared last: several questions about a clip read it once."""

    def read(self, media: Media, variant: int, sample: Sample) -> tuple[object, Grid]:
        if self.cache is None or media.hidden is not None:
            return super().read(media, variant, sample)
        key = self.cache.key(media, variant)
        if key is None:
            item, grid = super().read(media, variant, sample)
            key = self.cache.key_of(media.modality, item)
            return item if key is None else Keyed(key, item, encoded=False), grid
        if self.cache.spares_reading and (kept := self.cache.get(key)) is not None:
            return Keyed(key, kept[0], encoded=True), kept[1]
        lately = None if self.lately is None else self.lately.get(key)
        item, grid = lately or super().read(media, variant, sample)
        if self.lately is not None:
            self.lately.put(key, item, grid)
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
