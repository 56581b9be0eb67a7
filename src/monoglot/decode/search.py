"""One search: beams that take the likeliest tokens, or draw them. Greedy is a beam of one.

Letters: B rows, K beams, V vocabulary. A live beam is row b * K + k of every tensor.
Source: section 20 of the published model's arithmetic (fairseq's search with the start token bos).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, zip_longest

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from torch import Tensor

from monoglot.decode import constrain
from monoglot.decode.constrain import NEVER, ONLY_EOS, Constraint, Ids, Now, Rule, keep, together
from monoglot.decode.steps import Steps, Texts, Tree, steps_of, texts_of
from monoglot.errors import InputError
from monoglot.model.unified import Memory, UnifiedModel
from monoglot.rng import stream
from monoglot.text.vocabulary import EOS, PAD


class SearchSettings(BaseModel):
    """How to search. Lengths count tokens without eos."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    beam: int = Field(1, ge=1, description="Answers that are followed at a time.")
    n_best: int | None = Field(None, ge=1, description="Answers to return; a narrower beam is widened to it.")
    max_length: int = Field(64, ge=1)
    min_length: int = Field(1, ge=0)
    length_penalty: float = Field(
        1.0, description="Rank by log-probability / length ** length_penalty; 0 for log-probability alone."
    )
    temperature: float = Field(1.0, gt=0, description="Logits are divided by it.")
    no_repeat_ngram: int = Field(0, ge=0, description="So many tokens in a row never come twice; 0 for no such rule.")
    unk_penalty: float = Field(0.0, description="Taken from the log-probability of <unk>.")
    sample: bool = Field(False, description="Draw each token instead of taking the likeliest.")
    top_k: int = Field(0, ge=0, description="Draw among so many likeliest tokens; 0 for all.")
    top_p: float = Field(1.0, gt=0, le=1, description="Draw among the likeliest tokens that reach this probability.")
    seed: int = Field(0, description="Of the draws; a row's do not depend on the rows beside it.")
    score_all: bool = Field(False, description="Score every one of a row's choices instead of searching among them.")

    @model_validator(mode="after")
    def _drawing_is_asked_for(self) -> SearchSettings:
        if (self.top_k or self.top_p < 1) and not self.sample:
            raise ValueError("top_k and top_p limit what is drawn: they need sample")
        return self

    @classmethod
    def read(cls, where: str, **given: object) -> SearchSettings:
        """Settings that a user gave. Raises InputError instead of pydantic's error."""
        try:
            return cls.model_validate(given)
        except ValidationError as error:
            first = error.errors()[0]
            name = str(first["loc"][0]) if first["loc"] else "search"
            raise InputError.at(where, name, first["msg"].removeprefix("Value error, ")) from None

    @property
    def width(self) -> int:
        return max(self.beam, self.n_best or 1)


@dataclass(frozen=True)
class Hypothesis:
    """One finished answer."""

    tokens: tuple[int, ...]
    """Without bos; with eos."""
    score: float
    """What it was ranked by."""
    token_scores: tuple[float, ...]
    """Log-probability of each token, in nats."""

    @property
    def log_probability(self) -> float:
        return sum(self.token_scores)


@torch.no_grad()
def beam_search(
    model: UnifiedModel,
    memory: Memory,
    settings: SearchSettings | None = None,
    *,
    constraints: Sequence[Constraint | None] | None = None,
    prefixes: Sequence[Sequence[int]] | None = None,
    code_rows: Tensor | None = None,
    rules: Sequence[Rule] = (),
    names: Sequence[object] | None = None,
    steps: Callable[[UnifiedModel, Memory, int, Tensor | None], Steps] | None = None,
) -> list[list[Hypothesis]]:
    """The best answers of each row, best first, at most `n_best` (or `beam`) each.

    Args:
        constraints: for each row what it may write, or None; scores are renormalised over what is allowed.
        prefixes: for each row the tokens that its answer must begin with (a decoder prompt).
        code_rows: bool[B], True if the row writes image codes.
        rules: more of what may not be written, by anyone; after those of the settings.
        names: what each row's draws depend on beside the seed; its index unless given.
        steps: the way through the decoder, for tests and measurements; the quickest unless given.
    """
    s = settings or SearchSettings()
    rows, beam, start = len(memory.valid), s.width, len(model.config.start)
    everything = model.config.vocabulary.size
    narrows = not rules and not s.no_repeat_ngram  # those speak of more than special tokens, and need all columns
    rules = [*_rules(s, prefixes, strictly=constraints is not None), *rules]
    streams = [stream(s.seed, "search", name) for name in (names or range(rows))]
    device = memory.states.device
    step_on = (steps or steps_of)(model, memory, beam, code_rows)
    written = torch.tensor(model.config.start, device=device).repeat(rows, 1)  # at first one beam a row says it all
    scores = torch.zeros(rows, 0, device=device)  # cumulative log-probability after each token
    finished: list[list[Hypothesis]] = [[] for _ in range(rows)]
    live = list(range(rows))  # the row of each block of beams

    for step in range(s.max_length + 1):
        beams = len(written) // len(live)
        now = Now(step, [row for row in live for _ in range(beams)], written[:, start:].tolist())
        allowed = _allowed(constraints, prefixes, now)
        columns = together(allowed, everything) if narrows else None
        ids = None if columns is None else torch.from_numpy(columns).to(device)
        if all(one is ONLY_EOS for one in allowed):
            log_p = _certain_end(len(written), everything if ids is None else len(ids), device)
        else:
            states = step_on(written[:, -1:] if step else written)
            logits = model.logits(states, ids).float() / s.temperature
            keep(logits, allowed, columns)
            log_p = logits.log_softmax(-1)
        for rule in rules:
            rule(log_p, now)
        total = log_p + scores[:, -1:] if step else log_p
        if s.sample:
            candidates = _draw(log_p, total, beam, s, [streams[row] for row in live])
        else:
            candidates = _best(total, beam, len(live))
        if columns is not None:
            candidates = [[(score, k, int(columns[at])) for score, k, at in found] for found in candidates]

        going_on: list[tuple[int, int, float]] = []  # beam, token, cumulative log-probability
        next_live: list[int] = []
        for block, row in enumerate(live):
            found = candidates[block]
            for score, k, token in found[:beam]:
                if token == EOS and score != NEVER and len(finished[row]) < beam:
                    at = block * beams + k
                    finished[row].append(_finish(now.written[at], scores[at], score, s))
            # A place among the beams goes to the best that do not end here; eos is only kept out where there are enough others.
            order = sorted((token == EOS or score == NEVER, rank) for rank, (score, _, token) in enumerate(found))[
                :beam
            ]
            if len(finished[row]) >= beam or step == s.max_length or len(order) < beam or order[0][0]:
                continue  # all is found, or nothing can follow
            next_live.append(row)
            for ended, rank in order:
                score, k, token = found[rank]
                going_on.append((block * beams + k, token, NEVER if ended else score))
        if not next_live:
            break
        kept, tokens, sums = zip(*going_on)
        index = torch.tensor(kept, device=device)
        if kept != tuple(range(len(written))):
            step_on.select(index, beam)
        written = torch.cat([written[index], torch.tensor(tokens, device=device)[:, None]], dim=1)
        scores = torch.cat([scores[index], torch.tensor(sums, device=device)[:, None]], dim=1)
        live = next_live
    return [sorted(answers, key=lambda answer: -answer.score)[: s.n_best] for answers in finished]


@torch.no_grad()
def score_answers(
    model: UnifiedModel,
    memory: Memory,
    answers: Sequence[Sequence[Sequence[int]]],
    *,
    constraints: Sequence[Constraint | None] | None = None,
    prefixes: Sequence[Sequence[int]] | None = None,
    batch_size: int = 512,
    texts: Callable[[UnifiedModel, Memory], Texts] | None = None,
) -> list[Tensor]:
    """Log-probability float[number of answers] that each row of the memory gives to each of its answers, eos included.

    Args:
        constraints: for each row what it may write, or None; probabilities are renormalised over it, as the published 'allcand' does over a trie.
        prefixes: for each row what the decoder reads before the answer (a decoder prompt), not scored.
        batch_size: tokens that run together; what answers of a row begin with alike counts once.
        texts: the way through the decoder, for tests and measurements; the quickest unless given.
    """
    read = (texts or texts_of)(model, memory)
    offsets = [0, *accumulate(map(len, answers))]
    scores = torch.zeros(offsets[-1])
    room = max(1, batch_size // max(1, len(answers)))
    parts = [
        _parts(
            [*model.config.start, *(prefixes[row] if prefixes else ())],
            given,
            constraints[row] if constraints else None,
            room,
        )
        for row, given in enumerate(answers)
    ]
    for at_once in zip_longest(*parts):
        live = [(row, *part) for row, part in enumerate(at_once) if part is not None]
        states = read([row for row, _, _ in live], [tree for _, tree, _ in live])
        asked = [(n, at, follows) for n, (_, _, asked) in enumerate(live) for at, follows in asked.items()]
        for first in range(0, len(asked), LOGITS):
            some = asked[first : first + LOGITS]
            allowed = [follows.allowed for _, _, follows in some]
            which, answered, tokens = np.array(
                [
                    (place, offsets[live[n][0]] + answer, token)
                    for place, (n, _, follows) in enumerate(some)
                    for answer, token in zip(follows.answers, follows.tokens)
                ]
            ).T
            columns = together([*allowed, tokens], model.config.vocabulary.size)
            ids = None if columns is None else torch.from_numpy(columns).to(states.device)
            logits = model.logits(states[[n for n, _, _ in some], [at for _, at, _ in some]], ids).float()
            keep(logits, allowed, columns)
            places = tokens if columns is None else np.searchsorted(columns, tokens)
            log_p = logits.log_softmax(-1).cpu()[which, places]
            scores.index_add_(0, torch.from_numpy(answered), log_p)
    return list(scores.split([len(given) for given in answers]))


LOGITS = 128
"""Distributions over the vocabulary that are held at a time."""


@dataclass
class _Follows:
    """What of the answers follows at one place of a tree."""

    allowed: Ids | None
    answers: list[int] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)


def _parts(
    begin: Sequence[int], answers: Sequence[Sequence[int]], constraint: Constraint | None, room: int
) -> Iterator[tuple[Tree, dict[int, _Follows]]]:
    """A row's answers in trees of about `room` tokens, with what is asked at which of them. Where only one token may follow, nothing is."""
    tree, asked = Tree(), dict[int, _Follows]()
    for index in sorted(range(len(answers)), key=lambda index: tuple(answers[index])):
        answer = [*map(int, answers[index]), EOS]
        for end, token in enumerate(answer):
            allowed = None if constraint is None else constraint.allowed(answer[:end])
            if isinstance(allowed, np.ndarray) and len(allowed) == 1 and allowed[0] == token:
                continue
            at = tree.add([*begin, *answer[:end]])
            follows = asked.setdefault(at, _Follows(allowed))
            follows.answers.append(index)
            follows.tokens.append(token)
        if len(tree.tokens) >= room:
            yield tree, asked
            tree, asked = Tree(), {}
    if asked:
        yield tree, asked


def _rules(s: SearchSettings, prefixes: Sequence[Sequence[int]] | None, *, strictly: bool) -> list[Rule]:
    """The published search's rules in its order."""
    rules = [constrain.no_end_before(s.min_length)]
    if prefixes is not None:
        rules.append(constrain.begin_with(prefixes, s.max_length, strictly=strictly))
    rules += [constrain.never_padding, constrain.unknown_costs(s.unk_penalty), constrain.end_at(s.max_length)]
    if s.no_repeat_ngram:
        rules.append(constrain.no_repeats(s.no_repeat_ngram))
    return rules


def _allowed(
    constraints: Sequence[Constraint | None] | None, prefixes: Sequence[Sequence[int]] | None, now: Now
) -> list[Ids | None]:
    """What each beam may write; everything while it is still in its prefix."""
    allowed: list[Ids | None] = []
    for row, written in zip(now.rows, now.written):
        constraint = constraints[row] if constraints else None
        begin = len(prefixes[row]) if prefixes else 0
        allowed.append(constraint.allowed(written[begin:]) if constraint and len(written) >= begin else None)
    return allowed


def _certain_end(beams: int, size: int, device: torch.device) -> Tensor:
    """Log-probabilities where nothing but eos may follow: the model need not be asked."""
    log_p = torch.full((beams, size), NEVER, device=device)
    log_p[:, EOS] = 0.0
    return log_p


Candidates = list[list[tuple[float, int, int]]]
"""For each live row: cumulative log-probability, beam that goes on, its next token; the best first, or one a beam."""


def _best(total: Tensor, beam: int, rows: int) -> Candidates:
    """The 2 K likeliest continuations of each row, so that K go on when K end; where there are fewer, the rest is never."""
    size = total.shape[-1]
    total = total.view(rows, -1)
    best, flat = total.topk(min(2 * beam, total.shape[1]), dim=1)
    columns = best.tolist(), (flat // size).tolist(), (flat % size).tolist()
    missing = [(NEVER, 0, PAD)] * (2 * beam - best.shape[1])
    return [[*zip(*row), *missing] for row in zip(*columns)]


def _draw(log_p: Tensor, total: Tensor, beam: int, s: SearchSettings, streams: list[np.random.Generator]) -> Candidates:
    """One continuation of each beam, drawn from what top_k and top_p leave; its score is the model's own."""
    p = log_p.double().exp()
    if s.top_k:
        p[p < p.topk(min(s.top_k, p.shape[1])).values[:, -1:]] = 0
    if s.top_p < 1:
        ordered, order = p.sort(dim=1, descending=True)
        before = ordered.cumsum(1) - ordered  # the first always stays
        p.scatter_(1, order, ordered.masked_fill(before >= s.top_p * p.sum(1, keepdim=True), 0))
    steps = p.cumsum(1)
    uniform = torch.from_numpy(np.concatenate([rng.random(beam) for rng in streams])).to(p.device)
    uniform = uniform.view(len(p), -1)  # at first all draws are from the one beam there is
    token = torch.searchsorted(steps, uniform * steps[:, -1:], right=True).clamp(max=p.shape[1] - 1)
    score = total.gather(1, token).view(-1, beam).tolist()
    source = [k // uniform.shape[1] for k in range(beam)]
    return [list(zip(row, source, tokens)) for row, tokens in zip(score, token.view(-1, beam).tolist())]


def _finish(written: list[int], scores: Tensor, score: float, s: SearchSettings) -> Hypothesis:
    sums = [*scores.tolist(), score]
    token_scores = tuple(now - before for now, before in zip(sums, [0.0, *sums]))
    return Hypothesis((*written, EOS), score / len(sums) ** s.length_penalty, token_scores)
