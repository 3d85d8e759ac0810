"""Before a token is spent: what no reply could be judged by is set aside with its reason, and what repeats is named."""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from scripted_server import Reply, ScriptedServer, chat
from small_run import assert_one_error_line, jsonl, r1distill, recipe_file, small_run

from r1distill.errors import UserError
from r1distill.problem_checks import failing_gold, prepare_problems
from r1distill.records import Problem, Verdict
from r1distill.store import read_json, read_records
from r1distill.verify.pool import VerifierPool

SUM = {"problem": "What is 1 + 2?", "answer": "3"}
CODE = {"problem": "Double it.", "tests": {"type": "stdio", "inputs": ["1\n"], "outputs": ["2\n"]}}
STORY = (
    "Tom walks to school along the river and back through the wood; the way takes him 20 minutes there and 30 back. "
)
ASK = "How many minutes does he walk in a week of 5 days of school, if he never takes the bus and is never ill?"
PROOF = {
    "problem": "Show that it is even.", "expected_answer": None, "problem_type": "converted_proof", "problem_source": "aops",
}  # fmt: skip


def prepared(
    folder: Path, rows: list[dict[str, Any]], **problems: Any
) -> tuple[list[Problem], dict[str, int], list[Any], list[Any]]:
    """(problems, counts, rows set aside, duplicates) of a run on these rows."""
    run = small_run(folder, problems={"path": str(jsonl(folder / "p.jsonl", rows)), **problems})
    kept, counts = prepare_problems(run)
    files = ([json.loads(line) for line in path.read_text().splitlines()] for path in (run.set_aside, run.duplicates))
    return kept, counts, *files  # type: ignore[return-value]


def test_good_problems_are_all_kept_and_the_files_are_empty(tmp_path: Path) -> None:
    choice = {"problem": "Which?", "choices": ["x", "y"], "answer": "B"}
    kept, counts, set_aside, duplicates = prepared(tmp_path, [SUM, CODE, choice, {"problem": "Tell.", "kind": "open"}])
    assert len(kept) == 4
    assert not any(counts.values())
    assert set_aside == duplicates == []


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"problem": "a", "answer": r"\frac{1}{2"}, "its own answer is judged incorrect"),
        ({"problem": "a", "answer": "}{"}, "its own answer is judged no_answer"),
        ({"problem": "a", "answer": r"5 \text{ or } \boxed"}, "its own answer is judged"),
        ({"problem": "a", "answer": "x" * 3000}, "the answer has 3,000 characters; the limit is 2,000"),
        ({"problem": "a", "answer": "C", "choices": ["x", "y"]}, "'C' is not the letter of one of its 2 choices"),
        ({**CODE, "tests": {"type": "stdin"}}, "stdin"),
        ({**CODE, "tests": "{"}, "tests is not valid JSON"),
        ({"problem": "a", "kind": "code"}, "a code problem without tests"),
        (PROOF, "OpenMathReasoning: converted_proof, without an answer to compare with"),
    ],
)
def test_what_no_reply_could_be_judged_by_is_set_aside_with_the_reason(
    tmp_path: Path, row: dict[str, Any], reason: str
) -> None:
    kept, counts, [aside], _ = prepared(tmp_path, [SUM, row])
    assert [problem.problem for problem in kept] == [SUM["problem"]]
    assert counts["problems_set_aside"] == 1
    assert set(aside) == {"id", "problem", "answer", "reason"}
    assert aside["problem"] == row["problem"]
    assert reason in aside["reason"]
    assert len(aside["id"]) == 16


def test_without_the_check_gold_answers_are_taken_and_broken_rows_end_the_run(tmp_path: Path) -> None:
    kept, counts, _, _ = prepared(tmp_path, [SUM, {"problem": "a", "answer": r"\frac{1}{2"}, PROOF], check=False)
    assert len(kept) == 2
    assert counts["problems_set_aside"] == 1  # a proof is no mistake of the user's
    with pytest.raises(UserError, match=r"p\.jsonl:1: a code problem without tests"):
        prepared(tmp_path, [{"problem": "a", "kind": "code"}], check=False)


def test_a_forgotten_answer_still_ends_the_run_and_so_does_a_set_without_a_usable_problem(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"p\.jsonl:2: a math problem without an answer"):
        prepared(tmp_path, [SUM, {"problem": "a"}])
    with pytest.raises(UserError, match="all 1 problems were set aside, the first because: its own answer"):
        prepared(tmp_path, [{"problem": "a", "answer": "}{"}])


class CountingPool(VerifierPool):
    """The real pool, which notes how many replies it was asked to judge."""

    asked = 0

    def verify_many(self, items: Iterable[tuple[Problem, int, str]]) -> Iterator[Verdict]:
        items = list(items)
        self.asked += len(items)
        return super().verify_many(items)


def test_a_gold_answer_is_judged_once_however_many_problems_have_it() -> None:
    problems = [Problem(f"{number}", answer=answer) for number in range(100) for answer in (r"\frac{1}{2", "7")]
    pool = CountingPool(1)
    with pool:
        failed = dict(failing_gold(problems, pool))
    assert pool.asked == 2
    assert failed.keys() == {problem.id for problem in problems if problem.answer != "7"}


DUPLICATES = [
    {"problem": STORY + ASK, "answer": "250"},
    {"problem": STORY + ASK, "answer": 250.0},  # the same again
    {"problem": STORY.replace("through the wood", "through a wood") + ASK, "answer": "250"},
    {"problem": STORY.replace("20", "25") + ASK, "answer": "275"},  # another number: another problem
    {"problem": STORY + ASK + " Think well.", "answer": "50"},
    {"problem": "What is a half of one?", "answer": "1/2"},
    {"problem": "What is a  half of one?", "answer": "0.5"},
    {"problem": "What is 6 times 7?", "answer": "42"},
    {"problem": "What is 6 times\n7?", "answer": "41"},
]


def test_duplicates_are_counted_and_named_and_kept_where_they_are_only_reported(tmp_path: Path) -> None:
    kept, counts, set_aside, duplicates = prepared(tmp_path, DUPLICATES)
    assert len(kept) == 8
    assert counts == {
        "problems_set_aside": 0,
        "exact_duplicates": 1,
        "near_duplicates": 2,
        "near_duplicates_with_another_answer": 1,
        "conflicting_answers": 1,
    }
    assert set_aside == []
    answers = {problem.id: problem.answer for problem in kept}
    assert [(answers[d["id"]], answers[d["duplicate_of"]], d["what"]) for d in duplicates] == [
        ("250", "250", "near"),
        ("50", "250", "near, another answer"),
        ("0.5", "1/2", "near"),
        ("41", "42", "conflict"),
    ]
    assert [duplicate["similarity"] == 1 for duplicate in duplicates] == [False, False, True, True]


def test_dropped_duplicates_are_those_with_the_same_answer_and_both_sides_of_a_conflict(tmp_path: Path) -> None:
    kept, counts, set_aside, duplicates = prepared(tmp_path, DUPLICATES, duplicates="drop")
    assert [problem.answer for problem in kept] == ["250", "275", "50", "1/2"]
    assert counts["problems_set_aside"] == len(set_aside) == 4
    assert len(duplicates) == 4
    reasons = {row["answer"]: row["reason"] for row in set_aside}
    assert reasons["250"].startswith("a near duplicate (0.")
    assert reasons["41"].startswith("the same problem has another answer: ")
    assert reasons["42"].startswith("the same problem has another answer: ")


def test_a_conflict_is_said_even_where_duplicates_are_ignored(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kept, _, _, duplicates = prepared(tmp_path, DUPLICATES, duplicates="ignore")
    assert len(kept) == 8
    assert [duplicate["what"] for duplicate in duplicates] == ["conflict"]
    said = " ".join(capsys.readouterr().out.split())
    assert "the same problem has another answer" in said
    assert all(word in said for word in ("'42'", "'41'", kept[-1].id, kept[-2].id, "What is 6 times 7?"))


def test_the_command_line_samples_only_what_is_left_and_records_the_rest(tmp_path: Path) -> None:
    rows = [SUM, {"problem": "What is 2 + 2?", "answer": r"\frac{1}{2"}, SUM]
    with ScriptedServer(always=Reply(body=chat(r"1</think>\boxed{3}"))) as server:
        path = str(jsonl(tmp_path / "p.jsonl", rows))
        recipe = recipe_file(
            tmp_path, problems={"path": path}, teacher={"urls": [server.url]}, generate={"logprobs": 0}
        )
        result = r1distill("generate", recipe)
        assert result.returncode == 0, result.stderr
        assert len(server.received) == 1
    folder = tmp_path / "run"
    counts = read_json(folder / "stages" / "generate.json")["counts"]
    assert (counts["problems"], counts["problems_set_aside"], counts["exact_duplicates"]) == (1, 1, 1)
    assert [problem.problem for problem in read_records(folder / "problems.parquet", Problem)] == [SUM["problem"]]
    assert "set aside: 1, see" in result.stdout
    assert "1 × its own answer is judged incorrect" in result.stdout
    recipe = recipe_file(tmp_path, problems={"path": path, "duplicates": "report all"})
    assert_one_error_line(r1distill("generate", recipe), "problems.duplicates", "'report', 'drop' or 'ignore'")
