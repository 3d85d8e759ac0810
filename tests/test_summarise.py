"""summary.json from the records of an evaluation."""

import json
import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from scored_run import scored

from r1distill.errors import UserError
from r1distill.evaluate.metrics import pass_at_k, score_of
from r1distill.evaluate.results import read_results
from r1distill.evaluate.summarise import summarise
from r1distill.records import Problem
from r1distill.verify import VerifierPool

PROBLEMS = [
    Problem("p", answer="1", id="p", meta={"level": 5, "subject": "algebra", "unique_id": "a"}),
    Problem("q", answer="2", id="q", meta={"level": 3, "subject": "algebra", "unique_id": "b"}),
    Problem("r", answer="3", id="r", meta={"level": 5, "subject": "geometry", "unique_id": "c"}),
    Problem("s", answer="4", id="s", meta={"level": 10, "subject": "geometry"}),
    Problem("t", answer="5", id="t", meta={"level": 3, "subject": ""}),
    Problem("u", answer="6", id="u", meta={"level": 10}),
]
SAMPLES = {
    "p": [("right", "1"), ("right", "1.0"), ("wrong", "7"), ("cut but right", "1")],
    "q": [("right", "2"), ("wrong", "5"), ("wrong", "5.0"), ("silent", None)],
    "r": [("cut", None), ("cut", None), ("late", "9"), ("failed", None)],
    "s": [("wrong", "8")] * 4,
    "t": [("right", "5")] * 4,
    "u": [("loop", None), ("right", "6"), ("right", "6"), ("wrong", "0")],
}
RIGHT = [2, 1, 0, 0, 4, 2]


@pytest.fixture(scope="module")
def pool() -> Iterator[VerifierPool]:
    with VerifierPool(workers=1, timeout_s=10.0) as pool:
        yield pool


def test_every_number_is_that_of_the_records(tmp_path: Path, pool: VerifierPool) -> None:
    looping = {("r", 0): [1, 2, *[3, 4, 5] * 300], ("r", 1): list(range(900)), ("s", 0): [7] * 900}
    folder = scored(tmp_path, SAMPLES, PROBLEMS, token_ids=looping)
    summary = summarise(folder, {"task": "t", "seconds": 3.5}, pool)
    expected = score_of(RIGHT, [4] * 6)
    assert (summary["task"], summary["seconds"], summary["n_problems"], summary["samples"]) == ("t", 3.5, 6, 4)
    assert summary["pass@1"] == expected.pass_at_1 == sum(RIGHT) / 24  # cut off is wrong, whatever the verdict
    assert (summary["ci95"], summary["ci95_samples"]) == (list(expected.ci95), list(expected.ci95_samples))
    assert (summary["se_questions"], summary["se_samples"]) == (expected.se_questions, expected.se_samples)
    assert summary["pass@k"] == {str(k): value for k, value in pass_at_k(RIGHT, [4] * 6).items()}
    shares = {"truncated": 3, "no_answer": 5, "verifier_timeout": 1, "failed": 1, "repetition": 2}
    assert {name: summary[name] for name in shares} == {name: count / 24 for name, count in shares.items()}
    assert summary["outcomes"] == {"correct": 10, "incorrect": 8, "no_answer": 5, "timeout": 1}
    tokens = np.array([100, 200, 300, 400] * 6)
    assert (summary["tokens"], summary["mean_tokens"], summary["median_tokens"]) == (6000, 250.0, 250.0)
    assert summary["p95_tokens"] == np.percentile(tokens, 95)
    assert summary["mean_tokens_correct"] == (100 + 200 + 100 + 1000 + 200 + 300) / 9
    assert summary["mean_tokens_wrong"] == (6000 - 1900) / 15
    json.dumps(summary, allow_nan=False)


def test_the_vote_is_by_what_answers_mean_and_truncated_replies_are_not_heard(
    tmp_path: Path, pool: VerifierPool
) -> None:
    summary = summarise(scored(tmp_path, SAMPLES, PROBLEMS), {}, pool)
    # p: 1 and 1.0 outvote 7; q: 5 and 5.0 outvote 2; r: nobody right; s: wrong; t: right; u: 6 twice, 0 once
    assert summary["cons@k"]["4"] == pytest.approx((1 + 0 + 0 + 0 + 1 + 1) / 6)
    assert summary["cons@k"]["1"] == pytest.approx(summary["pass@1"])
    # of two: p wins with 1 of 6 both right, 2 × 1 right and 7 tied, 2 × right and silence; and so on
    p = (1 + 2 * 0.5 + 2) / 6
    q = (2 * 0.5 + 1) / 6
    u = (1 + 2 * 0.5 + 2) / 6
    assert summary["cons@k"]["2"] == pytest.approx((p + q + 0 + 0 + 1 + u) / 6)


def test_without_a_pool_or_for_programs_there_is_no_vote(tmp_path: Path, pool: VerifierPool) -> None:
    assert summarise(scored(tmp_path / "a", SAMPLES, PROBLEMS), {}, None)["cons@k"] is None
    program = [Problem("p", kind="code", tests={"stdio": []}, id="p")]
    assert summarise(scored(tmp_path / "b", {"p": [("right", "x")]}, program), {}, pool)["cons@k"] is None


def test_choices_are_voted_on_by_letter(tmp_path: Path, pool: VerifierPool) -> None:
    problem = [Problem("?", kind="choice", answer="B", choices=["x", "y"], id="p")]
    samples = {"p": [("right", "B"), ("wrong", "A"), ("right", "B")]}
    assert summarise(scored(tmp_path, samples, problem), {}, pool)["cons@k"]["3"] == 1.0


def test_groups_are_those_of_columns_with_a_few_values_each_of_some_problems(tmp_path: Path) -> None:
    groups = summarise(scored(tmp_path, SAMPLES, PROBLEMS), {}, None)["groups"]
    assert list(groups) == ["level", "subject"]  # every unique_id is one problem
    assert list(groups["level"]) == ["3", "5", "10"]  # by size
    assert groups["level"]["5"] == {
        "n_problems": 2, "pass@1": 0.25, "ci95": list(score_of([2, 0], [4, 4]).ci95),
    }  # fmt: skip
    assert {name: group["n_problems"] for name, group in groups["subject"].items()} == {"algebra": 2, "geometry": 2}


def test_programs_with_ratings_have_a_rating_and_others_have_none(tmp_path: Path) -> None:
    rated = [
        Problem(f"{rating}", kind="code", tests={"stdio": []}, id=f"{rating}", meta={"rating": rating})
        for rating in (800, 1200, 1600, 2000)
    ]
    samples = {problem.id: [("right", None), ("right" if problem.id < "15" else "wrong", None)] for problem in rated}
    found = summarise(scored(tmp_path / "a", samples, rated), {}, None)["codeforces_rating"]
    assert found["n_problems"] == 4
    assert found["ci95"][0] < found["rating"] < found["ci95"][1]
    assert "codeforces_rating" not in summarise(scored(tmp_path / "b", SAMPLES, PROBLEMS), {}, None)


def test_a_loop_is_found_in_the_text_where_there_are_no_token_ids(tmp_path: Path) -> None:
    samples = {"p": [("cut", None), ("cut", None), ("wrong", "1")]}
    texts = {("p", 0): "so " + "wait, again. " * 400, ("p", 2): "wait, again. " * 400}
    ids = {("p", i): None for i in range(3)}
    folder = scored(tmp_path, samples, PROBLEMS[:1], token_ids=ids, texts=texts)
    assert [result.ending.looped for result in read_results(folder)] == [True, False, False]


def test_questions_with_other_numbers_of_samples_have_the_same_weight(tmp_path: Path, pool: VerifierPool) -> None:
    samples = {"p": [("right", "1")] * 3, "q": [("wrong", "3"), ("wrong", "4")]}
    summary = summarise(scored(tmp_path, samples, PROBLEMS[:2]), {}, pool)
    assert (summary["pass@1"], summary["samples"]) == (0.5, 3)
    assert list(summary["pass@k"]) == list(summary["cons@k"]) == ["1", "2"]
    assert summary["mean_tokens_wrong"] == 150


def test_one_wrong_sample_is_a_summary_too(tmp_path: Path, pool: VerifierPool) -> None:
    summary = summarise(scored(tmp_path, {"p": [("failed", None)]}, PROBLEMS[:1]), {}, pool)
    assert (summary["pass@1"], summary["failed"], summary["mean_tokens_correct"]) == (0.0, 1.0, None)
    assert summary["cons@k"] == {"1": 0.0}
    assert all(math.isfinite(end) for end in summary["ci95"] + summary["ci95_samples"])
    json.dumps(summary, allow_nan=False)


def test_files_that_do_not_belong_together_end_in_what_to_do(tmp_path: Path, pool: VerifierPool) -> None:
    first, second = tmp_path / "a", tmp_path / "b"
    scored(first, SAMPLES, PROBLEMS)
    scored(second, {"p": SAMPLES["p"]}, PROBLEMS[:1])
    (first / "verdicts.parquet").write_bytes((second / "verdicts.parquet").read_bytes())
    with pytest.raises(UserError, match=r"not of one evaluation; delete verdicts\.parquet"):
        summarise(first, {}, pool)
    with pytest.raises(UserError, match="a trace of problem q, which problems"):
        summarise(scored(tmp_path / "c", SAMPLES, PROBLEMS[:1]), {}, pool)
    with pytest.raises(UserError, match="no traces to score"):
        summarise(scored(tmp_path / "d", {}, PROBLEMS), {}, pool)
    (second / "traces" / "00000.parquet").write_bytes(b"nothing")
    with pytest.raises(UserError, match="cannot be read"):
        summarise(second, {}, pool)
