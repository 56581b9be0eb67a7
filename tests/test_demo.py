"""The bundled samples, and the demo from a model folder to a page."""

import json
import re

import pytest
from rich.console import Console
from small import tiny_model, tiny_tokenizer

from monoglot import demo
from monoglot.data.rows import check_rows, read_rows, sample_to_row, write_rows
from monoglot.demo import SAMPLES, run_demo
from monoglot.errors import InputError
from monoglot.store import save_model
from monoglot.tasks import TASKS

ROWS = list(read_rows(SAMPLES / "rows.jsonl"))
FREE = {"CC0 1.0", "MIT", "Apache-2.0", "CC-BY-4.0", "CC BY 3.0", "BSD"}


def test_the_samples_are_small():
    assert sum(file.stat().st_size for file in SAMPLES.rglob("*") if file.is_file()) < 3_000_000


def test_every_sample_is_a_whole_row_that_its_task_poses():
    assert check_rows(SAMPLES / "rows.jsonl", known_tasks=TASKS).problems == []
    for sample in ROWS:
        assert sample.targets or sample.box
        assert TASKS[sample.task].pose(sample).prompt
        assert sample.meta["about"]
        assert demo.kind_of(sample) in demo.KINDS


def test_every_sample_is_free_and_its_file_is_in_the_notice():
    notice = (SAMPLES / "NOTICE.md").read_text(encoding="utf-8")
    listed = set(re.findall(r"^- (media/\S+)$", notice, re.MULTILINE))
    assert listed == {f"media/{file.name}" for file in (SAMPLES / "media").iterdir()}
    assert {sample.meta["licence"] for sample in ROWS} <= FREE
    for sample in ROWS:
        if not sample.media:
            assert f"- the row {sample.id} of rows.jsonl" in notice


def test_samples_of_every_modality_and_task_are_there():
    assert {demo.kind_of(sample) for sample in ROWS} == set(demo.KINDS)
    tasks = "name vqa grounding region_caption caption matching classify transcribe summarize"
    assert {sample.task for sample in ROWS} == set(tasks.split())


@pytest.fixture(scope="module")
def cold(tmp_path_factory):
    """A model folder with small random weights."""
    folder = tmp_path_factory.mktemp("cold")
    modalities = {"image": {"size": 32}, "video": {"size": 32, "frames": 2}, "audio": {}}
    model = tiny_model(encoders=True, modalities=modalities, source_positions=600, target_positions=32)
    save_model(folder, model, tiny_tokenizer())
    return folder


def one_of_each_kind(folder):
    """A samples folder with the first row of each kind."""
    first = {demo.kind_of(sample): sample for sample in reversed(ROWS)}
    write_rows(folder / "rows.jsonl", (sample_to_row(sample) for sample in first.values()))
    return folder


def test_the_demo_answers_and_writes_its_page(cold, tmp_path):
    console = Console(width=100, record=True, quiet=True)
    samples = one_of_each_kind(tmp_path / "samples")
    path = run_demo(tmp_path / "out", cold, samples=samples, console=console)
    assert path == tmp_path / "out/report.html"
    rows = [json.loads(line) for line in (samples / "rows.jsonl").read_text().splitlines()]
    answers = [json.loads(line) for line in (tmp_path / "out/predictions.jsonl").read_text().splitlines()]
    assert [answer["id"] for answer in answers] == [row["id"] for row in rows]
    assert all(answer["error"] is None and answer["seconds"] > 0 for answer in answers)
    html = path.read_text(encoding="utf-8")
    assert html.startswith("<!doctype html>")
    assert html.count("<article") == len(rows)
    assert "tiny" in html
    assert all(f">{kind}" in html for kind in demo.KINDS)


def test_a_row_that_cannot_be_read_is_shown_and_counts_as_wrong(cold, tmp_path):
    row = {"id": "gone", "task": "name", "image": "gone.png", "target": "cat"}
    write_rows(tmp_path / "rows.jsonl", [row])
    path = run_demo(tmp_path / "out", cold, samples=tmp_path, console=Console(quiet=True))
    html = path.read_text(encoding="utf-8")
    assert "not answered" in html
    assert "0 of 1 right" in html


def test_without_the_extra_the_fix_is_told_before_anything_is_loaded(monkeypatch, tmp_path):
    monkeypatch.setattr("monoglot.report.find_spec", lambda name: None if name == "jinja2" else object())
    with pytest.raises(InputError, match=r'reports need jinja2; run: pip install "monoglot\[report\]"'):
        run_demo(tmp_path, tmp_path / "no-model")
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_all_samples_are_answered(cold, tmp_path):
    run_demo(tmp_path, cold, console=Console(quiet=True))
    answers = [json.loads(line) for line in (tmp_path / "predictions.jsonl").read_text().splitlines()]
    assert len(answers) == len(ROWS)
    assert not [answer["error"] for answer in answers if answer["error"]]
