"""The model: read this file first.

    media -> encode_media -> features -+
    source ids ------------------------+-> encode -> Memory -> decode -> logits

Letters: B rows, S source, T target, L tokens of a media item, C channels of a modality's encoder, D width, H heads, V vocabulary.
Masks are True = valid. With 'untied' positions this is the published model (UnIVAL, arXiv 2307.16184); with 'added' ones its decoder is Whisper's.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from monoglot.data.collate import Batch, MediaBatch
from monoglot.modalities import MODALITIES
from monoglot.modalities.base import Encoder
from monoglot.model.config import ModelConfig
from monoglot.model.layers import Cache, DecoderLayer, EncoderLayer, LayerCache
from monoglot.model.place import Relations, SourcePlace, TargetPlace, start_positions


@dataclass
class Memory:
    """What the encoder hands to the decoder."""

    states: Tensor
    """float[B, S, D]"""
    valid: Tensor
    """bool[B, S]: states of other places mean nothing."""
    positions: Tensor | None
    """float[B, S, D]: what each place looks like to the decoder's queries; None when positions are added."""

    def select(self, rows: Tensor) -> Memory:
        positions = None if self.positions is None else self.positions[rows]
        return Memory(self.states[rows], self.valid[rows], positions)


class PlaceBias(nn.Module):
    """How much a place attends to a place, whatever stands there: float[B, H, T, S] from positions of queries and keys."""

    def __init__(self, c: ModelConfig):
        super().__init__()
        self.heads, self.scale = c.heads, (c.head_width * c.attention_scale) ** -0.5
        self.q, self.k = nn.Linear(c.width, c.width), nn.Linear(c.width, c.width)

    def queries(self, positions: Tensor) -> Tensor:
        return self.q(positions).unflatten(-1, (self.heads, -1)).transpose(1, 2) * self.scale

    def keys(self, positions: Tensor) -> Tensor:
        return self.k(positions).unflatten(-1, (self.heads, -1)).transpose(1, 2)

    def forward(self, query: Tensor, key: Tensor) -> Tensor:
        return self.queries(query) @ self.keys(key).transpose(-1, -2)


class UnifiedModel(nn.Module):
    """One encoder-decoder for every task. `encoders` may be given, for example to test the transformer alone."""

    checkpoint_layers = False
    """In training, layers are computed once more going back, in place of keeping what they said."""

    def __init__(self, config: ModelConfig, encoders: dict[str, Encoder] | None = None):
        super().__init__()
        self.config = c = config
        self.encoders = nn.ModuleDict(build_encoders(c) if encoders is None else encoders)
        self.words = nn.Embedding(c.vocabulary.size, c.width)
        self.source = SourcePlace(c, dict(self.encoders.items()))  # type: ignore[arg-type]
        self.target = TargetPlace(c)
        self.encoder_layers = nn.ModuleList(EncoderLayer(c, rate) for rate in _drop_path_rates(c, c.encoder_layers))
        self.decoder_layers = nn.ModuleList(DecoderLayer(c, rate) for rate in _drop_path_rates(c, c.decoder_layers))
        self.encoder_norm, self.decoder_norm = nn.LayerNorm(c.width), nn.LayerNorm(c.width)
        self.untied = c.positions == "untied"
        if self.untied:
            self.encoder_bias, self.decoder_bias, self.cross_bias = PlaceBias(c), PlaceBias(c), PlaceBias(c)
            rows = Relations(c).rows
            self.encoder_relations = nn.ModuleList(
                nn.Embedding(rows, c.heads, padding_idx=0) for _ in range(c.encoder_layers)
            )
            self.decoder_relations = nn.ModuleList(
                nn.Embedding(rows, c.heads, padding_idx=0) for _ in range(c.decoder_layers)
            )
        self.projection: nn.Module | None = None
        """For answers only: what computes all logits, packed, in the place of the word embedding (model/linears.py)."""
        for name, part in self.named_children():
            if name != "encoders":  # encoders of modalities bring their own start
                part.apply(_init)
        if not self.untied:
            start_positions(self.source)

    def forward(self, batch: Batch) -> Tensor:
        """Logits float[B, T, V] of each next token of `batch.target_in`."""
        features = self.encode_media(batch.media)
        memory = self.encode(batch, features)
        return self.logits(self.decode(batch.target_in, memory, code_rows=batch.code_rows))

    def encode_media(self, media: dict[str, MediaBatch]) -> dict[str, list[Tensor]]:
        """One float[L, C] tensor a media item. An item that carries features already (from a cache) is passed on."""
        return {name: _encode_or_pass(self.encoders[name], batch) for name, batch in media.items()}

    def encode(self, batch: Batch, features: dict[str, list[Tensor]]) -> Memory:
        """Read the source: words and features in their places, through the encoder."""
        placed = self.source(batch, features, self.words)
        hidden = None if bool(placed.valid.all()) else _hide(~placed.valid)[:, None, None, :]
        places = self.encoder_bias(placed.positions, placed.positions) if self.untied else None

        def layer(x: Tensor, index: int) -> Tensor:
            bias = hidden
            if self.untied:
                bias = _sum(places, self.encoder_relations[index](placed.relations).permute(0, 3, 1, 2), hidden)
            return self.encoder_layers[index](x, bias)

        x = self._through(layer, len(self.encoder_layers), placed.x)
        return Memory(self.encoder_norm(x), placed.valid, placed.positions)

    def decode(
        self, ids: Tensor, memory: Memory, *, code_rows: Tensor | None = None, cache: Cache | None = None
    ) -> Tensor:
        """States float[B, T, D] that predict the token after each of ids int64[B, T].

        With a `cache`, ids are only what has been written since the last call; the cache grows by them.
        """
        once = cache is not None  # a layer that were computed twice would write twice
        cache = Cache() if cache is None else cache
        cache.layers = cache.layers or [LayerCache() for _ in self.decoder_layers]
        start, length = cache.length, ids.shape[1]
        x, positions, relations = self.target(ids, start, code_rows, self.words)
        hidden = None if bool(memory.valid.all()) else _hide(~memory.valid)[:, None, None, :]
        cross_bias = hidden
        future = None
        if self.untied or (start and length > 1):
            future = _hide(torch.ones(start + length, start + length, dtype=torch.bool, device=ids.device).triu(1))[
                start:
            ]
        if self.untied:
            cross_bias = _sum(self.cross_bias(positions[:, start:], memory.positions), hidden)
            places = self.decoder_bias(positions[:, start:], positions)

        def layer(x: Tensor, index: int) -> Tensor:
            self_bias = future
            if self.untied:
                self_bias = _sum(
                    places, self.decoder_relations[index](relations[:, start:]).permute(0, 3, 1, 2), future
                )
            kept = cache.layers[index] if once else LayerCache()
            return self.decoder_layers[index](x, memory.states, self_bias, cross_bias, kept)

        x = self._through(layer, len(self.decoder_layers), x, once=once)
        cache.length += length
        return self.decoder_norm(x)

    def logits(self, states: Tensor, ids: Tensor | slice | None = None) -> Tensor:
        """float[..., D] -> float[..., V], or of the given ids only; the projection is the word embedding itself."""
        if ids is None and self.projection is not None:
            return self.projection(states)
        return F.linear(states, self.words.weight if ids is None else self.words.weight[ids])

    def _through(self, layer: Callable[[Tensor, int], Tensor], count: int, x: Tensor, *, once: bool = False) -> Tensor:
        """x through `layer(x, 0)`, `layer(x, 1)`, ...; `once`: they must not be computed again going back."""
        keep = once or not (self.checkpoint_layers and self.training and torch.is_grad_enabled())
        for index in range(count):
            x = layer(x, index) if keep else checkpoint(layer, x, index, use_reentrant=False)
        return x


def build_encoders(c: ModelConfig) -> dict[str, Encoder]:
    """The encoder of each configured modality; those of one kind share their network (nano sees frames as it sees pictures)."""
    built: dict[str, Encoder] = {}
    for name, settings in c.modalities.items():
        modality = MODALITIES[name]
        built[name] = modality.encoders[settings.encoder](settings)
        for other, earlier in built.items():
            if other != name and c.modalities[other].encoder == settings.encoder:
                for part in built[name].shared:
                    setattr(built[name], part, getattr(earlier, part))
    return built


def _init(module: nn.Module) -> None:
    """N(0, 0.02), as the published model starts (BERT's way)."""
    if isinstance(module, nn.Linear):
        nn.init.normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, nn.Embedding):
        nn.init.normal_(module.weight, std=0.02)
        if module.padding_idx is not None:
            with torch.no_grad():
                module.weight[module.padding_idx].zero_()


def _encode_or_pass(encoder: nn.Module, batch: MediaBatch) -> list[Tensor]:
    todo = [index for index, item in enumerate(batch.items) if index not in batch.encoded]
    fresh = dict(zip(todo, encoder([batch.items[index] for index in todo]))) if todo else {}
    fresh = {index: batch.grids[index].arrange(feature) for index, feature in fresh.items()}
    features = [fresh[index] if index in fresh else batch.items[index] for index in range(len(batch.items))]
    for feature, grid in zip(features, batch.grids):
        if len(feature) != grid.length:
            raise ValueError(f"an item was given room for {grid.length} tokens, but its encoder made {len(feature)}")
    return features


def _hide(where: Tensor) -> Tensor:
    return torch.zeros(where.shape, device=where.device).masked_fill(where, float("-inf"))


def _sum(*biases: Tensor | None) -> Tensor:
    first, *rest = (bias for bias in biases if bias is not None)
    return sum(rest, start=first)


def _drop_path_rates(c: ModelConfig, layers: int) -> list[float]:
    return torch.linspace(0, c.drop_path, layers).tolist()
