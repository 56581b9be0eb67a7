"""Balancers against independent computations (torch's autograd and optimizers, sums by hand) and on scripted losses."""

from __future__ import annotations

import doctest
from itertools import pairwise

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from monoglot.train import balance
from monoglot.train.balance import BALANCERS, Balance, bounded

QUOTAS = torch.tensor([40.0, 20.0, 4.0])
ONES = torch.ones(3)


def new(kind: str, quotas=QUOTAS, loss_weights=None, **settings):
    loss_weights = torch.ones(len(quotas)) if loss_weights is None else loss_weights
    return BALANCERS[kind](quotas, loss_weights, Balance(kind=kind, **settings))


def noisy_losses(steps: int, seed: int = 0) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    levels = torch.tensor([0.4, 2.0, 4.0])
    return [levels * (1 - step / steps / 2) + torch.rand(3, generator=generator) for step in range(steps)]


# --- those that do not move ---


def test_fixed_equal_and_temperature():
    quotas, loss_weights = torch.tensor([2.0, 6.0, 2.0]), torch.tensor([1.0, 1.0, 2.0])
    assert new("fixed", quotas, loss_weights).weights().tolist() == pytest.approx([1 / 6, 1 / 2, 1 / 3])
    assert new("equal", quotas, loss_weights).weights().tolist() == pytest.approx([0.25, 0.25, 0.5])
    roots = np.array([2, 6, 4]) ** (1 / 3)
    warm = new("temperature", quotas, loss_weights, temperature=3)
    assert warm.weights().tolist() == pytest.approx((roots / roots.sum()).tolist())
    cold = new("temperature", quotas, loss_weights, temperature=1)
    assert torch.equal(cold.weights(), new("fixed", quotas, loss_weights).weights())


# --- those of papers, against autograd of what the paper minimises ---


def test_uncertainty_is_descent_on_the_papers_loss():
    balancer = new("uncertainty", lr=0.05)
    s = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.SGD([s], lr=0.05)
    for losses in noisy_losses(200):
        balancer.update(losses)
        optimizer.zero_grad()
        (torch.exp(-s) * losses.double() + s / 2).sum().backward()  # 1 / sigma^2 loss + log sigma, s = log sigma^2
        optimizer.step()
    expected = QUOTAS * torch.exp(-s.detach())
    assert torch.allclose(balancer.weights(), (expected / expected.sum()).float(), rtol=1e-5)


def test_uncertainty_comes_to_one_over_the_loss():
    balancer = new("uncertainty", torch.ones(3), lr=0.05)
    for _ in range(2000):
        balancer.update(torch.tensor([0.5, 1.0, 4.0]))
    assert balancer.weights().tolist() == pytest.approx([8 / 13, 4 / 13, 1 / 13], rel=1e-3)


def test_gradnorm_is_descent_on_the_papers_loss():
    balancer = new("gradnorm", lr=0.01, alpha=0.7)
    w, first = torch.ones(3, dtype=torch.float64), None
    for step, losses in enumerate(noisy_losses(200)):
        norms = losses.sqrt() * torch.tensor([3.0, 1.0, 0.2])
        here = torch.tensor([True, True, step % 3 == 0])
        balancer.update(torch.where(here, losses, torch.nan), torch.where(here, norms, torch.nan))
        first = losses.double() if first is None else first
        w = w.requires_grad_()
        lengths = w[here] * norms[here].double()
        progress = losses[here].double() / first[here]
        target = (lengths.mean() * (progress / progress.mean()) ** 0.7).detach()
        (gradient,) = torch.autograd.grad((lengths - target).abs().sum() / norms[here].double().mean(), w)
        w = (w - 0.01 * gradient).detach()
        w = w * 3 / w.sum()
    expected = QUOTAS * w
    assert torch.allclose(balancer.weights(), (expected / expected.sum()).float(), rtol=1e-5)


def test_gradnorm_comes_to_equal_norms():
    balancer = new("gradnorm", torch.ones(3), alpha=0.0, lr=0.002)
    for _ in range(3000):
        balancer.update(ONES, torch.tensor([4.0, 1.0, 2.0]))
    assert balancer.weights().tolist() == pytest.approx([1 / 7, 4 / 7, 2 / 7], abs=0.01)


def test_gradnorm_needs_norms():
    with pytest.raises(ValueError, match="norms"):
        new("gradnorm").update(ONES)


def test_famo_is_descent_on_the_papers_logits():
    balancer = new("famo", lr=0.5, decay=0.01)
    logits = torch.zeros(3, dtype=torch.float64)
    told = noisy_losses(200)
    balancer.update(told[0])
    for before, after in pairwise(told):
        balancer.update(after)
        leaf = logits.clone().requires_grad_()
        fall = before.double().log() - after.double().log()
        (leaf.softmax(0) @ fall).backward()
        logits = logits - 0.5 * (leaf.grad + 0.01 * logits)
    expected = QUOTAS * logits.softmax(0) / told[-1]
    # Decay also acts in the first step, on zeros: nothing.
    assert torch.allclose(balancer.weights(), (expected / expected.sum()).float(), rtol=1e-5)


def test_famo_pulls_what_falls_slowest():
    balancer = new("famo", torch.ones(3), lr=0.1)
    for step in range(300):
        balancer.update(4 * torch.exp(-torch.tensor([0.02, 0.01, 0.0]) * step))
    pull = balancer.logits
    assert pull[2] > pull[1] > pull[0]


# --- auto ---


def tell(balancer, curve, steps: int, noise: float = 0.3, seed: int = 0, start: int = 0) -> torch.Tensor:
    """Tell of losses by curve(rows so far float[K], step), with noise; the mean draws float[K] of the last quarter.

    A data set with less than one row a step has one now and then.
    """
    generator = torch.Generator().manual_seed(seed)
    rows, late = torch.zeros(len(balancer.quotas)), []
    for step in range(start, start + steps):
        now = (balancer.quotas * balancer.draws()).float()
        drawn = (now + torch.rand(len(now), generator=generator)).floor()
        rows += drawn
        losses = torch.as_tensor(curve(rows, step), dtype=torch.float32)
        losses = losses * (1 + noise * torch.randn(len(now), generator=generator) / drawn.clamp(min=1).sqrt())
        balancer.update(torch.where(drawn > 0, losses.clamp(min=0), torch.nan))
        late.append(balancer.draws())
    return torch.stack(late[-steps // 4 :]).mean(0)


@pytest.mark.parametrize(("noise", "floor"), [(0.3, 0.55), (0.05, 0.3)])
@pytest.mark.parametrize("seed", range(2))
def test_learners_get_more_and_what_stands_still_falls_to_the_floor(seed, noise, floor):
    quotas = torch.tensor([16.0, 16.0, 16.0, 16.0])

    def curve(rows, step):
        fast, slow = 3 * (1 + rows[:2] / 300) ** -torch.tensor([0.5, 0.15])
        learned_long_ago, never = 0.7, 9.2
        return [fast, slow, learned_long_ago, never]

    draws = tell(new("auto", quotas), curve, steps=1000, noise=noise, seed=seed)
    assert draws[0] > 1.4
    assert draws[1] > 1.4  # whoever learns, however fast
    assert draws[2] < floor
    assert draws[3] < floor


@pytest.mark.parametrize("seed", range(3))
def test_a_rare_set_is_raised_if_it_can_be_learned(seed):
    quotas = torch.tensor([40.0, 20.0, 3.36, 0.64])

    def curve(rows, step):
        return 3 * (1 + rows / 100) ** -0.3

    def noise_for_the_third(rows, step):
        return torch.where(torch.arange(4) == 2, 2.3, curve(rows, step))

    draws = tell(new("auto", quotas), curve, steps=1000, seed=seed)
    assert draws[3] > 3
    assert draws[2] > 2
    assert (quotas * draws).argmax() == 0  # they are raised, they do not take over
    useless = tell(new("auto", quotas), noise_for_the_third, steps=1000, seed=seed)
    assert useless[3] > 3
    assert useless[2] < draws[2] / 2


def test_a_set_that_starts_to_learn_late_rises_again():
    quotas = torch.tensor([24.0, 24.0, 16.0])

    def curve(rows, step):
        late = 2.3 if step < 800 else 2.3 * np.exp(-(step - 800) / 150)
        return [*(3 * (1 + rows[:2] / 300) ** -0.3).tolist(), late]

    balancer = new("auto", quotas)
    before = tell(balancer, curve, steps=800)[2].item()
    after = tell(balancer, curve, steps=200, start=800)[2].item()
    assert before < 0.5
    assert after > 2 * before


def test_a_set_that_is_forgotten_rises_again():
    def curve(rows, step):
        return [1.0 if step < 600 else 1.0 + (step - 600) / 100, *(3 * (1 + rows[1:] / 300) ** -0.3).tolist()]

    balancer = new("auto")
    before = tell(balancer, curve, steps=600)[0].item()
    after = tell(balancer, curve, steps=150, start=600)[0].item()
    assert before < 0.6
    assert after > 1.5 * before


def test_rows_count_by_loss_weight_wherever_auto_moves_them():
    balancer = new("auto", loss_weights=torch.tensor([1.0, 2.0, 1.0]))
    tell(balancer, lambda rows, step: 3 * (1 + rows / 30) ** -0.3, steps=200)
    draws = balancer.draws()
    rows = QUOTAS * draws
    expected = rows * torch.tensor([1.0, 2.0, 1.0])
    assert not torch.allclose(draws, ONES, rtol=0.1)
    assert torch.allclose(balancer.weights(), expected / expected.sum(), rtol=1e-5)


def test_quotas_change_only_every_so_many_steps():
    balancer = new("auto", every=7)
    changes = []
    for step, losses in enumerate(noisy_losses(50)):
        before = balancer.draws()
        balancer.update(losses)
        if not torch.equal(before, balancer.draws()):
            changes.append(step + 1)
    assert changes
    assert all(change % 7 == 0 for change in changes)


def test_progress_is_the_slope_over_log_rows():
    """Against numpy's straight line through y, on a loss whose y falls by 0.1 whenever rows grow e-fold."""
    balancer = new("auto", torch.tensor([10.0]))
    y = 1 - 0.1 * np.log(np.arange(1, 1001))
    for value in y:
        balancer.update(torch.tensor([np.expm1(value)]))
    slope = -np.polyfit(np.log(np.arange(1, 1001)), y, 1)[0]
    assert slope == pytest.approx(0.1)
    assert balancer._progress()[0].item() == pytest.approx(slope, rel=0.01)


def test_the_error_of_progress_is_what_it_says():
    """200 data sets of nothing but noise: their slopes scatter as much as the standard error says."""
    generator = torch.Generator().manual_seed(0)
    balancer = new("auto", torch.ones(200), every=1000)
    for _ in range(300):
        balancer.update(2.3 + 0.2 * torch.randn(200, generator=generator))
    fall, error = balancer._progress()
    assert (fall / error).std().item() == pytest.approx(1, abs=0.2)
    assert abs((fall / error).mean().item()) < 0.2


def test_bounded_keeps_the_sum_the_proportions_and_the_bounds():
    generator = torch.Generator().manual_seed(0)
    for _ in range(50):
        quotas, wanted = torch.rand(2, 5, generator=generator, dtype=torch.float64).mul(6).exp()
        result = bounded(wanted, quotas)
        assert (quotas * result).sum().item() == pytest.approx(quotas.sum().item())
        assert result.min() >= 0.25
        assert result.max() <= 4
        inside = (result > 0.25) & (result < 4)
        ratio = (result / wanted)[inside]
        assert ratio.numel() == 0 or ratio.max() == pytest.approx(ratio.min())
        assert (result[wanted / wanted.max() > 0.999] >= result.max() - 1e-9).all()
    assert bounded(torch.ones(1).double(), torch.ones(1).double()).tolist() == pytest.approx([1.0])
    assert bounded(torch.tensor([1.0, 1e9]).double(), torch.tensor([1.0, 1.0]).double()).tolist() == pytest.approx(
        [0.25, 1.75]
    )


# --- settings ---


def test_settings():
    assert Balance.model_validate("auto") == Balance.model_validate({"kind": "auto", "every": 20})
    with pytest.raises(ValidationError, match="temperature: is a setting of temperature; 'auto' does not look at it"):
        Balance(kind="auto", temperature=3)
    with pytest.raises(ValidationError, match="lr: is a setting of famo, gradnorm, uncertainty; 'fixed'"):
        Balance(lr=0.1)
    with pytest.raises(ValidationError, match="no balancer named 'shrae'"):
        Balance.model_validate("shrae")
    with pytest.raises(ValidationError, match="evry"):
        Balance.model_validate({"kind": "auto", "evry": 3})


def test_examples_in_docstrings_run():
    assert doctest.testmod(balance).failed == 0
