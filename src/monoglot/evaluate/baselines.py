"""Plain answers that a model has to beat: the most common one, the nearest training picture's, the lead sentence, the biggest guess of a box.

Each is a function of the test rows and the training rows; none looks at the test answers.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice

import numpy as np
import torch

from monoglot.data.features import KeptFeatures
from monoglot.data.prepare import Example, Preparer
from monoglot.errors import InputError
from monoglot.modalities.video import VideoConfig, read_frames
from monoglot.model.features import features
from monoglot.model.unified import UnifiedModel
from monoglot.nouns import Media, Prediction, Sample


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


def nearest_neighbour(
    samples: Sequence[Sample],
    training: Sequence[Sample],
    model: UnifiedModel,
    preparer: Preparer,
    cache: KeptFeatures | None = None,
) -> list[Prediction]:
    """The answer of the training row whose first media item is nearest: cosine of the frozen encoder's features, averaged over the item's tokens.

    Training rows that cannot be read are left out; a row that cannot be read itself, or that has nothing to be near to, gets an error.
    """
    answers = [Prediction(sample.id, sample.task, "", error="no neighbour") for sample in samples]
    for modality in model.config.modalities:
        asked, here = mean_features(samples, modality, model, preparer, cache)
        known, there = mean_features(training, modality, model, preparer, cache)
        if asked and known:
            for index, nearest in zip(asked, (here @ there.T).argmax(1).tolist()):
                answers[index] = replace(answers[index], text=training[known[nearest]].targets[0], error=None)
    return answers


@torch.no_grad()
def mean_features(
    samples: Sequence[Sample],
    modality: str,
    model: UnifiedModel,
    preparer: Preparer,
    cache: KeptFeatures | None = None,
    batch: int = 32,
) -> tuple[list[int], torch.Tensor]:
    """Numbers of the samples whose first media item is of that modality and can be read; float[N, C], rows of length 1."""
    numbers: list[int] = []
    rows: list[torch.Tensor] = []
    items = _items(samples, modality, preparer)
    while part := list(islice(items, batch)):
        numbers += [number for number, _ in part]
        (found,) = features(model, preparer.collate([example for _, example in part]), cache).values()
        rows += [feature.mean(0) for feature in found]
    return numbers, torch.nn.functional.normalize(torch.stack(rows), dim=1) if rows else torch.zeros(0, 0)


def _items(samples: Sequence[Sample], modality: str, preparer: Preparer) -> Iterator[tuple[int, Example]]:
    """Each sample's first media item alone, laid out."""
    for number, sample in enumerate(samples):
        if sample.media and sample.media[0].modality == modality:
            alone = replace(sample, task="caption", media=sample.media[:1], choices=(), text="")
            try:
                example = preparer.example(alone, with_target=False)
            except InputError:
                continue
            yield number, example


def _question(sample: Sample) -> str:
    """Rows that ask the same: the words of the question without the names in it that differ from row to row."""
    opening = (
        "|".join(sorted(sample.choices))
        if sample.task in ("classify", "matching")
        else " ".join(sample.text.split()[:3])
    )
    return f"{sample.task}|{sample.lang}|{opening}"


def middle_frame(samples: Sequence[Sample], settings: VideoConfig) -> Iterator[Sample]:
    """The same questions about clips that stand still: the frame in the middle, for every frame. A clip that cannot be read stays as it is."""
    for sample in samples:
        media = tuple(_still(item, settings) if item.modality == "video" else item for item in sample.media)
        yield replace(sample, media=media)


def _still(clip: Media, settings: VideoConfig) -> Media:
    try:
        return Media("video", read_frames(clip, settings.model_copy(update={"frames": 1})))
    except InputError:
        return clip
