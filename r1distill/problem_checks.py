"""What is found out about the problems before a token is spent: gold answers that fail themselves, and duplicates.

A problem whose own answer the verifier does not accept can only cost samples: no reply to it is ever correct.
"""

import dataclasses
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from r1distill.console import say
from r1distill.duplicates import Duplicate, find_duplicates
from r1distill.errors import UserError
from r1distill.problems import options_of, read_problems
from r1distill.records import Problem
from r1distill.run import Run
from r1distill.store import write_jsonl
from r1distill.verify.pool import VerifierPool
from r1distill.verify.settings import open_pool

SHOWN = 3  # of set-aside problems and conflicts, on the console; the files have all
CONFLICT = "the same problem has another answer"
SetAside = tuple[Problem, str]  # and the reason


def prepare_problems(run: Run) -> tuple[list[Problem], dict[str, int]]:
    """The problems to sample, and how many were set aside, repeated or in conflict, for the stage's record.

    Writes problems_set_aside.jsonl and problems_duplicates.jsonl into the run folder, empty where there is nothing.
    Raises UserError for what cannot be read, and where nothing is left.
    """
    section = run.recipe.problems
    tolerate = "unusable" if section.check else "expected"
    reading = read_problems(section.path, **options_of(section), tolerate=tolerate)
    problems = reading.problems
    set_aside: list[SetAside] = [(unusable.problem, unusable.reason) for unusable in reading.unusable]
    with open_pool(run.recipe.verify) as pool:
        if section.check:
            failed = dict(failing_gold(problems, pool))
            set_aside += [(problem, failed[problem.id]) for problem in problems if problem.id in failed]
            problems = [problem for problem in problems if problem.id not in failed]
        duplicates = find_duplicates(problems, answers_agree(pool), near=section.duplicates != "ignore")
    if section.duplicates == "drop":
        dropped = to_drop(duplicates)
        set_aside += [(problem, dropped[problem.id]) for problem in problems if problem.id in dropped]
        problems = [problem for problem in problems if problem.id not in dropped]
    write_jsonl(run.set_aside, map(set_aside_row, set_aside))
    write_jsonl(run.duplicates, map(dataclasses.asdict, duplicates))
    found = Counter(duplicate.what for duplicate in duplicates)
    counts = {
        "problems_set_aside": len(set_aside),
        "exact_duplicates": reading.exact_duplicates,
        "near_duplicates": found["near"],
        "near_duplicates_with_another_answer": found["near, another answer"],
        "conflicting_answers": found["conflict"],
    }
    tell(run, counts, set_aside, duplicates, {problem.id: problem for problem in reading.problems})
    if not problems:
        reason = set_aside[0][1]
        raise UserError(f"{section.path}: all {len(set_aside):,} problems were set aside, the first because: {reason}")
    return problems, counts


def failing_gold(problems: Iterable[Problem], pool: VerifierPool) -> Iterator[tuple[str, str]]:
    """(id, reason) of the mathematical problems whose own answer, in a box, is not called correct.

    Bounded like any verdict, `verify.timeout_s` each. The same answer is judged once, whatever number of problems has it.
    """
    ids_of: dict[str, list[str]] = {}
    for problem in problems:
        if problem.kind == "math" and problem.answer is not None:
            ids_of.setdefault(problem.answer, []).append(problem.id)
    items = ((Problem("", answer=answer, id="-"), 0, rf"\boxed{{{answer}}}") for answer in ids_of)
    for ids, verdict in zip(ids_of.values(), pool.verify_many(items), strict=True):  # in the order of the items
        if verdict.outcome != "correct":
            reason = f"its own answer is judged {verdict.outcome}: {verdict.detail}"
            yield from ((problem_id, reason) for problem_id in ids)


def answers_agree(pool: VerifierPool) -> Callable[[Problem, Problem], bool]:
    """Whether two problems have the same answer: the same text or tests, or mathematics that means the same."""

    def agree(first: Problem, second: Problem) -> bool:
        if first.kind != "math" or second.kind != "math" or first.answer == second.answer:
            return first.answer == second.answer and first.tests == second.tests
        return bool(pool.equivalent(first.answer or "", second.answer or ""))

    return agree


def to_drop(duplicates: list[Duplicate]) -> dict[str, str]:
    """{id: reason}: near duplicates with the same answer, and both sides of a conflict, as nobody knows which is right."""
    dropped: dict[str, str] = {}
    for duplicate in duplicates:
        if duplicate.what == "near":
            dropped[duplicate.id] = f"a near duplicate ({duplicate.similarity:.2f}) of {duplicate.duplicate_of}"
    for duplicate in duplicates:
        if duplicate.what == "conflict":
            dropped[duplicate.id] = f"{CONFLICT}: {duplicate.duplicate_of}"
            dropped[duplicate.duplicate_of] = f"{CONFLICT}: {duplicate.id}"
    return dropped


def set_aside_row(item: SetAside) -> dict[str, Any]:
    problem, reason = item
    return {"id": problem.id, "problem": problem.problem, "answer": problem.answer, "reason": reason}


def tell(
    run: Run,
    counts: dict[str, int],
    set_aside: list[SetAside],
    duplicates: list[Duplicate],
    by_id: dict[str, Problem],
) -> None:
    """Say what was found, the commonest reasons and the conflicts by name; nothing where nothing was."""
    if set_aside:
        say(f"  set aside: {counts['problems_set_aside']:,}, see {run.set_aside}", style="yellow")
        for reason, number in Counter(reason for _, reason in set_aside).most_common(SHOWN):
            say(f"    {number:,} × {reason}", style="yellow")
    if counts["exact_duplicates"]:
        say(f"  the same again, asked once: {counts['exact_duplicates']:,}")
    if near := counts["near_duplicates"] + counts["near_duplicates_with_another_answer"]:
        other = counts["near_duplicates_with_another_answer"]
        say(f"  near duplicates: {near:,}, of them with another answer: {other:,}, see {run.duplicates}")
    conflicts = [duplicate for duplicate in duplicates if duplicate.what == "conflict"]
    for duplicate in conflicts[:SHOWN]:
        first, second = by_id[duplicate.duplicate_of], by_id[duplicate.id]
        say(
            f"  {CONFLICT}: {first.id} says {first.answer!r}, {second.id} says {second.answer!r}: {first.problem[:80]!r}",
            style="yellow",
        )
    if len(conflicts) > SHOWN:
        say(f"  … and {len(conflicts) - SHOWN:,} more conflicts, see {run.duplicates}", style="yellow")
