"""The pack `sensor`: built from a few made-up recordings, stored as the package stores them. No network."""

from __future__ import annotations

import json
import os
import pickle
from collections import defaultdict

import numpy as np
import pytest
from media import EXAMPLES, plugged

from monoglot.data.packs import sensor
from monoglot.data.packs.base import PackWriter
from monoglot.data.packs.fetch import MissingSource, Package
from monoglot.data.rows import check_rows
from monoglot.tasks import TASKS, pose


def stored(path, found) -> None:
    """An array of one object, as numpy writes it."""
    path.parent.mkdir(parents=True)
    holder = np.empty((), object)
    holder[()] = found
    # The package's file was written by an older numpy, whose modules had other names.
    pickled = pickle.dumps(holder, protocol=2).replace(b"numpy._core.multiarray", b"numpy.core.multiarray")
    with open(path, "wb") as file:
        np.lib.format.write_array_header_1_0(file, np.lib.format.header_data_from_array_1_0(holder))
        file.write(pickled)


@pytest.fixture
def package(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    people, labels = (1, 7, 8), list(sensor.EXERCISES)
    cases = [(person, y, side) for person in people for y in range(7) for side in (0.0, 1.0)]
    found = {
        "X": [rng.normal(size=(450 + 10 * number, 6)) for number in range(len(cases))],
        "y": np.array([y for _, y, _ in cases]),
        "y_labels": labels,
        "subject": np.array([person for person, _, _ in cases]),
        "side": np.array([side for _, _, side in cases]),
    }
    folder = tmp_path / "package"
    stored(folder / sensor.FILE, found)
    made = Package("pip", sensor.PACKAGE, sensor.VERSION, sensor.SHA256, folder)
    monkeypatch.setattr(sensor, "pip", lambda name, version: made)
    return made, found


def test_rows_are_windows_of_recordings_and_people_are_held_out(package, tmp_path):
    _, found = package
    with PackWriter("sensor", tmp_path / "packs") as writer:
        sensor.build_sensor(writer)
    people, windows = defaultdict(set), defaultdict(list)
    for split in ("train", "valid", "test"):
        for subset in ("exercise", "sentence"):
            path = tmp_path / "packs" / "sensor" / f"{subset}.{split}.jsonl"
            with plugged(EXAMPLES / "sensor.py"):
                assert check_rows(path, known_tasks=TASKS, check=pose).ok
            for row in map(json.loads, path.read_text().splitlines()):
                people[split].add(row["group"])
                windows[subset, row["sensor"]].append((row["start"], row["end"]))
                name = sensor.EXERCISES[row["exercise"]]
                sentence = f"a person does {name} with the {row['side']} arm"
                assert row["target"] == {"exercise": name, "sentence": sentence}[subset]
    assert people == {"train": {"person 1"}, "valid": {"person 7"}, "test": {"person 8"}}
    assert len(windows) == 2 * len(found["X"])
    first = tmp_path / "packs/sensor/media/01_PEN_left.npy"
    np.testing.assert_array_equal(np.load(first), found["X"][0].astype(np.float32))
    assert windows["exercise", "media/01_PEN_left.npy"] == [(0, 4), (4, 8)], "450 readings are nine seconds"
    assert "BSD" in (tmp_path / "packs/sensor/NOTICE.md").read_text()


def test_another_wheel_is_refused(package, tmp_path, monkeypatch):
    monkeypatch.setattr(sensor, "SHA256", "0" * 64)
    with pytest.raises(MissingSource, match="sha256 differs"), PackWriter("sensor", tmp_path / "p") as writer:
        sensor.build_sensor(writer)


class Harmful:
    def __reduce__(self):
        return os.system, ("touch was_run",)


def test_nothing_in_the_file_is_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    stored(tmp_path / "a" / "file.npy", {"X": Harmful()})
    with pytest.raises(MissingSource, match=r"file.npy: not the recordings that are expected \(.*system is no array"):
        sensor.read_recordings(tmp_path / "a" / "file.npy")
    assert not (tmp_path / "was_run").exists()
    (tmp_path / "b.npy").write_bytes(pickle.dumps({}))
    with pytest.raises(MissingSource, match=r"b.npy: not the recordings"):
        sensor.read_recordings(tmp_path / "b.npy")


def test_the_rows_say_which_plugin_is_missing(package, tmp_path):
    with PackWriter("sensor", tmp_path / "packs") as writer:
        sensor.build_sensor(writer)
    with plugged():
        problems = check_rows(tmp_path / "packs/sensor/exercise.test.jsonl").problems
    assert problems
    assert all("no modality named 'sensor'" in problem for problem in problems)
