"""Trim, elect sign, merge: small changes are dropped, each number's direction is elected, and only changes that go there are averaged.

    task vectors -> the `density` largest of each -> sign of their weighted sum -> weighted mean of those with that sign

Source: TIES (arXiv 2306.01708), section 4. The paper trims over a whole model at once; here each tensor is trimmed by itself, so that
tensors can be read one at a time.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from monoglot.merge.base import MERGERS, Merger, Pieces, weighted_sum


def ties(pieces: Pieces) -> Tensor:
    total = weighted_sum(pieces.shares, trimmed_changes(pieces))
    elected = total.sign().to(torch.int8)
    agreeing = torch.zeros_like(total)
    total.zero_()
    for share, change in zip(pieces.shares, trimmed_changes(pieces)):
        agrees = ((change > 0) & (elected > 0)) | ((change < 0) & (elected < 0))
        total.add_(change.mul_(agrees), alpha=share)
        agreeing.add_(agrees, alpha=share)
        del change, agrees
    return total.div_(agreeing.masked_fill_(agreeing == 0, 1)).mul_(pieces.scale).add_(pieces.from_base())


def trimmed_changes(pieces: Pieces) -> Iterator[Tensor]:
    for change in pieces.changes():
        yield trim(change, pieces.density)


def trim(change: Tensor, density: float) -> Tensor:
    """Zeros in place of all but the `density` largest numbers, by size; of equal ones at the border all stay. Changes its argument.

    >>> trim(torch.tensor([0.1, -3.0, 2.0, 0.0]), 0.5)
    tensor([ 0., -3.,  2.,  0.])
    """
    dropped = change.numel() - max(1, round(density * change.numel()))
    if dropped <= 0:
        return change
    sizes = change.abs().flatten().numpy()
    sizes.partition(dropped)
    border = float(sizes[dropped])
    return change.mul_((change >= border) | (change <= -border))


TIES = MERGERS.add(
    "ties",
    Merger(
        merge=ties,
        summary="the common start plus what models agree on: of each only the largest changes, of these only those in the elected direction",
        source="arXiv 2306.01708",
        needs_base=True,
        settings={"scale": 1.0, "density": 0.2},
        lossless=False,
    ),
)
