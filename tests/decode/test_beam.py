"""The search against plain loops: argmax, all answers there are, grammars, prefixes."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from small import VOCABULARY, tiny_model

from monoglot.data.prepare import Preparer
from monoglot.decode.constrain import BoxGrammar, Count, ObjectGrammar, Trie, Words, keep
from monoglot.decode.search import SearchSettings, beam_search, score_answers
from monoglot.errors import InputError
from monoglot.nouns import Sample
from monoglot.text.boxes import text_to_box, text_to_objects
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
    found = beam_search(model, memory, SearchSettings(beam=4, max_length=6, length_penalty=0))
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


@pytest.mark.parametrize("penalty", [0.0, 1.0, 2.0])
def test_a_wide_beam_finds_the_best_of_all_answers(model, memory, penalty):
    settings = SearchSettings(beam=len(ALL_ANSWERS), max_length=3, length_penalty=penalty)
    found = beam_search(model, memory, settings, constraints=[Trie(ALL_ANSWERS)] * len(TEXTS))
    for row, hypotheses in enumerate(found):
        scores = {tuple(answer): limited_score(model, memory, row, answer) for answer in ALL_ANSWERS}
        assert sum(map(math.exp, scores.values())) == pytest.approx(1, abs=1e-4)
        ranks = {a: s / (len(a) + 1) ** penalty for a, s in scores.items()}
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


def ids(allowed):
    return np.arange(VOCABULARY.size)[allowed].tolist()


def test_the_grammar_of_a_box():
    grammar = BoxGrammar(VOCABULARY)
    for length in range(4):
        assert ids(grammar.allowed([VOCABULARY.bin(0)] * length)) == list(VOCABULARY.bins)
    assert ids(grammar.allowed([VOCABULARY.bin(0)] * 4)) == [EOS]
    assert grammar.longest == 5


def test_so_many_codes_are_a_picture(model, memory):
    picture = Count(VOCABULARY.codes, 9)
    assert picture.longest == 10
    for hypotheses in beam_search(
        model, memory, SearchSettings(beam=2, max_length=9), constraints=[picture] * len(TEXTS)
    ):
        for hypothesis in hypotheses:
            assert len(hypothesis.tokens) == 10
            assert all(VOCABULARY.kind(token) == "code" for token in hypothesis.tokens[:-1])
            assert hypothesis.token_scores[-1] == 0, "the end is certain"


def test_where_all_must_end_the_model_is_not_asked(model, memory, monkeypatch):
    asked = []
    norm = model.decoder_norm
    monkeypatch.setattr(norm, "forward", lambda x, run=norm.forward: asked.append(1) or run(x))
    beam_search(model, memory, SearchSettings(beam=3, max_length=4), constraints=[BoxGrammar(VOCABULARY)] * len(TEXTS))
    assert len(asked) == 4
    beam_search(model, memory, SearchSettings(beam=1, max_length=4, min_length=4))
    assert len(asked) == 4 + 5


@given(choices=st.lists(st.integers(0, 10**6), min_size=60, max_size=60), longest=st.integers(6, 40))
def test_whatever_is_written_by_the_grammar_of_objects_is_objects(choices, longest, tokenizer):
    grammar, written = ObjectGrammar(VOCABULARY, longest), []
    for choice in choices:
        allowed = ids(grammar.allowed(written))
        assert allowed
        token = allowed[choice % len(allowed)]
        if token == EOS:
            break
        written.append(token)
    assert token == EOS, "it ends in time"
    assert len(written) < longest
    kinds = [VOCABULARY.kind(token) for token in written]
    boxes = sum(kind == "bin" for kind in kinds) / 4
    assert kinds[:4] == ["bin"] * 4
    assert kinds[-1] == "word"
    assert boxes == int(boxes) == len([1 for a, b in itertools.pairwise(kinds) if (a, b) == ("bin", "word")])
    assert len(text_to_objects(tokenizer.decode(written))) <= boxes


def test_free_answers_are_words(model, memory):
    """Locations and codes are most likely here; as a constraint they are never written, and nothing else changes."""
    eager = tiny_model(model.config.positions, start=model.config.start)
    with torch.no_grad():
        eager.words.weight[VOCABULARY.mask :] *= 30
    free = beam_search(eager, memory, SearchSettings(beam=4, max_length=8))
    kinds = {VOCABULARY.kind(token) for row in free for h in row for token in h.tokens[:-1]}
    assert kinds & {"bin", "code", "mask"}, "without the constraint they come"
    words = beam_search(
        eager, memory, SearchSettings(beam=4, max_length=8), constraints=[Words(VOCABULARY)] * len(TEXTS)
    )
    for row, hypotheses in enumerate(words):
        assert len(hypotheses) == 4
        for h in hypotheses:
            assert {VOCABULARY.kind(token) for token in h.tokens} <= {"word", "special"}
            expected = []
            for at, token in enumerate(h.tokens[:-1]):
                log_p = next_log_p(eager, memory, row, h.tokens[:at])[: VOCABULARY.mask]
                expected.append(float((log_p - log_p.logsumexp(0))[token]))
            assert h.token_scores[:-1] == pytest.approx(expected, abs=1e-4)


@given(st.data())
def test_keep_is_a_mask(data):
    size = 12
    allowed = data.draw(
        st.lists(
            st.one_of(
                st.none(),
                st.sets(st.integers(0, size - 1), min_size=1).map(lambda some: np.array(sorted(some), dtype=np.int64)),
                st.tuples(st.integers(0, size - 1), st.integers(1, size)).map(lambda pair: slice(pair[0], sum(pair))),
            ),
            min_size=1,
            max_size=4,
        )
    )
    logits = torch.randn(len(allowed), size)
    kept = logits.clone()
    keep(kept, allowed)
    for row, which in enumerate(allowed):
        stays = set(range(size)) if which is None else set(np.arange(size)[which].tolist())
        for token in range(size):
            assert kept[row, token] == (logits[row, token] if token in stays else -torch.inf)


# --- drawing ----------------------------------------------------------------------------------------------------------


def test_draws_come_as_often_as_they_are_likely(model, memory):
    """4000 answers of one word, drawn at once, against the model's own probabilities."""
    answers = [[10], [20], [30], [40]]
    settings = SearchSettings(beam=4000, max_length=1, sample=True, temperature=1.5)
    (found,) = beam_search(model, memory.select(torch.tensor([2])), settings, constraints=[Trie(answers)])
    assert len(found) == 4000
    ones = memory.select(torch.tensor([2]))
    logits = model.logits(model.decode(torch.tensor([model.config.start]), ones))[0, -1]
    p = (logits[[10, 20, 30, 40]] / 1.5).softmax(0)
    for (token,), expected in zip(answers, p.tolist()):
        share = sum(h.tokens[0] == token for h in found) / 4000
        assert share == pytest.approx(expected, abs=4 * math.sqrt(expected * (1 - expected) / 4000) + 1e-9)
        for h in found:
            if h.tokens[0] == token:
                assert h.log_probability == pytest.approx(math.log(expected), abs=1e-4)


@pytest.mark.parametrize("limit", [{"top_k": 3}, {"top_p": 0.3}, {"top_k": 5, "top_p": 0.5}])
def test_draws_stay_among_the_likeliest(model, memory, limit):
    settings = SearchSettings(beam=300, max_length=1, sample=True, **limit)
    for row, hypotheses in enumerate(beam_search(model, memory, settings)):
        log_p = next_log_p(model, memory, row, [])
        log_p[[PAD, EOS]] = -torch.inf
        ordered = log_p.softmax(0).sort(descending=True)
        count = limit.get("top_k", VOCABULARY.size)
        if "top_p" in limit:
            top = ordered.values[:count] / (1.0 if "top_k" not in limit else ordered.values[:count].sum())
            count = int((top.cumsum(0) - top < limit["top_p"]).sum())
        drawn = {h.tokens[0] for h in hypotheses}
        assert drawn <= set(ordered.indices[:count].tolist())
        assert len(drawn) > 1 or count == 1


def test_draws_are_repeatable_and_a_rows_own(model, memory):
    settings = SearchSettings(beam=3, max_length=6, sample=True, seed=5)
    names = ["a", "b", "c", "d"]
    together = beam_search(model, memory, settings, names=names)
    assert [h.tokens for row in beam_search(model, memory, settings, names=names) for h in row] == [
        h.tokens for row in together for h in row
    ]
    other = beam_search(model, memory, settings.model_copy(update={"seed": 6}), names=names)
    assert [h.tokens for row in other for h in row] != [h.tokens for row in together for h in row]
    for index, name in enumerate(names):
        (alone,) = beam_search(model, memory.select(torch.tensor([index])), settings, names=[name])
        assert [h.tokens for h in alone] == [h.tokens for h in together[index]]
        for h in alone:
            expected = [float(next_log_p(model, memory, index, h.tokens[:at])[t]) for at, t in enumerate(h.tokens)]
            assert h.token_scores == pytest.approx(expected, abs=1e-4)


def test_a_draw_among_one_is_greedy(model, memory):
    drawn = beam_search(model, memory, SearchSettings(beam=1, max_length=8, sample=True, top_k=1))
    greedy_ones = beam_search(model, memory, SearchSettings(beam=1, max_length=8))
    assert [h.tokens for row in drawn for h in row] == [h.tokens for row in greedy_ones for h in row]


def test_drawn_answers_keep_to_rules(model, memory):
    settings = SearchSettings(beam=8, min_length=3, max_length=5, sample=True, no_repeat_ngram=1)
    for hypotheses in beam_search(model, memory, settings):
        assert len(hypotheses) == 8
        for h in hypotheses:
            assert 4 <= len(h.tokens) <= 6
            assert len(set(h.tokens)) == len(h.tokens)


# --- settings ---------------------------------------------------------------------------------------------------------


def test_the_n_best(model, memory):
    five = beam_search(model, memory, SearchSettings(beam=5, max_length=5))
    two = beam_search(model, memory, SearchSettings(beam=5, n_best=2, max_length=5))
    assert [[h.tokens for h in row[:2]] for row in five] == [[h.tokens for h in row] for row in two]
    wide = beam_search(model, memory, SearchSettings(beam=1, n_best=5, max_length=5))
    assert [[h.tokens for h in row] for row in five] == [[h.tokens for h in row] for row in wide]


def test_a_flat_temperature_makes_all_alike(model, memory):
    (found,) = beam_search(
        model, memory.select(torch.tensor([0])), SearchSettings(beam=4, max_length=1, temperature=1e6)
    )
    assert all(h.token_scores[0] == pytest.approx(-math.log(VOCABULARY.size), abs=1e-3) for h in found)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"beam": 0}, "command line: beam: "),
        ({"temperature": 0.0}, "command line: temperature: "),
        ({"top_p": 1.5, "sample": True}, "command line: top_p: "),
        ({"top_k": 5}, "command line: search: top_k and top_p limit what is drawn: they need sample"),
        ({"baem": 3}, "command line: baem: "),
    ],
)
def test_settings_that_make_no_sense(given, message):
    with pytest.raises(InputError, match=message) as caught:
        SearchSettings.read("command line", **given)
    assert "\n" not in str(caught.value)


def test_scores_of_given_answers_over_a_trie(model, memory):
    """Renormalised over the trie they sum to 1; after a prefix they are what is left of the longer answer."""
    answers = [[10], [10, 11], [12, 13, 14]]
    prefixes = [[70, 71], [], [72], [73, 74, 75]]
    found = score_answers(
        model, memory, [answers] * len(TEXTS), constraints=[Trie(answers)] * len(TEXTS), prefixes=prefixes, batch_size=2
    )
    beams = beam_search(
        model,
        memory,
        SearchSettings(beam=3, max_length=7, length_penalty=0),
        constraints=[Trie(answers)] * len(TEXTS),
        prefixes=prefixes,
    )
    for scores, prefix, hypotheses in zip(found, prefixes, beams):
        assert float(scores.exp().sum()) == pytest.approx(1, abs=1e-4)
        searched = {h.tokens[len(prefix) : -1]: sum(h.token_scores[len(prefix) :]) for h in hypotheses}
        assert searched == pytest.approx({tuple(a): s for a, s in zip(answers, scores.tolist())}, abs=1e-4)
    assert [len(scores) for scores in score_answers(model, memory, [[], [], [[5]], []])] == [0, 0, 1, 0]
