"""One answer, stage by stage: Predictor.predict itself, with a clock at its joints.

read (file -> picture, frames, samples) -> prepare (-> arrays, sequence, batch) -> media (encoders) -> encode (transformer) -> decode (search, text)
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from monoglot.bench.measure import Clock, Seconds, Stages
from monoglot.data.rows import read_rows
from monoglot.decode.predict import Predictor
from monoglot.modalities import audio, image, video
from monoglot.model.unified import UnifiedModel
from monoglot.nouns import Sample
from monoglot.store import BUNDLED

SAMPLES = BUNDLED / "samples" / "rows.jsonl"
STAGES = ("read", "prepare", "media", "encode", "decode")
READERS = ((image, "read_picture", "read"), (video, "read_frames", "read"), (audio, "read_samples", "read"))
"""Where `prepare` of each kind reads its file. Plugins read and prepare in one: all of it counts as prepare."""


@dataclass(frozen=True)
class Question:
    """A bundled sample that stands for its kind."""

    kind: str
    row: str
    """Its id in samples/rows.jsonl."""


QUESTIONS = (
    Question("picture", "photo/chelsea"),
    Question("clip", "clips-direction-test-0152"),
    Question("sound", "spoken_names/test/1f6b9/0"),
    Question("text", "astropy/astropy.io.fits.header.Header.set"),
)


def questions(model_reads: object) -> dict[str, Sample]:
    """The bundled sample of each kind of media that a model reads (anything with `in`), and a text."""
    rows = {sample.id: sample for sample in read_rows(SAMPLES)}
    asked = {question.kind: rows[question.row] for question in QUESTIONS}
    return {kind: s for kind, s in asked.items() if all(m.modality in model_reads for m in s.media)}  # type: ignore[operator]


def ask(predictor: Predictor, sample: Sample) -> Any:
    """`sample` as a user asks it: Predictor.predict with a path."""
    media: dict[str, list[Any]] = {}
    for item in sample.media:
        media.setdefault(item.modality, []).append(item.source)
    given = {"text": sample.text, "choices": sample.choices, "box": sample.box, "lang": sample.lang}
    return predictor.predict(task=sample.task, **given, **media)  # type: ignore[arg-type]


def by_stage(predictor: Predictor, sample: Sample, clock: Clock = time.perf_counter) -> Seconds:
    """Seconds of each stage of one answer, and their `total`. What answers by a head is all of it decode, but for reading."""
    stages = Stages(clock)
    watched = (
        *READERS,
        (predictor, "_example", "prepare"),
        (predictor.preparer, "collate", "prepare"),
        (UnifiedModel, "encode_media", "media"),  # of whichever model it answers by
        (UnifiedModel, "encode", "encode"),
    )
    with stages.watching(watched), stages("decode"):
        ask(predictor, sample)
    seconds = {stage: stages.seconds.get(stage, 0.0) for stage in STAGES}
    return seconds | {"total": sum(seconds.values())}


def pictures(count: int) -> list[Path]:
    """So many bundled picture files; from the first again when there are not enough."""
    files = sorted(path for path in (SAMPLES.parent / "media").iterdir() if path.suffix == ".jpg")
    return [files[index % len(files)] for index in range(count)]
