"""Text to ids and back: any Unicode, and symbols that users cannot smuggle in. The published ids are in tests/parity/test_words_and_places.py."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from monoglot.errors import InputError
from monoglot.nouns import Symbols
from monoglot.text.tokenizer import Tokenizer
from monoglot.text.vocabulary import BOS, EOS, PAD, UNK, Vocabulary

GOLDEN = Path(__file__).parent.parent / "parity" / "golden_preprocess"
PUBLISHED = json.loads((GOLDEN / "tokenizer.json").read_text())
BUNDLED = Path(__file__).parents[2] / "src" / "monoglot" / "assets" / "nano" / "tokenizer.json"


def test_bundled_words_are_gpt2s():
    """Our own ids keep GPT-2's order, so the published BPE ids follow by adding 4."""
    if not BUNDLED.is_file():
        pytest.skip("the bundled model is not there yet")
    config = json.loads((BUNDLED.parent / "config.json").read_text())
    tokenizer = Tokenizer.load(BUNDLED, Vocabulary.model_validate(config["model"]["vocabulary"]))
    for case in PUBLISHED["tokenize"]:
        if case.get("use_bpe", True):
            assert tokenizer.encode(case["text"]).tolist() == [4 + int(number) for number in case["bpe"].split()]
            assert tokenizer.decode(tokenizer.encode(case["text"])) == case["text"]


LITERALS = ["<bin_3>", " <bin_3> <bin_4>", "<code_0>", "<s>", "</s>", "<pad>", "<unk>", "<mask>", "<|endoftext|>", "madeupword0000"]  # fmt: skip


@given(text=st.text(st.characters(exclude_categories=["Cs"])))
def test_any_text_comes_back(tokenizer, text):
    ids = tokenizer.encode(text)
    assert ids.dtype == np.int64
    assert {tokenizer.vocabulary.kind(number) for number in ids} <= {"word"}
    assert tokenizer.decode(ids) == text


@given(pieces=st.lists(st.one_of(st.sampled_from(LITERALS), st.text(st.characters(exclude_categories=["Cs"])))))
def test_words_are_never_symbols(tokenizer, pieces):
    text = "".join(pieces)
    ids = tokenizer.encode(text)
    assert {tokenizer.vocabulary.kind(number) for number in ids} <= {"word"}
    assert tokenizer.decode(ids) == text


def test_symbols(tokenizer):
    v = tokenizer.vocabulary
    ids = tokenizer.encode(Symbols("<bin_0> <bin_999> <code_3> <mask> <s> </s> <pad> <what>"))
    assert ids.tolist() == [v.bin(0), v.bin(999), v.code(3), v.mask, BOS, EOS, PAD, UNK]
    assert tokenizer.decode(ids) == "<bin_0> <bin_999> <code_3> <mask>"
    mixed = [BOS, *tokenizer.encode(" red at"), v.bin(5), v.bin(6), *tokenizer.encode(" the"), EOS, PAD]
    assert tokenizer.decode(mixed) == "red at <bin_5> <bin_6> the"
    with pytest.raises(ValueError, match="<bin_1000> is not in a vocabulary of 1000 bins"):
        tokenizer.encode(Symbols("<bin_1000>"))


def test_merges_are_used(tokenizer):
    assert len(tokenizer.encode(" what the red blue")) == 4


def test_any_words_decode(tokenizer):
    """A model may write half a letter: it becomes U+FFFD, never an error."""
    half = tokenizer.encode("é")[:1]
    assert tokenizer.decode(half) == "\ufffd"
    assert tokenizer.decode([]) == ""
    tokenizer.decode(range(tokenizer.vocabulary.size))


def test_save_and_load(tokenizer, tmp_path):
    tokenizer.save(tmp_path / "tokenizer.json")
    again = Tokenizer.load(tmp_path / "tokenizer.json", tokenizer.vocabulary)
    for text in (" what the red", "日本 🙂", "  two  ", "<s>"):
        assert again.encode(text).tolist() == tokenizer.encode(text).tolist()
        assert again.decode(again.encode(text)) == text


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "tokenizer: cannot be read"),
        (b"{}", "tokenizer: is not a tokenizer.json"),
        (b"\xff\xfe", "tokenizer: is not a tokenizer.json"),
        (b"not json", "tokenizer: is not a tokenizer.json"),
    ],
)
def test_files_that_are_no_tokenizer(tokenizer, tmp_path, content, message):
    path = tmp_path / "tokenizer.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=message) as caught:
        Tokenizer.load(path, tokenizer.vocabulary)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


def test_a_tokenizer_of_another_vocabulary(tokenizer, tmp_path):
    path = tmp_path / "tokenizer.json"
    tokenizer.save(path)
    with pytest.raises(InputError, match=r"ids up to \d+, but the vocabulary's words end at 103"):
        Tokenizer.load(path, Vocabulary(num_words=100))


def test_long_texts_do_not_stay_in_memory(tokenizer):
    before = tokenizer._encode_words.cache_info().currsize
    for index in range(20):
        tokenizer.encode(f"{index} " * 500)
    assert tokenizer._encode_words.cache_info().currsize == before
    tokenizer.encode(" a word that was not seen before")
    assert tokenizer._encode_words.cache_info().currsize == before + 1
