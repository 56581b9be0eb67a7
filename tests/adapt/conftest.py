"""A base that can be adapted in no time, and squares that it has not learned the colours of."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from small import COLOURS, square, tiny_model, tiny_tokenizer

from monoglot.adapt import run as run_module
from monoglot.store import save_model
from monoglot.train import run as train_module

QUESTION = "what colour?"


@pytest.fixture(autouse=True)
def light(monkeypatch, tmp_path):
    """Features are kept apart from the user's own, and the report of the training, which tests/report looks at, is not drawn."""
    monkeypatch.setenv("MONOGLOT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(train_module, "write_run_report", lambda folder: folder / "report.html")
    # Training goes over in a few steps here, so it may also be short.
    monkeypatch.setattr(run_module, "steps_for", lambda rows: 48)


@pytest.fixture(scope="session")
def base(tmp_path_factory) -> Path:
    """A model folder with real eyes; it has learned nothing."""
    folder = tmp_path_factory.mktemp("base") / "tiny"
    model = tiny_model(encoders=True, encoder_layers=1, decoder_layers=1, modalities={"image": {"size": 32}})
    with torch.no_grad():
        model.words.weight.mul_(0.2)
    save_model(folder, model, tiny_tokenizer())
    return folder


@pytest.fixture(scope="session")
def pictures(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    for colour, rgb in COLOURS.items():
        for number in range(10):
            row, column = (int(place) for place in rng.integers(0, 20, 2))
            Image.fromarray(square(rgb, (row, column), side=70)).save(folder / f"{colour}{number}.png")
    return folder


@pytest.fixture
def colours(pictures, tmp_path):
    """Write rows that ask for the colour of squares; returns the file."""

    def write(name: str, names=("red", "blue"), numbers=range(8), **changes) -> Path:
        rows = [
            {
                "id": f"{colour}{number}",
                "task": "classify",
                "image": str(pictures / f"{colour}{number}.png"),
                "text": QUESTION,
                "target": colour,
            }
            | changes
            for number in numbers
            for colour in names
        ]
        return write_rows(tmp_path / f"{name}.jsonl", rows)

    return write


def write_rows(path: Path, rows: list[dict]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def texts(tmp_path):
    """Write rows of text alone: to classify, or to answer freely."""

    def write(name: str, task: str = "classify", **changes) -> Path:
        said = {"red": "it is red", "blue": "what is the blue"}
        rows = [
            {
                "id": f"{colour}{n}",
                "task": task,
                "text": f"{text} {n}",
                "target": colour if task == "classify" else text,
            }
            | changes
            for n in range(10)
            for colour, text in said.items()
        ]
        return write_rows(tmp_path / f"{name}.jsonl", rows)

    return write
