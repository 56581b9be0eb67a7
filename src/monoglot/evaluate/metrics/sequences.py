"""Two sequences, one number: edit distance and longest common subsequence, a whole column at a time in one big integer.

Bit i of every mask stands for item i of the first sequence, so a step costs a few integer operations, not len(first).
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence


def edit_distance(first: Sequence[Hashable], second: Sequence[Hashable]) -> int:
    """Fewest insertions, deletions and substitutions that turn one into the other (Levenshtein).

    Source: Myers, "A fast bit-vector algorithm for approximate string matching", J. ACM 46 (1999), in the form
    of Hyyrö, "A bit-vector algorithm for computing Levenshtein and Damerau edit distances" (2003).

    >>> edit_distance("kitten", "sitting")
    3
    """
    if not first:
        return len(second)
    where = _positions(first)
    every, last = (1 << len(first)) - 1, 1 << (len(first) - 1)
    rises, falls = every, 0  # bit i: the distance grows (shrinks) by one from row i to row i + 1 of this column
    distance = len(first)
    for item in second:
        match = where.get(item, 0)
        diagonal = (((match & rises) + rises) ^ rises) | match | falls
        grows, shrinks = falls | (every & ~(diagonal | rises)), rises & diagonal  # the same from column to column
        distance += bool(grows & last) - bool(shrinks & last)
        grows, shrinks = (grows << 1) | 1, shrinks << 1
        rises, falls = (shrinks | ~(diagonal | grows)) & every, grows & diagonal & every
    return distance


def common_length(first: Sequence[Hashable], second: Sequence[Hashable]) -> int:
    """Length of the longest common subsequence.

    >>> common_length("a man rides a wave".split(), "a wave a man".split())
    2
    """
    return common_lengths(first, [second])[0]


def common_lengths(first: Sequence[Hashable], others: Sequence[Sequence[Hashable]]) -> list[int]:
    """Length of the longest subsequence that `first` shares with each of the others.

    Source: Hyyrö, "Bit-parallel LCS-length computation revisited" (2004).
    """
    where = _positions(first)
    every = (1 << len(first)) - 1
    lengths = []
    for other in others:
        row = every  # a zero bit for each item of the subsequence found so far
        for item in other:
            if match := where.get(item, 0):
                match &= row
                row = ((row + match) | (row - match)) & every
        lengths.append(len(first) - row.bit_count())
    return lengths


def _positions(sequence: Sequence[Hashable]) -> dict[Hashable, int]:
    """Item -> mask of the places where it stands."""
    masks: dict[Hashable, int] = {}
    for index, item in enumerate(sequence):
        masks[item] = masks.get(item, 0) | (1 << index)
    return masks
