"""3D ResNeXt on clips: uint8[n, F, 3, S, S] -> maps float[n, 2048, F/16, S/32, S/32] -> tokens, frame by frame, row by row.

Source: section 14.2 of the published model's arithmetic; the network and its Kinetics weights are Hara et al.'s (arXiv
1711.09577).
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from monoglot.modalities.base import Encoder, run_by_shape
from monoglot.modalities.networks.parts import FrozenNorm, channels_last, conv_norm, normalised, stages, start
from monoglot.modalities.networks.resnet import BLOCKS

FRAMES = 16
"""Frames a token stands for: the pooling and three of the stages halve time as they halve rows and columns."""


class ResNeXt3D(Encoder):
    """3D ResNeXt, 32 groups, without its classifier; parameters as behind `encoder.embed_videos.`."""

    def __init__(self, blocks: tuple[int, ...] = BLOCKS[101]):
        super().__init__()
        self.conv1 = nn.Conv3d(3, 64, 7, stride=(1, 2, 2), padding=3, bias=False)
        self.bn1 = FrozenNorm(64)
        self._stages = [f"layer{index + 1}" for index in range(len(blocks))]
        for name, stage in zip(self._stages, stages(nn.Conv3d, blocks, width=128, expansion=2, groups=32)):
            self.add_module(name, stage)
        self.channels = 256 * 2 ** (len(blocks) - 1)
        start(self)

    def maps(self, x: Tensor) -> Tensor:
        """Normalised pixels float[n, 3, F, H, W] -> float[n, C, F', H', W'], every stride rounded up."""
        x = F.relu(conv_norm(channels_last(x), self.conv1, self.bn1), inplace=True)
        x = F.max_pool3d(x, 3, stride=2, padding=1)
        for name in self._stages:
            x = getattr(self, name)(x)
        return x

    def forward(self, items: list[Tensor]) -> list[Tensor]:
        return run_by_shape(self._run, items)

    def _run(self, clips: Tensor) -> Tensor:
        pixels = normalised(clips, self.conv1.weight.dtype).transpose(1, 2)
        return self.maps(pixels).flatten(2).transpose(1, 2)
