"""Differences over trainings and questions: the interval covers where a lucky training is lucky on every question."""

import numpy as np
import pytest

from r1distill.ablate.crossed import crossed_difference


def simulated(chance: np.random.Generator, seeds: int, questions: int, effect: float) -> tuple[np.ndarray, np.ndarray]:
    """Shares of one sample each, of two ways whose trainings and questions both have effects of their own."""
    both = []
    ease = chance.normal(0, 1.2, questions)
    for shift in (0.0, effect):
        training = chance.normal(0, 0.3, (seeds, 1))
        of_question = chance.normal(0, 0.3, questions)
        p = 1 / (1 + np.exp(-(ease + of_question + training + shift)))
        both.append((chance.random((seeds, questions)) < p).astype(float))
    return both[0], both[1]


@pytest.mark.parametrize(("seeds", "questions"), [(3, 120), (5, 30), (10, 500)])
def test_the_interval_covers_the_true_difference_of_equal_ways(seeds: int, questions: int) -> None:
    chance = np.random.default_rng(0)
    covered = 0
    for _ in range(600):
        found = crossed_difference(*simulated(chance, seeds, questions, 0.0))
        assert found.ci95 is not None
        covered += found.ci95[0] <= 0 <= found.ci95[1]
    assert covered / 600 >= 0.93


def test_questions_alone_would_be_too_sure_where_trainings_differ() -> None:
    chance = np.random.default_rng(1)
    missed = 0
    for _ in range(300):
        a, b = simulated(chance, 3, 500, 0.0)
        found = crossed_difference(a, b)
        missed += abs(found.difference) > 1.96 * found.se_questions
    assert missed / 300 > 0.2


def test_it_is_the_mean_of_the_differences_and_one_seed_has_no_interval() -> None:
    a, b = np.array([[0.0, 0.5, 1.0]]), np.array([[1.0, 0.5, 1.0]])
    found = crossed_difference(a, b)
    assert found.difference == pytest.approx(1 / 3)
    assert (found.ci95, found.se_seeds) == (None, None)
    both = crossed_difference(np.vstack([a, a]), np.vstack([b, b]))
    assert both.se_seeds == 0
    assert both.ci95 is not None
    assert both.ci95[0] < 0 < both.ci95[1]
    assert crossed_difference(a, a).difference == 0


def test_what_is_not_alike_is_refused() -> None:
    with pytest.raises(ValueError, match="both must be"):
        crossed_difference(np.zeros((2, 3)), np.zeros((3, 2)))
    with pytest.raises(ValueError, match="both must be"):
        crossed_difference(np.zeros((0, 3)), np.zeros((0, 3)))
