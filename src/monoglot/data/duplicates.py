"""Things that are the same, or nearly: short hashes, a hash of how a picture looks, and near hashes without comparing all.

    bytes -> hash64                    picture -> look -> (64 bits, 16 colours)
    bits of all pictures -> near_pairs -> candidates -> same_colours -> near copies

Letters: N pictures, P pairs.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from itertools import combinations, pairwise
from typing import NamedTuple

import numpy as np
from PIL import Image

SIDE = 32
"""Pixels a side that a picture is reduced to before its frequencies are taken."""
LOW = 8
"""Frequencies a direction that are looked at, from 1; 8 x 8 make 64 bits."""
STRENGTH = 0.1
"""A frequency counts as present from this share of their root mean square on. In a symmetric drawing half of them are nothing
but rounding; against zero or the median, their bits would differ between two copies."""
PLAIN = 3.0
"""Standard deviation of grey, of 255, below which a picture shows too little to be told from others."""
PALETTE = 4
"""Colours a side that are kept; 4 x 4."""
COLOURS_APART = 0.1
"""Up to this difference, see `same_colours`, two pictures may be copies."""
NOISE = 4.0
"""Levels, of 255, that colours differ by anyhow; keeps two nearly grey pictures from being told apart by rounding."""
DISTANCE = 4
"""Bits, of 64, in which two pictures may differ to be compared by their colours."""


def hash64(*parts: str | bytes) -> int:
    """64 bits of BLAKE2b. Of 10 million different things, two share it with a chance of 3 in a million.

    >>> hash64("a", "bc") != hash64("ab", "c")
    True
    """
    digest = hashlib.blake2b(digest_size=8)
    for part in parts:
        data = part.encode("utf-8", "surrogatepass") if isinstance(part, str) else part
        digest.update(len(data).to_bytes(8, "little"))
        digest.update(data)
    return int.from_bytes(digest.digest(), "little")


class Look(NamedTuple):
    """How a picture looks, for comparison with others."""

    bits: int | None
    """64 bits: which low frequencies of its brightness are present; None if it is too plain."""
    colours: np.ndarray
    """uint8[48]: red, green, blue of 4 x 4 fields."""


def look(picture: Image.Image) -> Look:
    """Bits and colours of an opaque "RGB" picture.

    Source: the DCT hash of pHash (C. Zauner, "Implementation and benchmarking of perceptual image hash functions", 2010):
        32 x 32 grey, frequencies 1 to 8 of both directions. There a bit says whether a frequency is above their median,
        here whether it is above STRENGTH; the colours are ours. Measured in docs/packing.md.

    >>> look(Image.new("RGB", (64, 64), "red")).bits is None
    True
    """
    grey = np.asarray(picture.convert("L").resize((SIDE, SIDE), Image.Resampling.BOX), np.float32)
    frequencies = _COSINES @ grey @ _COSINES.T
    present = frequencies > STRENGTH * np.sqrt(np.square(frequencies).mean())
    bits = None if grey.std() < PLAIN else int.from_bytes(np.packbits(present).tobytes(), "big")
    colours = np.asarray(picture.resize((PALETTE, PALETTE), Image.Resampling.BOX), np.uint8)
    return Look(bits, colours.ravel())


_COSINES = np.cos(np.pi * np.arange(1, LOW + 1)[:, None] * (2 * np.arange(SIDE) + 1) / (2 * SIDE)).astype(np.float32)


def near_pairs(bits: np.ndarray, distance: int) -> Iterator[np.ndarray]:
    """Every pair of numbers that differ in at most `distance` of 64 bits, once.

    The bits are cut into distance + 2 bands. Two numbers that near differ in at most `distance` of these, so that two
    bands agree: for each two bands the numbers are sorted by them, and only those that agree are compared.

    Args:
        bits: uint64[N].

    Yields: int64[P, 2] in turn, the smaller number of a pair first. Time grows with N log N and the pairs that share two bands.

    Source: tables of permuted bits, G. S. Manku, A. Jain, A. Das Sarma, "Detecting near-duplicates for web crawling", 2007.

    >>> [pairs.tolist() for pairs in near_pairs(np.array([0b1111, 0, 0b0111], np.uint64), 1)]
    [[[0, 2]]]
    """
    if not 0 <= distance <= 16:
        raise ValueError(f"distance {distance} is not in 0..16")
    bits = np.ascontiguousarray(bits, np.uint64)
    edges = [round(64 * band / (distance + 2)) for band in range(distance + 3)]
    masks = [np.uint64((1 << high) - (1 << low)) for low, high in pairwise(edges)]
    for one, other in combinations(range(len(masks)), 2):
        key = bits & (masks[one] | masks[other])
        order = np.argsort(key)
        key = key[order]
        left, step = np.arange(len(bits)), 0
        while True:
            step += 1  # each number against the one so many places behind it, as long as both agree
            left = left[: np.searchsorted(left, len(bits) - step)]
            left = left[key[left] == key[left + step]]
            if not len(left):
                break
            pairs = np.stack([order[left], order[left + step]], axis=1)
            differing = bits[pairs[:, 0]] ^ bits[pairs[:, 1]]
            near = count_ones(differing) <= distance
            for band in range(other):
                if band != one:  # these agree in an earlier table too
                    near &= (differing & masks[band]) != 0
            if near.any():
                yield np.sort(pairs[near], axis=1)


def count_ones(numbers: np.ndarray) -> np.ndarray:
    """How many bits of each are 1: uint64[n] -> uint64[n].

    >>> count_ones(np.array([0, 7, 2**64 - 1], np.uint64)).tolist()
    [0, 3, 64]
    """
    one, two, four = (np.uint64(shift) for shift in (1, 2, 4))
    pairs, nibbles, octets, ones = (
        np.uint64(mask) for mask in (0x5555555555555555, 0x3333333333333333, 0x0F0F0F0F0F0F0F0F, 0x0101010101010101)
    )
    counts = numbers - ((numbers >> one) & pairs)
    counts = (counts & nibbles) + ((counts >> two) & nibbles)
    counts = (counts + (counts >> four)) & octets
    return (counts * ones) >> np.uint64(56)


def same_colours(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """bool[P]: whether two pictures have much the same colours in the same places, brightness and contrast aside.

    Each picture's mean colour is taken off; what is left of their difference is compared with what is left of both.

    Args:
        a, b: uint8[P, 48], as `look` gives them.
    """
    a, b = (colours.reshape(len(colours), -1, 3).astype(np.float32) for colours in (a, b))
    a, b = a - a.mean(axis=1, keepdims=True), b - b.mean(axis=1, keepdims=True)
    apart, of_a, of_b = (np.sqrt(np.square(rest).mean(axis=(1, 2))) for rest in (a - b, a, b))
    return apart <= COLOURS_APART * (of_a + of_b + NOISE)
