"""Dedicated models: the same as scikit-learn's own, better than the plain answer, and kept whole."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from small_rivals import Colours, colours, squares

from monoglot.adapt import rivals
from monoglot.adapt.rivals import RIVALS, Encoded, Tuned, choose, logistic
from monoglot.errors import InputError
from monoglot.nouns import Media, Sample

TEXTS = {"sports": ("the team won the match", "a goal in the game"), "food": ("soup with bread", "cook the rice")}


def accuracy(answers, samples):
    return np.mean([answer.text in sample.targets for answer, sample in zip(answers, samples)])


def texts(count):
    rows = [(said, text) for said, known in TEXTS.items() for text in known]
    return [
        Sample(str(n), "classify", text=f"{text} {n}", targets=(said,), choices=tuple(TEXTS))
        for n, (said, text) in enumerate(rows * (count // len(rows)))
    ]


def test_logistic_is_scikit_learns():
    rng = np.random.default_rng(0)
    features = rng.normal(size=(12, 5)) * [1, 10, 100, 1, 1]
    labels = ["a", "b", "b", "c"] * 3
    features[:, 0] += [len(labels) * "abc".index(label) for label in labels]
    asked = rng.normal(size=(6, 5))
    found = logistic(features, labels, apart=range(12), seed=0)
    scaler = StandardScaler().fit(features)
    strength = found[-1].C
    oracle = LogisticRegression(C=strength, class_weight="balanced", max_iter=2000)
    oracle.fit(scaler.transform(features), labels)
    assert strength in rivals.STRENGTHS
    assert list(found.classes_) == list(oracle.classes_)
    np.testing.assert_allclose(found.predict_proba(asked), oracle.predict_proba(scaler.transform(asked)), atol=1e-6)


def test_with_few_rows_c_is_one():
    features = np.random.default_rng(0).normal(size=(8, 3))
    assert logistic(features, ["a", "b"] * 4, apart=range(8), seed=0)[-1].C == 1
    assert logistic(features, ["a"] * 8, apart=range(8), seed=0).predict(features).tolist() == ["a"] * 8


def test_a_group_is_on_one_side_of_a_fold(monkeypatch):
    """Labels follow groups by chance: whoever splits groups would find the strongest C best."""
    from sklearn.model_selection import StratifiedGroupKFold

    seen = []
    split = StratifiedGroupKFold.split

    def spy(self, features, labels, groups):
        for train, held in split(self, features, labels, groups):
            seen.append({groups[i] for i in train} & {groups[i] for i in held})
            yield train, held

    monkeypatch.setattr(StratifiedGroupKFold, "split", spy)
    features = np.random.default_rng(0).normal(size=(20, 3))
    logistic(features, ["a", "b"] * 10, apart=[f"g{n // 4}" for n in range(20)], seed=0)
    assert seen
    assert not any(seen)


@pytest.mark.parametrize("name", ["probe", "finetune"])
@pytest.mark.parametrize("rows", [6, 30])
def test_pictures_are_told_apart(name, rows):
    shots, asked = squares(rows), squares(30, first=100)
    encoded = Encoded(colours)
    made = RIVALS[name].fit(shots, encoded, 0, 0.5)
    plain = RIVALS["majority"].fit(shots, encoded, 0, 0.5)
    assert accuracy(made.answer(asked, False), asked) > 0.9
    assert accuracy(plain.answer(asked, False), asked) == pytest.approx(1 / 3)
    assert made.seconds > 0
    assert plain.megabytes == 0


def test_two_answers_and_one():
    encoded = Encoded(colours)
    two = squares(12, names=("red", "blue"))
    asked = squares(12, first=50, names=("red", "blue"))
    for name in ("probe", "finetune"):
        assert accuracy(RIVALS[name].fit(two, encoded, 0, 0.5).answer(asked, False), asked) == 1
        one = RIVALS[name].fit(squares(4, names=("red",)), encoded, 0, 0.5)
        assert {answer.text for answer in one.answer(asked, False)} == {"red"}


@pytest.mark.parametrize("names", [("red", "blue"), ("red", "blue", "green")])
def test_fine_tuning_begins_as_the_probe(names):
    shots, encoded = squares(9, names=names), Encoded(colours)
    means = encoded.features(shots, ["image"])
    probe = logistic(means, [s.targets[0] for s in shots], apart=range(9), seed=0)
    eye = encoded.backbone("image")
    before = {name: tensor.clone() for name, tensor in eye.state_dict().items()}
    tuned = Tuned(eye, probe)
    maps = lambda samples: [encoded.read(s)[0]["image"][0] for s in samples]  # noqa: E731
    with torch.no_grad():
        found = tuned(maps(shots)).softmax(-1).numpy()
    np.testing.assert_allclose(found, probe.predict_proba(means), atol=1e-4)
    list(rivals._tune(tuned, maps, shots, list(probe.classes_), 2, seed=0, deadline=float("inf")))
    assert any(not torch.equal(a, b) for a, b in zip(tuned.eye.tail.parameters(), eye.tail.parameters()))
    assert all(
        torch.equal(before[name], tensor) for name, tensor in eye.state_dict().items()
    )  # others' encoder is as it was


def test_each_row_is_encoded_once_unless_fresh():
    encoded = Encoded(colours)
    shots, eye = squares(6), encoded.backbone("image")
    made = RIVALS["probe"].fit(shots, encoded, 0, 0.5)
    made.answer(shots, False)
    RIVALS["finetune"].fit(shots, encoded, 0, 0.5).answer(shots, False)
    assert eye.seen == 6
    assert made.answer(shots[:2], True) == made.answer(shots[:2], False)
    assert eye.seen == 8


def test_a_row_that_cannot_be_read_is_an_error_and_no_training_row(tmp_path):
    broken = dataclasses.replace(squares(1)[0], id="x", media=(Media("image", str(tmp_path / "none.png")),))
    shots = [*squares(6), broken]
    made = RIVALS["probe"].fit(shots, Encoded(colours), 0, 0.5)
    answers = made.answer([broken, *squares(2)], False)
    assert "none.png" in answers[0].error
    assert [answer.text for answer in answers[1:]] == ["red", "blue"]
    with pytest.raises(InputError, match="none of the training rows"):
        RIVALS["probe"].fit([broken], Encoded(colours), 0, 0.5)


def test_words_are_told_apart_and_choices_kept_to():
    shots, asked = texts(8), texts(8)
    made = RIVALS["tfidf"].fit(shots, Encoded(colours), 0, 0.5)
    assert accuracy(made.answer(asked, False), asked) == 1
    only = dataclasses.replace(asked[0], choices=("food", "weather"))
    assert made.answer([only], False)[0].text == "food"
    assert 0 < made.megabytes < 0.1


def test_questions_about_pictures_are_read_too():
    """Two questions about the same pictures: their words say which answers come."""
    rows = [dataclasses.replace(s, task="vqa", text="which colour?") for s in squares(12)]
    rows += [
        dataclasses.replace(s, id=f"{s.id}b", task="vqa", text="is it a square?", targets=("yes",)) for s in squares(12)
    ]
    made = RIVALS["probe"].fit(rows, Encoded(colours), 0, 0.5)
    assert accuracy(made.answer(rows, False), rows) > 0.9
    assert not RIVALS["finetune"].fits(rows)


def test_a_rival_is_kept_whole():
    made = RIVALS["probe"].fit(squares(6), Encoded(colours), 0, 0.5)
    weights = sum(tensor.numel() for tensor in Colours().state_dict().values())
    head = 3 * 6 + 3 + 6 + 6  # coefficients, intercepts, means, scales
    assert made.megabytes == pytest.approx(2 * (weights + head) / 1e6)


def test_auto_takes_what_makes_sense():
    speech = [Sample(str(n), "transcribe", (Media("audio", "a.wav"),), targets=("a",)) for n in range(2)]
    clips = [Sample(str(n), "classify", (Media("video", "a.mp4"),), targets=("a",)) for n in range(2)]
    boxes = [Sample("1", "grounding", (Media("image", "a.png"),), text="it", box=(0, 0, 1, 1))]
    documents = [Sample("1", "summarize", text="A. B.", targets=("A.",))]
    assert choose(["auto"], squares(2)) == ["majority", "probe", "finetune"]
    assert choose(["auto"], clips) == ["majority", "probe"]
    assert choose(["finetune"], clips) == ["majority", "finetune"]
    assert choose(["auto"], texts(4)) == ["majority", "tfidf"]
    assert choose(["auto"], speech) == ["majority"]
    assert choose(["auto"], documents) == ["majority", "lead"]
    assert choose(["auto"], boxes) == ["middle-box"]
    assert choose(["none"], squares(2)) == ["majority"]


def test_wrong_names_are_told(monkeypatch):
    with pytest.raises(InputError, match="no rival named 'prob'; closest: 'probe'"):
        choose(["prob"], squares(2))
    with pytest.raises(
        InputError, match="--rivals: 'tfidf' does not answer 'name' about image; these do: majority, probe"
    ):
        choose(["tfidf"], squares(2))
    monkeypatch.setattr(rivals, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r'pip install "monoglot\[fewshot\]"'):
        choose(["auto"], squares(2))
    assert choose(["none"], squares(2)) == ["majority"]


def test_a_missing_part_is_told(monkeypatch):
    from monoglot.interop.parts import MissingPart

    def gone(name):
        raise MissingPart(f"part {name!r}: gone")

    monkeypatch.setattr(rivals, "fetch_part", gone)
    with pytest.raises(InputError, match="'lite0': gone; say --rivals none"):
        rivals.backbone("image")


def test_pretrained_encoders_are_whole_when_put_together(part):
    """Their two parts, one after the other, say what the network says in one piece."""
    from monoglot.interop.ctranslate2 import read_ctranslate2
    from monoglot.modalities.audio import AudioConfig, WhisperEncoder, load_whisper_encoder
    from monoglot.modalities.image import Lite0Trunk, load_lite0

    generator = torch.Generator().manual_seed(0)
    trunk = Lite0Trunk()
    load_lite0(trunk, torch.load(part("lite0").files["model.pth"], weights_only=True))
    pictures = torch.randint(0, 256, (2, 3, 64, 64), generator=generator, dtype=torch.uint8)
    eye, clips = rivals.backbone("image"), rivals.backbone("video")
    with torch.no_grad():
        whole = trunk.features(pictures)[0].mean((2, 3))
        torch.testing.assert_close(eye.last(eye.first(pictures)), whole, rtol=1e-4, atol=1e-4)
        frames = clips.last(clips.first(pictures[None]))
        torch.testing.assert_close(frames, whole.mean(0, keepdim=True), rtol=1e-4, atol=1e-4)

    arrays = read_ctranslate2(part("whisper-tiny-en").files["model.bin"])
    encoder = WhisperEncoder(AudioConfig())
    load_whisper_encoder(encoder, arrays)
    sounds = torch.randn(2, 16_000, generator=generator) / 10
    ear = rivals.backbone("audio")
    scale, shift = (torch.from_numpy(np.float32(arrays[f"encoder/layer_norm/{f}"])) for f in ("gamma", "beta"))
    with torch.no_grad():
        states = torch.stack(encoder.eval()(list(sounds)))
        states = (states - states.mean(-1, keepdim=True)) / (states.var(-1, keepdim=True, unbiased=False) + 1e-5).sqrt()
        torch.testing.assert_close(ear.last(ear.first(sounds)), (states * scale + shift).mean(1), rtol=1e-3, atol=1e-3)
