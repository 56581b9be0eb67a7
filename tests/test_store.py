"""Model folders: what was saved comes back; what is damaged, foreign or unfinished is told in one line and never run."""

from __future__ import annotations

import json
import os
import pickle
import resource
import shutil
import struct

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from small import MODALITY_SETTINGS, square, tiny_config, tiny_model

from monoglot.decode.predict import Predictor
from monoglot.errors import InputError
from monoglot.files import write_json
from monoglot.model.unified import UnifiedModel
from monoglot.store import SkipInit, load_model, read_weights, save_model


def with_eyes(positions: str = "added", seed: int = 0) -> UnifiedModel:
    """A model with the real encoder that pictures and clips share."""
    seeing = {name: MODALITY_SETTINGS[name] for name in ("image", "video")}
    return tiny_model(positions, encoders=True, seed=seed, modalities=seeing)


@pytest.fixture(scope="module")
def model():
    return with_eyes()


@pytest.fixture(scope="module")
def stored(model, tokenizer, tmp_path_factory):
    folder = tmp_path_factory.mktemp("stored") / "model"
    save_model(folder, model, tokenizer, card="# A card", lineage={"parents": ["a"]})
    return folder


@pytest.fixture
def folder(stored, tmp_path):
    shutil.copytree(stored, tmp_path / "model")
    return tmp_path / "model"


def test_what_a_folder_holds(stored):
    assert sorted(path.name for path in stored.iterdir()) == [
        "README.md",
        "config.json",
        "lineage.json",
        "model.safetensors",
        "tokenizer.json",
    ]
    assert (stored / "README.md").read_text() == "# A card"
    assert json.loads((stored / "lineage.json").read_text()) == {"parents": ["a"]}


@pytest.mark.parametrize("positions", ["added", "untied"])
def test_float32_comes_back_bit_by_bit(positions, tokenizer, tmp_path):
    model = with_eyes(positions)
    save_model(tmp_path, model, tokenizer)
    loaded, words = load_model(tmp_path)
    assert loaded.config == model.config
    assert not loaded.training
    expected = model.state_dict()
    assert list(loaded.state_dict()) == list(expected)
    assert all(torch.equal(tensor, expected[name]) for name, tensor in loaded.state_dict().items())
    assert words.encode(" what the red").tolist() == tokenizer.encode(" what the red").tolist()
    red = square((220, 20, 20))
    ours, theirs = (Predictor(m, tokenizer).predict(task="name", image=red) for m in (model, loaded))
    assert (ours.text, ours.confidence) == (theirs.text, theirs.confidence)


def test_bfloat16_rounds_once(model, tokenizer, tmp_path):
    save_model(tmp_path / "a", model, tokenizer, dtype=torch.bfloat16)
    loaded, _ = load_model(tmp_path / "a")
    saved = model.state_dict()
    for name, tensor in loaded.state_dict().items():
        expected = saved[name]
        assert tensor.dtype == expected.dtype
        assert torch.equal(tensor, expected.bfloat16().float() if expected.is_floating_point() else expected)
    save_model(tmp_path / "b", loaded, tokenizer, dtype=torch.bfloat16)
    again, _ = load_model(tmp_path / "b")
    second = again.state_dict()
    assert all(torch.equal(tensor, second[name]) for name, tensor in loaded.state_dict().items())


def test_int8_is_within_half_a_step(model, tokenizer, tmp_path):
    with torch.no_grad():
        model.words.weight[5] = 0
    save_model(tmp_path, model, tokenizer, dtype=torch.bfloat16, int8=[r"^words\.weight$", r"ffn\.up"])
    raw = load_file(tmp_path / "model.safetensors")
    eighth = {name for name, tensor in raw.items() if tensor.dtype == torch.int8}
    assert eighth == {
        "words.weight",
        *(f"{s}coder_layers.{i}.ffn.up.weight" for s in ("en", "de") for i in range(2)),
    }
    loaded, _ = load_model(tmp_path)
    for name in eighth:
        before, after = model.state_dict()[name], loaded.state_dict()[name]
        step = before.abs().amax(1, keepdim=True) / 127
        assert ((before - after).abs() <= step * 0.5001 + 1e-12).all()
    assert not loaded.words.weight[5].any()


def test_shared_tensors_are_stored_once(stored, model):
    with safe_open(stored / "model.safetensors", "pt") as file:
        names, aliases = set(file.keys()), json.loads(file.metadata()["aliases"])
    assert aliases
    assert all(name.startswith("encoders.video.trunk") for name in aliases)
    assert all(same == name.replace("video", "image") for name, same in aliases.items())
    assert names.isdisjoint(aliases)
    assert names | set(aliases) == set(model.state_dict())
    loaded, _ = load_model(stored)
    assert loaded.encoders["video"].trunk is loaded.encoders["image"].trunk


def test_loading_without_fresh_weights_is_the_same():
    torch.manual_seed(0)
    plain = UnifiedModel(tiny_config())
    with SkipInit():
        skipped = UnifiedModel(tiny_config())
    skipped.load_state_dict(plain.state_dict())
    for module, other in zip(plain.modules(), skipped.modules()):
        for (name, a), (_, b) in zip(module.named_buffers(recurse=False), other.named_buffers(recurse=False)):
            assert torch.equal(a, b), name
    before = torch.empty(3).fill_(7)
    with SkipInit():
        assert torch.nn.init.normal_(before) is before
    assert before.tolist() == [7, 7, 7]


def edit(folder, **changes):
    config = json.loads((folder / "config.json").read_text())
    for key, value in changes.items():
        at = config
        *path, last = key.split("__")
        for part in path:
            at = at[part]
        at[last] = value
    write_json(folder / "config.json", config)


def cut(folder, share):
    path = folder / "model.safetensors"
    os.truncate(path, int(path.stat().st_size * share))


def rewrite(folder, change, metadata=None):
    with safe_open(folder / "model.safetensors", "pt") as file:
        tensors, kept = {name: file.get_tensor(name) for name in file.keys()}, file.metadata()  # noqa: SIM118
    change(tensors)
    save_file(tensors, folder / "model.safetensors", metadata=kept if metadata is None else metadata)


class Bomb:
    def __reduce__(self):
        return (os._exit, (3,))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: (f / "tokenizer.json").unlink(), "model: incomplete: tokenizer.json missing; a model folder holds"),
        (lambda f: [(f / n).unlink() for n in ("config.json", "model.safetensors")], "config.json, model.safetensors missing"),
        (lambda f: cut(f, 0.5), "weights: cannot be read"),
        (lambda f: cut(f, 0.999), "weights: cannot be read"),
        (lambda f: cut(f, 0), "weights: cannot be read"),
        (lambda f: (f / "model.safetensors").write_bytes(pickle.dumps(Bomb())), "weights: cannot be read"),
        (lambda f: torch.save({"a": torch.ones(2)}, f / "model.safetensors"), "weights: cannot be read"),
        (lambda f: (f / "model.safetensors").write_bytes(struct.pack("<Q", 2**60)), "weights: cannot be read"),
        (lambda f: (f / "config.json").write_text("{"), "cannot be read as JSON"),
        (lambda f: (f / "config.json").write_bytes(b"\xff"), "cannot be read as JSON"),
        (lambda f: (f / "config.json").write_text("[]"), "format: version None is not known here"),
        (lambda f: (f / "config.json").write_text('{"model_type": "bert"}'), "format: version None is not known here"),
        (lambda f: edit(f, format=2), "format: version 2 is not known here; this monoglot reads version 1"),
        (lambda f: edit(f, model=None), "config.json: model: "),
        (lambda f: edit(f, model__widht=3), "model.widht: Extra inputs are not permitted"),
        (lambda f: edit(f, model__heads=5), "width 32 is not a multiple of heads 5"),
        (lambda f: edit(f, model__modalities__image__encoder="lite9"), "no encoder named 'lite9'; closest: 'lite0'"),
        (lambda f: edit(f, model__modalities__smell={}), "no modality named 'smell'"),
        (lambda f: edit(f, model__ffn=128), r"weights: do not fit config.json: .*ffn.* is \[64, 32\], expected \[128, 32\]"),
        (lambda f: edit(f, model__encoder_layers=3), r"encoder_layers.2.* is missing.* and \d+ more"),
        (lambda f: edit(f, model__encoder_layers=1), r"encoder_layers.1.* is unknown"),
        (lambda f: edit(f, model__vocabulary__num_words=3), r"words.weight is \[1291, 32\], expected"),
        (lambda f: rewrite(f, lambda t: t.pop("words.weight")), "words.weight is missing"),
        (lambda f: rewrite(f, lambda t: t.update(extra=torch.ones(1))), "extra is unknown"),
        (lambda f: rewrite(f, lambda t: None, {}), "encoders.video.trunk.* is missing"),
        (lambda f: rewrite(f, lambda t: None, {"aliases": "{"}), "weights: cannot be read"),
        (lambda f: rewrite(f, lambda t: None, {"aliases": '{"a": "nowhere"}'}), "weights: cannot be read"),
        (lambda f: rewrite(f, lambda t: None, {"aliases": "[1]"}), "weights: cannot be read"),
        (lambda f: rewrite(f, lambda t: t.update({"words.weight.row_factor": torch.ones(7)})), "weights: cannot be read"),
        (lambda f: (f / "tokenizer.json").write_text("{}"), "tokenizer: is not a tokenizer.json"),
    ],
)  # fmt: skip
def test_damaged_folders(folder, change, message):
    change(folder)
    with pytest.raises(InputError, match=message) as caught:
        load_model(folder)
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith(str(folder))


def test_no_folder(tmp_path):
    with pytest.raises(InputError, match="no such folder"):
        load_model(tmp_path / "absent")
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="no such folder"):
        load_model(tmp_path / "file")


def snapshot(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_save_that_is_stopped_leaves_the_old_file(folder, tokenizer, monkeypatch):
    before = (folder / "model.safetensors").read_bytes()
    real = os.replace

    def stop(source, target):
        if str(target).endswith("model.safetensors"):
            raise OSError(28, "No space left on device")
        real(source, target)

    monkeypatch.setattr(os, "replace", stop)
    message = (
        r"model.safetensors: cannot be written \(No space left on device\); free some space or choose another place"
    )
    with pytest.raises(InputError, match=message):
        save_model(folder, with_eyes(seed=1), tokenizer)
    assert (folder / "model.safetensors").read_bytes() == before
    assert not list(folder.glob(".*")), "nothing is left over"
    load_model(folder)


def test_a_full_disk_leaves_the_old_file(folder, tokenizer):
    before = (folder / "model.safetensors").read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) // 2, hard))
    try:
        with pytest.raises(InputError, match=r"model\.safetensors: cannot be written") as caught:
            save_model(folder, with_eyes(seed=1), tokenizer)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "\n" not in str(caught.value)
    assert (folder / "model.safetensors").read_bytes() == before
    assert not list(folder.glob(".*"))


def test_a_place_that_cannot_be_written(tokenizer, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        save_model(tmp_path / "file", with_eyes(), tokenizer)


def test_integers_stay(tmp_path):
    save_file({"a": torch.arange(3), "b": torch.ones(2, dtype=torch.float16)}, tmp_path / "w.safetensors")
    state = read_weights(tmp_path / "w.safetensors")
    assert state["a"].dtype == torch.int64
    assert state["b"].dtype == torch.float32
    np.testing.assert_array_equal(state["a"].numpy(), [0, 1, 2])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_what_is_unchanged_comes_back_bit_by_bit_and_takes_no_more_room(tmp_path, tokenizer, dtype):
    """Through 16 bits and 8-bit integers, as often as one likes; what neither holds stays as it is."""
    save_model(tmp_path / "a", tiny_model(), tokenizer, dtype=torch.bfloat16, int8=["^words", "ffn"])
    state, size = read_weights(tmp_path / "a" / "model.safetensors"), None
    for again in ("b", "c"):
        model = tiny_model(seed=5)
        model.load_state_dict(state)
        with torch.no_grad():
            model.decoder_norm.weight.add_(1e-3)
        same = set(state) - {"decoder_norm.weight"}
        save_model(tmp_path / again, model, tokenizer, dtype=dtype, unchanged=same)
        found = read_weights(tmp_path / again / "model.safetensors")
        assert all(torch.equal(found[name], state[name]) for name in same)
        torch.testing.assert_close(found["decoder_norm.weight"], model.decoder_norm.weight.detach(), atol=0.01, rtol=0)
        grown = (tmp_path / again / "model.safetensors").stat().st_size
        assert dtype is torch.float16 or grown <= (tmp_path / "a" / "model.safetensors").stat().st_size + 1000
        assert size in (None, grown)
        size = grown
    plain = tiny_model()
    save_model(tmp_path / "d", plain, tokenizer, dtype=dtype, unchanged=["words.weight"])
    found = read_weights(tmp_path / "d" / "model.safetensors")
    assert torch.equal(found["words.weight"], plain.words.weight)
    assert not torch.equal(found["source.types.weight"], plain.source.types.weight)
