"""Predictor: the one way in. Command line, service and page all speak to it.

row or arguments -> Sample -> Example -> Batch -> Memory -> search -> text -> Task.answer -> Prediction
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property, lru_cache, partial
from itertools import groupby, islice
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch

from monoglot.adapters import (
    Answers,
    Limits,
    apply_adapter,
    is_adapter,
    read_adapter,
    read_answers,
    weights_sha256,
)
from monoglot.data.ahead import ahead
from monoglot.data.collate import Batch
from monoglot.data.features import LATELY_BYTES, CachingPreparer, KeptFeatures, RecentFeatures
from monoglot.data.prepare import Example, Preparer
from monoglot.data.rows import BadRow, parse_row
from monoglot.decode.constrain import BoxGrammar, Constraint, Count, ObjectGrammar, Trie, Words
from monoglot.decode.search import Hypothesis, SearchSettings, beam_search, score_answers
from monoglot.errors import InputError
from monoglot.model.features import features
from monoglot.model.head import Head, encode, pooled
from monoglot.model.inference import for_inference
from monoglot.model.linears import pick, to_precision
from monoglot.model.unified import Memory, UnifiedModel
from monoglot.nouns import Candidate, Media, Prediction, Sample
from monoglot.plugins import HOW, media_kinds
from monoglot.registry import unknown_name
from monoglot.store import load_model, model_folder
from monoglot.tasks import TASKS, Task
from monoglot.text.tokenizer import Tokenizer
from monoglot.text.vocabulary import EOS

_ARGUMENTS = ("task", "text", "choices", "box", "lang")
_PLAIN = 1  # batches that are answered in float32 before weights are laid out for it, which takes as long as an answer or two
_WINDOW = 16  # batches whose rows are sorted, so that those of equal shape run together


def load(model: str | Path = "nano", *, search: SearchSettings | None = None, precision: str = "auto") -> Predictor:
    """Load a model folder, or a bundled model by its name. `search` and `precision` as in `Predictor`.

    >>> load("nano").predict(task="name", image="cat.png").text  # doctest: +SKIP
    'cat'
    """
    folder = model_folder(model)
    loaded = load_model(folder)
    heads = read_adapter(folder).heads() if is_adapter(folder) else {}
    answers = read_answers(folder)
    return Predictor(*loaded, search=search, answers=answers, heads=heads, folder=folder, precision=precision)


class Choices:
    """What a question may be answered with, as tokens; kept, since many questions have the same."""

    def __init__(self, tokenizer: Tokenizer, choices: Sequence[str]):
        self.ids = [tokenizer.encode(f" {choice}").tolist() for choice in choices]
        self.trie = Trie(self.ids)


class Predictor:
    """A loaded model that answers rows.

    Args:
        search: how to look for answers. What is not set is the task's: its longest answer, its length penalty, a beam of 3.
        answers: what some questions may be answered with, where a row gives no choices.
        heads: tensors of heads that pick among them, by the place of their answers.
        folder: where the model is from; needed to put adapters on it.
        precision: what to compute in, one of `monoglot.model.linears.PRECISIONS`; "auto" takes bfloat16 where the machine
            has instructions for it. In int8 an answer may also depend on rows that run beside it.

    >>> best_five = SearchSettings(n_best=5)
    >>> surprising = SearchSettings(sample=True, top_p=0.9, temperature=1.2, seed=1)
    >>> load("nano", search=surprising).predict(task="caption", image="cat.png").text  # doctest: +SKIP
    'a cat'
    """

    def __init__(
        self,
        model: UnifiedModel,
        tokenizer: Tokenizer,
        *,
        search: SearchSettings | None = None,
        answers: Sequence[Answers] = (),
        heads: Mapping[int, Mapping[str, torch.Tensor]] = MappingProxyType({}),
        folder: Path | None = None,
        precision: str = "auto",
    ):
        self.model, self.tokenizer, self.search = model.eval(), tokenizer, search or SearchSettings()
        self.keep_features(RecentFeatures())
        self._words = Words(model.config.vocabulary)
        self.limits = Limits(answers)
        self._heads = {
            index: Head.from_state(heads[index], given.head)
            for index, given in enumerate(answers)
            if given.head is not None
        }
        self.folder = folder
        self._asked, self._batches = precision, 0
        pick(precision)  # what is not known or not there is told at once
        self._base: Predictor | None = None  # by whose encoders it sees
        self._listed = lru_cache(maxsize=256)(partial(Choices, tokenizer))
        self.name = ""
        """Of the adapter that it answers by, if it came about by `with_adapter`."""
        self.adapted: dict[str, Predictor] = {}
        """Predictors of adapters on this model, by name; a row's `adapter` picks."""

    @property
    def precision(self) -> tuple[str, str]:
        """What it computes in, and why."""
        return pick(self._asked, self.model.words.weight.device)

    @property
    def fast(self) -> UnifiedModel:
        """The model as it answers; made of `model` when the first row is answered."""
        plain = self._batches <= _PLAIN and self.precision[0] == "float32"
        return self._folded if plain else self._packed

    @cached_property
    def _folded(self) -> UnifiedModel:
        return for_inference(self.model, None if self._base is None else self._base._folded)

    @cached_property
    def _packed(self) -> UnifiedModel:
        return to_precision(self._folded, self.precision[0], None if self._base is None else self._base._packed)

    def keep_features(self, cache: KeptFeatures | None) -> None:
        """From now on what the encoders said of media is taken from this cache; None: they are read and encoded every time anew.

        A predictor begins with `RecentFeatures`, so that several questions about a picture cost little more than one. Whoever
        changes the encoders' weights afterwards gives it a new cache.
        """
        self.cache = cache
        self.preparer: Preparer = Preparer(self.tokenizer, self.model.config)
        if cache is not None:
            self.preparer = keeping = CachingPreparer(self.tokenizer, self.model.config)
            keeping.cache, keeping.lately = cache, RecentFeatures(LATELY_BYTES)

    def with_adapter(self, folder: str | Path) -> Predictor:
        """A predictor of this model under an adapter. They share all tensors that the adapter does not change.

        It answers rows that name no adapter, and those that name this one. Raises InputError when the adapter is of another model.
        """
        adapter = read_adapter(Path(folder))
        if self.folder is None or is_adapter(self.folder):
            raise InputError.at(folder, "adapter", "needs its base", "load the model folder that it was made for")
        base = adapter.settings.base
        if weights_sha256(self.folder) != base.sha256:
            wrong = f"was made for {base.name!r} with other weights than {self.folder}"
            raise InputError.at(folder, "base", wrong, "load its own base, or adapt again")
        model = apply_adapter(self.model, adapter)
        adapted = Predictor(
            model,
            self.tokenizer,
            search=self.search,
            answers=adapter.settings.answers,
            heads=adapter.heads(),
            precision=self._asked,
        )
        if not any(name.startswith("encoders.") for name in adapter.changes):
            adapted._base = self
            adapted.keep_features(self.cache)
        adapted.name = _name(folder)
        return adapted

    def add_adapter(self, folder: str | Path) -> None:
        """Rows whose `adapter` is this folder's name are answered by it from now on. Raises InputError as `with_adapter` does."""
        name = _name(folder)
        if name in self.adapted:
            raise InputError.at(folder, "adapter", f"there is one called {name!r} already", "rename the folder")
        self.adapted[name] = self.with_adapter(folder)

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
        **media: Any,
    ) -> Prediction:
        """Answer one question.

        Args:
            task: a name in `monoglot.tasks.TASKS`.
            image, video, audio: a path, an object in memory that the modality reads, or a list of them.
            text: the question, phrase or document.
            choices: limits the answer to these.
            box: x0 y0 x1 y1 as fractions, for region_caption.
            media: any other kind of media by the name under which it is registered, as image, video and audio.

        Raises:
            InputError: something given is wrong; nothing is answered.
        """
        for name in media:
            if name not in media_kinds():
                raise InputError(f"{unknown_name('argument or modality', name, (*_ARGUMENTS, *media_kinds()))}; {HOW}")
        media = {"image": image, "video": video, "audio": audio, **media}
        items = tuple(
            Media(name, item)
            for name, given in media.items()
            for item in (given if isinstance(given, list) else [] if given is None else [given])
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

        Of `16 * batch_size` rows those of equal shape run together, while the next as many are read; an answer comes as soon as all before it are there.
        """
        size = batch_size * _WINDOW
        rows_read = ahead(self._read, rows, size)
        while window := list(islice(rows_read, size)):
            answers: dict[int, Prediction] = {}
            examples: list[tuple[int, Example]] = []
            given = 0  # answers that have been yielded
            for index, read in enumerate(window):
                if isinstance(read, Prediction):
                    answers[index] = read
                else:
                    examples.append((index, read))
            examples.sort(key=lambda pair: self._kind(pair[1]))
            for (adapter, *_), group in groupby(examples, key=lambda pair: self._kind(pair[1])[:4]):
                members, answering = list(group), self.adapted.get(adapter, self)
                for first in range(0, len(members), batch_size):
                    part = members[first : first + batch_size]
                    started = time.perf_counter()
                    for (index, _), prediction in zip(part, answering._answer([example for _, example in part])):
                        answers[index] = replace(prediction, seconds=(time.perf_counter() - started) / len(part))
                    while given in answers:
                        yield answers[given]
                        given += 1
            yield from (answers[index] for index in range(given, len(window)))

    def _kind(self, example: Example) -> tuple[str, str, int, int, tuple[int, ...]]:
        """Rows of one kind run together: one adapter, task and head, constrained or not (free answers behind prompts of one length), then similar lengths."""
        sample = example.sample
        head = self.adapted.get(_adapter(sample), self)._head_of(sample)
        lengths = (len(example.sequence.source_ids), *(grid.length for grid in example.grids))
        given = -1 if example.posed.choices else len(example.sequence.given_ids)
        return _adapter(sample), sample.task, -1 if head is None else head, given, lengths

    def _read(self, row: Sample | BadRow | dict[str, Any]) -> Example | Prediction:
        """One row ready to run, or the error that is its answer."""
        if isinstance(row, BadRow):
            return Prediction(row.id, row.task, "", error=str(row.error))
        try:
            sample = row if isinstance(row, Sample) else parse_row(row)
            if (name := _adapter(sample)) and name != self.name:
                if name not in self.adapted:
                    raise InputError.at(
                        sample.where or f"sample {sample.id}",
                        "adapter",
                        unknown_name("adapter", name, self.adapted or filter(None, [self.name])),
                    )
                return self.adapted[name]._example(sample)
            return self._example(sample)
        except InputError as error:
            name, task = (row.get("id", ""), row.get("task", "")) if isinstance(row, dict) else (row.id, row.task)
            return Prediction(str(name), str(task), "", error=str(error))

    def _example(self, sample: Sample) -> Example:
        """Raises InputError as `Preparer.example` does, and when a choice is longer than the model can write."""
        example = self.preparer.example(self.limits.fill(sample), with_target=False)
        room = self._room - len(example.sequence.given_ids)
        choices = example.posed.choices
        for choice, ids in zip(choices, self._listed(choices).ids):
            if len(ids) > room:
                wrong = f"{choice[:20]!r}... is longer than {room} tokens"
                raise InputError.at(sample.where or f"sample {sample.id}", "choices", wrong, "shorten it")
        return example

    @property
    def _room(self) -> int:
        """Longest answer, in tokens without eos."""
        return self.model.config.target_positions - len(self.model.config.start)

    @torch.no_grad()
    def _answer(self, examples: list[Example]) -> list[Prediction]:
        """One batch of one kind, in the predictor's own precision whatever autocast is on around it: packed layers take no other."""
        device = self.model.words.weight.device
        with torch.autocast(device.type, enabled=False):
            return self._answer_on(device, examples)

    def _answer_on(self, device: torch.device, examples: list[Example]) -> list[Prediction]:
        self._batches += 1
        batch = self.preparer.collate(examples).to(device)
        head = self._head_of(examples[0].sample)
        if head is not None:
            return self._pick(self._heads[head], batch, [example.sample for example in examples])
        memory = self.fast.encode(batch, features(self.fast, batch, self.cache))
        constraints = [self._constraint(example) for example in examples]
        if self.search.score_all and examples[0].posed.choices:
            found = self._score_all(examples, memory, constraints)
        else:
            found = self._search(examples, memory, constraints, batch.code_rows)
        return [self._prediction(example, hypotheses) for example, hypotheses in zip(examples, found)]

    def _head_of(self, sample: Sample) -> int | None:
        """The head that answers a sample: its question's, if that knows all of the choices."""
        known = self.limits.of(sample) if self._heads else None
        if known is None or known[0] not in self._heads:
            return None
        return known[0] if set(sample.choices) <= set(self._heads[known[0]].classes) else None

    def _pick(self, head: Head, batch: Batch, samples: Sequence[Sample]) -> list[Prediction]:
        """What a head says of the rows of a batch, among each sample's choices."""
        x = pooled(batch, *encode(self.fast, batch, head.blocks, self.cache), head.blocks)
        predictions = []
        for sample, row in zip(samples, head.probabilities(x)):
            allowed = [index for index, name in enumerate(head.classes) if name in sample.choices]
            chances = row[allowed] / row[allowed].sum().clamp(min=1e-12)
            order = chances.argsort(descending=True, stable=True)[: self.search.n_best or 3].tolist()
            named = [Candidate(head.classes[allowed[place]], float(chances[place])) for place in order]
            text, confidence = named[0].text, named[0].probability
            predictions.append(Prediction(sample.id, sample.task, text, None, confidence, tuple(named)))
        return predictions

    def _search(
        self, examples: list[Example], memory: Memory, constraints: list[Constraint], code_rows: torch.Tensor | None
    ) -> list[list[Hypothesis]]:
        """Hypotheses of each row, without what the decoder was given."""
        given = [example.sequence.given_ids.tolist() for example in examples]
        longest = [constraint.longest for constraint in constraints]
        settings = self._settings(TASKS[examples[0].sample.task], max((n for n in longest if n), default=None))
        found = beam_search(
            self.fast,
            memory,
            settings.model_copy(update={"max_length": settings.max_length + max(map(len, given))}),
            constraints=constraints,
            prefixes=given if any(given) else None,
            code_rows=code_rows,
            names=[example.sample.id for example in examples],
        )
        return [[_after(len(prefix), h) for h in hypotheses] for prefix, hypotheses in zip(given, found)]

    def _settings(self, task: Task, longest: int | None) -> SearchSettings:
        """The task's settings where the user has none. An answer of a given form, at most `longest` tokens, has its own length."""
        settings = SearchSettings(
            beam=3,
            max_length=task.max_length,
            length_penalty=task.length_penalty,
            sample=task.top_k > 0,
            top_k=task.top_k,
        ).model_copy(update=self.search.model_dump(exclude_unset=True))
        if longest is not None:
            form = {"max_length": longest - 1, "min_length": 0, "no_repeat_ngram": 0}
        else:
            form = {"max_length": min(settings.max_length, self._room)}
        return settings.model_copy(update=form)

    def _score_all(self, examples: list[Example], memory: Memory, tries: list[Constraint]) -> list[list[Hypothesis]]:
        """Every choice of each row, the likeliest first."""
        answers = [self._listed(example.posed.choices).ids for example in examples]
        given = [example.sequence.given_ids.tolist() for example in examples]
        scores = score_answers(self.fast, memory, answers, constraints=tries, prefixes=given)
        found = []
        for choices, row in zip(answers, scores):
            hypotheses = [Hypothesis((*ids, EOS), score, (score,)) for ids, score in zip(choices, row.tolist())]
            found.append(sorted(hypotheses, key=lambda h: -h.score)[: self.search.n_best])
        return found

    def _constraint(self, example: Example) -> Constraint:
        vocabulary = self.tokenizer.vocabulary
        if example.posed.choices:
            return self._listed(example.posed.choices).trie
        match example.posed.writes:
            case "box":
                return BoxGrammar(vocabulary)
            case "objects":
                return ObjectGrammar(vocabulary, 1 + self._settings(TASKS[example.sample.task], None).max_length)
            case "codes":
                return Count(vocabulary.codes, self.model.config.code_grid**2)
            case "words":
                return self._words

    def _prediction(self, example: Example, hypotheses: list[Hypothesis]) -> Prediction:
        sample = example.sample
        read = TASKS[sample.task].answer
        box, candidates = None, list[Candidate]()
        for h in {h.tokens: h for h in hypotheses}.values():  # two draws may be the same
            text = self.tokenizer.decode(h.tokens).strip()
            answer = read(text)
            if isinstance(answer, tuple) and not candidates:
                box = answer
            shown = answer if isinstance(answer, str) else text
            candidates.append(Candidate(shown, min(1.0, math.exp(h.log_probability))))
        best = candidates[0] if candidates else Candidate("", 0.0)
        return Prediction(sample.id, sample.task, best.text, box, best.probability, tuple(candidates))


def _after(given: int, h: Hypothesis) -> Hypothesis:
    return Hypothesis(h.tokens[given:], h.score, h.token_scores[given:])


def _name(folder: str | Path) -> str:
    """How rows call the adapter of a folder."""
    return Path(folder).resolve().name


def _adapter(sample: Sample) -> str:
    """The adapter that a row asks for; '' for none."""
    return str(sample.meta.get("adapter") or "")
