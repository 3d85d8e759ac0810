"""Whether the 95 % intervals hold the truth 95 times of 100, the estimators are unbiased, and `compare` keeps its level.

    python scripts/check_intervals.py [--tables 2000]      # some minutes

Benchmarks of known difficulty are drawn and sampled again and again. Over questions, each table has questions of its own
and the truth is the mean of the distribution of their difficulty; over samples, all tables have the same questions and
the truth is their mean. A 95 % interval may hold more than 95 %, the exact ones do, but not less.
"""

import argparse
import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from r1distill.evaluate.bounds import mean_cdf, share_below
from r1distill.evaluate.metrics import pass_at_k, samples_worth, score_of
from r1distill.evaluate.paired import difference_of
from r1distill.evaluate.votes import ballot_of, consensus_at_k

Floats = NDArray[np.float64]
Draw = Callable[[Generator, tuple[int, ...]], Floats]


@dataclass(frozen=True, slots=True)
class Difficulty:
    """How a benchmark's questions are distributed: `draw` gives the chance to be right of each, `mean` is their mean."""

    name: str
    mean: float
    draw: Draw


def beta(name: str, mean: float, concentration: float) -> Difficulty:
    """The less the concentration, the more questions are nearly always or nearly never solved."""
    a, b = mean * concentration, (1 - mean) * concentration
    return Difficulty(name, mean, lambda random, shape: random.beta(a, b, shape))


def reasoning(random: Generator, shape: tuple[int, ...]) -> Floats:
    """Four in ten are nearly always solved, four nearly never, two are open."""
    kind = random.random(shape)
    sides = np.where(kind < 0.4, random.beta(0.3, 6.0, shape), random.beta(6.0, 0.3, shape))
    return np.where(kind > 0.8, random.beta(2.0, 2.0, shape), sides)


DIFFICULTIES = (
    Difficulty("reasoning model", 0.5, reasoning),
    beta("bimodal, 20 %", 0.2, 0.3),
    beta("bimodal, 80 %", 0.8, 0.3),
    beta("uniform", 0.5, 2.0),
    beta("all hard, 2 %", 0.02, 2.0),
    beta("all easy, 98 %", 0.98, 2.0),
    beta("all easy, 95 %", 0.95, 20.0),
    Difficulty("solved or not, 2 %", 0.02, lambda random, shape: (random.random(shape) < 0.02).astype(float)),
    Difficulty("solved or not, 70 %", 0.7, lambda random, shape: (random.random(shape) < 0.7).astype(float)),
    Difficulty("all alike, 30 %", 0.3, lambda random, shape: np.full(shape, 0.3)),
)


# ---------------------------------------------------------------- coverage


def questions_coverage(random: Generator, difficulty: Difficulty, questions: int, samples: int, tables: int) -> float:
    """The share of `tables` whose ci95 holds the mean of the distribution."""
    right = random.binomial(samples, difficulty.draw(random, (tables, questions)))
    return float(held_over_questions(right, samples, difficulty.mean).mean())


def samples_coverage(random: Generator, difficulty: Difficulty, questions: int, samples: int, tables: int) -> float:
    """The share of `tables`, of ten sets of questions, whose ci95_samples holds the mean of its questions."""
    held = []
    for _ in range(10):
        chances = difficulty.draw(random, (questions,))
        right = random.binomial(samples, chances, (tables // 10, questions))
        held.append(held_over_samples(right, samples, float(chances.mean())).mean())
    return float(np.mean(held))


def held_over_questions(right: NDArray[np.int64], samples: int, truth: float) -> NDArray[np.bool_]:
    """Whether the ci95 of each table of `right (R, N)` holds `truth`, all at once: the bounds are quantiles."""
    occurrences = np.stack([(right == c).sum(1) for c in range(samples + 1)], axis=1).astype(np.float64)
    values = np.arange(samples + 1) / samples
    with_none, with_all = occurrences.copy(), occurrences.copy()
    with_none[:, 0] += 1
    with_all[:, -1] += 1
    return (mean_cdf(truth, values, with_none) >= 0.025) & (mean_cdf(truth, values, with_all) <= 0.975)


def held_over_samples(right: NDArray[np.int64], samples: int, truth: float) -> NDArray[np.bool_]:
    """Whether the ci95_samples of each table of `right (R, N)` holds `truth`."""
    numbers = np.full(right.shape[1], float(samples))
    worth = np.array([samples_worth(row, numbers) for row in right.astype(np.float64)])
    c = worth * right.mean(1) / samples
    distances = np.array([1 - truth, -truth])
    low = share_below(distances, np.stack([c, worth - c + 1], axis=1)) >= 0.025
    high = share_below(distances, np.stack([c + 1, worth - c], axis=1)) <= 0.975
    return low & high


def check_against_score(random: Generator, difficulty: Difficulty, questions: int, samples: int) -> None:
    """What is computed at once is what score_of gives."""
    for truth in (difficulty.mean, difficulty.mean * 0.9, 0.5 + difficulty.mean / 2):
        right = random.binomial(samples, difficulty.draw(random, (1, questions)))
        score = score_of(right[0], [samples] * questions)
        for (low, high), held in (
            (score.ci95, held_over_questions(right, samples, truth)),
            (score.ci95_samples, held_over_samples(right, samples, truth)),
        ):
            assert bool(held[0]) == (low <= truth <= high), (low, high, truth)


# ---------------------------------------------------------------- estimators


def pass_at_k_bias(random: Generator, samples: int, tables: int) -> dict[int, tuple[float, float]]:
    """The mean error of pass@k of 30 questions against 1 - (1 - p)^k, and its standard error."""
    errors: dict[int, list[float]] = {}
    for _ in range(tables):
        chances = reasoning(random, (30,))
        for k, found in pass_at_k(random.binomial(samples, chances).tolist(), [samples] * 30).items():
            errors.setdefault(k, []).append(found - float((1 - (1 - chances) ** k).mean()))
    return {k: mean_and_error(found) for k, found in errors.items()}


CLASSES = (0.4, 0.3, 0.15, 0.15)  # chances of the right answer, of two wrong ones, and of none


def consensus_bias(random: Generator, samples: int, tables: int) -> dict[int, tuple[float, float]]:
    """The mean error of cons@k against what k fresh samples would give, and its standard error, for k up to 16."""
    errors: dict[int, list[float]] = {}
    for _ in range(tables):
        drawn = random.choice(len(CLASSES), samples, p=CLASSES)
        classes = [None if each == 3 else int(each) for each in drawn]
        for k, found in consensus_at_k([ballot_of(classes, [each == 0 for each in drawn])]).items():
            errors.setdefault(k, []).append(found)
    return {
        k: (mean - true_consensus(k), error)
        for k, (mean, error) in ((k, mean_and_error(found)) for k, found in errors.items())
        if k <= 16
    }


def true_consensus(k: int) -> float:
    """The chance that the right answer wins a vote of k, over all ways in which they may fall."""
    total = 0.0
    for votes in itertools.product(range(k + 1), repeat=len(CLASSES)):
        *voters, _ = votes
        if sum(votes) == k and voters[0] and voters[0] == max(voters):
            ways = math.factorial(k) / math.prod(map(math.factorial, votes))
            total += ways * math.prod(p**n for p, n in zip(CLASSES, votes, strict=True)) / voters.count(voters[0])
    return total


def mean_and_error(values: list[float]) -> tuple[float, float]:
    return float(np.mean(values)), float(np.std(values, ddof=1) / math.sqrt(len(values)))


# ---------------------------------------------------------------- compare


@dataclass(frozen=True, slots=True)
class Test:
    """Shares of the comparisons: `significant` ones (p ≤ 5 %), and whose interval `held` the true difference."""

    significant: float
    held: float
    detectable: float


def compare_equals(random: Generator, questions: int, samples: int, tables: int, spread: float) -> Test:
    """Of two models that are equally good; with a spread they find other questions easy, by so much in log-odds."""
    return compare_many(random, questions, samples, tables, spread, 0.0)


def compare_many(random: Generator, questions: int, samples: int, tables: int, spread: float, shift: float) -> Test:
    """Of a model and one that is better by `shift` in the log-odds of each question."""
    truth = float(np.subtract(*moved(random, 200_000, spread, shift)[::-1]).mean())
    found = []
    for _ in range(tables):
        a, b = moved(random, questions, spread, shift)
        n = [samples] * questions
        found.append(difference_of(random.binomial(samples, a), n, random.binomial(samples, b), n))
    return Test(
        significant=float(np.mean([each.p_value <= 0.05 for each in found])),
        held=float(np.mean([each.ci95[0] <= truth <= each.ci95[1] for each in found])),
        detectable=float(np.mean([each.detectable for each in found])),
    )


def moved(random: Generator, questions: int, spread: float, shift: float) -> tuple[Floats, Floats]:
    """The chances of both models on questions of a reasoning model's benchmark."""
    chances = np.clip(reasoning(random, (questions,)), 1e-4, 1 - 1e-4)
    odds = np.log(chances / (1 - chances))
    first, second = random.normal(0, spread, (2, questions))
    return 1 / (1 + np.exp(-odds - first)), 1 / (1 + np.exp(-odds - second - shift))


def power_at_detectable(random: Generator, questions: int, samples: int, tables: int) -> tuple[float, float]:
    """(detectable, power): the share of significant comparisons where the true difference is as large as `detectable`."""
    low, high, found = 0.0, 8.0, 0.0
    for _ in range(10):
        shift = (low + high) / 2
        a, b = moved(random, 100_000, 0.0, shift)
        found = compare_many(random, questions, samples, 60, 0.0, shift).detectable
        low, high = (shift, high) if float((b - a).mean()) < found else (low, shift)
    return found, compare_many(random, questions, samples, tables, 0.0, (low + high) / 2).significant


# ---------------------------------------------------------------- all of it


def lines(tables: int) -> Iterator[str]:
    random = np.random.default_rng(6)
    yield f"coverage of the 95 % intervals, {tables} tables each (± {1.96 * math.sqrt(0.95 * 0.05 / tables):.1%})"
    yield f"{'':22}{'':10}" + "".join(f"{f'n = {samples}':>16}" for samples in (1, 4, 16, 64))
    yield f"{'difficulty':22}{'questions':>10}" + "".join(f"{'ci95':>8}{'samples':>8}" for _ in range(4))
    for difficulty in DIFFICULTIES:
        for questions in (30, 500):
            shown = []
            for samples in (1, 4, 16, 64):
                check_against_score(random, difficulty, questions, samples)
                shown.append(f"{questions_coverage(random, difficulty, questions, samples, tables):>8.1%}")
                shown.append(f"{samples_coverage(random, difficulty, questions, samples, tables):>8.1%}")
            yield f"{difficulty.name:22}{questions:>10}" + "".join(shown)
    yield "\nmean error of an estimate, in points, ± its standard error"
    for name, bias in (("pass@k", pass_at_k_bias), ("cons@k", consensus_bias)):
        for samples in (4, 16, 64):
            found = bias(random, samples, tables)
            shown = ", ".join(f"{k}: {100 * mean:+.2f} ± {100 * error:.2f}" for k, (mean, error) in found.items())
            yield f"{name}, n = {samples}: {shown}"
    yield "\ncompare: significant at 5 % where both are equal (alike, and better at other questions), interval, power"
    yield f"{'questions':>10}{'samples':>8}{'alike':>8}{'other':>8}{'held':>8}{'held, other':>13}{'can see':>9}{'power':>8}"
    for questions, share in ((30, 1), (500, 2)):
        for samples in (1, 4, 16, 64):
            alike = compare_equals(random, questions, samples, tables // share, 0.0)
            other = compare_equals(random, questions, samples, tables // share, 1.0)
            detectable, power = power_at_detectable(random, questions, samples, tables // share // 2)
            yield (
                f"{questions:>10}{samples:>8}{alike.significant:>8.1%}{other.significant:>8.1%}{alike.held:>8.1%}"
                f"{other.held:>13.1%}{100 * detectable:>9.1f}{power:>8.1%}"
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tables", type=int, default=2000)
    for line in lines(parser.parse_args().tables):
        print(line, flush=True)


if __name__ == "__main__":
    main()
