"""What a run's folder says about it, finished or not.

recipe.yaml, metrics.jsonl, quarantine.jsonl, model/lineage.json -> read_history -> History -> Series

A run that was resumed, or went back after bad steps, wrote some steps twice: the later line counts.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from monoglot.errors import InputError
from monoglot.files import read_json

Line = dict[str, Any]
"""One line of metrics.jsonl."""
KINDS = ("loss", "held_out", "samples", "conflicts")
"""What a line that is no event is about: the first of these keys that it has."""
AROUND = 4
"""Values on either side that a running mean takes in, or a tenth of all if that is fewer."""


@dataclass(frozen=True)
class Series:
    """Something that changes along a run."""

    steps: np.ndarray
    """int64[n], rising"""
    values: np.ndarray
    """float64[n]; nan where nothing is known"""

    def __len__(self) -> int:
        return len(self.steps)

    def known(self) -> Series:
        """Without what is not finite."""
        finite = np.isfinite(self.values)
        return Series(self.steps[finite], self.values[finite])

    def smooth(self) -> Series:
        """The mean of each value and its neighbours, so that it lags behind nothing; needs known values.

        >>> Series(np.arange(10), np.array([0.0, 6.0] * 5)).smooth().values[:3].tolist()
        [3.0, 2.0, 4.0]
        """
        around = min(AROUND, len(self) // 10)
        sums = np.concatenate([[0.0], np.cumsum(self.values)])
        places = np.arange(len(self))
        first, end = np.maximum(places - around, 0), np.minimum(places + around + 1, len(self))
        return Series(self.steps, (sums[end] - sums[first]) / (end - first))

    def thin(self, most: int) -> Series:
        """At most so many points: means of equal parts. Needs known values.

        >>> Series(np.arange(4), np.array([1.0, 3.0, 5.0, 7.0])).thin(2).values.tolist()
        [2.0, 6.0]
        """
        if len(self) <= most:
            return self
        starts = np.linspace(0, len(self), most, endpoint=False).astype(int)
        sizes = np.diff([*starts, len(self)])
        return Series(*(np.add.reduceat(part, starts) / sizes for part in (self.steps, self.values)))

    def picked(self, most: int) -> Series:
        """At most so many points, evenly picked, the first and the last among them.

        >>> Series(np.arange(5), np.arange(5.0)).picked(3).steps.tolist()
        [0, 2, 4]
        """
        if len(self) <= most:
            return self
        places = np.linspace(0, len(self) - 1, most).round().astype(int)
        return Series(self.steps[places], self.values[places])

    @property
    def last(self) -> float:
        """nan if there is none."""
        return float(self.values[-1]) if len(self) else math.nan


@dataclass(frozen=True)
class Stage:
    """A part of the run; `end` is the first step that is no more of it, or the last one so far."""

    name: str
    start: int
    end: int
    sources: dict[str, dict[str, Any]]


@dataclass(frozen=True)
class History:
    """A run as its folder tells it. Lines of steps carry the step's number, from 0; looks and events say how many are done."""

    folder: Path
    recipe: dict[str, Any]
    """As written, unchecked: a page of another version is shown as well. Empty if there is none."""
    page: str
    """recipe.yaml, word for word."""
    lines: dict[str, list[Line]]
    """By KINDS; in each the steps rise."""
    events: list[Line]
    """In the order in which they came."""
    quarantine: list[dict[str, str]]
    """Rows that could not be read, each once: `row` and `error`."""
    lineage: dict[str, Any] = field(default_factory=dict)
    unreadable: tuple[int, ...] = ()
    """Lines of metrics.jsonl that are none."""

    @property
    def name(self) -> str:
        return str(self.recipe.get("name") or self.folder.resolve().name)

    def happened(self, *kinds: str) -> list[Line]:
        """Events of these kinds."""
        return [event for event in self.events if event["event"] in kinds]

    @cached_property
    def last_step(self) -> int:
        return max((line["step"] for lines in (self.events, *self.lines.values()) for line in lines), default=0)

    @property
    def planned_steps(self) -> int | None:
        """None when the recipe does not give the length in steps, or a stage may end before."""
        stages = self.recipe.get("stages") or [self.recipe]
        steps = [number(None if stage.get("plateau") else stage.get("steps")) for stage in stages]
        total = sum(steps)
        return None if math.isnan(total) else round(total)

    @property
    def finished(self) -> bool:
        """The run's end is written, and the run did not go on after it."""
        marks = self.happened("begin", "end")
        return bool(marks) and marks[-1]["event"] == "end"

    @cached_property
    def seconds(self) -> float:
        """Training time so far."""
        times = [number(line.get("seconds")) for kind in (self.events, *self.lines.values()) for line in kind]
        return max((time for time in times if not math.isnan(time)), default=math.nan)

    @cached_property
    def stages(self) -> list[Stage]:
        """At least one."""
        told: dict[str, list[Line]] = {}
        for mark in self.happened("stage"):  # a run that goes on tells its stage again
            told.setdefault(str(mark.get("stage", "")), []).append(mark)
        if not told:
            return [Stage("", 0, self.last_step, {})]
        begins = {name: min(mark["step"] for mark in marks) for name, marks in told.items()}
        order = sorted(begins, key=lambda name: begins[name])
        ends = [*(begins[name] for name in order[1:]), max(self.last_step, begins[order[-1]])]
        return [Stage(name, begins[name], end, told[name][-1].get("sources") or {}) for name, end in zip(order, ends)]

    @cached_property
    def names(self) -> list[str]:
        """Data sets that are trained on, in the order of the recipe."""
        pages = [self.recipe, *(self.recipe.get("stages") or [])]
        listed = [str(source.get("name")) for page in pages for source in page.get("mixture") or []]
        seen = [
            name for line in self.lines["loss"] for key in ("loss", "rows", "quotas") for name in line.get(key) or {}
        ]
        begun = [name for stage in self.stages for name in stage.sources]
        return list(dict.fromkeys([*listed, *begun, *seen]))

    @cached_property
    def looked_at(self) -> list[str]:
        """Held-out sets, those that are trained on first."""
        found = dict.fromkeys(name for line in self.lines["held_out"] for name in line["held_out"])
        return [*(name for name in self.names if name in found), *(name for name in found if name not in self.names)]

    def series(self, key: str, name: str | None = None) -> Series:
        """A number of the lines of steps, of one data set where `name` is given; nan in lines that lack it."""
        return _series(self.lines["loss"], key, name)

    def held_out(self, name: str) -> Series:
        """Held-out losses of a set, nats a token."""
        return _series(self.lines["held_out"], "held_out", name).known()

    def regret(self, name: str) -> Series:
        """How far each held-out loss lies above the lowest until then: as written, or found from the losses."""
        written = _series(self.lines["held_out"], "regret", name).known()
        if len(written):
            return written
        losses = self.held_out(name)
        return Series(losses.steps, losses.values - np.minimum.accumulate(losses.values))

    def total(self, key: str, name: str | None = None, *, stage: Stage | None = None) -> float:
        """Sum over the lines of steps, of a stage if one is given; nan if no line has it."""
        lines = self.lines["loss"]
        if stage is not None and stage.name:
            lines = [line for line in lines if line.get("stage") == stage.name]
        known = _series(lines, key, name).known().values
        return float(known.sum()) if len(known) else math.nan

    def rows(self, *, stage: Stage | None = None) -> float:
        """Rows learned from; nan if the run did not count."""
        return nansum(self.total("rows", name, stage=stage) for name in self.names)

    @cached_property
    def speeds(self) -> dict[str, Series]:
        """Between each line and the one before: rows and tokens a second, shares of waiting and of padding."""
        steps = self.series("seconds").steps
        seconds = np.diff(self.series("seconds").values, prepend=math.nan)
        seconds[~(seconds > 0)] = math.nan  # a line after a resume that reaches back
        rows = np.array([nansum(map(number, (line.get("rows") or {}).values())) for line in self.lines["loss"]])
        tokens = {part: self.series("tokens", part).values for part in ("source", "target", "padding")}
        used = tokens["source"] + tokens["target"]
        with np.errstate(invalid="ignore", divide="ignore"):
            found = {
                "rows": rows / seconds,
                "tokens": used / seconds,
                "wait": self.series("wait").values / seconds,
                "padding": tokens["padding"] / (used + tokens["padding"]),
            }
        return {name: Series(steps, values).known() for name, values in found.items()}

    @cached_property
    def samples(self) -> dict[tuple[str, str], list[Line]]:
        """The held-out rows that were answered at every look: (set, id) -> answers in time, each with its `step`."""
        found: dict[tuple[str, str], list[Line]] = {}
        for line in self.lines["samples"]:
            for sample in line["samples"]:
                key = (str(sample.get("set", "")), str(sample.get("id", "")))
                found.setdefault(key, []).append({**sample, "step": line["step"]})
        return found

    @cached_property
    def machines(self) -> list[tuple[dict[str, Any], float]]:
        """(machine, hours) of each time that the run was started, from the lines that count."""
        starts = self.happened("begin")
        bounds = [self._seconds_at(start["step"]) for start in starts[1:]]
        times = np.clip([0.0, *bounds, self.seconds], 0.0, None)
        return [(start.get("machine") or {}, max(0.0, t) / 3600) for start, t in zip(starts, np.diff(times))]

    def _seconds_at(self, step: int) -> float:
        time = self.series("seconds")
        before = time.values[time.steps <= step]
        return float(before[-1]) if len(before) else 0.0


def read_history(folder: Path) -> History:
    """Read what is there.

    Raises:
        InputError: the folder is no run's, or recipe.yaml is not YAML.
    """
    folder = Path(folder)
    if not any((folder / name).is_file() for name in ("recipe.yaml", "metrics.jsonl")):
        wrong = "has neither recipe.yaml nor metrics.jsonl" if folder.is_dir() else "no such folder"
        raise InputError.at(folder, "run", wrong, "give the folder of a run, for example runs/nano")
    page = _text(folder / "recipe.yaml")
    try:
        recipe = yaml.safe_load(page)
    except yaml.YAMLError as error:
        raise InputError.at(folder / "recipe.yaml", "", f"is not YAML ({' '.join(str(error).split())})") from None
    lines, events, unreadable = _metrics(_text(folder / "metrics.jsonl"))
    rows = [row for _, row in _json_lines(_text(folder / "quarantine.jsonl")) if isinstance(row, dict)]
    once = {(str(row.get("row", "")), str(row.get("error", ""))): None for row in rows}
    lineage = folder / "model" / "lineage.json"
    return History(
        folder=folder,
        recipe=recipe if isinstance(recipe, dict) else {},
        page=page,
        lines=lines,
        events=events,
        quarantine=[{"row": row, "error": error} for row, error in once],
        lineage=read_json(lineage, "where the model comes from") if lineage.is_file() else {},
        unreadable=tuple(unreadable),
    )


def _metrics(text: str) -> tuple[dict[str, list[Line]], list[Line], list[int]]:
    """Lines by kind, events, and the numbers of lines that are none."""
    lines: dict[str, list[Line]] = {kind: [] for kind in KINDS}
    events, unreadable = [], []
    for count, line in _json_lines(text):
        if not isinstance(line, dict) or not isinstance(line.get("step"), int):
            unreadable.append(count)
        elif "event" in line:
            events.append(line)
        elif kind := next((key for key in KINDS if key in line), None):
            same = lines[kind]
            while same and same[-1]["step"] >= line["step"]:
                same.pop()
            same.append(line)
    return lines, events, unreadable


def _json_lines(text: str) -> Iterator[tuple[int, Any]]:
    """(number, value) of each line, None for one that is no JSON; a last line that is being written is left out."""
    lines = text.split("\n")
    for count, line in enumerate(lines, start=1):
        try:
            yield count, json.loads(line)
        except json.JSONDecodeError:
            if line.strip() and count < len(lines):
                yield count, None


def _text(path: Path) -> str:
    """Empty if the file is not there; bytes that are no characters are replaced."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return ""
    except OSError as error:
        raise InputError.at(path, "", f"cannot be read ({error.strerror})") from None


def _series(lines: list[Line], key: str, name: str | None) -> Series:
    values = [line.get(key) if name is None else (line.get(key) or {}).get(name) for line in lines]
    return Series(np.array([line["step"] for line in lines], np.int64), np.array([number(v) for v in values], float))


def number(value: Any) -> float:
    """
    >>> number(3), number(None)
    (3.0, nan)
    """
    return float(value) if isinstance(value, (int, float)) else math.nan


def nansum(values: Any) -> float:
    """The sum of what is known; nan if nothing is.

    >>> nansum([1.0, math.nan]), nansum([])
    (1.0, nan)
    """
    known = [value for value in values if not math.isnan(value)]
    return sum(known) if known else math.nan
