"""Adapters: small, exact, beside a base that stays as it was; whatever does not fit is told in one line."""

from __future__ import annotations

import json
import re
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from small import COLOURS, MODALITY_SETTINGS, square, tiny_model

from monoglot.adapters import (
    AdapterSettings,
    Answers,
    Limits,
    apply_adapter,
    is_adapter,
    megabytes,
    read_adapter,
    read_answers,
    save_adapter,
    shared_copy,
    weights_sha256,
    write_answers,
)
from monoglot.decode.predict import Predictor, load
from monoglot.errors import InputError
from monoglot.model.head import fit_head
from monoglot.model.lora import Lora, add_lora, lora_names
from monoglot.nouns import Media, Sample
from monoglot.store import base_of, load_model, save_model

RED = square(COLOURS["red"])
QUESTION = {"task": "vqa", "text": "what is it?", "lang": "en"}


@pytest.fixture(scope="module")
def stored(tokenizer, tmp_path_factory):
    """A folder with a base and two adapters on it: `one`, with answers, and `two`."""
    folder = tmp_path_factory.mktemp("stored")
    model = tiny_model(encoders=True, modalities={"image": MODALITY_SETTINGS["image"]})
    save_model(folder / "base", model, tokenizer)
    answers = (Answers(**QUESTION, choices=("red", "blue")),)
    for number, name in enumerate(("one", "two")):
        make(folder, name, seed=number, answers=answers if name == "one" else ())
    return folder


def make(folder, name, *, seed=0, answers=(), heads=None, scale=0.3):
    changed = shared_copy(load_model(folder / "base")[0])
    add_lora(changed, Lora(rank=2), seed=seed)
    torch.manual_seed(seed)
    tensors = {name: changed.get_parameter(name).detach() for name in lora_names(changed)}
    tensors = {name: torch.randn_like(tensor) * scale for name, tensor in tensors.items()}
    base = base_of(folder / "base", None, folder / name)
    settings = AdapterSettings(base=base, method="lora", lora=Lora(rank=2), answers=answers)
    save_adapter(folder / name, settings, tensors, heads=heads, lineage={"parents": ["base"]})
    return tensors


@pytest.fixture
def folder(stored, tmp_path):
    shutil.copytree(stored, tmp_path / "here")
    return tmp_path / "here"


def logits(model, tokenizer):
    from monoglot.data.prepare import Preparer

    preparer = Preparer(tokenizer, model.config)
    sample = Sample("1", "vqa", (Media("image", RED),), "what is it?", targets=("red",))
    with torch.no_grad():
        return model(preparer.collate([preparer.example(sample)]))


def told(path, action) -> str:
    """The one line of an error, without the folder's name."""
    with pytest.raises(InputError) as caught:
        action()
    assert "\n" not in str(caught.value)
    return str(caught.value).replace(f"{path}/", "")


# --- round trip -------------------------------------------------------------------------------------------------------


def test_what_a_folder_holds(stored):
    names = ["README.md", "adapter.json", "adapter.safetensors", "lineage.json"]
    assert sorted(path.name for path in (stored / "one").iterdir()) == names
    assert is_adapter(stored / "one")
    assert not is_adapter(stored / "base")
    page = json.loads((stored / "one" / "adapter.json").read_text())
    assert page["base"] == {"name": "tiny", "path": "../base", "sha256": weights_sha256(stored / "base")}
    assert (page["method"], page["lora"]["rank"], page["answers"][0]["choices"]) == ("lora", 2, ["red", "blue"])
    assert json.loads((stored / "one" / "lineage.json").read_text()) == {"parents": ["base"]}
    assert {path.stat().st_mode & 0o777 for path in (stored / "one").iterdir()} == {
        (stored / "base" / "config.json").stat().st_mode & 0o777
    }


def test_what_was_saved_comes_back(folder):
    tensors = make(folder, "three", seed=7)
    adapter = read_adapter(folder / "three")
    assert set(adapter.changes) == set(tensors)
    for name, tensor in tensors.items():
        assert adapter.tensors[name].dtype == torch.float32
        assert torch.equal(adapter.tensors[name], tensor.half().float())
    stored = sum(tensor.numel() for tensor in tensors.values()) * 2 / 1e6
    assert stored < megabytes(folder / "three") < stored + 0.02


def test_it_answers_as_its_tensors_say(stored, tokenizer):
    """Against the base's own weights plus (alpha / rank) B A, by hand."""
    model, _ = load_model(stored / "base")
    tensors = read_adapter(stored / "one").tensors
    with torch.no_grad():
        for name in {name.rpartition(".")[0] for name in tensors}:
            weight = model.get_submodule(name).weight
            weight.copy_(weight + 16 / 2 * tensors[f"{name}.lora_up"] @ tensors[f"{name}.lora_down"])
    adapted, _ = load_model(stored / "one")
    torch.testing.assert_close(logits(adapted, tokenizer), logits(model, tokenizer), rtol=1e-4, atol=1e-3)


def test_two_adapters_share_one_base(stored, tokenizer):
    model, _ = load_model(stored / "base")
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    said = logits(model, tokenizer)
    both = [apply_adapter(model, read_adapter(stored / name)) for name in ("one", "two")]
    for adapted in both:
        own = dict(adapted.named_parameters(remove_duplicate=False)) | dict(adapted.named_buffers())
        for name, tensor in (*model.named_parameters(), *model.named_buffers()):
            assert own[name].data_ptr() == tensor.data_ptr()
        assert not adapted.training
    answers = [logits(adapted, tokenizer) for adapted in both]
    assert not torch.allclose(answers[0], answers[1], atol=1e-2)
    assert not torch.allclose(answers[0], said, atol=1e-2)
    assert torch.equal(logits(model, tokenizer), said)
    assert lora_names(model) == []
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    for name, answer in zip(("one", "two"), answers):
        assert torch.equal(logits(load_model(stored / name)[0], tokenizer), answer)


def test_a_part_that_two_modalities_share_is_changed_for_both(tokenizer, tmp_path):
    seeing = {name: MODALITY_SETTINGS[name] for name in ("image", "video")}
    save_model(tmp_path / "base", tiny_model(encoders=True, modalities=seeing), tokenizer)
    model, _ = load_model(tmp_path / "base")
    name = next(n for n, _ in model.named_parameters() if n.startswith("encoders.image.trunk"))
    settings = AdapterSettings(base=base_of(tmp_path / "base", None, tmp_path / "a"), method="connector")
    save_adapter(tmp_path / "a", settings, {name: model.get_parameter(name) * 2})
    adapted, _ = load_model(tmp_path / "a")
    assert torch.equal(adapted.get_parameter(name), (model.get_parameter(name) * 2).half().float())
    assert adapted.get_parameter(name.replace("image", "video")) is adapted.get_parameter(name)


def test_features_are_shared_unless_the_encoders_differ(folder):
    predictor = load(folder / "base")
    assert predictor.with_adapter(folder / "one").cache is predictor.cache
    name = next(n for n, _ in predictor.model.named_parameters() if n.startswith("encoders.image.trunk"))
    settings = AdapterSettings(base=base_of(folder / "base", None, folder / "eye"), method="connector")
    save_adapter(folder / "eye", settings, {name: -predictor.model.get_parameter(name)})
    predictor.add_adapter(folder / "eye")
    rows = [Sample(name, "name", (Media("image", RED),), meta={"adapter": name}) for name in ("", "eye")]
    for order in (rows, rows[::-1]):
        said = {answer.id: answer.confidence for answer in predictor.predict_many(order)}
        assert said["eye"] == pytest.approx(load(folder / "eye").predict(task="name", image=RED).confidence, rel=1e-4)
        assert said[""] == pytest.approx(load(folder / "base").predict(task="name", image=RED).confidence, rel=1e-4)


def test_folders_that_move_together(folder, tmp_path, tokenizer):
    said = logits(load_model(folder / "one")[0], tokenizer)
    folder.rename(tmp_path / "there")
    assert torch.equal(logits(load_model(tmp_path / "there" / "one")[0], tokenizer), said)
    assert torch.equal(
        logits(load(tmp_path / "there" / "base").with_adapter(tmp_path / "there" / "one").model, tokenizer), said
    )


# --- answers ----------------------------------------------------------------------------------------------------------


def test_which_answers_hold_for_a_row():
    limits = Limits(
        [
            Answers(task="vqa", text="what is it?", choices=("a",)),
            Answers(task="vqa", text="", choices=("b",)),
            Answers(task="vqa", text="what is it?", lang="ja", choices=("c",)),
        ]
    )
    asked = [("vqa", " what\nis it?", "en"), ("vqa", "what?", "en"), ("vqa", "what is it?", "ja"), ("vqa", "x", "ja")]
    filled = [limits.fill(Sample("1", task, text=text, lang=lang)).choices for task, text, lang in asked]
    assert filled == [("a",), ("b",), ("c",), ()]
    assert limits.fill(Sample("1", "classify", text="what is it?")).choices == ()
    assert limits.fill(Sample("1", "vqa", text="what is it?", choices=("d",))).choices == ("d",)


def test_answers_of_a_model_folder(folder):
    assert read_answers(folder / "base") == ()
    answers = (Answers(**QUESTION, choices=("xyz", "uvw")),)
    write_answers(folder / "base", answers)
    assert read_answers(folder / "base") == answers
    assert read_answers(folder / "one") == (Answers(**QUESTION, choices=("red", "blue")),)
    predictor = load(folder / "base")
    assert predictor.predict(task="vqa", image=RED, text="what  is it?").text in ("xyz", "uvw")
    assert predictor.predict(task="vqa", image=RED, text="what is it?", choices=("other",)).text == "other"
    assert predictor.predict(task="vqa", image=RED, text="and this?").text not in ("xyz", "uvw")


@pytest.mark.parametrize(
    ("written", "wrong"),
    [
        ("[{]", "answers.json: cannot be read as JSON ("),
        ('[{"task": "vqa", "choices": []}]', "answers.json: answers: cannot be read ("),
        ("3", "answers.json: answers: cannot be read ('int' object is not iterable); delete the file to answer freely"),
        (
            '[{"task": "vqa", "choices": ["a"], "head": {"kind": "ridge"}}]',
            "answers.json: answers: cannot be read (a model folder has no heads); delete the file to answer freely",
        ),
    ],
)
def test_answers_that_cannot_be_read(folder, written, wrong):
    (folder / "base" / "answers.json").write_text(written)
    assert told(folder / "base", lambda: load(folder / "base")).startswith(wrong)


# --- what does not fit ------------------------------------------------------------------------------------------------


def test_a_base_with_other_weights(folder, tokenizer):
    base = load(folder / "base")
    save_model(folder / "base", tiny_model(encoders=True, seed=1, modalities={"image": {"size": 64}}), tokenizer)
    assert told(folder, lambda: load_model(folder / "one")) == (
        f"one/adapter.json: base: {folder}/base is not the base 'tiny' that this adapter was made for; "
        "its weights have another sha256; bring back the old ones, or adapt again"
    ).replace(f"{folder}/", "")
    wanted = "one: base: was made for 'tiny' with other weights than base; load its own base, or adapt again"
    assert told(folder, lambda: load(folder / "base").with_adapter(folder / "one")) == wanted
    assert told(folder, lambda: base.add_adapter(folder / "one")) == wanted
    assert base.adapted == {}


def test_a_base_that_is_gone(folder):
    (folder / "base").rename(folder / "elsewhere")
    assert told(folder, lambda: load_model(folder / "one")) == (
        "one/adapter.json: base: the base 'tiny' is missing: no model in base; bring it back, or correct base.path"
    )


def test_an_adapter_is_no_base(folder, tokenizer):
    wanted = "one: adapter: needs its base; load the model folder that it was made for"
    assert told(folder, lambda: load(folder / "two").with_adapter(folder / "one")) == wanted
    in_memory = Predictor(*load_model(folder / "base"))
    assert told(folder, lambda: in_memory.with_adapter(folder / "one")) == wanted


def test_two_of_one_name(folder):
    shutil.copytree(folder / "one", folder / "more" / "one")
    predictor = load(folder / "base")
    predictor.add_adapter(folder / "one")
    assert told(folder, lambda: predictor.add_adapter(folder / "more" / "one")) == (
        "more/one: adapter: there is one called 'one' already; rename the folder"
    )


@pytest.mark.parametrize("damage", ["cut", "gone"])
def test_weights_that_cannot_be_read(folder, damage):
    path = folder / "one" / "adapter.safetensors"
    whole = path.read_bytes()
    path.unlink()
    if damage == "cut":
        path.write_bytes(whole[: len(whole) // 2])
    line = told(folder, lambda: load_model(folder / "one"))
    assert re.fullmatch(
        r"one/adapter\.safetensors: weights: cannot be read \(.+\); the file is truncated or missing; get it again",
        line,
    )


FIRST = "encoder_layers.0.attention.q.lora_down"


@pytest.mark.parametrize(
    ("change", "wrong"),
    [
        (lambda t: t.pop(FIRST), f"{FIRST} is missing"),
        (lambda t: t.update(lora=torch.zeros(1)), "lora is unknown"),
        (lambda t: t.update({FIRST: torch.zeros(3, 32)}), f"{FIRST} is [3, 32], expected [2, 32]"),
    ],
)
def test_tensors_that_do_not_fit(folder, change, wrong):
    path = folder / "one" / "adapter.safetensors"
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path)
    assert told(folder, lambda: load_model(folder / "one")) == (
        f"one/adapter.safetensors: weights: do not fit the base: {wrong}; this adapter is of another model"
    )


@pytest.mark.parametrize(
    ("change", "wrong"),
    [
        (lambda p: p.update(format=2), "format: version 2 is not known here; this monoglot reads version 1"),
        (lambda p: p.pop("format"), "format: version None is not known here; this monoglot reads version 1"),
        (lambda p: p.pop("base"), "base: Field required"),
        (lambda p: p["lora"].update(rank=0), "lora.rank: Input should be greater than or equal to 1"),
        (
            lambda p: p["lora"].update(layers=["nowhere"]),
            "lora: no linear layer's name starts with 'nowhere'; this adapter is of another model",
        ),
    ],
)
def test_settings_that_do_not_fit(folder, change, wrong):
    path = folder / "one" / "adapter.json"
    page = json.loads(path.read_text())
    change(page)
    path.write_text(json.dumps(page))
    assert told(folder, lambda: load_model(folder / "one")) == f"one/adapter.json: {wrong}"


def test_settings_that_are_no_page(folder):
    (folder / "one" / "adapter.json").write_text("[]")
    assert told(folder, lambda: load_model(folder / "one")) == (
        "one/adapter.json: format: version None is not known here; this monoglot reads version 1"
    )


def test_numbers_that_float16_does_not_have(folder):
    assert told(folder, lambda: make(folder, "three", scale=1e6)) == (
        f"{folder}/three: adapter: encoder_layers.0.attention.q.lora_down is not finite as float16; "
        "train with a lower rate"
    ).replace(f"{folder}/", "")
    assert not (folder / "three" / "adapter.json").exists()


@pytest.mark.parametrize(
    ("change", "wrong"),
    [
        (lambda t: [t.pop(name) for name in list(t) if name.startswith("head.")], "head.0 is missing"),
        (lambda t: t.pop("head.0.bias"), "a head without 'bias'"),
        (lambda t: t.update({"head.0.bias": torch.zeros(3)}), "bias of a head is [3], expected [2]"),
        (lambda t: t.update({"head.1.bias": torch.zeros(3)}), "head.1 is unknown"),
        (lambda t: t.update({"head.x": torch.zeros(3)}), "head.x is unknown"),
    ],
)
def test_heads_that_do_not_fit(folder, change, wrong):
    head = fit_head(torch.eye(4), ["red", "red", "blue", "blue"])
    tensors, settings = head.state()
    answers = (Answers(**QUESTION, choices=head.classes, head=settings),)
    make(folder, "three", answers=answers, heads={0: tensors})
    read_adapter(folder / "three")
    path = folder / "three" / "adapter.safetensors"
    stored = load_file(path)
    change(stored)
    save_file(stored, path)
    assert told(folder, lambda: load(folder / "three")) == (
        f"three/adapter.safetensors: weights: do not fit adapter.json: {wrong}; the two are of different adapters"
    )
