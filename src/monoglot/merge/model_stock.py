"""Between the common start and the mean of the fine-tuned models, as near to the mean as these agree.

    theta = t mean + (1 - t) theta_0,   t = P cos / (1 + (P - 1) cos),   cos the mean cosine between two models' changes

Source: Model Stock (arXiv 2403.19522), section 4; each tensor is a layer. Where changes point apart (cos below 0) t is 0.
"""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor

from monoglot.merge.base import MERGERS, Merger, Pieces, weighted_sum
from monoglot.merge.slerp import length


def model_stock(pieces: Pieces) -> Tensor:
    count = len(pieces.versions)
    equal = [1 / count] * count
    if count == 1:
        return pieces.versions[0]()
    ratio = mean_ratio(mean_cosine(pieces), count)
    change = weighted_sum(equal, pieces.changes())
    return change.mul_(ratio).add_(pieces.from_base())


def mean_cosine(pieces: Pieces) -> float:
    """Over all pairs: unit vectors u of the changes have |sum of u|^2 = P + P (P - 1) cos. A model that did not change agrees with none."""
    count = len(pieces.versions)
    lengths: list[float] = []
    total = weighted_sum([1.0] * count, units(pieces.changes(), lengths))
    changed = sum(size > 0 for size in lengths)
    return (length(total) ** 2 - changed) / (count * (count - 1))


def units(changes: Iterator[Tensor], lengths: list[float]) -> Iterator[Tensor]:
    """Each change at length 1; how long they were is added to `lengths`."""
    for change in changes:
        lengths.append(length(change))
        yield change.div_(lengths[-1] or 1.0)


def mean_ratio(cosine: float, count: int) -> float:
    """t, between 0 and 1.

    >>> mean_ratio(1.0, 3), mean_ratio(0.0, 3), mean_ratio(0.5, 2)
    (1.0, 0.0, 0.6666666666666666)
    """
    cosine = min(1.0, max(0.0, cosine))
    return count * cosine / (1 + (count - 1) * cosine)


MODEL_STOCK = MERGERS.add(
    "model_stock",
    Merger(
        merge=model_stock,
        summary="between the common start and the mean, as near to the mean as the models agree",
        source="arXiv 2403.19522",
        needs_base=True,
        weighted=False,
    ),
)
