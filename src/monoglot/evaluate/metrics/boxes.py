"""iou, iou_at_0.5: how well a box lies on the box that was asked for. No box scores 0.

Boxes are x0 y0 x1 y1. The ratio is the same in fractions and in pixels, so nothing has to be scaled.
"""

from __future__ import annotations

import numpy as np

from monoglot.errors import InputError
from monoglot.evaluate.intervals import averaged
from monoglot.evaluate.metrics.base import METRICS, Metric
from monoglot.nouns import Box


def box_iou(predictions: list[Box | None], references: list[Box]) -> np.ndarray:
    """Intersection over union of each pair, float64[N] in [0, 1]; 0 for None and for a box turned inside out.

    >>> box_iou([(0.0, 0.0, 0.5, 1.0), None], [(0.0, 0.0, 1.0, 1.0), (0.0, 0.0, 1.0, 1.0)]).tolist()
    [0.5, 0.0]
    """
    a = np.array(
        [_corners(box, "prediction", i) if box is not None else (0, 0, 0, 0) for i, box in enumerate(predictions)],
        float,
    )
    b = np.array([_corners(box, "reference", i) for i, box in enumerate(references)], float)
    sides = np.minimum(a[:, 2:], b[:, 2:]) - np.maximum(a[:, :2], b[:, :2])
    shared = np.prod(np.maximum(sides, 0.0), axis=1)
    areas = [np.prod(np.maximum(box[:, 2:] - box[:, :2], 0.0), axis=1) for box in (a, b)]
    union = sum(areas) - shared
    return np.divide(shared, union, out=np.zeros(len(a)), where=union > 0)


def _corners(box: Box, kind: str, index: int) -> Box:
    if len(box) != 4:
        raise InputError(f"box: {kind} {index} has {len(box)} numbers; give x0 y0 x1 y1")
    return box


IOU = METRICS.add("iou", Metric("iou", lambda p, r, _: averaged(box_iou(p, r)), reads="box"))
IOU_AT_HALF = METRICS.add(
    "iou_at_0.5",
    Metric(
        "iou_at_0.5",
        lambda p, r, _: averaged(box_iou(p, r) >= 0.5),
        reads="box",
        source="accuracy of RefCOCO: share of boxes with IoU of at least 0.5",
    ),
)
