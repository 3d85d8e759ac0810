"""Error rates from a person's marks: against sums done by hand, against simulated strata, and what marks are refused."""

import json
import math
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from r1distill.errors import UserError
from r1distill.verify.rates import Stratum, count_limits, rates, read_marks, with_marks


def closed_form(part: tuple[float, float], rest: tuple[float, float], sign: int) -> float:
    """The root of (A - q B)² = (distance of A)² + q² (distance of B)² in q = A / B, as a share q / (1 + q)."""
    (a, a_distance), (b, b_distance) = part, rest
    square = b**2 - b_distance**2
    q = (a * b + sign * math.sqrt((a * b) ** 2 - square * (a**2 - a_distance**2))) / square
    return q / (1 + q)


def test_rates_are_those_computed_by_hand() -> None:
    strata = {
        "correct": Stratum(accepted=True, traces=1_000, right=9, wrong=1, unsure=5),
        "incorrect": Stratum(accepted=False, traces=500, right=2, wrong=8),
    }
    found = rates(strata)
    # right: 500 × 0.2 = 100 rejected, 1000 × 0.9 = 900 accepted; wrong: 100 accepted, 400 rejected
    assert found["false_negative_rate"]["estimate"] == pytest.approx(100 / 1_000)
    assert found["false_positive_rate"]["estimate"] == pytest.approx(100 / 500)
    (low_a, high_a), (low_b, high_b) = count_limits(2, 10, 500), count_limits(9, 10, 1_000)
    low, high = found["false_negative_rate"]["ci95"]
    assert low == pytest.approx(closed_form((100, 100 - low_a), (900, high_b - 900), -1))
    assert high == pytest.approx(closed_form((100, high_a - 100), (900, 900 - low_b), +1))
    assert low < 0.1 < high


@pytest.mark.parametrize(
    ("hits", "marked", "traces"), [(0, 5, 20), (2, 10, 30), (10, 10, 30), (7, 19, 20), (1, 3, 400)]
)
def test_the_limits_of_a_count_are_those_of_an_exact_sum(hits: int, marked: int, traces: int) -> None:
    def chance_of(found: int, count: int) -> Fraction:
        return Fraction(math.comb(count, found) * math.comb(traces - count, marked - found), math.comb(traces, marked))

    possible = range(hits, traces - marked + hits + 1)
    not_too_many = [n for n in possible if sum(chance_of(x, n) for x in range(hits, marked + 1)) >= Fraction(1, 40)]
    not_too_few = [n for n in possible if sum(chance_of(x, n) for x in range(hits + 1)) >= Fraction(1, 40)]
    assert count_limits(hits, marked, traces) == (max(0, min(not_too_many) - 0.5), min(traces, max(not_too_few) + 0.5))


def test_the_limits_in_a_large_stratum_are_clopper_and_pearsons() -> None:
    """2 of 10: 2.52 % to 55.61 %, as in any table of them."""
    low, high = count_limits(2, 10, 1_000_000)
    assert (low / 1e6, high / 1e6) == (pytest.approx(0.02521, abs=1e-5), pytest.approx(0.55610, abs=1e-5))


def test_the_size_of_a_stratum_weighs_and_not_the_number_of_its_marks() -> None:
    strata = {
        "correct": Stratum(True, 900, right=10),
        "incorrect": Stratum(False, 100, right=0, wrong=50),
        "rejected_against_majority": Stratum(False, 10, right=10),
    }
    found = rates(strata)["false_negative_rate"]
    assert found["estimate"] == pytest.approx(10 / 910)
    assert found["ci95"][1] < 0.15


def test_where_every_trace_is_marked_nothing_is_uncertain() -> None:
    strata = {"correct": Stratum(True, 4, right=3, wrong=1), "incorrect": Stratum(False, 5, right=1, wrong=4)}
    found = rates(strata)
    assert found["false_negative_rate"] == {"estimate": 0.25, "ci95": pytest.approx([0.25, 0.25])}
    assert found["false_positive_rate"] == {"estimate": 0.2, "ci95": pytest.approx([0.2, 0.2])}


def test_no_error_found_is_not_no_error() -> None:
    strata = {"correct": Stratum(True, 1_000, right=50), "incorrect": Stratum(False, 1_000, wrong=50)}
    for rate in (rates(strata)["false_negative_rate"], rates(strata)["false_positive_rate"]):
        assert rate["estimate"] == 0
        assert rate["ci95"][0] == pytest.approx(0, abs=1e-9)
        assert 0.03 < rate["ci95"][1] < 0.09


def test_a_stratum_without_marks_leaves_the_rates_unknown_and_is_named() -> None:
    strata = {"correct": Stratum(True, 10, right=5), "undecided": Stratum(False, 3, unsure=2)}
    assert rates(strata) == {"false_negative_rate": None, "false_positive_rate": None, "unmarked": ["undecided"]}


def test_without_a_right_reply_there_is_no_estimate_and_the_interval_is_all() -> None:
    found = rates({"incorrect": Stratum(False, 1_000, wrong=20)})
    assert found["false_negative_rate"] == {"estimate": None, "ci95": pytest.approx([0, 1], abs=1e-9)}
    assert found["false_positive_rate"]["estimate"] == 0


marked = st.tuples(st.booleans(), st.integers(0, 30), st.integers(0, 30), st.integers(0, 500)).filter(
    lambda row: row[1] + row[2] > 0
)


@given(st.lists(marked, min_size=1, max_size=7))
def test_an_interval_holds_its_estimate_and_stays_between_0_and_1(rows: list[tuple[bool, int, int, int]]) -> None:
    strata = {
        str(number): Stratum(accepted, right + wrong + more, right, wrong)
        for number, (accepted, right, wrong, more) in enumerate(rows)
    }
    found = rates(strata)
    for name in ("false_negative_rate", "false_positive_rate"):
        low, high = found[name]["ci95"]
        assert 0 <= low <= high <= 1
        if (estimate := found[name]["estimate"]) is not None:
            assert low - 1e-9 <= estimate <= high + 1e-9


@pytest.mark.parametrize(
    ("population", "cases"),
    [
        # name: (accepted, traces, how many of them are right), and the cases drawn of each
        (
            {
                "correct": (True, 4_000, 3_960),
                "incorrect": (False, 900, 54),
                "undecided": (False, 300, 45),
                "rejected_against_majority": (False, 80, 40),
                "accepted_against_majority": (True, 20, 12),
            },
            {"correct": 49, "incorrect": 18, "undecided": 13, "rejected_against_majority": 10, "accepted_against_majority": 10},
        ),
        ({"correct": (True, 700, 640), "incorrect": (False, 300, 60)}, {"correct": 60, "incorrect": 40}),
        ({"correct": (True, 100, 99), "incorrect": (False, 100, 1)}, {"correct": 50, "incorrect": 50}),
        ({"correct": (True, 5_000, 4_990), "incorrect": (False, 2_000, 10), "undecided": (False, 500, 5)},
         {"correct": 60, "incorrect": 30, "undecided": 20}),
        ({"correct": (True, 50_000, 47_500), "incorrect": (False, 20_000, 3_000)}, {"correct": 150, "incorrect": 150}),
        ({"correct": (True, 418, 418), "incorrect": (False, 3, 0), "rejected_against_majority": (False, 5, 2)},
         {"correct": 92, "incorrect": 3, "rejected_against_majority": 5}),
        ({"correct": (True, 5_000, 4_900), "incorrect": (False, 2_000, 100), "undecided": (False, 500, 20)},
         {"correct": 50, "incorrect": 25, "undecided": 25}),
        ({"correct": (True, 30, 27), "incorrect": (False, 30, 3), "undecided": (False, 12, 1)},
         {"correct": 20, "incorrect": 20, "undecided": 10}),
        (
            {"correct": (True, 400, 380), "incorrect": (False, 200, 10), "accepted_by_judge": (True, 100, 80)},
            {"correct": 150, "incorrect": 90, "accepted_by_judge": 60},
        ),
    ],
)  # fmt: skip
def test_the_interval_covers_the_truth_of_simulated_strata(
    population: dict[str, tuple[bool, int, int]], cases: dict[str, int]
) -> None:
    random = np.random.default_rng(7)
    repeats = 600

    def truth(accepted: bool, wanted: Any) -> float:
        part = sum(
            wanted(traces, right) for is_accepted, traces, right in population.values() if is_accepted == accepted
        )
        return part / sum(wanted(traces, right) for _, traces, right in population.values())

    true_rates = {
        "false_negative_rate": truth(False, lambda traces, right: right),
        "false_positive_rate": truth(True, lambda traces, right: traces - right),
    }
    covered, estimates = dict.fromkeys(true_rates, 0), {name: [] for name in true_rates}
    for _ in range(repeats):
        strata = {}
        for name, (accepted, traces, right) in population.items():
            found = int(random.hypergeometric(right, traces - right, cases[name]))
            strata[name] = Stratum(accepted, traces, found, cases[name] - found)
        result = rates(strata)
        for name, rate in true_rates.items():
            low, high = result[name]["ci95"]
            covered[name] += low - 1e-9 <= rate <= high + 1e-9
            estimates[name].append(result[name]["estimate"])
    for name, rate in true_rates.items():
        assert covered[name] / repeats >= 0.94, (name, covered[name] / repeats)
        assert np.mean(estimates[name]) == pytest.approx(rate, abs=max(0.1 * rate, 0.01))


# ---------------------------------------------------------------- marks


def marks_file(folder: Path, *lines: str) -> Path:
    path = folder / "marks.jsonl"
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


def line(name: str, mark: str) -> str:
    return json.dumps({"id": name, "mark": mark})


def test_marks_are_read_and_may_be_repeated(tmp_path: Path) -> None:
    path = marks_file(tmp_path, line("a/0", "right"), "", line("b/1", "unsure"), line("a/0", "right"))
    assert read_marks(path, {"a/0", "b/1", "c/2"}) == {"a/0": "right", "b/1": "unsure"}


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ([line("a/0", "right"), line("z/9", "right")], r"marks.jsonl:2: 'z/9' is no case of this audit"),
        (
            [line("a/0", "right"), line("b/1", "wrong"), line("a/0", "wrong")],
            r"marks.jsonl:3: a/0 is marked wrong here and right in line 1; keep one",
        ),
        ([line("a/0", "yes")], r"marks.jsonl:1: not of the form"),
        (['{"id": 5, "mark": "right"}'], r"marks.jsonl:1: not of the form"),
        (['{"id": "a/0"}'], r"marks.jsonl:1: not of the form"),
        (["[]"], r"marks.jsonl:1: not of the form"),
        (["", '{"id": "a'], r"marks.jsonl:2: not valid JSON"),
        (["[" * 100_000], r"marks.jsonl:1: not valid JSON"),
        ([], r"no marks in it"),
    ],
)
def test_a_line_that_is_no_mark_is_refused_and_named(tmp_path: Path, lines: list[str], words: str) -> None:
    with pytest.raises(UserError, match=words) as refused:
        read_marks(marks_file(tmp_path, *lines), {"a/0", "b/1"})
    assert "\n" not in str(refused.value)


def test_marks_that_are_not_there_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nowhere: cannot be read: No such file"):
        read_marks(tmp_path / "nowhere", set())


def test_marks_count_for_the_stratum_of_their_case() -> None:
    cases = [
        {"id": "a/0", "stratum": "correct", "outcome": "correct", "stratum_traces": 70},
        {"id": "b/0", "stratum": "correct", "outcome": "correct", "stratum_traces": 70},
        {"id": "c/0", "stratum": "undecided", "outcome": "timeout", "stratum_traces": 9},
    ]
    assert with_marks(cases, {"a/0": "right", "c/0": "unsure"}) == {
        "correct": Stratum(True, 70, right=1),
        "undecided": Stratum(False, 9, unsure=1),
    }
