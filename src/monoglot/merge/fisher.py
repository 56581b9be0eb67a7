"""A mean in which each number counts by how much the model's answers depend on it.

    theta = sum of w_i F_i theta_i / sum of w_i F_i,   F_i = mean over rows of (d log p(target) / d theta)^2

F is the diagonal of the empirical Fisher information: the rows' own targets stand for the model's distribution.
Source: Merging models with Fisher-weighted averaging (arXiv 2111.09832), section 2.
"""

from __future__ import annotations

import torch
from torch import Tensor

from monoglot.merge.base import MERGERS, Merger, Pieces

FLOOR = 1e-12
"""Added to every F: what no row touched in any model becomes the plain weighted mean."""


def fisher(pieces: Pieces) -> Tensor:
    if pieces.fisher is None:  # no parameter: statistics of a norm, for example
        return pieces.mean()
    total: Tensor | None = None
    for share, read, information in zip(pieces.shares, pieces.versions, pieces.fisher):
        weight = information().add(FLOOR).mul_(share)
        if total is None:
            total, weights = read().mul(weight), weight
        else:
            total.addcmul_(read(), weight)
            weights.add_(weight)
        del weight
    assert total is not None, "a tensor has at least one version"
    return total.div_(weights.clamp_(min=torch.finfo(torch.float32).tiny))


FISHER = MERGERS.add(
    "fisher",
    Merger(
        merge=fisher,
        summary="the mean of the weights, each number counting by how much answers depend on it",
        source="arXiv 2111.09832",
        needs_fisher=True,
    ),
)
