"""Where tokens lie, against the published tables (section 10 of their description)."""

from __future__ import annotations

import zlib
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from monoglot.modalities import Grid
from monoglot.model.positions import grid_cells, grid_distance, square_cells, token_buckets

PUBLISHED = load_file(Path(__file__).parent.parent / "parity" / "golden_preprocess" / "positions.safetensors")
IMAGE_BUCKET42_CRC32, TOKEN_BUCKET256_CRC32 = 2460737357, 1659172807
"""crc32 of the published int64 tables, [1765, 1765] and [1024, 1024]."""


def by_pairs(longest, bucket):
    place = torch.arange(longest)
    return token_buckets(bucket, longest)[place[:, None] - place[None, :] + longest - 1]


def test_distances_in_text():
    assert torch.equal(token_buckets(256, 1024), PUBLISHED["token_bucket_by_distance"])
    assert torch.equal(by_pairs(64, 8), PUBLISHED["token_bucket8_max64_full"])
    assert zlib.crc32(by_pairs(1024, 256).numpy().tobytes()) == TOKEN_BUCKET256_CRC32


@pytest.mark.parametrize(("side", "check"), [(5, None), (42, IMAGE_BUCKET42_CRC32)])
def test_distances_on_a_grid(side, check):
    ids = torch.arange(side**2 + 1)
    table = grid_distance(ids[:, None], ids[None, :], side)
    assert int(table.max()) == (2 * side - 1) ** 2 + 2
    if check is None:
        assert torch.equal(table, PUBLISHED["image_bucket5_full"])
    else:
        assert zlib.crc32(table.numpy().tobytes()) == check


def test_cells():
    assert torch.equal(grid_cells(Grid(1, 16, 12), 42), PUBLISHED["image_position_ids_16x12"])
    assert torch.equal(grid_cells(Grid(2, 2, 3), 42), PUBLISHED["video_position_ids_l2_h2_w3"])
    assert torch.equal(square_cells(150, 42), PUBLISHED["audio_position_ids_n150"])
    assert torch.equal(square_cells(62, 42), PUBLISHED["audio_position_ids_n62"])


@pytest.mark.parametrize(("length", "cells"), [(0, []), (1, [1]), (2, [1, 2]), (4, [1, 2, 6, 7]), (5, [1, 2, 3, 6, 7])])
def test_small_squares(length, cells):
    assert square_cells(length, 5).tolist() == cells


def test_what_does_not_fit():
    with pytest.raises(ValueError, match="6 x 2 media tokens do not fit the position grid of 5 x 5"):
        grid_cells(Grid(1, 6, 2), 5)
    with pytest.raises(ValueError, match="do not fit"):
        square_cells(26, 5)
