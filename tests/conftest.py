"""Fixtures that many tests need; what they are made of is in small.py."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings
from PIL import Image
from small import COLOURS, square, tiny_tokenizer

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
