"""The search against the published one's hypotheses (golden/generation.json): ids, scores, scores of each token."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from record import agree
from tiny import GOLDEN, Case, tiny_model

from monoglot.decode.constrain import Trie
from monoglot.decode.search import SearchSettings, beam_search, score_answers
from monoglot.text.vocabulary import BOS, EOS, PAD, SPECIALS

STORED = json.loads((GOLDEN / "generation.json").read_text())
NAMES = {"max_len_b": "max_length", "min_len": "min_length", "len_penalty": "length_penalty", "temperature": "temperature",
         "no_repeat_ngram_size": "no_repeat_ngram"}  # fmt: skip
ALL = list(STORED["runs"])
ANSWERS = [list(answer) for answer in STORED["answers"]]


class Range:
    """The published `constraint_range`: the specials stay possible beside it."""

    longest = None

    def __init__(self, text: str):
        self.ids = np.concatenate([np.arange(len(SPECIALS)), np.arange(*map(int, text.split(",")))])

    def allowed(self, written):
        return self.ids


def only_codes_before(length: int):
    """Of the specials, which the published code generation keeps in the softmax, none is written before the end."""

    def rule(log_p, now):
        if now.step < length:
            log_p[:, : len(SPECIALS)] = -torch.inf

    return rule


@pytest.fixture(scope="module")
def model():
    return tiny_model()


def remembered(model, name):
    batch = Case(name).batch
    with torch.no_grad():
        return batch, model.encode(batch, model.encode_media(batch.media))


def settings_of(run) -> SearchSettings:
    given = dict(run["kw"])
    given.pop("stop_on_max_len", None)  # True in every run that has it; it never mattered
    if given.pop("normalize_scores", True) is False:
        given["len_penalty"] = 0.0
    return SearchSettings(beam=run["beam"], **{NAMES[key]: value for key, value in given.items()})


def constraints_of(name, run, rows):
    if run["constraint_range"]:
        return [Range(run["constraint_range"])] * rows
    return [Trie(ANSWERS)] * rows if "trie" in name else None


@pytest.mark.parametrize("name", ALL)
def test_hypotheses(model, name):
    run = STORED["runs"][name]
    batch, memory = remembered(model, run["case"])
    prefixes = run["prefix"] and [[token for token in row if token != PAD] for row in run["prefix"]]
    found = beam_search(
        model,
        memory,
        settings_of(run),
        constraints=constraints_of(name, run, len(batch)),
        prefixes=prefixes,
        code_rows=torch.ones(len(batch), dtype=torch.bool) if run["gen_code"] else None,
        rules=[only_codes_before(run["kw"]["max_len_b"])] if run["gen_code"] else [],
    )
    assert [len(hypotheses) for hypotheses in found] == [len(hypotheses) for hypotheses in run["hypos"]]
    assert len(found) == len(batch)
    ours = [hypothesis for hypotheses in found for hypothesis in hypotheses]
    stored = [hypothesis for hypotheses in run["hypos"] for hypothesis in hypotheses]
    case = f"tiny/generation/{name}"
    agree(
        case,
        "tokens",
        [word for h in ours for word in (*h.tokens, -1)],
        [w for h in stored for w in (*h["tokens"], -1)],
    )
    agree(case, "scores", [h.score for h in ours], [h["score"] for h in stored], 1e-4)
    token_scores = [score for h in ours for score in h.token_scores]
    agree(case, "scores of tokens", token_scores, [score for h in stored for score in h["pos_scores"]], 1e-4)


def test_every_stored_run_is_here():
    assert len(ALL) == 18
    assert {"greedy_text", "beam5_box_constrained", "beam2_gencode", "beam5_trie_prefix_prev_output"} <= set(ALL)


@pytest.mark.parametrize("prompt", ["none", "prev_output"])
def test_scores_of_all_candidates(model, prompt):
    """'allcand': every answer's log-probability over the trie, after nothing and after the question."""
    stored = json.loads((GOLDEN / "losses_and_misc.json").read_text())["allcand_scores_image_text"]
    answers = stored["answers"]
    batch, memory = remembered(model, "image_text")
    prefixes = None
    if prompt == "prev_output":
        padded = STORED["runs"]["beam5_trie_prefix_prev_output"]["prefix"]
        prefixes = [[token for token in row if token != PAD] for row in padded]
    tries = [Trie(answers)] * len(batch)
    for batch_size in (64, 5):
        found = score_answers(
            model, memory, [answers] * len(batch), constraints=tries, prefixes=prefixes, batch_size=batch_size
        )
        for scores, expected in zip(found, stored["scores"][prompt], strict=True):
            agree("tiny/candidates", f"log-probabilities after {prompt}", scores, expected, 1e-4)
            assert float(scores.exp().sum()) == pytest.approx(1, abs=1e-4)


def test_a_trie_writes_only_its_answers(model):
    batch = Case("image_text").batch
    memory = model.encode(batch, model.encode_media(batch.media))
    answers = [[10], [10, 11], [200, 7, 9]]
    for row in beam_search(model, memory, SearchSettings(beam=3), constraints=[Trie(answers)] * len(batch)):
        assert {tuple(h.tokens[:-1]) for h in row} == {tuple(answer) for answer in answers}
        assert sum(2.718281828459045**h.log_probability for h in row) == pytest.approx(1.0, abs=1e-4)
        assert all(h.tokens[-1] == EOS and BOS not in h.tokens for h in row)
