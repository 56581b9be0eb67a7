"""Where tokens lie, as numbers: buckets of distances in text, cells of a grid for media.

Source: section 10 of the published model's arithmetic (OFA, arXiv 2202.03052).
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from monoglot.modalities.base import Grid


@lru_cache
def token_buckets(bucket: int, longest: int) -> Tensor:
    """int64[2 * longest - 1]: the bucket of each distance query - key, from -(longest - 1) to longest - 1.

    Distances up to bucket / 2 have buckets of their own, further ones share logarithmic ones. Computed in float32, as the published tables were.

    >>> token_buckets(256, 1024)[[1023, 1022, 1024, 0, -1]].tolist()
    [255, 254, 256, 0, 510]
    """
    distance = np.arange(-(longest - 1), longest, dtype=np.int64)
    middle = bucket // 2
    magnitude = np.where(np.abs(distance) < middle, middle - 1, np.abs(distance)).astype(np.float32)
    ratio = np.log(magnitude / np.float32(middle)) / np.float32(math.log((longest - 1) / middle))
    logarithmic = np.ceil(ratio.astype(np.float32) * np.float32(middle - 1)).astype(np.int64) + middle
    index = np.where(magnitude <= middle, distance, logarithmic * np.sign(distance))
    return torch.from_numpy(index + bucket - 1)


def grid_cells(grid: Grid, side: int, *, square: bool = False) -> Tensor:
    """int64[L]: the cell of each token on a `side` x `side` grid, counted from 1; frames repeat the cells; 0 is the whole.

    `square`: as if all tokens filled a square, row by row (`square_cells`).

    >>> grid_cells(Grid(1, 2, 3), side=42).tolist()
    [1, 2, 3, 43, 44, 45]
    """
    if square:
        cells = square_cells(grid._replace(kept=()).cells, side)
    else:
        if grid.rows > side or grid.cols > side:
            raise ValueError(f"{grid.rows} x {grid.cols} media tokens do not fit the position grid of {side} x {side}")
        cells = torch.arange(grid.rows)[:, None] * side + torch.arange(grid.cols) + 1
        cells = cells.flatten().repeat(grid.frames)
    return torch.cat([cells.new_zeros(int(grid.pooled)), grid.pick(cells)])


def grid_distance(query: Tensor, key: Tensor, side: int) -> Tensor:
    """Bucket of two cells' difference in rows and columns: index into a table of (2 * side - 1)^2 + 3 rows; cell 0 is the start of a code sequence.

    query int64[..., L, 1] and key int64[..., 1, L], cells as in `grid_cells`.
    """
    span = 2 * side - 1
    q, k = query - 1, key - 1
    index = (q // side - k // side + side - 1) * span + (q % side - k % side + side - 1)
    first = span * span
    index = torch.where((query == 0) & (key > 0), first, index)
    index = torch.where((query > 0) & (key == 0), first + 1, index)
    return torch.where((query == 0) & (key == 0), first + 2, index)


def square_cells(length: int, side: int) -> Tensor:
    """int64[L]: cells of a square just large enough, filled row by row. The published model lays sound out like this, whatever its time and frequency.

    >>> square_cells(3, side=42).tolist()
    [1, 2, 43]
    """
    edge = math.isqrt(max(length - 1, 0)) + 1
    return grid_cells(Grid(1, edge, edge), side)[:length]


def waves(length: int, width: int) -> Tensor:
    """float[length, width]: sinusoids of slowing pace, sines then cosines (arXiv 1706.03762, section 3.5).

    >>> waves(3, 4)[0].tolist()
    [0.0, 0.0, 1.0, 1.0]
    """
    pace = torch.exp(-math.log(10000) * torch.arange(width // 2) / max(width // 2 - 1, 1))
    angle = torch.arange(length)[:, None] * pace
    return torch.cat([angle.sin(), angle.cos()], dim=1)


def grid_waves(side: int, width: int) -> Tensor:
    """float[side * side + 1, width]: `waves` of the row in the first half, of the column in the second; cell 0 is zero."""
    half = waves(side, width // 2)
    rows, cols = half.repeat_interleave(side, dim=0), half.repeat(side, 1)
    return torch.cat([torch.zeros(1, width), torch.cat([rows, cols], dim=1)])
