"""The pools of the kept traces: diverse, quality and hard, the column `pools` that [train.curriculum] draws from.

Percentiles are among the kept traces, so that no pool of what was measured is empty. A trace may be in several pools. One
that would be in none that the curriculum draws from is in the pool whose limit it is nearest to, since the training would
never read it otherwise; or in `rest`, where the curriculum draws from that, or where there is none.
"""

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from r1distill.errors import UserError
from r1distill.filter.clusters import known_clusters, places_in_groups
from r1distill.filter.columns import numbers, words
from r1distill.filter.quality import category_counts
from r1distill.filter_sections import Pools
from r1distill.train_sections import Curriculum

Floats = NDArray[np.float64]
POOLS = ("diverse", "quality", "hard")
REST = "rest"


def pools_column(
    tags: pa.Table, kept: NDArray[np.bool_], settings: Pools, category: str, curriculum: Curriculum | None
) -> pa.Array:
    """The names of the pools of each trace, a list `(N,)`; none for those that are not kept.

    `tags` has problem_id, sample, n_tokens, pass_rate, quality, cluster and `category`. Raises UserError for a curriculum
    that draws from a pool of another name.
    """
    read = read_pools(curriculum)
    rows = np.flatnonzero(kept)
    nearness = nearness_of(tags.take(pa.array(rows)), settings, category)
    member = nearness >= 1
    is_read = np.array([name in read for name in POOLS])
    lost = (member & is_read).sum(axis=1) == 0
    rest = lost if REST in read else np.zeros_like(lost)
    if REST not in read:
        nearest = np.where(is_read, nearness, -np.inf).argmax(axis=1)
        member[lost, nearest[lost]] = True
    names: list[list[str]] = [[] for _ in range(len(kept))]
    for row, its, is_rest in zip(rows.tolist(), member.tolist(), rest.tolist(), strict=True):
        names[row] = [name for name, is_in in zip(POOLS, its, strict=True) if is_in] + [REST] * bool(is_rest)
    return pa.array(names, pa.list_(pa.string()))


def read_pools(curriculum: Curriculum | None) -> set[str]:
    """The pools from which training draws; without a curriculum all, and nothing has to be in a pool."""
    if curriculum is None:
        return {*POOLS, REST}
    read = {name for phase in curriculum.phases for name in phase.mix}
    if unknown := sorted(read - {*POOLS, REST}):
        raise UserError(
            f'train.curriculum.phases draws from the pool "{unknown[0]}", and [filter.pools] makes {", ".join(POOLS)} and '
            f"{REST}; correct the name, or take [filter.pools] out and write the column yourself"
        )
    return read


def nearness_of(tags: pa.Table, settings: Pools, category: str) -> Floats:
    """How near each trace is to each of POOLS, `(N, 3)`: at least 1 in it, else the share of the way there, below 1; -1 unknown.

    diverse: 1 / place in its group, or the even share divided by the share of its category. quality: its rank divided by
    that of the limit. hard: the larger of the two, by pass rate (1 - rate) / (1 - limit) and by length as by quality.
    """
    pass_rate = numbers(tags, "pass_rate")
    room = 1 - settings.max_pass_rate
    by_rate = np.where(pass_rate <= settings.max_pass_rate, 1.0, (1 - pass_rate) / room if room else 0.0)
    columns = [
        diverse(tags, settings, category),
        by_percentile(numbers(tags, "quality"), settings.min_quality_percentile),
        np.fmax(
            np.where(np.isnan(pass_rate), np.nan, by_rate),
            by_percentile(numbers(tags, "n_tokens"), settings.min_length_percentile),
        ),
    ]
    return np.nan_to_num(np.stack(columns, axis=1), nan=-1.0)


def diverse(tags: pa.Table, settings: Pools, category: str) -> Floats:
    """1 for the best of its group, 1/2 for the second, ...; or how rare its category is, 1 from an even share down. `(N,)`"""
    if settings.diverse == "cluster":
        return 1.0 / (1 + places_in_groups(tags, regions(tags)))
    place, counts = category_counts(tags[category].to_pylist())
    if not len(counts):
        return np.full(len(place), np.nan)
    even = counts.sum() / (len(counts) * counts[np.maximum(place, 0)])
    return np.where(place < 0, np.nan, even)


def regions(tags: pa.Table) -> NDArray[np.int64]:
    """A number for each dense region, and for each problem outside of them, `(N,)`."""
    cluster = known_clusters(tags)
    problems = words(tags, "problem_id").places
    return np.where(cluster >= 0, cluster, cluster.max(initial=-1) + 1 + problems)


def by_percentile(values: Floats, percentile: float) -> Floats:
    """The rank of each value divided by that of the percentile `(N,)`, at least 1 from the percentile on; NaN stays.

    The percentile p of n values is the k-th smallest, k = ceil(p n / 100), at least the first; the rank of a value is how
    many are no larger, so that equal values are in a pool together.
    """
    known = np.sort(values[~np.isnan(values)])
    if not len(known):
        return values
    k = max(int(np.ceil(percentile * len(known) / 100)), 1)
    limit = known[k - 1]
    rank = np.searchsorted(known, values, side="right")
    below = rank / np.searchsorted(known, limit, side="right")
    return np.where(np.isnan(values), np.nan, np.where(values >= limit, 1.0, below))
