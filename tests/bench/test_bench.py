"""`monoglot bench`: what it says of a tiny model, what stays in a file, what is refused. No timing is asserted, only what must add up."""

from __future__ import annotations

import json
import sys
from importlib.util import find_spec

import pytest
from rich.console import Console
from small import tiny_model, tiny_tokenizer

from monoglot.bench import peers, run
from monoglot.bench.figure import compared, draw, staged
from monoglot.bench.limit import PARTS
from monoglot.bench.ours import predictor_of
from monoglot.bench.run import bench
from monoglot.bench.show import grids, markdown
from monoglot.bench.stages import STAGES, ask, by_stage, questions
from monoglot.errors import InputError
from monoglot.files import write_json
from monoglot.model.unified import UnifiedModel
from monoglot.store import save_model

SPREAD = {"median", "low", "high", "turns"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A model of few and short answers."""
    modalities = {
        "image": {"size": 32},
        "video": {"size": 32, "frames": 2, "frame_positions": 4},
        "audio": {"pad_seconds": 0.1, "max_seconds": 1.0},
    }
    folder = tmp_path_factory.mktemp("models") / "tiny"
    save_model(folder, tiny_model(encoders=True, modalities=modalities, target_positions=20), tiny_tokenizer())
    return folder


@pytest.fixture(scope="module")
def results(folder, tmp_path_factory):
    """One turn of all parts but `start`, each in a command of its own, into one file."""
    patch = pytest.MonkeyPatch()
    patch.setattr(run, "BATCHES", (1, 2))
    out = tmp_path_factory.mktemp("bench") / "results.json"
    console = Console(file=open(out.with_suffix(".txt"), "w"), width=200)  # noqa: SIM115
    for part in ("stages", "batches", "compare"):
        bench(str(folder), [part], turns=1, seconds=0, peers=[], out=out, command=f"for {part}", console=console)
    patch.undo()
    return json.loads(out.read_text())


def test_stages_add_up_to_an_answer(folder):
    predictor = predictor_of(folder, fixed=False)
    asked = questions(predictor.model.config.modalities)
    assert set(asked) == {"picture", "clip", "sound", "text"}
    for kind, sample in asked.items():
        ticks = iter(range(10_000))
        before = ask(predictor, sample)
        seconds = by_stage(predictor, sample, clock=lambda ticks=ticks: next(ticks))
        assert set(seconds) == {*STAGES, "total"}
        assert sum(seconds[stage] for stage in STAGES) == seconds["total"] == next(ticks) - 1, kind
        assert all(seconds[stage] > 0 for stage in STAGES if stage != "read")
        assert (seconds["read"] > 0) == (kind != "text")
        after = ask(predictor, sample)
        assert (before.text, before.candidates) == (after.text, after.candidates)


def test_a_clock_is_taken_away_again(folder):
    from monoglot.modalities import image

    predictor = predictor_of(folder, fixed=False)

    def joints():
        own = "_example" in vars(predictor) or "collate" in vars(predictor.preparer)
        return own, UnifiedModel.encode, UnifiedModel.encode_media, image.read_picture

    before = joints()
    by_stage(predictor, questions({"image"})["picture"])
    assert joints() == before


def test_results_say_what_was_measured(results):
    assert set(results) == {"format", "model", "machine", "versions", "parts"}
    assert results["model"]["name"] == "tiny"
    assert results["machine"]["threads"] >= 1
    assert results["versions"]["torch"]
    for name, part in results["parts"].items():
        assert part["command"] == f"for {name}"
        assert part["took_seconds"] > 0
    for found in results["parts"]["stages"]["questions"].values():
        assert set(found["seconds"]) == {*STAGES, "total"}
        assert all(set(spread) == SPREAD for spread in found["seconds"].values())
    together = results["parts"]["batches"]["rows_together"]
    assert list(together) == ["1", "2"]
    assert together["1"]["ratio_to_one_by_one"]["median"] == 1
    assert all(found["pictures_a_second"]["median"] > 0 for found in together.values())


def test_a_comparison_holds_together(results):
    part = results["parts"]["compare"]
    assert list(part["systems"]) == ["monoglot", "plain decoder"]
    for system in part["systems"].values():
        took = {stage: spread["median"] for stage, spread in system["seconds"]["beam 5"].items()}
        inside = ("media", "encode", "first", "steps", "words", "search")
        assert sum(took[stage] for stage in inside) == pytest.approx(took["total"], abs=1e-5)
        assert took["all_encoding"] + took["all_decoding"] == pytest.approx(took["total"], abs=1e-5)
        assert system["parameters"] == results["model"]["parameters"]
    assert all(spread["median"] == 1 for spread in part["systems"]["monoglot"]["ratio"].values())
    assert "float32" in part["limit"]
    for limit in part["limit"].values():
        for name in PARTS:
            work = limit["work"][name]
            slower = max(work["operations"] / limit["operations_a_second"], work["bytes"] / limit["bytes_a_second"])
            assert limit["seconds"][name] == pytest.approx(slower, abs=1e-6)


def test_tables_and_figure(results, tmp_path):
    pages = "\n".join(markdown(grid) for grid in grids(results["parts"]))
    for words in ("clip: vqa", "| 2 |", "plain decoder (", "transformer encoder", "| float32 |"):
        assert words in pages
    least, ours, plain = compared(results)
    assert least[0] == "limit of this machine"
    assert ours[0].startswith("monoglot")
    assert plain[0].startswith("plain")
    assert [label for label, _, _ in staged(results)] == ["picture", "clip", "sound", "text"]
    draw([results, results], tmp_path / "all.png")
    assert (tmp_path / "all.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(InputError, match="nothing to draw"):
        draw([{**results, "parts": {}}], tmp_path / "none.png")


def test_a_file_of_something_else_is_not_mixed_in(results, folder, tmp_path):
    out = tmp_path / "results.json"
    write_json(out, results | {"model": results["model"] | {"precision": "int8"}})
    before = out.read_bytes()
    with pytest.raises(InputError, match=r"results\.json: model: holds results of .*int8.*; give another --out"):
        bench(str(folder), ["batches"], turns=1, seconds=0, out=out, console=Console(quiet=True))
    assert out.read_bytes() == before


def test_wrong_input_is_one_line(command, monkeypatch):
    def told(*arguments) -> str:
        code, _, error = command("bench", *arguments)
        assert code == 2
        assert len(error.splitlines()) == 1
        return error

    assert "nanno: model: no such folder and no such name" in told("--model", "nanno")
    assert "no part named 'stage'; closest: 'stages'" in told("--part", "stage")
    assert "no peer named 'BLIP'; closest: 'BLIP base'" in told("--peers", "BLIP")
    monkeypatch.setattr(peers, "find_spec", lambda name: None)
    assert 'pip install "monoglot[bench]"' in told("--peers", "BLIP base")


@pytest.mark.slow
def test_start_of_processes(model_folder):
    found = bench(str(model_folder), ["start"], turns=1, seconds=0, console=Console(quiet=True))
    processes = found["parts"]["start"]["processes"]
    assert set(processes) == {"python alone", "monoglot --help", "picture", "clip", "sound", "text"}
    assert all(process["peak_mb"] > 1 for process in processes.values())


@pytest.mark.slow
@pytest.mark.skipif(find_spec("transformers") is None, reason="needs the extra bench")
@pytest.mark.parametrize(
    ("name", "millions"), [("BLIP base", 224), ("GIT base", 177), ("ViT-B + GPT-2", 239), ("Florence-2 base", 231)]
)
def test_peers_are_as_large_as_published_and_write_so_many_tokens(name, millions):
    peer = peers.Running(name)
    assert round(peer.parameters / 1e6) == millions
    assert peer.write(peer.pictures(1), beam=2, tokens=3).shape == (1, 4)
    assert "torchvision" not in sys.modules
