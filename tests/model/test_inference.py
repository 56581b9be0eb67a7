"""A model folded for answering says what the plain one says."""

from __future__ import annotations

import pytest
import torch
from small import tiny_model
from torch import nn

from monoglot.modalities import MODALITIES
from monoglot.modalities.networks.parts import FrozenNorm
from monoglot.model.inference import for_inference
from monoglot.model.lora import Lora, add_lora, lora_names
from monoglot.model.unified import UnifiedModel

SETTINGS = {
    "lite0": ("image", {"size": 64}),
    "resnet50": ("image", {"size": 64}),
    "resnext101_3d": ("video", {"size": 32, "frames": 2}),
    "cnn14": ("audio", {"pad_seconds": 0.2}),
}


def model_with(encoder: str) -> tuple[str, UnifiedModel]:
    """A model that reads by one encoder, whose norms have seen something."""
    name, settings = SETTINGS[encoder]
    model = tiny_model(encoders=True, modalities={name: {"encoder": encoder, **settings}})
    numbers = torch.Generator().manual_seed(1)
    for part in model.modules():
        if isinstance(part, (FrozenNorm, nn.BatchNorm2d)):
            part.running_mean.normal_(generator=numbers).mul_(0.1)
            part.running_var.uniform_(0.8, 1.25, generator=numbers)
            with torch.no_grad():
                part.bias.normal_(generator=numbers).mul_(0.1)
    return name, model


def items(name: str) -> list[torch.Tensor]:
    numbers = torch.Generator().manual_seed(0)
    if name == "audio":
        return [torch.randn(9600, generator=numbers) * 0.1]
    shape = {"image": (3, 64, 64), "video": (2, 3, 32, 32)}[name]
    return [torch.randint(0, 256, shape, generator=numbers, dtype=torch.uint8) for _ in range(2)]


@torch.no_grad()
@pytest.mark.parametrize("encoder", SETTINGS)
def test_features_are_the_same(encoder):
    name, model = model_with(encoder)
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    fast = for_inference(model)
    for found, known in zip(fast.encoders[name](items(name)), model.encoders[name](items(name)), strict=True):
        assert (found - known).abs().max() <= 1e-4 * known.abs().max()
        assert known.abs().max() > 0
    norms = [part for part in fast.encoders[name].modules() if isinstance(part, (FrozenNorm, nn.BatchNorm2d))]
    assert len(norms) == (encoder == "cnn14"), "but for the one that no convolution comes before"
    after = model.state_dict()
    assert all(torch.equal(after[key], tensor) for key, tensor in before.items()), "the model itself is as it was"
    assert name in MODALITIES


@torch.no_grad()
def test_low_rank_changes_are_folded_and_the_rest_is_shared():
    model = tiny_model("untied")
    add_lora(model, Lora(rank=2))
    for name, weight in model.named_parameters():
        if name.endswith("lora_up"):
            weight.normal_(std=0.2)
    fast = for_inference(model)
    assert lora_names(model)
    assert not lora_names(fast)
    x = torch.randn(2, 5, model.config.width)
    torch.testing.assert_close(fast.decoder_layers[0].ffn(x), model.decoder_layers[0].ffn(x), rtol=1e-4, atol=1e-5)
    assert fast.words.weight is model.words.weight
    assert fast.decoder_layers[0].attention.q.bias is model.decoder_layers[0].attention.q.bias


@torch.no_grad()
def test_parts_that_modalities_share_stay_shared():
    model = tiny_model(encoders=True, modalities={"image": {"size": 64}, "video": {"size": 32, "frames": 2}})
    fast = for_inference(model)
    assert fast.encoders["image"].trunk is fast.encoders["video"].trunk
    assert fast.encoders["image"].trunk is not model.encoders["image"].trunk
