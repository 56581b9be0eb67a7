"""Results as tables, for a terminal or a page.

results -> Grid (title, columns, lines) of each part -> rich | Markdown
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from rich.console import Console
from rich.table import Table

from monoglot.bench.limit import PARTS
from monoglot.bench.stages import STAGES


class Grid(NamedTuple):
    """A table; its first column names, the others are numbers."""

    title: str
    columns: tuple[str, ...]
    lines: Sequence[Sequence[str]]
    note: str = ""


def shown(seconds: float) -> str:
    """Milliseconds, in three digits or what comes before the point."""
    ms = 1000 * seconds
    return f"{ms:.0f}" if ms >= 99.95 else f"{ms:.1f}" if ms >= 9.995 else f"{ms:.2f}"


def milliseconds(spread: Mapping[str, float], *, quartiles: bool = True) -> str:
    """
    >>> milliseconds({"median": 0.0421, "low": 0.0419, "high": 0.0502, "turns": 7})
    '42.1 (41.9 to 50.2)'
    >>> milliseconds({"median": 1.5303, "low": 1.5, "high": 1.61, "turns": 7}, quartiles=False)
    '1530'
    """
    middle = shown(spread["median"])
    return f"{middle} ({shown(spread['low'])} to {shown(spread['high'])})" if quartiles else middle


def times(spread: Mapping[str, float]) -> str:
    """
    >>> times({"median": 1.66, "low": 1.6, "high": 1.7, "turns": 7})
    '1.66x (1.60 to 1.70)'
    """
    return f"{spread['median']:.2f}x ({spread['low']:.2f} to {spread['high']:.2f})"


def grids(parts: Mapping[str, Any]) -> list[Grid]:
    """A table or two of each part, by its name."""
    make = {"stages": _stages, "batches": _batches, "start": _start, "compare": _compare}
    return [grid for name, part in parts.items() for grid in make[name](part)]


def facts(results: Mapping[str, Any]) -> str:
    """The model and the machine, in a line."""
    model, machine = results["model"], results["machine"]
    weights = ", random weights" if model["weights"] == "random" else ""
    return (
        f"{model['name']}, {model['parameters'] / 1e6:.1f} million parameters{weights}, {model['precision']} · {machine['processor']} "
        f"({machine['instructions']}), {machine['threads']} of {machine['cores']} cores · torch {results['versions']['torch']}"
    )


def show(parts: Mapping[str, Any], console: Console) -> None:
    for grid in grids(parts):
        table = Table(title=grid.title, title_justify="left", title_style="bold", caption=grid.note or None, box=None)
        table.caption_justify, table.pad_edge = "left", False
        for index, column in enumerate(grid.columns):
            table.add_column(column, justify="right" if index else "left", header_style="dim")
        for line in grid.lines:
            table.add_row(*line)
        console.print()
        console.print(table)


def markdown(grid: Grid) -> str:
    """
    >>> print(markdown(Grid("Speed", ("what", "ms"), [("all", "1")])))
    **Speed**
    <BLANKLINE>
    | what | ms |
    |---|---:|
    | all | 1 |
    """
    lines = [f"**{grid.title}**", "", f"| {' | '.join(grid.columns)} |"]
    lines.append("|---|" + "---:|" * (len(grid.columns) - 1))
    lines += [f"| {' | '.join(line)} |" for line in grid.lines]
    return "\n".join([*lines, *(["", grid.note] if grid.note else [])])


def _stages(part: Mapping[str, Any]) -> list[Grid]:
    lines = [
        (
            f"{kind}: {found['task']}",
            *(milliseconds(found["seconds"][stage], quartiles=False) for stage in STAGES),
            milliseconds(found["seconds"]["total"]),
        )
        for kind, found in part["questions"].items()
    ]
    columns = ("one question", "read", "prepare", "media encoder", "transformer", "decode", "in all, ms (quartiles)")
    return [Grid("From the file to the answer, batch 1", columns, lines, f"Answers: {part['answers']}.")]


def _batches(part: Mapping[str, Any]) -> list[Grid]:
    lines = []
    for size, found in part["rows_together"].items():
        rate = found["pictures_a_second"]
        shown = f"{rate['median']:.1f} ({rate['low']:.1f} to {rate['high']:.1f})"
        lines.append((size, shown, times(found["ratio_to_one_by_one"])))
    note = f"{part['pictures']} pictures from their files; answers: {part['answers']}."
    return [Grid("Many pictures", ("rows together", "pictures a second", "against one by one"), lines, note)]


def _start(part: Mapping[str, Any]) -> list[Grid]:
    lines = [(name, milliseconds(found["seconds"]), str(found["peak_mb"])) for name, found in part["processes"].items()]
    note = f"Kinds of questions: `monoglot predict` once, from the start of the process to its end; answers: {part['answers']}."
    return [Grid("A process of its own", ("what", "ms (quartiles)", "peak memory, MB"), lines, note)]


def _compare(part: Mapping[str, Any]) -> list[Grid]:
    jobs = next(iter(part["systems"].values()))["seconds"]
    lines: list[tuple[str, ...]] = []
    for name, system in part["systems"].items():
        about = f"{name} ({system['parameters'] / 1e6:.0f} M, {system['pixels']} px, {system['precision']})"
        cells = []
        for job, stages in system["seconds"].items():
            ratio = system["ratio"][job]
            against = "" if ratio["low"] == ratio["high"] == 1 else f" · {times(ratio)}"
            cells.append(f"{milliseconds(stages['total'], quartiles=False)}{against}")
        lines.append((about, *cells))
    note = f"Medians; ratios to monoglot in the same turn, with quartiles. Answers: {part['answers']}."
    grids = [Grid("A caption: milliseconds", ("in turns", *jobs), lines, note)]

    ours, whole = part["systems"]["monoglot"], next(iter(jobs))
    took, least = ours["seconds"][whole], part["limit"][ours["precision"]]
    rest = ("first", "steps", "words", "search")
    measured = {"media": ("media",), "encode": ("encode",), "cross + steps": rest}
    limit = {
        "media": least["seconds"]["media"],
        "encode": least["seconds"]["encode"],
        "cross + steps": least["seconds"]["cross"] + least["seconds"]["steps"],
    }
    names = {
        "media": "media encoder",
        "encode": "transformer encoder",
        "cross + steps": "decoder and search",
    }
    lines = []
    for name, stages in measured.items():
        seconds = sum(took[stage]["median"] for stage in stages)
        lines.append((names[name], shown(seconds), shown(limit[name]), f"{seconds / limit[name]:.2f}x"))
    over = part["over_limit"]
    lines.append(("in all", shown(took["total"]["median"]), shown(least["total_seconds"]), times(over)))
    detail = ", ".join(f"{stage} {shown(took[stage]['median'])}" for stage in rest)
    columns: tuple[str, ...] = (f"one caption, {whole}", "measured, ms", "least, ms", "ratio")
    grids.append(Grid(f"Against this machine's limit ({ours['precision']})", columns, lines, f"Decoder: {detail} ms."))

    lines = [
        (
            precision,
            f"{found['operations_a_second'] / 1e9:.0f}",
            f"{found['bytes_a_second'] / 1e9:.1f}",
            *(shown(found["seconds"][part]) for part in PARTS),
            shown(found["total_seconds"]),
        )
        for precision, found in part["limit"].items()
    ]
    columns = ("precision", "GFLOP/s", "GB/s", "media", "encode", "keys, values", "steps", "in all, ms")
    grids.append(Grid(f"The least for one caption, {whole}, by precision", columns, lines))
    return grids
