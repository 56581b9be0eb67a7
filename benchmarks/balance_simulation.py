"""Balancers against hand-tuned mixtures, on networks so small that a hundred train side by side in half a minute.

    nice python benchmarks/balance_simulation.py [--cases plain,...] [--ratios 1,10,100] [--seeds 5] [--out benchmarks/results/balance_simulation.json]

Each case has tasks of one size and one or more that are `ratio` times rarer: ten-way classification of 16 random numbers by a random teacher; teachers share
features, so tasks help each other. One network of two hidden layers is trained on all of them, told by one input which task a row is of.

"hand" is a grid of fixed mixtures (share of the rare tasks x factor of the first task); its best is the one of the highest mean score, which a
user could only find by training them all. Prints held-out accuracy in points.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from monoglot.rng import stream
from monoglot.train.balance import BALANCERS, Balance

INPUTS, CLASSES, FEATURES, WIDTH = 16, 10, 24, 96
ROWS, STEPS, LR, WARMUP = 64, 1000, 3e-3, 50
COMMON, HELD_OUT = 16000, 1000  # rows


@dataclass(frozen=True)
class Task:
    """own: share of the teacher's features that no other task has."""

    rare: bool = False
    classes: int = CLASSES
    own: float = 0.2
    noise: float = 0.1  # share of labels that are random
    parity: int = 0  # of that many inputs' signs, instead of a teacher: nothing is learned for a while, then all


CASES = {
    "plain": [Task(), Task(), Task(), Task(rare=True)],
    "easy rare": [Task(), Task(), Task(), Task(rare=True, classes=2)],
    "hard rare": [Task(), Task(), Task(), Task(rare=True, own=1.0)],
    "easy common": [Task(classes=2), Task(classes=2), Task(), Task(rare=True)],
    "useless common": [Task(noise=1.0), Task(), Task(), Task(rare=True)],
    "useless rare": [Task(), Task(), Task(), Task(rare=True, noise=1.0)],
    "late common": [Task(parity=3), Task(), Task(), Task(rare=True)],
    "late rare": [Task(), Task(), Task(), Task(rare=True, parity=2)],
    "many": [Task(), Task(own=1.0), Task(noise=0.5), Task(classes=2), *[Task(rare=True)] * 2, Task(rare=True, own=1.0), Task(rare=True, noise=1.0)],
}


class Data:
    """All rows of a case: x float[K, n, INPUTS + K], y long[K, n], and held-out ones."""

    def __init__(self, tasks: list[Task], ratio: int, seed: int):
        rng = stream(seed, "balance simulation")
        count = len(tasks)
        shared = rng.normal(size=(INPUTS, FEATURES))
        self.sizes = [COMMON // ratio if task.rare else COMMON for task in tasks]
        total = COMMON + HELD_OUT
        x = np.zeros((count, total, INPUTS + count), np.float32)
        y = np.zeros((count, total), np.int64)
        for k, task in enumerate(tasks):
            x[k, :, :INPUTS] = rng.normal(size=(total, INPUTS))
            x[k, :, INPUTS + k] = 2
            own = np.where(rng.random(FEATURES) < task.own, rng.normal(size=(INPUTS, FEATURES)), shared)
            features = np.tanh(x[k, :, :INPUTS] @ own / 2)
            y[k] = (features @ rng.normal(size=(FEATURES, task.classes))).argmax(1)
            if task.parity:
                y[k] = (x[k, :, : task.parity] > 0).sum(1) % 2
            wrong = rng.random(total) < task.noise
            y[k] = np.where(wrong, rng.integers(0, task.classes, total), y[k])
        self.x, self.y = torch.from_numpy(x), torch.from_numpy(y)


@dataclass
class Run:
    """One network: how rows are drawn and weighed."""

    name: str
    quotas: Tensor
    balance: Balance
    seed: int


def train(runs: list[Run], data: list[Data], steps: int = STEPS) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Train all networks side by side: scores float[R, K] in points, mean draws float[R, K], repeats float[R, K]."""
    count, tasks = len(runs), len(data[0].sizes)
    balancers = [BALANCERS[run.balance.kind](run.quotas, torch.ones(tasks), run.balance) for run in runs]
    rngs = [stream(run.seed, "balance simulation", "rows") for run in runs]
    parameters = _networks(runs, tasks)
    adam = torch.optim.Adam(parameters, lr=LR, betas=(0.9, 0.98))
    place = np.zeros((count, tasks), np.int64)
    quotas = torch.stack([run.quotas for run in runs])
    mean_draws = torch.zeros(count, tasks)
    which = torch.tensor([run.seed for run in runs])
    all_x, all_y = torch.stack([d.x for d in data]), torch.stack([d.y for d in data])
    for step in range(steps):
        draws = torch.stack([ones if (ones := b.draws()) is not None else torch.ones(tasks) for b in balancers])
        now = quotas * draws
        mean_draws += draws / steps
        weights = torch.stack([b.weights() for b in balancers])
        task, row = _rows(now.numpy(), place, data[0].sizes, rngs)
        x, y = all_x[which[:, None], task, row], all_y[which[:, None], task, row]
        logits, hidden = _forward(parameters, x)
        losses = F.cross_entropy(logits.flatten(0, 1), y.flatten(), reduction="none").view(count, ROWS)
        one_hot = F.one_hot(task, tasks).float()
        rows = one_hot.sum(1)
        means = (losses[..., None] * one_hot).sum(1) / rows.clamp(min=1)
        # A task with half a row a step counts twice in the steps that have one.
        total = (weights * means * rows / now).sum()
        adam.zero_grad()
        total.backward()
        rate = LR * min((step + 1) / WARMUP, 1) * (1 - step / steps)
        adam.param_groups[0]["lr"] = rate
        adam.step()
        norms = _norms(logits, hidden, y, one_hot, rows) if any(b.needs_norms for b in balancers) else [None] * count
        means = torch.where(rows > 0, means.detach(), torch.nan)
        for balancer, mean, norm in zip(balancers, means, norms):
            balancer.update(mean, norm if balancer.needs_norms else None)
    with torch.no_grad():
        scores = []
        for k in range(tasks):
            logits, _ = _forward(parameters, all_x[which, k, COMMON:])
            scores.append((logits.argmax(-1) == all_y[which, k, COMMON:]).float().mean(1))
    return 100 * torch.stack(scores, 1).numpy(), mean_draws.numpy(), place / np.array(data[0].sizes)


def _networks(runs: list[Run], tasks: int) -> list[Tensor]:
    shapes = [(INPUTS + tasks, WIDTH), (WIDTH, WIDTH), (WIDTH, CLASSES)]
    parameters = []
    for layer, (a, b) in enumerate(shapes):
        fresh = [stream(run.seed, "balance simulation", "network", layer).normal(0, a**-0.5, (a, b)) for run in runs]
        parameters.append(torch.tensor(np.stack(fresh), dtype=torch.float32, requires_grad=True))
        parameters.append(torch.zeros(len(runs), 1, b, requires_grad=True))
    return parameters


def _forward(p: list[Tensor], x: Tensor) -> tuple[Tensor, Tensor]:
    hidden = torch.relu(torch.baddbmm(p[1], x, p[0]))
    hidden = torch.relu(torch.baddbmm(p[3], hidden, p[2]))
    return torch.baddbmm(p[5], hidden, p[4]), hidden


def _rows(now: np.ndarray, place: np.ndarray, sizes: list[int], rngs: list[np.random.Generator]) -> tuple[Tensor, Tensor]:
    """Task and row of each slot, long[R, ROWS] each; each task gets the whole numbers next to its quota."""
    edges = np.cumsum(now, 1) / now.sum(1, keepdims=True)
    points = (np.arange(ROWS) + np.array([[rng.random()] for rng in rngs])) / ROWS
    task = (points[:, :, None] >= edges[:, None, :-1]).sum(2)
    one_hot = task[..., None] == np.arange(now.shape[1])
    nth = np.where(one_hot, one_hot.cumsum(1) - 1, 0).sum(2) + np.take_along_axis(place, task, 1)
    place += one_hot.sum(1)
    # Rows are random: going through them in one order is as good as any. The stride takes each seed and epoch elsewhere.
    return torch.from_numpy(task), torch.from_numpy(nth % np.array(sizes)[task])


def _norms(logits: Tensor, hidden: Tensor, y: Tensor, one_hot: Tensor, rows: Tensor) -> Tensor:
    """float[R, K] gradient norms of each task's mean loss by the last layer's matrix."""
    by_logits = logits.detach().softmax(-1) - F.one_hot(y, CLASSES)
    gradients = torch.einsum("rnh,rnc,rnk->rkhc", hidden.detach(), by_logits, one_hot)
    return gradients.flatten(2).norm(dim=2) / rows


def hand_grid(tasks: list[Task], proportional: Tensor) -> dict[str, Tensor]:
    """Fixed mixtures that a user might try: the rare tasks' share, and the first common task lower or higher."""
    rare = torch.tensor([task.rare for task in tasks])
    grid = {}
    for share in (0.03, 0.1, 0.2, 0.35, 0.5):
        for first in (0.25, 1.0, 3.0):
            factors = torch.where(rare, 0.0, 1.0)
            factors[0] = first
            common = factors / factors.sum() * (1 - share)
            grid[f"{share:.0%} rare, first x {first:g}"] = ROWS * torch.where(rare, share / rare.sum(), common)
    return grid


def mixtures(tasks: list[Task], ratio: int) -> dict[str, tuple[Tensor, Balance]]:
    sizes = torch.tensor([1 / ratio if task.rare else 1.0 for task in tasks])
    by_temperature = {t: ROWS * sizes ** (1 / t) / (sizes ** (1 / t)).sum() for t in (1, 2, 3)}
    fixed = Balance()
    return {
        "proportional": (by_temperature[1], fixed),
        "temperature 2": (by_temperature[2], fixed),
        "temperature 3": (by_temperature[3], fixed),
        "one each": (torch.full((len(tasks),), ROWS / len(tasks)), fixed),
        **{f"hand: {name}": (quotas, fixed) for name, quotas in hand_grid(tasks, by_temperature[1]).items()},
        **{f"auto on {t}": (by_temperature[t], Balance(kind="auto")) for t in (1, 2, 3)},
    }
