"""One run in several processes is the same run: losses and weights, whoever has which rows, however weights are shared out."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from PIL import Image
from runs import metrics, source, texts_page, weights, write_texts
from safetensors.torch import load_file
from small import COLOURS, MODALITY_SETTINGS, square, tiny_model, tiny_tokenizer

from monoglot.store import save_model
from monoglot.train.checkpoint import last_checkpoint, read_run


@pytest.fixture(scope="module")
def page(tmp_path_factory) -> Path:
    """Pictures that some rows have and some have not, data sets so rare that they stand in one process only, a bad row; no chance."""
    folder = tmp_path_factory.mktemp("page")
    write_texts(folder)
    still = {"encoders": True, "encoder_layers": 1, "decoder_layers": 1, "dropout": 0.0, "drop_path": 0.0}
    model = tiny_model(modalities={"image": MODALITY_SETTINGS["image"]}, **still)
    with torch.no_grad():
        model.words.weight.mul_(0.2)
    save_model(folder / "eyes", model, tiny_tokenizer())
    names = [{"task": "name", "image": "gone.png", "target": "x"}]
    for colour, rgb in COLOURS.items():
        Image.fromarray(square(rgb)).save(folder / f"{colour}.png")
        names.append({"task": "name", "image": f"{colour}.png", "target": colour})
    (folder / "names.jsonl").write_text("".join(json.dumps(row) + "\n" for row in names))
    smaller = {"modalities": {"image": {"size": 32}}}
    words = {"freeze": ["encoders", "words"], "words": {"others": 30}}
    settings = texts_page(
        folder,
        start=str(folder / "eyes"),
        freeze=["encoders"],
        optimizer={"lr": 0.003, "warmup": 0.1},
        mixture=[source("a", quota=2.5), source("names", quota=1.5), source("b", quota=0.25)],
        rows_at_once=2,
        quarantine_share=0.5,
        ema=0.5,
        feature_cache={"folder": str(folder / "features")},
        validation=[{"name": "v", "data": "held_out.jsonl", "rows": 2}],
        validate_every=3,
        samples=1,
        checkpoint_minutes=60,
        stages=[{"name": "one", "steps": 5}, {"name": "two", "steps": 4, "model_changes": smaller, **words}],
    )
    path = folder / "page.yaml"
    path.write_text(yaml.safe_dump(settings))
    return path


@pytest.fixture(scope="module")
def one(fleet, page) -> Path:
    """The folder of its run in one process."""
    fleet.run("train", page, "--out", page.parent / "one", folder=page.parent)
    return page.parent / "one"


def assert_alike(one: Path, other: Path, *, within: float = 1e-5) -> None:
    """Losses, norms, rows and held-out losses of the log, bad rows, the weights and their average."""
    logs = [[line for line in metrics(run) if "loss" in line or "held_out" in line] for run in (one, other)]
    assert [line["step"] for line in logs[0]] == [line["step"] for line in logs[1]]
    for mine, others in zip(*logs):
        for key in ("loss", "held_out", "weights", "quotas"):
            if key in mine:
                assert mine[key] == pytest.approx(others[key], abs=within), (mine["step"], key)
        for key in ("rows", "tokens"):
            counted = [{k: n for k, n in line.get(key, {}).items() if k != "padding"} for line in (mine, others)]
            assert counted[0] == counted[1]
        assert "norm" not in mine or mine["norm"] == pytest.approx(others["norm"], rel=1e-5)
    lists = [
        (run / "quarantine.jsonl").read_text() if (run / "quarantine.jsonl").exists() else "" for run in (one, other)
    ]
    assert lists[0] == lists[1]
    numbers = [read_run(last_checkpoint(run / "checkpoint")) for run in (one, other)]
    assert numbers[0]["quarantine"] == numbers[1]["quarantine"]
    for kind in ("weights.", "average."):
        assert_near(*(weights(run, kind) for run in (one, other)), within)
    assert_near(*(load_file(run / "model" / "model.safetensors") for run in (one, other)), 1e-3)  # it is in bfloat16


def assert_near(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor], within: float) -> None:
    """Each tensor differs by no more than this share of its length: a single weight whose gradient is next to nothing may go either
    way, since AdamW scales it up. Biases of keys have none: they move all scores of a query alike."""
    assert set(one) == set(other)
    for name, tensor in one.items():
        halves = slice(len(tensor) // 2, None) if name.endswith("kv.bias") else ...
        mine, others = tensor[halves].double(), other[name][halves].double()
        assert float((mine - others).norm()) <= within * (1 + float(mine.norm())), name


def test_two_processes_are_one(fleet, page, one, tmp_path):
    """Also when each has every other row, a data set stands in one of them only, or one has no row at all."""
    job = fleet.run("train", page, "--out", tmp_path / "two", folder=tmp_path, processes=2)
    assert_alike(one, tmp_path / "two")
    assert len((tmp_path / "two" / "quarantine.jsonl").read_text().splitlines()) == 1
    assert [line["machine"]["processes"] for line in metrics(tmp_path / "two", "machine")] == [2]
    # What the first says is said once.
    assert job.said("out", 0).splitlines()[-1] == f"{tmp_path}/two/model"
    assert [job.said("out", 1), job.said("err", 0), job.said("err", 1)] == [""] * 3


def test_shares_of_the_weights(fleet, page, one, tmp_path):
    """fsdp: each process holds a share of every matrix, and the numbers are the same."""
    fleet.run("train", page, "parallel=fsdp", "--out", tmp_path / "two", folder=tmp_path, processes=2)
    assert_alike(one, tmp_path / "two")
    shards = sorted(last_checkpoint(tmp_path / "two" / "checkpoint").glob("*.safetensors"))
    sizes = [sum(tensor.numel() for tensor in load_file(path).values()) for path in shards]
    assert len(sizes) == 2
    assert min(sizes) > 0.4 * sum(sizes), "each holds about half"


@pytest.mark.slow
def test_fewer_rows_than_processes(fleet, page, tmp_path):
    """Three processes, one or two rows a step: who has none computes along, and its numbers do not count."""
    few = tmp_path / "few.yaml"
    mixture = [source("a", quota=1), source("b", quota=0.5)]
    still = str(page.parent / "still")
    few.write_text(yaml.safe_dump(texts_page(page.parent, start=still, mixture=mixture, steps=5)))
    fleet.run("train", few, "--out", tmp_path / "one", folder=tmp_path)
    fleet.run("train", few, "--out", tmp_path / "three", folder=tmp_path, processes=3)
    assert_alike(tmp_path / "one", tmp_path / "three")


@pytest.mark.slow
@pytest.mark.parametrize(
    "change",
    ["loss.r_drop=0.5", "balance=gradnorm", "balance={kind: auto, every: 1}", "workers=1"],
)
def test_what_a_page_may_say_besides(fleet, page, tmp_path, change):
    arguments = ("train", page, change, "stages.one.steps=3", "stages.two.steps=1", "conflicts_every=2")
    fleet.run(*arguments, "--out", tmp_path / "one", folder=tmp_path)
    fleet.run(*arguments, "--out", tmp_path / "two", folder=tmp_path, processes=2)
    assert_alike(tmp_path / "one", tmp_path / "two")
    if "gradnorm" not in change:
        found = [metrics(tmp_path / name, "conflicts")[0]["conflicts"]["cosine"] for name in ("one", "two")]
        cosines = [torch.tensor([[c or 0.0 for c in row] for row in rows]) for rows in found]
        torch.testing.assert_close(cosines[0], cosines[1], atol=1e-4, rtol=0)


@pytest.mark.slow
@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_two_then_one_then_two(fleet, page, one, tmp_path, parallel):
    """A run may go on with another number of processes, in the middle of a stage or between stages."""
    run, often = tmp_path / "parts", "checkpoint_minutes=0.000001"
    arguments = ("train", page, f"parallel={parallel}", often, "--out", run, "--resume")

    def saved() -> int:
        last = last_checkpoint(run / "checkpoint")
        return -1 if last is None else int(last.name.removeprefix("step-"))

    for processes, until in ((2, 2), (1, 4), (2, 6), (1, 7)):
        job = fleet.start(*arguments, folder=tmp_path, processes=processes)
        assert job.wait(until=lambda until=until: saved() >= until) is None, job.said("err")
        job.kill()
    fleet.run(*arguments, folder=tmp_path, processes=2)
    # Padding and parts differ with the number of processes, so the sums do in their last places.
    assert_alike(one, run, within=2e-5)
    begun = [line["machine"]["processes"] for line in metrics(run, "machine")]
    assert begun[0] == 2


@pytest.mark.slow
def test_a_signal_to_both(fleet, page, tmp_path):
    run = tmp_path / "run"
    arguments = ("train", page, "stages.one.steps=2000", "--out", run)
    job = fleet.start(*arguments, folder=tmp_path, processes=2)
    assert (
        job.wait(until=lambda: (run / "metrics.jsonl").exists() and '"step": 4' in (run / "metrics.jsonl").read_text())
        is None
    )
    job.signal(signal.SIGTERM)
    assert job.wait() == [130, 130]
    step = read_run(last_checkpoint(run / "checkpoint"))["stand"]["step"]
    assert step >= 4
    assert job.said("err", 0) == f"stopped by SIGTERM; {run} at step {step} is saved, --resume goes on\n"
    # One alone is enough: the other stops with it.
    job = fleet.start(*arguments, "--resume", folder=tmp_path, processes=2)
    assert job.wait(until=lambda: metrics(run, "loss")[-1]["step"] > step + 2) is None
    os.kill(job.pids[1], signal.SIGTERM)
    assert job.wait() == [130, 130]


def test_what_is_wrong_is_told_and_ends_all(fleet, page, tmp_path):
    (page.parent / "wrong.jsonl").write_text('{"task": "sumarize", "text": "x", "target": "y"}\n')
    arguments = ("train", page, "mixture.a.data=wrong.jsonl", "--out", tmp_path / "run")
    job = fleet.start(*arguments, folder=tmp_path, processes=2)
    assert job.wait() == [2, 2]
    assert "wrong.jsonl:1: task: no task named 'sumarize'" in job.said("err", 0)
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_torchrun(page, tmp_path):
    """The command line of the manual: the model's folder is printed once."""
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = [*torchrun, "-m", "monoglot", "train", page, "stages.one.steps=1", "stages.two.steps=1", "samples=0"]
    done = subprocess.run(
        [*map(str, command), "--out", str(tmp_path / "run")],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.splitlines().count(f"{tmp_path}/run/model") == 1
    assert json.loads((tmp_path / "run" / "model" / "lineage.json").read_text())["run"]["processes"] == 2
