"""`r1distill verify --file FILE --from lm-eval|lighteval|evalplus|livecodebench --out OUT.jsonl`: others' generations
judged by our verifier, our score beside the published one, and every disagreement in a file to be read.
"""

import json
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from r1distill.errors import UserError
from r1distill.evaluate.metrics import accuracy_interval
from r1distill.evaluate.readers import READERS, Generation
from r1distill.evaluate.readers.evalplus import base_tests
from r1distill.evaluate.readers.known import load_known
from r1distill.records import Verdict
from r1distill.store import replacing
from r1distill.verify.code import CodeSettings
from r1distill.verify.pool import VerifierPool, quick_verdict

MAX_KIND_CHARACTERS = 60
KINDS_SHOWN = 20
WORDS = {True: "right", False: "wrong", None: "unknown"}


@dataclass(slots=True)
class Regraded:
    """What came of it. `ours` and `published` have the verdicts and the score of each question."""

    metric: str = ""
    responses: int = 0
    ours: dict[str, list[bool]] = field(default_factory=dict)
    published: dict[str, float | None] = field(default_factory=dict)
    agreement: Counter[tuple[bool, bool | None]] = field(default_factory=Counter)  # (ours, theirs)
    disagreements: Counter[str] = field(default_factory=Counter)  # by kind
    left_out: Counter[str] = field(default_factory=Counter)  # responses that nothing is known to judge by, by reason

    @property
    def differing_shares(self) -> list[str]:
        """Questions whose responses have no published verdict each, but another published share of right ones."""
        return [
            question
            for question, score in self.published.items()
            if score is not None and 0 < score < 1 and abs(share(self.ours[question]) - score) > 1e-9
        ]


def regrade_file(
    path: Path,
    source: str,
    output: Path,
    *,
    problems: str | None = None,
    metric: str | None = None,
    workers: int,
    timeout_s: float,
    code: CodeSettings = CodeSettings(),  # noqa: B008 - frozen
) -> Regraded:
    """Judge the generations of a file of the tool `source`.

    Writes a verdict a line to `output` in the order of the file, and each disagreement, with question and response, to
    the file of `disagreements_of(output)`. `problems` (a benchmark, a file, a folder or a Hub dataset) has the answers or
    tests; without it they are those in the file. `metric` is the published score that is compared, None for the tool's
    usual one. Raises UserError naming the place of what is malformed, and where nothing can be judged.
    """
    if source not in READERS:
        raise UserError(f"--from {source}: unknown; known: {', '.join(READERS)}")
    only_base = source == "evalplus" and metric == "base"
    known = None if problems is None else load_known(problems, base_tests if only_base else lambda row: row)
    result = Regraded()
    with (
        VerifierPool(workers, timeout_s, code=code) as pool,
        replacing(output) as temporary,
        replacing(disagreements_of(output)) as other,
        temporary.open("wb") as verdicts,
        other.open("wb") as disagreements,
    ):

        def judgeable() -> Iterator[Generation]:
            for generation in READERS[source](path, known, metric):
                result.responses += 1
                if generation.problem is None:
                    result.left_out[generation.missing] += 1
                else:
                    yield generation

        for generation, verdict, seconds in pool.ordered(lambda item: judged(pool, item), judgeable(), quickly):
            write(verdicts, to_row(generation, verdict, seconds))
            if kind := count(result, generation, verdict):
                write(disagreements, to_disagreement(generation, verdict, kind))
        for question in result.differing_shares:
            row = {"question": question, "ours": share(result.ours[question]), "published": result.published[question]}
            write(disagreements, {"kind": "another share of right responses", **row})
        if not result.ours:
            why = next(iter(result.left_out), "no samples in it")
            raise UserError(f"{path}: nothing in it can be judged: {why}")
    return result


Item = tuple[Generation, Verdict, float]


def judged(pool: VerifierPool, generation: Generation) -> Item:
    assert generation.problem is not None
    return generation, *pool.judge(generation.problem, generation.response, generation.sample)


def quickly(generation: Generation) -> Item | None:
    assert generation.problem is not None
    verdict = quick_verdict(generation.problem, generation.response, generation.sample)
    return None if verdict is None else (generation, verdict, 0.0)


def count(result: Regraded, generation: Generation, verdict: Verdict) -> str | None:
    """Add a verdict to the result. Returns the kind of disagreement, None where there is none."""
    right = verdict.outcome == "correct"
    result.metric = generation.metric
    result.ours.setdefault(generation.question, []).append(right)
    result.published[generation.question] = generation.score
    result.agreement[right, generation.right] += 1
    if generation.right is None or generation.right == right:
        return None
    kind = kind_of(verdict)
    result.disagreements[kind] += 1
    return kind


def kind_of(verdict: Verdict) -> str:
    """Whose it is and why, the same for all of a kind: numbers and what is quoted are left out of the detail."""
    rule = re.sub(r"\d+", "#", re.split(r"['\"]|: ", verdict.detail, maxsplit=1)[0]).strip()[:MAX_KIND_CHARACTERS]
    whose = "right for us" if verdict.outcome == "correct" else f"wrong for us, {verdict.outcome}"
    return f"{whose}: {rule}" if rule else whose


def to_row(generation: Generation, verdict: Verdict, seconds: float) -> dict[str, Any]:
    return {
        "id": generation.question,
        "sample": generation.sample,
        "place": generation.place,
        "outcome": verdict.outcome,
        "published": WORDS[generation.right],
        "extracted": verdict.extracted,
        "detail": verdict.detail,
        "seconds": round(seconds, 4),
    }


def to_disagreement(generation: Generation, verdict: Verdict, kind: str) -> dict[str, Any]:
    assert generation.problem is not None
    return {
        "kind": kind,
        **to_row(generation, verdict, 0.0),
        "verifier": verdict.verifier,
        "question": generation.problem.problem,
        "answer": generation.problem.answer,
        "response": generation.response,
    }


def write(file: BinaryIO, row: dict[str, Any]) -> None:
    """A line of JSON; halves of surrogate pairs, which a model's text may have, become question marks."""
    file.write(json.dumps(row, ensure_ascii=False).encode(errors="replace") + b"\n")


def disagreements_of(output: Path) -> Path:
    return output.with_name(f"{output.name.removesuffix('.jsonl')}.disagreements.jsonl")


def share(verdicts: list[bool]) -> float:
    return sum(verdicts) / len(verdicts)


def described(result: Regraded, output: Path) -> str:
    """Both scores on the questions whose published score is known, the table of agreement, the kinds of disagreement."""
    questions = [name for name, score in result.published.items() if score is not None]
    lines = [f"{result.metric}: {sum(map(len, result.ours.values())):,} responses to {len(result.ours):,} questions"]
    lines += [f"  left out: {n:,} responses, {why}" for why, n in result.left_out.most_common()]
    if questions:
        ours = [result.ours[name] for name in questions]
        theirs = [
            as_verdicts(result.published[name] or 0.0, len(row)) for name, row in zip(questions, ours, strict=True)
        ]
        lines += [f"on the {len(questions):,} questions with a published score (95 % intervals over questions)"]
        lines += [f"  published  {interval(theirs)}", f"  r1distill  {interval(ours)}"]
    lines += [f"{'':12}{'published right':>16}{'wrong':>10}{'unknown':>10}"]
    for right in (True, False):
        cells = [result.agreement[right, theirs] for theirs in (True, False, None)]
        lines += [f"ours {WORDS[right]:<7}{cells[0]:>16,}{cells[1]:>10,}{cells[2]:>10,}"]
    lines += [f"disagreements: {result.disagreements.total():,} in {disagreements_of(output)}"]
    shown = result.disagreements.most_common(KINDS_SHOWN)
    lines += [f"  {n:,} × {kind}" for kind, n in shown]
    if rest := result.disagreements.total() - sum(n for _, n in shown):
        lines += [f"  {rest:,} × other kinds"]
    if result.differing_shares:
        lines += [f"  {len(result.differing_shares):,} questions with another share of right responses"]
    return "\n".join(lines)


def as_verdicts(score: float, responses: int) -> list[bool]:
    """So many verdicts, with this share of right ones."""
    right = round(score * responses)
    return [True] * right + [False] * (responses - right)


def interval(verdicts: list[list[bool]]) -> str:
    accuracy, low, high = accuracy_interval(verdicts)
    return f"{accuracy:6.2%}  ({low:.2%} to {high:.2%})"
