"""objects_f1: what was found in a picture, as `cup 0.1 0.25 0.4 0.9; dog ...`."""

from __future__ import annotations

import numpy as np

from monoglot.errors import InputError
from monoglot.evaluate.metrics.base import METRICS, Metric
from monoglot.evaluate.metrics.boxes import box_iou
from monoglot.text.boxes import Object, read_objects


def f1(predictions: list[str], references: list[tuple[str, ...]], langs: list[str]) -> np.ndarray:
    """float64[N, 2]: twice the objects that were found, and how many were named or expected.

    >>> f1(["cup 0 0 1 1; dog 0 0 1 1"], [("cup 0 0 1 0.9",)], ["en"]).tolist()
    [[2.0, 3.0]]
    """
    rows = []
    for said, (expected, *_) in zip(predictions, references):
        found, wanted = _readable(said), read_objects(expected)
        rows.append((2 * hits(found, wanted), len(found) + len(wanted)))
    return np.array(rows, dtype=np.float64)


def hits(found: list[Object], wanted: list[Object]) -> int:
    """How many of `found`, in their order, take a wanted object of the same label with an IoU of at least 0.5; each is taken once."""
    left = list(wanted)
    for label, box in found:
        same = [other for other in left if other[0].lower() == label.lower()]
        if not same:
            continue
        overlaps = box_iou([box] * len(same), [other[1] for other in same])
        if overlaps.max() >= 0.5:
            left.remove(same[int(overlaps.argmax())])
    return len(wanted) - len(left)


def _readable(text: str) -> list[Object]:
    try:
        return read_objects(text)
    except InputError:
        return []


OBJECTS_F1 = METRICS.add(
    "objects_f1",
    Metric("objects_f1", f1, source="harmonic mean of precision and recall over the set; an object counts at IoU 0.5"),
)
