"""Do data sets pull the shared weights the same way? Cosines and norms of their gradients, from short sketches of them.

    loss of a data set -> gradient float32[P] -> sketch float32[WIDTH]; then float32[K, K] cosines, float32[K] norms

K data sets, P numbers in the shared parameters. Cosines below 0 are conflicts as in arXiv 2001.06782.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from monoglot.rng import stream

WIDTH = 1 << 16
"""Numbers a sketch has. Cosines err by a standard deviation of at most about sqrt(2 / WIDTH) = 0.0055, norms by half as much of their length."""


class Conflicts:
    """Gradients of K data sets by the same parameters, of which only sketches are kept: 256 KB for each data set.

    A sketch is linear: what several parts of a step add up to is the sketch of the step's gradient. The gradient is cut into pieces of WIDTH numbers,
    each is turned round by a random offset, given random signs, and all are added. Any two numbers of different pieces meet in one place with probability
    1 / WIDTH, so products are right on average and err as those of a count sketch (feature hashing, arXiv 0902.2206). Gradients of at most WIDTH
    numbers are kept as they are: then everything is exact.

    >>> w = torch.nn.Parameter(torch.ones(2))
    >>> conflicts = Conflicts([w], count=3)
    >>> conflicts.add(0, w[0] * 2)
    >>> conflicts.add(1, w[1] - w[0])
    >>> [round(norm, 3) for norm in conflicts.norms().tolist()], round(conflicts.cosines()[0, 1].item(), 3)
    ([2.0, 1.414, nan], -0.707)
    """

    def __init__(self, parameters: Sequence[Tensor], count: int, *, seed: int = 0):
        """parameters: what data sets share and is trained; gradnorm takes the last shared layer alone. count: K."""
        self.parameters = list(parameters)
        self._seed = seed
        self._signs = torch.from_numpy(
            stream(seed, "conflicts", "signs").choice([-1.0, 1.0], 2 * WIDTH).astype("float32")
        )
        total = sum(parameter.numel() for parameter in self.parameters)
        self.sketches = torch.zeros(count, min(total, WIDTH))
        self.seen = torch.zeros(count, dtype=torch.bool)
        self._exact = total <= WIDTH

    def add(self, source: int, loss: Tensor) -> None:
        """Add the gradient of a scalar loss to what is known of data set `source`. The graph is kept: other losses may share it.

        Needs room for one gradient more than the loss, whatever K.
        """
        gradients = torch.autograd.grad(loss, self.parameters, retain_graph=True, allow_unused=True)
        self.seen[source] = True
        start = 0
        for number, (parameter, gradient) in enumerate(zip(self.parameters, gradients)):
            if gradient is not None and self._exact:
                self.sketches[source, start : start + parameter.numel()] += gradient.flatten().float()
            elif gradient is not None:
                self._fold(self.sketches[source], gradient.flatten().float(), number)
            start += parameter.numel()

    def norms(self) -> Tensor:
        """float32[K]; nan for a data set that added nothing."""
        return torch.where(self.seen, self.sketches.norm(dim=1), torch.nan)

    def cosines(self) -> Tensor:
        """float32[K, K] in [-1, 1], 1 on the diagonal; nan for a data set that added nothing, or nothing but zeros."""
        directions = self.sketches / self.norms()[:, None]
        cosines = (directions @ directions.T).clamp(-1, 1)
        return torch.where(torch.eye(len(cosines), dtype=torch.bool) & cosines.isfinite(), 1.0, cosines)

    def _fold(self, sketch: Tensor, gradient: Tensor, number: int) -> None:
        """Add float32[n] to a sketch; the offsets and signs of parameter `number` are the same in every call."""
        rng = stream(self._seed, "conflicts", number)
        for piece in gradient.split(WIDTH):
            offset, start = rng.integers(WIDTH, size=2).tolist()
            piece = piece * self._signs[start : start + len(piece)]
            before_end = piece[: WIDTH - offset]
            sketch[offset : offset + len(before_end)] += before_end
            rest = piece[WIDTH - offset :]
            sketch[: len(rest)] += rest
