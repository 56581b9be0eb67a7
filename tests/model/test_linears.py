"""Packed layers: what they say is what plain ones say, to the digits that their precision has; what is missing here is done without."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from small import COLOURS, MODALITY_SETTINGS, square, tiny_model
from torch import nn

from monoglot.adapters import AdapterSettings, save_adapter, shared_copy
from monoglot.cli import main
from monoglot.data.prepare import Preparer
from monoglot.decode.predict import Predictor, load
from monoglot.errors import InputError
from monoglot.model import linears
from monoglot.model.linears import (
    Bfloat16Linear,
    Changed,
    HalfLinear,
    Int8Linear,
    OneDNNLinear,
    Packed,
    pick,
    to_precision,
    works,
)
from monoglot.model.lora import Lora, add_lora, fold_lora, lora_names
from monoglot.nouns import Media, Sample
from monoglot.store import base_of, save_model
from monoglot.train.recipe import Recipe
from monoglot.train.run import precision

RED = square(COLOURS["red"])
ASKED = {"task": "classify", "image": RED, "text": "what colour?", "choices": ["red", "green", "blue"]}
ONE_KIND = {"modalities": {"image": MODALITY_SETTINGS["image"]}}


@pytest.fixture
def untried():
    """What was found out about this machine is forgotten, before and after."""
    works.cache_clear()
    yield
    works.cache_clear()


def layer(outputs=48, inputs=32, *, bias=True, seed=0) -> nn.Linear:
    """Weights as models are stored, in bfloat16, of many sizes."""
    torch.manual_seed(seed)
    made = nn.Linear(inputs, outputs, bias=bias).requires_grad_(False)
    made.weight.mul_(10.0 ** torch.randint(-1, 1, made.weight.shape))
    made.weight.copy_(made.weight.bfloat16())
    return made


def small() -> nn.Linear:
    """Some rows are smaller than float16 has numbers for."""
    made = layer()
    made.weight[::2] *= 2.0**-30
    made.weight[1] = 0
    return made


def whole(outputs=48, inputs=32) -> nn.Linear:
    """Weights as tables are stored: 8-bit integers and a factor a row."""
    made = layer(outputs, inputs)
    integers = torch.randint(-127, 128, made.weight.shape).float()
    integers[:, 0] = 127
    made.weight.copy_(integers * torch.rand(outputs, 1))
    return made


def inputs():
    yield from (torch.randn(1, 32), torch.randn(2, 5, 32), torch.randn(0, 32), torch.randn(32, 7).t())


# --- products ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("made", "factor"), [(layer(), False), (layer(bias=False), False), (small(), True), (whole(), True)]
)
def test_packed_products_are_as_exact_as_plain_ones(made, factor):
    half = HalfLinear.of(made)
    assert half is not None
    assert (half.factor is not None) == factor
    for packed in (half, OneDNNLinear(made)):
        for x in inputs():
            exact = x.double() @ made.weight.double().t() + (0 if made.bias is None else made.bias.double())
            size = x.abs().double() @ made.weight.abs().double().t()
            y = packed(x)
            assert (y.dtype, y.shape) == (torch.float32, exact.shape)
            assert ((y - exact).abs() <= 1e-6 * (size + 1)).all()


def test_float16_takes_no_weights_that_it_rounds():
    made = nn.Linear(32, 48).requires_grad_(False)
    assert HalfLinear.of(made) is None
    assert HalfLinear.of(made, exact=False) is not None
    made.weight[3, 4] = 1e6  # float16 ends at 65504
    assert HalfLinear.of(made, exact=False) is None


def test_8_bits_stay_within_their_steps():
    made = layer()
    packed = Int8Linear(made)
    of_weight = made.weight.abs().amax(dim=1) / 127 / 2
    for x in inputs():
        if not x.numel():
            assert packed(x).shape == (0, 48)
            continue
        # A step is the range, zero included, over 127 or 255; rounding zero to a step moves all by half of one more.
        step = (x.max().clamp(min=0) - x.min().clamp(max=0)) / (127 if packed.seven_bits else 255)
        exact = x.double() @ made.weight.double().t() + made.bias.double()
        most = x.abs().sum(-1, keepdim=True) * of_weight + step * made.weight.abs().sum(dim=1) + 32 * step * of_weight
        error = (packed(x) - exact).abs()
        assert (error <= most + 1e-6).all()
        assert error.max() > 1e-5


def test_8_bits_do_not_overflow():
    made = nn.Linear(64, 8, bias=False).requires_grad_(False)
    made.weight.fill_(1)
    assert torch.allclose(Int8Linear(made)(torch.ones(3, 64)), torch.full((3, 8), 64.0), rtol=1e-3)


def test_bfloat16_rounds_both_sides_once():
    made = layer()
    x = torch.randn(5, 32)
    exact = x.bfloat16().double() @ made.weight.double().t() + made.bias.bfloat16().double()
    ways = [Bfloat16Linear(made)]
    ways += [OneDNNLinear(made, torch.bfloat16)] if works(OneDNNLinear, torch.bfloat16) else []
    for packed in ways:
        y = packed(x)
        assert y.dtype == torch.bfloat16
        assert ((y - exact).abs() <= 2**-8 * exact.abs() + 1e-5).all()


def test_gradients_are_refused():
    packed = OneDNNLinear(layer())
    with pytest.raises(ValueError, match=r"^packed layers have no gradient: answer under torch"):
        packed(torch.randn(2, 32, requires_grad=True))
    with torch.no_grad():
        packed(torch.randn(2, 32, requires_grad=True))


# --- machines ---------------------------------------------------------------------------------------------------------


def machine(monkeypatch, capability: str, instructions: bool):
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: instructions, raising=False)


def test_what_auto_picks(monkeypatch):
    recipe = Recipe.model_construct(precision="auto")
    for capability, instructions, picked in (
        ("AVX512", True, "bfloat16"),
        ("AVX512", False, "float32"),
        ("AVX2", True, "float32"),
    ):
        machine(monkeypatch, capability, instructions)
        name, why = pick("auto")
        assert name == picked
        assert why == f"this processor has {'' if picked == 'bfloat16' else 'no '}instructions for bfloat16"
        assert precision(recipe, torch.device("cpu")) == picked
    monkeypatch.delattr(torch.cpu, "_is_avx512_bf16_supported")
    assert pick("auto")[0] == "float32"
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: not including_emulation)
    assert pick("auto", torch.device("cuda")) == ("bfloat16", "this device has instructions for bfloat16")


def test_what_is_asked_is_done_or_told(monkeypatch):
    machine(monkeypatch, "AVX2", False)
    assert pick("float32") == ("float32", "as asked")
    assert pick("bfloat16")[1] == "as asked, though slow: this processor has no instructions for bfloat16"
    with pytest.raises(InputError, match=r"no precision named 'int4'; closest: 'int8'; known: auto, bfloat16"):
        pick("int4")
    with pytest.raises(InputError, match=r"^precision: int8: this device, or this torch, has no products in it"):
        pick("int8", torch.device("cuda"))


class Wrong(Packed):
    def product(self, x):
        return torch.zeros(*x.shape[:-1], self.out_features)


def test_a_way_that_computes_something_else_is_not_taken(untried):
    assert not works(Wrong)
    assert works(Bfloat16Linear)


def test_without_private_operators_plain_layers_answer(untried, monkeypatch, batch, model):
    plain = model(batch)
    monkeypatch.setattr(torch.ops, "mkldnn", SimpleNamespace())
    monkeypatch.setattr(torch.ops, "quantized", SimpleNamespace())
    assert not any(works(kind) for kind in (OneDNNLinear, HalfLinear, Int8Linear))
    without = to_precision(model, "float32")
    assert without.projection is None
    assert not any(isinstance(part, Packed) for part in without.modules())
    assert torch.equal(without(batch), plain)
    assert {type(part) for part in to_precision(model, "bfloat16").modules() if isinstance(part, nn.Linear)} == {
        Bfloat16Linear
    }
    with pytest.raises(InputError, match=r"^precision: int8: this processor, or this torch"):
        pick("int8")


# --- models -----------------------------------------------------------------------------------------------------------


@pytest.fixture(params=["added", "untied"])
def model(request):
    made = tiny_model(request.param, encoders=True, **ONE_KIND).requires_grad_(False)
    for parameter in made.parameters():
        parameter.copy_(parameter.bfloat16())
    return made


@pytest.fixture
def batch(tokenizer, model):
    preparer = Preparer(tokenizer, model.config)
    samples = [
        Sample("1", "vqa", (Media("image", RED),), "what is it?", targets=("red",)),
        Sample("2", "summarize", (), "the red what at the blue", targets=("the blue",)),
    ]
    return preparer.collate([preparer.example(sample) for sample in samples])


@pytest.mark.parametrize(("precision", "most"), [("float32", 1e-5), ("bfloat16", 0.05), ("int8", 0.1)])
def test_models_say_the_same(precision, most, model, batch, monkeypatch):
    monkeypatch.setattr(linears, "_INT8_FROM", 0)
    packed = to_precision(model, precision)
    plain, y = model(batch), packed(batch)
    assert y.dtype == torch.float32
    error = (y - plain)[batch.target_valid].norm() / plain[batch.target_valid].norm()
    assert error < most
    assert error > 0 or precision == "float32", "what is rounded differs; float32 may be computed in the same order"
    assert packed.words.weight is model.words.weight
    assert model.projection is None
    assert not any(isinstance(part, Packed) for part in model.modules())
    kinds = {"float32": HalfLinear, "bfloat16": (OneDNNLinear, Bfloat16Linear), "int8": Int8Linear}
    assert isinstance(packed.decoder_layers[0].ffn.up, kinds[precision])
    assert isinstance(packed.projection, HalfLinear)
    norms = [part for part in packed.modules() if isinstance(part, nn.LayerNorm)]
    assert {norm.weight.dtype for norm in norms} == {torch.float32}


def test_weights_with_more_digits_go_to_onednn(model, batch, monkeypatch):
    monkeypatch.setattr(linears, "_ONEDNN_FROM", 0)
    for parameter in model.parameters():
        parameter.mul_(1.01)
    packed = to_precision(model, "float32")
    assert isinstance(packed.projection, OneDNNLinear)
    assert {type(part) for part in packed.decoder_layers.modules() if isinstance(part, nn.Linear)} == {OneDNNLinear}
    assert torch.allclose(packed(batch), model(batch), atol=1e-4)


def test_low_rank_changes_stay_beside_what_is_shared(model, batch, monkeypatch):
    monkeypatch.setattr(linears, "_INT8_FROM", 0)
    changed = shared_copy(model)
    add_lora(changed, Lora(rank=2))
    for name in lora_names(changed):
        changed.get_parameter(name).requires_grad_(False).normal_(std=0.1)
    plain = shared_copy(changed)
    fold_lora(plain)
    for name, most in (("float32", 1e-5), ("bfloat16", 0.05), ("int8", 0.1)):
        base = to_precision(model, name)
        beside, folded = to_precision(changed, name, base), to_precision(changed, name)
        assert beside.projection is base.projection
        assert isinstance(beside.decoder_layers[0].ffn.up, Changed)
        assert beside.decoder_layers[0].ffn.up.layer is base.decoder_layers[0].ffn.up
        assert beside.encoders is base.encoders
        with torch.no_grad():
            wanted, *found = (part(batch)[batch.target_valid] for part in (plain, beside, folded))
        for y in found:
            assert (y - wanted).norm() < most * wanted.norm()


# --- answers ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def stored(tokenizer, tmp_path_factory):
    """A base and an adapter on it."""
    folder = tmp_path_factory.mktemp("stored")
    made = tiny_model(encoders=True, **ONE_KIND)
    save_model(folder / "base", made, tokenizer, dtype=torch.bfloat16)
    add_lora(made, Lora(rank=2))
    tensors = {name: torch.randn_like(made.get_parameter(name)) * 0.3 for name in lora_names(made)}
    settings = AdapterSettings(base=base_of(folder / "base", None, folder / "a"), method="lora", lora=Lora(rank=2))
    save_adapter(folder / "a", settings, tensors)
    return folder


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "int8"])
def test_models_and_adapters_answer_in_each_precision(precision, stored, monkeypatch):
    monkeypatch.setattr(linears, "_INT8_FROM", 0)
    plain, base = load(stored / "base", precision="float32"), load(stored / "base", precision=precision)
    for wanted, asked in ((plain, base), (plain.with_adapter(stored / "a"), base.with_adapter(stored / "a"))):
        assert asked.precision == pick(precision)
        expected = dict.fromkeys(wanted.predict(**ASKED).candidates)
        for _ in range(2):  # in float32 the second comes from packed layers
            found = asked.predict(**ASKED)
            assert found.error is None
            assert {c.text for c in found.candidates} == {c.text for c in expected}
            for candidate in found.candidates:
                near = next(c.probability for c in expected if c.text == candidate.text)
                assert candidate.probability == pytest.approx(near, abs=1e-4 if precision == "float32" else 0.15)
        assert asked.fast is not asked.model
        assert isinstance(asked.fast.projection, HalfLinear)


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "int8"])
def test_autocast_around_a_predictor_changes_nothing(precision, stored):
    """Training looks at its answers in between, and may run in bfloat16; packed layers take float32 alone."""
    asked = load(stored / "base", precision=precision)
    for _ in range(2):
        plain = asked.predict(**ASKED)
    assert any(isinstance(part, Packed) for part in asked.fast.modules())
    with torch.autocast("cpu", torch.bfloat16):
        assert asked.predict(**ASKED).candidates == plain.candidates


def test_the_command_line_tells_it_once(stored, capsys):
    def told(*more) -> tuple[int, str]:
        asked = ["predict", "--model", str(stored / "base"), "--task", "summarize", "--text", "the red"]
        with pytest.raises(SystemExit) as stopped:
            main([*asked, "--max-length", "3", *more])
        return stopped.value.code, capsys.readouterr().err

    assert told("--precision", "int8") == (0, "precision: int8, as asked\n")
    code, error = told("--precision", "float")
    assert code == 2
    assert "no precision named 'float'; closest: 'float32'" in error
    if pick()[0] == "float32":
        assert told() == (0, "")


def test_a_predictor_tells_an_unknown_precision_at_once(loaded):
    with pytest.raises(InputError, match="no precision named 'half'"):
        Predictor(*loaded, precision="half")
