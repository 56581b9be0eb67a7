"""CTranslate2's `model.bin`, read without CTranslate2: a header, then named arrays one after the other, then aliases.

All numbers are little-endian; a string is u16 length (its closing NUL included) and the bytes:

    u32 version (6) | string spec | u32 revision | u32 n
    n times:  string name | u8 rank | rank x u32 dimension | u8 dtype | u32 bytes | data
    u32 m
    m times:  string alias | string name

Names of a Whisper file, under `encoder/` and `decoder/`, weights as [out, in]:

    conv1, conv2, position_encodings/encodings, embeddings/weight, layer_norm/{gamma,beta}, layer_I/...
    self_attention/linear_0 = Q, K, V stacked (the bias of K is zero), linear_1 = out
    attention/linear_0 = Q, linear_1 = K, V stacked, linear_2 = out         (attention to the encoder's output)
    ffn/linear_0, ffn/linear_1; each block has its own layer_norm, applied before it
    decoder/projection/weight is an alias of decoder/embeddings/weight
"""

from __future__ import annotations

import math
from os import PathLike
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from monoglot.errors import InputError

VERSION = 6
"""The only layout that this page knows."""
DTYPES: dict[int, np.dtype[Any]] = {
    0: np.dtype("<f4"),
    1: np.dtype("i1"),
    2: np.dtype("<i2"),
    3: np.dtype("<i4"),
    4: np.dtype("<f2"),
}
"""Code in the file -> type. Code 5, bfloat16, has no NumPy type and is refused."""


def read_ctranslate2(path: str | PathLike[str]) -> dict[str, np.ndarray]:
    """Every array of a CTranslate2 `model.bin`, by name; an alias is the very array it stands for.

    Returns:
        Read-only views of the mapped file in the type that it stores (float16 stays float16), so nothing is read
        before it is used. They may be unaligned: copy them (`np.array(x, np.float32)`) before computing.

    Raises:
        InputError: absent, empty, cut short, longer than it says, or not such a file.

    >>> weights = read_ctranslate2("model.bin")  # doctest: +SKIP
    >>> weights["decoder/embeddings/weight"].shape, weights["decoder/embeddings/weight"].dtype.name  # doctest: +SKIP
    ((51864, 384), 'float16')
    """
    path = Path(path)
    try:
        if path.stat().st_size == 0:
            raise InputError.at(path, "", "is empty", "give a CTranslate2 model.bin")
        data = np.memmap(path, np.uint8, mode="r")
    except OSError as error:
        raise InputError.at(path, "", f"cannot be read ({error.strerror})", "give a CTranslate2 model.bin") from error

    cursor = _Cursor(path, data)
    version = cursor.number(4, "version")
    if version != VERSION:
        cursor.refuse("version", f"reads {version}, expected {VERSION}", "give a CTranslate2 model.bin")
    cursor.string("spec")
    cursor.number(4, "revision")

    arrays: dict[str, np.ndarray] = {}
    for index in range(cursor.number(4, "number of arrays")):
        name = cursor.string(f"array {index}")
        if name in arrays:
            cursor.refuse(name, "appears twice")
        shape = tuple(cursor.number(4, name) for _ in range(cursor.number(1, name)))
        code = cursor.number(1, name)
        if code not in DTYPES:
            cursor.refuse(name, f"has type code {code}", f"expected one of {sorted(DTYPES)}")
        size, expected = cursor.number(4, name), math.prod(shape) * DTYPES[code].itemsize
        if size != expected:
            cursor.refuse(name, f"holds {size} bytes, its shape {shape} in {DTYPES[code].name} needs {expected}")
        arrays[name] = cursor.take(size, name).view(DTYPES[code]).reshape(shape)
    for index in range(cursor.number(4, "number of aliases")):
        alias, name = cursor.string(f"alias {index}"), cursor.string(f"alias {index}")
        if alias in arrays:
            cursor.refuse(alias, "is an array and an alias")
        if name not in arrays:
            cursor.refuse(alias, f"stands for {name!r}, which the file does not hold")
        arrays[alias] = arrays[name]
    if cursor.at != len(data):
        cursor.refuse("", f"{len(data) - cursor.at} bytes follow the last entry", "the file is damaged: fetch it again")
    return arrays


class _Cursor:
    """Reads forward through the bytes and never past their end."""

    def __init__(self, path: Path, data: np.ndarray):
        self.path, self.data, self.at = path, data, 0

    def refuse(self, field: str, wrong: str, fix: str = "") -> NoReturn:
        raise InputError.at(self.path, field, wrong, fix)

    def take(self, size: int, field: str) -> np.ndarray:
        """The next `size` bytes, uint8[size]."""
        if self.at + size > len(self.data):
            wrong = f"needs {size} bytes at offset {self.at}, the file ends at {len(self.data)}"
            self.refuse(field, wrong, "the file is cut short or not a CTranslate2 model.bin")
        self.at += size
        return self.data[self.at - size : self.at]

    def number(self, size: int, field: str) -> int:
        """An unsigned number of `size` bytes."""
        return int.from_bytes(self.take(size, field).tobytes(), "little")

    def string(self, field: str) -> str:
        raw = self.take(self.number(2, field), field).tobytes()
        if not raw.endswith(b"\0"):
            self.refuse(field, "is not a string that ends with NUL", "give a CTranslate2 model.bin")
        try:
            return raw[:-1].decode()
        except UnicodeDecodeError:
            self.refuse(field, "is not UTF-8", "give a CTranslate2 model.bin")
