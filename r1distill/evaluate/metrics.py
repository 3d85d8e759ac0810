"""Scores with their uncertainty. The question is the unit: samples of one question are not independent.

Everything is computed from two numbers a question, `right` and `samples` `(N,)`: how many of its samples are right, of
how many. Questions may have different numbers of samples; each question has the same weight.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from r1distill.evaluate.bounds import Z_95, bounded_mean_interval, clopper_pearson


@dataclass(frozen=True, slots=True)
class Score:
    """pass@1, and how sure it is in two ways.

    Over questions: how far it may lie from the score on endlessly many questions of this kind, the one that matters for
    another test. Over samples: how far it may lie from the score that endlessly many samples of these same questions
    would have, the one that matters for a re-run; two runs of the same model are √2 times as far apart. `se_questions`
    and `se_samples` are the standard errors, the most they can be where they cannot be estimated (one question, one
    sample). The intervals are of 95 %.
    """

    pass_at_1: float
    ci95: tuple[float, float]
    ci95_samples: tuple[float, float]
    se_questions: float
    se_samples: float


def score_of(right: ArrayLike, samples: ArrayLike) -> Score:
    """The score of `right (N,)` of `samples (N,)`. Raises ValueError without questions or for one without samples."""
    right, samples = checked(right, samples)
    shares = right / samples
    return Score(
        pass_at_1=float(shares.mean()),
        ci95=bounded_mean_interval(shares),
        ci95_samples=samples_interval(right, samples),
        se_questions=se_questions(shares),
        se_samples=se_samples(right, samples),
    )


def counts(correct: Sequence[Sequence[bool]]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(right, samples), both `(N,)`, of a table with a row a question."""
    return np.array([sum(row) for row in correct], dtype=np.int64), np.array([len(row) for row in correct], np.int64)


def accuracy_interval(correct: Sequence[Sequence[bool]]) -> tuple[float, float, float]:
    """(pass@1, low, high) of a table with a row a question; the interval is that over questions."""
    right, samples = checked(*counts(correct))
    return float((right / samples).mean()), *bounded_mean_interval(right / samples)


def checked(right: ArrayLike, samples: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    right, samples = np.asarray(right, dtype=np.float64), np.asarray(samples, dtype=np.float64)
    if not len(samples):
        raise ValueError("no questions")
    if not (samples > 0).all():
        raise ValueError("a question without samples")
    if not ((right >= 0) & (right <= samples)).all():
        raise ValueError("more right samples than samples")
    return right, samples


def se_questions(shares: NDArray[np.float64]) -> float:
    """The standard error of the mean of `shares (N,)` over questions.

    Clustered by question as in https://arxiv.org/abs/2411.00640, section 2.2: the means of the clusters are independent,
    their spread holds what the samples add to it.
    """
    if len(shares) == 1:
        return math.sqrt(float(shares[0] * (1 - shares[0])))
    return math.sqrt(float(shares.var(ddof=1)) / len(shares))


def se_samples(right: NDArray[np.float64], samples: NDArray[np.float64]) -> float:
    """The standard deviation of pass@1 over re-runs on the same questions, with as many samples of each.

    Its square is the sum of the unbiased variances p (1 - p) / n within the questions, over N². A question with one
    sample says nothing of its own: it counts with the variance of the mean of all, the most that they can have.
    """
    mean = float((right / samples).mean())
    repeated = samples > 1
    within = right * (samples - right) / (samples**2 * np.maximum(samples - 1, 1))
    return math.sqrt(float(np.where(repeated, within, mean * (1 - mean)).sum())) / len(samples)


def samples_interval(right: NDArray[np.float64], samples: NDArray[np.float64]) -> tuple[float, float]:
    """The 95 % interval of the score that endlessly many samples of the same questions would have.

    That of Clopper and Pearson, for as many independent samples as these are worth.
    """
    return clopper_pearson(float((right / samples).mean()), samples_worth(right, samples))


def samples_worth(right: NDArray[np.float64], samples: NDArray[np.float64]) -> float:
    """How many independent samples of one chance p would vary as these do from run to run: p (1 - p) / se_samples².

    To the variance that of z² = 3.84 answers is added: as with no event in n trials, where up to 3.7 may have been
    expected, samples that never differ do not mean that they never will. They are worth at least their number, since a
    binomial count varies the most where all questions are alike.
    """
    mean = float((right / samples).mean())
    number = len(samples) ** 2 / float((1 / samples).sum())  # that of samples, where all questions have as many
    variance = se_samples(right, samples) ** 2 + (Z_95 / number) ** 2
    return max(mean * (1 - mean) / variance, number)


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


def subset_sizes(samples: ArrayLike) -> list[int]:
    """The k of pass@k and cons@k: the powers of two up to the samples that every question has, and that number."""
    fewest = int(np.min(np.asarray(samples)))
    return sorted({fewest, *(2**power for power in range(fewest.bit_length()))})


def pass_at_k(right: Sequence[int], samples: Sequence[int]) -> dict[int, float]:
    """For each of `subset_sizes`, the mean over questions of the chance that one of k samples is right.

    1 - C(n - c, k) / C(n, k) of c right ones of n is unbiased (Chen et al. 2021, https://arxiv.org/abs/2107.03374,
    section 2.1). In whole numbers, so that nothing overflows and small chances keep their digits.
    """
    pairs, occurrences = np.unique(np.column_stack(checked(right, samples)), axis=0, return_counts=True)
    whole = [(int(c), int(n), int(times)) for (c, n), times in zip(pairs, occurrences, strict=True)]
    return {
        k: sum(times * chance_of_one(c, n, k) for c, n, times in whole) / len(samples) for k in subset_sizes(samples)
    }


def chance_of_one(right: int, samples: int, k: int) -> float:
    """The chance that k samples, drawn without replacement from `samples`, hold one of the `right` ones."""
    ways = math.comb(samples, k)
    return (ways - math.comb(samples - right, k)) / ways
