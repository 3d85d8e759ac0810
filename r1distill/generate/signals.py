"""What the sampled logprobs say of a trace: mean logprob and token entropy.

From the top k logprobs only bounds of the entropy can be had. With e the mass outside the top k, lp_k the smallest
logprob inside and V the vocabulary, the tail adds between max(-e ln e, -e lp_k) and -e ln(e / (V - k)) nats: at least
as much as if it were one token (and no tail token is likelier than the k-th), at most as if it were spread evenly.
All logprobs are those of the model at temperature 1 (vLLM's `raw_logprobs`), whatever the sampling temperature.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Signals:
    """Of one trace. Entropies in nats, bounds as in the module's docstring; the 95th percentile is of the lower one."""

    logprobs: int
    mean_logprob: float
    mean_entropy_nats: float
    mean_entropy_upper_nats: float | None
    p95_entropy_nats: float


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


def summarise(
    sampled_logprobs: NDArray[np.floating], top_logprobs: NDArray[np.floating], vocabulary: int | None
) -> Signals | None:
    """The signals of a trace from `sampled_logprobs (T,)` and `top_logprobs (T, K)`; None for an empty trace.

    A token whose logprob is not known (NaN, -inf, vLLM's -9999) is left out.
    """
    sampled = np.minimum(sampled_logprobs.astype(np.float64), 0.0)
    known = np.exp(sampled) > 0
    if not known.any():
        return None
    lower, upper = entropy_bounds(top_logprobs[known], vocabulary)
    return Signals(
        logprobs=top_logprobs.shape[1],
        mean_logprob=float(sampled[known].mean()),
        mean_entropy_nats=float(lower.mean()),
        mean_entropy_upper_nats=None if upper is None else float(upper.mean()),
        p95_entropy_nats=float(np.percentile(lower, 95)),
    )
