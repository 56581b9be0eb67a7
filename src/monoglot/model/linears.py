"""Linear layers for answers only: their weights laid out once, in the precision that was asked for.

precision, device -> pick -> (float32 | bfloat16 | int8, why)
UnifiedModel -> modules of its own, the same tensors -> each linear layer, and the word embedding as projection, packed -> UnifiedModel

A step of the decoder multiplies a few rows (beams) with every weight it has: it is as quick as weights come from memory, and
`F.linear`, made for many rows, reaches a third of that (benchmarks/linears.py). So each precision has its way:

float32   HalfLinear for what the decoder runs, if 16 bits hold its weights exactly; else OneDNNLinear. Encoders stay as they are.
bfloat16  OneDNNLinear; convolutions in bfloat16 too. What is added up, norms, softmax and log-mel stay float32, logits as well.
int8      Int8Linear for the transformer; logits as in float32.

What a machine or a torch lacks is told from a small product that is tried once; the plain layer is used then.
Letters: N rows, I and O a layer's inputs and outputs.
"""

from __future__ import annotations

import copy
import functools
import warnings
from typing import Any, TypeGuard

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
"""How names of layers begin that run a row a beam; encoders run hundreds at once, where plain products are as quick."""
_ONEDNN_FROM = 1 << 18
"""Weights from which on oneDNN's call, 15 microseconds dearer than F.linear's, pays at 3 rows and more (benchmarks/linears.py)."""
_INT8_FROM = 1 << 16
"""Weights from which on a layer is worth rounding; smaller ones take no time."""


# --- which ------------------------------------------------------------------------------------------------------------


def has_bfloat16(device: torch.device = _CPU) -> bool:
    """True if the device has instructions for products in bfloat16; without them they are slower than in float32."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    can = getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)  # private: another torch may not have it
    return torch.backends.cpu.get_cpu_capability() == "AVX512" and can()


def pick(precision: str = "auto", device: torch.device = _CPU) -> tuple[str, str]:
    """What to compute in, and why in a few words. InputError for an unknown name, or int8 where nothing computes in it.

    >>> pick("float32")
    ('float32', 'as asked')
    """
    machine = "this processor" if device.type == "cpu" else "this device"
    fast = f"{machine} has instructions for bfloat16" if has_bfloat16(device) else f"{machine} has none for bfloat16"
    if precision not in PRECISIONS:
        raise InputError(unknown_name("precision", precision, PRECISIONS))
    if precision == "auto":
        return ("bfloat16" if has_bfloat16(device) else "float32"), fast
    if precision == "int8" and not (device.type == "cpu" and works(Int8Linear)):
        raise InputError.at("precision", "int8", f"{machine} or this torch has no products for it", "give another")
    slow = precision == "bfloat16" and not has_bfloat16(device)
    return precision, f"as asked; it will be slow, {fast}" if slow else "as asked"


def to_precision(model: UnifiedModel, precision: str, base: UnifiedModel | None = None) -> UnifiedModel:
    """The same model for answers under `torch.no_grad()`, in a precision that `pick` gave.

    Every tensor is shared with `model`; packed copies come on top. In float32 they take 2 bytes a weight of the decoder and
    the word embedding (nano 53 MB, of which the embedding 39; the published base model 216 and 91), or 4 where 16 bits do
    not hold the weights.

    Args:
        base: what this made of the model that `model` is an adapter of: what both have is packed once, low-rank changes
            stay beside it. Without it they are folded into weights of their own.

    >>> from monoglot.model.config import ModelConfig
    >>> model = UnifiedModel(ModelConfig(width=8, ffn=8, heads=2, encoder_layers=1, decoder_layers=1)).eval()
    >>> states = torch.randn(5, 8)
    >>> with torch.no_grad():
    ...     bool((to_precision(model, "float32").logits(states) - model.logits(states)).abs().max() < 1e-5)
    True
    """
    if type(model).decode is not UnifiedModel.decode:  # runs by other means than its layers
        return model
    packed = copy.deepcopy(model, {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())})
    if base is None:
        fold_lora(packed)
    known = {} if base is None else dict(base.named_modules(remove_duplicate=False))
    done: dict[int, nn.Module] = {}  # encoders share parts
    for name, layer in list(packed.named_modules(remove_duplicate=False)):
        if name.startswith("encoders.") and plugin_of(name.split(".")[1]):
            continue  # who knows what it does with its layers
        if isinstance(layer, nn.Linear) and not isinstance(layer, Packed):
            parent, _, last = name.rpartition(".")
            if id(layer) not in done:
                done[id(layer)] = _packed(layer, name, precision, known.get(name))
            setattr(packed.get_submodule(parent), last, done[id(layer)])
        elif precision == "bfloat16" and isinstance(layer, (nn.Conv1d, nn.Conv2d, nn.Conv3d)):
            _in_bfloat16(layer)
    table, known_table = _linear(model.words.weight, None), None if base is None else base.projection
    packed.projection = known_table if _same(known_table, table) else _few_rows(table, exact=precision == "float32")
    return packed.eval()


def _packed(layer: nn.Linear, name: str, precision: str, known: nn.Module | None) -> nn.Module:
    """What computes for a layer; `known` if that was packed of the same weight."""
    way = known if _same(known, layer) else _way(layer, name, precision)
    if way is None:
        return layer
    return Changed(way, layer) if isinstance(layer, LoraLinear) else way


def _same(known: nn.Module | None, layer: nn.Linear) -> TypeGuard[Packed]:
    return isinstance(known, Packed) and known.weight is layer.weight and known.bias is layer.bias


def _way(layer: nn.Linear, name: str, precision: str) -> Packed | None:
    """None: the layer as it is."""
    if precision == "bfloat16":
        reorders = layer.weight.device.type == "cpu" and works(OneDNNLinear, torch.bfloat16)
        return OneDNNLinear(layer, torch.bfloat16) if reorders else Bfloat16Linear(layer)
    if precision == "int8":
        return Int8Linear(layer) if layer.weight.numel() >= _INT8_FROM else None
    return _few_rows(layer, exact=True) if name.startswith(_FEW_ROWS) else None


def _few_rows(layer: nn.Linear, *, exact: bool) -> Packed | None:
    """The quickest way for a row a beam, with inputs and outputs in float32."""
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
            raise ValueError("packed layers have no gradient: answer under torch.no_grad(), train the model they are of")
        return self.product(x)

    def product(self, x: Tensor) -> Tensor:
        raise NotImplementedError

    def __deepcopy__(self, memo: dict[int, Any]) -> Packed:
        return self  # nothing in it ever changes


class OneDNNLinear(Packed):
    """oneDNN's own order of the weight, so that it need not be sorted anew for each product. In bfloat16 inputs are rounded to it."""

    def __init__(self, layer: nn.Linear, dtype: torch.dtype = torch.float32):
        super().__init__(layer)
        self.dtype = dtype
        self.stored = torch.ops.mkldnn._reorder_linear_weight(layer.weight.detach().to(dtype))
        self.stored_bias = None if layer.bias is None else layer.bias.detach().to(dtype)

    def product(self, x: Tensor) -> Tensor:
        stored = (self.stored, self.stored_bias)
        return torch.ops.mkldnn._linear_pointwise.default(x.to(self.dtype), *stored, "none", [], "")


class Bfloat16Linear(Packed):
    """`F.linear` in bfloat16, where oneDNN cannot."""

    def __init__(self, layer: nn.Linear):
        super().__init__(layer)
        self.stored = layer.weight.detach().to(torch.bfloat16)
        self.stored_bias = None if layer.bias is None else layer.bias.detach().to(torch.bfloat16)

    def product(self, x: Tensor) -> Tensor:
        return F.linear(x.to(torch.bfloat16), self.stored, self.stored_bias)


class HalfLinear(Packed):
    """The weight as float16, widened to float32 as it is read (FBGEMM): half the bytes and, by `of`, the same product.

    Models are stored as bfloat16, or as 8-bit integers with a factor a row. float16 holds both: bfloat16 of weights, none
    of which is large, has fewer digits; integers up to 127 are exact, and their factors are multiplied in afterwards.
    """

    def __init__(self, layer: nn.Linear, factor: Tensor | None = None):
        """factor: float32[O, 1] that the rows of the weight are stored without."""
        super().__init__(layer)
        weight = layer.weight.detach() if factor is None else layer.weight.detach() / factor
        self.factor = None if factor is None else factor.flatten()
        bias = layer.bias.detach() if layer.bias is not None and factor is None else None
        self.stored = torch.ops.quantized.linear_prepack_fp16(weight.contiguous(), bias)

    @classmethod
    def of(cls, layer: nn.Linear, *, exact: bool = True) -> HalfLinear | None:
        """None if the weight does not fit: `exact` asks for errors below 2^-22 of a row's largest weight, as sums in float32 have."""
        weight = layer.weight.detach()
        largest = weight.abs().amax(dim=1, keepdim=True)
        for factor in (None, (largest / 127).clamp(min=1e-12)):
            whole = weight if factor is None else weight / factor
            back = whole.half().float() * (1 if factor is None else factor)
            if bool(((back - weight).abs() <= largest * 2**-22).all()):
                return cls(layer, factor)
        return cls(layer) if not exact and bool(largest.max() < torch.finfo(torch.float16).max) else None

    def product(self, x: Tensor) -> Tensor:
        y = torch.ops.quantized.linear_dynamic_fp16.default(x, self.stored)
        if self.factor is not None:
            y = y.mul_(self.factor)
            y = y if self.bias is None else y.add_(self.bias)
        return y


class Int8Linear(Packed):
    """The weight as 8-bit integers with a factor a row; what comes in is rounded to as many steps of its range (FBGEMM).

    Processors without AVX512-VNNI add pairs of products in 16 bits: there inputs have 7 bits, so that nothing overflows.
    """

    def __init__(self, layer: nn.Linear):
        super().__init__(layer)
        weight = layer.weight.detach()
        factor = (weight.abs().amax(dim=1) / 127).clamp(min=1e-12).double()
        self.reduce_range = not getattr(torch.cpu, "_is_vnni_supported", lambda: False)()
        engine = torch.backends.quantized.engine
        try:
            torch.backends.quantized.engine = "fbgemm"
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # it is told that such tensors will go; `works` will say so then
                whole = torch.quantize_per_channel(weight, factor, torch.zeros_like(factor, dtype=torch.long), 0, torch.qint8)
                self.stored = torch.ops.quantized.linear_prepack(whole, None if layer.bias is None else layer.bias.detach())
        finally:
            torch.backends.quantized.engine = engine

    def product(self, x: Tensor) -> Tensor:
        return torch.ops.quantized.linear_dynamic.default(x, self.stored, self.reduce_range)


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
    """True if a small product comes out right on this machine, with this torch: what is called is not promised to stay."""
    layer = _linear(torch.arange(-12.0, 12.0).view(4, 6) / 8, torch.arange(4.0))
    x = torch.arange(18.0).view(3, 6) / 16
    try:
        with torch.no_grad():
            return bool(((kind(layer, *given)(x) - layer(x)).abs() < 0.1).all())
    except (AttributeError, RuntimeError):
        return False


def _linear(weight: Tensor, bias: Tensor | None) -> nn.Linear:
    """The layer of given tensors."""
    layer = nn.Linear(1, 1, bias=False)
    layer.out_features, layer.in_features = weight.shape
    layer.weight = weight if isinstance(weight, nn.Parameter) else nn.Parameter(weight, requires_grad=False)
    layer.bias = None if bias is None else nn.Parameter(bias, requires_grad=False)
    return layer


def _in_bfloat16(conv: nn.Conv1d | nn.Conv2d | nn.Conv3d) -> None:
    """From now on the convolution computes in bfloat16, by tensors of its own."""
    if conv.weight.dtype == torch.bfloat16:
        return
    for name, tensor in list(conv.named_parameters(recurse=False)):
        setattr(conv, name, nn.Parameter(tensor.detach().to(torch.bfloat16), requires_grad=False))
    conv.register_forward_pre_hook(_cast_input)


def _cast_input(conv: nn.Module, given: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return given[0].to(conv.weight.dtype), *given[1:]
