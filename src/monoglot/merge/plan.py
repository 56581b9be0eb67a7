"""What is shared, and what becomes of what is not.

    parents (+ base) -> Plan: for each tensor of the result who has it -> Plan.tensor(job, coefficients)

A tensor is *merged* when several parents have it and differ, the *same* when they agree to the bit (and with the base but for rounding), *kept*
when one has it alone. A parent that lacks it, or has it in another shape, does not take part: the weights of the others are brought to a sum of 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor

from monoglot.errors import InputError
from monoglot.merge.base import Merger, Pieces, Read
from monoglot.merge.parents import Parent, Slot, Tensors, check_names, common_config, slots_of
from monoglot.model.config import ModelConfig

BFLOAT16 = 2.0**-8
"""The most that rounding to bfloat16 changes a number, as a share of it: half of the 2^-7 between neighbours at 1."""
_BLOCK = 1 << 20


@dataclass(frozen=True)
class Coefficients:
    """What a method is told beside the models."""

    weights: tuple[float, ...]
    scale: float = 1.0
    density: float = 1.0
    seed: int = 0


@dataclass(frozen=True)
class Job:
    """One tensor of the result."""

    slot: Slot
    readers: dict[int, Read]
    """By the parent's number: how its version is read."""
    base: Read | None
    fate: Literal["merged", "same", "kept"]


@dataclass
class Plan:
    """Which parents each tensor comes from; made once, used for every set of coefficients."""

    parents: Sequence[Parent]
    base: Parent | None
    merger: Merger
    config: ModelConfig
    jobs: list[Job]
    missing: dict[str, list[str]] = field(default_factory=dict)
    """By model: what it lacks."""
    reshaped: dict[str, list[str]] = field(default_factory=dict)
    """By model: what it has in another shape."""
    fisher: list[Tensors] | None = None

    def tensor(self, job: Job, c: Coefficients) -> Tensor:
        """One tensor of the result, float32 or integers."""
        first = next(iter(job.readers.values()))
        if job.fate != "merged" or not job.slot.dtype.is_floating_point:
            return first()
        pieces = Pieces(
            job.slot.names[0],
            list(job.readers.values()),
            [c.weights[index] for index in job.readers],
            base=job.base,
            fisher=self._fisher_of(job),
            scale=c.scale,
            density=c.density,
            seed=c.seed,
            ids=list(job.readers),
        )
        # Statistics of norms are no directions to go in: a scale could make a variance negative.
        if not job.slot.is_parameter or (self.merger.needs_base and job.base is None):
            return pieces.mean()
        return self.merger.merge(pieces)

    def _fisher_of(self, job: Job) -> list[Read] | None:
        if self.fisher is None or not job.slot.is_parameter:
            return None
        return [
            _reader(self.fisher[index], name)
            for index in job.readers
            if (name := job.slot.found_in(self.fisher[index]))
        ]

    def names(self, fate: str) -> list[str]:
        return [name for job in self.jobs if job.fate == fate for name in job.slot.names]

    def report(self) -> dict[str, Any]:
        """Counts of tensors, and by model which parts it lacks or has in another shape; for JSON."""
        found: dict[str, Any] = {fate: len(self.names(fate)) for fate in ("merged", "same", "kept")}
        found["kept_parts"] = parts(self.names("kept"))
        found["missing"] = {model: parts(names) for model, names in self.missing.items()}
        found["shape_changed"] = self.reshaped
        return found


def make_plan(parents: Sequence[Parent], base: Parent | None, merger: Merger) -> Plan:
    """Find out what the models share. Every tensor is read once, to see which are the same.

    Raises InputError for models of different architecture or vocabulary, or whose weights do not fit their settings.
    """
    common_config([*parents, *([base] if base else [])])
    config = common_config(parents)  # what the base alone reads is no part of the result
    slots = slots_of(config)
    check_names(parents, slots)
    plan = Plan(parents, base, merger, config, [])
    for slot in slots:
        readers = {}
        for index, parent in enumerate(parents):
            if (read := plan_reader(plan, parent, slot)) is not None:
                readers[index] = read
        if not readers:
            path = parents[0].folder / "model.safetensors"
            raise InputError.at(path, "weights", f"do not fit config.json: {slot.names[0]} is missing")
        start = None if base is None else plan_reader(plan, base, slot)
        if not slot.is_parameter or not slot.dtype.is_floating_point:
            start = None
        plan.jobs.append(Job(slot, readers, start, _fate(list(readers.values()), start, slot)))
    return plan


def plan_reader(plan: Plan, model: Parent, slot: Slot) -> Read | None:
    """How a model's version is read; None, which is noted, when it has none of that shape."""
    name = slot.found_in(model.tensors)
    if name is None:
        plan.missing.setdefault(model.given, []).append(slot.names[0])
        return None
    if model.tensors.shapes[name] != slot.shape:
        plan.reshaped.setdefault(model.given, []).append(name)
        return None
    return _reader(model.tensors, name)


def _reader(tensors: Tensors, name: str) -> Read:
    return lambda: tensors.read(name)


def _fate(readers: list[Read], base: Read | None, slot: Slot) -> Literal["merged", "same", "kept"]:
    others = [*readers[1:], *([base] if base else [])]
    if not others:
        return "kept"
    if not slot.dtype.is_floating_point:
        return "same"  # counters: the first parent's
    first = readers[0]()
    if not all(torch.equal(first, read()) for read in readers[1:]):
        return "merged"
    return "same" if base is None or same_but_for_rounding(first, base()) else "merged"


def same_but_for_rounding(x: Tensor, y: Tensor) -> bool:
    """True if bfloat16 may have made the one of the other: frozen weights are stored anew by a fine-tuning, and learned nothing by it.

    >>> same_but_for_rounding(torch.tensor([1.0, 3.0]), torch.tensor([1.003, 3.01])), same_but_for_rounding(torch.ones(1), torch.ones(1) * 1.01)
    (True, False)
    """
    parts = zip(x.flatten().split(_BLOCK), y.flatten().split(_BLOCK))
    return all(bool(((a - b).abs_() <= b.abs() * BFLOAT16).all()) for a, b in parts)


def parts(names: Sequence[str]) -> list[str]:
    """What a list of tensors is about, in few words.

    >>> parts(["encoders.audio.conv1.bias", "encoders.audio.conv1.weight", "source.connectors.audio.bias"])
    ['encoders.audio (2)', 'source.connectors.audio (1)']
    """
    counts: dict[str, int] = {}
    for name in names:
        head = name.split(".")
        part = ".".join(head[: 3 if head[0] == "source" else 2])
        counts[part] = counts.get(part, 0) + 1
    return [f"{part} ({count})" for part, count in counts.items()]
