"""rouge_l, rouge_l_coco: how much of the reference comes back in the same order, gaps allowed.

With P and R the longest common subsequence as a share of the answer's and of the reference's tokens:
rouge_l       2 P R / (P + R), of the best reference: for summaries
rouge_l_coco  (1 + 1.44) P R / (R + 1.44 P), with the best P and the best R of any reference: as the COCO caption tool
An empty answer or reference scores 0.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from monoglot.evaluate.intervals import averaged
from monoglot.evaluate.metrics.base import METRICS, Metric, Terms
from monoglot.evaluate.metrics.sequences import common_lengths
from monoglot.evaluate.metrics.text import caption_tokens

COCO_BETA = 1.2
"""Weight of recall against precision in the COCO caption tool."""

Shares = list[tuple[float, float]]
"""(P, R) for each reference."""


def f_score(precision: float, recall: float, beta: float) -> float:
    """Weighted harmonic mean; 0 when both are 0.

    >>> f_score(0.5, 0.5, 1.2)
    0.5
    """
    below = recall + beta**2 * precision
    return (1 + beta**2) * precision * recall / below if below else 0.0


def plain(shares: Shares) -> float:
    return max(f_score(precision, recall, 1.0) for precision, recall in shares)


def coco(shares: Shares) -> float:
    return f_score(max(p for p, _ in shares), max(r for _, r in shares), COCO_BETA)


def subsequence(combine: Callable[[Shares], float]) -> Terms:
    """Terms of the mean over items of `combine(P and R for each reference)`."""

    def terms(predictions: list[str], references: list[tuple[str, ...]], langs: list[str]) -> np.ndarray:
        scores = []
        for prediction, targets, lang in zip(predictions, references, langs):
            said = caption_tokens(prediction, lang)
            expected = [caption_tokens(target, lang) for target in targets]
            common = common_lengths(said, expected)
            shares = [(c / max(len(said), 1), c / max(len(one), 1)) for c, one in zip(common, expected)]
            scores.append(combine(shares))
        return averaged(scores)

    return terms


ROUGE_L = METRICS.add("rouge_l", Metric("rouge_l", subsequence(plain), source="Lin 2004, F1"))
ROUGE_L_COCO = METRICS.add(
    "rouge_l_coco", Metric("rouge_l_coco", subsequence(coco), source="Lin 2004 as in the COCO caption tool, beta 1.2")
)
