"""Confidence bounds of a mean of values in [0, 1] that hold for any distribution of them, a handful of values or many.

Gaffke's bound (2005, "Three test statistics for a nonparametric one-sided hypothesis on the mean of a nonnegative
variable"; compared with others in https://arxiv.org/abs/1905.06208): below, the 2.5 % quantile of the mean of the
values under random weights that are uniform on the simplex (Dirichlet, all 1), one value more put in at 0; above, the
97.5 % quantile with one more at 1. For values that are 0 or 1 it is the exact interval of Clopper and Pearson (1934),
which https://arxiv.org/abs/2503.01747 recommends for benchmarks of this size, and it needs no estimate of a variance,
which 30 questions of which two are ever solved do not give. scripts/check_intervals.py measures it.

The distribution function of such a weighted mean is that of a sum of gamma variables. It is had exactly, by numerical
inversion of the moment generating function along a line through its saddle point (Daniels 1954, "Saddlepoint
approximations in statistics"), so that the bounds are the same to the digit in every run.
"""

from functools import cache
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike, NDArray

NORMAL = NormalDist()
Z_95 = NORMAL.inv_cdf(0.975)
STEP = 0.1  # the sum is then exact to 1e-12
PLACES = np.arange(STEP / 2, 20.0, STEP)  # on one half of the path of integration
NEAR = PLACES[PLACES < 7]  # with weights of 20 besides the heaviest nothing is left beyond
OTHER_BENDS = (0.0, -0.5, 0.5, -1.0, 1.0)
SURE = 1e-4  # the difference that a step three times as long may make
SMALLEST = 1e-15  # a probability below is rounding
AT_ONCE = 2_000_000  # complex numbers


def mean_cdf(t: float, values: ArrayLike, weights: ArrayLike) -> NDArray[np.float64]:
    """P(Σ w v ≤ t) for w ~ Dirichlet of each row of `weights (N, M)`; `values (M,)`. Returns `(N,)`.

    It is P(Σ G (v - t) ≤ 0) for G ~ Gamma(weights), whose logarithm of the moment generating function is
    K(s) = -Σ a ln(1 - s λ), a the weights and λ = v - t; and P(Σ G λ > 0) = 1/2πi ∫ exp(K(s)) / s ds upwards along any
    path that crosses the real line to the right of 0, less 1 along one to its left. The one that is taken goes through
    the saddle point of K and is bent as the path of steepest descent is there, so that nothing oscillates.
    """
    distances = np.asarray(values, dtype=np.float64) - t
    rows = np.asarray(weights, dtype=np.float64)
    result = np.empty(len(rows))
    size = max(1, AT_ONCE // (len(distances) * len(PLACES)))
    for start in range(0, len(rows), size):
        result[start : start + size] = share_below(distances, rows[start : start + size])
    return result


def share_below(distances: NDArray[np.float64], weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """P(Σ G λ ≤ 0) for λ = `distances (M,)` and G ~ Gamma(`weights (N, M)`): `(N,)`."""
    present = np.where(weights > 0, distances, 0.0)
    lowest, highest = present.min(-1), present.max(-1)
    result = np.where(highest > 0, 0.0, 1.0)
    inside = (lowest < 0) & (highest > 0)
    if not inside.any():
        return result
    weights, present = weights[inside], present[inside]
    # K exists between its poles, and K' rises from -∞ to ∞ there
    left, right = 1 / lowest[inside], 1 / highest[inside]
    low, high = left, right
    for _ in range(60):
        middle = (low + high) / 2
        rises = (weights * present / (1 - middle[:, None] * present)).sum(-1) > 0
        low, high = np.where(rises, low, middle), np.where(rises, middle, high)
    saddle = (low + high) / 2
    slopes = present / (1 - saddle[:, None] * present)
    deviation = np.sqrt((weights * slopes**2).sum(-1))
    bend = np.clip(2 / 3 * (weights * slopes**3).sum(-1) / deviation**3, -1, 1)  # a third of the skewness
    # the path may not come near the pole at 0, where the saddle point lies if t is the mean
    away = np.where(right > -left, np.minimum(right / 2, 1 / deviation), np.maximum(left / 2, -1 / deviation))
    start = np.where(np.abs(saddle) < np.abs(away), away, saddle)
    found, unsure = integrals(weights, present, start, deviation, bend)
    # far from the saddle point its bend may lead to a pole of the heaviest weight, or nowhere: another path has the same integral
    for other in OTHER_BENDS:
        rows = np.flatnonzero(~(unsure < SURE))
        if not len(rows):
            break
        again, how = integrals(weights[rows], present[rows], start[rows], deviation[rows], np.full(len(rows), other))
        better = ~(how >= unsure[rows])
        found[rows[better]], unsure[rows[better]] = again[better], how[better]
    result[inside] = np.where(start > 0, 1 - found, -found)
    return result


def integrals(
    weights: NDArray[np.float64],
    present: NDArray[np.float64],
    start: NDArray[np.float64],
    deviation: NDArray[np.float64],
    bend: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """1/2πi ∫ exp(K(s)) / s ds along the path of each row from `start (N,)`, and how far a third of the places is from it.

    The sum converges exponentially with the step: what a step three times as long is off by, this one is to its third power.
    """
    moving = weights.sum(-1) - weights.max(-1)  # the heaviest may lie where t is, and then adds nothing
    places = NEAR if moving.min() >= 20 else PLACES
    bend, deviation, origin = bend[:, None], deviation[:, None], start[:, None]
    s = origin + (bend * (np.cosh(places) - 1) + 1j * np.sinh(places)) / deviation
    slope = STEP * (bend * np.sinh(places) + 1j * np.cosh(places)) / deviation
    logarithm = -np.einsum("nm,nmu->nu", weights, np.log(1 - s[:, None, :] * present[:, :, None]))
    with np.errstate(over="ignore", invalid="ignore"):  # a path that leads to a pole; it is not taken
        parts = (np.exp(logarithm) / s * slope).imag / np.pi
        total = parts.sum(-1)
    # the places are the middles of steps: three of them, taken at the middle one, are a step three times as long
    thirds = 3 * parts[:, 1::3].sum(-1)
    return total, np.abs(total - thirds) + np.abs(parts[:, -1])


def mean_quantile(probability: float, values: ArrayLike, weights: ArrayLike) -> float:
    """The t with P(Σ w v ≤ t) = `probability` for w ~ Dirichlet(`weights (M,)`); `values (M,)`, not all the same.

    By the secant method in standard normal units, in which the distribution function is nearly a straight line, and by
    bisection where that leads outside of what is known.
    """
    values, weights = np.asarray(values, dtype=np.float64), np.asarray(weights, dtype=np.float64)
    low, high = float(values.min()), float(values.max())
    target, total = NORMAL.inv_cdf(probability), float(weights.sum())
    mean = float(weights @ values) / total
    slope = ((float(weights @ (values - mean) ** 2) / total) / (total + 1)) ** 0.5
    t, before = mean + target * slope, None
    t = t if low < t < high else mean
    for _ in range(200):
        found = float(mean_cdf(t, values, weights[None])[0])
        known = SMALLEST < found < 1 - SMALLEST
        excess = NORMAL.inv_cdf(found) - target if known else found - probability
        if abs(excess) < 1e-10:
            break
        low, high = (t, high) if excess < 0 else (low, t)
        if known and before is not None and excess != before[1]:
            slope = (t - before[0]) / (excess - before[1])
        before = (t, excess) if known else None
        t -= excess * slope
        if not (known and low < t < high):
            t = (low + high) / 2
            if not low < t < high:
                break
    return t


def beta_quantile(probability: float, a: float, b: float) -> float:
    """The quantile of Beta(a, b), which is the weight of the first of two values."""
    return mean_quantile(probability, [1.0, 0.0], [a, b])


@cache
def t_quantile(probability: float, degrees: float) -> float:
    """The quantile, at or over 1/2, of Student's t: t² / (t² + degrees) is Beta(1/2, degrees / 2)."""
    share = beta_quantile(2 * probability - 1, 0.5, degrees / 2)
    return float(np.sqrt(degrees * share / (1 - share)))


def bounded_mean_interval(values: ArrayLike) -> tuple[float, float]:
    """The 95 % interval of the mean of the distribution that `values (N,)`, all in [0, 1], were drawn from."""
    found, counts = np.unique(np.asarray(values, dtype=np.float64), return_counts=True)
    low = mean_quantile(0.025, [0.0, *found], [1, *counts]) if found[-1] > 0 else 0.0
    high = mean_quantile(0.975, [1.0, *found], [1, *counts]) if found[0] < 1 else 1.0
    return low, high


def clopper_pearson(share: float, number: float) -> tuple[float, float]:
    """The exact 95 % interval of a share observed in `number` trials.

    `number` need not be whole: for samples that are not independent it is how many independent ones they are worth
    (Korn and Graubard 1998, Survey Methodology 24).
    """
    right, wrong = number * share, number * (1 - share)
    low = beta_quantile(0.025, right, wrong + 1) if share > 0 else 0.0
    high = beta_quantile(0.975, right + 1, wrong) if share < 1 else 1.0
    return low, high
