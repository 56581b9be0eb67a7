"""Do the graphs say what the model says? The same rows through both, one by one.

    rows -> Predictor of the model, Predictor of the graphs -> greedy ids, features, memory, logits of each -> Compared -> a table, parity.json

Logits are compared along the model's own answer: the model reads it at once, the graphs token by token, so that the kept keys and values are
compared with none at all.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from monoglot.data.collate import Batch
from monoglot.data.prepare import Example
from monoglot.decode.predict import Predictor
from monoglot.decode.search import SearchSettings
from monoglot.model.head import pooled
from monoglot.model.layers import Cache
from monoglot.model.unified import Memory
from monoglot.nouns import Prediction, Sample

GREEDY = SearchSettings(beam=1, sample=False, top_k=0)


@dataclass(frozen=True)
class Compared:
    """One row, answered by both."""

    id: str
    task: str
    equal: bool
    """Every id of the answer is the same."""
    model: str
    graphs: str
    """The answers as text."""
    features: float
    memory: float
    logits: float
    """Largest absolute differences; of a head, `logits` are its probabilities."""


@dataclass(frozen=True)
class Said:
    """What one of the two says about a row."""

    features: list[Tensor]
    memory: Memory
    ids: tuple[int, ...]
    """Of the answer; of a head, the number of the answer."""
    probabilities: Tensor | None
    """Of a head."""
    prediction: Prediction


@torch.no_grad()
def compare(model: Predictor, graphs: Predictor, sample: Sample) -> tuple[Compared, Prediction, Prediction]:
    """One row through both. Raises InputError when it cannot be read."""
    example = model._example(sample)
    batch = model.preparer.collate([example])
    mine, theirs = say(model, example, batch), say(graphs, example, batch)
    if mine.probabilities is not None and theirs.probabilities is not None:
        logits = difference([mine.probabilities], [theirs.probabilities])
    else:
        logits = along(model, graphs, mine, theirs, example, batch)
    compared = Compared(
        sample.id,
        sample.task,
        mine.ids == theirs.ids,
        mine.prediction.text,
        theirs.prediction.text,
        difference(mine.features, theirs.features),
        difference([mine.memory.states], [theirs.memory.states]),
        logits,
    )
    return compared, mine.prediction, theirs.prediction


def say(predictor: Predictor, example: Example, batch: Batch) -> Said:
    """A row's features, memory and greedy answer."""
    features = predictor.model.encode_media(batch.media)
    memory = predictor.model.encode(batch, features)
    every = [item for name in batch.media for item in features[name]]
    number = predictor._head_of(example.sample)
    if number is not None:
        head = predictor._heads[number]
        x = pooled(batch, features, memory, head.blocks)
        prediction = predictor._pick(head, batch, [example.sample])[0]
        return Said(every, memory, (head.classes.index(prediction.text),), head.probabilities(x), prediction)
    found = predictor._search([example], memory, [predictor._constraint(example)], batch.code_rows)[0]
    return Said(every, memory, found[0].tokens, None, predictor._prediction(example, found))


def along(model: Predictor, graphs: Predictor, mine: Said, theirs: Said, example: Example, batch: Batch) -> float:
    """Largest difference of logits along the model's own answer."""
    begin = [*model.model.config.start, *example.sequence.given_ids.tolist()]
    ids = torch.tensor([[*begin, *mine.ids[:-1]]])
    ids = ids[:, : model.model.config.target_positions] if batch.code_rows is None else ids
    expected = model.model.logits(model.model.decode(ids, mine.memory, code_rows=batch.code_rows))[0]
    cache, worst = Cache(), 0.0
    for end in range(len(begin), ids.shape[1] + 1):
        fed = ids[:, cache.length : end]
        step = graphs.model.decode(fed, theirs.memory, code_rows=batch.code_rows, cache=cache)
        worst = max(worst, difference([expected[end - 1]], [graphs.model.logits(step[0, -1])]))
    return worst


def difference(mine: Sequence[Tensor], theirs: Sequence[Tensor]) -> float:
    """Largest absolute difference, 0 where there is nothing to compare, infinite where the shapes differ or a number is none."""
    worst = 0.0
    for a, b in zip(mine, theirs, strict=True):
        if a.shape != b.shape or not bool((a - b).isfinite().all()):
            return float("inf")
        worst = max(worst, float((a - b).abs().max()) if a.numel() else 0.0)
    return worst


def summary(rows: Sequence[Compared]) -> dict[str, Any]:
    """parity.json: counts and the largest differences, of all and by task, then every row."""

    def of(some: Sequence[Compared]) -> dict[str, Any]:
        worst = {name: max(getattr(row, name) for row in some) for name in ("features", "memory", "logits")}
        return {"rows": len(some), "equal": sum(row.equal for row in some), "largest_difference": worst}

    tasks = dict.fromkeys(row.task for row in rows)
    by_task = {task: of([row for row in rows if row.task == task]) for task in tasks}
    return of(rows) | {"tasks": by_task, "each": [asdict(row) for row in rows]}


def seconds(predictors: dict[str, Predictor], samples: Iterable[Sample], *, repeats: int = 5) -> dict[str, float]:
    """Median seconds from row to answer, media read from disk; the predictors take turns at each row, after one round that does not count."""
    taken: dict[str, list[float]] = {name: [] for name in predictors}
    for sample in samples:
        for turn in range(repeats + 1):
            for name, predictor in predictors.items():
                started = time.perf_counter()
                answer = next(predictor.predict_many([sample]))
                if turn:
                    taken[name].append(time.perf_counter() - started)
                assert answer.error is None, answer.error
    return {name: statistics.median(times) for name, times in taken.items()}
