"""`r1distill verify --audit RUN`: cases of a run for a person to mark, and the verifier's error rates from the marks.

Works on any folder with problems.parquet, traces/ and verdicts.parquet: a run, or eval/TASK/MODEL in one. Only audit/
is written, so a running stage is not disturbed.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from r1distill.errors import UserError
from r1distill.filter.pairs import paired
from r1distill.records import Problem, Trace, Verdict
from r1distill.store import read_records, replacing, write_json, write_text
from r1distill.verify.agreement import panels
from r1distill.verify.audit_page import Case, page
from r1distill.verify.judge import rules_outcome
from r1distill.verify.pool import VerifierPool
from r1distill.verify.rates import rates, read_marks, with_marks

TAIL_CHARACTERS = 3_000  # of a reply, from its end
REFERENCE_CHARACTERS = 3_000  # tests of a program can be megabytes
NEEDED = ("problems.parquet", "traces", "verdicts.parquet")

Key = tuple[str, int]  # problem id, sample


@dataclass(frozen=True, slots=True)
class Place:
    """Where a trace stands among those of its run."""

    stratum: str
    others: list[tuple[str, int]]


# ---------------------------------------------------------------- which cases


def stratum_of(verdict: Verdict, is_against: bool) -> str:
    """The one stratum of a trace. Each holds only traces that were called correct, or none of them.

    First where the judge says otherwise than the rules, then where a verdict stands against the other samples of its
    problem, then by outcome.
    """
    accepted = verdict.outcome == "correct"
    if rules_outcome(verdict) not in (None, verdict.outcome):
        return "accepted_by_judge" if accepted else "rejected_by_judge"
    if is_against:
        return "accepted_against_majority" if accepted else "rejected_against_majority"
    return verdict.outcome if verdict.outcome in ("correct", "incorrect") else "undecided"


def allocation(sizes: Mapping[str, int], cases: int) -> dict[str, int]:
    """How many cases to take of each stratum: one half of them evenly, one half by size, at least one, at most all.

    The even half looks at what is rare and suspicious, the other keeps the weights of the large strata bearable.
    """
    total = sum(sizes.values())
    quota = {name: cases / 2 / len(sizes) + cases / 2 * size / total for name, size in sizes.items()}
    taken = dict.fromkeys(sizes, 1)
    while sum(taken.values()) < min(cases, total):
        room = [name for name in sizes if taken[name] < sizes[name]]
        taken[max(room, key=lambda name: quota[name] - taken[name])] += 1
    return taken


def draw(strata: Mapping[str, Iterable[Key]], cases: int, seed: int) -> dict[str, list[Key]]:
    """A random sample of each stratum, by the hash of seed and trace: a larger one contains the smaller of its seed."""
    ordered = {name: sorted(keys, key=lambda key: draw_number(seed, key)) for name, keys in strata.items()}
    sizes = allocation({name: len(keys) for name, keys in ordered.items()}, cases)
    return {name: keys[: sizes[name]] for name, keys in ordered.items()}


def draw_number(seed: int, key: Key) -> bytes:
    return hashlib.sha256(f"{seed}/{key[0]}/{key[1]}".encode()).digest()


# ---------------------------------------------------------------- the two commands


def make_audit(folder: Path, *, cases: int, seed: int, workers: int, timeout_s: float) -> str:
    """Write audit/audit.jsonl and audit/audit.html. Returns what to tell the user.

    Raises UserError where the folder has no verdicts on its traces.
    """
    check_folder(folder)
    problems = {problem.id: problem for problem in read_records(folder / "problems.parquet", Problem)}
    silent = silent_traces(folder)
    places: dict[Key, Place] = {}
    undecided = 0
    with VerifierPool(workers, timeout_s) as pool:
        for panel in panels(read_records(folder / "verdicts.parquet", Verdict), problems, pool):
            undecided += panel.undecided
            others = answers_of(panel.verdicts, panel.classes)
            for verdict, is_against in zip(panel.verdicts, panel.against, strict=True):
                if (key := (verdict.problem_id, verdict.sample)) not in silent:
                    places[key] = Place(stratum_of(verdict, is_against), others)
    if not places:
        raise UserError(f"{folder}: no reply says anything outside its thinking; there is nothing to audit")
    strata: dict[str, list[Key]] = {}
    for key, place in places.items():
        strata.setdefault(place.stratum, []).append(key)
    drawn = draw(strata, cases, seed)
    wanted = {key: places[key] for keys in drawn.values() for key in keys}
    found = [
        case_of(problems[trace.problem_id], trace, verdict, place, len(strata[place.stratum]))
        for trace, verdict in pairs_of(folder)
        if (place := wanted.get((trace.problem_id, trace.sample)))
    ]
    # in an order that tells nothing, so that the first marks of a person who stops early are of every stratum
    found.sort(key=lambda case: draw_number(seed + 1, (case.problem_id, case.sample)))
    audit = folder / "audit"
    write_text(audit / "audit.html", page(str(folder), found))
    with replacing(audit / "audit.jsonl") as temporary, temporary.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(asdict(case)) + "\n" for case in found)
    lines = [f"{len(found):,} of {len(places):,} traces to mark, by stratum:"]
    lines += [f"  {len(keys):>5,} of {len(strata[name]):>7,}  {name}" for name, keys in sorted(drawn.items())]
    if silent:
        lines.append(f"left out: {len(silent):,} that failed or say nothing outside their thinking")
    if undecided:
        lines.append(f"{undecided:,} comparisons of two answers had no result; they count as not equal")
    return "\n".join(
        [
            *lines,
            f"open {audit / 'audit.html'}, mark the replies, download marks.jsonl, then:",
            f"r1distill verify --audit {folder} --marks marks.jsonl",
        ]
    )


def read_audit(folder: Path, marks: Path) -> str:
    """Write audit/rates.json from a person's marks. Returns what to tell the user.

    Raises UserError where there is no audit, and naming `path:line` of what cannot be a mark.
    """
    path = folder / "audit" / "audit.jsonl"
    try:
        cases = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    except OSError as error:
        raise UserError(
            f"{path}: cannot be read: {error.strerror}; r1distill verify --audit {folder} makes it"
        ) from None
    strata = with_marks(cases, read_marks(marks, {case["id"] for case in cases}))
    result = rates(strata)
    of_stratum = Counter(case["stratum"] for case in cases)
    counts = {mark: sum(getattr(stratum, mark) for stratum in strata.values()) for mark in ("right", "wrong", "unsure")}
    report = {
        **result,
        "marks": counts,
        "strata": {name: {**asdict(stratum), "cases": of_stratum[name]} for name, stratum in strata.items()},
    }
    write_json(folder / "audit" / "rates.json", report)
    lines = [", ".join(f"{number} {mark}" for mark, number in counts.items()) + f", of {len(cases)} cases"]
    if result["unmarked"]:
        names = ", ".join(f"{name} ({strata[name].traces:,} traces)" for name in result["unmarked"])
        lines.append(f"no rates yet: no reply is marked right or wrong of {names}")
    else:
        of_right = rate_line(result["false_negative_rate"])
        of_wrong = rate_line(result["false_positive_rate"])
        lines.append(f"false negatives: {of_right} of the right replies are not called correct")
        lines.append(f"false positives: {of_wrong} of the wrong replies are called correct")
    return "\n".join([*lines, f"written to {folder / 'audit' / 'rates.json'}"])


def rate_line(rate: Mapping[str, Any]) -> str:
    estimate, (low, high) = rate["estimate"], rate["ci95"]
    return f"{'none marked' if estimate is None else f'{estimate:.1%}'} (95 %: {low:.1%} to {high:.1%})"


# ---------------------------------------------------------------- the folder


def check_folder(folder: Path) -> None:
    missing = [name for name in NEEDED if not (folder / name).exists()]
    if not missing:
        return
    below = sorted(str(path.parent) for path in folder.glob("*/verdicts.parquet"))
    remedy = f"give one of {', '.join(below)}" if below else "give the folder of a run that was verified"
    raise UserError(f"{folder}: not a folder to audit, it has no {', '.join(missing)}; {remedy}")


def pairs_of(folder: Path) -> Iterator[tuple[Trace, Verdict]]:
    return paired(read_records(folder / "traces", Trace), read_records(folder / "verdicts.parquet", Verdict))


def silent_traces(folder: Path) -> set[Key]:
    """Failed samples and replies that say nothing outside their thinking: nobody has to look to know that they are wrong.

    One that was called correct all the same stays in: that would be an error to find.
    """
    return {
        (trace.problem_id, trace.sample)
        for trace, verdict in pairs_of(folder)
        if verdict.outcome != "correct" and (trace.finish_reason == "error" or not trace.answer.strip())
    }


def answers_of(verdicts: list[Verdict], classes: list[int | None]) -> list[tuple[str, int]]:
    """One text for each class of answers, with the size of the class, the largest first."""
    sizes = Counter(number for number in classes if number is not None)
    texts: dict[int, str] = {}
    for verdict, number in zip(verdicts, classes, strict=True):
        if number is not None:
            texts.setdefault(number, verdict.extracted or "")
    return [(texts[number], size) for number, size in sizes.most_common()]


def case_of(problem: Problem, trace: Trace, verdict: Verdict, place: Place, stratum_traces: int) -> Case:
    reference = problem.answer or (json.dumps(problem.tests, ensure_ascii=False, indent=1) if problem.tests else "")
    return Case(
        id=f"{trace.problem_id}/{trace.sample}",
        problem_id=trace.problem_id,
        sample=trace.sample,
        stratum=place.stratum,
        stratum_traces=stratum_traces,
        kind=problem.kind,
        problem=problem.problem,
        choices=problem.choices,
        reference=cut_off(reference, REFERENCE_CHARACTERS),
        extracted=verdict.extracted,
        outcome=verdict.outcome,
        detail=verdict.detail,
        verifier=verdict.verifier,
        finish_reason=trace.finish_reason,
        others=place.others,
        tail=trace.text if len(trace.text) <= TAIL_CHARACTERS else f"…{trace.text[-TAIL_CHARACTERS:]}",
    )


def cut_off(text: str, characters: int) -> str:
    return text if len(text) <= characters else f"{text[:characters]}…"
