"""From a sample to a sequence: pose it as its task does, read its media, lay it out.

Sample -> pose, in the model's wording -> Posed -> prepare each Media -> assemble -> Example
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np

from monoglot.data.assemble import assemble
from monoglot.data.collate import Batch, collate
from monoglot.errors import InputError
from monoglot.modalities import MODALITIES
from monoglot.modalities.base import Grid
from monoglot.nouns import Box, Media, Posed, Sample, Sequence
from monoglot.tasks.wording import Wording, pose
from monoglot.text.codes import text_to_codes
from monoglot.text.tokenizer import Tokenizer


@dataclass(frozen=True)
class Example:
    """A sample, laid out and ready to be collated."""

    sample: Sample
    posed: Posed
    sequence: Sequence
    grids: tuple[Grid, ...]


class Settings(Protocol):
    """What of a model's configuration its data depends on."""

    @property
    def modalities(self) -> Mapping[str, Any]: ...
    @property
    def source_positions(self) -> int: ...
    @property
    def target_positions(self) -> int: ...
    @property
    def start(self) -> tuple[int, ...]: ...
    @property
    def code_grid(self) -> int: ...
    @property
    def wording(self) -> Wording: ...


class Preparer:
    """Turns samples into examples for one model's settings; no network is touched, so data workers can do it."""

    def __init__(self, tokenizer: Tokenizer, settings: Settings):
        self.tokenizer, self.settings = tokenizer, settings

    def example(self, sample: Sample, *, variant: int = 0, with_target: bool = True) -> Example:
        """Raises InputError for a row that its task cannot pose, MediaError for media that cannot be read."""
        posed = pose(sample, self.settings.wording, variant=variant)
        if not with_target:
            posed = replace(posed, target="")
        if posed.writes == "codes":
            self._check_codes(posed, sample)
        items, grids = [], []
        for media in posed.prompt:
            if isinstance(media, Media):
                item, grid = self.read(media, variant, sample)
                items.append(item)
                grids.append(grid)
        sequence = assemble(
            posed,
            items,
            grids,
            self.tokenizer,
            source_positions=self.settings.source_positions,
            target_positions=self.settings.target_positions,
            weight=sample.weight,
        )
        return Example(sample, posed, sequence, tuple(grids))

    def read(self, media: Media, variant: int, sample: Sample) -> tuple[Any, Grid]:
        """One media item, prepared, and the room it takes."""
        settings = self.settings.modalities.get(media.modality)
        if settings is None:
            known = ", ".join(self.settings.modalities) or "none"
            raise InputError.at(
                sample.where or f"sample {sample.id}",
                media.modality,
                "this model does not read it",
                f"it reads: {known}",
            )
        modality = MODALITIES[media.modality]
        item = modality.prepare(media, settings, variant)
        if media.hidden is not None:
            item = _without(item, media.hidden)
        return item, modality.grid(item, settings)

    def _check_codes(self, posed: Posed, sample: Sample) -> None:
        """Raises InputError unless the model writes codes, and the target fills its grid with codes that it has."""
        count, side = self.tokenizer.vocabulary.num_codes, self.settings.code_grid
        where = sample.where or f"sample {sample.id}"
        if not count:
            wrong = f"task {sample.task!r} needs a model that writes image codes"
            raise InputError.at(where, "task", wrong, "this model's vocabulary has none")
        codes = text_to_codes(str(posed.target))
        if posed.target and len(codes) != side**2:
            wrong = f"has {len(codes)} image codes, but the model writes {side} x {side}"
            raise InputError.at(where, "target", wrong, f"give {side**2} numbers, row by row")
        if codes and max(codes) >= count:
            raise InputError.at(where, "target", f"code {max(codes)} is not in a codebook of {count}")

    def collate(self, examples: list[Example]) -> Batch:
        """One padded batch of examples of any tasks and media."""
        return collate(
            [example.sequence for example in examples],
            [list(example.grids) for example in examples],
            self.settings.start,
        )


def _without(item: np.ndarray, hidden: Box) -> np.ndarray:
    """uint8[..., H, W] with grey in place of one part of it: 0 once a picture is normalised."""
    height, width = item.shape[-2:]
    x0, y0, x1, y1 = hidden
    item = item.copy()
    item[..., round(y0 * height) : round(y1 * height), round(x0 * width) : round(x1 * width)] = 127
    return item
