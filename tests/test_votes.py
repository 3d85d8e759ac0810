"""Voting over classes of equal answers: the expectation over all subsets is that of going through them."""

import itertools

import check_intervals
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from r1distill.evaluate.votes import Ballot, ballot_of, consensus_at_k, expected_votes
from r1distill.verify.agreement import majority

votes = st.lists(
    st.tuples(st.one_of(st.none(), st.integers(0, 4)), st.booleans()), min_size=1, max_size=8
)  # of each sample: its class, and whether the verifier calls it right


def slow_vote(drawn: list[tuple[int | None, bool]], shares: dict[int, float]) -> float:
    return sum(weight * shares[number] for number, weight in majority([number for number, _ in drawn]).items())


@settings(deadline=None)
@given(votes)
def test_the_expectation_is_the_mean_over_all_subsets(samples: list[tuple[int | None, bool]]) -> None:
    classes, right = [number for number, _ in samples], [is_right for _, is_right in samples]
    shares = {
        number: float(np.mean([is_right for other, is_right in samples if other == number]))
        for number in set(classes) - {None}
        if number is not None
    }
    found = expected_votes(ballot_of(classes, right))
    for k in range(1, len(samples) + 1):
        all_subsets = [slow_vote(list(drawn), shares) for drawn in itertools.combinations(samples, k)]
        assert found[k] == pytest.approx(np.mean(all_subsets), abs=1e-12)


@pytest.mark.parametrize(
    ("classes", "right", "expected"),
    [
        ([0, 0, 1], {0}, {1: 2 / 3, 2: 2 / 3, 3: 1.0}),  # a vote of two is a tie, but for the pair of zeros
        ([0, 1], {0}, {1: 0.5, 2: 0.5}),
        ([0, 0, 1, 1, 2, 2], {2}, {1: 1 / 3, 2: 1 / 3, 4: 1 / 3, 6: 1 / 3}),
        ([0, None, None, None], {0}, {1: 0.25, 2: 0.5, 4: 1.0}),  # those without an answer do not vote
        ([None, None], set(), {1: 0.0, 2: 0.0}),
        ([0, 1, 1, 1], {0}, {1: 0.25, 2: 0.25, 4: 0.0}),
    ],
)
def test_ties_are_shared_and_silence_does_not_vote(
    classes: list[int | None], right: set[int], expected: dict[int, float]
) -> None:
    ballot = ballot_of(classes, [number in right for number in classes])
    assert consensus_at_k([ballot]) == pytest.approx(expected)


def test_a_vote_of_one_is_the_share_of_right_answers_and_of_all_is_the_majority() -> None:
    random = np.random.default_rng(0)
    for _ in range(20):
        classes = [int(number) for number in random.integers(0, 6, 64)]
        found = expected_votes(ballot_of(classes, [number == 0 for number in classes]))
        assert found[1] == pytest.approx(classes.count(0) / 64)
        assert found[64] == pytest.approx(majority(classes).get(0, 0.0))
        assert ((found[1:] >= -1e-12) & (found[1:] <= 1 + 1e-12)).all()


@pytest.mark.parametrize("samples", [64, 1000])
def test_it_keeps_its_digits_at_many_samples(samples: int) -> None:
    """Classes that are as large win as often, whatever the size of the vote."""
    found = expected_votes(ballot_of([i % 4 for i in range(samples)], [i % 4 == 0 for i in range(samples)]))
    assert found[1:] == pytest.approx(np.full(samples, 0.25), rel=1e-9)


def test_more_samples_than_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="1001 samples"):
        expected_votes(Ballot((1001,), (1.0,), 1001))
    with pytest.raises(ValueError, match="no questions"):
        consensus_at_k([])


def test_the_expectation_is_what_fresh_samples_would_give() -> None:
    for mean, error in check_intervals.consensus_bias(np.random.default_rng(2), 16, 400).values():
        assert abs(mean) < 4 * error
