"""ResNet on pictures: uint8[n, 3, S, S] -> maps float[n, C, S/32, S/32] -> tokens float[n, (S/32)^2, C], row by row.

Source: section 14.1 of the published model's arithmetic.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from monoglot.modalities.base import Encoder, run_by_shape
from monoglot.modalities.networks.parts import FrozenNorm, channels_last, conv_norm, normalised, stages, start

BLOCKS = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}
"""Bottlenecks of each stage, by the network's depth: table 1 of arXiv 1512.03385."""


class ResNet(Encoder):
    """ResNet without its classifier. Its parameters are named as in a checkpoint behind `encoder.embed_images.`.

    Args:
        blocks: bottlenecks of each stage. Four stages are timm's network, as UnIVAL has it: stride 32, 2048 channels;
            the first three are OFA's: stride 16, 1024 channels.
    """

    def __init__(self, blocks: tuple[int, ...] = BLOCKS[101]):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 64, 7, stride=2, padding=3, bias=False), FrozenNorm(64)
        self._stages = [f"layer{index + 1}" for index in range(len(blocks))]
        for name, stage in zip(self._stages, stages(nn.Conv2d, blocks, width=64, expansion=4)):
            self.add_module(name, stage)
        self.channels = 256 * 2 ** (len(blocks) - 1)
        start(self)

    def maps(self, x: Tensor) -> Tensor:
        """Normalised pixels float[n, 3, H, W] -> float[n, C, H', W'], every stride rounded up."""
        x = F.relu(conv_norm(channels_last(x), self.conv1, self.bn1), inplace=True)
        x = F.max_pool2d(x, 3, stride=2, padding=1)
        for name in self._stages:
            x = getattr(self, name)(x)
        return x

    def forward(self, items: list[Tensor]) -> list[Tensor]:
        return run_by_shape(self._run, items)

    def _run(self, pixels: Tensor) -> Tensor:
        return self.maps(normalised(pixels, self.conv1.weight.dtype)).flatten(2).transpose(1, 2)
