"""How a model is adapted: what is trained, for how long, and which way suits how many rows.

    head        nothing is trained: a linear classifier of what the frozen model sees, in closed form
    connector   only the linear layers between encoders and transformer (the published linear-only recipe)
    lora        low-rank changes beside the transformer's layers
    full        the whole transformer; the result is a model of its own

rows, method -> page -> Recipe        sizes -> candidates -> names of methods, and why
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from monoglot.adapt.rows import CLOSED_TASKS, labels
from monoglot.nouns import Sample
from monoglot.registry import Registry


@dataclass(frozen=True)
class Method:
    """One way to adapt. `page` has the fields of a recipe that are its own."""

    name: str
    what: str
    page: dict[str, Any] | None
    """None: nothing is trained step by step."""
    adapter: bool = True
    """The result is an adapter of its base, not a whole model."""


METHODS: Registry[Method] = Registry("method")
for _method in (
    Method("head", "a linear classifier on frozen features, in closed form", None),
    Method("connector", "only the connectors, the published linear-only recipe", {"optimizer": {"lr": 1e-3}}),
    Method("lora", "low-rank changes of the transformer", {"lora": {}, "optimizer": {"lr": 1e-3}}),
    Method("full", "the whole transformer", {"optimizer": {"lr": 1e-4}}, adapter=False),
):
    METHODS.add(_method.name, _method)

ROWS_A_STEP = 16
MANY = 5_000
"""Rows from which on 'auto' tries the whole transformer, too."""
FEW = 10
"""Rows of an answer, on average, below which none are held out: all are needed to learn from."""


def steps_for(rows: int) -> int:
    """Steps for so many rows: grows with the root, so that 20 rows are gone through some 40 times and 10,000 rows 2 times.

    >>> [steps_for(rows) for rows in (5, 20, 200, 10_000, 100_000)]
    [40, 54, 170, 1200, 3795]
    """
    return max(40, round(12 * rows**0.5))


def trained_parts(method: str, samples: Sequence[Sample], modalities: Mapping[str, Any]) -> tuple[str, ...]:
    """`train_only` of a method on a model of these modalities' settings: names of what it trains begin so; empty where the recipe's own rule holds."""
    if method != "connector":
        return ()
    seen = dict.fromkeys(media.modality for sample in samples for media in sample.media)
    pooled = [name for name in seen if getattr(modalities.get(name), "pooled", "none") != "none"]
    return (*(f"source.connectors.{name}" for name in seen), *(f"source.pooled.{name}" for name in pooled))


def has_classes(samples: Sequence[Sample]) -> bool:
    """True if every row is a question with a few answers: what a head can learn."""
    return all(sample.task in CLOSED_TASKS and label[3] for sample, label in zip(samples, labels(samples)))


def candidates(samples: Sequence[Sample], held_out: Sequence[Sample]) -> tuple[list[str], str]:
    """Methods that 'auto' tries, and why those."""
    classes = has_classes(samples)
    if not held_out:
        name = "head" if classes else "lora"
        return [name], f"{len(samples)} rows are too few to hold some out and compare, so '{name}' without a comparison"
    names = (["head"] if classes else []) + ["lora"] + (["full"] if len(samples) >= MANY else [])
    return names, f"{len(samples)} rows to train on and {len(held_out)} held out: tried {', '.join(names)}"
