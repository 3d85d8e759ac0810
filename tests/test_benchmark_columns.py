"""One row in the published columns of each benchmark (own words, no copied data), and the question that is made of it."""

import base64
import json
import pickle
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_run import DATA, ROOT, jsonl

from r1distill.benchmark_columns import gpqa
from r1distill.errors import UserError
from r1distill.problems import load_problems
from r1distill.prompting import LETTERS
from r1distill.records import Problem
from r1distill.verify.code import kind_of_tests


def one(folder: Path, row: dict[str, Any]) -> Problem:
    [problem] = load_problems(str(jsonl(folder / "p.jsonl", [row])))
    return problem


GPQA = {
    "Question": "Which of them is a noble gas?\n", "Correct Answer": "Argon\n", "Incorrect Answer 1": "Iron",
    "Incorrect Answer 2": " Boron", "Incorrect Answer 3": "Fluorine", "High-level domain": "Chemistry",
    "Subdomain": "Chemistry (general)", "Record ID": "rec0", "Canary String": "x", "Explanation": "The eighth group.",
}  # fmt: skip
MMLU_PRO = {
    "question_id": 7, "question": "Which is the tenth?", "options": [f"number {n}" for n in range(10)], "answer": "J",
    "answer_index": 9, "cot_content": "", "category": "math", "src": "own",
}  # fmt: skip
OLYMPIAD = {
    "id": 1, "question": "Solve it.", "solution": ["Long.\nVery long. " * 20], "final_answer": ["$1$", "$-1$"],
    "context": "Let $x^2=1$.", "image_1": None, "modality": "Text-only", "difficulty": "Competition",
    "is_multiple_answer": True, "unit": None, "answer_type": "Numerical", "error": None,
    "question_type": "Open-ended", "subfield": "Algebra", "subject": "Math", "language": "English",
}  # fmt: skip
MBPP = {
    "task_id": 11, "text": "Write a function to double.", "code": "def double(x):\r\n  return 2*x",
    "test_list": ["assert double(1) == 2", "assert double(2) == 4"], "test_setup_code": "", "challenge_test_list": [],
}  # fmt: skip
CODEFORCES = {
    "id": "1/A", "contest_id": "1", "title": "Double", "description": "Double it.", "input_format": "A number.",
    "output_format": "Twice the number.", "interaction_format": None, "note": "Twice one is two.", "rating": 800,
    "examples": [{"input": "1\n", "output": "2\n"}], "official_tests": [{"input": "3\n", "output": "6\n"}],
    "official_tests_complete": True, "input_mode": "stdio", "generated_checker": None, "tags": ["math"],
}  # fmt: skip


def packed(value: Any) -> str:
    return base64.b64encode(zlib.compress(pickle.dumps(value))).decode()


def live_code_bench(private: Any, starter: str = "", name: str | None = None) -> dict[str, Any]:
    cases = [{"input": "[1, 2]\n3" if name else "1 2\n", "output": "6" if name else "3\n", "testtype": "functional"}]
    return {
        "question_title": "t", "question_content": "Add them.", "platform": "leetcode", "question_id": "1",
        "contest_id": "c", "contest_date": "2024-08-03T00:00:00", "starter_code": starter, "difficulty": "easy",
        "public_test_cases": json.dumps(cases), "private_test_cases": private,
        "metadata": json.dumps({"func_name": name} if name else {}),
    }  # fmt: skip


def test_the_right_answer_of_gpqa_is_found_behind_every_letter(tmp_path: Path) -> None:
    rows = [{**GPQA, "Question": f"{GPQA['Question']} ({number})"} for number in range(200)]
    problems = load_problems(str(jsonl(tmp_path / "p.jsonl", rows)))
    for problem in problems:
        choices, answer = problem.choices or [], problem.answer or ""
        assert sorted(choices) == ["Argon", "Boron", "Fluorine", "Iron"]
        assert choices[LETTERS.index(answer)] == "Argon"
        assert problem.kind == "choice"
        assert problem.meta == {"subject": "Chemistry", "unique_id": "rec0"}
    counts = [sum(problem.answer == letter for problem in problems) for letter in "ABCD"]
    assert min(counts) >= 30, counts  # 50 each are expected, with a deviation of 6


@given(st.permutations([1, 2, 3]), st.text(max_size=20))
def test_the_order_of_gpqa_is_that_of_its_texts_and_not_of_its_columns(order: list[int], question: str) -> None:
    row = {**GPQA, "Question": question}
    turned = {**row, **{f"Incorrect Answer {n}": row[f"Incorrect Answer {m}"] for n, m in enumerate(order, 1)}}
    ours, theirs = gpqa(row), gpqa(turned)
    assert ours is not None
    assert theirs is not None
    assert (ours["choices"], ours["answer"]) == (theirs["choices"], theirs["answer"])


def test_another_process_finds_the_same_order_and_the_same_ids(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "p.jsonl", [{**GPQA, "Question": str(number)} for number in range(20)])
    code = f"from r1distill.problems import load_problems as l; print(*[p.id + p.answer for p in l({str(path)!r})])"
    said = {
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True,
            env={"PYTHONPATH": str(ROOT), "PYTHONHASHSEED": seed},
        ).stdout
        for seed in ("1", "2")
    }  # fmt: skip
    assert said == {" ".join(problem.id + (problem.answer or "") for problem in load_problems(str(path))) + "\n"}


def test_ten_options_are_asked_and_their_subject_is_known(tmp_path: Path) -> None:
    problem = one(tmp_path, MMLU_PRO)
    assert (problem.kind, problem.answer, len(problem.choices or [])) == ("choice", "J", 10)
    assert problem.meta["subject"] == "math"


def test_what_questions_of_olympiad_bench_share_and_all_their_answers_are_kept(tmp_path: Path) -> None:
    problem = one(tmp_path, OLYMPIAD)
    assert problem.problem == "Let $x^2=1$.\nSolve it."
    assert (problem.kind, problem.answer, problem.meta["subject"]) == ("math", "$1$, $-1$", "Algebra")
    assert one(tmp_path, {**OLYMPIAD, "context": None, "final_answer": ["2"]}).problem == "Solve it."


def test_a_question_of_mbpp_names_its_function_by_its_tests(tmp_path: Path) -> None:
    problem = one(tmp_path, MBPP)
    assert problem.problem == (
        "Write a function to double.\n\nYour code should pass these tests:\n\nassert double(1) == 2\nassert double(2) == 4"
    )
    assert problem.tests == {"type": "asserts", "code": "\nassert double(1) == 2\nassert double(2) == 4"}
    hub = one(tmp_path, {**MBPP, "prompt": MBPP["text"], "text": None, "test": "assert double(9) == 18"})
    assert hub.problem == '"""\nWrite a function to double.\nassert double(1) == 2\n"""'


def test_a_statement_of_codeforces_is_put_together_and_its_rating_kept(tmp_path: Path) -> None:
    problem = one(tmp_path, CODEFORCES)
    assert problem.problem == (
        "# Double\n\nDouble it.\n\n## Input\n\nA number.\n\n## Output\n\nTwice the number.\n\n## Example 1\n\n"
        "Input:\n```\n1\n```\n\nOutput:\n```\n2\n```\n\n## Note\n\nTwice one is two."
    )
    assert problem.tests == {"type": "stdio", "inputs": ["3\n"], "outputs": ["6\n"]}
    assert problem.meta == {"rating": 800, "unique_id": "1/A", "contest_id": "1"}


def test_public_and_private_tests_of_livecodebench_are_read(tmp_path: Path) -> None:
    private = packed(json.dumps([{"input": "5 6\n", "output": "11\n", "testtype": "stdin"}]))
    problem = one(tmp_path, live_code_bench(private))
    assert problem.tests == {
        "type": "stdio",
        "inputs": ["1 2\n", "5 6\n"],
        "outputs": ["3\n", "11\n"],
        "tolerance": 0.0,
    }
    assert problem.date == "2024-08-03T00:00:00"
    starter = "class Solution:\n    def add(self, xs: list[int], y: int) -> int:\n        "
    problem = one(tmp_path, live_code_bench("[]", starter, "add"))
    assert problem.tests == {"type": "function", "entry_point": "add", "inputs": [[[1, 2], 3]], "outputs": [6]}
    assert problem.meta == {
        "difficulty": "easy", "question_id": "1", "contest_id": "c", "platform": "leetcode", "starter_code": starter,
    }  # fmt: skip


@pytest.mark.parametrize(
    "private",
    [
        packed(print),  # a name, which a real unpickler would call
        base64.b64encode(b"no zlib").decode(),
        base64.b64encode(zlib.compress(b"cos\nsystem\n(S'true'\ntR.")).decode(),
        base64.b64encode(zlib.compress(pickle.dumps("[]"))[:-3]).decode(),
        base64.b64encode(zlib.compress(b"")).decode(),
        packed(3),
    ],
)
def test_packed_tests_that_are_anything_but_text_end_with_their_place(tmp_path: Path, private: str) -> None:
    with pytest.raises(UserError, match=r"p\.jsonl:1: its tests cannot be read"):
        one(tmp_path, live_code_bench(private))


def test_the_copy_of_livecodebench_in_sandbox_fusion_is_read() -> None:
    if not (DATA / "livecodebench_sample").exists():
        pytest.skip(f"{DATA / 'livecodebench_sample'} is not on this machine")
    problems = load_problems(str(DATA / "livecodebench_sample"))
    assert [kind_of_tests(problem.tests or {}) for problem in problems] == ["stdio", "function", "stdio"]
    assert {problem.meta["platform"] for problem in problems} == {"codeforces", "leetcode", "atcoder"}


def test_a_broken_row_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"p\.jsonl:1: its question cannot be read \(JSONDecodeError"):
        one(tmp_path, {"content": "x", "labels": "{", "test": ""})
