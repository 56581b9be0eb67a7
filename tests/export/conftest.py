"""A tiny model with real encoders, rows of every kind of media, and its export, made once."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
from PIL import Image
from small import COLOURS, square

from monoglot.decode.predict import Predictor, load
from monoglot.export.parity import GREEDY


@pytest.fixture(scope="session")
def rows_file(tmp_path_factory) -> Path:
    """Rows with a picture, a clip, sounds of two lengths, two media at once, and none."""
    folder = tmp_path_factory.mktemp("rows")
    Image.fromarray(square(COLOURS["red"])).save(folder / "red.png")
    Image.fromarray(square(COLOURS["blue"])).convert("RGBA").save(folder / "blue.png")
    frames = [Image.fromarray(square(COLOURS["green"], (10, place))) for place in (0, 20, 40)]
    frames[0].save(folder / "green.gif", save_all=True, append_images=frames[1:], duration=100)
    rng = np.random.default_rng(0)
    for name, count in (("short", 3000), ("long", 9000)):
        soundfile.write(folder / f"{name}.wav", rng.normal(0, 0.1, count).clip(-1, 1), 16_000)
    rows = [
        {"task": "name", "image": "red.png", "target": "red"},
        {"task": "classify", "image": "blue.png", "text": "what colour?", "choices": ["red", "blue"], "target": "blue"},
        {"task": "grounding", "image": "red.png", "text": "the red square", "box": [0.2, 0.2, 0.6, 0.6]},
        {"task": "vqa", "video": "green.gif", "text": "what moves?", "target": "green"},
        {"task": "classify", "audio": "short.wav", "text": "which?", "choices": ["hat", "the hat"], "target": "hat"},
        {"task": "matching", "image": "blue.png", "audio": "long.wav", "choices": ["yes", "no"], "target": "no"},
        {"task": "summarize", "text": "the red hat that the heat hit", "target": "hat"},
    ]
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps({"id": str(index), **row}) + "\n" for index, row in enumerate(rows)))
    return path


@pytest.fixture(scope="session")
def original(model_folder) -> Predictor:
    return load(model_folder, search=GREEDY)


@pytest.fixture(scope="session")
def exported(model_folder, rows_file, tmp_path_factory) -> Path:
    for package in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(package)
    from monoglot.export.run import export

    return export(model_folder, tmp_path_factory.mktemp("exports") / "tiny-onnx", data=rows_file, quiet=True).folder
