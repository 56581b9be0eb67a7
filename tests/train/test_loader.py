"""How rows get to the loop: by a thread or by processes, from the feature cache, past rows that cannot be read."""

from __future__ import annotations

import itertools
import json
import os
from collections import Counter

import numpy as np
import pytest
from PIL import Image
from runs import metrics, source
from small import MODALITY_SETTINGS, tiny_model

from monoglot.data.features import CachingPreparer
from monoglot.data.mixture import Draw, Mixture
from monoglot.errors import InputError
from monoglot.store import save_model
from monoglot.train import steps as steps_module
from monoglot.train.checkpoint import last_checkpoint, read_run
from monoglot.train.distributed import World
from monoglot.train.loop import train
from monoglot.train.recipe import Recipe
from monoglot.train.stages import make_plans
from monoglot.train.steps import AHEAD, Quarantine, Reader, most_bad


def test_workers_read_the_same_rows(recipe, losses, tmp_path):
    """Bit by bit, whatever reads: also bad rows, augmented copies and parts of a step."""
    (tmp_path / "5.png").write_bytes(b"no picture")
    page = {"steps": 12, "rows_at_once": 3, "quarantine_share": 1}
    alone = losses(recipe(**page), tmp_path / "alone")
    two = losses(recipe(**page, workers=2), tmp_path / "two")
    assert alone == two
    lists = [(tmp_path / name / "quarantine.jsonl").read_text() for name in ("alone", "two")]
    assert lists[0] == lists[1] != ""


def test_workers_may_be_changed_when_a_run_goes_on(texts, losses, tmp_path):
    page = texts(steps=12, balance={"kind": "auto", "every": 2})
    whole = losses(Recipe.model_validate(page), tmp_path / "whole")
    assert losses(Recipe.model_validate(page | {"workers": 1}), tmp_path / "parts", save=4, stop=5) == whole[:6]
    assert losses(Recipe.model_validate(page | {"workers": 2}), tmp_path / "parts", resume=True) == whole[5:]


def test_quotas_of_auto_do_not_depend_on_how_far_is_read_ahead(texts, losses, tmp_path):
    """They change beyond what any reader has read: rows drawn are the log's rows, at any speed."""
    page = texts(steps=AHEAD + 25, balance={"kind": "auto", "every": 2})
    alone = losses(Recipe.model_validate(page), tmp_path / "alone")
    assert losses(Recipe.model_validate(page | {"workers": 2}), tmp_path / "two") == alone
    quotas = [tuple(line["quotas"].values()) for line in metrics(tmp_path / "two", "quotas")]
    assert quotas[0] == (3, 2) != quotas[-1]


def test_a_wrong_row_of_a_worker_is_no_crash(texts, tmp_path):
    (tmp_path / "a.jsonl").write_text((tmp_path / "a.jsonl").read_text() + "{\n" * 5)
    train(Recipe.model_validate(texts(steps=6, workers=1)), tmp_path / "run", quiet=True)
    listed = [json.loads(line)["row"] for line in (tmp_path / "run" / "quarantine.jsonl").read_text().splitlines()]
    assert sorted(listed) == sorted(f"{tmp_path}/a.jsonl:{line}" for line in range(13, 18))


def test_workers_see_features_that_were_kept_after_they_began(recipe, tmp_path, monkeypatch):
    """A picture is read from its file until its features are kept, and then no more."""
    reads = tmp_path / "reads"
    read = CachingPreparer.__mro__[1].read

    def counted(self, media, variant, sample):
        with open(reads, "a") as file:  # in whichever process
            file.write(f"{os.getpid()} {media.source}\n")
        return read(self, media, variant, sample)

    monkeypatch.setattr(CachingPreparer.__mro__[1], "read", counted)
    names = [{"name": "names", "data": "name.jsonl", "quota": 4}]
    train(recipe(mixture=names, steps=60, workers=1), tmp_path / "run", quiet=True)
    lines = reads.read_text().splitlines()
    assert len({line.split()[0] for line in lines}) == 1
    assert lines[0].split()[0] != str(os.getpid()), "the worker has read them"
    # At most AHEAD steps are read before the first features are kept.
    assert 8 <= len(lines) <= 4 * (AHEAD + 2) < 4 * 60


def test_each_process_reads_its_share(texts):
    """Every row of a step once, each data set spread evenly; one without rows has some other row at hand."""
    recipe = Recipe.model_validate(texts(steps=1, mixture=[source("a", quota=3), source("b", quota=0.5)]))
    (plan,) = make_plans(recipe)
    preparer = _preparer(recipe)
    readers = [
        Reader(recipe, plan.data, Mixture(plan.names, [12, 7], plan.quotas, seed=5), preparer, World(rank, 3))
        for rank in range(3)
    ]
    whole = Reader(recipe, plan.data, readers[0].mixture, preparer, World())
    for index in range(6):
        steps = [reader.step(index) for reader in readers]
        ids = [sorted(s.id for part in step.parts for s in part.samples) for step in steps]
        assert sorted(itertools.chain(*ids)) == sorted(s.id for part in whole.step(index).parts for s in part.samples)
        assert max(map(len, ids)) - min(map(len, ids)) <= 1
        assert sum(step.rows for step in steps) == whole.step(index).rows
    lonely = Reader(recipe, plan.data, Mixture(["b"], [7], [1], seed=5), preparer, World(1, 2)).step(0)
    assert (lonely.rows, lonely.parts, len(lonely.spare.samples)) == (0, [], 1)
    silent = lonely.spare.silent()
    assert silent.batch.weights.tolist() == [0.0]
    assert whole.step(0).spare is None


def _preparer(recipe) -> CachingPreparer:
    from monoglot.train.start import start_model

    model, tokenizer, _ = start_model(recipe)
    return CachingPreparer(tokenizer, model.config)


def test_modality_dropout_takes_its_share(recipe, tokenizer, tmp_path):
    """Of rows with two modalities, at the rate and the same every time; other rows stay as they are."""
    save_model(tmp_path / "two", tiny_model(encoders=True, modalities=MODALITY_SETTINGS), tokenizer)
    import soundfile

    soundfile.write(tmp_path / "a.wav", np.zeros(1600, np.float32), 16000)
    rows = [
        {"id": str(n), "task": "vqa", "image": "0.png", "audio": "a.wav", "text": "x", "target": "y"} for n in range(40)
    ]
    (tmp_path / "both.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = [{"name": "both", "data": "both.jsonl", "quota": 40, "modality_dropout": 0.25}]
    page = recipe(start=str(tmp_path / "two"), mixture=data)
    (plan,) = make_plans(page)
    reader = Reader(page, plan.data, Mixture(["both"], [40], [40], seed=0), _preparer(page), World())
    seen = Counter()
    for epoch in range(10):
        for row in range(40):
            media = reader.example(Draw(0, row, epoch)).sample.media
            seen[tuple(item.modality for item in media)] += 1
            assert reader.example(Draw(0, row, epoch)).sample.media == media
    assert seen.total() == 400
    # Binomial: within four standard deviations.
    assert abs(seen["image",] + seen["audio",] - 100) < 4 * (400 * 0.25 * 0.75) ** 0.5
    assert abs(seen["image",] - seen["audio",]) < 4 * 100**0.5


# --- bad data at scale ------------------------------------------------------------------------------------------------


@pytest.fixture
def pictures(tokenizer, tmp_path):
    """A page on rows with a picture each, of which some are corrupt: cut off, empty, no picture, or not there."""
    seeing = {"image": {"size": 32}}
    save_model(tmp_path / "eyes", tiny_model(encoders=True, modalities=seeing), tokenizer)

    def make(count: int, bad: list[int], **changes) -> Recipe:
        whole = tmp_path / "whole.png"
        Image.fromarray(np.full((32, 32, 3), 99, np.uint8)).save(whole)
        raw, spoilt = whole.read_bytes(), [b"", b"no picture", whole.read_bytes()[:40], None]
        with open(tmp_path / "pictures.jsonl", "w") as rows:
            for index in range(count):
                content = spoilt[bad.index(index) % 4] if index in bad else raw
                if content is not None:
                    (tmp_path / f"p{index}.png").write_bytes(content)
                row = {"id": str(index), "task": "name", "image": f"p{index}.png", "target": "red"}
                rows.write(json.dumps(row) + "\n")
        page = {
            "name": "pictures",
            "start": str(tmp_path / "eyes"),
            "data_folder": str(tmp_path),
            "mixture": [{"name": "pictures", "data": "pictures.jsonl", "quota": 10}],
            "freeze": ["encoders"],
            "precision": "float32",
            "feature_cache": {"folder": str(tmp_path / "kept")},
        }
        return Recipe.model_validate(page | changes)

    return make


def listed(folder) -> list[str]:
    return [json.loads(line)["row"] for line in (folder / "quarantine.jsonl").read_text().splitlines()]


def counts(folder) -> tuple[int, int]:
    found = read_run(last_checkpoint(folder / "checkpoint"))["quarantine"]
    return found["seen"], found["bad"]


def test_one_in_a_hundred(pictures, losses, tmp_path):
    """Training goes on; each bad row is named once, though it is drawn in every pass; counts are those of the draws."""
    bad = [7, 130, 299]
    page = pictures(300, bad, epochs=2)
    whole = losses(page, tmp_path / "whole")
    assert sum(sum(rows) for _, rows, _ in whole) == 600 - 6
    assert sorted(listed(tmp_path / "whole")) == sorted(f"{tmp_path}/pictures.jsonl:{index + 1}" for index in bad)
    assert counts(tmp_path / "whole") == (600, 6)
    # The same after a kill: nothing is named twice, nothing counted twice.
    assert losses(page, tmp_path / "parts", save=10, stop=28) == whole[:29]
    before = listed(tmp_path / "parts")
    assert losses(page, tmp_path / "parts", resume=True) == whole[11:]
    assert listed(tmp_path / "parts") == listed(tmp_path / "whole")
    assert 1 <= len(before) <= 3
    assert counts(tmp_path / "parts") == (600, 6)


def test_one_in_two(pictures, tmp_path):
    """The run ends as soon as chance cannot explain it."""
    page = pictures(100, list(range(0, 100, 2)), steps=50)
    with pytest.raises(InputError) as caught:
        train(page, tmp_path / "run", quiet=True)
    named = listed(tmp_path / "run")
    assert 10 < len(named) <= 20
    assert str(caught.value) == (
        f"{tmp_path}/run/quarantine.jsonl: data: {len(named)} of {_tens(caught.value)} rows cannot be read; "
        "mend them or raise quarantine_share (0.01)"
    )


def _tens(error) -> str:
    drawn = str(error).split(" of ")[1].split()[0]
    assert int(drawn) % 10 == 0
    return drawn


def test_the_bound_is_one_that_chance_does_not_reach():
    """One run in ten thousand with no more bad rows than allowed would be stopped, at most."""
    rng = np.random.default_rng(0)
    for share in (0.01, 0.1):
        bad = (rng.random((2000, 3000)) < share).cumsum(1)
        bound = np.array([most_bad(seen, share) for seen in range(1, 3001)])
        assert (bad[:, 10::10] > bound[10::10]).any(1).mean() < 0.005
        worse = (rng.random((200, 3000)) < 2 * share).cumsum(1)
        assert (worse[:, -1] > bound[-1]).mean() > (0.4 if share == 0.01 else 0.99)


def test_the_list_of_several_processes_has_each_row_once(tmp_path):
    writes, silent = Quarantine(tmp_path / "q", 0.5), Quarantine(tmp_path / "q", 0.5, writes=False)
    for found in ([("a:1", "x"), ("a:2", "y")], [("a:1", "x")]):
        for quarantine in (writes, silent):
            quarantine.add(10, len(found), found)
    assert [json.loads(line)["row"] for line in (tmp_path / "q").read_text().splitlines()] == ["a:1", "a:2"]
    assert (writes.seen, writes.bad) == (silent.seen, silent.bad) == (20, 3)
    state = writes.state()
    writes.add(1, 1, [("a:3", "z")])
    again = Quarantine(tmp_path / "q", 0.5)
    again.load_state(state)
    assert len((tmp_path / "q").read_text().splitlines()) == 2
    again.add(1, 1, [("a:2", "y"), ("a:4", "z")])
    assert len((tmp_path / "q").read_text().splitlines()) == 3


def test_ahead_ends_its_thread(texts, monkeypatch):
    """A reader that is left in the middle leaves nothing running, also when it waits for room."""
    import threading

    recipe = Recipe.model_validate(texts(steps=50))
    (plan,) = make_plans(recipe)
    before = threading.active_count()
    mixture = Mixture(plan.names, [12, 7], plan.quotas, seed=5)
    ahead = Reader(recipe, plan.data, mixture, _preparer(recipe), World()).ahead(0, None)
    assert [next(ahead).index for _ in range(3)] == [0, 1, 2]
    ahead.close()
    assert threading.active_count() == before
    monkeypatch.setattr(steps_module.Reader, "step", lambda self, index: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        next(Reader(recipe, plan.data, mixture, _preparer(recipe), World()).ahead(0, 5))
