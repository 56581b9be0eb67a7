"""How much a loss counts. (How often a row is drawn is the mixture's, when a data set comes in is the curriculum's.)

Losses are averaged over the tokens of each data set first, so that long answers do not drown short ones; a balancer weighs these averages.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from monoglot.registry import Registry


class Balancer(Protocol):
    def weights(self, losses: Tensor) -> Tensor:
        """float[K] factors for the mean losses float[K] of the data sets in a step; detached from the graph."""


class Share:
    """Each data set counts by its quota times its weight in the recipe, scaled to sum 1.

    >>> Share([2, 6], [1.0, 1.0]).weights(torch.zeros(2)).tolist()
    [0.25, 0.75]
    """

    def __init__(self, quotas: list[int], weights: list[float]):
        share = torch.tensor(quotas, dtype=torch.float32) * torch.tensor(weights)
        self.shares = share / share.sum()

    def weights(self, losses: Tensor) -> Tensor:
        return self.shares


class Equal:
    """Each data set counts the same, whatever its quota; the recipe's weights still apply.

    >>> Equal([2, 6], [1.0, 3.0]).weights(torch.zeros(2)).tolist()
    [0.25, 0.75]
    """

    def __init__(self, quotas: list[int], weights: list[float]):
        self.shares = Share([1] * len(quotas), weights).shares

    def weights(self, losses: Tensor) -> Tensor:
        return self.shares


BALANCERS: Registry[type] = Registry("balancer")
BALANCERS.add("share", Share)
BALANCERS.add("equal", Equal)
