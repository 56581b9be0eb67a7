"""Embeddings and where they lie: words and media features become one source sequence, answers become the decoder's input.

Letters: B rows, S source, T target, L tokens of an item, C channels of an encoder, D width, H heads.
Masks: `*_valid` is True where a token is part of the input.
Source: sections 9, 10 and 13 of the published model's arithmetic; 'added' positions are Whisper's (arXiv 2212.04356).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from monoglot.data.collate import Batch
from monoglot.modalities.base import Encoder
from monoglot.model.config import ModelConfig
from monoglot.model.layers import dropout
from monoglot.model.positions import grid_cells, grid_distance, grid_waves, token_buckets, waves

_SPARE_ROWS = 2  # the published position tables have two rows that nothing uses


@dataclass
class Placed:
    """A source sequence, embedded."""

    x: Tensor
    """float[B, S, D]"""
    valid: Tensor
    """bool[B, S]"""
    positions: Tensor | None
    """float[B, S, D]: what each place looks like to a query ('untied'); None when positions are added to x."""
    relations: Tensor | None
    """int64[B, S, S]: row of the relation table for each pair of query and key ('untied')."""


class Relations:
    """Rows of a relation table: 0 says nothing, then distances in text, then differences in rows and columns of one grid."""

    def __init__(self, c: ModelConfig):
        self.bucket, self.longest, self.side = c.token_bucket, max(c.source_positions, c.target_positions), c.grid_side
        self.text = 1
        self.grid = self.text + 2 * c.token_bucket - 1
        self.rows = self.grid + (2 * c.grid_side - 1) ** 2 + 3

    def of_text(self, index: Tensor) -> Tensor:
        """index int64[..., L] (place in the text) -> int64[..., L, L]."""
        distance = index[..., :, None] - index[..., None, :]
        if distance.numel() and int(distance.abs().max()) >= self.longest:
            raise ValueError(
                f"a text of {int(distance.abs().max()) + 1} tokens is longer than the {self.longest} that positions exist for"
            )
        return self.text + token_buckets(self.bucket, self.longest).to(index.device)[distance + self.longest - 1]

    def of_grid(self, cells: Tensor) -> Tensor:
        """cells int64[..., L] -> int64[..., L, L]."""
        return self.grid + grid_distance(cells[..., :, None], cells[..., None, :], self.side)


class WordConnector(nn.Module):
    """A medium said in words: features float[N, C] -> float[N, D], a mixture of the words of K answers by how likely each is, and a linear map beside it.

    A recipe's `connectors` fit it and let the linear map begin at 0 (train/connectors.py); else all of it begins at random.
    `sharpness`, the inverse of a temperature (Guo et al. 2017, arXiv 1706.04599), makes the likely likelier above 1.
    """

    def __init__(self, channels: int, width: int, answers: int, sharpness: float = 1.0):
        super().__init__()
        self.sharpness = sharpness
        self.linear = nn.Linear(channels, width)
        self.axes = nn.Linear(channels, width)
        self.scores = nn.Linear(width, answers)
        self.words = nn.Linear(answers, width, bias=False)

    def forward(self, features: Tensor) -> Tensor:
        scores = self.scores(self.axes(features))
        return self.linear(features) + self.words((self.sharpness * scores).softmax(-1))


def _connector(channels: int, width: int, answers: int, sharpness: float = 1.0) -> nn.Module:
    return WordConnector(channels, width, answers, sharpness) if answers else nn.Linear(channels, width)


class SourcePlace(nn.Module):
    """Puts words and media features in their places."""

    def __init__(self, c: ModelConfig, encoders: dict[str, Encoder]):
        super().__init__()
        self.c = c
        self.types = nn.Embedding(2, c.width)  # 0 text, 1 media
        self.word_norm = nn.LayerNorm(c.width)
        self.media_norm = nn.LayerNorm(c.width)
        self.text_positions = nn.Embedding(c.source_positions + _SPARE_ROWS, c.width)
        self.connectors = nn.ModuleDict(
            {
                name: _connector(encoder.channels, c.width, getattr(c.modalities[name], "words", 0))
                for name, encoder in encoders.items()
            }
        )
        self.pooled = nn.ModuleDict(
            {
                name: _connector(
                    encoder.channels, c.width, c.modalities[name].pooled_words, c.modalities[name].pooled_sharpness
                )
                for name, encoder in encoders.items()
                if getattr(c.modalities[name], "pooled", "none") != "none"
            }
        )
        self.cells = nn.ModuleDict(
            {
                name: nn.Embedding(c.grid_side**2 + 1, c.width)
                for name in encoders
                if c.modalities[name].positions != "none"
            }
        )
        self.frames = nn.ModuleDict(
            {
                name: nn.Embedding(rows, c.width)
                for name in encoders
                if (rows := getattr(c.modalities[name], "frame_positions", 0))
            }
        )
        self.untied = c.positions == "untied"
        if self.untied:
            self.text_position_norm, self.cell_norm = nn.LayerNorm(c.width), nn.LayerNorm(c.width)
            self.relations = Relations(c)

    def forward(self, batch: Batch, features: dict[str, list[Tensor]], words: nn.Embedding) -> Placed:
        """`features[modality][n]`, float[L, C], goes where `batch.media[modality]` says."""
        rows, columns = batch.source_ids.shape
        is_text = batch.source_valid.clone()
        item = torch.zeros_like(batch.source_ids)  # 0 for text, n for the tokens of the n-th media item
        cell = torch.zeros_like(batch.source_ids)
        count = 0
        for name, media in batch.media.items():
            for row, start, grid in zip(media.rows, media.starts, media.grids):
                count += 1
                place = (row, slice(start, start + grid.length))
                is_text[place], item[place] = False, count
                if name in self.cells:
                    cell[place] = self._cells(name, grid).to(cell.device)
        text_index = (is_text.cumsum(1) - 1).clamp(min=0)
        text_positions = self.text_positions(text_index)

        x = words(batch.source_ids) + self.types.weight[0]
        x = self.word_norm(x if self.untied else x + text_positions)
        positions = self.text_position_norm(text_positions) if self.untied else None
        for name, media in batch.media.items():
            flat = media.flat_places(columns).to(x.device)
            h = (
                self._connect(name, torch.cat(features[name]), media.pooled_places().to(x.device))
                + self.types.weight[1]
            )
            where = self.cells[name](cell.flatten()[flat]) if name in self.cells else None
            if name in self.frames:
                frame = torch.cat(
                    [g.pick(torch.arange(g.frames).repeat_interleave(g.rows * g.cols)) for g in media.grids]
                ).to(x.device)
                time = self.frames[name](frame)
                where = time if where is None else where + time
            h = self.media_norm(h)
            if where is not None and not self.untied:
                h = h + where  # after the norm: encoders differ a thousandfold in scale, and would drown it
            x = x.flatten(0, 1).index_copy(0, flat, h.to(x.dtype)).view(rows, columns, -1)
            if positions is not None and where is not None:
                positions = (
                    positions.flatten(0, 1)
                    .index_copy(0, flat, self.cell_norm(where).to(x.dtype))
                    .view(rows, columns, -1)
                )
        x = dropout(x, self.c.dropout, training=self.training) * batch.source_valid[..., None]

        relations = None
        if self.untied:
            both_text = is_text[:, :, None] & is_text[:, None, :]
            same_item = (item[:, :, None] == item[:, None, :]) & (item > 0)[:, None, :]
            relations = torch.where(both_text, self.relations.of_text(text_index), 0)
            if count:
                relations = torch.where(same_item, self.relations.of_grid(cell), relations)
        return Placed(x, batch.source_valid, positions, relations)

    def _connect(self, name: str, features: Tensor, pooled: Tensor) -> Tensor:
        """float[N, C] -> float[N, D]; tokens that stand for a whole item, at `pooled` int64[P], have a connector of their own."""
        h = self.connectors[name](features)
        return h.index_copy(0, pooled, self.pooled[name](features[pooled])) if len(pooled) else h

    def _cells(self, name: str, grid) -> Tensor:
        return grid_cells(grid, self.c.grid_side, square=self.c.modalities[name].positions == "square")


def start_positions(place: SourcePlace) -> None:
    """Media positions that are added begin as waves as strong as what they are added to; drawn at 0.02 they stay unheard (docs/log.md)."""
    with torch.no_grad():
        for table in cast("list[nn.Embedding]", place.cells.values()):
            table.weight.copy_(grid_waves(place.c.grid_side, place.c.width))
        for table in cast("list[nn.Embedding]", place.frames.values()):
            table.weight.copy_(waves(len(table.weight), place.c.width))


class TargetPlace(nn.Module):
    """Embeds what the decoder has written so far."""

    code_cells: Tensor

    def __init__(self, c: ModelConfig):
        super().__init__()
        self.c = c
        self.untied = c.positions == "untied"
        self.text_positions = nn.Embedding(c.target_positions + (_SPARE_ROWS if self.untied else 0), c.width)
        self.word_norm = nn.LayerNorm(c.width) if c.norm_target else nn.Identity()
        if self.untied:
            self.text_position_norm, self.cell_norm = nn.LayerNorm(c.width), nn.LayerNorm(c.width)
            self.code_norm = nn.LayerNorm(c.width)
            self.cells = nn.Embedding(c.grid_side**2 + 1, c.width)
            self.relations = Relations(c)
            # A sequence of image codes starts with cell 0 (bos) and then runs through its grid.
            codes = torch.arange(c.code_grid)[:, None] * c.grid_side + torch.arange(c.code_grid) + 1
            self.register_buffer(
                "code_cells", torch.cat([torch.zeros(1, dtype=torch.long), codes.flatten()]), persistent=False
            )

    def forward(
        self, ids: Tensor, start: int, code_rows: Tensor | None, words: nn.Embedding
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Embed ids int64[B, T], which begin at place `start`.

        Returns x float[B, T, D]; positions float[1 or B, start + T, D] of all places so far; relations int64[1 or B, start + T, start + T].
        The last two are None when positions are added. `code_rows` bool[B] marks rows that write image codes.
        """
        end = start + ids.shape[1]
        x = self.embed(ids, slice(start, end), code_rows, words)
        return x, *(self.places(end, code_rows) if self.untied else (None, None))

    def longest(self, code_rows: Tensor | None) -> int:
        """Places that exist. A grid of codes has its own, one for each and one for bos."""
        return max(self.c.target_positions, len(self.code_cells) if self._writes_codes(code_rows) else 0)

    def embed(self, ids: Tensor, places: slice | Tensor, code_rows: Tensor | None, words: nn.Embedding) -> Tensor:
        """x as `forward` returns it; `places` of all rows, or int64[B, T] of each."""
        end = places.stop if isinstance(places, slice) else int(places.max()) + 1
        if end > self.longest(code_rows):
            raise ValueError(
                f"an answer of {end} tokens is longer than the {self.c.target_positions} that positions exist for"
            )
        x = words(ids)
        embedded = self.word_norm(x if self.untied else x + self.text_positions.weight[places])
        if code_rows is not None and self._writes_codes(code_rows):
            embedded = torch.where(code_rows[:, None, None], self.code_norm(x), embedded)
        return dropout(embedded, self.c.dropout, training=self.training)

    def places(self, end: int, code_rows: Tensor | None) -> tuple[Tensor, Tensor]:
        """Positions and relations as `forward` returns them ('untied')."""
        places = torch.arange(end, device=self.text_positions.weight.device)[None]
        in_text = places.clamp(max=self.c.target_positions - 1)
        positions = self.text_position_norm(self.text_positions(in_text))
        relations = self.relations.of_text(in_text)
        if code_rows is not None and self._writes_codes(code_rows):
            # Rows of text beside them may be longer than the grid of codes.
            cells = self.code_cells[places.clamp(max=len(self.code_cells) - 1)]
            is_code = code_rows[:, None, None]
            positions = torch.where(is_code, self.cell_norm(self.cells(cells)), positions)
            relations = torch.where(is_code, self.relations.of_grid(cells), relations)
        return positions, relations

    def _writes_codes(self, code_rows: Tensor | None) -> bool:
        return self.untied and code_rows is not None and bool(code_rows.any())
