"""A search as a figure: two files of rows against each other, or one against the coefficient.

trials -> search.png
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from monoglot.files import atomic_path
from monoglot.merge.search import Trial

MERGED, PARENT = "#4a7fd6", "#d1702a"


def draw(trials: Sequence[Trial], files: Sequence[str], path: Path) -> str | None:
    """Write the figure. Returns what to tell when it cannot be drawn, since matplotlib is an extra.

    With two files or more: scores on the first two. With one: the score over the second parent's weight; over the scale when there is one parent.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return "no search.png: pip install 'monoglot[report]' brings matplotlib"
    figure = Figure(figsize=(5.6, 4.2), layout="constrained")
    axes = figure.subplots()
    tried = [trial for trial in trials if trial.coefficients is not None]
    parents = [trial for trial in trials if trial.coefficients is None]
    if len(files) > 1:
        for group, colour, mark in ((tried, MERGED, "o"), (parents, PARENT, "s")):
            axes.scatter(
                [t.scores[0].value for t in group], [t.scores[1].value for t in group], color=colour, marker=mark
            )
        for trial in trials:
            place = trial.scores[0].value, trial.scores[1].value
            axes.annotate(_label(trial), place, xytext=(4, 4), textcoords="offset points", fontsize=7)
        axes.set(xlabel=f"{files[0]}: {trials[0].scores[0].metric}", ylabel=f"{files[1]}: {trials[0].scores[1].metric}")
    else:
        over_weight = len(parents) > 1
        x = [_coefficient(trial, over_weight) for trial in tried]
        axes.scatter(x, [trial.scores[0].value for trial in tried], color=MERGED)
        for index, trial in enumerate(parents):
            axes.axhline(
                trial.scores[0].value, color=PARENT, linestyle=("--", ":")[index % 2], label=Path(trial.name).name
            )
        axes.set(
            xlabel="weight of the second model" if over_weight else "scale",
            ylabel=f"{files[0]}: {trials[0].scores[0].metric}",
        )
        axes.legend(fontsize=7)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=130, format="png")
    return None


def _coefficient(trial: Trial, over_weight: bool) -> float:
    assert trial.coefficients is not None, "parents are drawn as lines"
    return trial.coefficients.weights[1] if over_weight else trial.coefficients.scale


def _label(trial: Trial) -> str:
    c = trial.coefficients
    if c is None:
        return Path(trial.name).name
    scale = "" if c.scale == 1 else f" x{c.scale:g}"
    return "/".join(f"{weight:.2f}" for weight in c.weights) + scale
