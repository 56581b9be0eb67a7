"""PANN's CNN14 on sounds: samples float[n, samples] -> log-mel float[n, frames, 64] -> maps float[n, 2048, frames/32, 2]
-> tokens float[n, frames/32 * 2, 2048], time by time.

Source: section 14.3 of the published model's arithmetic; the network is Kong et al.'s (arXiv 1912.10211).
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from monoglot.modalities.base import Encoder, run_by_shape
from monoglot.modalities.networks.parts import FrozenNorm, start

N_FFT = 1024
"""Samples of an analysis window."""
MELS = 64
LOWEST_HZ, HIGHEST_HZ = 50.0, 14_000.0
HALVINGS = 5
"""How often frames and bands are halved; a rest is dropped."""
COLUMNS = MELS >> HALVINGS
"""Tokens beside one another: low bands, high bands."""
WIDTHS = (1, 64, 128, 256, 512, 1024, 2048)
DROPOUT = 0.2
HIDDEN_FRAMES, HIDDEN_BANDS, STRIPES = 64, 8, 2
"""SpecAugment in training: two stripes of less than this many frames, and two of less than this many bands."""


def steps(samples: int, hop: int) -> int:
    """Tokens in time that a sound of this many samples becomes.

    >>> steps(480_000, hop=200), steps(480_000, hop=480)
    (75, 31)
    """
    return (1 + samples // hop) >> HALVINGS


class Cnn14(Encoder):
    """CNN14 with its log-mel front end, without its classifier; parameters as behind `encoder.embed_audios.`.

    In training, and only there, stripes of the log-mel are hidden (SpecAugment, arXiv 1904.08779) and values dropped.

    Args:
        mel: float32[64, 513], the weight of each bin in each band. Part of the weights, as `logmel_extractor.melW`
            [513, 64]: a checkpoint's replaces it, since PANN's own is one for 32 kHz.
        hop: samples between two frames.
    """

    hann: Tensor
    channels = WIDTHS[-1]

    def __init__(self, mel: np.ndarray, hop: int = 200):
        super().__init__()
        self.hop = hop
        self.logmel_extractor = nn.Module()
        self.logmel_extractor.register_buffer("melW", torch.from_numpy(mel).T.contiguous())
        self.register_buffer("hann", torch.hann_window(N_FFT, periodic=True), persistent=False)
        self.bn0 = FrozenNorm(MELS)
        self.bn0.running_mean.fill_(-40)  # dB: norms don't adapt, so that a fresh one starts where sounds are
        self.bn0.running_var.fill_(20**2)
        for index in range(len(WIDTHS) - 1):
            self.add_module(f"conv_block{index + 1}", ConvBlock(WIDTHS[index], WIDTHS[index + 1]))
        start(self)

    def log_mel(self, sounds: Tensor) -> Tensor:
        """float[n, samples] -> float32[n, frames, 64]: power in mel bands, in dB, at least -100; frames are centred."""
        with torch.autocast(sounds.device.type, enabled=False):
            spectrum = torch.stft(
                sounds.float(), N_FFT, self.hop, window=self.hann.float(), center=True, return_complex=True
            )
            power = torch.view_as_real(spectrum).square().sum(-1).transpose(1, 2)
            return 10 * (power @ self.logmel_extractor.melW.float()).clamp(min=1e-10).log10()  # type: ignore[operator]

    def maps(self, sounds: Tensor) -> Tensor:
        """float[n, samples] -> float[n, 2048, frames // 32, 2]."""
        x = self.bn0(self.log_mel(sounds).to(self.bn0.weight.dtype).transpose(1, 2)).transpose(1, 2)
        if self.training:
            x = x * shown(*x.shape).to(x)
        x = x[:, None]
        for index in range(1, len(WIDTHS)):
            x = self.get_submodule(f"conv_block{index}")(x)
            if index <= HALVINGS:
                x = F.dropout(F.avg_pool2d(x, 2), DROPOUT, self.training)
        return x

    def forward(self, items: list[Tensor]) -> list[Tensor]:
        return run_by_shape(self._run, items)

    def _run(self, sounds: Tensor) -> Tensor:
        if not steps(sounds.shape[-1], self.hop):
            raise ValueError(
                f"a sound of {sounds.shape[-1]} samples is too short; CNN14 needs {self.hop * (2**HALVINGS - 1)}"
            )
        return self.maps(sounds).flatten(2).transpose(1, 2)


class ConvBlock(nn.Module):
    """Two 3x3 convolutions."""

    def __init__(self, before: int, after: int):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(before, after, 3, padding=1, bias=False), FrozenNorm(after)
        self.conv2, self.bn2 = nn.Conv2d(after, after, 3, padding=1, bias=False), FrozenNorm(after)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x))))))


def shown(sounds: int, frames: int, bands: int) -> Tensor:
    """float[sounds, frames, bands] of ones with stripes of zeros, other ones for each sound."""
    mask = torch.ones(sounds, frames, bands)
    for sound in mask:
        for dim, widest in ((0, HIDDEN_FRAMES), (1, HIDDEN_BANDS)):
            for _ in range(STRIPES):
                width = int(torch.randint(min(widest, sound.shape[dim]), ()))
                first = int(torch.randint(sound.shape[dim] - width, ()))
                sound.narrow(dim, first, width).zero_()
    return mask
