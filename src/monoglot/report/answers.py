"""One row and its answer, ready to be shown.

Sample + Prediction -> judge -> Verdict        Sample + Prediction -> card -> Card (page.py shows it)
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from monoglot.errors import InputError
from monoglot.evaluate.metrics import METRICS
from monoglot.nouns import Box, Media, Prediction, Sample, Symbols
from monoglot.report import figures
from monoglot.report.figures import Picture, Sound
from monoglot.tasks import TASKS, pose

RIGHT: dict[str, Callable[[float], bool]] = {
    "exact_match": lambda value: value == 1,
    "accuracy": lambda value: value == 1,
    "vqa_accuracy": lambda value: value >= 0.5,
    "iou_at_0.5": lambda value: value == 1,
    "wer": lambda value: value == 0,
}
"""Metrics by which one answer is right or wrong, and from which value on it is right. By any other it is only scored."""
NAMES = {"rouge_l": "ROUGE-L", "wer": "word error rate", "iou_at_0.5": "overlap of at least 0.5"}
NEEDS_A_SET = ("cider_d", "cider")
"""Metrics that weigh words by how rare they are among all rows, so that one row alone has no score."""
LONG = 100
"""Characters; a longer piece of a prompt is shown apart from the question."""
CUT = 700
"""Characters of a long text that are shown."""
BRIEF = 90
"""Characters of a candidate that are shown."""


@dataclass(frozen=True)
class Verdict:
    """What a task's main metric says about one answer."""

    metric: str
    value: float
    right: bool | None
    """None: an answer of this task is more or less good, not right or wrong."""
    note: str = ""
    """The value in words, where it says more than right or wrong."""

    @property
    def name(self) -> str:
        """The metric as a reader knows it."""
        return NAMES.get(self.metric, self.metric.replace("_", " "))


def judge(sample: Sample, prediction: Prediction) -> Verdict | None:
    """The verdict on one answer; None when the row does not say what is right, or its task is not known here."""
    if sample.task not in TASKS:
        return None
    name = next(metric for metric in TASKS[sample.task].metrics if metric not in NEEDS_A_SET)
    metric = METRICS[name]
    reference = sample.box if metric.reads == "box" else sample.targets
    if not reference:
        return None
    answer = prediction.box if metric.reads == "box" else prediction.text
    answered = None if prediction.error else answer
    value = metric.score([answered], [reference], lang=sample.lang).value
    note = ""
    if metric.reads == "box":
        note = f"overlap {METRICS['iou'].score([answered], [reference]).value:.2f}"
    elif name == "wer" and value > 0:
        note = f"word error rate {value:.0%}"
    elif name not in RIGHT:
        note = f"{NAMES.get(name, name)} {value:.2f}"
    return Verdict(name, value, RIGHT[name](value) if name in RIGHT else None, note)


@dataclass(frozen=True)
class Region:
    """A box drawn on a picture."""

    box: Box
    label: str
    dashed: bool = False


@dataclass(frozen=True)
class View:
    """One media item, shown: a picture with regions, or the frames of a clip, or a sound."""

    picture: Picture | None = None
    regions: tuple[Region, ...] = ()
    frames: tuple[Picture, ...] = ()
    sound: Sound | None = None
    alt: str = ""


@dataclass(frozen=True)
class Card:
    """Everything a page shows about one row."""

    id: str
    task: str
    question: str
    document: str
    """The long text that the question is about, cut; empty if there is none."""
    views: tuple[View, ...]
    answer: str
    confidence: float
    others: tuple[tuple[str, float], ...]
    """Candidates behind the answer, with their probabilities."""
    truth: str
    verdict: Verdict | None
    seconds: float
    lang: str = "en"
    about: str = ""
    error: str | None = None

    @property
    def wide(self) -> bool:
        """The media want the whole width: they run in time."""
        return any(view.frames or view.sound for view in self.views)

    @property
    def boxed(self) -> bool:
        """Something is drawn on a picture, which therefore wants more room."""
        return any(view.regions for view in self.views)


def card(sample: Sample, prediction: Prediction) -> Card:
    """Show one row and its answer. Media that cannot be read are left out; the answer's error says why."""
    question, document = question_of(sample)
    about = " · ".join(str(sample.meta[key]) for key in ("about", "licence") if key in sample.meta)
    return Card(
        id=sample.id,
        task=sample.task,
        question=question,
        document=document,
        views=tuple(views(sample, prediction)),
        answer=readable(prediction.text, prediction.box),
        confidence=prediction.confidence,
        others=tuple((cut(readable(other.text), BRIEF), other.probability) for other in prediction.candidates[1:4]),
        truth=truth_of(sample),
        verdict=judge(sample, prediction),
        seconds=prediction.seconds,
        lang=sample.lang,
        about=about,
        error=prediction.error,
    )


def question_of(sample: Sample) -> tuple[str, str]:
    """(what the model is asked, the long text that it is asked about), without media."""
    pieces, document = [], ""
    try:
        prompt: Sequence[str | Media] = pose(sample).prompt
    except InputError:
        prompt = (sample.text,)
    for piece in prompt:
        if isinstance(piece, Symbols):
            pieces.append("the marked box")
        elif isinstance(piece, str) and len(piece) > LONG:
            document = f"{document} {piece}".strip()
            pieces.append("…")
        elif isinstance(piece, str):
            pieces.append(piece.strip())
    return re.sub(r'"\s*(.*?)\s*"', r"“\1”", " ".join(pieces)), cut(document, CUT)


def cut(text: str, length: int) -> str:
    """Shorten at a space.

    >>> cut("one two three four", 12)
    'one two …'
    """
    return text if len(text) <= length else textwrap.shorten(text, length, placeholder=" …") or text[:length] + "…"


def readable(text: str, box: Box | None = None) -> str:
    """An answer as a reader takes it: boxes as fractions, long texts cut.

    >>> readable("<bin_0> <bin_250> <bin_500> <bin_999>")
    'x 0.00–0.50, y 0.25–1.00'
    """
    if box is None and text.startswith("<bin_"):
        box = TASKS["grounding"].answer(text)  # type: ignore[assignment]
    if box is not None:
        x0, y0, x1, y1 = box
        return f"x {x0:.2f}–{x1:.2f}, y {y0:.2f}–{y1:.2f}"
    return cut(text, CUT)


def truth_of(sample: Sample) -> str:
    """The right answer, its synonyms after it; empty if the row has none."""
    if sample.targets:
        return " / ".join(cut(target, CUT) for target in sample.targets[:4])
    return readable("", sample.box) if sample.box is not None else ""


def views(sample: Sample, prediction: Prediction) -> list[View]:
    """Each picture, clip and sound of the row; those that cannot be read are left out."""
    shown = []
    for number, media in enumerate(sample.media, start=1):
        which = f" {number}" if len(sample.media) > 1 else ""
        alt = f"{'clip' if media.modality == 'video' else media.modality}{which} of row {sample.id}"
        try:
            if media.modality == "image":
                shown.append(View(figures.picture(media, alt), regions(sample, prediction), alt=alt))
            elif media.modality == "video":
                shown.append(View(frames=tuple(figures.frames(media)), alt=alt))
            elif media.modality == "audio":
                shown.append(View(sound=figures.sound(media, alt), alt=alt))
        except InputError:
            continue
    return shown


def regions(sample: Sample, prediction: Prediction) -> tuple[Region, ...]:
    """What is drawn on the row's pictures."""
    if sample.task == "region_caption":
        return (Region(sample.box, "asked about"),) if sample.box else ()
    found = (Region(prediction.box, "answer"),) if prediction.box else ()
    return found + ((Region(sample.box, "truth", dashed=True),) if sample.box else ())
