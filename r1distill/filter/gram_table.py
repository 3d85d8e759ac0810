"""Hashes of word n-grams, and a table that finds where a given n-gram occurs: numpy arrays only, and exact.

A hash finds a place; the words there are then compared, so that two n-grams with one hash never pass for each other.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

Integers = np.ndarray
LONGEST = 64  # words of an n-gram
PLACES_A_GRAM = 16  # of the bitmap, so that it passes one in sixteen of the n-grams that the table does not have
# odd, one for each place in an n-gram
MULTIPLIERS = np.random.default_rng(1).integers(0, 2**63, LONGEST, dtype=np.uint64) * np.uint64(2) + np.uint64(1)


def mixed(numbers: Integers) -> Integers:
    """Splitmix64's finaliser: uint64 → uint64, one to one (https://prng.di.unimi.it/splitmix64.c)."""
    z = numbers.astype(np.uint64) + np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def gram_hashes(words: Integers, length: int) -> Integers:
    """Of every run of `length` words: (N,) uint64, well mixed each, → (N - length + 1,) uint64; none of fewer words."""
    count = max(len(words) - length + 1, 0)
    hashes = np.zeros(count, np.uint64)
    for place in range(length):
        hashes += words[place : place + count] * MULTIPLIERS[place]
    return mixed(hashes)


def starts_of(ends: Integers, length: int) -> Integers:
    """Where a run of `length` words begins that lies in one text; `ends` (T,) is where each of the texts ends."""
    ends = np.asarray(ends, np.int64)
    lengths = np.diff(ends, prepend=0)
    remaining = np.repeat(ends, lengths) - np.arange(ends[-1] if len(ends) else 0)
    return np.flatnonzero(remaining >= length)


def ranges(firsts: Integers, counts: Integers) -> Integers:
    """first, first + 1, … for each of `firsts`, `counts` of them, one after the other."""
    ends = np.cumsum(counts)
    total = int(ends[-1]) if len(ends) else 0
    return np.arange(total) + np.repeat(firsts - (ends - counts), counts)


@dataclass(frozen=True, slots=True)
class GramTable:
    """Where the n-grams of some texts begin, as places in the words of all texts, one after the other.

    `hashes` (G,) uint64 are sorted and distinct; those of hash i begin at `places[firsts[i]:firsts[i + 1]]`.
    """

    length: int
    words: Integers  # (W,) ids of the words of all texts
    hashes: Integers
    firsts: Integers
    places: Integers
    bitmap: Integers  # by the first bits of a hash, `shift` off

    @property
    def shift(self) -> np.uint64:
        return np.uint64(65 - len(self.bitmap).bit_length())

    def find(self, hashes: Integers, ids: Integers, starts: Integers) -> tuple[Integers, Integers]:
        """(where in `ids`, where in the table's words) for each n-gram that both have.

        `hashes` (Q,) are those of the n-grams of `ids` that begin at `starts` (Q,).
        """
        likely = self.bitmap[hashes >> self.shift]
        hashes, starts = hashes[likely], starts[likely]
        found = np.searchsorted(self.hashes, hashes)
        found[found == len(self.hashes)] = 0
        same = self.hashes[found] == hashes if len(self.hashes) else np.zeros(0, bool)
        found, starts = found[same], starts[same]
        counts = self.firsts[found + 1] - self.firsts[found]
        places = self.places[ranges(self.firsts[found], counts)]
        starts = np.repeat(starts, counts)
        equal = np.ones(len(places), bool)
        for offset in range(self.length):
            equal &= self.words[places + offset] == ids[starts + offset]
        return starts[equal], places[equal]


def gram_table(words: Integers, starts: Integers, length: int, *, at_most: int | None = None) -> GramTable:
    """The table of the n-grams of `words` (ids) that begin at `starts`; those at more than `at_most` places are left out."""
    hashes = gram_hashes(mixed(words), length)[starts] if len(starts) else np.zeros(0, np.uint64)
    order = np.argsort(hashes, kind="stable")
    distinct, counts = np.unique(hashes, return_counts=True)
    if at_most is not None:
        order = order[np.repeat(counts <= at_most, counts)]
        distinct, counts = distinct[counts <= at_most], counts[counts <= at_most]
    firsts = np.concatenate([[0], np.cumsum(counts)])
    bitmap = np.zeros(1 << (PLACES_A_GRAM * len(distinct)).bit_length(), bool)
    table = GramTable(length, words, distinct, firsts, starts[order], bitmap)
    bitmap[distinct >> table.shift] = True
    return table


def joined(texts: Sequence[Sequence[int]], dtype: type = np.uint32) -> tuple[Integers, Integers]:
    """(the numbers of all texts one after the other, where each ends)."""
    ends = np.cumsum([len(text) for text in texts], dtype=np.int64)
    flat = np.fromiter((word for text in texts for word in text), dtype, int(ends[-1]) if len(ends) else 0)
    return flat, ends
