"""Weights and inputs that nobody has to store: every number is a uniform draw seeded by its tensor's name (section 28.1)."""

from __future__ import annotations

import math
import os
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

PREFIXES = {"image": "encoder.embed_images.", "video": "encoder.embed_videos.", "audio": "encoder.embed_audios."}
"""What stands before the names of an encoder's weights in a published checkpoint."""
COMPUTED = ("spectrogram_extractor.", "logmel_extractor.")


def reference(name: str) -> Path:
    """A file of the published model's golden tensors that is too large for this repository; skips where there is none."""
    beside = Path(__file__).parents[3] / "shared" / "reference"
    folder = Path(os.environ.get("MONOGLOT_REFERENCE", beside))
    if not (folder / name).is_file():
        pytest.skip(f"needs {name} of the reference beside the repository, or in $MONOGLOT_REFERENCE")
    return folder / name


def uniform(name: str, shape: tuple[int, ...], low: float, high: float) -> Tensor:
    draw = np.random.RandomState(zlib.crc32(name.encode())).random_sample(math.prod(shape))
    return torch.from_numpy((low + (high - low) * draw).astype(np.float32).reshape(shape))


def bounds(name: str, shape: tuple[int, ...]) -> tuple[float, float]:
    """Between which numbers a published entry is drawn; the first rule that fits."""
    last = name.rsplit(".", 1)[-1]
    if last == "running_mean":
        return (-60, -20) if name.endswith("embed_audios.bn0.running_mean") else (-0.2, 0.2)
    if last == "running_var":
        return (200, 600) if name.endswith("embed_audios.bn0.running_var") else (0.6, 1.4)
    if "c_attn" in name:
        return 0.5, 1.5
    if last == "bias":
        return -0.2, 0.2
    if last == "weight" and len(shape) == 1:
        if name == "decoder.layer_norm.weight":
            return -1.5, 1.5
        return (0.2, 0.6) if name.endswith("bn3.weight") else (0.6, 1.4)
    if "embed_tokens" in name:
        edge = 5 / math.sqrt(shape[1])
    elif "rel_pos_table_list" in name or ("embed_" in name and "positions" in name) or "type_embedding" in name:
        edge = 1.0
    else:
        gain = math.sqrt(2) if len(shape) == 4 and "embed_audios" in name else 1.0
        edge = gain * math.sqrt(3 / math.prod(shape[1:]))
    return -edge, edge


def weight(name: str, shape: tuple[int, ...]) -> Tensor:
    tensor = uniform(name, shape, *bounds(name, shape))
    if name == "encoder.embed_tokens.weight":
        tensor[2] *= 2
    return tensor


@torch.no_grad()
def fill(network: nn.Module, kind: str) -> nn.Module:
    """Fill an encoder by its own names behind the published prefix: right numbers come out only if the names are right."""
    for name, tensor in network.state_dict().items():
        if not name.startswith(COMPUTED):
            tensor.copy_(weight(PREFIXES[kind] + name, tuple(tensor.shape)))
    return network.eval()


def wave(samples: int, number: int) -> Tensor:
    """A rising tone in noise, float32."""
    return torch.from_numpy(wave64(samples, number).astype(np.float32))


def wave64(samples: int, number: int) -> np.ndarray:
    t = np.arange(samples) / 48_000
    noise = 2 * np.random.RandomState(1000 + number).random_sample(samples) - 1
    tones = 0.3 * np.sin(2 * np.pi * (300 + 200 * number) * t)
    tones = tones + 0.15 * np.sin(2 * np.pi * (2000 + 1500 * number * t) * t)
    return tones + 0.05 * noise
