"""Trackers: what reaches TensorBoard and MLflow, read back by their own packages; resumes, failures, missing packages."""

from __future__ import annotations

import json
import math
from collections import Counter
from typing import ClassVar

import pytest

from monoglot.errors import InputError
from monoglot.train import tracking
from monoglot.train.tracking import TRACKERS, Tracking, flat, settings

RECIPE = {"name": "run one", "mixture": [{"name": "drums", "quota": 2.5}], "stages": [], "long": "x" * 7000}
LINES = [
    {"event": "begin", "step": 0, "time": "2026-11-26T10:00:00", "machine": {"threads": 2}},
    *({"step": step, "seconds": step / 2, "loss": {"drums": 1 / step}, "lr": 1e-3} for step in (10, 20, 30)),
    {"step": 30, "held_out": {"drums": 0.5}, "regret": {"drums": 0.0}},
]


def notes() -> list[str]:
    return []


# --- lines as numbers -------------------------------------------------------------------------------------------------


def test_every_number_of_a_line_has_one_name():
    line = {
        "step": 310,
        "stage": "clips",
        "seconds": 12.5,
        "loss": {"a": 1.0, "b": None},
        "rows": {"a": 35},
        "quotas": {"a": 3.5},
        "tokens": {"source": 10, "padding": 2},
        "wait": 0.25,
        "diverged": True,
        "norm": float("nan"),
    }
    numbers = flat(line)
    assert math.isnan(numbers.pop("norm"))
    assert numbers == {
        "seconds": 12.5,
        "loss/a": 1.0,
        "rows/a": 35.0,
        "quotas/a": 3.5,
        "tokens/source": 10.0,
        "tokens/padding": 2.0,
        "wait": 0.25,
    }


@pytest.mark.parametrize(
    ("line", "numbers"),
    [
        ({"event": "end", "step": 600, "seconds": 9.0}, {}),
        ({"event": "stage", "step": 3, "stage": "a", "index": 1, "sources": {}}, {}),
        ({"event": "back", "step": 420, "to": 400, "why": "x"}, {"back": 1.0}),
        ({"step": 4, "samples": [{"set": "a", "confidence": 0.5}]}, {}),
        ({"step": 5, "conflicts": {"names": ["a"], "cosine": [[1.0]]}}, {}),
        ({"step": 5, "conflicts": {"names": ["a", "b"], "cosine": [[1.0, None], [None, 1.0]]}}, {}),
    ],
)
def test_what_is_no_number_is_left_out(line, numbers):
    assert flat(line) == numbers


def test_settings_have_names_of_their_own():
    found = settings({"mixture": [{"name": "a", "quota": 1}, {"name": "b", "quota": 2}], "betas": [0.9], "x": None})
    assert found == {"mixture.a.quota": "1", "mixture.b.quota": "2", "betas": "[0.9]", "x": "null"}


# --- trackers that are wrong or fail ----------------------------------------------------------------------------------


def test_a_missing_package_is_told_before_anything_starts(monkeypatch):
    monkeypatch.setattr(tracking, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r'^recipe: track: mlflow needs mlflow and .*pip install "monoglot\[mlflow\]"'):
        Tracking(["mlflow"], print)
    with pytest.raises(InputError, match="no tracker named 'mlfow'; closest: 'mlflow'"):
        Tracking(["mlfow"], print)


class Fragile:
    """Fails at a call that a test names."""

    needs = ()
    fails = ""
    calls: ClassVar[Counter] = Counter()

    def _call(self, name):
        self.calls[name] += 1
        if name == self.fails:
            raise ConnectionError("the\nserver is gone")

    def begin(self, recipe, folder):
        self._call("begin")

    def log(self, step, numbers):
        self._call("log")

    def end(self, status):
        self._call("end")


@pytest.fixture
def fragile(monkeypatch):
    monkeypatch.setitem(TRACKERS._entries, "fragile", Fragile)
    monkeypatch.setattr(Fragile, "calls", Counter())

    def fails(name):
        monkeypatch.setattr(Fragile, "fails", name)
        return Fragile.calls

    return fails


def test_a_tracker_that_cannot_begin_stops_the_run_before_it_starts(fragile, tmp_path):
    fragile("begin")
    with pytest.raises(InputError, match=r"track: fragile cannot be opened \(ConnectionError: the server is gone\)"):
        Tracking(["fragile"], print).begin({}, tmp_path)


@pytest.mark.parametrize(
    ("fails", "calls"), [("log", {"begin": 1, "log": 1}), ("end", {"begin": 1, "log": 4, "end": 1})]
)
def test_a_tracker_that_fails_is_noted_once_and_left_out(fragile, tmp_path, fails, calls):
    counted, said = fragile(fails), notes()
    run(Tracking(["fragile"], said.append), tmp_path)
    assert counted == calls
    assert said == [
        "fragile failed and is left out from here on; the run goes on (ConnectionError: the server is gone)"
    ]


def test_no_tracker_is_fine(tmp_path):
    run(Tracking([], pytest.fail), tmp_path)
    assert list(tmp_path.iterdir()) == []


def run(trackers: Tracking, folder, lines=LINES, status="finished") -> None:
    trackers.begin(RECIPE, folder)
    for line in lines:
        trackers.log(line)
    trackers.end(status)


# --- the real ones ----------------------------------------------------------------------------------------------------


def scalars(folder) -> dict[str, list[tuple[int, float]]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder / "tensorboard"))
    events.Reload()
    return {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def test_tensorboard_reads_what_was_written_and_nothing_twice(tmp_path):
    pytest.importorskip("tensorboard")
    killed = Tracking(["tensorboard"], pytest.fail)
    killed.begin(RECIPE, tmp_path)
    for line in LINES[:4]:
        killed.log(line)  # and never ends: the run was killed after step 30 and goes on from step 10
    again = Tracking(["tensorboard"], pytest.fail)
    run(again, tmp_path, [*LINES[2:], {"step": 40, "loss": {"drums": float("nan")}}])
    found = scalars(tmp_path)
    assert [step for step, _ in found["loss/drums"]] == [10, 20, 30, 40]
    assert found["loss/drums"][0][1] == pytest.approx(0.1)
    assert math.isnan(found["loss/drums"][-1][1])
    assert found["held_out/drums"] == [(30, 0.5)]
    assert [step for step, _ in found["lr"]] == [10, 20, 30]


def test_an_event_file_that_was_cut_off_is_gone_on_with(tmp_path):
    pytest.importorskip("tensorboard")
    run(Tracking(["tensorboard"], pytest.fail), tmp_path)
    (file,) = (tmp_path / "tensorboard").iterdir()
    file.write_bytes(file.read_bytes()[:-7])
    run(Tracking(["tensorboard"], pytest.fail), tmp_path, [LINES[3], {"step": 40, "loss": {"drums": 9.0}}])
    assert [step for step, _ in scalars(tmp_path)["loss/drums"]] == [10, 20, 30, 40]


@pytest.fixture
def no_mlflow_settings(monkeypatch):
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="module")
def empty_store(tmp_path_factory):
    """A database with MLflow's tables, which take seconds to make."""
    pytest.importorskip("mlflow")
    pytest.importorskip("sqlalchemy")
    pytest.importorskip("alembic")
    tracking._quiet_mlflow()
    from mlflow.tracking import MlflowClient

    path = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    MlflowClient(f"sqlite:///{path}").search_experiments()
    return path


@pytest.fixture
def runs(empty_store, tmp_path, no_mlflow_settings, monkeypatch):
    """A folder of runs whose store is there already."""
    folder = tmp_path / "runs"
    folder.mkdir()
    (folder / "mlflow.db").write_bytes(empty_store.read_bytes())
    monkeypatch.chdir(tmp_path)
    return folder


def test_mlflow_keeps_a_run_with_its_settings_numbers_and_files(runs, tmp_path):
    from mlflow.tracking import MlflowClient

    folder = runs / "one"
    folder.mkdir()
    (folder / "recipe.yaml").write_text("name: one\n")
    (folder / "report.html").write_text("<p>")
    odd = {"step": 40, "loss": {"a:b 名前": 2.0, "nothing": float("nan")}, "rows": {f"s{n}": n for n in range(1100)}}
    run(Tracking(["mlflow"], pytest.fail), folder, [*LINES, odd])
    client = MlflowClient(f"sqlite:///{runs / 'mlflow.db'}")
    kept = client.get_run(json.loads((folder / "mlflow.json").read_text())["run"])
    assert (kept.info.status, kept.info.run_name) == ("FINISHED", "run one")
    assert kept.data.params["mixture.drums.quota"] == "2.5"
    assert len(kept.data.params["long"]) == 6000
    assert kept.data.metrics["loss/a_b 名前"] == 2.0
    assert math.isnan(kept.data.metrics["loss/nothing"])
    assert kept.data.metrics["rows/s1099"] == 1099
    history = client.get_metric_history(kept.info.run_id, "loss/drums")
    assert [(point.step, point.value) for point in history] == [(10, 1 / 10), (20, 1 / 20), (30, 1 / 30)]
    assert {file.path for file in client.list_artifacts(kept.info.run_id)} == {"recipe.yaml", "report.html"}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["runs"]  # nothing where the command was started
    assert sorted(path.name for path in runs.iterdir()) == ["mlflow.db", "mlflow_artefacts", "one"]


def test_mlflow_goes_on_with_the_same_run(runs):
    from mlflow.tracking import MlflowClient

    folder = runs / "one"
    run(Tracking(["mlflow"], pytest.fail), folder, LINES[:4], status="stopped")
    client = MlflowClient(f"sqlite:///{runs / 'mlflow.db'}")
    number = json.loads((folder / "mlflow.json").read_text())["run"]
    assert client.get_run(number).info.status == "KILLED"
    again = Tracking(["mlflow"], pytest.fail)
    again.begin(RECIPE, folder)
    assert client.get_run(number).info.status == "RUNNING"
    for line in [*LINES[2:], {"step": 40, "loss": {"drums": 1 / 40}}]:
        again.log(line)
    again.end("finished")
    assert client.get_run(number).info.status == "FINISHED"
    assert [point.step for point in client.get_metric_history(number, "loss/drums")] == [10, 20, 30, 40]
    assert [point.step for point in client.get_metric_history(number, "held_out/drums")] == [30]
    assert len(client.search_runs([client.get_run(number).info.experiment_id])) == 1


def test_a_run_that_mlflow_does_not_know_is_told(runs):
    folder = runs / "one"
    folder.mkdir()
    (folder / "mlflow.json").write_text('{"run": "0123456789abcdef0123456789abcdef"}')
    with pytest.raises(InputError, match=r"mlflow.json: run: MLflow has no run 0123.*MLFLOW_TRACKING_URI"):
        Tracking(["mlflow"], pytest.fail).begin(RECIPE, folder)


def test_mlflow_goes_where_the_environment_says(runs, tmp_path, monkeypatch):
    other = tmp_path / "other.db"
    other.write_bytes((runs / "mlflow.db").read_bytes())
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{other}")
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "mine")
    trackers = Tracking(["mlflow"], pytest.fail)
    trackers.begin(RECIPE, runs / "one")
    from mlflow.tracking import MlflowClient

    assert MlflowClient(f"sqlite:///{other}").get_experiment_by_name("mine") is not None
    assert MlflowClient(f"sqlite:///{runs / 'mlflow.db'}").get_experiment_by_name("mine") is None
