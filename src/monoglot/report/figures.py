"""Media as a reader sees them: small pictures, the frames of a clip, the waveform and spectrogram of a sound.

Media -> picture / frames / sound -> Picture (bytes, size, words for who cannot see it) -> data URI
"""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import soundfile

from monoglot.nouns import Media

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from PIL import Image

PICTURE_SIDE = 360
"""Longer side of a shown picture, pixels; smaller ones stay as they are."""
FRAME_SIDE = 128
"""Side of a shown frame, pixels."""
MAX_SECONDS = 30.0
"""What follows in a sound is not shown."""
INK = "#0a0b0c"
"""Colour to draw lines and words of a figure with: it becomes the page's text colour, light or dark."""
WAVE = "#4a7fd6"
"""Readable on white and on black."""


@dataclass(frozen=True)
class Picture:
    """An encoded picture and what it shows in words."""

    data: bytes
    kind: str
    """image/png, image/jpeg, image/svg+xml."""
    width: int
    height: int
    alt: str

    @property
    def uri(self) -> str:
        return data_uri(self.data, self.kind)


@dataclass(frozen=True)
class Sound:
    """A sound to be heard and seen. `data` is FLAC, which every current browser plays."""

    figure: Picture
    data: bytes
    seconds: float

    @property
    def uri(self) -> str:
        return data_uri(self.data, "audio/flac")


def data_uri(data: bytes, kind: str) -> str:
    """
    >>> data_uri(b"abc", "image/png")
    'data:image/png;base64,YWJj'
    """
    return f"data:{kind};base64,{base64.b64encode(data).decode('ascii')}"


def picture(media: Media, alt: str, *, side: int = PICTURE_SIDE) -> Picture:
    """One picture as the model's reader opens it: upright, transparency on white, the aspect ratio kept.

    Raises:
        MediaError: it cannot be read.
    """
    from monoglot.modalities.image import WHITE, on_background, read_picture

    return encoded(on_background(read_picture(media, side), WHITE), alt, side=side)


def frames(media: Media, count: int = 8, *, side: int = FRAME_SIDE) -> list[Picture]:
    """The frames that a model sees of a clip, evenly over its length. Raises MediaError."""
    from monoglot.modalities.image import WHITE, on_background
    from monoglot.modalities.video import VideoConfig, read_frames

    seen = read_frames(media, VideoConfig.model_validate({"size": side, "frames": count}))
    return [
        encoded(on_background(frame, WHITE), f"frame {number} of {count}", side=side)
        for number, frame in enumerate(seen, start=1)
    ]


def sound(media: Media, alt: str) -> Sound:
    """A sound with its waveform above its log-mel spectrogram. Raises MediaError."""
    from monoglot.modalities.audio import read_samples

    samples, rate, _ = read_samples(media, MAX_SECONDS)
    file = io.BytesIO()
    soundfile.write(file, np.clip(samples, -1, 1), rate, format="FLAC", subtype="PCM_16")
    return Sound(sound_figure(samples, rate, alt), file.getvalue(), len(samples) / rate)


def sound_figure(samples: np.ndarray, rate: int, alt: str) -> Picture:
    """float32[n] at `rate` Hz -> waveform, and below it the spectrogram in which a model of the kind `whisper` hears it."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    seconds = len(samples) / rate
    figure = Figure(figsize=(6.4, 2.2))
    wave, spectrum = figure.subplots(2, 1, sharex=True, height_ratios=(1, 1.7))
    figure.subplots_adjust(left=0.07, right=0.995, top=0.99, bottom=0.13, hspace=0.06)
    low, high = envelope(samples, 240)
    wave.fill_between(np.linspace(0, seconds, len(low)), low, high, color=WAVE, linewidth=0.6)
    reach = max(float(np.abs(samples).max()), 1e-3)
    wave.set(ylim=(-reach, reach), yticks=[], xlim=(0, seconds))
    wave.tick_params(bottom=False)
    spectrum.imshow(log_mel(samples, rate), origin="lower", aspect="auto", cmap="magma", extent=(0, seconds, 0, 1))
    spectrum.set_yticks([0, mel_height(1000), 1], ["0", "1 kHz", "8 kHz"])
    spectrum.xaxis.set_major_locator(MaxNLocator(6))
    spectrum.xaxis.set_major_formatter("{x:g} s")
    for axes in (wave, spectrum):
        axes.spines[:].set_visible(False)
    return svg(figure, alt)


def envelope(samples: np.ndarray, columns: int) -> tuple[np.ndarray, np.ndarray]:
    """The lowest and highest sample in each of at most `columns` equal parts.

    >>> low, high = envelope(np.array([0.0, 1.0, -1.0, 0.5]), 2)
    >>> low.tolist(), high.tolist()
    ([0.0, -1.0], [1.0, 0.5])
    """
    starts = np.unique(np.linspace(0, len(samples), min(columns, len(samples)), endpoint=False).astype(int))
    return np.minimum.reduceat(samples, starts), np.maximum.reduceat(samples, starts)


def log_mel(samples: np.ndarray, rate: int) -> np.ndarray:
    """float32[80, frames], a hundred frames a second, as Whisper's front end makes them."""
    import torch

    from monoglot.modalities import audio

    heard = audio.resample(np.asarray(samples, np.float32), rate, audio.RATE)
    whole = np.pad(heard, (0, max(-len(heard) % audio.HOP, 2 * audio.N_FFT - len(heard))))
    bands = audio.log_mel(
        torch.from_numpy(whole)[None], torch.from_numpy(audio.mel_filters()), torch.hann_window(audio.N_FFT)
    )
    return bands[0, :, : max(1, len(heard) // audio.HOP)].numpy()


def mel_height(hertz: float) -> float:
    """Where a frequency lies in the spectrogram, 0 at the bottom, 1 at the top."""
    from monoglot.modalities.audio import mel_filters

    filters = mel_filters()
    nearest = round(hertz / 8000 * (filters.shape[1] - 1))
    return (int(filters[:, nearest].argmax()) + 0.5) / filters.shape[0]


def encoded(image: Image.Image, alt: str, *, side: int) -> Picture:
    """A PIL image, reduced to `side`, as PNG or JPEG, whichever is smaller."""
    shown = image.convert("RGB")
    shown.thumbnail((side, side))
    versions = {}
    for kind, settings in (("png", {"optimize": True}), ("jpeg", {"quality": 85})):
        file = io.BytesIO()
        shown.save(file, kind, **settings)
        versions[f"image/{kind}"] = file.getvalue()
    kind = min(versions, key=lambda name: len(versions[name]))
    return Picture(versions[kind], kind, *shown.size, alt)


def svg(figure: Figure, alt: str) -> Picture:
    """A matplotlib figure on no background; what is drawn in black takes the page's text colour.

    Make figures with `matplotlib.figure.Figure`, not pyplot: no window, no state.
    """
    import matplotlib
    from matplotlib.text import Text

    figure.patch.set_alpha(0)
    for axes in figure.axes:
        axes.patch.set_alpha(0)
        axes.tick_params(color=INK, labelcolor=INK, labelsize=8.5)
        for spine in axes.spines.values():
            spine.set_color(INK)
    for text in figure.findobj(Text):
        text.set_color(INK)
    file = io.BytesIO()
    settings: Any = {"svg.fonttype": "none", "svg.hashsalt": alt, "font.family": "sans-serif", "font.size": 8.5}
    with matplotlib.rc_context(settings):
        figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    width, height = (round(96 * inches) for inches in figure.get_size_inches())
    drawn = file.getvalue().decode().replace(INK, "currentColor")
    style = "<style>svg{color:#4b4f57}text{font-family:system-ui,sans-serif!important}"
    style += "@media(prefers-color-scheme:dark){svg{color:#b4b7bf}}</style>"
    head, _, body = drawn.partition("<defs>")
    return Picture(f"{head}{style}<defs>{body}".encode(), "image/svg+xml", width, height, alt)
