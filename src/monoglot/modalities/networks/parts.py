"""What the published convolutional encoders are made of."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from monoglot.modalities.base import Encoder


class FrozenNorm(nn.Module):
    """BatchNorm by its running statistics, in training too, so that no item changes another's tokens.

    float[n, C, ...] of any rank; weight and bias learn, the statistics stay the checkpoint's. The published model trains
    so with its option `freeze-resnet`; without it, statistics follow the data, even those of frozen encoders. Behind a
    convolution it is run by `conv_norm`.
    """

    running_mean: Tensor
    running_var: Tensor
    eps = 1e-5

    def __init__(self, channels: int):
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(channels)), nn.Parameter(torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)


def conv_norm(x: Tensor, conv: nn.Conv2d | nn.Conv3d, norm: FrozenNorm | nn.BatchNorm2d | nn.Identity) -> Tensor:
    """`norm(conv(x))`, the norm by its running statistics; an Identity has been folded into the convolution (`fold_norm`).

    So it is a factor and a shift, which the convolution takes in: a pass less over the maps, and none of them kept for
    the backward pass. Weights, factors and shifts learn as if they stood apart.
    """
    weight, shift = (conv.weight, conv.bias) if isinstance(norm, nn.Identity) else _with_norm(conv, norm)
    stride = conv.stride
    if set(conv.kernel_size) == {1} and max(stride) > 1:  # oneDNN's gradients are wrong, in bfloat16 NaN (docs/log.md)
        every = (slice(None), slice(None), *(slice(None, None, step) for step in stride))
        x, stride = x[every], (1,) * len(stride)
    run = F.conv3d if x.dim() == 5 else F.conv2d
    return run(x.to(weight.dtype), weight, shift, stride, conv.padding, conv.dilation, conv.groups)


def _with_norm(conv: nn.Conv2d | nn.Conv3d, norm: FrozenNorm | nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Weight and bias of the convolution that has taken in its norm."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    factor = norm.weight * (norm.running_var + norm.eps).rsqrt()
    return conv.weight * factor.view(-1, *[1] * (conv.weight.dim() - 1)), norm.bias - norm.running_mean * factor


@torch.no_grad()
def fold_norm(conv: nn.Conv2d | nn.Conv3d, norm: FrozenNorm | nn.BatchNorm2d) -> None:
    """From now on the convolution does what both did, with tensors of its own, in the order of `channels_last`."""
    weight, shift = _with_norm(conv, norm)
    conv.weight = nn.Parameter(channels_last(weight), requires_grad=False)
    conv.bias = nn.Parameter(shift, requires_grad=False)


class Bottleneck(nn.Module):
    """Narrow 1x1, look around 3x3 (in groups, with the stride), widen 1x1; added to its input, or to a projection of it.

    Source: ResNet (arXiv 1512.03385) with the stride in the 3x3 ("v1.5"); ResNeXt (arXiv 1611.05431) for groups.
    """

    def __init__(
        self,
        conv: type[nn.Conv2d] | type[nn.Conv3d],
        before: int,
        middle: int,
        after: int,
        stride: int = 1,
        groups: int = 1,
    ):
        super().__init__()
        self.conv1, self.bn1 = conv(before, middle, 1, bias=False), FrozenNorm(middle)
        self.conv2 = conv(middle, middle, 3, stride=stride, padding=1, groups=groups, bias=False)
        self.bn2 = FrozenNorm(middle)
        self.conv3, self.bn3 = conv(middle, after, 1, bias=False), FrozenNorm(after)
        self.downsample: nn.Sequential | None = None
        if stride != 1 or before != after:
            self.downsample = nn.Sequential(conv(before, after, 1, stride=stride, bias=False), FrozenNorm(after))

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(conv_norm(x, self.conv1, self.bn1), inplace=True)
        y = F.relu(conv_norm(y, self.conv2, self.bn2), inplace=True)
        y = conv_norm(y, self.conv3, self.bn3)
        y += x if self.downsample is None else conv_norm(x, *self.downsample)
        return F.relu(y, inplace=True)


def stages(
    conv: type[nn.Conv2d] | type[nn.Conv3d], blocks: tuple[int, ...], *, width: int, expansion: int, groups: int = 1
) -> list[nn.Sequential]:
    """Stages of bottlenecks on 64 channels, `blocks[i]` of width `width` * 2^i each; all but the first halve their input."""
    built, before = [], 64
    for index, count in enumerate(blocks):
        middle, stage = width * 2**index, nn.Sequential()
        for block in range(count):
            stride = 2 if index and not block else 1
            stage.append(Bottleneck(conv, before, middle, middle * expansion, stride, groups))
            before = middle * expansion
        built.append(stage)
    return built


def start(encoder: Encoder) -> None:
    """Weights of a fresh encoder: He et al. (arXiv 1502.01852) for convolutions, and quiet branches.

    Norms that don't adapt can't hold back what thirty branches add up to, so the last norm of each starts at a fifth.
    """
    for module in encoder.modules():
        if isinstance(module, (nn.Conv2d, nn.Conv3d)):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
        elif isinstance(module, Bottleneck):
            nn.init.constant_(module.bn3.weight, 0.2)


def normalised(pixels: Tensor, dtype: torch.dtype) -> Tensor:
    """0..255 -> -1..1: the published models' mean 0.5 and deviation 0.5 of each colour."""
    return (pixels.to(dtype) / 255 - 0.5) / 0.5


def channels_last(x: Tensor) -> Tensor:
    """The same maps, with the channels of a place side by side in memory: convolutions need not sort them first."""
    return x.contiguous(memory_format=torch.channels_last_3d if x.dim() == 5 else torch.channels_last)
