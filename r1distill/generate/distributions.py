"""Sparse next-token distributions: of each token of a trace the likeliest tokens that hold nearly all of the mass.

A row ends with the token that brings its mass to MASS, or with the last that is known; it has between LEAST and MOST
entries. The token that was sampled is put behind them where it is not among them. All logprobs are at temperature 1 and
not renormalised, so that the mass outside is one minus their sum.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

MASS = 0.999
LEAST = 4
MOST = 64


@dataclass(frozen=True, slots=True, eq=False)
class SparseRows:
    """Of T tokens: row t has `lengths[t]` entries, one row behind the other in `ids` and `logprobs`, the likeliest first.

    `lengths (T,)` uint16; `ids` int32 and `logprobs` float32 `(lengths.sum(),)`. A row of a token that was put in and not
    sampled is empty.
    """

    lengths: NDArray[np.uint16]
    ids: NDArray[np.int32]
    logprobs: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, part: slice) -> "SparseRows":
        ends = np.concatenate([[0], np.cumsum(self.lengths, dtype=np.int64)])
        first, last, step = part.indices(len(self))
        if step != 1:
            raise ValueError(f"a step of {step}: rows are taken one after another")
        inside = slice(ends[first], ends[max(first, last)])
        return SparseRows(self.lengths[part], self.ids[inside], self.logprobs[inside])

    def to_bytes(self) -> bytes:
        head = np.array([len(self)], dtype="<u4").tobytes()
        parts = (self.lengths.astype("<u2"), self.ids.astype("<i4"), self.logprobs.astype("<f4"))
        return head + b"".join(part.tobytes() for part in parts)

    @classmethod
    def from_bytes(cls, data: bytes) -> "SparseRows":
        [tokens] = np.frombuffer(data, dtype="<u4", count=1)
        lengths = np.frombuffer(data, dtype="<u2", offset=4, count=tokens)
        n = int(lengths.sum(dtype=np.int64))
        ids = np.frombuffer(data, dtype="<i4", offset=4 + lengths.nbytes, count=n)
        return cls(lengths, ids, np.frombuffer(data, dtype="<f4", offset=4 + lengths.nbytes + ids.nbytes, count=n))


def empty_rows(n: int) -> SparseRows:
    return SparseRows(np.zeros(n, np.uint16), np.zeros(0, np.int32), np.zeros(0, np.float32))


def joined_rows(parts: Sequence[SparseRows]) -> SparseRows:
    """One after another."""
    return SparseRows(
        np.concatenate([part.lengths for part in parts]),
        np.concatenate([part.ids for part in parts]),
        np.concatenate([part.logprobs for part in parts]),
    )


def sparse_rows(
    ids: NDArray[np.integer],
    logprobs: NDArray[np.floating],
    sampled_ids: NDArray[np.integer],
    sampled_logprobs: NDArray[np.floating],
) -> SparseRows:
    """From the top k of each token, `ids` and `logprobs` `(T, K)` in any order, and the sampled ones `(T,)`.

    A logprob of -inf or NaN is no entry.
    """
    order = np.argsort(-logprobs, axis=1, kind="stable")
    ids, logprobs = np.take_along_axis(ids, order, axis=1), np.take_along_axis(logprobs, order, axis=1)
    mass = np.exp(np.minimum(logprobs.astype(np.float64), 0.0))
    before = np.cumsum(mass, axis=1) - mass
    place = np.arange(logprobs.shape[1])
    wanted = (mass > 0) & (place < MOST) & ((before < MASS) | (place < LEAST))
    sampled_mass = np.nan_to_num(np.exp(sampled_logprobs.astype(np.float64)))
    missing = (sampled_mass > 0) & ~((ids == sampled_ids[:, None]) & wanted).any(axis=1)
    ids, logprobs = np.column_stack([ids, sampled_ids]), np.column_stack([logprobs, sampled_logprobs])
    wanted = np.column_stack([wanted, missing])
    return SparseRows(
        wanted.sum(axis=1).astype(np.uint16),
        ids[wanted].astype(np.int32),
        np.minimum(logprobs[wanted], 0.0).astype(np.float32),
    )
