"""Runs that many tests need: a recipe on coloured squares, and each step's losses as they come."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial

import pytest
import torch
from fleet import Fleet
from runs import texts_page, write_texts
from small import MODALITY_SETTINGS, tiny_model

from monoglot.store import save_model
from monoglot.train import run as run_module
from monoglot.train.loop import train
from monoglot.train.recipe import Recipe

logging.getLogger("c10d-NullHandler-dcp_logger").setLevel(logging.WARNING)  # torch notes two lines a tensor


@pytest.fixture(autouse=True)
def no_report(monkeypatch):
    """Its pictures take longer than these runs; tests/report looks at them."""
    monkeypatch.setattr(run_module, "write_run_report", lambda folder: folder / "report.html")


@pytest.fixture
def start(tokenizer, tmp_path):
    """A model folder to start from: real eyes, dropout on."""
    seeing = {"image": MODALITY_SETTINGS["image"]}
    model = tiny_model(encoders=True, dropout=0.1, drop_path=0.1, modalities=seeing)
    with torch.no_grad():
        model.words.weight.mul_(0.2)  # so that the first loss is about that of a guess
    save_model(tmp_path / "start", model, tokenizer)
    return tmp_path / "start"


@pytest.fixture
def recipe(start, coloured_rows, tmp_path):
    rows = coloured_rows(8)
    lines = rows.read_text().splitlines()
    for name in ("name", "grounding"):
        (tmp_path / f"{name}.jsonl").write_text("\n".join(line for line in lines if f'"task": "{name}"' in line) + "\n")

    def make(**changes) -> Recipe:
        page = {
            "name": "squares",
            "seed": 3,
            "start": str(start),
            "freeze": ["encoders"],
            "data_folder": str(tmp_path),
            "mixture": [
                {"name": "names", "data": "name.jsonl", "quota": 3, "augment": 1},
                {"name": "boxes", "data": "grounding.jsonl", "quota": 2, "augment": -1},
            ],
            "steps": 20,
            "precision": "float32",
            "optimizer": {"lr": 0.02, "warmup": 0.1},
            "feature_cache": {"folder": str(tmp_path / "features")},
        }
        return Recipe.model_validate(page | changes)

    return make


class Stop(Exception):
    pass


@pytest.fixture
def losses(monkeypatch):
    """Run a recipe and give each step's losses, rows and gradient norm.

    `stop` ends it as a kill would, after that step's rows were computed; `save` makes one more checkpoint, after that step.
    """

    def run(recipe, folder, *, stop=None, save=None, resume=False):
        seen = []
        do_what_is_due = run_module.Run.do_what_is_due

        def due(self):
            do_what_is_due(self)
            if self.stand.step - 1 == save:
                self.save()

        class Watched(run_module.Progress):
            def step(self, step, losses, rows, **more):
                assert len(seen) == step - self._first
                seen.append((list(losses.values()), list(rows.values()), more["norm"]))
                super().step(step, losses, rows, **more)
                if step == stop:
                    raise Stop

        with monkeypatch.context() as patch:
            patch.setattr(run_module, "Progress", Watched)
            patch.setattr(run_module.Run, "do_what_is_due", due)
            if stop is None:
                train(recipe, folder, resume=resume, quiet=True)
            else:
                with pytest.raises(Stop):
                    train(recipe, folder, resume=resume, quiet=True)
        return seen

    return run


@pytest.fixture
def texts(tmp_path) -> Callable[..., dict]:
    """Pages of runs that read texts alone, which take milliseconds a step; see runs.py."""
    write_texts(tmp_path)
    return partial(texts_page, tmp_path)


@pytest.fixture(scope="session")
def fleet():
    """Where command lines run in processes of their own."""
    fleet = Fleet()
    yield fleet
    fleet.close()
