"""Columns of tags.parquet as arrays, and who the rows are: everything that selection computes with.

Nothing here depends on the order of the rows or on the blocks that a column lies in.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from r1distill.errors import UserError

Floats = NDArray[np.float64]
Places = NDArray[np.int64]
Flags = NDArray[np.bool_]
Draws = NDArray[np.uint64]

MISSING = -1  # the place of a text that is null
GOLDEN = np.uint64(0x9E3779B97F4A7C15)  # SplitMix64's step: 2**64 divided by the golden ratio


@dataclass(frozen=True, slots=True)
class Words:
    """A column of text: `places (N,)` in `known`, which is sorted; MISSING for null."""

    places: Places
    known: list[str]

    def of(self, rows: Flags | Places) -> "Words":
        return Words(self.places[rows], self.known)

    @property
    def n_missing(self) -> int:
        return int((self.places == MISSING).sum())


@dataclass(frozen=True, slots=True)
class Keys:
    """Who the traces are: `problem (N,)`, places in `ids`, which is sorted, and `sample (N,)`."""

    ids: list[str]
    problem: Places
    sample: Places

    def of(self, rows: Flags | Places) -> "Keys":
        return Keys(self.ids, self.problem[rows], self.sample[rows])


def keys_of(tags: pa.Table) -> Keys:
    """The identities of the rows. Raises UserError where one is missing or two are the same."""
    problems, samples = words(tags, "problem_id"), numbers(tags, "sample")
    if (problems.places == MISSING).any() or np.isnan(samples).any():
        raise UserError(
            "tags.parquet: a row without problem_id or sample; delete the file and run `r1distill filter` again"
        )
    keys = Keys(problems.known, problems.places, samples.astype(np.int64))
    order = np.lexsort((keys.sample, keys.problem))
    same = (np.diff(keys.problem[order]) == 0) & (np.diff(keys.sample[order]) == 0)
    if same.any():
        row = order[int(same.argmax())]
        raise UserError(
            f"tags.parquet: trace {keys.ids[keys.problem[row]]}/{keys.sample[row]} is there twice; "
            "delete the file and run `r1distill filter` again"
        )
    return keys


def numbers(tags: pa.Table, name: str) -> Floats:
    """A column of numbers or booleans `(N,)`; NaN where it is null. Exact up to 2**53."""
    return np.asarray(tags.column(name).cast(pa.float64(), safe=False).to_numpy(), dtype=np.float64)


def words(tags: pa.Table, name: str) -> Words:
    """A column of text, its distinct values looked at once."""
    found = tags.column(name).dictionary_encode().unify_dictionaries().combine_chunks()
    texts = found.dictionary.to_pylist()
    order = sorted(range(len(texts)), key=texts.__getitem__)
    place = np.full(len(texts) + 1, MISSING, dtype=np.int64)  # the last one is what null, -1, finds
    place[order] = np.arange(len(texts))
    return Words(place[found.indices.fill_null(MISSING).to_numpy(zero_copy_only=False)], [texts[n] for n in order])


def draws(keys: Keys, seed: int, purpose: str) -> Draws:
    """A random number for each trace `(N,)` that depends on its identity, the seed and the purpose alone.

    It is number `sample` of the SplitMix64 generator (Steele, Lea and Flood 2014, https://doi.org/10.1145/2660193.2660195)
    that starts from the SHA-256 of the three others. Each step of a selection has a purpose of its own: those that one
    step leaves have low numbers, and would be favoured by the next.
    """
    starts = [
        hashlib.sha256(f"{seed}/{purpose}/{name}".encode(errors="surrogatepass")).digest()[:8] for name in keys.ids
    ]
    start = np.frombuffer(b"".join(starts), dtype=">u8").astype(np.uint64)
    with np.errstate(over="ignore"):  # modulo 2**64 is meant
        state = start[keys.problem] + (keys.sample.astype(np.uint64) + np.uint64(1)) * GOLDEN
        state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return state ^ (state >> np.uint64(31))


def rank_within(groups: Places, order_by: Sequence[np.ndarray]) -> Places:
    """The place of each row `(N,)` among those of its group, when they are sorted by the first of `order_by`, then the next.

    NaN comes last.
    """
    order = np.lexsort((*reversed(order_by), groups))
    sorted_groups = groups[order]
    starts = np.flatnonzero(np.r_[True, sorted_groups[1:] != sorted_groups[:-1]]) if len(groups) else order
    rank = np.empty(len(groups), dtype=np.int64)
    rank[order] = np.arange(len(groups)) - np.repeat(starts, np.diff(np.r_[starts, len(groups)]))
    return rank
