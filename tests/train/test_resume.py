"""A run that was killed, stopped or had no room goes on bit by bit, and its last good checkpoint is never touched."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
import yaml
from runs import metrics, source, stored, texts_page, write_texts
from safetensors.torch import load_file

from monoglot.errors import InputError
from monoglot.train.checkpoint import last_checkpoint, read_run
from monoglot.train.loop import train
from monoglot.train.recipe import Recipe

RECKONED = ("step", "stage", "loss", "rows", "weights", "quotas", "norm", "lr", "tokens", "held_out", "event", "why")
"""What of a line of the log is no matter of time."""


@pytest.fixture(scope="module")
def page(tmp_path_factory) -> Path:
    """A page with everything on that a step depends on: stages, replay, auto, words, an average, looks, bad rows, parts of a step."""
    folder = tmp_path_factory.mktemp("page")
    write_texts(folder)
    (folder / "b.jsonl").write_text((folder / "b.jsonl").read_text() + '{"task": "summarize", "text": "x"}\n{\n')
    mixture = [source("a", quota=2.5), source("b", quota=1.5), source("c", quota=0.5)]
    settings = texts_page(
        folder,
        mixture=mixture,
        balance={"kind": "auto", "every": 2},
        ema=0.9,
        rows_at_once=2,
        quarantine_share=0.2,
        validation=[{"name": "v", "data": "held_out.jsonl"}],
        validate_every=5,
        checkpoint_minutes=60,
        stages=[
            {"name": "one", "steps": 12},
            {
                "name": "two",
                "steps": 16,
                "mixture": mixture[1:],
                "replay": 0.5,
                "freeze": ["words"],
                "words": {"others": 9},
            },
            {"name": "three", "tokens": 500, "balance": "famo", "model_changes": {"dropout": 0.2}},
        ],
    )
    path = folder / "page.yaml"
    path.write_text(yaml.safe_dump(settings))
    return path


@pytest.fixture(scope="module")
def whole(fleet, page) -> Path:
    """The folder of its run, by one process that nothing happened to."""
    fleet.run("train", page, "--out", page.parent / "whole", folder=page.parent)
    return page.parent / "whole"


def reckoned(run: Path) -> list[dict]:
    """The log without what is a matter of time and of how often the run was begun."""
    lines = [line for line in metrics(run) if line.get("event") != "begin"]
    return [{key: line[key] for key in RECKONED if key in line} for line in lines]


def assert_the_same(one: Path, other: Path) -> None:
    """Bit by bit: every loss of the log, the list of bad rows, all tensors and numbers of the checkpoint, the model."""
    assert reckoned(one) == reckoned(other)
    assert (one / "quarantine.jsonl").read_text() == (other / "quarantine.jsonl").read_text() != ""
    tensors = stored(one), stored(other)
    assert set(tensors[0]) == set(tensors[1])
    assert {name.split(".")[0] for name in tensors[0]} == {"weights", "average", "adam"}
    assert all(torch.equal(tensor, tensors[1][name]) for name, tensor in tensors[0].items())
    numbers = [read_run(last_checkpoint(run / "checkpoint")) for run in (one, other)]
    for run in numbers:
        del run["progress"], run["recipe"]["checkpoint_minutes"]
    assert numbers[0] == numbers[1]
    models = [load_file(run / "model" / "model.safetensors") for run in (one, other)]
    assert all(torch.equal(tensor, models[1][name]) for name, tensor in models[0].items())


def drafts(run: Path) -> list[Path]:
    """Checkpoints that are being written."""
    return list((run / "checkpoint").glob(".*.tmp"))


def steps_done(run: Path) -> int:
    log = run / "metrics.jsonl"
    return log.read_text().count('"lr"') if log.exists() else 0


@pytest.mark.parametrize("kills", [3, pytest.param(20, marks=pytest.mark.slow)])
def test_killed_at_random_moments(fleet, page, whole, tmp_path, kills):
    """SIGKILL, every other time while a checkpoint is written; then the run goes on, until it is done."""
    rng, run, killed, drafted = random.Random(kills), tmp_path / "parts", 0, 0
    steps, arguments = steps_done(whole), ("train", page, "checkpoint_minutes=0.000001", "--out", run, "--resume")
    assert steps > 30
    while True:
        job = fleet.start(*arguments, folder=tmp_path)
        # Somewhere in the steps that are left, so that the kills are spread over the run.
        wanted = steps_done(run) + rng.uniform(0, 2 * (steps - steps_done(run)) / (kills - killed + 1))
        in_checkpoint = killed % 2 == 0

        def moment(run=run, wanted=wanted, in_checkpoint=in_checkpoint) -> bool:
            return steps_done(run) >= wanted and (bool(drafts(run)) or not in_checkpoint)

        if killed == kills or (codes := job.wait(until=moment)) is not None:
            codes = codes if killed < kills else job.wait()
            assert codes == [0], job.said("err")
            break
        if not in_checkpoint:
            time.sleep(rng.uniform(0, 0.05))
        if job.kill() == [-signal.SIGKILL]:
            killed += 1
            drafted += bool(drafts(run))
    assert killed == kills
    assert drafted >= kills // 4, "some checkpoints were half written"
    assert not drafts(run), "what was half written is taken away by the next checkpoint"
    assert len(list((run / "checkpoint").iterdir())) == 2
    assert_the_same(whole, run)
    again = fleet.run(*arguments, folder=tmp_path)
    assert again.said("out").splitlines()[-1] == f"{run}/model"
    assert_the_same(whole, run)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_and_ends_it(fleet, page, whole, tmp_path, number):
    """Within ten seconds, by exit code 130 and one line; --resume goes on as if nothing had been."""
    run = tmp_path / "parts"
    job = fleet.start("train", page, "--out", run, folder=tmp_path)
    assert job.wait(until=lambda: steps_done(run) >= 6) is None
    began = time.monotonic()
    job.signal(number)
    assert job.wait() == [130]
    assert time.monotonic() - began < 10
    step = read_run(last_checkpoint(run / "checkpoint"))["stand"]["step"]
    assert job.said("err") == f"stopped by {number.name}; {run} at step {step} is saved, --resume goes on\n"
    assert 6 <= step == steps_done(run)
    fleet.run("train", page, "--out", run, "--resume", folder=tmp_path)
    assert_the_same(whole, run)


def test_a_signal_while_nothing_is_trained_yet(fleet, page, tmp_path):
    """The rows of the search for words are read before anything is saved: nothing is left that would be in the way."""
    arguments = ("train", page, "--out", tmp_path / "run", "--resume")
    job = fleet.start(*arguments, folder=tmp_path)
    job.signal(signal.SIGTERM)
    assert job.wait() in ([-signal.SIGTERM], [130])
    fleet.run(*arguments, folder=tmp_path)
    assert len([line for line in metrics(tmp_path / "run", "event") if line["event"] == "stage"]) == 3


# --- room, rights and changes -----------------------------------------------------------------------------------------


@contextmanager
def disk(folder: Path, megabytes: float):
    """A small disk of its own; the test is skipped where nobody may mount one."""
    folder.mkdir()
    options = f"size={int(megabytes * 1024)}k"
    mount = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], capture_output=True)
    if mount.returncode:
        pytest.skip("may not mount a disk here")
    try:
        yield lambda options: subprocess.run(["mount", "-o", f"remount,{options}", str(folder)], check=True)
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def contents(checkpoint: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in checkpoint.iterdir()}


def test_a_full_disk(texts, losses, tmp_path):
    """One line; the last good checkpoint is whole, and with more room the run goes on from it."""
    page = Recipe.model_validate(texts(steps=6, checkpoint_minutes=1e-6))
    whole = losses(page, tmp_path / "whole")
    size = sum(map(len, contents(last_checkpoint(tmp_path / "whole" / "checkpoint")).values())) / 1e6
    if shutil.which("mount") is None:
        pytest.skip("no mount here")
    with disk(tmp_path / "disk", 1.8 * size) as remount:
        run = tmp_path / "disk" / "run"
        with pytest.raises(InputError) as caught:
            train(page, run, quiet=True)
        last = last_checkpoint(run / "checkpoint")
        assert str(caught.value).startswith(f"{run}/checkpoint/step-0000000")
        assert "checkpoint: cannot be written (" in str(caught.value)
        assert "No space left on device" in str(caught.value)
        assert str(caught.value).endswith(
            f"; free some space or choose another place; the last good checkpoint is {last}"
        )
        assert "\n" not in str(caught.value)
        assert not drafts(run)
        done = read_run(last)["stand"]["step"]
        before = contents(last)
        with pytest.raises(InputError, match="No space left on device"):
            train(page, run, quiet=True, resume=True)
        assert contents(last) == before
        remount("size=99m")
        assert losses(page, run, resume=True) == whole[done:]
        # Nor may it be written when the disk is closed.
        remount("ro")
        with pytest.raises(InputError, match=r"recipe.yaml: cannot be written \(Read-only file system\)"):
            train(page, run, quiet=True, resume=True)
        with pytest.raises(InputError, match=r"recipe.yaml: cannot be written \(Read-only file system\)"):
            train(page, tmp_path / "disk" / "new", quiet=True)
        remount("rw")
    assert done < 6


def test_a_folder_that_cannot_be(texts, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(
        InputError, match=r"file/run/recipe.yaml: cannot be written \(Not a directory\); free some space"
    ):
        train(Recipe.model_validate(texts(steps=1)), tmp_path / "file" / "run", quiet=True)


@pytest.mark.skipif(os.geteuid() == 0, reason="may write everywhere")
def test_a_folder_without_rights(texts, tmp_path):
    (tmp_path / "closed").mkdir(mode=0o500)
    with pytest.raises(InputError, match=r"recipe.yaml: cannot be written \(Permission denied\)"):
        train(Recipe.model_validate(texts(steps=1)), tmp_path / "closed" / "run", quiet=True)


def test_changed_rows_are_told(texts, losses, tmp_path):
    page = Recipe.model_validate(texts(steps=4, mixture=[source("a", quota=1), source("b", quota=1)]))
    whole = losses(page, tmp_path / "whole")
    losses(page, tmp_path / "run", save=1, stop=2)
    last = last_checkpoint(tmp_path / "run" / "checkpoint")
    before, rows = contents(last), (tmp_path / "b.jsonl").read_text()
    for changed in (rows + rows.splitlines()[0] + "\n", rows.replace("red", "rod", 1), rows[:-30]):
        (tmp_path / "b.jsonl").write_text(changed)
        with pytest.raises(InputError) as caught:
            train(page, tmp_path / "run", quiet=True, resume=True)
        assert str(caught.value) == (
            f"{tmp_path}/b.jsonl: data: the rows of 'b' changed since the run began; "
            "bring them back, or start the run again in a new folder"
        )
        assert contents(last) == before
    (tmp_path / "b.jsonl").write_text(rows)
    assert losses(page, tmp_path / "run", resume=True) == whole[2:]


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"stages": [{"name": "one", "steps": 4, "balance": "equal"}]}, "stages"),
        ({"seed": 1, "ema": 0.5}, "seed, ema"),
        ({"optimizer": {"lr": 0.5}}, "optimizer"),
        ({"mixture": [source("a", quota=4)]}, "mixture, stages"),
    ],
)
def test_a_changed_recipe_is_told(texts, losses, tmp_path, changes, named):
    page = texts(stages=[{"name": "one", "steps": 4}])
    losses(Recipe.model_validate(page), tmp_path / "run", save=1, stop=2)
    last = last_checkpoint(tmp_path / "run" / "checkpoint")
    before = contents(last)
    with pytest.raises(InputError) as caught:
        train(Recipe.model_validate(page | changes), tmp_path / "run", quiet=True, resume=True)
    told = str(caught.value)
    assert told.startswith(f"{tmp_path}/run: recipe: changed since the run began: ")
    assert named.split(", ")[0] in told
    assert told.endswith("; use the run's own recipe.yaml, or a new folder")
    assert contents(last) == before


def test_what_no_weight_depends_on_may_change(texts, losses, tmp_path):
    page = texts(steps=4)
    whole = losses(Recipe.model_validate(page), tmp_path / "whole")
    losses(Recipe.model_validate(page), tmp_path / "run", save=1, stop=2)
    free = {"workers": 1, "checkpoint_minutes": 9.0, "samples": 0}
    assert losses(Recipe.model_validate(page | free), tmp_path / "run", resume=True) == whole[2:]


def test_a_run_that_had_no_checkpoint_yet_begins_anew(texts, losses, tmp_path):
    """What was written before the first one does not stand in the log twice."""
    page = Recipe.model_validate(texts(steps=3))
    whole = losses(page, tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "checkpoint")
    (tmp_path / "run" / "quarantine.jsonl").write_text('{"row": "x", "error": "y"}\n')
    assert losses(page, tmp_path / "run", resume=True) == whole
    assert [line["event"] for line in metrics(tmp_path / "run", "event")] == ["begin", "stage", "end"]
    assert not (tmp_path / "run" / "quarantine.jsonl").exists()


def test_the_checkpoint_before_serves_when_the_last_is_lost(texts, losses, tmp_path):
    page = Recipe.model_validate(texts(steps=5))
    whole = losses(page, tmp_path / "whole")
    losses(page, tmp_path / "run", save=2, stop=3)
    folder = tmp_path / "run" / "checkpoint"
    assert [path.name for path in sorted(folder.iterdir())] == ["step-00000000", "step-00000003"]
    last = last_checkpoint(folder)
    next(last.glob("*.safetensors")).write_bytes(b"lost")
    with pytest.raises(InputError, match="delete this folder to go on from the checkpoint before it"):
        train(page, tmp_path / "run", quiet=True, resume=True)
    shutil.rmtree(last)
    assert losses(page, tmp_path / "run", resume=True) == whole
