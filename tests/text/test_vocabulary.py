"""The layout of ids, against the published counts."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from monoglot.text.vocabulary import BOS, EOS, PAD, SPECIALS, UNK, Vocabulary


def test_published_layout():
    v = Vocabulary()
    assert (BOS, PAD, EOS, UNK) == (0, 1, 2, 3)
    assert v.size == 59457 == 4 + 50260 + 1 + 8192 + 1000
    assert (v.mask, v.code(0), v.code(8191), v.bin(0), v.bin(999)) == (50264, 50265, 58456, 58457, 59456)
    assert (v.bins.start, v.bins.stop) == (58457, 59457)


@given(st.integers(1, 300), st.integers(0, 40), st.integers(2, 60))
def test_kinds_part_the_vocabulary_in_order(num_words, num_codes, num_bins):
    v = Vocabulary(num_words=num_words, num_codes=num_codes, num_bins=num_bins)
    kinds = [v.kind(number) for number in range(v.size)]
    assert (
        kinds
        == ["special"] * len(SPECIALS) + ["word"] * num_words + ["mask"] + ["code"] * num_codes + ["bin"] * num_bins
    )
    assert [v.bin(index) for index in range(num_bins)] == list(v.bins)
    for outside in (-1, v.size):
        with pytest.raises(ValueError, match=f"id {outside} is outside of a vocabulary of {v.size}"):
            v.kind(outside)


@pytest.mark.parametrize("index", [-1, 1000, 8192])
def test_a_symbol_that_is_not_there(index):
    with pytest.raises(ValueError, match=f"<bin_{index}> is not in a vocabulary of 1000 bins"):
        Vocabulary().bin(index)
    with pytest.raises(ValueError, match="<code_0> is not in a vocabulary of 0 codes"):
        Vocabulary(num_codes=0).code(0)


def test_leftover_settings_raise():
    with pytest.raises(ValueError, match="num_wrods"):
        Vocabulary(num_wrods=3)
