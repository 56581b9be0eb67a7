"""A run's page: what is read from its folder, what stands on the page, whatever state the run is in."""

from __future__ import annotations

import base64
import json
import math
import re
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
from run_files import MACHINE, STAGES, asked, write_run
from test_page import NASTY, parsed

from monoglot.data.rows import read_rows
from monoglot.demo import SAMPLES
from monoglot.errors import InputError
from monoglot.report import curves, run
from monoglot.report.history import Series, read_history
from monoglot.report.run import costs, data_sets, watched, write_run_report
from monoglot.text.boxes import box_to_text


def write_lines(folder, *lines, recipe="name: small\nsteps: 40\n"):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "recipe.yaml").write_text(recipe)
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def words_of(path) -> str:
    return re.sub(r"\s+", " ", " ".join(parsed(path.read_text(encoding="utf-8")).words))


def drawings(path) -> list[str]:
    """Every SVG of a page."""
    found = re.findall(r"data:image/svg\+xml;base64,([A-Za-z0-9+/=]+)", path.read_text(encoding="utf-8"))
    return [base64.b64decode(code).decode() for code in found]


# --- what is read -----------------------------------------------------------------------------------------------------


def test_steps_that_were_done_twice_count_once(tmp_path):
    lines = [{"step": step, "seconds": step, "loss": {"a": float(step)}, "rows": {"a": 10}} for step in (10, 20, 30)]
    again = [{"step": step, "seconds": step, "loss": {"a": 100.0 + step}, "rows": {"a": 1}} for step in (20, 30)]
    back = {"step": 32, "event": "back", "to": 10, "why": "x"}
    history = read_history(write_lines(tmp_path, *lines, {"step": 30, "held_out": {"a": 1.0}}, back, *again))
    assert history.series("loss", "a").values.tolist() == [10, 120, 130]
    assert history.rows() == 12
    assert history.held_out("a").steps.tolist() == [30]  # a look is no line of a step


def test_speeds_are_between_lines(tmp_path):
    tokens = {"source": 60, "target": 20, "padding": 20}
    history = read_history(
        write_lines(
            tmp_path,
            {"step": 10, "seconds": 4.0, "loss": {}, "rows": {"a": 8, "b": 2}, "tokens": tokens, "wait": 1.0},
            {"step": 20, "seconds": 9.0, "loss": {}, "rows": {"a": 8, "b": 2}, "tokens": tokens, "wait": 1.0},
            {"step": 30, "seconds": 9.0, "loss": {}, "rows": {"a": 8}},
        )
    )
    assert {name: series.values.tolist() for name, series in history.speeds.items()} == {
        "rows": [2.0],  # the first line has none before it, the last no time
        "tokens": [16.0],
        "wait": [0.2],
        "padding": [0.2, 0.2],
    }


def test_regret_is_found_where_it_is_not_written(tmp_path):
    looks = [{"step": 10 * n, "held_out": {"a": loss}} for n, loss in enumerate((3.0, 2.0, 2.5, 1.0), start=1)]
    history = read_history(write_lines(tmp_path, *looks))
    assert history.regret("a").values.tolist() == [0.0, 0.0, 0.5, 0.0]


def test_a_running_mean_is_of_neighbours():
    values = np.random.default_rng(0).normal(size=100)
    smooth = Series(np.arange(100), values).smooth().values
    expected = [values[max(0, i - 4) : i + 5].mean() for i in range(100)]
    np.testing.assert_allclose(smooth, expected)


@pytest.mark.parametrize("count", [0, 1, 7, 240, 1001])
def test_thin_keeps_the_mean_and_the_order(count):
    series = Series(np.arange(count), np.linspace(0, 5, count))
    thin = series.thin(10)
    assert len(thin) == min(count, 10)
    assert (np.diff(thin.steps) > 0).all()
    np.testing.assert_allclose(thin.values, thin.steps * (5 / max(1, count - 1)), atol=1e-9)


def test_a_line_being_written_is_left_out_and_a_broken_one_is_told(tmp_path):
    write_lines(tmp_path, {"step": 10, "loss": {"a": 1.0}})
    with open(tmp_path / "metrics.jsonl", "a") as file:
        file.write('{"step": 20, "lo\n[1]\n{"no": "step"}\n\n{"step": 30, "loss": {"a": 2.0}}\n{"step": 40, "los')
    history = read_history(tmp_path)
    assert history.unreadable == (2, 3, 4)
    assert history.series("loss", "a").steps.tolist() == [10, 30]
    assert "could not be read and are left out: 2, 3, 4." in words_of(write_run_report(tmp_path))


def test_what_is_no_run_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"has neither recipe.yaml nor metrics.jsonl"):
        write_run_report(tmp_path)
    with pytest.raises(InputError, match="no such folder"):
        write_run_report(tmp_path / "none")
    (tmp_path / "recipe.yaml").write_text("a: [")
    with pytest.raises(InputError, match=r"recipe.yaml: is not YAML"):
        write_run_report(tmp_path)


def test_a_missing_extra_is_one_line(tmp_path, monkeypatch):
    write_lines(tmp_path)
    monkeypatch.setattr("monoglot.report.find_spec", lambda name: None)
    with pytest.raises(
        InputError, match=r'^reports need jinja2 and matplotlib; run: pip install "monoglot\[report\]"$'
    ):
        write_run_report(tmp_path)


# --- the page ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The page of a run with everything in it."""
    folder = write_run(tmp_path_factory.mktemp("runs") / "whole", resumes=(250,), samples=False)
    (folder / "model").mkdir()
    (folder / "model" / "lineage.json").write_text('{"parents": ["nano"], "recipe": {}, "parts": {"eyes": "lite0"}}')
    return write_run_report(folder, price_per_hour=0.36, watts=60)


def test_the_page_says_everything(whole):
    words = words_of(whole)
    for said in (
        "Finished after 600 steps.",
        "AMD EPYC 7B13, 2 threads",
        "bfloat16",
        "resumed once",
        *(f"{title} " for title in ("Loss", "Regret", "Mixture", "Balance", "Conflicts")),
        *STAGES,
        "gradient norm 812.0 is 10 times its usual 3.1",
        "back to the weights of step 400",
        "12 rows could not be read, 0.039% of the 30,648 in the data sets.",
        "packs/a.jsonl:9",
        "quota: 2",  # the recipe, folded
        "eyes lite0",
        "kWh at 60 W",
        "at 0.36 an hour",
    ):
        assert said in words, said
    assert "packs/a.jsonl:10" not in words  # ten reasons


def test_the_page_needs_nothing_else(whole):
    reader = parsed(whole.read_text(encoding="utf-8"))
    assert not {"script", "link", "iframe"} & {tag for tag, _ in reader.tags}
    assert all(link.startswith("data:") for link in reader.links)
    assert all(
        "http" not in re.sub(r'xmlns[:\w]*="[^"]*"', "", drawing.split("<style>")[1]) for drawing in drawings(whole)
    )


@pytest.fixture(scope="module")
def crowded(tmp_path_factory):
    """The figures of a run that has thirty sets with long names, as drawn."""
    folder = write_run(tmp_path_factory.mktemp("runs") / "crowded", sets=30, steps=300, samples=False)
    file = folder / "metrics.jsonl"
    file.write_text(file.read_text().replace("set_", "a_data_set_whose_name_is_long_"))
    return drawings(write_run_report(folder))


def test_figures_have_few_colours(crowded):
    known = {*curves.COLOURS, curves.GREY}
    assert len(known) == 10
    assert len(crowded) == 6
    for drawing in crowded:
        assert set(re.findall(r"(?:fill|stroke): (#[0-9a-f]{6})", drawing)) - {"#ffffff"} <= known


def test_the_words_of_figures_are_large_enough_and_do_not_overlap(crowded, whole):
    for drawing in crowded + drawings(whole)[:2]:
        root = ElementTree.fromstring(drawing)
        width, height = map(float, root.attrib["viewBox"].split()[2:])
        words = [(element.text, *place_of(element)) for element in root.iter("{http://www.w3.org/2000/svg}text")]
        assert words
        for count, (word, left, top, right, bottom) in enumerate(words):
            assert -1 <= left < right <= width + 1, word
            assert -1 <= top < bottom <= height + 1, word
            for other, its_left, its_top, its_right, its_bottom in words[:count]:
                assert right <= its_left or its_right <= left or bottom <= its_top or its_bottom <= top, (word, other)


def place_of(element) -> tuple[float, float, float, float]:
    """Left, top, right, bottom of a text of an SVG in points, if a letter is half as wide as high."""
    style, transform = element.attrib["style"], element.attrib.get("transform", "")
    size = float(re.search(r"font(?:-size)?: ([\d.]+)px", style)[1])
    assert size >= 8.5
    length, tall = 0.5 * size * len(element.text), 0.75 * size
    start = {"middle": -length / 2, "end": -length}.get((re.search(r"anchor: (\w+)", style) or "  ")[1], 0.0)
    if "x" in element.attrib:
        x, y = float(element.attrib["x"]), float(element.attrib["y"])
    else:
        x, y = map(float, re.search(r"translate\(([-\d.]+) ([-\d.]+)\)", transform).groups())
    if "rotate(-90" in transform:
        return x - tall, y - start - length, x, y - start
    return x + start, y - tall, x + start + length, y


STATES = {
    "unfinished": {"end": False},
    "resumed often": {"resumes": (100, 150, 200, 250)},
    "no validation": {"validation": False},
    "one set": {"sets": 1, "stages": ("all",)},
    "one line": {"steps": 10, "stages": ("all",), "end": False},
}


@pytest.mark.parametrize("state", STATES)
def test_a_page_comes_out_in_any_state(tmp_path, state):
    page = write_run_report(write_run(tmp_path, samples=False, **{"sets": 2, "steps": 300, **STATES[state]}))
    words = words_of(page)
    assert ("Not finished" in words) == (not STATES[state].get("end", True))
    assert ("Regret" in words) == (state not in ("no validation", "one line"))
    assert ("Mixture " in words) == (state != "one set") or "stage" in words
    assert ("resumed 4 times" in words) == (state == "resumed often")


def test_a_run_that_has_only_begun(tmp_path):
    begin = {"event": "begin", "step": 0, "time": "2026-11-26T10:00:00", "machine": MACHINE, "precision": "float32"}
    words = words_of(write_run_report(write_lines(tmp_path, begin)))
    assert "Not finished: step 0 of 40 is the last one written." in words
    assert "float32" in words


def test_lines_with_few_keys_and_with_nan(tmp_path):
    lines = [
        {"step": 0, "seconds": 1.2, "loss": {"a": 1.0, "b": math.nan}, "norm": 3.0, "lr": 0.1},
        {"step": 10, "seconds": 5.2, "loss": {"a": math.nan, "b": None}, "norm": math.nan, "lr": 0.1},
        {"step": 15, "seconds": 6.2, "held_out": {"a": math.nan, "c": 1.0}},
        {"step": 20, "loss": {"a": math.inf}, "rows": None, "quotas": {"a": math.nan}, "weights": {"a": math.nan}},
        {"step": 20, "conflicts": {"names": ["a", "b"], "cosine": [[1.0, math.nan], [None, 1.0]]}},
        {"step": 20, "samples": [{"set": "a", "id": "1", "task": None, "answer": None, "confidence": math.nan}]},
    ]
    page = write_run_report(write_lines(tmp_path, *lines))
    assert "nan" not in words_of(page).lower()


def test_names_and_answers_are_escaped(tmp_path):
    look = {"set": NASTY, "id": NASTY, "task": "name", "media": [], "text": NASTY, "target": NASTY, "answer": NASTY}
    step = {"step": 10, "seconds": 1.0, "loss": {NASTY: 1.0}, "rows": {NASTY: 3, "b": 3}}
    page = write_run_report(write_lines(tmp_path, step, {"step": 10, "samples": [look]}))
    assert "<script" not in page.read_text(encoding="utf-8")
    assert all("<script" not in drawing for drawing in drawings(page))
    parsed(page.read_text(encoding="utf-8"))


def test_the_table_of_data_sets(tmp_path):
    history = read_history(
        write_lines(
            tmp_path,
            {
                "event": "stage",
                "step": 0,
                "stage": "s",
                "sources": {"a": {"task": "region_caption", "rows": 8, "quota": 2}},
            },
            {"step": 10, "stage": "s", "loss": {"a": 3.0}, "rows": {"a": 20}, "weights": {"a": 0.75, "b": 0.25}},
            {"step": 10, "held_out": {"a": 2.0}},
            {"step": 20, "held_out": {"a": 2.5}},
        )
    )
    (table,) = data_sets(history)
    assert table.columns == ("", "task", "rows seen", "passes", "loss", "held out", "lowest", "regret", "weight")
    assert table.rows == (("a", "region caption", "20", "2.50", "3.000", "2.500", "2.000 at 10", "0.500", "75%"),)


# --- answers over time ------------------------------------------------------------------------------------------------


def looks(answers, **fields):
    row = {"set": "s", "id": "1", "task": "name", "media": [], "text": "", "target": "owl", **fields}
    return [{**row, "step": 10 * n, "answer": answer, "confidence": 0.5} for n, answer in enumerate(answers, start=1)]


def test_equal_answers_in_a_row_are_one_line_and_wrong_ones_are_marked():
    shown = watched(looks(["cat", "cat", "owl", "cat"]))
    assert [(turn.when, turn.answer, turn.verdict.right) for turn in shown.turns] == [
        ("10–20", "cat", False),
        ("30", "owl", True),
        ("40", "cat", False),
    ]
    assert shown.card.verdict.right is False


def test_many_different_answers_are_picked_evenly():
    shown = watched(looks([f"answer {n}" for n in range(35)]))
    assert len(shown.turns) == run.TURNS
    assert [shown.turns[0].answer, shown.turns[-1].answer] == ["answer 0", "answer 34"]
    assert "10 of 35" in shown.note


def test_boxes_are_read_from_symbols_and_from_numbers():
    box = [0.1, 0.2, 0.5, 0.6]
    written = ("0.100 0.200 0.500 0.600", "0.000 0.000 0.100 0.100")
    symbols = (str(box_to_text(tuple(box))), "<bin_0> <bin_0> <bin_9> <bin_9>")
    for target, answer in (written, symbols, (box, [0.0, 0.0, 0.1, 0.1])):
        (turn,) = watched(looks([answer], task="grounding", target=target, text="cup")).turns
        assert turn.verdict.right is False
        (turn,) = watched(looks([target], task="grounding", target=target, text="cup")).turns
        assert turn.verdict.right is True


def test_rows_of_every_kind_are_shown(tmp_path):
    rows = list(read_rows(SAMPLES / "rows.jsonl"))
    said = [asked(row, f"{row.task} {index}", index % 2 == 0) for index, row in enumerate(rows)]
    page = write_run_report(write_lines(tmp_path, {"step": 10, "samples": said}))
    html = page.read_text(encoding="utf-8")
    assert html.count("<article") == len(rows)
    assert html.count("<audio") == sum(media.modality == "audio" for row in rows for media in row.media)
    assert html.count('class="frames"') == sum(media.modality == "video" for row in rows for media in row.media)


def test_the_first_rows_of_each_set_are_shown_and_the_others_counted(tmp_path):
    said = [{**look, "set": f"s{n % 20}", "id": str(n)} for n, look in enumerate(looks(["cat"] * 100))]
    words = words_of(write_run_report(write_lines(tmp_path, {"step": 10, "samples": said})))
    assert "Of each data set the first 3 are shown; 40 more are in metrics.jsonl." in words


def test_a_task_that_is_not_known_and_media_that_are_gone(tmp_path):
    shown = watched(looks(["cat"], task="foretell", media=[["image", str(tmp_path / "gone.png")]]))
    assert shown.turns[0].verdict is None
    assert shown.note == "Some of its media cannot be read any more."


# --- cost -------------------------------------------------------------------------------------------------------------


def test_hours_are_counted_for_each_machine(tmp_path):
    big = {**MACHINE, "threads": 8, "processes": 4}
    history = read_history(
        write_lines(
            tmp_path,
            {"event": "begin", "step": 0, "machine": MACHINE},
            {"step": 10, "seconds": 3600.0, "loss": {}},
            {"event": "begin", "step": 10, "machine": big},
            {"event": "end", "step": 20, "seconds": 5400.0},
        )
    )
    assert [(machine["threads"], hours) for machine, hours in history.machines] == [(2, 1.0), (8, 0.5)]
    points = dict(costs(history, 2.0, 100)[0].points)
    assert points["Processor hours:"].startswith("18.0, ")  # 2 threads for an hour, 4 x 8 for half an hour
    assert points["Energy:"].startswith("0.15 kWh")
    assert points["Money:"].startswith("3.0 at 2 an hour")
    assert set(dict(costs(history, None, None)[0].points)) == {"Training time:", "Processor hours:"}


def test_opposed_data_sets_are_listed_by_their_mean(tmp_path):
    def line(step, ab):
        return {"step": step, "conflicts": {"names": ["a", "b"], "cosine": [[1.0, ab], [ab, 1.0]]}}

    (_, table) = run.conflicts(read_history(write_lines(tmp_path, line(0, -0.5), line(10, -0.1))))
    assert table.rows == (("a and b", "-0.30", "2"),)
    (_, prose) = run.conflicts(read_history(write_lines(tmp_path, line(0, 0.1), line(10, -0.1))))
    assert "no two data sets are opposed" in prose.paragraphs[0]


# --- the command ------------------------------------------------------------------------------------------------------


def test_the_command_makes_the_page_again(tmp_path, command):
    lines = [{"step": step, "seconds": step, "loss": {"a": 1.0}} for step in (10, 20)]
    folder = write_lines(tmp_path / "one", *lines)
    code, said, _ = command("report", folder, "--price-per-hour", 1)
    assert (code, said.strip()) == (0, str(folder / "report.html"))
    assert "step 20 of 40 is the last one written" in (folder / "report.html").read_text()
    write_lines(folder, *lines, {"event": "begin", "step": 20}, {"event": "end", "step": 40, "seconds": 40})
    assert command("report", folder)[0] == 0
    assert "Finished after 40 steps." in (folder / "report.html").read_text()
    code, _, complaint = command("report", tmp_path / "two")
    assert code == 2
    assert complaint.count("\n") == 1
