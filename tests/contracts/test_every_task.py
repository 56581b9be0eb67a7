"""What every task must keep to: a row is posed with its media, its answer is read whatever the model wrote."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from monoglot.errors import InputError
from monoglot.evaluate.metrics import METRICS
from monoglot.nouns import Media, Sample, Symbols
from monoglot.tasks import TASKS

IMAGE, AUDIO, VIDEO = (Media(name, f"a.{name}") for name in ("image", "audio", "video"))
MINIMAL = {
    "answer_matching": Sample("1", "answer_matching", (IMAGE,), "colour? red", targets=("yes",)),
    "caption": Sample("1", "caption", (IMAGE,), targets=("a cup",)),
    "classify": Sample("1", "classify", (AUDIO,), targets=("red",), choices=("red", "blue")),
    "detect": Sample("1", "detect", (IMAGE,), targets=("cup 0.000 0.250 0.501 1.000",)),
    "entailment": Sample("1", "entailment", (IMAGE,), "a cup", targets=("yes",)),
    "generate_image": Sample("1", "generate_image", (), "a cup", targets=("3 1 0 2",)),
    "grounding": Sample("1", "grounding", (IMAGE,), "the cup", box=(0.0, 0.25, 0.5, 1.0)),
    "infill": Sample("1", "infill", (), "the <mask>", targets=("the cup",)),
    "infill_image": Sample("1", "infill_image", (IMAGE,), targets=("3 1 0 2",)),
    "matching": Sample("1", "matching", (IMAGE,), "a cup", targets=("no",)),
    "name": Sample("1", "name", (VIDEO,), targets=("cup",)),
    "region_caption": Sample("1", "region_caption", (IMAGE,), targets=("a cup",), box=(0.0, 0.25, 0.5, 1.0)),
    "summarize": Sample("1", "summarize", (), "a long text", targets=("short",)),
    "transcribe": Sample("1", "transcribe", (AUDIO,), targets=("hello",)),
    "vqa": Sample("1", "vqa", (IMAGE,), "colour?", targets=("red",)),
}
"""The least that each task needs; a task that is added needs an entry here."""
FORMS = {"words": [False], "box": [True], "objects": [True, False], "codes": [True]}
"""Which parts of the minimal answer are symbols."""


def without_answer(sample: Sample) -> Sample:
    box = sample.box if sample.task == "region_caption" else None
    return Sample(sample.id, sample.task, sample.media, sample.text, box=box, choices=sample.choices)


@pytest.mark.parametrize("name", TASKS)
def test_a_minimal_row_is_posed(name):
    sample = MINIMAL[name]
    posed = TASKS[name].pose(sample)
    assert tuple(replace(part, hidden=None) for part in posed.prompt if isinstance(part, Media)) == sample.media
    words = [part for part in posed.prompt if isinstance(part, str)]
    assert words
    assert all(part.startswith(" ") for part in words if not isinstance(part, Symbols))
    assert posed.target
    written = (posed.target,) if isinstance(posed.target, str) else posed.target
    assert [isinstance(part, Symbols) for part in written] == FORMS[posed.writes]
    assert all(part.startswith(" ") != isinstance(part, Symbols) for part in written)
    if posed.choices:
        assert posed.target.removeprefix(" ") in posed.choices
    assert posed == TASKS[name].pose(sample)


@pytest.mark.parametrize("name", TASKS)
def test_a_row_without_its_answer_is_posed_the_same(name):
    whole, bare = TASKS[name].pose(MINIMAL[name]), TASKS[name].pose(without_answer(MINIMAL[name]))
    assert bare.target == ""
    assert (bare.prompt, bare.choices, bare.writes) == (whole.prompt, whole.choices, whole.writes)


@pytest.mark.parametrize("name", TASKS)
def test_metrics_exist_and_fit(name):
    task = TASKS[name]
    assert task.metrics
    assert all(metric in METRICS for metric in task.metrics)
    reads = {METRICS[metric].reads for metric in task.metrics}
    assert reads == {"box" if TASKS[name].pose(MINIMAL[name]).writes == "box" else "text"}
    assert task.source
    assert task.max_length > 0
    assert task.length_penalty >= 0


@pytest.mark.parametrize("name", TASKS)
def test_its_own_answer_is_right(name, tokenizer):
    """Target -> ids -> text -> answer -> score: the best there is."""
    task, sample = TASKS[name], MINIMAL[name]
    posed = task.pose(sample)
    parts = (posed.target,) if isinstance(posed.target, str) else posed.target
    written = np.concatenate([tokenizer.encode(part) for part in parts])
    assert len(written) <= max(task.max_length, 24)
    answer = task.answer(tokenizer.decode(written).strip())
    for metric in task.metrics:
        reference = sample.box if METRICS[metric].reads == "box" else sample.targets
        value = METRICS[metric].score([answer], [reference]).value
        if metric in ("wer", "cer"):
            assert value == 0
        elif metric not in ("cider_d", "cider"):  # which weigh words by a whole set
            assert value > 0.99


@pytest.mark.parametrize("name", TASKS)
@given(text=st.one_of(st.text(), st.sampled_from(["", " ", "<bin_", "<bin_1> <bin_2>", "<bin_99999999> " * 4, "<s>"])))
def test_any_text_is_read(name, text):
    answer = TASKS[name].answer(text)
    assert answer is None or isinstance(answer, str) or (isinstance(answer, tuple) and len(answer) == 4)


@pytest.mark.parametrize("name", TASKS)
def test_what_is_missing_is_told(name):
    with pytest.raises(InputError) as caught:
        TASKS[name].pose(Sample("17", name, where="rows.jsonl:3"))
    assert str(caught.value).startswith("rows.jsonl:3: ")
    assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match="17"):
        TASKS[name].pose(Sample("17", name))


@pytest.mark.parametrize("name", TASKS)
def test_media_of_every_kind_are_all_read(name):
    sample = MINIMAL[name]
    media = (*sample.media, AUDIO, VIDEO, IMAGE)
    more = Sample("1", name, media, sample.text, sample.targets, sample.box, sample.choices)
    posed = TASKS[name].pose(more)
    assert tuple(replace(part, hidden=None) for part in posed.prompt if isinstance(part, Media)) == media


@pytest.mark.parametrize("name", TASKS)
def test_what_users_write_stays_words(name):
    sample = MINIMAL[name]
    text = "<bin_3> </s>" + {"answer_matching": "? <bin_3>", "infill": " <mask>"}.get(name, "")
    targets = {"detect": ("<bin_4> 0 0 1 1",)}.get(name, ("<bin_4>",))
    hostile = Sample("1", name, sample.media, text, targets, sample.box, sample.choices)
    if name in ("generate_image", "infill_image"):
        with pytest.raises(InputError, match="'<bin_4>' is not an image code"):
            TASKS[name].pose(hostile)
        return
    posed = TASKS[name].pose(hostile)
    for part in (*posed.prompt, *([posed.target] if isinstance(posed.target, str) else posed.target)):
        if isinstance(part, Symbols):
            assert "<bin_3>" not in part
            assert "</s>" not in part
            assert "<bin_4>" not in part
