"""Clips: some frames, each seen as a picture is seen.

data side   Media -> times in the window -> frames shown at these times, S x S -> uint8[F, 3, S, S]
model side  uint8[n, F, 3, S, S] -> Lite0Trunk on every frame -> float[n, F * S/32 * S/32, 1728], frame by frame
            or the published model's 3D ResNeXt (networks/resnext3d.py), float[n, F/16 * S/32 * S/32, 2048]
"""

from __future__ import annotations

import itertools
import math
import random
import zlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, BinaryIO, Literal

import numpy as np
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor

from monoglot.errors import MediaError
from monoglot.modalities.base import (
    MODALITIES,
    PUBLISHED,
    Encoder,
    Grid,
    Modality,
    run_by_shape,
    sampled,
    with_defaults,
)
from monoglot.modalities.image import (
    CELL,
    MAX_PIXELS,
    WHITE,
    Lite0Trunk,
    jitter_colours,
    on_background,
    open_with_pillow,
    planar,
    random_background,
    read_picture,
    to_colour,
    to_square,
)
from monoglot.modalities.networks.resnext3d import FRAMES, ResNeXt3D
from monoglot.modalities.source import open_container, open_source, window
from monoglot.nouns import Media
from monoglot.rng import stream as random_stream

DEFAULTS: dict[str, dict[str, Any]] = {"resnext101_3d": {"size": 384, "frames": 16, "fit": "cut", "frame_positions": 0}}
"""What settings are with an encoder when nothing else is said: size and frames of the published model's last stage."""


class VideoConfig(BaseModel):
    """How clips are read and seen.

    >>> VideoConfig(encoder="resnext101_3d").frames
    16
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    encoder: str = Field(
        "lite0", description="Network that turns frames into tokens; one of MODALITIES['video'].encoders."
    )
    size: int = Field(
        128, ge=32, multiple_of=32, description="Both sides of a resized frame, in pixels; a multiple of 32."
    )
    fit: Literal["squeeze", "cut"] = Field(
        "squeeze",
        description="How a frame becomes a square: 'squeeze' changes its aspect; 'cut' takes the middle of its longer side.",
    )
    frames: int = Field(8, ge=1, description="Frames taken from a clip, evenly over its length.")
    positions: Literal["grid", "square", "none"] = Field(
        "grid",
        description="How tokens get positions: by row and column; as if all filled a square; or not at all.",
    )
    frame_positions: int = Field(
        32, ge=0, description="Rows of the table of frame positions (0: none); at least `frames` when there are any."
    )
    published: bool = Field(
        False,
        description=f"{PUBLISHED} Clips: frames drawn at random, cut out of the middle without resizing, see `sampled_tokens`.",
    )
    sampled_tokens: int = Field(
        784, ge=1, description="With `published`: so many tokens of a larger clip are kept, drawn at random."
    )

    @model_validator(mode="before")
    @classmethod
    def _as_the_encoder_needs(cls, settings: Any) -> Any:
        return with_defaults(settings, DEFAULTS)

    @model_validator(mode="after")
    def _frames_have_positions(self) -> VideoConfig:
        if 0 < self.frame_positions < self.frames:
            raise ValueError(f"frames {self.frames}: more than frame_positions {self.frame_positions}")
        return self


# --- data side --------------------------------------------------------------------------------------------------------


def prepare(media: Media, config: VideoConfig, variant: int = 0) -> np.ndarray:
    """Read `config.frames` frames of one clip.

    `media.source` is a path, `tar://shard.tar#member`, encoded bytes, or in memory uint8[T, H, W, 3] or a list of PIL
    images. The window `start .. end` (seconds; without it the whole clip; cut at the clip's end) is divided into F
    equal intervals, and the frame that is on screen at the centre of each is taken, by its timestamp: the choice is the
    same every time, and right for variable frame rates. A clip with fewer frames repeats them. Animated GIF, WebP and
    PNG are clips too. `config.fit` says how a frame becomes a square.

    With `config.published` frames are `drawn_frames` of the window, by their number, and "cut" takes what lies in the
    middle without resizing, on black if the frame is smaller: clips must have been scaled beforehand.

    Args:
        variant: 0 the plain reading; any other k the k-th copy with other colours (and another background, if
            transparent), the same in all frames. Nothing is moved, so that the motion stays true.

    Returns:
        uint8[F, 3, size, size], RGB.

    Raises:
        MediaError: missing, empty, not a video, sound only, no frames, truncated before the window ends, or the window
            is empty.

    Source: section 6 of the published model's arithmetic.

    >>> prepare(Media("video", np.zeros((5, 20, 30, 3), np.uint8)), VideoConfig(size=32, frames=4)).shape
    (4, 3, 32, 32)
    """
    frames = read_frames(media, config, variant)
    if variant == 0:
        return np.stack([planar(on_background(frame, WHITE)) for frame in frames])
    rng = random_stream(0, "video", zlib.crc32(b"".join(frame.tobytes() for frame in frames)), variant)
    background = random_background(rng)
    return jitter_colours(np.stack([planar(on_background(frame, background)) for frame in frames]), rng)


def read_frames(media: Media, config: VideoConfig, variant: int = 0) -> list[Image.Image]:
    """The wanted frames at size x size, "RGB" or "RGBA". `variant` seeds the draw of frames of `config.published`."""
    if isinstance(media.source, (np.ndarray, list, tuple)):
        return _from_memory(media, config, variant)
    file, name = open_source(media)
    with file:
        start = file.read(12)
        file.seek(0)
        # FFmpeg reads no animated WebP; Pillow puts together the frames of all three, with their transparency.
        animation = start.startswith((b"GIF8", b"\x89PNG")) or (start[:4] == b"RIFF" and start[8:] == b"WEBP")
        read = _from_animation if animation else _from_film
        return read(file, media, name, config, variant)


def centres(start: float, end: float, count: int) -> np.ndarray:
    """float64[count]: centres of `count` equal intervals of start .. end, in seconds.

    >>> centres(0.0, 8.0, 4).tolist()
    [1.0, 3.0, 5.0, 7.0]
    """
    return start + (np.arange(count) + 0.5) * ((end - start) / count)


def drawn_frames(count: int, frames: int, seed: int = 0) -> list[int]:
    """Numbers of `frames` of `count` frames: one of each interval, never its last, drawn as after `random.seed(seed)`.

    If an interval holds one frame only, any that fit are drawn, in order. Too few frames: the last is repeated.

    Source: section 6 of the published model's arithmetic.

    >>> drawn_frames(100, 4), drawn_frames(2, 4)
    ([12, 38, 51, 83], [0, 1, 1, 1])
    """
    taken = min(count, frames)
    edges = np.linspace(0, count, taken + 1).astype(int).tolist()
    intervals = [range(first, after - 1) for first, after in itertools.pairwise(edges)]
    if all(intervals):
        rng = random.Random(seed)
        chosen = [rng.choice(interval) for interval in intervals]
    else:
        chosen = sorted(np.random.RandomState(abs(seed)).permutation(count)[:taken].tolist())
    return chosen + [chosen[-1]] * (frames - taken)


def as_square(picture: Image.Image, config: VideoConfig) -> Image.Image:
    """A frame at size x size, as `config.fit` and `config.published` say.

    >>> as_square(Image.new("RGB", (40, 20)), VideoConfig(size=32, fit="cut")).size
    (32, 32)
    """
    size = config.size
    if config.fit == "squeeze":
        return to_square(picture, size)
    if not config.published:
        shorter = min(picture.size)
        left, top = ((side - shorter) / 2 for side in picture.size)
        middle = (left, top, left + shorter, top + shorter)
        return picture.resize((size, size), Image.Resampling.BICUBIC, box=middle)
    # Rounding as torchvision's CenterCrop: half to even where it cuts, down where it adds.
    x, y = (round((side - size) / 2) if side >= size else -((size - side) // 2) for side in picture.size)
    return picture.crop((x, y, x + size, y + size))


def _from_memory(media: Media, config: VideoConfig, variant: int) -> list[Image.Image]:
    count = len(media.source)
    name, fix = "frames in memory", "give uint8[frames, height, width, 3] or PIL images"
    if media.start is not None or media.end is not None:
        raise MediaError.at(name, media.modality, "start and end need a file with times", "cut the frames instead")
    if isinstance(media.source, np.ndarray) and (media.source.ndim != 4 or not count):
        wrong = f"{media.source.dtype}{list(media.source.shape)} is not a clip"
        raise MediaError.at(name, media.modality, wrong, fix)
    if not count:
        raise MediaError.at(name, media.modality, "an empty list is not a clip", fix)
    chosen = centres(0, count, config.frames).astype(int).tolist()
    if config.published:
        chosen = drawn_frames(count, config.frames, variant)
    return [as_square(read_picture(Media(media.modality, media.source[i]), config.size), config) for i in chosen]


def _from_animation(file: BinaryIO, media: Media, name: str, config: VideoConfig, variant: int) -> list[Image.Image]:
    animation = open_with_pillow(file, media, name)
    count = getattr(animation, "n_frames", 1)
    keep = KEPT_BYTES // (4 * animation.width * animation.height)  # small animations are decoded once, large ones twice
    if animation.width * animation.height > MAX_PIXELS:
        wrong = f"{animation.width} x {animation.height} pixels is too large"
        raise MediaError.at(name, media.modality, wrong, f"reduce it below {MAX_PIXELS:,} pixels")
    try:
        lengths: list[float] = []
        kept: dict[int, Image.Image] = {}
        for index in range(count):
            animation.seek(index)
            animation.load()
            lengths.append((animation.info.get("duration") or 100) / 1000)  # milliseconds; browsers show "0" for 100
            if index < keep:
                kept[index] = to_colour(animation)
        ends = np.cumsum(lengths)
        start, end = window(media, name, float(ends[-1]))
        if config.published:
            starts = ends - lengths
            inside = np.flatnonzero((ends > start + Film.TICK_S) & (starts < end - Film.TICK_S)).tolist() or [count - 1]
            chosen = [inside[index] for index in drawn_frames(len(inside), config.frames, variant)]
        else:
            times = centres(start, end, config.frames)
            chosen = np.searchsorted(ends, times + Film.TICK_S, side="right").tolist()
        made: dict[int, Image.Image] = {}
        for index in chosen:
            if index not in made:
                if index not in kept:
                    animation.seek(index)
                made[index] = as_square(kept[index] if index in kept else to_colour(animation), config)
        return [made[index] for index in chosen]
    except MediaError:
        raise
    except Exception as error:  # decoders of foreign bytes raise almost anything
        raise MediaError.at(name, media.modality, f"cannot be decoded ({error})", "copy or export it again") from None


KEPT_BYTES = 64 * 2**20
"""How much of a decoded animation may stay in memory."""


def _from_film(file: BinaryIO, media: Media, name: str, config: VideoConfig, variant: int) -> list[Image.Image]:
    import av

    with open_container(file, media, name) as container:
        # A cover picture in a sound file calls itself a video stream.
        streams = [s for s in container.streams.video if not s.disposition & av.stream.Disposition.attached_pic]
        if not streams:
            wrong = "holds sound but no frames" if container.streams.audio else "holds no frames"
            raise MediaError.at(name, media.modality, wrong, "give a clip, or name it as audio")
        film = Film(container, streams[0])
        if film.width * film.height > MAX_PIXELS:
            wrong = f"{film.width} x {film.height} pixels is too large"
            raise MediaError.at(name, media.modality, wrong, f"reduce it below {MAX_PIXELS:,} pixels")
        packets = _packets(file, media, name) if config.published or not film.seconds else []
        start, end = window(media, name, film.seconds or max(time + shown for time, shown in packets))
        times: Sequence[float] | np.ndarray = centres(start, end, config.frames)
        if config.published:
            inside = [time for time, shown in packets if start < time + shown and time < end] or [start]
            times = [inside[index] for index in drawn_frames(len(inside), config.frames, variant)]
        try:
            return [_square(frame, config) for frame in film.at(times)]
        except EndOfFilm as error:
            raise MediaError.at(name, media.modality, str(error), "it is cut off; copy or download it again") from None


class EndOfFilm(Exception):
    """A frame is wanted where the file holds no more."""


class Film:
    """A video stream, read by time.

    Decodes forward and lets go of what nobody wants. Jumps only when a keyframe lies between here and the wanted frame:
    a jump to where decoding would have come anyway costs more than it saves. Times are seconds from the stream's first
    frame.
    """

    PATIENCE_S = 4.0
    """Where the container doesn't say where its keyframes are, jump over gaps longer than this."""
    TICK_S = 0.001
    """A frame that starts this much after a wanted time is on screen: containers round their times."""
    SLACK_S = 0.5
    """How long before the declared end the last frame may start, if it doesn't say how long it is shown."""

    def __init__(self, container: Any, stream: Any):
        self._container, self._stream = container, stream
        stream.codec_context.thread_count = 1  # data workers are processes already
        self._unit = float(stream.time_base)
        self._first = stream.start_time or 0
        self._rate = frame_rate(stream)
        self.width, self.height = stream.codec_context.width, stream.codec_context.height
        self._own_seconds = self._declared_by_stream()
        self.seconds: float | None = self._own_seconds
        """Declared length; None if nothing declares it."""
        if self.seconds is None and container.duration:
            import av

            self.seconds = container.duration / av.time_base

    def at(self, times: Sequence[float] | np.ndarray) -> Iterator[Any]:
        """The frame on screen at each of the rising `times`: the last that starts at or before it, or else the first.

        Raises:
            EndOfFilm: the stream stops before a wanted time although it declares to be longer.
        """
        frames = self._decode()
        shown = coming = next(frames, None)
        for time in times:
            if coming is not None and self._worth_jumping(coming, time):
                frames = self._jump(time)
                shown = coming = next(frames, None)
            while coming is not None and coming[0] <= time + self.TICK_S:
                shown, coming = coming, next(frames, None)
            if shown is None or (coming is None and self._cut_off(shown, time)):
                raise EndOfFilm(f"has no frame at {time:.2f} s though it declares {self.seconds or 0:.2f} s")
            yield shown[1]

    def _decode(self) -> Iterator[tuple[float, Any]]:
        time = -1 / self._rate
        for frame in self._container.decode(self._stream):
            time = time + 1 / self._rate if frame.pts is None else (frame.pts - self._first) * self._unit
            yield time, frame

    def _worth_jumping(self, coming: tuple[float, Any], time: float) -> bool:
        if coming[1].pts is None:
            return False
        index: Any = getattr(self._stream, "index_entries", ())
        wanted = self._first + int(time / self._unit)
        if len(index) and index[len(index) - 1].timestamp >= wanted:
            keyframe = index.search_timestamp(wanted, backward=True)
            return keyframe >= 0 and index[keyframe].timestamp > coming[1].pts
        return time - coming[0] > self.PATIENCE_S

    def _jump(self, time: float) -> Iterator[tuple[float, Any]]:
        """Decoding from a keyframe at or before `time`.

        Indices speak of decoding times, so that a jump may land late: then it goes further back, at last to the start.
        """
        for earlier in (0.0, 1.0, 4.0, 16.0):
            if time - earlier <= 0:
                break
            self._seek(time - earlier)
            frames = self._decode()
            landed = next(frames, None)
            if landed is not None and landed[0] <= time:
                return itertools.chain([landed], frames)
        self._seek(-10.0)  # packets of the first frame may lie before its time
        return self._decode()

    def _seek(self, time: float) -> None:
        self._container.seek(self._first + int(time / self._unit), stream=self._stream)

    def _cut_off(self, last: tuple[float, Any], time: float) -> bool:
        if self._own_seconds is None:  # the sound may be longer than the pictures
            return False
        return time > last[0] + max(self.SLACK_S, (last[1].duration or 0) * self._unit)

    def _declared_by_stream(self) -> float | None:
        if self._stream.duration:
            return self._stream.duration * self._unit
        tag = self._stream.metadata.get("DURATION", "")  # Matroska, WebM: 00:00:09.999000000
        try:
            hours, minutes, seconds = map(float, tag.split(":"))
        except ValueError:
            return None
        return (hours * 60 + minutes) * 60 + seconds or None


def _packets(file: BinaryIO, media: Media, name: str) -> list[tuple[float, float]]:
    """When each frame is shown and for how long, in seconds, by the packets' times; nothing is decoded. Not empty."""
    place = file.tell()
    times: list[tuple[float, float]] = []
    file.seek(0)
    with open_container(file, media, name) as container:
        stream = container.streams.video[0]
        first, unit, usual = stream.start_time or 0, float(stream.time_base), 1 / frame_rate(stream)
        for packet in container.demux(stream):
            if packet.size:
                time = len(times) * usual if packet.pts is None else (packet.pts - first) * unit
                times.append((time, packet.duration * unit if packet.duration else usual))
    file.seek(place)
    if not times:
        raise MediaError.at(name, media.modality, "holds no frames", "copy or download it again")
    return sorted(times)


def frame_rate(stream: Any) -> float:
    """Frames a second, on average; 25 if nothing is known."""
    return float(stream.average_rate or stream.guessed_rate or 25)


def _square(frame: Any, config: VideoConfig) -> Image.Image:
    """A decoded frame, upright, at size x size."""
    size = config.size
    if any(component.is_alpha for component in frame.format.components):
        picture = as_square(Image.fromarray(frame.to_ndarray(format="rgba")), config)
    elif config.fit == "squeeze":
        picture = Image.fromarray(frame.to_ndarray(width=size, height=size, format="rgb24", interpolation="BICUBIC"))
    else:
        picture = as_square(Image.fromarray(frame.to_ndarray(format="rgb24")), config)
    turns = round(frame.rotation / 90) % 4  # phones film sideways and say so
    return picture if turns == 0 else picture.rotate(90 * turns)


def grid(item: np.ndarray | Tensor, config: VideoConfig) -> Grid:
    """One token a 32 x 32 pixel cell of each frame (ResNeXt: of 16 frames), frame by frame, row by row."""
    frames = item.shape[0] if config.encoder == "lite0" else math.ceil(item.shape[0] / FRAMES)
    whole = Grid(frames, item.shape[-2] // CELL, item.shape[-1] // CELL)
    return sampled(whole, item, config.sampled_tokens) if config.published else whole


# --- model side -------------------------------------------------------------------------------------------------------


class Lite0Video(Encoder):
    """EfficientNet-Lite0 on every frame: uint8[F, 3, S, S] -> float[F * (S/32)^2, 1728]."""

    shared = ("trunk",)

    def __init__(self, config: VideoConfig):
        super().__init__()
        self.trunk = Lite0Trunk()
        self.channels = self.trunk.channels

    def forward(self, items: list[Tensor]) -> list[Tensor]:
        return run_by_shape(self._run, items)

    def _run(self, clips: Tensor) -> Tensor:
        tokens = self.trunk(clips.flatten(0, 1))
        return tokens.reshape(len(clips), -1, self.channels)


def _resnext(config: VideoConfig) -> ResNeXt3D:
    return ResNeXt3D()


ENCODERS: dict[str, Callable[[Any], Encoder]] = {"lite0": Lite0Video, "resnext101_3d": _resnext}
VIDEO = MODALITIES.add(
    "video",
    Modality("video", VideoConfig, prepare, grid, ENCODERS, timed=True),
)
