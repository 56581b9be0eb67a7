"""What every balancer must keep to."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from monoglot.errors import InputError
from monoglot.train.balance import BALANCERS

sets = st.lists(st.tuples(st.integers(1, 99), st.floats(0.01, 100), st.floats(0, 50)), min_size=1, max_size=6)


@pytest.mark.parametrize("name", BALANCERS)
@given(sets=sets)
def test_weights(name, sets):
    quotas, weights, losses = zip(*sets)
    balancer = BALANCERS[name](list(quotas), list(weights))
    for _ in range(3):
        given_losses = torch.tensor(losses, requires_grad=True)
        result = balancer.weights(given_losses)
        assert result.shape == (len(sets),)
        assert not result.requires_grad
        assert torch.isfinite(result).all()
        assert (result > 0).all()
        assert result.sum().item() == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("name", BALANCERS)
def test_a_heavier_set_counts_more(name):
    light, heavy = (BALANCERS[name]([4, 4], [weight, 1.0]).weights(torch.ones(2)) for weight in (1.0, 3.0))
    assert heavy[0] > light[0]
    assert light.tolist() == pytest.approx([0.5, 0.5])


def test_share_and_equal():
    quotas, weights = [2, 6, 2], [1.0, 1.0, 2.0]
    assert BALANCERS["share"](quotas, weights).weights(torch.ones(3)).tolist() == pytest.approx([1 / 6, 1 / 2, 1 / 3])
    assert BALANCERS["equal"](quotas, weights).weights(torch.ones(3)).tolist() == pytest.approx([0.25, 0.25, 0.5])


def test_a_wrong_name():
    with pytest.raises(InputError, match="no balancer named 'eqaul'; closest: 'equal'"):
        BALANCERS["eqaul"]
