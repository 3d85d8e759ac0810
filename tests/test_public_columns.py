"""One row in the published columns of each public set (own words, no copied data), and what is made of it."""

import json
from pathlib import Path
from typing import Any

import pytest
from small_run import jsonl

from r1distill.errors import UserError
from r1distill.problems import Unusable, load_problems, read_problems
from r1distill.records import Problem

ASK = "How many legs do three chickens and two rabbits have?"
THINKING = "<think>\nThree times two is \\boxed{6}? No, two rabbits have eight more.\n</think>\n\n"
REPLY = THINKING + "They have $6 + 8$ legs, \\boxed{14}."
SOLUTION = "The chickens have $6$ legs.\nThe rabbits have $8$.\nTogether $\\boxed{14}$."
PROOF = (
    "Each chicken has an even number of legs.\nSo has each rabbit. A sum of even numbers is even, as was to be shown."
)
OPEN_MATH_REASONING = {
    "problem": ASK, "expected_answer": "14", "problem_type": "has_answer_extracted", "problem_source": "aops_c4_x",
    "generation_model": "DeepSeek-R1", "pass_rate_72b_tir": "0.96875", "generated_solution": REPLY,
    "inference_mode": "cot", "used_in_kaggle": True,
}  # fmt: skip
NUMINA = {
    "problem": ASK, "solution": SOLUTION, "answer": "14", "problem_type": "Algebra", "question_type": "math-word-problem",
    "problem_is_valid": "Yes", "solution_is_valid": "Yes", "source": "cn_k12", "synthetic": False,
}  # fmt: skip
OPEN_R1 = {
    **{key: NUMINA[key] for key in ("problem", "solution", "answer", "problem_type", "question_type", "source")},
    "uuid": "0-0", "is_reasoning_complete": [True, True], "generations": [REPLY, REPLY],
    "correctness_math_verify": [True, False], "correctness_llama": None, "finish_reasons": None, "correctness_count": 1,
    "messages": [{"role": "user", "content": ASK}, {"role": "assistant", "content": REPLY}],
}  # fmt: skip
NUMINA_COT = {
    "source": "olympiads", "problem": ASK, "solution": SOLUTION,
    "messages": [{"role": "user", "content": ASK}, {"role": "assistant", "content": SOLUTION}],
}  # fmt: skip
S1K = {
    "solution": "14", "question": ASK, "cot_type": "math", "source_type": "qq8933/AIME_1983_2024",
    "metadata": "{'ID': '1984-1'}", "cot": None, "thinking_trajectories": ["Six and eight."], "attempt": "14",
}  # fmt: skip
OPEN_THOUGHTS_METADATA = {
    "problem": ASK, "deepseek_reasoning": "Six and eight.", "deepseek_solution": "\\boxed{14}",
    "ground_truth_solution": SOLUTION, "domain": "math", "source": "numina_math", "test_cases": None, "starter_code": None,
}  # fmt: skip
OPEN_THOUGHTS = {
    "system": "Think at length.",
    "conversations": [
        {"from": "user", "value": "Return your final response within \\boxed{}. " + ASK},
        {"from": "assistant", "value": "<|begin_of_thought|>\n\\boxed{6}?\n<|end_of_thought|>\n\n"
         "<|begin_of_solution|>\n\\boxed{14}\n<|end_of_solution|>"},
    ],
}  # fmt: skip
OPEN_THOUGHTS_3 = {
    "difficulty": 7, "source": "ai2-adapt-dev/openmath-2-math", "domain": "math",
    "conversations": [{"from": "human", "value": ASK}, {"from": "gpt", "value": REPLY}],
}  # fmt: skip
MIXTURE = {
    "messages": [{"role": "user", "content": ASK}, {"role": "assistant", "content": REPLY}],
    "num_tokens": 40, "source": "open-r1/OpenR1-Math-220k",
}  # fmt: skip


def am(reference: str | None, tests: str | None, reply: str = REPLY) -> dict[str, Any]:
    """AM-DeepSeek-R1-Distilled: what a reply is checked with is in the `info` of the messages."""
    info = {
        "source": "OpenR1-Math",
        "reference_answer": reference,
        "test_case": tests,
        "think_content": None,
        "answer_content": None,
    }
    return {
        "messages": [
            {"role": "user", "content": ASK, "info": info},
            {"role": "assistant", "content": reply, "info": {**info, "think_content": "…", "answer_content": reply}},
        ]
    }  # fmt: skip


ROWS: dict[str, tuple[dict[str, Any], str]] = {
    "OpenMathReasoning": (OPEN_MATH_REASONING, "aops_c4_x"),
    "OpenMathReasoning, voted": ({**OPEN_MATH_REASONING, "problem_type": "no_answer_extracted"}, "aops_c4_x"),
    "NuminaMath-1.5": (NUMINA, "cn_k12"),
    "OpenR1-Math-220k": (OPEN_R1, "cn_k12"),
    "NuminaMath-CoT": (NUMINA_COT, "olympiads"),
    "s1K": (S1K, ""),
    "s1K, a solution": ({**S1K, "solution": SOLUTION}, ""),
    "s1K-1.1": ({**S1K, "gemini_attempt": "14", "deepseek_attempt": REPLY, "deepseek_grade": "Yes"}, ""),
    "OpenThoughts-114k, metadata": (OPEN_THOUGHTS_METADATA, "numina_math"),
    "OpenThoughts-114k": (OPEN_THOUGHTS, ""),
    "OpenThoughts3": (OPEN_THOUGHTS_3, "ai2-adapt-dev/openmath-2-math"),
    "Mixture-of-Thoughts": (MIXTURE, "open-r1/OpenR1-Math-220k"),
    "AM-DeepSeek-R1-Distilled": (am("14", None, THINKING + "As said."), "OpenR1-Math"),
    "GSM8K": ({"question": ASK, "answer": "Three have 3*2=<<3*2=6>>6, two <<2*4=8>>8.\n#### 14"}, ""),
    "MATH": ({"problem": ASK, "level": "Level 1", "type": "Prealgebra", "solution": SOLUTION}, ""),
    "MATH-500": (
        {"problem": ASK, "solution": SOLUTION, "answer": "14", "subject": "Prealgebra", "level": 1, "unique_id": "test/p/1.json"},
        "",
    ),
    "DeepScaleR": ({"problem": ASK, "answer": "14", "solution": ""}, ""),
    "LIMO": ({"question": ASK, "solution": "Count them. " * 40 + "**Final Answer** \\boxed{14}", "answer": "14"}, ""),
    "Big-Math": (
        {"problem": ASK, "answer": "14", "source": "orca_math", "domain": ["Algebra"], "llama8b_solve_rate": 0.9},
        "orca_math",
    ),
}  # fmt: skip


def one(folder: Path, row: dict[str, Any], **options: Any) -> Problem:
    [problem] = load_problems(str(jsonl(folder / "p.jsonl", [row])), **options)
    return problem


@pytest.mark.parametrize("name", ROWS)
def test_a_row_of_a_public_set_is_its_question_and_its_answer(tmp_path: Path, name: str) -> None:
    row, source = ROWS[name]
    problem = one(tmp_path, row)
    assert (problem.problem, problem.kind, problem.answer) == (ASK, "math", "14")
    assert problem.source.startswith(source)


@pytest.mark.parametrize("name", ["OpenThoughts-114k", "OpenThoughts3", "Mixture-of-Thoughts"])
def test_an_answer_that_only_another_teacher_gave_says_so(tmp_path: Path, name: str) -> None:
    assert one(tmp_path, ROWS[name][0]).meta["answer_from"] == "the set's own reply"
    assert "answer_from" not in one(tmp_path, am("14", None)).meta


def test_what_a_set_knows_of_a_problem_stays_with_it(tmp_path: Path) -> None:
    assert one(tmp_path, OPEN_MATH_REASONING).meta["problem_type"] == "has_answer_extracted"
    assert one(tmp_path, OPEN_THOUGHTS_3).meta["difficulty"] == 7
    assert one(tmp_path, ROWS["MATH-500"][0]).meta["unique_id"] == "test/p/1.json"


@pytest.mark.parametrize(
    "row",
    [
        am(None, json.dumps({"inputs": ["3 2\n"], "outputs": ["14\n"]}), "Code."),
        {**OPEN_THOUGHTS_METADATA, "domain": "code", "ground_truth_solution": None,
         "test_cases": json.dumps({"inputs": ["3 2\n"], "outputs": ["14\n"]})},
    ],
)  # fmt: skip
def test_the_tests_of_a_chat_and_of_open_thoughts_are_read(tmp_path: Path, row: dict[str, Any]) -> None:
    problem = one(tmp_path, row)
    assert (problem.kind, problem.problem) == ("code", ASK)
    assert problem.tests == {"type": "stdio", "inputs": ["3 2\n"], "outputs": ["14\n"]}


WITHOUT: dict[str, tuple[dict[str, Any], str]] = {
    "OpenMathReasoning": (
        {**OPEN_MATH_REASONING, "problem_type": "converted_proof", "expected_answer": ""},
        "OpenMathReasoning: converted_proof, without an answer",
    ),
    "NuminaMath-1.5, a proof": ({**NUMINA, "answer": "proof"}, "NuminaMath-1.5: a proof, without an answer"),
    "NuminaMath-1.5, not found": ({**NUMINA, "answer": "notfound"}, "an answer that its makers did not find"),
    "NuminaMath-CoT": ({**NUMINA_COT, "solution": PROOF}, "NuminaMath-CoT: a row, without an answer"),
    "s1K": ({**S1K, "solution": PROOF}, "s1K: math, without an answer"),
    "OpenThoughts-114k": (
        {**OPEN_THOUGHTS_METADATA, "domain": "chemistry", "ground_truth_solution": None},
        "OpenThoughts: chemistry, without an answer",
    ),
    "Mixture-of-Thoughts": (
        {**MIXTURE, "messages": [MIXTURE["messages"][0], {"role": "assistant", "content": THINKING + "Many."}]},
        "a chat without a reference, tests or a boxed reply",
    ),
}


@pytest.mark.parametrize("name", WITHOUT)
def test_rows_that_a_public_set_is_known_to_hold_are_set_aside_with_a_named_reason(tmp_path: Path, name: str) -> None:
    row, reason = WITHOUT[name]
    path = str(jsonl(tmp_path / "p.jsonl", [{"problem": "1 + 1?", "answer": "2"}, row]))
    with pytest.raises(Unusable, match="a math problem without an answer"):  # a benchmark loses no question unsaid
        load_problems(path)
    reading = read_problems(path, tolerate="expected")
    assert [problem.answer for problem in reading.problems] == ["2"]
    [unusable] = reading.unusable
    assert reason in unusable.reason
    assert unusable.problem.problem == ASK


def test_a_problem_of_nobody_known_without_an_answer_still_ends_the_run(tmp_path: Path) -> None:
    for row in ({"problem": ASK}, {"problem": ASK, "solution": PROOF}, {"question": ASK, "domain": "math"}):
        path = str(jsonl(tmp_path / "p.jsonl", [row]))
        with pytest.raises(UserError, match=r"p\.jsonl:1: a math problem without an answer") as refused:
            read_problems(path, tolerate="unusable")
        assert not isinstance(refused.value, Unusable)


def test_a_short_solution_is_an_answer_and_a_long_box_too(tmp_path: Path) -> None:
    matrix = r"\begin{pmatrix} " + r" \\ ".join(["1 & 0 & 0 & 0 & 0 & 0"] * 8) + r" \end{pmatrix}"
    assert one(tmp_path, {"problem": ASK, "solution": "14 legs"}).answer == "14 legs"
    assert one(tmp_path, {"problem": ASK, "solution": f"It is \\boxed{{{matrix}}}."}).answer == matrix
