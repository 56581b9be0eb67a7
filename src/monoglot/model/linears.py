"""Linear layers for answers only: their weights laid out once, in the precision that was asked for.

precision, device -> pick -> (float32 | bfloat16 | int8, why)
UnifiedModel -> modules of its own, the same tensors -> linear layers, and the word embedding as projection, packed -> UnifiedModel

A step of the decoder multiplies a few rows, a beam each, with every weight it has: it is as quick as weights come from
memory, and `F.linear` is made for many rows (benchmarks/linears.py). Each precision has its way:

float32   what the decoder runs by HalfLinear, if 16 bits hold its weights, else by OneDNNLinear; encoders as they are
bfloat16  OneDNNLinear; convolutions in bfloat16 too. Sums of branches, norms, softmax, log-mel and logits stay float32
int8      Int8Linear in the transformer; media encoders, connectors and logits stay float32

What this machine or this torch lacks is told from a small product, tried once; plain layers do the work then.
Letters: O and I a layer's outputs and inputs.
"""

from __future__ import annotations

import copy
import functools
import warnings
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from monoglot.errors import InputError
from monoglot.model.lora import LoraLinear, fold_lora
from monoglot.model.unified import UnifiedModel
from monoglot.plugins import plugin_of
from monoglot.registry import unknown_name

PRECISIONS = ("auto", "float32", "bfloat16", "int8")
_CPU = torch.device("cpu")
_FEW_ROWS = ("decoder_layers.", "decoder_bias.", "cross_bias.")
"""How names of layers begin that run a row a beam; the others run hundreds at once, where plain products are as quick."""
_ONEDNN_FROM = 1 << 18
"""Weights from which on oneDNN's call, 15 microseconds dearer than F.linear's, pays at 3 rows (benchmarks/linears.py)."""
_WIDE_RANGES = ("encoders.", "source.")
"""What they are given has a few values far from the rest; rounded to steps of one range, every fifth transcript is another (docs/log.md)."""
_INT8_FROM = 1 << 16
"""Weights from which on a layer is rounded to 8 bits; smaller ones take no time."""


# --- which ------------------------------------------------------------------------------------------------------------


def has_bfloat16(device: torch.device = _CPU) -> bool:
    """True if the device has instructions for products in bfloat16; without them they are slower than in float32."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    can = getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)  # private: another torch may not have it
    return torch.backends.cpu.get_cpu_capability() == "AVX512" and can()


def pick(precision: str = "auto", device: torch.device = _CPU) -> tuple[str, str]:
    """What to compute in, and why in a few words. InputError for an unknown name, and for int8 where nothing computes in it.

    >>> pick("float32")
    ('float32', 'as asked')
    """
    if precision not in PRECISIONS:
        raise InputError(unknown_name("precision", precision, PRECISIONS))
    machine = "this processor" if device.type == "cpu" else "this device"
    has = has_bfloat16(device)
    told = f"{machine} has {'instructions' if has else 'no instructions'} for bfloat16"
    if precision == "auto":
        return ("bfloat16" if has else "float32"), told
    if precision == "int8" and not (device.type == "cpu" and works(Int8Linear)):
        raise InputError.at("precision", "int8", f"{machine}, or this torch, has no products in it", "leave it to auto")
    return precision, f"as asked, though slow: {told}" if precision == "bfloat16" and not has else "as asked"


def to_precision(model: UnifiedModel, precision: str, base: UnifiedModel | None = None) -> UnifiedModel:
    """The same model for answers under `torch.no_grad()`, in a precision that `pick` gave.

    Every tensor is shared with `model`; packed copies come on top. In float32 they take 2 bytes a weight of the decoder and
    of the word embedding (nano 19 + 39 MB), or 4 where 16 bits do not hold the weights. The embedding has its copy in each
    precision; the other layers take 2 bytes a weight in bfloat16, 1 in int8.

    Args:
        base: what this made of the model that `model` is an adapter of, if that changes no encoder: they serve both, other
            layers that both have are packed once, and low-rank changes stay beside them. Else they are folded in.

    >>> from monoglot.model.config import ModelConfig
    >>> model = UnifiedModel(ModelConfig(width=8, ffn=8, heads=2, encoder_layers=1, decoder_layers=1)).eval()
    >>> states = torch.randn(5, 8)
    >>> with torch.no_grad():
    ...     torch.allclose(to_precision(model, "float32").logits(states), model.logits(states), atol=1e-5)
    True
    """
    if type(model).decode is not UnifiedModel.decode:  # it runs by other means than its layers
        return model
    shared: dict[int, Any] = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}
    known: dict[str, nn.Module] = {}
    if base is not None:
        known, shared[id(model.encoders)] = dict(base.named_modules(remove_duplicate=False)), base.encoders
    packed = copy.deepcopy(model, shared)
    if base is None:
        fold_lora(packed)
    made: dict[int, nn.Module] = {}  # by layer: encoders may share parts
    for name, layer in list(packed.named_modules(remove_duplicate=False)):
        if name.startswith("encoders.") and plugin_of(name.split(".")[1]):
            continue  # who knows what else it does with its weights
        if isinstance(layer, nn.Linear) and not isinstance(layer, Packed):
            if id(layer) not in made:
                made[id(layer)] = _packed(layer, name, precision, known.get(name))
            parent, _, last = name.rpartition(".")
            setattr(packed.get_submodule(parent), last, made[id(layer)])
        elif precision == "bfloat16" and isinstance(layer, (nn.Conv1d, nn.Conv2d, nn.Conv3d)):
            _in_bfloat16(layer)
    words, known_words = _linear(model.words.weight, None), known.get("projection")
    same = isinstance(known_words, Packed) and known_words.weight is words.weight
    packed.projection = known_words if same else _few_rows(words, exact=precision == "float32")
    return packed.eval()


def _packed(layer: nn.Linear, name: str, precision: str, known: nn.Module | None) -> nn.Module:
    """What computes for a layer: `known` if that was packed of the same tensors, the layer itself if nothing does it better."""
    if isinstance(known, Packed) and known.weight is layer.weight and known.bias is layer.bias:
        way: Packed | None = known
    elif precision == "bfloat16":
        reorders = layer.weight.device.type == "cpu" and works(OneDNNLinear, torch.bfloat16)
        way = OneDNNLinear(layer, torch.bfloat16) if reorders else Bfloat16Linear(layer)
    elif precision == "int8":
        rounds = not name.startswith(_WIDE_RANGES) and layer.weight.numel() >= _INT8_FROM
        way = Int8Linear(layer) if rounds else None
    else:
        way = _few_rows(layer, exact=True) if name.startswith(_FEW_ROWS) else None
    if way is None:
        return layer
    return Changed(way, layer) if isinstance(layer, LoraLinear) else way


def _few_rows(layer: nn.Linear, *, exact: bool) -> Packed | None:
    """The quickest way for a few rows that are float32 before and after; None: the layer as it is."""
    if layer.weight.device.type != "cpu":
        return None
    if works(HalfLinear) and (half := HalfLinear.of(layer, exact=exact)) is not None:
        return half
    return OneDNNLinear(layer) if layer.weight.numel() >= _ONEDNN_FROM and works(OneDNNLinear) else None


# --- how --------------------------------------------------------------------------------------------------------------


class Packed(nn.Linear):
    """A linear layer that computes by a copy of its weight in another layout; weight and bias are the layer's own."""

    def __init__(self, layer: nn.Linear):
        nn.Module.__init__(self)  # nn.Linear would make weights
        self.in_features, self.out_features = layer.in_features, layer.out_features
        self.weight, self.bias = layer.weight, layer.bias

    def forward(self, x: Tensor) -> Tensor:
        """[..., I] -> [..., O]. Raises ValueError where a gradient would have to go through it."""
        if torch.is_grad_enabled() and x.requires_grad:
            raise ValueError("packed layers have no gradient: answer under torch.no_grad(), or train the plain model")
        return self.product(x)

    def product(self, x: Tensor) -> Tensor:
        raise NotImplementedError

    def __deepcopy__(self, memo: dict[int, Any]) -> Packed:
        return self  # nothing in it changes


class OneDNNLinear(Packed):
    """oneDNN's own order of the weight: nothing is sorted anew for each product. In bfloat16 inputs are rounded to it."""

    def __init__(self, layer: nn.Linear, dtype: torch.dtype = torch.float32):
        super().__init__(layer)
        self.dtype = dtype
        self.stored = torch.ops.mkldnn._reorder_linear_weight(layer.weight.detach().to(dtype))
        self.stored_bias = None if layer.bias is None else layer.bias.detach().to(dtype)

    def product(self, x: Tensor) -> Tensor:
        multiply = torch.ops.mkldnn._linear_pointwise.default
        return multiply(x.to(self.dtype), self.stored, self.stored_bias, "none", [], "")


class Bfloat16Linear(Packed):
    """`F.linear` in bfloat16, where oneDNN cannot."""

    def __init__(self, layer: nn.Linear):
        super().__init__(layer)
        self.stored = layer.weight.detach().to(torch.bfloat16)
        self.stored_bias = None if layer.bias is None else layer.bias.detach().to(torch.bfloat16)

    def product(self, x: Tensor) -> Tensor:
        return F.linear(x.to(torch.bfloat16), self.stored, self.stored_bias)


class HalfLinear(Packed):
    """The weight as float16, widened to float32 as it is read (FBGEMM): half the bytes and, as `of` makes it, the same product.

    Models are stored as bfloat16, or as 8-bit integers with a factor a row. float16 holds both: it has more digits than
    bfloat16, and a power of two brings a row of small weights into its range; integers are exact, their factors follow.
    """

    def __init__(self, layer: nn.Linear, factor: Tensor | None = None):
        """factor: float32[O, 1] that is taken out of the rows of the weight."""
        super().__init__(layer)
        weight, bias = layer.weight.detach(), None if layer.bias is None else layer.bias.detach()
        self.factor = None if factor is None else factor.flatten()
        whole, inside = (weight, bias) if factor is None else (weight / factor, None)
        self.stored = torch.ops.quantized.linear_prepack_fp16(whole.contiguous(), inside)

    @classmethod
    def of(cls, layer: nn.Linear, *, exact: bool = True) -> HalfLinear | None:
        """None if float16 does not hold the weight; `exact`: each row to 2^-23 of its norm, what float32 rounds one number by."""
        weight = layer.weight.detach()
        largest = weight.abs().amax(dim=1, keepdim=True)
        upscaled = torch.ldexp(torch.ones_like(largest), largest.frexp().exponent - 15)  # the largest below 2^15
        for factor in (None, upscaled, (largest / 127).clamp(min=1e-12)):
            if all(_half_holds(weight[:rows], factor) for rows in (64, len(weight))):  # what does not hold shows early
                return cls(layer, factor)
        holds = not exact and bool(weight.abs().max() <= torch.finfo(torch.float16).max)
        return cls(layer) if holds else None

    def product(self, x: Tensor) -> Tensor:
        y = torch.ops.quantized.linear_dynamic_fp16.default(x, self.stored)
        if self.factor is not None:
            y = y.mul_(self.factor)
            y = y if self.bias is None else y.add_(self.bias)
        return y


def _half_holds(weight: Tensor, factor: Tensor | None) -> bool:
    """True if no row, without its factor, loses more as float16 than float32 loses of one number."""
    factor = None if factor is None else factor[: len(weight)]
    back = weight.half().float() if factor is None else (weight / factor).half().float() * factor
    return bool(((back - weight).norm(dim=1) <= 2**-23 * weight.norm(dim=1)).all())


class Int8Linear(Packed):
    """The weight as 8-bit integers with a factor a row; what comes in is rounded to as many steps of its range (FBGEMM).

    Processors without AVX512-VNNI add pairs of products in 16 bits: inputs have 7 bits there, so that nothing overflows.
    """

    def __init__(self, layer: nn.Linear):
        super().__init__(layer)
        weight, bias = layer.weight.detach(), None if layer.bias is None else layer.bias.detach()
        factor = (weight.abs().amax(dim=1) / 127).clamp(min=1e-12).double()
        self.seven_bits = not getattr(torch.cpu, "_is_vnni_supported", lambda: False)()  # private, as above
        engine = torch.backends.quantized.engine
        torch.backends.quantized.engine = "fbgemm"
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # that such tensors will go some day; `works` tells then
                zero = torch.zeros(len(factor), dtype=torch.long)
                whole = torch.quantize_per_channel(weight, factor, zero, 0, torch.qint8)
                self.stored = torch.ops.quantized.linear_prepack(whole, bias)
        finally:
            torch.backends.quantized.engine = engine

    def product(self, x: Tensor) -> Tensor:
        return torch.ops.quantized.linear_dynamic.default(x, self.stored, self.seven_bits)


class Changed(nn.Module):
    """A packed layer and the low-rank change beside it."""

    def __init__(self, layer: Packed, change: LoraLinear):
        super().__init__()
        self.layer, self.factor = layer, change.factor
        self.lora_down, self.lora_up = change.lora_down, change.lora_up

    def forward(self, x: Tensor) -> Tensor:
        y = self.layer(x)
        return y + (F.linear(F.linear(x.float(), self.lora_down), self.lora_up) * self.factor).to(y.dtype)


@functools.cache
def works(kind: type[Packed], *given: Any) -> bool:
    """True if a small product comes out right on this machine with this torch: what is called there is not promised to stay."""
    layer = _linear(torch.arange(-12.0, 12.0).view(4, 6) / 8, torch.arange(4.0))
    x = torch.arange(18.0).view(3, 6) / 16
    try:
        with torch.no_grad():
            return bool(((kind(layer, *given)(x) - layer(x)).abs() < 0.1).all())
    except (AttributeError, RuntimeError):
        return False


def _linear(weight: Tensor, bias: Tensor | None) -> nn.Linear:
    """A layer of given tensors."""
    layer = nn.Linear(1, 1, bias=False)
    layer.out_features, layer.in_features = weight.shape
    layer.weight = weight if isinstance(weight, nn.Parameter) else nn.Parameter(weight)
    if bias is not None:
        layer.bias = nn.Parameter(bias)
    return layer


def _in_bfloat16(conv: nn.Conv1d | nn.Conv2d | nn.Conv3d) -> None:
    """From now on a convolution computes in bfloat16, by tensors of its own."""
    if conv.weight.dtype == torch.bfloat16:
        return
    for name, tensor in list(conv.named_parameters(recurse=False)):
        setattr(conv, name, nn.Parameter(tensor.detach().to(torch.bfloat16), requires_grad=False))
    conv.register_forward_pre_hook(_cast_input)


def _cast_input(conv: nn.Module, given: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return given[0].to(conv.get_parameter("weight").dtype), *given[1:]
