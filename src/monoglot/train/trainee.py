"""What a step runs, in one forward: rows -> losses of their target tokens.

    Part -> features (kept, or encoded now) -> Memory -> states of target tokens -> logits -> Objective -> losses

Letters: K data sets, N target tokens of a part, R answers.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from monoglot.data.collate import Batch
from monoglot.data.features import FeatureCache
from monoglot.model.features import features
from monoglot.model.unified import Memory, UnifiedModel
from monoglot.train.distributed import World
from monoglot.train.losses import Objective, cross_entropy, log_probabilities
from monoglot.train.steps import Part
from monoglot.train.words import ActiveWords


class Trainee(nn.Module):
    """A model and its objective.

    Args:
        words: the words that are trained in place of the whole embedding; None to project on all.
        cache: features of frozen encoders; None when encoders learn.
        in_bfloat16: matrix products are computed in it.
        beside_others: other processes train the same weights.
    """

    def __init__(
        self,
        model: UnifiedModel,
        objective: Objective,
        *,
        words: ActiveWords | None = None,
        cache: FeatureCache | None = None,
        in_bfloat16: bool = False,
        beside_others: bool = False,
    ):
        super().__init__()
        self.model, self.words = model, words
        self.objective, self.cache, self.in_bfloat16 = objective, cache, in_bfloat16
        self._used: set[str] | None = set() if beside_others else None

    def forward(self, part: Part, step: int | None) -> Tensor:
        """float32[N]: the loss of each target token in nats, as the recipe has it; plain cross entropy if `step` is None.

        The part may lie anywhere; losses come back to the processor.
        """
        part = part.to(self.device)
        batch = part.batch
        valid = batch.target_valid
        with self.autocast():
            memory = self.encode(batch)
            if part.copies is not None:
                memory = memory.select(part.copies)
            states = self.model.decode(batch.target_in, memory, code_rows=batch.code_rows)[valid]
            use_words = self.words is not None and step is not None
            logits = self.words(states, self.model.words.weight) if use_words else self.model.logits(states)  # type: ignore[misc]
        target = batch.target_out[valid]
        if step is None:
            return cross_entropy(log_probabilities(logits, part.allowed), target, allowed=part.allowed).cpu()
        if self.words is not None:
            target = self.words.columns(target)
        groups, weights = part.each_token(part.sources), part.each_token(part.weights)
        losses = self.objective(logits, target, groups, weights, part.allowed, step=step).cpu()
        return losses if self._used is None else self._with_all(losses, self._used)

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return self.model.words.weight.device

    def _with_all(self, losses: Tensor, used: set[str]) -> Tensor:
        """The same losses, which depend on every parameter now, if only by nothing; `used` takes in those that they did depend on.

        Processes add up the gradients of the same weights, though one may see a picture in a step and another none.
        """
        needed = _leaves(losses)
        for name, parameter in self.named_parameters():
            if not parameter.requires_grad:
                continue
            # A layer's weights are given back when it is done, and stand here as shares; no row goes past a layer.
            if isinstance(parameter, DTensor) or parameter in needed:
                used.add(name)
            else:
                losses = losses + 0 * parameter.sum().cpu()
        return losses

    def drop_unused(self, world: World) -> None:
        """No gradient, in place of zeros, for what no process needed in this step: as one process has it."""
        if self._used is None:
            return
        trained = {name: parameter for name, parameter in self.named_parameters() if parameter.requires_grad}
        used = world.sum(torch.tensor([float(name in self._used) for name in trained]))
        for parameter, times in zip(trained.values(), used.tolist()):
            if not times:
                parameter.grad = None
        self._used.clear()

    def autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.in_bfloat16)

    def encode(self, batch: Batch) -> Memory:
        """Memory of a batch, its features from the cache where they are kept."""
        batch = batch.to(self.device)
        return self.model.encode(batch, features(self.model, batch, self.cache))

    def train(self, mode: bool = True) -> Trainee:
        """Frozen encoders stay as they are in use: they say the same each time, no dropout, nothing hidden."""
        super().train(mode)
        for encoder in self.model.encoders.values():
            encoder.train(mode and any(parameter.requires_grad for parameter in encoder.parameters()))
        return self


def _leaves(losses: Tensor) -> set[Tensor]:
    """The parameters that losses depend on."""
    found: set[Tensor] = set()
    seen, left = set(), [losses.grad_fn]
    while left:
        node = left.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if (variable := getattr(node, "variable", None)) is not None:
            found.add(variable)
        left += [before for before, _ in node.next_functions]
    return found
