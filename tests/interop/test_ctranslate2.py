"""The reader against files written here from the format's description, whole and damaged."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest

from monoglot.errors import InputError
from monoglot.interop import read_ctranslate2

CODES = {"float32": 0, "int8": 1, "int16": 2, "int32": 3, "float16": 4}


def string(text: str) -> bytes:
    return struct.pack("<H", len(text) + 1) + text.encode() + b"\0"


def entry(name: str, array: np.ndarray, code: int | None = None, size: int | None = None) -> bytes:
    code = CODES[array.dtype.name] if code is None else code
    head = string(name) + struct.pack("<B", array.ndim) + struct.pack(f"<{array.ndim}I", *array.shape)
    return head + struct.pack("<BI", code, array.nbytes if size is None else size) + array.tobytes()


def model_bin(entries: list[bytes], aliases: list[tuple[str, str]] = (), version: int = 6) -> bytes:
    head = struct.pack("<I", version) + string("WhisperSpec") + struct.pack("<II", 3, len(entries))
    tail = struct.pack("<I", len(aliases)) + b"".join(string(a) + string(b) for a, b in aliases)
    return head + b"".join(entries) + tail


def write(folder: Path, data: bytes) -> Path:
    path = folder / "model.bin"
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("dtype", CODES)
@pytest.mark.parametrize("shape", [(), (0,), (5,), (3, 4), (2, 3, 4)])
def test_round_trip(tmp_path, dtype, shape):
    array = np.random.default_rng(0).normal(0, 50, shape).astype(dtype)
    # A name of odd length, so that the data lie at odd offsets.
    path = write(tmp_path, model_bin([entry("a", np.int8(1)), entry("odd", np.asarray(array))], [("tied", "odd")]))
    arrays = read_ctranslate2(path)
    assert set(arrays) == {"a", "odd", "tied"}
    assert arrays["odd"].dtype == dtype
    assert arrays["odd"].shape == shape
    np.testing.assert_array_equal(arrays["odd"], array)
    assert arrays["tied"] is arrays["odd"]
    assert not arrays["odd"].flags.writeable


def test_nothing_is_read_before_it_is_used(tmp_path):
    """A sparse file of 1 GB opens at once."""
    head = struct.pack("<I", 6) + string("Spec") + struct.pack("<II", 1, 1) + string("big")
    head += struct.pack("<BIBI", 1, 1 << 28, 0, 1 << 30)
    path = write(tmp_path, head)
    with path.open("r+b") as stream:
        stream.truncate(len(head) + (1 << 30) + 4)
    assert read_ctranslate2(str(path))["big"].shape == (1 << 28,)


def test_every_truncation_is_told(tmp_path):
    whole = model_bin([entry("one", np.arange(3, dtype=np.int16)), entry("two", np.ones((1, 2), "f4"))], [("x", "one")])
    assert read_ctranslate2(write(tmp_path, whole))
    for length in range(len(whole)):
        with pytest.raises(InputError, match=r"cut short|is empty") as caught:
            read_ctranslate2(write(tmp_path, whole[:length]))
        assert str(tmp_path / "model.bin") in str(caught.value)
        assert "\n" not in str(caught.value)


ONE = entry("one", np.zeros(2, np.float32))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"PK\x03\x04" + bytes(100), "version: reads 67324752, expected 6"),
        (model_bin([ONE], version=5), "version: reads 5, expected 6"),
        (model_bin([ONE]) + b"?", "1 bytes follow the last entry"),
        (model_bin([ONE, ONE]), "one: appears twice"),
        (model_bin([entry("one", np.zeros(2, np.int16), code=5)]), "one: has type code 5"),
        (model_bin([entry("one", np.zeros(2, np.float32), size=7)]), r"holds 7 bytes, its shape \(2,\).*needs 8"),
        (model_bin([ONE], [("x", "two")]), "x: stands for 'two', which the file does not hold"),
        (model_bin([ONE], [("one", "one")]), "one: is an array and an alias"),
        (model_bin([ONE]).replace(b"one\0", b"one!"), "does not end|is not a string"),
        (model_bin([ONE]).replace(b"one\0", b"\xff\xffe\0"), "is not UTF-8"),
    ],
)
def test_foreign_and_damaged_files(tmp_path, data, message):
    with pytest.raises(InputError, match=message):
        read_ctranslate2(write(tmp_path, data))


def test_absent_file_and_folder(tmp_path):
    for path in (tmp_path / "absent.bin", tmp_path):
        with pytest.raises(InputError, match="cannot be read"):
            read_ctranslate2(path)
