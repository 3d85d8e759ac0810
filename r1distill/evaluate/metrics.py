"""Scores with their uncertainty. The question is the unit: samples of one question are not independent."""

import math
from collections.abc import Sequence

import numpy as np

Z_95 = 1.959963984540054


def accuracy_interval(correct: Sequence[Sequence[bool]]) -> tuple[float, float, float]:
    """(accuracy, low, high): the mean over questions of the share of correct samples, with a 95 % interval.

    `correct` has a row a question. The interval is Wilson's (1927) for as many independent answers as the samples are
    worth: p (1 - p) / se², with se the standard error over questions (clustered: arXiv 2411.00640, section 2.2), at
    least the number of questions and at most that of samples. It stays inside [0, 1], and is not of width 0 at 0 % or 100 %.
    """
    shares = np.array([np.mean(row) for row in correct], dtype=np.float64)
    questions = len(shares)
    if not questions:
        raise ValueError("no questions")
    accuracy = float(shares.mean())
    samples = sum(len(row) for row in correct)
    variance = float(shares.var(ddof=1)) / questions if questions > 1 else 0.0
    worth = accuracy * (1 - accuracy) / variance if variance > 0 else questions
    low, high = wilson(accuracy, min(max(worth, questions), samples))
    return accuracy, low, high


def wilson(share: float, number: float) -> tuple[float, float]:
    """Wilson's 95 % score interval of a share observed in `number` trials."""
    z2 = Z_95**2
    centre = (share + z2 / (2 * number)) / (1 + z2 / number)
    half = Z_95 / (1 + z2 / number) * math.sqrt(share * (1 - share) / number + z2 / (4 * number**2))
    return max(0.0, centre - half), min(1.0, centre + half)


def mean_of_tasks(scores: Sequence[tuple[float, float, float]]) -> tuple[float, float, float]:
    """The unweighted mean of (accuracy, low, high) of independent tasks, its half-widths added in quadrature."""
    accuracy = sum(score[0] for score in scores) / len(scores)
    below = math.sqrt(sum((score[0] - score[1]) ** 2 for score in scores)) / len(scores)
    above = math.sqrt(sum((score[2] - score[0]) ** 2 for score in scores)) / len(scores)
    return accuracy, max(0.0, accuracy - below), min(1.0, accuracy + above)
