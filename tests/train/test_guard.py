"""Steps that go wrong are left out and told; after several the run goes back to weights that were good, and on with other rows."""

from __future__ import annotations

import math
from contextlib import suppress

import pytest
import torch
from runs import metrics, source, stored, weights

from monoglot.errors import InputError
from monoglot.train import run as run_module
from monoglot.train.guard import Signals, Watch
from monoglot.train.loop import train
from monoglot.train.recipe import Guard, Recipe

OFTEN = {"checkpoint_minutes": 1e-6}  # after every step


class Killed(BaseException):
    pass


@pytest.fixture
def run(texts, tmp_path, monkeypatch):
    """Run a page in which some steps go wrong: their losses are nan, their gradients nan or a thousand times as large."""
    monkeypatch.setattr(run_module, "LOG_EVERY", 1)

    def run(name="run", *, nan=(), nan_gradient=(), spike=(), stop=None, resume=False, **changes):
        backward = run_module.backward

        def wrong(module, parts, total, scale, world, step, **more):
            losses = backward(module, parts, total, scale, world, step, **more)
            factor = math.nan if step in nan_gradient else 1000.0 if step in spike else 1.0
            for parameter in module.parameters():
                if parameter.grad is not None and factor != 1:
                    parameter.grad.mul_(factor)
            return losses * math.nan if step in nan else losses

        def due(self):
            do_what_is_due(self)
            if self.stand.step == stop:
                self.save()
                raise Killed

        do_what_is_due = run_module.Run.do_what_is_due
        page = Recipe.model_validate(texts(**{"steps": 30} | changes))
        with monkeypatch.context() as patch:
            patch.setattr(run_module, "backward", wrong)
            patch.setattr(run_module.Run, "do_what_is_due", due)
            with suppress(Killed):
                train(page, tmp_path / name, quiet=True, resume=resume)
        return tmp_path / name

    return run


def events(folder, kind) -> list[dict]:
    return [line for line in metrics(folder, "event") if line["event"] == kind]


def updates(folder) -> set[float]:
    """How many steps AdamW has taken, by its own count of each weight."""
    return {float(tensor) for name, tensor in stored(folder).items() if name.endswith(".step")}


def test_single_steps_are_left_out(run):
    folder = run(nan=[3], nan_gradient=[5], spike=[24, 26], guard={"spike": 20})
    skipped = events(folder, "skipped")
    assert [line["step"] for line in skipped] == [3, 5, 24, 26]
    assert [line["why"] for line in skipped[:2]] == ["the loss is not finite", "the gradient is not finite"]
    assert all(line["why"].startswith("gradient norm ") for line in skipped[2:])
    norms = {line["step"]: line["norm"] for line in metrics(folder, "loss")}
    assert norms[24] == skipped[2]["norm"] > 100 * norms[25]
    assert norms[3] is not None, "its gradient was fine"
    assert norms[5] is None
    assert updates(folder) == {26.0}, "30 steps, four of them not taken"
    assert len(metrics(folder, "loss")) == 30
    assert events(folder, "back") == []


def test_a_step_that_is_left_out_changes_nothing(run):
    """The weights, their average and AdamW's moments behind it are those before it."""
    page = {"ema": 0.5, "optimizer": {"lr": 0.01, "warmup": 0.0, "schedule": "constant"}}
    one, other = stored(run("before", steps=3, **page)), stored(run("after", nan=[3], steps=4, **page))
    assert set(one) == set(other)
    assert all(torch.equal(tensor, other[name]) for name, tensor in one.items())


def test_no_spikes_before_a_usual_norm_is_known_or_when_nobody_looks(run):
    assert events(run("young", spike=[5]), "skipped") == []
    assert events(run("off", spike=[25], guard={"spike": 0}), "skipped") == []


def test_each_stage_has_its_own_usual_norm(run):
    stages = {"stages": [{"name": "one", "steps": 25}, {"name": "two", "steps": 25}]}
    begun = range(25, 36)  # the second stage's gradients are large from its first step on
    assert events(run("stages", spike=begun, steps=None, **stages), "skipped") == []
    assert [line["step"] for line in events(run("one", spike=begun, steps=36), "skipped")][:8] == list(range(25, 33))
    late = run("late", spike=[24, 49], steps=None, **stages)
    assert [line["step"] for line in events(late, "skipped")] == [24, 49]


def test_back_to_the_last_good_state_and_on_with_other_rows(run, tmp_path):
    folder = run(nan=[6, 7, 8], guard={"patience": 3}, steps=12, **OFTEN)
    assert [line["step"] for line in events(folder, "skipped")] == [6, 7, 8]
    (back,) = events(folder, "back")
    assert (back["step"], back["to"], back["why"]) == (9, 6, "3 steps in a row were left out")
    assert [line["step"] for line in metrics(folder, "loss")] == list(range(12)), "no step is done again"
    assert updates(folder) == {9.0}
    # What comes after the bad steps is as if they had been left out one by one.
    patient = run("patient", nan=[6, 7, 8], guard={"patience": 99}, steps=12, **OFTEN)
    later = [[(line["step"], line["loss"]) for line in metrics(f, "loss")][9:] for f in (folder, patient)]
    assert later[0] == later[1]


def test_going_back_takes_weights_that_were_good(run, monkeypatch, tmp_path):
    """Checkpoints are rare, weights go wrong in between: those of the last checkpoint count."""
    spoilt = []
    do = run_module.Run.do

    def spoil(self, step, waited):
        if step.index == 5 and not spoilt:
            spoilt.append(True)
            with torch.no_grad():
                self.model.words.weight.fill_(math.nan)
        do(self, step, waited)

    monkeypatch.setattr(run_module.Run, "do", spoil)
    folder = run(guard={"patience": 2}, steps=10)
    assert [line["step"] for line in events(folder, "skipped")] == [5, 6]
    assert [(line["step"], line["to"]) for line in events(folder, "back")] == [(7, 0)]
    assert all(tensor.isfinite().all() for tensor in weights(folder).values())
    assert updates(folder) == {3.0}, "of the steps behind the checkpoint's"


def test_it_gives_up(run, tmp_path):
    with pytest.raises(InputError) as caught:
        run(nan=range(5, 99), guard={"patience": 2, "returns": 2}, steps=12, **OFTEN)
    assert str(caught.value) == (
        f"{tmp_path}/run: training: 2 steps in a row went wrong, after going back 2 times; "
        "lower optimizer.lr, or look at the rows; metrics.jsonl says why each was left out"
    )
    folder = tmp_path / "run"
    assert [line["step"] for line in events(folder, "back")] == [7, 9]
    run(resume=True, guard={"patience": 2, "returns": 2}, steps=12, **OFTEN)  # with what was wrong mended
    assert [line["step"] for line in metrics(folder, "loss")] == list(range(12))


def test_a_run_that_is_resumed_leaves_out_the_same_steps(run, tmp_path):
    """What norms are usual, and how many steps in a row were left out, is in the checkpoint."""
    page = {"spike": [24], "nan": [20], "guard": {"spike": 20}, "ema": 0.9}
    whole = run("whole", **page)
    run("parts", stop=22, **page)
    parts = run("parts", resume=True, **page)
    assert [line["step"] for line in events(parts, "skipped")] == [20, 24]
    assert events(parts, "skipped") == events(whole, "skipped")
    losses = [[(line["step"], line["loss"], line["norm"]) for line in metrics(f, "loss")] for f in (whole, parts)]
    assert losses[0] == losses[1]


@pytest.mark.parametrize("balance", ["auto", "gradnorm", "famo", "uncertainty"])
def test_balancers_do_not_see_what_went_wrong(run, balance):
    folder = run(nan=[4], steps=8, balance=balance)
    lines = metrics(folder, "weights")
    assert lines[4]["weights"] == lines[3]["weights"]
    assert all(math.isfinite(weight) for line in lines for weight in line["weights"].values())


def test_the_watch_goes_on_from_its_state():
    watch, again = Watch(Guard()), Watch(Guard())
    for norm in range(1, 40):
        watch.judge(1.0, norm)
    again.load_state(watch.state())
    assert again == watch
    assert again.judge(1.0, 400.0) == watch.judge(1.0, 400.0) != ""
    assert (again.in_a_row, again.gives_up) == (1, False)
    assert [again.judge(math.inf, 1.0) for _ in range(7)][-1] == "the loss is not finite"
    assert again.gives_up
    assert again.judge(1.0, 20.0) == ""
    assert again.in_a_row == 0


def test_a_step_without_rows_is_none_that_went_wrong(run, tmp_path):
    folder = run(steps=8, mixture=[source("a", quota=0.5), source("b", quota=0.5)])
    assert events(folder, "skipped") == []
    assert min(sum(line["rows"].values()) for line in metrics(folder, "loss")) <= 1


def test_signals_outside_the_main_thread_are_left_alone():
    import threading

    heard = []

    def listen():
        with Signals().heard() as signals:
            heard.append(signals.asked)

    thread = threading.Thread(target=listen)
    thread.start()
    thread.join()
    assert heard == [""]
