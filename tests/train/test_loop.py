"""Training from end to end on a few coloured squares: it learns, resumes bit by bit, and tells what it cannot read."""

from __future__ import annotations

import itertools
import json
import math
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from runs import metrics, weights
from safetensors.torch import save_file

from monoglot.data.prepare import Example
from monoglot.decode.predict import load
from monoglot.errors import InputError
from monoglot.modalities.image import Lite0Image
from monoglot.nouns import Posed, Sample, Sequence
from monoglot.store import load_model, save_model
from monoglot.text.vocabulary import EOS
from monoglot.train import run as run_module
from monoglot.train import steps
from monoglot.train.checkpoint import last_checkpoint
from monoglot.train.loop import train
from monoglot.train.stages import run_length
from monoglot.train.start import changed_model
from monoglot.train.steps import similar_lengths


def test_it_learns(recipe, losses, tmp_path):
    run = tmp_path / "run"
    seen = losses(recipe(), run)
    first, last = (torch.tensor([step[0] for step in part]).mean(0) for part in (seen[:4], seen[-4:]))
    assert (last < 0.6 * first).all(), (first, last)
    assert all(counts == [3, 2] for _, counts, _ in seen)
    assert sorted(path.name for path in run.iterdir()) == ["checkpoint", "metrics.jsonl", "model", "recipe.yaml"]
    lines = metrics(run, "loss")
    assert [line["step"] for line in lines] == [0, 10, 19]
    assert set(lines[0]["loss"]) == {"names", "boxes"}
    lineage = json.loads((run / "model" / "lineage.json").read_text())
    assert lineage["recipe"]["steps"] == 20
    assert load(run / "model").predict(task="name", image=str(tmp_path / "0.png")).error is None


@pytest.mark.parametrize("freeze", [["encoders"], ["words"]])
def test_encoders_are_in_training_when_they_learn(recipe, losses, tmp_path, monkeypatch, freeze):
    modes = []
    forward = Lite0Image.forward
    monkeypatch.setattr(Lite0Image, "forward", lambda self, items: modes.append(self.training) or forward(self, items))
    losses(recipe(freeze=freeze, steps=2), tmp_path / "run")
    assert modes
    assert set(modes) == {freeze == ["words"]}


def test_frozen_weights_rest(recipe, losses, start, tmp_path):
    losses(recipe(freeze=["encoders", "words"], steps=3), tmp_path / "run")
    before, _ = load_model(start)
    after = weights(tmp_path / "run")
    moved = {name for name, tensor in before.state_dict().items() if not torch.equal(tensor, after[name])}
    assert not [name for name in moved if name.startswith(("encoders", "words"))]
    still = {n for n, p in before.named_parameters() if n not in moved and not n.startswith(("encoders", "words"))}
    assert not {name for name in still if "attention.q" not in name and "cross.q" not in name}


@pytest.mark.parametrize("cache", [True, False])
def test_resuming_gives_the_same_losses_bit_by_bit(recipe, losses, tmp_path, cache):
    def page(name):
        features = {"folder": str(tmp_path / name)} if cache else {"gigabytes": 0}
        return recipe(steps=8, checkpoint_minutes=1e-6, feature_cache=features, freeze=["encoders"])

    whole = losses(page("a"), tmp_path / "whole")
    begun = losses(page("b"), tmp_path / "parts", stop=4)
    resumed = losses(page("b"), tmp_path / "parts", resume=True)
    assert begun == whole[:5]
    assert resumed == whole[4:], "the step that was not saved is done again"
    states = [weights(tmp_path / name) for name in ("whole", "parts")]
    assert all(torch.equal(tensor, states[1][name]) for name, tensor in states[0].items())
    assert losses(page("b"), tmp_path / "parts", resume=True) == [], "a finished run has nothing to do"


def test_resuming_with_words_that_learn(recipe, losses, tmp_path):
    page = recipe(steps=6, checkpoint_minutes=1e-6, freeze=["encoders", "words"], words={"others": 30})
    whole = losses(page, tmp_path / "whole")
    assert losses(page, tmp_path / "parts", stop=3) == whole[:4]
    assert losses(page, tmp_path / "parts", resume=True) == whole[3:]
    before, _ = load_model(tmp_path / "start")
    after = weights(tmp_path / "parts")["words.weight"]
    moved = (after != before.words.weight).any(1)
    assert 4 <= int(moved[: before.config.vocabulary.mask].sum()) < 60, "the answers' words and no others"
    with pytest.raises(InputError, match="recipe: words: would be trained twice; put 'words' into freeze"):
        train(recipe(freeze=["encoders"], words={}), tmp_path / "twice", quiet=True)


def test_wrong_rows_do_not_stop_the_search_for_words(recipe, losses, tmp_path):
    spoil(tmp_path, lines=[(2, "{"), (3, '{"task": "nmae", "text": "x"}'), (4, '{"task": "name", "text": "x"}')])
    seen = losses(recipe(steps=2, freeze=["encoders", "words"], words={}), tmp_path / "run")
    assert all(math.isfinite(norm) for _, _, norm in seen)


def test_resuming_before_the_first_checkpoint(recipe, losses, tmp_path):
    whole = losses(recipe(steps=4), tmp_path / "whole")
    assert losses(recipe(steps=4), tmp_path / "parts", stop=2) == whole[:3]
    assert losses(recipe(steps=4), tmp_path / "parts", resume=True) == whole


def test_seeds_are_kept(recipe, losses, tmp_path):
    one, same, other = (
        losses(recipe(steps=3, seed=seed), tmp_path / name) for seed, name in ((1, "a"), (1, "b"), (2, "c"))
    )
    assert one == same != other


def test_the_feature_cache_changes_nothing_but_the_time(recipe, losses, tmp_path, monkeypatch):
    encoded = []
    forward = Lite0Image.forward
    monkeypatch.setattr(Lite0Image, "forward", lambda self, items: encoded.append(len(items)) or forward(self, items))
    without = losses(recipe(steps=6, feature_cache={"gigabytes": 0}), tmp_path / "without")
    assert sum(encoded) == 30
    encoded.clear()
    cold = losses(recipe(steps=6), tmp_path / "cold")
    # Names go through 8 plain pictures, then their copies; boxes are the same pictures, with copies of their own.
    assert sum(encoded) < 30
    encoded.clear()
    warm = losses(recipe(steps=6), tmp_path / "warm")
    assert encoded == []
    assert warm == cold
    for (one, _, _), (other, _, _) in zip(without, cold):
        assert one == pytest.approx(other, abs=0.02)
    assert one != other


def test_a_small_cache_is_enough(recipe, losses, tmp_path):
    cold = losses(recipe(steps=4), tmp_path / "cold")
    small = {"folder": str(tmp_path / "small"), "gigabytes": 4 * 1728 * 2 * 3 / 1e9}
    seen = losses(recipe(steps=4, feature_cache=small), tmp_path / "b")
    for (one, _, _), (other, _, _) in zip(seen, cold):
        assert one == pytest.approx(other, abs=1e-3)
    assert sum(path.stat().st_size for path in (tmp_path / "small").rglob("features.bin")) == 4 * 1728 * 2 * 3


def test_trained_encoders_are_not_kept(recipe, losses, tmp_path):
    losses(recipe(steps=2, freeze=[]), tmp_path / "run")
    assert not (tmp_path / "features").exists()


def test_bfloat16(recipe, losses, tmp_path):
    exact = losses(recipe(steps=3), tmp_path / "a")
    rounded = losses(recipe(steps=3, precision="bfloat16"), tmp_path / "b")
    assert rounded[0][0] == pytest.approx(exact[0][0], rel=0.05)
    assert all(map(math.isfinite, rounded[-1][0]))


def test_a_look_answers_in_a_run_of_bfloat16(recipe, losses, start, tmp_path):
    """Frozen weights have the few digits that models are stored with, and for such there are layers of float32 alone."""
    save_model(tmp_path / "short", *load_model(start), dtype=torch.bfloat16)
    held_out = [{"name": name, "data": f"{name}.jsonl", "rows": 2} for name in ("name", "grounding")]
    changes = {"start": str(tmp_path / "short"), "train_only": ["encoder_norm"], "precision": "bfloat16"}
    losses(recipe(steps=1, validation=held_out, validate_every=1, samples=2, **changes), tmp_path / "run")
    (told,) = [line["samples"] for line in metrics(tmp_path / "run", "samples")]
    assert [answer["set"] for answer in told] == ["name", "name", "grounding", "grounding"]


def spoil(tmp_path, *, pictures=(), lines=()):
    for index in pictures:
        (tmp_path / f"{index}.png").write_bytes(b"no picture")
    path = tmp_path / "name.jsonl"
    rows = path.read_text().splitlines()
    for index, line in lines:
        rows[index] = line
    path.write_text("\n".join(rows) + "\n")


def test_quarantine(recipe, losses, tmp_path):
    spoil(
        tmp_path,
        pictures=[1],
        lines=[(2, "{"), (3, '{"task": "name", "image": "0.png"}'), (4, '{"task": "nmae", "text": "x"}')],
    )
    seen = losses(recipe(steps=2), tmp_path / "run")
    listed = [json.loads(line) for line in (tmp_path / "run" / "quarantine.jsonl").read_text().splitlines()]
    assert sum(sum(counts) for _, counts, _ in seen) == 10 - len(listed)
    assert len(listed) >= 3
    told = {line["row"]: line["error"] for line in listed}
    assert all(row.startswith(str(tmp_path)) and "\n" not in error for row, error in told.items())
    assert all(math.isfinite(norm) and norm > 0 for _, _, norm in seen), "the others are trained on"


def test_too_many_bad_rows_stop_the_run(recipe, losses, tmp_path):
    spoil(tmp_path, pictures=range(8))
    message = r"quarantine.jsonl: data: 15 of 15 rows cannot be read; mend them or raise quarantine_share \(0.01\)"
    with pytest.raises(InputError, match=message):
        losses(recipe(), tmp_path / "run")
    spoil(tmp_path, pictures=[0])
    with pytest.raises(InputError, match=r"data: 5 of 5 rows cannot be read; .* \(0\)"):
        losses(recipe(quarantine_share=0), tmp_path / "strict")


def test_steps_without_any_row_are_passed_over(recipe, losses, tmp_path):
    spoil(tmp_path, pictures=range(8))
    seen = losses(recipe(steps=3, quarantine_share=1), tmp_path / "run")
    assert [counts for _, counts, _ in seen] == [[0, 0]] * 3
    assert all(math.isnan(loss) for losses_, _, _ in seen for loss in losses_)


def test_a_data_set_without_rows_leaves_the_other_to_train(recipe, losses, tmp_path):
    (tmp_path / "name.jsonl").write_text('{"task": "name", "image": "absent.png", "target": "red"}\n')
    seen = losses(recipe(steps=6, quarantine_share=1), tmp_path / "run")
    assert all(math.isnan(names) and math.isfinite(boxes) for (names, boxes), _, _ in seen)
    assert all(math.isfinite(norm) and norm > 0 for _, _, norm in seen)
    assert seen[-1][0][1] < seen[0][0][1]


def test_a_folder_that_is_in_use(recipe, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match="run: the folder is not empty; give a new one, or --resume to go on"):
        train(recipe(), tmp_path / "run", quiet=True)
    assert (tmp_path / "run" / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"freeze": ["wrods"]}, "recipe: freeze: no parameter starts with 'wrods'"),
        ({"optimizer": {"lr_parts": {"wrods": 1}}}, "recipe: optimizer.lr_parts: no parameter starts with 'wrods'"),
        ({"start": "absent/model"}, "no such folder"),
        ({"mixture": [{"name": "a", "data": "absent.jsonl", "quota": 1}]}, "absent.jsonl: data: cannot be read"),
        (
            {"mixture": [{"name": "a", "data": "empty.jsonl", "quota": 1}]},
            "empty.jsonl: data: has no rows; data set 'a'",
        ),
        (
            {"validation": [{"name": "a", "data": "absent.jsonl"}], "validate_every": 1},
            "absent.jsonl: data: cannot be read",
        ),
    ],
)
def test_what_is_told_before_anything_is_done(recipe, tmp_path, changes, message):
    (tmp_path / "empty.jsonl").write_text("\n")
    with pytest.raises(InputError, match=message):
        train(recipe(**changes), tmp_path / "run", quiet=True)
    assert not (tmp_path / "run").exists(), "the same folder can be given again"


def test_a_changed_recipe_is_told_on_resume(recipe, losses, tmp_path):
    losses(recipe(steps=2), tmp_path / "run")
    before = (tmp_path / "run" / "recipe.yaml").read_text()
    with pytest.raises(InputError, match="recipe: changed since the run began: steps, seed; use the run's own"):
        train(recipe(steps=3, seed=4), tmp_path / "run", resume=True, quiet=True)
    assert (tmp_path / "run" / "recipe.yaml").read_text() == before


@pytest.mark.parametrize("content", ["cut", "foreign", "text", "no run", "old run", "gone"])
def test_a_damaged_checkpoint(recipe, losses, tmp_path, content):
    losses(recipe(steps=1), tmp_path / "run")
    folder = last_checkpoint(tmp_path / "run" / "checkpoint")
    path, message = (
        next(folder.glob("*.safetensors")),
        rf"{folder}: checkpoint: cannot be read \(.+\); delete this folder",
    )
    if content == "cut":
        path.write_bytes(path.read_bytes()[:5000])
    elif content == "text":
        path.write_text("hello")
    elif content == "gone":
        path.unlink()
    elif content == "no run":
        (folder / "run.json").write_text("{")
        message = r"run.json: cannot be read as JSON"
    elif content == "old run":
        (folder / "run.json").write_text('{"format": 0}')
        message = rf"{folder}: checkpoint: version 0 is not known here; start the run again in a new folder"
    else:
        save_file({"a": torch.ones(2)}, path)
    with pytest.raises(InputError, match=message) as caught:
        train(recipe(steps=1), tmp_path / "run", resume=True, quiet=True)
    assert "\n" not in str(caught.value)


def test_a_full_disk_leaves_the_last_checkpoint(recipe, losses, tmp_path, monkeypatch):
    page = recipe(steps=3, checkpoint_minutes=1e-6)
    whole = losses(page, tmp_path / "whole")
    losses(page, tmp_path / "run", stop=2)
    last = last_checkpoint(tmp_path / "run" / "checkpoint")
    before = {path.name: path.read_bytes() for path in last.iterdir()}
    assert len(before) == 2

    @contextmanager
    def full(self, path, mode):
        Path(path).write_bytes(b"half")
        raise OSError(28, "No space left on device")
        yield

    with monkeypatch.context() as patch:
        patch.setattr(torch.distributed.checkpoint.filesystem.FileSystem, "create_stream", full)
        with pytest.raises(InputError) as caught:
            train(page, tmp_path / "run", resume=True, quiet=True)
    assert str(caught.value) == (
        f"{tmp_path}/run/checkpoint/step-00000003: checkpoint: cannot be written ([Errno 28] No space left on device); "
        f"free some space or choose another place; the last good checkpoint is {last}"
    )
    assert {path.name: path.read_bytes() for path in last.iterdir()} == before
    assert not list((tmp_path / "run").rglob(".*"))
    assert losses(page, tmp_path / "run", resume=True) == whole[2:]


def test_held_out_rows(recipe, losses, tmp_path):
    held_out = [{"name": "held names", "data": "name.jsonl", "rows": 5}]
    with_looks = losses(recipe(steps=5, validation=held_out, validate_every=2), tmp_path / "a")
    assert with_looks == losses(recipe(steps=5), tmp_path / "b"), "looking changes nothing"
    looks = [(line["step"], line["held_out"]["held names"]) for line in metrics(tmp_path / "a", "held_out")]
    assert [step for step, _ in looks] == [2, 4]
    assert all(math.isfinite(loss) for _, loss in looks)


CALM = {"dropout": 0.0, "drop_path": 0.0}


def assert_alike(runs):
    for (one, counts, norm), (other, other_counts, other_norm) in zip(*runs, strict=True):
        assert one == pytest.approx(other, abs=1e-3)
        assert norm == pytest.approx(other_norm, rel=1e-2)
        assert counts == other_counts


def test_parts_of_a_step_are_the_whole(recipe, losses, tmp_path, monkeypatch):
    """Parts are a matter of speed: with nothing left to chance the step is the same however it is parted."""
    as_is = losses(recipe(steps=4, model_changes=CALM), tmp_path / "a")
    sizes = []
    part = steps.Reader.part
    monkeypatch.setattr(
        steps.Reader, "part", lambda self, rows, sources: sizes.append(len(rows)) or part(self, rows, sources)
    )
    assert_alike([as_is, losses(recipe(steps=4, model_changes=CALM, rows_at_once=2), tmp_path / "two")])
    assert max(sizes) == 2
    assert sum(sizes) >= 20
    monkeypatch.setattr(steps, "similar_lengths", lambda lengths, shapes: [[i] for i in range(len(lengths))])
    assert_alike([as_is, losses(recipe(steps=4, model_changes=CALM), tmp_path / "b")])


def test_dropping_begins_when_it_is_to(recipe, losses, tmp_path):
    """Without the worst half, what is left has a smaller mean; before that, the step is the same to the bit."""
    as_is = losses(recipe(steps=3, model_changes=CALM), tmp_path / "a")
    dropped = losses(
        recipe(steps=3, model_changes=CALM, loss={"drop_worst": 0.5, "drop_worst_after": 1}), tmp_path / "b"
    )
    assert dropped[:2] == as_is[:2]
    assert all(less < all_ for less, all_ in zip(dropped[2][0], as_is[2][0]))


def test_rows_are_shortened_and_get_choices(recipe, tmp_path):
    (tmp_path / "answers.txt").write_text("red\n\n blue \ngreen\nblack\n")
    sources = [{"name": "n", "data": "name.jsonl", "quota": 1, "choices": "answers.txt"}]
    rows = steps.DataSet(recipe(mixture=sources), recipe(mixture=sources).mixture[0])
    assert rows[0].choices == ("red", "blue", "green", "black")
    page = recipe(source_words=2, target_words=1)
    boxes = steps.DataSet(page, page.mixture[1])
    assert boxes[0].text.split() == ["the", "red"]
    assert boxes[0].box is not None
    (tmp_path / "name.jsonl").write_text('{"task": "name", "image": "0.png", "targets": ["bright red", "red"]}\n')
    assert steps.DataSet(page, page.mixture[0])[0].targets == ("bright", "red")
    for content, message in ((None, "cannot be read"), ("\n", "has no answers"), (b"\xff", "not UTF-8")):
        (tmp_path / "answers.txt").unlink(missing_ok=True)
        if content is not None:
            (tmp_path / "answers.txt").write_bytes(content if isinstance(content, bytes) else content.encode())
        with pytest.raises(InputError, match=message):
            train(recipe(mixture=sources), tmp_path / "run", quiet=True)


def test_a_constrained_loss(recipe, losses, tmp_path):
    """Over two choices a guess costs at most ln 2 a token; what is no choice is quarantined."""
    (tmp_path / "answers.txt").write_text("red\nblue\n")
    rows = (
        (tmp_path / "name.jsonl").read_text().replace('"task": "name"', '"task": "classify", "text": "which colour?"')
    )
    (tmp_path / "name.jsonl").write_text(rows)
    names = [{"name": "n", "data": "name.jsonl", "quota": 4, "choices": "answers.txt"}]
    (tmp_path / "held.jsonl").write_text("".join(line + "\n" for line in rows.splitlines() if "red" in line))
    held_out = [{"name": "n", "data": "held.jsonl", "choices": "answers.txt"}]
    page = recipe(
        steps=4, mixture=names, loss={"constrain": True}, quarantine_share=1, validation=held_out, validate_every=2
    )
    free = losses(recipe(steps=4, mixture=names, quarantine_share=1), tmp_path / "free")
    seen = losses(page, tmp_path / "run")
    assert seen[0][0][0] < 0.5 * free[0][0][0]
    listed = [json.loads(line)["error"] for line in (tmp_path / "run" / "quarantine.jsonl").read_text().splitlines()]
    assert listed
    assert all("target: is none of the choices; loss.constrain lets nothing else be written" in line for line in listed)
    assert metrics(tmp_path / "run", "held_out")[0]["held_out"]["n"] > 0
    wrong = [{"name": "n", "data": "name.jsonl", "choices": "answers.txt"}]
    with pytest.raises(InputError, match=r"name.jsonl:2: target: is none of the choices; loss.constrain lets nothing"):
        train(recipe(mixture=names, loss={"constrain": True}, validation=wrong, validate_every=1), tmp_path / "wrong")
    assert not (tmp_path / "wrong").exists()
    (tmp_path / "name.jsonl").write_text(rows.replace("classify", "caption"))
    with pytest.raises(InputError, match="4 of 4 rows cannot be read"):
        losses(page.model_copy(update={"quarantine_share": 0, "validation": ()}), tmp_path / "none")
    assert "choices: mean nothing to the task 'caption'" in (tmp_path / "none" / "quarantine.jsonl").read_text()


def test_what_may_be_written(tokenizer):
    vocabulary = tokenizer.vocabulary
    choices = (" red", " the red")

    def example(target, choices=()):
        ids = np.array([*target, EOS], np.int64)
        return Example(Sample("1", "vqa"), Posed(("x",), "x", choices), Sequence(ids[:0], (), (), ids), ())

    red, the = (tokenizer.encode(text).tolist() for text in (" red", " the"))
    rows = [
        example([*the, *red], tuple(choice.strip() for choice in choices)),
        example([vocabulary.code(0), vocabulary.code(3)]),
        example(red),
    ]
    allowed = steps.allowed_words(rows, tokenizer)
    ids = [set(row.nonzero()[:, 0].tolist()) for row in allowed]
    codes = {0, 1, 2, 3, *(vocabulary.code(index) for index in range(vocabulary.num_codes))}
    everything = set(range(vocabulary.size))
    assert ids == [{*red, *the}, set(red), {EOS}, codes, codes, codes, everything, everything]
    assert [steps.is_choice(row, tokenizer) for row in rows] == [True] * 3
    assert not steps.is_choice(example(the, ("red", "the red")), tokenizer)


def test_r_drop_wants_two_passes_to_agree(recipe, losses, tmp_path):
    """Without dropout both passes are the same, and so is the step; with it they disagree."""
    as_is = losses(recipe(steps=3, model_changes=CALM), tmp_path / "a")
    agreeing = losses(recipe(steps=3, model_changes=CALM, loss={"r_drop": 5.0}), tmp_path / "b")
    for (one, counts, norm), (other, twice, other_norm) in zip(as_is, agreeing, strict=True):
        assert other == pytest.approx(one, abs=1e-3)
        assert other_norm == pytest.approx(norm, rel=1e-2)
        assert twice == counts, "a row that is computed twice is one row"
    calm = losses(recipe(steps=1, loss={"r_drop": 1e-9}), tmp_path / "c")[0][0]
    stern = losses(recipe(steps=1, loss={"r_drop": 5.0}), tmp_path / "d")[0][0]
    assert all(more > less + 0.01 for more, less in zip(stern, calm))


def test_the_average_of_the_weights(recipe, losses, tmp_path, monkeypatch):
    """What is kept in the end is the average, by the formula; the run itself is the same with or without it."""
    trail = []
    follow = run_module.follow

    def watched(average, model, decay):
        trail.append({name: tensor.clone() for name, tensor in model.state_dict().items()})
        follow(average, model, decay)

    monkeypatch.setattr(run_module, "follow", watched)
    held_out = {"validation": [{"name": "h", "data": "name.jsonl", "rows": 5}], "validate_every": 4}
    page = recipe(steps=5, ema=0.6, checkpoint_minutes=1e-6, **held_out)
    seen = losses(page, tmp_path / "run")
    assert seen == losses(recipe(steps=5), tmp_path / "plain")
    expected, _ = load_model(tmp_path / "start")
    expected = expected.state_dict()
    for state in trail[:5]:
        for name, tensor in state.items():
            is_mean = tensor.is_floating_point()
            expected[name] = 0.6 * expected[name] + 0.4 * tensor if is_mean else tensor
    average, last = weights(tmp_path / "run", "average."), weights(tmp_path / "run")
    kept, _ = load_model(tmp_path / "run" / "model")
    for name, tensor in expected.items():
        torch.testing.assert_close(average[name], tensor, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(kept.state_dict()[name].float(), tensor.bfloat16().float(), atol=1e-3, rtol=1e-2)
    assert any((average[name] - tensor).abs().max() > 1e-3 for name, tensor in last.items())
    losses(recipe(steps=5, **held_out), tmp_path / "no_average")
    scores = [metrics(tmp_path / name, "held_out")[0]["held_out"]["h"] for name in ("run", "no_average")]
    assert scores[0] != scores[1], "it is the average that is looked at"


def test_resuming_with_an_average_and_open_encoders(recipe, losses, tmp_path):
    page = recipe(steps=6, checkpoint_minutes=1e-6, ema=0.9, freeze=[], rows_at_once=3)
    whole = losses(page, tmp_path / "whole")
    assert losses(page, tmp_path / "parts", stop=3) == whole[:4]
    assert losses(page, tmp_path / "parts", resume=True) == whole[3:]
    for kind in ("weights.", "average.", "adam."):
        one, other = (weights(tmp_path / name, kind) for name in ("whole", "parts"))
        assert len(one) > 10
        assert all(torch.equal(tensor, other[name]) for name, tensor in one.items())


@pytest.mark.parametrize("freeze", [["encoders"], []])
def test_running_statistics_stay(recipe, losses, start, tmp_path, freeze):
    """Those of other people's pictures are better than those of a few rows, frozen or not."""
    losses(recipe(steps=2, freeze=freeze), tmp_path / "run")
    before, _ = load_model(start)
    after = weights(tmp_path / "run")
    statistics = [name for name in after if "running_" in name]
    assert len(statistics) > 0
    assert all(torch.equal(before.state_dict()[name], after[name]) for name in statistics)
    learned = [name for name, _ in before.named_parameters() if name.startswith("encoders")]
    moved = [name for name in learned if not torch.equal(before.state_dict()[name], after[name])]
    assert (len(moved) > 0) == (not freeze)


def test_length_in_passes(recipe, losses, tmp_path):
    page = recipe(steps=None, epochs=2)
    assert len(losses(page, tmp_path / "run")) == run_length(page, 8, 3)[0] == math.ceil(2 * 8 / 3)
    longer = recipe(steps=None, epochs=2, schedule_epochs=10)
    assert run_length(longer, 8, 3) == (6, 27)
    losses(longer, tmp_path / "longer")
    rates = [metrics(tmp_path / name, "lr")[-1]["lr"] for name in ("run", "longer")]
    assert rates[0] == pytest.approx(0.02 * (6 - 5) / (6 - 1))
    assert rates[1] == pytest.approx(0.02 * (27 - 5) / (27 - 2))
    assert "epochs: 2" in (tmp_path / "run" / "recipe.yaml").read_text()
    losses(recipe(steps=6, schedule_steps=27), tmp_path / "in_steps")
    assert metrics(tmp_path / "in_steps", "lr")[-1]["lr"] == rates[1]


def test_a_model_under_other_settings(start):
    model, _ = load_model(start)
    changed = changed_model(model, {"dropout": 0.0, "modalities": {"image": {"size": 96}, "audio": {}}})
    assert changed.config.dropout == 0
    assert changed.config.modalities["image"].size == 96
    kept = {name for name in changed.state_dict() if "audio" not in name.split(".")}
    assert kept == set(model.state_dict())
    assert all(torch.equal(changed.state_dict()[name], model.state_dict()[name]) for name in kept)
    for changes, message in (
        ({"width": 64, "heads": 2}, "model_changes: the weights of the start do not fit: "),
        ({"encoder_layers": 1}, r"do not fit: encoder_layers\.1\."),
        ({"drop_pth": 0.1}, "model_changes.drop_pth: no key named 'drop_pth'; closest: 'drop_path'"),
        ({"modalities": {"image": {"sise": 3}}}, "model_changes.modalities: image: sise: .*closest: 'size'"),
    ):
        with pytest.raises(InputError, match=message):
            changed_model(model, changes)


def test_a_checkpoint_from_before_a_field_came(recipe, losses, tmp_path):
    page = recipe(steps=4, checkpoint_minutes=1e-6)
    whole = losses(page, tmp_path / "whole")
    losses(page, tmp_path / "run", stop=2)
    path = last_checkpoint(tmp_path / "run" / "checkpoint") / "run.json"
    state = json.loads(path.read_text())
    assert state["recipe"].pop("loss") is not None
    assert "ema" in state["recipe"]
    del state["recipe"]["ema"]
    path.write_text(json.dumps(state))
    assert losses(page, tmp_path / "run", resume=True) == whole[2:]


@pytest.mark.parametrize("part", [0, 5, 40, 1000])
@pytest.mark.parametrize(("rows", "tokens"), [(1, 1), (8, 4)])
def test_similar_lengths(part, rows, tokens):
    """Each row is there once; no way of cutting between rows of different lengths is cheaper; where parts cost nothing, next to nothing is padded."""
    shapes = steps.Shapes(part, rows, tokens)
    assert similar_lengths([], shapes) == []
    assert similar_lengths([(0, 0), (0, 0)], shapes) == [[0, 1]]
    rng = np.random.default_rng(0)
    sizes = [(int(source), int(target)) for source, target in rng.integers(1, 25, (9, 2))]

    def cost(groups):
        longest = ([max(sizes[i][side] for i in group) for side in (0, 1)] for group in groups)
        padded = (len(group) * sum(-(-of // tokens) * tokens for of in two) for group, two in zip(groups, longest))
        return sum(padded) + sum(part * (1 + (len(group) % rows > 0)) for group in groups)

    groups = similar_lengths(sizes, shapes)
    order = [index for group in groups for index in group]
    assert sorted(order) == list(range(9))
    cuts = (
        [order[first:end] for first, end in zip((0, *at), (*at, 9))]
        for count in range(9)
        for at in itertools.combinations(range(1, 9), count)
    )
    assert cost(groups) == min(map(cost, cuts))
    if not part:
        assert cost(groups) == cost([[i] for i in range(9)])


def test_rows_of_one_length_are_parted_where_shapes_come_again():
    """Two rows are padded from 12 to 100 tokens, so that both parts have eight."""
    sizes = [(12, 4)] * 10 + [(100, 4)] * 6
    assert [len(group) for group in similar_lengths(sizes, steps.Shapes(100, 1, 1))] == [10, 6]
    assert [len(group) for group in similar_lengths(sizes, steps.Shapes(100, 8, 4))] == [8, 8]


def test_padding_to_even_lengths_changes_no_loss(recipe, losses, tmp_path, monkeypatch):
    as_is = losses(recipe(steps=3, model_changes=CALM), tmp_path / "a")
    monkeypatch.setattr("monoglot.train.stages.IN_FLOAT32", steps.Shapes(50, 8, 4))
    assert_alike([as_is, losses(recipe(steps=3, model_changes=CALM), tmp_path / "b")])
