"""What a task is: how a sample is put to the model, how the text that comes back is read, and how it is scored. A task never sees a tensor."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from monoglot.errors import InputError
from monoglot.nouns import Box, Media, Posed, Sample
from monoglot.plugins import media_kinds
from monoglot.registry import Registry


@dataclass(frozen=True)
class Task:
    """One task on one page."""

    pose: Callable[[Sample], Posed]
    """Sample -> prompt and target. Raises InputError when the sample lacks what the task needs."""
    metrics: tuple[str, ...]
    """Names in `monoglot.evaluate.metrics`, the main one first."""
    source: str
    """Where the wording comes from."""
    vary: Callable[[Sample, int], Sample] | None = None
    """(sample, variant) -> sample, for a task that makes its question itself (a text with gaps); None when rows hold it."""
    answer: Callable[[str], str | Box | None] = str.strip
    """Decoded text -> what the user gets; None when it cannot be read."""
    max_length: int = 24
    """Longest answer in tokens."""
    length_penalty: float = 0.0
    """Answers are ranked by log-probability / length ** length_penalty; 0 for the most probable answer, 1 where longer ones are to have a chance."""
    top_k: int = 0
    """Above 0 answers are drawn, among so many likeliest tokens at a time, instead of searched for."""


TASKS: Registry[Task] = Registry("task")


def words(sample: Sample) -> str:
    """The row's text, with the leading space that byte-level BPE words carry."""
    return " " + " ".join(sample.text.split())


def target(sample: Sample) -> str:
    """The first reference as the decoder writes it; empty when the answer is not known."""
    return f" {sample.targets[0]}" if sample.targets else ""


def need_media(sample: Sample, *modalities: str, task: str) -> tuple[Media, ...]:
    """The sample's media; InputError unless there is at least one of the named modalities, or of any if none is named."""
    if not any(media.modality in modalities or not modalities for media in sample.media):
        wanted = "/".join(modalities or media_kinds())
        raise InputError.at(
            sample.where or f"sample {sample.id}", wanted, f"task {task!r} needs one", "add it to the row"
        )
    return sample.media


def need_text(sample: Sample, *, task: str, what: str) -> str:
    """The sample's text; InputError when it is empty."""
    if not sample.text.strip():
        raise InputError.at(sample.where or f"sample {sample.id}", "text", f"task {task!r} needs {what}", "it is empty")
    return words(sample)


def kind_of(media: tuple[Media, ...]) -> str:
    """The modality that a prompt speaks of: the first one's."""
    return media[0].modality
