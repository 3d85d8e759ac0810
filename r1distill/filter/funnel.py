"""funnel.json: what became of the traces, by reason, source and difficulty. Every number is a count of decisions, and adds up."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from r1distill.filter.columns import MISSING, Flags, Places, Words, words
from r1distill.filter.groups import HARD, difficulty
from r1distill.filter.rules import measured
from r1distill.filter.select import KEPT, Selection
from r1distill.selection_sections import DIFFICULTIES

UNKNOWN = "unknown"  # the difficulty where there is no pass rate
NAMES = (*DIFFICULTIES, UNKNOWN)
# a person is warned when hard problems lose so much of their share among the problems, and so many points
LOST, LOST_SHARE = 0.2, 0.02


@dataclass(frozen=True, slots=True)
class Cell:
    """How many traces of one source and difficulty have one reason."""

    source: str
    difficulty: str
    reason: str
    count: int


def funnel_of(tags: pa.Table, selection: Selection) -> dict[str, Any]:
    """The funnel of a selection among `tags`.

    {"sampled", "kept", "dropped": {reason: count}} of all traces; the same in "by_source", "by_difficulty" and, for each
    source, in "by_source_and_difficulty"; "unmeasured" {rule: traces it could not speak of}; "problems" {"sampled", "kept",
    "by_difficulty"}, where a problem is kept that has a kept trace; "warnings", sentences for a person.
    """
    pass_rate = measured(tags, "pass_rate")
    bins = np.where(np.isnan(pass_rate), len(DIFFICULTIES), difficulty(pass_rate))
    cells = cells_of(words(tags, "source"), bins, selection)
    problems = problems_of(words(tags, "problem_id").places, bins, selection.kept)
    return {
        **stages_of(cells),
        "by_source": stages_by(cells, lambda cell: cell.source),
        "by_difficulty": in_order(stages_by(cells, lambda cell: cell.difficulty)),
        "by_source_and_difficulty": {
            source: in_order(stages_by(its, lambda cell: cell.difficulty))
            for source, its in grouped(cells, lambda cell: cell.source).items()
        },
        "unmeasured": dict(sorted(selection.unmeasured.items())),
        "problems": problems,
        "warnings": hard_problems_lost(problems),
    }


def cells_of(sources: Words, bins: Places, selection: Selection) -> list[Cell]:
    """The cells with at least one trace, by source, difficulty and reason. `bins (N,)`: places in NAMES."""
    source = np.where(sources.places == MISSING, len(sources.known), sources.places)
    shape = (len(sources.known) + 1, len(NAMES), len(selection.names))
    combined, counts = np.unique(np.ravel_multi_index((source, bins, selection.reason), shape), return_counts=True)
    places = (each.tolist() for each in np.unravel_index(combined, shape))
    source_names = [*sources.known, ""]  # of no source
    return [
        Cell(source_names[s], NAMES[d], selection.names[r], count)
        for s, d, r, count in zip(*places, counts.tolist(), strict=True)
    ]


def grouped(cells: list[Cell], group: Callable[[Cell], str]) -> dict[str, list[Cell]]:
    found: dict[str, list[Cell]] = {}
    for cell in cells:
        found.setdefault(group(cell), []).append(cell)
    return found


def stages_by(cells: list[Cell], group: Callable[[Cell], str]) -> dict[str, dict[str, Any]]:
    return {name: stages_of(its) for name, its in grouped(cells, group).items()}


def in_order(by_difficulty: dict[str, Any]) -> dict[str, Any]:
    return {name: by_difficulty[name] for name in NAMES if name in by_difficulty}


def stages_of(cells: list[Cell]) -> dict[str, Any]:
    """Sampled, kept, and dropped by reason, the most frequent first."""
    total: Counter[str] = Counter()
    for cell in cells:
        total[cell.reason] += cell.count
    dropped = {name: n for name, n in sorted(total.items(), key=lambda each: (-each[1], each[0])) if name != KEPT}
    return {"sampled": total.total(), "kept": total[KEPT], "dropped": dropped}


def problems_of(problem: Places, bins: Places, kept: Flags) -> dict[str, Any]:
    """How many problems were sampled and how many have a kept trace, in all and by difficulty."""
    _, first, place = np.unique(problem, return_index=True, return_inverse=True)
    has_kept = np.bincount(place, kept, minlength=len(first)) > 0
    of_problem = bins[first]
    by_difficulty = {}
    for n, name in enumerate(NAMES):
        here = of_problem == n
        if here.any():
            by_difficulty[name] = {"sampled": int(here.sum()), "kept": int((here & has_kept).sum())}
    return {"sampled": len(first), "kept": int(has_kept.sum()), "by_difficulty": by_difficulty}


def hard_problems_lost(problems: dict[str, Any]) -> list[str]:
    """A warning where hard problems, those that at most a quarter of the samples solves, are a smaller share of what is kept.

    Correct-only filtering does that (OpenCodeReasoning, https://arxiv.org/abs/2504.01943): the student is then taught what
    the teacher finds easy. Smaller means by more than LOST of the share, and by LOST_SHARE.
    """
    by_difficulty = {name: each for name, each in problems["by_difficulty"].items() if name != UNKNOWN}
    sampled = sum(each["sampled"] for each in by_difficulty.values())
    kept = sum(each["kept"] for each in by_difficulty.values())
    if not sampled or not kept:
        return []
    none = {"sampled": 0, "kept": 0}
    hard = [by_difficulty.get(name, none) for name in DIFFICULTIES[:HARD]]
    before, after = sum(each["sampled"] for each in hard) / sampled, sum(each["kept"] for each in hard) / kept
    if after >= (1 - LOST) * before or before - after < LOST_SHARE:
        return []
    parts = ", ".join(
        f"{name}: {each['sampled'] / sampled:.1%} → {each['kept'] / kept:.1%}" for name, each in by_difficulty.items()
    )
    return [
        f"the kept set loses hard problems: those that at most 25 % of the samples solve are {before:.1%} of the {sampled:,} "
        f"problems sampled and {after:.1%} of the {kept:,} kept (by pass rate {parts}); more samples a problem "
        "(generate.max_samples), or filter.require_correct = false, keep more of them"
    ]
