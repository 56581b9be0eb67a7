"""Attention, feed-forward, and the layers made of them.

Letters: B rows, T queries, S keys, H heads, d head width, D width. Biases are float[B or 1, H or 1, T, S], added to the scores; -inf hides a key.
Source: section 11 and 12 of the published model's arithmetic; with all switches off these are Whisper's layers (arXiv 2212.04356).
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from monoglot.model.config import ModelConfig


def attend(q: Tensor, keys: Tensor, values: Tensor, bias: Tensor | None, *, causal: bool, scale: float) -> Tensor:
    """Scaled dot-product attention, [B, H, T, d]; in float32 where a processor has to go back through it in bfloat16.

    That way back takes up to ten times as long as in float32, and rows are short (docs/log.md).
    """
    ask = F.scaled_dot_product_attention
    goes_back = torch.is_grad_enabled() and any(x.requires_grad for x in (q, keys, values))
    if not (goes_back and q.dtype == torch.bfloat16 and q.device.type == "cpu"):
        return ask(q, keys, values, attn_mask=bias, is_causal=causal, scale=scale)
    with torch.autocast("cpu", enabled=False):
        bias = None if bias is None else bias.float()
        y = ask(q.float(), keys.float(), values.float(), attn_mask=bias, is_causal=causal, scale=scale)
    return y.to(q.dtype)


def dropout(x: Tensor, rate: float, *, training: bool) -> Tensor:
    """Dropout. A processor draws 16 random bits an element, four at once: a sixth of the time of torch's own.

    >>> sum(dropout(torch.ones(1000), 0.5, training=True).unique().tolist())
    2.0
    """
    if not training or rate == 0 or x.device.type != "cpu":
        return F.dropout(x, rate, training)
    bits = torch.empty(-(-x.numel() // 4), dtype=torch.int64).random_(-(2**63), None).view(torch.int16)
    kept = bits[: x.numel()].view(x.shape) >= round(rate * 2**16) - 2**15
    return x * kept * (1 / (1 - rate))


class Attention(nn.Module):
    """Multi-head attention with a bias beside the content and a factor a head."""

    def __init__(self, c: ModelConfig):
        super().__init__()
        self.heads = c.heads
        self.scale = (c.head_width * c.attention_scale) ** -0.5
        self.q = nn.Linear(c.width, c.width)
        self.kv = nn.Linear(c.width, 2 * c.width)
        self.out = nn.Linear(c.width, c.width)
        self.head_scale = nn.Parameter(torch.ones(c.heads)) if c.scale_heads else None

    def keys_values(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """[B, S, D] -> keys and values, each [B, H, S, d]."""
        k, v = self.kv(x).chunk(2, dim=-1)
        return self._split(k), self._split(v)

    def forward(self, x: Tensor, keys: Tensor, values: Tensor, bias: Tensor | None, *, causal: bool = False) -> Tensor:
        """x [B, T, D] -> [B, T, D]."""
        q = self._split(self.q(x))
        if bias is not None:
            bias = bias.to(q.dtype)
        y = attend(q, keys, values, bias, causal=causal, scale=self.scale)
        if self.head_scale is not None:
            y = y * self.head_scale.to(y.dtype)[:, None, None]
        return self.out(y.transpose(1, 2).flatten(2))

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)


class Branch(nn.Module):
    """What every residual branch does around its function: dropout, and in training now and then nothing at all (drop path)."""

    def __init__(self, c: ModelConfig, drop_path: float):
        super().__init__()
        self.dropout, self.drop_path = c.dropout, drop_path

    def forward(self, x: Tensor, branch: Tensor) -> Tensor:
        """x + branch; in training a row's branch is left out at the rate drop_path and the others are scaled up."""
        branch = dropout(branch, self.dropout, training=self.training)
        if self.training and self.drop_path > 0:
            kept = torch.rand(len(x), 1, 1, device=x.device) >= self.drop_path
            branch = branch * (kept / (1 - self.drop_path)).to(branch.dtype)
        return x + branch


class FeedForward(nn.Module):
    def __init__(self, c: ModelConfig):
        super().__init__()
        self.up = nn.Linear(c.width, c.ffn)
        self.norm = nn.LayerNorm(c.ffn) if c.norm_ffn else nn.Identity()
        self.down = nn.Linear(c.ffn, c.width)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(self.norm(F.gelu(self.up(x))))


class EncoderLayer(nn.Module):
    def __init__(self, c: ModelConfig, drop_path: float):
        super().__init__()
        self.attention_norm = nn.LayerNorm(c.width)
        self.attention = Attention(c)
        self.attention_out_norm = nn.LayerNorm(c.width) if c.norm_attention else nn.Identity()
        self.ffn_norm = nn.LayerNorm(c.width)
        self.ffn = FeedForward(c)
        self.add = Branch(c, drop_path)

    def forward(self, x: Tensor, bias: Tensor | None) -> Tensor:
        """x [B, S, D] -> [B, S, D]."""
        h = self.attention_norm(x)
        x = self.add(x, self.attention_out_norm(self.attention(h, *self.attention.keys_values(h), bias)))
        return self.add(x, self.ffn(self.ffn_norm(x)))


@dataclass
class LayerCache:
    """What one decoder layer keeps between steps: its own past and the memory, as keys and values [B, H, *, d]."""

    past: tuple[Tensor, Tensor] | None = None
    memory: tuple[Tensor, Tensor] | None = None

    def extend(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """The past grows by what is new; all of it is returned."""
        if self.past is not None:
            keys, values = torch.cat([self.past[0], keys], dim=2), torch.cat([self.past[1], values], dim=2)
        self.past = (keys, values)
        return self.past

    def select(self, rows: Tensor) -> None:
        self.past, self.memory = _select(self.past, rows), _select(self.memory, rows)


@dataclass
class Cache:
    """What the decoder keeps between steps of one search."""

    layers: list[LayerCache] = field(default_factory=list)
    length: int = 0

    def select(self, rows: Tensor) -> None:
        """Keep the given rows, in that order (beams that survive, sentences that are not finished)."""
        for layer in self.layers:
            layer.select(rows)


def _select(pair: tuple[Tensor, Tensor] | None, rows: Tensor) -> tuple[Tensor, Tensor] | None:
    return None if pair is None else (pair[0].index_select(0, rows), pair[1].index_select(0, rows))


class DecoderLayer(nn.Module):
    def __init__(self, c: ModelConfig, drop_path: float):
        super().__init__()
        self.attention_norm = nn.LayerNorm(c.width)
        self.attention = Attention(c)
        self.attention_out_norm = nn.LayerNorm(c.width) if c.norm_attention else nn.Identity()
        self.cross_norm = nn.LayerNorm(c.width)
        self.cross = Attention(c)
        self.cross_out_norm = nn.LayerNorm(c.width) if c.norm_attention else nn.Identity()
        self.ffn_norm = nn.LayerNorm(c.width)
        self.ffn = FeedForward(c)
        self.add = Branch(c, drop_path)

    def forward(
        self, x: Tensor, memory: Tensor, self_bias: Tensor | None, cross_bias: Tensor | None, cache: LayerCache
    ) -> Tensor:
        """x [B, T, D], memory [B, S, D] -> [B, T, D]. `cache` is read and written; a fresh one makes this the plain layer."""
        h = self.attention_norm(x)
        keys, values = cache.extend(*self.attention.keys_values(h))
        causal = self_bias is None and x.shape[1] > 1  # without a bias, several queries only come at the start
        x = self.add(x, self.attention_out_norm(self.attention(h, keys, values, self_bias, causal=causal)))
        if cache.memory is None:
            cache.memory = self.cross.keys_values(memory)
        x = self.add(x, self.cross_out_norm(self.cross(self.cross_norm(x), *cache.memory, cross_bias)))
        return self.add(x, self.ffn(self.ffn_norm(x)))
