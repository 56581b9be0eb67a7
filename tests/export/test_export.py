"""An exported folder: its graphs, its answers, its example program, and when it is refused."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from small import COLOURS, square

from monoglot import export as package
from monoglot.adapters import AdapterSettings, Answers, Base, save_adapter, weights_sha256
from monoglot.data.rows import read_rows
from monoglot.decode.predict import load
from monoglot.decode.search import SearchSettings
from monoglot.errors import InputError
from monoglot.export.graphs import WEIGHTS, graphs_of, traced, write_graphs
from monoglot.export.parity import difference
from monoglot.export.spec import task_spec
from monoglot.model.head import fit_head
from monoglot.nouns import Media, Sample
from monoglot.tasks import TASKS

EXAMPLE = Path(__file__).parents[2] / "examples" / "onnx_answer.py"
FILES = {"image.onnx", "source.onnx", "step.onnx", WEIGHTS, "tokenizer.json", "preprocess.json", "parity.json"}


def page(folder: Path, name: str) -> dict:
    return json.loads((folder / name).read_text(encoding="utf-8"))


@pytest.fixture
def copied(exported, monkeypatch):
    """Graphs are copied from the export that is there, those of heads are made; `change` may spoil the copy."""
    from monoglot.export import run

    def use(change=lambda folder: None):
        def write(folder, made):
            new = [(name, make) for name, make in made if name.startswith("head_")]
            if new:
                write_graphs(folder, new)  # its tensors are few: they stay in the graph
            for name in ("image.onnx", "source.onnx", "step.onnx", WEIGHTS):
                shutil.copy(exported / name, folder)
            change(folder)

        monkeypatch.setattr(run, "write_graphs", write)

    return use


def spoil(folder: Path) -> None:
    """Every weight with the other sign."""
    weights = np.fromfile(folder / WEIGHTS, np.float32)
    (-weights).tofile(folder / WEIGHTS)


# --- what is in the folder --------------------------------------------------------------------------------------------


def test_the_folder_holds_what_it_says(exported):
    assert {path.name for path in exported.iterdir()} == FILES | {"README.md", "lineage.json"}
    lineage = page(exported, "lineage.json")
    assert lineage["parents"][0]["model"] == "small"
    assert set(lineage["files"]) == {"image.onnx", "source.onnx", "step.onnx", WEIGHTS}
    assert "5 of 5 rows" in (exported / "README.md").read_text()
    assert not list(exported.parent.glob(".*")), "the temporary folder is gone"


def test_parity_names_every_row(exported):
    parity = page(exported, "parity.json")
    assert (parity["rows"], parity["equal"]) == (5, 5)
    assert [row["id"] for row in parity["each"]] == list("01234")
    assert max(parity["largest_difference"].values()) < 1e-4
    assert set(parity["seconds"]) == {"model", "float32"}


def test_weights_that_graphs_share_are_stored_once(exported, original):
    words = original.model.words.weight.numel() * 4
    everything = sum(p.numel() for p in original.model.parameters()) * 4
    size = (exported / WEIGHTS).stat().st_size
    assert everything - words < size < everything + words / 2
    assert (exported / "step.onnx").stat().st_size < words


def test_the_spec_has_prompts_and_ranges(exported):
    spec = page(exported, "preprocess.json")
    assert spec["tasks"]["name"]["prompts"]["image"]["ja"] == ["{image}", " what is this called in Japanese?"]
    assert spec["tasks"]["vqa"]["prompts"]["image"] == {"any": ["{image}", " {text}"]}
    assert spec["tasks"]["region_caption"]["prompts"]["image"]["any"][-1] == "{box}"
    assert spec["tasks"]["answer_matching"]["prompts"]["image"]["any"][1].endswith('{text}? ". is " {answer} "?')
    assert spec["tasks"]["matching"]["choices"] == ["yes", "no"]
    assert spec["tasks"]["classify"]["choices"] == []
    assert spec["tokens"]["bins"][1] == spec["tokens"]["size"]
    assert spec["graphs"]["image.onnx"]["inputs"]["items"]["shape"] == ["batch", 3, 64, 64]


def test_every_task_has_a_length_and_most_have_a_prompt(original):
    told = {name: task_spec(original.model.config, name) for name in TASKS}
    assert all(task["max_length"] > 0 for task in told.values())
    without = {name for name, task in told.items() if not task["prompts"]}
    assert without <= {"infill", "infill_image", "transcribe", "generate_image"}  # gaps, or media that this model lacks


# --- answers ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 3, 5])
@pytest.mark.parametrize("beam", [1, 3])
def test_batches_are_answered_as_the_model_answers_them(exported, small_folder, rows_file, size, beam):
    """Rows of one batch differ in length and in how many pictures they have; beams are reordered within it."""
    from monoglot.export.runtime import load_export

    rows = [row for row in read_rows(rows_file) if row.task != "grounding"] + [
        Sample("f", "vqa", (Media("image", square(COLOURS["green"])),), "what is the red hat that hit the wall?"),
        Sample("g", "summarize", (), "what?"),
    ]
    search = SearchSettings(beam=beam, max_length=8)
    mine = list(load(small_folder, search=search).predict_many(rows, batch_size=size))
    theirs = list(load_export(exported, search=search).predict_many(rows, batch_size=size))
    assert [answer.error for answer in mine] == [None] * len(rows)
    assert [answer.text for answer in theirs] == [answer.text for answer in mine]
    assert [answer.confidence for answer in theirs] == pytest.approx([a.confidence for a in mine], rel=1e-3)


@pytest.mark.parametrize("count", [1, 3])
def test_the_encoder_takes_any_batch(exported, original, count):
    from monoglot.export.runtime import load_export

    items = [torch.randint(0, 255, (3, 64, 64), dtype=torch.uint8) for _ in range(count)]
    with torch.no_grad():
        wanted = original.model.encoders["image"](items)
    assert difference(wanted, load_export(exported).model.encoders["image"](items)) < 1e-4


BLOCKED = "import sys; sys.modules['torch'] = sys.modules['monoglot'] = None; sys.argv = sys.argv[1:]; import runpy; "


def test_the_example_answers_without_torch_as_the_model_does(exported, original, tmp_path):
    picture = Image.fromarray(square(COLOURS["blue"])).convert("RGBA")
    picture.putpixel((0, 0), (9, 9, 9, 0))
    picture.save(tmp_path / "blue.png")

    def ask(*more: str) -> str:
        code = BLOCKED + "runpy.run_path(sys.argv[0], run_name='__main__')"
        command = [sys.executable, "-c", code, str(EXAMPLE), str(exported), str(tmp_path / "blue.png"), *more]
        done = subprocess.run(command, capture_output=True, check=False, timeout=120)
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout.decode().strip()

    picture_file = str(tmp_path / "blue.png")
    assert ask() == original.predict(task="name", image=picture_file).text
    question = {"text": "what colour?", "choices": ["red", "the blue hat", "the blue"]}
    expected = original.predict(task="classify", image=picture_file, **question).text
    assert ask("--task", "classify", "--text", question["text"], "--choices", ",".join(question["choices"])) == expected


def test_the_example_is_short():
    assert len(EXAMPLE.read_text().splitlines()) <= 100


# --- refusals ---------------------------------------------------------------------------------------------------------


def test_graphs_that_answer_otherwise_are_refused(copied, small_folder, rows_file, tmp_path, command):
    copied(spoil)
    code, _, error = command("export", "--model", small_folder, "--data", rows_file, "--out", tmp_path / "onnx")
    assert code == 1
    assert "AnswersDiffer: row '0' (name): the model says" in error
    assert error.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["onnx.parity.json"]
    kept = page(tmp_path, "onnx.parity.json")
    assert kept["equal"] < kept["rows"] == 5


def test_what_is_wrong_is_told_in_a_line(exported, small_folder, rows_file, tmp_path, command, monkeypatch):
    def told(*arguments) -> str:
        code, _, error = command("export", *arguments)
        assert code == 2
        assert error.count("\n") == 1
        return error

    assert "--out: exists already; give a new folder" in told("--model", small_folder, "--out", exported)
    assert "model: no such folder" in told("--model", tmp_path / "none", "--out", tmp_path / "new")
    assert "--int8: needs --data" in told("--model", small_folder, "--out", tmp_path / "new", "--int8")
    assert "--force: needs --int8" in told("--model", small_folder, "--out", tmp_path / "new", "--force")
    sound = tmp_path / "rows.jsonl"
    sound.write_text('{"id": "1", "task": "name", "audio": "cat.wav"}\n')
    error = told("--model", small_folder, "--out", tmp_path / "new", "--data", sound)
    assert "rows.jsonl:1: audio: this model does not read it" in error
    (tmp_path / "empty.jsonl").write_text("")
    assert "has no rows" in told("--model", small_folder, "--out", tmp_path / "new", "--data", tmp_path / "empty.jsonl")
    monkeypatch.setattr(package, "find_spec", lambda name: None)
    error = told("--model", small_folder, "--out", tmp_path / "new")
    assert 'export needs onnx and onnxscript and onnxruntime; run: pip install "monoglot[export]"' in error
    assert {path.name for path in tmp_path.iterdir()} == {"rows.jsonl", "empty.jsonl"}


def test_a_folder_without_its_graphs_is_told(exported, tmp_path):
    from monoglot.export.runtime import load_export

    with pytest.raises(InputError, match=r"preprocess\.json: no such file"):
        load_export(tmp_path)
    for name in FILES - {"step.onnx"}:
        shutil.copy(exported / name, tmp_path)
    with pytest.raises(InputError, match=r"step\.onnx: graph: cannot be read"):
        load_export(tmp_path)


# --- adapters, 8 bits -------------------------------------------------------------------------------------------------


def test_an_adapter_with_a_head_brings_its_answers_and_its_graph(copied, small_folder, rows_file, tmp_path):
    from monoglot.export.run import export

    torch.manual_seed(0)
    head = fit_head(torch.randn(8, 5), ["red", "blue"] * 4, blocks={"image.mean": 5})
    tensors, settings = head.state()
    answers = Answers(task="classify", text="what colour?", choices=("blue", "red"), head=settings)
    base = Base(name="small", path=str(small_folder), sha256=weights_sha256(small_folder))
    adapter = tmp_path / "colours"
    save_adapter(adapter, AdapterSettings(base=base, method="head", answers=(answers,)), {}, heads={0: tensors})
    copied()
    done = export(adapter, tmp_path / "onnx", data=rows_file, quiet=True)
    assert (done.parity["rows"], done.parity["equal"]) == (5, 5)
    assert (done.folder / "head_0.onnx").is_file()
    spec = page(done.folder, "preprocess.json")
    assert spec["answers"][0]["choices"] == ["blue", "red"]
    assert [parent["model"] for parent in page(done.folder, "lineage.json")["parents"]] == ["colours", "small"]


def test_eight_bits_are_smaller_and_told_by_their_score(copied, small_folder, rows_file, tmp_path, command):
    copied()
    out = tmp_path / "int8"
    arguments = ("export", "--model", small_folder, "--data", rows_file, "--out", out, "--int8", "--force")
    code, printed, error = command(*arguments)
    assert code == 0, error
    parity = page(out, "parity.json")
    assert parity["precision"] == page(out, "preprocess.json")["precision"] == "int8"
    assert parity["bytes"]["int8"] < 0.7 * parity["bytes"]["float32"]
    assert set(parity["seconds"]) == {"model", "float32", "int8"}
    assert {score["task"] for score in parity["metrics"]} == {row["task"] for row in parity["each"]}
    assert "of the size" in printed


def test_eight_bits_that_lose_too_much_are_refused(copied, small_folder, rows_file, tmp_path, monkeypatch):
    from monoglot.export import run

    copied()
    lost = [{"task": "name", "metric": "exact_match", "rows": 5, "model": 0.8, "int8": 0.7, "lost": 0.1}]
    monkeypatch.setattr(run, "main_scores", lambda *_: lost)
    with pytest.raises(InputError, match=r"exact_match of name falls from 0\.8 to 0\.7 with 8 bits"):
        run.export(small_folder, tmp_path / "int8", data=rows_file, int8=True, quiet=True)
    assert not list(tmp_path.iterdir())
    kept = run.export(small_folder, tmp_path / "int8", data=rows_file, int8=True, force=True, quiet=True)
    assert kept.folder.is_dir()


# --- slow: real encoders, nano ----------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("positions", ["added", "untied"])
def test_real_encoders_take_any_length(positions, tmp_path):
    pytest.importorskip("onnxruntime")
    from small import tiny_model

    from monoglot.export.runtime import OnnxEncoder

    settings = {"video": {"size": 32, "frames": 2, "frame_positions": 4}, "audio": {"pad_seconds": 0.1}}
    model = tiny_model(positions, encoders=True, modalities=settings)
    clip, sound = torch.randint(0, 255, (2, 3, 32, 32), dtype=torch.uint8), torch.randn(3200) * 0.1
    graphs = graphs_of(model, {"video": clip, "audio": sound}, {})
    write_graphs(tmp_path, [(graph.file, lambda graph=graph: traced(graph)) for graph in graphs])
    lengths = {"video": [(1, 2), (3, 4)], "audio": [(1, 320), (3, 16_000)]}
    for name, shapes in lengths.items():
        graph = OnnxEncoder(tmp_path / f"{name}.onnx")
        for count, length in shapes:
            items = [torch.randint(0, 255, (length, 3, 32, 32), dtype=torch.uint8) for _ in range(count)]
            if name == "audio":
                items = [torch.randn(length) * 0.1 for _ in range(count)]
            with torch.no_grad():
                assert difference(model.encoders[name](items), graph(items)) < 1e-4


@pytest.mark.slow
def test_nano_answers_every_bundled_sample_alike(tmp_path):
    pytest.importorskip("onnxruntime")
    from monoglot.export.run import export

    parity = export("nano", tmp_path / "nano-onnx", quiet=True).parity
    assert parity["left_out"] == 0
    assert parity["rows"] == parity["equal"] >= 30
