"""What a run shows while it runs: a line a data set (loss, rows, rows/s), time left; the same as JSON lines for later."""

from __future__ import annotations

import json
import math
import time
from pathlib import Path
from types import TracebackType

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table

_SMOOTH = 0.95  # of the running means that are shown


class Progress:
    """A live table on a terminal, a line a minute elsewhere, and metrics.jsonl always."""

    def __init__(self, names: list[str], steps: int, first: int, log: Path, *, quiet: bool = False):
        self.names, self.steps, self.first = names, steps, first
        self.console = Console(quiet=quiet)
        self._log = open(log, "a", encoding="utf-8")  # noqa: SIM115 (closed in __exit__)
        self._loss = [math.nan] * len(names)
        self._rows = [0] * len(names)
        self._began = self._told = time.monotonic()
        self._step = first
        self._live = (
            Live(self._table(), console=self.console, refresh_per_second=2) if self.console.is_terminal else None
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
        self._log.close()

    def step(
        self,
        step: int,
        losses: list[float],
        counts: list[int],
        norm: float,
        lr: float,
        *,
        log: bool,
        score: float | None = None,
    ) -> None:
        """One step is done: mean loss a token and rows of each data set, gradient norm, learning rate, score of own answers."""
        self._step = step + 1
        for index, (loss, count) in enumerate(zip(losses, counts)):
            self._rows[index] += count
            if not math.isnan(loss):
                before = self._loss[index]
                self._loss[index] = loss if math.isnan(before) else _SMOOTH * before + (1 - _SMOOTH) * loss
        if log:
            by_name = {name: round(loss, 5) for name, loss in zip(self.names, losses) if not math.isnan(loss)}
            self._write(
                {"step": step, "seconds": round(self._seconds, 2), "loss": by_name, "norm": round(norm, 4), "lr": lr}
                | ({} if score is None else {"score": round(score, 4)})
            )
        if self._live:
            self._live.update(self._table())
        elif time.monotonic() - self._told > 60 or step + 1 == self.steps:
            self._told = time.monotonic()
            losses_now = "  ".join(f"{name} {loss:.3f}" for name, loss in zip(self.names, self._loss))
            self.console.print(
                f"step {self._step}/{self.steps}  {self._left()} left  {self._rate():.0f} rows/s  {losses_now}",
                highlight=False,
            )

    def note(self, scores: dict[str, float]) -> None:
        """Held-out scores in passing."""
        self._write({"step": self._step, "seconds": round(self._seconds, 2), "held_out": scores})
        self.console.print(
            "held out: " + "  ".join(f"{name} {score:.3f}" for name, score in scores.items()), highlight=False
        )

    @property
    def _seconds(self) -> float:
        return time.monotonic() - self._began

    def _rate(self) -> float:
        return sum(self._rows) / max(self._seconds, 1e-9)

    def _left(self) -> str:
        done = self._step - self.first
        if not done:
            return "?"
        seconds = self._seconds / done * (self.steps - self._step)
        return f"{int(seconds // 60)}:{int(seconds % 60):02d}"

    def _table(self) -> Group:
        table = Table("data set", "loss", "rows", "rows/s", box=None)
        for name, loss, rows in zip(self.names, self._loss, self._rows):
            table.add_row(name, f"{loss:.3f}", str(rows), f"{rows / max(self._seconds, 1e-9):.1f}")
        return Group(f"step {self._step}/{self.steps}, {self._left()} left, {self._rate():.0f} rows/s", table)

    def _write(self, record: dict[str, object]) -> None:
        self._log.write(json.dumps(record) + "\n")
        self._log.flush()
