"""Curves of few shots as a picture and a page.

    what fewshot.json holds -> figure (score, seconds, megabytes) -> fewshot.png, report.html

Methods have whole lines and discs, dedicated models broken lines and other marks, and each line bears its name: no colour is needed to read it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from monoglot.files import atomic_path
from monoglot.report.curves import COLOURS, GREY, WIDTH
from monoglot.report.figures import Picture, svg
from monoglot.report.page import Fold, Plate, Prose, Section, Table, render, seconds, write
from monoglot.report.run import duration, plural

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Result = Mapping[str, Any]
"""What fewshot.json holds."""
Curve = Mapping[str, Any]
MARKS = ("s", "^", "D", "v", "P", "X")
"""Of dedicated models, in their order; methods have discs."""
DASHES = ((4, 2), (1.5, 1.5), (6, 2, 1.5, 2), (3, 1), (8, 3), (1, 3))
VERDICTS = {"win": "a win", "loss": "a loss", "even": "no sure difference"}
BESIDE = 1.012
"""Factor between the places of two curves' points of the same shots."""
LINE = 0.055
"""Least distance of two names, as a share of the panel's height."""


def write_fewshot_report(out: Path, result: Result) -> Path:
    """Write fewshot.png and report.html into a folder; returns the page."""
    from matplotlib import rc_context

    with rc_context({"font.family": "sans-serif", "font.size": 8.5}):
        with atomic_path(out / "fewshot.png") as temporary:
            figure(result).savefig(temporary, format="png", dpi=160, facecolor="white")
        picture = svg(figure(result), alt(result))
    return write(out / "report.html", page(result, picture))


# --- the picture ------------------------------------------------------------------------------------------------------


def figure(result: Result) -> Figure:
    """Score over rows of each answer with 95% intervals; below, what training and keeping cost."""
    from matplotlib.figure import Figure

    drawing = Figure(figsize=(WIDTH, 7.4))
    main = drawing.add_axes((0.06, 0.44, 0.63, 0.51))
    times = drawing.add_axes((0.06, 0.07, 0.33, 0.23))
    sizes = drawing.add_axes((0.62, 0.07, 0.36, 0.23))
    looks = styles(result)
    _scores(main, result, looks)
    _seconds(times, result, looks)
    _sizes(sizes, result, looks)
    return drawing


def styles(result: Result) -> dict[str, dict[str, Any]]:
    """How each curve is drawn; the plain answers are grey."""
    fresh = iter(COLOURS)
    marks, dashes = iter(MARKS), iter(DASHES)
    found = {}
    for curve in result["curves"]:
        if not curve["rival"]:
            found[curve["name"]] = {"color": next(fresh), "marker": "o", "linewidth": 2.4}
        else:
            plain = curve["points"][0]["megabytes"] == 0
            colour = GREY if plain else next(fresh)
            style = {"color": colour, "marker": next(marks), "linewidth": 1.6, "dashes": next(dashes)}
            found[curve["name"]] = style
    return found


def _scores(axes: Axes, result: Result, looks: Mapping[str, Any]) -> None:
    share = result["metric"]["unit"] == "fraction"
    scale = 100 if share else 1
    ends = []
    middle = (len(result["curves"]) - 1) / 2
    for place, curve in enumerate(result["curves"]):
        points, look = curve["points"], looks[curve["name"]]
        beside = BESIDE ** (place - middle)  # so that intervals don't hide each other
        x, y = [beside * point["each"] for point in points], [scale * point["score"] for point in points]
        half = [scale * (point["half"] or 0.0) for point in points]
        axes.plot(x, y, markersize=6, zorder=3, **look)
        if any(half):
            thin = {"color": look["color"], "linewidth": 1.1, "capsize": 3.5, "linestyle": "none", "alpha": 0.8}
            axes.errorbar(x, y, yerr=half, zorder=2, **thin)
        ends.append((y[-1], name(result, curve), look["color"]))
    _log_shots(axes, result)
    every = [scale * point["score"] for curve in result["curves"] for point in curve["points"]]
    low, high = min(every), max(every)
    room = max(0.12 * (high - low), 0.02 * scale)
    bottom, top = max(low - room, 0.0 if low >= 0 else low - room), high + room
    axes.set_ylim(bottom, min(top, 102) if share else top)
    if share:
        axes.yaxis.set_major_formatter("{x:g}%")
    better = "" if result["metric"]["higher_is_better"] else ", lower is better"
    axes.set_title(
        f"{result['task']}: {result['metric']['name'].replace('_', ' ')}{better}", loc="left", fontsize=11, pad=8
    )
    _names(axes, ends)


def _names(axes: Axes, ends: Sequence[tuple[float, str, str]]) -> None:
    """The name of each line at its right end, moved apart where they would touch."""
    low, high = axes.get_ylim()
    order = sorted(range(len(ends)), key=lambda index: ends[index][0])
    heights = apart([(ends[index][0] - low) / (high - low) for index in order], LINE)
    for index, height in zip(order, heights):
        value, text, colour = ends[index]
        start = (value - low) / (high - low)
        axes.plot((1.0, 1.02), (start, height), transform=axes.transAxes, color=colour, linewidth=0.9, clip_on=False)
        axes.text(1.025, height, text, transform=axes.transAxes, va="center", fontsize=9)


def apart(places: Sequence[float], least: float) -> list[float]:
    """Rising places moved so that neighbours are at least so far from each other, as little as needed from below and held under 1.

    >>> apart([0.5, 0.5, 0.9], 0.1)
    [0.5, 0.6, 0.9]
    >>> [round(place, 2) for place in apart([0.98, 0.99, 1.0], 0.1)]
    [0.8, 0.9, 1.0]
    """
    moved: list[float] = []
    for place in places:
        moved.append(max(place, moved[-1] + least) if moved else place)
    for index in reversed(range(len(moved))):
        limit = 1.0 if index == len(moved) - 1 else moved[index + 1] - least
        moved[index] = min(moved[index], limit)
    return moved


def _log_shots(axes: Axes, result: Result) -> None:
    """The axis of rows of each answer, logarithmic, with the numbers that were asked for."""
    places: dict[float, str] = {}
    for curve in result["curves"]:
        for point in curve["points"]:
            places.setdefault(point["each"], point["shots"])
    axes.set_xscale("log")
    axes.minorticks_off()
    axes.set_xticks(
        list(places), [f"all\n({place:.3g})" if shots == "all" else shots for place, shots in places.items()]
    )
    if len(places) == 1:
        (place,) = places
        axes.set_xlim(place / 2, place * 2)
    unit = "rows of each answer (on average, where some have fewer)" if result["answers"] > 1 else "rows"
    axes.set_xlabel(unit, fontsize=9)
    _plain(axes)


def _seconds(axes: Axes, result: Result, looks: Mapping[str, Any]) -> None:
    from matplotlib.ticker import LogLocator, NullLocator

    for curve in result["curves"]:
        points = curve["points"]
        if points[0]["megabytes"] or not curve["rival"]:
            axes.plot(
                [point["each"] for point in points],
                [max(point["seconds"], 1e-3) for point in points],
                markersize=4.5,
                **looks[curve["name"]],
            )
    _log_shots(axes, result)
    axes.set_xlabel("")
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5), numticks=6))
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_locator(NullLocator())
    axes.set_title("seconds to train", loc="left", fontsize=10, pad=6)


def _sizes(axes: Axes, result: Result, looks: Mapping[str, Any]) -> None:
    curves = [curve for curve in result["curves"] if curve["points"][-1]["megabytes"]]
    rows = np.arange(len(curves))[::-1]
    values = [curve["points"][-1]["megabytes"] for curve in curves]
    for row, value, curve in zip(rows, values, curves):
        look = looks[curve["name"]]
        pattern: dict[str, Any] = {"hatch": "///", "fill": False} if curve["rival"] else {}
        axes.barh(row, value, height=0.6, color=look["color"], edgecolor=look["color"], **pattern)
        axes.text(value, row, f" {value:.2g} MB" if value < 10 else f" {value:.0f} MB", va="center", fontsize=9)
    axes.set_yticks(rows, [name(result, curve) for curve in curves])
    axes.set_xlim(0, 1.25 * max(values, default=1))
    axes.locator_params(axis="x", nbins=5)
    axes.set_title("megabytes to keep for this task", loc="left", fontsize=10, pad=6)
    _plain(axes, grid="x")
    axes.tick_params(axis="y", length=0)


def _plain(axes: Axes, *, grid: Any = "y") -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis=grid, color=GREY, alpha=0.25, linewidth=0.7)
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=9)


def name(result: Result, curve: Curve) -> str:
    """What a curve is called."""
    return result["labels"].get(curve["name"], f"monoglot, {curve['name']}")


def alt(result: Result) -> str:
    """The picture in words."""
    ends = ", ".join(
        f"{name(result, curve)} {_score(result, curve['points'][0]['score'])} to {_score(result, curve['points'][-1]['score'])}"
        for curve in result["curves"]
    )
    shots = result["settings"]["shots"]
    return f"{result['metric']['name']} from {shots[0]} to {shots[-1]} shots: {ends}"


# --- the page ---------------------------------------------------------------------------------------------------------


def page(result: Result, picture: Picture) -> str:
    """The whole page as HTML."""
    settings = result["settings"]
    facts = (
        ("model", settings["model"]["name"]),
        ("task", result["task"].replace("_", " ")),
        ("rows to take from", f"{settings['data']['rows']:,}"),
        ("test rows", f"{settings['test']['rows']:,}"),
        ("seeds", str(settings["seeds"])),
        ("training, all in all", duration(sum(cell["seconds"] for cell in result["cells"]))),
    )
    sections = [Section("Curves", (Plate(picture, _caption(result)),)), Section("Scores", (_score_table(result),))]
    if result["duels"]:
        sections.append(Section("Against dedicated models", (_how_duels(), _duels(result))))
    sections.append(Section("What it costs", (_how_costs(result), _costs(result))))
    if result["notes"]:
        points = tuple(("", note) for note in result["notes"])
        sections.append(Section("To be known", (Prose(points=points),)))
    sections.append(Section("How it was measured", _method(result)))
    versions = ", ".join(f"{package} {version}" for package, version in result["versions"].items())
    title = f"Few shots: {result['task'].replace('_', ' ')}, {settings['data']['name']}"
    return render(title, sections, lead=_lead(result), facts=facts, foot=versions)


def _lead(result: Result) -> str:
    if not result["duels"]:
        return "What the model reaches after few rows of new data."
    found: dict[str, list[str]] = {}
    for duel in result["duels"]:
        found.setdefault(duel["verdict"], []).append(_shots(duel["shots"]))
    told = "; ".join(f"{VERDICTS.get(verdict, verdict)} with {', '.join(shots)}" for verdict, shots in found.items())
    return f"The adapted model against the best dedicated one on the same rows: {told}."


def _shots(shots: str) -> str:
    return "all rows" if shots == "all" else plural(int(shots), "shot")


def _caption(result: Result) -> str:
    seeds = result["settings"]["seeds"]
    spread = f"Bars: 95% intervals of the mean over {seeds} seeds. " if seeds > 1 else "One seed: no intervals. "
    return f"{spread}Whole lines: one model for all tasks, adapted. Broken lines: dedicated models trained on the same rows."


def _score(result: Result, value: float, half: float | None = None, *, sign: str = "") -> str:
    share = result["metric"]["unit"] == "fraction"
    scale, digits = (100, 1) if share else (1, 3)
    text = f"{scale * value:{sign}.{digits}f}"
    return text if half is None else f"{text} ± {scale * half:.{digits}f}"


def _score_table(result: Result) -> Table:
    shots = result["settings"]["shots"]
    rows = []
    for curve in result["curves"]:
        points = {point["shots"]: point for point in curve["points"]}
        cells = [_score(result, points[one]["score"], points[one]["half"]) if one in points else "–" for one in shots]
        whole = "–" if curve["area"] is None else _score(result, curve["area"]["mean"], curve["area"]["half"])
        rows.append((name(result, curve), *cells, whole))
    unit = " in percent" if result["metric"]["unit"] == "fraction" else ""
    heads = ("", *map(_shots, shots), "area")
    caption = (
        f"{result['metric']['name']}{unit}, mean ± half of the 95% interval over seeds (Student's t). "
        "Area: the mean height of the curve over the logarithm of the shots."
    )
    return Table(heads, tuple(rows), caption, tuple(range(1, len(heads))))


def _duels(result: Result) -> Table:
    rows = tuple(
        (
            duel["shots"],
            f"monoglot, {duel['method']}",
            result["labels"].get(duel["rival"], duel["rival"]),
            _score(result, duel["difference"], duel["half"], sign="+"),
            duel["verdict"],
        )
        for duel in result["duels"]
    )
    return Table(("shots", "best method", "best rival", "difference", "verdict"), rows, numbers=(3,))


def _how_duels() -> Prose:
    return Prose(
        (
            "At each number of shots the best method meets the best rival, both the best by their mean on the test rows. "
            "The difference is taken seed by seed, on the same shots; above 0 the method is better. It is a win or a loss "
            "only if its 95% interval lies on one side of 0.",
        )
    )


def _costs(result: Result) -> Table:
    rows = []
    for curve in result["curves"]:
        first, last = curve["points"][0], curve["points"][-1]
        rows.append(
            (
                name(result, curve),
                seconds(first["seconds"]),
                seconds(last["seconds"]),
                f"{last['megabytes']:.3g}",
                seconds(last["seconds_row"]),
            )
        )
    shots = result["settings"]["shots"]
    heads = ("", f"to train, {_shots(shots[0])}", f"to train, {_shots(shots[-1])}", "MB to keep", "to answer a row")
    return Table(heads, tuple(rows), numbers=(1, 2, 3, 4))


def _how_costs(result: Result) -> Prose:
    base = result["settings"]["base_megabytes"]
    return Prose(
        (
            f"An adapter stands beside the base model ({base:.3g} MB as stored), which all tasks share. A dedicated model is kept "
            "whole, its encoder too, as 16-bit numbers like an adapter. Training time holds reading and encoding the shots. A row is "
            "answered alone, read and encoded anew: the median of some.",
        )
    )


def _method(result: Result) -> tuple[Prose, Fold, Fold]:
    points = (
        ("Shots.", "Each seed draws its own; fewer are among more, and every method and rival gets the same rows."),
        ("All rows", "are the same for every seed, so a method without chance in it has no interval there."),
        (
            "Dedicated models",
            "have balanced class weights; C and epochs are chosen on the shots once an answer has 5 rows.",
        ),
        (
            "Held out.",
            "Where an answer has ten rows on average, a method that is trained step by step sets a fifth of the shots apart to "
            "see when to stop, and does not train on them; dedicated models choose by folds, then train on all.",
        ),
        ("Choice.", "The best method and the best rival are picked by the test rows; both gain a little by that."),
    )
    about = {key: result[key] for key in ("settings", "machine", "versions")}
    return (
        Prose(points=points),
        Fold("The command", result["command"]),
        Fold("Settings", json.dumps(about, indent=2, ensure_ascii=False)),
    )
