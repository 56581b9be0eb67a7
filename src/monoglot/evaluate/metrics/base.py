"""What a metric is, and the registry of all of them.

    predictions, references, languages -> terms float64[N, K] -> value (of the sums: the set; of single rows: each item)

Letters: N items, K terms an item.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from monoglot.errors import InputError
from monoglot.evaluate.intervals import Statistic, bootstrap, ratio
from monoglot.nouns import Box
from monoglot.registry import Registry

Terms = Callable[[list[Any], list[Any], list[str]], np.ndarray]
"""(predictions, references, languages), N each -> float64[N, K], the terms whose sums the value is computed from."""


@dataclass(frozen=True)
class Metric:
    """One way to score a set of answers against what was expected."""

    name: str
    terms: Terms
    value: Statistic = ratio
    higher_is_better: bool = True
    unit: str = "fraction"
    """What 1.0 means; 'fraction' is a share in [0, 1]."""
    reads: Literal["text", "box"] = "text"
    """Which part of an answer is scored: the text against the reference texts, or the box against the reference box."""
    source: str = ""

    def score(
        self,
        predictions: Sequence[str | Box | None],
        references: Sequence[Sequence[str] | Box],
        *,
        lang: str | Sequence[str] = "en",
    ) -> Scores:
        """Score N answers.

        Args:
            predictions: texts, or boxes for a metric that reads boxes. None is no answer: an empty text, or no box.
            references: for each answer its reference texts (a single text is a list of one), or its box x0 y0 x1 y1.
            lang: language code of all texts, or one for each. Texts of "ja", "zh" and "th" are compared by character.

        Raises:
            InputError: nothing to score, lengths that differ, an item without a reference.
        """
        count = len(predictions)
        if not count:
            raise InputError(f"{self.name}: nothing to score; give at least one prediction")
        langs = [lang] * count if isinstance(lang, str) else list(lang)
        if not count == len(references) == len(langs):
            raise InputError(
                f"{self.name}: {count} predictions, {len(references)} references, {len(langs)} languages; give one each"
            )
        if self.reads == "text":
            answers: list[Any] = ["" if answer is None else answer for answer in predictions]
            expected: list[Any] = [(one,) if isinstance(one, str) else tuple(one) for one in references]
        else:
            answers, expected = list(predictions), list(references)
        for index, one in enumerate(expected):
            if one is None or not len(one):
                raise InputError(f"{self.name}: item {index} has no reference; give at least one")
        return Scores(self, np.asarray(self.terms(answers, expected, langs), dtype=np.float64))


@dataclass(frozen=True)
class Scores:
    """What a metric says about a set."""

    metric: Metric
    terms: np.ndarray
    """float64[N, K]"""

    @property
    def value(self) -> float:
        """The score of the whole set."""
        return float(self.metric.value(self.terms.sum(axis=0)))

    @property
    def per_item(self) -> np.ndarray:
        """float64[N]: the score that each item would get alone."""
        return self.metric.value(self.terms)

    def interval(
        self, *, seed: int, groups: Sequence[Hashable] | None = None, resamples: int = 1000, level: float = 0.95
    ) -> tuple[float, float]:
        """Bootstrap interval of `value`; see `monoglot.evaluate.intervals.bootstrap`.

        CIDEr keeps the document frequencies of the whole set while items are resampled.
        """
        return bootstrap(self.terms, self.metric.value, seed=seed, groups=groups, resamples=resamples, level=level)


METRICS: Registry[Metric] = Registry("metric")
