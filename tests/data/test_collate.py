"""Rows of any length and media become one batch; every item says where it goes."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from monoglot.data.collate import Keyed, collate, pad
from monoglot.modalities import Grid
from monoglot.nouns import Sequence, Span
from monoglot.text.vocabulary import BOS, EOS, PAD


def row(source, target=(), spans=(), media=(), weight=1.0):
    return Sequence(
        np.array(source, dtype=np.int64), tuple(spans), tuple(media), np.array(target, dtype=np.int64), weight
    )


def test_padding_and_masks():
    batch = collate([row([0, 7, 2], [9, 2], weight=2.0), row([0, 7, 8, 9, 2], [8, 8, 8, 2])], [[], []])
    assert batch.source_ids.tolist() == [[0, 7, 2, PAD, PAD], [0, 7, 8, 9, 2]]
    assert batch.source_valid.tolist() == [[True] * 3 + [False] * 2, [True] * 5]
    assert batch.target_in.tolist() == [[BOS, 9, EOS, PAD], [BOS, 8, 8, 8]]
    assert batch.target_out.tolist() == [[9, 2, PAD, PAD], [8, 8, 8, 2]]
    assert batch.target_valid.tolist() == [[True, True, False, False], [True] * 4]
    assert batch.weights.tolist() == [2.0, 1.0]
    assert batch.media == {}
    assert batch.code_rows is None
    assert len(batch) == 2


def test_answers_begin_with_all_start_tokens():
    batch = collate([row([0, 2], [9, 8, 2]), row([0, 2], [7, 2])], [[], []], start=(0, 3))
    assert batch.target_in.tolist() == [[0, 3, 9, 8], [0, 3, 7, EOS]]
    assert batch.target_out.tolist() == [[PAD, 9, 8, 2], [PAD, 7, 2, PAD]]
    assert batch.target_valid.tolist() == [[False, True, True, True], [False, True, True, False]]


@pytest.mark.parametrize("start", [(0,), (0, 3)])
def test_without_targets(start):
    batch = collate([row([0, 2]), row([0, 5, 2])], [[], []], start)
    assert batch.target_in.shape == batch.target_out.shape == batch.target_valid.shape == (2, 0)
    mixed = collate([row([0, 2]), row([0, 5, 2], [7, 2])], [[], []], start)
    assert mixed.target_valid.sum(1).tolist() == [0, 2]


def test_nothing():
    batch = collate([], [])
    assert batch.source_ids.shape == (0, 0)
    assert len(batch) == 0


def test_media_of_rows_go_to_their_places():
    picture, clip = np.zeros((3, 64, 64), np.uint8), np.ones((2, 3, 32, 32), np.uint8)
    batch = collate(
        [
            row([1, 1, 0, 2], spans=[Span("image", 0, 2)], media=[picture]),
            row([0, 2]),
            row([0, 1, 1, 1, 1, 2], spans=[Span("video", 1, 2), Span("image", 3, 2)], media=[clip, picture]),
        ],
        [[Grid(1, 1, 2)], [], [Grid(2, 1, 1), Grid(1, 2, 1)]],
    )
    assert set(batch.media) == {"image", "video"}
    images = batch.media["image"]
    assert (images.rows, images.starts) == ([0, 2], [0, 3])
    assert images.flat_places(6).tolist() == [0, 1, 15, 16]
    assert images.items[0].dtype == torch.uint8
    assert batch.media["video"].flat_places(6).tolist() == [13, 14]
    assert bool(batch.source_valid[2].all())


def test_kept_features():
    features = np.arange(6, dtype=np.float16).reshape(2, 3)
    media = [Keyed("a", features, encoded=True), Keyed("b", np.zeros((3, 64, 64), np.uint8), encoded=False)]
    spans = [Span("image", 0, 2), Span("image", 2, 4)]
    images = collate([row([1] * 6, spans=spans, media=media)], [[Grid(1, 1, 2), Grid(1, 2, 2)]]).media["image"]
    assert images.encoded == {0}
    assert images.keys == {0: "a", 1: "b"}
    assert images.items[0].dtype == torch.float32
    assert images.items[0].tolist() == features.tolist()
    assert images.items[1].dtype == torch.uint8


def test_a_span_that_does_not_fit_its_item():
    with pytest.raises(ValueError, match="row 0: a image span of 3 tokens for an item of 4"):
        collate([row([1, 1, 1], spans=[Span("image", 0, 3)], media=[np.zeros(1)])], [[Grid(1, 2, 2)]])


def test_pad_of_sizes_zero_and_one():
    ids, valid = pad([np.zeros(0, np.int64), np.array([4])])
    assert ids.tolist() == [[PAD], [4]]
    assert valid.tolist() == [[False], [True]]
