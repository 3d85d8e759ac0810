"""The problems of the quickstart: what the script writes is what is shipped, and every step of a solution is true."""

import json
import re
import runpy
import subprocess
import sys
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from small_run import ROOT

from r1distill.problems import load_problems

SCRIPT = ROOT / "scripts" / "make_quickstart_problems.py"
FOLDER = ROOT / "prompts" / "quickstart"
NUMBER = r"-?\d+"
STEP = re.compile(rf"({NUMBER}(?: [-+*/×÷] {NUMBER})+) = ({NUMBER})")


@pytest.fixture(scope="module")
def script() -> dict[str, Any]:
    return runpy.run_path(str(SCRIPT))


def operands(problem: str) -> tuple[str, ...]:
    """A question without its order: its words, and its numbers sorted."""
    return (re.sub(r"\d+", "#", problem), *sorted(re.findall(r"\d+", problem)))


def value(expression: str) -> Fraction:
    assert re.fullmatch(r"[-+*/\d ]+", expression)
    return eval(re.sub(r"(\d+)", r"Fraction(\1)", expression), {"Fraction": Fraction, "__builtins__": {}})


def test_the_script_writes_the_shipped_files_byte_for_byte(tmp_path: Path) -> None:
    subprocess.run([sys.executable, str(SCRIPT), "--out", str(tmp_path)], check=True, capture_output=True)
    for name in ("train.jsonl", "heldout.jsonl"):
        assert (tmp_path / name).read_bytes() == (FOLDER / name).read_bytes()


def test_there_are_enough_problems_of_at_least_two_families() -> None:
    train, held_out = (load_problems(str(FOLDER / f"{name}.jsonl")) for name in ("train", "heldout"))
    assert len(train) >= 500
    assert len(held_out) == 120
    families = {problem.source for problem in train}
    assert len(families) >= 2
    assert any("rabbits" in problem.problem for problem in train)
    assert {problem.source for problem in held_out} == families


def test_no_operands_of_a_held_out_problem_are_trained_on_in_either_order(script: dict[str, Any]) -> None:
    train, held_out, rest = script["split"]()
    asked = {operands(exercise.problem) for exercise in held_out}
    assert len(asked) == len(held_out)
    for exercise in (*train, *rest):
        assert operands(exercise.problem) not in asked
    lines = [
        {operands(json.loads(line)["problem"]) for line in (FOLDER / name).read_text().splitlines()}
        for name in ("train.jsonl", "heldout.jsonl")
    ]
    assert not lines[0] & lines[1]


def test_every_step_of_every_worked_solution_is_true_and_the_last_gives_the_answer(script: dict[str, Any]) -> None:
    for part in script["split"]():
        for exercise in part:
            solution = script["worked_solution"](exercise)
            steps = STEP.findall(solution)
            assert steps, solution
            assert len(steps) == solution.count("="), solution  # none that was not understood
            for left, right in steps:
                assert value(left.replace("×", "*").replace("÷", "/")) == int(right), solution
            assert re.findall(NUMBER, solution)[-1] == exercise.answer, solution


def test_the_answers_are_those_of_the_questions() -> None:
    for name in ("train", "heldout"):
        for problem in load_problems(str(FOLDER / f"{name}.jsonl")):
            if match := re.search(r"(\d+ [-+*] \d+)", problem.problem):
                assert int(problem.answer or "") == value(match[1])
            elif match := re.search(r"(\d+) heads, (\d+) legs", problem.problem):
                heads, legs, rabbits = int(match[1]), int(match[2]), int(problem.answer or "")
                assert 0 <= rabbits <= heads
                assert 4 * rabbits + 2 * (heads - rabbits) == legs
            else:
                pytest.fail(f"a question that this test cannot check: {problem.problem}")
