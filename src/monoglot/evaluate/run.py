"""Scores with counts, intervals and a plain baseline beside each.

rows + Predictor -> predictions -> metrics of each row's task -> a table, scores.json
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from monoglot.decode.predict import Predictor
from monoglot.errors import InputError
from monoglot.evaluate import baselines
from monoglot.evaluate.metrics import METRICS
from monoglot.nouns import Prediction, Sample
from monoglot.tasks import TASKS


@dataclass(frozen=True)
class Score:
    """One metric of one group of rows."""

    task: str
    metric: str
    rows: int
    value: float
    low: float | None
    high: float | None
    """Bootstrap interval at 95%, over groups if the rows name theirs (`group`); None for a single row or group."""
    unit: str
    higher_is_better: bool
    baselines: dict[str, float]
    """Value of each plain baseline on the same rows."""
    errors: int = 0
    """Rows that could not be answered; they count as wrong."""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def evaluate(
    predictor: Predictor,
    samples: Sequence[Sample],
    *,
    training: Sequence[Sample] = (),
    seed: int = 0,
    batch_size: int = 16,
    on_answer: Callable[[Prediction], None] | None = None,
) -> tuple[list[Score], list[Prediction]]:
    """Answer all rows and score them by task.

    Args:
        samples: rows with answers.
        training: rows that baselines may learn from; without them only those are given that need none.
        on_answer: called with each answer as it comes.
    """
    need_answers(samples)
    need_answers(training)
    predictions = []
    for prediction in predictor.predict_many(samples, batch_size=batch_size):
        predictions.append(prediction)
        if on_answer:
            on_answer(prediction)
    scores = []
    for task in dict.fromkeys(sample.task for sample in samples):
        chosen = [index for index, sample in enumerate(samples) if sample.task == task]
        of_task = [samples[index] for index in chosen]
        rivals = plain_baselines(predictor, of_task, [sample for sample in training if sample.task == task])
        scores += score(of_task, [predictions[index] for index in chosen], rivals, seed=seed)
    return scores, predictions


def need_answers(samples: Iterable[Sample]) -> None:
    """Raises InputError for the first row that lacks what the metrics of its task compare with."""
    for sample in samples:
        field = "box" if METRICS[TASKS[sample.task].metrics[0]].reads == "box" else "target"
        if (sample.box is None) if field == "box" else not sample.targets:
            raise InputError.at(
                sample.where or f"sample {sample.id}", field, "is missing", "evaluation needs the answer"
            )


def score(
    samples: Sequence[Sample], predictions: Sequence[Prediction], rivals: dict[str, list[Prediction]], *, seed: int = 0
) -> list[Score]:
    """Every metric of one task, with its baselines."""
    task = samples[0].task
    scores = []
    for name in TASKS[task].metrics:
        metric = METRICS[name]
        references: list[Any] = [s.box if metric.reads == "box" else s.targets for s in samples]
        langs = [s.lang for s in samples]

        def read(answers: Sequence[Prediction], reads: str = metric.reads) -> list[Any]:
            return [answer.box if reads == "box" else answer.text for answer in answers]

        result = metric.score(read(predictions), references, lang=langs)
        groups = [str(s.meta.get("group", s.id)) for s in samples]
        low, high = result.interval(seed=seed, groups=groups)
        scores.append(
            Score(
                task,
                name,
                len(samples),
                result.value,
                None if math.isnan(low) else low,
                None if math.isnan(high) else high,
                metric.unit,
                metric.higher_is_better,
                {rival: metric.score(read(answers), references, lang=langs).value for rival, answers in rivals.items()},
                sum(prediction.error is not None for prediction in predictions),
            )
        )
    return scores


def plain_baselines(
    predictor: Predictor, samples: Sequence[Sample], training: Sequence[Sample]
) -> dict[str, list[Prediction]]:
    """The rivals that make sense for one task's rows."""
    task = samples[0].task
    if task == "summarize":
        return {"lead sentence": baselines.lead_sentence(samples)}
    if task == "grounding":
        return {"mean box": baselines.middle_box(samples, training)} if training else {}
    if not training or task == "transcribe":
        return {}
    rivals = {"most common": baselines.most_common(samples, training)}
    if task in ("name", "classify") and any(sample.media for sample in samples):
        # Features that were kept while answering are of the model as it answers.
        cache = predictor.cache if predictor.precision[0] == "float32" else None
        rivals["nearest neighbour"] = baselines.nearest_neighbour(
            samples, training, predictor.model, predictor.preparer, cache
        )
    video = predictor.model.config.modalities.get("video")
    if video and any(media.modality == "video" for sample in samples for media in sample.media):
        rivals["one frame"] = list(predictor.predict_many(baselines.middle_frame(samples, video)))
    return rivals
