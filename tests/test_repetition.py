"""Which ends of a token sequence are loops."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from r1distill.generate.repetition import is_degenerate, repeated_tail

TOKENS = st.lists(st.integers(0, 50), max_size=200)


def slow_repeated_tail(tokens: list[int]) -> int:
    """The longest tail that has any period p and is at least 2p long, by trying every period."""
    n, best = len(tokens), 0
    for period in range(1, n // 2 + 1):
        length = period
        while length < n and tokens[n - 1 - length] == tokens[n - 1 - length + period]:
            length += 1
        if length >= 2 * period:
            best = max(best, length)
    return best


@settings(deadline=None)
@given(TOKENS, st.lists(st.integers(0, 5), min_size=1, max_size=20), st.integers(2, 12))
def test_a_loop_behind_any_text_is_as_long_as_by_trying_every_period(text, block, rounds):
    tokens = text + block * rounds
    length, period = repeated_tail(tokens)
    expected = slow_repeated_tail(tokens)
    if expected >= period + 4 and expected >= 8:
        assert length >= expected
    assert period == 0 or all(
        tokens[i] == tokens[i - period] for i in range(len(tokens) - length + period, len(tokens))
    )


@pytest.mark.parametrize("period", [1, 2, 37, 300])
def test_a_loop_is_degenerate_from_the_least_tokens_and_four_rounds_on(period):
    text, block = random.Random(0).choices(range(1000), k=2000), list(range(1001, 1001 + period))
    least = max(512, 4 * period)
    looped = text + (block * (least // period + 2))[:least]
    assert is_degenerate(looped, 512)
    assert not is_degenerate(looped[:-1], 512)
    assert not is_degenerate([*looped, 1], 512)


def test_ordinary_repetition_is_no_loop():
    chance = random.Random(1)
    listing = [token for number in range(300) for token in (7, 8, 9, number, 10, 11)]  # Step 1: …, Step 2: …
    zeros = chance.choices(range(1000), k=3000) + [0] * 400
    assert not is_degenerate(listing, 512)
    assert not is_degenerate(zeros, 512)
    assert not is_degenerate([], 512)


def test_the_period_found_is_the_shortest_that_covers_the_loop():
    assert repeated_tail([9, 9, *[1, 2, 3] * 50]) == (150, 3)
    assert repeated_tail([5] * 100) == (100, 1)
    assert repeated_tail(list(range(100))) == (0, 0)
