"""placeholder until the branch lands"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Meter:
    def __init__(self, model: nn.Module, count: int, *, whole: bool, seed: int):
        self.parameters = [p for n, p in model.named_parameters() if p.requires_grad and "decoder_layers" in n]
        self.g = torch.zeros(count, sum(p.numel() for p in self.parameters))

    def add(self, means: Tensor) -> None:
        for k, mean in enumerate(means):
            if float(mean.detach()) != 0:
                gs = torch.autograd.grad(mean, self.parameters, retain_graph=True, allow_unused=True)
                self.g[k] += torch.cat(
                    [torch.zeros(p.numel()) if g is None else g.flatten() for p, g in zip(self.parameters, gs)]
                )

    def norms(self, world) -> Tensor:
        g = world.sum(self.g)
        return torch.where((g != 0).any(1), g.norm(dim=1), torch.nan)

    def cosines(self, world) -> list[list[float]]:
        g = torch.nn.functional.normalize(world.sum(self.g), dim=1)
        return (g @ g.T).tolist()
