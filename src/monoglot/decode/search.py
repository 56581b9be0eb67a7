"""Beam search; greedy is a beam of one.

Letters: B rows, K beams, V vocabulary. A live beam is row b * K + k of every tensor.
Source: section 20 of the published model's arithmetic (fairseq's search with the start token bos).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from monoglot.decode.constrain import Constraint
from monoglot.model.layers import Cache
from monoglot.model.unified import Memory, UnifiedModel
from monoglot.text.vocabulary import EOS, PAD, UNK


@dataclass(frozen=True)
class SearchSettings:
    """How to search. Lengths count tokens without eos."""

    beam: int = 1
    max_length: int = 64
    min_length: int = 1
    length_penalty: float = 1.0
    normalize: bool = True
    """Rank by log-probability / length ** length_penalty; otherwise by log-probability."""
    temperature: float = 1.0
    no_repeat_ngram: int = 0
    unk_penalty: float = 0.0


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
) -> list[list[Hypothesis]]:
    """The best answers of each row, best first, at most `beam` each.

    Args:
        constraints: for each row what it may write, or None; scores are renormalised over what is allowed.
        prefixes: for each row the tokens that its answer must begin with (a decoder prompt).
    """
    s = settings or SearchSettings()
    rows, beam = len(memory.valid), s.beam
    memory = memory.select(torch.arange(rows).repeat_interleave(beam))
    cache = Cache()
    start = model.config.start
    written = torch.tensor(start).repeat(rows * beam, 1)
    scores = torch.zeros(rows * beam, 0)  # cumulative log-probability after each token
    finished: list[list[Hypothesis]] = [[] for _ in range(rows)]
    live = list(range(rows))  # the row of each block of `beam` beams

    for step in range(s.max_length + 1):
        states = model.decode(written[:, -1:] if step else written, memory, cache=cache)
        logits = model.logits(states[:, -1]).float() / s.temperature
        if constraints is not None:
            logits = _limit(
                logits,
                written[:, len(start) :],
                [constraints[row] for row in live],
                [_prefix(prefixes, row) for row in live],
                beam,
            )
        log_p = logits.log_softmax(-1)
        forced = [_prefix(prefixes, row)[step] if step < len(_prefix(prefixes, row)) else None for row in live]
        _apply_rules(log_p, step, forced, written[:, len(start) - 1 :], s, constrained=constraints is not None)
        total = log_p if step == 0 else log_p + scores[:, -1:]
        total = total.view(len(live), beam, -1)
        if step == 0:
            total = total[:, :1]  # all beams are still the same
        best, flat = total.flatten(1).topk(min(2 * beam, total[0].numel() - 1), dim=1)
        origin, token = flat // log_p.shape[1], flat % log_p.shape[1]

        keep_beams: list[int] = []
        keep_tokens: list[int] = []
        keep_scores: list[float] = []
        next_live: list[int] = []
        for block, row in enumerate(live):
            candidates = list(zip(best[block].tolist(), origin[block].tolist(), token[block].tolist()))
            for score, k, word in candidates[:beam]:
                if word == EOS and score != float("-inf") and len(finished[row]) < beam:
                    at = block * beam + k
                    finished[row].append(_finish(written[at, len(start) :], scores[at], score, step, s))
            if len(finished[row]) >= beam or step == s.max_length:
                continue
            # A place among the beams goes to the best that do not end here; eos is only kept out where there are enough others.
            going_on = sorted((c[2] == EOS or c[0] == float("-inf"), rank) for rank, c in enumerate(candidates))[:beam]
            chosen = [candidates[rank] for _, rank in going_on]
            if going_on[0][0] or len(chosen) < beam:
                continue  # nothing can follow: what is finished is all there is
            next_live.append(row)
            for ended, (score, k, word) in zip((ended for ended, _ in going_on), chosen):
                keep_beams.append(block * beam + k)
                keep_tokens.append(word)
                keep_scores.append(float("-inf") if ended else score)
        if not next_live:
            break
        index = torch.tensor(keep_beams)
        if len(next_live) < len(live) or beam > 1:
            cache.select(index)
            memory = memory.select(index)
        written = torch.cat([written[index], torch.tensor(keep_tokens)[:, None]], dim=1)
        scores = torch.cat([scores[index], torch.tensor(keep_scores)[:, None]], dim=1)
        live = next_live
    return [sorted(hypotheses, key=lambda hypothesis: -hypothesis.score) for hypotheses in finished]


def score_answers(model: UnifiedModel, memory: Memory, answers: Sequence[Sequence[Sequence[int]]]) -> list[Tensor]:
    """Log-probability float[number of answers] that each row of the memory gives to each of its answers, eos included; nothing renormalised."""
    rows = torch.tensor([row for row, given in enumerate(answers) for _ in given])
    flat = [[*answer, EOS] for given in answers for answer in given]
    longest = max(map(len, flat))
    target = torch.full((len(flat), longest), PAD)
    for index, answer in enumerate(flat):
        target[index, : len(answer)] = torch.tensor(answer)
    start = model.config.start
    ids = torch.cat([torch.tensor(start).repeat(len(flat), 1), target[:, :-1]], dim=1)
    with torch.no_grad():
        log_p = model.logits(model.decode(ids, memory.select(rows))[:, len(start) - 1 :]).float().log_softmax(-1)
    token_scores = log_p.gather(-1, target[..., None])[..., 0].masked_fill(target == PAD, 0.0)
    return list(token_scores.sum(1).split([len(given) for given in answers]))


def _apply_rules(
    log_p: Tensor, step: int, forced: list[int | None], written: Tensor, s: SearchSettings, *, constrained: bool
) -> None:
    """The published search's rules, in place and in its order: prefix, shortest length, pad, unknown words, longest length, repeats."""
    beam = s.beam
    for block, token in enumerate(forced):
        part = log_p[block * beam : (block + 1) * beam]
        if token is not None and step < s.max_length:
            kept = part[:, token].clone()
            part[:] = float("-inf") if constrained else (kept.min() - 1)
            part[:, token] = kept
        elif step < s.min_length:
            part[:, EOS] = float("-inf")
    log_p.nan_to_num_(nan=float("-inf"), neginf=float("-inf"))
    log_p[:, PAD] = float("-inf")
    log_p[:, UNK] -= s.unk_penalty
    if step >= s.max_length:
        ending = log_p[:, EOS].clone()
        log_p[:] = float("-inf")
        log_p[:, EOS] = ending
    if s.no_repeat_ngram and step + 1 >= s.no_repeat_ngram:
        n = s.no_repeat_ngram
        for row, ids in enumerate(written.tolist()):
            tail = tuple(ids[len(ids) - n + 1 :])
            repeats = [ids[at + n - 1] for at in range(len(ids) - n + 1) if tuple(ids[at : at + n - 1]) == tail]
            log_p[row, repeats] = float("-inf")


def _limit(
    logits: Tensor, written: Tensor, constraints: list[Constraint | None], prefixes: list[Sequence[int]], beam: int
) -> Tensor:
    """Only what each row's constraint allows keeps its logit."""
    limited = logits.clone()
    for index, ids in enumerate(written.tolist()):
        constraint, prefix = constraints[index // beam], prefixes[index // beam]
        answer = ids[len(prefix) :]
        if constraint is not None and len(ids) >= len(prefix):
            allowed = torch.from_numpy(np.ascontiguousarray(constraint.allowed(answer)))
            limited[index] = float("-inf")
            limited[index, allowed] = logits[index, allowed]
    return limited


def _prefix(prefixes: Sequence[Sequence[int]] | None, row: int) -> Sequence[int]:
    return () if prefixes is None else prefixes[row]


def _finish(written: Tensor, scores: Tensor, score: float, step: int, s: SearchSettings) -> Hypothesis:
    cumulative = [*scores.tolist(), score]
    token_scores = tuple(now - before for now, before in zip(cumulative, [0.0, *cumulative]))
    return Hypothesis(
        (*written.tolist(), EOS), score / (step + 1) ** s.length_penalty if s.normalize else score, token_scores
    )
