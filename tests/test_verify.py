"""Extraction, plain and symbolic equality, choices: what is decided, without the pool (tests/test_verify_pool.py)."""

import json
import time
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from r1distill.records import Problem
from r1distill.verify.checks import check
from r1distill.verify.choice import extract_choice
from r1distill.verify.extract import answer_part, final_answer, last_boxed
from r1distill.verify.mathematics import MAX_ANSWER_CHARACTERS, check_math
from r1distill.verify.quick import VERIFIER

MATH500 = Path(__file__).resolve().parents[2] / "shared" / "data" / "math500" / "test.jsonl"

# ---------------------------------------------------------------- extraction


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("no tags at all", "no tags at all"),
        ("<think>a</think>b", "b"),
        ("a</think>b", "b"),  # R1's template puts the opening tag into the prompt
        ("<think>a</think>b<think>c</think>d", "d"),
        ("<think>never closed \\boxed{5}", ""),
        ("", ""),
    ],
)
def test_answer_part_is_what_stands_outside_the_thinking(text: str, expected: str) -> None:
    assert answer_part(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (r"\boxed{5}", "5"),
        (r"\boxed{1} then \boxed{\frac{1}{2}}.", r"\frac{1}{2}"),
        (r"\fbox{7}", "7"),
        (r"so \boxed 5$", "5"),
        (r"\boxed {x^{2}}", "x^{2}"),
        (r"\boxed{\{1, 2\}}", r"\{1, 2\}"),
        (r"\boxed{\left\{ 1 \right\}}", r"\left\{ 1 \right\}"),
        (r"\boxed{\boxed{3}}", "3"),
        (r"\boxed{27", "27"),
        (r"\boxed{1} and \boxed{27", "27"),
        (r"\boxed{}", ""),
        ("no box", None),
    ],
)
def test_last_boxed_takes_the_last_box_with_balanced_braces(text: str, expected: str | None) -> None:
    assert last_boxed(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (r"<think>\boxed{1}</think>The result is \boxed{2}.", "2"),
        (r"<think>It is \boxed{1}", None),
        (r"First 17, then \boxed{}.", None),
        (r"First 17, then \boxed{\frac{18", None),
        ("The answer is 42.", "42"),
        ("The answer is 3. No: the final answer is: $\\frac{1}{2}$.", r"\frac{1}{2}"),
        ("**Answer:** 3.5", "3.5"),
        ("### Final Answer\n\n**Answer: 12**", "12"),
        ("The answer is 42 because six times seven.", "42"),
        ("The answer to the question is \\(x = 5\\).", "x = 5"),
        ("Answer:\n\n1,234", "1,234"),
        ("She pays $18.", "18"),
        ("We get 3 apples and 4 pears, 7 in all.", "7"),
        ("Hence $x^2 + 1$ follows.", "x^2 + 1"),
        ("It falls by -5.", "-5"),
        ("That is 10-3.", "3"),
        ("The long-answer questions are worth 5 points each, so she has a total of 41 points.", "41"),
        ("nothing here", None),
        ("", None),
    ],
)
def test_final_answer_prefers_the_box_then_the_statement_then_the_last_expression(
    text: str, expected: str | None
) -> None:
    assert final_answer(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "\\boxed{" + "{" * 100_000,
        "\\boxed{" * 15_000,
        "\\boxed{" + "{" * 50_000 + "}" * 50_000 + "}",
        "answer " * 15_000,
        "answer" + " " * 100_000,
        "$" * 100_000,
        "1," * 50_000,
        "1,111," * 17_000 + "1",
        "-" * 100_000,
        "\\( " * 30_000,
        "<think>" * 15_000,
    ],
)
def test_extraction_of_100_kb_of_hostile_text_takes_less_than_a_second(text: str) -> None:
    started = time.perf_counter()
    final_answer(text)
    extract_choice(text, 4)
    assert time.perf_counter() - started < 1


@given(st.text(alphabet="\\boxed{}fra 12$%,.-<think/>answeris:()AB\n", max_size=80))
def test_extraction_never_raises(text: str) -> None:
    final_answer(text)
    extract_choice(text, 4, ["1", "2", "a", "b"])


# ---------------------------------------------------------------- equality


@pytest.mark.parametrize(
    ("gold", "extracted"),
    [
        ("1234", "1,234"),
        ("1234", "1 234.0"),
        (r"10,\!080", "10080"),
        (r"\$32,\!348", "$32348"),
        ("0.5", r"\dfrac12"),
        ("1/2", r"\tfrac{2}{4}"),
        (r"1\frac{4}{5}", "9/5"),
        ("1 1/2", "1.5"),
        ("-1/3", r"\frac{-1}{3}"),
        ("-1/3", r"-\frac13"),
        ("1/3", "0.333333"),
        ("10\\%", "0.1"),
        ("10", "10\\%"),
        ("10%", "10 percent"),
        ("5000000", "5 million"),
        ("1.5e-7", r"1.5 \times 10^{-7}"),
        (r"5.4 \text{ cents}", "5.4"),
        (r"864 \mbox{ inches}^2", "864 square inches"),
        ("90^\\circ", "90"),
        ("5", r"x = 5"),
        ("x=5", "$5$."),
        (r"\text{Evelyn}", "evelyn"),
        (r"\text{(C)}", "C"),
        ("2516_8", "2516_{8}"),
        (r"\frac{\sqrt{2}}{2}", r"\frac{1}{\sqrt{2}}"),
        ("x^2+2x+1", "(x+1)^2"),
        (r"1 \pm \sqrt{19}", r"1+\sqrt{19}, 1-\sqrt{19}"),
        ("1,-2", "-2, 1"),
        (r"\left( 3, \frac{\pi}{2} \right)", "(3, pi/2)"),
        (r"\sqrt{2}", "sqrt(2)"),
        ("(1,2)", "1 < x < 2"),
    ],
)
def test_equal_answers_are_correct(gold: str, extracted: str) -> None:
    assert check_math(gold, extracted)[0], check_math(gold, extracted)


# Those of the first two lines are false positives of Math-Verify 0.9.0 alone.
@pytest.mark.parametrize(
    ("gold", "extracted"),
    [
        ("1/2^{99}", "1/2^{98}"), (r"\frac{1}{2004!}", r"\frac{1}{2006!}"), ("1e-7", "2e-7"), ("x+y=0", "x-y=0"),
        ("1234567.1", "1234567.1000001"), (r"\{1,2\}", "(1,2)"), ("2516_8", "2516_9"), ("4", r"4\sqrt(2)"),
        ("1:2:3", "1:4:9"), ("1,2,...,n", "1,3,5,...,2n-1"), (r"1-1/\mathrm{e}", r"1+1/\mathrm{e}"),
        ("1/3", "0.333"),
        ("1 1/2", "11/2"),
        ("5", "5 million"),
        (r"5\text{ million}", "5"),
        ("2pq", "2"),
        ("5", "-5"),
        ("[1,2]", "(1,2)"),
        (r"\text{Navin}", r"\text{Evelyn}"),
        (r"\text{evil}", r"\text{vile}"),
        ("x", "y"),
        ("3, 5, 7", "3, 5"),
        ("5", "no solution 5 of 6"),
    ],
)  # fmt: skip
def test_different_answers_are_incorrect(gold: str, extracted: str) -> None:
    assert not check_math(gold, extracted)[0], check_math(gold, extracted)


NUMBERS = st.one_of(
    st.integers(-(10**30), 10**30).map(str),
    st.decimals(-(10**9), 10**9, allow_nan=False, places=6).map(lambda value: f"{value:f}"),
    st.fractions(max_denominator=10**6).map(str),
    st.fractions(max_denominator=999).map(lambda value: rf"\frac{{{value.numerator}}}{{{value.denominator}}}"),
)


@given(NUMBERS)
def test_a_number_is_equal_to_itself(number: str) -> None:
    assert check_math(number, final_answer(rf"so \boxed{{{number}}}.") or "") == (True, "same text")


@given(st.integers(-(10**20), 10**20))
def test_the_spellings_of_an_integer_are_equal(value: int) -> None:
    for spelling in (f"{value:,}", f"{value}.0", f"${value}$", f"{value}.", rf"{value}\text{{ cm}}", f"x = {value}"):
        assert check_math(str(value), spelling)[0], spelling


@given(st.integers(), st.integers())
def test_different_integers_are_never_equal(first: int, second: int) -> None:
    assert check_math(f"{first:,}", str(second))[0] == (first == second)


@given(st.fractions(max_denominator=10**4), st.fractions(max_denominator=10**4))
def test_fractions_are_equal_exactly_when_their_values_are(first: Fraction, second: Fraction) -> None:
    latex = rf"\frac{{{second.numerator * 3}}}{{{second.denominator * 3}}}"
    assert check_math(str(first), latex)[0] == (first == second)


@given(st.fractions(min_value=-(10**6), max_value=10**6, max_denominator=10**4), st.integers(1, 9))
@settings(max_examples=200)
def test_a_decimal_that_is_off_in_its_sixth_digit_is_incorrect(value: Fraction, off: int) -> None:
    wrong = value + Fraction(off, 10**4) * max(abs(value), 1)
    written = f"{float(wrong):.9g}"
    assume(len(written.strip("-0.").replace(".", "")) > 5)  # -1.063 is also a rounding of what it is off from
    assert not check_math(str(value), written)[0]


def test_an_overlong_answer_is_incorrect_and_says_so() -> None:
    is_correct, detail = check_math("5", "1+" * MAX_ANSWER_CHARACTERS)
    assert not is_correct
    assert "4,000 characters; the limit is 2,000" in detail


def test_the_gold_answers_of_math500_are_correct_against_themselves_and_their_solutions() -> None:
    if not MATH500.exists():
        pytest.skip(f"{MATH500} is absent")
    rows = [json.loads(line) for line in MATH500.read_text(encoding="utf-8").splitlines()]
    failed = []
    for row in rows:
        problem = Problem(row["problem"], answer=row["answer"])
        for text in (rf"It is $\boxed{{{row['answer']}}}$.", row["solution"]):
            outcome, extracted, detail = check(problem, text)
            if outcome != "correct":
                failed.append((row["answer"], extracted, detail))
    print(f"{len(failed)} of {2 * len(rows)} fail: {failed}")
    assert len(rows) == 500
    assert not failed


def test_the_gold_answers_of_math500_are_incorrect_for_their_neighbours() -> None:
    if not MATH500.exists():
        pytest.skip(f"{MATH500} is absent")
    answers = sorted({json.loads(line)["answer"] for line in MATH500.read_text(encoding="utf-8").splitlines()})
    equal = [(a, b) for a, b in pairwise(answers) if check_math(a, b)[0]]
    # The same values, written in two ways in the set.
    assert [pair for pair in equal if check_math(pair[1], pair[0])[0]] == equal
    assert len(equal) <= 12, equal


# ---------------------------------------------------------------- choices


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (r"\boxed{B}", "B"),
        (r"\boxed{\text{B}}", "B"),
        (r"\boxed{(B)}", "B"),
        (r"\boxed{\textbf{(B)}\ 42}", "B"),
        (r"\boxed{B. the second}", "B"),
        (r"\boxed{b}", "B"),
        (r"\boxed{42}", "C"),
        (r"\boxed{43}", None),
        (r"\boxed{}", None),
        (r"\boxed{E}", None),
        ("Answer: B", "B"),
        ("**Answer:** (B)", "B"),
        ("The correct answer is **B**.", "B"),
        ("The answer is $\\boxed{D}$", "D"),
        ("The answer is A. Wait, the answer is C, not option B.", "C"),
        ("So it must be (D).", "D"),
        ("I choose\n\nB. the second", "B"),
        ("A. one\nB. two\nC. three", None),
        ("A or (B) or (C)", None),
        ("(A) one\n(B) two", None),
        ("We need P(D) for some D, so", None),
        ("<think>\\boxed{A}", None),
        ("<think>A</think>\\boxed{B}", "B"),
        ("A good question.", None),
    ],
)
def test_the_chosen_letter(text: str, expected: str | None) -> None:
    assert extract_choice(text, 4, ["the first", "the second", "42", "the last"]) == expected


# ---------------------------------------------------------------- by kind


@pytest.mark.parametrize(
    ("problem", "text", "outcome"),
    [
        (Problem("q", answer="5"), r"\boxed{5}", "correct"),
        (Problem("q", answer="5"), r"\boxed{6}", "incorrect"),
        (Problem("q", answer="5"), r"<think>\boxed{5}", "no_answer"),
        (Problem("q"), r"\boxed{5}", "unverifiable"),
        (Problem("q", answer=" "), r"\boxed{5}", "unverifiable"),
        (Problem("q", kind="choice", answer="(B)", choices=["x", "y"]), "Answer: B", "correct"),
        (Problem("q", kind="choice", answer="B", choices=["x", "y"]), r"\boxed{x}", "incorrect"),
        (Problem("q", kind="choice", answer="B", choices=["x", "y"]), "hm", "no_answer"),
        (Problem("q", kind="choice", answer="Z", choices=["x", "y"]), "Answer: B", "unverifiable"),
        (Problem("q", kind="open"), "anything", "unverifiable"),
    ],
)
def test_the_outcome_by_kind(problem: Problem, text: str, outcome: str) -> None:
    found, _, detail = check(problem, text)
    assert found == outcome, detail
    assert detail


def test_the_verifier_names_its_versions() -> None:
    assert VERIFIER.startswith("math-verify 0.9.")
    assert "r1distill" in VERIFIER
