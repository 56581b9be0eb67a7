"""Models on rows: the number that a search follows, with its interval.

files -> samples, read once;   model folder -> answers (or losses) -> Measured, one a file
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from monoglot.data.features import FeatureCache, fingerprint
from monoglot.data.rows import read_rows
from monoglot.decode.predict import Predictor, load
from monoglot.errors import InputError
from monoglot.evaluate.intervals import bootstrap
from monoglot.evaluate.report import some_of
from monoglot.evaluate.run import evaluate, need_answers
from monoglot.model.features import features
from monoglot.nouns import Sample
from monoglot.tasks import TASKS
from monoglot.train.losses import token_losses

_CACHE_BYTES = 2_000_000_000
RESULT = "merged"
"""What the result is called among its parents."""


@dataclass(frozen=True)
class Measured:
    """A model on the rows of one file."""

    rows_from: str
    """The file's stem."""
    metric: str
    rows: int
    value: float
    low: float | None
    high: float | None
    """Bootstrap interval at 95%; None for a single row or group."""
    higher_is_better: bool

    @property
    def badness(self) -> float:
        """What a search makes small."""
        return -self.value if self.higher_is_better else self.value

    @property
    def interval(self) -> str:
        return "" if self.low is None or self.high is None else f"{self.low:.3f} .. {self.high:.3f}"

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


class Judge:
    """Files of rows on which models are measured.

    With a `cache` folder what encoders say is kept there, as float16: models that see and hear alike do so once.

    Raises InputError when a file cannot be read, has no rows, rows of several tasks, or a row without its answer.
    """

    def __init__(
        self,
        files: Sequence[str | Path],
        kind: Literal["metric", "loss"] = "metric",
        rows: int | None = None,
        *,
        cache: Path | None = None,
    ):
        self.kind = kind
        self.sets = {str(file): read_answered(Path(file), rows) for file in files}
        for file, samples in self.sets.items():
            tasks = sorted({sample.task for sample in samples})
            if len(tasks) > 1:
                raise InputError.at(file, "task", f"has {', '.join(tasks)}", "give a file for each task")
        self._cache = cache

    def check_apart(self, other: Judge) -> None:
        """Raises InputError when a row of `other` is among these."""
        asked = {_content(sample) for samples in self.sets.values() for sample in samples}
        for samples in other.sets.values():
            for sample in samples:
                if _content(sample) in asked:
                    raise InputError.at(sample.where, "test", "the row is searched on too", "keep test rows apart")

    def measure(self, model: str | Path | Predictor) -> list[Measured]:
        """One number for each file."""
        predictor = model if isinstance(model, Predictor) else load(model, precision="float32")
        if self._cache is None:
            return [self._measured(file, samples, predictor) for file, samples in self.sets.items()]
        settings = predictor.model.config.model_dump(mode="json")["modalities"]
        folder = self._cache / fingerprint(predictor.model.encoders, settings)
        with closing(FeatureCache(folder, _CACHE_BYTES)) as cache:
            predictor.keep_features(cache)
            return [self._measured(file, samples, predictor) for file, samples in self.sets.items()]

    def _measured(self, file: str, samples: list[Sample], predictor: Predictor) -> Measured:
        stem = Path(file).stem
        if self.kind == "loss":
            losses = row_losses(predictor, samples)
            groups = [str(sample.meta.get("group", sample.id)) for sample in samples]
            low, high = bootstrap(losses, _mean_loss, seed=0, groups=groups)
            value = float(_mean_loss(losses.sum(0)))
            return Measured(stem, "loss", len(samples), value, _or_none(low), _or_none(high), False)
        first = evaluate(predictor, samples)[0][0]
        return Measured(stem, first.metric, first.rows, first.value, first.low, first.high, first.higher_is_better)


def read_answered(file: Path, most: int | None = None) -> list[Sample]:
    """Rows with answers, at most so many, drawn as `some_of` draws them."""
    samples = list(read_rows(file, known_tasks=TASKS))
    if not samples:
        raise InputError.at(file, "", "has no rows", "give at least one")
    need_answers(samples)
    return some_of(samples, most)


@torch.no_grad()
def row_losses(predictor: Predictor, samples: Sequence[Sample]) -> np.ndarray:
    """float64[N, 2]: nats of each row's target, and its tokens. Raises InputError for a row that cannot be read."""
    found, model = [], predictor.model
    for sample in samples:
        batch = predictor.preparer.collate([predictor.preparer.example(sample)])
        memory = model.encode(batch, features(model, batch, predictor.cache))
        valid = batch.target_valid
        states = model.decode(batch.target_in, memory, code_rows=batch.code_rows)[valid]
        losses = token_losses(model.logits(states), batch.target_out[valid])
        found.append([float(losses.sum()), float(valid.sum())])
    return np.array(found)


def verdict(scores: dict[str, list[Measured]]) -> str:
    """One line about the result (RESULT) beside its parents. It hurts where it lies below the best parent's interval."""
    *parents, _ = scores
    hurts: list[str] = []
    gains: list[str] = []
    for place, merged in enumerate(scores[RESULT]):
        name = min(parents, key=lambda parent: scores[parent][place].badness)
        best = scores[name][place]
        worst_end = best.low if best.higher_is_better else best.high
        beyond = worst_end is not None and merged.badness > (-worst_end if best.higher_is_better else worst_end)
        line = f"{merged.rows_from} {merged.value:.3f} against {best.value:.3f} ({best.interval}) of {name}"
        (hurts if beyond else gains).append(line)
    if hurts:
        return f"Merging hurts: {'; '.join(hurts)}"
    return f"Merging does not hurt: {'; '.join(gains)}"


def _mean_loss(totals: np.ndarray) -> np.ndarray:
    return totals[..., 0] / np.maximum(totals[..., 1], 1.0)


def _or_none(value: float) -> float | None:
    return None if math.isnan(value) else value


def _content(sample: Sample) -> tuple[object, ...]:
    media = tuple((item.modality, str(item.source), item.start, item.end) for item in sample.media)
    return sample.task, media, sample.text, sample.targets, sample.box
