"""The quick way through the decoder against the plain one: the same ids, the same scores, in searches of all kinds."""

from __future__ import annotations

import random
from itertools import chain

import pytest
import torch
from small import VOCABULARY, tiny_model

from monoglot.decode.constrain import BoxGrammar, Count, ObjectGrammar, Trie, Words, keep, together
from monoglot.decode.search import SearchSettings, beam_search, score_answers
from monoglot.decode.steps import FoldedSteps, FoldedTexts, PlainSteps, PlainTexts
from monoglot.model.lora import Lora, add_lora
from monoglot.model.unified import Memory
from monoglot.text.vocabulary import BOS, UNK

MODELS = [("untied", (BOS,)), ("added", (BOS, UNK)), ("untied", (BOS, UNK)), ("added", (BOS,))]
CASES = 60  # searches a model


def plain(model, memory, width, code_rows):
    return PlainSteps(model, memory, code_rows)


def folded(model, memory, width, code_rows):
    return FoldedSteps(model, memory, code_rows)


def remembered(model, rows: int, longest: int, seed: int) -> Memory:
    """A memory of rows of different lengths."""
    numbers = torch.Generator().manual_seed(seed)
    valid = torch.arange(longest) < torch.randint(1, longest + 1, (rows, 1), generator=numbers)
    states, positions = torch.randn(2, rows, longest, model.config.width, generator=numbers)
    return Memory(states, valid, positions if model.untied else None)


def constraint(rng: random.Random):
    words = [rng.sample(range(5, 40), rng.randint(1, 4)) for _ in range(rng.choice([1, 2, 6, 12]))]
    return rng.choice(
        [
            None,
            Words(VOCABULARY),
            Trie(words),
            BoxGrammar(VOCABULARY),
            ObjectGrammar(VOCABULARY, 9),
            Count(VOCABULARY.codes, 6),
        ]
    )


def search_of(rng: random.Random, rows: int) -> dict:
    """Settings, constraints, prefixes and rows of codes of one search."""
    settings = SearchSettings(
        beam=rng.randint(1, 5),
        n_best=rng.choice([None, None, 1, 3]),
        max_length=rng.choice([1, 4, 9, 40]),
        min_length=rng.choice([0, 1, 3]),
        length_penalty=rng.choice([0.0, 0.6, 1.0, 2.0]),
        temperature=rng.choice([1.0, 1.0, 0.7]),
        no_repeat_ngram=rng.choice([0, 0, 1, 3]),
        unk_penalty=rng.choice([0.0, 1.0]),
    )
    one = constraint(rng)
    constraints = rng.choice([None, [one] * rows, [constraint(rng) for _ in range(rows)]])
    prefixes = rng.choice([None, None, [[rng.randint(5, 200) for _ in range(rng.randint(0, 3))] for _ in range(rows)]])
    if prefixes and not constraints:  # what does not begin so is then possible, but all of it is equally likely
        settings = settings.model_copy(update={"beam": 1, "n_best": 1})
    codes = torch.tensor([rng.random() < 0.5 for _ in range(rows)])
    return {
        "settings": settings,
        "constraints": constraints,
        "prefixes": prefixes,
        "code_rows": rng.choice([None, codes]) if settings.max_length < 16 else None,
    }


def agree(model, memory, search, fast=folded):
    expected = beam_search(model, memory, steps=plain, **search)
    found = beam_search(model, memory, steps=fast, **search)
    assert [[h.tokens for h in row] for row in found] == [[h.tokens for h in row] for row in expected]
    for h, known in zip(chain(*found), chain(*expected), strict=True):
        assert h.score == pytest.approx(known.score, abs=1e-4)
        assert h.token_scores == pytest.approx(known.token_scores, abs=1e-4)
    return found


@pytest.mark.parametrize(("positions", "start"), MODELS)
def test_whatever_is_searched(positions, start):
    model = tiny_model(positions, start=start)
    if start == (BOS, UNK):
        add_lora(model, Lora(rank=2), seed=1)
        with torch.no_grad():
            for name, weight in model.named_parameters():
                if name.endswith("lora_up"):
                    weight.normal_(std=0.2)
    answers = 0
    for seed in range(CASES):
        rng = random.Random(f"{positions} {start} {seed}")
        rows = rng.randint(1, 4)
        memory = remembered(model, rows, rng.choice([1, 7, 20]), seed)
        answers += sum(map(len, agree(model, memory, search_of(rng, rows))))
    assert answers > 2 * CASES


def test_all_columns_say_what_few_say():
    """A rule that does nothing keeps all of the vocabulary's columns; without it only those of allowed ids are computed."""
    model = tiny_model("untied")
    for seed in range(30):
        rng = random.Random(seed)
        memory = remembered(model, 3, 6, seed)
        constraints = [
            rng.choice([Trie([[5, 6], [7]]), BoxGrammar(VOCABULARY), Count(VOCABULARY.codes, 3)]) for _ in "abc"
        ]
        search = {"settings": SearchSettings(beam=rng.randint(1, 5), max_length=5), "constraints": constraints}
        few = beam_search(model, memory, **search)
        every = beam_search(model, memory, rules=[lambda log_p, now: None], **search)
        assert [[h.tokens for h in row] for row in few] == [[h.tokens for h in row] for row in every]
        for h, known in zip(chain(*few), chain(*every), strict=True):
            assert h.token_scores == pytest.approx(known.token_scores, abs=1e-4)


@pytest.mark.parametrize("beam", [1, 3, 16])
def test_draws_are_the_same(beam):
    model = tiny_model("untied")
    for seed in range(5):
        settings = SearchSettings(beam=beam, max_length=6, sample=True, top_p=0.9, seed=seed)
        agree(model, remembered(model, 2, 9, seed), {"settings": settings})


def test_places_beyond_the_first_that_are_made_ahead():
    model = tiny_model("untied")
    agree(model, remembered(model, 2, 5, 0), {"settings": SearchSettings(beam=3, max_length=60, min_length=60)})
    with pytest.raises(ValueError, match="an answer of 65 tokens is longer than the 64"):
        beam_search(
            model, remembered(model, 1, 5, 0), SearchSettings(beam=2, max_length=70, min_length=70), steps=folded
        )


def test_a_model_in_training_and_a_wide_beam_go_the_plain_way(monkeypatch):
    model, asked = tiny_model("added"), []
    monkeypatch.setattr(
        PlainSteps, "__call__", lambda self, ids, run=PlainSteps.__call__: asked.append(1) or run(self, ids)
    )
    memory = remembered(model, 1, 5, 0)
    beam_search(model, memory, SearchSettings(beam=16, max_length=2))
    assert not asked
    beam_search(model, memory, SearchSettings(beam=17, max_length=2, min_length=2))
    assert len(asked) == 3
    beam_search(model.train(), memory, SearchSettings(beam=2, max_length=2, min_length=2))
    assert len(asked) == 6


def test_what_the_memory_costs_does_not_grow_with_the_beam():
    model = tiny_model("untied")
    steps = FoldedSteps(model, remembered(model, 2, 9, 0), None)
    steps(torch.full((2, 1), BOS))
    steps.select(torch.tensor([0] * 4 + [1] * 4), 4)
    steps(torch.arange(5, 13)[:, None])
    heads, width = model.config.heads, model.config.head_width
    assert all(tuple(layer.memory[0].shape) == (2, heads, 9, width) for layer in steps.layers)
    assert all(layer.used == 1 + 4 for layer in steps.layers)


def test_ids_that_anyone_may_write():
    one, two = together([slice(50, 53), [7]], 1000), together([slice(50, 53), None], 1000)
    assert one.tolist() == [0, 1, 2, 3, 7, 50, 51, 52]
    assert two is None
    assert together([slice(0, 500)], 1000) is None, "much of the vocabulary is not taken out"
    logits = torch.zeros(2, 8)
    keep(logits, [slice(50, 53), [7]], one)
    assert logits.exp().int().tolist() == [[0, 0, 0, 0, 0, 1, 1, 1], [0, 0, 0, 0, 1, 0, 0, 0]]


@pytest.mark.parametrize(("positions", "start"), MODELS[:2])
def test_many_answers_in_one_tree(positions, start):
    """Scores of answers that share their beginnings, in trees of all sizes, are those of each answer read by itself."""
    model = tiny_model(positions, start=start)
    for seed in range(20):
        rng = random.Random(seed)
        rows = rng.randint(1, 3)
        memory = remembered(model, rows, rng.choice([1, 7, 20]), seed)
        answers = [
            [[rng.choice([5, 6, 7, 150]) for _ in range(rng.randint(0, 4))] for _ in range(rng.choice([0, 1, 3, 12]))]
            for _ in range(rows)
        ]
        limits = [rng.choice([Trie(given), None]) if given else None for given in answers]
        prefixes = rng.choice([None, [[rng.randint(5, 200) for _ in range(rng.randint(0, 3))] for _ in range(rows)]])
        asked = {"constraints": limits, "prefixes": prefixes}
        known = score_answers(model, memory, answers, texts=PlainTexts, batch_size=10**6, **asked)
        for size in (1, 20, 10**6):
            found = score_answers(model, memory, answers, texts=FoldedTexts, batch_size=size, **asked)
            torch.testing.assert_close(found, known, rtol=1e-4, atol=1e-4)


def test_an_answer_that_is_not_allowed_is_never_given():
    model = tiny_model("added")
    (scores,) = score_answers(
        model, remembered(model, 1, 4, 0), [[[5], [6, 7], [6, 8]]], constraints=[Trie([[5], [6, 7]])]
    )
    assert scores[2] == float("-inf")
    assert float(scores.exp().sum()) == pytest.approx(1, abs=1e-5)


def test_where_one_token_may_follow_nothing_is_asked(monkeypatch):
    model, seen = tiny_model("added"), []
    monkeypatch.setattr(model, "logits", lambda x, ids=None, run=model.logits: seen.append(len(x)) or run(x, ids))
    answers = [[n, n + 1, n + 2] for n in range(5, 100, 3)] + [[5, 6, 8]]
    (scores,) = score_answers(model, remembered(model, 1, 4, 0), [answers], constraints=[Trie(answers)])
    assert sum(seen) == 2
    assert float(scores.exp().sum()) == pytest.approx(1, abs=1e-5)
