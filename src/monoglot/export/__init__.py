"""Models for ONNX Runtime: a folder that answers without torch and without monoglot.

    model folder -> (networks: the model cut into functions of tensors) -> (graphs: ONNX) -> (spec: how rows become their inputs) -> folder
    folder -> (runtime: a model whose parts are ONNX sessions) -> Predictor -> (parity: the same rows answered by both) -> kept, or refused

networks  encoders of media, the unified encoder, one step of the decoder, heads
graphs    networks -> *.onnx and weights.bin, where a tensor that several graphs use is stored once
int8      the same graphs with 8-bit weights, and what that changes
run       all of it: `monoglot export`

Needs the extra `export` (onnx, onnxscript, onnxruntime); `require` says so.
"""

from __future__ import annotations

from importlib.util import find_spec

from monoglot.errors import InputError

__all__ = ["require"]

NEEDED = ("onnx", "onnxscript", "onnxruntime")


def require(*packages: str) -> None:
    """InputError with the fix in one line, unless the packages are there; all of the extra unless some are named."""
    missing = [name for name in packages or NEEDED if find_spec(name) is None]
    if missing:
        raise InputError(f'export needs {" and ".join(missing)}; run: pip install "monoglot[export]"')
