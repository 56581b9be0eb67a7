"""What every modality must keep to: reading is repeatable, room is what the encoder fills, no item changes another."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from small import ENCODER_SETTINGS, MODALITY_SETTINGS, square

from monoglot.errors import InputError, MediaError
from monoglot.modalities import MODALITIES
from monoglot.modalities.base import run_by_shape
from monoglot.nouns import Media

RED, BLUE = square((220, 20, 20)), square((20, 20, 220), (50, 5))


def tone(samples: int, pace: int) -> np.ndarray:
    return np.sin(np.arange(samples) / pace).astype(np.float32) / 2


EXAMPLES = {
    "image": [RED, BLUE, np.zeros((7, 5), np.uint8)],
    "video": [np.stack([RED, BLUE]), np.stack([BLUE] * 3), np.stack([RED])],
    "audio": [(tone(3000, 9), 16_000), (tone(9000, 5), 22_050), (tone(1, 1), 8000)],
}
"""Media in memory; a modality that is added needs an entry here and in MODALITY_SETTINGS."""
SAME_NETWORK = {"resnet50", "resnet152", "ofa_resnet50", "ofa_resnet152"}
"""resnet101 and ofa_resnet101 with more or fewer blocks: left out to spare memory."""
PAIRS = [(name, encoder) for name in MODALITIES for encoder in MODALITIES[name].encoders if encoder not in SAME_NETWORK]


@pytest.fixture(scope="module")
def settings():
    return {name: MODALITIES[name].config.model_validate(MODALITY_SETTINGS[name]) for name in MODALITIES}


@pytest.fixture(scope="module")
def encoders():
    torch.manual_seed(0)
    return {pair: MODALITIES[pair[0]].encoders[pair[1]](settings_of(*pair)).eval() for pair in PAIRS}


def settings_of(name: str, encoder: str):
    given = {**MODALITY_SETTINGS[name], **ENCODER_SETTINGS.get(encoder, {}), "encoder": encoder}
    return MODALITIES[name].config.model_validate(given)


@pytest.mark.parametrize("name", MODALITIES)
def test_declared_in_one_piece(name):
    modality = MODALITIES[name]
    assert modality.name == name
    assert modality.encoders
    assert modality.config().encoder in modality.encoders
    assert {"encoder", "positions"} <= set(modality.config.model_fields)
    assert all(field.description for field in modality.config.model_fields.values())
    with pytest.raises(ValueError, match="nonsense"):
        modality.config(nonsense=1)


@pytest.mark.parametrize("name", MODALITIES)
@pytest.mark.parametrize("variant", [0, 1, 2, -1])
def test_reading_is_repeatable(name, variant, settings):
    for source in EXAMPLES[name]:
        once, again = (MODALITIES[name].prepare(Media(name, source), settings[name], variant) for _ in range(2))
        assert isinstance(once, np.ndarray)
        assert once.dtype == again.dtype
        np.testing.assert_array_equal(once, again)


@pytest.mark.parametrize("name", MODALITIES)
def test_copies_differ_but_not_in_room(name, settings):
    first = EXAMPLES[name][0]
    copies = [MODALITIES[name].prepare(Media(name, first), settings[name], variant) for variant in (0, 1, 2, -1)]
    assert len({copy.tobytes() for copy in copies}) == 4
    assert len({copy.dtype for copy in copies}) == 1


@pytest.mark.parametrize(("name", "encoder"), PAIRS)
@torch.no_grad()
def test_the_grid_is_what_the_encoder_fills(name, encoder, encoders):
    settings = settings_of(name, encoder)
    for source in EXAMPLES[name]:
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
        for source in EXAMPLES[name]
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


@pytest.mark.parametrize("name", MODALITIES)
@pytest.mark.parametrize("content", [None, b"", b"what is this?", bytes(1000)])
def test_files_that_cannot_be_read(name, content, settings, tmp_path):
    path = tmp_path / "file.bin"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(MediaError) as caught:
        MODALITIES[name].prepare(Media(name, str(path)), settings[name], 0)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", MODALITIES)
@pytest.mark.parametrize("source", [None, 3, np.zeros((0, 0, 3), np.uint8), object()])
def test_things_that_are_no_media(name, source, settings):
    with pytest.raises(InputError):
        MODALITIES[name].prepare(Media(name, source), settings[name], 0)


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
