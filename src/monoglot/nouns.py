"""The nouns that travel through monoglot, in the order of travel. No tensor here: importing this file costs nothing.

    row -> Sample -> (task poses) -> Posed -> (assemble) -> Sequence -> (collate) -> Batch -> model -> Prediction

`Batch` holds tensors and therefore lives in `monoglot.data.collate`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

Box = tuple[float, float, float, float]
"""x0 y0 x1 y1 as fractions of the image, each in [0, 1]; x runs right, y runs down."""


@dataclass(frozen=True)
class Media:
    """One picture, clip or sound, not yet read.

    `source` is a path, `tar://shard.tar#member`, or an object in memory (a PIL image, an array, ...), which the modality names.
    `start` and `end` are seconds and cut a window out of video and audio.
    """

    modality: str
    source: Any
    start: float | None = None
    end: float | None = None
    hidden: Box | None = None
    """A part of a picture that is painted grey after it is read, so that it can be asked for."""


@dataclass(frozen=True)
class Sample:
    """One row as the user wrote it, checked. See the row format in docs/rows.md."""

    id: str
    task: str
    media: tuple[Media, ...] = ()
    text: str = ""
    targets: tuple[str, ...] = ()
    box: Box | None = None
    choices: tuple[str, ...] = ()
    lang: str = "en"
    weight: float = 1.0
    meta: dict[str, Any] = field(default_factory=dict)
    """Every key of the row that is not part of the format: kept, never read by the model (style, kit, speaker, group ...)."""
    where: str = ""
    """`file:line`, for messages."""


class Symbols(str):
    """Vocabulary entries written out, such as `<bin_3> <bin_7>`, parted by spaces. Plain `str` is always a user's words and never read as symbols."""


Writes = Literal["words", "box", "objects", "codes"]
"""Words alone; one box; boxes, each with the words for what it holds; a picture's image codes."""


@dataclass(frozen=True)
class Posed:
    """A sample put as a task puts it: what the encoder reads, in order, and what the decoder should write."""

    prompt: tuple[str | Media, ...]
    """Words (`str`, with the leading space of the published prompts), `Symbols` and media, in the order in which they are read."""
    target: str | tuple[str, ...] = ""
    """Words or `Symbols`, or both in the order in which they are written; empty when the answer is not known."""
    choices: tuple[str, ...] = ()
    """When not empty, the answer is one of these."""
    writes: Writes = "words"
    """What the answer is made of; the search keeps to it."""
    echo: bool = False
    """The decoder is given the prompt's words before it answers (the published `prompt_type` prev_output)."""


@dataclass(frozen=True)
class Span:
    """Where one media item sits in a sequence: its tokens occupy `start .. start + length`."""

    modality: str
    start: int
    length: int


@dataclass(frozen=True)
class Sequence:
    """One row as numbers. `source_ids` holds `pad` where media tokens go; `spans[i]` says where `media[i]` goes."""

    source_ids: np.ndarray
    """int64[S]"""
    spans: tuple[Span, ...]
    media: tuple[Any, ...]
    """What each modality's `prepare` returned, one for each span."""
    target_ids: np.ndarray
    """int64[T], ends with eos; empty at prediction time."""
    weight: float = 1.0
    given_ids: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    """int64[G]: what the decoder reads before the target and never has to predict; mostly empty."""
    codes: bool = False
    """The target is a grid of image codes."""


@dataclass(frozen=True)
class Candidate:
    text: str
    probability: float


@dataclass(frozen=True)
class Prediction:
    """One answer, as `monoglot predict --json` writes it."""

    id: str
    task: str
    text: str
    box: Box | None = None
    confidence: float = 0.0
    """Probability that the model gives to this answer, in [0, 1]."""
    candidates: tuple[Candidate, ...] = ()
    seconds: float = 0.0
    error: str | None = None

    def to_json(self) -> dict[str, Any]:
        """The contract's keys, ready for json.dumps."""
        return {
            "id": self.id,
            "task": self.task,
            "text": self.text,
            "box": list(self.box) if self.box is not None else None,
            "confidence": self.confidence,
            "candidates": [{"text": c.text, "probability": c.probability} for c in self.candidates],
            "seconds": self.seconds,
            "error": self.error,
        }
