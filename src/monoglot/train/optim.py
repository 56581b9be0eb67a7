"""AdamW with parameter groups, its schedule, and the running average of the weights."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain

import torch
from torch import nn

from monoglot.errors import InputError
from monoglot.train.recipe import Optimizer


def freeze(model: nn.Module, prefixes: Iterable[str]) -> None:
    """Parameters whose name starts with one of `prefixes` are not trained. InputError for a prefix that fits none."""
    names = [name for name, _ in model.named_parameters()]
    for prefix in prefixes:
        if not any(name.startswith(prefix) for name in names):
            raise InputError.at(
                "recipe", "freeze", f"no parameter starts with {prefix!r}", f"they start with {_first_parts(names)}"
            )
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(not any(name.startswith(prefix) for prefix in prefixes))


def _first_parts(names: list[str]) -> str:
    return ", ".join(sorted({name.split(".")[0] for name in names}))


def build_optimizer(model: nn.Module, c: Optimizer) -> torch.optim.AdamW:
    """Groups by learning rate and by whether weights decay; `base_lr` in each group is its highest rate."""
    names = [name for name, _ in model.named_parameters()]
    for prefix in c.lr_parts:
        if not any(name.startswith(prefix) for name in names):
            wrong = f"no parameter starts with {prefix!r}"
            raise InputError.at("recipe", "optimizer.lr_parts", wrong, f"they start with {_first_parts(names)}")
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        matching = [prefix for prefix in c.lr_parts if name.startswith(prefix)]
        lr = c.lr_parts[max(matching, key=len)] if matching else c.lr
        is_matrix = parameter.dim() >= 2 and not any(part in name for part in ("positions", "cells", "frames", "types"))
        decays = is_matrix or c.decay == "all"
        groups.setdefault((lr, c.weight_decay if decays else 0.0), []).append(parameter)
    return torch.optim.AdamW(
        [
            {"params": parameters, "lr": lr, "base_lr": lr, "weight_decay": decay}
            for (lr, decay), parameters in groups.items()
        ],
        betas=c.betas,
        fused=True,
    )


def schedule(step: int, steps: int, warmup: float) -> float:
    """Factor of the highest rate at `step`: linear from 0 over the warm-up, then linear to 0 at the end.

    >>> [round(schedule(step, 100, 0.1), 2) for step in (0, 4, 9, 10, 55, 99)]
    [0.1, 0.5, 1.0, 1.0, 0.5, 0.01]
    """
    rising = max(1, int(steps * warmup))
    return (step + 1) / rising if step < rising else (steps - step) / (steps - rising)


def set_rate(optimizer: torch.optim.Optimizer, factor: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = group["base_lr"] * factor


@torch.no_grad()
def follow(average: nn.Module, model: nn.Module, decay: float) -> None:
    """average <- decay x average + (1 - decay) x model, for all weights and running statistics; counts are copied.

    >>> average, model = nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False)
    >>> _ = nn.init.zeros_(average.weight), nn.init.ones_(model.weight)
    >>> follow(average, model, 0.75); average.weight.item()
    0.25
    """
    for mean, now in zip(chain(average.parameters(), average.buffers()), chain(model.parameters(), model.buffers())):
        if mean.is_floating_point():
            mean.lerp_(now, 1 - decay)
        else:
            mean.copy_(now)
