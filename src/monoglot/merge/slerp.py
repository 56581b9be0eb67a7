"""Spherical interpolation between two models, tensor by tensor: along the great circle instead of the chord.

    a sin((1 - t) W) / sin W + b sin(t W) / sin W,   W the angle between a and b, t the second model's weight

Source: Shoemake, "Animating rotation with quaternion curves", SIGGRAPH 1985.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from monoglot.merge.base import MERGERS, Merger, Pieces

NEARLY_PARALLEL = 1e-3
"""Radians from 0 or pi within which sin W says too little; the chord is taken there."""


def slerp(pieces: Pieces) -> Tensor:
    if len(pieces.versions) == 1:
        return pieces.mean()
    t = pieces.shares[1]
    a, b = (read() for read in pieces.versions)
    angle = angle_between(a, b)
    if min(angle, math.pi - angle) < NEARLY_PARALLEL:
        return a.lerp(b, t)
    sine = math.sin(angle)
    return (a * (math.sin((1 - t) * angle) / sine)).add_(b, alpha=math.sin(t * angle) / sine)


def angle_between(a: Tensor, b: Tensor) -> float:
    """In radians; 0 when one of them is nothing but zeros.

    >>> round(angle_between(torch.tensor([1.0, 0.0]), torch.tensor([0.0, 2.0])), 4)
    1.5708
    """
    lengths = length(a) * length(b)
    return math.acos(min(1.0, max(-1.0, float((a * b).sum(dtype=torch.float64)) / lengths))) if lengths else 0.0


def length(x: Tensor) -> float:
    """The Euclidean norm, summed in float64."""
    return float(torch.linalg.vector_norm(x, dtype=torch.float64))


SLERP = MERGERS.add(
    "slerp",
    Merger(
        merge=slerp,
        summary="between two models along an arc: lengths of tensors are kept where a mean would shorten them",
        source="Shoemake, SIGGRAPH 1985",
        most=2,
    ),
)
