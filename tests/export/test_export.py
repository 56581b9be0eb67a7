"""An exported folder: its graphs, its answers, its example program, and when it is refused."""

from __future__ import annotations

import json
import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from small import COLOURS, square

from monoglot import export as package
from monoglot import store
from monoglot.adapters import AdapterSettings, Answers, Base, save_adapter, weights_sha256
from monoglot.data.rows import read_rows
from monoglot.decode.predict import load
from monoglot.decode.search import SearchSettings
from monoglot.errors import InputError
from monoglot.export.graphs import SMALLEST_SHARED, WEIGHTS, graphs_of, traced, write_graphs
from monoglot.export.graphs import _media_graph as media_graph
from monoglot.export.parity import GREEDY, compare, difference
from monoglot.export.spec import task_spec
from monoglot.modalities import MODALITIES
from monoglot.modalities.networks import cnn14
from monoglot.modalities.networks.resnext3d import ResNeXt3D
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
        monkeypatch.setattr(run, "TIMED_ROWS", 1)

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


# --- encoders of published models -----------------------------------------------------------------------------------


def graph_error(name, network, settings, traced_with, item, folder) -> float:
    """Largest difference between a network and its graph on two items, as a share of the largest feature."""
    from monoglot.export.runtime import OnnxEncoder

    config = SimpleNamespace(modalities={name: settings})
    graph = media_graph(SimpleNamespace(encoders={name: network}, config=config), name, traced_with)
    write_graphs(folder, [(graph.file, lambda: traced(graph))])
    items = [item, item.flip(-1)]
    with torch.no_grad():
        wanted = network(items)
    return difference(wanted, OnnxEncoder(folder / graph.file)(items)) / max(float(x.abs().max()) for x in wanted)


def test_3d_resnext_is_exported(exported, tmp_path):
    torch.manual_seed(0)
    network = ResNeXt3D((1, 1)).eval()
    clip = torch.randint(0, 255, (16, 3, 32, 32), dtype=torch.uint8)
    settings = MODALITIES["video"].config(encoder="resnext101_3d", size=32)
    assert graph_error("video", network, settings, torch.zeros_like(clip), clip, tmp_path) < 1e-5


def test_cnn14_is_exported_for_its_one_length(exported, tmp_path, monkeypatch):
    monkeypatch.setattr(cnn14, "WIDTHS", (1, 4, 4, 4, 4, 4, 4))
    settings = MODALITIES["audio"].config(encoder="cnn14", max_seconds=0.2, pad_seconds=0.2)
    torch.manual_seed(0)
    network = MODALITIES["audio"].encoders["cnn14"](settings).eval()
    sound = torch.randn(9600) * 0.1
    assert graph_error("audio", network, settings, torch.zeros_like(sound), sound, tmp_path) < 1e-4
    several = settings.model_copy(update={"max_seconds": 1.0})
    with pytest.raises(InputError, match=r"audio: sounds are filled to multiples of 0\.2 s, up to 1 s; .* one length"):
        graph_error("audio", network, several, sound, sound, tmp_path)


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


def test_an_adapter_brings_its_answers_and_the_graph_of_its_head(copied, small_folder, rows_file, tmp_path):
    """One question has a head, one only its choices; the example program heeds both, and other choices."""
    from monoglot.export.run import export

    torch.manual_seed(0)
    head = fit_head(torch.randn(8, 37), ["red", "blue"] * 4, blocks={"image.std": 5, "memory.mean": 32})
    tensors, settings = head.state()
    colours = Answers(task="classify", text="what colour?", choices=("blue", "red"), head=settings)
    kinds = Answers(task="vqa", text="what kind?", choices=("the hat", "the heat", "what"))
    base = Base(name="small", path=str(small_folder), sha256=weights_sha256(small_folder))
    adapter = tmp_path / "colours"
    pages = AdapterSettings(base=base, method="head", answers=(colours, kinds))
    save_adapter(adapter, pages, {}, heads={0: tensors})
    copied()
    done = export(adapter, tmp_path / "onnx", data=rows_file, quiet=True)
    assert (done.parity["rows"], done.parity["equal"]) == (5, 5)
    assert (done.folder / "head_0.onnx").is_file()
    spec = page(done.folder, "preprocess.json")
    assert [given["choices"] for given in spec["answers"]] == [["blue", "red"], ["the hat", "the heat", "what"]]
    assert [parent["model"] for parent in page(done.folder, "lineage.json")["parents"]] == ["colours", "small"]

    example, adapted = runpy.run_path(str(EXAMPLE)), load(adapter, search=GREEDY)
    picture = str(rows_file.parent / "red.png")
    for task, text, choices in (
        ("classify", "what  colour?", ()),
        ("classify", "what colour?", ("hat", "blue")),
        ("vqa", "what kind?", ()),
        ("vqa", "what kind?", ("red",)),
    ):
        wanted = adapted.predict(task=task, image=picture, text=text, choices=choices).text
        assert example["answer"](done.folder, picture, task, text, list(choices), "en") == wanted
        assert wanted in (choices or {"classify": colours, "vqa": kinds}[task].choices)


def test_eight_bits_say_what_a_model_of_such_weights_says(copied, exported, original, rows_file, tmp_path, command):
    """The oracle is a model folder whose matrices are stored as int8: its float32 model has the weights that the graphs have."""
    from monoglot.export.run import load_export

    copied()
    out, rounded = tmp_path / "int8", tmp_path / "rounded"
    arguments = ("export", "--model", original.folder, "--data", rows_file, "--out", out, "--int8", "--force")
    code, printed, error = command(*arguments)
    assert code == 0, error
    assert "of the size" in printed
    parity = page(out, "parity.json")
    assert parity["precision"] == page(out, "preprocess.json")["precision"] == "int8"
    assert parity["bound"] == {"points": 1}
    assert set(parity["seconds"]) == {"model", "float32", "int8"}
    assert {score["task"] for score in parity["metrics"]} == {row["task"] for row in parity["each"]}
    assert (out / WEIGHTS).stat().st_size < 0.35 * (exported / WEIGHTS).stat().st_size
    assert parity["bytes"]["int8"] < parity["bytes"]["float32"]

    matrices = {name: tensor for name, tensor in original.model.named_parameters() if tensor.dim() == 2}
    large = [f"^{re.escape(name)}$" for name, tensor in matrices.items() if 4 * tensor.numel() >= SMALLEST_SHARED]
    store.save_model(rounded, original.model, original.tokenizer, int8=large)
    model, graphs = load(rounded, search=GREEDY), load_export(out, search=GREEDY)
    for row in read_rows(rows_file):
        compared, *_ = compare(model, graphs, row)
        assert compared.equal
        assert max(compared.features, compared.memory, compared.logits) < 1e-4


def test_eight_bits_that_lose_too_much_are_refused(copied, small_folder, rows_file, tmp_path, monkeypatch):
    from monoglot.export import run

    copied()
    lost = [{"task": "name", "metric": "exact_match", "rows": 5, "model": 0.8, "int8": 0.7, "lost": 0.1}]
    monkeypatch.setattr(run, "main_scores", lambda *_: lost)
    with pytest.raises(InputError, match=r"exact_match of name falls from 0\.8 to 0\.7 with 8 bits"):
        run.export(small_folder, tmp_path / "int8", data=rows_file, int8=True, quiet=True)
    assert [path.name for path in tmp_path.iterdir()] == ["int8.parity.json"]
    kept = page(tmp_path, "int8.parity.json")
    assert (kept["bound"], kept["metrics"]) == ({"points": 1}, lost)


@pytest.mark.parametrize(
    ("report", "bound", "refused"),
    [
        ({"metrics": [{"lost": -0.2}, {"lost": 0.60 - 0.59}]}, {"points": 1}, None),  # 0.010000000000000009
        ({"metrics": [{"lost": 0.011}]}, {"points": 1}, "accuracy of vqa falls from 0.6 to 0.589 with 8 bits"),
        ({"rows": 20, "equal": 19}, {"equal": 0.95}, None),
        ({"rows": 31, "equal": 29}, {"equal": 0.95}, "29 of 31 answers are equal with 8 bits, fewer than 95%"),
    ],
)
def test_the_bound_of_eight_bits_is_stated(report, bound, refused):
    from monoglot.export.int8 import beyond

    for score in report.get("metrics", ()):
        score |= {"task": "vqa", "metric": "accuracy", "model": 0.6, "int8": 0.6 - score["lost"]}
    assert beyond(report) == refused
    assert report["bound"] == bound


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
@pytest.mark.parametrize(("name", "encoder"), [("video", "resnext101_3d"), ("audio", "cnn14")])
def test_published_encoders_of_full_size_are_exported(name, encoder, tmp_path):
    """With the sizes of the published settings, and random weights."""
    pytest.importorskip("onnxruntime")
    from monoglot.export.run import IN_MEMORY

    settings = MODALITIES[name].config(encoder=encoder, **({"size": 128} if name == "video" else {}))
    network = MODALITIES[name].encoders[encoder](settings).eval()
    item = torch.as_tensor(MODALITIES[name].prepare(Media(name, IN_MEMORY[name]()), settings, 0))
    assert graph_error(name, network, settings, item, item, tmp_path) < 1e-3


@pytest.mark.slow
def test_nano_answers_every_bundled_sample_alike(tmp_path):
    pytest.importorskip("onnxruntime")
    from monoglot.export.run import export

    parity = export("nano", tmp_path / "nano-onnx", quiet=True).parity
    assert parity["left_out"] == 0
    assert parity["rows"] == parity["equal"] >= 30
