"""A convolution that takes in its norm, against torch's two layers one after the other."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from monoglot.modalities.networks.parts import channels_last, conv_norm

CLOSE = {"atol": 1e-5, "rtol": 1e-4}


def layers(conv: nn.Conv2d | nn.Conv3d) -> tuple[nn.Module, nn.Module]:
    """The convolution and its BatchNorm, with statistics and weights that all show."""
    norm = (nn.BatchNorm3d if isinstance(conv, nn.Conv3d) else nn.BatchNorm2d)(conv.out_channels, eps=1e-3).eval()
    with torch.no_grad():
        for tensor in (norm.weight, norm.bias, norm.running_mean):
            tensor.normal_()
        norm.running_var.uniform_(0.5, 2)
    return conv, norm


@pytest.mark.parametrize(
    ("conv", "shape"),
    [
        (nn.Conv2d(8, 12, 3, stride=2, padding=1, bias=False), (2, 8, 9, 7)),
        (nn.Conv2d(8, 12, 1, bias=False), (2, 8, 6, 5)),
        (nn.Conv2d(8, 12, 1, stride=2, bias=False), (2, 8, 7, 6)),
        (nn.Conv2d(8, 8, 3, padding=1, groups=8, bias=False), (1, 8, 5, 5)),
        (nn.Conv3d(8, 12, 3, stride=2, padding=1, groups=4, bias=False), (2, 8, 5, 6, 7)),
        (nn.Conv3d(8, 12, 1, stride=2, bias=False), (2, 8, 3, 6, 5)),
        (nn.Conv3d(8, 12, 3, stride=(1, 2, 2), padding=1, bias=False), (1, 8, 1, 4, 4)),
    ],
)
def test_both_layers_in_one_pass(conv, shape):
    torch.manual_seed(0)
    conv, norm = layers(conv)
    x = torch.randn(shape, requires_grad=True)
    learning = [x, conv.weight, norm.weight, norm.bias]
    expected = norm(conv(x))
    change = torch.randn_like(expected)
    for layout in (lambda x: x, channels_last):
        found = conv_norm(layout(x), conv, norm)
        torch.testing.assert_close(found, expected, **CLOSE)
        for one, other in zip(
            torch.autograd.grad(found, learning, change),
            torch.autograd.grad(expected, learning, change, retain_graph=True),
        ):
            torch.testing.assert_close(one, other, **CLOSE)


@pytest.mark.parametrize(("kind", "shape"), [(nn.Conv2d, (2, 256, 56, 56)), (nn.Conv3d, (1, 256, 2, 56, 56))])
def test_gradients_in_bfloat16_are_numbers(kind, shape):
    """oneDNN 3.12 gave NaN for strided 1x1x1 convolutions of clips on a processor with AMX (docs/log.md)."""
    torch.manual_seed(0)
    conv, norm = layers(kind(256, 512, 1, stride=2, bias=False))
    x = torch.randn(shape)
    gradients = []
    for enabled in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            y = conv_norm(channels_last(x), conv, norm)
        gradients.append(torch.autograd.grad(y.float().square().mean(), conv.weight)[0])
    exact, rounded = gradients
    assert torch.isfinite(rounded).all()
    assert (rounded - exact).abs().max() < 0.02 * exact.abs().max()
