"""What the sampled logprobs say of a trace: mean logprob and token entropy.

From the top k logprobs only bounds of the entropy can be had. With e the mass outside the top k, lp_k the smallest
logprob inside and V the vocabulary, the tail adds between max(-e ln e, -e lp_k) and -e ln(e / (V - k)) nats: at least
as much as if it were one token (and no tail token is likelier than the k-th), at most as if it were spread evenly.
All logprobs are those of the model at temperature 1 (vLLM's `raw_logprobs`), whatever the sampling temperature.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from r1distill.generate.distributions import SparseRows, empty_rows, joined_rows, sparse_rows

# The entropy above which a token counts as one where the reasoning forks: the 80th percentile that Wang et al. 2025
# measured over a Qwen3-8B's traces (https://arxiv.org/abs/2506.01939, section 3).
HIGH_ENTROPY_NATS = 0.672


@dataclass(frozen=True, slots=True)
class Signals:
    """Of one trace or a part of it. Entropies in nats, bounds as in the module's docstring.

    The 95th percentile and the share of tokens above HIGH_ENTROPY_NATS are of the lower bound.
    """

    logprobs: int
    mean_logprob: float
    mean_entropy_nats: float
    mean_entropy_upper_nats: float | None
    p95_entropy_nats: float
    high_entropy_share: float


@dataclass(frozen=True, slots=True, eq=False)
class TokenSignals:
    """What was measured at each sampled token: `sampled`, `lower` and, where the vocabulary is known, `upper` `(T,)`.

    `sampled` is its logprob, NaN where that is not known; then the bounds of the entropy in nats. `logprobs` is the k
    of the top k that the bounds are from. `rows` are the distributions themselves, where they are kept.
    """

    logprobs: int
    sampled: NDArray[np.float64]
    lower: NDArray[np.float64]
    upper: NDArray[np.float64] | None
    rows: SparseRows | None = None

    def __len__(self) -> int:
        return len(self.sampled)

    def __getitem__(self, part: slice) -> "TokenSignals":
        upper = None if self.upper is None else self.upper[part]
        rows = None if self.rows is None else self.rows[part]
        return TokenSignals(self.logprobs, self.sampled[part], self.lower[part], upper, rows)

    def summary(self) -> Signals | None:
        """None where there is no token of known logprob."""
        known = ~np.isnan(self.sampled)
        if not known.any():
            return None
        lower = self.lower[known]
        return Signals(
            logprobs=self.logprobs,
            mean_logprob=float(self.sampled[known].mean()),
            mean_entropy_nats=float(lower.mean()),
            mean_entropy_upper_nats=None if self.upper is None else float(self.upper[known].mean()),
            p95_entropy_nats=float(np.percentile(lower, 95)),
            high_entropy_share=float((lower > HIGH_ENTROPY_NATS).mean()),
        )

    def to_bytes(self) -> bytes:
        """Without the rows."""
        head = np.array([self.logprobs, self.upper is not None], dtype="<f8")
        arrays = [self.sampled, self.lower, *([] if self.upper is None else [self.upper])]
        return b"".join(array.astype("<f8").tobytes() for array in (head, *arrays))

    @classmethod
    def from_bytes(cls, data: bytes) -> "TokenSignals":
        values = np.frombuffer(data, dtype="<f8")
        parts = values[2:].reshape(3 if values[1] else 2, -1)
        return cls(int(values[0]), parts[0], parts[1], parts[2] if values[1] else None)


def unmeasured(n: int) -> TokenSignals:
    """Of tokens that were not sampled but put in."""
    nothing = np.full(n, np.nan)
    return TokenSignals(0, nothing, nothing, nothing)


def joined(parts: Sequence[TokenSignals]) -> TokenSignals | None:
    """One after another; the bound from above only where all of them have one. None of none."""
    if not parts:
        return None
    uppers = [part.upper for part in parts if part.upper is not None]
    has_rows = any(part.rows is not None for part in parts)
    return TokenSignals(
        max(part.logprobs for part in parts),
        np.concatenate([part.sampled for part in parts]),
        np.concatenate([part.lower for part in parts]),
        np.concatenate(uppers) if len(uppers) == len(parts) else None,
        joined_rows([empty_rows(len(part)) if part.rows is None else part.rows for part in parts])
        if has_rows
        else None,
    )


def entropy_bounds(
    top_logprobs: NDArray[np.floating], vocabulary: int | None
) -> tuple[NDArray[np.float64], NDArray[np.float64] | None]:
    """(lower, upper) entropy in nats for each token, both `(T,)`, from `top_logprobs (T, K)`.

    Missing entries are -inf. Without the size of the vocabulary there is no upper bound.
    """
    logprobs = np.minimum(top_logprobs.astype(np.float64), 0.0)
    present = np.exp(logprobs) > 0  # neither -inf, nor NaN, nor the -9999 that vLLM's server writes for -inf
    finite = np.where(present, logprobs, 0.0)
    mass = np.where(present, np.exp(finite), 0.0)
    head = -(mass * finite).sum(axis=1)
    # rounding of float32 logprobs can put the sum a little over 1
    tail = np.clip(1.0 - mass.sum(axis=1), 0.0, 1.0)
    log_tail = np.log(tail, where=tail > 0, out=np.zeros_like(tail))
    smallest = np.where(present, logprobs, np.inf).min(axis=1, initial=np.inf)
    smallest = np.where(np.isfinite(smallest), smallest, 0.0)
    lower = head + np.maximum(-tail * log_tail, -tail * smallest)
    if vocabulary is None:
        return lower, None
    outside = np.maximum(vocabulary - present.sum(axis=1), 1)
    # the bound's two sides can cross by rounding where the tail is nothing
    return lower, np.maximum(head - tail * (log_tail - np.log(outside)), lower)


def measure(
    sampled_logprobs: NDArray[np.floating],
    top_logprobs: NDArray[np.floating],
    vocabulary: int | None,
    ids: tuple[NDArray[np.integer], NDArray[np.integer]] | None = None,
) -> TokenSignals:
    """The signals at each token from `sampled_logprobs (T,)` and `top_logprobs (T, K)`.

    A logprob that is not known (NaN, -inf, vLLM's -9999) becomes NaN. With `ids`, those of the
    sampled tokens `(T,)` and of the top k `(T, K)`, the rows are kept too.
    """
    sampled = np.minimum(sampled_logprobs.astype(np.float64), 0.0)
    lower, upper = entropy_bounds(top_logprobs, vocabulary)
    return TokenSignals(
        top_logprobs.shape[1],
        np.where(np.exp(sampled) > 0, sampled, np.nan),
        lower,
        upper,
        None if ids is None else sparse_rows(ids[1], top_logprobs, ids[0], sampled_logprobs),
    )


def summarise(
    sampled_logprobs: NDArray[np.floating], top_logprobs: NDArray[np.floating], vocabulary: int | None
) -> Signals | None:
    """The signals of a whole trace; None for an empty one. Tokens of unknown logprob are left out."""
    return measure(sampled_logprobs, top_logprobs, vocabulary).summary()
