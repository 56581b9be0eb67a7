"""Plain answers that a model has to beat: the most common one, the nearest training picture's, the lead sentence, the biggest guess of a box.

Each is a function of the test rows and the training rows; none looks at the test answers.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import av
import numpy as np
import torch

from monoglot.data.prepare import Preparer
from monoglot.model.unified import UnifiedModel
from monoglot.nouns import Media, Prediction, Sample

STILL_SECONDS = 0.001


def lead_sentence(samples: Sequence[Sample]) -> list[Prediction]:
    """The first sentence of each text: a summary's plain rival.

    >>> lead_sentence([Sample("1", "summarize", text="A tool. It does things.")])[0].text
    'A tool.'
    """
    ends = r"(?<=[.!?])\s|(?<=[。！？])"
    return [Prediction(s.id, s.task, re.split(ends, " ".join(s.text.split()), maxsplit=1)[0]) for s in samples]


def most_common(samples: Sequence[Sample], training: Sequence[Sample]) -> list[Prediction]:
    """The most common training answer to the same question, or of all; among the row's choices if it has any."""
    by_question: dict[str, Counter[str]] = {}
    for sample in training:
        for target in sample.targets[:1]:
            by_question.setdefault(_question(sample), Counter())[target] += 1
    overall = Counter({answer: count for counter in by_question.values() for answer, count in counter.items()})
    predictions = []
    for sample in samples:
        counter = by_question.get(_question(sample), overall)
        allowed = [answer for answer, _ in counter.most_common() if not sample.choices or answer in sample.choices]
        predictions.append(Prediction(sample.id, sample.task, allowed[0] if allowed else (sample.choices or ("",))[0]))
    return predictions


def middle_box(samples: Sequence[Sample], training: Sequence[Sample]) -> list[Prediction]:
    """The mean training box."""
    boxes = np.array([sample.box for sample in training if sample.box is not None])
    x0, y0, x1, y1 = boxes.mean(0).tolist()
    return [Prediction(sample.id, sample.task, "", box=(x0, y0, x1, y1)) for sample in samples]


@torch.no_grad()
def nearest_neighbour(
    samples: Sequence[Sample], training: Sequence[Sample], model: UnifiedModel, preparer: Preparer
) -> list[Prediction]:
    """The answer of the training row whose first media item is nearest: cosine of the frozen encoder's features, averaged over the item's tokens."""
    known = _mean_features(training, model, preparer)
    asked = _mean_features(samples, model, preparer)
    nearest = (asked @ known.T).argmax(1).tolist()
    return [Prediction(sample.id, sample.task, training[index].targets[0]) for sample, index in zip(samples, nearest)]


def _mean_features(samples: Sequence[Sample], model: UnifiedModel, preparer: Preparer, batch: int = 32) -> torch.Tensor:
    """float[N, C], rows of length 1."""
    rows: list[torch.Tensor] = []
    for first in range(0, len(samples), batch):
        part = samples[first : first + batch]
        items = [torch.as_tensor(preparer.read(sample.media[0], 0, sample)[0]) for sample in part]
        features = model.encoders[part[0].media[0].modality](items)
        rows += [feature.mean(0) for feature in features]
    return torch.nn.functional.normalize(torch.stack(rows), dim=1)


def _question(sample: Sample) -> str:
    """Rows that ask the same: the words of the question without the names in it that differ from row to row."""
    opening = (
        "|".join(sorted(sample.choices))
        if sample.task in ("classify", "matching")
        else " ".join(sample.text.split()[:3])
    )
    return f"{sample.task}|{sample.lang}|{opening}"


def middle_frame(samples: Sequence[Sample]) -> list[Sample]:
    """The same questions about a clip that stands still: its middle frame, for every frame."""
    still = []
    for sample in samples:
        media = tuple(
            replace(m, start=(at := _middle(m)), end=at + STILL_SECONDS) if m.modality == "video" else m
            for m in sample.media
        )
        still.append(replace(sample, media=media))
    return still


def _middle(media: Media) -> float:
    """Seconds at the middle of a clip's window."""
    if media.start is not None and media.end is not None:
        return (media.start + media.end) / 2
    with av.open(str(media.source)) as container:
        return float((container.duration or 0) / av.time_base) / 2
