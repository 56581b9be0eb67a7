"""Image codes as rows have them, as tokens, and back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from monoglot.errors import InputError
from monoglot.nouns import Symbols
from monoglot.text.codes import codes_to_text, numbers_to_codes, text_to_codes


@given(st.lists(st.integers(0, 8191), max_size=20))
def test_there_and_back(codes):
    written = codes_to_text(codes)
    assert isinstance(written, Symbols)
    assert text_to_codes(written) == codes
    assert numbers_to_codes(" ".join(map(str, codes)), "row") == codes


@given(st.text())
def test_any_text_has_codes_or_none(text):
    assert all(0 <= code < 10**6 for code in text_to_codes(text))


def test_tokens_of_codes(tokenizer):
    ids = tokenizer.encode(codes_to_text([0, 15])).tolist()
    assert ids == [tokenizer.vocabulary.code(0), tokenizer.vocabulary.code(15)]
    assert set(ids) <= set(tokenizer.vocabulary.codes)
    assert text_to_codes(tokenizer.decode(ids)) == [0, 15]


@pytest.mark.parametrize("wrong", ["x", "1 -2", "1.5", "<code_3>", "²", "1234567"])
def test_what_is_no_code(wrong):
    with pytest.raises(InputError, match=r"rows\.jsonl:3: target: .* is not an image code"):
        numbers_to_codes(wrong, "rows.jsonl:3")
