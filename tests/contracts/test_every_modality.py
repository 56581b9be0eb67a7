"""What every modality must keep to, those of examples/ too: reading is repeatable, room is what the encoder fills, no item changes another; a model
that gets it answers other media as before, learns it by its own parts alone, and is the same when it comes back from disk.

A kind of media is covered once it has an entry in tests/media.py.
"""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from media import KINDS, PLUGINS, plugged
from small import ENCODER_SETTINGS, tiny_model

from monoglot.data.prepare import Preparer
from monoglot.data.rows import parse_row, sample_to_row
from monoglot.errors import InputError, MediaError
from monoglot.modalities import MODALITIES
from monoglot.modalities.base import run_by_shape
from monoglot.nouns import Media, Sample
from monoglot.plugins import media_kinds, plugin_of
from monoglot.store import load_model, save_model
from monoglot.train.optim import build_optimizer, freeze
from monoglot.train.recipe import Optimizer
from monoglot.train.start import changed_model

SAME_NETWORK = {"resnet50", "resnet152", "ofa_resnet50", "ofa_resnet152"}
"""resnet101 and ofa_resnet101 with more or fewer blocks: left out to spare memory."""
with plugged(*PLUGINS):
    NAMES = list(MODALITIES)
    PAIRS = [(name, encoder) for name in NAMES for encoder in MODALITIES[name].encoders if encoder not in SAME_NETWORK]


@pytest.fixture(scope="module", autouse=True)
def registered():
    with plugged(*PLUGINS):
        yield


def test_every_kind_is_covered():
    assert set(KINDS) == set(NAMES) == set(media_kinds())


@pytest.fixture(scope="module")
def settings():
    return {name: MODALITIES[name].config.model_validate(KINDS[name].settings) for name in NAMES}


@pytest.fixture(scope="module")
def encoders():
    torch.manual_seed(0)
    return {pair: MODALITIES[pair[0]].encoders[pair[1]](settings_of(*pair)).eval() for pair in PAIRS}


def settings_of(name: str, encoder: str):
    given = {**KINDS[name].settings, **ENCODER_SETTINGS.get(encoder, {}), "encoder": encoder}
    return MODALITIES[name].config.model_validate(given)


@pytest.mark.parametrize("name", NAMES)
def test_declared_in_one_piece(name):
    modality = MODALITIES[name]
    assert modality.name == name
    assert modality.encoders
    assert modality.config().encoder in modality.encoders
    assert modality.timed == media_kinds()[name], "what rows know of it without loading it"
    assert {"encoder", "positions"} <= set(modality.config.model_fields)
    assert all(field.description for field in modality.config.model_fields.values())
    with pytest.raises(ValueError, match="nonsense"):
        modality.config(nonsense=1)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("variant", [0, 1, 2, -1])
def test_reading_is_repeatable(name, variant, settings):
    for source in KINDS[name].items:
        once, again = (MODALITIES[name].prepare(Media(name, source), settings[name], variant) for _ in range(2))
        assert isinstance(once, np.ndarray)
        assert once.dtype == again.dtype
        np.testing.assert_array_equal(once, again)


@pytest.mark.parametrize("name", NAMES)
def test_copies_differ_but_not_in_room(name, settings):
    first = KINDS[name].items[0]
    copies = [MODALITIES[name].prepare(Media(name, first), settings[name], variant) for variant in (0, 1, 2, -1)]
    assert len({copy.tobytes() for copy in copies}) == 4
    assert len({copy.dtype for copy in copies}) == 1


@pytest.mark.parametrize(("name", "encoder"), PAIRS)
@torch.no_grad()
def test_the_grid_is_what_the_encoder_fills(name, encoder, encoders):
    settings = settings_of(name, encoder)
    for source in KINDS[name].items:
        item = MODALITIES[name].prepare(Media(name, source), settings, 0)
        grid = MODALITIES[name].grid(item, settings)
        (feature,) = encoders[name, encoder]([torch.from_numpy(item)])
        assert feature.shape == (grid.length, encoders[name, encoder].channels)
        assert grid.length == grid.frames * grid.rows * grid.cols > 0
        assert feature.dtype == torch.float32
        assert torch.isfinite(feature).all()
        assert MODALITIES[name].grid(torch.from_numpy(item), settings) == grid


@pytest.mark.parametrize(("name", "encoder"), PAIRS)
@torch.no_grad()
def test_no_item_changes_another(name, encoder, encoders):
    settings = settings_of(name, encoder)
    items = [
        torch.from_numpy(MODALITIES[name].prepare(Media(name, source), settings, variant))
        for source in KINDS[name].items
        for variant in (0, 1)
    ]
    run = encoders[name, encoder]
    alone = [run([item])[0] for item in items]
    for order in ([0, 1, 2, 3, 4, 5], [5, 3, 1, 0, 2, 4], [2, 2, 0]):
        for index, feature in zip(order, run([items[index] for index in order]), strict=True):
            torch.testing.assert_close(feature, alone[index], atol=1e-4, rtol=1e-4)
    assert alone[0].shape != alone[2].shape or not torch.allclose(alone[0], alone[2])


@pytest.mark.parametrize(("name", "encoder"), PAIRS)
def test_named_parts_are_there_to_be_shared(name, encoder, encoders):
    for part in encoders[name, encoder].shared:
        assert isinstance(getattr(encoders[name, encoder], part), torch.nn.Module)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("content", [None, b"", b"what is this?", bytes(1000)])
def test_files_that_cannot_be_read(name, content, settings, tmp_path):
    path = tmp_path / "file.bin"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(MediaError) as caught:
        MODALITIES[name].prepare(Media(name, str(path)), settings[name], 0)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("source", [None, 3, np.zeros((0, 0, 3), np.uint8), object()])
def test_things_that_are_no_media(name, source, settings):
    with pytest.raises(InputError):
        MODALITIES[name].prepare(Media(name, source), settings[name], 0)


@pytest.mark.parametrize("name", NAMES)
def test_rows_name_its_files(name, settings, tmp_path):
    """One file, or a list of them; a window where there is time. What is read from a file is what is read from memory."""
    files = [KINDS[name].write(tmp_path / str(number), item) for number, item in enumerate(KINDS[name].items)]
    row = {"id": "1", "task": "caption", name: [file.name for file in files]}
    window = {"start": 0.0, "end": 0.02} if MODALITIES[name].timed else {}
    sample = parse_row(row | window, base=tmp_path)
    assert [media.modality for media in sample.media] == [name] * len(files)
    assert sample_to_row(sample, base=tmp_path) == row | window
    for media, item in zip(sample.media, KINDS[name].items):
        read = MODALITIES[name].prepare(media, settings[name], 0)
        if name != "video":  # which is compressed
            same = MODALITIES[name].prepare(replace(media, source=item), settings[name], 0)
            np.testing.assert_allclose(read, same, atol=1e-4)
    if not MODALITIES[name].timed:
        with pytest.raises(InputError, match="start: there is no video or audio"):
            parse_row(row | {"start": 1})


# --- in a model beside another kind -----------------------------------------------------------------------------------


def other_than(name: str) -> str:
    """A kind that was there before; not one that shares its network."""
    return "image" if name == "audio" else "audio"


@pytest.fixture(scope="module")
def bases():
    """Models that read one kind."""
    return {name: tiny_model(encoders=True, modalities={name: KINDS[name].settings}) for name in ("image", "audio")}


def grown(bases, name: str):
    """(model, model that reads `name` too)"""
    base = bases[other_than(name)]
    return base, changed_model(base, {"modalities": {name: KINDS[name].settings}}, seed=3)


def asked(model, tokenizer, name: str, answers=("red", "blue", "red")):
    preparer = Preparer(tokenizer, model.config)
    samples = [
        Sample(str(number), "vqa", (Media(name, item),), "what is it?", targets=(answer,))
        for number, (item, answer) in enumerate(zip(KINDS[name].items, answers))
    ]
    return preparer.collate([preparer.example(sample) for sample in samples])


@pytest.mark.parametrize("name", NAMES)
def test_other_media_are_answered_bit_by_bit_as_before(name, bases, tokenizer):
    base, model = grown(bases, name)
    for batch in (asked(base, tokenizer, other_than(name)), texts(base, tokenizer)):
        with torch.no_grad():
            assert torch.equal(base(batch), model(batch))


def texts(model, tokenizer):
    preparer = Preparer(tokenizer, model.config)
    return preparer.collate([preparer.example(Sample("1", "summarize", text="the red cup", targets=("red",)))])


@pytest.mark.parametrize("name", NAMES)
def test_it_is_learned_by_its_own_parts_alone(name, bases, tokenizer):
    base, model = grown(bases, name)
    own = [f"{part}.{name}." for part in ("encoders", "source.connectors", "source.cells", "source.frames")]
    own = [prefix for prefix in own if any(key.startswith(prefix) for key, _ in model.named_parameters())]
    freeze(model, (), own)
    optimizer = build_optimizer(model, Optimizer(lr=1e-2))
    batch, losses = asked(model, tokenizer, name), []
    for _ in range(10):
        logits = model(batch)[batch.target_valid]
        loss = F.cross_entropy(logits, batch.target_out[batch.target_valid])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]
    after = model.state_dict()
    assert all(torch.equal(tensor, after[key]) for key, tensor in base.state_dict().items())
    fresh = grown(bases, name)[1].state_dict()
    moved = {key for key, tensor in after.items() if not torch.equal(tensor, fresh[key])}
    assert moved
    assert all(key.startswith(tuple(own)) for key in moved)
    with torch.no_grad():
        before = asked(base, tokenizer, other_than(name))
        assert torch.equal(base(before), model(before))


@pytest.mark.parametrize("name", NAMES)
def test_a_model_comes_back_from_disk(name, bases, tokenizer, tmp_path):
    _, model = grown(bases, name)
    save_model(tmp_path / "model", model, tokenizer)
    again, _ = load_model(tmp_path / "model")
    batch = asked(model, tokenizer, name)
    with torch.no_grad():
        assert torch.equal(model(batch), again(batch))
    written = json.loads((tmp_path / "model" / "config.json").read_text())
    assert written.get("plugins", {}) == ({name: plugin_of(name)} if plugin_of(name) else {})


def test_results_keep_the_order_of_items():
    calls = []

    def run(stack):
        calls.append(tuple(stack.shape))
        return stack.unsqueeze(-1)

    items = [torch.full((length,), float(index)) for index, length in enumerate([2, 3, 2, 1])]
    results = run_by_shape(run, items)
    assert [(len(r), r[0].item()) for r in results] == [(2, 0.0), (3, 1.0), (2, 2.0), (1, 3.0)]
    assert calls == [(2, 2), (1, 3), (1, 1)]
    assert run_by_shape(run, []) == []
