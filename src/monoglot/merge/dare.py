"""Drop and rescale: of what each model learned a random part is kept and enlarged by what was dropped; then as task arithmetic.

    change -> each number kept with probability `density`, divided by it, else 0 -> weighted mean -> times scale, plus the common start

Source: DARE (arXiv 2311.03099), equations 1 to 3; its drop rate p is 1 - density.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from monoglot.merge.base import MERGERS, Merger, Pieces, weighted_sum


def dare(pieces: Pieces) -> Tensor:
    change = weighted_sum(pieces.shares, kept_changes(pieces))
    return change.mul_(pieces.scale).add_(pieces.from_base())


def kept_changes(pieces: Pieces) -> Iterator[Tensor]:
    for index, change in enumerate(pieces.changes()):
        kept = torch.from_numpy(pieces.rng(index).random(change.numel(), dtype="float32") < pieces.density)
        yield change.mul_(kept.view_as(change)).div_(pieces.density)


DARE = MERGERS.add(
    "dare",
    Merger(
        merge=dare,
        summary="as task_arithmetic, with a random part of each change dropped and the rest enlarged",
        source="arXiv 2311.03099",
        least=1,
        needs_base=True,
        settings={"scale": 1.0, "density": 0.1},
        lossless=False,
        draws=True,
    ),
)
