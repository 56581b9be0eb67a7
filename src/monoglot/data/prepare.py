"""From a sample to a sequence: pose it as its task does, read its media, lay it out.

Sample -> TASKS[task].pose -> Posed -> prepare each Media -> assemble -> Example
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol

from monoglot.data.assemble import assemble
from monoglot.data.collate import Batch, collate
from monoglot.errors import InputError
from monoglot.modalities import MODALITIES
from monoglot.modalities.base import Grid
from monoglot.nouns import Media, Posed, Sample, Sequence
from monoglot.tasks import TASKS
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


class Preparer:
    """Turns samples into examples for one model's settings; no network is touched, so data workers can do it."""

    def __init__(self, tokenizer: Tokenizer, settings: Settings):
        self.tokenizer, self.settings = tokenizer, settings

    def example(self, sample: Sample, *, variant: int = 0, with_target: bool = True) -> Example:
        """Raises InputError for a row that its task cannot pose, MediaError for media that cannot be read."""
        posed = TASKS[sample.task].pose(self._named(sample))
        if not with_target:
            posed = Posed(posed.prompt, "", posed.choices, posed.boxes)
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

    def _named(self, sample: Sample) -> Sample:
        """The sample with its media called what the settings call them."""
        called = {name: getattr(settings, "called", "") for name, settings in self.settings.modalities.items()}
        if not any(called.values()):
            return sample
        media = (replace(item, called=called.get(item.modality, "")) for item in sample.media)
        return replace(sample, media=tuple(media))

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
        return item, modality.grid(item, settings)

    def collate(self, examples: list[Example]) -> Batch:
        """One padded batch of examples of any tasks and media."""
        return collate(
            [example.sequence for example in examples],
            [list(example.grids) for example in examples],
            self.settings.start,
        )
