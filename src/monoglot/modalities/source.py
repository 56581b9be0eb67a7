"""Where the bytes of a media item come from: a file, a member of a tar shard, or memory.

Media -> open_source -> (file, name for messages)          Media + length -> window -> (start, end) in seconds
"""

from __future__ import annotations

import io
import os
import re
import tarfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO

from monoglot.errors import MediaError
from monoglot.nouns import Media

TAR = "tar://"
PLACED = re.compile(r"(?P<member>.+)@(?P<offset>\d+)\+(?P<size>\d+)", re.DOTALL)
"""A member with the place of its bytes, `tar://shard.tar#member@offset+size`: what rows of a pack name, so that no shard has to be
gone through. The member's header, which ends where its bytes begin, must confirm its name (up to 100 letters, ASCII). A member may
also be called so itself."""


def open_source(media: Media) -> tuple[BinaryIO, str]:
    """Open a path, a `tar://shard.tar#member` (or `#member@offset+size`) or bytes for reading.

    Returns:
        A seekable binary file, to be closed by the caller, and the name that messages use. The file has no name of its
        own, so that decoders go by what is inside and never by an extension.

    Raises:
        MediaError: nothing is there, it is empty, or the source is of another type.
    """
    source = media.source
    if isinstance(source, bytes):
        name, size = f"{len(source)} bytes in memory", len(source)
        file: BinaryIO = io.BytesIO(source)
    elif isinstance(source, (str, os.PathLike)):
        name = os.fspath(source)
        path, offset, size = _find(media, name)
        file = io.BufferedReader(Part(path, offset, size))
    else:
        raise MediaError.at(
            "in memory",
            media.modality,
            f"a {type(source).__name__} cannot be read",
            "give a path, tar://shard.tar#member, bytes, or what the modality takes in memory",
        )
    if size == 0:
        file.close()
        raise MediaError.at(name, media.modality, "the file is empty (0 bytes)", "copy or download it again")
    return file, name


@contextmanager
def open_container(file: BinaryIO, media: Media, name: str) -> Iterator[Any]:
    """PyAV's container for an open file. What FFmpeg reports, here or in the block, becomes a MediaError."""
    kinds = "a WAV, FLAC, OGG, MP3 or M4A" if media.modality == "audio" else "an MP4, WebM, MKV or AVI"
    fix = f"give {kinds}, or copy it again if it was cut off"
    import av  # a tenth of a second that pictures and texts don't need

    # Tags that are not UTF-8 say nothing about the pictures or the sound; PyAV 19 lets them pass by itself.
    settings: dict[str, Any] = {"metadata_errors": "ignore"} if int(av.__version__.split(".")[0]) < 19 else {}
    try:
        container = av.open(file, **settings)
    except av.FFmpegError as error:
        raise MediaError.at(name, media.modality, f"no readable {media.modality} ({error.strerror})", fix) from None
    with container:
        try:
            yield container
        except av.FFmpegError as error:
            fix = "copy or download it again"
            raise MediaError.at(name, media.modality, f"cannot be decoded ({error.strerror})", fix) from None


def window(media: Media, name: str, seconds: float) -> tuple[float, float]:
    """(start, end) in seconds: the part that `media` asks for of a clip or sound of length `seconds`, cut at its end.

    Raises:
        MediaError: the window is empty or begins after the end.

    >>> window(Media("audio", "a.wav", start=1.0, end=99.0), "a.wav", 4.0)
    (1.0, 4.0)
    """
    start = 0.0 if media.start is None else float(media.start)
    end = seconds if media.end is None else float(media.end)
    if start < 0 or (media.end is not None and not start < end):
        raise MediaError.at(
            name, media.modality, f"the window {start:g} to {end:g} s is empty", "give 0 <= start < end"
        )
    if not start < seconds:
        raise MediaError.at(
            name, media.modality, f"starts at {start:g} s but lasts {seconds:.3g} s", "move start and end"
        )
    return start, min(end, seconds)


def tar_index(path: str | Path) -> Mapping[str, tuple[int, int]]:
    """Member name -> (offset, size) in bytes, for the regular files of an uncompressed tar.

    Reads the 512-byte headers only, once a process (again when the file changes), so that any member is then one seek
    away.

    Raises:
        tarfile.TarError, OSError: not an uncompressed tar, or not readable.
    """
    status = os.stat(path)
    return _tar_index(os.fspath(path), status.st_mtime_ns, status.st_size)


class Part(io.RawIOBase):
    """The bytes `offset .. offset + size` of a file, as a file; what stands before and after is not seen."""

    def __init__(self, path: str, offset: int, size: int):
        super().__init__()
        self._file = open(path, "rb", buffering=0)  # noqa: SIM115 (closed with this file)
        self._offset, self._size, self._at = offset, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        self._at = max(0, base + offset)
        return self._at

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        length = max(0, min(len(buffer), self._size - self._at))
        self._file.seek(self._offset + self._at)
        count = self._file.readinto(memoryview(buffer)[:length]) or 0
        self._at += count
        return count

    def close(self) -> None:
        if not self.closed:
            self._file.close()
        super().close()


@lru_cache(maxsize=64)
def _tar_index(path: str, modified_ns: int, size: int) -> Mapping[str, tuple[int, int]]:
    with tarfile.open(path, "r:") as tar:
        return {member.name: (member.offset_data, member.size) for member in tar if member.isreg()}


def _stands_at(path: str, member: str, offset: int, size: int) -> bool:
    """True if a member's header ends at `offset` and the file has `size` bytes behind it."""
    if offset < tarfile.BLOCKSIZE:
        return False
    with open(path, "rb", buffering=0) as file:
        header = os.pread(file.fileno(), tarfile.BLOCKSIZE, offset - tarfile.BLOCKSIZE)
        length = os.fstat(file.fileno()).st_size
    named = header[:100].rstrip(b"\0").decode("utf-8", "surrogateescape")  # the field of the name in a ustar header
    return named == member and offset + size <= length


def _find(media: Media, name: str) -> tuple[str, int, int]:
    """(path, offset, size) of the bytes that `name` names."""
    path, member = name, None
    if name.startswith(TAR):
        head, found, member = name[len(TAR) :].partition(".tar#")
        path = f"{head}.tar"
        if not found:
            raise MediaError.at(name, media.modality, "no member is named", "write tar://shard.tar#member")
    try:
        if member is None:
            if not os.path.isfile(path):
                os.stat(path)  # a missing file says so itself
                raise MediaError.at(name, media.modality, "is not a file", "name one file")
            with open(path, "rb"):  # a forbidden file says so now
                return path, 0, os.path.getsize(path)
        placed = PLACED.fullmatch(member)
        if placed and _stands_at(path, placed["member"], int(placed["offset"]), int(placed["size"])):
            return path, int(placed["offset"]), int(placed["size"])
        index = tar_index(path)
    except FileNotFoundError:
        fix = "check the path (a row's paths are relative to the row's file)"
        raise MediaError.at(path, media.modality, "no such file", fix) from None
    except OSError as error:
        raise MediaError.at(
            path, media.modality, f"cannot be opened ({error.strerror or error})", "check the file's rights"
        ) from None
    except tarfile.TarError as error:
        raise MediaError.at(
            path, media.modality, f"not a plain tar ({error})", "shards are uncompressed .tar files"
        ) from None
    if member not in index:
        fix = f"it holds {len(index)} files; list them with tar -tf"
        if placed and placed["member"] in index:
            fix = "the index beside the shard is of another; pack the rows again"
        raise MediaError.at(path, media.modality, f"no member {member!r} in this tar", fix)
    return path, *index[member]
