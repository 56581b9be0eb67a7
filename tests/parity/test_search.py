"""The search against the published one's hypotheses (golden/generation.json): ids, scores, scores of each token."""

from __future__ import annotations

import json

import pytest
import torch
from tiny import CASES, GOLDEN, Case, tiny_model

from monoglot.decode.constrain import Trie
from monoglot.decode.search import SearchSettings, beam_search
from monoglot.text.vocabulary import BOS, EOS, PAD

STORED = json.loads((GOLDEN / "generation.json").read_text())
NAMES = {"beam": "beam", "max_len_b": "max_length", "min_len": "min_length", "lenpen": "length_penalty", "len_penalty": "length_penalty",
         "normalize_scores": "normalize", "temperature": "temperature", "no_repeat_ngram_size": "no_repeat_ngram", "unk_penalty": "unk_penalty"}  # fmt: skip
RUNS = [name for name, run in STORED["runs"].items() if not run["gen_code"] and not run["constraint_range"] and run["case"] in CASES
        and not set(run["kw"]) - {*NAMES, "constraint_trie", "stop_on_max_len", "max_len_a"}]  # fmt: skip


@pytest.fixture(scope="module")
def model():
    return tiny_model()


@pytest.mark.parametrize("name", RUNS)
def test_hypotheses(model, name):
    run = STORED["runs"][name]
    batch = Case(run["case"]).batch
    with torch.no_grad():
        memory = model.encode(batch, model.encode_media(batch.media))
    settings = SearchSettings(
        beam=run["beam"], **{NAMES[key]: value for key, value in run["kw"].items() if key in NAMES}
    )
    rows = len(batch)
    trie = Trie(STORED["answers"]) if run["kw"].get("constraint_trie") or "trie" in name else None
    prefixes = None
    if run["prefix"]:
        stored = run["prefix"]
        prefixes = [[token for token in row if token != PAD] for row in stored]
    found = beam_search(model, memory, settings, constraints=[trie] * rows if trie else None, prefixes=prefixes)
    for hypotheses, expected in zip(found, run["hypos"]):
        for hypothesis, stored_hypothesis in zip(hypotheses, expected):
            assert list(hypothesis.tokens) == stored_hypothesis["tokens"]
            assert hypothesis.score == pytest.approx(stored_hypothesis["score"], abs=1e-4)
            assert list(hypothesis.token_scores) == pytest.approx(stored_hypothesis["pos_scores"], abs=5e-4)
        assert len(hypotheses) >= min(len(expected), settings.beam)


def test_runs_are_covered():
    assert {"greedy_text"} <= set(RUNS)
    assert len(RUNS) >= 8


def test_a_trie_writes_only_its_answers(model):
    batch = Case("image_text").batch
    memory = model.encode(batch, model.encode_media(batch.media))
    answers = [[10], [10, 11], [200, 7, 9]]
    for row in beam_search(model, memory, SearchSettings(beam=3), constraints=[Trie(answers)] * len(batch)):
        assert {tuple(h.tokens[:-1]) for h in row} == {tuple(answer) for answer in answers}
        assert sum(2.718281828459045**h.log_probability for h in row) == pytest.approx(1.0, abs=1e-4)
        assert all(h.tokens[-1] == EOS and BOS not in h.tokens for h in row)
