"""Attention and dropout that are computed otherwise on a processor, against the plain formulas."""

from __future__ import annotations

import pytest
import torch

from monoglot.model.layers import attend, dropout


def plain(q, keys, values, bias, causal, scale):
    scores = q @ keys.transpose(-1, -2) * scale
    if causal:
        scores = scores.masked_fill(torch.ones(scores.shape[-2:], dtype=torch.bool).triu(1), float("-inf"))
    return (scores if bias is None else scores + bias).softmax(-1) @ values


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize(("dtype", "most"), [(torch.float32, 1e-5), (torch.bfloat16, 0.02)])
def test_attention_and_its_way_back(causal, dtype, most):
    g = torch.Generator().manual_seed(0)
    given = [torch.randn(3, 2, 7, 16, generator=g).to(dtype).requires_grad_() for _ in range(3)]
    bias = None if causal else torch.randn(3, 1, 1, 7, generator=g).to(dtype)
    weight = torch.randn(3, 2, 7, 16, generator=g)
    exact = [x.detach().double().requires_grad_() for x in given]
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
        y = attend(*given, bias, causal=causal, scale=0.25)
    z = plain(*exact, None if bias is None else bias.double(), causal, 0.25)
    assert y.dtype == dtype
    (y.float() * weight).sum().backward()
    (z * weight.double()).sum().backward()
    for ours, theirs in [(y, z), *((a.grad, b.grad) for a, b in zip(given, exact))]:
        assert (ours.double() - theirs).norm() < most * theirs.norm()


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
def test_dropout_keeps_its_share_and_the_mean(rate):
    x = torch.ones(999, 1001, requires_grad=True)  # no multiple of four
    torch.manual_seed(0)
    y = dropout(x, rate, training=True)
    assert (y == 0).double().mean().item() == pytest.approx(rate, abs=0.002)  # four standard deviations
    assert y.detach()[y > 0].unique().tolist() == pytest.approx([1 / (1 - rate)])
    columns = (y == 0).double().mean(0)
    assert columns.std().item() == pytest.approx((rate * (1 - rate) / 999) ** 0.5, rel=0.1), "elements are independent"
    y.sum().backward()
    assert torch.equal(x.grad, y.detach())
    torch.manual_seed(0)
    assert torch.equal(dropout(x, rate, training=True), y)
    assert not torch.equal(dropout(x, rate, training=True), y)
    assert dropout(x, rate, training=False) is x or torch.equal(dropout(x, rate, training=False), x)
