"""`monoglot transfer` on an adaptation whose effect is known in closed form: the matrix, the forgetting table, resuming, what is told."""

from __future__ import annotations

import json
import math
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from monoglot.adapt import transfer as page
from monoglot.adapt.transfer import plan, read_page, transfer
from monoglot.errors import InputError
from monoglot.evaluate.paired import t_interval
from monoglot.report.transfer import Change, Measured, Transfer, figure, from_json, sentence, tables, to_json

HELP = {("a", "b"): 0.10, ("b", "a"): -0.06, ("a", "c"): 0.0}
"""What the score on the second gains when the first was learned before."""
LUCK = (0.03, -0.02, 0.01)
"""By seed, of the rows that were drawn: the same on both sides of a difference."""
OWN = (0.004, 0.0, -0.004)
"""By seed, of going by way of a source."""


def score(way: list, on: str) -> float:
    """What an adapted model scores: it knows its way [(task, seed), ...]."""
    value = 0.2
    for place, (task, seed) in enumerate(way):
        if task == on:
            value += 0.4 + LUCK[seed]
            if place:
                value += HELP.get((way[0][0], on), 0.0) + OWN[seed]
        elif on == "past":
            value -= 0.05 + OWN[seed]
    return value


@pytest.fixture
def world(tmp_path, monkeypatch):
    """Three tasks and rows of an old ability; adapting and scoring are replaced by `score`, and counted."""
    calls = []

    def adapt(model, data, out, *, method, shots, seed, changes, quiet):
        start = load(Path(model))
        task = Path(data).stem.split("_")[0]
        assert not out.exists()
        out.mkdir(parents=True)
        (out / "way.json").write_text(json.dumps([*start, [task, seed]]))
        calls.append((model, task, seed, shots))
        return SimpleNamespace(folder=out, method="lora", steps=7)

    def evaluate(way, samples, *, batch_size):
        return [SimpleNamespace(value=score(way, samples[0].meta["of"]))], []

    def load(model):
        held = Path(model) / "way.json"
        return json.loads(held.read_text()) if held.is_file() else []

    monkeypatch.setattr(page, "adapt", adapt)
    monkeypatch.setattr(page, "load_keeping", load)
    monkeypatch.setattr(page, "evaluate", evaluate)
    for name in "abc":
        rows(tmp_path / f"{name}_train.jsonl", name, range(6))
        rows(tmp_path / f"{name}_test.jsonl", name, range(6, 10))
    rows(tmp_path / "past.jsonl", "past", range(4))
    lines = [f"  - {{name: {name}, train: {name}_train.jsonl, test: {name}_test.jsonl}}\n" for name in "abc"]
    (tmp_path / "tasks.yaml").write_text("tasks:\n" + "".join(lines) + "old: past.jsonl\n")
    return SimpleNamespace(folder=tmp_path, page=tmp_path / "tasks.yaml", out=tmp_path / "out", calls=calls)


def rows(path, of, numbers):
    made = [{"task": "classify", "text": f"{of} {i}", "target": "yn"[i % 2], "of": of} for i in numbers]
    path.write_text("".join(json.dumps(row) + "\n" for row in made))
    return path


def run(world, **settings):
    return transfer(world.page, "nano", world.out, **settings)


def test_the_matrix_is_what_was_put_in(world):
    found = run(world)
    assert list(found.gains) == [(s, t) for s in "abc" for t in "abc" if s != t]
    for pair, gain in found.gains.items():
        expected = t_interval([100 * (HELP.get(pair, 0.0) + own) for own in OWN])
        assert gain.points.values == pytest.approx(expected.values)
        assert (gain.points.low, gain.points.high) == pytest.approx((expected.low, expected.high))
        assert gain.points.p == pytest.approx(expected.p)
    assert found.direct["b"].values == pytest.approx([100 * (0.6 + luck) for luck in LUCK])
    assert found.before == {name: pytest.approx(20) for name in ("a", "b", "c", "past")}
    assert found.kept["a", "past"].points.values == pytest.approx([-5.4, -5.0, -4.6])
    assert found.kept["a", "a"].points.values == pytest.approx([100 * (0.4 + luck) for luck in LUCK])
    assert found.kept["a", "b"].points.mean == 0
    smallest = min(gain.points.p for gain in found.gains.values())
    assert found.gains["a", "b"].p_holm == pytest.approx(6 * smallest)


def test_each_seed_sees_the_same_shots_on_both_sides(world):
    run(world, seeds=2, shots=5, source_shots=50)
    assert len(world.calls) == 2 * (3 + 3 + 6)
    for model, task, seed, shots in world.calls:
        first = model == "nano"
        source = not first and json.loads((Path(model) / "way.json").read_text()) if Path(model).is_dir() else []
        assert shots in ((5, 50) if first else (5,))
        assert not source or source[0][1] == seed
        assert task in "abc"
    assert not (world.out / "models").exists()


def test_what_is_written_and_shown(world, command):
    code, shown, errors = command("transfer", world.page, "--out", world.out, "--seeds", 3, "--shots", 5)
    assert code == 0, errors
    kept = json.loads((world.out / "transfer.json").read_text())
    assert kept["command"].startswith("monoglot transfer ")
    assert "--shots 5" in kept["command"]
    assert (kept["adaptations"], kept["seeds"], len(kept["gains"]), len(kept["kept"])) == (36, 3, 6, 12)
    assert kept["gains"][0]["mean"] == pytest.approx(10.0)
    assert kept["shown"] in " ".join(shown.split("\n"))
    assert "+10.0 (+9.0 .. +11.0) *" in shown
    width, height = Image.open(world.out / "transfer.png").size
    assert min(width, height) > 600
    html = (world.out / "report.html").read_text()
    assert "by way of a" in html
    assert "data:image/png" in html
    assert "old ability" in html


def test_resuming_repeats_nothing(world):
    def stop(key, run=page.Runner.run, left=[9]):  # noqa: B006
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        return run(stop.runner, key)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(page.Runner, "run", lambda self, key: setattr(stop, "runner", self) or stop(key))
        with pytest.raises(KeyboardInterrupt):
            run(world, seeds=2)
    cells = world.out / "cells.jsonl"
    assert len(cells.read_text().splitlines()) == 1 + 9
    done = len(world.calls)
    with cells.open("a") as file:
        file.write('{"source": "a", "tar')  # cut off by a kill
    whole = run(world, seeds=2, resume=True)
    lines = [json.loads(line) for line in cells.read_text().splitlines()[1:]]
    assert [(line["source"], line["target"], line["seed"]) for line in lines] == list(plan("abc", 2))
    assert len(world.calls) - done == 2 * 12 - 8
    world.out = world.folder / "again"
    straight = run(world, seeds=2)
    assert (straight.gains, straight.kept, straight.direct) == (whole.gains, whole.kept, whole.direct)


def test_a_source_that_is_gone_is_made_again(world):
    with pytest.MonkeyPatch.context() as patch:
        order = iter(range(100))
        real = page.Runner.run
        patch.setattr(page.Runner, "run", lambda self, key: real(self, key) if next(order) < 5 else 1 / 0)
        with pytest.raises(ZeroDivisionError):
            run(world, seeds=1)  # before, three targets, the source a
    assert (world.out / "models" / "source0_seed0").is_dir()
    assert not (world.out / "models" / "target").exists()
    import shutil

    shutil.rmtree(world.out / "models")
    found = run(world, seeds=1, resume=True)
    assert found.gains["a", "b"].points.mean == pytest.approx(10.4)


def test_fewer_seeds_of_what_is_there_need_no_run(world):
    run(world, seeds=3)
    done = len(world.calls)
    one = run(world, seeds=1, resume=True)
    assert len(world.calls) == done
    gain = one.gains["a", "b"]
    assert gain.points.mean == pytest.approx(10.4)
    assert math.isnan(gain.points.low)
    assert "1 seed, which has no interval, none differs from 0" in sentence(one)
    assert json.loads((world.out / "transfer.json").read_text())["gains"][0]["low"] is None


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda w: w.page.unlink(), "tasks.yaml: cannot be read"),
        (lambda w: w.page.write_text("tasks: ["), "tasks.yaml: is not YAML"),
        (lambda w: w.page.write_text("[]"), "is not a page of keys and values; expected `tasks:`"),
        (
            lambda w: w.page.write_text("tasks: [{name: a, train: a, test: b}]"),
            "transfer is between two tasks at least",
        ),
        (lambda w: edit(w, "test: b_test", "tset: b_test"), "tasks.1.tset: no key named 'tset'; closest: 'test'"),
        (lambda w: edit(w, "name: b", "name: a"), "tasks: two are called 'a'"),
        (lambda w: (w.folder / "b_test.jsonl").unlink(), "b_test.jsonl: no such file"),
        (lambda w: (w.folder / "past.jsonl").unlink(), "past.jsonl: no such file"),
        (lambda w: (w.folder / "b_train.jsonl").write_text(""), "b_train.jsonl: has no rows"),
        (lambda w: edit(w, "name: b", "name: past"), "'past' is also the name of a task"),
        (
            lambda w: rows(w.folder / "b_train.jsonl", "a", range(4, 8)),
            "a_test.jsonl:1: 2 of 4 rows that 'a' is scored on",
        ),
        (lambda w: rows(w.folder / "a_train.jsonl", "past", range(3, 8)), "past.jsonl:4: 1 of 4 rows that 'past'"),
    ],
)
def test_what_is_wrong_is_told_before_anything_runs(world, command, change, told):
    change(world)
    code, _, error = command("transfer", world.page, "--out", world.out)
    assert code == 2
    assert told in error
    assert error.count("\n") == 1
    assert not world.calls


def edit(world, old, new):
    text = world.page.read_text()
    assert old in text
    world.page.write_text(text.replace(old, new, 1))


def test_two_tasks_in_one_test_file_and_an_unknown_method(world, command):
    assert (
        "no method named 'lore'; closest: 'lora'"
        in command("transfer", world.page, "--out", world.out, "--method", "lore")[2]
    )
    path = world.folder / "b_test.jsonl"
    path.write_text(path.read_text() + '{"task": "vqa", "text": "b or not?", "target": "b"}\n')
    assert (
        "b_test.jsonl: task: holds rows of 2 tasks: classify, vqa"
        in command("transfer", world.page, "--out", world.out)[2]
    )


def test_a_copied_picture_is_a_leak_under_any_name_and_question(world):
    for name in ("one.png", "copy.png"):
        Image.fromarray(np.full((8, 8, 3), 90, np.uint8)).save(world.folder / name)
    path = world.folder / "a_train.jsonl"
    path.write_text(path.read_text() + '{"task": "name", "image": "one.png", "target": "grey"}\n')
    path = world.folder / "c_test.jsonl"
    path.write_text('{"task": "vqa", "image": "copy.png", "text": "what?", "target": "wall", "of": "c"}\n')
    with pytest.raises(InputError, match=r"c_test\.jsonl:1: 1 of 1 rows that 'c' is scored on are trained on in 'a'"):
        run(world)


def test_going_on_with_something_else_is_told(world):
    run(world, seeds=1)
    with pytest.raises(InputError, match=r"cells\.jsonl: --out: exists already; give another folder, or --resume"):
        run(world, seeds=1)
    with pytest.raises(InputError, match="shots was 20, is 4"):
        run(world, seeds=1, shots=4, resume=True)
    rows(world.folder / "b_test.jsonl", "b", range(6, 9))
    with pytest.raises(InputError, match="tasks are not the same files"):
        run(world, seeds=1, resume=True)
    (world.out / "cells.jsonl").write_text("{}\n")
    with pytest.raises(InputError, match="holds something else than cells"):
        run(world, seeds=1, resume=True)


def test_paths_start_from_the_page(world, monkeypatch, tmp_path_factory):
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
    assert read_page(world.page).tasks[0].train == world.folder / "a_train.jsonl"


def test_the_page_of_the_documentation_runs(world):
    """The page of docs/transfer.md, word for word, on files that are there."""
    text = (Path(__file__).parents[2] / "docs" / "transfer.md").read_text()
    world.page.write_text(text.split("```yaml\n")[1].split("```")[0])
    listed = read_page(world.page)
    for name, task in zip("abc", listed.tasks):
        rows(task.train, name, range(6))
        rows(task.test, name, range(6, 10))
    for file in listed.old:
        rows(file, file.stem.split(".")[0], range(3))
    found = run(world, seeds=1)
    assert list(found.before) == [*(task.name for task in listed.tasks), "names.test", "transcripts.test"]
    assert len(found.gains) == 6


# --- what is said -----------------------------------------------------------------------------------------------------


def made(gains, kept=(), seeds=3) -> Transfer:
    tasks = tuple(Measured(name, "accuracy", True, 40, 100) for name in ("one task", "another task"))
    old = (Measured("speech", "wer", False, 30),)
    names = [*(task.name for task in tasks), "speech"]
    return Transfer(
        *("nano", "lora", 20, None, seeds, tasks, old),
        dict.fromkeys(names, 25.0),
        {task.name: t_interval([60.0, 62.0, 61.0]) for task in tasks},
        {(s, t): Change(s, t, t_interval(values), p) for s, t, values, p in gains},
        {(s, t): Change(s, t, t_interval(values), p) for s, t, values, p in kept},
        600.0,
        12,
    )


def test_the_sentence_counts_what_is_shown():
    surely, hardly = [9.9, 10.0, 10.1], [1.0, 3.0, -1.0]
    gains = [("one task", "another task", surely, 0.001), ("another task", "one task", hardly, 0.9)]
    kept = [("one task", "speech", [-5.0, -5.1, -4.9], 0.002), ("one task", "one task", [9.0, 9.1, 9.2], 0.001)]
    assert sentence(made(gains, kept)) == (
        "Of 2 transfers over 3 seeds, 1 differs from 0 after Holm's correction: one task -> another task (+10.0); "
        "of 1 scores on other tasks and old abilities, 1 fell by as sure a margin (the most: speech after one task, -5.0)."
    )
    nearly = [("one task", "another task", surely, 0.2)]
    assert sentence(made(nearly)) == (
        "Of 1 transfers over 3 seeds, none differs from 0 after Holm's correction "
        "(1 would without it, 0.1 are expected by chance)."
    )
    assert sentence(made([])).startswith("Nothing is shown yet")


def test_json_brings_everything_back(world):
    found = run(world)
    assert from_json(json.loads((world.out / "transfer.json").read_text())) == found
    single = from_json(to_json(run(world, seeds=1, resume=True), ""))
    assert math.isnan(single.gains["a", "b"].points.low)


def test_cells_without_a_seed_stay_empty():
    matrix, forgetting = tables(made([]))
    assert [row[1:] for row in matrix.rows[2:]] == [("", ""), ("", "")]
    assert forgetting.columns[3] == "speech (wer, gains are falls)"
    assert matrix.rows[1][1] == "61.0 (58.5 .. 63.5)"


def test_the_figure_writes_every_number_where_it_can_be_read():
    """Each text lies inside the figure and no two overlap; ink and cell differ by 4.5 to 1 (WCAG 2.2, 1.4.3)."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.colors import to_rgb

    from monoglot.report.transfer import _luminance

    gains = [
        ("one task", "another task", [39.0, 40.0, 42.0], 0.01),
        ("another task", "one task", [-39.0, -40.0, -42], 0.01),
    ]
    kept = [
        (source, on, [value, value + 1, value + 3], 0.5)
        for source, on, value in zip(
            ["one task"] * 3 + ["another task"] * 3,
            ["one task", "another task", "speech"] * 2,
            [-25.0, -10.0, -3.0, 4.0, 12.0, 23.0],
        )
    ]
    drawn = figure(made(gains, kept))
    canvas = FigureCanvasAgg(drawn)
    canvas.draw()
    from matplotlib.text import Text

    texts = [text for text in drawn.findobj(Text) if text.get_text().strip() and text.get_visible()]
    boxes = [text.get_window_extent(canvas.get_renderer()) for text in texts]
    inside = drawn.bbox
    for text, box in zip(texts, boxes):
        assert inside.x0 <= box.x0 and box.x1 <= inside.x1, text.get_text()  # noqa: PT018
        assert inside.y0 <= box.y0 and box.y1 <= inside.y1, text.get_text()  # noqa: PT018
    for first, (text, box) in enumerate(zip(texts, boxes)):
        for other, beside in zip(texts[first + 1 :], boxes[first + 1 :]):
            assert not box.overlaps(beside), (text.get_text(), other.get_text())
    assert {"+40.3\n(+36.5 .. +44.1) *", "-40.3\n(-44.1 .. -36.5) *"} <= {text.get_text() for text in texts}
    for axes in drawn.axes:
        for patch, text in zip(axes.patches, axes.texts):
            paper, ink = (_luminance(to_rgb(colour)) for colour in (patch.get_facecolor(), text.get_color()))
            assert (max(paper, ink) + 0.05) / (min(paper, ink) + 0.05) > 4.5


# --- the whole of it ---------------------------------------------------------------------------------------------------


def test_two_tasks_by_way_of_each_other_for_real(model_folder, command, tmp_path):
    """A tiny model, adapters that go on from adapters, two steps each: everything fits together."""
    for name, answers in (("sky", ("blue", "red")), ("sea", ("wet", "dry"))):
        for part, numbers in (("train", range(12)), ("test", range(12, 18))):
            made = [{"task": "classify", "text": f"{name} {n}", "target": answers[n % 2]} for n in numbers]
            (tmp_path / f"{name}.{part}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in made))
    tasks = [f"{{name: {name}, train: {name}.train.jsonl, test: {name}.test.jsonl}}" for name in ("sky", "sea")]
    (tmp_path / "tasks.yaml").write_text(f"tasks: [{', '.join(tasks)}]\n")
    words = ("transfer", tmp_path / "tasks.yaml", "--model", model_folder, "--out", tmp_path / "out")
    code, shown, errors = command(*words, "--seeds", 1, "--shots", 3, "--steps", 2)
    assert code == 0, errors
    cells = [json.loads(line) for line in (tmp_path / "out" / "cells.jsonl").read_text().splitlines()[1:]]
    assert [(cell["source"], cell["target"], cell["seed"]) for cell in cells] == list(plan(("sky", "sea"), 1))
    assert all(0 <= value <= 1 for cell in cells for value in cell["scores"].values())
    assert [(cell["method"], cell["steps"]) for cell in cells[1:]] == [("lora", 2)] * 6
    assert not (tmp_path / "out" / "models").exists()
    assert "Of 2 transfers over 1 seed" in shown
