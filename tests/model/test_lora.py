"""Low-rank changes against plain matrix products: nothing at first, then what the formula says, folded or not."""

from __future__ import annotations

import pytest
import torch
from pydantic import ValidationError
from small import tiny_model
from torch import nn

from monoglot.adapters import shared_copy
from monoglot.data.prepare import Preparer
from monoglot.model.lora import Lora, LoraLinear, add_lora, fold_lora, lora_names
from monoglot.nouns import Sample


@pytest.fixture
def model():
    return tiny_model(modalities={})


@pytest.fixture
def batch(model, tokenizer):
    preparer = Preparer(tokenizer, model.config)
    texts = ("the red", "what is blue and what is red?")
    return preparer.collate(
        [preparer.example(Sample(str(n), "summarize", text=text, targets=("red",))) for n, text in enumerate(texts)]
    )


def trained(model: nn.Module) -> None:
    """Give the changes something to say."""
    torch.manual_seed(1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("lora_up"):
                parameter.normal_(std=0.1)


def test_a_fresh_change_changes_nothing(model, batch):
    before = model(batch)
    add_lora(model, Lora())
    assert torch.equal(model(batch), before)


@pytest.mark.parametrize(("rank", "alpha", "bias"), [(1, 1.0, True), (4, 16.0, False), (9, 3.0, True)])
def test_it_is_the_formula(rank, alpha, bias):
    """y = W x + b + (alpha / rank) B A x, in float64."""
    torch.manual_seed(0)
    layer = nn.Linear(7, 5, bias=bias)
    changed = LoraLinear(layer, Lora(rank=rank, alpha=alpha))
    nn.init.normal_(changed.lora_up)
    x = torch.randn(2, 3, 7)
    w, a, b = (t.detach().double() for t in (layer.weight, changed.lora_down, changed.lora_up))
    wanted = x.double() @ w.T + alpha / rank * x.double() @ a.T @ b.T + (layer.bias.double() if bias else 0)
    torch.testing.assert_close(changed(x).double(), wanted, rtol=1e-5, atol=1e-5)
    assert changed.weight is layer.weight
    assert changed.bias is layer.bias


def test_folding_says_the_same_and_leaves_the_base_alone(model, batch):
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    said = model(batch)
    copy = shared_copy(model)
    add_lora(copy, Lora(rank=2))
    trained(copy)
    changed = copy(batch)
    assert not torch.allclose(changed, said, atol=1e-2)
    fold_lora(copy)
    torch.testing.assert_close(copy(batch), changed, rtol=1e-4, atol=1e-4)
    assert list(copy.state_dict()) == list(before)
    assert not any(isinstance(part, LoraLinear) for part in copy.modules())
    assert torch.equal(model(batch), said)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_only_the_changes_have_new_names(model):
    before = dict(model.named_parameters())
    settings = Lora(rank=3, layers=("decoder_layers.1.ffn", "encoder_layers.0.attention.q"))
    add_lora(model, settings)
    assert sorted(lora_names(model)) == [
        "decoder_layers.1.ffn.down.lora_down",
        "decoder_layers.1.ffn.down.lora_up",
        "decoder_layers.1.ffn.up.lora_down",
        "decoder_layers.1.ffn.up.lora_up",
        "encoder_layers.0.attention.q.lora_down",
        "encoder_layers.0.attention.q.lora_up",
    ]
    after = dict(model.named_parameters())
    assert set(after) - set(before) == set(lora_names(model))
    assert all(after[name] is parameter for name, parameter in before.items())


def test_the_seed_decides_and_disturbs_no_other_draw():
    drawn = []
    for seed in (0, 0, 1):
        model = tiny_model(modalities={})
        torch.manual_seed(5)
        add_lora(model, Lora(), seed=seed)
        drawn.append(torch.rand(1))
        drawn.append(model.get_parameter("encoder_layers.0.ffn.up.lora_down"))
    assert torch.equal(drawn[1], drawn[3])
    assert not torch.equal(drawn[1], drawn[5])
    torch.manual_seed(5)
    assert drawn[0] == drawn[2] == drawn[4] == torch.rand(1)


def test_changes_are_not_laid_over_changes(model):
    add_lora(model, Lora())
    with pytest.raises(
        ValueError, match=r"^the model has low-rank changes already; go on training those, or fold them"
    ):
        add_lora(model, Lora())
    fold_lora(model)
    add_lora(model, Lora())
    assert lora_names(model)


def test_a_layer_that_is_not_there(model):
    with pytest.raises(ValueError, match=r"^no linear layer's name starts with 'encoder_layers\.7'$"):
        add_lora(model, Lora(layers=("encoder_layers.0", "encoder_layers.7")))
    assert not lora_names(model)


@pytest.mark.parametrize("wrong", [{"rank": 0}, {"alpha": 0}, {"ranks": 4}])
def test_settings_that_are_none(wrong):
    with pytest.raises(ValidationError):
        Lora(**wrong)


def test_only_the_changes_get_gradients(model, batch):
    from monoglot.train.optim import freeze

    add_lora(model, Lora())
    freeze(model, ())
    model(batch).sum().backward()
    assert [name for name, parameter in model.named_parameters() if parameter.grad is not None] == lora_names(model)
