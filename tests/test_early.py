"""Verdicts while others are still sampled: the same as afterwards, each asked for once, and faults where they are read."""

import threading
from pathlib import Path

import pytest
from small_run import small_run

from r1distill.errors import UserError
from r1distill.records import Problem, Trace, Verdict
from r1distill.run import Clock
from r1distill.sections import Verify
from r1distill.store import read_records, write_records
from r1distill.verify import early as early_module
from r1distill.verify.early import EarlyVerdicts
from r1distill.verify.pool import VerifierPool
from r1distill.verify.stage import verify_traces

PROBLEMS = [Problem(f"What is {n} + 1/2?", answer=f"{2 * n + 1}/2") for n in range(5)]


def trace(number: int, sample: int) -> Trace:
    said = 2 * number + 1 if sample % 2 else number
    text = rf"<think>\n</think>\n\n\boxed{{\frac{{{said}}}{{2}}}}"
    return Trace(PROBLEMS[number].id, sample, "m", "s", 0, text, "", text, "stop")


TRACES = [trace(number, sample) for number in range(5) for sample in range(4)]


class Counting(VerifierPool):
    """How often each sample is judged."""

    asked: list[tuple[str, int]]

    def verify(self, problem: Problem, text: str, sample: int = 0) -> Verdict:
        self.asked.append((problem.id, sample))
        return super().verify(problem, text, sample)


def verdicts(folder: Path, early: EarlyVerdicts | None) -> list[Verdict]:
    run = small_run(folder)
    write_records(folder / "traces.parquet", Trace, TRACES)
    by_id = {problem.id: problem for problem in PROBLEMS}
    out = folder / "verdicts.parquet"
    verify_traces(folder / "traces.parquet", out, by_id, Verify(), Clock(run, "x"), label="verify", early=early)
    return list(read_records(out, Verdict))


def test_early_verdicts_are_those_that_are_made_afterwards_and_are_not_made_again(tmp_path: Path) -> None:
    expected = verdicts(tmp_path, None)
    assert {verdict.outcome for verdict in expected} == {"correct", "incorrect"}
    pool = Counting(2)
    pool.asked = []
    with pool, EarlyVerdicts(pool) as early:
        for each in reversed(TRACES[1:]):
            early.submit(next(problem for problem in PROBLEMS if problem.id == each.problem_id), each)
        assert verdicts(tmp_path, early) == expected
        assert sorted(pool.asked) == sorted((each.problem_id, each.sample) for each in TRACES[1:])


def test_a_verdict_is_of_one_text_only() -> None:
    with VerifierPool(1) as pool, EarlyVerdicts(pool) as early:
        early.submit(PROBLEMS[1], trace(1, 1))
        assert early.of(PROBLEMS[1], 1, trace(1, 1).text) is not None
        assert early.of(PROBLEMS[1], 1, "another text") is None
        assert early.of(PROBLEMS[1], 2, trace(1, 1).text) is None


def test_what_there_is_no_room_for_is_left_for_later(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(early_module, "MOST_WAITING", 3)
    go_on = threading.Event()

    class Slow(VerifierPool):
        def verify(self, problem: Problem, text: str, sample: int = 0) -> Verdict:
            go_on.wait()
            return super().verify(problem, text, sample)

    with Slow(1) as pool, EarlyVerdicts(pool) as early:
        for each in TRACES[:5]:
            early.submit(PROBLEMS[0], each)
        go_on.set()
        assert [early.of(PROBLEMS[0], each.sample, each.text) is None for each in TRACES[:4]] == [False] * 3 + [True]
        early.submit(PROBLEMS[1], TRACES[5])  # there is room again
        assert early.of(PROBLEMS[1], TRACES[5].sample, TRACES[5].text) is not None


def test_a_fault_is_raised_where_the_verdict_is_asked_for() -> None:
    class Faulty(VerifierPool):
        def verify(self, problem: Problem, text: str, sample: int = 0) -> Verdict:
            raise UserError("no sandbox")

    with Faulty(1) as pool, EarlyVerdicts(pool) as early:
        early.submit(PROBLEMS[0], TRACES[0])
        with pytest.raises(UserError, match="no sandbox"):
            early.of(PROBLEMS[0], TRACES[0].sample, TRACES[0].text)
