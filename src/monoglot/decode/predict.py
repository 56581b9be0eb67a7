"""Predictor: the one way in. Command line, service and page all speak to it.

row or arguments -> Sample -> Example -> Batch -> Memory -> search -> text -> Task.answer -> Prediction
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import groupby, islice
from pathlib import Path
from typing import Any

import torch

from monoglot.data.prepare import Example, Preparer
from monoglot.data.rows import BadRow, parse_row
from monoglot.decode.constrain import BoxGrammar, Constraint, Trie
from monoglot.decode.search import Hypothesis, SearchSettings, beam_search
from monoglot.errors import InputError
from monoglot.model.unified import UnifiedModel
from monoglot.nouns import Candidate, Media, Prediction, Sample
from monoglot.store import load_model, model_folder
from monoglot.tasks import TASKS
from monoglot.text.tokenizer import Tokenizer

_WINDOW = 16  # batches that are read ahead, so that rows of equal shape can run together


def load(model: str | Path = "nano") -> Predictor:
    """Load a model folder, or a bundled model by its name.

    >>> load("nano").predict(task="name", image="cat.png").text  # doctest: +SKIP
    'cat'
    """
    return Predictor(*load_model(model_folder(model)))


class Predictor:
    """A loaded model that answers rows."""

    def __init__(self, model: UnifiedModel, tokenizer: Tokenizer, *, beam: int = 3):
        self.model, self.tokenizer, self.beam = model.eval(), tokenizer, beam
        self.preparer = Preparer(tokenizer, model.config)

    def predict(
        self,
        *,
        task: str,
        image: Any = None,
        video: Any = None,
        audio: Any = None,
        text: str = "",
        choices: Sequence[str] = (),
        box: Sequence[float] | None = None,
        lang: str = "en",
    ) -> Prediction:
        """Answer one question.

        Args:
            task: a name in `monoglot.tasks.TASKS`.
            image, video, audio: a path, an object in memory that the modality reads, or a list of them.
            text: the question, phrase or document.
            choices: limits the answer to these.
            box: x0 y0 x1 y1 as fractions, for region_caption.

        Raises:
            InputError: something given is wrong; nothing is answered.
        """
        media = [
            (name, given) for name, given in (("image", image), ("video", video), ("audio", audio)) if given is not None
        ]
        items = tuple(
            Media(name, item) for name, given in media for item in (given if isinstance(given, list) else [given])
        )
        corners: Any = None if box is None else tuple(box)  # the task checks them
        sample = Sample("1", task, items, text, box=corners, choices=tuple(choices), lang=lang, where=f"task {task}")
        started = time.perf_counter()
        prediction = self._answer([self._example(sample)])[0]
        return replace(prediction, seconds=time.perf_counter() - started)

    def predict_many(
        self, rows: Iterable[Sample | BadRow | dict[str, Any]], *, batch_size: int = 16
    ) -> Iterator[Prediction]:
        """Answer rows in their order. A row that is wrong or cannot be read gives a Prediction with an `error`; the others go on.

        Rows are read `16 * batch_size` ahead, so that those of equal shape run together; an answer comes as soon as all before it are there.
        """
        samples = iter(rows)
        while window := list(islice(samples, batch_size * _WINDOW)):
            answers: dict[int, Prediction] = {}
            examples: list[tuple[int, Example]] = []
            given = 0  # answers that have been yielded
            for index, row in enumerate(window):
                read = self._read(row)
                if isinstance(read, Prediction):
                    answers[index] = read
                else:
                    examples.append((index, read))
            examples.sort(key=lambda pair: _kind(pair[1]))
            for _, group in groupby(examples, key=lambda pair: _kind(pair[1])[:2]):
                members = list(group)
                for first in range(0, len(members), batch_size):
                    part = members[first : first + batch_size]
                    started = time.perf_counter()
                    for (index, _), prediction in zip(part, self._answer([example for _, example in part])):
                        answers[index] = replace(prediction, seconds=(time.perf_counter() - started) / len(part))
                    while given in answers:
                        yield answers[given]
                        given += 1
            yield from (answers[index] for index in range(given, len(window)))

    def _read(self, row: Sample | BadRow | dict[str, Any]) -> Example | Prediction:
        """One row ready to run, or the error that is its answer."""
        if isinstance(row, BadRow):
            return Prediction(row.id, row.task, "", error=str(row.error))
        try:
            sample = row if isinstance(row, Sample) else parse_row(row)
            return self._example(sample)
        except InputError as error:
            name, task = (row.get("id", ""), row.get("task", "")) if isinstance(row, dict) else (row.id, row.task)
            return Prediction(str(name), str(task), "", error=str(error))

    def _example(self, sample: Sample) -> Example:
        """Raises InputError as `Preparer.example` does, and when a choice is longer than the model can write."""
        example = self.preparer.example(sample, with_target=False)
        for choice in example.posed.choices:
            if len(self.tokenizer.encode(f" {choice}")) > self._room:
                wrong = f"{choice[:20]!r}... is longer than {self._room} tokens"
                raise InputError.at(sample.where or f"sample {sample.id}", "choices", wrong, "shorten it")
        return example

    @property
    def _room(self) -> int:
        """Longest answer, in tokens without eos."""
        return self.model.config.target_positions - len(self.model.config.start)

    @torch.no_grad()
    def _answer(self, examples: list[Example]) -> list[Prediction]:
        """One batch of one task."""
        batch = self.preparer.collate(examples)
        memory = self.model.encode(batch, self.model.encode_media(batch.media))
        task = TASKS[examples[0].sample.task]
        constraints = [self._constraint(example) for example in examples]
        longest = max((c.longest - 1 if c else task.max_length) for c in constraints)
        settings = SearchSettings(
            beam=self.beam,
            max_length=min(longest, self._room),
            normalize=task.length_penalty > 0,
            length_penalty=task.length_penalty,
        )
        found = beam_search(self.model, memory, settings, constraints=constraints if any(constraints) else None)
        return [self._prediction(example, hypotheses) for example, hypotheses in zip(examples, found)]

    def _constraint(self, example: Example) -> Constraint | None:
        if example.posed.choices:
            return Trie(self.tokenizer.encode(f" {choice}").tolist() for choice in example.posed.choices)
        return BoxGrammar(self.tokenizer.vocabulary) if example.posed.boxes else None

    def _prediction(self, example: Example, hypotheses: list[Hypothesis]) -> Prediction:
        sample = example.sample
        candidates = tuple(
            Candidate(self.tokenizer.decode(h.tokens).strip(), min(1.0, math.exp(h.log_probability)))
            for h in hypotheses
        )
        best = candidates[0] if candidates else Candidate("", 0.0)
        answer = TASKS[sample.task].answer(best.text)
        box = answer if isinstance(answer, tuple) else None
        text = answer if isinstance(answer, str) else best.text
        return Prediction(sample.id, sample.task, text, box, best.probability, candidates)


def _kind(example: Example) -> tuple[str, bool, tuple[int, ...]]:
    """Rows of one kind run together: one task, constrained or not, then similar lengths."""
    lengths = (len(example.sequence.source_ids), *(grid.length for grid in example.grids))
    return example.sample.task, bool(example.posed.choices), lengths
