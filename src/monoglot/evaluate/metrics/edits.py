"""wer, cer: how many edits turn a transcript into what was said, for each word (or character) that was said.

Of several references the one that is fewest edits a word away counts. The set's rate is all edits / all words.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from monoglot.evaluate.metrics.base import METRICS, Metric, Terms
from monoglot.evaluate.metrics.sequences import edit_distance
from monoglot.evaluate.metrics.text import characters, words


def edits(tokens: Callable[[str, str], list[str]]) -> Terms:
    """Terms [edits, reference length] under a way of splitting a text of a language into tokens."""

    def terms(predictions: list[str], references: list[tuple[str, ...]], langs: list[str]) -> np.ndarray:
        pairs = []
        for prediction, targets, lang in zip(predictions, references, langs):
            said = tokens(prediction, lang)
            expected = [tokens(target, lang) for target in targets]
            options = [(edit_distance(target, said), len(target)) for target in expected]
            pairs.append(min(options, key=lambda option: option[0] / max(option[1], 1)))
        return np.array(pairs, dtype=np.float64)

    return terms


WER = METRICS.add(
    "wer",
    Metric(
        "wer",
        edits(words),
        higher_is_better=False,
        unit="edits a word",
        source="lower case, punctuation dropped, as jiwer with those transforms; by character for unspaced languages",
    ),
)
CER = METRICS.add(
    "cer",
    Metric(
        "cer",
        edits(characters),
        higher_is_better=False,
        unit="edits a character",
        source="as wer, on characters; single spaces count except in unspaced languages",
    ),
)
