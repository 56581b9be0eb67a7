"""What is minimised, token by token: cross entropy of the next token, and what the published recipes put on top of it.

    logits -> log_probabilities (limited, weighed) -> cross_entropy -> the worst dropped -> + encouragement, + disagreement

Letters: N target tokens of the rows that are computed together, V vocabulary.
Source: section 19 of the published model's arithmetic, whose code is OFA's (arXiv 2202.03052).
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from monoglot.train.recipe import Loss

_LEAST = 1e-5
"""Smallest 1 - p whose logarithm is taken."""


class Objective:
    """The loss of a recipe.

    Args:
        c: the recipe's `loss`.
        smoothing: the recipe's label smoothing.
    """

    def __init__(self, c: Loss, smoothing: float = 0.0):
        self.c, self.smoothing = c, smoothing

    def __call__(
        self, logits: Tensor, target: Tensor, groups: Tensor, weights: Tensor, allowed: Tensor | None, *, step: int
    ) -> Tensor:
        """float32[N] in nats; 0 for a token that is dropped.

        Args:
            logits: float[N, V].
            target: int64[N].
            groups: int64[N], the data set of each token; of each the worst are dropped.
            weights: float[N], how much each token's row counts.
            allowed: bool[N, V], True for what may be written; None for everything.
            step: index of the step, from 0.
        """
        c = self.c
        log_p = log_probabilities(logits, allowed, weights)
        losses = cross_entropy(log_p, target, self.smoothing, allowed)
        kept = self._kept(losses.detach(), groups, step)
        if c.kind == "encouraging":
            losses = losses + encouragement(log_p, target, self.smoothing, c.log_end)
        if c.r_drop:
            losses = losses + c.r_drop * disagreement(log_p, allowed)
        return losses if kept is None else torch.where(kept, losses, 0.0)

    def kept_share(self, counts: Tensor, step: int) -> Tensor:
        """float[K]: the share of int64[K] tokens, of each data set, that are not dropped."""
        return torch.tensor([self._count(int(n), step) / max(int(n), 1) for n in counts])

    def _count(self, tokens: int, step: int) -> int:
        return int(tokens * (1 - self.c.drop_worst)) if step > self.c.drop_worst_after else tokens

    def _kept(self, losses: Tensor, groups: Tensor, step: int) -> Tensor | None:
        """bool[N]: all but the largest losses of each group; None for all."""
        if not self.c.drop_worst:
            return None
        kept = torch.zeros(len(losses), dtype=torch.bool)
        for group in groups.unique():
            places = (groups == group).nonzero()[:, 0]
            order = losses[places].argsort(stable=True)
            kept[places[order[: self._count(len(places), step)]]] = True
        return kept


def token_losses(logits: Tensor, target: Tensor, *, smoothing: float = 0.0) -> Tensor:
    """Cross entropy of each token, with label smoothing over the whole vocabulary.

    Args:
        logits: float[N, V]; taken to float32 here.
        target: int64[N].
        smoothing: the share of the target's probability that all other words get together.

    Returns:
        float32[N], in nats; sum or weigh them as the task balance wants.
    """
    return cross_entropy(log_probabilities(logits), target, smoothing)


def log_probabilities(logits: Tensor, allowed: Tensor | None = None, weights: Tensor | None = None) -> Tensor:
    """float32[N, V]: the log-softmax over what is allowed, -inf elsewhere, times the row's weight (the published `conf`).

    >>> log_probabilities(torch.zeros(1, 3), torch.tensor([[True, True, False]])).exp().tolist()
    [[0.5, 0.5, 0.0]]
    """
    logits = logits.float()
    if allowed is not None:
        logits = logits.masked_fill(~allowed, float("-inf"))
    log_p = logits.log_softmax(-1)
    return log_p if weights is None or bool((weights == 1).all()) else log_p * weights[:, None]


def cross_entropy(log_p: Tensor, target: Tensor, smoothing: float = 0.0, allowed: Tensor | None = None) -> Tensor:
    """float32[N]. Smoothing is spread over what is allowed; the target must be."""
    nll = -log_p.gather(-1, target[:, None])[:, 0]
    if smoothing == 0.0:
        return nll
    if allowed is None:
        each: Tensor | float = smoothing / (log_p.shape[-1] - 1)
    else:
        each = smoothing / (allowed.sum(-1) - 1 + 1e-6)
        log_p = log_p.masked_fill(~allowed, 0.0)
    return (1 - smoothing - each) * nll - each * log_p.sum(-1)


def encouragement(log_p: Tensor, target: Tensor, smoothing: float, log_end: float) -> Tensor:
    """float32[N], below 0: what is surer of the target is rewarded still, by log(1 - p), in a line from p = log_end on.

    Source: encouraging loss (arXiv 2110.06537); 1.0 for `log_end` leaves the logarithm as it is.

    >>> encouragement(torch.tensor([[0.9, 0.1]]).log(), torch.tensor([0]), 0.0, 0.75).exp()
    tensor([0.1372])
    """
    p = log_p.exp()
    bonus = torch.log((1 - p).clamp(min=_LEAST))
    if log_end < 1:
        tangent = math.log(1 - log_end) - (p - log_end) / (1 - log_end)
        bonus = torch.where(p > log_end, tangent, bonus)
    of_target = bonus.gather(-1, target[:, None])[:, 0]
    return (1 - smoothing) * of_target + smoothing / log_p.shape[-1] * bonus.sum(-1)


def disagreement(log_p: Tensor, allowed: Tensor | None = None) -> Tensor:
    """float32[N]: how far a token is from itself under other dropout; the second half of the tokens is the first half once more.

    A pair gets the mean of both Kullback-Leibler divergences, each of the two half of it.
    Source: R-Drop (arXiv 2106.14448).
    """
    if allowed is not None:
        log_p = log_p.masked_fill(~allowed, 0.0)
    p, q = log_p.chunk(2)
    both = F.kl_div(p, q, reduction="none", log_target=True) + F.kl_div(q, p, reduction="none", log_target=True)
    return (both.sum(-1) / 4).repeat(2)
