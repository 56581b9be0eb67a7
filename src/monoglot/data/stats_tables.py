"""`monoglot data stats`: the report of stats.py as tables on the terminal, or as JSON."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console, RenderableType
from rich.markup import escape
from rich.progress import track
from rich.table import Table

from monoglot.data.stats import report as make_report
from monoglot.errors import InputError
from monoglot.plugins import media_kinds

SHARES = ("min", "p50", "p90", "p99", "max")


def print_stats(
    files: Sequence[Path], *, full: bool, distance: int, tokenizer: Path | None, as_json: bool
) -> dict[str, Any]:
    """Make the report, with progress bars, and print it. Raises InputError for a file or tokenizer that cannot be read."""
    screen = Console(stderr=True)

    def shown(things: Iterable[Any], what: str, count: int) -> Iterable[Any]:
        return track(things, what, total=count, console=screen, transient=True, disable=not screen.is_terminal)

    tokens = _token_counter(tokenizer) if tokenizer is not None else None
    report = make_report(files, full=full, distance=distance, tokens=tokens, track=shown)
    if as_json:
        print(json.dumps(report, ensure_ascii=False))
    else:
        show(report, Console(width=None if Console().is_terminal else 150, highlight=False))
    return report


def _token_counter(path: Path) -> Callable[[str], int]:
    """How many tokens a text has for a tokenizer.json, or for the one of a model folder."""
    import tokenizers

    path = path / "tokenizer.json" if path.is_dir() else path
    try:
        words = tokenizers.Tokenizer.from_file(str(path))
    except Exception as error:  # tokenizers raises plain Exception
        raise InputError.at(path, "--tokenizer", f"cannot be read ({error})", "give a tokenizer.json") from None
    return lambda text: len(words.encode(text, add_special_tokens=False))


def show(report: dict[str, Any], console: Console) -> None:
    """Print what `stats.report` found; of long parts the first lines, all of it is in the JSON."""
    for part in (_rows, _lengths, _targets, _media, _leakage):
        table = part(report)
        if table is not None and table.row_count:
            console.print(table)
    for line in _findings(report):
        console.print(line, soft_wrap=True)


def _table(title: str, *columns: str, left: int = 1) -> Table:
    table = Table(title=title, title_justify="left", box=None, header_style="bold", pad_edge=False)
    for place, column in enumerate(columns):
        table.add_column(column, justify="left" if place < left else "right", overflow="fold")
    return table


def _names(report: dict[str, Any]) -> dict[str, str]:
    """Path -> as much of its end as tells it from the others."""
    paths = [os.path.normpath(file["file"]) for file in report["files"]]
    given = [file["file"] for file in report["files"]]
    return {name: _shortest(path, paths) for name, path in zip(given, paths)}


def _shortest(path: str, paths: list[str]) -> str:
    parts = path.split(os.sep)
    ends = (os.sep.join(parts[-count:]) for count in range(1, len(parts)))
    return next((end for end in ends if sum(other.endswith(os.sep + end) for other in paths) == 1), path)


def _rows(report: dict[str, Any]) -> Table:
    shown = ("rows", *media_kinds(), "text", "target")
    table = _table("Rows, by task and what they hold", "file", "task", *shown, left=2)
    names = _names(report)
    for file in report["files"]:
        for task, kinds in sorted(file["tasks"].items()):
            counts = (kinds.get(kind, 0) for kind in shown)
            table.add_row(escape(names[file["file"]]), escape(task), *map(_count, counts))
        if file["bad"]:
            table.add_row(escape(names[file["file"]]), "[red]no samples[/]", _count(file["bad"]))
    return table


def _lengths(report: dict[str, Any]) -> Table:
    table = _table("Lengths", "task", "of", "in", "rows", "mean", *SHARES, left=3)
    for one in report["lengths"]:
        numbers = (one[name] for name in ("count", "mean", *SHARES))
        table.add_row(escape(one["task"]), one["of"], one["unit"], *map(_count, numbers))
    return table


def _targets(report: dict[str, Any]) -> Table:
    table = _table("Targets", "task", "most common", "rows", "different", left=2)
    for one in report["targets"]:
        most = ", ".join(f"{_short(text, 30)!r} {count:,}" for text, count in one["most"])
        table.add_row(escape(one["task"]), escape(most), _count(one["rows"]), _count(one["different"]))
    return table


def _media(report: dict[str, Any]) -> Table:
    columns = (
        "kind",
        "items",
        "different paths",
        "examined",
        "unreadable",
        "same bytes as another",
        "measure",
        *SHARES,
    )
    table = _table("Media", *columns)
    for kind, one in report["media"].items():
        counts = (one[name] for name in ("items", "paths", "examined", "unreadable", "copies"))
        cells = [kind, *map(_count, counts)]
        for measure in ("kilobytes", "height", "width", "seconds"):
            if one.get(measure, {}).get("count"):
                table.add_row(*cells, measure, *(_count(one[measure][name]) for name in SHARES))
                cells = [""] * len(cells)
        if cells[0]:
            table.add_row(*cells)
    return table


def _leakage(report: dict[str, Any]) -> Table:
    kinds = {
        "media": "same media",
        "near_pictures": "near pictures",
        "questions": "same question and media",
        "texts": "same text, no media",
        "targets": "same long target",
        "groups": "same group",
    }
    table = _table("Rows of one file that are in another already", "file", "in", "rows", *kinds.values(), left=2)
    names = _names(report)
    for one in report["leakage"]:
        counts = (one[kind]["rows"] for kind in kinds)
        table.add_row(escape(names[one["into"]]), escape(names[one["from"]]), _count(one["rows"]), *map(_count, counts))
    return table


def _findings(report: dict[str, Any]) -> Iterator[RenderableType]:
    """What tables cannot say, line by line."""
    for kind, one in report["media"].items():
        if one["examined"] + one["unreadable"] < one["paths"]:
            yield f"{kind}: {one['examined']:,} of {one['paths']:,} were read (--full reads all); copies are told among these"
        yield from _listed(f"{kind}: cannot be read", one["unreadable"], one["why"])
        copied = (f"{path}, {count} times" for path, count in one["most_copied"])
        yield from _listed(f"{kind}: the same bytes as another", one["copies"], copied)
    near = report["near_copies"]
    closest = (f"{a} and {b} ({apart} bits apart)" for apart, a, b in near["closest"])
    yield from _listed(f"pictures with a near copy, of {near['compared']:,}", near["with_a_near_copy"], closest)
    if near["too_plain"]:
        yield f"pictures too plain to be compared: {near['too_plain']:,}"
    if report["same_rows"]:
        yield f"rows that say what another says: {report['same_rows']:,}"
    wrong = report["contradictions"]
    said = (f"{' and '.join(one['rows'])}: {' / '.join(one['targets'])}" for one in wrong["examples"])
    yield from _listed("questions with contradicting targets", wrong["questions"], said)
    yield from _listed("rows that are no samples", sum(file["bad"] for file in report["files"]), report["problems"])


def _listed(what: str, count: int, examples: Iterable[str]) -> Iterator[str]:
    if count:
        yield f"{escape(what)}: {count:,}"
        yield from (f"  {escape(_short(example, 300))}" for example in examples)


def _count(number: float) -> str:
    return f"{number:,}" if number else "[dim]0[/]"


def _short(text: str, most: int) -> str:
    text = " ".join(text.split())
    return text if len(text) <= most else f"{text[: most - 3]}..."
