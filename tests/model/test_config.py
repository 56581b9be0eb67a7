"""Settings of a model: what is wrong is told in one line, before anything is built."""

from __future__ import annotations

import pytest
from pydantic import ValidationError
from small import tiny_config

from monoglot.model.config import BASE, ModelConfig


def test_published_sizes():
    assert (BASE.width, BASE.ffn, BASE.heads, BASE.head_width) == (768, 3072, 12, 64)
    assert (BASE.encoder_layers, BASE.decoder_layers, BASE.vocabulary.size) == (6, 6, 59457)


def test_settings_survive_json():
    config = tiny_config("untied")
    assert ModelConfig.model_validate_json(config.model_dump_json()) == config
    assert config.modalities["video"].frames == 2


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"width": 30, "heads": 4}, "width 30 is not a multiple of heads 4"),
        ({"heads": 0}, "greater than or equal to 1"),
        ({"width": -32}, "greater than or equal to 1"),
        ({"token_bucket": 0}, "greater than or equal to 2"),
        ({"positions": "absolute"}, "'untied' or 'added'"),
        ({"modalities": {"imagee": {}}}, "no modality named 'imagee'; closest: 'image'"),
        ({"modalities": {"image": {"sise": 64}}}, "image: sise: no key named 'sise'; closest: 'size'"),
        ({"modalities": {"image": {"size": 63}}}, "image: size: Input should be a multiple of 32"),
        ({"modalities": {"image": {"encoder": "lite"}}}, "image: no encoder named 'lite'; closest: 'lite0'"),
        ({"modalities": {"image": 3}}, "image: Input should be"),
        ({"widht": 3}, "Extra inputs"),
    ],
)
def test_wrong_settings(changes, message):
    with pytest.raises(ValidationError, match=message) as caught:
        tiny_config(**changes)
    assert all("\n" not in problem["msg"] for problem in caught.value.errors())
