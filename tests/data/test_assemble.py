"""One row as numbers: every token where the prompt has it, cut without touching media."""

from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from monoglot.data.assemble import assemble
from monoglot.modalities import Grid
from monoglot.nouns import Media, Posed, Symbols
from monoglot.text.vocabulary import BOS, EOS, PAD

PICTURE, SOUND = Media("image", "a.png"), Media("audio", "a.wav")


def lay_out(tokenizer, *prompt, grids=(), target="", **limits):
    items = [f"item {index}" for index in range(len(grids))]
    return assemble(Posed(prompt, target), items, list(grids), tokenizer, **limits)


def test_words_only(tokenizer):
    sequence = lay_out(tokenizer, " what", " the red")
    words = tokenizer.encode(" what the red").tolist()
    assert sequence.source_ids.tolist() == [BOS, *words, EOS]
    assert sequence.source_ids.dtype == sequence.target_ids.dtype == np.int64
    assert sequence.spans == sequence.media == ()
    assert sequence.target_ids.tolist() == []


def test_media_stand_where_the_prompt_has_them(tokenizer):
    what, red = (tokenizer.encode(text).tolist() for text in (" what", " red"))
    sequence = lay_out(
        tokenizer, PICTURE, " what", SOUND, PICTURE, " red", grids=[Grid(1, 2, 2), Grid(1, 3, 1), Grid(1, 1, 1)]
    )
    assert sequence.source_ids.tolist() == [PAD] * 4 + [BOS, *what] + [PAD] * 3 + [PAD] + [*red, EOS]
    assert [(span.modality, span.start, span.length) for span in sequence.spans] == [
        ("image", 0, 4),
        ("audio", 6, 3),
        ("image", 9, 1),
    ]
    assert sequence.media == ("item 0", "item 1", "item 2")


def test_media_only(tokenizer):
    sequence = lay_out(tokenizer, PICTURE, grids=[Grid(1, 1, 2)])
    assert sequence.source_ids.tolist() == [PAD, PAD, BOS, EOS]


def test_symbols_and_target(tokenizer):
    v = tokenizer.vocabulary
    sequence = lay_out(tokenizer, " red", Symbols("<bin_1> <bin_2>"), target=" blue", source_positions=4)
    assert sequence.source_ids.tolist() == [BOS, v.bin(1), v.bin(2), EOS], "words make room for symbols"
    assert sequence.target_ids.tolist() == [*tokenizer.encode(" blue").tolist(), EOS]
    boxed = lay_out(tokenizer, " red", target=Symbols("<bin_0> <bin_0> <bin_9> <bin_9>"))
    assert boxed.target_ids.tolist() == [v.bin(0), v.bin(0), v.bin(9), v.bin(9), EOS]


@given(
    parts=st.lists(st.one_of(st.text(max_size=60), st.integers(1, 9)), max_size=6),
    target=st.text(max_size=80),
    room=st.integers(4, 60),
)
def test_everything_fits_and_media_are_whole(tokenizer, parts, target, room):
    prompt = [PICTURE if isinstance(part, int) else part for part in parts]
    grids = [Grid(1, 1, part) for part in parts if isinstance(part, int)]
    sequence = lay_out(tokenizer, *prompt, grids=grids, target=target, source_positions=room, target_positions=room)
    ids = sequence.source_ids
    assert [span.length for span in sequence.spans] == [grid.length for grid in grids]
    inside = np.zeros(len(ids), bool)
    for span in sequence.spans:
        assert not inside[span.start : span.start + span.length].any()
        inside[span.start : span.start + span.length] = True
    assert (ids[inside] == PAD).all()
    text = ids[~inside]
    assert len(text) <= room
    assert text[0] == BOS
    assert text[-1] == EOS
    assert not np.isin(text[1:-1], [BOS, EOS, PAD]).any()
    whole = np.concatenate([tokenizer.encode(part) for part in prompt if isinstance(part, str)] or [np.zeros(0)])
    if len(whole) <= room - 2:
        assert text[1:-1].tolist() == whole.tolist(), "nothing is cut without need"
    assert len(sequence.target_ids) < room
    assert target == "" or sequence.target_ids[-1] == EOS


def test_the_longest_part_is_cut_first(tokenizer):
    article = " the" * 50
    sequence = lay_out(tokenizer, " what", article, " red", source_positions=20)
    the, what, red = (tokenizer.encode(text).tolist() for text in (" the", " what", " red"))
    assert sequence.source_ids.tolist() == [BOS, *what, *(16 * the), *red, EOS]


def test_a_megabyte_costs_nothing(tokenizer):
    text = "the quick brown fox " * 50_000
    started = time.perf_counter()
    sequence = lay_out(tokenizer, text, target=text, source_positions=512, target_positions=128)
    assert time.perf_counter() - started < 0.5
    assert (len(sequence.source_ids), len(sequence.target_ids)) == (512, 127)


def test_weight_goes_along(tokenizer):
    assert assemble(Posed((" red",)), [], [], tokenizer, weight=2.5).weight == pytest.approx(2.5)
