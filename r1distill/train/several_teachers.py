"""Several teachers as one: their distributions mixed by weight, or each in its own domain.

Probabilities are averaged, not logits: p(v) = sum w_i p_i(v) is what one would sample from who asks a teacher at random. Each
is known by its likeliest tokens; the mixture is known on all of them together, where a token that one teacher's row lacks
counts as 0 for it. That understates p(v) by at most the mass that its row leaves out, a thousandth.
"""

from collections.abc import Callable, Iterable, Sequence
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


def refuse_idle(teachers: Sequence[ScoringTeacher], domains: Iterable[tuple[str, str]]) -> None:
    """Raise UserError for a teacher of none of the problems, of which `domains` are source and kind."""
    known = set(domains)
    weights = [weights_of(teachers, *each) for each in known]
    for place, teacher in enumerate(teachers):
        if weights and not any(each[place] for each in weights):
            own = (
                f"its domains are {', '.join(teacher.domains)}" if teacher.domains else "others name all their domains"
            )
            raise UserError(
                f"[[teachers]] {teacher.name} teaches no problem: {own}, and there are the sources "
                f"{', '.join(sorted({source for source, _ in known}))} and the kinds "
                f"{', '.join(sorted({kind for _, kind in known}))}; correct the names, or take it out"
            )


def read_in(caches: Sequence[TeacherCache], weigh: Weigh, end: int | None) -> list[bytes]:
    """Of each cache a byte for each of its traces: 1 where the trace is read in the tokens that this cache has.

    They are those of the first that teaches it, but where another that teaches it has the same and ends with `end`, the
    student's end token, that one's: with the first's the end would not be taught. What a cache has of problems that its
    teacher does not teach, or that are no longer there, was scored for another recipe and counts for nothing.
    """
    found = [bytearray(len(cache.traces)) for cache in caches]
    for key in dict.fromkeys(key for cache in caches for key in cache.places):
        tokens = {
            place: cache.tokens_of(*key)[0]  # type: ignore[index]
            for place, (cache, weight) in enumerate(zip(caches, weigh(key[0]), strict=True))
            if weight and key in cache.places
        }
        if tokens:
            first = next(iter(tokens.values()))
            alike = [place for place, other in tokens.items() if is_alike(first, other)]
            place = next((each for each in alike if len(first) and tokens[each][-1] == end), alike[0])
            found[place][caches[place].places[key]] = 1
    return [bytes(each) for each in found]


def is_alike(first: NDArray[np.int32], second: NDArray[np.int32]) -> bool:
    """Whether they are the same tokens but for the last."""
    return len(first) == len(second) and np.array_equal(first[:-1], second[:-1])


class Numbering:
    """The traces of several caches under one numbering, each in the tokens of one of them (`read_in`)."""

    def __init__(self, caches: Sequence[TeacherCache], taken: Sequence[bytes]) -> None:
        self.caches = list(caches)
        self.places: dict[tuple[str, int], int] = {}
        self.in_cache: list[tuple[int, int]] = []  # of each trace: which cache, and its number there
        lengths = []
        for place, cache in enumerate(self.caches):
            of_cache = np.diff(cache.starts)
            for key, number in cache.places.items():
                if taken[place][number]:
                    self.places[key] = len(self.in_cache)
                    self.in_cache.append((place, number))
                    lengths.append(of_cache[number])
        self.starts = np.concatenate([[0], np.cumsum(np.array(lengths, dtype=np.int64))])

    def tokens_of(self, problem_id: str, sample: int) -> tuple[NDArray[np.int32], int] | None:
        """As of a TeacherCache."""
        trace = self.places.get((problem_id, sample))
        if trace is None:
            return None
        place, _ = self.in_cache[trace]
        found = self.caches[place].tokens_of(problem_id, sample)
        return None if found is None else (found[0], int(self.starts[trace]))


class SeveralTeachers:
    """Caches of several teachers in place of one TeacherCache. Rows are numbered as in Numbering.

    A teacher takes part in a trace that its cache has by the same tokens, but for the end token: instruct and base models of
    one family end differently, and who ends otherwise says nothing of the end. Raises UserError for a teacher that reads
    none of what it shares with others in their tokens.
    """

    temperatures: tuple[float, ...] = ()  # the tail of a mixture at another temperature does not follow from the tails

    def __init__(
        self, names: Sequence[str], caches: Sequence[TeacherCache], weigh: Weigh, end: int | None = None
    ) -> None:
        self.names, self.caches = list(names), list(caches)
        self.taken = tuple(read_in(caches, weigh, end))
        self.numbering = Numbering(caches, self.taken)
        self.manifest: dict[str, Any] = self.caches[0].manifest
        shape = (len(self.numbering.in_cache), len(caches))
        self.weights = np.zeros(shape)
        # the number of each trace in each cache, -1 where it is not there; and whether it ends in another token there
        self.numbers = np.full(shape, -1, dtype=np.int64)
        self.ends_otherwise = np.zeros(shape, dtype=bool)
        others = [0] * len(self.caches)  # traces that are in other tokens
        for (problem_id, sample), trace in self.numbering.places.items():
            self.weights[trace] = weigh(problem_id)
            tokens = self.tokens(problem_id, sample, self.numbering.in_cache[trace][0])
            for place in np.flatnonzero(self.weights[trace]).tolist():
                cache, theirs = self.caches[place], self.tokens(problem_id, sample, place)
                if tokens is None or theirs is None:
                    continue
                if is_alike(tokens, theirs):
                    self.numbers[trace, place] = cache.places[problem_id, sample]
                    self.ends_otherwise[trace, place] = bool(len(tokens)) and tokens[-1] != theirs[-1]
                else:
                    others[place] += 1
        for name, different, same in zip(self.names, others, (self.numbers >= 0).sum(axis=0).tolist(), strict=True):
            if different and not same:
                raise UserError(
                    f"[[teachers]]: {name} reads all {different} traces that it shares with others in other tokens, so that "
                    "their distributions cannot be mixed; take a teacher of the same family, or sample with a model that "
                    "keeps its tokens (teacher.backend = vllm)"
                )

    def tokens(self, problem_id: str, sample: int, place: int) -> NDArray[np.int32] | None:
        found = self.caches[place].tokens_of(problem_id, sample)
        return None if found is None else found[0]

    def __len__(self) -> int:
        return len(self.numbering.in_cache)

    @property
    def taught(self) -> dict[str, int]:
        """How many traces each teacher takes part in, by its name."""
        return dict(zip(self.names, (self.numbers >= 0).sum(axis=0).tolist(), strict=True))

    def gather(self, rows: NDArray[np.int64]) -> Gathered:
        """The mixture at the rows of these numbers `(N,)`; NO_ROW is an empty one."""
        there = np.flatnonzero(rows != NO_ROW)
        starts = self.numbering.starts
        trace = np.searchsorted(starts, rows[there], side="right") - 1
        offset = rows[there] - starts[trace]
        is_last = rows[there] == starts[trace + 1] - 1
        weights = np.zeros((len(rows), len(self.caches)))
        weights[there] = self.weights[trace]
        found = []
        for place, cache in enumerate(self.caches):
            has = (self.numbers[trace, place] >= 0) & ~(is_last & self.ends_otherwise[trace, place])
            theirs = np.full(len(rows), NO_ROW, dtype=np.int64)
            theirs[there[has]] = cache.starts[self.numbers[trace[has], place]] + offset[has]
            found.append(cache.gather(theirs))
        return mixed(found, weights)
