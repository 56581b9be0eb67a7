"""Where tokens lie. The published tables are compared in tests/parity/test_words_and_places.py."""

from __future__ import annotations

import pytest

from monoglot.modalities import Grid
from monoglot.model.positions import grid_cells, square_cells


@pytest.mark.parametrize(("length", "cells"), [(0, []), (1, [1]), (2, [1, 2]), (4, [1, 2, 6, 7]), (5, [1, 2, 3, 6, 7])])
def test_small_squares(length, cells):
    assert square_cells(length, 5).tolist() == cells


def test_what_does_not_fit():
    with pytest.raises(ValueError, match="6 x 2 media tokens do not fit the position grid of 5 x 5"):
        grid_cells(Grid(1, 6, 2), 5)
    with pytest.raises(ValueError, match="do not fit"):
        square_cells(26, 5)
