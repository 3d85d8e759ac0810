"""The intervals hold the truth as often as they say, and the estimates are those of the slow, obvious way."""

import itertools
import math
from fractions import Fraction

import check_intervals
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from r1distill.evaluate.bounds import bounded_mean_interval, clopper_pearson, mean_cdf, mean_quantile, t_quantile
from r1distill.evaluate.metrics import (
    accuracy_interval,
    chance_of_one,
    counts,
    mean_of_tasks,
    pass_at_k,
    score_of,
    se_samples,
    subset_sizes,
    wilson,
)

rows = st.integers(1, 8).flatmap(lambda samples: st.tuples(st.integers(0, samples), st.just(samples)))
tables = st.lists(rows, min_size=1, max_size=40)  # (right, samples) of each question, ragged


def split(table: list[tuple[int, int]]) -> tuple[list[int], list[int]]:
    return [right for right, _ in table], [samples for _, samples in table]


# ---------------------------------------------------------------- coverage


@pytest.mark.parametrize("samples", [1, 4, 16, 64])
@pytest.mark.parametrize("difficulty", check_intervals.DIFFICULTIES, ids=lambda difficulty: difficulty.name)
def test_both_intervals_hold_the_truth_at_30_questions(difficulty: check_intervals.Difficulty, samples: int) -> None:
    random = np.random.default_rng([samples, round(1000 * difficulty.mean)])
    check_intervals.check_against_score(random, difficulty, 30, samples)
    # 400 tables: three standard errors under 95 %; scripts/check_intervals.py has more, and 500 questions
    assert check_intervals.questions_coverage(random, difficulty, 30, samples, 400) >= 0.917
    assert check_intervals.samples_coverage(random, difficulty, 30, samples, 400) >= 0.917


@pytest.mark.parametrize("samples", [1, 16])
def test_both_intervals_hold_the_truth_at_500_questions_and_not_much_more(samples: int) -> None:
    random = np.random.default_rng(samples)
    uniform = check_intervals.DIFFICULTIES[3]
    assert 0.917 <= check_intervals.questions_coverage(random, uniform, 500, samples, 400) <= 0.99
    if samples > 1:  # one sample a question does not say how much it varies: the interval takes it for the most
        assert 0.917 <= check_intervals.samples_coverage(random, uniform, 500, samples, 400) <= 0.99


# ---------------------------------------------------------------- the bounds


def binomial_tail(number: int, chance: float, at_least: int) -> float:
    return sum(math.comb(number, k) * chance**k * (1 - chance) ** (number - k) for k in range(at_least, number + 1))


@pytest.mark.parametrize(("right", "number"), [(1, 1), (1, 30), (15, 30), (29, 30), (3, 120), (400, 500)])
def test_the_exact_interval_solves_its_equation(right: int, number: int) -> None:
    # Clopper and Pearson 1934: the ends are the shares under which as many, or as few, come out in 2.5 % of the cases
    low, high = clopper_pearson(right / number, number)
    assert binomial_tail(number, low, right) == pytest.approx(0.025, abs=1e-9)
    if right < number:
        assert 1 - binomial_tail(number, high, right + 1) == pytest.approx(0.025, abs=1e-9)
    else:
        assert high == 1


@settings(deadline=None, max_examples=40)
@given(st.lists(st.booleans(), min_size=1, max_size=60))
def test_with_one_sample_a_question_both_intervals_are_the_exact_one(correct: list[bool]) -> None:
    score = score_of(correct, [1] * len(correct))
    exact = clopper_pearson(sum(correct) / len(correct), len(correct))
    assert score.ci95 == pytest.approx(exact, abs=1e-9)
    assert score.ci95_samples == pytest.approx(exact, abs=1e-9)


def test_the_distribution_of_a_weighted_mean_is_that_of_many_draws() -> None:
    random = np.random.default_rng(0)
    values, weights = random.random(6), np.array([0.5, 1.0, 3.0, 20.0, 1.0, 0.0])
    drawn = random.dirichlet(weights[:5], 200_000) @ values[:5]
    for t in np.quantile(drawn, [0.001, 0.025, 0.3, 0.5, 0.9, 0.975]):
        assert mean_cdf(float(t), values, weights[None])[0] == pytest.approx(np.mean(drawn <= t), abs=0.004)
    assert mean_cdf(float(values[:5].min()), values, weights[None])[0] == 0
    assert mean_cdf(float(values[:5].max()), values, weights[None])[0] == 1


def test_the_distribution_rises_where_one_value_is_nearly_all_of_the_weight() -> None:
    """The saddle point is then near a pole of that value, on the one side or the other."""
    random = np.random.default_rng(0)
    for values, weights in (([0, 0.5, 1], [0.5, 430, 2]), ([0, 0.5, 1], [1, 498, 1]), ([0.06, 0.09], [0.64, 5600.0])):
        drawn = np.sort(random.dirichlet(weights, 400_000) @ np.array(values))
        places = np.linspace(drawn[400], drawn[-400], 300)
        found = np.array([mean_cdf(float(t), values, np.array([weights]))[0] for t in places])
        assert (np.diff(found) > 0).all()
        assert found == pytest.approx(np.searchsorted(drawn, places) / len(drawn), abs=0.004)


@settings(deadline=None)
@given(st.floats(0.001, 0.999), st.lists(st.floats(0.5, 40_000), min_size=2, max_size=5))
@example(chance=0.25, weights=[0.5, 430.0, 2.0])
def test_the_quantile_of_a_weighted_mean_is_where_its_distribution_says(chance: float, weights: list[float]) -> None:
    values = np.linspace(0, 1, len(weights))
    found = mean_quantile(chance, values, np.array(weights))
    assert mean_cdf(found, values, np.array([weights]))[0] == pytest.approx(chance, rel=1e-6)


@pytest.mark.parametrize(
    ("degrees", "expected"), [(1, 12.706204736), (2, 4.302652730), (29, 2.045229642), (499, 1.964729391)]
)
def test_quantiles_of_students_t_are_those_of_the_tables(degrees: int, expected: float) -> None:
    assert t_quantile(0.975, degrees) == pytest.approx(expected, abs=1e-8)


@settings(deadline=None, max_examples=40)
@given(tables)
def test_the_intervals_are_around_the_score_inside_0_and_1_and_never_nothing(table: list[tuple[int, int]]) -> None:
    right, samples = split(table)
    score = score_of(right, samples)
    expected = sum(Fraction(c, n) for c, n in table) / len(table)
    assert score.pass_at_1 == pytest.approx(float(expected))
    for low, high in (score.ci95, score.ci95_samples):
        assert 0 <= low <= score.pass_at_1 + 1e-12
        assert score.pass_at_1 - 1e-12 <= high <= 1
        assert high - low > 0.001


@pytest.mark.parametrize("outcome", [True, False])
def test_all_right_or_all_wrong_is_not_certain(outcome: bool) -> None:
    score = score_of([64 * outcome] * 30, [64] * 30)
    assert score.pass_at_1 == outcome
    assert score.ci95[1] - score.ci95[0] == pytest.approx(1 - 0.025 ** (1 / 31), abs=0.005)
    assert score.ci95_samples[1] - score.ci95_samples[0] == pytest.approx(1 - 0.025 ** (1 / 1920), abs=1e-9)
    assert (score.se_questions, score.se_samples) == (0, 0)


def test_more_samples_narrow_it_over_samples_and_over_questions_only_as_far_as_questions_agree() -> None:
    split_16, split_64 = (score_of([0, n] * 15, [n] * 30) for n in (16, 64))
    assert split_16.ci95 == pytest.approx(split_64.ci95)
    assert split_64.ci95_samples[1] - split_64.ci95_samples[0] < 0.005
    alike = score_of([32] * 30, [64] * 30)
    assert alike.ci95[1] - alike.ci95[0] < 0.12 < 0.35 < split_64.ci95[1] - split_64.ci95[0]


def test_the_order_of_questions_and_the_mirror_image_change_nothing() -> None:
    shares = np.array([0.0, 0.25, 0.25, 1.0, 0.75, 0.0])
    low, high = bounded_mean_interval(shares)
    assert bounded_mean_interval(shares[::-1]) == (low, high)
    assert bounded_mean_interval(1 - shares) == pytest.approx((1 - high, 1 - low), abs=1e-9)


# ---------------------------------------------------------------- standard errors


def test_the_standard_error_over_samples_is_the_spread_of_re_runs() -> None:
    random = np.random.default_rng(0)
    chances, samples = np.array([0.9, 0.5, 0.2, 0.05, 1.0]), np.array([4, 8, 2, 16, 3])
    right = random.binomial(samples, chances, (20_000, 5))
    variances = np.array([se_samples(row.astype(float), samples.astype(float)) ** 2 for row in right[:4000]])
    # unbiased: its square has the variance of the re-runs' scores as its mean
    assert variances.mean() == pytest.approx((right / samples).mean(1).var(), rel=0.03)


def test_the_standard_error_over_questions_is_the_clustered_one() -> None:
    right, samples = np.array([3, 0, 4, 1]), 4
    score = score_of(right, [samples] * 4)
    # https://arxiv.org/abs/2411.00640, equation 4, with N - 1 for N
    answers = np.array([[1.0] * c + [0.0] * (samples - c) for c in right]) - score.pass_at_1
    clustered = sum(float(np.outer(row, row).sum()) for row in answers) / answers.size**2
    assert score.se_questions**2 == pytest.approx(clustered * 4 / 3)


def test_where_nothing_can_be_estimated_the_errors_are_the_most_they_can_be() -> None:
    one_question, one_sample = score_of([3], [4]), score_of([1, 0, 1, 1], [1, 1, 1, 1])
    assert one_question.se_questions == pytest.approx(math.sqrt(0.75 * 0.25))
    assert one_sample.se_samples == pytest.approx(math.sqrt(0.75 * 0.25 / 4))


@pytest.mark.parametrize(
    ("right", "samples", "words"),
    [([], [], "no questions"), ([0], [0], "without samples"), ([2], [1], "more right samples"), ([-1], [1], "right")],
)
def test_tables_that_are_none_are_refused(right: list[int], samples: list[int], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        score_of(right, samples)


def test_a_table_of_booleans_gives_the_same() -> None:
    correct = [[True, False, True], [False], [True, True]]
    right, samples = counts(correct)
    score = score_of(right, samples)
    assert accuracy_interval(correct) == pytest.approx((score.pass_at_1, *score.ci95))
    with pytest.raises(ValueError, match="no questions"):
        accuracy_interval([])


# ---------------------------------------------------------------- pass@k


@settings(deadline=None)
@given(st.integers(1, 8).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n), st.integers(1, n))))
def test_pass_at_k_is_the_share_of_all_subsets_with_a_right_one(case: tuple[int, int, int]) -> None:
    right, samples, k = case
    subsets = list(itertools.combinations([True] * right + [False] * (samples - right), k))
    assert chance_of_one(right, samples, k) == pytest.approx(sum(map(any, subsets)) / len(subsets))


def test_pass_at_k_keeps_its_digits_at_a_thousand_samples() -> None:
    assert chance_of_one(1, 1000, 1) == 0.001
    assert chance_of_one(1, 1000, 512) == 0.512
    assert chance_of_one(500, 1000, 64) == pytest.approx(1 - math.prod((500 - i) / (1000 - i) for i in range(64)))
    assert pass_at_k([0, 1000], [1000, 1000])[1000] == 0.5


def test_ragged_questions_are_asked_for_as_many_as_all_have() -> None:
    assert subset_sizes([64, 64]) == [1, 2, 4, 8, 16, 32, 64]
    assert subset_sizes([12, 64]) == [1, 2, 4, 8, 12]
    assert subset_sizes([1]) == [1]
    found = pass_at_k([1, 3], [3, 4])
    assert found == pytest.approx({1: (1 / 3 + 3 / 4) / 2, 2: (2 / 3 + 1) / 2, 3: 1.0})


def test_pass_at_k_has_no_bias() -> None:
    for mean, error in check_intervals.pass_at_k_bias(np.random.default_rng(1), 16, 300).values():
        assert abs(mean) < 4 * error


# ---------------------------------------------------------------- Wilson, and means of tasks


def test_wilson_solves_its_equation() -> None:
    # Wilson 1927: the ends are the shares that a score test just does not reject
    for share, number in ((0.3, 10), (0.0, 30), (0.97, 120)):
        for end in wilson(share, number):
            if 0 < end < 1:
                assert abs(share - end) == pytest.approx(1.959963984540054 * math.sqrt(end * (1 - end) / number))


def test_the_mean_of_tasks_adds_their_errors_in_quadrature() -> None:
    assert mean_of_tasks([(0.5, 0.4, 0.6)]) == pytest.approx((0.5, 0.4, 0.6))
    mean, low, high = mean_of_tasks([(0.2, 0.17, 0.24), (0.6, 0.56, 0.63)])
    assert (mean, low, high) == pytest.approx((0.4, 0.4 - 0.05 / 2, 0.4 + 0.05 / 2))
