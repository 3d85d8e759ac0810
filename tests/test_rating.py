"""The rating of a model that solves as many problems as a participant of that rating would."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from r1distill.evaluate.rating import chances, codeforces_rating


def test_the_chances_are_those_that_codeforces_defines() -> None:
    # https://codeforces.com/blog/entry/62865: 0.5 at the own rating, 0.75 at 200 points less, 0.9 at 400
    assert chances(np.array([1500.0, 1300.0, 1100.0]), 1500.0) == pytest.approx([0.5, 0.76, 10 / 11], abs=0.001)


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(8, 35), st.floats(0.05, 0.95)), min_size=1, max_size=40))
def test_the_expected_solves_at_the_rating_are_the_observed_ones(problems: list[tuple[int, float]]) -> None:
    ratings, shares = [100.0 * rating for rating, _ in problems], [share for _, share in problems]
    found = codeforces_rating(ratings, shares)
    assert float(chances(np.array(ratings), found.rating).sum()) == pytest.approx(sum(shares), abs=1e-6)
    assert 0 <= found.ci95[0] < found.rating < found.ci95[1] <= 4000


def test_the_rating_is_the_likeliest() -> None:
    ratings, solved = np.array([800.0, 1200.0, 1600.0, 2000.0]), np.array([1.0, 1.0, 0.0, 0.0])
    grid = np.linspace(0, 4000, 40_001)
    likelihood = sum(
        np.log(chances(np.array([d]), grid)) * s + np.log1p(-chances(np.array([d]), grid)) * (1 - s)
        for d, s in zip(ratings, solved, strict=True)
    )
    best = grid[int(np.argmax(likelihood))]
    assert codeforces_rating(ratings.tolist(), solved.tolist()).rating == pytest.approx(best, abs=0.1)


@pytest.mark.parametrize("truth", [900.0, 1500.0, 2400.0])
def test_the_interval_holds_the_true_rating(truth: float) -> None:
    random = np.random.default_rng(int(truth))
    ratings = random.integers(8, 36, 150) * 100.0
    held = [
        low <= truth <= high
        for low, high in (
            codeforces_rating(ratings, random.random(150) < chances(ratings, truth)).ci95 for _ in range(300)
        )
    ]
    assert 0.91 <= np.mean(held) <= 0.985


def test_all_or_nothing_solved_has_an_open_end() -> None:
    none, everything = codeforces_rating([1500.0] * 20, [0.0] * 20), codeforces_rating([1500.0] * 20, [1.0] * 20)
    assert (none.rating, none.ci95[0]) == (0, 0)
    assert 0 < none.ci95[1] < 1500 < everything.ci95[0] < 4000
    assert (everything.rating, everything.ci95[1]) == (4000, 4000)


def test_problems_without_ratings_are_refused() -> None:
    with pytest.raises(ValueError, match="0 ratings"):
        codeforces_rating([], [])
    with pytest.raises(ValueError, match="2 ratings for 1"):
        codeforces_rating([800.0, 900.0], [1.0])
