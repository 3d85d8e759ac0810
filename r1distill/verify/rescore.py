"""`r1distill verify --file IN.jsonl --out OUT.jsonl`: judge any saved replies again, offline."""

import json
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, get_args

from r1distill.errors import UserError
from r1distill.problems import code_tests
from r1distill.records import Kind, Problem, Verdict
from r1distill.store import replacing
from r1distill.verify.code import CodeSettings
from r1distill.verify.pool import VerifierPool, quick_verdict

KINDS = get_args(Kind)
NEEDED: dict[str, tuple[str, ...]] = {"math": ("answer",), "choice": ("answer",), "code": ("tests",), "open": ()}


def rescore_file(
    input: Path,
    output: Path,
    *,
    workers: int,
    timeout_s: float,
    code: CodeSettings = CodeSettings(),  # noqa: B008 - frozen
    on_progress: Callable[[int], None] | None = None,
) -> Counter[str]:
    """Judge the lines {"id", "kind", "response", "answer" | "tests" | "choices"} of `input`; `kind` defaults to "math".

    Writes {"id", "outcome", "extracted", "detail", "seconds"} to `output` in the same order, whole or not at all, and
    returns how many there are of each outcome. `on_progress` gets the number of lines done after each. Raises UserError
    naming `path:line` of a line that cannot be judged.
    """
    counts: Counter[str] = Counter()
    with (
        VerifierPool(workers, timeout_s, code=code) as pool,
        replacing(output) as temporary,
        temporary.open("w") as file,
    ):

        def judge(item: tuple[Any, Problem, str]) -> dict[str, Any]:
            return to_row(item[0], *pool.judge(item[1], item[2], 0))

        def quick(item: tuple[Any, Problem, str]) -> dict[str, Any] | None:
            verdict = quick_verdict(item[1], item[2], 0)
            return None if verdict is None else to_row(item[0], verdict, 0.0)

        for done, row in enumerate(pool.ordered(judge, read_items(input), quick), 1):
            file.write(json.dumps(row) + "\n")
            counts[row["outcome"]] += 1
            if on_progress is not None:
                on_progress(done)
    return counts


def to_row(name: Any, verdict: Verdict, seconds: float) -> dict[str, Any]:
    return {
        "id": name,
        "outcome": verdict.outcome,
        "extracted": verdict.extracted,
        "detail": verdict.detail,
        "seconds": round(seconds, 4),
    }


def read_items(path: Path) -> Iterator[tuple[Any, Problem, str]]:
    """(id, problem, response) of each line that is not blank. Raises UserError naming `path:line`."""
    try:
        file = path.open("rb")
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}; give a JSONL file") from None
    with file:
        for number, line in enumerate(file, 1):
            if line.strip():
                yield to_item(line, f"{path}:{number}")


def to_item(line: bytes, place: str) -> tuple[Any, Problem, str]:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{place}: not valid JSON ({error}); mend or delete the line") from None
    if not isinstance(row, dict):
        raise UserError(f"{place}: a JSON object is needed, this is a {type(row).__name__}")
    kind = row.get("kind", "math")
    if kind not in KINDS:
        raise UserError(f"{place}: unknown kind {kind!r}; known: {', '.join(KINDS)}")
    missing = [key for key in ("id", "response", *NEEDED[kind]) if row.get(key) is None]
    if missing:
        raise UserError(f"{place}: {', '.join(missing)} missing; a {kind} line needs id, response and {needs(kind)}")
    response, answer, choices = row["response"], row.get("answer"), row.get("choices")
    if not isinstance(response, str):
        raise UserError(f"{place}: response is a {type(response).__name__}; it must be a string")
    if answer is not None and (isinstance(answer, bool) or not isinstance(answer, str | int | float)):
        raise UserError(f"{place}: answer is a {type(answer).__name__}; it must be a string or a number")
    if choices is not None and not isinstance(choices, list):
        raise UserError(f"{place}: choices is a {type(choices).__name__}; it must be a list of strings")
    tests = code_tests(row.get("tests"), row, place) if kind == "code" else None
    problem = Problem(
        problem=str(row.get("problem") or ""),
        kind=kind,
        answer=None if answer is None else str(answer),
        tests=tests,
        choices=None if choices is None else [str(choice) for choice in choices],
        id=str(row["id"]) or "-",
    )
    return row["id"], problem, response


def needs(kind: str) -> str:
    return ", ".join(NEEDED[kind]) or "nothing else"
