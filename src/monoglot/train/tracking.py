"""A run seen from outside: each line of metrics.jsonl is copied to the trackers that the recipe names.

    Tracking(names) -> begin -> (line -> flat -> {"loss/names_en": 1.2, ...} -> each tracker's log)* -> end

metrics.jsonl stays the record, so a tracker may fail: before the run that is told and nothing starts; in the run it is
noted once and the run goes on without it.
"""

from __future__ import annotations

import json
import logging
import os
import re
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol

import yaml

from monoglot.errors import InputError
from monoglot.files import read_json, write_json
from monoglot.registry import Registry

Status = Literal["finished", "failed", "stopped"]


class Tracker(Protocol):
    """Something that keeps the numbers of a run. Registered in TRACKERS; made without arguments, once a run."""

    needs: ClassVar[tuple[str, ...]]
    """Modules that must be installed; the extra that brings them has the tracker's name."""

    def begin(self, recipe: dict[str, Any], folder: Path) -> None:
        """A run starts or goes on in `folder`. A run that goes on keeps what is there and never writes a step twice."""

    def log(self, step: int, numbers: dict[str, float]) -> None:
        """Keep numbers of one step; several calls may name one step. What is written survives a kill right after."""

    def end(self, status: Status) -> None:
        """The run is over; recipe.yaml and report.html lie in its folder if they were written."""


TRACKERS: Registry[type[Tracker]] = Registry("tracker")


# --- all trackers of a run --------------------------------------------------------------------------------------------


class Tracking:
    """The trackers of one run.

    Args:
        names: of TRACKERS; none is fine.
        note: takes the one line that says that a tracker failed.

    Raises:
        InputError: there is no such tracker, or its package is missing; names the extra.
    """

    def __init__(self, names: Sequence[str], note: Callable[[str], None]):
        kinds = {name: TRACKERS[name] for name in names}
        for name, kind in kinds.items():
            missing = [module for module in kind.needs if find_spec(module) is None]
            if missing:
                fix = f'run: pip install "monoglot[{name}]", or leave {name} out'
                raise InputError.at("recipe", "track", f"{name} needs {' and '.join(missing)}", fix)
        self._trackers: dict[str, Tracker] = {name: kind() for name, kind in kinds.items()}
        self._note = note

    def begin(self, recipe: dict[str, Any], folder: Path) -> None:
        """Open all, before anything is trained. Raises InputError when one cannot be opened."""
        for name, tracker in self._trackers.items():
            try:
                tracker.begin(recipe, folder)
            except InputError:
                raise
            except Exception as error:  # a tracker's package may raise anything
                wrong = f"{name} cannot be opened ({_one_line(error)})"
                raise InputError.at("recipe", "track", wrong, f"mend it, or leave {name} out") from error

    def log(self, line: Mapping[str, Any]) -> None:
        """One line of metrics.jsonl, as it is written there."""
        if numbers := flat(line):
            self._each(lambda tracker: tracker.log(line["step"], numbers))

    def end(self, status: Status) -> None:
        """Close all; call it after report.html is written, so that it is kept too."""
        self._each(lambda tracker: tracker.end(status))

    def _each(self, call: Callable[[Tracker], None]) -> None:
        for name, tracker in list(self._trackers.items()):
            try:
                call(tracker)
            except Exception as error:  # whatever it is, training is worth more
                del self._trackers[name]
                self._note(f"{name} failed and is left out from here on; the run goes on ({_one_line(error)})")


def flat(line: Mapping[str, Any]) -> dict[str, float]:
    """A line of metrics.jsonl as numbers with one name each: what is not a number is left out.

    >>> flat({"step": 10, "stage": "clips", "loss": {"drums": 1.5, "names": None}, "lr": 0.001})
    {'loss/drums': 1.5, 'lr': 0.001}
    >>> flat({"event": "skipped", "step": 12, "why": "loss is not finite", "norm": 1.0})
    {'skipped': 1.0}
    >>> flat({"step": 20, "conflicts": {"names": ["a", "b"], "cosine": [[1.0, -0.25], [-0.25, 1.0]]}})
    {'conflicts/lowest': -0.25}
    """
    if "event" in line:
        return {line["event"]: 1.0} if line["event"] in ("skipped", "back") else {}
    if "conflicts" in line:
        pairs = [value for i, row in enumerate(line["conflicts"]["cosine"]) for value in row[:i] if value is not None]
        return {"conflicts/lowest": float(min(pairs))} if pairs else {}
    numbers = {}
    for key, value in line.items():
        for name, number in value.items() if isinstance(value, Mapping) else [("", value)]:
            if isinstance(number, (int, float)) and not isinstance(number, bool) and key != "step":
                numbers[f"{key}/{name}" if name else key] = float(number)
    return numbers


class _Written:
    """The last step of each name, so that none is written twice: a resumed run does some steps again, with equal results."""

    def __init__(self, last: Mapping[str, int]):
        self._last = dict(last)

    def fresh(self, step: int, numbers: Mapping[str, float]) -> dict[str, float]:
        """Those that are not written yet; from here on they count as written."""
        new = {name: number for name, number in numbers.items() if step > self._last.get(name, -1)}
        self._last.update(dict.fromkeys(new, step))
        return new


def _one_line(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:200]


# --- TensorBoard ------------------------------------------------------------------------------------------------------


class TensorBoard:
    """Event files in the run's folder, under tensorboard/: `tensorboard --logdir runs` shows all runs."""

    needs: ClassVar[tuple[str, ...]] = ("tensorboard",)

    def begin(self, recipe: dict[str, Any], folder: Path) -> None:
        from torch.utils.tensorboard import SummaryWriter

        events = folder / "tensorboard"
        goes_on = events.is_dir() and any(events.iterdir())
        self._written = _Written(_last_events(events) if goes_on else {})
        self._writer = SummaryWriter(str(events))
        if not goes_on:
            page = yaml.safe_dump(recipe, sort_keys=False, allow_unicode=True)
            self._writer.add_text("recipe", "".join(f"    {line}\n" for line in page.splitlines()))  # Markdown's code

    def log(self, step: int, numbers: dict[str, float]) -> None:
        for name, number in self._written.fresh(step, numbers).items():
            self._writer.add_scalar(name, number, step)
        self._writer.flush()

    def end(self, status: Status) -> None:
        self._writer.close()


def _last_events(folder: Path) -> dict[str, int]:
    """The last step of each number in the event files of a folder."""
    from tensorboard.backend.event_processing.event_accumulator import SCALARS, EventAccumulator

    logging.getLogger("tensorboard").setLevel(logging.ERROR)  # a killed run's last record may be cut off: no news
    events = EventAccumulator(str(folder), size_guidance={SCALARS: 1})  # of each the last is kept
    events.Reload()
    return {tag: events.Scalars(tag)[-1].step for tag in events.Tags()["scalars"]}


TRACKERS.add("tensorboard", TensorBoard)


# --- MLflow -----------------------------------------------------------------------------------------------------------

_KEY, _VALUE = 250, 6000
"""Characters that MLflow lets a name and a parameter's value have (mlflow.utils.validation)."""
_PARAMS, _METRICS = 100, 1000
"""Parameters and metrics that one request may carry (the same page)."""
_STATUS = {"finished": "FINISHED", "failed": "FAILED", "stopped": "KILLED"}


class MLflow:
    """A run in MLflow: in `mlflow.db` beside the run's folder, or where MLFLOW_TRACKING_URI says.

    The settings become parameters, the numbers metrics; recipe.yaml and report.html are kept as artefacts. The run's id
    stands in mlflow.json, and a run that goes on is the same run there.
    """

    needs: ClassVar[tuple[str, ...]] = ("mlflow", "sqlalchemy", "alembic")

    def begin(self, recipe: dict[str, Any], folder: Path) -> None:
        _quiet_mlflow()
        from mlflow.tracking import MlflowClient

        self._folder = folder
        home = folder.resolve().parent
        given = os.environ.get("MLFLOW_TRACKING_URI")
        home.mkdir(parents=True, exist_ok=True)
        self._client = MlflowClient(given or f"sqlite:///{home / 'mlflow.db'}")
        kept = folder / "mlflow.json"
        if kept.exists():
            self._run = str(read_json(kept, "the run's id, written when the run began")["run"])
            self._written = _Written(self._last_metrics(kept))
            self._client.update_run(self._run, status="RUNNING")
            return
        # Left to itself MLflow would put artefacts into the folder that it is started in.
        artefacts = None if given else (home / "mlflow_artefacts").as_uri()
        self._run = self._new_run(str(recipe.get("name", folder.name)), artefacts)
        self._written = _Written({})
        self._log_settings(recipe)
        write_json(kept, {"run": self._run})

    def log(self, step: int, numbers: dict[str, float]) -> None:
        from mlflow.entities import Metric

        now = int(1000 * time.time())
        fresh = self._written.fresh(step, {_allowed(name): number for name, number in numbers.items()})
        metrics = [Metric(name, number, now, step) for name, number in fresh.items()]
        for at in range(0, len(metrics), _METRICS):
            self._client.log_batch(self._run, metrics=metrics[at : at + _METRICS])

    def end(self, status: Status) -> None:
        for name in ("recipe.yaml", "report.html"):
            if (self._folder / name).exists():
                self._client.log_artifact(self._run, str(self._folder / name))
        self._client.set_terminated(self._run, _STATUS[status])

    def _new_run(self, name: str, artefacts: str | None) -> str:
        title = os.environ.get("MLFLOW_EXPERIMENT_NAME", "monoglot")
        experiment = self._client.get_experiment_by_name(title)
        number = (
            experiment.experiment_id
            if experiment
            else self._client.create_experiment(title, artifact_location=artefacts)
        )
        return str(self._client.create_run(number, run_name=name).info.run_id)

    def _log_settings(self, recipe: dict[str, Any]) -> None:
        from mlflow.entities import Param

        params = [Param(_allowed(name), value[:_VALUE]) for name, value in settings(recipe).items()]
        for at in range(0, len(params), _PARAMS):
            self._client.log_batch(self._run, params=params[at : at + _PARAMS])

    def _last_metrics(self, kept: Path) -> dict[str, int]:
        """The last step of each metric of a run that goes on."""
        from mlflow.exceptions import MlflowException

        try:
            found = self._client.get_run(self._run).data.to_proto().metrics
        except MlflowException as error:
            wrong = f"MLflow has no run {self._run} ({_one_line(error)})"
            fix = "set MLFLOW_TRACKING_URI as it was when the run began, or delete this file to begin a new one there"
            raise InputError.at(kept, "run", wrong, fix) from None
        return {metric.key: metric.step for metric in found}


TRACKERS.add("mlflow", MLflow)


def settings(page: Mapping[str, Any], before: str = "") -> dict[str, str]:
    """A recipe as one level of names: data sets and stages by their names, other lists as JSON.

    >>> settings({"steps": 9, "mixture": [{"name": "drums", "quota": 2}], "optimizer": {"betas": [0.9, 0.98]}})
    {'steps': '9', 'mixture.drums.quota': '2', 'optimizer.betas': '[0.9, 0.98]'}
    """
    found = {}
    for key, value in page.items():
        if isinstance(value, (list, tuple)) and value and all(isinstance(v, Mapping) and "name" in v for v in value):
            value = {v["name"]: {inner: v[inner] for inner in v if inner != "name"} for v in value}
        if isinstance(value, Mapping):
            found.update(settings(value, f"{before}{key}."))
        else:
            found[f"{before}{key}"] = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return found


def _allowed(name: str) -> str:
    """A name as MLflow takes it: other signs than these become `_`, and it is cut."""
    return re.sub(r"[^/\w.\- ]", "_", name)[:_KEY]


def _quiet_mlflow() -> None:
    """Before it is imported: nothing is sent home, and a server that is gone is told soon, not after minutes."""
    for name, value in (
        ("MLFLOW_DISABLE_TELEMETRY", "true"),
        ("MLFLOW_LOGGING_LEVEL", "WARNING"),
        ("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2"),
        ("MLFLOW_HTTP_REQUEST_TIMEOUT", "20"),
    ):
        os.environ.setdefault(name, value)
