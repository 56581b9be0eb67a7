"""Sounds.

data side   Media -> window of samples -> mono -> 16 kHz -> padded with silence to whole seconds -> float32[n]
model side  float[b, n] -> log-mel, 100 a second -> Whisper's encoder -> tokens, 50 a second: float[b, n // 320, 384]
            or, at 48 kHz and always 10 s, the published model's CNN14 (networks/cnn14.py): float[b, 150, 2048]
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Mapping
from typing import Any, Literal

import numpy as np
import soundfile
import soxr
import torch
import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor, nn

from monoglot.errors import InputError, MediaError
from monoglot.modalities.base import MODALITIES, PUBLISHED, Encoder, Grid, Modality, run_by_shape, with_defaults
from monoglot.modalities.networks import cnn14
from monoglot.modalities.source import open_container, open_source, window
from monoglot.nouns import Media
from monoglot.rng import stream as random_stream

RATE = 16_000
"""Hz: what Whisper hears."""
HOP = 160
"""Samples between two log-mel frames: 10 ms."""
TOKEN = 2 * HOP
"""Samples a token stands for: the second convolution halves the frames, so 20 ms."""
N_FFT = 400
"""Samples of an analysis window: 25 ms."""
MELS = 80
MAX_TOKENS = 1500
"""Whisper's positions: 30 s."""


DEFAULTS: dict[str, dict[str, Any]] = {
    "cnn14": {
        "rate": 48_000,
        "max_seconds": 10.0,
        "pad_seconds": 10.0,
        "fill": "repeat",
        "sixteen_bits": True,
        "positions": "square",
    }
}
"""What settings are with an encoder when nothing else is said."""


class AudioConfig(BaseModel):
    """How sounds are read and heard.

    >>> AudioConfig(encoder="cnn14").rate
    48000
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    encoder: str = Field(
        "whisper", description="Network that turns a sound into tokens; one of MODALITIES['audio'].encoders."
    )
    rate: int = Field(
        RATE,
        ge=1000,
        description="Samples a second after resampling; the encoder 'whisper' needs 16000, 'cnn14' 48000.",
    )
    max_seconds: float = Field(30.0, gt=0, description="What follows after this much of the window is left out.")
    pad_seconds: float = Field(
        1.0, gt=0, description="Sounds are filled up to a multiple of this, so that equal lengths are common."
    )
    fill: Literal["silence", "repeat"] = Field(
        "silence", description="What they are filled with; 'repeat': the sound as often as it fits whole, then silence."
    )
    sixteen_bits: bool = Field(
        False, description="Samples are cut to 16 bits, towards zero, as the published model's were."
    )
    hop: int = Field(200, ge=1, le=cnn14.N_FFT, description="Samples between two frames of the encoder 'cnn14'.")
    positions: Literal["grid", "square", "none"] = Field(
        "none",
        description="How tokens get positions: by time; as if they filled a square; or not at all.",
    )
    pooled: Literal["none", "first"] = Field(
        "none",
        description="The mean of all tokens as one more token, before the others, that stands for the whole sound.",
    )
    words: int = Field(
        0, ge=0, description="Answers whose words a token is a mixture of, beside a linear map; 0: that map alone."
    )
    pooled_words: int = Field(0, ge=0, description="The same of the pooled token.")
    pooled_sharpness: float = Field(
        1.0,
        gt=0,
        description="With `pooled_words`: the likelihoods of that mixture to this power, brought to sum 1; above 1 it is surer.",
    )
    published: bool = Field(
        False,
        description=f"{PUBLISHED} Sounds: taken as if they had this rate, a random part of longer ones.",
    )

    @model_validator(mode="before")
    @classmethod
    def _as_the_encoder_needs(cls, settings: Any) -> Any:
        return with_defaults(settings, DEFAULTS)

    @model_validator(mode="after")
    def _pooled_has_a_place(self) -> AudioConfig:
        if self.pooled_words and self.pooled == "none":
            raise ValueError("pooled_words: needs a pooled token; give `pooled: first`")
        if self.pooled_sharpness != 1 and not self.pooled_words:
            raise ValueError("pooled_sharpness: needs `pooled_words`")
        return self

    @model_validator(mode="after")
    def _cnn14_fits(self) -> AudioConfig:
        if self.encoder != "cnn14":
            return self
        if self.rate < 2 * cnn14.HIGHEST_HZ:
            raise ValueError(f"rate {self.rate}: the encoder 'cnn14' hears up to {cnn14.HIGHEST_HZ:g} Hz")
        if not cnn14.steps(_padded(1, self), self.hop):
            shortest = self.hop * (2**cnn14.HALVINGS - 1) / self.rate
            raise ValueError(f"pad_seconds {self.pad_seconds}: the encoder 'cnn14' needs at least {shortest:.3g}")
        return self

    @model_validator(mode="after")
    def _whisper_fits(self) -> AudioConfig:
        if self.encoder != "whisper":
            return self
        if self.rate != RATE:
            raise ValueError(f"rate {self.rate}: the encoder 'whisper' needs {RATE}")
        if round(self.pad_seconds * RATE) % TOKEN:
            raise ValueError(
                f"pad_seconds {self.pad_seconds}: the encoder 'whisper' needs a multiple of {TOKEN / RATE}"
            )
        longest = _padded(math.ceil(self.max_seconds * RATE), self)
        if longest > MAX_TOKENS * TOKEN:
            raise ValueError(
                f"max_seconds {self.max_seconds}, padded to {longest / RATE:g}: 'whisper' hears at most 30 s"
            )
        return self


# --- data side --------------------------------------------------------------------------------------------------------


def prepare(media: Media, config: AudioConfig, variant: int = 0) -> np.ndarray:
    """Read one sound.

    `media.source` is a path, `tar://shard.tar#member`, encoded bytes, or `(samples, rate)` in memory with samples [n]
    or [n, channels], floats in [-1, 1] or integers of their full range. Any rate, any channels (averaged), and the
    sound of a video file. Of the window `start .. end` (seconds; cut at the end of the file) the first `max_seconds`
    are taken, always; only these are read, however long the file.

    With `config.published` the rate is not looked at, and of a longer sound a part drawn at random is taken, as the
    published model does after `numpy.random.seed(variant)`.

    Args:
        variant: 0 the plain reading; any other k the k-th copy: speed 0.95 to 1.05 (pitch goes along), up to 0.1 s
            later, gain 0.5 to 1.2, a little noise. The copy depends on the samples and k only.

    Returns:
        float32[n], mono, in [-1, 1], `config.rate` samples a second, n a multiple of pad_seconds * rate.

    Raises:
        MediaError: missing, empty, not a sound, no samples, values that are not numbers, or the window is empty.

    Source: filling and 16 bits, section 7 of the published model's arithmetic.

    >>> prepare(Media("audio", (np.zeros(8000, np.float32), 8000)), AudioConfig()).shape
    (16000,)
    """
    samples, rate, name = read_samples(media, math.inf if config.published else config.max_seconds)
    if config.published:
        rate = config.rate
    if not np.isfinite(samples).all():
        raise MediaError.at(
            name, media.modality, "holds samples that are not numbers (NaN or infinite)", "export it again"
        )
    speed = 1.0
    if variant:
        rng = random_stream(0, "audio", zlib.crc32(samples.tobytes()), variant)
        speed = rng.uniform(0.95, 1.05)
    samples = resample(samples, rate * speed, config.rate)
    if variant:
        samples = np.concatenate([np.zeros(int(rng.uniform(0, 0.1) * config.rate), np.float32), samples])
        samples = samples * np.float32(rng.uniform(0.5, 1.2))
        samples = samples + rng.normal(0, rng.uniform(0, 0.004), len(samples)).astype(np.float32)
    longest, first = int(config.max_seconds * config.rate), 0
    if config.published and len(samples) > longest:
        first = np.random.RandomState(abs(variant)).randint(len(samples) - longest + 1)
    samples = np.clip(samples[first : first + longest], -1, 1)
    return filled(to_sixteen_bits(samples) if config.sixteen_bits else samples, config)


def filled(samples: np.ndarray, config: AudioConfig) -> np.ndarray:
    """Samples float32[n], n > 0, filled up as `config.pad_seconds` and `config.fill` say.

    >>> config = AudioConfig(encoder="cnn14", pad_seconds=0.14)
    >>> filled(np.ones(2500, np.float32), config).tolist() == [1] * 5000 + [0] * 1720
    True
    """
    padded = np.zeros(_padded(len(samples), config), np.float32)
    copies = len(padded) // len(samples) if config.fill == "repeat" else 1
    padded[: copies * len(samples)] = np.tile(samples, copies)
    return padded


def to_sixteen_bits(samples: np.ndarray) -> np.ndarray:
    """float32[n] in [-1, 1] -> the same in steps of 1 / 32767, towards zero.

    >>> (to_sixteen_bits(np.array([0.99999, -0.5], np.float32)) * 32767).tolist()
    [32766.0, -16383.0]
    """
    return (np.trunc(samples.astype(np.float64) * 32767) / 32767).astype(np.float32)


def read_samples(media: Media, max_seconds: float = math.inf) -> tuple[np.ndarray, int, str]:
    """The first `max_seconds` of the window, not resampled: (float32[n] mono, n > 0; rate in Hz; name for messages)."""
    if isinstance(media.source, (tuple, list)):
        return _from_memory(media, max_seconds)
    file, name = open_source(media)
    with file:
        try:
            with soundfile.SoundFile(file) as sound:
                samples, rate = _from_sound(sound, media, name, max_seconds)
        except soundfile.LibsndfileError:  # not a format of libsndfile: compressed containers, the sound of videos
            file.seek(0)
            with open_container(file, media, name) as container:
                samples, rate = _from_container(container, media, name, max_seconds)
    return samples, rate, name


def resample(samples: np.ndarray, from_rate: float, to_rate: float) -> np.ndarray:
    """float32[n] -> float32[about n * to_rate / from_rate], at least one; soxr at its high quality.

    >>> len(resample(np.zeros(441, np.float32), 44_100, 16_000))
    160
    """
    if from_rate == to_rate:
        return samples
    resampled = soxr.resample(samples, from_rate, to_rate)
    return resampled if len(resampled) else samples[:1]


def _padded(length: int, config: AudioConfig) -> int:
    step = round(config.pad_seconds * config.rate)
    return max(1, math.ceil(length / step)) * step


def _from_memory(media: Media, max_seconds: float) -> tuple[np.ndarray, int, str]:
    name = "sound in memory"
    fix = "give (samples, rate): float samples [n] or [n, channels] in [-1, 1], and their rate in Hz"
    if len(media.source) != 2 or not isinstance(media.source[1], (int, float, np.number)) or media.source[1] <= 0:
        raise MediaError.at(name, media.modality, "not a pair of samples and rate", fix)
    samples, rate = np.asarray(media.source[0]), int(media.source[1])
    if (
        samples.ndim not in (1, 2)
        or samples.dtype.kind not in "fiu"
        or (samples.ndim == 2 and samples.shape[1] > MAX_CHANNELS)
    ):
        raise MediaError.at(name, media.modality, f"{samples.dtype}{list(samples.shape)} is not a sound", fix)
    if not samples.size:
        raise MediaError.at(name, media.modality, "holds no samples", "give at least one")
    start, end = window(media, name, len(samples) / rate)
    samples = samples[slice(*_span(start, min(end, start + max_seconds), rate))]
    if samples.dtype.kind != "f":
        limits = np.iinfo(samples.dtype)
        middle = 0 if samples.dtype.kind == "i" else (limits.max + 1) // 2
        samples = (samples.astype(np.float64) - middle) / (limits.max + 1 - middle)
    return _mono(samples.astype(np.float32)), rate, name


MAX_CHANNELS = 64
"""More columns than this and an array is more likely [channels, n], which is refused."""


def _from_sound(sound: Any, media: Media, name: str, max_seconds: float) -> tuple[np.ndarray, int]:
    if not sound.frames:
        raise MediaError.at(name, media.modality, "holds no samples", "record or export it again")
    rate = sound.samplerate
    start, end = window(media, name, sound.frames / rate)
    first, last = _span(start, min(end, start + max_seconds), rate)
    if first:
        sound.seek(first)
    samples = sound.read(last - first, dtype="float32", always_2d=True)
    if not len(samples):
        raise MediaError.at(
            name, media.modality, f"has no samples at {start:g} s", "it is cut off; copy or download it again"
        )
    return _mono(samples), rate


def _from_container(container: Any, media: Media, name: str, max_seconds: float) -> tuple[np.ndarray, int]:
    """Decode the window of the first sound. Samples lie where timestamps say; silence fills what no packet covers."""
    import av

    if not container.streams.audio:
        raise MediaError.at(name, media.modality, "holds pictures but no sound", "give a sound, or name it as video")
    stream = container.streams.audio[0]
    unit, rate = float(stream.time_base), stream.codec_context.sample_rate
    base = stream.start_time or 0
    declared = stream.duration * unit if stream.duration else (container.duration or 0) / av.time_base
    start, end = window(media, name, declared or math.inf)
    first, last = _span(start, min(end, start + max_seconds, MAX_SPAN_S + start), rate)
    if start > SEEK_BACK_S:
        container.seek(base + int((start - SEEK_BACK_S) / unit), stream=stream)
    samples, filled, at = np.zeros(last - first, np.float32), 0, 0
    tick = max(1, math.ceil(unit * rate))  # timestamps are whole units, so that smaller steps are not gaps
    to_planar = av.AudioResampler(format="fltp")
    for frame in _and_flush(container.decode(stream)):
        for part in to_planar.resample(frame):
            mono = part.to_ndarray().mean(axis=0, dtype=np.float32)
            if part.pts is not None:
                stamp = round((part.pts * float(part.time_base or unit) - base * unit) * rate)
                if abs(stamp - at) > tick:
                    at = stamp
            low, high = max(at, first), min(at + len(mono), last)
            if low < high:
                samples[low - first : high - first] = mono[low - at : high - at]
                filled = max(filled, high - first)
            at += len(mono)
        if at >= last:
            break
    if not filled:
        wrong = f"has no samples at {start:g} s"
        raise MediaError.at(name, media.modality, wrong, "it is empty or cut off; copy or download it again")
    return samples[:filled], rate


SEEK_BACK_S = 0.5
"""Decoders of MP3 and AAC need some packets before the first sample that is wanted."""
MAX_SPAN_S = 600.0
"""Most that is decoded from a container in one go, whatever `max_seconds` says."""


def _and_flush(frames: Any) -> Any:
    yield from frames
    yield None


def _span(start: float, end: float, rate: int) -> tuple[int, int]:
    """Sample numbers of a window; at least one sample long."""
    first = round(start * rate)
    return first, max(first + 1, round(end * rate))


def _mono(samples: np.ndarray) -> np.ndarray:
    return samples if samples.ndim == 1 else np.ascontiguousarray(samples.mean(axis=1, dtype=np.float32))


def grid(item: np.ndarray | Tensor, config: AudioConfig) -> Grid:
    """One token for 320 samples (20 ms), along time; a rest shorter than that is dropped. CNN14: two for 32 frames."""
    if config.encoder == "cnn14":
        whole = Grid(1, cnn14.steps(item.shape[-1], config.hop), cnn14.COLUMNS)
    else:
        whole = Grid(item.shape[-1] // TOKEN, 1, 1)
    return whole._replace(pooled=config.pooled == "first")


# --- model side -------------------------------------------------------------------------------------------------------


class WhisperEncoder(Encoder):
    """Whisper's encoder with its log-mel front end; the defaults are "tiny": float[n] -> float[n // 320, 384].

    A sound runs at its own length, not padded to 30 s. What comes out are the states before Whisper's last LayerNorm
    (`ln_post`): the LayerNorm behind the connector of the unified encoder does its work.

    Source: Whisper (arXiv 2212.04356), section 2.2.
    """

    positions: Tensor
    mel: Tensor
    hann: Tensor

    def __init__(self, config: AudioConfig, width: int = 384, layers: int = 4, heads: int = 6):
        super().__init__()
        self.channels = width
        self.conv1 = nn.Conv1d(MELS, width, kernel_size=3, padding=1)
        self.conv2 = nn.Conv1d(width, width, kernel_size=3, stride=2, padding=1)
        self.layers = nn.ModuleList(Layer(width, heads) for _ in range(layers))
        self.register_buffer("positions", sinusoids(MAX_TOKENS, width), persistent=False)
        self.register_buffer("mel", torch.from_numpy(mel_filters()), persistent=False)
        self.register_buffer("hann", torch.hann_window(N_FFT, periodic=True), persistent=False)

    def forward(self, items: list[Tensor]) -> list[Tensor]:
        return run_by_shape(self._run, items)

    def _run(self, sounds: Tensor) -> Tensor:
        tokens = sounds.shape[-1] // TOKEN
        if not 0 < tokens <= MAX_TOKENS:
            raise ValueError(
                f"a sound of {sounds.shape[-1]} samples makes {tokens} tokens; positions exist for 1 to {MAX_TOKENS}"
            )
        x = log_mel(sounds[:, : tokens * TOKEN], self.mel, self.hann).to(self.conv1.weight.dtype)
        x = F.gelu(self.conv1(x))
        x = F.gelu(self.conv2(x))
        x = x.transpose(1, 2) + self.positions[:tokens]
        for layer in self.layers:
            x = layer(x)
        return x


class Layer(nn.Module):
    """One pre-norm transformer layer. Keys have no bias, as in Whisper."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.attention_norm = nn.LayerNorm(width)
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width, bias=False)
        self.value = nn.Linear(width, width)
        self.out = nn.Linear(width, width)
        self.ffn_norm = nn.LayerNorm(width)
        self.fc1 = nn.Linear(width, 4 * width)
        self.fc2 = nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        h = self.attention_norm(x)
        q, k, v = (
            part(h).unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in (self.query, self.key, self.value)
        )
        x = x + self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        return x + self.fc2(F.gelu(self.fc1(self.ffn_norm(x))))


def log_mel(sounds: Tensor, mel: Tensor, hann: Tensor) -> Tensor:
    """float[b, n], n a multiple of 160 -> float32[b, 80, n / 160]: log10 of the power in mel bands, about -1 to 1.5.

    Each sound is cut 80 dB below its loudest. Frames are centred with reflection; the one at the very end is dropped.
    """
    with torch.autocast(sounds.device.type, enabled=False):
        spectrum = torch.stft(sounds.float(), N_FFT, HOP, window=hann.float(), center=True, return_complex=True)
        power = spectrum[..., :-1].abs().square()
        bands = (mel.float() @ power).clamp(min=1e-10).log10()
        loudest = bands.amax(dim=(1, 2), keepdim=True)
        return (torch.maximum(bands, loudest - 8) + 4) / 4


def mel_filters(
    rate: int = RATE, n_fft: int = N_FFT, mels: int = MELS, low: float = 0.0, high: float | None = None
) -> np.ndarray:
    """float32[mels, n_fft // 2 + 1]: triangles of equal area, even on Slaney's mel scale from low to high (rate / 2) Hz.

    Source: M. Slaney, Auditory Toolbox (1998): linear up to 1000 Hz (15 mel), then 27 mel for each factor of 6.4.
    """
    mel_1k, step_hz, log_step = 15.0, 200 / 3, math.log(6.4) / 27

    def to_mel(hertz: float) -> float:
        return hertz / step_hz if hertz < 1000 else mel_1k + math.log(hertz / 1000) / log_step

    corners_mel = np.linspace(to_mel(low), to_mel(high or rate / 2), mels + 2)
    corners = np.where(corners_mel < mel_1k, corners_mel * step_hz, 1000 * np.exp(log_step * (corners_mel - mel_1k)))
    left, centre, right = corners[:-2, None], corners[1:-1, None], corners[2:, None]
    hertz = np.arange(n_fft // 2 + 1) * (rate / n_fft)
    triangles = np.minimum((hertz - left) / (centre - left), (right - hertz) / (right - centre))
    return (np.maximum(triangles, 0) * 2 / (right - left)).astype(np.float32)


def sinusoids(length: int, width: int) -> Tensor:
    """float32[length, width]: sines, then cosines, of wavelengths from 2 pi to 10000 * 2 pi places.

    Source: Transformer (arXiv 1706.03762), section 3.5, with the two halves side by side as Whisper has them.
    """
    half = width // 2
    speed = torch.exp(-math.log(10_000) / (half - 1) * torch.arange(half))
    angle = torch.arange(length)[:, None] * speed
    return torch.cat([angle.sin(), angle.cos()], dim=1)


def load_whisper_encoder(encoder: WhisperEncoder, arrays: Mapping[str, np.ndarray]) -> None:
    """Fill the encoder from the arrays of a CTranslate2 Whisper model (`encoder/layer_0/ffn/linear_0/weight`, ...).

    Raises:
        InputError: an array is missing or of another shape.
    """

    def array(name: str) -> Tensor:
        if f"encoder/{name}" not in arrays:
            raise InputError.at(
                "Whisper weights", f"encoder/{name}", "missing", "give the arrays of a CTranslate2 Whisper model"
            )
        return torch.from_numpy(np.asarray(arrays[f"encoder/{name}"], np.float32))

    state: dict[str, Tensor] = {}
    for name in ("conv1", "conv2"):
        state |= {f"{name}.{field}": array(f"{name}/{field}") for field in ("weight", "bias")}
    for index in range(len(encoder.layers)):
        ours, theirs = f"layers.{index}", f"layer_{index}"
        for norm, part in (("attention_norm", "self_attention"), ("ffn_norm", "ffn")):
            state[f"{ours}.{norm}.weight"] = array(f"{theirs}/{part}/layer_norm/gamma")
            state[f"{ours}.{norm}.bias"] = array(f"{theirs}/{part}/layer_norm/beta")
        for linear, part in (("out", "self_attention/linear_1"), ("fc1", "ffn/linear_0"), ("fc2", "ffn/linear_1")):
            state |= {f"{ours}.{linear}.{field}": array(f"{theirs}/{part}/{field}") for field in ("weight", "bias")}
        for field in ("weight", "bias"):
            stacked = array(f"{theirs}/self_attention/linear_0/{field}")
            state |= {
                f"{ours}.{linear}.{field}": part for linear, part in zip(("query", "key", "value"), stacked.chunk(3))
            }
        del state[f"{ours}.key.bias"]  # zero: Whisper's keys have no bias
    try:
        encoder.load_state_dict(state)
    except RuntimeError as error:
        raise InputError.at("Whisper weights", "", " ".join(str(error).split())) from None


def _cnn14(config: AudioConfig) -> cnn14.Cnn14:
    mel = mel_filters(config.rate, cnn14.N_FFT, cnn14.MELS, cnn14.LOWEST_HZ, cnn14.HIGHEST_HZ)
    return cnn14.Cnn14(mel, config.hop)


ENCODERS: dict[str, Callable[[Any], Encoder]] = {"whisper": WhisperEncoder, "cnn14": _cnn14}
AUDIO = MODALITIES.add(
    "audio",
    Modality("audio", AudioConfig, prepare, grid, ENCODERS, timed=True),
)
