"""Edit distance, common subsequence, wer and cer: against naive recursion and against jiwer."""

from functools import cache

import jiwer
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from monoglot.evaluate.metrics import METRICS
from monoglot.evaluate.metrics.sequences import common_length, edit_distance

SHORT = st.lists(st.sampled_from("abc"), max_size=8)
SENTENCE = st.lists(
    st.sampled_from(["a", "the", "Cat", "sat,", "don't", "Mat!", "café", "well-known"]), max_size=9
).map(" ".join)


@settings(deadline=None)
@given(SHORT, SHORT)
def test_edit_distance_is_the_recursion(first, second):
    @cache
    def distance(i, j):
        if not i or not j:
            return i + j
        substitute = distance(i - 1, j - 1) + (first[i - 1] != second[j - 1])
        return min(distance(i - 1, j) + 1, distance(i, j - 1) + 1, substitute)

    assert edit_distance(first, second) == distance(len(first), len(second))


@settings(deadline=None)
@given(SHORT, SHORT)
def test_common_length_is_the_recursion(first, second):
    @cache
    def length(i, j):
        if not i or not j:
            return 0
        if first[i - 1] == second[j - 1]:
            return length(i - 1, j - 1) + 1
        return max(length(i - 1, j), length(i, j - 1))

    assert common_length(first, second) == length(len(first), len(second))


def test_long_sequences_cross_every_word_boundary():
    first = [i % 7 for i in range(500)]
    assert edit_distance(first, [*first[3:], 9, 9]) == 5
    assert common_length(first, [*first[3:], 9, 9]) == 497


@settings(deadline=None, max_examples=50)
@given(st.lists(st.tuples(SENTENCE, SENTENCE), min_size=1, max_size=5))
def test_wer_and_cer_are_jiwers(pairs):
    said, meant = map(list, zip(*pairs))
    tidy = [jiwer.ToLowerCase(), jiwer.RemovePunctuation(), jiwer.RemoveMultipleSpaces(), jiwer.Strip()]
    by_word = jiwer.Compose([*tidy, jiwer.ReduceToListOfListOfWords()])
    by_character = jiwer.Compose([*tidy, jiwer.ReduceToListOfListOfChars()])
    references = [[text] for text in meant]
    wer, cer = METRICS["wer"].score(said, references), METRICS["cer"].score(said, references)
    assert wer.value == pytest.approx(jiwer.wer(meant, said, by_word, by_word))
    assert cer.value == pytest.approx(jiwer.cer(meant, said, by_character, by_character))
    assert wer.per_item == pytest.approx([jiwer.wer(m, s, by_word, by_word) for m, s in zip(meant, said)])


def test_terms_are_edits_and_reference_words():
    scores = METRICS["wer"].score(["a b", ""], [["a c d"], ["x"]])
    assert scores.terms.tolist() == [[2, 3], [1, 1]]
    assert scores.value == 3 / 4
    assert scores.per_item.tolist() == [2 / 3, 1.0]


def test_empty_reference_counts_each_word_and_stays_finite():
    assert METRICS["wer"].score(["one two"], [[""]]).value == 2.0
    assert METRICS["wer"].score([""], [[""]]).value == 0.0
    assert np.isfinite(METRICS["wer"].score(["a", "b"], [[""], [""]]).interval(seed=0)).all()


def test_the_nearest_reference_counts():
    assert METRICS["wer"].score(["a b c d"], [["a x", "a b c d e"]]).terms.tolist() == [[1, 5]]


def test_japanese_words_are_characters():
    assert METRICS["wer"].score(["猫がいる。"], [["犬が いる"]], lang="ja").value == 1 / 4
    assert METRICS["cer"].score(["猫がいる。"], [["犬が いる"]], lang="ja").value == 1 / 4
    mixed = METRICS["wer"].score(["猫がいる", "a cat"], [["犬がいる"], ["a dog"]], lang=["ja", "en"])
    assert mixed.terms.tolist() == [[1, 4], [1, 2]]
