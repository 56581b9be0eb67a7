"""Coefficients looked for on validation rows.

    parents measured -> two parents: a grid of weights, then its finer neighbours; more: from equal weights towards one parent at a time -> scale -> trials

Every merged model that is tried is measured on every file; the badness of a trial is the mean over files.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress

from monoglot.merge.parents import Parent
from monoglot.merge.plan import Coefficients
from monoglot.merge.recipe import MergePage
from monoglot.merge.score import RESULT, Judge, Measured

GRID = (0.5, 0.25, 0.75)
"""Weights of the second of two parents that are tried first."""
FINER = (0.125, 0.0625)
"""Steps to both sides of the best weight, one after the other."""
TOWARDS = (0.5, 0.25)
"""How far more than two go towards one parent: these parts of the way."""
SCALES = (0.5, 0.75, 1.25, 1.5, 2.0)
"""Factors of the page's scale that are tried with the best weights."""


@dataclass(frozen=True)
class Trial:
    """A model and its scores; a parent has no coefficients."""

    name: str
    coefficients: Coefficients | None
    scores: list[Measured]

    @property
    def badness(self) -> float:
        return sum(score.badness for score in self.scores) / len(self.scores)

    def to_json(self) -> dict[str, Any]:
        c = self.coefficients
        told = {} if c is None else {"weights": list(c.weights), "scale": c.scale}
        return {"model": self.name, **told, "scores": [score.to_json() for score in self.scores]}


def find(page: MergePage, parents: Sequence[Parent], judge: Judge, made: Callable[[Coefficients], Path]) -> list[Trial]:
    """All trials, the parents' own first.

    Args:
        made: writes the model of some coefficients and returns its folder, which the next one may replace.
    """
    assert page.search is not None, "asked for by a page with a search"
    screen = Console(stderr=True)
    with Progress(console=screen, transient=True, disable=not screen.is_terminal) as progress:
        bar = progress.add_task("search", total=len(parents) + page.search.trials)
        trials = []
        for parent in parents:
            trials.append(Trial(parent.given, None, judge.measure(parent.folder)))
            progress.advance(bar)

        def measured(c: Coefficients) -> float:
            trial = Trial(RESULT, c, judge.measure(made(c)))
            trials.append(trial)
            progress.advance(bar)
            return trial.badness

        start = Coefficients(
            (1 / len(parents),) * len(parents), page.setting("scale"), page.setting("density"), page.seed
        )
        look(
            start,
            measured,
            page.search.trials,
            weighted=page.merger.weighted,
            scaled="scale" in page.merger.settings,
        )
    return trials


def look(
    start: Coefficients,
    measured: Callable[[Coefficients], float],
    trials: int,
    *,
    weighted: bool = True,
    scaled: bool = False,
) -> Coefficients:
    """The best coefficients found with at most so many calls of `measured`, whose values are to be small.

    >>> wanted = lambda c: (c.weights[1] - 0.3) ** 2
    >>> round(look(Coefficients((0.5, 0.5)), wanted, 12).weights[1], 4)
    0.3125
    """
    known: dict[Coefficients, float] = {}

    def best() -> Coefficients:
        return min(known, key=lambda c: known[c])

    for propose in _stages(len(start.weights), weighted, scaled):
        for c in propose(best() if known else start):
            if len(known) == trials:
                return best()
            if c not in known:
                known[c] = measured(c)
    return best()


Propose = Callable[[Coefficients], Iterator[Coefficients]]


def _stages(parents: int, weighted: bool, scaled: bool) -> Iterator[Propose]:
    """What is proposed one after the other, each around the best so far."""
    if not weighted or parents == 1:
        yield lambda c: iter([c])
    elif parents == 2:
        yield lambda c: (replace(c, weights=(1 - t, t)) for t in GRID)
        for step in FINER:
            yield lambda c, step=step: (  # type: ignore[misc]
                replace(c, weights=(1 - t, t)) for t in (c.weights[1] - step, c.weights[1] + step)
            )
    else:
        yield lambda c: iter([c])
        for part in TOWARDS:
            yield lambda c, part=part: (replace(c, weights=_towards(c.weights, i, part)) for i in range(parents))  # type: ignore[misc]
    if scaled:
        yield lambda c: (replace(c, scale=c.scale * factor) for factor in SCALES)


def _towards(weights: tuple[float, ...], parent: int, part: float) -> tuple[float, ...]:
    """That part of the way from these weights to one parent alone."""
    return tuple((1 - part) * weight + part * (index == parent) for index, weight in enumerate(weights))
