"""cons@k: the answer that most of k samples agree on, by what answers mean (r1distill/verify/agreement.py).

Of n samples a question there are C(n, k) subsets. The mean over all of them is computed, not that of a few draws: it is
the expectation of the vote of k fresh samples, without the noise of which came first. A tie of m classes gives each 1/m.
Only replies that ended by themselves with an answer vote; in a subset without any the vote is wrong.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from r1distill.evaluate.metrics import subset_sizes

MAX_SAMPLES = 1_000  # C(n, n/2) of more is no float


@dataclass(frozen=True, slots=True)
class Ballot:
    """The votes on one question. `sizes` are those of the classes of equal answers, `right` the share of each that is
    right (0 or 1, but where the verifier calls one of two equal answers wrong), `samples` counts those without a vote.
    """

    sizes: tuple[int, ...]
    right: tuple[float, ...]
    samples: int


def ballot_of(classes: Sequence[int | None], right: Sequence[bool]) -> Ballot:
    """The ballot of one question from the class of each sample, None for one that does not vote."""
    voters: dict[int, list[bool]] = {}
    for number, is_right in zip(classes, right, strict=True):
        if number is not None:
            voters.setdefault(number, []).append(is_right)
    # in one order, so that ballots that are the same are recognised
    found = sorted((len(votes), sum(votes) / len(votes)) for votes in voters.values())
    return Ballot(tuple(size for size, _ in found), tuple(share for _, share in found), len(classes))


def consensus_at_k(ballots: Iterable[Ballot]) -> dict[int, float]:
    """cons@k, the mean over questions, for the k of `subset_sizes`. Raises ValueError for none, or over 1,000 samples."""
    ballots = list(ballots)
    if not ballots:
        raise ValueError("no questions")
    found = [expected_votes(ballot) for ballot in ballots]
    return {k: sum(float(votes[k]) for votes in found) / len(found) for k in subset_sizes([b.samples for b in ballots])}


@lru_cache(maxsize=4096)
def expected_votes(ballot: Ballot) -> NDArray[np.float64]:
    """The expectation of the vote of k samples drawn without replacement, for k = 0 to `ballot.samples`.

    By counting the subsets, for each class that may win and each number of votes t that it may win with, and by how
    many classes tie with it. Classes that have not as many as t samples are in nobody's way and are counted as one.
    """
    if ballot.samples > MAX_SAMPLES:
        raise ValueError(f"{ballot.samples} samples of a question; cons@k is computed for at most {MAX_SAMPLES}")
    silent = ballot.samples - sum(ballot.sizes)
    total = np.zeros(ballot.samples + 1)
    for place, (size, share) in enumerate(zip(ballot.sizes, ballot.right, strict=True)):
        others = ballot.sizes[:place] + ballot.sizes[place + 1 :]
        for t in range(1, size + 1) if share else ():
            rivals = tuple(other for other in others if other >= t)
            tied = ways_of_others(rivals, silent + sum(other for other in others if other < t), t)
            shared = (tied / np.arange(1, len(tied) + 1)[:, None]).sum(0)
            total[t : t + len(shared)] += share * math.comb(size, t) * shared
    return total / subsets(ballot.samples)


def ways_of_others(rivals: tuple[int, ...], rest: int, t: int) -> NDArray[np.float64]:
    """The number of ways `(ties + 1, samples + 1)` to draw from the others, no rival more than t times.

    By how many rivals are drawn t times, and how many samples are drawn in all; `rest` samples are nobody's rival.
    """
    ways = subsets(rest)[None, :]
    for rival in rivals:
        drawn = subsets(rival)[: t + 1]
        below = ways if t == 1 else np.stack([np.convolve(row, drawn[:t]) for row in ways])
        longer = np.zeros((len(ways) + 1, ways.shape[1] + t))
        longer[:-1, : below.shape[1]] = below
        longer[1:, t:] += ways * drawn[t]
        ways = longer
    return ways


@lru_cache(maxsize=MAX_SAMPLES + 1)
def subsets(samples: int) -> NDArray[np.float64]:
    """C(samples, k) for k = 0 to `samples`."""
    return np.array([math.comb(samples, k) for k in range(samples + 1)], dtype=np.float64)
