"""Which traces of a run are shown."""

import difflib
import random
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from r1distill.errors import UserError
from r1distill.filter.select import KEPT
from r1distill.show.rows import n_rows, places_where, values


@dataclass(frozen=True, slots=True)
class Wish:
    """What `r1distill show` was asked for. `seed` None: none is drawn, the first ones are shown."""

    id: str | None = None
    dropped: str | None = None
    kept: bool = False
    seed: int | None = None
    n: int | None = None


@dataclass(frozen=True, slots=True)
class Choice:
    """The places of the traces to show, in the order of the files, and how many there are to choose from."""

    places: list[int]
    of: int


def choose(folder: Path, wish: Wish) -> Choice:
    """The places of what is wished for. Raises UserError where there is none, naming what there is."""
    total = n_rows(folder / "traces")
    if not total:
        raise UserError(f"{folder}: no traces to show; it has no traces/*.parquet: run `r1distill generate` first")
    if wish.id is not None:
        found = by_id(folder, wish.id)
    elif wish.dropped is not None or wish.kept:
        found = by_reason(folder, wish.dropped)
    else:
        found = None
    size = total if found is None else len(found)
    n = min(size, wish.n or (size if wish.id is not None else 1))
    chosen = range(n) if wish.seed is None else sorted(random.Random(wish.seed).sample(range(size), n))
    return Choice([place if found is None else found[place] for place in chosen], size)


def by_id(folder: Path, id: str) -> list[int]:
    """The places of PROBLEM, or of PROBLEM/SAMPLE."""
    found = places_where(folder / "traces", "problem_id", lambda name: name == id)
    if found:
        return found
    problem_id, _, sample = id.rpartition("/")
    if problem_id and sample.isdecimal():
        of_problem = set(places_where(folder / "traces", "problem_id", lambda name: name == problem_id))
        samples = {place: value for place, value in values(folder / "traces", "sample") if place in of_problem}
        if found := [place for place, value in samples.items() if value == int(sample)]:
            return found
        if samples:
            there = ", ".join(map(str, sorted(samples.values())))
            raise UserError(f"{folder}: problem {problem_id} has no sample {sample}; it has {there}")
    raise UserError(
        f"{folder}: no trace of a problem {id}; ids are PROBLEM or PROBLEM/SAMPLE, such as {first_id(folder)}: "
        f"`r1distill show {folder} --random` shows one"
    )


def first_id(folder: Path) -> str:
    return next(str(name) for _, name in values(folder / "traces", "problem_id"))


def by_reason(folder: Path, reason: str | None) -> list[int]:
    """The places of what was dropped for a reason, or kept (None)."""
    decisions = folder / "decisions.parquet"
    if not decisions.is_file():
        raise UserError(
            f"{folder}: nothing is kept or dropped yet, it has no decisions.parquet; run `r1distill filter`"
        )
    wanted = reason or KEPT
    found = places_where(decisions, "reason", lambda word: word == wanted)
    if not found:
        counts = Counter(str(word) for _, word in values(decisions, "reason"))
        nearest = difflib.get_close_matches(wanted, counts, n=1)
        meant = f"did you mean {nearest[0]}? " if nearest else ""
        known = ", ".join(f"{word} ({n})" for word, n in counts.most_common())
        raise UserError(f"{folder}: no trace with the reason {wanted}; {meant}there are {known}")
    return found
