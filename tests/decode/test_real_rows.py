"""nano on rows that are real: what the quick way answers is what the plain one answers, token by token.

Quick is what a Predictor does. Plain is the model as it was trained, nothing folded, `UnifiedModel.decode` beam by beam,
answers read one by one, and every column of the vocabulary.
"""

from __future__ import annotations

from functools import partial

import pytest

from monoglot import load
from monoglot.data.rows import read_rows
from monoglot.decode import predict
from monoglot.decode.predict import Predictor
from monoglot.decode.search import SearchSettings, beam_search, score_answers
from monoglot.decode.steps import PlainSteps, PlainTexts
from monoglot.demo import SAMPLES

SEARCHES = {
    "as the task has it": SearchSettings(),
    "greedy": SearchSettings(beam=1),
    "five beams": SearchSettings(beam=5, n_best=5),
    "no word twice": SearchSettings(beam=4, no_repeat_ngram=2, length_penalty=0.6),
    "at least six tokens": SearchSettings(beam=2, min_length=6, max_length=12),
    "drawn": SearchSettings(beam=3, sample=True, top_p=0.9, seed=1),
    "every choice scored": SearchSettings(score_all=True),
}


@pytest.fixture(scope="module")
def nano() -> Predictor:
    return load("nano")


def plain(model, memory, width, code_rows):
    return PlainSteps(model, memory, code_rows)


def agree(nano: Predictor, rows, search: SearchSettings, monkeypatch) -> int:
    """How many rows were answered, by both alike."""
    quick, slow = (Predictor(nano.model, nano.tokenizer, search=search, precision="float32") for _ in range(2))
    found = list(quick.predict_many(rows))
    assert quick.fast is not quick.model
    slow._folded = slow._packed = slow.model
    with monkeypatch.context() as patch:
        patch.setattr(predict, "beam_search", partial(beam_search, steps=plain, rules=[lambda log_p, now: None]))
        patch.setattr(predict, "score_answers", partial(score_answers, texts=PlainTexts))
        known = list(slow.predict_many(rows))
    for one, other in zip(found, known, strict=True):
        assert one.error is None
        assert other.error is None
        assert [c.text for c in one.candidates] == [c.text for c in other.candidates], one.id
        assert one.confidence == pytest.approx(other.confidence, abs=1e-4), one.id
        assert one.box == other.box
    return len(found)


def test_a_row_of_each_kind(nano, monkeypatch):
    kinds = {(row.task, *(item.modality for item in row.media)): row for row in read_rows(SAMPLES / "rows.jsonl")}
    chosen = [
        row for (task, *media), row in kinds.items() if task not in ("transcribe", "summarize") and len(media) < 2
    ]
    assert agree(nano, chosen, SearchSettings(beam=2, n_best=2), monkeypatch) >= 6


@pytest.mark.slow
@pytest.mark.parametrize("search", SEARCHES)
def test_all_samples(nano, search, monkeypatch):
    """217 cases in all."""
    assert agree(nano, list(read_rows(SAMPLES / "rows.jsonl")), SEARCHES[search], monkeypatch) == 31
