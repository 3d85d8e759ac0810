"""Every benchmark's gold answers and canonical solutions, as a student's replies, must score 100 %, and empty ones 0 %.

    python scripts/check_gold.py [--data ../shared/data] [--only gsm8k] [--limit 50] [--workers 2]

Everything goes the way of an evaluation: eval/NAME.toml, the rows and questions that it chooses, options in the protocol's
order, the verifier. A benchmark without data below the folder is named and left out.
"""

import argparse
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from rich.table import Table

from r1distill.console import console
from r1distill.evaluate.protocols import asked, asking_of
from r1distill.evaluate.tasks import Task, data_of, data_sha256, known_copy, load_task
from r1distill.problems import is_selected, local_path, rows, to_problem
from r1distill.records import Problem
from r1distill.resources import shipped_names
from r1distill.sections import Problems
from r1distill.verify import VerifierPool
from r1distill.verify.code import CodeSettings

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
SETTINGS = CodeSettings(total_timeout_s=300, memory_gb=4)  # Mbpp/599 took 105 s on two busy cores
THINKING = "<think>\nx\n</think>\n\n"
EMPTY = ("", THINKING)
# whose canonical solutions fail, and why
KNOWN = {"mbppplus": {"Mbpp/255": "its results take gigabytes"}}


@dataclass(frozen=True, slots=True)
class Result:
    """Of one benchmark: how many questions have gold, how many of these and of the empty replies are right."""

    questions: int
    gold: int
    right: int
    empty: int
    wrong: list[tuple[str, str]]  # (which question, what the verifier says)
    sha256: str
    seconds: float

    def unexplained(self, name: str) -> list[tuple[str, str]]:
        return [each for each in self.wrong if each[0] not in KNOWN.get(name, {})]


def check(task: Task, section: Problems, pool: VerifierPool, limit: int | None = None) -> Result:
    """Judge gold and empty replies to a task's questions. Raises UserError where they cannot be read."""
    started = time.perf_counter()
    gold = dict(islice(gold_of(section), limit))
    problems = asked((problem for problem, _ in gold.values()), asking_of(task))
    replies = [(problem, reply_to(problem, gold[problem.id][1])) for problem in problems]
    answered = [(problem, reply) for problem, reply in replies if reply is not None]
    verdicts = list(pool.verify_many((problem, 0, reply) for problem, reply in answered))
    empty = pool.verify_many((problem, 0, text) for problem in problems for text in EMPTY)
    return Result(
        len(problems),
        len(answered),
        sum(verdict.outcome == "correct" for verdict in verdicts),
        sum(verdict.outcome == "correct" for verdict in empty),
        [
            (str(problem.meta.get("task_id") or problem.id), f"{verdict.outcome}: {verdict.detail}")
            for (problem, _), verdict in zip(answered, verdicts, strict=True)
            if verdict.outcome != "correct"
        ],
        data_sha256(problems),
        time.perf_counter() - started,
    )


def gold_of(section: Problems) -> Iterator[tuple[str, tuple[Problem, str | None]]]:
    """(id, (problem, its canonical program or None)), each problem once."""
    seen = set()
    options = {name: getattr(section, name) for name in ("split", "subset", "revision", "files")}
    for place, row in rows(section.path, **options):
        if not is_selected(row, section.where, place):
            continue
        problem = to_problem(row, place, section.columns, default_source=section.path)
        if problem.id not in seen:
            seen.add(problem.id)
            yield problem.id, (problem, program_of(row))


def program_of(row: dict[str, Any]) -> str | None:
    """MBPP's `code`, or EvalPlus's and HumanEval's solution, which is a body below its prompt in the latter."""
    if isinstance(row.get("code"), str):
        return row["code"].replace("\r\n", "\n")
    if "entry_point" not in row or "canonical_solution" not in row:
        return None
    is_whole = str(row["task_id"]).startswith("Mbpp")
    return row["canonical_solution"] if is_whole else row["prompt"] + row["canonical_solution"]


def reply_to(problem: Problem, program: str | None) -> str | None:
    """What a student says who knows the answer; None where nobody wrote it down."""
    if problem.kind == "code":
        return None if program is None else f"{THINKING}```python\n{program}\n```"
    return rf"{THINKING}\boxed{{{problem.answer}}}"


def local_tasks(folder: Path) -> Iterator[tuple[Task, Problems | None]]:
    """Every shipped benchmark, with where its questions are below `folder`; None where they are not."""
    for name in shipped_names("eval", ".toml"):
        task = load_task(name)
        section = data_of(task, folder=str(folder))
        yield task, section if local_path(section.path) else None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--only", action="append", help="benchmarks, one an option")
    parser.add_argument("--limit", type=int, help="only the first so many questions of each")
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    table = Table("benchmark", "questions", "with gold", "gold right", "empty right", "seconds", "data", box=None)
    without, notes, failed = [], [], False
    with VerifierPool(options.workers, code=SETTINGS) as pool:
        for task, section in local_tasks(options.data):
            if options.only and task.name not in options.only:
                continue
            if section is None:
                without.append(task.name)
                continue
            result = check(task, section, pool, options.limit)
            failed |= bool(result.empty or result.unexplained(task.name))
            table.add_row(*cells(task, result))
            for question, said in result.wrong:
                known = KNOWN.get(task.name, {}).get(question)
                notes.append(f"{task.name} {question}: {said}{f' (known: {known})' if known else ''}")
    console.print(table)
    for note in notes:
        console.print(note, markup=False)
    console.print(f"no data here: {', '.join(without) or 'none'}")
    sys.exit(1 if failed else 0)


def cells(task: Task, result: Result) -> list[str]:
    share = f"{result.right} ({result.right / result.gold:.2%})" if result.gold else "–"
    copy = known_copy(task, result.sha256)
    return [
        task.name,
        str(result.questions),
        str(result.gold),
        share,
        f"{result.empty} of {len(EMPTY) * result.questions}",
        f"{result.seconds:.1f}",
        f"{result.sha256}{f', {copy}' if copy else ''}",
    ]


if __name__ == "__main__":
    main()
