"""compare: the paired test and interval, which scores may be compared, and what is shown."""

import itertools
import json
from pathlib import Path

import check_intervals
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scored_run import scored_run
from small_run import assert_one_error_line, r1distill

from r1distill.errors import UserError
from r1distill.evaluate.compare import compare
from r1distill.evaluate.paired import difference_of
from r1distill.store import read_json, write_json

questions = st.tuples(st.integers(0, 4), st.integers(0, 6))  # right ones of 4 samples of A, and of 6 of B
BASE = {"p": [1, 0], "q": [0, 0], "r": [1, 1], "s": [0, 1]}
STUDENT = {"p": [1, 1], "q": [0, 0], "r": [0, 0], "s": [1, 1]}


# ---------------------------------------------------------------- the statistics


@settings(deadline=None)
@given(st.lists(questions, min_size=1, max_size=9))
def test_the_p_value_is_the_share_of_all_choices_of_signs(table: list[tuple[int, int]]) -> None:
    a, b = [one for one, _ in table], [other for _, other in table]
    found = difference_of(a, [4] * len(a), b, [6] * len(b))
    steps = [2 * other - 3 * one for one, other in table]  # in twelfths
    sums = [abs(sum(map(int.__mul__, steps, signs))) for signs in itertools.product((1, -1), repeat=len(steps))]
    assert found.p_value == pytest.approx(np.mean([each >= abs(sum(steps)) for each in sums]))
    assert found.difference == pytest.approx(sum(steps) / 12 / len(steps))
    assert -1 <= found.ci95[0] < found.difference + 1e-12
    assert found.difference - 1e-12 < found.ci95[1] <= 1


def test_with_one_sample_it_is_mcnemars_exact_test() -> None:
    # 9 questions that only B solves, one that only A solves, 20 alike: 2 (1 + 10) / 2^10
    a, b = [0] * 9 + [1] + [1] * 20, [1] * 9 + [0] + [1] * 20
    assert difference_of(a, [1] * 30, b, [1] * 30).p_value == pytest.approx(22 / 1024)


def test_exchanging_the_models_turns_the_signs() -> None:
    random = np.random.default_rng(0)
    a, b, n = random.integers(0, 17, 30), random.integers(0, 65, 30), 30
    one, other = difference_of(a, [16] * n, b, [64] * n), difference_of(b, [64] * n, a, [16] * n)
    assert one.difference == pytest.approx(-other.difference)
    assert one.ci95 == pytest.approx((-other.ci95[1], -other.ci95[0]))
    assert (one.p_value, one.detectable) == pytest.approx((other.p_value, other.detectable))


def test_models_that_never_differ_are_not_certain_to_be_the_same() -> None:
    found = difference_of([1] * 30, [1] * 30, [1] * 30, [1] * 30)
    assert (found.difference, found.p_value) == (0.0, 1.0)
    assert -0.2 < found.ci95[0] < -0.05 < 0.05 < found.ci95[1] < 0.2
    lone = difference_of([0], [4], [4], [4])
    assert (lone.p_value, lone.detectable, lone.ci95[1]) == (1.0, 1.0, 1.0)


@pytest.mark.parametrize("samples", [1, 4, 16, 64])
@pytest.mark.parametrize("spread", [0.0, 1.0])
def test_equal_models_come_out_different_five_times_of_a_hundred_at_most(samples: int, spread: float) -> None:
    found = check_intervals.compare_equals(np.random.default_rng(samples), 30, samples, 300, spread)
    assert found.significant <= 0.05 + 3 * (0.05 * 0.95 / 300) ** 0.5
    assert found.held >= 0.95 - 3 * (0.05 * 0.95 / 300) ** 0.5


def test_a_difference_that_can_be_seen_is_seen() -> None:
    _, power = check_intervals.power_at_detectable(np.random.default_rng(0), 30, 16, 150)
    assert power >= 0.8 - 3 * (0.8 * 0.2 / 150) ** 0.5


def test_questions_have_to_be_paired() -> None:
    with pytest.raises(ValueError, match="2 and 1 questions"):
        difference_of([1, 1], [1, 1], [1], [1])


# ---------------------------------------------------------------- the scores of two models


def test_questions_are_paired_by_id_and_those_that_changed_come_most_first(tmp_path: Path) -> None:
    run = scored_run(tmp_path / "run", "quiz", {"base": BASE, "student": STUDENT})
    [found] = compare(f"{run}:base", str(run))  # the student is the last model
    assert (found.task, found.samples, found.unpaired) == ("quiz", (2, 2), 0)
    assert (found.difference.a, found.difference.b) == (0.5, 0.5)
    assert [(change.problem_id, change.a, change.b) for change in found.changed] == [
        ("r", (2, 2), (0, 2)), ("p", (1, 2), (2, 2)), ("s", (1, 2), (2, 2)),
    ]  # fmt: skip
    expected = difference_of([1, 0, 2, 1], [2] * 4, [2, 0, 0, 2], [2] * 4)
    assert found.difference == expected


def test_a_model_is_named_by_its_run_its_name_or_its_folder(tmp_path: Path) -> None:
    run = scored_run(tmp_path / "run", "quiz", {"base": BASE, "student": STUDENT})
    other = scored_run(tmp_path / "other", "quiz", {"teacher": dict(reversed(STUDENT.items()))})
    folder = run / "eval" / "quiz" / "student"
    expected = compare(f"{run}:base", f"{run}:student")
    assert compare(f"{run}:base", str(folder)) == compare(f"{run}:base", str(run)) == expected
    assert compare(f"{run}:base", str(other))[0].difference == expected[0].difference  # in another order


def test_every_task_that_both_have_is_compared_and_other_questions_are_left_out(tmp_path: Path) -> None:
    one = scored_run(tmp_path / "one", "quiz", {"student": BASE})
    scored_run(one, "more", {"student": BASE})
    scored_run(one, "alone", {"student": BASE})
    other = scored_run(tmp_path / "other", "quiz", {"student": {**STUDENT, "z": [1, 1]}})
    scored_run(other, "more", {"student": {"p": [1, 1, 1, 1]}})
    found = {each.task: each for each in compare(str(one), str(other))}
    assert list(found) == ["more", "quiz"]
    assert (found["quiz"].unpaired, found["quiz"].difference.n_questions) == (1, 4)
    assert (found["more"].unpaired, found["more"].samples) == (3, (2, 4))


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"prompt_sha256": "another"}, "prompt_sha256 prompt and another"),
        ({"protocol": {"name": "sober", "version": 1, "sha256": "5678"}}, "protocol open-r1 2 1234 and sober 1 5678"),
        ({"conditions": {"data_sha256": "feed"}}, "data_sha256 beef and feed"),
        ({"conditions": {}}, "data_sha256 beef and not recorded"),
        ({"temperature": 0.0}, "temperature 0.6 and 0.0"),
        ({"max_tokens": 1024}, "max_tokens not recorded and 1024"),
    ],
)
def test_scores_that_were_not_taken_alike_are_compared_only_when_asked(
    tmp_path: Path, changed: dict[str, object], words: str
) -> None:
    told = {"protocol": {"name": "open-r1", "version": 2, "sha256": "1234"}, "conditions": {"data_sha256": "beef"}}
    one = scored_run(tmp_path / "one", "quiz", {"student": BASE}, **told)
    other = scored_run(tmp_path / "other", "quiz", {"student": STUDENT}, **{**told, **changed})
    with pytest.raises(UserError, match=f"quiz: the scores were not taken alike: {words}; .*--any-protocol"):
        compare(str(one), str(other))
    [found] = compare(str(one), str(other), any_protocol=True)
    assert found.different_conditions == [words]


def test_what_cannot_be_compared_ends_in_one_line(tmp_path: Path) -> None:
    one = scored_run(tmp_path / "one", "quiz", {"base": BASE, "student": STUDENT})
    two = scored_run(tmp_path / "two", "another", {"student": STUDENT})
    cases = [
        (one, tmp_path / "nowhere", "no scores in it"),
        (one, f"{one}:teacher", "no scores of a model teacher in"),
        (one, two, "no task that both have"),
        (one, f"{one}:student", "are the same scores"),
    ]
    for a, b, words in cases:
        with pytest.raises(UserError, match=words):
            compare(str(a), str(b))
    (one / "eval" / "quiz" / "base" / "verdicts.parquet").unlink()
    with pytest.raises(UserError, match=r"no verdicts\.parquet in it; let `r1distill eval` finish first"):
        compare(str(one), f"{one}:base")
    summary = one / "eval" / "quiz" / "summary.json"
    write_json(summary, {key: value for key, value in read_json(summary).items() if key != "models"})
    with pytest.raises(UserError, match="no models in it"):
        compare(str(one), str(two))
    strangers = scored_run(tmp_path / "three", "another", {"student": {"z": [1, 1]}})
    with pytest.raises(UserError, match="another: no question that both were asked"):
        compare(str(two), str(strangers))


# ---------------------------------------------------------------- the command


def test_the_command_prints_a_table_and_json(tmp_path: Path) -> None:
    run = scored_run(tmp_path / "run", "quiz", {"base": BASE, "student": STUDENT})
    shown = r1distill("compare", f"{run}:base", run)
    assert shown.returncode == 0, shown.stderr
    for words in ("quiz", "4 × 2", "50.0%", "+0.0", "2", "1", "What of r?", "2 of 2", "0 of 2"):
        assert words in shown.stdout
    found = json.loads(r1distill("compare", f"{run}:base", run, "--json").stdout)
    assert found["b"] == str(run)
    [task] = found["tasks"]
    assert task["difference"]["p_value"] == 1.0
    assert task["changed"][0] == {"problem_id": "r", "problem": "What of r?", "a": [2, 2], "b": [0, 2]}
    assert_one_error_line(r1distill("compare", run, tmp_path / "nowhere"), "nowhere: no scores in it", "RUN:MODEL")


def test_a_question_is_shown_as_it_is_written(tmp_path: Path) -> None:
    hostile = {"[bold]p[/nothing] \x1b[31m": [1]}
    one = scored_run(tmp_path / "one", "quiz", {"student": hostile})
    other = scored_run(tmp_path / "other", "quiz", {"student": {name: [0] for name in hostile}})
    shown = r1distill("compare", one, other)
    assert shown.returncode == 0, shown.stderr
    assert "[bold]p[/nothing]" in shown.stdout
    assert "\x1b" not in shown.stdout
