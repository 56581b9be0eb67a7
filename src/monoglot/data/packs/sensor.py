"""The pack `sensor`: what a watch on the wrist measures while a person exercises a shoulder; a kind of media that nano has never seen.

    recordings (package) -> media/*.npy, float32[n, 6] at 50 Hz -> windows of four seconds -> which exercise?, a sentence

Ten people, seven exercises, both arms: 140 recordings of some twenty repetitions. Subjects are held out: no person is in two splits.
Rows name their media `sensor`, which examples/sensor.py reads.

Source: D. Burns et al., Shoulder Physiotherapy Exercise Recognition (arXiv 1802.01489).
"""

from __future__ import annotations

import io
import pickle
from pathlib import Path
from typing import Any

import numpy as np

from monoglot.data.packs.base import PACKS, Pack, PackWriter
from monoglot.data.packs.fetch import MissingSource, pip

PACKAGE, VERSION = "seglearn", "1.2.5"
SHA256 = "ec6b952c85c9627050102854b372d85951563d3b990df677d7c55547e87413dd"
"""Of the wheel."""
FILE = "seglearn/data/watch_dataset.npy"
RATE = 50
"""Readings a second."""
WINDOW = 4
"""Seconds of a row: one to three repetitions."""
EXERCISES = {
    "PEN": "pendulum swings",
    "ABD": "abduction",
    "FEL": "forward elevation",
    "IR": "internal rotation",
    "ER": "external rotation",
    "TRAP": "trapezius extension",
    "ROW": "upright row",
}
"""The data set's letters in words; source: the paper, table 1."""
SPLITS = {"valid": (7,), "test": (8, 9, 10)}
"""Numbers of people; all others train."""
QUESTION = "which exercise is this?"
LICENCE = "BSD-3-Clause"
_PLAIN = {("numpy.core.multiarray", "_reconstruct"), ("numpy", "ndarray"), ("numpy", "dtype"), ("_codecs", "encode")}


class _Arrays(pickle.Unpickler):
    """Reads containers, text, numbers and arrays, and runs nothing else: the file holds Python objects."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _PLAIN:
            raise pickle.UnpicklingError(f"{module}.{name} is no array")
        return super().find_class(module, name)


def read_recordings(path: Path) -> dict[str, Any]:
    """What the file holds: "X" recordings [n, 6] each, "y" and "y_labels" exercises, "subject", "side" (1: right).

    Raises:
        MissingSource: it is not there, or something else.
    """
    try:
        data = io.BytesIO(path.read_bytes())
        version = np.lib.format.read_magic(data)
        assert version == (1, 0), version
        np.lib.format.read_array_header_1_0(data)
        return _Arrays(data).load().item()
    except (OSError, ValueError, AssertionError, AttributeError, EOFError, pickle.UnpicklingError) as error:
        raise MissingSource(f"{path.name}: not the recordings that are expected ({error})") from None


def build_sensor(writer: PackWriter) -> None:
    """Write each recording once, then the rows about its windows."""
    package = pip(PACKAGE, VERSION)
    if package.sha256 != SHA256:
        raise MissingSource(f"pip package {PACKAGE}=={VERSION}: is not the wheel that was looked at (sha256 differs)")
    writer.source(package)
    text = "Copyright (c) 2018, David M. Burns. All rights reserved. Recorded as arXiv 1802.01489 describes: ten healthy adults, a watch on\n"
    text += "the wrist, six axes of motion at 50 Hz. Changes: stored as float32; named in words; cut into windows by the rows."
    text += "\n\n" + _licence(package.folder)
    writer.notice("seglearn's watch data set", LICENCE, text)
    add_rows(writer, read_recordings(package.folder / FILE))


def add_rows(writer: PackWriter, found: dict[str, Any]) -> None:
    """Media and rows of all recordings; see `read_recordings`."""
    names = list(EXERCISES.values())
    order = np.lexsort((found["side"], found["y"], found["subject"]))
    for number in writer.track(order.tolist(), "recordings"):
        person, letters = int(found["subject"][number]), found["y_labels"][int(found["y"][number])]
        exercise, side = EXERCISES[letters], "right" if found["side"][number] else "left"
        split = next((split for split, people in SPLITS.items() if person in people), "train")
        series = np.asarray(found["X"][number], np.float32)
        key = f"{person:02d}_{letters}_{side}"
        file = io.BytesIO()
        np.save(file, series, allow_pickle=False)
        media = writer.media(f"{key}.npy", file.getvalue())
        for window in range(len(series) // (WINDOW * RATE)):
            at = {"sensor": media, "start": window * WINDOW, "end": (window + 1) * WINDOW}
            held = {"group": f"person {person}", "exercise": letters, "side": side, "licence": LICENCE}
            writer.add(
                "exercise",
                split,
                {"id": f"sensor/exercise/{key}/{window}", "task": "classify", **at, "text": QUESTION}
                | {"target": exercise, "choices": names, **held},
            )
            sentence = f"a person does {exercise} with the {side} arm"
            row = {"id": f"sensor/sentence/{key}/{window}", "task": "caption", **at, "target": sentence, **held}
            writer.add("sentence", split, row)


def _licence(folder: Path) -> str:
    files = sorted(folder.glob("*.dist-info/LICENSE"))
    return files[0].read_text(encoding="utf-8") if files else ""


SENSOR = PACKS.add(
    "sensor",
    Pack(
        name="sensor",
        summary="motion of a watch in seven shoulder exercises: which one, and a sentence (needs examples/sensor.py)",
        build=build_sensor,
    ),
)
