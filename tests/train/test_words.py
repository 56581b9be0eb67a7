"""Training the words that occur, against the whole vocabulary."""

from __future__ import annotations

import pytest
import torch
from small import VOCABULARY, tiny_model

from monoglot.train.losses import token_losses
from monoglot.train.words import ActiveWords

IDS = [2, 40, 50, 60, *VOCABULARY.bins]
REST = VOCABULARY.size - len(IDS)
TARGET = torch.tensor([60, 2, 40, VOCABULARY.bin(7)])


@pytest.fixture
def model():
    model = tiny_model()
    model.words.weight.requires_grad_(False)
    return model


@pytest.fixture
def states():
    return torch.randn(4, 32, generator=torch.Generator().manual_seed(0))


def test_with_all_others_it_is_the_whole_softmax(model, states):
    words = ActiveWords(model.words.weight, [*IDS, 40], others=10**6, seed=0)
    words.draw(3)
    whole = token_losses(model.logits(states), TARGET)
    torch.testing.assert_close(token_losses(words(states, model.words.weight), words.columns(TARGET)), whole)


def test_a_handful_stands_for_the_rest(model, states):
    words = ActiveWords(model.words.weight, IDS, others=50, seed=0)
    expected = model.logits(states).exp().sum(-1)
    sums = []
    for step in range(400):
        words.draw(step)
        assert words(states, model.words.weight).shape == (4, len(IDS) + 50)
        sums.append(words(states, model.words.weight).exp().sum(-1).detach())
    torch.testing.assert_close(torch.stack(sums).mean(0), expected, rtol=0.1, atol=0)


def test_the_handful_is_the_steps_own(model):
    words, again = (ActiveWords(model.words.weight, IDS, others=20, seed=5) for _ in range(2))
    words.draw(7)
    again.draw(3)
    drawn = words._drawn.tolist()
    assert len(set(drawn)) == 20
    assert not set(drawn) & set(IDS)
    assert again._drawn.tolist() != drawn
    again.draw(7)
    assert again._drawn.tolist() == drawn


def test_without_others_only_the_answers_words_count(model, states):
    words = ActiveWords(model.words.weight, IDS, others=0, seed=0)
    words.draw(0)
    expected = token_losses(model.logits(states)[:, IDS], torch.tensor([IDS.index(int(t)) for t in TARGET]))
    torch.testing.assert_close(token_losses(words(states, model.words.weight), words.columns(TARGET)), expected)


def test_only_the_words_that_occur_learn(model, states):
    before = model.words.weight.clone()
    words = ActiveWords(model.words.weight, IDS, others=20, seed=0)
    optimizer = torch.optim.SGD([words.table], lr=1.0)
    words.draw(0)
    token_losses(words(states, model.words.weight), words.columns(TARGET)).sum().backward()
    optimizer.step()
    assert torch.equal(model.words.weight, before)
    words.write_to(model.words.weight)
    moved = (model.words.weight != before).any(1).nonzero()[:, 0].tolist()
    assert set(moved) <= set(IDS)
    assert set(TARGET.tolist()) <= set(moved)
    assert torch.equal(model.words.weight[IDS], words.table)
