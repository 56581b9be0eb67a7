"""AdamW with parameter groups, its schedule, and the running average of the weights."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import chain

import torch
from torch import Tensor, nn

from monoglot.errors import InputError
from monoglot.model.lora import lora_names
from monoglot.train.recipe import Optimizer


def freeze(model: nn.Module, prefixes: Sequence[str], train_only: Sequence[str] = (), *, changes: bool = True) -> None:
    """Parameters whose name starts with one of `prefixes` are not trained. `train_only`, in place of them: only those whose name starts so are.
    Beside low-rank changes nothing else is trained, unless `train_only` names it; `changes` False leaves these, too, as they are.

    Raises InputError for a prefix that fits no parameter.
    """
    field, given = ("train_only", tuple(train_only)) if train_only else ("freeze", tuple(prefixes))
    names = [name for name, _ in model.named_parameters()]
    for prefix in given:
        if not any(name.startswith(prefix) for name in names):
            wrong = f"no parameter starts with {prefix!r}"
            raise InputError.at("recipe", field, wrong, f"they start with {_first_parts(names)}")
    low_rank = set(lora_names(model))
    for name, parameter in model.named_parameters():
        if low_rank:
            parameter.requires_grad_((changes and name in low_rank) or name.startswith(tuple(train_only)))
        else:
            parameter.requires_grad_(name.startswith(given) == (field == "train_only"))


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


def schedule(done: int, whole: int, c: Optimizer) -> float:
    """Factor of the highest rate: linear from 0 over the warm-up, then as the recipe says.

    Args:
        done, whole: how far the stage has come, in steps or tokens.

    >>> line = Optimizer(warmup=0.1)
    >>> [round(schedule(step, 100, line), 2) for step in (0, 4, 9, 10, 55, 99)]
    [0.1, 0.5, 1.0, 1.0, 0.5, 0.01]
    >>> [schedule(90, 100, Optimizer(warmup=0.1, schedule=kind)) < 0.12 for kind in ("linear", "cosine", "constant")]
    [True, True, False]
    """
    rising = max(1, int(whole * c.warmup))
    if done < rising:
        return (done + 1) / rising
    left = (whole - done) / (whole - rising) if whole > rising else 1.0
    if c.schedule == "constant":
        return 1.0
    return left if c.schedule == "linear" else (1 - math.cos(math.pi * left)) / 2


def set_rate(optimizer: torch.optim.Optimizer, factor: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = group["base_lr"] * factor


def weights_of(model: nn.Module) -> dict[str, Tensor]:
    """Parameters and running statistics by name; they share memory with the model's."""
    return {name: tensor.detach() for name, tensor in chain(model.named_parameters(), model.named_buffers())}


@torch.no_grad()
def follow(average: dict[str, Tensor], model: nn.Module, decay: float) -> None:
    """average <- decay x average + (1 - decay) x model, for all weights and running statistics; counts are copied.

    >>> model = nn.Linear(1, 1, bias=False)
    >>> average = {"weight": torch.zeros(1, 1)}
    >>> _ = nn.init.ones_(model.weight)
    >>> follow(average, model, 0.75); average["weight"].item()
    0.25
    """
    for name, now in weights_of(model).items():
        if now.is_floating_point():
            average[name].lerp_(now, 1 - decay)
        else:
            average[name].copy_(now)


@contextmanager
def averaged(model: nn.Module, average: dict[str, Tensor] | None) -> Iterator[None]:
    """Inside, the model has its averaged weights; None leaves it as it is."""
    if average is None:
        yield
        return
    weights = weights_of(model)
    kept = {name: tensor.clone() for name, tensor in weights.items()}
    try:
        for name, tensor in weights.items():
            tensor.copy_(average[name])
        yield
    finally:
        for name, tensor in weights.items():
            tensor.copy_(kept[name])
