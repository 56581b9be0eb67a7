"""Parameter groups, freezing and the schedule."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from small import tiny_model

from monoglot.errors import InputError
from monoglot.model.lora import Lora, add_lora, lora_names
from monoglot.train.losses import token_losses
from monoglot.train.optim import build_optimizer, freeze, schedule, set_rate
from monoglot.train.recipe import Optimizer


def test_freezing_by_prefix():
    model = tiny_model()
    freeze(model, ["words", "encoders"])
    frozen = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
    assert frozen == {n for n, _ in model.named_parameters() if n.startswith(("words", "encoders"))} != set()
    freeze(model, ())
    assert all(parameter.requires_grad for parameter in model.parameters())
    with pytest.raises(InputError, match=r"freeze: no parameter starts with 'wrods'; they start with .*words"):
        freeze(model, ["wrods"])


def test_training_only_what_is_named():
    model = tiny_model()
    freeze(model, ["words"], ["words", "decoder_layers.0."])
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    named = {name for name, _ in model.named_parameters() if name.startswith(("words", "decoder_layers.0."))}
    assert trained == named != set()
    with pytest.raises(InputError, match=r"train_only: no parameter starts with 'encoders.sensr'"):
        freeze(model, [], ["encoders.sensr"])


def test_groups():
    model = tiny_model()
    freeze(model, ["words"])
    settings = Optimizer(lr=1e-3, lr_parts={"decoder_layers": 1e-4, "decoder_layers.1.ffn": 1e-5}, weight_decay=0.1)
    optimizer = build_optimizer(model, settings)
    place = {id(p): group for group in optimizer.param_groups for p in group["params"]}
    assert sum(len(group["params"]) for group in optimizer.param_groups) == len(place)
    for name, parameter in model.named_parameters():
        if name.startswith("words"):
            assert id(parameter) not in place
            continue
        group = place[id(parameter)]
        lr = 1e-5 if name.startswith("decoder_layers.1.ffn") else 1e-4 if name.startswith("decoder_layers") else 1e-3
        assert group["lr"] == group["base_lr"] == lr, name
        plain = parameter.dim() < 2 or any(part in name for part in ("positions", "cells", "frames", "types"))
        assert group["weight_decay"] == (0.0 if plain else 0.1), name
    set_rate(optimizer, 0.5)
    assert place[id(model.decoder_norm.weight)]["lr"] == pytest.approx(5e-4)
    assert place[id(model.decoder_layers[0].ffn.up.weight)]["lr"] == pytest.approx(5e-5)
    everything = build_optimizer(model, settings.model_copy(update={"decay": "all"}))
    assert {group["weight_decay"] for group in everything.param_groups} == {0.1}, "as published"
    with pytest.raises(InputError, match=r"optimizer.lr_parts: no parameter starts with 'decodr'"):
        build_optimizer(model, Optimizer(lr_parts={"decodr": 1e-4}))


KINDS = ("linear", "cosine", "constant")


@given(steps=st.integers(1, 300), warmup=st.floats(0, 0.999), kind=st.sampled_from(KINDS))
def test_schedule_rises_then_falls(steps, warmup, kind):
    factors = [schedule(step, steps, Optimizer(warmup=warmup, schedule=kind)) for step in range(steps)]
    assert all(0 < factor <= 1 for factor in factors)
    top = factors.index(max(factors))
    assert factors[: top + 1] == sorted(factors[: top + 1])
    assert factors[top:] == sorted(factors[top:], reverse=True)
    assert max(factors) == pytest.approx(1)
    assert kind != "constant" or factors[top:] == [1.0] * (steps - top)


def test_schedule_as_published():
    """Linear warm-up over `rising` updates, then polynomial decay of power 1 to zero; cosine: half a wave."""
    page = Optimizer(warmup=0.2)
    assert [schedule(step, 10, page) for step in range(10)] == pytest.approx(
        [0.5, 1] + [(10 - s) / 8 for s in range(2, 10)]
    )
    wave = Optimizer(warmup=0.0, schedule="cosine")
    expected = [(1 + math.cos(math.pi * (step - 1) / 99)) / 2 for step in range(1, 100)]
    assert [schedule(step, 100, wave) for step in range(1, 100)] == pytest.approx(expected)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_loss_against_torch(smoothing):
    logits = torch.randn(7, 11, generator=torch.Generator().manual_seed(0))
    target = torch.arange(7)
    # torch spreads the share over all words, the published code over all others.
    theirs = torch.nn.functional.cross_entropy(logits, target, label_smoothing=smoothing * 11 / 10, reduction="none")
    torch.testing.assert_close(token_losses(logits, target, smoothing=smoothing), theirs)
    assert token_losses(logits[:0], target[:0]).shape == (0,)


def test_low_rank_changes_are_trained_alone_or_left():
    model = tiny_model(modalities={}, encoder_layers=1, decoder_layers=1)
    add_lora(model, Lora(rank=1))

    def trained() -> set[str]:
        return {name for name, parameter in model.named_parameters() if parameter.requires_grad}

    freeze(model, ("words",))
    assert trained() == set(lora_names(model))
    freeze(model, (), ("encoder_norm",))
    assert trained() == {*lora_names(model), "encoder_norm.weight", "encoder_norm.bias"}
    freeze(model, (), ("encoder_norm",), changes=False)
    assert trained() == {"encoder_norm.weight", "encoder_norm.bias"}
