"""Kinds of media from outside: told when they are missing, loaded once, read wherever rows are read."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
import torch
from media import EXAMPLES, KINDS, plugged, readings
from small import tiny_model, tiny_tokenizer

from monoglot import plugins
from monoglot.data.rowfile import RowFile
from monoglot.data.rows import check_rows, parse_row
from monoglot.decode.predict import Predictor
from monoglot.errors import InputError
from monoglot.modalities import MODALITIES
from monoglot.store import load_model, save_model
from monoglot.train import run as run_module
from monoglot.train.loop import train
from monoglot.train.recipe import Recipe

SENSOR = EXAMPLES / "sensor.py"
GIVEN = "others come from a plugin: `monoglot --plugin FILE.py VERB ...`, or MONOGLOT_PLUGINS=FILE.py"


@pytest.fixture(autouse=True)
def forgotten():
    with plugged():
        yield


@pytest.fixture
def sensor_rows(tmp_path) -> Path:
    """Two series, fast and slow, and rows that ask which."""
    rows = []
    for number in range(8):
        name = "fast" if number % 2 else "slow"
        KINDS["sensor"].write(tmp_path / f"run{number}", readings(60 + number, 2 if number % 2 else 9, 1.0))
        row = {"id": str(number), "task": "classify", "sensor": f"run{number}.csv", "text": "how?", "target": name}
        rows.append(row | {"choices": ["fast", "slow"], "start": 0.1})
    path = tmp_path / "sensor.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def sensing(tmp_path) -> Path:
    """A model folder that reads the sensor and pictures; it has learned nothing."""
    with plugged(SENSOR):
        settings = {name: KINDS[name].settings for name in ("image", "sensor")}
        save_model(tmp_path / "sensing", tiny_model(encoders=True, modalities=settings), tiny_tokenizer())
    return tmp_path / "sensing"


# --- rows -------------------------------------------------------------------------------------------------------------


def test_a_row_that_names_media_of_nobody_is_told_how_to_give_the_plugin(tmp_path):
    (tmp_path / "run7.csv").write_text("1,2\n")
    row = {"id": "1", "task": "classify", "text": "how?", "choices": ["a", "b"], "sensor": "run7.csv", "start": 1}
    with pytest.raises(InputError) as caught:
        parse_row(row, where_file="rows.jsonl", line=3, base=tmp_path)
    said = str(caught.value)
    assert said.startswith(
        "rows.jsonl:3: sensor: names a file, but there is no modality named 'sensor'; known: audio, image, video; "
    )
    assert GIVEN in said
    assert "\n" not in said
    with pytest.raises(
        InputError, match="vidoes: names a file, but there is no modality named 'vidoes'; closest: 'video'"
    ):
        parse_row({"task": "caption", "vidoes": ["not_there.mp4"]})
    with pytest.raises(InputError, match=r"no modality named 'scan'"):
        parse_row({"task": "caption", "scan": "tar://shard.tar#scan"})


@pytest.mark.parametrize(
    "note", [{"licence": "CC BY 4.0."}, {"file": "gone.csv"}, {"notes": {"x": "run7.csv"}}, {"n": [1]}]
)
def test_notes_stay_notes(note, tmp_path):
    (tmp_path / "run7.csv").write_text("1,2\n")
    assert parse_row({"task": "summarize", "text": "?", **note}, base=tmp_path).meta == note


def test_any_registered_kind_is_a_key(sensor_rows, monkeypatch):
    assert not check_rows(sensor_rows).ok
    monkeypatch.setenv(plugins.VARIABLE, str(SENSOR))
    report = check_rows(sensor_rows)
    assert (report.good, report.problems, report.modalities["sensor"]) == (8, [], 8)
    with pytest.raises(InputError, match="sensr: unknown key; did you mean 'sensor'"):
        parse_row({"task": "caption", "image": "a.png", "sensr": "b.csv"})
    with pytest.raises(InputError, match="start: there is no video or audio or sensor in this row"):
        parse_row({"task": "caption", "image": "a.png", "start": 1})


# --- loading ----------------------------------------------------------------------------------------------------------


def test_files_are_loaded_once_when_first_asked(tmp_path, monkeypatch):
    counted = tmp_path / "counted.py"
    counted.write_text(SENSOR.read_text() + f"\nopen({str(tmp_path / 'loads')!r}, 'a').write('x')\n")
    link = tmp_path / "link.py"
    link.symlink_to(counted)
    plugins.give_plugins([str(counted), str(link)])
    monkeypatch.chdir(tmp_path.parent)
    assert not (tmp_path / "loads").exists()
    assert plugins.media_kinds() == {"image": False, "video": True, "audio": True, "sensor": True}
    assert "sensor" in MODALITIES
    assert len(MODALITIES) == 4
    assert (tmp_path / "loads").read_text() == "x"
    assert plugins.plugin_of("sensor") == "counted.py"
    assert os.environ[plugins.VARIABLE] == f"{counted}{os.pathsep}{link}"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "plugin: no such file; correct the path in --plugin or MONOGLOT_PLUGINS"),
        ("def", "plugin: cannot be loaded (SyntaxError: "),
        (
            "import nonsense_of_nobody",
            "plugin: cannot be loaded (ModuleNotFoundError: No module named 'nonsense_of_nobody'); mend it",
        ),
        ("x = 1", "plugin: registers no modality; it calls MODALITIES.add"),
        (
            SENSOR.read_text() + "\nMODALITIES.add('image', SENSOR)",
            "plugin: cannot be loaded (ValueError: modality 'image' is registered twice)",
        ),
    ],
)
def test_a_plugin_that_fails_is_told_in_one_line_and_leaves_nothing(text, message, tmp_path):
    plugin = tmp_path / "plugin.py"
    if text is not None:
        plugin.write_text(text)
    plugins.give_plugins([str(plugin)])
    for _ in range(2):  # also when asked again
        with pytest.raises(InputError) as caught:
            plugins.media_kinds()
        assert str(caught.value).startswith(f"{plugin}: {message}")
        assert "\n" not in str(caught.value)
    assert "sensor" not in MODALITIES._entries


def test_installed_packages_bring_modalities(tmp_path, monkeypatch):
    (tmp_path / "brought_by_a_package.py").write_text(SENSOR.read_text())
    monkeypatch.syspath_prepend(tmp_path)
    point = EntryPoint("sensor", "brought_by_a_package", plugins.GROUP)
    monkeypatch.setattr(plugins, "entry_points", lambda group: [point] if group == plugins.GROUP else [])
    plugins._finished = None
    assert plugins.media_kinds()["sensor"]
    assert plugins.plugin_of("sensor") == "brought_by_a_package (monoglot.modalities: sensor)"


def test_help_loads_no_plugin():
    code = (
        "import sys; from monoglot.cli import main\ntry:\n    main(['--plugin', 'not_there.py', 'predict', '--help'])\n"
    )
    code += "except SystemExit as end:\n    assert not end.code\nprint('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.splitlines()[-1] == "False"


# --- models -----------------------------------------------------------------------------------------------------------


def test_a_model_says_which_plugin_it_misses_and_brings_no_code(sensing):
    (sensing / "sensor.py").write_text("raise SystemExit('a model folder was run')")
    with pytest.raises(InputError) as caught:
        load_model(sensing)
    said = str(caught.value)
    assert "model.modalities.sensor: this model reads 'sensor' by the plugin sensor.py, which is not loaded" in said
    assert "`monoglot --plugin path/to/sensor.py VERB ...`, or MONOGLOT_PLUGINS=path/to/sensor.py" in said
    assert "\n" not in said


def test_predict_takes_any_registered_kind_by_its_name(sensing, sensor_rows):
    with plugged(SENSOR):
        predictor = Predictor(*load_model(sensing))
        series = str(sensor_rows.parent / "run1.csv")
        answer = predictor.predict(task="vqa", sensor=series, text="how?", choices=["red", "blue"])
        assert answer.text in ("red", "blue")
        row = {"id": "1", "task": "vqa", "sensor": series, "text": "how?", "choices": ["red", "blue"]}
        assert next(predictor.predict_many([row])).candidates == answer.candidates
        both = predictor.predict(
            task="vqa", sensor=[series, readings(9, 1, 1)], image=KINDS["image"].items[0], text="?"
        )
        assert both.error is None
        with pytest.raises(
            InputError, match=r"no argument or modality named 'sensr'; closest: 'sensor'.*others come from"
        ):
            predictor.predict(task="vqa", sensr=series, text="how?")
        with pytest.raises(InputError, match="no argument or modality named 'choice'; closest: 'choices'"):
            predictor.predict(task="vqa", sensor=series, choice=["a"])


def test_the_command_line(command, sensing, sensor_rows, tmp_path):
    series, rows = sensor_rows.parent / "run1.csv", str(sensor_rows)
    given = ("--plugin", SENSOR)
    code, _, said = command("data", "validate", rows)
    assert (code, said.count(GIVEN)) == (2, 8)
    asked = ("predict", "--model", sensing, "--task", "classify", "--choices", "fast,slow")
    code, _, said = command(*asked, "--media", f"sensor={series}")
    assert code == 2
    assert f"--media: no modality named 'sensor'; known: audio, image, video; {GIVEN}" in said
    code, said, _ = command(*given, *asked, "--media", f"sensor={series}", "--media", f"sensor={series}", "--json")
    assert (code, json.loads(said)["text"] in ("fast", "slow")) == (0, True)
    assert command(*asked, "--media", "sensor")[2].startswith(
        "command line: --media: 'sensor' is not KIND=FILE; for example"
    )
    assert command(*given, *asked, "--media", "sensor=gone.csv")[2].startswith("gone.csv: sensor: no such file")
    assert command(*given, "data", "validate", rows)[0] == 0
    out = tmp_path / "answers.jsonl"
    assert command(*given, "predict", "--model", sensing, "--data", rows, "--out", out)[0] == 0
    assert [json.loads(line)["error"] for line in out.read_text().splitlines()] == [None] * 8
    code, said, _ = command(*given, "data", "stats", rows, "--json")
    found = json.loads(said)
    assert code == 0
    assert found["media"]["sensor"]["examined"] == 8
    assert command(*given, "data", "pack", rows, tmp_path / "shards", "--check")[0] == 0
    packed = RowFile(tmp_path / "shards")
    predictor = Predictor(*load_model(sensing))
    from_files = list(predictor.predict_many(RowFile(sensor_rows)[number] for number in range(8)))
    from_shards = list(predictor.predict_many(packed[number] for number in range(8)))
    assert [a.candidates for a in from_files] == [b.candidates for b in from_shards]


def test_a_run_trains_the_new_parts_and_leaves_all_else_bit_by_bit(sensor_rows, tmp_path, monkeypatch):
    """Also where weights are stored in 16 bits, and words in 8."""
    monkeypatch.setattr(run_module, "write_run_report", lambda folder: folder / "report.html")
    start = tmp_path / "start"
    old = tiny_model(encoders=True, modalities={"image": KINDS["image"].settings}, dropout=0.1)
    save_model(start, old, tiny_tokenizer(), dtype=torch.bfloat16, int8=["^words"])
    base = Predictor(*load_model(start))
    with plugged(SENSOR):
        page = {
            "name": "sensor",
            "start": str(start),
            "data_folder": str(tmp_path),
            "model_changes": {"modalities": {"sensor": KINDS["sensor"].settings}},
            "train_only": ["encoders.sensor", "source.connectors.sensor", "source.cells.sensor"],
            "mixture": [{"name": "speed", "data": "sensor.jsonl", "quota": 8, "augment": 2}],
            "steps": 25,
            "words": {"lr": 0},
            "optimizer": {"lr": 0.01},
            "precision": "float32",
        }
        model = train(Recipe.model_validate(page), tmp_path / "run", quiet=True)
        grown = Predictor(*load_model(model))
        lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
        losses = [line["loss"]["speed"] for line in lines if "loss" in line]
        assert losses[-1] < 0.95 * losses[0]
        after = grown.model.state_dict()
        assert all(torch.equal(tensor, after[name]) for name, tensor in base.model.state_dict().items())
        assert os.path.getsize(model / "model.safetensors") < os.path.getsize(start / "model.safetensors") + 400_000
        asked = {"task": "vqa", "image": KINDS["image"].items[0], "text": "what is it?"}
        before, now = base.predict(**asked), grown.predict(**asked)
        assert (before.text, before.candidates) == (now.text, now.candidates)
