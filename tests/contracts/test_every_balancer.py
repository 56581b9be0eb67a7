"""What every balancer must keep to."""

from __future__ import annotations

import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from monoglot.errors import InputError
from monoglot.train.balance import BALANCERS, FEWEST, MOST, Balance

QUOTAS = torch.tensor([40.0, 16.0, 6.0, 1.5, 0.5])
pytestmark = pytest.mark.parametrize("name", BALANCERS)

sets = st.lists(
    st.tuples(st.floats(0.05, 99), st.floats(0.01, 100), st.one_of(st.floats(0, 50), st.just(float("nan")))),
    min_size=1,
    max_size=6,
)


def new(name: str, quotas: Tensor = QUOTAS, loss_weights: Tensor | None = None):
    """With the quickest changes that `auto` can be set to, so that few steps show them."""
    every = {"every": 2} if name == "auto" else {}
    weights = torch.ones_like(quotas) if loss_weights is None else loss_weights
    return BALANCERS[name](quotas, weights, Balance(kind=name, **every))


def story(steps: int, count: int, seed: int = 0) -> list[tuple[Tensor, Tensor]]:
    """Noisy losses float32[count] that fall at different speeds, a third of them missing, and gradient norms."""
    generator = torch.Generator().manual_seed(seed)
    told = []
    for step in range(steps):
        losses = 3 * (1 + step / 5) ** -torch.linspace(0.05, 0.9, count)
        losses = losses * (0.3 * torch.randn(count, generator=generator)).exp()
        losses[torch.rand(count, generator=generator) < 1 / 3] = torch.nan
        told.append((losses, losses * torch.linspace(2, 0.5, count)))
    return told


def check(balancer, quotas: Tensor) -> None:
    weights, draws = balancer.weights(), balancer.draws()
    assert weights.shape == quotas.shape
    assert weights.dtype == torch.float32
    assert not weights.requires_grad
    assert torch.isfinite(weights).all()
    assert (weights > 0).all()
    assert weights.sum().item() == pytest.approx(1, abs=1e-5)
    if draws is not None:
        assert draws.shape == quotas.shape
        assert draws.dtype == torch.float32
        assert (draws >= FEWEST).all()
        assert (draws <= MOST).all()
        assert (quotas * draws).sum().item() == pytest.approx(quotas.sum().item(), rel=1e-4)


@given(sets=sets)
@settings(deadline=None, max_examples=30)
def test_weights_and_draws(name, sets):
    quotas, weights, losses = map(torch.tensor, zip(*sets))
    balancer = new(name, quotas, weights)
    check(balancer, quotas)
    for _ in range(6):
        given_losses = losses.clone().requires_grad_()
        balancer.update(given_losses, given_losses * 2)
        check(balancer, quotas)


@pytest.mark.parametrize("odd", [torch.nan, torch.inf, -torch.inf])
def test_losses_that_are_no_numbers_are_as_if_there_were_no_rows(name, odd):
    one, other = new(name), new(name)
    for losses, norms in story(40, len(QUOTAS)):
        one.update(losses, norms)
        other.update(losses.nan_to_num(nan=odd), norms.nan_to_num(nan=odd))
    none = torch.full_like(QUOTAS, torch.nan)
    one.update(none, none)
    check(one, QUOTAS)
    one, other = new(name), new(name)
    one.update(none, none)  # no data set has been seen yet
    check(one, QUOTAS)


@pytest.mark.parametrize("level", [0.0, 1e-9, 1e6])
def test_losses_of_any_size(name, level):
    balancer = new(name)
    for step in range(60):
        losses = torch.full_like(QUOTAS, level)
        losses[step % 5] = 5.0
        balancer.update(losses, losses)
        check(balancer, QUOTAS)


def test_a_heavier_set_counts_more(name):
    quotas = torch.tensor([4.0, 4.0])
    light, heavy = (new(name, quotas, torch.tensor([weight, 1.0])).weights() for weight in (1.0, 3.0))
    assert heavy[0] > light[0]
    assert light.tolist() == pytest.approx([0.5, 0.5])


def test_one_set_is_everything(name):
    balancer = new(name, torch.tensor([7.0]))
    for losses, norms in story(30, 1):
        balancer.update(losses, norms)
    assert balancer.weights().tolist() == [1.0]
    assert balancer.draws() is None or balancer.draws().tolist() == pytest.approx([1.0])


def test_a_set_that_rests_takes_nothing_from_the_others(name):
    quotas, others = torch.tensor([6.0, 0.0, 2.0]), [0, 2]
    resting, without = new(name, quotas), new(name, quotas[others])
    for losses, norms in story(40, 2):
        without.update(losses, norms)
        absent = torch.tensor([torch.nan])
        resting.update(*(torch.cat([told[:1], absent, told[1:]]) for told in (losses, norms)))
    among_others = resting.weights()[others] / resting.weights()[others].sum()
    assert torch.allclose(among_others, without.weights(), rtol=0.02)
    if resting.draws() is not None:
        assert torch.allclose(resting.draws()[others], without.draws(), rtol=1e-3)


def test_the_order_of_sets_does_not_matter(name):
    order = torch.tensor([3, 0, 4, 1, 2])
    one, other = new(name), new(name, QUOTAS[order])
    for losses, norms in story(100, len(QUOTAS)):
        one.update(losses, norms)
        other.update(losses[order], norms[order])
    assert torch.allclose(one.weights()[order], other.weights(), rtol=1e-4)
    if one.draws() is not None:
        assert torch.allclose(one.draws()[order], other.draws(), rtol=1e-4)


def test_sets_that_behave_the_same_get_the_same(name):
    balancer = new(name, torch.tensor([8.0, 8.0, 8.0]))
    for losses, norms in story(100, 1):
        balancer.update(losses.expand(3), norms.expand(3))
    assert balancer.weights().tolist() == pytest.approx([1 / 3] * 3, rel=1e-5)
    assert balancer.draws() is None or balancer.draws().tolist() == pytest.approx([1.0] * 3, rel=1e-5)


def test_a_kept_state_goes_on_bit_by_bit(name):
    told = story(60, len(QUOTAS))
    whole = new(name)
    for stop in (0, 1, 33):
        begun = new(name)
        for losses, norms in told[:stop]:
            begun.update(losses, norms)
        resumed = new(name)
        resumed.load_state(json.loads(json.dumps(begun.state(), allow_nan=False)))
        for losses, norms in told[stop:]:
            resumed.update(losses, norms)
        whole = new(name)
        for losses, norms in told:
            whole.update(losses, norms)
        assert torch.equal(resumed.weights(), whole.weights())
        assert resumed.state() == whole.state()
        if whole.draws() is not None:
            assert torch.equal(resumed.draws(), whole.draws())


def test_a_state_of_something_else_is_refused(name):
    with pytest.raises(ValueError, match="state"):
        new(name).load_state({"moons": [1.0]})
    if new(name).state():
        with pytest.raises(ValueError, match="state"):
            new(name).load_state(new(name, QUOTAS[:3]).state())


def test_a_recipe_can_say_it(name):
    assert Balance.model_validate(name) == Balance(kind=name)
    with pytest.raises(InputError, match=f"no balancer named '{name}s'; closest: '{name}'"):
        BALANCERS[name + "s"]
