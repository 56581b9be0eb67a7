"""What keeps a run whole: steps that go wrong are left out, a signal to stop is obeyed at once but in order."""

from __future__ import annotations

import math
import signal
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from types import FrameType
from typing import Any

from monoglot.train.recipe import Guard

_FADE = 0.02  # share of a new norm in the usual one
_YOUNG = 20  # steps until a usual norm is known


class Stopped(KeyboardInterrupt):
    """The run was asked to stop, and has saved where it stands."""


@dataclass
class Watch:
    """Judges each step by its loss and gradient norm.

    >>> watch = Watch(Guard(spike=10.0))
    >>> [watch.judge(1.0, 2.0) for _ in range(30)][-1], watch.judge(1.0, 50.0), watch.judge(float("nan"), 1.0)
    ('', 'gradient norm 50 is 25 times its usual 2', 'the loss is not finite')
    """

    settings: Guard
    usual: float = 0.0
    """Mean logarithm of the norms so far."""
    seen: int = 0
    in_a_row: int = 0
    """Steps that went wrong since the last good one."""
    returns: int = 0

    def judge(self, loss: float, norm: float) -> str:
        """Why the step must be left out, or ''."""
        why = self._wrong(loss, norm)
        if why:
            self.in_a_row += 1
            return why
        self.in_a_row = 0
        self.seen += 1
        self.usual += max(_FADE, 1 / self.seen) * (math.log(max(norm, 1e-12)) - self.usual)
        return ""

    def begin_stage(self) -> None:
        """Other data and other tokens have other norms: what is usual is learned anew."""
        self.usual, self.seen, self.in_a_row = 0.0, 0, 0

    @property
    def gives_up(self) -> bool:
        """True if so many steps in a row went wrong that the weights must be bad."""
        return self.in_a_row >= self.settings.patience

    def _wrong(self, loss: float, norm: float) -> str:
        if not math.isfinite(loss):
            return "the loss is not finite"
        if not math.isfinite(norm):
            return "the gradient is not finite"
        usual = math.exp(self.usual)
        if self.settings.spike and self.seen >= _YOUNG and norm > self.settings.spike * usual:
            return f"gradient norm {norm:.3g} is {norm / usual:.0f} times its usual {usual:.3g}"
        return ""

    def state(self) -> dict[str, Any]:
        """What has to be kept to go on, for JSON."""
        return {key: value for key, value in asdict(self).items() if key != "settings"}

    def load_state(self, state: Mapping[str, Any]) -> None:
        for key, value in state.items():
            setattr(self, key, value)


class Signals:
    """Whether the run was asked to stop: `asked` holds the signal's name."""

    def __init__(self) -> None:
        self.asked = ""

    @contextmanager
    def heard(self) -> Iterator[Signals]:
        """SIGTERM and Ctrl-C are noted in place of ending the process; a second Ctrl-C ends it."""

        def note(number: int, frame: FrameType | None) -> None:
            if self.asked and number == signal.SIGINT:
                raise KeyboardInterrupt
            self.asked = signal.Signals(number).name

        try:
            before = {number: signal.signal(number, note) for number in (signal.SIGTERM, signal.SIGINT)}
        except ValueError:  # not the main thread: whoever called us minds the signals
            before = {}
        try:
            yield self
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
