"""The bounds against the exact entropy of whole distributions, in float64."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from r1distill.generate.chat import signals_of
from r1distill.generate.signals import entropy_bounds, summarise

TOLERANCE_NATS = 1e-9
RANDOM = st.builds(np.random.default_rng, st.integers(0, 2**32 - 1))
SHARPNESS = st.sampled_from([0.0, 0.1, 1.0, 3.0, 10.0, 30.0])  # from even to almost certain


def distributions(
    random: np.random.Generator, tokens: int, vocabulary: int, sharpness: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Logprobs `(T, V)`, the likeliest first, and their exact entropies `(T,)` in nats."""
    logits = sharpness * random.standard_normal((tokens, vocabulary))
    logits -= logits.max(axis=1, keepdims=True)
    logprobs = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    return -np.sort(-logprobs, axis=1), -(np.exp(logprobs) * logprobs).sum(axis=1)


@settings(deadline=None)
@given(RANDOM, st.integers(1, 20), st.integers(2, 300), SHARPNESS, st.data())
def test_the_exact_entropy_lies_between_the_bounds(random, tokens, vocabulary, sharpness, data):
    logprobs, exact = distributions(random, tokens, vocabulary, sharpness)
    top = logprobs[:, : data.draw(st.integers(1, vocabulary))]
    lower, upper = entropy_bounds(top, vocabulary)
    assert upper is not None
    assert np.all(lower <= exact + TOLERANCE_NATS)
    assert np.all(exact <= upper + TOLERANCE_NATS)
    assert np.array_equal(entropy_bounds(top, None)[0], lower)
    assert entropy_bounds(top, None)[1] is None


@settings(deadline=None)
@given(RANDOM, st.integers(2, 300), SHARPNESS)
def test_both_bounds_are_the_entropy_when_the_whole_vocabulary_is_given(random, vocabulary, sharpness):
    logprobs, exact = distributions(random, 8, vocabulary, sharpness)
    lower, upper = entropy_bounds(logprobs, vocabulary)
    np.testing.assert_allclose(lower, exact, atol=TOLERANCE_NATS)
    assert upper is not None
    np.testing.assert_allclose(upper, exact, atol=TOLERANCE_NATS)


@settings(deadline=None)
@given(RANDOM, st.integers(2, 300), SHARPNESS, st.data())
def test_more_of_the_distribution_never_makes_the_bounds_worse(random, vocabulary, sharpness, data):
    logprobs, _ = distributions(random, 8, vocabulary, sharpness)
    few = data.draw(st.integers(1, vocabulary - 1))
    lower, upper = entropy_bounds(logprobs[:, :few], vocabulary)
    closer_lower, closer_upper = entropy_bounds(logprobs[:, : few + 1], vocabulary)
    assert upper is not None
    assert closer_upper is not None
    assert np.all(closer_lower >= lower - TOLERANCE_NATS)
    assert np.all(closer_upper <= upper + TOLERANCE_NATS)


@settings(deadline=None)
@given(RANDOM, st.integers(21, 300), SHARPNESS)
def test_the_rounding_of_float32_moves_the_bounds_by_little(random, vocabulary, sharpness):
    logprobs, exact = distributions(random, 8, vocabulary, sharpness)
    lower, upper = entropy_bounds(logprobs[:, :20].astype(np.float32), vocabulary)
    assert upper is not None
    assert np.all(lower <= exact + 1e-3)
    assert np.all(exact <= upper + 1e-3)
    assert np.all(lower <= upper)


@settings(deadline=None)
@given(
    st.lists(st.lists(st.floats(allow_nan=True, allow_infinity=True), min_size=3, max_size=3), min_size=1, max_size=10),
    st.one_of(st.none(), st.integers(1, 200_000)),
)
def test_no_input_whatever_gives_nan(rows, vocabulary):
    top = np.array(rows)
    lower, upper = entropy_bounds(top, vocabulary)
    assert np.isfinite(lower).all()
    assert upper is None or np.isfinite(upper).all()
    signals = summarise(top[:, 0], top, vocabulary)
    if signals:
        numbers = [signals.mean_entropy_nats, signals.p95_entropy_nats, signals.mean_entropy_upper_nats or 0.0]
        assert all(math.isfinite(number) for number in numbers)
        assert math.isfinite(signals.mean_logprob)


def test_missing_entries_are_as_if_they_were_not_given():
    top = np.log([[0.5, 0.25, 0.125]])
    for missing in (-np.inf, np.nan, -9999.0):
        padded = np.append(top, [[missing, missing]], axis=1)
        for bound, of_padded in zip(entropy_bounds(top, 100), entropy_bounds(padded, 100), strict=True):
            np.testing.assert_array_equal(bound, of_padded)


def test_a_certain_token_has_no_entropy_and_an_even_choice_has_the_logarithm():
    certain = np.array([[0.0, -np.inf, -np.inf]])
    lower, upper = entropy_bounds(certain, 50_000)
    assert lower[0] == 0.0
    assert upper is not None
    assert upper[0] == 0.0
    even = np.log(np.full((1, 4), 0.25))
    assert entropy_bounds(even, 4)[0][0] == pytest.approx(math.log(4))


def test_the_tail_counts_as_one_token_or_as_an_even_spread():
    lower, upper = entropy_bounds(np.log([[0.9]]), 11)
    assert upper is not None
    assert lower[0] == pytest.approx(-0.9 * math.log(0.9) - 0.1 * math.log(0.1))
    assert upper[0] == pytest.approx(-0.9 * math.log(0.9) - 0.1 * math.log(0.1 / 10))


def test_an_empty_trace_has_no_signals():
    assert summarise(np.zeros(0), np.zeros((0, 20)), 100) is None


def test_means_and_percentile_are_over_the_tokens():
    top, exact = distributions(np.random.default_rng(0), 200, 20, 1.0)
    signals = summarise(top[:, 3], top, 20)
    assert signals is not None
    assert signals.logprobs == 20
    assert signals.mean_logprob == pytest.approx(top[:, 3].mean())
    assert signals.mean_entropy_nats == pytest.approx(exact.mean())
    assert signals.mean_entropy_upper_nats == pytest.approx(exact.mean())
    assert signals.p95_entropy_nats == pytest.approx(np.percentile(exact, 95))


def test_tokens_of_unknown_logprob_are_left_out():
    top = np.log([[0.5, 0.5], [0.9, 0.1], [0.5, 0.5]])
    for unknown in (np.nan, -np.inf, -9999.0):
        signals = summarise(np.array([np.log(0.5), unknown, np.log(0.5)]), top, 2)
        assert signals is not None
        assert signals.mean_logprob == pytest.approx(math.log(0.5))
        assert signals.mean_entropy_nats == pytest.approx(math.log(2))
        assert summarise(np.full(3, unknown), top, 2) is None


@settings(deadline=None)
@given(RANDOM, st.integers(3, 300), SHARPNESS, st.data())
def test_the_lower_bound_holds_for_the_lists_of_a_vllm_server(random, vocabulary, sharpness, data):
    """vLLM puts the sampled token first and cuts the list at k, so an unlikely one takes the place of the k-th."""
    logprobs, exact = distributions(random, 8, vocabulary, sharpness)
    k = data.draw(st.integers(2, min(20, vocabulary)))
    content = []
    for row in logprobs:
        sampled = data.draw(st.integers(0, vocabulary - 1))
        ids = list(dict.fromkeys([sampled, *range(k)]))[:k]
        content.append({"logprob": row[sampled], "top_logprobs": [{"logprob": row[token]} for token in ids]})
    found = signals_of(content)
    signals = found.summary() if found else None
    assert signals is None or signals.logprobs == k
    assert signals is None or signals.mean_entropy_nats <= exact.mean() + TOLERANCE_NATS


def test_a_servers_token_without_a_list_is_left_out():
    token = {"logprob": math.log(0.5), "top_logprobs": [{"logprob": math.log(0.5)}, {"logprob": math.log(0.5)}]}
    alone = signals_of([token])
    assert alone is not None
    for without in (
        {"logprob": -9999.0, "top_logprobs": []},
        {"logprob": -1.0, "top_logprobs": None},
        {"logprob": -1.0},
    ):
        both = signals_of([token, without])
        assert both is not None
        assert both.summary() == alone.summary()
        assert signals_of([without]) is None
    assert signals_of([]) is None
