"""Boxes <-> location tokens. A box is x0 y0 x1 y1 as fractions of the image; x runs right, y runs down.

One box: `box_to_text`, `text_to_box`. Objects, each a label and its box: `read_objects` and `write_objects` (as rows and users have them),
`objects_to_parts` and `text_to_objects` (as a model does).
"""

from __future__ import annotations

import math
import re

from monoglot.errors import InputError
from monoglot.nouns import Box, Symbols

_BIN = re.compile(r"<bin_(\d{1,6})>", re.ASCII)
_OBJECT = re.compile(r"((?:<bin_\d{1,6}>\s*){4})([^<]*)", re.ASCII)

Object = tuple[str, Box]
"""A label and where the thing is."""


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
    (0.0, 0.2502502502502503, 0.5005005005005005, 1.0)
    >>> text_to_box("a red cup") is None
    True
    """
    bins = [min(int(number), num_bins - 1) / (num_bins - 1) for number in _BIN.findall(text)[:4]]
    if len(bins) < 4:
        return None
    x0, y0, x1, y1 = bins
    return (min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1))


def read_objects(text: str, where: str = "target") -> list[Object]:
    """Objects as a row writes them. Raises InputError for a piece that is not a label and four fractions.

    >>> read_objects("red cup 0.1 0.25 0.4 0.9; dog 0 0 1 1")
    [('red cup', (0.1, 0.25, 0.4, 0.9)), ('dog', (0.0, 0.0, 1.0, 1.0))]
    """
    found: list[Object] = []
    for piece in filter(None, map(str.strip, text.split(";"))):
        *label, x0, y0, x1, y1 = ["", "", "", "", *piece.split()]
        try:
            box = (float(x0), float(y0), float(x1), float(y1))
        except ValueError:
            box = (math.nan,) * 4
        name = " ".join(label).strip()
        if not name or not (0 <= box[0] <= box[2] <= 1 and 0 <= box[1] <= box[3] <= 1):
            fix = 'expected a label and x0 y0 x1 y1 as fractions: "cup 0.1 0.25 0.4 0.9; dog 0 0 1 1"'
            raise InputError.at(where, "target", f"{piece[:40]!r} is not an object", fix)
        found.append((name, box))
    return found


def write_objects(objects: list[Object]) -> str:
    """The way back from `read_objects`, to a thousandth of the picture.

    >>> write_objects([("red cup", (0.1, 0.25, 0.4, 0.9))])
    'red cup 0.100 0.250 0.400 0.900'
    """
    return "; ".join(" ".join([label, *(f"{corner:.3f}" for corner in box)]) for label, box in objects)


def objects_to_parts(objects: list[Object], *, num_bins: int = 1000) -> tuple[str, ...]:
    """What the decoder writes: for each object four location tokens, then its label (OFA, arXiv 2202.03052).

    >>> objects_to_parts([("cup", (0.0, 0.25, 0.5, 1.0))])
    ('<bin_0> <bin_250> <bin_500> <bin_999>', ' cup')
    """
    return tuple(part for label, box in objects for part in (box_to_text(box, num_bins=num_bins), f" {label}"))


def text_to_objects(text: str, *, num_bins: int = 1000) -> list[Object]:
    """Read what a model wrote; a box without a label, or with fewer than four location tokens, is left out.

    >>> text_to_objects("<bin_0> <bin_250> <bin_500> <bin_999> cup <bin_1>")
    [('cup', (0.0, 0.2502502502502503, 0.5005005005005005, 1.0))]
    """
    found: list[Object] = []
    for bins, label in _OBJECT.findall(text):
        box, name = text_to_box(bins, num_bins=num_bins), " ".join(label.replace(";", " ").split())
        if box is not None and name:
            found.append((name, box))
    return found
