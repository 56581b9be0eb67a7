"""A run as figures: what it learned, from what, how fast.

History -> losses / regrets / mixture / weights / signs / conflicts -> Picture

No figure has more than ten colours: where there are more data sets, each gets a panel or a row of its own, or those with
the fewest rows share the grey.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from monoglot.report.figures import INK, WAVE, Picture, svg
from monoglot.report.history import History, Series, nansum

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = (WAVE, "#d1702a", "#2f9a64", "#cf4f86", "#9a7a1f", "#8a63c9", "#1f96a8", "#d14a41", "#6f8426")
"""Each stands out from white and from black by 3 to 1 (WCAG 2.2, 1.4.11)."""
GREY = "#84888f"
"""All further data sets."""
HELD_OUT = COLOURS[1]
WIDTH = 10.4
"""Inches; the page is as wide."""
POINTS = 240
"""Most points of a line."""
PALE = 0.25
"""Nats: a regret far below this is pale, whatever the others are."""
OPPOSED = 0.25
"""The colours of cosines reach at least to this and its opposite, so that chance stays pale."""
LONG = 24
"""Characters of a data set's name that a figure shows."""


def colours(history: History) -> dict[str, str]:
    """Data set -> colour, the same in all figures: those with the most rows have their own."""
    names = history.names
    if len(names) > len(COLOURS):
        weight = {name: _share(history, name) for name in names}
        kept = set(sorted(names, key=lambda name: -weight[name])[: len(COLOURS)])
    else:
        kept = set(names)
    fresh = iter(COLOURS)
    return {name: next(fresh) if name in kept else GREY for name in names}


def losses(history: History) -> Picture | None:
    """A panel for each data set: loss of single steps, its running mean, and held-out loss. None without any loss."""
    names = list(dict.fromkeys([*history.names, *history.looked_at]))
    trained = {name: history.series("loss", name).known() for name in names}
    held_out = {name: history.held_out(name) for name in names}
    names = [name for name in names if len(trained[name]) or len(held_out[name])]
    if not names:
        return None
    figure, panels = _grid(len(names), history, columns=min(4, len(names)), head=0.35)
    for name, axes in zip(names, panels):
        series, smooth = trained[name], trained[name].smooth()
        (single,) = axes.plot(*_line(series), color=GREY, linewidth=0.8, alpha=0.55)
        (mean,) = axes.plot(*_line(smooth), color=WAVE, linewidth=1.8, **_dot(series, WAVE))
        looks = held_out[name].picked(POINTS)
        dots: dict[str, Any] = {"marker": "o", "markersize": 3} if len(looks) <= 40 else {}
        (held,) = axes.plot(looks.steps, looks.values, color=HELD_OUT, linewidth=1.4, **dots)
        _limits(axes, series, smooth, looks)
        axes.set_title(short(name), fontsize=9, loc="left", pad=4)
    figure.legend(
        (single, mean, held),
        ("training, single steps", "training, running mean", "held out"),
        loc="upper left",
        ncols=3,
        frameon=False,
        fontsize=9,
        borderaxespad=0,
    )
    return _picture(figure, f"Loss of {len(names)} data sets over {history.last_step} steps, in nats a token")


def regrets(history: History) -> Picture | None:
    """A row for each held-out set, a cell for each look. None unless a set was looked at twice."""
    names = history.looked_at
    series = {name: history.regret(name) for name in names}
    steps = sorted({int(step) for known in series.values() for step in known.steps})
    if len(steps) < 2:
        return None
    cells = np.full((len(names), len(steps)), np.nan)
    for row, name in enumerate(names):
        cells[row, np.searchsorted(steps, series[name].steps)] = series[name].values
    highest = max(PALE, float(np.nanmax(cells)))
    figure = _heat(cells, names, "nats", cmap="YlOrRd", low=0.0, high=highest)
    axes = figure.axes[0]
    shown = np.unique(np.linspace(0, len(steps) - 1, min(9, len(steps))).round().astype(int))
    axes.set_xticks(shown, [f"{steps[index]:,}" for index in shown])
    return _picture(figure, f"Regret of {len(names)} held-out sets at {len(steps)} looks")


def mixture(history: History) -> Picture | None:
    """Rows a step of each data set, stacked; None if the run did not count rows, or there is one set only."""
    rows = {name: series.picked(POINTS) for name in history.names if (series := _quota(history, name)) is not None}
    if len(rows) < 2:
        return None
    layers = {name: np.nan_to_num(series.values) for name, series in rows.items()}
    steps = next(iter(rows.values())).steps  # the same for all
    own = colours(history)
    figure, axes = _wide(2.9)
    bottom = np.zeros(len(steps))
    # A mixture holds until it changes: drawn in steps, each value over the steps before its line.
    edges = np.concatenate([[0], steps + 1])
    for name in sorted(layers, key=lambda name: own[name] == GREY):  # grey last: on top
        top = bottom + layers[name]
        axes.stairs(top, edges, baseline=bottom, fill=True, color=own[name], linewidth=0)
        line = np.where(layers[name] > 0, top, np.nan)
        axes.stairs(line, edges, baseline=None, color="white", linewidth=0.5)
        bottom = top
    _frame(axes, history, names=True)
    axes.set_ylim(0, max(float(bottom.max()) * 1.02, 1e-9))
    axes.locator_params(axis="y", nbins=6)
    axes.set_ylabel("rows a step", fontsize=8.5)
    _legend(axes, own, layers)
    return _picture(figure, f"Rows a step of {len(layers)} data sets over {history.last_step} steps")


def weights(history: History) -> Picture | None:
    """How much each data set's mean loss counts. None if the run did not write it, or there is one set only."""
    found = {name: history.series("weights", name) for name in history.names}
    found = {name: series.picked(POINTS) for name, series in found.items() if len(series.known())}
    if len(found) < 2:
        return None
    own = colours(history)
    figure, axes = _wide(2.7)
    for name in sorted(found, key=lambda name: own[name] != GREY):  # grey first, below the others
        grey = own[name] == GREY
        axes.plot(
            found[name].steps,
            100 * found[name].values,
            color=own[name],
            linewidth=0.9 if grey else 1.8,
            alpha=0.6 if grey else 1,
            **_dot(found[name].known(), own[name]),
        )
    _frame(axes, history)
    known = np.concatenate([series.known().values for series in found.values()])
    if not _log_if_wide(axes, 100 * known, _percent):
        axes.set_ylim(0, None)
        axes.yaxis.set_major_formatter(_percent)
    axes.set_ylabel("share of the loss", fontsize=8.5)
    _legend(axes, own, found)
    return _picture(figure, f"Weights of the losses of {len(found)} data sets")


def signs(history: History) -> Picture | None:
    """A panel for each number that tells how the run is going: speed, waiting, padding, memory, gradients, rate."""
    speeds = history.speeds
    rate, wait, padding = history.series("lr").known(), speeds["wait"], speeds["padding"]
    found: list[tuple[str, Series, Any]] = [
        ("rows a second", speeds["rows"], _plain),
        ("tokens a second, without padding", speeds["tokens"], _plain),
        ("share of time waiting for data", Series(wait.steps, 100 * wait.values), _percent),
        ("share of tokens that are padding", Series(padding.steps, 100 * padding.values), _percent),
        ("memory, MB", history.series("memory_mb").known(), _plain),
        ("gradient norm before clipping", history.series("norm").known(), _plain),
        ("learning rate x 1000", Series(rate.steps, 1000 * rate.values), _plain),
        ("score of own answers", history.series("score").known(), _plain),
    ]
    found = [sign for sign in found if len(sign[1])]
    if not found:
        return None
    figure, panels = _grid(len(found), history, columns=min(3, len(found)))
    for (title, series, form), axes in zip(found, panels):
        axes.plot(*_line(series), color=WAVE, linewidth=1.4, **_dot(series, WAVE))
        if not (title.startswith("gradient") and _log_if_wide(axes, series.values, form)):
            top = float(np.percentile(series.values, 99)) * 1.25
            axes.set_ylim(0, top if top > 0 else 1)
            axes.locator_params(axis="y", nbins=4)
            axes.yaxis.set_major_formatter(form)
        axes.set_title(title, fontsize=9, loc="left", pad=4)
    return _picture(figure, f"Speed, memory and gradients over {history.last_step} steps")


def conflicts(history: History) -> Picture | None:
    """The latest cosines between the data sets' gradients. None if the run did not look."""
    lines = history.lines["conflicts"]
    if not lines:
        return None
    names, cosines = cosines_of(lines[-1])
    np.fill_diagonal(cosines, np.nan)
    most = max(OPPOSED, float(np.nanmax(np.abs(cosines), initial=0.0)))
    figure = _heat(cosines, names, "cosine", cmap="RdBu", low=-most, high=most, square=True)
    figure.axes[0].set_xticks(range(len(names)), [short(name) for name in names], rotation=90)
    return _picture(figure, f"Cosines between the gradients of {len(names)} data sets")


def cosines_of(line: dict[str, Any]) -> tuple[list[str], np.ndarray]:
    """(names, float64[K, K]) of a line of conflicts; nan where a set was absent."""
    found = line["conflicts"]
    rows = [[math.nan if value is None else float(value) for value in row] for row in found["cosine"]]
    return list(map(str, found["names"])), np.array(rows).reshape(len(found["names"]), -1)


# --- parts ------------------------------------------------------------------------------------------------------------


def _grid(count: int, history: History, *, columns: int, head: float = 0.0) -> tuple[Figure, list[Axes]]:
    """Panels over the same steps; `head` inches are left free above them."""
    from matplotlib.figure import Figure

    lines = math.ceil(count / columns)
    height = 1.55 * lines + 0.35 + head
    figure = Figure(figsize=(WIDTH if columns > 1 else 0.7 * WIDTH, height))
    panels = list(figure.subplots(lines, columns, squeeze=False).flat)
    figure.subplots_adjust(
        left=0.045, right=0.985, top=1 - (head + 0.22) / height, bottom=0.3 / height, hspace=0.42, wspace=0.2
    )
    for index, axes in enumerate(panels):
        if index >= count:
            axes.set_axis_off()
            continue
        _frame(axes, history, ticks=4)
        if index + columns < count:  # another panel stands below
            axes.tick_params(labelbottom=False)
    return figure, panels[:count]


def _wide(height: float) -> tuple[Figure, Axes]:
    """One panel with room for a legend on its right."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH, height))
    axes = figure.subplots()
    figure.subplots_adjust(left=0.06, right=0.79, top=1 - 0.25 / height, bottom=0.3 / height)
    return figure, axes


def _heat(
    cells: np.ndarray, names: Sequence[str], label: str, *, cmap: str, low: float, high: float, square: bool = False
) -> Figure:
    """float[rows, columns] as coloured cells, a name beside each row; what is not known stays empty."""
    from matplotlib.figure import Figure

    rows, columns = cells.shape
    left = 0.2 + 0.075 * max(len(short(name)) for name in names)
    cell = min(0.5, 0.7 * WIDTH / rows) if square else 0.25
    across = cell * rows if square else min(WIDTH - left - 1.0, 0.55 * columns)
    below = left - 0.05 if square else 0.28
    down = max(cell * rows, 0.75)
    width, height = left + across + 1.0, down + below + 0.25
    figure = Figure(figsize=(width, height))
    place = (left / width, below / height, across / width, down / height)
    axes = figure.add_axes(place)
    image = axes.imshow(cells, aspect="auto", interpolation="nearest", cmap=cmap, vmin=low, vmax=high)
    axes.set_yticks(range(rows), [short(name) for name in names])
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    tall = min(down, 2.2)
    beside = ((left + across + 0.15) / width, (below + down - tall) / height, 0.12 / width, tall / height)
    bar = figure.colorbar(image, cax=figure.add_axes(beside))
    bar.outline.set_visible(False)
    bar.ax.set_title(label, fontsize=8.5, loc="left", pad=5)
    bar.ax.locator_params(axis="y", nbins=4)
    return figure


def _frame(axes: Axes, history: History, *, names: bool = False, ticks: int = 8) -> None:
    """Steps along the bottom, lines where stages begin and dots where the run was resumed."""
    from matplotlib.ticker import MaxNLocator

    end = max(history.last_step, 1)
    axes.set_xlim(0, 1.01 * end)  # room for the last dot
    axes.xaxis.set_major_locator(MaxNLocator(ticks, integer=True, steps=[1, 2, 2.5, 5, 10]))
    axes.xaxis.set_major_formatter(_plain)
    axes.yaxis.set_major_formatter(_plain)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(length=2.5)
    axes.grid(axis="y", color=GREY, alpha=0.25, linewidth=0.6)
    axes.set_axisbelow(True)
    for stage in history.stages[1:]:
        axes.axvline(stage.start, color=INK, linewidth=0.9, dashes=(3, 2))
    if names:
        for count, stage in enumerate(history.stages, start=1):
            wide = (stage.end - stage.start) / end
            label = stage.name if wide > 0.012 * len(stage.name) else str(count) if wide > 0.015 else ""
            middle = (stage.start + stage.end) / 2
            axes.text(middle, 1.02, label, transform=axes.get_xaxis_transform(), ha="center", va="bottom", fontsize=8.5)


def _legend(axes: Axes, own: dict[str, str], shown: Iterable[str]) -> None:
    """Beside the panel, in the order of the stack; what is grey is one entry."""
    from matplotlib.patches import Patch

    shown = list(shown)
    grey = [name for name in shown if own[name] == GREY]
    entries = [Patch(color=own[name], label=short(name)) for name in shown if own[name] != GREY]
    if grey:
        label = short(grey[0]) if len(grey) == 1 else f"{len(grey)} others"
        entries.append(Patch(color=GREY, label=label))
    axes.legend(
        handles=entries[::-1],
        loc="upper left",
        bbox_to_anchor=(1.01, 1.03),
        frameon=False,
        fontsize=8.5,
        handlelength=1.0,
        labelspacing=0.35,
        borderaxespad=0,
    )


def _quota(history: History, name: str) -> Series | None:
    """Rows a step of a data set: as planned where that is written, else as counted."""
    planned = history.series("quotas", name)
    if len(planned.known()):
        return planned
    counted = history.series("rows", name)
    if not len(counted.known()):
        return None
    return Series(counted.steps, counted.values / np.diff(counted.steps, prepend=-1))


def _share(history: History, name: str) -> float:
    """What decides who gets a colour: rows, or else quota."""
    rows = history.total("rows", name)
    return rows if not math.isnan(rows) else np.nan_to_num(nansum(history.series("quotas", name).values.tolist()))


def _line(series: Series) -> tuple[np.ndarray, np.ndarray]:
    thin = series.thin(POINTS)
    return thin.steps, thin.values


def _dot(series: Series, colour: str) -> dict[str, Any]:
    """A line of one point is not seen: it gets a dot."""
    return {"marker": "o", "markersize": 4, "markerfacecolor": colour} if len(series) == 1 else {}


def _limits(axes: Axes, series: Series, smooth: Series, looks: Series) -> None:
    """The first few steps may lie above the panel, so that the rest can be told apart."""
    late = slice(len(series) // 20, None)
    most = [np.percentile(series.values[late], 97)] if len(series) else []
    low = float(np.concatenate([series.values[late], looks.values]).min())
    high = float(np.concatenate([smooth.values[late], looks.values, most]).max())
    room = max(0.08 * (high - low), 0.02 * abs(high), 1e-3)
    axes.set_ylim(low - room if low < 0 else max(0.0, low - room), high + room)
    axes.locator_params(axis="y", nbins=4)


def _log_if_wide(axes: Axes, values: np.ndarray, form: Any) -> bool:
    """Where the largest is more than 20 times the smallest, the axis is logarithmic; says whether it is."""
    from matplotlib.ticker import LogLocator, NullFormatter

    if not len(values) or values.min() <= 0 or values.max() <= 20 * values.min():
        return False
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1.0,) if values.max() > 500 * values.min() else (1.0, 3.0)))
    axes.yaxis.set_major_formatter(form)
    axes.yaxis.set_minor_formatter(NullFormatter())
    return True


def _plain(value: float, _: Any = None) -> str:
    """
    >>> _plain(12000.0), _plain(0.25), _plain(1500000.0)
    ('12k', '0.25', '1.5M')
    """
    for size, letter in ((1e6, "M"), (1e3, "k")):
        if abs(value) >= 10 * size or (abs(value) >= size and size == 1e6):
            return f"{value / size:.3g}{letter}"
    return f"{value:,.4g}"


def _percent(value: float, _: Any = None) -> str:
    """
    >>> _percent(2.5)
    '2.5%'
    """
    return f"{value:.3g}%"


def short(name: str) -> str:
    return name if len(name) <= LONG else f"{name[: LONG - 9]}…{name[-8:]}"


def _picture(figure: Figure, alt: str) -> Picture:
    with warnings.catch_warnings():  # the reader's fonts draw the words, whatever matplotlib's have
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        return svg(figure, alt)
