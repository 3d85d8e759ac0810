"""Which problems are held out for validation."""

import hashlib

import numpy as np
import pyarrow as pa

from r1distill.filter.columns import MISSING, Flags, Floats, Words, words


def share_of(problem_id: str) -> float:
    """A number in [0, 1) that depends on the id alone, so that a problem is on one side of the split in every run."""
    return int.from_bytes(hashlib.sha256(problem_id.encode()).digest()[:8]) / 2**64


def is_validation(tags: pa.Table, fraction: float) -> Flags:
    """Whether each row `(N,)` is of the validation split: by its problem, and by the one that this nearly repeats.

    Else the student would be validated on what it was taught in other words.
    """
    found = share_of_rows(words(tags, "problem_id"))
    if "problem_duplicate_of" in tags.column_names:
        originals = words(tags, "problem_duplicate_of")
        nothing = [MISSING, *(place for place, name in enumerate(originals.known) if not name)]
        found = np.where(np.isin(originals.places, nothing), found, share_of_rows(originals))
    return found < fraction


def share_of_rows(column: Words) -> Floats:
    """share_of of each row `(N,)`, computed once a text; 0 where it is null."""
    return np.array([*(share_of(name) for name in column.known), 0.0])[column.places]
