"""The interval holds the true accuracy as often as it says."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from r1distill.evaluate.metrics import accuracy_interval, mean_of_tasks, wilson

ROUNDS = 600
QUESTIONS = 30
tables = st.integers(1, 8).flatmap(
    lambda samples: st.lists(st.lists(st.booleans(), min_size=samples, max_size=samples), min_size=1, max_size=40)
)


@pytest.mark.parametrize("spread", ["questions alike", "questions differ", "solved always or never"])
@pytest.mark.parametrize("share", [0.02, 0.05, 0.2, 0.5, 0.8, 0.95, 0.98])
@pytest.mark.parametrize("samples", [1, 4, 16])
def test_the_interval_holds_the_true_accuracy(samples: int, share: float, spread: str) -> None:
    random = np.random.default_rng([samples, round(100 * share), len(spread)])
    shape = (ROUNDS, QUESTIONS)
    chances = {
        "questions alike": lambda: np.full(shape, share),
        "questions differ": lambda: random.beta(2 * share, 2 * (1 - share), shape),
        "solved always or never": lambda: (random.random(shape) < share).astype(float),
    }[spread]()
    correct = random.random((ROUNDS, QUESTIONS, samples)) < chances[:, :, None]
    held = 0
    for table in correct:
        _, low, high = accuracy_interval(table)  # type: ignore[arg-type]
        held += low <= share <= high
    # the spread over questions is itself measured, and badly where one or two of 30 are ever solved
    hard_to_measure = spread == "questions differ" and not 0.1 < share < 0.9
    assert held / ROUNDS >= (0.85 if hard_to_measure else 0.90)


@given(tables)
def test_the_interval_is_around_the_accuracy_and_inside_0_and_1(correct: list[list[bool]]) -> None:
    accuracy, low, high = accuracy_interval(correct)
    assert accuracy == pytest.approx(sum(map(sum, correct)) / sum(map(len, correct)))
    assert 0 <= low <= accuracy + 1e-12
    assert accuracy - 1e-12 <= high <= 1
    assert high - low > 0.01


@given(st.lists(st.booleans(), min_size=1, max_size=60))
def test_with_one_sample_a_question_it_is_wilsons(correct: list[bool]) -> None:
    accuracy, low, high = accuracy_interval([[each] for each in correct])
    assert (low, high) == pytest.approx(wilson(accuracy, len(correct)))


def test_wilson_solves_its_equation() -> None:
    # Wilson 1927: the ends are the shares that a score test just does not reject
    for share, number in ((0.3, 10), (0.0, 30), (0.97, 120)):
        for end in wilson(share, number):
            if 0 < end < 1:
                assert abs(share - end) == pytest.approx(1.959963984540054 * math.sqrt(end * (1 - end) / number))


@pytest.mark.parametrize("outcome", [True, False])
def test_all_right_or_all_wrong_is_not_certain_however_many_samples(outcome: bool) -> None:
    accuracy, low, high = accuracy_interval([[outcome] * 64] * 30)
    assert accuracy == outcome
    assert high - low == pytest.approx(0.1135, abs=0.001)  # Wilson's for 30 of 30


def test_more_samples_narrow_it_only_as_far_as_questions_agree() -> None:
    alike = [[True] * (7 + question % 3) + [False] * (9 - question % 3) for question in range(30)]
    split = [[question % 2 == 0] * 16 for question in range(30)]
    assert accuracy_interval(alike)[1:] == pytest.approx(wilson(0.5, 480))
    assert accuracy_interval(split)[1:] == pytest.approx(wilson(0.5, 30))


def test_no_questions_have_no_accuracy() -> None:
    with pytest.raises(ValueError, match="no questions"):
        accuracy_interval([])


def test_the_mean_of_tasks_adds_their_errors_in_quadrature() -> None:
    assert mean_of_tasks([(0.5, 0.4, 0.6)]) == pytest.approx((0.5, 0.4, 0.6))
    mean, low, high = mean_of_tasks([(0.2, 0.17, 0.24), (0.6, 0.56, 0.63)])
    assert (mean, low, high) == pytest.approx((0.4, 0.4 - 0.05 / 2, 0.4 + 0.05 / 2))
