"""The rating on Codeforces' scale that a model's solved problems stand for.

A problem's rating is defined by who solves it (https://codeforces.com/blog/entry/62865): a participant of rating r
solves a problem of rating d with probability e = 1 / (1 + 10^((d - r) / 400)), the formula of Elo. The estimate is the r
for which the expected number of solved problems is the observed one, found by bisection; it is the r of the largest
likelihood. DeepSeek-R1 and CodeElo (https://arxiv.org/abs/2501.01257, section 3.3) solve the same equation with the
participants of a contest in the place of its problems: the expected rank, the sum of 1 / (1 + 10^((r - r_i) / 400)) over
them, is that which the model's score would have had. That needs the standings of each contest and the time of every
submission, which no offline set has. So this estimate knows neither penalties nor order, and is that of one attempt.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from r1distill.evaluate.bounds import Z_95

SCALE = 400.0  # rating points for which the odds are ten times as good
LOWEST, HIGHEST = 0.0, 4000.0  # Codeforces rates nobody beyond; the estimate is cut off there


@dataclass(frozen=True, slots=True)
class Rating:
    """`rating` and its 95 % interval over problems, in rating points between 0 and 4000."""

    rating: float
    ci95: tuple[float, float]
    n_problems: int


def codeforces_rating(ratings: ArrayLike, shares: ArrayLike) -> Rating:
    """The rating of a model that solves a problem of `ratings (N,)` in the share `shares (N,)` of its samples.

    The interval holds the r that a score test does not reject: (solved - expected)² ≤ z² Σ e (1 - e), the variance of
    problems that are either always or never solved, which is the largest. Raises ValueError without problems.
    """
    difficulty, solved = np.asarray(ratings, dtype=np.float64), np.asarray(shares, dtype=np.float64)
    if not len(difficulty) or len(difficulty) != len(solved):
        raise ValueError(f"{len(difficulty)} ratings for {len(solved)} problems")
    observed = float(solved.sum())

    def lead(r: float, z: float) -> float:
        """How far the expected solves are over the observed ones, and z standard deviations."""
        chance = chances(difficulty, r)
        return float(chance.sum()) - observed - z * math.sqrt(float((chance * (1 - chance)).sum()))

    return Rating(
        rating=root(lambda r: lead(r, 0.0)),
        ci95=(root(lambda r: lead(r, -Z_95)), root(lambda r: lead(r, Z_95))),
        n_problems=len(difficulty),
    )


def chances(difficulty: ArrayLike, rating: ArrayLike) -> NDArray[np.float64]:
    """The chance of a participant of `rating` to solve a problem of `difficulty`, of one or many of either."""
    return 1 / (1 + 10 ** (np.subtract(difficulty, rating, dtype=np.float64) / SCALE))


def root(lead: Callable[[float], float]) -> float:
    """Where `lead` goes from below to above 0; LOWEST or HIGHEST where it does not in between."""
    low, high = LOWEST, HIGHEST
    if lead(low) >= 0 or lead(high) <= 0:
        return low if lead(low) >= 0 else high
    while high - low > 1e-6:
        middle = (low + high) / 2
        low, high = (middle, high) if lead(middle) < 0 else (low, middle)
    return (low + high) / 2
