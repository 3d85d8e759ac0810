"""What is nearly the same is found, and what differs in a number never is."""

import random
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_run import ROOT

from r1distill.duplicates import SIMILAR, find_duplicates, jaccard, shingles
from r1distill.filter.normalise import tokens, whole_text
from r1distill.records import Problem

LONG = (
    "A farmer keeps 3 chickens and 2 rabbits in a pen behind the house. Every morning the children count the legs that "
    "they see through the fence, write the sum into a book, and compare it with the sum of the day before."
)
VOCABULARY = [f"{first}{second}" for first in "b c d f g h k l m n".split() for second in "ack eel ine oat ush".split()]


def same_answer(first: Problem, second: Problem) -> bool:
    return first.answer == second.answer


def found(*texts: str | Problem, near: bool = True) -> list[tuple[int, int, str]]:
    """(index, index of the original, what) of problems, given as texts with the answer 1."""
    problems = [text if isinstance(text, Problem) else Problem(text, answer="1") for text in texts]
    place = {problem.id: index for index, problem in reversed(list(enumerate(problems)))}
    duplicates = find_duplicates(problems, same_answer, near=near)
    return [(place[duplicate.id], place[duplicate.duplicate_of], duplicate.what) for duplicate in duplicates]


@pytest.mark.parametrize(
    "other",
    [
        LONG.upper(),
        LONG.replace(". ", " .\n\n").replace(",", ";"),
        f"Problem 12. {LONG}",
        f"7) {LONG}",
        LONG.replace("3", "three").replace("2", "two"),
        LONG.replace("compare it", "compare this"),
        f"{LONG} Think well.",
        LONG.replace("3 chickens", r"$3$ \text{chickens}").replace("2 rabbits", r"\(2\) rabbits"),
    ],
)
def test_the_same_problem_in_another_dress_is_near(other: str) -> None:
    assert found("What is 1 + 1?", LONG, other) == [(2, 1, "near")]


@pytest.mark.parametrize(
    "other",
    [
        LONG.replace("3", "4"),
        LONG.replace("3", "2").replace("2 rabbits", "3 rabbits"),
        LONG.replace("3", "30"),
        LONG.replace("3", "three hundred"),
        LONG.replace("house.", "house. There is 1 door."),
        LONG.replace("Every morning", "Twice every morning"),
    ],
)
def test_problems_with_other_numbers_are_not_near(other: str) -> None:
    assert found(LONG, other) == []


@given(st.lists(st.tuples(st.integers(0, 99), st.integers(0, 99)), min_size=2, max_size=40, unique=True))
def test_a_template_with_other_numbers_makes_no_duplicates(pairs: list[tuple[int, int]]) -> None:
    assert found(*(LONG.replace("3", str(a)).replace("2 rab", f"{b} rab") for a, b in pairs)) == []


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("Find $a+b$.", "Find $a-b$."),
        (r"Find $\frac{a}{b}$.", "Find $a b$."),
        (r"$\sin x$", r"$\cos x$"),
        ("x_n", "x^n"),
    ],
)
def test_short_problems_are_near_only_if_they_are_the_same(first: str, second: str) -> None:
    assert found(first, second) == []
    assert found(first, f" {first} ") == [(1, 0, "near")]


def test_mazes_with_the_same_words_around_them_are_not_near() -> None:
    first, second = "#####\n#a .#\n# ###\n#####", "#####\n#. a#\n### #\n#####"
    assert found(f"{LONG}\n\n{first}", f"{LONG}\n\n{second}") == []
    assert found(f"{LONG}\n\n{first}", f"{LONG}\n\n{first} ") == [(1, 0, "near")]


def test_chinese_is_compared_by_characters() -> None:
    text = "今有雉兔同笼，上有三十五头，下有九十四足，问雉兔各几何？请写出详细的解答过程，并且给出最后的答案。"
    assert found(text, text.replace("请写出", "请给出")) == [(1, 0, "near")]
    assert found(text, "有若干只鸡和兔在同一个笼子里，从上面数有头，从下面数有脚，求笼中各有多少只鸡和兔子。") == []


def test_a_question_with_other_choices_is_another_question() -> None:
    ask = "Which of these is true?"
    first, second = (
        Problem(ask, "choice", "A", choices=choices) for choices in (["a cat", "a dog"], ["an ox", "a cow"])
    )
    assert found(first, second) == []
    assert found(first, Problem(ask, "choice", "B", choices=["a cat", "a dog"])) == [(1, 0, "conflict")]


def test_a_conflict_is_found_whatever_is_looked_for() -> None:
    problems = [Problem(LONG, answer=answer) for answer in ("14", "15")] + [Problem(f" {LONG}\n", answer="14")]
    assert found(*problems) == [(1, 0, "conflict"), (2, 0, "near")]
    assert found(*problems, near=False) == [(1, 0, "conflict")]
    assert found(LONG, Problem(f"{LONG} Think well.", answer="2")) == [(1, 0, "near, another answer")]


def test_every_duplicate_is_of_one_that_is_none_itself() -> None:
    words = LONG.split()
    texts = [" ".join([*words[: 30 + step], "and so on", *words[30 + step :]]) for step in range(6)]
    pairs = found(LONG, *texts)
    assert pairs
    assert not {original for _, original, _ in pairs} & {index for index, _, _ in pairs}


@settings(deadline=None)  # other work on the machine is no fault
@given(st.lists(st.sampled_from(VOCABULARY), min_size=12, max_size=60), st.integers(0, 2**32))
def test_what_is_reported_is_as_similar_as_it_says(words: list[str], seed: int) -> None:
    draw = random.Random(seed)
    changed = list(words)
    for _ in range(draw.randrange(3)):
        changed[draw.randrange(len(changed))] = draw.choice(VOCABULARY)
    problems = [Problem(" ".join(words), answer="1"), Problem(" ".join(changed) + ".", answer="1")]
    exact = jaccard(*(shingles(tokens(whole_text(problem))) for problem in problems))
    duplicates = find_duplicates(problems, same_answer)
    assert all(duplicate.similarity == round(exact, 4) >= SIMILAR for duplicate in duplicates)
    assert duplicates or exact < 0.85  # less than that is missed with a small probability


def test_the_same_duplicates_are_found_in_every_process() -> None:
    code = (
        "import random; from r1distill.duplicates import *; draw = random.Random(5)\n"
        "texts = [' '.join(draw.choice('abcdefghijklmnopq') * 2 for _ in range(60)) for _ in range(200)]\n"
        "texts += [text[:60] + 'zz' + text[62:] for text in texts]\n"
        "problems = [Problem(text, answer='1') for text in texts]\n"
        "print(find_duplicates(problems, lambda a, b: True))"
    )
    results = [
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True,
            env={"PYTHONPATH": str(ROOT), "PYTHONHASHSEED": seed},
        ).stdout
        for seed in "12"
    ]  # fmt: skip
    assert results[0] == results[1]
    assert results[0].count("Duplicate(") > 100
