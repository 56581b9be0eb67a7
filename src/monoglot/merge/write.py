"""A safetensors file, written tensor by tensor: the header first, then each tensor as it is made.

    names, types, shapes -> header;   (name, tensor), ... -> bytes, in the header's order

Source of the layout: the format's own page (github.com/huggingface/safetensors): 8 bytes of header length, JSON, the data.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from monoglot.store import FACTOR

TYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
Layout = dict[str, tuple[torch.dtype, tuple[int, ...]]]
"""Type and shape of each stored tensor, by name."""


def layout_of(
    name: str, shape: tuple[int, ...], own: torch.dtype, dtype: torch.dtype, int8: Sequence[str] = ()
) -> Layout:
    """How `store.stored` stores a tensor of that name, shape and type.

    >>> layout_of("words.weight", (5, 2), torch.float32, torch.bfloat16, ["words"])
    {'words.weight': (torch.int8, (5, 2)), 'words.weight.row_factor': (torch.float32, (5, 1))}
    """
    if len(shape) == 2 and any(re.search(pattern, name) for pattern in int8):
        return {name: (torch.int8, shape), name + FACTOR: (torch.float32, (shape[0], 1))}
    return {name: (dtype if own.is_floating_point else own, shape)}


def write_safetensors(
    path: Path, layout: Layout, tensors: Iterable[tuple[str, Tensor]], metadata: dict[str, str]
) -> None:
    """Write a file whose tensors come one at a time, in the order of `layout`; none is kept.

    Raises:
        ValueError: a tensor is not the next of `layout`, or has another type or shape.
    """
    header: dict[str, object] = {"__metadata__": metadata}
    end = 0
    for name, (dtype, shape) in layout.items():
        begin, end = end, end + math.prod(shape) * dtype.itemsize
        header[name] = {"dtype": TYPES[dtype], "shape": list(shape), "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)  # the data begin at a multiple of 8 bytes
    expected = iter(layout.items())
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name, tensor in tensors:
            wanted = next(expected, ("nothing", None))
            if wanted != (name, (tensor.dtype, tuple(tensor.shape))):
                raise ValueError(f"{name} ({tensor.dtype}, {list(tensor.shape)}) is not {wanted}, which comes next")
            file.write(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)
            del tensor
        if (left := next(expected, None)) is not None:
            raise ValueError(f"{left[0]} was never given")
