"""A look at held-out rows while training: their loss, and what the model answers to a few of them.

HeldOut -> rows spread over the file -> Examples -> loss a token;  first rows -> Predictor -> samples for the report
"""

from __future__ import annotations

from typing import Any

import torch

from monoglot.data.prepare import Example
from monoglot.decode.predict import Predictor
from monoglot.errors import InputError
from monoglot.nouns import Sample
from monoglot.train.recipe import Recipe
from monoglot.train.steps import DataSet, Reader
from monoglot.train.trainee import Trainee

_ROWS_AT_ONCE = 32


class Look:
    """The held-out rows of a recipe, read once: what cannot be read is told before training.

    Raises:
        InputError: a row that cannot be read, or has no answer.
    """

    def __init__(self, recipe: Recipe, reader: Reader):
        self.recipe, self.reader = recipe, reader
        self.examples: dict[str, list[Example]] = {}
        for held_out in recipe.validation:
            rows = DataSet(recipe, held_out.source)
            self.examples[held_out.name] = [_read(rows, row, reader) for row in rows.spread(held_out.rows)]

    @torch.no_grad()
    def losses(self, trainee: Trainee) -> dict[str, float]:
        """Mean loss a token of each held-out set, in nats; over what the rows' choices allow if the recipe's loss is."""
        trainee.eval()
        found = {}
        for name, examples in self.examples.items():
            parts = self.reader.together(examples, _ROWS_AT_ONCE)
            losses = [trainee(self.reader.part([examples[i] for i in part], [0] * len(part)), None) for part in parts]
            found[name] = float(torch.cat(losses).mean())
        return found

    def answers(self, trainee: Trainee, predictor: Predictor) -> list[dict[str, Any]]:
        """What the model says to the first rows of each set, as metrics.jsonl keeps it."""
        chosen = [
            (name, example.sample)
            for name, examples in self.examples.items()
            for example in examples[:: max(1, len(examples) // max(1, self.recipe.samples))][: self.recipe.samples]
        ]
        trainee.eval()
        said = list(predictor.predict_many([sample for _, sample in chosen]))
        return [
            {
                "set": name,
                "id": sample.id,
                "task": sample.task,
                "lang": sample.lang,
                "media": [[media.modality, str(media.source), media.start, media.end] for media in sample.media],
                "text": sample.text,
                "box": sample.box,
                "target": _target(sample),
                "targets": sample.targets,
                "answer": " ".join(f"{corner:.3f}" for corner in answer.box) if answer.box else answer.text,
                "confidence": round(answer.confidence, 6),
            }
            for (name, sample), answer in zip(chosen, said)
        ]


def _read(rows: DataSet, row: int, reader: Reader) -> Example:
    example = reader.preparer.example(rows[row])
    if not len(example.sequence.target_ids):
        raise InputError.at(rows.where(row), "target", "is missing", "held-out rows need the answer")
    reader.check_choices(example, rows.where(row))
    return example


def _target(sample: Sample) -> str:
    if sample.targets:
        return sample.targets[0]
    return " ".join(f"{corner:.3f}" for corner in sample.box) if sample.box else ""
