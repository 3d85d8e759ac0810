"""The difference of two ways of making a student, over trainings and over questions at once."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from r1distill.evaluate.bounds import t_quantile
from r1distill.evaluate.paired import POWER


@dataclass(frozen=True, slots=True)
class CrossedDifference:
    """B less A in pass@1, with its 95 % interval; None for what a single seed cannot tell.

    `se_seeds` and `se_questions` are its two parts: how far it moves with other trainings on the same questions, and with
    other questions and the same trainings. `detectable` is the smallest true difference that so many trainings and questions,
    as far apart as these are, show in 80 % of the cases; None as well where nothing differed at all, which is no measure.
    """

    difference: float
    ci95: tuple[float, float] | None
    se_seeds: float | None
    se_questions: float
    detectable: float | None


def crossed_difference(a: ArrayLike, b: ArrayLike) -> CrossedDifference:
    """Of the shares of right samples of A and B, each `(S, Q)`: S trainings by Q questions, both the same for A and B.

    Seeds and questions are crossed: a lucky training is lucky on all questions, a hard question hard for all trainings. With
    D = B - A the variance of the mean is σ²_seed/S + σ²_question/Q + σ²_both/(SQ). The variance of the rows' means over S
    estimates the first and third term, that of the columns' means over Q the second and third, so that their sum is never
    too small in expectation (Owen 2007, "The pigeonhole bootstrap", section 4, https://arxiv.org/abs/0712.1111). The quantile
    is Student's with the degrees of freedom of Satterthwaite (1946). Raises ValueError for shapes that are not alike or empty.
    """
    if np.shape(a) != np.shape(b) or np.ndim(a) != 2 or not np.size(a):
        raise ValueError(f"shares of shape {np.shape(a)} and {np.shape(b)}; both must be (seeds, questions)")
    differences = np.asarray(b, dtype=np.float64) - np.asarray(a, dtype=np.float64)
    seeds, questions = differences.shape
    mean = float(differences.mean())
    by_question = variance_of_mean(differences.mean(0))
    if seeds == 1:
        return CrossedDifference(mean, None, None, math.sqrt(by_question), None)
    by_seed = variance_of_mean(differences.mean(1))
    total = by_seed + by_question
    if not total:
        return CrossedDifference(mean, (mean, mean), 0.0, 0.0, None)
    degrees = total**2 / (by_seed**2 / (seeds - 1) + by_question**2 / max(questions - 1, 1))
    degrees = max(1, math.floor(degrees))
    half = t_quantile(0.975, degrees) * math.sqrt(total)
    detectable = min(1.0, half + t_quantile(POWER, degrees) * math.sqrt(total))
    ends = max(-1.0, mean - half), min(1.0, mean + half)
    return CrossedDifference(mean, ends, math.sqrt(by_seed), math.sqrt(by_question), detectable)


def variance_of_mean(values: np.ndarray) -> float:
    """Of independent `values (N,)`; 0 for a single one, which says nothing of it."""
    return float(values.var(ddof=1)) / len(values) if len(values) > 1 else 0.0
