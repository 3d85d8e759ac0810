"""The groups of traces that are counted and balanced: by source, by the difficulty of the problem, by length."""

import numpy as np
import pyarrow as pa

from r1distill.filter.columns import MISSING, Floats, Places, Words, words
from r1distill.filter.rules import measured
from r1distill.selection_sections import DIFFICULTIES, Balance

HARD = 2  # so many of DIFFICULTIES are of problems that at most a quarter of the samples solves


def groups_of(tags: pa.Table, balance: Balance) -> Words:
    """The group of each row, MISSING where it was not measured."""
    if balance.by == "source":
        return words(tags, "source")
    if balance.by == "difficulty":
        return Words(difficulty(measured(tags, "pass_rate")), list(DIFFICULTIES))
    n_tokens = measured(tags, "n_tokens")
    places = np.searchsorted(np.array(balance.edges), n_tokens, side="right")
    return Words(np.where(np.isnan(n_tokens), MISSING, places), balance.lengths)


def difficulty(pass_rate: Floats) -> Places:
    """The place in DIFFICULTIES of pass rates `(N,)`: exactly 0, up to a quarter, a half, three quarters, below 1, exactly 1."""
    inner = np.searchsorted(np.array([0.0, 0.25, 0.5, 0.75]), pass_rate, side="left")
    places = np.where(pass_rate >= 1, len(DIFFICULTIES) - 1, inner)
    return np.where(np.isnan(pass_rate), MISSING, places)
