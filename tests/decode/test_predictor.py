"""The one way in: answers in order, errors in their rows, choices and boxes kept to."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from small import square, tiny_model

import monoglot
from monoglot.decode.predict import Predictor, load
from monoglot.errors import InputError
from monoglot.nouns import Media, Sample
from monoglot.store import save_model

RED, BLUE = square((220, 20, 20)), square((20, 20, 220))
TONE = (np.sin(np.arange(3000) / 9).astype(np.float32) / 2, 16_000)
KEYS = ["id", "task", "text", "box", "confidence", "candidates", "seconds", "error"]


@pytest.fixture(scope="module")
def predictor(tokenizer):
    return Predictor(tiny_model(), tokenizer)


@pytest.fixture
def rows(tmp_path):
    Image.fromarray(RED).save(tmp_path / "red.png")
    (tmp_path / "broken.png").write_bytes(b"not a picture")
    picture, broken = str(tmp_path / "red.png"), str(tmp_path / "broken.png")
    return [
        {"id": "a", "task": "name", "image": picture},
        {"id": "b", "task": "summarize", "text": "the red and the blue"},
        {"id": "c", "task": "name", "image": broken},
        {"id": "d", "task": "grounding", "image": picture, "text": "the red"},
        {"id": "e", "task": "classify", "image": picture, "choices": ["red", "blue", "dark red"]},
        {"id": "f", "task": "nmae", "image": picture},
        {"id": "g", "task": "vqa", "image": picture, "text": "colour?"},
        {"id": "h", "task": "vqa", "image": picture, "text": "colour?", "choices": ["x", "y"]},
        {"id": "i", "task": "vqa", "image": picture},
        {"id": "j", "task": "grounding", "image": [picture, picture], "text": "the red"},
        {"task": "name", "image": str(tmp_path / "absent.png")},
        {"id": "l", "task": "region_caption", "image": picture, "box": [10, 10, 20, 20]},
        {"id": "a", "task": "name", "image": picture},
    ]


def same(one, other):
    assert replace(one, seconds=0.0, confidence=0.0, candidates=()) == replace(
        other, seconds=0.0, confidence=0.0, candidates=()
    )
    assert one.confidence == pytest.approx(other.confidence, abs=1e-5)
    assert [c.text for c in one.candidates] == [c.text for c in other.candidates]


def test_answers_come_in_the_order_of_rows(predictor, rows):
    answers = list(predictor.predict_many(rows))
    assert [(answer.id, answer.task) for answer in answers] == [(row.get("id", ""), row["task"]) for row in rows]
    wrong = {answer.id: answer.error for answer in answers if answer.error}
    assert set(wrong) == {"c", "f", "i", "", "l"}
    assert "broken.png" in wrong["c"]
    assert "no task named 'nmae'; closest: 'name'" in wrong["f"]
    assert "task 'vqa' needs a question" in wrong["i"]
    assert "absent.png" in wrong[""]
    assert all("\n" not in error for error in wrong.values())
    for answer in answers:
        assert list(answer.to_json()) == KEYS
        json.dumps(answer.to_json(), allow_nan=False)
        if answer.error:
            assert (answer.text, answer.box, answer.confidence, answer.candidates) == ("", None, 0.0, ())
        else:
            assert all(0 <= candidate.probability <= 1 for candidate in answer.candidates)
            assert answer.confidence == answer.candidates[0].probability
            assert answer.seconds > 0
    same(answers[0], answers[-1])


@pytest.mark.parametrize("batch_size", [1, 2, 50])
def test_batches_change_nothing(predictor, rows, batch_size):
    expected = list(predictor.predict_many(rows))
    for one, other in zip(predictor.predict_many(rows, batch_size=batch_size), expected, strict=True):
        same(one, other)


def test_rows_more_than_a_window(predictor):
    rows = [Sample(str(index), "summarize", (), f"the {index % 7}") for index in range(18)]
    answers = list(predictor.predict_many(iter(rows), batch_size=1))
    assert [answer.id for answer in answers] == [str(index) for index in range(18)]
    same(replace(answers[0], id=""), replace(answers[14], id=""))


def test_one_question_is_a_row(predictor, rows, tmp_path):
    single = predictor.predict(task="name", image=str(tmp_path / "red.png"))
    same(replace(single, id="a"), next(iter(predictor.predict_many(rows[:1]))))
    same(predictor.predict(task="name", image=RED), single)


def test_nothing_to_answer(predictor):
    assert list(predictor.predict_many([])) == []


def test_choices_are_kept_to(predictor):
    answer = predictor.predict(task="classify", image=RED, choices=["red", "blue", "dark red"])
    assert {candidate.text for candidate in answer.candidates} == {"red", "blue", "dark red"}
    assert sum(candidate.probability for candidate in answer.candidates) == pytest.approx(1, abs=1e-4)
    many = [f"number {index}" for index in range(50)]
    assert predictor.predict(task="vqa", image=RED, text="which?", choices=many).text in many
    assert predictor.predict(task="vqa", image=RED, text="which?", choices=["only"]).confidence == pytest.approx(1)


def test_boxes(predictor):
    answer = predictor.predict(task="grounding", image=RED, text="the square")
    x0, y0, x1, y1 = answer.box
    assert 0 <= x0 <= x1 <= 1
    assert 0 <= y0 <= y1 <= 1
    assert answer.text.count("<bin_") == 4
    assert predictor.predict(task="name", image=RED).box is None


def test_several_media_and_modalities(predictor):
    clip = np.stack([RED, BLUE])
    answer = predictor.predict(task="vqa", image=[RED, BLUE], video=clip, audio=TONE, text="what is this?")
    assert answer.error is None
    assert predictor.predict(task="matching", image=[RED, BLUE]).text in ("yes", "no")


@pytest.mark.parametrize(
    ("question", "message"),
    [
        ({"task": "nmae", "image": RED}, "no task named 'nmae'; closest: 'name'"),
        ({"task": "name"}, "task name: image/video/audio: task 'name' needs one"),
        ({"task": "vqa", "image": RED}, "text: task 'vqa' needs a question"),
        ({"task": "name", "image": "absent.png"}, "absent.png"),
        ({"task": "name", "image": RED, "lang": "xx"}, "lang: 'xx' has no prompt; known: en"),
        ({"task": "region_caption", "image": RED, "box": [10, 20, 30, 40]}, r"leaves \[0, 1\]; is it in pixels"),
        ({"task": "region_caption", "image": RED, "box": [0, 0, 1]}, "has 3 numbers"),
        ({"task": "region_caption", "image": RED}, "box: task 'region_caption' needs the region"),
        ({"task": "transcribe", "image": RED}, "audio/video: task 'transcribe' needs one"),
    ],
)
def test_wrong_questions(predictor, question, message):
    with pytest.raises(InputError, match=message) as caught:
        predictor.predict(**question)
    assert "\n" not in str(caught.value)


def test_media_that_the_model_does_not_read(tokenizer):
    blind = Predictor(tiny_model(modalities={"audio": {"pad_seconds": 0.1, "max_seconds": 0.5}}), tokenizer)
    with pytest.raises(InputError, match="image: this model does not read it; it reads: audio"):
        blind.predict(task="name", image=RED)
    assert blind.predict(task="transcribe", audio=TONE).error is None


def test_answers_stay_within_the_models_positions(tokenizer):
    for start in ((0,), (0, 3)):
        short = Predictor(tiny_model(target_positions=8, start=start), tokenizer)
        assert short.predict(task="transcribe", audio=TONE).error is None


def test_long_texts_are_cut(predictor):
    assert predictor.predict(task="summarize", text="the red " * 100_000).error is None


def test_load(tokenizer, tmp_path):
    model = tiny_model(encoders=True)
    save_model(tmp_path / "m", model, tokenizer)
    loaded = monoglot.load(tmp_path / "m")
    same(loaded.predict(task="name", image=RED), Predictor(model, tokenizer).predict(task="name", image=RED))
    same(load(str(tmp_path / "m")).predict(task="name", image=RED), loaded.predict(task="name", image=RED))
    with pytest.raises(InputError, match=r"no such folder; give a model folder or the name of a bundled model"):
        load("nanno")


def test_a_sample_with_media_in_memory(predictor):
    answers = list(predictor.predict_many([Sample("1", "name", (Media("image", RED),)), {"task": 3}]))
    assert answers[0].error is None
    assert "task" in answers[1].error
