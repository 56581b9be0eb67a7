"""Fixtures that many tests need; what they are made of is in small.py."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Callable
from pathlib import Path

if platform.machine() in ("x86_64", "AMD64"):
    # Before torch is there: a processor that multiplies bfloat16 would be picked for it by itself, and answers then differ in their last bits.
    os.environ.setdefault("ATEN_CPU_CAPABILITY", "avx2")

import numpy as np
import pytest
from hypothesis import settings
from PIL import Image
from small import COLOURS, square, tiny_model, tiny_tokenizer

from monoglot import store
from monoglot.cli import main
from monoglot.interop.parts import MissingPart, fetch_part
from monoglot.text.tokenizer import Tokenizer

settings.register_profile("monoglot", deadline=None, max_examples=50, derandomize=True)
settings.load_profile("monoglot")


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    return tiny_tokenizer()


@pytest.fixture(scope="session")
def part():
    """A pretrained part that is on this disk already; nothing is downloaded."""

    def find(name: str):
        try:
            return fetch_part(name, download=False)
        except MissingPart as missing:
            pytest.skip(f"run monoglot.interop.fetch_part({name!r}) once: {missing}")

    return find


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory) -> Path:
    """A saved model that reads pictures, clips and sounds; it has learned nothing."""
    modalities = {
        "image": {"size": 32},
        "video": {"size": 32, "frames": 2, "frame_positions": 4},
        "audio": {"pad_seconds": 0.1, "max_seconds": 1.0},
    }
    folder = tmp_path_factory.mktemp("models") / "tiny"
    store.save_model(folder, tiny_model(encoders=True, modalities=modalities), tiny_tokenizer())
    return folder


@pytest.fixture(scope="session")
def loaded(model_folder):
    return store.load_model(model_folder)


@pytest.fixture
def command(model_folder, loaded, monkeypatch, capfd) -> Callable[..., tuple[int, str, str]]:
    """Run a command line; returns exit code, stdout, stderr. `model_folder` is read from disk only once."""
    from monoglot.decode import predict

    def load(folder):
        return loaded if Path(folder) == model_folder else store.load_model(folder)

    monkeypatch.setattr(predict, "load_model", load)

    def run(*arguments: object) -> tuple[int, str, str]:
        capfd.readouterr()
        with pytest.raises(SystemExit) as stop:
            main([str(argument) for argument in arguments])
        return stop.value.code, *capfd.readouterr()

    return run


@pytest.fixture
def coloured_rows(tmp_path):
    """Write pictures of coloured squares and a file of rows that name their colours and find them; returns the file."""

    def write(count: int = 16, name: str = "rows.jsonl") -> Path:
        rng = np.random.default_rng(0)
        rows = []
        for index in range(count):
            colour = list(COLOURS)[index % len(COLOURS)]
            row, column = (int(number) for number in rng.integers(0, 60, 2))
            Image.fromarray(square(COLOURS[colour], (row, column))).save(tmp_path / f"{index}.png")
            shared = {"image": f"{index}.png", "meta": "kept"}
            rows.append({"id": f"n{index}", "task": "name", "target": colour, **shared})
            box = [column / 90, row / 90, (column + 30) / 90, (row + 30) / 90]
            rows.append({"id": f"g{index}", "task": "grounding", "text": f"the {colour} square", "box": box, **shared})
        path = tmp_path / name
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return path

    return write
