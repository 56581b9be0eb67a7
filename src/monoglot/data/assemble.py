"""A posed sample becomes one sequence of numbers.

Posed + prepared media -> words through the tokenizer, room for each media item -> Sequence
"""

from __future__ import annotations

from collections.abc import Sequence as List
from typing import Any

import numpy as np

from monoglot.modalities.base import Grid
from monoglot.nouns import Media, Posed, Sequence, Span, Symbols
from monoglot.text.tokenizer import Tokenizer
from monoglot.text.vocabulary import BOS, EOS, PAD

_LONGEST_TOKEN = (
    16  # characters; more than this many a token are not even looked at, so that 1 MB of text costs nothing
)


def assemble(
    posed: Posed,
    items: List[Any],
    grids: List[Grid],
    tokenizer: Tokenizer,
    *,
    source_positions: int = 1024,
    target_positions: int = 1024,
    weight: float = 1.0,
) -> Sequence:
    """Lay out the prompt in its order: `bos` stands before the first words, `eos` at the end, media wherever the prompt has them.

    Args:
        items: what `prepare` made of each Media of the prompt, in order.
        grids: how many tokens each of them needs.
        source_positions, target_positions: the longest text and answer, in tokens. The longest part of the words is cut to fit; media never are.
    """
    words = _fit(
        [_encode(part, tokenizer, source_positions) for part in posed.prompt], posed.prompt, source_positions - 2
    )
    ids: list[np.ndarray] = []
    spans: list[Span] = []
    media = iter(grids)
    length, begun = 0, False
    for part, encoded in zip(posed.prompt, words):
        if isinstance(part, Media):
            grid = next(media)
            spans.append(Span(part.modality, length, grid.length))
            piece = np.full(grid.length, PAD)
        else:
            piece = encoded if begun else np.concatenate([[BOS], encoded])
            begun = True
        ids.append(piece)
        length += len(piece)
    ids.append(np.array([EOS] if begun else [BOS, EOS]))
    given = np.concatenate(words) if posed.echo else np.zeros(0)
    given = given[: target_positions // 2]  # an answer has to fit behind it
    return Sequence(
        np.concatenate(ids).astype(np.int64),
        tuple(spans),
        tuple(items),
        _target(posed, tokenizer, target_positions - len(given)),
        weight,
        given.astype(np.int64),
        codes=posed.writes == "codes",
    )


def _target(posed: Posed, tokenizer: Tokenizer, room: int) -> np.ndarray:
    """int64[T], ending in eos; empty when there is no answer."""
    parts = (posed.target,) if isinstance(posed.target, str) else posed.target
    if not any(parts):
        return np.zeros(0, dtype=np.int64)
    # A grid of codes is never cut: the decoder has a place for each, and eos needs none.
    ids = np.concatenate([_encode(part, tokenizer, room) for part in parts])
    return np.append(ids if posed.writes == "codes" else ids[: room - 2], EOS).astype(np.int64)


def _encode(part: str | Media, tokenizer: Tokenizer, longest: int) -> np.ndarray:
    if isinstance(part, Media):
        return np.zeros(0, dtype=np.int64)
    return tokenizer.encode(part if isinstance(part, Symbols) else part[: longest * _LONGEST_TOKEN])


def _fit(words: list[np.ndarray], parts: tuple[str | Media, ...], room: int) -> list[np.ndarray]:
    """Cut the longest part of words until everything fits; symbols stay."""
    excess = sum(map(len, words)) - room
    cuttable = sorted(
        (i for i, part in enumerate(parts) if not isinstance(part, Symbols)), key=lambda i: -len(words[i])
    )
    for index in cuttable:
        if excess > 0:
            kept = max(0, len(words[index]) - excess)
            excess -= len(words[index]) - kept
            words[index] = words[index][:kept]
    return words
