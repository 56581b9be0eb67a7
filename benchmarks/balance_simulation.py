"""Balancers against hand-tuned mixtures, on networks so small that a hundred train side by side in a minute.

    python benchmarks/balance_simulation.py [--cases plain,many] [--ratios 1,10,100] [--seeds 4] [--rows 16000] [--steps 1000] [--out FILE.json]
    python benchmarks/balance_simulation.py --show FILE.json

Each case has tasks with `rows` rows and one or more that are `ratio` times rarer: ten-way classification of 16 random numbers by a random teacher;
teachers share features, so tasks help each other. One network with two hidden layers learns all of them, told by an input which task a row is of.

"hand" is a grid of fixed mixtures (share of the rare tasks x factor of the first task); the best mixture is the one with the highest mean score among
these and the fixed rules (proportional, temperature 2 and 3, equal quotas): a user finds it by training them all. Scores are held-out accuracy in points.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from monoglot.files import write_text
from monoglot.rng import stream
from monoglot.train.balance import BALANCERS, Balance

INPUTS, CLASSES, FEATURES, WIDTH = 16, 10, 24, 96
ROWS, LR, WARMUP = 64, 3e-3, 50
HELD_OUT = 1000


@dataclass(frozen=True)
class Task:
    rare: bool = False
    classes: int = CLASSES
    own: float = 0.2
    """Share of the teacher's features that no other task has."""
    noise: float = 0.1
    """Share of labels that are random."""
    parity: int = 0
    """The label is the parity of that many signs instead: nothing is learned for a while, then all at once."""


LOSS_BALANCERS = ("equal", "uncertainty", "gradnorm", "famo")

CASES = {
    "plain": [Task(), Task(), Task(), Task(rare=True)],
    "easy rare": [Task(), Task(), Task(), Task(rare=True, classes=2)],
    "hard rare": [Task(), Task(), Task(), Task(rare=True, own=1.0)],
    "easy common": [Task(classes=2), Task(classes=2), Task(), Task(rare=True)],
    "useless common": [Task(noise=1.0), Task(), Task(), Task(rare=True)],
    "useless rare": [Task(), Task(), Task(), Task(rare=True, noise=1.0)],
    "late common": [Task(parity=3), Task(), Task(), Task(rare=True)],
    "late rare": [Task(), Task(), Task(), Task(rare=True, parity=2)],
    "many": [
        Task(),
        Task(own=1.0),
        Task(noise=0.5),
        Task(classes=2),
        *[Task(rare=True)] * 2,
        Task(rare=True, own=1.0),
        Task(rare=True, noise=1.0),
    ],
}


class Data:
    """Rows of all tasks, HELD_OUT more than they train on: x float[K, n, INPUTS + K], y long[K, n]."""

    def __init__(self, tasks: list[Task], ratio: int, rows: int, seed: int):
        rng = stream(seed, "balance simulation")
        count = len(tasks)
        shared = rng.normal(size=(INPUTS, FEATURES))
        self.sizes = [rows // ratio if task.rare else rows for task in tasks]
        total = rows + HELD_OUT
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

    quotas: Tensor
    balance: Balance
    seed: int


def train(runs: list[Run], data: list[Data], steps: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Train all networks side by side: scores in points, mean factors of the quotas, passes over the rows: float[R, K] each."""
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
            logits, _ = _forward(parameters, all_x[which, k, -HELD_OUT:])
            scores.append((logits.argmax(-1) == all_y[which, k, -HELD_OUT:]).float().mean(1))
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


def _rows(
    now: np.ndarray, place: np.ndarray, sizes: list[int], rngs: list[np.random.Generator]
) -> tuple[Tensor, Tensor]:
    """Task and row of each slot, long[R, ROWS] each; each task gets the whole numbers next to its quota."""
    edges = np.cumsum(now, 1) / now.sum(1, keepdims=True)
    points = (np.arange(ROWS) + np.array([[rng.random()] for rng in rngs])) / ROWS
    task = (points[:, :, None] >= edges[:, None, :-1]).sum(2)
    one_hot = task[..., None] == np.arange(now.shape[1])
    nth = np.where(one_hot, one_hot.cumsum(1) - 1, 0).sum(2) + np.take_along_axis(place, task, 1)
    place += one_hot.sum(1)
    # Rows are random, so one order is as good as any.
    return torch.from_numpy(task), torch.from_numpy(nth % np.array(sizes)[task])


def _norms(logits: Tensor, hidden: Tensor, y: Tensor, one_hot: Tensor, rows: Tensor) -> Tensor:
    """float[R, K] gradient norms of each task's mean loss by the last layer's matrix."""
    by_logits = logits.detach().softmax(-1) - F.one_hot(y, CLASSES)
    gradients = torch.einsum("rnh,rnc,rnk->rkhc", hidden.detach(), by_logits, one_hot)
    return gradients.flatten(2).norm(dim=2) / rows


def hand_grid(tasks: list[Task]) -> dict[str, Tensor]:
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
    fixed_rules = {
        "proportional": by_temperature[1],
        "temperature 2": by_temperature[2],
        "temperature 3": by_temperature[3],
        "equal quotas": torch.full((len(tasks),), ROWS / len(tasks)),
        **{f"hand: {name}": quotas for name, quotas in hand_grid(tasks).items()},
    }
    adaptive = {
        **{f"auto on {name}": (fixed_rules[name], Balance(kind="auto")) for name in list(fixed_rules)[:3]},
        **{f"{kind} on proportional": (by_temperature[1], Balance(kind=kind)) for kind in LOSS_BALANCERS},
    }
    return {name: (quotas, fixed) for name, quotas in fixed_rules.items()} | adaptive


def measure(case: str, ratio: int, rows: int, steps: int, seeds: int) -> dict[str, object]:
    """Mean scores over seeds of each mixture, and which fixed one is best."""
    tasks = CASES[case]
    tried = mixtures(tasks, ratio)
    runs = [Run(quotas, balance, seed) for quotas, balance in tried.values() for seed in range(seeds)]
    shape = (len(tried), seeds, len(tasks))
    scores, factors, passes = (
        part.reshape(shape) for part in train(runs, [Data(tasks, ratio, rows, seed) for seed in range(seeds)], steps)
    )
    fixed = [index for index, (_, balance) in enumerate(tried.values()) if balance.kind == "fixed"]
    best = max(fixed, key=lambda index: scores[index].mean())
    return {
        "case": case,
        "ratio": ratio,
        "rare": [task.rare for task in tasks],
        "best": list(tried)[best],
        "mixtures": {
            name: {
                "scores": np.round(scores[index].mean(0), 2).tolist(),
                "seeds": np.round(scores[index].mean(1), 2).tolist(),
                "factors": np.round(factors[index].mean(0), 2).tolist(),
                "passes": np.round(passes[index].mean(0), 1).tolist(),
            }
            for index, name in enumerate(tried)
        },
    }


def show(results: dict) -> None:
    """Tables in Markdown."""
    shown = ("proportional", "temperature 3", "equal quotas", "auto on temperature 2", "auto on temperature 3")
    print(f"| case | best mixture | {' | '.join(shown)} |\n|---|---{'|---' * len(shown)}|")
    for case in results["cases"]:
        cells = [f"{_rare(case, name):.1f} ({_behind(case, name):.1f})" for name in shown]
        best = f"{case['best'].removeprefix('hand: ')}: {_rare(case, case['best']):.1f}"
        print(f"| {case['case']}, 1:{case['ratio']} | {best} | {' | '.join(cells)} |")
    print("\n| | mean points behind the best | most behind on a task, mean of cases | worst case |\n|---|---|---|---|")
    for name in (name for name in results["cases"][0]["mixtures"] if not name.startswith("hand: ")):
        mean = np.mean([_scores(case, case["best"]).mean() - _scores(case, name).mean() for case in results["cases"]])
        most = [_behind(case, name) for case in results["cases"]]
        print(f"| {name} | {mean:.2f} | {np.mean(most):.2f} | {max(most):.1f} |")


def _scores(case: dict, name: str) -> np.ndarray:
    return np.array(case["mixtures"][name]["scores"])


def _rare(case: dict, name: str) -> float:
    """Mean score of the rare tasks."""
    return float(_scores(case, name)[case["rare"]].mean())


def _behind(case: dict, name: str) -> float:
    """Points behind the best mixture on the task on which that is most."""
    return float((_scores(case, case["best"]) - _scores(case, name)).max())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", default=",".join(CASES))
    parser.add_argument("--ratios", default="100,10,1")
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--rows", type=int, default=16000)
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--show", type=Path)
    arguments = parser.parse_args()
    if arguments.show:
        show(json.loads(arguments.show.read_text()))
        return
    torch.set_num_threads(1)
    results: dict = {
        "command": " ".join(["python", "benchmarks/balance_simulation.py", *sys.argv[1:]]),
        "torch": torch.__version__,
        "cases": [],
    }
    for ratio in map(int, arguments.ratios.split(",")):
        for case in arguments.cases.split(","):
            began = time.monotonic()
            results["cases"].append(measure(case, ratio, arguments.rows, arguments.steps, arguments.seeds))
            print(f"{case} 1:{ratio}, {time.monotonic() - began:.0f} s", file=sys.stderr)
            if arguments.out:
                write_text(arguments.out, json.dumps(results, indent=1))
    show(results)


if __name__ == "__main__":
    main()
