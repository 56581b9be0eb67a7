"""The search against plain loops: argmax, all answers there are, grammars, prefixes."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from small import VOCABULARY, tiny_model

from monoglot.data.prepare import Preparer
from monoglot.decode.constrain import BoxGrammar, Trie
from monoglot.decode.search import SearchSettings, beam_search, score_answers
from monoglot.nouns import Sample
from monoglot.text.boxes import text_to_box
from monoglot.text.vocabulary import BOS, EOS, PAD, UNK

TEXTS = ["the red", "what", "a blue square on the left", "b"]


@pytest.fixture(scope="module", params=[("added", (BOS,)), ("untied", (BOS,)), ("added", (BOS, UNK))])
def model(request):
    positions, start = request.param
    return tiny_model(positions, start=start)


@pytest.fixture(scope="module")
def memory(model, tokenizer):
    preparer = Preparer(tokenizer, model.config)
    batch = preparer.collate([preparer.example(Sample(text, "summarize", (), text)) for text in TEXTS])
    with torch.no_grad():
        return model.encode(batch, {})


@torch.no_grad()
def next_log_p(model, memory, row, written):
    """float[V]: log-probabilities of the token after `written`, the whole answer run anew."""
    one = memory.select(torch.tensor([row]))
    ids = torch.tensor([[*model.config.start, *written]])
    return model.logits(model.decode(ids, one))[0, -1].log_softmax(-1)


def greedy(model, memory, row, length):
    written = []
    while len(written) < length:
        log_p = next_log_p(model, memory, row, written)
        log_p[PAD] = -torch.inf
        if not written:
            log_p[EOS] = -torch.inf
        token = int(log_p.argmax())
        if token == EOS:
            break
        written.append(token)
    return [*written, EOS]


def test_greedy_takes_the_best_word_each_time(model, memory):
    for row, (found,) in enumerate(beam_search(model, memory, SearchSettings(beam=1, max_length=8))):
        assert list(found.tokens) == greedy(model, memory, row, 8)


def test_scores_are_the_models_own(model, memory):
    found = beam_search(model, memory, SearchSettings(beam=4, max_length=6, normalize=False))
    for row, hypotheses in enumerate(found):
        assert 1 <= len(hypotheses) <= 4
        assert [h.score for h in hypotheses] == sorted((h.score for h in hypotheses), reverse=True)
        for hypothesis in hypotheses:
            expected = [
                float(next_log_p(model, memory, row, hypothesis.tokens[:at])[token])
                for at, token in enumerate(hypothesis.tokens)
            ]
            assert hypothesis.token_scores == pytest.approx(expected, abs=1e-4)
            assert hypothesis.score == pytest.approx(sum(expected), abs=1e-4)
            assert 0 <= math.exp(hypothesis.log_probability) <= 1


ALPHABET = [10, 20]
ALL_ANSWERS = [list(answer) for length in (1, 2, 3) for answer in itertools.product(ALPHABET, repeat=length)]


def limited_score(model, memory, row, answer):
    """Log-probability when only ALPHABET, eos (never first) and three words at most are allowed."""
    total = 0.0
    for at, token in enumerate([*answer, EOS]):
        allowed = ([] if at == 0 else [EOS]) + (ALPHABET if at < 3 else [])
        total += float(next_log_p(model, memory, row, answer[:at])[allowed].log_softmax(-1)[allowed.index(token)])
    return total


@pytest.mark.parametrize("normalize", [False, True])
def test_a_wide_beam_finds_the_best_of_all_answers(model, memory, normalize):
    settings = SearchSettings(beam=len(ALL_ANSWERS), max_length=3, normalize=normalize, length_penalty=1.0)
    found = beam_search(model, memory, settings, constraints=[Trie(ALL_ANSWERS)] * len(TEXTS))
    for row, hypotheses in enumerate(found):
        scores = {tuple(answer): limited_score(model, memory, row, answer) for answer in ALL_ANSWERS}
        assert sum(map(math.exp, scores.values())) == pytest.approx(1, abs=1e-4)
        ranks = {a: s / (len(a) + 1) if normalize else s for a, s in scores.items()}
        best = max(ranks, key=ranks.get)
        assert hypotheses[0].tokens[:-1] == best
        assert hypotheses[0].score == pytest.approx(ranks[best], abs=1e-4)
        assert {h.tokens[:-1]: h.score for h in hypotheses} == pytest.approx(ranks, abs=1e-4)


def test_rows_do_not_disturb_each_other(model, memory):
    settings = SearchSettings(beam=3, max_length=7)
    together = beam_search(model, memory, settings)
    for row in range(len(TEXTS)):
        (alone,) = beam_search(model, memory.select(torch.tensor([row])), settings)
        assert [h.tokens for h in alone] == [h.tokens for h in together[row]]
        assert [h.score for h in alone] == pytest.approx([h.score for h in together[row]], abs=1e-4)


def test_each_row_has_its_own_constraint(model, memory, tokenizer):
    trie = Trie([[40, 41], [42]])
    constraints = [trie, BoxGrammar(VOCABULARY), None, Trie([[50]])]
    found = beam_search(model, memory, SearchSettings(beam=2, max_length=6), constraints=constraints)
    assert {h.tokens[:-1] for h in found[0]} == {(40, 41), (42,)}
    for hypothesis in found[1]:
        assert len(hypothesis.tokens) == 5
        assert all(token in VOCABULARY.bins for token in hypothesis.tokens[:-1])
        assert text_to_box(tokenizer.decode(hypothesis.tokens)) is not None
    free = beam_search(model, memory, SearchSettings(beam=2, max_length=6))
    assert [h.tokens for h in found[2]] == [h.tokens for h in free[2]]
    assert [h.tokens for h in found[3]] == [(50, EOS)]
    assert found[3][0].log_probability == pytest.approx(0, abs=1e-5), "the only answer is certain"


def test_fewer_answers_than_beams(model, memory):
    for answers in ([[10]], [[10], [10, 11]]):
        found = beam_search(
            model, memory, SearchSettings(beam=5, max_length=4), constraints=[Trie(answers)] * len(TEXTS)
        )
        for hypotheses in found:
            assert sorted(list(h.tokens[:-1]) for h in hypotheses) == answers
            assert sum(math.exp(h.log_probability) for h in hypotheses) == pytest.approx(1, abs=1e-4)


def test_prefixes_are_written_first(model, memory):
    prefixes = [[70, 71], [], [72], [73, 74, 75]]
    found = beam_search(model, memory, SearchSettings(beam=2, max_length=6), prefixes=prefixes)
    for row, hypotheses in enumerate(found):
        for hypothesis in hypotheses:
            assert list(hypothesis.tokens[: len(prefixes[row])]) == prefixes[row]
    (continued,) = beam_search(
        model, memory.select(torch.tensor([0])), SearchSettings(beam=1, max_length=6), prefixes=[[70, 71]]
    )
    written = [70, 71]
    while len(written) < 6:
        log_p = next_log_p(model, memory, 0, written)
        log_p[PAD] = -torch.inf
        if int(log_p.argmax()) == EOS:
            break
        written.append(int(log_p.argmax()))
    assert list(continued[0].tokens) == [*written, EOS]


def test_a_constraint_begins_after_the_prefix(model, memory):
    found = beam_search(
        model,
        memory,
        SearchSettings(beam=2, max_length=6),
        constraints=[Trie([[40], [41, 42]])] * len(TEXTS),
        prefixes=[[70, 71]] * len(TEXTS),
    )
    for hypotheses in found:
        assert {h.tokens for h in hypotheses} == {(70, 71, 40, EOS), (70, 71, 41, 42, EOS)}


def test_lengths(model, memory):
    for length in (1, 5):
        for hypotheses in beam_search(model, memory, SearchSettings(beam=2, max_length=length)):
            assert all(2 <= len(h.tokens) <= length + 1 and h.tokens[-1] == EOS for h in hypotheses)
    for hypotheses in beam_search(model, memory, SearchSettings(beam=2, min_length=4, max_length=5)):
        assert all(len(h.tokens) >= 5 for h in hypotheses)
    for hypotheses in beam_search(model, memory, SearchSettings(beam=2, min_length=6, max_length=6, no_repeat_ngram=1)):
        assert all(len(set(h.tokens)) == len(h.tokens) for h in hypotheses)


def test_nothing_but_words_of_the_answer(model, memory):
    for hypotheses in beam_search(model, memory, SearchSettings(beam=3, max_length=10)):
        for hypothesis in hypotheses:
            assert PAD not in hypothesis.tokens
            assert EOS not in hypothesis.tokens[:-1]


def test_scores_of_given_answers(model, memory):
    answers = [[[10], [10, 11, 12]], [[20]], [[30, 31], [], [7]], [[9] * 6]]
    found = score_answers(model, memory, answers)
    for row, (scores, given_answers) in enumerate(zip(found, answers)):
        expected = []
        for answer in given_answers:
            steps = [
                float(next_log_p(model, memory, row, answer[:at])[token]) for at, token in enumerate([*answer, EOS])
            ]
            expected.append(sum(steps))
        assert scores.tolist() == pytest.approx(expected, abs=1e-4)


answers_of_words = st.lists(st.lists(st.integers(4, 12), max_size=4), min_size=1, max_size=8)


@given(answers=answers_of_words)
def test_a_trie_allows_its_answers_and_no_others(answers):
    trie = Trie(answers)
    assert trie.longest == max(map(len, answers)) + 1
    reached, paths = [], [()]
    while paths:
        path = paths.pop()
        for token in trie.allowed(path).tolist():
            if token == EOS:
                reached.append(list(path))
            else:
                paths.append((*path, token))
    assert sorted(map(tuple, reached)) == sorted(set(map(tuple, answers)))
    assert trie.allowed([99]).tolist() == [EOS], "what is no answer can only end"


def test_the_grammar_of_a_box():
    grammar = BoxGrammar(VOCABULARY)
    for length in range(4):
        assert grammar.allowed([VOCABULARY.bin(0)] * length).tolist() == list(VOCABULARY.bins)
    assert grammar.allowed([VOCABULARY.bin(0)] * 4).tolist() == [EOS]
    assert grammar.longest == 5
