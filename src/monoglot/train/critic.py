"""Self-critical training: the model writes several answers to each row, and learns from how they score beside each other.

    Part -> encode, beam search -> answers -> CIDEr-D, less the mean of the row's other answers -> Part with rewards

The loss of an answer is -reward x log-probability: the loop's cross entropy with the rewards for weights.
Source: arXiv 1612.00563, with the mean of the other answers as the baseline, as in OFA's second stage of captioning.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import numpy as np
import torch

from monoglot.data.collate import collate
from monoglot.decode.search import SearchSettings, beam_search
from monoglot.errors import InputError
from monoglot.evaluate.metrics.cider import Corpus, cider
from monoglot.evaluate.metrics.text import caption_tokens
from monoglot.model.unified import Memory, UnifiedModel
from monoglot.nouns import Sample, Sequence
from monoglot.text.tokenizer import Tokenizer
from monoglot.train.recipe import Loss
from monoglot.train.steps import Part

_NO_REPEAT = 3  # words in a row that an answer does not repeat, as captions are decoded


class Critic:
    """Puts the model's own answers in the place of the targets.

    Args:
        samples: all rows of the mixture; their references say how rare each n-gram is.
    """

    def __init__(self, model: UnifiedModel, tokenizer: Tokenizer, samples: Iterable[Sample], c: Loss):
        self.model, self.tokenizer = model, tokenizer
        room = model.config.target_positions - len(model.config.start)
        self.search = SearchSettings(beam=c.answers, max_length=min(c.answer_length, room), no_repeat_ngram=_NO_REPEAT)
        self.corpus = Corpus(_references(sample) for sample in samples if sample.targets)
        if not self.corpus.items:
            raise InputError.at("recipe", "loss", "'self_critical' finds no references", "rows need targets")

    @torch.no_grad()
    def __call__(self, part: Part, memory: Memory) -> Part:
        """The part with R answers of the model, each with its reward; `memory` is of the part's batch."""
        found = beam_search(self.model, memory, self.search)
        copies = torch.tensor([row for row, answers in enumerate(found) for _ in answers], dtype=torch.long)
        written = [hypothesis.tokens for answers in found for hypothesis in answers]
        samples = [part.samples[row] for row in copies.tolist()]
        said = [caption_tokens(self.tokenizer.decode(ids), sample.lang) for ids, sample in zip(written, samples)]
        scores = torch.from_numpy(cider(said, [_references(sample) for sample in samples], corpus=self.corpus)).float()
        answers = collate(
            [Sequence(np.zeros(0, np.int64), (), (), np.array(ids, np.int64)) for ids in written],
            [[] for _ in written],
            self.model.config.start,
        )
        batch = replace(
            part.batch,
            target_in=answers.target_in,
            target_out=answers.target_out,
            target_valid=answers.target_valid,
            weights=part.batch.weights[copies],
            code_rows=None,
        )
        return replace(
            part, batch=batch, sources=part.sources[copies], copies=copies, scores=scores, rewards=above(scores, copies)
        )


def above(scores: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    """float[R]: each answer's score less the mean of the others of its row; 0 for one that is alone.

    >>> above(torch.tensor([3.0, 1.0, 2.0, 5.0]), torch.tensor([0, 0, 0, 1])).tolist()
    [1.5, -1.5, 0.0, 0.0]
    """
    count = torch.bincount(rows)[rows]
    total = torch.zeros(int(rows.max()) + 1).index_add(0, rows, scores)[rows]
    return torch.where(count > 1, scores - (total - scores) / (count - 1).clamp(min=1), 0.0)


def mean_score(parts: list[Part]) -> float | None:
    """Mean CIDEr-D of all answers of a step; None if there are none."""
    scores = torch.cat([torch.zeros(0), *(part.scores for part in parts if part.scores is not None)])
    return float(scores.mean()) if len(scores) else None


def _references(sample: Sample) -> list[list[str]]:
    return [caption_tokens(text, sample.lang) for text in sample.targets]
