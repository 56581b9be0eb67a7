"""What adapting to one task does to others: tables, a figure, a page.

Transfer -> tables -> page.Table (terminal and page)        Transfer -> figure -> PNG        -> sentence        -> write_transfer_report

Gains and changes are points (hundredths of the score), and above 0 is better, also of an error rate.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from monoglot import __version__, report
from monoglot.evaluate.paired import Mean
from monoglot.files import atomic_path
from monoglot.report import page
from monoglot.report.curves import short
from monoglot.report.figures import Picture

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SURE = 0.05
"""A change is marked from this p on, after Holm."""
STRONG = 5.0
"""Points; the colours reach at least to this and its opposite, so that little stays pale."""
MARK = "*"
FRAMED = f"{MARK} and a frame: differs from 0 after Holm's correction"


@dataclass(frozen=True)
class Measured:
    """Rows that scores are of: the test rows of a task of the list, or rows of an old ability."""

    name: str
    metric: str
    higher_is_better: bool
    rows: int
    trained: int = 0
    """Rows to train on; 0 of an old ability."""


@dataclass(frozen=True)
class Change:
    """What adapting to `source` changed on `on`, seed by seed."""

    source: str
    on: str
    points: Mean
    p_holm: float
    """Adjusted for all cells of the same map."""

    @property
    def sure(self) -> bool:
        return self.p_holm <= SURE


@dataclass(frozen=True)
class Transfer:
    """A transfer matrix and what is forgotten, as far as they are measured: a cell that is not there has no seed yet."""

    model: str
    method: str
    shots: int
    """Rows of each answer that a target is learned from (see `monoglot.adapt.rows.take_shots`)."""
    source_shots: int | None
    """The same of a source; None for all its rows."""
    seeds: int
    tasks: tuple[Measured, ...]
    old: tuple[Measured, ...]
    before: Mapping[str, float]
    """Score of the model as it was, points."""
    direct: Mapping[str, Mean]
    """Target -> score after the target's shots alone, points."""
    gains: Mapping[tuple[str, str], Change]
    """(source, target) -> score by way of the source, minus direct, with the same shots."""
    kept: Mapping[tuple[str, str], Change]
    """(source, task or old ability) -> score after adapting to the source, minus before; of the source itself: what it learned."""
    seconds: float
    adaptations: int


def sentence(found: Transfer) -> str:
    """What is shown and what is not, in one honest line.

    A gain is shown when its p is at most 5% after Holm's correction for all gains of the matrix.
    """
    gains = list(found.gains.values())
    if not gains:
        return "Nothing is shown yet: no source was adapted on to a target."
    sure = [gain for gain in gains if gain.sure]
    alone = sum(gain.points.p <= SURE for gain in gains)
    said = f"Of {len(gains)} transfers over {_seeds(found.seeds)}, "
    if sure:
        named = ", ".join(f"{gain.source} -> {gain.on} ({gain.points.mean:+.1f})" for gain in sure)
        said += f"{len(sure)} {'differs' if len(sure) == 1 else 'differ'} from 0 after Holm's correction: {named}"
    else:
        said += "none differs from 0 after Holm's correction"
    if alone > len(sure):
        said += f" ({alone} would without it, {SURE * len(gains):.1f} are expected by chance)"
    others = [change for change in found.kept.values() if change.source != change.on]
    lost = [change for change in others if change.sure and change.points.mean < 0]
    if others:
        worst = min(others, key=lambda change: change.points.mean)
        said += f"; of {len(others)} scores on other tasks and old abilities, {len(lost) or 'none'} fell by as sure a margin"
        if worst.points.mean < 0:
            said += f" (the most: {worst.on} after {worst.source}, {worst.points.mean:+.1f})"
    return said + "."


def _seeds(count: int) -> str:
    return "1 seed, which has no interval" if count == 1 else f"{count} seeds"


# --- tables -----------------------------------------------------------------------------------------------------------


def tables(found: Transfer) -> list[page.Table]:
    """The transfer matrix, then the forgetting table."""
    names = [task.name for task in found.tasks]
    numbers = tuple(range(1, len(names) + 1))
    zero = ("no adaptation", *(_score(found.before.get(name)) for name in names))
    direct = ("direct, the score", *(_mean(found.direct.get(name), ".1f") for name in names))
    rows = [zero, direct]
    for source in names:
        rows.append((f"by way of {source}", *("" if on == source else _cell(found.gains, source, on) for on in names)))
    matrix = page.Table(
        ("", *(f"{task.name} ({_metric(task)})" for task in found.tasks)),
        tuple(rows),
        f"Transfer: points gained on a target (columns) over adapting to it directly; {MARK} differs from 0 after Holm",
        numbers,
    )
    measured = (*found.tasks, *found.old)
    rows = [("before, the score", *(_score(found.before.get(one.name)) for one in measured))]
    rows += [(f"after {source}", *(_cell(found.kept, source, one.name) for one in measured)) for source in names]
    forgetting = page.Table(
        ("", *(f"{one.name} ({_metric(one)})" for one in measured)),
        tuple(rows),
        f"Forgetting: points changed on other tasks and old abilities; {MARK} differs from 0 after Holm",
        tuple(range(1, len(measured) + 1)),
    )
    return [matrix, forgetting]


def _metric(one: Measured) -> str:
    return one.metric + ("" if one.higher_is_better else ", gains are falls")


def _score(points: float | None) -> str:
    return "" if points is None else f"{points:.1f}"


def _mean(mean: Mean | None, form: str, between: str = " ") -> str:
    if mean is None:
        return ""
    interval = "" if math.isnan(mean.low) else f"{between}({mean.low:{form}} .. {mean.high:{form}})"
    return f"{mean.mean:{form}}{interval}"


def _cell(cells: Mapping[tuple[str, str], Change], source: str, on: str) -> str:
    change = cells.get((source, on))
    return "" if change is None else _mean(change.points, "+.1f") + (f" {MARK}" if change.sure else "")


# --- figure -----------------------------------------------------------------------------------------------------------


def figure(found: Transfer) -> Figure:
    """Two maps, one above the other: gains by (source, target), changes by (source, task or old ability).

    Blue is better, red is worse: ends that colour-blind readers tell apart; every number and interval is written in.
    """
    from matplotlib.figure import Figure

    names = [task.name for task in found.tasks]
    measured = [*names, *(one.name for one in found.old)]
    side, up, left = 1.18, 0.62, 0.35 + 0.085 * max(len(short(name)) for name in names)
    width = max(left + side * len(measured) + 0.25, 6.4)
    head, gap = 0.75, 1.0
    height = head + up * len(names) + gap + up * len(names) + 0.4
    made = Figure(figsize=(width, height), facecolor="white")

    def panel(columns: Sequence[str], top: float) -> Axes:
        tall = up * len(names)
        place = left / width, 1 - (top + tall) / height, side * len(columns) / width, tall / height
        return made.add_axes(place)

    def direct(source: str, on: str) -> str | None:
        return f"direct\n{_mean(found.direct.get(on), '.1f', chr(10))}" if source == on else None

    def under(name: str) -> str:
        return f"{short(name)}\nbefore {_score(found.before.get(name))}"

    most = max([STRONG, *(abs(cell.points.mean) for cell in (*found.gains.values(), *found.kept.values()))])
    upper = panel(names, head)
    _map(upper, found.gains, names, names, most, direct, [short(name) for name in names])
    upper.set_title(
        "Points gained on a target (columns) by way of a source (rows)",
        loc="left",
        fontsize=9.5,
        pad=24,
    )
    lower = panel(measured, head + up * len(names) + gap)
    _map(lower, found.kept, names, measured, most, lambda source, on: None, [under(name) for name in measured])
    lower.set_title("Points changed by adapting to a task (rows)", loc="left", fontsize=9.5, pad=34)
    made.text(left / width, 0.14 / height, FRAMED, fontsize=8.5)
    return made


def _map(
    axes: Axes,
    cells: Mapping[tuple[str, str], Change],
    sources: Sequence[str],
    columns: Sequence[str],
    most: float,
    instead: Callable[[str, str], str | None],
    heads: Sequence[str],
) -> None:
    """Coloured cells with mean and interval; `instead` says what stands in a grey cell."""
    from matplotlib import colormaps
    from matplotlib.patches import Rectangle

    colours = colormaps["RdBu"]
    for y, source in enumerate(sources):
        for x, on in enumerate(columns):
            change, text = cells.get((source, on)), instead(source, on)
            face: Any = "#e8e8e8" if text else "white"
            if text is None and change is not None:
                face = colours(0.5 + 0.5 * change.points.mean / most)
                text = _mean(change.points, "+.1f", "\n") + (f" {MARK}" if change.sure else "")
            edge, line = ("black", 2.0) if change is not None and change.sure else ("white", 1.0)
            axes.add_patch(
                Rectangle((x - 0.48, y - 0.48), 0.96, 0.96, facecolor=face, edgecolor=edge, linewidth=line, zorder=line)
            )
            ink = "black" if isinstance(face, str) or _luminance(face) > 0.18 else "white"
            axes.text(x, y, text or "", ha="center", va="center", fontsize=7.5, color=ink, zorder=3)
    axes.set_xlim(-0.5, len(columns) - 0.5)
    axes.set_ylim(len(sources) - 0.5, -0.5)
    axes.set_xticks(range(len(columns)), list(heads), fontsize=8.5)
    axes.set_yticks(range(len(sources)), [short(name) for name in sources], fontsize=8.5)
    axes.xaxis.tick_top()
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)


def _luminance(colour: Sequence[float]) -> float:
    """Relative luminance of r g b in [0, 1]; black is read better than white above 0.18. Source: WCAG 2.2."""
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in colour[:3]]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def png(found: Transfer) -> Picture:
    """The figure, on white, at two pixels for one of the page."""
    made, file = figure(found), io.BytesIO()
    made.savefig(file, format="png", dpi=192, metadata={"Software": None})
    width, height = (round(96 * inches) for inches in made.get_size_inches())
    return Picture(file.getvalue(), "image/png", width, height, sentence(found))


# --- page -------------------------------------------------------------------------------------------------------------

READ = (
    "A cell of the transfer map is the target's score after adapting first to the source and then to the target's few "
    "rows, minus its score after the same few rows alone. Both sides of a seed see the same rows, so differences are "
    "taken seed by seed; the interval is Student's over seeds.",
    "The interval says how much the choice of the few rows and the order of training matter. The test rows are the same "
    "for all seeds: it does not say how other test rows would come out. Few seeds make wide intervals.",
    "Every gain is tested against 0, and each map's p are corrected together (Holm); a cell that stays below 5% has a "
    f"frame and a {MARK}. Blue is better, red is worse.",
)


def write_transfer_report(found: Transfer, folder: Path) -> Path:
    """Write transfer.png and report.html into the folder; returns the page. Raises InputError without the extra `report`."""
    report.require()
    picture = png(found)
    with atomic_path(folder / "transfer.png") as temporary:
        temporary.write_bytes(picture.data)
    matrix, forgetting = tables(found)
    rows = tuple(
        (one.name, "task" if one.trained else "old ability", one.metric, f"{one.trained or ''}", str(one.rows))
        for one in (*found.tasks, *found.old)
    )
    sets = page.Table(("rows", "kind", "metric", "rows to train on", "rows scored"), rows, numbers=(3, 4))
    html = page.render(
        "Transfer",
        [
            page.Section("Maps", (page.Plate(picture, sentence(found)),)),
            page.Section("Transfer", (matrix,)),
            page.Section("Forgetting", (forgetting,)),
            page.Section("Rows", (sets,)),
            page.Section("How to read it", (page.Prose(READ),)),
        ],
        lead=sentence(found),
        facts=facts(found),
        foot="Made by monoglot transfer from cells.jsonl beside this page.",
    )
    return page.write(folder / "report.html", html)


def facts(found: Transfer) -> list[tuple[str, str]]:
    """(what, value) pairs of the page's head."""
    source = "all rows" if found.source_shots is None else f"{found.source_shots} rows of each answer"
    return [
        ("model", found.model),
        ("method", found.method),
        ("target", f"{found.shots} rows of each answer"),
        ("source", source),
        ("seeds", str(found.seeds)),
        ("adaptations", str(found.adaptations)),
        ("time", f"{found.seconds / 60:.0f} min"),
    ]


# --- JSON -------------------------------------------------------------------------------------------------------------


def to_json(found: Transfer, command: str) -> dict[str, Any]:
    """What transfer.json holds; an end of an interval that is not known is null."""
    one = {"tasks": [asdict(task) for task in found.tasks], "old": [asdict(old) for old in found.old]}
    said = {"command": command, "monoglot": __version__, "shown": sentence(found)}
    plain = {name: getattr(found, name) for name in _PLAIN}
    direct = {name: _known(mean) for name, mean in found.direct.items()}
    maps = {
        name: [
            {"source": cell.source, "on": cell.on, **_known(cell.points), "p_holm": cell.p_holm}
            for cell in getattr(found, name).values()
        ]
        for name in ("gains", "kept")
    }
    return said | plain | one | {"before": dict(found.before), "direct": direct} | maps


def from_json(held: Mapping[str, Any]) -> Transfer:
    """The way back."""

    def mean(one: Mapping[str, Any]) -> Mean:
        low, high = (math.nan if one[end] is None else one[end] for end in ("low", "high"))
        return Mean(one["mean"], low, high, one["p"], tuple(one["values"]))

    maps: dict[str, Any] = {
        name: {
            (one["source"], one["on"]): Change(one["source"], one["on"], mean(one), one["p_holm"]) for one in held[name]
        }
        for name in ("gains", "kept")
    }
    return Transfer(
        **{name: held[name] for name in _PLAIN},
        tasks=tuple(Measured(**one) for one in held["tasks"]),
        old=tuple(Measured(**one) for one in held["old"]),
        before=held["before"],
        direct={name: mean(one) for name, one in held["direct"].items()},
        **maps,
    )


_PLAIN = ("model", "method", "shots", "source_shots", "seeds", "seconds", "adaptations")


def _known(mean: Mean) -> dict[str, Any]:
    return {
        name: None if name in ("low", "high") and math.isnan(value) else value for name, value in asdict(mean).items()
    }
