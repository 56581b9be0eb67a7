"""A classifier on what a frozen model sees: learned in closed form, in seconds, without touching a weight of the model.

rows -> encoders, unified encoder -> pooled blocks -> features x -> standardised, of length one -> z -> scores -> probabilities
x, labels -> nearest class mean | ridge, at several strengths -> what left-out rows say of each -> Head

Letters: N rows, F features, C classes, R rank, L tokens of a media item, K channels of an encoder, D width of the model.
A row is left out together with its group, if it has one (other layers of one drum, other drawings of one hand).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from monoglot.data.collate import Batch
from monoglot.data.features import KeptFeatures
from monoglot.data.prepare import Example, Preparer
from monoglot.errors import InputError
from monoglot.modalities.base import Encoder
from monoglot.model.features import features as media_features
from monoglot.model.unified import Memory, UnifiedModel
from monoglot.nouns import Sample

METHODS = ("nearest class mean", "ridge")
MAX_BYTES = 5_000_000
"""Of a head's tensors as they are stored."""
STRENGTHS = tuple(10 ** (power / 2) for power in range(-6, 1))
"""Ridge penalties that are tried, as shares of the rows' summed weights: rows have length one, so 1 is as strong as all of them."""
DEFAULT_TEMPERATURE = 0.5
"""Of cosines, where there are too few rows to fit one; see benchmarks/head_features.py."""
CLEARLY = 2.0
"""Standard errors that nearest class mean must be ahead of ridge: where it is not, ridge does better (same page)."""
FEWEST_ROWS = 8
"""Rows that must have an answer when left out, for a temperature to be fitted and a method to be chosen."""
MEMORY = "memory"
"""Name of the unified encoder among the blocks; the others are modalities."""
POOLS: dict[str, Callable[[Tensor], Tensor]] = {
    "mean": lambda tokens: tokens.mean(0),
    "std": lambda tokens: tokens.std(0, correction=0),
    "max": lambda tokens: tokens.amax(0),
}
"""float[L, K] -> float[K]"""
_WINDOW = 16  # batches that are read ahead, so that rows of equal shape can run together
_HALF_MAX = torch.finfo(torch.float16).max

Blocks = Mapping[str, int]
"""Features in their order: `image.mean`, `memory.mean`, ... -> how many."""


# --- features ---------------------------------------------------------------------------------------------------------


def blocks_of(model: UnifiedModel, samples: Sequence[Sample], pools: Sequence[str] = ("mean",)) -> dict[str, int]:
    """The blocks of features for such rows: what each encoder says of their media.

    What the unified encoder says joins where that is not all: rows differ in what they ask, or have no media, or several
    in an order. Elsewhere it takes twice the time and helps no more than it hurts (benchmarks/head_features.py).
    """
    seen = {media.modality for sample in samples for media in sample.media}
    names = [name for name in model.config.modalities if name in seen]
    blocks = {f"{name}.{pool}": cast(Encoder, model.encoders[name]).channels for name in names for pool in pools}
    questions = {(sample.task, sample.text, sample.box, sample.lang) for sample in samples}
    if len(questions) > 1 or any(len(sample.media) != 1 for sample in samples):
        blocks[f"{MEMORY}.mean"] = model.config.width
    return blocks


def features(
    model: UnifiedModel,
    preparer: Preparer,
    samples: Sequence[Sample],
    *,
    blocks: Blocks | None = None,
    cache: KeptFeatures | None = None,
    batch_size: int = 16,
    on_error: Callable[[int, InputError], None] | None = None,
) -> tuple[Tensor, list[int]]:
    """What the frozen model, put in eval mode, says of rows, pooled. Answers of rows are not read.

    Args:
        blocks: as in `blocks_of(model, samples)`, which it is when not given; rows to be answered need the head's blocks.
        cache: what the encoders said before is in there; the preparer has to know of it.
        on_error: told the number of each row that cannot be read, and why.

    Returns:
        float32[N, F], and the numbers of the rows that could be read, in order; N is how many. A block of zeros: the row has no such media.
    """
    blocks = blocks_of(model, samples) if blocks is None else blocks
    found: dict[int, Tensor] = {}
    model.eval()
    for first in range(0, len(samples), _WINDOW * batch_size):
        examples: list[tuple[int, Example]] = []
        for index, sample in enumerate(samples[first : first + _WINDOW * batch_size], start=first):
            try:
                examples.append((index, preparer.example(sample, with_target=False)))
            except InputError as error:
                if on_error is not None:
                    on_error(index, error)
        examples.sort(key=lambda pair: _shape(pair[1]))
        for start in range(0, len(examples), batch_size):
            part = examples[start : start + batch_size]
            batch = preparer.collate([example for _, example in part]).to(model.words.weight.device)
            encoded, memory = encode(model, batch, blocks, cache)
            found.update(zip([index for index, _ in part], pooled(batch, encoded, memory, blocks)))
    read = sorted(found)
    return torch.stack([found[index] for index in read]) if read else torch.zeros(0, sum(blocks.values())), read


def _shape(example: Example) -> tuple[int, ...]:
    return len(example.sequence.source_ids), *(grid.length for grid in example.grids)


@torch.no_grad()
def encode(
    model: UnifiedModel, batch: Batch, blocks: Blocks, cache: KeptFeatures | None
) -> tuple[dict[str, list[Tensor]], Memory | None]:
    """What blocks are pooled from: features of media, and the unified encoder's memory if they ask for it."""
    encoded = media_features(model, batch, cache)
    needed = any(name.startswith(f"{MEMORY}.") for name in blocks)
    return encoded, model.encode(batch, encoded) if needed else None


def pooled(batch: Batch, encoded: dict[str, list[Tensor]], memory: Memory | None, blocks: Blocks) -> Tensor:
    """float32[B, F]"""
    tokens: dict[tuple[str, int], list[Tensor]] = {}  # of a modality, in a row
    for name, media in batch.media.items():
        for row, item in zip(media.rows, encoded[name]):
            tokens.setdefault((name, row), []).append(item)
    if memory is not None:
        tokens |= {(MEMORY, row): [memory.states[row][memory.valid[row]]] for row in range(len(batch))}
    x = []
    for block, width in blocks.items():
        name, _, pool = block.partition(".")
        here = [tokens.get((name, row)) for row in range(len(batch))]
        x.append(
            torch.stack([batch.weights.new_zeros(width) if t is None else POOLS[pool](torch.cat(t)) for t in here])
        )
    return torch.cat(x, dim=1).float().cpu()


# --- head -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Head:
    """A linear classifier of pooled features. Its weights are numbers that float16 has, so that storing it changes no answer."""

    kind: str
    """`nearest class mean` or `ridge`."""
    classes: tuple[str, ...]
    blocks: dict[str, int]
    mean: Tensor
    """float32[F]"""
    gain: Tensor
    """float32[F]: 1 / (spread, square root of the block's size), the spread being taken half way to its block's; see `_statistics`."""
    weights: Tensor
    """float32[C, F], stored as float16"""
    bias: Tensor
    """float32[C], stored as float16; -inf for a class without rows, which is never answered."""
    temperature: float
    why: str
    """Which method was chosen, and what rows that were left out said of it."""

    def scores(self, x: Tensor) -> Tensor:
        """Features float32[N, F] -> float32[N, C]: cosines with class means, or what ridge regression says, 1 for its class and 0 for others."""
        return F.linear(_standard(x, self.mean, self.gain, self.blocks), self.weights, self.bias)

    def probabilities(self, x: Tensor) -> Tensor:
        """Features float32[N, F] -> float32[N, C]; rows sum to 1."""
        return (self.scores(x) / self.temperature).softmax(dim=1)

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Tensors (what is large in float16) and settings for a JSON file; `from_state` is the way back."""
        tensors = {"mean": self.mean, "gain": self.gain, "weights": self.weights.half(), "bias": self.bias.half()}
        names = ("kind", "temperature", "why")
        return tensors, {"classes": list(self.classes), "blocks": self.blocks} | {n: getattr(self, n) for n in names}

    @classmethod
    def from_state(cls, tensors: Mapping[str, Tensor], settings: Mapping[str, Any]) -> Head:
        """Raises ValueError when the two do not fit together."""
        try:
            head = cls(
                kind=settings["kind"],
                classes=tuple(settings["classes"]),
                blocks=dict(settings["blocks"]),
                mean=tensors["mean"].float(),
                gain=tensors["gain"].float(),
                weights=tensors["weights"].float(),
                bias=tensors["bias"].float(),
                temperature=settings["temperature"],
                why=settings["why"],
            )
        except KeyError as error:
            raise ValueError(f"a head without {error}") from None
        classes, width = len(head.classes), sum(head.blocks.values())
        wanted = {"mean": [width], "gain": [width], "weights": [classes, width], "bias": [classes]}
        for name, shape in wanted.items():
            found = list(getattr(head, name).shape)
            if found != shape:
                raise ValueError(f"{name} of a head is {found}, expected {shape}")
        return head


def _standard(x: Tensor, mean: Tensor, gain: Tensor, blocks: Blocks) -> Tensor:
    """float32[N, F] -> float32[N, F] of length one; what a row does not have is as the mean of those that have it."""
    if x.dim() != 2 or x.shape[1] != len(mean):
        raise ValueError(f"features are {list(x.shape)}, expected [rows, {len(mean)}]")
    if not bool(x.isfinite().all()):
        raise ValueError(f"features of row {int((~x.isfinite()).any(1).nonzero()[0])} hold values that are not numbers")
    z = (x - mean) * gain * _present(x, blocks)
    return F.normalize(z, dim=1)


def _present(x: Tensor, blocks: Blocks) -> Tensor:
    """bool[N, F]: False where a whole block is zero."""
    parts = x.split(list(blocks.values()), dim=1)
    return torch.cat([(part != 0).any(1, keepdim=True).expand_as(part) for part in parts], dim=1)


# --- fit --------------------------------------------------------------------------------------------------------------


def fit_head(
    x: Tensor,
    labels: Sequence[str],
    *,
    classes: Sequence[str] | None = None,
    groups: Sequence[str] | None = None,
    blocks: Blocks | None = None,
    methods: Sequence[str] = METHODS,
) -> Head:
    """Ridge regression of the best strength, or nearest class mean where that is clearly better, by the answers for rows that were left out.

    Nearest class mean: cosine of a row and the mean of a class. Ridge: least squares on 1 for a row's class and 0 for the others,
    classes counting alike, with an intercept. With one row a class nothing can be left out, so it is the nearest class mean. Only the
    means and gains of features, which know no label, are those of all rows; and what `why` tells is of the best of several.

    Args:
        x: float[N, F], from `features`.
        labels: the answer of each row.
        classes: all answers there may be, in their order; by default those in `labels`, sorted.
        groups: of each row; rows of one group are left out together. With fewer than two groups each row is left out alone.
        blocks: how x is divided; by default one block.
        methods: those that may be chosen.

    Raises:
        ValueError: lengths that do not fit, values that are not numbers, a label that is no class, fewer than two classes with rows.
        InputError: the head would be larger than MAX_BYTES.

    >>> x = torch.tensor([[1.0, 0.1], [0.9, 0.0], [0.0, 1.0], [0.1, 0.8]])
    >>> head = fit_head(x, ["cat", "cat", "dog", "dog"])
    >>> head.kind, head.classes, head.probabilities(torch.tensor([[0.8, 0.2]])).argmax(1).tolist()
    ('nearest class mean', ('cat', 'dog'), [0])
    """
    x = x.float()
    names = tuple(sorted(set(labels))) if classes is None else tuple(classes)
    blocks = {"all": x.shape[-1]} if blocks is None else dict(blocks)
    groups = [str(row) for row in range(len(x))] if groups is None or len(set(groups)) < 2 else groups
    _check(x, labels, names, groups, blocks, methods)
    y = torch.tensor([names.index(label) for label in labels])
    mean, gain = _statistics(x, blocks)
    z = _standard(x, mean, gain, blocks).double()
    members = _members(groups)
    left = _left(y, len(names), members)
    counted = left[torch.arange(len(y)), y]  # a row whose class is gone with its group proves nothing
    candidates = [_nearest_mean(z, y, len(names), members)] if METHODS[0] in methods else []
    if METHODS[1] in methods and (not candidates or int(counted.sum()) >= FEWEST_ROWS):
        candidates += _ridges(z, y, len(names), members)
    best = _best([_judge(candidate, y, left, counted) for candidate in candidates])
    weights, bias = best.candidate.fit()
    absent = torch.bincount(y, minlength=len(names)) == 0
    unit = "row" if len(members) == len(y) else "group"
    told = f"{best.accuracy:.1%} of {int(counted.sum())} rows right when their {unit} is left out"
    return Head(
        best.candidate.method,
        names,
        blocks,
        mean,
        gain,
        _half(weights),
        _half(bias).masked_fill(absent, float("-inf")),
        best.temperature,
        f"{best.candidate.name}: {told if counted.any() else 'no class has rows left when one is left out'}",
    )


@dataclass(frozen=True)
class _Candidate:
    method: str
    name: str
    left_out: Tensor
    """float64[N, C]: scores of each row by what is learned without its group."""
    fit: Callable[[], tuple[Tensor, Tensor]]
    """Weights [C, F] and bias [C] from all rows."""


@dataclass(frozen=True)
class _Judged:
    candidate: _Candidate
    right: Tensor
    """float64[n]: of the left-out rows that count, 1 where the answer is right."""
    likelihood: float
    """Mean of log-probabilities of their classes."""
    temperature: float
    """The likeliest."""

    @property
    def accuracy(self) -> float:
        return float(self.right.mean()) if len(self.right) else 0.0


def _nearest_mean(z: Tensor, y: Tensor, classes: int, members: list[Tensor]) -> _Candidate:
    """Cosines with class means."""
    one_hot = F.one_hot(y, classes).to(z.dtype)
    sums = one_hot.T @ z
    means = F.normalize(sums, dim=1)
    scores = z @ means.T
    for rows in members:  # only means of classes that the group has are others without it
        here = y[rows].unique()
        rest = sums[here] - one_hot[rows][:, here].T @ z[rows]
        scores[rows[:, None], here] = z[rows] @ F.normalize(rest, dim=1).T
    return _Candidate(METHODS[0], METHODS[0], scores, lambda: (means, means.new_zeros(classes)))


def _ridges(z: Tensor, y: Tensor, classes: int, members: list[Tensor]) -> list[_Candidate]:
    """Ridge regression at each strength, by one decomposition of the rows.

    With rows and targets times the square root of their weights, and all but the constant part of the rows in A = U E^(1/2) V', the hat
    matrix is H = q q' + U diag(E / (E + penalty)) U', q the constant's direction. Residuals of rows G that were left out are
    (I - H_GG)^-1 times their residuals (Cook & Weisberg 1982, chapter 3; one row: Allen's PRESS, 1974); weights stay as they were.
    """
    one_hot = F.one_hot(y, classes).to(z.dtype)
    count = one_hot.sum(0)
    root = (len(y) / ((count > 0).sum() * count[y])).sqrt()[
        :, None
    ]  # of weights that sum to N, the same for each class
    q = root / root.norm()
    targets = root * one_hot
    centre, shares = q.T @ (root * z) / root.norm(), q.T @ targets / root.norm()  # weighted means: [1, F], [1, C]
    a = root * (z - centre)
    u, e = _spectrum(a)
    rest = u.T @ (targets - root * shares)

    def candidate(strength: float) -> _Candidate:
        penalty = strength * len(y)
        shrink = e / (e + penalty)
        residual = targets - root * shares - u @ (shrink[:, None] * rest)
        if len(members) == len(y):
            hat = q[:, 0] ** 2 + u.square() @ shrink
            outer = residual / (1 - hat)[:, None]
        else:
            outer = torch.empty_like(residual)
            for rows in members:
                hat = q[rows] @ q[rows].T + (u[rows] * shrink) @ u[rows].T
                outer[rows] = torch.linalg.solve(torch.eye(len(rows), dtype=z.dtype) - hat, residual[rows])

        def fit() -> tuple[Tensor, Tensor]:
            weights = (u @ (rest / (e + penalty)[:, None])).T @ a
            return weights, (shares - centre @ weights.T)[0]

        return _Candidate(METHODS[1], f"{METHODS[1]}, penalty {strength:.2g}", (targets - outer) / root, fit)

    return [candidate(strength) for strength in STRENGTHS]


def _spectrum(a: Tensor) -> tuple[Tensor, Tensor]:
    """Left singular vectors [N, R] and squares of singular values [R] of a [N, F], by way of the smaller of its two Gram matrices."""
    if len(a) <= a.shape[1]:
        e, u = torch.linalg.eigh(a @ a.T)
        kept = e > 1e-10 * len(a)
        return u[:, kept], e[kept]
    e, v = torch.linalg.eigh(a.T @ a)
    kept = e > 1e-10 * len(a)
    return a @ v[:, kept] / e[kept].sqrt(), e[kept]


def _judge(candidate: _Candidate, y: Tensor, left: Tensor, counted: Tensor) -> _Judged:
    """What left-out rows say of a candidate; those of `counted`, and classes only where they are `left`."""
    y, left = y[counted], left[counted]
    scores = candidate.left_out[counted].masked_fill(~left, float("-inf"))
    temperature = _temperature(scores, left, y) if len(y) >= FEWEST_ROWS else DEFAULT_TEMPERATURE
    likelihood = -float(F.cross_entropy(scores / temperature, y)) if len(y) else 0.0
    return _Judged(candidate, (scores.argmax(1) == y).double(), likelihood, temperature)


def _best(judged: list[_Judged]) -> _Judged:
    """The ridge that answers best, the likelier of equals; nearest class mean only where it is clearly ahead, or alone."""
    ridges = [j for j in judged if j.candidate.method != METHODS[0]]
    if not ridges:
        return judged[0]
    ridge = max(ridges, key=lambda j: (j.accuracy, j.likelihood))
    if len(ridges) == len(judged):
        return ridge
    lead = judged[0].right - ridge.right
    return judged[0] if float(lead.mean()) > CLEARLY * float(lead.std() / len(lead) ** 0.5) else ridge


def _temperature(scores: Tensor, left: Tensor, y: Tensor) -> float:
    """The likeliest temperature in [0.001, 10], when n rows prove no more than (n + 1) / (n + C).

    Temperature scaling (Guo et al., arXiv 1706.04599) with the targets of Platt (1999), here for C classes. The loss is
    convex in 1 / temperature, so its slope (mean score under the softmax less that under the targets) has one zero,
    which is bisected.
    """
    n, classes = len(y), left.sum(1)
    finite = scores.masked_fill(~left, 0.0)
    wanted = (n * finite.gather(1, y[:, None])[:, 0] + finite.sum(1)) / (n + classes)
    low, high = -1.0, 3.0  # log10 of 1 / temperature
    for _ in range(40):
        middle = (low + high) / 2
        said = ((scores * 10**middle).softmax(1) * finite).sum(1)
        low, high = (middle, high) if float((said - wanted).mean()) < 0 else (low, middle)
    return float(10**-low)


def _statistics(x: Tensor, blocks: Blocks) -> tuple[Tensor, Tensor]:
    """Mean and gain of each feature, float32[F], over the rows that have its block.

    With these gains blocks have much the same mean square, so that none drowns another.
    """
    if not bool(x.isfinite().all()):
        raise ValueError(f"features of row {int((~x.isfinite()).any(1).nonzero()[0])} hold values that are not numbers")
    here = _present(x, blocks)
    count = here.sum(0).clamp(min=1)
    mean = ((x * here).double().sum(0) / count).float()
    variances = ((x - mean) * here).double().square().sum(0) / count
    gains = []
    for part in variances.split(list(blocks.values())):
        towards = (part + part.mean()) / 2  # a feature that hardly varies is noise more often than it is news
        gains.append(torch.where(towards > 0, 1 / (towards * len(part)).sqrt(), 0.0))
    return mean, torch.cat(gains).float()


def _half(x: Tensor) -> Tensor:
    """float32 with numbers that float16 has."""
    return x.clamp(-_HALF_MAX, _HALF_MAX).half().float()


def _check(
    x: Tensor,
    labels: Sequence[str],
    classes: Sequence[str],
    groups: Sequence[str],
    blocks: Blocks,
    methods: Sequence[str],
) -> None:
    if x.dim() != 2 or len(x) != len(labels):
        raise ValueError(f"features are {list(x.shape)} for {len(labels)} labels, expected [rows, features]")
    if sum(blocks.values()) != x.shape[1]:
        raise ValueError(f"blocks of {sum(blocks.values())} features in all, but rows have {x.shape[1]}")
    if len(groups) != len(x):
        raise ValueError(f"{len(groups)} groups for {len(x)} rows")
    unknown = sorted(set(labels) - set(classes))
    if unknown:
        raise ValueError(f"label {unknown[0]!r} is none of the classes")
    twice = [name for name in classes if classes.count(name) > 1]
    if twice:
        raise ValueError(f"{twice[0]!r} is twice among the classes")
    if len(set(labels)) < 2:
        raise ValueError(f"rows of {len(set(labels))} class; a head needs at least two")
    if not methods or set(methods) - set(METHODS):
        raise ValueError(f"methods are {list(methods)}, expected some of {list(METHODS)}")
    size = 2 * len(classes) * (x.shape[1] + 1) + 8 * x.shape[1]
    if size > MAX_BYTES:
        wrong = (
            f"{len(classes)} answers of {x.shape[1]} features take {size / 1e6:.1f} MB, more than {MAX_BYTES / 1e6:g}"
        )
        raise InputError.at("head", "classes", wrong, "use the method 'lora', or fewer answers")


def _members(groups: Sequence[str]) -> list[Tensor]:
    """Rows of each group."""
    found: dict[str, list[int]] = {}
    for row, group in enumerate(groups):
        found.setdefault(group, []).append(row)
    return [torch.tensor(rows) for rows in found.values()]


def _left(y: Tensor, classes: int, members: list[Tensor]) -> Tensor:
    """bool[N, C]: the class still has rows when the row's group is left out."""
    count = torch.bincount(y, minlength=classes)
    left = torch.empty(len(y), classes, dtype=torch.bool)
    for rows in members:
        left[rows] = count > torch.bincount(y[rows], minlength=classes)
    return left
