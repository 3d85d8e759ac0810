"""EvalPlus: `samples.jsonl` or a folder of programs, with the verdicts of `eval_results.json` where they are beside it.

Of https://github.com/evalplus/evalplus: evalplus/evaluate.py writes the results, evalplus/data/utils.py reads samples.
The tests are in its release (HumanEvalPlus.jsonl, MbppPlus.jsonl) and have to be given.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from r1distill.errors import UserError
from r1distill.evaluate.readers.files import MAX_PROGRAM_BYTES, as_reply, json_file, json_lines, needed
from r1distill.evaluate.readers.known import KnownProblems
from r1distill.evaluate.readers.record import Generation, score_of

METRICS = ("plus", "base")
STATUSES = {"pass": True, "success": True, "fail": False, "failed": False, "timeout": False}  # two of them before 0.3

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Program:
    """One program with what EvalPlus found on the tests of the original set (`base`) and on its own (`plus`)."""

    place: str
    task: str
    text: str | None
    base: bool | None = None
    plus: bool | None = None


def base_tests(row: Row) -> Row:
    """A row of EvalPlus's release with the original tests alone."""
    return {**row, "plus_input": []}


def read(path: Path, known: KnownProblems | None, metric: str | None) -> Iterator[Generation]:
    """The programs of a results file, a file of samples or a folder. `metric` is `plus` (both test sets) or `base`.

    Raises UserError naming the place of what is malformed, and where the tests are not given.
    """
    metric = metric or "plus"
    if metric not in METRICS:
        raise UserError(f"--metric {metric}: EvalPlus has {' and '.join(METRICS)}")
    if known is None:
        raise UserError("EvalPlus's files hold no tests: give --problems with its release, as HumanEvalPlus.jsonl")
    by_task: dict[str, list[Program]] = {}
    for program in programs(path):
        by_task.setdefault(program.task, []).append(program)
    for task, of_task in by_task.items():
        problem = known.find(task, None)
        verdicts = [verdict_of(program, metric) for program in of_task]
        score = score_of(verdicts)
        missing = "" if problem else f"no problem of {known.name} has this id"
        for sample, (program, right) in enumerate(zip(of_task, verdicts, strict=True)):
            text = as_reply(program.text or "")
            yield Generation(program.place, task, sample, problem, text, right, score, metric, missing)


def verdict_of(program: Program, metric: str) -> bool | None:
    if metric == "base" or program.base is False:
        return program.base
    return None if program.plus is None else program.plus and program.base


def programs(path: Path) -> list[Program]:
    """The programs in the order of their tasks and samples, with verdicts where there are any."""
    if path.is_dir():
        given, results = folder_programs(path), path / "eval_results.json"
    elif path.suffix == ".jsonl":
        stem = path.name.removesuffix(".jsonl")
        beside = [path.with_name(f"{stem}{end}") for end in ("_eval_results.json", ".eval_results.json")]
        given, results = sample_programs(path), next((file for file in beside if file.is_file()), beside[0])
    else:
        given, results = [], path
    judged = result_programs(results) if results.is_file() or not given else []
    return joined(given, judged, results) if given and judged else judged or given


def joined(given: list[Program], judged: list[Program], results: Path) -> list[Program]:
    """The programs with the verdicts on them: the n-th of a task has the n-th verdict.

    The results have the program that was run (with the prompt before a completion), which is taken where it is there.
    """
    if Counter(program.task for program in given) != Counter(program.task for program in judged):
        raise UserError(f"{results}: not of the same programs as the samples beside it; delete one of the two")
    found: dict[str, list[Program]] = {}
    for program in judged:
        found.setdefault(program.task, []).append(program)
    return [
        Program(program.place, program.task, verdict.text or program.text, verdict.base, verdict.plus)
        for program in given
        for verdict in [found[program.task].pop(0)]
    ]


def result_programs(path: Path) -> list[Program]:
    results = needed(json_file(path), dict, str(path))
    found = []
    for task, entries in needed(results.get("eval"), dict, f"{path}: eval").items():
        place = f"{path}: {task}"
        if isinstance(entries, dict):  # before EvalPlus 0.3: lists of [status, details], and no programs
            entries = [
                {"base_status": base[0], "plus_status": plus[0] if plus else None}
                for base, plus in statuses_of(entries, place)
            ]
        for entry in needed(entries, list, place):
            entry = needed(entry, dict, place)
            solution = entry.get("solution")
            found.append(
                Program(
                    place,
                    task,
                    None if solution is None else needed(solution, str, f"{place}: solution"),
                    passed(entry.get("base_status"), place),
                    passed(entry.get("plus_status"), place),
                )
            )
    return found


def statuses_of(entries: Row, place: str) -> list[tuple[Any, Any]]:
    base = needed(entries.get("base"), list, f"{place}: base")
    plus = entries.get("plus") or [None] * len(base)
    if len(plus) != len(base) or not all(isinstance(status, list) and status for status in base):
        raise UserError(f"{place}: base and plus are no lists of the same length of [status, details]")
    return list(zip(base, plus, strict=True))


def passed(status: Any, place: str) -> bool | None:
    if status is None:
        return None
    if not isinstance(status, str) or status not in STATUSES:
        raise UserError(f"{place}: unknown status {status!r}; known: {', '.join(STATUSES)}")
    return STATUSES[status]


def sample_programs(path: Path) -> list[Program]:
    found = []
    for place, row in json_lines(path):
        text = row.get("solution", row.get("completion"))  # a completion goes behind its prompt: verify/programs.py
        if not isinstance(row.get("task_id"), str) or not isinstance(text, str):
            raise UserError(f"{place}: task_id and solution (or completion) are needed, both strings")
        found.append(Program(place, row["task_id"], text))
    if not found:
        raise UserError(f"{path}: no samples in it")
    return found


def folder_programs(path: Path) -> list[Program]:
    """FOLDER/HumanEval_0/0.py and so on."""
    found = []
    for folder in sorted(folder for folder in path.iterdir() if folder.is_dir()):
        files = [file for file in folder.glob("*.py") if file.is_file()]
        for file in sorted(files, key=lambda file: (len(file.stem), file.stem)):
            if file.stat().st_size > MAX_PROGRAM_BYTES:
                raise UserError(f"{file}: over {MAX_PROGRAM_BYTES >> 20} MB; it is no program")
            text = file.read_text(encoding="utf-8", errors="replace")
            found.append(Program(str(file), folder.name.replace("_", "/"), text))
    if not found:
        raise UserError(f"{path}: no folders of programs in it (HumanEval_0/0.py)")
    return found
