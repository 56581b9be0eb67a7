"""Boxes <-> location tokens. A box is x0 y0 x1 y1 as fractions of the image; x runs right, y runs down."""

from __future__ import annotations

import re

from monoglot.errors import InputError
from monoglot.nouns import Box, Symbols

_BIN = re.compile(r"<bin_(\d{1,6})>", re.ASCII)


def box_to_text(box_xyxy: Box, *, num_bins: int = 1000) -> Symbols:
    """Write one box as four location tokens, in x0 y0 x1 y1 order.

    Args:
        box_xyxy: corners as fractions of the image, each in [0, 1].
        num_bins: how many location tokens the vocabulary holds.

    Returns:
        Four tokens parted by spaces; `text_to_box` reads each corner back within 0.5 / (num_bins - 1).

    Raises:
        InputError: not four numbers, or one outside [0, 1], or x1 < x0, or y1 < y0. Pixel boxes are the usual cause.

    Source: OFA (arXiv 2202.03052); corner order as in UnIVAL.

    >>> box_to_text((0.0, 0.25, 0.5, 1.0))
    '<bin_0> <bin_250> <bin_500> <bin_999>'
    """
    if len(box_xyxy) != 4:
        raise InputError(f"box {tuple(box_xyxy)} has {len(box_xyxy)} numbers; give x0 y0 x1 y1")
    x0, y0, x1, y1 = box_xyxy
    if not all(0.0 <= corner <= 1.0 for corner in box_xyxy):
        raise InputError(f"box {tuple(box_xyxy)} leaves [0, 1]; is it in pixels? give fractions of the image")
    if x1 < x0 or y1 < y0:
        raise InputError(f"box {tuple(box_xyxy)} is turned around; the order is x0 y0 x1 y1 with x0 <= x1 and y0 <= y1")
    return Symbols(" ".join(f"<bin_{round(corner * (num_bins - 1))}>" for corner in box_xyxy))


def text_to_box(text: str, *, num_bins: int = 1000) -> Box | None:
    """Read the first four location tokens of `text` as a box; None when there are fewer.

    Corners that a model wrote in the wrong order are put right, so the box always has x0 <= x1 and y0 <= y1.

    >>> text_to_box("<bin_0> <bin_250> <bin_500> <bin_999>")
    (0.0, 0.25025025025025027, 0.5005005005005005, 1.0)
    >>> text_to_box("a red cup") is None
    True
    """
    bins = [min(int(number), num_bins - 1) / (num_bins - 1) for number in _BIN.findall(text)[:4]]
    if len(bins) < 4:
        return None
    x0, y0, x1, y1 = bins
    return (min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1))
