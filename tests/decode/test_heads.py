"""Heads in the predictor: what they say is what they say of the features; and media are encoded once, if asked."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from PIL import Image
from small import COLOURS, square, tiny_model

from monoglot.adapt.heads import fit_heads
from monoglot.adapters import Answers
from monoglot.data.features import RecentFeatures
from monoglot.data.rows import parse_row
from monoglot.decode.predict import Predictor
from monoglot.errors import InputError
from monoglot.model.features import open_cache
from monoglot.model.head import Head, features
from monoglot.nouns import Media, Sample
from monoglot.store import load_model, save_model

QUESTION = "what colour?"


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    for colour, rgb in COLOURS.items():
        for number in range(3):
            Image.fromarray(square(rgb, (number, 2 * number), side=70)).save(folder / f"{colour}{number}.png")
    return folder


@pytest.fixture(scope="module")
def base(tokenizer, tmp_path_factory):
    folder = tmp_path_factory.mktemp("base") / "tiny"
    save_model(folder, tiny_model(encoders=True, modalities={"image": {"size": 32}}), tokenizer)
    return folder


@pytest.fixture(scope="module")
def asked(pictures):
    """Two rows of each colour."""
    return [row(f"{colour}{number}", pictures, target=colour) for colour in COLOURS for number in range(2)]


def row(name, pictures, **changes) -> dict:
    return {"id": name, "task": "classify", "image": str(pictures / f"{name}.png"), "text": QUESTION} | changes


@pytest.fixture(scope="module")
def head(base, asked):
    """(answers, heads) as an adapter has them."""
    answers = (Answers(task="classify", text=QUESTION, choices=tuple(COLOURS)),)
    samples = [parse_row(row | {"choices": list(COLOURS)}) for row in asked]
    answers, heads, _ = fit_heads(Predictor(*load_model(base)), samples, answers)
    return answers, heads


@pytest.fixture
def predictor(base, head):
    return Predictor(*load_model(base), answers=head[0], heads=head[1])


def test_the_predictor_says_what_the_head_says(predictor, head, pictures):
    rows = [row(f"{colour}2", pictures) for colour in COLOURS]
    own = Head.from_state(head[1][0], head[0][0].head)
    x, read = features(
        predictor.model, predictor.preparer, [parse_row(r | {"choices": ["a", "b"]}) for r in rows], blocks=own.blocks
    )
    assert read == [0, 1, 2, 3]
    for answer, chances in zip(predictor.predict_many(rows), own.probabilities(x)):
        order = chances.argsort(descending=True)[:3].tolist()
        assert [candidate.text for candidate in answer.candidates] == [own.classes[place] for place in order]
        told = torch.tensor([candidate.probability for candidate in answer.candidates])
        torch.testing.assert_close(told, chances[order], rtol=1e-3, atol=1e-5)
        assert (answer.text, answer.confidence) == (answer.candidates[0].text, answer.candidates[0].probability)
        assert answer.box is None


def test_choices_of_a_row_limit_the_head(predictor, pictures):
    whole = predictor.predict(task="classify", image=str(pictures / "red2.png"), text=QUESTION)
    two = predictor.predict(task="classify", image=str(pictures / "red2.png"), text=QUESTION, choices=("blue", "green"))
    assert {candidate.text for candidate in two.candidates} == {"blue", "green"}
    assert sum(candidate.probability for candidate in two.candidates) == pytest.approx(1)
    one = predictor.predict(task="classify", image=str(pictures / "red2.png"), text=QUESTION, choices=("blue",))
    assert (one.text, one.confidence) == ("blue", pytest.approx(1))
    assert len(whole.candidates) == 3
    # A choice that the head does not know: the decoder answers.
    other = predictor.predict(task="classify", image=str(pictures / "red2.png"), text=QUESTION, choices=("blue", "x"))
    assert other.text in ("blue", "x")


def test_a_mixed_batch_keeps_its_order(predictor, pictures):
    """Rows of a head, rows that the decoder answers and rows that cannot be read, of one task and shape, in one batch."""
    rows = []
    for number, colour in enumerate(COLOURS):
        rows.append(row(f"{colour}2", pictures, id=f"h{number}"))
        rows.append(row(f"{colour}2", pictures, id=f"f{number}", text="what other?", choices=["red", "the blue"]))
        rows.append(row(f"{colour}2", pictures, id=f"b{number}", text="and this?"))
    together = list(predictor.predict_many(rows))
    assert [answer.id for answer in together] == [row["id"] for row in rows]
    for given, answer in zip(rows, together):
        (alone,) = predictor.predict_many([given])
        assert (answer.text, answer.error) == (alone.text, alone.error)
        assert answer.confidence == pytest.approx(alone.confidence, rel=1e-4)
        assert (answer.error is None) == (given["id"][0] != "b")
        assert answer.text in {"h": (*COLOURS,), "f": ("red", "the blue"), "b": ("",)}[given["id"][0]]


def test_a_question_with_one_answer_has_no_head(base, asked):
    one = [parse_row(row | {"choices": list(COLOURS)}) for row in asked if row["target"] == "red"]
    with pytest.raises(
        InputError, match=r"target: 'what colour\?' has 1 answer among 2 rows that can be read; give rows"
    ):
        fit_heads(Predictor(*load_model(base)), one, ())


def test_questions_that_are_part_of_what_is_judged_share_a_head(base, pictures):
    """Another text in each row, and choices of their own: one head for all of them."""
    rows = [
        row(f"{colour}{n % 3}", pictures, id=str(n), task="vqa", text=f"is it {n}?", choices=["yes", "no"], target=said)
        for n in range(22)
        for colour, said in (("red", "yes"), ("blue", "no"))
    ]
    answers, heads, _ = fit_heads(Predictor(*load_model(base)), list(map(parse_row, rows)), ())
    assert [(given.text, given.choices) for given in answers] == [("", ("yes", "no"))]
    assert set(heads) == {0}


# --- kept features ----------------------------------------------------------------------------------------------------


def counted(predictor) -> list[int]:
    """How many items the image encoder saw, call by call."""
    seen = []
    for model in (predictor._folded, predictor._packed):  # by which it answers first, and then
        encoder = model.encoders["image"]
        encoder.register_forward_hook(lambda module, given, said: seen.append(len(given[0])))
    return seen


def test_kept_features_change_no_answer(base, head, asked, pictures, tmp_path):
    plain = Predictor(*load_model(base))
    rows = [row | {"choices": list(COLOURS)} for row in asked]
    captions = [row(f"{colour}2", pictures, task="caption", text="") for colour in COLOURS]
    wanted = list(plain.predict_many([*rows, *captions]))
    for _ in ("cold", "warm", "warm again, in another process's stead"):
        keeping = Predictor(*load_model(base))
        seen = counted(keeping)
        keeping.keep_features(open_cache(keeping.model, folder=str(tmp_path / "features")))
        told = list(keeping.predict_many([*rows, *captions]))
        assert sum(seen) == (12 if _ == "cold" else 0)
        for one, other in zip(wanted, told):
            assert (one.id, one.text, one.error) == (other.id, other.text, other.error)
            assert one.confidence == pytest.approx(other.confidence, rel=0.02)
        if _ == "cold":
            cold = told
        else:
            assert [(a.text, a.confidence) for a in told] == [(a.text, a.confidence) for a in cold]
    seen.clear()
    keeping.keep_features(None)
    list(keeping.predict_many(rows))
    assert sum(seen) == 8


def test_questions_about_one_picture_encode_it_once(base, pictures, tmp_path):
    """Of whatever name, in a batch or across; in memory too. The answers are those without any cache."""
    shutil.copy(pictures / "red0.png", tmp_path / "red0.png")
    rows = [row("red0", folder, task="vqa", text=f"what {n}?") for n in range(5) for folder in (pictures, tmp_path)]
    array = square(COLOURS["red"], (1, 2), side=70)
    rows += [Sample(str(n), "vqa", (Media("image", array),), f"what {n}?") for n in range(3)]
    plain, predictor = Predictor(*load_model(base)), Predictor(*load_model(base))
    plain.keep_features(None)
    for batch_size in (1, 4, 32):
        predictor.keep_features(RecentFeatures())
        seen = counted(predictor)
        said = list(predictor.predict_many(rows, batch_size=batch_size))
        assert sum(seen) == 2
        for one, other in zip(said, plain.predict_many(rows, batch_size=batch_size)):
            assert (one.text, one.error) == (other.text, None)
            assert one.confidence == pytest.approx(other.confidence, rel=1e-4)
    seen.clear()
    first = predictor.predict(task="vqa", text="what 0?", image=str(pictures / "red0.png"))
    assert first.confidence == pytest.approx(said[0].confidence, rel=1e-4)
    assert seen == []


def test_a_file_that_changed_is_encoded_anew(base, pictures, tmp_path):
    picture = tmp_path / "picture.png"
    shutil.copy(pictures / "red0.png", picture)
    predictor = Predictor(*load_model(base))
    seen = counted(predictor)
    predictor.keep_features(open_cache(predictor.model, folder=str(tmp_path / "features")))
    asked = {"task": "classify", "text": QUESTION, "choices": tuple(COLOURS), "image": str(picture)}
    first = predictor.predict(**asked)
    assert predictor.predict(**asked).confidence == first.confidence
    assert sum(seen) == 1
    shutil.copy(pictures / "black1.png", picture)
    second = predictor.predict(**asked)
    assert sum(seen) == 2
    plain = Predictor(*load_model(base)).predict(**asked)
    assert second.text == plain.text
    assert second.confidence == pytest.approx(plain.confidence, rel=0.02)
    assert second.confidence != first.confidence


def test_a_cache_that_holds_nothing(base, tmp_path):
    assert open_cache(load_model(base)[0], 0, str(tmp_path / "features")) is None
    assert not (tmp_path / "features").exists()


def test_rows_on_disk_hold_settings_of_heads(head):
    """Settings of a head are JSON as they stand."""
    page = head[0][0].model_dump(mode="json")
    assert Answers.model_validate(json.loads(json.dumps(page))) == head[0][0]
