"""Training the words that occur, without the cost of those that don't.

The vocabulary has 51 thousand rows, a mixture's answers use a few thousand. Each step projects on the rows that occur in some answer and on a random
handful of the others, whose share of the softmax is scaled up to stand for all of them (sampled softmax, arXiv 1412.2007). The rows that occur are
trained by what the projection tells them; the embedding follows after each step.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from monoglot.rng import stream
from monoglot.train.distributed import whole


class ActiveWords(nn.Module):
    """The rows that are projected on, and trained.

    Args:
        words: float[V, D], the embedding whose rows they are.
        ids: every id that occurs in a target.
        others: how many of the other rows stand for the rest in each step; 0 leaves the rest out.
    """

    ids: Tensor
    _rest: Tensor
    _place: Tensor
    _drawn: Tensor

    def __init__(self, words: Tensor, ids: Iterable[int], *, others: int, seed: int):
        super().__init__()
        known = torch.tensor(sorted(set(ids)))
        is_known = torch.zeros(len(words), dtype=torch.bool)
        is_known[known] = True
        rest, place = (~is_known).nonzero()[:, 0], torch.full((len(words),), -1)
        place[known] = torch.arange(len(known))
        self.table = nn.Parameter(words.detach()[known].clone())
        for name, ids_of in (("ids", known), ("_rest", rest), ("_place", place), ("_drawn", rest[:0])):
            self.register_buffer(name, ids_of, persistent=False)  # they follow the table wherever it goes
        self.seed, self._others = seed, min(others, len(rest))

    def draw(self, step: int) -> None:
        """Choose the rows that stand for the rest in this step."""
        chosen = stream(self.seed, "words", step).choice(len(self._rest), self._others, replace=False)
        self._drawn = self._rest[torch.from_numpy(chosen).to(self._rest.device)]

    def forward(self, states: Tensor, words: Tensor) -> Tensor:
        """Logits: float[N, D] -> float[N, A + others]; a target's column is given by `columns`."""
        active = F.linear(states, self.table)
        if not len(self._drawn):
            return active
        rest = F.linear(states, words[self._drawn]) + math.log(len(self._rest) / len(self._drawn))
        return torch.cat([active, rest], dim=-1)

    def columns(self, target: Tensor) -> Tensor:
        """Where ids int64[N] stand among the logits."""
        return self._place[target]

    @torch.no_grad()
    def write_to(self, words: Tensor) -> None:
        """The embedding takes over what the table has learned."""
        if not isinstance(words, DTensor):
            words[self.ids] = self.table
            return
        table, share = whole(self.table), words.to_local()
        mesh = words.device_mesh
        first = mesh.get_local_rank() * -(-len(words) // mesh.size())  # rows are shared out as by torch.chunk
        here = (self.ids >= first) & (self.ids < first + len(share))
        share[self.ids[here] - first] = table[here]
