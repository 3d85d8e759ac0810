"""What a person's marks say of the verifier: its false-negative and false-positive rate over all traces of a run.

A mark says whether the *reply* is right, so the two rates are those of a test: of the right replies, the share that was
not called correct; of the wrong ones, the share that was called correct. Cases are drawn from strata at different rates,
so each stratum h counts with its size N_h and not with the number of its cases:

    right and rejected   A = Σ N_h p_h over the strata of rejected traces,
    right and accepted   B = Σ N_h p_h over those of accepted ones,          false-negative rate = A / (A + B),

with p_h the marked share of right replies (the combined ratio estimator: Cochran, Sampling Techniques, 1977, section
6.11), and the same with the shares of wrong replies for the false-positive rate. No stratum mixes accepted and rejected
traces, so A and B are independent. Their interval:

1. for each stratum, the exact limits of how many of its N_h traces are right, from the hypergeometric distribution as
   Clopper and Pearson's are from the binomial (Buonaccorsi, "A Note on Confidence Intervals for Proportions in Finite
   Populations", 1987), half a trace wider on each side because a count is compared with a continuous sum; a stratum of
   which every trace is marked has no uncertainty;
2. the limits combined by the method of variance estimates recovery (Zou, Huang, Zhang, "A note on confidence interval
   estimation for a linear function of binomial proportions", 2009) for (1 - r) A - r B;
3. the interval of the rate holds those r for which that of this difference holds 0, as Fieller's does for a ratio.

It stays in [0, 1] and has a width at 0 %. tests/test_rates.py simulates its coverage. Wilson's limits in place of the
exact ones covered as little as 89 % where errors are rare in a large stratum.

The rates are those of the traces of this run as they were sampled for the audit, the ones that say nothing outside
their thinking left out. Replies marked `unsure` count as not marked.
"""

import json
import math
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from r1distill.errors import UserError

Mark = Literal["right", "wrong", "unsure"]
MARKS = get_args(Mark)
TAIL = 0.025  # on each side of a 95 % interval
HALVINGS = 60  # of [0, 1] on the way to a limit: to the precision of a float


@dataclass(frozen=True, slots=True)
class Stratum:
    """`traces` of one kind, all of them called correct (`accepted`) or none, and a person's marks on some of them."""

    accepted: bool
    traces: int
    right: int = 0
    wrong: int = 0
    unsure: int = 0


@dataclass(frozen=True, slots=True)
class Share:
    """A number of traces with its limits: the estimate and how far the truth may lie below and above it."""

    estimate: float
    below: float
    above: float


def rates(strata: Mapping[str, Stratum]) -> dict[str, Any]:
    """{"false_negative_rate", "false_positive_rate"}, each {"estimate", "ci95"}, and "unmarked": names of strata.

    Both rates are None where a stratum has no mark: nothing is known of its traces. An estimate alone is None where no
    reply was marked as right (as wrong).
    """
    unmarked = [name for name, stratum in strata.items() if not stratum.right + stratum.wrong]
    if unmarked:
        return {"false_negative_rate": None, "false_positive_rate": None, "unmarked": unmarked}
    accepted = [stratum for stratum in strata.values() if stratum.accepted]
    rejected = [stratum for stratum in strata.values() if not stratum.accepted]
    return {
        "false_negative_rate": rate(count_of(rejected, "right"), count_of(accepted, "right")),
        "false_positive_rate": rate(count_of(accepted, "wrong"), count_of(rejected, "wrong")),
        "unmarked": [],
    }


def count_of(strata: Sequence[Stratum], mark: Literal["right", "wrong"]) -> Share:
    """How many traces of these strata a person would mark so."""
    estimate = below = above = 0.0
    for stratum in strata:
        hits, marked = getattr(stratum, mark), stratum.right + stratum.wrong
        expected = stratum.traces * hits / marked
        low, high = count_limits(hits, marked, stratum.traces)
        estimate += expected
        below += (expected - low) ** 2
        above += (high - expected) ** 2
    return Share(estimate, math.sqrt(below), math.sqrt(above))


def count_limits(hits: int, marked: int, traces: int) -> tuple[float, float]:
    """95 % limits of the number of hits among `traces` of which `marked` were drawn and `hits` found."""
    if marked == traces:
        return hits, hits
    possible = range(hits, traces - marked + hits + 1)
    # the chance of so many hits or more grows with the number there is, that of so few or fewer falls
    low = bisect_left(possible, TAIL, key=lambda count: chance(range(hits, marked + 1), count, marked, traces))
    high = bisect_right(possible, -TAIL, key=lambda count: -chance(range(hits + 1), count, marked, traces))
    return max(0.0, possible[low] - 0.5), min(float(traces), possible[high - 1] + 0.5)


def chance(outcomes: range, count: int, marked: int, traces: int) -> float:
    """That the number of hits is one of `outcomes` when `marked` of `traces` are drawn and `count` of all are hits."""
    feasible = range(max(outcomes.start, marked - traces + count), min(outcomes.stop, marked + 1, count + 1))
    every = log_choose(traces, marked)
    return math.fsum(
        math.exp(log_choose(count, hits) + log_choose(traces - count, marked - hits) - every) for hits in feasible
    )


def log_choose(n: int, k: int) -> float:
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)


def rate(part: Share, rest: Share) -> dict[str, Any]:
    """{"estimate": part / (part + rest), "ci95": [low, high]}."""
    total = part.estimate + rest.estimate

    def lower_limit(r: float) -> float:
        return (1 - r) * part.estimate - r * rest.estimate - math.hypot((1 - r) * part.below, r * rest.above)

    def upper_limit(r: float) -> float:
        return (1 - r) * part.estimate - r * rest.estimate + math.hypot((1 - r) * part.above, r * rest.below)

    return {
        "estimate": part.estimate / total if total else None,
        "ci95": [where_it_ends(lower_limit), where_it_ends(upper_limit)],
    }


def where_it_ends(positive: Callable[[float], float]) -> float:
    """The r in [0, 1] up to which a limit is positive. Neither limit changes its sign twice: one is concave, one convex."""
    low, high = 0.0, 1.0
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if positive(middle) > 0 else (low, middle)
    return round((low + high) / 2, 12)


# ---------------------------------------------------------------- the marks of a person


def read_marks(path: Path, ids: set[str]) -> dict[str, Mark]:
    """Case id → mark, from lines {"id", "mark"}. Raises UserError naming `path:line` of what cannot be a mark.

    The same mark twice is no contradiction: marks files of several sittings can be put one after the other.
    """
    try:
        lines = path.read_bytes().splitlines()
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}; give the marks.jsonl of the audit's page") from None
    marks: dict[str, Mark] = {}
    first_line: dict[str, int] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        name, mark = to_mark(line, f"{path}:{number}")
        if name not in ids:
            raise UserError(
                f"{path}:{number}: {name!r} is no case of this audit; the marks belong to another one, or to another "
                "--n or --seed of it"
            )
        if marks.setdefault(name, mark) != mark:
            raise UserError(
                f"{path}:{number}: {name} is marked {mark} here and {marks[name]} in line {first_line[name]}; "
                "keep one of the two lines"
            )
        first_line.setdefault(name, number)
    if not marks:
        raise UserError(f"{path}: no marks in it; mark some replies of audit.html and download them")
    return marks


def to_mark(line: bytes, place: str) -> tuple[str, Mark]:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{place}: not valid JSON ({error}); mend or delete the line") from None
    if not isinstance(row, dict) or not isinstance(row.get("id"), str) or row.get("mark") not in MARKS:
        raise UserError(f'{place}: not of the form {{"id": "…", "mark": "{"|".join(MARKS)}"}}; mend or delete the line')
    return row["id"], row["mark"]


def with_marks(cases: Sequence[Mapping[str, Any]], marks: Mapping[str, Mark]) -> dict[str, Stratum]:
    """The strata of an audit's cases, each with its marks."""
    found: dict[str, Counter[str]] = {}
    for case in cases:
        counts = found.setdefault(case["stratum"], Counter())
        if case["id"] in marks:
            counts[marks[case["id"]]] += 1
    shape = {case["stratum"]: (case["outcome"] == "correct", case["stratum_traces"]) for case in cases}
    return {name: Stratum(*shape[name], *(found[name][mark] for mark in MARKS)) for name in sorted(found)}
