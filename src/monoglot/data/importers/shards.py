"""Pictures and sounds that stand inside of the data as bytes or base64: into plain tar shards, so that no million of small files appears.

base64 -> from_base64 -> bytes -> picture_header -> Shards.add -> tar://rows.shards/00000.tar#<hash>.jpg
"""

from __future__ import annotations

import base64
import hashlib
import io
import tarfile
from pathlib import Path

SHARD_BYTES = 256 << 20
"""A shard is closed when it has reached this size."""
REMEMBERED = 500_000
"""A picture that comes again within so many different ones is stored once (45 MB of memory)."""
SUFFIXES = {"JPEG": ".jpg", "PNG": ".png", "GIF": ".gif", "WEBP": ".webp", "BMP": ".bmp", "TIFF": ".tif", "MPO": ".jpg"}
ORIENTATION = 0x0112
"""The EXIF tag that says how a picture is to be turned."""
_FROM_URL_SAFE = bytes.maketrans(b"-_", b"+/")


def from_base64(text: bytes) -> bytes:
    """The bytes that base64 stands for, in either alphabet, with or without its `=` and a `data:...,` before it.

    Raises:
        ValueError: a letter that base64 does not have, or one too many or few.

    >>> from_base64(b"_9j_4A"), from_base64(b"/9j/4A==")
    (b'\\xff\\xd8\\xff\\xe0', b'\\xff\\xd8\\xff\\xe0')
    """
    if text.startswith(b"data:"):
        text = text.partition(b",")[2]
    plain = text.strip().translate(_FROM_URL_SAFE).rstrip(b"=")
    return base64.b64decode(plain + b"=" * (-len(plain) % 4), validate=True)


def picture_header(data: bytes) -> tuple[str, tuple[int, int], int]:
    """(suffix, (height, width) as stored, orientation by EXIF: 1 is not turned), from the header alone.

    Raises:
        ValueError: this is no picture that can be read.
    """
    from PIL import Image

    try:
        with Image.open(io.BytesIO(data)) as picture:
            width, height = picture.size
            return SUFFIXES.get(picture.format or "", ".img"), (height, width), picture.getexif().get(ORIENTATION, 1)
    except Exception:  # PIL raises many kinds for a broken file
        raise ValueError("not a picture that can be read") from None


class Shards:
    """Plain tar files `00000.tar`, `00001.tar` ... in one folder, which is made with the first member.

    Members are named after their content, so equal pictures are one member, and a shard is the same on every machine.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self._tar: tarfile.TarFile | None = None
        self._count = 0
        self._where: dict[bytes, int] = {}

    def add(self, data: bytes, suffix: str) -> str:
        """Store a file's bytes; returns the path for a row, relative to the folder above `folder`."""
        content = hashlib.sha256(data).digest()[:16]
        member = content.hex() + suffix
        shard = self._where.get(content)
        if shard is None:
            shard = self._write(member, data)
            if len(self._where) == REMEMBERED:
                del self._where[next(iter(self._where))]
            self._where[content] = shard
        return f"tar://{self.folder.name}/{_name(shard)}#{member}"

    def close(self) -> None:
        if self._tar is not None:
            self._tar.close()
            self._tar = None

    def _write(self, member: str, data: bytes) -> int:
        if self._tar is not None and self._tar.offset >= SHARD_BYTES:
            self.close()
        if self._tar is None:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._tar = tarfile.open(self.folder / _name(self._count), "w", format=tarfile.USTAR_FORMAT)  # noqa: SIM115
            self._count += 1
        header = tarfile.TarInfo(member)
        header.size = len(data)
        self._tar.addfile(header, io.BytesIO(data))
        self._tar.members.clear()  # type: ignore[attr-defined]  # it would keep the header of each in memory
        return self._count - 1


def _name(shard: int) -> str:
    return f"{shard:05d}.tar"
