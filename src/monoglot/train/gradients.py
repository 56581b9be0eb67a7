"""The gradient of one step: every data set's mean loss, balanced.

    parts -> losses of target tokens -> mean loss of each data set -> weighed -> backward

Letters: K data sets of the stage.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from monoglot.train.conflicts import Conflicts
from monoglot.train.distributed import World
from monoglot.train.losses import Objective
from monoglot.train.steps import Part


@dataclass(frozen=True)
class Counts:
    """What all processes together have in a step."""

    rows: Tensor
    """float32[K]"""
    tokens: Tensor
    """float32[3]: source tokens, target tokens, padding."""


def backward(
    module: nn.Module,
    parts: list[Part],
    total: Tensor,
    scale: Tensor,
    world: World,
    step: int,
    *,
    conflicts: Conflicts | None = None,
    before_part: Callable[[], None] = lambda: None,
) -> Tensor:
    """Add up the gradients of a step's parts; mean losses float32[K] in nats a token, nan for a data set without tokens.

    A data set's mean is over its tokens in the whole step, all parts and processes: how a step is cut changes nothing.

    Args:
        module: Part, step -> losses of its target tokens; as `spread` returned it.
        total: float32[K] tokens of each data set in the step, of all processes.
        scale: float32[K] what each data set's mean loss counts.
        conflicts: takes in the gradient of each data set's mean loss.
        before_part: called before each part; may raise to leave the step.
    """
    count, counted = len(total), total.clamp(min=1e-9)
    summed = torch.zeros(count)
    for index, part in enumerate(parts):
        before_part()
        is_last = index + 1 == len(parts)
        waits = isinstance(module, DistributedDataParallel) and not is_last
        with module.no_sync() if waits else contextlib.nullcontext():  # type: ignore[operator]
            means = sums_by_source(module(part, step), part, count) / counted
            for source in part.sources.unique().tolist() if conflicts is not None else ():
                conflicts.add(source, means[source])  # type: ignore[union-attr]
            ((means * scale).sum() * world.size).backward()  # gradients of processes are averaged, not added up
        summed += means.detach()
    if conflicts is not None:
        conflicts.sketches = world.sum(conflicts.sketches)
        conflicts.seen = world.sum(conflicts.seen.float()) > 0
    return torch.where(total > 0, world.sum(summed), torch.nan)


def loss_scale(weights: Tensor, rows: Tensor, quotas: Tensor) -> Tensor:
    """float32[K]: what each mean loss counts in a step: the balancer's weight, times the rows of this step beside the quota.

    So a quota of 0.25, one row in every fourth step, counts whole when it comes, and nothing is lost on average.

    >>> loss_scale(torch.tensor([0.5, 0.5]), torch.tensor([2.0, 1.0]), torch.tensor([2.0, 0.25])).tolist()
    [0.5, 2.0]
    """
    return weights * rows / quotas.clamp(min=1e-9)


def sums_by_source(losses: Tensor, part: Part, count: int) -> Tensor:
    """float32[K]: the losses float32[N] of a part's target tokens, added up for each data set."""
    return (losses[:, None] * F.one_hot(part.each_token(part.sources), count)).sum(0)


def tokens_by_source(parts: list[Part], count: int, objective: Objective, step: int) -> Tensor:
    """float32[K]: target tokens of each data set that the loss is taken of in a step, rows weighted."""
    total = torch.zeros(count)
    for part in parts:
        of_source = F.one_hot(part.each_token(part.sources), count)
        weighted = (of_source * part.each_token(part.batch.weights)[:, None]).sum(0)
        total = total + weighted * objective.kept_share(of_source.sum(0), step)
    return total


def counts(parts: list[Part], count: int, world: World) -> Counts:
    """Rows of each data set and tokens by kind in a step."""
    none = torch.zeros(0, dtype=torch.long)
    rows = torch.bincount(torch.cat([none, *(part.sources for part in parts)]), minlength=count).float()
    tokens = torch.zeros(3)
    for part in parts:
        source, target = part.batch.source_valid, part.batch.target_valid
        read, written = int(source.sum()), int(target.sum())
        tokens += torch.tensor([read, written, source.numel() + target.numel() - read - written])
    both = world.sum(torch.cat([rows, tokens]))
    return Counts(both[:count], both[count:])
