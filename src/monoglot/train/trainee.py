"""What a step runs, in one forward: rows -> losses of their target tokens.

    Part -> features (kept, or encoded now) -> Memory -> states of target tokens -> logits -> Objective -> losses

Letters: K data sets, N target tokens of a part, R answers.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from monoglot.data.collate import Batch
from monoglot.data.features import FeatureCache
from monoglot.model.unified import Memory, UnifiedModel
from monoglot.train.losses import Objective, cross_entropy, log_probabilities
from monoglot.train.steps import Part
from monoglot.train.words import ActiveWords


class Trainee(nn.Module):
    """A model and its objective.

    Args:
        words: the words that are trained in place of the whole embedding; None to project on all.
        cache: features of frozen encoders; None when encoders learn.
        in_bfloat16: matrix products are computed in it.
    """

    def __init__(
        self,
        model: UnifiedModel,
        objective: Objective,
        *,
        words: ActiveWords | None = None,
        cache: FeatureCache | None = None,
        in_bfloat16: bool = False,
    ):
        super().__init__()
        self.model, self.words = model, words
        self.objective, self.cache, self.in_bfloat16 = objective, cache, in_bfloat16

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
        return self.objective(logits, target, groups, weights, part.allowed, step=step).cpu()

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return self.model.words.weight.device

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


def features(model: UnifiedModel, batch: Batch, cache: FeatureCache | None) -> dict[str, list[Tensor]]:
    """Encode what is not kept yet; keep it. Frozen features are rounded as the cache rounds them, so a resumed run sees the same."""
    if cache is None:
        return model.encode_media(batch.media)
    for media in batch.media.values():
        for index, key in media.keys.items():
            # Kept since the batch was read ahead.
            if index not in media.encoded and (kept := cache.get(key)) is not None:
                media.items[index] = torch.from_numpy(kept[0].astype(np.float32)).to(batch.source_ids.device)
                media.encoded.add(index)
    with torch.no_grad(), torch.autocast(batch.source_ids.device.type, enabled=False):
        found = model.encode_media(batch.media)
    for name, media in batch.media.items():
        for index, key in media.keys.items():
            if index not in media.encoded:
                rounded = found[name][index].to(torch.float16)
                cache.put(key, rounded.cpu().numpy(), media.grids[index])
                found[name][index] = rounded.float()
    return found
