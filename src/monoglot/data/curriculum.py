"""When: which data sets a stage draws from, and when it ends.

a stage's own quotas + those of earlier stages -> with_replay -> quotas
steps, tokens, held-out scores -> Ending -> over or not
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any


def with_replay(own: Mapping[str, float], earlier: Sequence[Mapping[str, float]], share: float) -> dict[str, float]:
    """Rows a step of each data set when `share` of every step repeats what earlier stages had and this one has not.

    Data sets of earlier stages keep the proportions of the last stage that had them.

    Args:
        own: quotas of this stage's own data sets, by name; they shrink to make room, so the step stays as large.
        earlier: quotas of the stages before, in order.

    >>> with_replay({"clips": 8}, [{"names": 3, "boxes": 1}], 0.25)
    {'clips': 6.0, 'names': 1.5, 'boxes': 0.5}
    """
    old = {name: quota for quotas in earlier for name, quota in quotas.items() if name not in own}
    if not share or not old:
        return dict(own)
    rows, total = sum(own.values()), sum(old.values())
    kept = {name: quota * (1 - share) for name, quota in own.items()}
    return kept | {name: rows * share * quota / total for name, quota in old.items()}


@dataclass
class Ending:
    """Says when a stage is over: after so many steps, so many tokens, or when named held-out losses no longer fall.

    The first that comes true ends it; None for what does not count.

    >>> ending = Ending(steps=100, scores=("names",), patience=2, least=0.01)
    >>> [ending.look({"names": loss}) for loss in (2.0, 1.5, 1.495, 1.5)], ending.over(4, 0)
    ([False, False, False, True], True)
    """

    steps: int | None = None
    tokens: int | None = None
    scores: tuple[str, ...] = ()
    patience: int = 3
    """So many looks in a row without one score that is better by `least` end the stage."""
    least: float = 0.01
    """Nats a token by which a held-out loss has to fall to count as better."""
    best: dict[str, float] = field(default_factory=dict)
    waited: int = 0

    def over(self, steps: int, tokens: int) -> bool:
        """True if a stage that has done so many steps and read so many tokens is over."""
        done = (self.steps is not None and steps >= self.steps) or (self.tokens is not None and tokens >= self.tokens)
        return done or (bool(self.scores) and self.waited >= self.patience)

    def look(self, held_out: Mapping[str, float]) -> bool:
        """Take note of held-out losses; True if they have stopped falling."""
        if not self.scores:
            return False
        better = False
        for name in self.scores:
            if held_out[name] < self.best.get(name, float("inf")) - self.least:
                self.best[name], better = held_out[name], True
        self.waited = 0 if better else self.waited + 1
        return self.waited >= self.patience

    def progress(self, steps: int, tokens: int) -> tuple[int, int]:
        """(done, whole) of what moves the learning rate: tokens if they end the stage, else steps."""
        if self.tokens is not None:
            return min(tokens, self.tokens - 1), self.tokens
        assert self.steps is not None, "a stage has steps or tokens"
        return steps, self.steps

    def state(self) -> dict[str, Any]:
        """What has to be kept to go on, for JSON."""
        return {key: value for key, value in asdict(self).items() if key in ("best", "waited")}

    def load_state(self, state: Mapping[str, Any]) -> None:
        self.best, self.waited = dict(state["best"]), int(state["waited"])
