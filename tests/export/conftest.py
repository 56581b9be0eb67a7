"""A model small enough to be traced in seconds, rows for it, and its export, made once."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image
from small import COLOURS, Cells, square, tiny_model, tiny_tokenizer

from monoglot import store
from monoglot.decode.predict import Predictor, load
from monoglot.export.parity import GREEDY
from monoglot.modalities import image


@pytest.fixture(scope="session")
def cells() -> Iterator[None]:
    """Pictures may be seen by the stand-in encoder, also by models that are loaded."""
    image.ENCODERS["cells"] = lambda settings: Cells("image", settings)
    yield
    del image.ENCODERS["cells"]


@pytest.fixture(scope="session")
def small_folder(cells, tmp_path_factory) -> Path:
    """A saved model of one layer each that reads text and pictures."""
    settings = {"image": {"encoder": "cells", "size": 64}}
    model = tiny_model(encoders=True, encoder_layers=1, decoder_layers=1, modalities=settings)
    folder = tmp_path_factory.mktemp("models") / "small"
    store.save_model(folder, model, tiny_tokenizer())
    return folder


@pytest.fixture(scope="session")
def rows_file(tmp_path_factory) -> Path:
    """Rows with one picture, two, and none; free answers, choices and a box."""
    folder = tmp_path_factory.mktemp("rows")
    for name, colour in COLOURS.items():
        Image.fromarray(square(colour)).save(folder / f"{name}.png")
    rows = [
        {"task": "name", "image": "red.png", "target": "red"},
        {"task": "classify", "image": "blue.png", "text": "what colour?", "choices": ["red", "blue"], "target": "blue"},
        {"task": "grounding", "image": "red.png", "text": "the red square", "box": [0.2, 0.2, 0.6, 0.6]},
        {"task": "vqa", "image": ["red.png", "black.png"], "text": "which is darker?", "target": "black"},
        {"task": "summarize", "text": "the red hat that the heat hit", "target": "hat"},
    ]
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps({"id": str(index), **row}) + "\n" for index, row in enumerate(rows)))
    return path


@pytest.fixture(scope="session")
def original(small_folder) -> Predictor:
    return load(small_folder, search=GREEDY)


@pytest.fixture(scope="session")
def exported(small_folder, rows_file, tmp_path_factory) -> Path:
    for package in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(package)
    from monoglot.export.run import export

    return export(small_folder, tmp_path_factory.mktemp("exports") / "small-onnx", data=rows_file, quiet=True).folder
