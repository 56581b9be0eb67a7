"""Answer the rows of one set and keep what the page needs of it.

    rows -> some_of (a seeded draw) -> Predictor -> terms of the task's first metric, plain baselines, confidence -> a record (JSON)

Letters: N rows, K terms a row, C feature channels.
"""

from __future__ import annotations

import hashlib
import math
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.nano.sets import Set
from monoglot.data.rows import read_rows
from monoglot.decode.predict import Predictor
from monoglot.errors import InputError
from monoglot.evaluate import baselines
from monoglot.evaluate.metrics import METRICS
from monoglot.evaluate.report import some_of
from monoglot.evaluate.run import need_answers
from monoglot.nouns import Prediction, Sample
from monoglot.rng import stream
from monoglot.tasks import TASKS

SHOWN = 12
"""Rows of a set whose answers are kept in words, drawn at random: right and wrong ones as they come."""


class Neighbours:
    """The nearest training picture's answer, as in `baselines.nearest_neighbour`, or the nearest among the row's choices.

    Training features are kept between sets.
    """

    def __init__(self, predictor: Predictor):
        self.predictor = predictor
        self._known: dict[tuple[str, ...], tuple[list[int], torch.Tensor]] = {}

    def __call__(self, samples: Sequence[Sample], training: Sequence[Sample]) -> list[Prediction]:
        model, preparer = self.predictor.model, self.predictor.preparer
        answers = [Prediction(sample.id, sample.task, "", error="no neighbour") for sample in samples]
        for modality in {sample.media[0].modality for sample in samples if sample.media}:
            key = (modality, *(str(sample.media[0].source) for sample in training if sample.media))
            if key not in self._known:
                self._known[key] = baselines.mean_features(training, modality, model, preparer)
            known, there = self._known[key]
            asked, here = baselines.mean_features(samples, modality, model, preparer)
            said = [training[index].targets[0] for index in known]
            for index, near in zip(asked, here @ there.T if known else ()):
                choices = samples[index].choices
                for nearest in near.argsort(descending=True).tolist():
                    if not choices or said[nearest] in choices:
                        answers[index] = replace(answers[index], text=said[nearest], error=None)
                        break
        return answers


def plain(predictor: Predictor, nearest: Neighbours, samples: Sequence[Sample], training: Sequence[Sample]) -> dict:
    """The answers of each plain baseline that makes sense for these rows of one task."""
    task = samples[0].task
    if task == "summarize":
        return {"lead sentence": baselines.lead_sentence(samples)}
    if task == "grounding":
        return {"mean box": baselines.middle_box(samples, training)} if training else {}
    learnt = {sample.targets[0] for sample in training}
    if (
        not training
        or task == "transcribe"
        or not any(not sample.choices or learnt & set(sample.choices) for sample in samples)
    ):
        return {}  # nothing that was trained on is an answer
    rivals = {"most common": baselines.most_common(samples, training)}
    if task in ("name", "classify") and all(sample.media for sample in samples):
        rivals["nearest neighbour"] = nearest(samples, training)
    video = predictor.model.config.modalities.get("video")
    if video and any(media.modality == "video" for sample in samples for media in sample.media):
        rivals["one frame"] = list(predictor.predict_many(baselines.middle_frame(samples, video)))
    return rivals


def readable(predictor: Predictor, samples: Sequence[Sample]) -> bool:
    """Whether the model has all the media of these rows."""
    return {media.modality for s in samples for media in s.media} <= set(predictor.model.config.modalities)


def measure(
    predictor: Predictor,
    asked: Set,
    packs: Path,
    *,
    limit: int | None,
    nearest: Neighbours | None,
    change: Callable[[Sample], Sample] = lambda sample: sample,
) -> dict[str, Any] | None:
    """The record of one set; None if the model lacks a kind of its media.

    Args:
        limit: at most so many rows, drawn at random.
        nearest: None leaves the baselines out.
        change: how each row is asked otherwise.

    Raises:
        InputError: the rows cannot be read, or one lacks its answer.
    """
    rows = list(read_rows(packs / asked.rows, known_tasks=TASKS))
    samples = some_of(rows, limit)
    need_answers(samples)
    if not readable(predictor, samples):
        return None
    began = time.perf_counter()
    predictions = list(predictor.predict_many(change(sample) for sample in samples))
    seconds = time.perf_counter() - began
    task = samples[0].task
    metric = METRICS[TASKS[task].metrics[0]]
    references: list[Any] = [s.box if metric.reads == "box" else s.targets for s in samples]
    langs = [s.lang for s in samples]

    def scored(answers: Sequence[Prediction]) -> Any:
        read = [answer.box if metric.reads == "box" else answer.text for answer in answers]
        return metric.score(read, references, lang=langs)

    result = scored(predictions)
    groups = [str(s.meta.get("group", s.id)) for s in samples]
    low, high = result.interval(seed=0, groups=groups)
    rivals: dict[str, float] = {}
    if all(sample.choices for sample in samples):
        rivals["chance"] = float(np.mean([1 / len(sample.choices) for sample in samples]))
    if nearest is not None:
        path = packs / asked.training
        training = [s for s in read_rows(path, known_tasks=TASKS) if s.task == task] if path.is_file() else []
        rivals |= {n: scored(a).value for n, a in plain(predictor, nearest, samples, training).items()}
    judged = metric.unit == "fraction" and metric.higher_is_better and task not in ("caption", "summarize")
    return {
        "task": task,
        "lang": asked.lang,
        "metric": metric.name,
        "higher_is_better": metric.higher_is_better,
        "rows": len(samples),
        "of": len(rows),
        "drawn": digest(samples),
        "value": result.value,
        "low": None if math.isnan(low) else low,
        "high": None if math.isnan(high) else high,
        "baselines": rivals,
        "errors": sum(prediction.error is not None for prediction in predictions),
        "seconds": round(seconds, 1),
        "choices": all(bool(sample.choices) for sample in samples),
        "terms": np.round(result.terms, 6).tolist(),
        "groups": groups,
        "right": [bool(value >= 0.5) for value in result.per_item] if judged else None,
        "confidence": [round(prediction.confidence, 5) for prediction in predictions],
        "shown": shown(asked, packs, samples, predictions, result.per_item if judged else None),
    }


def digest(samples: Sequence[Sample]) -> str:
    """A name for the rows that were drawn: two models are compared only where it is the same."""
    return hashlib.sha256("\n".join(f"{s.id}\t{s.targets}\t{s.box}" for s in samples).encode()).hexdigest()[:16]


def shown(
    asked: Set, packs: Path, samples: Sequence[Sample], predictions: Sequence[Prediction], right: np.ndarray | None
) -> list[dict[str, Any]]:
    """SHOWN rows drawn at random, with question, truth and answer in words; paths are below the folder of packs."""
    chosen = stream(0, "shown", asked.stem).permutation(len(samples))[:SHOWN]
    found = []
    for index in sorted(chosen.tolist()):
        sample, answer = samples[index], predictions[index]
        first = sample.media[0] if sample.media else None
        found.append(
            {
                "id": sample.id,
                "media": None if first is None else [first.modality, below(packs, str(first.source))],
                "text": sample.text[:200],
                "truth": sample.targets[0][:200] if sample.targets else box(sample.box),
                "answer": box(answer.box) or answer.text[:200],
                "box": box(answer.box or sample.box),
                "confidence": round(answer.confidence, 3),
                "right": None if right is None else bool(right[index] >= 0.5),
            }
        )
    return found


def below(packs: Path, path: str) -> str:
    """A path relative to the folder of packs."""
    try:
        return Path(os.path.abspath(path)).relative_to(os.path.abspath(packs)).as_posix()
    except ValueError:
        return Path(path).name


def box(corners: Sequence[float] | None) -> str:
    return "" if corners is None else " ".join(f"{corner:.2f}" for corner in corners)


def missing(packs: Path, asked: Set) -> str | None:
    """Why a set cannot be measured here, in a line."""
    try:
        next(iter(read_rows(packs / asked.rows, known_tasks=TASKS)))
    except (InputError, StopIteration):
        return f"{asked.rows} is not built: monoglot data build {asked.stem.split('/')[0]} --out {packs.name}"
    return None
