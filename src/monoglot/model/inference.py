"""A model as it answers fastest: what training keeps apart is folded together, once.

UnifiedModel -> modules of its own, the same tensors -> low-rank changes and norms folded into the layers before them -> UnifiedModel
"""

from __future__ import annotations

import copy
from itertools import pairwise

from torch import nn

from monoglot.modalities.image import ConvNorm
from monoglot.modalities.networks.parts import FrozenNorm, fold_norm
from monoglot.model.lora import fold_lora
from monoglot.model.unified import UnifiedModel


def for_inference(model: UnifiedModel, base: UnifiedModel | None = None) -> UnifiedModel:
    """The same model for `eval` only: it says the same, but for rounding, and learns no more.

    Shares every tensor with `model`, except convolutions that have a norm behind them (with the published ResNet-101 170 MB,
    with nano's Lite0 13 MB) and layers with low-rank changes. Changes of `model` that come later may not show.
    A model that runs by other means than its layers is returned as it is.

    Args:
        base: what this made of the model that `model` is an adapter of, if both are to answer: its encoders then serve
            both, and low-rank changes stay beside layers that both have.

    >>> from monoglot.model.config import ModelConfig
    >>> model = UnifiedModel(ModelConfig(width=8, ffn=8, heads=2, encoder_layers=1, decoder_layers=1))
    >>> for_inference(model).words.weight is model.words.weight
    True
    """
    if type(model).decode is not UnifiedModel.decode:
        return model
    shared: dict[int, object] = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}
    if base is not None:
        shared[id(model.encoders)] = base.encoders
    fast = copy.deepcopy(model, shared)
    if base is None:
        fold_lora(fast)
    for parent in list(fast.modules()):
        for (_, conv), (name, norm) in pairwise(list(parent.named_children())):
            if isinstance(conv, (nn.Conv2d, nn.Conv3d)) and (
                isinstance(norm, FrozenNorm) or (isinstance(parent, ConvNorm) and isinstance(norm, nn.BatchNorm2d))
            ):
                fold_norm(conv, norm)
                setattr(parent, name, nn.Identity())
    return fast.eval()
