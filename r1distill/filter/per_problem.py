"""Which traces of a problem are kept where there are more than are wanted."""

from typing import Literal

import numpy as np
import pyarrow as pa

from r1distill.errors import UserError
from r1distill.filter.columns import Draws, Flags, Floats, Keys, Places, draws, rank_within
from r1distill.filter.rules import measured
from r1distill.filter.sketch import SKETCH_BYTES

By = Literal["first", "shortest", "lowest_entropy", "most_diverse", "random"]
ROWS_AT_ONCE = 100_000  # of sketches that are compared


def of_problem(tags: pa.Table, keys: Keys, most: int, by: By, seed: int) -> Flags:
    """Which rows `(N,)` are among the `most` of their problem. What is not measured comes last, by sample."""
    if by == "most_diverse":
        kept = np.ones(len(keys.problem), dtype=bool)
        crowded = np.flatnonzero(np.bincount(keys.problem)[keys.problem] > most) if len(kept) else keys.problem
        kept[crowded] = farthest(keys.of(crowded), sketches(tags.take(crowded)), most)
        return kept
    return rank_within(keys.problem, [*values_of(tags, keys, by, seed), keys.sample]) < most


def values_of(tags: pa.Table, keys: Keys, by: By, seed: int) -> list[Floats | Draws]:
    """What the traces of a problem are sorted by."""
    if by == "random":
        return [draws(keys, seed, "per problem")]
    if by == "shortest":
        n_tokens = measured(tags, "n_tokens")
        # where nobody counted tokens, as in most public sets
        return [n_tokens, np.where(np.isnan(n_tokens), measured(tags, "n_characters"), 0.0)]
    return [measured(tags, "mean_entropy_nats")] if by == "lowest_entropy" else []


def sketches(tags: pa.Table) -> np.ndarray:
    """The column `sketch` `(N, SKETCH_BYTES)`; zeros where it is null. Raises UserError where it is not there."""
    if "sketch" not in tags.column_names:
        raise UserError(
            'filter.max_per_problem_by = "most_diverse" needs the column sketch, which tags.parquet does not have; delete it and '
            "run `r1distill filter` again"
        )
    empty = bytes(SKETCH_BYTES)
    texts = [empty if sketch is None else sketch for sketch in tags.column("sketch").to_pylist()]
    return np.frombuffer(b"".join(texts), dtype=np.uint8).reshape(len(texts), SKETCH_BYTES)


def farthest(keys: Keys, sketch: np.ndarray, most: int) -> Flags:
    """Which rows `(N,)` are chosen of their problem: the lowest sample, then always the one farthest from its nearest chosen.

    Every trace that is left out is then no farther from one that is kept than twice what the best choice would give (Gonzalez
    1985, https://doi.org/10.1016/0304-3975(85)90224-5). `sketch (N, B)` uint8: the distance is the number of differing bytes.
    Equally far ones go by sample. All problems take a step at a time, and have at least `most` rows each.
    """
    n = len(sketch)
    nearest = np.full(n, sketch.shape[1] + 1, dtype=np.int64)  # farther than anything: none is chosen yet
    chosen = np.zeros(n, dtype=bool)
    head_of = np.zeros(len(keys.ids), dtype=np.int64)
    for _ in range(most if n else 0):
        heads = np.flatnonzero(rank_within(keys.problem, [chosen, -nearest, keys.sample]) == 0)
        head_of[keys.problem[heads]] = heads
        chosen[heads] = True
        nearest = np.minimum(nearest, distances(sketch, head_of[keys.problem]))
    return chosen


def distances(sketch: np.ndarray, other: Places) -> Places:
    """The number of bytes in which each row `(N, B)` differs from the row `other (N,)`."""
    found = np.empty(len(sketch), dtype=np.int64)
    for start in range(0, len(sketch), ROWS_AT_ONCE):
        rows = slice(start, start + ROWS_AT_ONCE)
        found[rows] = (sketch[rows] != sketch[other[rows]]).sum(axis=1)
    return found
