"""What a run shows while it runs: a line a data set (loss, rows, rows/s), time left; the same as JSON lines for later.

metrics.jsonl: docs/recipes.md says what its lines hold. A resumed run cuts what lies after its checkpoint.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table

from monoglot.errors import InputError

LOG_EVERY = 10  # steps between lines of metrics.jsonl
_SMOOTH = 0.95  # of the running means that are shown
_SUMMED = ("rows", "tokens", "wait")


class Progress:
    """A live table on a terminal, a line a minute elsewhere, and metrics.jsonl always.

    Args:
        log: the file of lines.
        quiet: show nothing.
        on_line: called with each line that is written, for trackers.
    """

    def __init__(self, log: Path, *, quiet: bool = False, on_line: Callable[[dict[str, Any]], None] | None = None):
        self.console = Console(quiet=quiet)
        self._path, self._on_line = log, on_line
        try:
            self._log = open(log, "a", encoding="utf-8")  # noqa: SIM115 (closed in __exit__)
        except OSError as error:
            wrong = f"cannot be written ({error.strerror})"
            raise InputError.at(log, "metrics", wrong, "free some space or choose another place") from error
        self._sums: dict[str, Counter[str]] = {name: Counter() for name in _SUMMED}
        self._rows: Counter[str] = Counter()
        self._loss: dict[str, float] = {}
        self._seconds, self._began, self._told = 0.0, time.monotonic(), time.monotonic()
        self._step = self._first = 0
        self._end: int | None = None
        self._live = (
            Live(get_renderable=self._table, console=self.console, refresh_per_second=2)
            if self.console.is_terminal
            else None
        )

    def __enter__(self) -> Progress:
        if self._live:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live:
            self._live.stop()
        with suppress(OSError):  # a full disk was told when the line was written
            self._log.close()

    @property
    def seconds(self) -> float:
        """How long the run has trained, over all its parts."""
        return self._seconds + time.monotonic() - self._began

    def state(self) -> dict[str, Any]:
        """Where the log stands, for a checkpoint."""
        self._log.flush()
        return {"bytes": os.path.getsize(self._path), "seconds": self.seconds, "sums": self._sums}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Go on from there: later lines were written by steps that will be done again."""
        self._log.flush()
        if os.path.getsize(self._path) > state["bytes"]:
            os.truncate(self._path, state["bytes"])
        self._seconds, self._sums = state["seconds"], {name: Counter(state["sums"][name]) for name in _SUMMED}
        self._began = time.monotonic()

    def begin(self, step: int, **facts: Any) -> None:
        """The run begins, or goes on."""
        self._step = self._first = step
        self.write({"event": "begin", "step": step, "time": time.strftime("%Y-%m-%dT%H:%M:%S"), **facts})

    def stage(self, step: int, end: int | None, name: str, index: int, sources: dict[str, dict[str, Any]]) -> None:
        """A stage begins; `end` is the step at which it ends if that is known."""
        self._end = end
        if len(self._loss) and set(self._loss) != set(sources):
            self._loss = {key: value for key, value in self._loss.items() if key in sources}
        self.write({"event": "stage", "step": step, "stage": name, "index": index, "sources": sources})

    def step(
        self,
        step: int,
        losses: Mapping[str, float],
        rows: Mapping[str, int],
        *,
        tokens: Mapping[str, int],
        wait: float,
        log: bool,
        **facts: Any,
    ) -> None:
        """One step is done: mean loss a token and rows of each data set, tokens by kind, seconds waited for data; `facts` go into its line."""
        self._step = step + 1
        for name, values in (("rows", rows), ("tokens", tokens), ("wait", {"wait": wait})):
            self._sums[name].update(values)
        self._rows.update(rows)
        for name, loss in losses.items():
            if math.isfinite(loss):
                self._loss[name] = _SMOOTH * self._loss.get(name, loss) + (1 - _SMOOTH) * loss
        if log:
            loss_now = {name: round(loss, 6) for name, loss in losses.items() if math.isfinite(loss)}
            line = {"step": step, "seconds": round(self.seconds, 2), "loss": loss_now, **facts}
            line |= {"rows": dict(self._sums["rows"]), "tokens": dict(self._sums["tokens"])}
            self.write(line | {"wait": round(self._sums["wait"]["wait"], 3)})
            self._sums = {name: Counter() for name in _SUMMED}
        if not self._live and (time.monotonic() - self._told > 60 or self._step == self._end):
            self._told = time.monotonic()
            now = "  ".join(f"{name} {loss:.3f}" for name, loss in self._loss.items())
            self.console.print(f"{self._headline()}  {now}", highlight=False)

    def note(self, line: dict[str, Any], told: str = "") -> None:
        """Something else happened; `told` is shown."""
        self.write(line)
        if told:
            self.say(told)

    def say(self, told: str) -> None:
        """Show a line beside the table."""
        self.console.print(told, highlight=False)

    def write(self, line: dict[str, Any]) -> None:
        """One line of metrics.jsonl. InputError if it cannot be written."""
        try:
            self._log.write(json.dumps(line, ensure_ascii=False) + "\n")
            self._log.flush()
        except OSError as error:
            raise InputError.at(
                self._path, "metrics", f"cannot be written ({error.strerror})", "free some space; --resume goes on"
            ) from error
        if self._on_line:
            self._on_line(line)

    def _headline(self) -> str:
        here = time.monotonic() - self._began
        rate = sum(self._rows.values()) / max(here, 1e-9)
        if self._end is None:
            return f"step {self._step}, {rate:.0f} rows/s"
        left = "?"
        if self._step > self._first:
            seconds = here / (self._step - self._first) * (self._end - self._step)
            left = f"{int(seconds // 60)}:{int(seconds % 60):02d}"
        return f"step {self._step}/{self._end}, {left} left, {rate:.0f} rows/s"

    def _table(self) -> Group:
        table = Table("data set", "loss", "rows", "rows/s", box=None)
        here = max(time.monotonic() - self._began, 1e-9)
        for name, loss in self._loss.items():
            table.add_row(name, f"{loss:.3f}", str(self._rows[name]), f"{self._rows[name] / here:.1f}")
        return Group(self._headline(), table)


class Silent(Progress):
    """What the other processes of a run have: nothing is shown or written."""

    def __init__(self) -> None:
        super().__init__(Path(os.devnull), quiet=True)

    def state(self) -> dict[str, Any]:
        return {}

    def load_state(self, state: Mapping[str, Any]) -> None:
        pass

    def write(self, line: dict[str, Any]) -> None:
        pass
