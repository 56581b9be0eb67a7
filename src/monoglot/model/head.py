"""A classifier on what a frozen model sees: learned in closed form, in seconds, without touching a weight of the model.

rows -> encoders, unified encoder -> pooled blocks -> features x -> standardised, of length one -> z -> scores -> probabilities
x, labels -> nearest class mean | ridge, at several strengths -> what left-out rows say of each -> Head

Letters: N rows, F features, C classes, R rank, L tokens of a media item, K channels of an encoder, D width of the model.
A row is left out together with its group, if it has one (other layers of one drum, other drawings of one hand).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from monoglot.data.collate import Batch
from monoglot.data.features import FeatureCache
from monoglot.data.prepare import Example, Preparer
from monoglot.errors import InputError
from monoglot.model.features import features as media_features
from monoglot.model.unified import Memory, UnifiedModel
from monoglot.nouns import Sample

MAX_BYTES = 5_000_000
"""Of a head's tensors in float16."""
STRENGTHS = tuple(10 ** (power / 2) for power in range(-8, 1))
"""Ridge penalties that are tried, as shares of the rows' summed weights: rows have length one, so 1 is as strong as all of them."""
DEFAULT_TEMPERATURE = 0.1
"""Of cosines, where there are too few rows to fit one; see benchmarks/head_features.py."""
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
_MEAN_DIGITS = 1e-3  # a feature that varies by less than this share of its mean is constant, to float16

Blocks = Mapping[str, int]
"""Features in their order: `image.mean`, `memory.mean`, ... -> how many."""


# --- features ---------------------------------------------------------------------------------------------------------


def blocks_of(model: UnifiedModel, samples: Sequence[Sample], pools: Sequence[str] = ("mean",)) -> dict[str, int]:
    """The blocks of features for such rows: what each encoder says of their media, and what the unified encoder says."""
    seen = {media.modality for sample in samples for media in sample.media}
    names = [name for name in model.config.modalities if name in seen]
    blocks = {f"{name}.{pool}": int(model.encoders[name].channels) for name in names for pool in pools}
    return blocks | {f"{MEMORY}.mean": model.config.width}


def features(
    model: UnifiedModel,
    preparer: Preparer,
    samples: Sequence[Sample],
    *,
    blocks: Blocks | None = None,
    cache: FeatureCache | None = None,
    batch_size: int = 16,
    on_error: Callable[[int, InputError], None] | None = None,
) -> tuple[Tensor, list[int]]:
    """What the frozen model says of rows, pooled. Answers of rows are not read.

    Args:
        blocks: as in `blocks_of(model, samples)`, which it is when not given; rows to be answered need the head's blocks.
        cache: what the encoders said before is in there; the preparer has to know of it.
        on_error: told the number of each row that cannot be read, and why.

    Returns:
        float32[N, F], and the numbers of the rows that could be read, in order; N is how many. A block of zeros: the row has no such media.
    """
    blocks = blocks_of(model, samples) if blocks is None else blocks
    found: dict[int, Tensor] = {}
    training = model.training
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
    model.train(training)
    read = sorted(found)
    return torch.stack([found[index] for index in read]) if read else torch.zeros(0, sum(blocks.values())), read


def _shape(example: Example) -> tuple[int, ...]:
    return len(example.sequence.source_ids), *(grid.length for grid in example.grids)


@torch.no_grad()
def encode(
    model: UnifiedModel, batch: Batch, blocks: Blocks, cache: FeatureCache | None
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
    """A linear classifier of pooled features. Its numbers are those that float16 has, so that storing it changes no answer."""

    kind: str
    """`nearest class mean` or `ridge`."""
    classes: tuple[str, ...]
    blocks: dict[str, int]
    mean: Tensor
    """float32[F]"""
    gain: Tensor
    """float32[F]: 1 / (spread of the feature, square root of its block's size); 0 for what never changed."""
    weights: Tensor
    """float32[C, F]"""
    bias: Tensor
    """float32[C]; -inf for a class without rows, which is never answered."""
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
        """Tensors in float16 and settings for a JSON file; `from_state` is the way back."""
        tensors = {name: getattr(self, name).half() for name in ("mean", "gain", "weights", "bias")}
        names = ("kind", "temperature", "why")
        return tensors, {"classes": list(self.classes), "blocks": self.blocks} | {n: getattr(self, n) for n in names}

    @classmethod
    def from_state(cls, tensors: Mapping[str, Tensor], settings: Mapping[str, Any]) -> Head:
        """Raises ValueError when the two do not fit together."""
        try:
            blocks, classes = dict(settings["blocks"]), tuple(settings["classes"])
            parts = {name: tensors[name].float() for name in ("mean", "gain", "weights", "bias")}
            rest = {name: settings[name] for name in ("kind", "temperature", "why")}
        except KeyError as error:
            raise ValueError(f"a head without {error}") from None
        width = sum(blocks.values())
        wanted = {"mean": [width], "gain": [width], "weights": [len(classes), width], "bias": [len(classes)]}
        for name, shape in wanted.items():
            if list(parts[name].shape) != shape:
                raise ValueError(f"{name} of a head is {list(parts[name].shape)}, expected {shape}")
        mean, gain, weights, bias = parts.values()
        kind, temperature, why = str(rest["kind"]), float(rest["temperature"]), str(rest["why"])
        return cls(kind, classes, blocks, mean, gain, weights, bias, temperature, why)


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
) -> Head:
    """The better of nearest class mean and ridge regression, by the answers for rows that were left out.

    Nearest class mean: cosine of a row and the mean of a class (Mensink et al., 2012, arXiv 1206.?). Ridge: least squares on 1 for
    a row's class and 0 for the others, classes counting alike, with an intercept.

    Args:
        x: float[N, F], from `features`.
        labels: the answer of each row.
        classes: all answers there may be, in their order; by default those in `labels`, sorted.
        groups: of each row; rows of one group are left out together. With fewer than two groups each row is left out alone.
        blocks: how x is divided; by default one block.

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
    blocks = {"all": x.shape[1]} if blocks is None else dict(blocks)
    y = _class_numbers(x, labels, names)
    _check_size(names, x.shape[1])
    mean, gain = _statistics(x, blocks)
    z = _standard(x, mean, gain, blocks).double()
    if groups is None or len(set(groups)) < 2:
        groups = [str(row) for row in range(len(x))]
    if len(groups) != len(x):
        raise ValueError(f"{len(groups)} groups for {len(x)} rows")
    members = _members(groups)
    left = _left(y, len(names), members)
    counted = left[torch.arange(len(y)), y]
    candidates = [_Candidate("nearest class mean", *_nearest_mean(z, y, len(names), members))]
    if int(counted.sum()) >= FEWEST_ROWS:
        candidates += _ridges(z, y, len(names), members)
    judged = [(_judge(c.left_out[counted], left[counted], y[counted]), c) for c in candidates]
    (accuracy, _, temperature), best = max(judged, key=lambda pair: pair[0][:2])
    weights, bias = best.fit()
    absent = torch.bincount(y, minlength=len(names)) == 0
    why = f"{best.name}: "
    if counted.any():
        unit = "row" if len(members) == len(y) else "group"
        why += f"{accuracy:.1%} of {int(counted.sum())} rows right when their {unit} is left out"
    else:
        why += "no class has rows left when one is left out"
    return Head(
        best.name.partition(",")[0],
        names,
        blocks,
        mean,
        gain,
        _half(weights),
        _half(bias).masked_fill(absent, float("-inf")),
        temperature,
        why,
    )


@dataclass(frozen=True)
class _Candidate:
    name: str
    left_out: Tensor
    """float64[N, C]: scores of each row by what is learned without its group."""
    fit: Callable[[], tuple[Tensor, Tensor]]
    """Weights [C, F] and bias [C] from all rows."""


def _nearest_mean(
    z: Tensor, y: Tensor, classes: int, members: list[Tensor]
) -> tuple[Tensor, Callable[[], tuple[Tensor, Tensor]]]:
    """Cosines with class means: for left-out rows, and how to learn from all."""
    one_hot = F.one_hot(y, classes).to(z.dtype)
    sums = one_hot.T @ z
    means = F.normalize(sums, dim=1)
    scores = z @ means.T
    for rows in members:  # only means of classes that the group has are others without it
        here = y[rows].unique()
        rest = sums[here] - one_hot[rows][:, here].T @ z[rows]
        scores[rows[:, None], here] = z[rows] @ F.normalize(rest, dim=1).T
    return scores, lambda: (means, means.new_zeros(classes))


def _ridges(z: Tensor, y: Tensor, classes: int, members: list[Tensor]) -> list[_Candidate]:
    """Ridge regression at each strength, by one decomposition of the rows.

    With rows and targets times the square root of their weights, and all but the constant part of the rows in A = U E^(1/2) V', the hat
    matrix is H = q q' + U diag(E / (E + penalty)) U', q the constant's direction. Residuals of rows G that were left out are
    (I - H_GG)^-1 times their residuals (Cook & Weisberg 1982, section 3; one row: Allen's PRESS, 1974).
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

        return _Candidate(f"ridge, penalty {strength:.2g}", (targets - outer) / root, fit)

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


def _judge(scores: Tensor, left: Tensor, y: Tensor) -> tuple[float, float, float]:
    """Of left-out rows: share that is right, mean log-likelihood of their classes at the best temperature, that temperature."""
    if not len(y):
        return 0.0, 0.0, DEFAULT_TEMPERATURE
    scores = scores.masked_fill(~left, float("-inf"))
    temperature = _temperature(scores, left, y) if len(y) >= FEWEST_ROWS else DEFAULT_TEMPERATURE
    likelihood = -F.cross_entropy(scores / temperature, y)
    return float((scores.argmax(1) == y).double().mean()), float(likelihood), temperature


def _temperature(scores: Tensor, left: Tensor, y: Tensor) -> float:
    """The likeliest temperature in [0.001, 10], when n rows prove no more than (n + 1) / (n + C).

    Targets are those of Platt (1999, section 2.2), for C classes. The loss is convex in 1 / temperature, so its slope (mean score under
    the softmax less that under the targets) has one zero, which is bisected.
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
    """Mean and gain of each feature, [F], over the rows that have its block."""
    if not bool(x.isfinite().all()):
        raise ValueError(f"features of row {int((~x.isfinite()).any(1).nonzero()[0])} hold values that are not numbers")
    here = _present(x, blocks)
    count = here.sum(0).clamp(min=1)
    mean = _half((x * here).double().sum(0) / count)
    spread = (((x - mean) * here).double().square().sum(0) / count).sqrt()
    room = torch.cat([torch.full((width,), float(width)) for width in blocks.values()]).sqrt()
    gain = 1 / (spread * room)
    return mean, _half(gain.masked_fill(spread <= _MEAN_DIGITS * mean.abs(), 0.0))


def _half(x: Tensor) -> Tensor:
    """float32 with numbers that float16 has."""
    return x.clamp(-_HALF_MAX, _HALF_MAX).half().float()


def _class_numbers(x: Tensor, labels: Sequence[str], classes: tuple[str, ...]) -> Tensor:
    """int64[N]"""
    if x.dim() != 2 or len(x) != len(labels):
        raise ValueError(f"features are {list(x.shape)} for {len(labels)} labels, expected [rows, features]")
    number = {name: index for index, name in enumerate(classes)}
    unknown = sorted(set(labels) - set(number))
    if unknown:
        raise ValueError(f"label {unknown[0]!r} is none of the classes")
    if len(set(labels)) < 2:
        raise ValueError(f"rows of {len(set(labels))} class; a head needs at least two")
    return torch.tensor([number[label] for label in labels])


def _check_size(classes: tuple[str, ...], width: int) -> None:
    size = 2 * (len(classes) + 2) * width + 2 * len(classes)
    if size > MAX_BYTES:
        wrong = f"{len(classes)} answers of {width} features take {size / 1e6:.1f} MB, more than {MAX_BYTES / 1e6:g}"
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
