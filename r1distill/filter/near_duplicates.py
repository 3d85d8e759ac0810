"""Texts that nearly repeat an earlier one, a million at a time: MinHash signatures, banded, in a few hundred bytes a text.

A signature is made of one text alone, so that any number of processes makes the same; `repeats` then reads all of them in
the order of the rows. Similarity is the Jaccard similarity of the sets of word 5-grams, estimated from 128 MinHash values, of
which one byte each is kept (b-bit minwise hashing, https://arxiv.org/abs/0910.3349): at 0.8 the standard error is 0.036.
Texts with the same words have 1 exactly, others less. `python scripts/bench/contamination.py` measures it.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b

import numpy as np
import pyarrow as pa
from rensa import RMinHash  # pyright: ignore[reportAttributeAccessIssue] - a compiled module without stubs

from r1distill.duplicates import MAX_COMPARED, SEED, SHINGLE_WORDS
from r1distill.filter.gram_table import Integers, gram_hashes, joined, mixed, starts_of
from r1distill.filter.normalise import DRAWING, is_number, tokens, whole_text
from r1distill.records import Problem

SIMILAR_TRACES = 0.8
PERMUTATIONS = 128
BANDS, ROWS = 16, 4  # pairs of similarity 0.7 meet with a probability of 98.8 %, those of 0.8 99.98 %
SIGNATURE_BYTES = 2 * 8 + PERMUTATIONS + BANDS * 8
SIGNATURE = pa.binary(SIGNATURE_BYTES)  # of one text, as it goes from the process that made it to the one that compares
BYTES_AT_ONCE = 1 << 18  # of texts: the arrays, of eight bytes each, stay in the cache
EQUAL_BY_CHANCE = 1 / 256  # the bytes of two different values
PRIME = 0x9E3779B97F4A7C15  # odd, so that it has an inverse modulo 2^64
# what a byte of UTF-8 is in a word: itself, lower case; 0 between words. Bytes beyond ASCII are letters.
LETTERS = np.array(
    [
        byte if byte >= 128 or chr(byte).isalnum() else 0
        for byte in (ord(chr(b).lower()) if b < 128 else b for b in range(256))
    ],
    np.uint64,
)


@dataclass(frozen=True, slots=True)
class Signatures:
    """Of N texts. `exact` (N, 2) uint64 is equal where the words are; a text without words is like no other."""

    exact: Integers
    values: Integers  # (N, PERMUTATIONS) uint8
    bands: Integers  # (N, BANDS) uint64: texts that share one are compared

    def __len__(self) -> int:
        return len(self.exact)


def together(parts: Iterable[Signatures]) -> Signatures:
    """The signatures of all parts, in their order."""
    all_parts = list(parts)
    return Signatures(*(np.concatenate([getattr(part, name) for part in all_parts]) for name in Signatures.__slots__))


def apart(found: Signatures, groups: Sequence[str]) -> Signatures:
    """The same, but that texts of two groups `(N,)` share nothing; those of the group "" are compared with one another."""
    keys = np.array([hash_of(group) if group else 0 for group in groups], np.uint64)
    is_in_one = ((keys > 0) & (found.exact[:, 0] > 0))[:, None]  # a text without words stays one
    exact, bands = (np.where(is_in_one, mixed(part + keys[:, None]), part) for part in (found.exact, found.bands))
    return Signatures(exact, found.values, bands)


def packed(found: Signatures) -> pa.Array:
    """As a column of SIGNATURE."""
    parts = [np.ascontiguousarray(part).view(np.uint8) for part in (found.exact, found.values, found.bands)]
    rows = np.hstack([part.reshape(len(found), -1) for part in parts]) if len(found) else np.zeros(0, np.uint8)
    return pa.FixedSizeBinaryArray.from_buffers(SIGNATURE, len(found), [None, pa.py_buffer(np.ascontiguousarray(rows))])


def unpacked(column: pa.ChunkedArray) -> Signatures:
    """Of a column of SIGNATURE."""
    rows = np.frombuffer(b"".join(column.to_pylist()), np.uint8).reshape(len(column), SIGNATURE_BYTES)
    exact, values, bands = np.split(rows, [16, 16 + PERMUTATIONS], axis=1)
    return Signatures(np.ascontiguousarray(exact).view(np.uint64), values, np.ascontiguousarray(bands).view(np.uint64))


# ------------------------------------------------------------ signatures


def trace_signatures(texts: Sequence[str]) -> Signatures:
    """Of long texts. A word is a run of letters and digits, without case; no Python object is made of it."""
    parts: list[Signatures] = []
    batch: list[bytes] = []
    size = 0
    for text in texts:
        batch.append(text.encode(errors="replace"))
        size += len(batch[-1])
        if size > BYTES_AT_ONCE:
            parts.append(signatures(*word_hashes(batch)))
            batch, size = [], 0
    return together([*parts, signatures(*word_hashes(batch))])


def problem_signatures(problems: Sequence[Problem]) -> Signatures:
    """Of problems in the normal form. Those of another kind, with other numbers, or with a drawing never share a band."""
    words = [tokens(whole_text(problem)) for problem in problems]
    hashes, ends = joined([[hash_of(word) for word in each] for each in words], np.uint64)
    keys = [
        hash_of(
            "\n".join([problem.kind, *filter(is_number, each), problem.id if DRAWING.search(problem.problem) else ""])
        )
        for problem, each in zip(problems, words, strict=True)
    ]
    return signatures(hashes, ends, np.array(keys, np.uint64))


def hash_of(text: str) -> int:
    """64 bits that are the same in every process."""
    return int.from_bytes(blake2b(text.encode(errors="replace"), digest_size=8).digest())


def word_hashes(texts: Sequence[bytes]) -> tuple[Integers, Integers]:
    """(a hash of each word of UTF-8 texts (W,) uint64, where the words of each text end (N,)).

    The hash of a word is a polynomial in its bytes, taken from the differences of a running sum modulo 2^64.
    """
    joined_bytes = np.frombuffer(b" ".join([*texts, b""]), np.uint8)  # a space behind each
    letters = LETTERS[joined_bytes]
    is_letter = letters > 0
    edges = np.flatnonzero(is_letter[1:] != is_letter[:-1]) + 1
    if len(is_letter) and is_letter[0]:
        edges = np.concatenate([[0], edges])
    starts, stops = edges[::2], edges[1::2]
    size = 1 << len(letters).bit_length()
    sums = np.zeros(len(letters) + 1, np.uint64)
    np.cumsum(letters * powers_of(PRIME, size)[: len(letters)], out=sums[1:])
    hashes = mixed((sums[stops] - sums[starts]) * powers_of(pow(PRIME, -1, 2**64), size)[starts])
    text_ends = np.cumsum([len(text) + 1 for text in texts])
    return hashes, np.searchsorted(starts, text_ends)


@lru_cache(maxsize=4)
def powers_of(base: int, count: int) -> Integers:
    """base⁰, base¹, … modulo 2^64."""
    powers = np.full(count, base, np.uint64)
    powers[:1] = 1
    return np.cumprod(powers, dtype=np.uint64)


def signatures(words: Integers, ends: Integers, keys: Integers | None = None) -> Signatures:
    """Of texts by the hashes of their words, (W,) and where each ends (N,); texts with other `keys` (N,) share no band.

    A text of fewer words than a 5-gram is one by itself.
    """
    ends = np.asarray(ends, np.int64)
    lengths = np.diff(ends, prepend=0)
    keys = np.zeros(len(ends), np.uint64) if keys is None else keys
    sums = np.concatenate([np.zeros((1, 2), np.uint64), np.cumsum(order_matters(words, ends), axis=0, dtype=np.uint64)])
    exact = mixed(sums[ends] - sums[ends - lengths] + keys[:, None])
    starts = starts_of(ends, SHINGLE_WORDS)
    shingles = gram_hashes(words, SHINGLE_WORDS)[starts] if len(starts) else np.zeros(0, np.uint64)
    is_short = lengths < SHINGLE_WORDS
    last = np.searchsorted(starts, ends)  # where the shingles of each text end
    shingles = np.insert(shingles, last[is_short], exact[is_short, 0])
    offsets = np.concatenate([[0], last + np.cumsum(is_short)]).astype(np.uint64)
    matrix = RMinHash.digest_matrix_from_flat_token_hashes(shingles, offsets, PERMUTATIONS, SEED)
    digests = np.array(matrix.to_rows(), np.uint64).reshape(len(ends), PERMUTATIONS)
    flat = digests[:, : BANDS * ROWS].reshape(-1, ROWS)
    bands = np.zeros(len(flat), np.uint64)
    for column in range(ROWS):
        bands = mixed(bands ^ flat[:, column])
    bands = mixed(bands.reshape(-1, BANDS) + keys[:, None] + np.arange(BANDS, dtype=np.uint64))
    empty = np.flatnonzero(lengths == 0)
    exact[empty, 0] = bands[empty, 0] = 0
    return Signatures(exact, (digests & np.uint64(255)).astype(np.uint8), bands)


def order_matters(words: Integers, ends: Integers) -> Integers:
    """(W, 2) for each word of a text a number of the word and of its place in the text."""
    lengths = np.diff(ends, prepend=0)
    place = np.arange(len(words)) - np.repeat(ends - lengths, lengths)
    first = mixed(words ^ mixed(place))
    return np.stack([first, mixed(first)], axis=1)


# ------------------------------------------------------------ who repeats whom


def repeats(found: Signatures, similar: float = SIMILAR_TRACES) -> tuple[Integers, Integers]:
    """(the row that each row repeats (N,) int64, -1 for none; how similar they are (N,) float64, 0 for none).

    A row repeats the most similar earlier row that repeats none itself, the first of several: chains do not grow, and
    the result depends on the order of the rows alone. At most MAX_COMPARED candidates of a row are compared, those
    that it shares most bands with first.
    """
    count = len(found)
    original = np.full(count, -1, np.int64)
    similarity = np.zeros(count)
    is_empty = found.exact[:, 0] == 0
    _, first, group = np.unique(found.exact, axis=0, return_index=True, return_inverse=True)
    first = first[group.reshape(-1)]
    same = (first != np.arange(count)) & ~is_empty
    original[same], similarity[same] = first[same], 1.0
    groups = shared_bands(found.bands, ~same & ~is_empty)
    members: defaultdict[int, list[int]] = defaultdict(list)
    for row in np.flatnonzero((groups >= 0).any(axis=1)).tolist():
        keys = [key for key in groups[row].tolist() if key >= 0]
        common = Counter(other for key in keys for other in members[key])
        candidates = np.array(sorted(common, key=lambda other: (-common[other], other))[:MAX_COMPARED], np.int64)
        if len(candidates):
            equal = (found.values[candidates] == found.values[row]).mean(axis=1)
            estimates = np.clip((equal - EQUAL_BY_CHANCE) / (1 - EQUAL_BY_CHANCE), 0, 0.9999)
            best = estimates.max()
            if best >= similar:
                original[row], similarity[row] = candidates[estimates == best].min(), best
                continue
        for key in keys:
            members[key].append(row)
    # what repeats a row with the same words repeats what that one does
    follows = same & (original[first] >= 0)
    similarity[follows], original[follows] = similarity[first[follows]], original[first[follows]]
    return original, np.round(similarity, 4)


def shared_bands(bands: Integers, taken: Integers) -> Integers:
    """(N, BANDS) int64: one number for rows that share a band, -1 where a row is alone or not `taken`."""
    groups = np.full(bands.shape, -1, np.int64)
    rows = np.flatnonzero(taken)
    for band in range(bands.shape[1]):
        _, group, counts = np.unique(bands[rows, band], return_inverse=True, return_counts=True)
        several = counts[group] > 1
        groups[rows[several], band] = band * len(bands) + group[several]
    return groups
