"""From a published checkpoint to a model folder: the same logits, every entry told, and nothing written when something is wrong."""

from __future__ import annotations

import csv
import json
import re
from argparse import Namespace

import pytest
import torch
from PIL import Image
from published_files import (
    SETTINGS,
    class_of,
    fairseq_contents,
    forget,
    picture_weights,
    save,
    tiny_state,
    uniform,
    use_standins,
    write_bpe,
)
from safetensors import safe_open
from safetensors.torch import save_file
from small import square
from tiny import CASES, GOLDEN, Case, formula_weights

from monoglot import store
from monoglot.errors import InputError
from monoglot.interop import fairseq
from monoglot.interop.fairseq import ARITHMETIC, Weights, build, config_of, import_checkpoint
from monoglot.interop.published import transformer_from_published
from monoglot.modalities import MODALITIES
from monoglot.modalities.networks.resnet import ResNet
from monoglot.model.config import BASE, unival_base

MEDIA = ("image", "video", "audio")


@pytest.fixture(autouse=True)
def standins(monkeypatch):
    use_standins(monkeypatch)


@pytest.fixture
def bpe(tmp_path):
    return write_bpe(tmp_path / "bpe")


@pytest.fixture(scope="module")
def imported(tmp_path_factory):
    """All three modalities, float32, as it comes out of the command's function and back from the disk."""
    home = tmp_path_factory.mktemp("imported")
    with pytest.MonkeyPatch.context() as monkeypatch:
        use_standins(monkeypatch)
        path = save(home / "checkpoint1.pt", fairseq_contents(tiny_state(*MEDIA), arch="unival_tiny"))
        done = import_checkpoint(path, home / "model", bpe=write_bpe(home / "bpe"))
        model, tokenizer = store.load_model(home / "model")
    return done, model, tokenizer


@pytest.mark.parametrize("name", CASES)
@torch.no_grad()
def test_the_folder_has_the_golden_logits(imported, name):
    _, model, _ = imported
    case = Case(name)
    batch = case.batch
    memory = model.encode(batch, model.encode_media(batch.media))
    logits = model.logits(model.decode(batch.target_in, memory, code_rows=batch.code_rows))
    valid = batch.target_valid
    torch.testing.assert_close(logits[valid], case.tensors["out.logits"][valid], atol=1e-4, rtol=0)


def test_settings_come_from_shapes_and_from_the_file(imported):
    config = imported[1].config
    expected = BASE.model_dump() | {
        "name": "unival_tiny", "width": 64, "ffn": 128, "heads": 4, "encoder_layers": 2, "decoder_layers": 2, "code_grid": 4,
    }  # fmt: skip
    expected["wording"] = "unival_pretraining"
    expected["vocabulary"] = {"num_words": 300, "num_codes": 16, "num_bins": 20}
    found = config.model_dump()
    media = found.pop("modalities")
    del expected["modalities"]
    assert found == expected
    assert (media["image"]["size"], media["video"]["size"]) == (SETTINGS["patch_image_size"], 64)
    assert {name: part["encoder"] for name, part in media.items()} == {name: f"standin_{name}" for name in MEDIA}


def test_every_entry_is_told(imported):
    done, model, _ = imported
    told = json.loads((done.folder / "import.json").read_text())
    assert told["file"] == "checkpoint1.pt"
    assert told["weights"] == "model"
    assert len(told["sha256"]) == 64
    published = [name for entry in told["entries"] for name in entry["published"]]
    assert sorted(published) == sorted(tiny_state(*MEDIA))
    assert [entry["ours"] for entry in told["entries"] if entry["ours"]] == list(model.state_dict())
    assert {entry["status"] for entry in told["entries"]} == {"taken", "converted", "unused"}
    assert not done.unknown
    by_name = {entry["ours"]: entry for entry in told["entries"]}
    joined = by_name["decoder_layers.1.cross.kv.weight"]
    assert (joined["status"], joined["shape"]) == ("converted", [128, 64])
    assert joined["published"] == [f"decoder.layers.1.encoder_attn.{part}_proj.weight" for part in "kv"]
    classifier = next(e for e in told["entries"] if e["published"] == ["encoder.embed_images.fc.weight"])
    assert (classifier["status"], classifier["shape"]) == ("unused", [7, 2048])
    assert "classifier" in classifier["why"]
    assert torch.equal(model.encoders["video"].layer3[0]["conv1"].weight, torch.full((4, 3, 1, 1), 0.5))


def test_the_folder_stays_mapped(imported):
    """Float32 is not copied when a folder is loaded."""
    done, _, _ = imported
    with open("/proc/self/maps") as maps:
        assert str(done.folder / "model.safetensors") in maps.read()


class SmallResNet(ResNet):
    """The published network with one block a stage, as the golden tensors have it."""

    def __init__(self, config):
        super().__init__((1, 1, 1, 1))


@torch.no_grad()
def test_the_network_of_pictures_arrives_whole(command, bpe, tmp_path, monkeypatch):
    """From normalised pixels to the golden features, with the golden weights, by way of the checkpoint and the folder; then from a file to words."""
    monkeypatch.setitem(MODALITIES["image"].encoders, "standin_image", SmallResNet)
    state = {n: t for n, t in tiny_state("image").items() if not n.startswith("encoder.embed_images.")}
    path = save(tmp_path / "a.pt", fairseq_contents(state | picture_weights()))
    done = import_checkpoint(path, tmp_path / "out", bpe=bpe)
    assert {e.why for e in done.entries if "num_batches" in str(e.published)} == {"a count that nothing reads"}
    model, _ = store.load_model(tmp_path / "out")
    features = model.encoders["image"].maps(uniform("image_text/patch_images", [2, 3, 96, 128], -1, 1))
    golden = Case("image_text").tensors["mid.image_features"]
    torch.testing.assert_close(features, golden, atol=1e-4, rtol=1e-4)
    Image.fromarray(square((220, 20, 20))).save(tmp_path / "red.png")
    asked = ("--model", tmp_path / "out", "--task", "caption", "--image", tmp_path / "red.png", "--json")
    code, out, err = command("predict", *asked)
    assert (code, err) == (0, "")
    assert 0 < json.loads(out)["confidence"] <= 1


def states(folder):
    return store.load_model(folder)[0].state_dict()


@pytest.mark.parametrize("kind", ["old", "omegaconf", "args", "bare"])
def test_other_layouts_give_the_same(kind, bpe, tmp_path):
    contents = fairseq_contents(tiny_state("image"))
    settings = contents["cfg"]["model"]
    if kind == "omegaconf":
        contents["cfg"] = class_of("omegaconf.dictconfig", "DictConfig")()
        contents["cfg"].__dict__["_content"] = {"model": settings}
    if kind == "args":
        contents["args"] = settings
        del contents["cfg"]
    path = save(tmp_path / "a.pt", contents, old_format=kind == "old")
    if (
        kind == "bare"
    ):  # what a state dict cannot say is as published: the miniature's vocabulary then has no room for words
        save(tmp_path / "a.pt", tiny_state("image"))
        with pytest.raises(InputError, match="has 341 rows, too few for 8192 image codes and 1000 location bins"):
            import_checkpoint(path, tmp_path / "out", bpe=bpe)
        return
    forget("omegaconf")
    import_checkpoint(path, tmp_path / "out", bpe=bpe)
    found = states(tmp_path / "out")
    expected = transformer_from_published(formula_weights())
    assert set(expected) - set(found) == {n for n in expected if "video" in n or "audio" in n}
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items() if name in found)


def test_half_precision_is_kept(bpe, tmp_path):
    state = {n: t.half() if t.is_floating_point() else t for n, t in tiny_state("image").items()}
    import_checkpoint(save(tmp_path / "a.pt", fairseq_contents(state)), tmp_path / "out", bpe=bpe)
    with safe_open(tmp_path / "out" / "model.safetensors", "pt") as file:
        assert {file.get_tensor(name).dtype for name in file.keys()} == {torch.float16}  # noqa: SIM118
    expected = transformer_from_published(formula_weights())
    assert torch.equal(states(tmp_path / "out")["words.weight"], expected["words.weight"].half().float())


def test_averaged_weights_are_taken_unless_not_wanted(bpe, tmp_path):
    contents = fairseq_contents(tiny_state())
    contents["extra_state"]["ema"] = {name: tensor * 2 for name, tensor in tiny_state().items()}
    contents["extra_state"]["ema_fp32_params"] = {}
    path = save(tmp_path / "a.pt", contents)
    assert import_checkpoint(path, tmp_path / "ema", bpe=bpe).which == "ema"
    assert import_checkpoint(path, tmp_path / "plain", bpe=bpe, ema=False).which == "model"
    assert torch.equal(states(tmp_path / "ema")["words.weight"], 2 * states(tmp_path / "plain")["words.weight"])
    assert json.loads((tmp_path / "ema" / "lineage.json").read_text())["imported"]["weights"] == "ema"


def test_a_modality_may_be_left_out(bpe, tmp_path):
    path = save(tmp_path / "a.pt", fairseq_contents(tiny_state(*MEDIA)))
    done = import_checkpoint(path, tmp_path / "out", bpe=bpe, without=["video", "audio"], published=True)
    assert set(done.config.modalities) == {"image"}
    assert done.config.modalities["image"].published
    assert {e.why for e in done.entries if "video" in e.published[0]} == {"video is left out"}
    with pytest.raises(InputError, match="no modality named 'vidoe'; closest: 'video'"):
        import_checkpoint(path, tmp_path / "other", bpe=bpe, without=["vidoe"])


def test_entries_of_unknown_purpose_are_told(bpe, tmp_path):
    path = save(tmp_path / "a.pt", fairseq_contents(tiny_state() | {"encoder.mystery.weight": torch.ones(3)}))
    assert import_checkpoint(path, tmp_path / "out", bpe=bpe).unknown == ["encoder.mystery.weight"]


# --- full size --------------------------------------------------------------------------------------------------------

STAGES = {"stage 1": ("image",), "stage 2": ("image", "video"), "fine-tuned on sounds": MEDIA}


def full_state(*modalities: str) -> dict[str, torch.Tensor]:
    """Every entry of the published base model, as the authors' trainer saves it; shapes without values, so it costs no memory."""
    with open(GOLDEN / "state_dict_base.tsv") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    absent = [f"encoder.{part}" for m in set(MEDIA) - {*modalities} for part in (f"embed_{m}s.", f"{m}_proj.", f"embed_{m}_positions.")]  # fmt: skip
    return {
        row["name"]: torch.empty(json.loads(row["shape"]), dtype=getattr(torch, row["dtype"]), device="meta")
        for row in rows
        if not row["name"].startswith(tuple(absent))
    }


@pytest.mark.parametrize("stage", STAGES)
def test_every_stage_at_full_size(stage, tmp_path):
    state = full_state(*STAGES[stage])
    assert len(state) == {1: 1029, 2: 1656, 3: 1739}[len(STAGES[stage])]  # as the authors' models have them
    task, wording = (
        ("caption", "unival_finetuning") if "audio" in STAGES[stage] else ("unify_task", "unival_pretraining")
    )
    settings = {"task": task, "patch_image_size": 480, "patch_frame_size": 384, "num_frames": 16, "hop_size": 200}
    weights = Weights(tmp_path / "a.pt", state, settings, "model")
    config = config_of(weights)
    assert config.model_dump() == unival_base(*STAGES[stage]).model_dump() | {"name": "unival", "wording": wording}
    model, entries = build(weights, config)
    assert sum(len(entry.published) for entry in entries) == len(state)
    assert all(entry.why for entry in entries if entry.status == "unused")
    assert not [entry for entry in entries if entry.status == "fresh"]
    assert all(parameter.device.type == "meta" for parameter in model.parameters())  # each came from the file


# --- OFA and BART -----------------------------------------------------------------------------------------------------


def test_ofas_networks_stop_a_stage_earlier(bpe, tmp_path, monkeypatch):
    state = tiny_state("image")
    state = {name: tensor for name, tensor in state.items() if ".layer4." not in name and ".fc." not in name}
    path = save(tmp_path / "ofa.pt", fairseq_contents(state, arch="ofa_tiny", resnet_type="resnet50"))
    with pytest.raises(
        InputError, match=r"stages of 1, 1, 1 blocks; known here: resnet50 .* --without image imports the rest"
    ):
        import_checkpoint(path, tmp_path / "out", bpe=bpe)
    done = import_checkpoint(path, tmp_path / "out", bpe=bpe, without=["image"])
    assert (done.config.name, done.config.modalities) == ("ofa_tiny", {})
    assert fairseq.NETWORKS["image", (3, 4, 6)] == "ofa_resnet50"
    assert fairseq.NETWORKS["image", (3, 4, 23)] == "ofa_resnet101"
    assert fairseq.NETWORKS["image", (3, 8, 36, 3)] == "resnet152"


NOT_BARTS = r".*(pos_|image|type_|attn_ln|c_attn|ffn_layernorm|patch_|code_|bucket|(en|de)coder\.layer_norm|output_)"


def bart_state(rows=51201, width=64):
    """BART's entries are some of the miniature's: no norms inside branches, no biases of places, no media."""
    torch.manual_seed(0)
    kept = {n: t for n, t in tiny_state().items() if not re.match(NOT_BARTS, n) or n.endswith("embed_positions.weight")}
    state = {name: torch.randn(tensor.shape) for name, tensor in kept.items() if "embed_tokens" not in name}
    state["encoder.embed_tokens.weight"] = torch.randn(rows, width)
    state["decoder.embed_tokens.weight"] = state["encoder.embed_tokens.weight"]
    return state


def bart_files(tmp_path, layout):
    """The three ways in which BART-base is published."""
    state = bart_state(rows=50265 if layout != "fairseq" else 51201)
    if layout == "fairseq":
        settings = Namespace(arch="bart_base", encoder_attention_heads=4, dropout=0.1)
        return state, save(tmp_path / "model.pt", {"args": settings, "model": state}, old_format=True)
    theirs = {f"model.{n}": t for n, t in state.items() if "embed_tokens" not in n and "version" not in n}
    theirs["model.shared.weight"] = state["encoder.embed_tokens.weight"]
    theirs["final_logits_bias"] = torch.zeros(1, 50265)
    if layout == "bin":
        return state, save(tmp_path / "pytorch_model.bin", theirs)
    save_file(theirs, tmp_path / "model.safetensors")
    return state, tmp_path / "model.safetensors"


@pytest.mark.parametrize("layout", ["fairseq", "bin", "safetensors"])
def test_bart_is_the_start_of_stage_1(layout, tmp_path):
    state, path = bart_files(tmp_path, layout)
    done = import_checkpoint(
        path, tmp_path / "out", bpe=write_bpe(tmp_path / "bpe", BASE.vocabulary.num_words), without=["image"]
    )
    model, _ = store.load_model(tmp_path / "out")
    heads = 4 if layout == "fairseq" else 1  # Hugging Face's file does not say; BART's heads are 64 wide
    assert (model.config.width, model.config.heads, model.config.vocabulary) == (64, heads, BASE.vocabulary)
    words, theirs, mask = model.words.weight, state["encoder.embed_tokens.weight"], BASE.vocabulary.mask
    assert torch.equal(words[:mask], theirs[:mask])
    assert torch.equal(words[mask], theirs[-1])
    assert words[mask + 1 :].std().item() == pytest.approx(64**-0.5, rel=0.01)
    assert torch.equal(model.source.text_positions.weight, state["encoder.embed_positions.weight"])
    both = [state[f"decoder.layers.1.encoder_attn.{part}_proj.bias"] for part in "kv"]
    assert torch.equal(model.decoder_layers[1].cross.kv.bias, torch.cat(both))
    fresh = {entry.ours for entry in done.entries if entry.status == "fresh"}
    assert "encoder_bias.q.weight" in fresh
    assert "decoder_layers.0.ffn.norm.weight" in fresh
    assert not fresh & {"words.weight", "encoder_layers.0.ffn.up.weight"}
    assert model.encoder_bias.q.weight.std().item() == pytest.approx(0.02, rel=0.1)
    assert torch.equal(model.encoder_norm.weight, torch.ones(64))
    assert not done.unknown


def test_stage_1_sees_with_the_published_network(tmp_path):
    image = config_of(Weights(tmp_path / "a.pt", bart_state(), {}, "model")).modalities["image"]
    assert (image.encoder, image.size, image.published) == ("resnet101", 384, False)


def test_fresh_weights_are_the_same_every_time(tmp_path):
    _, path = bart_files(tmp_path, "fairseq")
    bpe = write_bpe(tmp_path / "bpe", BASE.vocabulary.num_words)
    for name in ("a", "b"):
        torch.manual_seed(len(name))
        torch.rand(ord(name))
        import_checkpoint(path, tmp_path / name, bpe=bpe, without=["image"])
    first, second = states(tmp_path / "a"), states(tmp_path / "b")
    assert all(torch.equal(tensor, second[name]) for name, tensor in first.items())


# --- what is refused --------------------------------------------------------------------------------------------------


def without(*names):
    return lambda state: [state.pop(name) for name in names]


def with_entry(name, tensor):
    return lambda state: state.update({name: tensor})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (without("encoder.layers.0.fc2.weight"), "model: encoder.layers.0.fc2.weight missing; the checkpoint is incomplete"),
        (without("decoder.layers.1.self_attn.v_proj.bias"), r"model: decoder.layers.1.self_attn.v_proj.bias missing"),
        (without("decoder.image_rel_pos_table_list.1.weight"), "decoder.image_rel_pos_table_list.1.weight missing"),
        (without("encoder.embed_images.layer2.0.conv1.weight", "encoder.layer_norm.bias"), "stages of 1, 1, 1 blocks"),
        (without("decoder.embed_image_positions.weight"), "decoder.embed_image_positions.weight: is missing"),
        (without("encoder.embed_tokens.weight"), "model: holds .*; expected the weights of UnIVAL, OFA or BART"),
        (lambda state: state.clear(), "model: holds no tensors; expected the weights of UnIVAL"),
        (with_entry("encoder.layers.1.fc1.weight", torch.ones(128, 63)), r"encoder.layers.1.fc1.weight: is \[128, 63\], expected \[128, 64\]"),
        (with_entry("encoder.layers.0.fc1.weight", torch.ones(128)), r"encoder.layers.0.fc1.weight: is \[128\], expected a matrix"),
        (with_entry("encoder.layers.1.self_attn.k_proj.weight", torch.ones(64, 63)), "which do not go together"),
        (with_entry("encoder.layers.2.fc1.weight", torch.ones(128, 64)), r"encoder.layers.2.*and \d+ more missing"),
        (with_entry("encoder.layers.1.adapter.up.weight", torch.ones(3)), "encoder.layers.1.adapter.up.weight: is a part of a layer that is not"),
        (with_entry("encoder.layers.1.w_resid", torch.ones(3)), "w_resid: is a part of a layer that is not computed here"),
        (with_entry("decoder.output_projection.weight", torch.zeros(341, 64)), "differs from encoder.embed_tokens.weight"),
    ],
)  # fmt: skip
def test_other_weights(change, message, bpe, tmp_path):
    state = tiny_state("image")
    change(state)
    path = save(tmp_path / "a.pt", fairseq_contents(state))
    refused(path, bpe, tmp_path, message)


def refused(path, bpe, tmp_path, message):
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(InputError, match=message) as told:
        import_checkpoint(path, tmp_path / "out", bpe=bpe)
    assert "\n" not in str(told.value)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("name", ARITHMETIC)
def test_other_arithmetic(name, bpe, tmp_path):
    other = "relu" if name == "activation_fn" else not ARITHMETIC[name]
    path = save(tmp_path / "a.pt", fairseq_contents(tiny_state(), **{name: other}))
    refused(path, bpe, tmp_path, f"{name}: is {other!r}, and only {ARITHMETIC[name]!r} is computed here")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_bins": 400}, "too few for 16 image codes and 400 location bins"),
        ({"num_bins": 30}, "dict.txt: has 300 words, the checkpoint's vocabulary 290"),
        ({"patch_image_size": 100}, "modalities: image: size: Input should be a multiple of 32"),
        ({"dropout": "much"}, "dropout: is a str, expected a number"),
        ({"dropout": 2.0}, "dropout: Input should be less than 1"),
        ({"disable_entangle": [1]}, r"disable_entangle: is \[1\], and only True"),
    ],
)
def test_other_settings(settings, message, bpe, tmp_path):
    refused(save(tmp_path / "a.pt", fairseq_contents(tiny_state("image"), **settings)), bpe, tmp_path, message)


def test_other_models(bpe, tmp_path):
    resnet = {"conv1.weight": torch.ones(3), "fc.bias": torch.ones(3)}
    message = r"model: holds conv1.weight, fc.bias; expected the weights of UnIVAL, OFA or BART"
    refused(save(tmp_path / "a.pt", resnet), bpe, tmp_path, message)
    refused(save(tmp_path / "b.pt", {"model": [1]}), bpe, tmp_path, "model: holds no tensors")
    _, bart = bart_files(tmp_path, "fairseq")
    refused(bart, bpe, tmp_path, "dict.txt: has 300 words, the checkpoint's vocabulary 50260")


def test_bart_with_few_words(tmp_path):
    state = bart_state(rows=300)
    path = save(tmp_path / "bart.pt", {"model": state})
    bpe = write_bpe(tmp_path / "bpe", BASE.vocabulary.num_words)
    with pytest.raises(InputError, match=r"is \[300, 64\], expected more than 50264 rows; give BART-base"):
        import_checkpoint(path, tmp_path / "out", bpe=bpe, without=["image"])


def test_a_place_that_is_taken(bpe, tmp_path):
    path = save(tmp_path / "a.pt", fairseq_contents(tiny_state()))
    (tmp_path / "out").mkdir()
    import_checkpoint(path, tmp_path / "out", bpe=bpe)  # an empty folder is none
    refused(path, bpe, tmp_path, "out: --out: is there already; give a new folder")


def test_a_run_that_breaks_leaves_nothing(bpe, tmp_path, monkeypatch):
    path = save(tmp_path / "a.pt", fairseq_contents(tiny_state()))

    def full(*arguments, **settings):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(fairseq, "write_json", full)
    refused(path, bpe, tmp_path, "out: --out: cannot be written .No space left on device")


# --- the command ------------------------------------------------------------------------------------------------------


def test_the_command_tells_what_it_did(command, bpe, tmp_path):
    path = save(tmp_path / "checkpoint_best.pt", fairseq_contents(tiny_state("image"), arch="unival_tiny"))
    code, out, err = command("import", path, "--out", tmp_path / "out", "--bpe", bpe)
    assert (code, err) == (0, "")
    lines = out.splitlines()
    one = next(line.split() for line in lines if "encoder.layers.#.fc1.*" in line)
    assert one == ["taken", "encoder.layers.#.fc1.*", "encoder_layers.#.ffn.up.*", "4", "128", "x", "64,", "128"]
    assert any("encoder.embed_images.*" in line and "encoders.image.*" in line for line in lines)
    assert any("converted" in line and "self_attn.k_proj.* + v_proj" in line for line in lines)
    assert any(line.startswith("unused") and line.rstrip().endswith("a version number") for line in lines)
    assert "unival_tiny, weights; reads text, image (standin_image)" in lines[-1]
    code, _, err = command("import", path, "--out", tmp_path / "other")
    assert code == 2
    assert err.startswith(
        "command line: --bpe-dir: is missing: a checkpoint does not hold its dictionary; give the folder of dict.txt"
    )
    code, _, err = command("import", path, "--out", tmp_path / "out", "--bpe-dir", bpe)
    assert (code, err.count("\n")) == (2, 1)
