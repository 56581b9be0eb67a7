"""How much a loss counts. (How often a row is drawn is the mixture's, when a data set comes in is the curriculum's.)

    losses float32[K] of a step -> update -> weights float32[K] for the next step; `auto` also draws float32[K], factors of the quotas

K data sets. Losses are averaged over the tokens of each data set first, so that long answers do not drown short ones; a balancer weighs
these averages. docs/balance.md says which to take when.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Protocol

import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor

from monoglot.registry import Registry

FEWEST, MOST = 0.25, 4.0
"""Bounds of what `auto` multiplies quotas by."""

SMALLEST_LOSS = 1e-3
"""Nats a token; losses below count as this where they are divided by."""


class Balance(BaseModel):
    """Which balancer, and its settings: `balance: auto`, or `balance: {kind: auto, every: 20}`.

    >>> Balance.model_validate("equal").kind
    'equal'
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: str = Field(
        "fixed", description="How much each data set's loss counts; one of monoglot.train.balance.BALANCERS."
    )
    temperature: float = Field(
        2.0,
        ge=1,
        description="`temperature`: shares are raised to 1 / temperature; 1 is `fixed`, much is nearly equal.",
    )
    alpha: float = Field(
        1.5, ge=0, description="`gradnorm`: how strongly a data set that is behind is pulled along; 0 for equal norms."
    )
    decay: float = Field(1e-3, ge=0, description="`famo`: how fast its logits are forgotten.")
    lr: float = Field(0.025, gt=0, description="`uncertainty`, `gradnorm`, `famo`: step size of what they learn.")
    every: int = Field(20, ge=1, description="`auto`: steps between changes of the quotas.")

    @model_validator(mode="before")
    @classmethod
    def _name_alone(cls, value: Any) -> Any:
        return {"kind": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _settings_belong_to_it(self) -> Balance:
        own = BALANCERS[self.kind].settings
        changed = {name for name, field in type(self).model_fields.items() if getattr(self, name) != field.default}
        for name in sorted(changed - {"kind", *own}):  # a page that was written out names every default
            others = sorted(kind for kind, balancer in BALANCERS.items() if name in balancer.settings)
            raise ValueError(f"{name}: is a setting of {', '.join(others)}; '{self.kind}' does not look at it")
        return self


class Balancer(Protocol):
    """Says how much the loss of each data set counts; one is made for each stage of a run.

    Made from quotas float32[K] (rows a step), loss_weights float32[K] and the recipe's settings.
    """

    needs_norms: ClassVar[bool]
    """True if `update` wants gradient norms."""
    settings: ClassVar[tuple[str, ...]]
    """The fields of `Balance` that it looks at."""

    def weights(self) -> Tensor:
        """float32[K] factors of the data sets' mean losses in the coming step: positive, sum 1, no graph."""

    def update(self, losses: Tensor, norms: Tensor | None = None) -> None:
        """Take in the step just done.

        Args:
            losses: float32[K] mean token losses in nats; nan for a data set without rows in this step.
            norms: float32[K] norms of the gradient of each (unweighted) mean loss by the shared parameters, nan likewise.
        """

    def draws(self) -> Tensor | None:
        """float32[K] factors of the quotas, each in [0.25, 4], that keep the sum of rows; None: quotas stay."""

    def state(self) -> dict[str, list[float]]:
        """What `load_state` needs to go on bit by bit; survives JSON."""

    def load_state(self, state: Mapping[str, Sequence[float]]) -> None:
        """Raises ValueError for the state of another balancer or of another number of data sets."""


class Fixed:
    """The recipe's own numbers: quota times loss weight, so that each row counts by the loss weight of its data set.

    >>> Fixed(torch.tensor([2.0, 6.0]), torch.ones(2), Balance()).weights().tolist()
    [0.25, 0.75]
    """

    needs_norms: ClassVar[bool] = False
    settings: ClassVar[tuple[str, ...]] = ()
    remembers: ClassVar[tuple[str, ...]] = ()
    """Names of the tensors float64[K] or float64[1] that make up the state."""

    def __init__(self, quotas: Tensor, loss_weights: Tensor, settings: Balance):
        self.quotas = quotas.double()
        self.shares = _scaled(self.quotas * loss_weights.double())

    def weights(self) -> Tensor:
        return self.shares.float()

    def update(self, losses: Tensor, norms: Tensor | None = None) -> None:
        pass

    def draws(self) -> Tensor | None:
        return None

    def state(self) -> dict[str, list[float]]:
        return {name: getattr(self, name).tolist() for name in self.remembers}

    def load_state(self, state: Mapping[str, Sequence[float]]) -> None:
        mine, given = ({k: len(v) for k, v in s.items()} for s in (self.state(), state))
        if mine != given:
            raise ValueError(f"a balancer's state has {given} numbers, this one needs {mine}")
        for name in self.remembers:
            setattr(self, name, torch.tensor(state[name], dtype=torch.float64))


class Equal(Fixed):
    """Each data set counts by its loss weight alone, whatever its quota.

    >>> Equal(torch.tensor([2.0, 6.0]), torch.tensor([1.0, 3.0]), Balance()).weights().tolist()
    [0.25, 0.75]
    """

    def __init__(self, quotas: Tensor, loss_weights: Tensor, settings: Balance):
        super().__init__(quotas, loss_weights, settings)
        self.shares = _scaled(loss_weights.double())


class Temperature(Fixed):
    """Between `fixed` (temperature 1) and equal shares (much): shares ^ (1 / temperature).

    >>> Temperature(torch.tensor([1.0, 9.0]), torch.ones(2), Balance(kind="temperature", temperature=2)).weights().tolist()
    [0.25, 0.75]
    """

    settings = ("temperature",)

    def __init__(self, quotas: Tensor, loss_weights: Tensor, settings: Balance):
        super().__init__(quotas, loss_weights, settings)
        self.shares = _scaled(self.shares ** (1 / settings.temperature))


class Uncertainty(Fixed):
    """Divides each loss by a learned variance: data sets whose loss stays high count less.

    Minimises sum of exp(-s) loss + s / 2 by gradient descent on s = log variance. Source: arXiv 1705.07115, the form for classification.
    There s is learned with the network; here by itself, since its gradient needs nothing but the losses.
    """

    settings = ("lr",)
    remembers = ("log_variance",)

    STEEPEST = 10.0
    """Gradients of s are cut off here, so that one odd row cannot silence a data set whose loss was near zero."""

    def __init__(self, quotas: Tensor, loss_weights: Tensor, settings: Balance):
        super().__init__(quotas, loss_weights, settings)
        self.lr = settings.lr
        self.log_variance = torch.zeros_like(self.shares)

    def weights(self) -> Tensor:
        return _scaled(self.shares * (-self.log_variance).exp()).float()

    def update(self, losses: Tensor, norms: Tensor | None = None) -> None:
        gradient = 0.5 - (-self.log_variance).exp() * _known(losses)
        gradient = torch.where(losses.isfinite(), gradient, 0.0).clamp(-self.STEEPEST, self.STEEPEST)
        self.log_variance = self.log_variance - self.lr * gradient


class GradNorm(Fixed):
    """Makes weighted gradients equally long, those of data sets that are behind longer.

    Gradient descent on sum |w norm - target|, target = mean(w norm) (behind / mean(behind))^alpha held fixed, behind = loss / first loss.
    Source: arXiv 1711.02257, algorithm 1. Norms are divided by their mean, so that `lr` has no unit; data sets without rows in a step wait.
    """

    needs_norms = True
    settings = ("alpha", "lr")
    remembers = ("factors", "first")

    SMALLEST = 0.01
    """No factor falls below this."""

    def __init__(self, quotas: Tensor, loss_weights: Tensor, settings: Balance):
        super().__init__(quotas, loss_weights, settings)
        self.alpha, self.lr = settings.alpha, settings.lr
        self.factors = torch.ones_like(self.shares)
        self.first = torch.zeros_like(self.shares)  # 0: not seen yet

    def weights(self) -> Tensor:
        return _scaled(self.shares * self.factors).float()

    def update(self, losses: Tensor, norms: Tensor | None = None) -> None:
        if norms is None:
            raise ValueError("gradnorm needs the norms of the data sets' gradients")
        here = losses.isfinite() & norms.isfinite()
        if not here.any() or norms[here].sum() == 0:
            return
        losses, norms = _known(losses), norms.detach().double()
        self.first = torch.where(here & (self.first == 0), losses, self.first)
        norms = norms[here] / norms[here].mean()
        behind = losses[here] / self.first[here]
        weighted = self.factors[here] * norms
        target = weighted.mean() * (behind / behind.mean()) ** self.alpha
        factors = self.factors.clone()
        factors[here] = (factors[here] - self.lr * norms * (weighted - target).sign()).clamp(min=self.SMALLEST)
        self.factors = factors * len(factors) / factors.sum()


class Famo(Fixed):
    """Lowers the logarithms of all losses at one rate: data sets whose loss falls slowest count more.

    weights ~ softmax(logits) / loss; logits follow how much less each log loss fell. Source: arXiv 2306.03792, algorithm 1.
    There losses are looked at again on the same rows after each step, at the price of one more forward pass. Here the change is from a data set's last
    rows to its next ones: noisier in each step, but the noise cancels in the sum, since what one difference adds the next one takes away.
    """

    settings = ("decay", "lr")
    remembers = ("logits", "last")

    def __init__(self, quotas: Tensor, loss_weights: Tensor, settings: Balance):
        super().__init__(quotas, loss_weights, settings)
        self.lr, self.decay = settings.lr, settings.decay
        self.logits = torch.zeros_like(self.shares)
        self.last = torch.zeros_like(self.shares)  # 0: not seen yet

    def weights(self) -> Tensor:
        seen = self.last > 0
        usual = self.last[seen].mean() if seen.any() else torch.ones(())
        return _scaled(self.shares * self.logits.softmax(0) / torch.where(seen, self.last, usual)).float()

    def update(self, losses: Tensor, norms: Tensor | None = None) -> None:
        now = torch.where(losses.isfinite(), _known(losses), self.last)
        fall = torch.where(self.last > 0, self.last.log() - now.log(), 0.0)
        share = self.logits.softmax(0)
        gradient = share * (fall - (share * fall).sum())  # of share @ fall by the logits
        self.logits = self.logits - self.lr * (gradient + self.decay * self.logits)
        self.last = now


class Auto(Fixed):
    """Draws more of what is rare and still learned, less of what is learned already or cannot be.

    For each data set y = log(1 + loss) is averaged twice over the rows drawn so far, with weights that grow as powers of their number, so that windows
    grow with the run. If y falls by s whenever rows grow e-fold, the averages differ by s (1 / SLOW - 1 / FAST), whatever their number. With its
    standard error e, p^2 = s^2 + e^2 is progress that is possible; each data set is granted p^2 / (p^2 + HALF^2): near 1 for all that learn, however
    fast, near 0 for what surely does not. Shares of the rows go to the geometric mean of these and the recipe's.

    Manner: online data mixing (arXiv 2312.02406), optimistic where it is unsure. Progress over log rows: arXiv 2410.11820.
    """

    settings = ("every",)
    remembers = ("multipliers", "steps", "rows", "waiting", "seen", "slow", "fast", "variance")

    SLOW, FAST = 1.5, 6.0
    """An average with power p weighs the n-th row by n^(p - 1)."""
    HALF = 0.03
    """Fall of y while rows grow e-fold that is half way between learning and not. A loss far below 1 nat a token hardly moves y."""
    FEW = 5
    """Steps with rows; a data set with no more is taken to be learned."""
    PACE = 0.5
    """How far multipliers go towards what is wanted at each change, in logs."""

    def __init__(self, quotas: Tensor, loss_weights: Tensor, settings: Balance):
        super().__init__(quotas, loss_weights, settings)
        self.every = settings.every
        self.multipliers = torch.ones_like(self.quotas)
        self.steps = torch.zeros(1, dtype=torch.float64)
        self.rows, self.waiting, self.seen, self.slow, self.fast, self.variance = torch.zeros(6, len(quotas)).double()

    def weights(self) -> Tensor:
        return _scaled(self.shares * self.multipliers).float()

    def draws(self) -> Tensor | None:
        return self.multipliers.float().clamp(FEWEST, MOST)

    def update(self, losses: Tensor, norms: Tensor | None = None) -> None:
        here = losses.isfinite()
        y = torch.where(here, losses.detach().double().clamp(min=0), 0.0).log1p()
        # Rows are counted in quotas. One row that comes after three steps without stands for all four.
        self.waiting = self.waiting + self.multipliers
        new = torch.where(here, self.waiting, 0.0)
        self.rows, self.waiting, self.seen = self.rows + new, self.waiting - new, self.seen + here
        old = 1 - new / self.rows.clamp(min=1e-9)
        surprise = torch.where(self.seen > 1, y - self.fast, 0.0)
        self.variance = surprise.square().lerp(self.variance, old**self.SLOW)
        self.slow = y.lerp(self.slow, old**self.SLOW)
        self.fast = y.lerp(self.fast, old**self.FAST)
        self.steps = self.steps + 1
        if self.steps.item() % self.every == 0:
            wanted = bounded((self._learning() / self.quotas.clamp(min=1e-6)).sqrt(), self.quotas)
            paced = self.multipliers.log().lerp(wanted.log(), self.PACE).exp()
            self.multipliers = bounded(paced, self.quotas)

    def _progress(self) -> tuple[Tensor, Tensor]:
        """float64[K] each: fall of y per e-fold of rows, and its standard error."""
        a, b = self.SLOW, self.FAST
        span = 1 / a - 1 / b
        spread = a * a / (2 * a - 1) + b * b / (2 * b - 1) - 2 * a * b / (a + b - 1)  # of slow - fast, from one row's 1
        return (self.slow - self.fast) / span, (self.variance * spread / self.seen.clamp(min=1)).sqrt() / span

    def _learning(self) -> Tensor:
        """float64[K] in (0, 1]. A loss that rises counts too: what was known is being forgotten."""
        fall, error = self._progress()
        possible = torch.where(self.seen > self.FEW, fall.square() + error.square(), torch.inf)
        return 1 / (1 + self.HALF**2 / possible.clamp(min=1e-6))


def bounded(wanted: Tensor, quotas: Tensor) -> Tensor:
    """float64[K] in the proportions of `wanted`, cut off at 0.25 and 4, that leave the sum of rows as it is.

    >>> [round(factor, 3) for factor in bounded(torch.tensor([1.0, 100.0]), torch.tensor([6.0, 1.0])).tolist()]
    [0.5, 4.0]
    """
    wanted = wanted / wanted.max()
    low, high = torch.tensor(FEWEST).double(), MOST / wanted.min()
    for _ in range(100):  # the sum grows with the factor; bisection of its logarithm
        middle = (low * high).sqrt()
        if (quotas * (middle * wanted).clamp(FEWEST, MOST)).sum() < quotas.sum():
            low = middle
        else:
            high = middle
    return (high * wanted).clamp(FEWEST, MOST)


def _known(losses: Tensor) -> Tensor:
    """float64[K] losses that can be divided by and have a logarithm; what is not finite becomes the smallest."""
    losses = losses.detach().double()
    return torch.where(losses.isfinite(), losses, SMALLEST_LOSS).clamp(min=SMALLEST_LOSS)


def _scaled(numbers: Tensor) -> Tensor:
    return numbers / numbers.sum()


BALANCERS: Registry[type[Fixed]] = Registry("balancer")
BALANCERS.add("fixed", Fixed)
BALANCERS.add("equal", Equal)
BALANCERS.add("temperature", Temperature)
BALANCERS.add("uncertainty", Uncertainty)
BALANCERS.add("gradnorm", GradNorm)
BALANCERS.add("famo", Famo)
BALANCERS.add("auto", Auto)
