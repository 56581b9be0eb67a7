"""Self-critical training: answers that score above the others of their row become likelier; whoever is alone learns nothing."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from runs import metrics, weights
from small import tiny_model, tiny_tokenizer

from monoglot.data.collate import collate
from monoglot.errors import InputError
from monoglot.evaluate.metrics.cider import Corpus, cider
from monoglot.nouns import Sample, Sequence
from monoglot.store import save_model
from monoglot.text.vocabulary import EOS
from monoglot.train.critic import Critic, above
from monoglot.train.loop import train
from monoglot.train.losses import Objective
from monoglot.train.recipe import Loss, Recipe
from monoglot.train.steps import Part

TARGETS = [(" the red hat", " a red hat"), (" what blue",), (" the blue hat", " what a hat", " red red red")]


@pytest.fixture(scope="module")
def part():
    tokenizer = tiny_tokenizer()
    samples = [Sample(str(i), "summarize", text="x" * (i + 1), targets=targets) for i, targets in enumerate(TARGETS)]
    sequences = [
        Sequence(np.array([0, 5 + i, 2]), (), (), np.append(tokenizer.encode(s.targets[0]), EOS), weight=i + 1.0)
        for i, s in enumerate(samples)
    ]
    return Part(collate(sequences, [[], [], []]), torch.tensor([0, 1, 0]), samples)


def test_answers_take_the_place_of_targets(part):
    model, tokenizer = tiny_model(modalities={}), tiny_tokenizer()
    critic = Critic(model, tokenizer, part.samples, Loss(kind="self_critical", answers=4, answer_length=6))
    memory = model.encode(part.batch, {})
    new = critic(part, memory)
    rows = new.copies.tolist()
    assert sorted(set(rows)) == [0, 1, 2]
    assert all(2 <= rows.count(row) <= 4 for row in range(3))
    assert new.sources.tolist() == [[0, 1, 0][row] for row in rows]
    assert new.batch.weights.tolist() == [row + 1.0 for row in rows]
    assert torch.equal(new.weights, new.batch.weights * new.rewards)
    assert new.batch.source_ids is part.batch.source_ids, "media and prompts stay"
    said = [tokenizer.decode(ids[valid]).split() for ids, valid in zip(new.batch.target_out, new.batch.target_valid)]
    references = [[text.split() for text in TARGETS[row]] for row in rows]
    corpus = Corpus([[text.split() for text in targets] for targets in TARGETS])
    assert new.scores.tolist() == pytest.approx(cider(said, references, corpus=corpus), abs=1e-5)
    for row in range(3):
        mine = [place for place, other in enumerate(rows) if other == row]
        for place in mine:
            others = [float(new.scores[other]) for other in mine if other != place]
            assert float(new.rewards[place]) == pytest.approx(float(new.scores[place]) - np.mean(others), abs=1e-5)
    # The loss of the loop is -reward x log-probability of each token that the search wrote.
    states = model.decode(new.batch.target_in, memory.select(new.copies))[new.batch.target_valid]
    target, groups = new.batch.target_out[new.batch.target_valid], new.each_token(new.sources)
    objective = Objective(Loss(kind="self_critical"))
    losses = objective(model.logits(states), target, groups, new.each_token(new.weights), None, step=0)
    log_p = torch.distributions.Categorical(logits=model.logits(states)).log_prob(target)
    torch.testing.assert_close(losses, -new.each_token(new.weights) * log_p, atol=1e-5, rtol=1e-5)


def test_an_answer_that_is_alone_has_no_reward():
    assert above(torch.tensor([7.0]), torch.tensor([0])).tolist() == [0.0]
    scores, rows = torch.tensor([1.0, 2.0, 6.0, 5.0]), torch.tensor([2, 2, 2, 0])
    assert above(scores, rows).tolist() == [1 - 4, 2 - 3.5, 6 - 1.5, 0]


@pytest.fixture
def recipe(tmp_path):
    model = tiny_model(modalities={}, dropout=0.0, drop_path=0.0)
    with torch.no_grad():
        model.words.weight.mul_(0.3)
    save_model(tmp_path / "start", model, tiny_tokenizer())
    rows = [
        {"id": "a", "task": "summarize", "text": "red the", "targets": ["the red", "red"]},
        {"id": "b", "task": "summarize", "text": "blue what", "targets": ["what blue"]},
        {"id": "c", "task": "summarize", "text": "hat", "target": "the hat"},
    ]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    def make(**changes) -> Recipe:
        page = {
            "name": "critical",
            "start": str(tmp_path / "start"),
            "freeze": [],
            "data_folder": str(tmp_path),
            "mixture": [{"name": "rows", "data": "rows.jsonl", "quota": 3}],
            "steps": 20,
            "precision": "float32",
            "optimizer": {"lr": 5e-3, "warmup": 0.1},
        }
        return Recipe.model_validate(page | changes)

    return make


def test_the_score_of_its_answers_rises(recipe, tmp_path, monkeypatch):
    """A first stage that follows the references, then the second: CIDEr-D of its own answers goes up."""
    first = train(recipe(steps=20), tmp_path / "first", quiet=True)
    monkeypatch.setattr("monoglot.train.run.LOG_EVERY", 1)
    loss = {"kind": "self_critical", "answers": 4, "answer_length": 8}
    slower = {"lr": 3e-4, "warmup": 0.1}
    train(recipe(start=str(first), steps=30, loss=loss, optimizer=slower), tmp_path / "second", quiet=True)
    seen = [line["score"] for line in metrics(tmp_path / "second", "loss")]
    assert len(seen) == 30
    assert np.mean(seen[-5:]) > np.mean(seen[:3]) + 0.3, seen


def test_resuming_is_bit_equal(recipe, losses, tmp_path):
    page = recipe(steps=4, loss={"kind": "self_critical", "answers": 3}, checkpoint_minutes=1e-6)
    whole = losses(page, tmp_path / "whole")
    assert losses(page, tmp_path / "parts", stop=2) == whole[:3]
    assert losses(page, tmp_path / "parts", resume=True) == whole[2:]
    one, other = (weights(tmp_path / name) for name in ("whole", "parts"))
    assert all(torch.equal(tensor, other[name]) for name, tensor in one.items())


def test_rows_without_references_are_told(recipe, tmp_path):
    (tmp_path / "rows.jsonl").write_text('{"task": "summarize", "text": "x"}\n')
    with pytest.raises(InputError, match="recipe: loss: 'self_critical' finds no references; rows need targets"):
        train(recipe(loss={"kind": "self_critical"}), tmp_path / "run", quiet=True)
    assert not (tmp_path / "run").exists()


def test_frequencies_of_a_corpus():
    """Scored beside the rest or with the rest as corpus: the same numbers, for n-grams that it does not know too."""
    rng = np.random.default_rng(0)
    words = ["a", "the", "red", "blue", "hat", "cat", "sat", "on", "of", "with"]

    def text() -> list[str]:
        return list(rng.choice(words, rng.integers(0, 9)))

    references = [[text() for _ in range(rng.integers(1, 4))] for _ in range(30)]
    said = [text() for _ in range(30)]
    whole, corpus = cider(said, references), Corpus(references)
    np.testing.assert_allclose(cider(said, references, corpus=corpus), whole, atol=1e-12)
    np.testing.assert_allclose(cider(said[7:12], references[7:12], corpus=corpus), whole[7:12], atol=1e-12)
    assert cider([["dog"]], [[["dog"]]], corpus=corpus) == pytest.approx(10 / 4), "unknown: as rare as can be"
