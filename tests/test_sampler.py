"""The scheduler, its restarts and its ends, with a scripted backend in the engine's place and a real journal."""

import asyncio
import hashlib
import random
import tempfile
from collections import Counter
from collections.abc import Callable
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from r1distill.errors import UserError
from r1distill.generate.backend import Completion, Request, SampleFailed, Sampling
from r1distill.generate.journal import Journal
from r1distill.generate.one_sample import whole_text
from r1distill.generate.plan import Plan
from r1distill.generate.sampler import Work, sample_all
from r1distill.generate.signals import TokenSignals
from r1distill.prompting import Prompt
from r1distill.records import Outcome, Problem, Trace

SAMPLING = Sampling(temperature=0.6, top_p=0.95, top_k=0, max_tokens=100, logprobs=20)
PROMPT = Prompt("math", "{problem} Think.", "<think>\n")
PROBLEMS = [Problem(f"What is {number} + {number}?", answer=str(2 * number)) for number in range(6)]


def plan_of(samples: int = 3, stop_after_correct: int = 0, **other: Any) -> Plan:
    return replace(Plan("teacher", "main", PROMPT, SAMPLING, 0, samples, stop_after_correct), **other)


class Scripted:
    """A backend whose replies follow from the request alone, in an order that `turns` decides.

    `reply` may raise; it gives the text. `turns` is how often the loop turns before the reply to a request; None is
    never.
    """

    def __init__(
        self,
        reply: Callable[[Request], str] = lambda request: f"{request.seed}\n</think>\n\ndone",
        turns: Callable[[Request], int | None] = lambda request: 0,
    ) -> None:
        self.reply, self.turns = reply, turns
        self.requests: list[Request] = []
        self.answered: list[str] = []
        self.cancelled: list[str] = []
        self.in_flight = self.most_in_flight = 0

    async def __aenter__(self) -> "Scripted":
        return self

    async def __aexit__(self, *exception: Any) -> None: ...

    def facts(self) -> dict[str, Any]:
        return {"name": "scripted"}

    async def sample(self, request: Request) -> Completion:
        self.requests.append(request)
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            turns = self.turns(request)
            if turns is None:
                await asyncio.Event().wait()
            for _ in range(turns or 0):
                await asyncio.sleep(0)
            text = self.reply(request)
        except asyncio.CancelledError:
            self.cancelled.append(request.name)
            raise
        finally:
            self.in_flight -= 1
        self.answered.append(request.name)
        return Completion(text, "stop", n_prompt_tokens=7, n_tokens=3)


def take(
    folder: Path,
    plan: Plan,
    problems: list[Problem],
    backend: Scripted,
    *,
    concurrency: int = 4,
    judge: Callable[[Problem, str, int], Outcome] | None = None,
    at_most: int | None = None,
) -> list[tuple[Trace, int]]:
    """Sample, and leave after `at_most` samples. Every yielded sample is checked to be in the journal already."""

    async def main() -> list[tuple[Trace, int]]:
        taken = []
        with Journal(folder) as journal:
            samples = sample_all([Work(plan, problems, journal)], backend, concurrency=concurrency, judge=judge)
            async with aclosing(samples):  # type: ignore[type-var]
                async for each in samples:
                    trace, spared = each.trace, each.spared
                    [stored] = journal.connection.execute(
                        "SELECT count(*) FROM samples WHERE problem_id = ? AND sample = ? AND request_sha = ? AND n_tokens = ?",
                        (trace.problem_id, trace.sample, trace.request_sha, trace.n_tokens),
                    ).fetchone()
                    assert stored == 1
                    taken.append((trace, spared))
                    if len(taken) == at_most:
                        break
        return taken

    return asyncio.run(main())


def journalled(folder: Path) -> dict[tuple[str, int, str], Outcome | None]:
    with Journal(folder) as journal:
        return journal.finished()


def judge_by_hash(share_correct: float) -> Callable[[Problem, str, int], Outcome]:
    """A verdict that follows from problem and index alone."""

    def judge(problem: Problem, text: str, sample: int) -> Outcome:
        number = hashlib.sha256(f"{problem.id}/{sample}".encode()).digest()[0]
        return "correct" if number < 256 * share_correct else "incorrect"

    return judge


def identities(taken: list[tuple[Trace, int]]) -> dict[tuple[str, int], tuple[int, str, str]]:
    return {(trace.problem_id, trace.sample): (trace.seed, trace.request_sha, trace.text) for trace, _ in taken}


# ---------------------------------------------------------------- identity


def test_every_problem_gets_every_sample_once(tmp_path):
    backend = Scripted()
    taken = take(tmp_path, plan_of(samples=5), PROBLEMS, backend)
    wanted = {(problem.id, sample) for problem in PROBLEMS for sample in range(5)}
    assert Counter((trace.problem_id, trace.sample) for trace, _ in taken) == Counter(wanted)
    assert len({request.name for request in backend.requests}) == len({trace.seed for trace, _ in taken}) == 30


def test_seeds_and_identity_do_not_depend_on_order_other_problems_or_concurrency(tmp_path):
    whole = identities(take(tmp_path / "0", plan_of(), PROBLEMS, Scripted(), concurrency=1))
    chance = random.Random(0)
    for number, concurrency in enumerate((1, 3, 64), 1):
        some = chance.sample(PROBLEMS, 4)
        backend = Scripted(turns=lambda request: chance.randrange(9))
        part = identities(take(tmp_path / str(number), plan_of(), some, backend, concurrency=concurrency))
        assert part == {key: identity for key, identity in whole.items() if key[0] in {problem.id for problem in some}}
    more = identities(take(tmp_path / "more", plan_of(samples=7), PROBLEMS, Scripted()))
    assert more.items() >= whole.items()


def test_the_request_sha_changes_with_all_that_decides_a_text_and_with_nothing_else():
    problem, plan = PROBLEMS[0], plan_of()
    sha = plan.request_sha(problem)
    same = [
        replace(plan, samples=9),
        replace(plan, stop_after_correct=1),
        replace(plan, max_samples=9),
        *(
            replace(plan, sampling=replace(SAMPLING, **{name: 3}))
            for name in ("max_tokens", "logprobs", "stop_repetition")
        ),
    ]
    other = [
        replace(plan, model="student"),
        replace(plan, version="v2"),
        replace(plan, seed=1),
        replace(plan, prompt=replace(PROMPT, text="{problem}")),
        replace(plan, prompt=replace(PROMPT, prefill="")),
        *(
            replace(plan, sampling=replace(SAMPLING, **{name: 3}))
            for name in ("temperature", "top_p", "top_k", "thinking_budget")
        ),
    ]
    assert {changed.request_sha(problem) for changed in same} == {sha}
    assert len({sha, *(changed.request_sha(problem) for changed in other)}) == 1 + len(other)
    seeds = {changed.sample_seed(problem, 0, changed.request_sha(problem)) for changed in [plan, *other]}
    assert len(seeds) == 1 + len(other)
    assert all(0 <= seed < 2**31 for seed in seeds)


def test_a_trace_holds_what_the_backend_said(tmp_path):
    class Telling(Scripted):
        async def sample(self, request: Request) -> Completion:
            sampled, lower = np.array([-0.25, -0.5, -0.75, 0, -1]), np.array([0.0, 0.25, 0.0, 1.0, 0.5])
            signals = TokenSignals(20, sampled, lower, lower + 0.5)
            ids = [1, 2, 3, 4, 5]
            return Completion("so\n</think>\n\n\\boxed{0}", "length", 11, 5, ids, signals=signals, n_thinking_tokens=3)

    [(trace, spared)] = take(tmp_path, plan_of(samples=1), PROBLEMS[:1], Telling())
    assert (trace.text, trace.thinking, trace.answer) == ("<think>\nso\n</think>\n\n\\boxed{0}", "so", "\\boxed{0}")
    assert (trace.finish_reason, trace.n_prompt_tokens, trace.n_tokens) == ("length", 11, 5)
    assert (trace.token_ids, trace.logprobs, trace.mean_logprob) == ([1, 2, 3, 4, 5], 20, -0.5)
    entropies = (trace.mean_entropy_nats, trace.mean_entropy_upper_nats, trace.p95_entropy_nats)
    assert entropies == pytest.approx((0.35, 0.85, 0.9))
    assert trace.high_entropy_share == 0.2
    assert trace.thinking_signals is not None
    assert trace.thinking_signals["mean_logprob"] == -0.5
    assert trace.answer_signals is not None
    assert (trace.answer_signals["mean_entropy_nats"], trace.answer_signals["high_entropy_share"]) == (0.75, 0.5)
    assert (trace.model, trace.error, spared) == ("teacher", None, 0)


# ---------------------------------------------------------------- restarts


@pytest.mark.parametrize("concurrency", [1, 4])
def test_a_restart_takes_only_what_is_missing(tmp_path, concurrency):
    first = Scripted()
    seen = take(tmp_path, plan_of(), PROBLEMS, first, concurrency=concurrency, at_most=7)
    before = journalled(tmp_path)
    assert {(trace.problem_id, trace.sample, trace.request_sha) for trace, _ in seen} <= before.keys()
    second = Scripted()
    rest = take(tmp_path, plan_of(), PROBLEMS, second, concurrency=concurrency)
    assert len(before) + len(rest) == 18 == len(journalled(tmp_path))
    assert len(second.requests) == len(rest)
    third = Scripted()
    assert take(tmp_path, plan_of(), PROBLEMS, third) == []
    assert third.requests == []


def test_an_edited_problem_is_sampled_anew_and_the_others_are_not(tmp_path):
    take(tmp_path, plan_of(), PROBLEMS, Scripted())
    edited = [replace(PROBLEMS[0], problem="What is 0 + 1?", id=""), *PROBLEMS[1:]]
    backend = Scripted()
    taken = take(tmp_path, plan_of(), edited, backend)
    assert {trace.problem_id for trace, _ in taken} == {edited[0].id}
    assert len(backend.requests) == 3


def test_with_fewer_samples_than_before_the_surplus_decides_nothing(tmp_path):
    def only_the_last(problem: Problem, text: str, sample: int) -> Outcome:
        return "correct" if sample == 3 else "incorrect"

    take(tmp_path, plan_of(4, 1), PROBLEMS[:1], Scripted(), judge=only_the_last)
    with Journal(tmp_path) as journal:  # as if sample 0 had failed
        journal.connection.execute("UPDATE samples SET finish_reason = 'error' WHERE sample = 0")
    [(trace, spared)] = take(tmp_path, plan_of(2, 1), PROBLEMS[:1], Scripted(), judge=only_the_last)
    assert (trace.sample, spared) == (0, 0)


# ---------------------------------------------------------------- stop_after_correct


@settings(deadline=None, max_examples=20)
@given(
    samples=st.integers(1, 6),
    wanted=st.integers(1, 4),
    concurrency=st.integers(1, 12),
    correct=st.lists(st.lists(st.booleans(), min_size=6, max_size=6), min_size=1, max_size=3),
    chance=st.randoms(use_true_random=False),
)
def test_the_samples_taken_do_not_depend_on_speed_and_none_is_taken_in_vain(
    samples, wanted, concurrency, correct, chance
):
    problems = PROBLEMS[: len(correct)]
    answers = {problem.id: row for problem, row in zip(problems, correct, strict=True)}
    turns = {(problem.id, sample): chance.randrange(6) for problem in problems for sample in range(samples)}
    found, started = Counter(), Counter()

    def judge(problem: Problem, text: str, sample: int) -> Outcome:
        return "correct" if answers[problem.id][sample] else "incorrect"

    def turns_of(request: Request) -> int:
        problem_id, sample, _ = request.name.split("-")
        started[problem_id] += 1
        in_flight = started[problem_id] - found[problem_id, "all"]
        assert in_flight <= wanted - found[problem_id, "correct"]
        return turns[problem_id, int(sample)]

    backend = Scripted(turns=turns_of)
    plan = plan_of(samples, wanted)

    async def main(folder: Path) -> int:
        total = 0
        with Journal(folder) as journal:
            taking = sample_all([Work(plan, problems, journal)], backend, concurrency=concurrency, judge=judge)
            async for each in taking:
                trace, spared = each.trace, each.spared
                found[trace.problem_id, "all"] += 1
                found[trace.problem_id, "correct"] += answers[trace.problem_id][trace.sample]
                total += 1 + spared
        return total

    with tempfile.TemporaryDirectory() as folder:
        assert asyncio.run(main(Path(folder))) == len(problems) * samples
        taken = {(problem_id, sample) for problem_id, sample, _ in journalled(Path(folder))}
    assert taken == {
        (problem.id, sample)
        for problem in problems
        for sample in range(samples)
        if sum(answers[problem.id][:sample]) < wanted
    }
    assert backend.most_in_flight <= concurrency


@pytest.mark.parametrize("cut_after", [3, 8])
def test_a_restart_with_stop_after_correct_ends_with_the_same_samples_and_sums(tmp_path, cut_after):
    plan, judge = plan_of(6, 2), judge_by_hash(0.4)
    take(tmp_path / "whole", plan, PROBLEMS, Scripted(), judge=judge)
    take(tmp_path / "cut", plan, PROBLEMS, Scripted(), judge=judge, at_most=cut_after)
    outcomes: dict[str, list[Outcome | None]] = {problem.id: [] for problem in PROBLEMS}
    for (problem_id, _, _), outcome in journalled(tmp_path / "cut").items():
        outcomes[problem_id].append(outcome)
    done = sum(plan.samples if plan.is_enough(found) else len(found) for found in outcomes.values())
    rest = take(tmp_path / "cut", plan, PROBLEMS, Scripted(), judge=judge)
    assert done + sum(1 + spared for _, spared in rest) == len(PROBLEMS) * plan.samples
    assert journalled(tmp_path / "cut") == journalled(tmp_path / "whole")


def test_a_problem_with_enough_correct_samples_is_left_alone_even_if_others_failed(tmp_path):
    def refusing(request: Request) -> str:
        if "-0-" in request.name:
            raise SampleFailed("no")
        return "yes"

    plan, judge = plan_of(4, 1), judge_by_hash(1.0)
    taken = take(tmp_path, plan, PROBLEMS, Scripted(refusing), judge=judge)
    assert sorted((trace.sample, spared) for trace, spared in taken) == [(0, 0)] * 6 + [(1, 2)] * 6
    assert take(tmp_path, plan, PROBLEMS, Scripted(), judge=judge) == []


class CutOff(Scripted):
    """Says the right thing every time, and never comes to an end before its third sample."""

    async def sample(self, request: Request) -> Completion:
        completion = await super().sample(request)
        return completion if request.name.split("-")[1] == "2" else replace(completion, finish_reason="length")


def test_a_reply_that_was_cut_off_is_not_the_correct_one_after_which_sampling_stops(tmp_path):
    taken = take(tmp_path, plan_of(5, 1), PROBLEMS[:1], CutOff(), judge=lambda problem, text, sample: "correct")
    assert [(trace.sample, trace.finish_reason) for trace, _ in taken] == [(0, "length"), (1, "length"), (2, "stop")]
    assert list(journalled(tmp_path).values()) == [None, None, "correct"]


def test_stop_after_correct_needs_a_judge(tmp_path):
    with pytest.raises(ValueError, match="need a judge"):
        take(tmp_path, plan_of(3, 1), PROBLEMS, Scripted())


# ---------------------------------------------------------------- more for what nobody solved


def test_an_unsolved_problem_is_sampled_on_until_it_is_solved_and_no_further(tmp_path):
    solved_at = {problem.id: index for index, problem in enumerate(PROBLEMS)}  # 0 … 5

    def judge(problem: Problem, text: str, sample: int) -> Outcome:
        return "correct" if sample >= solved_at[problem.id] else "incorrect"

    plan = plan_of(2, max_samples=5)
    taken = take(tmp_path, plan, PROBLEMS, Scripted(), judge=judge)
    found = Counter(trace.problem_id for trace, _ in taken)
    assert [found[problem.id] for problem in PROBLEMS] == [2, 2, 3, 4, 5, 5]
    assert take(tmp_path, plan, PROBLEMS, Scripted(), judge=judge) == []
    [(trace, _)] = take(tmp_path, replace(plan, max_samples=6), PROBLEMS, Scripted(), judge=judge)
    assert (trace.problem_id, trace.sample) == (PROBLEMS[5].id, 5)


def test_more_samples_and_stopping_after_correct_ones_go_together(tmp_path):
    plan = plan_of(3, 1, max_samples=9)
    taken = take(
        tmp_path, plan, PROBLEMS[:1], Scripted(), judge=lambda p, t, sample: "correct" if sample == 4 else "incorrect"
    )
    assert [(trace.sample, spared) for trace, spared in taken] == [(n, 0) for n in range(5)]
    taken = take(tmp_path, plan, PROBLEMS[1:2], Scripted(), judge=lambda p, t, sample: "correct")
    assert [(trace.sample, spared) for trace, spared in taken] == [(0, 2)]


# ---------------------------------------------------------------- what a limit cut off


class Counting(Scripted):
    """Replies of 10 to 59 tokens, by the seed of their beginning, each token of entropy 0.01 times its place."""

    async def sample(self, request: Request) -> Completion:
        await super().sample(request)
        problem_id, sample, _ = request.name.split("-")
        whole = 10 + int(hashlib.sha256(f"{problem_id}/{sample}".encode()).hexdigest(), 16) % 50
        begun = request.begun.token_ids or [] if request.begun else []
        ids = [*begun, *range(len(begun), min(whole, request.sampling.max_tokens))]
        new = np.arange(len(begun), len(ids)) / 100
        return Completion(
            text=" ".join(map(str, ids)),
            finish_reason="stop" if len(ids) == whole else "length",
            n_prompt_tokens=7,
            n_tokens=len(ids),
            token_ids=ids,
            signals=TokenSignals(20, -new, new, new),
        )


def with_limit(max_tokens: int, **changes: Any) -> Plan:
    return plan_of(2, sampling=replace(SAMPLING, max_tokens=max_tokens), **changes)


def traces_of(folder: Path, plan: Plan) -> list[Trace]:
    with Journal(folder) as journal:
        wanted = {problem.id: plan.request_sha(problem) for problem in PROBLEMS}
        return list(journal.traces(wanted, plan.sampling.max_tokens))


def test_a_larger_limit_continues_what_was_cut_off_and_nothing_else(tmp_path):
    take(tmp_path, with_limit(30), PROBLEMS, Counting())
    short = {(trace.problem_id, trace.sample): trace for trace in traces_of(tmp_path, with_limit(30))}
    cut = {key for key, trace in short.items() if trace.finish_reason == "length"}
    assert 0 < len(cut) < len(short)
    backend = Counting()
    taken = take(tmp_path, with_limit(100), PROBLEMS, backend)
    assert {(trace.problem_id, trace.sample) for trace, _ in taken} == cut
    assert all(request.begun and request.begun.n_tokens == 30 for request in backend.requests)
    take(tmp_path / "whole", with_limit(100), PROBLEMS, Counting())
    for trace, whole in zip(
        traces_of(tmp_path, with_limit(100)), traces_of(tmp_path / "whole", with_limit(100)), strict=True
    ):
        was_cut = (trace.problem_id, trace.sample) in cut
        assert trace.continued_from == (30 if was_cut else None)
        # in one go or in two, the trace and all that was measured of it are the same
        assert replace(trace, continued_from=None, seconds=0) == replace(whole, seconds=0)
    assert take(tmp_path, with_limit(100), PROBLEMS, Counting()) == []


def test_a_smaller_limit_than_before_takes_nothing_that_is_longer(tmp_path):
    take(tmp_path, with_limit(100), PROBLEMS, Counting())
    again = take(tmp_path, with_limit(30), PROBLEMS, Counting())
    assert all(trace.n_tokens <= 30 for trace in traces_of(tmp_path, with_limit(30)))
    assert len(traces_of(tmp_path, with_limit(30))) == 12
    assert 0 < len(again) < 12
    assert all(trace.finish_reason == "length" for trace, _ in again)
    assert all(trace.finish_reason == "stop" for trace in traces_of(tmp_path, with_limit(100)))


def test_a_solved_problem_leaves_what_was_cut_off_as_it_is(tmp_path):
    plan, judge = with_limit(30, stop_after_correct=1), judge_by_hash(1.0)
    take(tmp_path, plan, PROBLEMS, Counting(), judge=judge)
    solved = {trace.problem_id for trace in traces_of(tmp_path, plan) if trace.finish_reason == "stop"}
    assert solved
    taken = take(tmp_path, replace(plan, sampling=replace(SAMPLING, max_tokens=100)), PROBLEMS, Counting(), judge=judge)
    assert {trace.problem_id for trace, _ in taken}.isdisjoint(solved)


# ---------------------------------------------------------------- a budget for the thinking


class Musing(Scripted):
    """Thinks `length` words and answers in three; knows what was put in its mouth."""

    def __init__(self, length: int) -> None:
        super().__init__()
        self.length = length

    async def sample(self, request: Request) -> Completion:
        await super().sample(request)
        begun = request.begun
        before = (begun.text + begun.forced).split() if begun else []
        words = list(before)
        if "</think>" not in words:
            words += [f"t{n}" for n in range(len(words), self.length)] + ["</think>"]
        words += ["a1", "a2", "a3"][len(words) - words.index("</think>") - 1 :]
        limit = request.sampling.max_tokens
        whole = words[:limit]
        new = np.full(len(whole) - len(before), -0.5)
        return Completion(
            " ".join(whole), "stop" if len(words) <= limit else "length", 7, len(whole),
            signals=TokenSignals(20, new, -new, -new), n_thinking_tokens=None,
        )  # fmt: skip


def mused(folder: Path, length: int, budget: int, max_tokens: int = 30) -> tuple[Trace, Musing]:
    backend = Musing(length)
    sampling = replace(SAMPLING, max_tokens=max_tokens, thinking_budget=budget)
    [(trace, _)] = take(folder, plan_of(1, sampling=sampling), PROBLEMS[:1], backend)
    return trace, backend


def test_thinking_beyond_its_budget_is_closed_and_answered(tmp_path):
    trace, backend = mused(tmp_path, length=100, budget=10)
    assert trace.text.split() == ["<think>", *(f"t{n}" for n in range(10)), "</think>", "a1", "a2", "a3"]
    assert (trace.finish_reason, trace.n_tokens) == ("stop", 14)
    assert [request.sampling.max_tokens for request in backend.requests] == [10, 30]
    assert trace.mean_logprob == -0.5  # what was put in was not sampled, and is not measured


def test_thinking_within_its_budget_is_left_alone(tmp_path):
    trace, backend = mused(tmp_path, length=5, budget=20)
    assert trace.text.split()[-4:] == ["</think>", "a1", "a2", "a3"]
    assert len(backend.requests) == 1


def test_an_answer_that_the_budget_cut_goes_on_without_anything_put_in(tmp_path):
    trace, backend = mused(tmp_path, length=5, budget=7)
    assert trace.text.split()[-4:] == ["</think>", "a1", "a2", "a3"]
    assert [request.begun.forced for request in backend.requests if request.begun] == [""]


def test_a_continued_trace_keeps_to_the_budget_of_its_whole(tmp_path):
    short, _ = mused(tmp_path, length=100, budget=10, max_tokens=6)
    assert short.finish_reason == "length"
    trace, backend = mused(tmp_path, length=100, budget=10)
    assert [request.sampling.max_tokens for request in backend.requests] == [10, 30]
    assert trace.text.split()[1:12] == [*(f"t{n}" for n in range(10)), "</think>"]
    assert trace.continued_from == 6


# ---------------------------------------------------------------- concurrency


@pytest.mark.parametrize("concurrency", [1, 2, 5, 100])
def test_as_many_requests_are_in_flight_as_allowed_and_never_more(tmp_path, concurrency):
    backend = Scripted(turns=lambda request: 1 + request.seed % 5)
    take(tmp_path, plan_of(), PROBLEMS, backend, concurrency=concurrency)
    assert backend.most_in_flight == min(concurrency, 18)


def test_problems_are_read_no_further_than_needed(tmp_path):
    read = []

    def lazily():
        for problem in PROBLEMS:
            read.append(problem)
            yield problem

    take(tmp_path, plan_of(samples=2), lazily(), Scripted(), concurrency=1, at_most=2)  # type: ignore[arg-type]
    assert len(read) == 1


# ---------------------------------------------------------------- faults


def test_a_refused_sample_costs_itself_only_and_is_tried_again_at_the_next_start(tmp_path):
    def refusing(request: Request) -> str:
        if request.user_message.startswith("What is 2 ") and "-1-" in request.name:
            raise SampleFailed("the prompt is too long: 9000 > 8192")
        return "yes"

    taken = take(tmp_path, plan_of(), PROBLEMS, Scripted(refusing))
    [failed] = [trace for trace, _ in taken if trace.finish_reason == "error"]
    assert (failed.problem_id, failed.sample) == (PROBLEMS[2].id, 1)
    assert (failed.error, failed.text, failed.n_tokens) == ("the prompt is too long: 9000 > 8192", "", 0)
    assert len(taken) == 18
    assert len(journalled(tmp_path)) == 17

    [(mended, _)] = take(tmp_path, plan_of(), PROBLEMS, Scripted())
    assert (mended.problem_id, mended.sample, mended.error) == (PROBLEMS[2].id, 1, None)
    assert len(journalled(tmp_path)) == 18


def test_a_user_error_stops_the_run_and_cancels_the_rest_without_losing_what_ended(tmp_path):
    def dying(request: Request) -> str:
        if len(backend.answered) == 7:
            raise UserError("the server is gone")
        return "yes"

    backend = Scripted(dying, turns=lambda request: 1 if len(backend.requests) <= 8 else None)
    with pytest.raises(UserError, match="the server is gone"):
        take(tmp_path, plan_of(), PROBLEMS, backend, concurrency=12)
    assert len(backend.answered) == 7
    assert {f"{problem_id}-{sample}-{sha}" for problem_id, sample, sha in journalled(tmp_path)} == set(backend.answered)
    assert len(backend.cancelled) == 4  # the others of the twelve
    assert backend.in_flight == 0


@pytest.mark.parametrize("round_", range(3))
def test_samples_that_end_together_with_the_one_that_stops_the_run_are_kept(tmp_path, round_):
    doomed = PROBLEMS[round_]

    def reply(request: Request) -> str:
        if request.user_message.startswith(doomed.problem):
            raise UserError("the key is wrong")
        return "yes"

    with pytest.raises(UserError):
        take(tmp_path, plan_of(samples=1), PROBLEMS, Scripted(reply), concurrency=6)
    assert {problem_id for problem_id, _, _ in journalled(tmp_path)} == {p.id for p in PROBLEMS} - {doomed.id}


def test_samples_that_end_together_are_kept_when_the_reader_leaves_after_the_first(tmp_path):
    backend = Scripted()
    take(tmp_path, plan_of(samples=1), PROBLEMS, backend, concurrency=6, at_most=1)
    assert len(backend.answered) == len(journalled(tmp_path)) == 6


def test_a_cancelled_run_leaves_no_request_behind(tmp_path):
    backend = Scripted(turns=lambda request: None)

    async def main() -> None:
        with Journal(tmp_path) as journal:

            async def drain() -> None:
                async for _ in sample_all([Work(plan_of(), PROBLEMS, journal)], backend, concurrency=4):
                    raise AssertionError("nothing can end")

            task = asyncio.create_task(drain())
            while backend.in_flight < 4:
                await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert backend.in_flight == 0
            assert len(backend.cancelled) == 4

    asyncio.run(main())


def test_an_unexpected_exception_is_not_swallowed(tmp_path):
    def broken(request: Request) -> str:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        take(tmp_path, plan_of(), PROBLEMS, Scripted(broken))


# ---------------------------------------------------------------- the text of a reply


@pytest.mark.parametrize(
    ("text", "thinking", "prefill", "whole"),
    [
        ("so\n</think>\n\n4", None, "<think>\n", "<think>\nso\n</think>\n\n4"),
        ("<think>\nso\n</think>\n\n4", None, "<think>\n", "<think>\nso\n</think>\n\n4"),  # the server kept it
        ("<think>\nso\n</think>\n\n4", None, "", "<think>\nso\n</think>\n\n4"),
        ("4", None, "", "4"),
        ("", None, "<think>\n", "<think>\n"),
        ("4", "so", "<think>\n", "<think>\nso\n</think>\n\n4"),
        ("\n\n4", "\nso\n", "<think>\n", "<think>\nso\n</think>\n\n4"),
        ("4", "so", "", "<think>\nso\n</think>\n\n4"),
        ("", "so, cut off", "<think>\n", "<think>\nso, cut off"),
        (" so\n</think>\n\n4", None, "<think>\nOkay,", "<think>\nOkay, so\n</think>\n\n4"),
        ("4", " so\n", "<think>\nOkay,", "<think>\nOkay, so\n</think>\n\n4"),
        ("4", "Okay, so", "<think>\nOkay,", "<think>\nOkay, so\n</think>\n\n4"),
    ],
)
def test_the_forced_start_is_put_back_exactly_once(text, thinking, prefill, whole):
    assert whole_text(Completion(text, "stop", 1, 1, thinking=thinking), prefill) == whole


# ---------------------------------------------------------------- several works, the longest first


class Lengthy(Scripted):
    """Replies to a problem are as long, and take as many turns, as `tokens` says."""

    def __init__(self, tokens: dict[str, int]) -> None:
        super().__init__(turns=lambda request: self.of(request))
        self.tokens = tokens

    def of(self, request: Request) -> int:
        return self.tokens[request.name.partition("-")[0]]

    async def sample(self, request: Request) -> Completion:
        return replace(await super().sample(request), n_tokens=self.of(request))


def take_works(
    folder: Path, plans: list[Plan], expected: Any, backend: Scripted, concurrency: int
) -> list[list[Trace]]:
    """Half of the problems for each of two plans; the traces of each journal when all is done."""

    async def main() -> list[list[Trace]]:
        halves = PROBLEMS[:3], PROBLEMS[3:]
        with Journal(folder / "0") as first, Journal(folder / "1") as second:
            works = [
                Work(plan, half, journal, expected)
                for plan, half, journal in zip(plans, halves, (first, second), strict=True)
            ]
            async for taken in sample_all(works, backend, concurrency=concurrency):
                assert taken.trace.model == plans[taken.work].model
            return [
                list(work.journal.traces({each.id: work.plan.request_sha(each) for each in work.problems}))
                for work in works
            ]

    return asyncio.run(main())


@pytest.mark.parametrize("expected", [None, {}])
def test_several_works_share_the_requests_in_flight_and_each_has_its_own_journal(tmp_path: Path, expected: Any) -> None:
    backend = Scripted(turns=lambda request: request.seed % 7)
    plans = [plan_of(2), plan_of(5, model="other")]
    found = take_works(tmp_path, plans, expected, backend, concurrency=4)
    assert backend.most_in_flight == 4
    for plan, half, traces in zip(plans, (PROBLEMS[:3], PROBLEMS[3:]), found, strict=True):
        wanted = {(problem.id, sample) for problem in half for sample in range(plan.samples)}
        assert {(trace.problem_id, trace.sample) for trace in traces} == wanted
        assert {trace.model for trace in traces} == {plan.model}
    before = len(backend.requests)
    take_works(tmp_path, plans, expected, backend, concurrency=4)
    assert len(backend.requests) == before  # all of both is found again


def names(backend: Scripted) -> list[str]:
    return [request.name.partition("-")[0] for request in backend.requests]


def test_of_unknown_lengths_each_problem_is_asked_once_and_then_the_longest_come_first(tmp_path: Path) -> None:
    tokens = {problem.id: 5 + 10 * ((3 * number) % 7) for number, problem in enumerate(PROBLEMS)}
    backend = Lengthy(tokens)
    take_works(tmp_path, [plan_of(4)] * 2, {}, backend, concurrency=1)
    asked = names(backend)
    assert asked[: len(PROBLEMS)] == [problem.id for problem in PROBLEMS]
    falling = sorted(tokens, key=lambda problem: -tokens[problem])
    assert asked[len(PROBLEMS) :] == [problem for problem in falling for _ in range(3)]


def test_where_lengths_are_expected_the_longest_are_asked_first_with_all_of_their_samples(tmp_path: Path) -> None:
    tokens = {problem.id: 5 + 10 * number for number, problem in enumerate(PROBLEMS)}
    backend = Lengthy(tokens)
    take_works(tmp_path, [plan_of(2)] * 2, tokens, backend, concurrency=1)
    assert names(backend) == [problem.id for problem in reversed(PROBLEMS) for _ in range(2)]
