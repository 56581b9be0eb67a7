"""The one way in: answers in order, errors in their rows, choices and boxes kept to."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from small import VOCABULARY, gpt2_json, square, tiny_model

import monoglot
from monoglot.decode.constrain import Trie
from monoglot.decode.predict import Predictor, load
from monoglot.decode.search import SearchSettings, beam_search, score_answers
from monoglot.errors import InputError
from monoglot.nouns import Media, Sample
from monoglot.store import save_model
from monoglot.tasks import TASKS
from monoglot.text.boxes import read_objects, write_objects
from monoglot.text.tokenizer import Tokenizer

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


# --- how to search ----------------------------------------------------------------------------------------------------


def searching(predictor, **given):
    return Predictor(predictor.model, predictor.tokenizer, search=SearchSettings(**given))


def test_what_is_not_set_is_the_tasks(predictor):
    caption = Predictor(predictor.model, predictor.tokenizer)._settings(TASKS["caption"], None)
    assert (caption.beam, caption.max_length, caption.length_penalty, caption.sample) == (3, 40, 1.0, False)
    mine = searching(predictor, beam=5, length_penalty=0.5)._settings(TASKS["caption"], None)
    assert (mine.beam, mine.max_length, mine.length_penalty) == (5, 40, 0.5)
    picture = predictor._settings(TASKS["generate_image"], 17)
    assert (picture.sample, picture.top_k, picture.max_length, picture.min_length) == (True, 256, 16, 0)
    assert not searching(predictor, sample=False)._settings(TASKS["generate_image"], 17).sample


def test_candidates(predictor):
    many = searching(predictor, n_best=6).predict(task="name", image=RED)
    few = searching(predictor, beam=6, n_best=2).predict(task="name", image=RED)
    assert [c.text for c in few.candidates] == [c.text for c in many.candidates[:2]]
    assert len(many.candidates) == 6
    assert len(searching(predictor, beam=1).predict(task="name", image=RED).candidates) == 1
    assert len(predictor.predict(task="name", image=RED).candidates) == 3


def test_lengths_are_kept_to(predictor):
    short = searching(predictor, max_length=2).predict(task="caption", image=RED)
    assert len(predictor.tokenizer.encode(short.text)) <= 2
    long = searching(predictor, min_length=12, max_length=14, beam=1).predict(task="name", image=RED)
    assert long.error is None
    boxed = searching(predictor, min_length=12, max_length=2, no_repeat_ngram=1).predict(
        task="grounding", image=RED, text="it"
    )
    assert boxed.box is not None, "a box has its own length"


def test_draws_depend_on_the_seed_and_the_row_only(predictor, rows):
    drawing = {"sample": True, "top_p": 0.9, "beam": 2}
    first = list(searching(predictor, seed=1, **drawing).predict_many(rows))
    for batch_size in (1, 50):
        again = searching(predictor, seed=1, **drawing).predict_many(rows, batch_size=batch_size)
        for one, other in zip(again, first, strict=True):
            same(one, other)
    second = list(searching(predictor, seed=2, **drawing).predict_many(rows))
    assert [one.text for one in first] != [one.text for one in second]


def test_every_choice_is_scored(predictor):
    choices = [f"number {index}" for index in range(20)]
    every = searching(predictor, score_all=True).predict(task="vqa", image=RED, text="which?", choices=choices)
    assert {c.text for c in every.candidates} == set(choices)
    probabilities = [c.probability for c in every.candidates]
    assert probabilities == sorted(probabilities, reverse=True)
    assert sum(probabilities) == pytest.approx(1, abs=1e-4)
    searched = searching(predictor, beam=40).predict(task="vqa", image=RED, text="which?", choices=choices)
    assert [c.text for c in searched.candidates] == [c.text for c in every.candidates]
    assert [c.probability for c in searched.candidates] == pytest.approx(probabilities, abs=1e-4)
    free = searching(predictor, score_all=True).predict(task="vqa", image=RED, text="which?")
    assert free.text == predictor.predict(task="vqa", image=RED, text="which?").text


@pytest.mark.parametrize("task", [name for name in TASKS if name not in ("grounding", "detect")])
def test_free_answers_have_no_locations_and_no_codes(tokenizer, task):
    """However much a model would like to write them."""
    model = tiny_model(target_positions=40)
    with torch.no_grad():
        model.words.weight[tokenizer.vocabulary.mask :] *= 30
    eager = Predictor(model, tokenizer)
    media = {"audio": TONE} if task == "transcribe" else {"image": RED}
    answer = eager.predict(task=task, text="a <mask> cup? red", box=[0, 0, 1, 1], choices=["a", "b"], **media)
    if task not in ("classify", "vqa", "matching", "entailment", "answer_matching"):
        answer = eager.predict(task=task, text="a <mask> cup? red", box=[0, 0, 1, 1], **media)
    assert answer.error is None
    assert answer.candidates
    for candidate in answer.candidates:
        assert not any(mark in candidate.text for mark in ("<bin_", "<code_", "<mask>"))
    free = beam_search(model, model.encode(*text_batch(eager)), SearchSettings(beam=2, max_length=8))
    assert {tokenizer.vocabulary.kind(token) for h in free[0] for token in h.tokens} & {"bin", "code", "mask"}


def text_batch(predictor):
    example = predictor.preparer.example(Sample("1", "summarize", (), "the red"), with_target=False)
    return predictor.preparer.collate([example]), {}


# --- tasks whose answers are no words ---------------------------------------------------------------------------------


def test_objects(predictor):
    for given in ({}, {"max_length": 9}, {"sample": True, "beam": 4}):
        answer = searching(predictor, **given).predict(task="detect", image=RED)
        assert answer.error is None
        assert answer.box is None
        objects = read_objects(answer.text)
        assert write_objects(objects) == answer.text
        assert len(objects) <= (1 if given.get("max_length") else 20)


def test_pictures(predictor):
    side = predictor.model.config.code_grid
    for task, media in (("generate_image", {}), ("infill_image", {"image": RED})):
        answer = predictor.predict(task=task, text="a red cup", **media)
        codes = [int(number) for number in answer.text.split()]
        assert len(codes) == side**2
        assert all(0 <= code < 16 for code in codes)
    greedy = searching(predictor, sample=False, beam=1).predict(task="generate_image", text="a red cup")
    assert (
        greedy.text == searching(predictor, sample=False, beam=1).predict(task="generate_image", text="a red cup").text
    )


def test_code_rows_are_told_to_the_decoder(tokenizer):
    """Codes have their own places and norms where positions are untied: the search has to say so."""
    predictor = Predictor(tiny_model("untied"), tokenizer, search=SearchSettings(beam=1, sample=False))
    example = predictor.preparer.example(Sample("1", "generate_image", (), "the red"), with_target=False)
    batch = predictor.preparer.collate([example])
    with torch.no_grad():
        memory = predictor.model.encode(batch, {})
        written = []
        for _ in range(16):
            ids = torch.tensor([[*predictor.model.config.start, *written]])
            states = predictor.model.decode(ids, memory, code_rows=torch.tensor([True]))
            logits = predictor.model.logits(states)[0, -1]
            codes = tokenizer.vocabulary.codes
            written.append(codes.start + int(logits[codes.start : codes.stop].argmax()))
    expected = " ".join(str(token - codes.start) for token in written)
    assert predictor.predict(task="generate_image", text="the red").text == expected


def test_a_grid_that_fills_all_positions(tokenizer):
    """As many codes as places: the end needs none, as with 1024 codes of the published model."""
    model = tiny_model("untied", target_positions=16, source_positions=16)
    answer = Predictor(model, tokenizer).predict(task="generate_image", text="a")
    assert len(answer.text.split()) == 16


def test_a_model_without_codes_says_so(tokenizer):
    vocabulary = VOCABULARY.model_copy(update={"num_codes": 0})
    blind = Predictor(tiny_model(vocabulary=vocabulary), Tokenizer.from_gpt2(gpt2_json(), vocabulary))
    with pytest.raises(InputError, match="task: task 'generate_image' needs a model that writes image codes"):
        blind.predict(task="generate_image", text="a cup")


def test_hidden_parts_are_not_seen(predictor):
    """What lies in the hidden middle changes nothing; what lies beside it does."""
    inside, beside = RED.copy(), RED.copy()
    inside[40:50, 40:50] = 0
    beside[5:15, 5:15] = 0
    example, middle, edge = (
        predictor.preparer.example(Sample("1", "infill_image", (Media("image", picture),)), with_target=False)
        for picture in (RED, inside, beside)
    )
    plain, hidden = example.sequence.media[0], middle.sequence.media[0]
    assert (plain[:, 24:40, 24:40] == 127).all()
    assert np.array_equal(plain, hidden)
    assert not np.array_equal(plain, edge.sequence.media[0])


@pytest.mark.parametrize("choices", [(), ("red", "dark red", "blue")])
def test_the_published_decoder_prompt(tokenizer, choices):
    """The decoder is given the question; what it answers is what it writes behind it."""
    model = tiny_model("untied", wording="unival_finetuning")
    predictor = Predictor(model, tokenizer)
    answer = predictor.predict(task="vqa", image=RED, text="What colour", choices=choices)
    assert "what colour" not in answer.text
    assert 0 < answer.confidence <= 1
    example = predictor.preparer.example(
        Sample("1", "vqa", (Media("image", RED),), "What colour", choices=choices), with_target=False
    )
    prefix = tokenizer.encode(" what colour?").tolist()
    assert example.sequence.given_ids.tolist() == prefix
    batch = predictor.preparer.collate([example])
    with torch.no_grad():
        memory = model.encode(batch, model.encode_media(batch.media))
        if choices:
            written = tokenizer.encode(f" {answer.text}").tolist()
            tries = [Trie([tokenizer.encode(f" {choice}").tolist() for choice in choices])]
            (scores,) = score_answers(model, memory, [[written]], constraints=tries, prefixes=[prefix])
            assert answer.confidence == pytest.approx(float(scores[0].exp()), rel=1e-4)
            assert sum(c.probability for c in answer.candidates) == pytest.approx(1, abs=1e-4)
    samples = [Sample(str(i), "vqa", (Media("image", RED),), "what " * i + "is", choices=choices) for i in range(1, 4)]
    together = list(predictor.predict_many(samples, batch_size=3))
    for sample, one in zip(samples, together):
        same(one, next(iter(predictor.predict_many([sample]))))
