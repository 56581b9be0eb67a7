"""infill: a text with gaps -> the whole text."""

from __future__ import annotations

import math
import re
from dataclasses import replace

import numpy as np

from monoglot.errors import InputError
from monoglot.nouns import Posed, Sample, Symbols
from monoglot.rng import stream
from monoglot.tasks.base import TASKS, Task, need_text, target

GAP = "<mask>"
"""How a row writes a gap; it may stand for any number of words, none too."""
RATIO, MEAN_SPAN = 0.3, 3.0


def pose(sample: Sample) -> Posed:
    text = need_text(sample, task="infill", what="a text with gaps")
    if GAP not in text:
        raise InputError.at(
            sample.where or f"sample {sample.id}", "text", f"has no {GAP}", f'mark each gap: "the {GAP} cup"'
        )
    pieces = re.split(f" ?({GAP})", text)
    gapped = tuple(Symbols(piece) if piece == GAP else piece for piece in pieces if piece)
    return Posed((*sample.media, ' what is the complete text of "', *gapped, ' "?'), target(sample))


def vary(sample: Sample, variant: int) -> Sample:
    """A raw row, whose text has no gap but whose target is known, gets its gaps here: others for each variant."""
    if GAP in sample.text or not sample.targets:
        return sample
    words = sample.targets[0].split()
    return replace(sample, text=" ".join(make_gaps(words, stream(0, "infill", sample.id, variant))))


def make_gaps(
    words: list[str], rng: np.random.Generator, *, ratio: float = RATIO, span: float = MEAN_SPAN
) -> list[str]:
    """BART's text infilling (arXiv 1910.13461): `ratio` of the words vanish in spans of Poisson(`span`) words, one gap each.

    A span of no words is a gap between two words. Spans that meet become one gap; the text's end cuts a span short.

    >>> make_gaps("a b c d e f g h".split(), np.random.default_rng(2))
    ['a', 'b', '<mask>', 'f', 'g', 'h']
    """
    budget = math.ceil(len(words) * ratio)
    lengths: list[int] = []
    while sum(lengths) < budget:
        lengths.append(min(int(rng.poisson(span)), budget - sum(lengths)))
    spans = [length for length in lengths if length]
    hidden, opens = np.zeros(len(words), dtype=bool), np.zeros(len(words), dtype=bool)
    for start, length in zip(rng.permutation(len(words)), spans):
        opens[start] = True
        hidden[start + 1 : start + length] = True
    # Where a span begins inside of another, they are one gap.
    gapped = [GAP if opens[i] else word for i, word in enumerate(words) if not hidden[i]]
    for _ in range(len(lengths) - len(spans)):
        gapped.insert(int(rng.integers(len(gapped) + 1)), GAP)
    return gapped


INFILL = TASKS.add(
    "infill",
    Task(
        pose=pose,
        vary=vary,
        metrics=("rouge_l", "exact_match"),
        source="prompt and noise: OFA (arXiv 2202.03052), as BART (arXiv 1910.13461)",
        max_length=256,
        length_penalty=1.0,
    ),
)
