"""The model, cut into functions of plain tensors that an ONNX graph can be made of.

    MediaNetwork   items of one modality, equal in shape                     -> features
    SourceNetwork  word ids, features and where they lie                     -> states, and the keys and values that decoder layers read of them
    StepNetwork    the ids written since the last step, what was kept of it  -> logits of the next token, what to keep
    HeadNetwork    pooled features                                           -> probabilities

They say what `UnifiedModel` says (tests/export compares them) with tensors where it has lists: nothing in them depends on a number of rows, items or tokens.

Letters: B rows, S source, T new tokens, P tokens before them, N tokens of all items of a modality, C channels of its encoder,
K decoder layers, H heads, d head width, D width, V vocabulary. Masks are True = valid.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from monoglot.errors import InputError
from monoglot.model.head import Head
from monoglot.model.layers import DecoderLayer, LayerCache
from monoglot.model.positions import token_buckets
from monoglot.model.unified import UnifiedModel


class MediaNetwork(nn.Module):
    """A modality's encoder: [n, ...] as its `prepare` makes items -> features float[n, L, C]."""

    def __init__(self, name: str, encoder: nn.Module):
        super().__init__()
        self.encoder = encoder
        run = getattr(encoder, "_run", None)
        if run is None:
            wrong = f"the encoder {type(encoder).__name__} has no `_run`"
            raise InputError.at("model", name, wrong, "give it what runs items of one shape: [n, ...] -> [n, L, C]")
        self.run: Callable[[Tensor], Tensor] = run

    def forward(self, items: Tensor) -> Tensor:
        with StftAsConvolution():
            return self.run(items)


class SourceNetwork(nn.Module):
    """`UnifiedModel.encode`: words and features in their places, through the encoder, and on to what each decoder layer reads of it."""

    buckets: Tensor

    def __init__(self, model: UnifiedModel):
        super().__init__()
        self.model, self.place, self.untied = model, model.source, model.untied
        if self.untied:
            self.register_buffer("buckets", _text_relations(model), persistent=False)

    def inputs_of(self, name: str) -> tuple[str, ...]:
        """What a modality brings: its features, where they lie, which stand for a whole item, and which row of the tables of cells and frames each has."""
        owners = {"pooled": self.place.pooled, "cells": self.place.cells, "frames": self.place.frames}
        tables = (part for part, owner in owners.items() if name in owner)
        return tuple(f"{name}_{part}" for part in ("features", "places", *tables))

    def forward(self, ids: Tensor, valid: Tensor, item: Tensor, media: list[Tensor]) -> tuple[Tensor, ...]:
        """ids int64[B, S] (pad where media go), valid bool[B, S], item int64[B, S] (0 text, n the n-th media item of the batch).

        Of each modality, in the order of the configuration: features float[N, C], places int64[N] in the flattened [B, S],
        and, if it has such, pooled, cells and frames int64[N]; N is 0 for what does not occur.

        Returns states float[B, S, D], keys and values float[B, K, H, S, d], and with untied positions positions float[B, S, D].
        """
        model, place = self.model, self.place
        is_text = valid & (item == 0)
        text_index = (is_text.long().cumsum(1) - 1).clamp(min=0)
        text_positions = place.text_positions(text_index)
        x = model.words(ids) + place.types.weight[0]
        x = place.word_norm(x if self.untied else x + text_positions).flatten(0, 1)
        positions = place.text_position_norm(text_positions).flatten(0, 1) if self.untied else None
        cell = torch.zeros_like(ids).flatten()
        given = iter(media)
        for name, connector in place.connectors.items():
            features, places = next(given), next(given)
            h = connector(features)
            where: Tensor | None = None
            if name in place.pooled:
                h = torch.where(next(given)[:, None] == 1, place.pooled[name](features), h)
            if name in place.cells:
                cells = next(given)
                cell = cell.index_put((places,), cells)
                where = place.cells[name](cells)
            if name in place.frames:
                time = place.frames[name](next(given))
                where = time if where is None else where + time
            h = place.media_norm(h + place.types.weight[1])
            if where is not None and not self.untied:
                h = h + where
            x = x.index_put((places,), h)
            if positions is not None and where is not None:
                positions = positions.index_put((places,), place.cell_norm(where))
        x = x.view(*ids.shape, -1) * valid[..., None]

        hidden = _hide(~valid)[:, None, None, :]
        if positions is not None:
            positions = positions.view(*ids.shape, -1)
            nearness = model.encoder_bias(positions, positions) + hidden
            relations = self._relations(is_text, text_index, item, cell.view(ids.shape))
        for index, layer in enumerate(model.encoder_layers):
            bias = nearness + _by_head(model.encoder_relations[index], relations) if self.untied else hidden
            x = layer(x, bias)
        states = model.encoder_norm(x)
        decoder_layers = cast("Iterable[DecoderLayer]", model.decoder_layers)
        keys, values = zip(*(layer.cross.keys_values(states) for layer in decoder_layers))
        read = states, torch.stack(keys, dim=1), torch.stack(values, dim=1)
        return read if positions is None else (*read, positions)

    def _relations(self, is_text: Tensor, text_index: Tensor, item: Tensor, cell: Tensor) -> Tensor:
        both_text = is_text[:, :, None] & is_text[:, None, :]
        same_item = (item[:, :, None] == item[:, None, :]) & (item > 0)[:, None, :]
        table = self.place.relations
        distance = text_index[:, :, None] - text_index[:, None, :]
        relations = torch.where(both_text, self.buckets[distance + table.longest - 1], 0)
        return torch.where(same_item, table.of_grid(cell), relations)


class StepNetwork(nn.Module):
    """`UnifiedModel.decode` and `logits`: one step of the decoder, or the first with all tokens that an answer begins with."""

    buckets: Tensor

    def __init__(self, model: UnifiedModel):
        super().__init__()
        self.model, self.target, self.untied = model, model.target, model.untied
        self.writes_codes = self.untied and model.config.vocabulary.num_codes > 0
        if self.untied:
            self.register_buffer("buckets", _text_relations(model), persistent=False)

    def forward(
        self,
        tokens: Tensor,
        past_keys: Tensor,
        past_values: Tensor,
        memory_keys: Tensor,
        memory_values: Tensor,
        memory_valid: Tensor,
        memory_positions: Tensor | None = None,
        code_rows: Tensor | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """tokens int64[B, T]; past float[B, K, H, P, d], P is 0 at first; memory float[B, K, H, S, d] and bool[B, S] as `SourceNetwork` gives them.

        With untied positions also memory_positions float[B, S, D], and, if the vocabulary has image codes, code_rows bool[B]:
        True for a row that writes them.

        Returns logits float[B, V] of the token that follows, and the past with these tokens: keys and values float[B, K, H, P + T, d].
        """
        model, start = self.model, past_keys.shape[3]
        places = torch.arange(start + tokens.shape[1])
        future = _hide(places[None, :] > places[start:, None])
        hidden = _hide(~memory_valid)[:, None, None, :]
        if self.untied:
            x, positions, relations = self._untied(tokens, places, start, code_rows)
            future = model.decoder_bias(positions[:, start:], positions) + future
            hidden = model.cross_bias(positions[:, start:], memory_positions) + hidden
        else:
            x = self.target.word_norm(model.words(tokens) + self.target.text_positions(places[start:]))
        kept: list[tuple[Tensor, Tensor]] = []
        for index, layer in enumerate(model.decoder_layers):
            bias = future + _by_head(model.decoder_relations[index], relations[:, start:]) if self.untied else future
            cache = LayerCache(
                (past_keys[:, index], past_values[:, index]), (memory_keys[:, index], memory_values[:, index])
            )
            x = layer(x, memory_keys, bias, hidden, cache)  # the memory itself is not looked at: its keys are there
            assert cache.past is not None
            kept.append(cache.past)
        keys, values = zip(*kept)
        logits = model.logits(model.decoder_norm(x[:, -1]))
        return logits, torch.stack(keys, dim=1), torch.stack(values, dim=1)

    def _untied(self, tokens: Tensor, places: Tensor, start: int, code_rows: Tensor | None) -> tuple[Tensor, ...]:
        """As `TargetPlace.forward`: x of the tokens, positions and relations of all places so far."""
        target, x = self.target, self.model.words(tokens)
        in_text = places[None].clamp(max=target.c.target_positions - 1)
        positions = target.text_position_norm(target.text_positions(in_text))
        distance = in_text[:, :, None] - in_text[:, None, :]
        relations = self.buckets[distance + target.relations.longest - 1]
        embedded = target.word_norm(x)
        if self.writes_codes and code_rows is not None:
            cells = target.code_cells[places[None].clamp(max=len(target.code_cells) - 1)]
            is_code = code_rows[:, None, None]
            positions = torch.where(is_code, target.cell_norm(target.cells(cells)), positions)
            relations = torch.where(is_code, target.relations.of_grid(cells), relations)
            embedded = torch.where(is_code, target.code_norm(x), embedded)
        return embedded, positions, relations


class HeadNetwork(nn.Module):
    """`Head.probabilities`: pooled features float[n, F] -> probabilities float[n, answers]."""

    mean: Tensor
    gain: Tensor
    weights: Tensor
    bias: Tensor

    def __init__(self, head: Head):
        super().__init__()
        self.sizes, self.temperature = list(head.blocks.values()), head.temperature
        for name in ("mean", "gain", "weights", "bias"):
            self.register_buffer(name, getattr(head, name))

    def forward(self, pooled: Tensor) -> Tensor:
        blocks = pooled.split(self.sizes, dim=1)
        present = torch.cat([(block != 0).any(1, keepdim=True).expand_as(block) for block in blocks], dim=1)
        z = F.normalize((pooled - self.mean) * self.gain * present, dim=1)
        return (F.linear(z, self.weights, self.bias) / self.temperature).softmax(dim=1)


class StftAsConvolution(TorchFunctionMode):
    """Inside of this `torch.stft` is a convolution with windowed cosines and sines.

    ONNX has an operator for it, but with that one ONNX Runtime takes a third longer for all of Whisper's encoder (docs/export.md).
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return stft(*args, **kwargs) if func is torch.stft else func(*args, **(kwargs or {}))


def stft(
    x: Tensor,
    n_fft: int,
    hop_length: int,
    *,
    window: Tensor,
    center: bool = True,
    return_complex: bool = True,
    pad_mode: str = "reflect",
    **options: Any,
) -> Tensor:
    """`torch.stft` of x float[n, samples], one-sided, written out: complex[n, n_fft // 2 + 1, frames].

    >>> sounds, hann = torch.randn(2, 3200), torch.hann_window(400)
    >>> options = dict(window=hann, center=True, return_complex=True)
    >>> bool(torch.allclose(stft(sounds, 400, 160, **options), torch.stft(sounds, 400, 160, **options), atol=1e-4))
    True
    """
    assert (center, return_complex, pad_mode) == (True, True, "reflect"), "written out for these alone"
    assert not any(options.values()), options
    bins = n_fft // 2 + 1
    turns = torch.arange(bins)[:, None] * torch.arange(n_fft) % n_fft  # whole numbers, so that large angles stay exact
    angle = turns.double() * (2 * math.pi / n_fft)
    waves = torch.cat([angle.cos(), -angle.sin()]).float() * window
    padded = F.pad(x[:, None], (n_fft // 2, n_fft // 2), mode=pad_mode)
    real, imaginary = F.conv1d(padded, waves[:, None], stride=hop_length).split(bins, dim=1)
    return torch.complex(real, imaginary)


def _text_relations(model: UnifiedModel) -> Tensor:
    """int64[2 * longest - 1]: row of the relation table for each distance in text, as `Relations.of_text` looks it up."""
    table = model.target.relations
    return table.text + token_buckets(table.bucket, table.longest)


def _by_head(table: nn.Module, relations: Tensor) -> Tensor:
    """Relations int64[B, T, S] -> biases float[B, H, T, S]."""
    return table(relations).permute(0, 3, 1, 2)


def _hide(where: Tensor) -> Tensor:
    return torch.zeros(where.shape).masked_fill(where, float("-inf"))
