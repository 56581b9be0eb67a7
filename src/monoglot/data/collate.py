"""Sequences of any length and any media become one batch of tensors. Nothing is inferred from counts or order: every media item says where it goes."""

from __future__ import annotations

import itertools
from collections.abc import Sequence as List
from dataclasses import dataclass, field, replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from monoglot.modalities.base import Grid
from monoglot.nouns import Sequence
from monoglot.text.vocabulary import BOS, PAD


@dataclass(frozen=True)
class Keyed:
    """A media item with the name under which its features are kept (see data.features)."""

    key: str
    value: np.ndarray
    """What `prepare` made, or float16[L, C] features if `encoded`."""
    encoded: bool


@dataclass
class MediaBatch:
    """All items of one modality in a batch."""

    items: list[Tensor]
    """What `prepare` made, or float[L, C] features for the indices in `encoded`."""
    rows: list[int]
    starts: list[int]
    grids: list[Grid]
    encoded: set[int] = field(default_factory=set)
    keys: dict[int, str] = field(default_factory=dict)
    """Names under which the features of items are to be kept."""

    def to(self, device: torch.device) -> MediaBatch:
        """The same items there."""
        return replace(self, items=[item.to(device) for item in self.items])

    def flat_places(self, columns: int) -> Tensor:
        """int64[sum of L]: where each token of each item lies in the flattened [B, S] source."""
        return torch.cat(
            [
                torch.arange(grid.length) + row * columns + start
                for row, start, grid in zip(self.rows, self.starts, self.grids)
            ]
        )

    def pooled_places(self) -> Tensor:
        """int64[P]: which of all items' tokens, one after the other, stand for a whole item."""
        starts = itertools.accumulate((grid.length for grid in self.grids), initial=0)
        return torch.tensor([start for start, grid in zip(starts, self.grids) if grid.pooled], dtype=torch.long)


@dataclass
class Batch:
    """B rows, padded on the right."""

    source_ids: Tensor
    """int64[B, S]; pad where media tokens go and after the end."""
    source_valid: Tensor
    """bool[B, S]: True if part of the input, text or media."""
    media: dict[str, MediaBatch]
    """Only the modalities that occur."""
    target_in: Tensor
    """int64[B, T]: what an answer begins with, then the target but for its last token."""
    target_out: Tensor
    """int64[B, T]: the token that follows each of `target_in`, ending in eos."""
    target_valid: Tensor
    """bool[B, T]: True where a loss counts."""
    weights: Tensor
    """float[B]"""
    code_rows: Tensor | None = None
    """bool[B]: True if the row writes image codes; None if no row does."""

    def __len__(self) -> int:
        return len(self.source_ids)

    def to(self, device: torch.device) -> Batch:
        """The same rows there; themselves if they are there already."""
        if self.source_ids.device == device:
            return self
        moved = {name: value.to(device) for name, value in vars(self).items() if isinstance(value, Tensor)}
        return replace(self, media={name: media.to(device) for name, media in self.media.items()}, **moved)


def collate(sequences: List[Sequence], grids: List[List[Grid]], start: tuple[int, ...] = (BOS,)) -> Batch:
    """Pad sequences to the longest. `grids[b][i]` is the grid of `sequences[b].media[i]`; `start` is what every answer begins with."""
    source_ids, source_valid = pad([sequence.source_ids for sequence in sequences])
    target_out, target_valid = pad([_written(sequence) for sequence in sequences])
    begin = torch.tensor(start).expand(len(sequences), -1)
    if target_out.shape[1]:
        unseen = len(start) - 1  # places of the start whose next token is given, not predicted
        target_in = torch.cat([begin, target_out[:, :-1]], dim=1)
        for row, sequence in enumerate(sequences):
            given = len(sequence.given_ids)
            target_out[row, :given], target_valid[row, :given] = PAD, False
        target_out = F.pad(target_out, (unseen, 0), value=PAD)
        target_valid = F.pad(target_valid, (unseen, 0), value=False)
    else:
        target_in = begin[:, :0]
    media: dict[str, MediaBatch] = {}
    for row, (sequence, row_grids) in enumerate(zip(sequences, grids)):
        for span, item, grid in zip(sequence.spans, sequence.media, row_grids):
            if grid.length != span.length:
                raise ValueError(
                    f"row {row}: a {span.modality} span of {span.length} tokens for an item of {grid.length}"
                )
            batch = media.setdefault(span.modality, MediaBatch([], [], [], []))
            if isinstance(item, Keyed):
                if item.encoded:
                    batch.encoded.add(len(batch.items))
                batch.keys[len(batch.items)] = item.key
                item = item.value.astype(np.float32) if item.encoded else item.value
            batch.items.append(torch.as_tensor(item))
            batch.rows.append(row)
            batch.starts.append(span.start)
            batch.grids.append(grid)
    weights = torch.tensor([sequence.weight for sequence in sequences], dtype=torch.float32)
    codes = torch.tensor([sequence.codes for sequence in sequences], dtype=torch.bool)
    code_rows = codes if bool(codes.any()) else None
    return Batch(source_ids, source_valid, media, target_in, target_out, target_valid, weights, code_rows)


def _written(sequence: Sequence) -> np.ndarray:
    """int64[G + T]: what is given to the decoder, then the target; empty when there is no target."""
    if not len(sequence.target_ids) or not len(sequence.given_ids):
        return sequence.target_ids
    return np.concatenate([sequence.given_ids, sequence.target_ids])


def pad(rows: List[np.ndarray]) -> tuple[Tensor, Tensor]:
    """int64[B, L] filled with pad on the right, and bool[B, L] that is True on what was given.

    >>> pad([np.array([5, 6]), np.array([7])])[0].tolist()
    [[5, 6], [7, 1]]
    """
    longest = max((len(row) for row in rows), default=0)
    ids = np.full((len(rows), longest), PAD, dtype=np.int64)
    valid = np.zeros((len(rows), longest), dtype=bool)
    for index, row in enumerate(rows):
        ids[index, : len(row)] = row
        valid[index, : len(row)] = True
    return torch.from_numpy(ids), torch.from_numpy(valid)
