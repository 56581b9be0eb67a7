"""Sketched gradients against the gradients themselves."""

from __future__ import annotations

import doctest

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from monoglot.train import conflicts as page
from monoglot.train.conflicts import WIDTH, Conflicts


def network(width: int) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(32, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 10))


def task_losses(model: nn.Module, count: int) -> list[Tensor]:
    """Tasks that share a part of their labels, on one graph."""
    rng = np.random.default_rng(1)
    x = torch.from_numpy(rng.normal(size=(64, 32)).astype(np.float32))
    logits = model(x)
    labels = rng.integers(0, 10, 64)
    losses = []
    for task in range(count):
        own = np.where(rng.random(64) < task / count, rng.integers(0, 10, 64), labels)
        losses.append(F.cross_entropy(logits, torch.from_numpy(own)))
    return losses


def exact(losses: list[Tensor], parameters: list[Tensor]) -> tuple[np.ndarray, np.ndarray]:
    rows = [torch.autograd.grad(loss, parameters, retain_graph=True) for loss in losses]
    matrix = np.stack([np.concatenate([g.double().numpy().ravel() for g in row]) for row in rows])
    norms = np.linalg.norm(matrix, axis=1)
    return matrix @ matrix.T / np.outer(norms, norms), norms


def sketched(losses: list[Tensor], parameters: list[Tensor], seed: int = 0) -> Conflicts:
    conflicts = Conflicts(parameters, len(losses), seed=seed)
    for source, loss in enumerate(losses):
        conflicts.add(source, loss)
    return conflicts


def test_a_small_network_is_exact():
    model = network(64)
    parameters, losses = list(model.parameters()), task_losses(model, 5)
    cosines, norms = exact(losses, parameters)
    conflicts = sketched(losses, parameters)
    assert np.allclose(conflicts.cosines().numpy(), cosines, atol=1e-5)
    assert np.allclose(conflicts.norms().numpy(), norms, rtol=1e-5)
    assert conflicts.cosines().diagonal().tolist() == [1.0] * 5


def test_a_larger_network_errs_as_said():
    model = network(512)
    parameters, losses = list(model.parameters()), task_losses(model, 6)
    assert sum(p.numel() for p in parameters) > 4 * WIDTH
    cosines, norms = exact(losses, parameters)
    assert cosines.min() < 0.5  # they differ enough to be told apart
    off, norm_off = [], []
    for seed in range(10):
        conflicts = sketched(losses, parameters, seed)
        off.append(conflicts.cosines().numpy() - cosines)
        norm_off.append(conflicts.norms().numpy() / norms - 1)
    # Each matrix has 15 different cosines; errors of one seed go together, so the bound is on the whole.
    assert np.sqrt(np.mean(np.square(off))) <= np.sqrt(2 / WIDTH)
    assert np.abs(off).max() < 5 * np.sqrt(2 / WIDTH)
    assert np.abs(np.mean(norm_off)) < 0.01
    assert np.abs(norm_off).max() < 0.02


def test_gradients_in_few_places_are_told_apart():
    """The worst for a sketch: each data set moves one row of a large table."""
    table = nn.Parameter(torch.zeros(600, 512))
    rows = [0, 128, 256, 400]  # 128 rows of 512 are one piece: without random offsets these would fall onto one another
    worst = []
    for seed in range(5):
        worst.append(sketched([table[row].sum() for row in rows], [table], seed).cosines() - torch.eye(4))
    assert torch.stack(worst).abs().max() < 0.25  # ones everywhere: what meets, meets row by row


def test_parts_of_a_step_add_up():
    model = network(512)
    parameters = list(model.parameters())
    one, two, *_ = task_losses(model, 3)
    whole, parts = Conflicts(parameters, 1), Conflicts(parameters, 1)
    whole.add(0, one + two)
    parts.add(0, one)
    parts.add(0, two)
    assert torch.allclose(whole.sketches, parts.sketches, atol=1e-6)


def test_opposite_the_same_absent_and_none():
    model = network(16)
    (loss,) = task_losses(model, 1)
    conflicts = Conflicts(list(model.parameters()), 5)
    conflicts.add(0, loss)
    conflicts.add(1, -2 * loss)
    conflicts.add(2, 3 * loss)
    conflicts.add(3, 0 * loss)  # there, but pulls nowhere
    cosines, norms = conflicts.cosines(), conflicts.norms()
    assert cosines[0, 1].item() == pytest.approx(-1)
    assert cosines[0, 2].item() == pytest.approx(1)
    assert norms[2].item() == pytest.approx(3 * norms[0].item())
    assert norms[3] == 0
    assert torch.isnan(norms[4])
    assert torch.isnan(cosines[3:]).all()
    assert torch.isnan(cosines[:, 3:]).all()
    loss.backward()  # the graph is still there


def test_a_seed_says_it_all():
    model = network(512)
    parameters, losses = list(model.parameters()), task_losses(model, 2)
    assert torch.equal(sketched(losses, parameters, 3).sketches, sketched(losses, parameters, 3).sketches)
    assert not torch.equal(sketched(losses, parameters, 3).sketches, sketched(losses, parameters, 4).sketches)


def test_parameters_that_a_loss_does_not_use():
    a, b = nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(2))
    conflicts = Conflicts([a, b], 2)
    conflicts.add(0, (a * 2).sum())
    conflicts.add(1, b.sum())
    assert conflicts.norms().tolist() == pytest.approx([12**0.5, 2**0.5])
    assert conflicts.cosines()[0, 1] == 0


def test_examples_in_docstrings_run():
    assert doctest.testmod(page).failed == 0
