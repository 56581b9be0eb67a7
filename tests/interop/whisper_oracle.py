"""Whisper tiny.en, written a second time and as plainly as can be, to prove our own encoder and decoder equal to it.

Straight from the arrays of `read_ctranslate2`; no cache, no batch, float32. After Radford et al., arXiv 2212.04356:
pre-norm blocks, exact GELU, learned decoder positions, output tied to the embedding. Letters: F mel frames, L = F / 2
audio tokens, T text tokens, D 384, V 51864.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F

RATE, WINDOW, HOP, MELS = 16_000, 400, 160, 80
HEADS, VOCABULARY = 6, 51_864
END, START, NO_TIMESTAMPS = 50_256, 50_257, 50_362


class WhisperOracle:
    def __init__(self, arrays: dict[str, np.ndarray]):
        self.w = {name: torch.from_numpy(np.array(a, np.float32)) for name, a in arrays.items() if a.ndim}
        assert self.w["decoder/embeddings/weight"].shape == (VOCABULARY, 384)
        assert self.w["encoder/position_encodings/encodings"].shape == (1500, 384)

    def encode(self, mel: torch.Tensor) -> torch.Tensor:
        """[80, F] -> [L, D]; F even and at most 3000."""
        x = F.gelu(F.conv1d(mel[None], self.w["encoder/conv1/weight"], self.w["encoder/conv1/bias"], padding=1))
        x = F.gelu(F.conv1d(x, self.w["encoder/conv2/weight"], self.w["encoder/conv2/bias"], stride=2, padding=1))
        x = x[0].T
        x = x + self.w["encoder/position_encodings/encodings"][: len(x)]
        for layer in range(4):
            x = x + self._self_attention(f"encoder/layer_{layer}/self_attention", x, causal=False)
            x = x + self._ffn(f"encoder/layer_{layer}/ffn", x)
        return self._norm("encoder", x)

    def decode(self, memory: torch.Tensor, ids: list[int]) -> torch.Tensor:
        """[L, D] and T ids -> logits [T, V]; row t is about token t + 1."""
        positions = self.w["decoder/position_encodings/encodings"][: len(ids)]
        return self.decode_embedded(memory, self.w["decoder/embeddings/weight"][ids] + positions)

    def decode_embedded(self, memory: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        """As `decode`, from token embeddings with positions added, [T, D]."""
        for layer in range(4):
            x = x + self._self_attention(f"decoder/layer_{layer}/self_attention", x, causal=True)
            x = x + self._cross_attention(f"decoder/layer_{layer}/attention", x, memory)
            x = x + self._ffn(f"decoder/layer_{layer}/ffn", x)
        return self._norm("decoder", x) @ self.w["decoder/embeddings/weight"].T

    def greedy(
        self, memory: torch.Tensor, start: tuple[int, ...] = (START, NO_TIMESTAMPS), limit: int = 64
    ) -> list[int]:
        """The most probable next token of all V until END or `limit`; `start` and END are not returned."""
        ids = list(start)
        while len(ids) < len(start) + limit:
            token = int(self.decode(memory, ids)[-1].argmax())
            if token == END:
                break
            ids.append(token)
        return ids[len(start) :]

    def _norm(self, name: str, x: torch.Tensor) -> torch.Tensor:
        return F.layer_norm(x, (384,), self.w[f"{name}/layer_norm/gamma"], self.w[f"{name}/layer_norm/beta"], 1e-5)

    def _linear(self, name: str, x: torch.Tensor) -> torch.Tensor:
        return x @ self.w[f"{name}/weight"].T + self.w[f"{name}/bias"]

    def _ffn(self, name: str, x: torch.Tensor) -> torch.Tensor:
        return self._linear(f"{name}/linear_1", F.gelu(self._linear(f"{name}/linear_0", self._norm(name, x))))

    def _self_attention(self, name: str, x: torch.Tensor, causal: bool) -> torch.Tensor:
        q, k, v = self._linear(f"{name}/linear_0", self._norm(name, x)).chunk(3, dim=-1)
        return self._linear(f"{name}/linear_1", _attend(q, k, v, causal))

    def _cross_attention(self, name: str, x: torch.Tensor, memory: torch.Tensor) -> torch.Tensor:
        k, v = self._linear(f"{name}/linear_1", memory).chunk(2, dim=-1)
        return self._linear(f"{name}/linear_2", _attend(self._linear(f"{name}/linear_0", self._norm(name, x)), k, v))


def _attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, causal: bool = False) -> torch.Tensor:
    q, k, v = (x.unflatten(-1, (HEADS, -1)).transpose(0, 1) for x in (q, k, v))
    scores = q @ k.transpose(1, 2) / q.shape[-1] ** 0.5
    if causal:
        scores = scores.masked_fill(torch.ones(scores.shape[1:]).triu(1).bool(), -torch.inf)
    return (scores.softmax(-1) @ v).transpose(0, 1).flatten(1)


def log_mel(wave: np.ndarray) -> torch.Tensor:
    """float[N] at 16 kHz, N a multiple of 320 -> [80, F]. Whisper pads the wave with zeros to 30 s first."""
    padded = np.pad(wave.astype(np.float64), WINDOW // 2, mode="reflect")
    frames = np.lib.stride_tricks.sliding_window_view(padded, WINDOW)[::HOP][: len(wave) // HOP]
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(WINDOW) / WINDOW)
    power = np.abs(np.fft.rfft(frames * hann)) ** 2
    log = np.log10(np.maximum(mel_filters() @ power.T, 1e-10))
    return torch.from_numpy(((np.maximum(log, log.max() - 8) + 4) / 4).astype(np.float32))


def mel_filters() -> np.ndarray:
    """[80, 201]: triangles of equal area, 0-8000 Hz, on Slaney's scale: 15 mels to 1 kHz, then 27 mels a factor 6.4."""
    top = 15 + 27 * np.log(8) / np.log(6.4)
    mels = np.linspace(0, top, MELS + 2)
    hz = np.where(mels < 15, mels * 200 / 3, 1000 * 6.4 ** ((mels - 15) / 27))
    low, mid, high = hz[:-2, None], hz[1:-1, None], hz[2:, None]
    bins = np.arange(WINDOW // 2 + 1) * RATE / WINDOW
    return np.maximum(0, np.minimum((bins - low) / (mid - low), (high - bins) / (high - mid))) * 2 / (high - low)
