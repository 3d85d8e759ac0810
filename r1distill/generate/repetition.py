"""Degenerate repetition, found while a trace is sampled: its end repeats one block of tokens again and again."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

LONGEST_PERIOD = 1_024
MATCHED_END = 4  # tokens that have to be the same before a period is looked at more closely


def repeated_tail(
    tokens: Sequence[int] | NDArray[np.integer], window: int = 16_384, longest_period: int = LONGEST_PERIOD
) -> tuple[int, int]:
    """(length, period): how many tokens at the end of `tokens (T,)` repeat with the period that covers the most of them.

    A tail of length L has period p where each of its tokens but the first p is the one p places before. (0, 0) for none
    that repeats at all. The last `window` tokens are looked at; the time is linear in them for ordinary text.
    """
    tail = np.asarray(tokens[-window:], dtype=np.int64)
    n = len(tail)
    if n < 2 * MATCHED_END:
        return 0, 0
    # places where the last tokens of all stand once more: only their distances can be periods
    here = np.ones(n - MATCHED_END, dtype=bool)
    for back in range(MATCHED_END):
        here &= tail[MATCHED_END - 1 - back : n - 1 - back] == tail[n - 1 - back]
    ends = np.nonzero(here)[0] + MATCHED_END - 1
    best = (0, 0)
    for period in (n - 1 - ends)[::-1]:
        if period > longest_period or best[0] == n:
            break
        differs = np.nonzero(tail[period:] != tail[:-period])[0]
        length = n - (int(differs[-1]) + 1 if len(differs) else 0)
        if length > best[0]:
            best = (length, int(period))
    return best


def is_degenerate(
    tokens: Sequence[int] | NDArray[np.integer],
    least_tokens: int,
    least_repeats: int = 4,
    longest_period: int = LONGEST_PERIOD,
) -> bool:
    """Whether the end of `tokens` is a loop: at least `least_tokens` of it, and its block at least `least_repeats` times."""
    length, period = repeated_tail(tokens, longest_period=longest_period)
    return period > 0 and length >= max(least_tokens, least_repeats * period)
