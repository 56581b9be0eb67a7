"""Each formula against a few plain lines of numpy on whole models."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from monoglot.merge import MERGERS, Pieces
from monoglot.merge import run as run_module
from monoglot.merge.parents import Stored
from monoglot.merge.recipe import make_page
from monoglot.merge.run import merge
from monoglot.rng import stream
from monoglot.store import load_model, read_weights

State = dict[str, np.ndarray]


def state(folder: str | Path) -> State:
    return {name: tensor.double().numpy() for name, tensor in read_weights(Path(folder) / "model.safetensors").items()}


def merged(out: Path, parents: list[str], **settings) -> State:
    done = merge(make_page({"parents": parents, "out": str(out), **settings}), quiet=True)
    load_model(done.folder)  # it is a model
    return state(done.folder)


def check(found: State, wanted: State) -> None:
    assert found.keys() == wanted.keys()
    for name in wanted:
        np.testing.assert_allclose(found[name], wanted[name], rtol=2e-5, atol=2e-6, err_msg=name)


@pytest.fixture
def states(family) -> dict[str, State]:
    return {name: state(folder) for name, folder in family.items()}


def test_average(family, states, tmp_path):
    found = merged(tmp_path / "m", [family[name] for name in "abc"])
    check(found, {n: np.mean([states[p][n] for p in "abc"], axis=0) for n in found})


def test_interpolate(family, states, tmp_path):
    found = merged(tmp_path / "m", [family["a"], family["b"]], method="interpolate", weights=[3, 1])
    check(found, {n: 0.75 * states["a"][n] + 0.25 * states["b"][n] for n in found})


def test_task_arithmetic(family, states, tmp_path):
    lam = 0.4  # the paper's, on the sum of three task vectors
    settings = {"method": "task_arithmetic", "base": family["base"], "scale": 3 * lam}
    found = merged(tmp_path / "m", [family[name] for name in "abc"], **settings)
    base = states["base"]
    check(found, {n: base[n] + lam * sum(states[p][n] - base[n] for p in "abc") for n in found})


def test_task_arithmetic_takes_away(family, states, tmp_path):
    settings = {"method": "task_arithmetic", "base": family["base"], "scale": -0.5}
    found = merged(tmp_path / "m", [family["a"]], **settings)
    check(found, {n: states["base"][n] - 0.5 * (states["a"][n] - states["base"][n]) for n in found})


def test_ties(family, states, tmp_path):
    settings = {"method": "ties", "base": family["base"], "scale": 0.7, "density": 0.3}
    found = merged(tmp_path / "m", [family[name] for name in "abc"], **settings)
    for n, value in found.items():
        base = states["base"][n].ravel()
        trimmed = []
        for p in "abc":
            change = states[p][n].ravel() - base
            largest = np.argsort(np.abs(change))[::-1][: max(1, round(0.3 * change.size))]
            kept = np.zeros_like(change)
            kept[largest] = change[largest]
            trimmed.append(kept)
        changes = np.array(trimmed)
        sign = np.sign(changes.sum(0))
        wanted = np.zeros(base.size)
        for i in range(base.size):
            agree = [v for v in changes[:, i] if v != 0 and np.sign(v) == sign[i]]
            wanted[i] = base[i] + 0.7 * (np.mean(agree) if agree else 0)
        np.testing.assert_allclose(value.ravel(), wanted, rtol=1e-4, atol=1e-5, err_msg=n)


def test_dare(family, states, tmp_path):
    settings = {"method": "dare", "base": family["base"], "density": 0.25, "seed": 7}
    found = merged(tmp_path / "m", [family["a"], family["b"]], **settings)
    for n, value in found.items():
        base, total = states["base"][n], 0.0
        for index, p in enumerate("ab"):
            kept = stream(7, "merge", n, index).random(base.shape, dtype=np.float32) < 0.25
            total = total + 0.5 * kept * (states[p][n] - base) / 0.25
        np.testing.assert_allclose(value, base + total, rtol=1e-4, atol=1e-5, err_msg=n)
    change = np.concatenate([(found[n] - states["base"][n]).ravel() for n in found])
    kept_by_none = (np.abs(change) < 1e-9).mean()
    assert kept_by_none == pytest.approx(0.75**2, abs=0.01)


def test_dare_is_task_arithmetic_on_average():
    """Drop and rescale leaves the expectation of a change as it is (arXiv 2311.03099, section 3.2)."""
    base, change = torch.full((2000,), 3.0), torch.randn(2000, generator=torch.Generator().manual_seed(0))
    draws = []
    for seed in range(50):
        pieces = Pieces("x", [lambda: base + change], [1.0], base=lambda: base, density=0.5, seed=seed)
        draws.append(MERGERS["dare"].merge(pieces))
    error = (torch.stack(draws).mean(0) - base - change).square().mean().sqrt() / change.square().mean().sqrt()
    assert error.item() == pytest.approx(50**-0.5, rel=0.1)  # a kept change is doubled, a dropped one 0: variance 1


def test_slerp(family, states, tmp_path):
    found = merged(tmp_path / "m", [family["a"], family["b"]], method="slerp", weights=[0.7, 0.3])
    wanted = {}
    for n in found:
        a, b = states["a"][n], states["b"][n]
        omega = np.arccos(np.clip((a * b).sum() / np.linalg.norm(a) / np.linalg.norm(b), -1, 1))
        wanted[n] = np.sin(0.7 * omega) / np.sin(omega) * a + np.sin(0.3 * omega) / np.sin(omega) * b
    check(found, wanted)


def test_slerp_keeps_lengths_where_a_mean_shortens():
    a, b = torch.tensor([2.0, 0.0]), torch.tensor([0.0, 2.0])
    pieces = Pieces("x", [lambda: a, lambda: b], [0.5, 0.5])
    assert MERGERS["slerp"].merge(pieces).norm().item() == pytest.approx(2)
    assert pieces.mean().norm().item() == pytest.approx(2**0.5)
    opposed = Pieces("x", [lambda: a, lambda: -a], [0.25, 0.75])
    assert MERGERS["slerp"].merge(opposed).tolist() == [-1.0, 0.0]


@pytest.mark.parametrize("names", ["ab", "abc"])
def test_model_stock(family, states, tmp_path, names):
    found = merged(tmp_path / "m", [family[p] for p in names], method="model_stock", base=family["base"])
    wanted, count = {}, len(names)
    for n in found:
        base = states["base"][n]
        d = [(states[p][n] - base).ravel() for p in names]
        pairs = [(i, j) for i in range(count) for j in range(i)]
        cosine = np.mean([d[i] @ d[j] / np.linalg.norm(d[i]) / np.linalg.norm(d[j]) for i, j in pairs])
        cosine = max(0.0, cosine)
        t = count * cosine / (1 + (count - 1) * cosine)
        wanted[n] = t * np.mean([states[p][n] for p in names], axis=0) + (1 - t) * base
    check(found, wanted)
    assert any(abs(found[n] - states["base"][n]).max() > 1e-3 for n in found)


def test_fisher(family, states, tmp_path, monkeypatch):
    generator = torch.Generator().manual_seed(5)
    files = []
    for p in "ab":
        shapes = load_file(f"{family[p]}/model.safetensors")
        save_file(
            {n: torch.rand(t.shape, generator=generator) for n, t in shapes.items()}, tmp_path / f"{p}.safetensors"
        )
        files.append(tmp_path / f"{p}.safetensors")
    monkeypatch.setattr(run_module, "measure_information", lambda *_: [Stored(file) for file in files])
    settings = {"method": "fisher", "fisher_data": ["rows.jsonl"], "weights": [2, 1]}
    found = merged(tmp_path / "m", [family["a"], family["b"]], **settings)
    f = {p: {n: t.double().numpy() for n, t in load_file(file).items()} for p, file in zip("ab", files)}
    wanted = {
        n: (2 * f["a"][n] * states["a"][n] + f["b"][n] * states["b"][n]) / (2 * f["a"][n] + f["b"][n]) for n in found
    }
    check(found, wanted)
