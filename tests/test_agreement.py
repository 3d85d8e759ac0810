"""Classes of equal answers, the majority with its ties, and verdicts that stand against it."""

import itertools
import random
import time
from collections import Counter
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from r1distill.records import Outcome, Problem, Verdict
from r1distill.verify import VerifierPool
from r1distill.verify.agreement import answer_classes, classes_of, disagreements, majority, panels

TOWER = r"10^{10^{10}}"  # runs for ever in sympy, without any hook


@pytest.fixture(scope="module")
def pool() -> Iterator[VerifierPool]:
    with VerifierPool(workers=1, timeout_s=2.0) as pool:
        yield pool


def same_number(first: str, second: str) -> bool:
    return float(first) == float(second)


# ---------------------------------------------------------------- equivalence through the pool


@pytest.mark.parametrize(
    ("first", "second"),
    [("1/2", "0.5"), (r"2\sqrt{2}", r"\sqrt{8}"), ("x = 5", "5"), ("(1,2)", "1<x<2"), ("7", "7.0")],
)
def test_equal_answers_are_equivalent_in_both_directions(pool: VerifierPool, first: str, second: str) -> None:
    assert pool.equivalent(first, second) is True
    assert pool.equivalent(second, first) is True


@pytest.mark.parametrize(("first", "second"), [("7", "8"), ("7", "{8"), ("7", ""), ("7", "8}"), ("(1,2)", "[1,2]")])
def test_other_answers_and_broken_ones_are_not(pool: VerifierPool, first: str, second: str) -> None:
    assert pool.equivalent(first, second) is False


def test_a_comparison_without_a_result_is_neither_and_leaves_the_pool_usable(pool: VerifierPool) -> None:
    assert pool.equivalent("7", TOWER) is None
    assert pool.equivalent("7", "7.0") is True


def test_math_answers_are_classed_by_value_and_letters_by_letter(pool: VerifierPool) -> None:
    answers = ["1/2", "3", "0.5", None, r"\frac{1}{2}", "3.0"]
    assert answer_classes("math", answers, pool.equivalent) == [0, 1, 0, None, 0, 1]
    assert answer_classes("choice", ["B", "A", None, "B"], pool.equivalent) == [0, 1, None, 0]
    assert answer_classes("code", ["print(1)", "print(1)"], pool.equivalent) == [None, None]
    assert answer_classes("open", ["yes", None], pool.equivalent) == [None, None]


def test_hostile_answers_cost_a_few_deadlines_and_are_counted() -> None:
    towers = [rf"{base}^{{10^{{10}}}}" + f"+{base}" for base in range(2, 6)]
    answers = [*towers, "7", "7.0", "7", "8"]
    verdicts = [Verdict("p", sample, "incorrect", answer) for sample, answer in enumerate(answers)]
    with VerifierPool(workers=1, timeout_s=0.5) as pool:
        pool.equivalent("1", "2")  # the worker is up
        started = time.monotonic()
        [panel] = panels(verdicts, {"p": Problem("?", answer="9", id="p")}, pool)
    assert panel.classes == [0, 1, 2, 3, 4, 4, 4, 5]
    assert panel.against == [False] * 4 + [True] * 3 + [False]
    assert 0 < panel.undecided <= 2 * len(towers)
    assert time.monotonic() - started < 0.5 * 2 * len(towers) + 15  # the deadlines, and new workers


def test_every_problem_has_its_panel_in_order(pool: VerifierPool) -> None:
    problems = {name: Problem("?", answer="5", id=name) for name in ("a", "b")}
    problems["c"] = Problem("?", kind="choice", answer="A", id="c")
    answers = {"a": ["5", "5.0", "6"], "b": [None, "1"], "c": ["B", "B"]}
    verdicts = [
        Verdict(name, sample, "correct" if answer in ("5", "5.0") else "incorrect" if answer else "no_answer", answer)
        for name, row in answers.items()
        for sample, answer in enumerate(row)
    ]
    found = list(panels(verdicts, problems, pool))
    assert [panel.classes for panel in found] == [[0, 0, 1], [None, 0], [0, 0]]
    assert [panel.against for panel in found] == [[False] * 3, [False] * 2, [True] * 2]
    assert [verdict for panel in found for verdict in panel.verdicts] == verdicts


# ---------------------------------------------------------------- classes


def test_no_answers_have_no_class() -> None:
    assert classes_of([], same_number) == []
    assert classes_of([None, None], same_number) == [None, None]


def test_the_same_text_is_never_compared_and_others_with_representatives_only() -> None:
    asked: list[tuple[str, str]] = []

    def equivalent(first: str, second: str) -> bool:
        asked.append((first, second))
        return same_number(first, second)

    answers = ["7", "7", "8", "7.0", "8.0", "8", "8", "9"]
    assert classes_of(answers, equivalent) == [0, 0, 1, 0, 1, 1, 1, 2]
    # by frequency, then by length: 8 (three times), 7 (twice), 9, 7.0, 8.0
    assert asked == [("8", "7"), ("8", "9"), ("7", "9"), ("8", "7.0"), ("7", "7.0"), ("8", "8.0")]


@given(st.lists(st.sampled_from(["1", "1.0", "2", "2.0", "3", None]), max_size=12), st.randoms())
def test_classes_are_those_of_the_values_whatever_the_order(answers: list[str | None], shuffled: random.Random) -> None:
    order = list(range(len(answers)))
    shuffled.shuffle(order)
    classes = classes_of(answers, same_number)
    moved = classes_of([answers[place] for place in order], same_number)
    for (i, first), (j, second) in itertools.product(enumerate(answers), repeat=2):
        equal = first is not None and second is not None and float(first) == float(second)
        assert (classes[i] is not None and classes[i] == classes[j]) == equal
        assert (moved[order.index(i)] is not None and moved[order.index(i)] == moved[order.index(j)]) == equal
    numbers = [number for number in classes if number is not None]
    assert list(dict.fromkeys(numbers)) == list(range(len(set(numbers))))


@pytest.mark.parametrize("order", list(itertools.permutations(["0.3334", "0.333", "0.3326"])))
def test_near_equalities_give_the_same_classes_in_every_order(order: tuple[str, ...]) -> None:
    """0.333 is near both others, which are not near each other."""
    classes = classes_of(order, lambda first, second: abs(float(first) - float(second)) < 0.0006)
    assert classes == [0, 0, 0]


def test_an_answer_that_was_cut_off_is_alone_with_its_text() -> None:
    long = "1" * 2_001
    assert classes_of([long, "1", long, "2" * 2_001], lambda first, second: True) == [0, 1, 0, 2]


def test_answers_that_cannot_be_compared_are_given_up_and_the_others_are_not() -> None:
    asked: Counter[str] = Counter()

    def equivalent(first: str, second: str) -> bool | None:
        for text in (first, second):
            asked[text] += 1
        return None if "bad" in first + second else same_number(first, second)

    answers = ["bad 1", "bad 1", "bad 1", "7", "7.0", "8", "8.0", "bad 2"]
    assert classes_of(answers, equivalent) == [0, 0, 0, 1, 1, 2, 2, 3]
    assert asked["bad 1"] == asked["bad 2"] == 2


def test_an_answer_that_was_compared_once_is_not_given_up_for_the_faults_of_others() -> None:
    def equivalent(first: str, second: str) -> bool | None:
        return None if "bad" in first + second else same_number(first, second)

    answers = ["7", "7", "7", "8", "8", "bad", "badly", "7.00000"]  # in the order in which they are looked at
    assert classes_of(answers, equivalent) == [0, 0, 0, 1, 1, 2, 3, 0]


# ---------------------------------------------------------------- the majority


@pytest.mark.parametrize(
    ("classes", "expected"),
    [
        ([0, 0, 1], {0: 1.0}),
        ([0, 1, 1, None, None, None], {1: 1.0}),
        ([0, 1], {0: 0.5, 1: 0.5}),
        ([0, 0, 1, 1, 2, 2, 3], {0: 1 / 3, 1: 1 / 3, 2: 1 / 3}),
        ([None], {}),
        ([], {}),
    ],
)
def test_a_tie_gives_each_class_its_share(classes: list[int | None], expected: dict[int, float]) -> None:
    assert majority(classes) == expected


@given(st.lists(st.one_of(st.none(), st.integers(0, 4)), max_size=20))
def test_the_weights_of_a_majority_add_up_to_one(classes: list[int | None]) -> None:
    weights = majority(classes)
    assert sum(weights.values()) == pytest.approx(1.0 if any(number is not None for number in classes) else 0.0)


# ---------------------------------------------------------------- verdicts against it

RIGHT, WRONG, NONE = "correct", "incorrect", "no_answer"


@pytest.mark.parametrize(
    ("outcomes", "classes", "expected"),
    [
        ([RIGHT, RIGHT, WRONG], [0, 0, 1], [False, False, False]),  # the rules and the panel agree
        ([WRONG, WRONG, RIGHT], [0, 0, 1], [True, True, True]),  # the panel agrees on what the rules reject
        ([WRONG, WRONG, WRONG], [0, 0, 1], [True, True, False]),
        ([RIGHT, WRONG, WRONG, WRONG], [0, 0, 1, 1], [False, True, False, False]),  # a tie, and equal answers apart
        ([RIGHT, WRONG], [0, 1], [False, False]),  # nobody agrees with anybody
        ([WRONG], [0], [False]),
        ([NONE, WRONG, WRONG], [None, 0, 0], [False, True, True]),
        ([NONE, "timeout"], [None, None], [False, False]),
        (["unverifiable", "unverifiable"], [0, 0], [False, False]),
        ([], [], []),
    ],
)
def test_a_verdict_against_the_majority_or_against_its_equal_is_found(
    outcomes: list[Outcome], classes: list[int | None], expected: list[bool]
) -> None:
    assert disagreements(outcomes, classes) == expected
