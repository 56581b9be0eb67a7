"""Add what each model learned to the common start: theta = theta_0 + scale x sum of w_i (theta_i - theta_0), sum of w_i = 1.

The paper's sum of task vectors times lambda is a scale of lambda x the number of models. A scale below 0 takes away what one model learned.
Source: task arithmetic (arXiv 2212.04089).
"""

from __future__ import annotations

from torch import Tensor

from monoglot.merge.base import MERGERS, Merger, Pieces, weighted_sum


def task_arithmetic(pieces: Pieces) -> Tensor:
    change = weighted_sum(pieces.shares, pieces.changes())
    return change.mul_(pieces.scale).add_(pieces.from_base())


TASK_ARITHMETIC = MERGERS.add(
    "task_arithmetic",
    Merger(
        merge=task_arithmetic,
        summary="the common start plus `scale` times the mean of what each model learned",
        source="arXiv 2212.04089",
        least=1,
        needs_base=True,
        settings={"scale": 1.0},
        lossless=False,
    ),
)
