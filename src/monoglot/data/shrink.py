"""Media made smaller on their way into a pack: no larger than a model will see them, so that they are read and decoded faster.

    Sample -> Shrink -> the same Sample, with the bytes of smaller media in place of their paths

What needs no change keeps its path and is copied bit for bit. A row that asks for a window of a clip or sound gets this
window as a file of its own. The same file and settings give the same bytes.
"""

from __future__ import annotations

import io
import math
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import lru_cache
from typing import Any

import av
import numpy as np
import soundfile
from PIL import Image

from monoglot.data.film import encode
from monoglot.data.pack import suffix_of
from monoglot.errors import InputError, MediaError
from monoglot.modalities import MODALITIES
from monoglot.modalities.audio import MAX_SPAN_S, read_samples, resample
from monoglot.modalities.image import open_with_pillow, read_picture
from monoglot.modalities.source import open_container, open_source, window
from monoglot.modalities.video import EndOfFilm, Film, centres, frame_rate
from monoglot.nouns import Media, Sample

JPEG_QUALITY = 90
CRF = 23
"""x264's quality of clips; lower is better and larger."""
KEPT = 16
"""Items whose result is kept: rows about the same picture mostly follow each other."""


@dataclass(frozen=True)
class Shrink:
    """The most that is kept of each kind of media; None keeps all. Called with a sample.

    >>> file = io.BytesIO()
    >>> Image.new("RGB", (800, 400)).save(file, "PNG")
    >>> large = Sample("1", "caption", (Media("image", file.getvalue()),))
    >>> read_picture(Shrink(image_side=200)(large).media[0], 200).size
    (200, 100)
    """

    image_side: int | None = None
    """Pixels of a picture's longer side. A larger one becomes a JPEG, or a PNG if anything in it is transparent."""
    video_side: int | None = None
    """Pixels of a clip's longer side. A larger or faster one becomes an MP4 (h264) without sound."""
    video_fps: float | None = None
    """Frames a second of a clip, evenly taken by time."""
    audio_rate: int | None = None
    """Samples a second of a sound. It becomes a mono FLAC of 16 bits, unless the file as given is smaller than that."""
    check: bool = False
    """Read every item once as a model would, so that what cannot be read is left out now and not in training."""

    def __call__(self, sample: Sample) -> Sample:
        """Media are paths or bytes, as those of rows. Raises MediaError when one cannot be read."""
        # A row has one window: if one of its timed items is cut, all are.
        cut = any(self._limits(media) and _is_window(media) for media in sample.media)
        return replace(sample, media=tuple(self._made(media, cut and _is_window(media)) for media in sample.media))

    def _limits(self, media: Media) -> bool:
        """True if a setting is about this kind."""
        limits = {"image": (self.image_side,), "video": (self.video_side, self.video_fps), "audio": (self.audio_rate,)}
        return any(limit is not None for limit in limits.get(media.modality, ()))

    def _made(self, media: Media, cut: bool) -> Media:
        try:
            if cut or self._limits(media):
                return _smaller(self, media)
            if self.check:
                modality = MODALITIES[media.modality]
                modality.prepare(media, modality.config(), 0)
        except InputError:
            raise
        except (OSError, ValueError, RuntimeError) as error:  # what encoders say of odd sizes and rates
            raise MediaError.at(media.source, media.modality, f"cannot be made smaller ({error})") from None
        return media


def _is_window(media: Media) -> bool:
    return media.start is not None or media.end is not None


@lru_cache(maxsize=KEPT)
def _smaller(most: Shrink, media: Media) -> Media:
    """One item; its source is bytes if anything was changed."""
    match media.modality:
        case "image":
            return _picture(media, most.image_side or math.inf)
        case "video":
            return _clip(media, most.video_side or math.inf, most.video_fps or math.inf)
        case "audio":
            return _sound(media, most.audio_rate or math.inf)
    return media


def _picture(media: Media, side: float) -> Media:
    file, name = open_source(media)
    with file:
        longest = max(open_with_pillow(file, media, name).size)
    most = math.ceil(min(side, longest))
    picture = read_picture(media, most)  # a small one too: what is broken is told now
    if longest <= side:
        return media
    picture.thumbnail((most, most), Image.Resampling.BICUBIC)
    into = io.BytesIO()
    if picture.mode == "RGBA":
        picture.save(into, "PNG")
    else:
        picture.save(into, "JPEG", quality=JPEG_QUALITY)
    return replace(media, source=into.getvalue())


def _clip(media: Media, side: float, fps: float) -> Media:
    """Clips that cannot be measured (no length declared) or written (transparent, animations) stay as they are."""
    file, name = open_source(media)
    with file:
        animation = suffix_of(file.read(16)) in (".gif", ".png", ".webp")
        file.seek(0)
        if animation:
            return media
        with open_container(file, media, name) as container:
            streams = [s for s in container.streams.video if not s.disposition & av.stream.Disposition.attached_pic]
            if not streams:
                raise MediaError.at(name, media.modality, "holds no frames", "give a clip, or name it as audio")
            film, rate = Film(container, streams[0]), frame_rate(streams[0])
            if not film.seconds or any(component.is_alpha for component in streams[0].format.components):
                return media
            start, end = window(media, name, film.seconds)
            if not _is_window(media) and max(film.width, film.height) <= side and rate <= fps:
                return media
            scale = min(1.0, side / max(film.width, film.height))
            size = [max(2, round(length * scale / 2) * 2) for length in (film.width, film.height)]  # h264 wants even
            count = max(1, round((end - start) * min(rate, fps)))
            try:
                frames = (_upright(frame, *size) for frame in film.at(centres(start, end, count)))
                data = encode(frames, Fraction(count / (end - start)).limit_denominator(1001), crf=CRF)
            except EndOfFilm as error:
                fix = "it is cut off; copy or download it again"
                raise MediaError.at(name, media.modality, str(error), fix) from None
    return replace(media, source=data, start=None, end=None)


def _upright(frame: Any, width: int, height: int) -> np.ndarray:
    """uint8[H, W, 3] of a decoded frame, turned as the film says."""
    pixels = frame.to_ndarray(width=width, height=height, format="rgb24", interpolation="AREA")
    return np.rot90(pixels, round(frame.rotation / 90) % 4)


def _sound(media: Media, rate: float) -> Media:
    """Sounds longer than MAX_SPAN_S stay as they are."""
    samples, given, name = read_samples(media, MAX_SPAN_S)
    if len(samples) >= MAX_SPAN_S * given:
        return media
    if not np.isfinite(samples).all():
        raise MediaError.at(
            name, media.modality, "holds samples that are not numbers (NaN or infinite)", "export it again"
        )
    rate = int(min(rate, given))
    into = io.BytesIO()
    soundfile.write(into, np.clip(resample(samples, given, rate), -1, 1), rate, format="FLAC", subtype="PCM_16")
    if not _is_window(media) and _length(media) <= len(into.getvalue()):
        return media
    return replace(media, source=into.getvalue(), start=None, end=None)


def _length(media: Media) -> int:
    file, _ = open_source(media)
    with file:
        return file.seek(0, io.SEEK_END)
