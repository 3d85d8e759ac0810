"""Several teachers as one: their distributions mixed by weight, or each in its own domain.

Probabilities are averaged, not logits: p(v) = sum w_i p_i(v) is what one would sample from who asks a teacher at random. Each
is known by its likeliest tokens; the mixture is known on all of them together, where a token that one teacher's row lacks
counts as 0 for it. That understates p(v) by at most the mass that its row leaves out, a thousandth.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from r1distill.errors import UserError
from r1distill.teachers_section import ScoringTeacher
from r1distill.train.teacher_cache import NO_ROW, Gathered, TeacherCache

Floats = NDArray[np.float64]
Weigh = Callable[[str], Sequence[float]]  # of a problem by its id, a weight for each teacher


def weights_of(teachers: Sequence[ScoringTeacher], source: str, kind: str) -> list[float]:
    """The share of each teacher for a problem, together 1; all 0 where none teaches it."""
    meant = [{source, kind} & set(teacher.domains) for teacher in teachers]
    taught = [bool(each) for each in meant] if any(meant) else [not teacher.domains for teacher in teachers]
    weights = [teacher.weight if takes else 0.0 for teacher, takes in zip(teachers, taught, strict=True)]
    total = sum(weights)
    return [weight / total for weight in weights] if total else weights


def mixed(rows: Sequence[Gathered], weights: Floats) -> Gathered:
    """The mixture of rows `(N, K_m)` of M teachers with `weights (N, M)`, on the union of their tokens.

    Who has no row of a token, or no weight, takes no part in it; the others' weights then count for all.
    """
    present = np.stack([(each.ids >= 0).any(axis=1) for each in rows], axis=1) * (weights > 0)
    weights = weights * present
    total = weights.sum(axis=1, keepdims=True)
    weights = np.divide(weights, total, out=np.zeros_like(weights), where=total > 0)
    parts = [
        np.exp(each.logprobs.astype(np.float64)) * weight[:, None] for each, weight in zip(rows, weights.T, strict=True)
    ]
    ids, mass = np.concatenate([each.ids for each in rows], axis=1), np.concatenate(parts, axis=1)
    ids = np.where(mass > 0, ids, -1)
    order = np.argsort(ids, axis=1, kind="stable")
    ids, mass = np.take_along_axis(ids, order, 1), np.take_along_axis(mass, order, 1)
    first = np.ones(ids.shape, dtype=bool)  # of equal ids that follow each other; the first of a row always
    first[:, 1:] = ids[:, 1:] != ids[:, :-1]
    sums = np.add.reduceat(mass.reshape(-1), np.flatnonzero(first)) if mass.size else np.zeros(0)
    known = ids[first] >= 0
    row = np.broadcast_to(np.arange(len(ids))[:, None], ids.shape)[first][known]
    starts = np.searchsorted(row, np.arange(len(ids)))
    column = np.arange(len(row)) - starts[row]
    shape = (len(ids), max(int(column.max(initial=-1)) + 1, 1))
    found, logprobs = np.full(shape, -1, dtype=np.int64), np.full(shape, -np.inf, dtype=np.float32)
    found[row, column] = ids[first][known]
    logprobs[row, column] = np.log(sums[known])
    return Gathered(found, logprobs, None)


class SeveralTeachers:
    """Caches of several teachers in place of one TeacherCache. Rows are numbered as in the first.

    Raises UserError where none of the others has a trace of the first, by its very tokens.
    """

    temperatures: tuple[float, ...] = ()  # the tail of a mixture at another temperature does not follow from the tails

    def __init__(self, names: Sequence[str], caches: Sequence[TeacherCache], weigh: Weigh) -> None:
        self.caches = list(caches)
        first = self.caches[0]
        self.manifest: dict[str, Any] = first.manifest
        self.weights = np.zeros((len(first.traces), len(caches)))
        # the number of each of the first one's traces in the others, -1 where it is not there
        self.numbers = np.full((len(first.traces), len(caches)), -1, dtype=np.int64)
        self.numbers[:, 0] = np.arange(len(first.traces))
        for (problem_id, sample), number in first.places.items():
            self.weights[number] = weigh(problem_id)
            tokens = first.tokens_of(problem_id, sample)
            for place, other in enumerate(self.caches[1:], 1):
                theirs = other.tokens_of(problem_id, sample)
                if tokens is not None and theirs is not None and np.array_equal(tokens[0], theirs[0]):
                    self.numbers[number, place] = other.places[problem_id, sample]
        for place, name in enumerate(names[1:], 1):
            if len(first) and (self.numbers[:, place] < 0).all():
                raise UserError(
                    f"[[teachers]]: the cache of {name} has none of the traces of {names[0]}; run `r1distill cache` again"
                )

    def __len__(self) -> int:
        return len(self.caches[0])

    def tokens_of(self, problem_id: str, sample: int) -> tuple[NDArray[np.int32], int] | None:
        return self.caches[0].tokens_of(problem_id, sample)

    def gather(self, rows: NDArray[np.int64]) -> Gathered:
        """The mixture at the rows of these numbers `(N,)`; NO_ROW is an empty one."""
        starts = self.caches[0].starts
        there = rows != NO_ROW
        trace = np.where(there, np.searchsorted(starts, rows, side="right") - 1, 0)
        offset = rows - starts[trace] if len(self.weights) else rows
        found = []
        for place, cache in enumerate(self.caches):
            number = self.numbers[trace, place] if len(self.weights) else np.full(len(rows), -1)
            has = there & (number >= 0)
            found.append(cache.gather(np.where(has, cache.starts[np.where(has, number, 0)] + offset, NO_ROW)))
        weights = self.weights[trace] if len(self.weights) else np.zeros((len(rows), len(self.caches)))
        return mixed(found, weights)
