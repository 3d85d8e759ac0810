"""The teacher-entropy filter: traces whose mean token entropy is too high, or too low.

The articles keep traces with a mean entropy below 0.85 nats. Of a trace only bounds of the mean are known
(r1distill/generate/signals.py), so the answer has a third value: it is dropped where the lower bound is over the limit, kept
where the upper one is not, and "undecided" between them. What the filter is good for is the degenerate tail; ranking by low
entropy and keeping the bottom takes away the forks of the reasoning (https://arxiv.org/abs/2506.01939).
"""

from typing import Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from r1distill.filter.columns import Floats, numbers
from r1distill.filter.measures.groups import length_bins
from r1distill.filter_sections import EntropyFilter

Word = Literal["kept", "high_entropy", "low_entropy", "undecided", "unmeasured"]
PREFIX = {"sequence": "", "thinking": "thinking_", "answer": "answer_"}


def filter_of(max_mean_entropy_nats: float, entropy: EntropyFilter | None) -> EntropyFilter | None:
    """[filter.entropy], or what `filter.max_mean_entropy_nats` says in its place: an upper limit, 0 for none."""
    if entropy is not None or not max_mean_entropy_nats:
        return entropy
    return EntropyFilter(max_nats=max_mean_entropy_nats)


def entropy_words(tags: pa.Table, settings: EntropyFilter, exact: Floats | None = None) -> NDArray[np.str_]:
    """A Word for each trace `(N,)`: kept, the reason to drop it, undecided, or unmeasured, which is no reason to drop.

    `tags` has the columns of tags.parquet: the bounds of the scope, and `source` and `n_tokens` where bins are asked for.
    `exact (N,)`: mean entropies in nats where they were scored again, NaN elsewhere.
    """
    prefix = PREFIX[settings.scope]
    lower = numbers(tags, f"{prefix}mean_entropy_nats")
    name = f"{prefix}mean_entropy_upper_nats"
    upper = numbers(tags, name) if name in tags.column_names else np.full(len(lower), np.nan)
    if exact is not None:
        lower, upper = np.where(np.isnan(exact), lower, exact), np.where(np.isnan(exact), upper, exact)
    bins = None
    if settings.mode in ("percentile", "z_score") and settings.within == "bin":
        bins = length_bins(tags["source"].to_pylist(), numbers(tags, "n_tokens"))
        bins = large_bins(bins, ~np.isnan(lower), settings.smallest_bin)
    words = decide(lower, upper, settings, bins)
    if settings.undecided == "lower_bound":
        words = np.where(words == "undecided", decide(lower, lower, settings, bins), words)
    return words


def decide(lower: Floats, upper: Floats, settings: EntropyFilter, bins: NDArray[np.int64] | None) -> NDArray[np.str_]:
    """A Word for each trace from the bounds of its mean entropy, both `(N,)` in nats, NaN where not known.

    `bins (N,)`: with which traces it is compared; None for all of them.
    """
    if settings.mode == "z_score":
        # Of the lower bounds, the nearer ones: bounds of a z-score would need bounds of the mean and of the deviation.
        z = z_scores(lower, bins)
        low = -np.inf if settings.min_z is None else settings.min_z
        return by_limits(z, z, (low, low), (settings.max_z, settings.max_z))
    if settings.mode != "percentile":
        low = settings.min_nats if settings.mode == "two_sided" else -np.inf
        return by_limits(lower, upper, (low, low), (settings.max_nats, settings.max_nats))
    low = percentile_bounds(lower, upper, settings.min_percentile, bins)
    if not settings.min_percentile:
        low = (-np.inf, -np.inf)
    return by_limits(lower, upper, low, percentile_bounds(lower, upper, settings.max_percentile, bins))


def by_limits(
    lower: Floats,
    upper: Floats,
    low: tuple[Floats | float, Floats | float],
    high: tuple[Floats | float, Floats | float],
) -> NDArray[np.str_]:
    """A Word for each value that is known by its bounds `(N,)`, against limits that are known by theirs. A limit is allowed.

    An unknown upper bound is infinity; an unknown lower one means that nothing was measured.
    """
    measured = ~np.isnan(lower)
    upper = np.where(np.isnan(upper), np.inf, upper)
    return np.select(
        [~measured, lower > high[1], upper < low[0], (upper <= high[0]) & (lower >= low[1])],
        ["unmeasured", "high_entropy", "low_entropy", "kept"],
        "undecided",
    )


def percentile_bounds(
    lower: Floats, upper: Floats, percentile: float, bins: NDArray[np.int64] | None
) -> tuple[Floats, Floats]:
    """Bounds of a percentile of the true values, from the bounds of each `(N,)`; `(N,)` each, the same within a bin.

    The percentile p of n values is the k-th smallest, k = ceil(p n / 100). It grows with each value, so the k-th smallest
    lower bound is no larger than it and the k-th smallest upper bound no smaller, and no closer bounds hold in general.
    """
    measured = ~np.isnan(lower)
    upper = np.where(np.isnan(upper), np.inf, upper)
    least, most = np.full(len(lower), np.nan), np.full(len(lower), np.nan)
    for rows, others in comparisons(bins, len(lower)):
        known = others[measured[others]]
        if len(known):
            k = max(int(np.ceil(percentile * len(known) / 100)), 1) - 1
            least[rows] = np.partition(lower[known], k)[k]
            most[rows] = np.partition(upper[known], k)[k]
    return least, most


def z_scores(values: Floats, bins: NDArray[np.int64] | None) -> Floats:
    """(x - mean) / standard deviation within each bin `(N,)`; 0 where all are equal, NaN stays."""
    z = np.full(len(values), np.nan)
    for rows, others in comparisons(bins, len(values)):
        known = values[others][~np.isnan(values[others])]
        if len(known):
            # the mean of equal numbers can differ from them by rounding
            equal = known.max() == known.min()
            z[rows] = (values[rows] - known.mean()) / known.std() if not equal else values[rows] * 0.0
    return z


def large_bins(bins: NDArray[np.int64], measured: NDArray[np.bool_], smallest: int) -> NDArray[np.int64]:
    """The bins `(N,)`, but -1, which is compared with the whole run, for those with fewer than `smallest` measured traces."""
    sizes = np.bincount(bins, weights=measured, minlength=1)
    return np.where(sizes[bins] < smallest, -1, bins)


def comparisons(bins: NDArray[np.int64] | None, n: int) -> list[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """(rows, the rows with which they are compared, themselves included), for each bin; all rows are in one without bins."""
    everything = np.arange(n)
    if bins is None or not n:
        return [(everything, everything)]
    order = np.argsort(bins, kind="stable")
    groups = np.split(order, np.flatnonzero(np.diff(bins[order])) + 1)
    return [(rows, everything if bins[rows[0]] < 0 else rows) for rows in groups]
