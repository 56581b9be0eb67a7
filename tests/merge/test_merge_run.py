"""A merge from end to end: what is shared, how it is stored, how little is held, what is refused."""

from __future__ import annotations

import gc
import json
import shlex
import weakref
from pathlib import Path

import pytest
import torch
import yaml
from family import moved, saved, start
from safetensors.torch import load_file, save_file
from small import VOCABULARY, tiny_model, tiny_tokenizer

from monoglot import cli
from monoglot.adapters import AdapterSettings, Answers, Base, read_answers, save_adapter, write_answers
from monoglot.decode.predict import load
from monoglot.errors import InputError
from monoglot.files import sha256_of
from monoglot.merge import MERGERS
from monoglot.merge.parents import Stored
from monoglot.merge.recipe import make_page, read_page
from monoglot.merge.run import merge
from monoglot.merge.write import write_safetensors
from monoglot.model.head import Head
from monoglot.model.lora import Lora, add_lora, fold_lora, lora_names
from monoglot.store import load_model, read_weights, save_model
from monoglot.text.tokenizer import Tokenizer

ROOT = Path(__file__).parents[2]


def run(parents: list[str], out: Path, **settings):
    return merge(make_page({"parents": parents, "out": str(out), **settings}), quiet=True)


def weights(folder: str | Path) -> dict[str, torch.Tensor]:
    return read_weights(Path(folder) / "model.safetensors")


# --- the result -------------------------------------------------------------------------------------------------------


def test_the_result_is_a_model_folder(family, tmp_path):
    done = run(
        [family["a"], family["b"]], tmp_path / "deep" / "m", method="interpolate", weights=[0.8, 0.2], name="both"
    )
    assert sorted(path.name for path in done.folder.iterdir()) == [
        "README.md",
        "config.json",
        "lineage.json",
        "model.safetensors",
        "tokenizer.json",
    ]
    assert load_model(done.folder)[0].config.name == "both"
    assert load(done.folder).predict(task="summarize", text="what?").error is None
    told = json.loads((done.folder / "lineage.json").read_text())
    assert told["method"] == "interpolate"
    assert told["parents"] == [
        {"model": family[p], "sha256": sha256_of(Path(family[p]) / "model.safetensors"), "weight": w}
        for p, w in (("a", 0.8), ("b", 0.2))
    ]
    assert told["base"] is None
    assert told["tensors"]["merged"] == len(weights(family["a"]))
    assert f"- 0.8 x {family['a']}" in (done.folder / "README.md").read_text()
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["m"]  # nothing is left beside it


def test_a_model_with_itself_to_the_bit(tmp_path):
    own = saved(tmp_path / "own", start(modalities={"image": {"size": 32}}), dtype=torch.bfloat16, int8=["words"])
    done = run([own, own, own], tmp_path / "m")
    assert done.report["same"] == len(weights(own))
    assert all(torch.equal(one, weights(own)[name]) for name, one in weights(done.folder).items())


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_it_is_stored_as_save_model_stores(family, tmp_path, dtype):
    """The streamed file holds what `save_model` makes of the same weights."""
    done = run([family["a"], family["b"]], tmp_path / "m", dtype=dtype, int8=["words", "ffn"])
    plain = run([family["a"], family["b"]], tmp_path / "plain")
    model, tokenizer = load_model(plain.folder)
    save_model(tmp_path / "again", model, tokenizer, dtype=getattr(torch, dtype), int8=["words", "ffn"])
    streamed, again = (load_file(folder / "model.safetensors") for folder in (done.folder, tmp_path / "again"))
    assert streamed.keys() == again.keys()
    for name in again:
        assert streamed[name].dtype == again[name].dtype
        assert torch.equal(streamed[name], again[name]), name


def test_parents_of_8_bit_integers_come_back_as_floats(family, tmp_path):
    model, tokenizer = load_model(Path(family["a"]))
    save_model(tmp_path / "small", model, tokenizer, int8=["words", "ffn"], dtype=torch.bfloat16)
    done = run([str(tmp_path / "small"), family["b"]], tmp_path / "m")
    a, b = weights(tmp_path / "small"), weights(family["b"])
    for name, tensor in weights(done.folder).items():
        torch.testing.assert_close(tensor, (a[name] + b[name]) / 2)
        assert tensor.dtype == torch.float32


def test_shared_tensors_are_stored_once_and_merged_once(tmp_path):
    """Pictures and frames have one network. A model of pictures merged with a model of clips: it is the mean of both."""
    pictures, clips = {"image": {"size": 32}}, {"video": {"size": 32, "frames": 2, "frame_positions": 4}}
    see = saved(tmp_path / "see", moved(start(modalities=pictures), 1))
    watch = saved(tmp_path / "watch", moved(start(modalities=clips), 2))
    both = saved(tmp_path / "both", moved(start(modalities={**pictures, **clips}), 3))
    for parents in ([see, watch], [watch, see], [both, see], [watch, both]):
        out = tmp_path / str(len(list(tmp_path.iterdir())))
        done = run(parents, out)
        model, _ = load_model(out)
        assert set(model.config.modalities) == {"image", "video"}
        assert model.encoders["image"].trunk is model.encoders["video"].trunk
        name = "trunk.stem.conv.weight"
        kinds = {see: ["image"], watch: ["video"], both: ["image"]}
        wanted = sum(weights(parent)[f"encoders.{kinds[parent][0]}.{name}"] for parent in parents) / 2
        assert torch.allclose(model.state_dict()[f"encoders.image.{name}"], wanted)
        stored = load_file(out / "model.safetensors")
        assert sum(one.endswith(name) for one in stored) == 1
        assert done.report["kept"] > 0


def test_parts_of_another_shape_are_the_first_models(tmp_path):
    settings = {"size": 32, "frames": 2}
    short, long = (
        saved(tmp_path / str(n), start(seed=n, modalities={"video": {**settings, "frame_positions": n}}))
        for n in (4, 6)
    )
    done = run([short, long], tmp_path / "m")
    name = "source.frames.video.weight"
    assert done.report["shape_changed"] == {long: [name]}
    assert torch.equal(weights(done.folder)[name], weights(short)[name])
    one, other = (weights(parent)["source.connectors.video.weight"] for parent in (short, long))
    torch.testing.assert_close(weights(done.folder)["source.connectors.video.weight"], (one + other) / 2)


def test_what_the_base_lacks_is_averaged(family, tmp_path):
    seeing = start(modalities={"image": {"size": 32}})
    a, b = (saved(tmp_path / str(seed), moved(seeing, seed)) for seed in (1, 2))
    done = run([a, b], tmp_path / "m", method="task_arithmetic", base=family["base"], scale=3.0)
    name = "source.connectors.image.weight"
    torch.testing.assert_close(weights(done.folder)[name], (weights(a)[name] + weights(b)[name]) / 2)
    assert name.rpartition(".")[0] in str(done.report["missing"][family["base"]])


def test_frozen_weights_learned_nothing_when_they_were_rounded(family, tmp_path):
    """The start has 8-bit words, fine-tuned models have them as bfloat16: no method may enlarge the difference."""
    model, tokenizer = load_model(Path(family["base"]))
    save_model(tmp_path / "start", model, tokenizer, int8=["words"], dtype=torch.bfloat16)
    parents = []
    for seed in (1, 2):
        model, _ = load_model(tmp_path / "start")
        with torch.no_grad():
            model.encoder_norm.weight += seed
        save_model(tmp_path / str(seed), model, tokenizer, dtype=torch.bfloat16)
        parents.append(str(tmp_path / str(seed)))
    done = run(parents, tmp_path / "m", method="dare", base=str(tmp_path / "start"), density=0.1)
    assert done.report["merged"] == 1
    assert torch.equal(weights(done.folder)["words.weight"], weights(parents[0])["words.weight"])
    assert not torch.equal(weights(tmp_path / "start")["words.weight"], weights(parents[0])["words.weight"])


def test_answers_of_all_parents_are_answers_of_the_result(family, tmp_path):
    folders = []
    for name, choices in (("a", ("x", "y")), ("b", ("y", "z"))):
        model, tokenizer = load_model(Path(family[name]))
        save_model(tmp_path / name, model, tokenizer)
        write_answers(tmp_path / name, [Answers(task="classify", text="what?", choices=choices)])
        folders.append(str(tmp_path / name))
    done = run([*folders, family["c"]], tmp_path / "m")
    assert read_answers(done.folder) == (Answers(task="classify", text="what?", choices=("x", "y", "z")),)


def adapter(folder: Path, base: str, *, seed: int, head: Head | None = None) -> str:
    """Low-rank changes of the decoder and a changed norm, on a base."""
    model, _ = load_model(Path(base))
    lora = Lora(rank=2, layers=("decoder_layers",))
    add_lora(model, lora, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        changed = {
            name: torch.randn(model.get_parameter(name).shape, generator=generator) for name in lora_names(model)
        }
    changed["encoder_norm.weight"] = torch.full((32,), float(seed))
    heads, settings = ({}, None) if head is None else ({0: head.state()[0]}, head.state()[1])
    answers = (Answers(task="summarize", text=f"{seed}", choices=("yes", "no"), head=settings),)
    about = Base(name="base", path=str(Path(base).absolute()), sha256=sha256_of(Path(base) / "model.safetensors"))
    save_adapter(folder, AdapterSettings(base=about, method="lora", lora=lora, answers=answers), changed, heads=heads)
    return str(folder)


def test_adapters_are_merged_as_the_models_that_they_make(family, tmp_path):
    """Against `load_model` of each adapter, with its changes folded in."""
    parents = [adapter(tmp_path / f"adapter{seed}", family["base"], seed=seed) for seed in (1, 2)]
    done = run([*parents, family["a"]], tmp_path / "m", method="interpolate", weights=[0.5, 0.3, 0.2])
    states = []
    for parent in (*parents, family["a"]):
        model, _ = load_model(Path(parent))
        fold_lora(model)
        states.append(model.state_dict())
    for name, tensor in weights(done.folder).items():
        wanted = sum(share * state[name] for share, state in zip((0.5, 0.3, 0.2), states))
        torch.testing.assert_close(tensor, wanted, rtol=1e-4, atol=1e-5)
    assert [given.text for given in read_answers(done.folder)] == ["1", "2"]
    told = json.loads((done.folder / "lineage.json").read_text())["parents"][0]
    assert told == {"model": parents[0], "sha256": sha256_of(Path(parents[0]) / "adapter.safetensors"), "weight": 0.5}
    head = Head(
        "ridge", ("yes", "no"), {"x": 4}, torch.zeros(4), torch.ones(4), torch.ones(2, 4), torch.ones(2), 1.0, ""
    )
    with_head = adapter(tmp_path / "head", family["base"], seed=3, head=head)
    line = refused(family["a"], with_head, out=str(tmp_path / "n"))
    assert "answers by a head of its own, which cannot be merged" in line


# --- memory -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", MERGERS)
def test_tensors_are_read_one_at_a_time(family, tmp_path, monkeypatch, method):
    """However many parents there are: no more than the base, the version at hand and the one before it are alive."""
    if method == "fisher":
        pytest.skip("holds a version and its information: the same reader, tried in test_information")
    alive: list[weakref.ref] = []
    most = 0
    read = Stored.read

    def counted(self, name):
        nonlocal most
        tensor = read(self, name).clone()  # not mapped: alive as long as somebody holds it
        alive.append(weakref.ref(tensor))
        gc.collect(0)
        alive[:] = [one for one in alive if one() is not None]
        most = max(most, len(alive))
        return tensor

    merger = MERGERS[method]
    parents = [family["a"], family["b"]] if merger.most else [family[p] for p in "abcabcabc"]
    settings = {"base": family["base"]} if merger.needs_base else {}
    settings |= {"weights": [1.0] * len(parents)} if merger.needs_weights else {}
    monkeypatch.setattr(Stored, "read", counted)
    run(parents, tmp_path / "m", method=method, **settings)
    assert most <= 2


def test_a_file_is_written_without_holding_it(tmp_path):
    alive: list[weakref.ref] = []

    def tensors():
        for index in range(5):
            tensor = torch.full((3, index), float(index))
            alive.append(weakref.ref(tensor))
            yield f"t{index}", tensor
            del tensor
            assert sum(one() is not None for one in alive) <= 1

    layout = {f"t{index}": (torch.float32, (3, index)) for index in range(5)}
    write_safetensors(tmp_path / "x.safetensors", layout, tensors(), {"a": "b"})
    found = load_file(tmp_path / "x.safetensors")
    assert {name: tuple(tensor.shape) for name, tensor in found.items()} == {n: s for n, (_, s) in layout.items()}
    assert found["t4"].unique().tolist() == [4.0]


def test_a_written_file_is_what_the_library_writes(tmp_path):
    kinds = (torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.int16)
    state = {f"x.{dtype}": torch.arange(6).reshape(2, 3).to(dtype) for dtype in (*kinds, torch.int8, torch.uint8)}
    state |= {
        "scalar": torch.tensor(7),
        "yes": torch.tensor([True, False]),
        "turned": torch.arange(6.0).reshape(2, 3).T,
    }
    layout = {name: (tensor.dtype, tuple(tensor.shape)) for name, tensor in state.items()}
    write_safetensors(tmp_path / "own", layout, iter(state.items()), {"format": "1"})
    save_file({name: tensor.contiguous() for name, tensor in state.items()}, tmp_path / "theirs", {"format": "1"})
    own, theirs = load_file(tmp_path / "own"), load_file(tmp_path / "theirs")
    assert own.keys() == theirs.keys()
    assert all(own[name].dtype == theirs[name].dtype and torch.equal(own[name], theirs[name]) for name in own)


def test_a_tensor_out_of_order_is_noticed(tmp_path):
    layout = {"a": (torch.float32, (1,)), "b": (torch.float32, (1,))}
    with pytest.raises(ValueError, match=r"b .* is not .*a.*, which comes next"):
        write_safetensors(tmp_path / "x", layout, iter([("b", torch.zeros(1))]), {})
    with pytest.raises(ValueError, match="b was never given"):
        write_safetensors(tmp_path / "x", layout, iter([("a", torch.zeros(1))]), {})


# --- what is refused --------------------------------------------------------------------------------------------------


def refused(*words: str, **settings) -> str:
    with pytest.raises(InputError) as error:
        merge(make_page({"parents": [*words], **settings}), quiet=True)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_pages_that_do_not_fit_together():
    two = ("a", "b")
    assert refused("a") == "command line: parents: 1 model given, average needs 2 or more; name the models to merge"
    assert "weights: 3 for 2 models" in refused(*two, method="interpolate", weights=[1, 2, 3])
    assert "weights: nan,1: not all are numbers from 0 on" in refused(
        *two, method="interpolate", weights=[float("nan"), 1]
    )
    assert "not all are numbers from 0 on" in refused(*two, method="interpolate", weights=[-1, 2])
    assert "weights: sum to zero" in refused(*two, method="interpolate", weights=[0, 0])
    assert "weights: are missing" in refused(*two, method="interpolate")
    assert "weights: have no meaning for average" in refused(*two, weights=[1, 2])
    assert "no method of merging named 'tie'; closest: 'ties'" in refused(*two, method="tie")
    assert "base: is missing; ties needs" in refused(*two, method="ties")
    assert "base: has no meaning for slerp" in refused(*two, method="slerp", base="c")
    assert "3 models given, slerp takes 2" in refused("a", "b", "c", method="slerp")
    assert "density: has no meaning for average" in refused(*two, density=0.5)
    assert "scale: is inf" in refused(*two, method="ties", base="c", scale=float("inf"))
    assert "fisher_data: is missing" in refused(*two, method="fisher")
    assert "fisher_data: 3 files for 2 models" in refused(*two, method="fisher", fisher_data=["x"] * 3)
    assert "search: average has no coefficients" in refused(*two, search={"data": ["x"]})
    assert "no key named 'trails'; closest: 'trials'" in refused(*two, search={"data": ["x"], "trails": 3})
    assert "no key named 'wieghts'; closest: 'weights'" in refused(*two, wieghts=[1, 1])
    assert "--out: is missing" in refused(*two)


def test_folders_that_cannot_be_merged(family, tmp_path):
    out = str(tmp_path / "m")
    assert "is there already; give a new folder" in refused(family["a"], family["b"], out=str(tmp_path))
    assert "nowhere: model: no such folder" in refused(family["a"], "nowhere", out=out)
    empty = tmp_path / "empty"
    empty.mkdir()
    assert "incomplete: config.json, model.safetensors, tokenizer.json missing" in refused(
        family["a"], str(empty), out=out
    )

    cut = Path(saved(tmp_path / "cut", start()))
    whole = (cut / "model.safetensors").read_bytes()
    for length in (0, 5, 1000, len(whole) - 1):
        (cut / "model.safetensors").write_bytes(whole[:length])
        assert f"{cut}/model.safetensors: weights: cannot be read" in refused(family["a"], str(cut), out=out)

    wide = saved(tmp_path / "wide", start(ffn=128))
    assert f"{wide}/config.json: ffn: is 128, but 64 in {family['a']}" in refused(family["a"], wide, out=out)
    more = VOCABULARY.model_copy(update={"num_codes": 32})
    codes = saved(tmp_path / "codes", start(vocabulary=more))
    assert "config.json: vocabulary.num_codes: is 32, but 16" in refused(family["a"], codes, out=out)
    assert "vocabulary.num_codes" in refused(family["a"], family["b"], method="ties", base=codes, out=out)

    model, tokenizer = tiny_model(encoders=True, modalities={}), tiny_tokenizer()
    page = json.loads(tokenizer.words.to_str())
    merges = page["model"]["merges"]
    page["model"]["merges"] = [merges[1], merges[0], *merges[2:]]
    words = type(tokenizer.words).from_str(json.dumps(page))
    save_model(tmp_path / "words", model, Tokenizer(words, VOCABULARY))
    line = refused(family["a"], str(tmp_path / "words"), out=out)
    assert f"{tmp_path}/words/tokenizer.json: vocabulary: model.merges is not that of {family['a']}" in line

    state = load_file(f"{family['b']}/model.safetensors")
    odd = Path(saved(tmp_path / "odd", start()))
    save_file({**state, "moon": torch.zeros(1)}, odd / "model.safetensors")
    assert "do not fit config.json: moon is unknown" in refused(family["a"], str(odd), out=out)
    assert not Path(out).exists()


def test_encoders_of_two_kinds(tmp_path):
    one = saved(tmp_path / "one", start(modalities={"image": {"size": 32}}))
    config = json.loads((tmp_path / "one" / "config.json").read_text())
    other = Path(saved(tmp_path / "other", start()))
    config["model"]["modalities"]["image"] = {"encoder": "resnet101"}
    (other / "config.json").write_text(json.dumps(config))
    line = refused(one, str(other), out=str(tmp_path / "m"))
    assert "config.json: modalities.image.encoder: is 'resnet101', but 'lite0'" in line


def test_nothing_is_left_when_it_fails(family, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("monoglot.merge.run.write_safetensors", full)
    with pytest.raises(InputError, match="No space left on device"):
        run([family["a"], family["b"]], tmp_path / "m")
    assert list(tmp_path.iterdir()) == []


# --- the command line -------------------------------------------------------------------------------------------------


def command(*words: object, capsys) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as stop:
        cli.main([str(word) for word in words])
    return stop.value.code, *capsys.readouterr()


def test_the_command_line(family, tmp_path, capsys):
    out = tmp_path / "m"
    words = ["merge", family["a"], family["b"], "--method", "interpolate", "--weights", "0.8,0.2", "--out", out]
    code, told, said = command(*words, capsys=capsys)
    assert (code, told) == (0, f"{out}\n"), said
    assert "interpolate of 2, weights 0.8, 0.2:" in said
    assert "Merging" not in said  # nothing was measured
    assert json.loads((out / "lineage.json").read_text())["command"] == f"monoglot {shlex.join(map(str, words))}"
    code, told, said = command(*words, capsys=capsys)
    assert (code, told) == (2, "")
    assert said == f"{out}: out: is there already; give a new folder\n"
    code, _, said = command("merge", "a", "b", "--weights", "0.8;0.2", "--out", "x", capsys=capsys)
    assert (code, said) == (
        2,
        "command line: --weights: '0.8;0.2' is not numbers with commas; for example 0.8,0.2\n",
    )
    code, _, said = command("merge", "a", "b", "--trials", "3", "--out", "x", capsys=capsys)
    assert (code, said) == (2, "command line: --trials: needs --search; give validation rows\n")


def test_a_page_with_options_over_it(family, tmp_path, capsys):
    page = tmp_path / "page.yaml"
    told = {"parents": [family["a"], family["b"]], "method": "ties", "base": family["base"], "out": str(tmp_path / "x")}
    page.write_text(yaml.safe_dump(told))
    code, out, _ = command("merge", page, "--out", tmp_path / "m", "--density", "0.5", capsys=capsys)
    assert (code, out) == (0, f"{tmp_path / 'm'}\n")
    lineage = json.loads((tmp_path / "m" / "lineage.json").read_text())
    assert lineage["settings"] == {"scale": 1.0, "density": 0.5}
    code, _, said = command("merge", tmp_path / "none.yaml", capsys=capsys)
    assert (code, "recipe: cannot be read (No such file or directory)" in said) == (2, True)


@pytest.mark.parametrize("page", sorted((ROOT / "recipes" / "merge").glob("*.yaml")), ids=lambda path: path.stem)
def test_the_recipes_are_pages(page):
    read = read_page(page)
    assert read.out
    assert read.name == page.stem
