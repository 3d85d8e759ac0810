"""Every canonical solution of HumanEval, HumanEval+, MBPP and MBPP+ must pass, and with one operator changed mostly fail.

    python scripts/check_code.py [--data ../shared/data] [--only HumanEval] [--workers 2]

A mutant has one operator, comparison, constant or boolean changed, chosen by the name of its task; those that still pass
are counted: the change may make no difference, or the tests not see it.
"""

import argparse
import ast
import gzip
import json
import random
import sys
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

from r1distill.code_columns import read_tests
from r1distill.records import Problem
from r1distill.verify import VerifierPool
from r1distill.verify.code import CodeSettings

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
SETS = {
    "HumanEval": "humaneval/HumanEval.jsonl.gz",
    "HumanEval+": "humanevalplus/HumanEvalPlus.jsonl.gz",
    "MBPP": "mbpp/mbpp.jsonl",
    "MBPP+": "mbppplus/MbppPlus.jsonl.gz",
}
MUTANT_SECONDS = 15  # many never end
SWAPPED: dict[type[ast.AST], type[ast.AST]] = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Add, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult, ast.Mod: ast.FloorDiv,
    ast.Pow: ast.Mult, ast.Lt: ast.GtE, ast.GtE: ast.Lt, ast.Gt: ast.LtE, ast.LtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.In: ast.NotIn, ast.NotIn: ast.In, ast.And: ast.Or, ast.Or: ast.And, ast.Is: ast.IsNot, ast.IsNot: ast.Is,
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--only", choices=SETS)
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    settings = CodeSettings(total_timeout_s=120, memory_gb=4)  # one task of MBPP+ builds lists of gigabytes
    found = False
    with VerifierPool(options.workers, code=settings) as pool:
        for name, file in SETS.items():
            path = options.data / file
            if path.exists() and options.only in (None, name):
                found = True
                check(pool, name, read(path))
    if not found:
        sys.exit(f"{options.data} holds none of {', '.join(SETS.values())}; name the folder with --data")


def read(path: Path) -> list[dict[str, Any]]:
    text = gzip.decompress(path.read_bytes()).decode() if path.suffix == ".gz" else path.read_text()
    return [json.loads(line) for line in text.splitlines()]


def solution(row: dict[str, Any]) -> str:
    if "code" in row:
        return row["code"].replace("\r\n", "\n")
    return (
        row["canonical_solution"]
        if str(row["task_id"]).startswith("Mbpp")
        else row["prompt"] + row["canonical_solution"]
    )


def check(pool: VerifierPool, name: str, rows: list[dict[str, Any]]) -> None:
    started = time.perf_counter()
    problems = [Problem(str(row["task_id"]), kind="code", tests=read_tests(row)) for row in rows]
    outcomes = run(pool, problems, [solution(row) for row in rows])
    took = time.perf_counter() - started
    wrong = [
        (row["task_id"], verdict.detail)
        for row, verdict in zip(rows, outcomes, strict=True)
        if verdict.outcome != "correct"
    ]
    mutants = [mutant(solution(row), str(row["task_id"])) for row in rows]
    impatient = [
        replace(problem, tests={**(problem.tests or {}), "total_time_limit_s": MUTANT_SECONDS}) for problem in problems
    ]
    changed = [(problem, code) for problem, code in zip(impatient, mutants, strict=True) if code is not None]
    counts = Counter(verdict.outcome for verdict in run(pool, *map(list, zip(*changed, strict=True))))  # type: ignore[arg-type]
    failed = sum(counts.values()) - counts["correct"]
    print(
        f"{name:11} {len(rows) - len(wrong)} of {len(rows)} canonical solutions pass "
        f"({took:.1f} s, {len(rows) / took:.0f} a second); "
        f"{failed} of {counts.total()} mutants fail, {failed / counts.total():.1%} ({dict(counts)})",
        flush=True,
    )
    for task, detail in wrong:
        print(f"  {task}: {detail}")


def run(pool: VerifierPool, problems: list[Problem], programs: list[str]) -> list[Any]:
    return list(pool.verify_many((p, 0, f"```python\n{code}\n```") for p, code in zip(problems, programs, strict=True)))


def mutant(code: str, task: str) -> str | None:
    """The code with one thing changed, None where nothing can be."""
    tree = ast.parse(code)
    places = [node for node in ast.walk(tree) if changes(node)]
    if not places:
        return None
    node: Any = random.Random(task).choice(places)
    if isinstance(node, ast.Constant):
        number: Any = node.value
        node.value = (not number) if isinstance(number, bool) else number + 1
    elif isinstance(node, ast.Compare):
        node.ops[0] = SWAPPED[type(node.ops[0])]()  # type: ignore[assignment]
    else:
        node.op = SWAPPED[type(node.op)]()
    return ast.unparse(ast.fix_missing_locations(tree))


def changes(node: ast.AST) -> bool:
    if isinstance(node, ast.Constant):
        return isinstance(node.value, bool | int | float)
    if isinstance(node, ast.Compare):
        return type(node.ops[0]) in SWAPPED
    return isinstance(node, ast.BinOp | ast.BoolOp | ast.AugAssign) and type(node.op) in SWAPPED


if __name__ == "__main__":
    main()
