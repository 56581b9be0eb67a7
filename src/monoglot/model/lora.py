"""Low-rank changes of linear layers: what an adapter learns while the layers themselves stay as they are.

UnifiedModel -> add_lora -> the same layers, each with y = W x + b + (alpha / rank) up (down x) -> fold_lora -> W + (alpha / rank) up down

Letters: R rank, I and O a layer's inputs and outputs.
Source: LoRA (arXiv 2106.09685): `down` begins random and `up` at zero, so that a fresh change changes nothing.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from monoglot.model.unified import UnifiedModel

LORA = ("lora_down", "lora_up")
"""Last parts of the names of what is added."""


class Lora(BaseModel):
    """Which layers get a low-rank change, and how much it can say."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    rank: int = Field(8, ge=1, description="Rank of each change.")
    alpha: float = Field(16.0, gt=0, description="The change is scaled by alpha / rank.")
    layers: tuple[str, ...] = Field(
        ("encoder_layers", "decoder_layers"), description="Linear layers whose name starts so get one."
    )


class LoraLinear(nn.Linear):
    """A linear layer and its change; weight and bias are the layer's own, not copies."""

    def __init__(self, layer: nn.Linear, settings: Lora):
        nn.Module.__init__(self)  # nn.Linear would make weights
        self.in_features, self.out_features = layer.in_features, layer.out_features
        self.weight, self.bias = layer.weight, layer.bias
        self.factor = settings.alpha / settings.rank
        like: dict[str, Any] = {"device": layer.weight.device, "dtype": layer.weight.dtype}
        self.lora_down = nn.Parameter(torch.empty(settings.rank, layer.in_features, **like))
        self.lora_up = nn.Parameter(torch.zeros(layer.out_features, settings.rank, **like))
        nn.init.kaiming_uniform_(self.lora_down, a=math.sqrt(5))

    def forward(self, x: Tensor) -> Tensor:
        """[..., I] -> [..., O]"""
        return super().forward(x) + F.linear(F.linear(x, self.lora_down), self.lora_up) * self.factor

    def folded(self) -> nn.Linear:
        """The plain layer that does the same; its weight is a new one."""
        layer = nn.Linear(1, 1, bias=False)
        layer.in_features, layer.out_features, layer.bias = self.in_features, self.out_features, self.bias
        with torch.no_grad():
            layer.weight = nn.Parameter(self.weight + self.factor * (self.lora_up @ self.lora_down))
        return layer


def add_lora(model: UnifiedModel, settings: Lora, *, seed: int = 0) -> None:
    """Put changes beside a model's layers, in place; what the model says stays the same until they are trained.

    Raises:
        ValueError: no layer's name starts so, or the model has such changes already.

    >>> from monoglot.model.config import ModelConfig
    >>> model = UnifiedModel(ModelConfig(width=8, ffn=8, heads=2, encoder_layers=1, decoder_layers=1))
    >>> add_lora(model, Lora(rank=2)); len(lora_names(model))
    22
    """
    if lora_names(model):
        raise ValueError("the model has low-rank changes already; go on training those, or fold them first")
    names = [name for name, part in model.named_modules() if type(part) is nn.Linear]
    for prefix in settings.layers:
        if not any(name.startswith(prefix) for name in names):
            raise ValueError(f"no linear layer's name starts with {prefix!r}")
    chosen = [name for name in names if name.startswith(settings.layers)]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for name in chosen:
            _replace(model, name, LoraLinear(model.get_submodule(name), settings))  # type: ignore[arg-type]


def fold_lora(model: UnifiedModel) -> None:
    """Take the changes into new weights, in place; the layers' own weights stay as they are for whoever shares them."""
    for name, part in list(model.named_modules()):
        if isinstance(part, LoraLinear):
            _replace(model, name, part.folded())


def lora_names(model: nn.Module) -> list[str]:
    """Names of the parameters that belong to changes."""
    return [name for name, _ in model.named_parameters() if name.rpartition(".")[2] in LORA]


def _replace(model: nn.Module, name: str, part: nn.Module) -> None:
    parent, _, last = name.rpartition(".")
    part.train(model.training)
    setattr(model.get_submodule(parent), last, part)
