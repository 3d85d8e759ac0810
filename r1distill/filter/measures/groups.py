"""Measures that look at several traces at once: how hard a problem is, how far its samples agree, whose entropy stands out.

They take columns in the order of the traces and return columns in that order.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from r1distill.records import Outcome, Problem, Verdict
from r1distill.verify.agreement import panels
from r1distill.verify.pool import VerifierPool

Floats = NDArray[np.float64]

JUDGED: tuple[Outcome, ...] = ("correct", "incorrect", "no_answer")  # a verifier's timeout says nothing of the problem
NEIGHBOURS = 20  # pseudo-observations that a bin borrows from its source, and a source from the whole set
# A normal distribution's standard deviation over its median and its mean absolute deviation
FROM_MEDIAN_DEVIATION, FROM_MEAN_DEVIATION = 1.482602, 1.253314


class Difficulty(NamedTuple):
    """`n_samples (N,)` int64; `pass_rate (N,)`, NaN where no sample of the problem was judged."""

    n_samples: NDArray[np.int64]
    pass_rate: Floats


def difficulty(problem_ids: Sequence[str], outcomes: Sequence[str]) -> Difficulty:
    """Samples and share of right ones of each trace's problem.

    The share is of the samples that were judged: correct, incorrect or without an answer. It is what the teacher does, and
    not the student, and as coarse as the samples are few.
    """
    _, problem = np.unique(np.asarray(problem_ids, dtype=object).astype(str), return_inverse=True)
    found = np.asarray(outcomes, dtype=object).astype(str)
    n_samples = np.bincount(problem)
    judged = np.bincount(problem, np.isin(found, JUDGED), len(n_samples))
    correct = np.bincount(problem, found == "correct", len(n_samples))
    rate = np.divide(correct, judged, out=np.full(len(n_samples), np.nan), where=judged > 0)
    return Difficulty(n_samples[problem].astype(np.int64), rate[problem])


def consistencies(
    verdicts: Iterable[Verdict], problems: Mapping[str, Problem], pool: VerifierPool
) -> Iterator[float | None]:
    """For each verdict the share of its problem's samples whose answer is in the same class, its own included.

    Answers are compared by what they mean (r1distill/verify/agreement.py), without the reference, so that this is also had
    where there is none. None where there is one sample, which agrees with itself alone; for a sample without an answer;
    and for programs and open answers. Verdicts of one problem come together, as the stages write them.
    """
    for panel in panels(verdicts, problems, pool):
        yield from shares_of(panel.classes)


def shares_of(classes: Sequence[int | None]) -> list[float | None]:
    """Of each sample the share of all whose class is its own."""
    if len(classes) < 2:
        return [None] * len(classes)
    return [None if number is None else classes.count(number) / len(classes) for number in classes]


def entropy_z(entropies: Sequence[float | None], sources: Sequence[str], n_tokens: Sequence[int | None]) -> Floats:
    """The z-score of each mean entropy among traces of the same source and about the same length `(N,)`, NaN for None.

    A bin is a source and a power of two: lengths 2^k to 2^(k+1) - 1. With the median m and the scale s, 1.4826 times the
    median absolute deviation, of bin b, of its source and of all,

        z = (x - m) / s,  m = (n m_b + K m_source) / (n + K),  s = (n s_b + K s_source) / (n + K),

    where n is the number in the bin and K = 20; m_source and s_source lean on those of all in the same way. So a bin of
    three is judged by its source, and one of three thousand by itself. Median and absolute deviation, since the degenerate
    traces, which it is to show, would draw mean and standard deviation after them (Iglewicz and Hoaglin 1993,
    https://www.itl.nist.gov/div898/handbook/eda/section3/eda35h.htm; their 1.2533 times the mean deviation stands in where
    more than half of the values are equal). 0 where all are equal.
    """
    x = np.array([np.nan if value is None else value for value in entropies], dtype=np.float64)
    known = np.flatnonzero(np.isfinite(x))
    result = np.full(len(x), np.nan)
    if not len(known):
        return result
    values = x[known]
    _, source = np.unique(np.asarray(sources, dtype=object).astype(str)[known], return_inverse=True)
    bin_of = length_bins(sources, np.asarray(n_tokens, dtype=np.float64))[known]
    everything = np.zeros(len(values), np.int64)
    centre, scale = shrunk(values, everything, np.zeros(len(values)), np.zeros(len(values)), neighbours=0)
    for groups in (source, bin_of):
        centre, scale = shrunk(values, groups, centre, scale, NEIGHBOURS)
    result[known] = np.divide(values - centre, scale, out=np.zeros(len(values)), where=scale > 0)
    return result


def length_bins(source: Sequence[str | None], n_tokens: Floats) -> NDArray[np.int64]:
    """The bin of each trace `(N,)`: those of one source whose lengths in tokens have the same power of two below them.

    Numbered from 0 in no particular order. Bins do not depend on the other traces, so that a run that grows keeps them.
    """
    names = np.asarray([name or "" for name in source], dtype=object)
    _, sources = np.unique(names, return_inverse=True)
    lengths = np.floor(np.log2(np.maximum(np.nan_to_num(n_tokens), 1))).astype(np.int64)
    return np.unique(sources * 64 + lengths, return_inverse=True)[1].astype(np.int64)


def shrunk(
    values: Floats, groups: NDArray[np.int64], centre: Floats, scale: Floats, neighbours: int
) -> tuple[Floats, Floats]:
    """(centre, scale) of each value's group `(N,)`, drawn towards the given ones as if by so many more observations."""
    order = np.argsort(groups, kind="stable")
    edges = np.flatnonzero(np.diff(groups[order])) + 1
    centre, scale = centre.copy(), scale.copy()
    for members in np.split(order, edges):
        n = len(members)
        middle = float(np.median(values[members]))
        centre[members] = (n * middle + neighbours * centre[members]) / (n + neighbours)
        scale[members] = (n * spread(values[members] - middle) + neighbours * scale[members]) / (n + neighbours)
    return centre, scale


def spread(deviations: Floats) -> float:
    """The standard deviation of a normal distribution with such deviations from its median, which outliers hardly move."""
    absolute = np.abs(deviations)
    return FROM_MEDIAN_DEVIATION * float(np.median(absolute)) or FROM_MEAN_DEVIATION * float(absolute.mean())
