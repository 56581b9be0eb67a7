"""What one picture, clip, sound or other file is: its size or length, a hash of its bytes, and how a picture looks.

Media -> facts_of -> Facts
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import BinaryIO

import av
import soundfile

from monoglot.data.duplicates import Look, hash64, look
from monoglot.errors import MediaError
from monoglot.modalities import MODALITIES
from monoglot.modalities.image import WHITE, on_background, open_with_pillow, read_picture
from monoglot.modalities.source import open_container, open_source
from monoglot.nouns import Media
from monoglot.plugins import BUILT_IN


@dataclass(frozen=True)
class Facts:
    """What one media item is found to be."""

    content: int
    """Hash of its bytes."""
    size: int
    """How many they are."""
    height: int = 0
    width: int = 0
    seconds: float = 0.0
    look: Look | None = None
    """Of a picture."""


def facts_of(media: Media) -> Facts:
    """Read one media item. Raises MediaError when that fails."""
    file, name = open_source(media)
    with file:
        if media.modality == "image":
            return _picture_facts(file.read(), media, name)
        content, size = _content(file)
        if media.modality not in BUILT_IN:
            modality = MODALITIES[media.modality]
            modality.prepare(media, modality.config(), 0)  # raises if it cannot be read
            return Facts(content, size)
        seconds = _seconds_of_sound(file, media, name) if media.modality == "audio" else _seconds(file, media, name)
    return Facts(content, size, seconds=seconds)


def _content(file: BinaryIO) -> tuple[int, int]:
    """(hash, length) of all bytes; the file is at its beginning before and after."""
    size, pieces = 0, []
    while piece := file.read(1 << 20):
        size += len(piece)
        pieces.append(hash64(piece).to_bytes(8, "little"))
    file.seek(0)
    return hash64(*pieces), size


def _picture_facts(data: bytes, media: Media, name: str) -> Facts:
    header = open_with_pillow(io.BytesIO(data), media, name)
    width, height = header.size
    picture = on_background(read_picture(Media(media.modality, data), 128), WHITE)
    if (width < height) != (picture.width < picture.height) and picture.width != picture.height:
        width, height = height, width  # its EXIF turns it
    return Facts(*_content(io.BytesIO(data)), height, width, look=look(picture))


def _seconds_of_sound(file: BinaryIO, media: Media, name: str) -> float:
    try:
        with soundfile.SoundFile(file) as sound:
            return sound.frames / sound.samplerate
    except soundfile.LibsndfileError:  # not a format of libsndfile
        file.seek(0)
        return _seconds(file, media, name)


def _seconds(file: BinaryIO, media: Media, name: str) -> float:
    """Length of a clip, or of a sound in a container, as the container declares it; an animation's frames are added up."""
    start = file.read(12)
    file.seek(0)
    if start.startswith((b"GIF8", b"\x89PNG")) or (start[:4] == b"RIFF" and start[8:] == b"WEBP"):
        animation, milliseconds = open_with_pillow(file, media, name), 0
        try:
            for frame in range(getattr(animation, "n_frames", 1)):
                animation.seek(frame)
                animation.load()
                milliseconds += animation.info.get("duration") or 100  # as video.py reads it
        except Exception as error:  # decoders of foreign bytes raise almost anything
            wrong = f"cannot be decoded ({error})"
            raise MediaError.at(name, media.modality, wrong, "copy or export it again") from None
        return milliseconds / 1000
    with open_container(file, media, name) as container:
        return (container.duration or 0) / av.time_base
