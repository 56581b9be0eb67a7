"""Files that others wrote: tensors and settings come back, anything else is refused by its name and never run."""

from __future__ import annotations

import enum
import os
import pickle
import subprocess
import sys
import zipfile
from argparse import Namespace
from collections import OrderedDict

import numpy as np
import pytest
import torch
from published_files import class_of, forget, save
from safetensors.torch import save_file

from monoglot.errors import InputError
from monoglot.interop.checkpoint import Inert, plain, read_checkpoint


@pytest.fixture
def foreign():
    """Classes of packages that are not installed; they are gone when the file is read."""
    yield class_of
    forget("omegaconf", "fairseq")


@pytest.mark.parametrize("old_format", [False, True])
def test_tensors_come_back(old_format, tmp_path):
    shared = torch.arange(6.0).view(2, 3)
    state = OrderedDict(
        a=shared, b=shared, c=shared.t(), half=torch.ones(2).half(), brain=torch.ones(2).bfloat16(),
        count=torch.tensor(3), mask=torch.tensor([True]), trained=torch.nn.Parameter(torch.ones(2)),
    )  # fmt: skip
    read = read_checkpoint(save(tmp_path / "a.pt", {"model": state, "n": 3, "none": None}, old_format=old_format))
    assert (read["n"], read["none"]) == (3, None)
    assert all(torch.equal(read["model"][name], tensor) for name, tensor in state.items())
    assert all(read["model"][name].dtype == tensor.dtype for name, tensor in state.items())
    assert read["model"]["a"].data_ptr() == read["model"]["b"].data_ptr()


def test_tensors_of_a_zip_and_of_safetensors_are_mapped(tmp_path):
    weights = {"a": torch.arange(1000.0)}
    save(tmp_path / "mapped.pt", weights)
    save_file(weights, tmp_path / "mapped.safetensors")
    for name in ("mapped.pt", "mapped.safetensors"):
        read = read_checkpoint(tmp_path / name)
        with open("/proc/self/maps") as maps:
            assert str(tmp_path / name) in maps.read()
        assert torch.equal(read["a"], weights["a"])


@pytest.mark.parametrize("old_format", [False, True])
def test_settings_become_dictionaries(old_format, foreign, tmp_path):
    config = foreign("omegaconf.dictconfig", "DictConfig")()
    node = foreign("omegaconf.nodes", "AnyNode")()
    node.__dict__.update(_val=6, _parent=config)
    config.__dict__.update(_content={"encoder_layers": node, "inner": config_of(foreign)}, _parent=None, _metadata=dict)
    foreign("fairseq.dataclass.constants", "Other")
    chosen = enum.Enum("Choice", {"SLOW": "slow"}, module="fairseq.dataclass.constants")
    sys.modules["fairseq.dataclass.constants"].Choice = chosen
    contents = {
        "args": Namespace(width=64, inner=Namespace(depth=2)),
        "cfg": config,
        "ddp": chosen.SLOW,
        "best": np.float64(3.5),
        "scores": np.arange(3),
    }
    path = save(tmp_path / "a.pt", contents, old_format=old_format)
    forget("omegaconf", "fairseq")
    read = read_checkpoint(path)
    assert plain(read["args"]) == {"width": 64, "inner": {"depth": 2}}
    assert plain(read["cfg"]) == {"encoder_layers": 6, "inner": {"depth": 3}}
    assert all(type(read[name]) is Inert for name in ("cfg", "ddp", "best", "scores"))


def config_of(foreign):
    inner = foreign("omegaconf.dictconfig", "Inner")()
    node = foreign("omegaconf.nodes", "IntegerNode")()
    node.__dict__["_val"] = 3
    inner.__dict__["_content"] = {"depth": node}
    return inner


# --- what is refused --------------------------------------------------------------------------------------------------


class Call:
    """Unpickled, it would call something."""

    def __init__(self, function, *arguments):
        self.function, self.arguments = function, arguments

    def __reduce__(self):
        return self.function, self.arguments


ATTACKS = {
    "posix.system": (os.system, "touch RAN"),
    "builtins.eval": (eval, "open('RAN', 'w')"),
    "builtins.exec": (exec, "open('RAN', 'w')"),
    "builtins.getattr": (getattr, "a", "b"),
    "subprocess.Popen": (subprocess.Popen, ["touch", "RAN"]),
    "torch.hub.load": (torch.hub.load, "somebody/something", "model"),
    "torch.serialization.load": (torch.load, "other.pt"),
    "pickle.loads": (pickle.loads, b"cposix\nsystem\n(S'touch RAN'\ntR."),
}


@pytest.mark.parametrize("old_format", [False, True])
@pytest.mark.parametrize("place", ["model", "args", "extra_state"])
@pytest.mark.parametrize("name", ATTACKS)
def test_calls_are_refused_by_name(name, place, old_format, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    contents = {"model": {"a": torch.ones(2)}, place: {"deep": [Call(*ATTACKS[name])]}}
    path = save(tmp_path / "a.pt", contents, old_format=old_format)
    with pytest.raises(
        InputError, match=f": {name}: is not among what a file of weights may name; nothing of it was run"
    ) as told:
        read_checkpoint(path)
    assert "\n" not in str(told.value)
    assert not (tmp_path / "RAN").exists()


def rezip(path, change, compression=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    change(members)
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in members.items():
            archive.writestr(name, data)


def with_pickle(data):
    def change(members):
        members[next(name for name in members if name.endswith("/data.pkl"))] = data

    return change


STACK_GLOBAL = pickle.dumps(Call(os.system, "touch RAN"), protocol=4)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda p: p.unlink(), "cannot be read"),
        (lambda p: os.truncate(p, 0), "is truncated or is not a file that torch.save or safetensors wrote"),
        (lambda p: os.truncate(p, 60), "is truncated or"),
        (lambda p: os.truncate(p, p.stat().st_size // 2), "is truncated or"),
        (lambda p: os.truncate(p, p.stat().st_size - 30), "is truncated or"),
        (lambda p: p.write_bytes(b"\x7fELF" + bytes(200)), "is truncated or"),
        (lambda p: p.write_text("a page of text"), "is truncated or"),
        (lambda p: p.write_bytes(pickle.dumps(Call(os.system, "touch RAN"))), "is not an operation that torch.save writes|not a file"),
        (lambda p: p.write_bytes(pickle.dumps(Call(os.system, "touch RAN"), 2)), "is not a file that torch.save"),
        (lambda p: p.write_bytes(b"\x10" + bytes(7) + b"{" + bytes(20)), "is truncated or"),
        (lambda p: rezip(p, with_pickle(STACK_GLOBAL)), "STACK_GLOBAL: is not an operation that torch.save writes"),
        (lambda p: rezip(p, with_pickle(b"garbage")), "is truncated or"),
        (lambda p: rezip(p, lambda m: None, zipfile.ZIP_DEFLATED), "is not a file that torch.save or safetensors wrote"),
        (lambda p: rezip(p, lambda m: m.update({"b/data.pkl": b"."})), "is not a file that torch.save"),
        (lambda p: rezip(p, lambda m: [m.pop(n) for n in list(m) if "/data/" in n]), "is truncated or"),
        (lambda p: save(p, [1, 2]), "holds a list, not a dictionary of weights"),
    ],
)  # fmt: skip
def test_damaged_and_foreign_files(damage, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = save(tmp_path / "a.pt", {"model": {"a": torch.ones(2000)}})
    damage(path)
    with pytest.raises(InputError, match=message) as told:
        read_checkpoint(path)
    assert "\n" not in str(told.value)
    assert not (tmp_path / "RAN").exists()


@pytest.mark.parametrize("share", [0.01, 0.3, 0.9, 0.999])
def test_truncated_files_of_the_older_format(share, tmp_path):
    path = save(tmp_path / "a.pt", {"model": {"a": torch.ones(2000)}}, old_format=True)
    os.truncate(path, int(path.stat().st_size * share))
    with pytest.raises(InputError, match="is truncated or"):
        read_checkpoint(path)
