"""The painter: image codes -> pixels, by the decoder half of a VQGAN (Esser et al., arXiv 2012.09841).

checkpoint of taming-transformers -> read_decoder_weights -> VQGANDecoder -> paint(codes) -> uint8[H, W, 3]

Every size is read from the weights, so checkpoints of any f (8, 16), width, depth and codebook fit, with either way of quantising
(`quantize.embedding`, or `quantize.embed` where Gumbel-softmax was used). The published model writes 8192 codes of f = 8.
Letters: B pictures, C channels, h w the grid of codes, H W pixels, f = H / h.
"""

from __future__ import annotations

import math
import re
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn

from monoglot.errors import InputError

_GROUPS, _EPSILON = 32, 1e-6  # of every GroupNorm


class Block(nn.Module):
    """Two convolutions beside a way around them."""

    def __init__(self, channels_in: int, channels_out: int):
        super().__init__()
        self.norm1, self.norm2 = _norm(channels_in), _norm(channels_out)
        self.conv1, self.conv2 = _conv(channels_in, channels_out), _conv(channels_out, channels_out)
        if channels_in != channels_out:
            self.nin_shortcut = _conv(channels_in, channels_out, 1)

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv2(F.silu(self.norm2(self.conv1(F.silu(self.norm1(x))))))
        return h + (self.nin_shortcut(x) if hasattr(self, "nin_shortcut") else x)


class Attention(nn.Module):
    """Every cell looks at every cell, with one head."""

    def __init__(self, channels: int):
        super().__init__()
        self.norm = _norm(channels)
        self.q, self.k, self.v, self.proj_out = (_conv(channels, channels, 1) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        normed = self.norm(x)
        q, k, v = (part(normed).flatten(2).transpose(1, 2) for part in (self.q, self.k, self.v))
        h = F.scaled_dot_product_attention(q, k, v)
        return x + self.proj_out(h.transpose(1, 2).view_as(x))


class Level(nn.Module):
    """Blocks of one resolution, each with attention after it where there is any; then twice the size, except in the last level."""

    def __init__(self, channels_in: int, channels_out: int, blocks: int, *, attends: bool, doubles: bool):
        super().__init__()
        self.block = nn.ModuleList(Block(channels_out if i else channels_in, channels_out) for i in range(blocks))
        self.attn = nn.ModuleList(Attention(channels_out) for _ in range(blocks if attends else 0))
        if doubles:
            self.upsample = nn.ModuleDict({"conv": _conv(channels_out, channels_out)})

    def forward(self, x: Tensor) -> Tensor:
        for index, block in enumerate(self.block):
            x = block(x)
            if len(self.attn):
                x = self.attn[index](x)
        if hasattr(self, "upsample"):
            x = self.upsample["conv"](F.interpolate(x, scale_factor=2.0, mode="nearest"))
        return x


class Decoder(nn.Module):
    """Quantised cells float[B, C, h, w] to pixels float[B, 3, H, W]."""

    def __init__(self, state: dict[str, Tensor]):
        super().__init__()
        channels, z_channels = state["decoder.conv_in.weight"].shape[:2]
        self.conv_in = _conv(z_channels, channels)
        middle = {
            "block_1": Block(channels, channels),
            "attn_1": Attention(channels),
            "block_2": Block(channels, channels),
        }
        self.mid = nn.ModuleDict(middle)
        levels: list[Level] = []
        for number in reversed(range(_count(state, r"decoder\.up\.(\d+)\."))):  # up.0 is the last and largest
            name = f"decoder.up.{number}."
            out = len(state[f"{name}block.0.conv1.weight"])
            blocks = _count(state, re.escape(name) + r"block\.(\d+)\.")
            levels.append(Level(channels, out, blocks, attends=f"{name}attn.0.q.weight" in state, doubles=number > 0))
            channels = out
        self.up = nn.ModuleList(reversed(levels))
        self.norm_out, self.conv_out = _norm(channels), _conv(channels, len(state["decoder.conv_out.weight"]))

    def forward(self, z: Tensor) -> Tensor:
        x = self.conv_in(z)
        for part in (*self.mid.values(), *reversed(self.up)):
            x = part(x)
        return self.conv_out(F.silu(self.norm_out(x)))


class VQGANDecoder(nn.Module):
    """Codes to pictures. Parameters have taming-transformers' names; sizes are those of `state`, which is loaded."""

    def __init__(self, state: dict[str, Tensor]):
        super().__init__()
        codes, width = state["codebook.weight"].shape
        self.codebook = nn.Embedding(codes, width)
        self.post_quant_conv = _conv(width, len(state["post_quant_conv.weight"]), 1)
        self.decoder = Decoder(state)
        self.load_state_dict(state)
        self.eval()

    @property
    def scale(self) -> int:
        """f: pixels along each side of a code's cell."""
        return 2 ** (len(self.decoder.up) - 1)

    def forward(self, codes: Tensor) -> Tensor:
        """int64[B, h, w] -> float[B, 3, H, W], about -1 to 1."""
        return self.decoder(self.post_quant_conv(self.codebook(codes).permute(0, 3, 1, 2)))

    @torch.no_grad()
    def paint(self, codes: Sequence[int]) -> np.ndarray:
        """One picture, uint8[H, W, 3], of the codes of a square grid, row by row.

        Raises:
            InputError: their number is no square, or one is not in the codebook.
        """
        side = math.isqrt(len(codes))
        if not codes or side**2 != len(codes):
            raise InputError(f"{len(codes)} image codes do not fill a square; give h * h of them, row by row")
        if not 0 <= min(codes) <= max(codes) < self.codebook.num_embeddings:
            raise InputError(f"image codes must lie in 0 .. {self.codebook.num_embeddings - 1}, this VQGAN's codebook")
        pixels = self(torch.tensor(codes).view(1, side, side))[0].clamp(-1, 1)
        return ((pixels + 1) * 127.5).byte().permute(1, 2, 0).numpy()


def load_vqgan(path: str | Path) -> VQGANDecoder:
    """The decoder half of a checkpoint (`.ckpt`, `.pt`, or `.safetensors` with the same names). Raises InputError."""
    state = read_decoder_weights(Path(path))
    try:
        return VQGANDecoder(state)
    except (KeyError, RuntimeError, ValueError) as error:
        wrong = f"is not a VQGAN of taming-transformers ({' '.join(str(error).split())[:200]})"
        raise InputError.at(path, "vqgan", wrong, "give a checkpoint of its VQModel or GumbelVQ") from None


def read_decoder_weights(path: Path) -> dict[str, Tensor]:
    """What a checkpoint holds of `VQGANDecoder`, as float32; its encoder, discriminator and optimiser are left out.

    Nothing in the file is run: a pickle is read with `weights_only`, and classes of pytorch_lightning in it become empty ones.
    """
    try:
        content = load_file(path) if path.suffix == ".safetensors" else _read_pickle(path)
    except Exception as error:  # readers of foreign bytes raise almost anything
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise InputError.at(path, "vqgan", f"cannot be read ({first})", "give a VQGAN checkpoint") from None
    state = content.get("state_dict", content) if isinstance(content, dict) else {}
    named = {
        re.sub(r"^quantize\.(embedding|embed)\.", "codebook.", name): tensor.float()
        for name, tensor in state.items()
        if isinstance(tensor, Tensor)
    }
    return {name: t for name, t in named.items() if name.startswith(("decoder.", "post_quant_conv.", "codebook."))}


def _read_pickle(path: Path) -> object:
    foreign = torch.serialization.get_unsafe_globals_in_checkpoint(path) if zipfile.is_zipfile(path) else []
    names = [name for name in foreign if _harmless(name)]
    with torch.serialization.safe_globals([_stand_in(name) for name in names]):
        return torch.load(path, map_location="cpu", weights_only=True)


def _harmless(name: str) -> bool:
    """Lightning keeps the state of its callbacks beside the weights, under their classes."""
    return name.startswith(("pytorch_lightning.", "lightning."))


def _stand_in(name: str) -> type:
    """An empty class of that full name: the real one is never imported."""
    module, _, own = name.rpartition(".")
    return type(own, (), {"__module__": module})


def _norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(_GROUPS, channels, eps=_EPSILON)


def _conv(channels_in: int, channels_out: int, size: int = 3) -> nn.Conv2d:
    return nn.Conv2d(channels_in, channels_out, size, padding=size // 2)


def _count(state: dict[str, Tensor], pattern: str) -> int:
    """How many numbers stand where the pattern has its group."""
    return len({match[1] for name in state if (match := re.match(pattern, name))})
