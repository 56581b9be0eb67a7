"""Clocks: jobs that take turns, stages inside a job, commands in processes of their own.

jobs -> turn by turn, each once -> seconds -> Spread, or the Spread of ratios of two jobs of the same turn
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from functools import wraps
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from monoglot.errors import InputError
from monoglot.train.run import processor_name

Clock = Callable[[], float]
Seconds = dict[str, float]
"""What a job took: of each stage, and `total`."""


@dataclass(frozen=True)
class Spread:
    """The median of some turns and their quartiles: seconds, or a ratio."""

    median: float
    low: float
    high: float
    turns: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """
        >>> Spread.of([3.0, 1.0, 2.0])
        Spread(median=2.0, low=1.5, high=2.5, turns=3)
        >>> Spread.of([0.25])
        Spread(median=0.25, low=0.25, high=0.25, turns=1)
        """
        known = values if len(values) > 1 else [values[0], values[0]]
        low, middle, high = statistics.quantiles(known, n=4, method="inclusive")
        return cls(middle, low, high, len(values))

    def to_json(self) -> dict[str, float]:
        return {name: round(value, 6) for name, value in asdict(self).items()}


def take_turns(
    jobs: Mapping[str, Callable[[], Seconds]],
    *,
    turns: int,
    seconds: float,
    after_each: Callable[[str], None] = lambda name: None,
    clock: Clock = time.perf_counter,
) -> dict[str, list[Seconds]]:
    """Run every job once a turn, so that what else the machine does falls on all alike. The first turn warms up and does not count.

    Args:
        turns: at most so many that count, and at least one.
        seconds: no turn begins that would end after this, as long as the last one took.
        after_each: told the name of each job that is done.

    >>> ticks = iter(range(100))
    >>> take_turns({"a": lambda: {"total": 1.0}}, turns=3, seconds=60, clock=lambda: next(ticks))
    {'a': [{'total': 1.0}, {'total': 1.0}, {'total': 1.0}]}
    """
    taken: dict[str, list[Seconds]] = {name: [] for name in jobs}
    began = before = clock()
    for turn in range(turns + 1):
        for name, job in jobs.items():
            took = job()
            if turn:
                taken[name].append(took)
            after_each(name)
        now = clock()
        if turn and now - began + (now - before) > seconds:
            break
        before = now
    return taken


def timed(run: Callable[[], object], clock: Clock = time.perf_counter) -> Callable[[], Seconds]:
    """A job of one stage."""

    def job() -> Seconds:
        started = clock()
        run()
        return {"total": clock() - started}

    return job


def spreads(taken: Sequence[Seconds]) -> dict[str, dict[str, float]]:
    """JSON of each stage's Spread."""
    return {stage: Spread.of([seconds[stage] for seconds in taken]).to_json() for stage in taken[0]}


def ratio(above: Sequence[Seconds], below: Sequence[Seconds]) -> Spread:
    """How often as long as `below` the job `above` took, turn by turn."""
    return Spread.of([a["total"] / b["total"] for a, b in zip(above, below)])


class Stages:
    """Seconds of stages that lie in each other: time belongs to the innermost stage that has begun.

    >>> ticks = iter([0.0, 1.0, 3.0, 7.0])
    >>> stages = Stages(clock=lambda: next(ticks))
    >>> with stages("outer"), stages("inner"): pass
    >>> stages.seconds
    {'outer': 5.0, 'inner': 2.0}
    """

    def __init__(self, clock: Clock = time.perf_counter):
        self.clock, self.seconds = clock, Seconds()
        self._open: list[str] = []
        self._since = 0.0

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        self._mark()
        self._open.append(stage)
        self.seconds.setdefault(stage, 0.0)
        try:
            yield
        finally:
            self._mark()
            self._open.pop()

    def _mark(self) -> None:
        now = self.clock()
        if self._open:
            self.seconds[self._open[-1]] += now - self._since
        self._since = now

    @contextmanager
    def watching(self, calls: Sequence[tuple[Any, str, str]]) -> Iterator[None]:
        """Inside of this, what `owner.name` takes is time of a stage, for each (owner, name, stage)."""
        with ExitStack() as stack:
            for owner, name, stage in calls:
                stack.enter_context(_replaced(owner, name, self._watched(getattr(owner, name), stage)))
            yield

    def _watched(self, call: Callable[..., Any], stage: str) -> Callable[..., Any]:
        @wraps(call)
        def watched(*args: Any, **kwargs: Any) -> Any:
            with self(stage):
                return call(*args, **kwargs)

        return watched


@contextmanager
def _replaced(owner: Any, name: str, value: Any) -> Iterator[None]:
    """`owner.name` is `value` inside of this; after it, all is as before, whether it was the owner's own or its class's."""
    own = name in vars(owner)
    before = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        if own:
            setattr(owner, name, before)
        else:
            delattr(owner, name)


_LAUNCHER = """
import json, os, subprocess, sys, time
started = time.perf_counter()
process = subprocess.Popen(sys.argv[1:], stdout=subprocess.DEVNULL)
_, status, used = os.wait4(process.pid, 0)
print(json.dumps([os.waitstatus_to_exitcode(status), time.perf_counter() - started, used.ru_maxrss]))
"""
"""Stands between: the kernel counts as a process's own what whoever started it held at that moment."""


def fresh_process(command: Sequence[str]) -> tuple[float, int]:
    """Seconds that a command takes from its start to its end, and bytes that it holds at most. InputError if it fails."""
    ran = subprocess.run([sys.executable, "-c", _LAUNCHER, *command], capture_output=True, text=True, errors="replace")
    code, seconds, held = json.loads(ran.stdout)
    if code:
        raise InputError.at("command", " ".join(command), f"failed ({' '.join(ran.stderr.split())[-200:]})")
    return seconds, held * (1 if sys.platform == "darwin" else 1024)


def machine() -> dict[str, Any]:
    """What it ran on."""
    import torch

    return {
        "processor": processor_name(),
        "cores": os.cpu_count(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "system": platform.system(),
    }


def versions() -> dict[str, str]:
    """Of what answers depends on."""
    found = {"python": platform.python_version()}
    for name in ("monoglot", "torch", "numpy", "pillow", "av", "transformers"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:  # an extra that is not installed
            continue
    return found
