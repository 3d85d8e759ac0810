"""Problems come in from the usual files, and what is wrong with one is said with its place."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_run import DATA, ROOT, jsonl

from r1distill.errors import UserError
from r1distill.problems import files_of, load_problems, local_path, short_answer
from r1distill.records import Problem
from r1distill.store import write_records

SUM = {"problem": "What is 1 + 2?", "answer": "3"}
CHOICE = {"problem": "Which?", "choices": ["x", "y"], "answer": "B"}
CODE = {"problem": "Double it.", "tests": {"type": "stdio", "inputs": ["1\n"], "outputs": ["2\n"]}}


def refusal(folder: Path, row: Any, **options: Any) -> str:
    path = jsonl(folder / "p.jsonl", [SUM, row])
    with pytest.raises(UserError) as refused:
        load_problems(str(path), **options)
    assert str(refused.value).startswith(f"{path}:2: ")
    return str(refused.value)


def test_jsonl_parquet_and_a_folder_give_the_same_problems(tmp_path: Path) -> None:
    rows = [{"problem": f"What is {n} + 1?", "answer": str(n + 1), "source": "s"} for n in range(4)]
    one = jsonl(tmp_path / "one.jsonl", rows)
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "one.parquet")
    jsonl(tmp_path / "folder" / "a.jsonl", rows[:2])
    (tmp_path / "folder" / "deeper.parquet").mkdir()  # Spark writes a folder where one expects a file
    pq.write_table(pa.Table.from_pylist(rows[2:]), tmp_path / "folder" / "deeper.parquet" / "part-0.parquet")
    (tmp_path / "folder" / "README.md").write_text("not a problem")
    expected = [Problem(row["problem"], answer=row["answer"], source="s") for row in rows]
    for path in (one, tmp_path / "one.parquet", tmp_path / "folder"):
        assert load_problems(str(path)) == expected
    assert len(files_of(tmp_path / "folder")) == 2


def test_our_own_parquet_is_read_again(tmp_path: Path) -> None:
    problems = load_problems(str(jsonl(tmp_path / "p.jsonl", [{**SUM, "level": 3, "meta": {"a": 1}}, CHOICE, CODE])))
    assert [problem.kind for problem in problems] == ["math", "choice", "code"]
    assert problems[0].meta == {"a": 1, "level": 3}
    write_records(tmp_path / "problems.parquet", Problem, problems)
    assert load_problems(str(tmp_path / "problems.parquet")) == problems


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (b'{"problem": "x", "answer": 1', "not valid JSON"),
        (b"\xff\xfe{}", "not valid JSON"),
        (b'{"problem": "half \\ud83d", "answer": "1"}', "not valid JSON"),
        (b'{"problem": "x", "answer": ' + b"1" * 5000 + b"}", "not valid JSON"),
        (b"[" * 100_000, "not valid JSON"),
        (b'["x"]', "a JSON object is needed, this is a list"),
    ],
)
def test_a_malformed_line_is_named(tmp_path: Path, line: bytes, words: str) -> None:
    path = tmp_path / "p.jsonl"
    path.write_bytes(json.dumps(SUM).encode() + b"\n\n" + line + b"\n")
    with pytest.raises(UserError) as refused:
        load_problems(str(path))
    assert str(refused.value).startswith(f"{path}:3: {words}")  # blank lines count


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"problem": "x"}, ("a math problem without an answer", "expected_answer", 'kind = "open"')),
        ({"problem": "x", "answer": ""}, ("without an answer",)),
        ({"problem": "x", "answer": None}, ("without an answer",)),
        ({"problem": "x", "answer": float("nan")}, ("without an answer",)),
        ({"problem": "x", "answer": "so \\boxed{}"}, ("without an answer",)),
        ({"problem": "x", "answer": ["3"]}, ("answer is a list",)),
        ({"answer": "3"}, ("no problem text", "question")),
        ({"problem": " ", "answer": "3"}, ("no problem text",)),
        ({"problem": [{"role": "user"}], "answer": "3"}, ("no problem text",)),
        ({**SUM, "kind": "maths"}, ("unknown kind 'maths'", "math, code, choice, open")),
        ({**SUM, "kind": "choice"}, ("without choices",)),
        ({**CHOICE, "choices": "xy"}, ("choices is a str",)),
        ({**CHOICE, "answer": "C"}, ("'C' is not the letter of one of its 2 choices",)),
        ({**CHOICE, "answer": 1}, ("'1' is not the letter",)),
        ({**SUM, "kind": "code"}, ("without tests",)),
        ({**CODE, "tests": "{"}, ("tests is not valid JSON",)),
        ({**CODE, "tests": ["assert True"]}, ("tests is a list",)),
        ({**SUM, "meta": "note"}, ("meta is not valid JSON",)),
        ({**SUM, "meta": [1]}, ("meta is a list",)),
    ],
)
def test_a_problem_that_cannot_be_judged_is_named_with_the_remedy(
    tmp_path: Path, row: dict[str, Any], words: tuple[str, ...]
) -> None:
    message = refusal(tmp_path, row)
    assert "\n" not in message
    for word in words:
        assert word in message


def test_columns_rename_and_wrong_ones_are_refused(tmp_path: Path) -> None:
    path = str(jsonl(tmp_path / "p.jsonl", [{"ask": "1 + 1?", "reply": 2, "answer": "wrong"}]))
    [problem] = load_problems(path, columns={"problem": "ask", "answer": "reply"})
    assert (problem.problem, problem.answer) == ("1 + 1?", "2")
    with pytest.raises(UserError, match=r"problems\.columns: unknown anwser; known: problem, kind, answer"):
        load_problems(path, columns={"anwser": "reply"})
    with pytest.raises(UserError, match="it is looked for in nothing"):
        load_problems(path, columns={"problem": "ask", "answer": "nothing"})


@pytest.mark.parametrize(
    ("solution", "answer"),
    [
        ("Half of 84 is <<84/2=42>>42.\n#### 42", "42"),
        ("####42", "42"),
        ("#### 70,000", "70,000"),
        (r"First \boxed{1}, in the end $\boxed{\frac{1}{2}}$.", r"\frac{1}{2}"),
        (r"\boxed{42}", "42"),
        (r"\frac{1}{2}", r"\frac{1}{2}"),
        (" 42 ", "42"),
    ],
)
def test_the_answer_is_found_at_the_end_of_a_solution(solution: str, answer: str) -> None:
    assert short_answer(solution) == answer


@given(st.integers(-(10**9), 10**9), st.text(alphabet="ab 12+=\n.", max_size=50))
def test_a_number_is_found_at_the_end_of_any_solution(number: int, reasoning: str) -> None:
    assert short_answer(f"{reasoning}\n#### {number}") == str(number)
    assert short_answer(rf"{reasoning} so $\boxed{{{number}}}$. Done.") == str(number)


def test_a_short_answer_comes_before_a_solution(tmp_path: Path) -> None:
    rows = [
        {"problem": "a", "solution": r"So \boxed{5}.", "answer": "6"},
        {"problem": "b", "solution": r"So \boxed{5}.", "answer": ""},
        {"problem": "c", "answer": 27.0},
        {"problem": "d", "answer": 0},
        {"problem": "e", "answer": 0.5},
    ]
    problems = load_problems(str(jsonl(tmp_path / "p.jsonl", rows)))
    assert [problem.answer for problem in problems] == ["6", "5", "27", "0", "0.5"]


def test_the_same_question_twice_is_kept_once_and_the_limit_counts_questions(tmp_path: Path) -> None:
    rows = [SUM, {**SUM, "source": "elsewhere"}, {"problem": " What is 1 + 2?\n", "answer": 3}, CHOICE, CODE]
    path = str(jsonl(tmp_path / "p.jsonl", rows))
    assert [problem.problem for problem in load_problems(path)] == ["What is 1 + 2?", "Which?", "Double it."]
    assert len(load_problems(path, limit=2)) == 2
    assert load_problems(path)[0].source == path


def test_ids_do_not_depend_on_the_process_or_the_order_of_columns(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [SUM, CHOICE, CODE, {"problem": "鸡兔同笼", "answer": "12"}]
    path = jsonl(tmp_path / "p.jsonl", rows)
    turned = jsonl(tmp_path / "t.jsonl", [dict(reversed(row.items())) for row in rows])
    ids = [problem.id for problem in load_problems(str(path))]
    assert [problem.id for problem in load_problems(str(turned))] == ids
    code = f"from r1distill.problems import load_problems; print(*[p.id for p in load_problems({str(path)!r})])"
    other = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True,
        env={"PYTHONPATH": str(ROOT), "PYTHONHASHSEED": "7"},
    )  # fmt: skip
    assert other.stdout.split() == ids
    assert len(set(ids)) == 4


def test_a_path_is_a_file_before_it_is_a_hub_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert local_path("openai/gsm8k") is None
    assert local_path("prompts/quickstart") == ROOT / "prompts" / "quickstart"  # shipped
    jsonl(tmp_path / "openai" / "gsm8k" / "p.jsonl", [SUM])
    assert local_path("openai/gsm8k") == tmp_path / "openai" / "gsm8k"
    for name in ("nowhere.jsonl", "data/nowhere.jsonl", "data/nowhere.parquet", "./nowhere", "../nowhere", "/no/where"):
        with pytest.raises(UserError, match="problems: no such file"):
            local_path(name)


def test_an_empty_set_and_a_broken_file_are_refused(tmp_path: Path) -> None:
    (tmp_path / "empty.jsonl").write_text("\n")
    (tmp_path / "broken.parquet").write_bytes(b"PAR1")
    (tmp_path / "folder").mkdir()
    for name, words in (
        ("empty.jsonl", "no problems in it"),
        ("broken.parquet", "not a readable Parquet file"),
        ("folder", "a folder without"),
    ):
        with pytest.raises(UserError, match=words) as refused:
            load_problems(str(tmp_path / name))
        assert str(refused.value).startswith(str(tmp_path / name))


@pytest.mark.parametrize(
    ("name", "number"),
    [("gsm8k/test.jsonl", 1319), ("math500/test.jsonl", 500), ("aime24", 30), ("amc23/test.jsonl", 40)],
)
def test_a_public_set_loads_with_its_own_columns(name: str, number: int) -> None:
    if not (DATA / name).exists():
        pytest.skip(f"{DATA / name} is not on this machine")
    problems = load_problems(str(DATA / name))
    assert len(problems) == number
    assert {problem.kind for problem in problems} == {"math"}
    for problem in problems:
        assert problem.answer, problem
        assert len(problem.answer) < 100
        assert "boxed" not in problem.answer
        assert "#" not in problem.answer
    if not name.startswith("math500"):
        assert all(float((problem.answer or "").replace(",", "")).is_integer() for problem in problems)


def test_the_solutions_of_math_end_in_its_answers(tmp_path: Path) -> None:
    source = DATA / "math500" / "test.jsonl"
    if not source.exists():
        pytest.skip(f"{source} is not on this machine")
    rows = [json.loads(line) for line in source.read_text(encoding="utf-8").splitlines()]
    path = jsonl(tmp_path / "p.jsonl", [{"problem": row["problem"], "solution": row["solution"]} for row in rows])
    assert [problem.answer for problem in load_problems(str(path))] == [row["answer"] for row in rows]
