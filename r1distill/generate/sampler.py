"""One scheduler for teachers and students: which sample of which problem is taken next, until each has enough.

With `stop_after_correct = k`, at most k minus the number already correct are under way for a problem, so none is ever
taken in vain and the set of samples does not depend on the machine's speed. Finished samples are in the journal before
they are counted; a restart takes only what is missing.
"""

import asyncio
import hashlib
import json
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterable
from dataclasses import dataclass, field

from r1distill.generate.backend import Backend, Completion, Request, SampleFailed, Sampling
from r1distill.generate.journal import Journal
from r1distill.prompting import Prompt, split_thinking
from r1distill.records import Outcome, Problem, Trace

Judge = Callable[[Problem, str, int], Outcome]


@dataclass(frozen=True, slots=True)
class Plan:
    """What to sample: all that decides the texts, and how many of them."""

    model: str
    version: str  # of the model: its revision, or which training made it
    prompt: Prompt
    sampling: Sampling
    seed: int
    samples: int
    stop_after_correct: int

    def request_sha(self, problem: Problem) -> str:
        """Hash of everything that decides the text of a sample, except its index."""
        sampling = self.sampling
        parts = [
            self.prompt.user_message(problem),
            self.prompt.prefill,
            [sampling.temperature, sampling.top_p, sampling.top_k, sampling.max_tokens],
            [self.model, self.version],
            self.seed,
        ]
        return hashlib.sha256(json.dumps(parts, ensure_ascii=False).encode()).hexdigest()[:32]

    def is_enough(self, outcomes: Iterable[Outcome | None]) -> bool:
        """Whether a problem with these outcomes wants no more samples, however many are left."""
        correct = sum(outcome == "correct" for outcome in outcomes)
        return bool(self.stop_after_correct) and correct >= self.stop_after_correct

    def sample_seed(self, problem: Problem, sample: int, request_sha: str) -> int:
        """A seed of 31 bits, derived from the sample's identity."""
        identity = f"{self.seed}/{problem.id}/{sample}/{request_sha}"
        return int.from_bytes(hashlib.sha256(identity.encode()).digest()[:4]) >> 1


@dataclass(slots=True, eq=False)
class Progress:
    """Of one problem. Compared by identity."""

    problem: Problem
    request_sha: str
    done: dict[int, Outcome | None] = field(default_factory=dict)
    under_way: set[int] = field(default_factory=set)

    def next_sample(self, plan: Plan) -> int | None:
        """The index to take now, or None while (or because) no more is wanted."""
        if plan.stop_after_correct:
            correct = sum(outcome == "correct" for outcome in self.done.values())
            if correct + len(self.under_way) >= plan.stop_after_correct:
                return None
        taken = self.done.keys() | self.under_way
        return next((sample for sample in range(plan.samples) if sample not in taken), None)


async def sample_all(
    plan: Plan,
    problems: Iterable[Problem],
    backend: Backend,
    journal: Journal,
    *,
    concurrency: int,
    judge: Judge | None = None,
) -> AsyncGenerator[tuple[Trace, int], None]:
    """Take every sample that is missing, and yield each when it is in the journal.

    With it comes how many further samples of its problem it made unnecessary (`stop_after_correct`).

    `judge` (blocking, called in threads) gives the outcome of a finished reply; it is needed with `stop_after_correct`.
    """
    if plan.stop_after_correct and judge is None:
        raise ValueError("stop_after_correct needs a judge")
    finished: dict[tuple[str, str], dict[int, Outcome | None]] = {}
    for (problem_id, sample, request_sha), outcome in journal.finished().items():
        if sample < plan.samples:  # an earlier run may have taken more
            finished.setdefault((problem_id, request_sha), {})[sample] = outcome

    unstarted = iter(problems)
    more_wanted: deque[Progress] = deque()  # problems that may want another sample; each is in here at most once
    under_way: dict[asyncio.Task[tuple[Trace, Outcome | None]], tuple[Progress, int]] = {}

    def next_start() -> tuple[Progress, int] | None:
        while True:
            if not more_wanted:
                problem = next(unstarted, None)
                if problem is None:
                    return None
                request_sha = plan.request_sha(problem)
                more_wanted.append(Progress(problem, request_sha, finished.get((problem.id, request_sha), {})))
            progress = more_wanted[0]
            sample = progress.next_sample(plan)
            if sample is not None:
                return progress, sample
            more_wanted.popleft()  # comes back when a sample of it ends

    try:
        while True:
            while len(under_way) < concurrency and (start := next_start()):
                progress, sample = start
                progress.under_way.add(sample)
                task = asyncio.create_task(take(plan, progress, sample, backend, judge))
                under_way[task] = (progress, sample)
            if not under_way:
                return
            ended, _ = await asyncio.wait(under_way, return_when=asyncio.FIRST_COMPLETED)
            for task in ended:
                trace, outcome = task.result()
                journal.append(trace, outcome)
                progress, sample = under_way.pop(task)
                progress.under_way.discard(sample)
                progress.done[sample] = outcome
                if progress not in more_wanted:
                    more_wanted.append(progress)
                yield trace, plan.samples - len(progress.done) if plan.is_enough(progress.done.values()) else 0
    finally:
        for task in under_way:
            task.cancel()
        # of those that ended at the same moment as the one that stopped all, none is lost
        for result in await asyncio.gather(*under_way, return_exceptions=True):
            if not isinstance(result, BaseException):
                journal.append(*result)


async def take(
    plan: Plan, progress: Progress, sample: int, backend: Backend, judge: Judge | None
) -> tuple[Trace, Outcome | None]:
    """One sample, and its outcome where there is a judge. A fault of this sample only becomes a trace that says so."""
    problem = progress.problem
    seed = plan.sample_seed(problem, sample, progress.request_sha)
    request = Request(
        name=f"{problem.id}-{sample}-{progress.request_sha}",
        user_message=plan.prompt.user_message(problem),
        prefill=plan.prompt.prefill,
        sampling=plan.sampling,
        seed=seed,
    )
    started = time.monotonic()
    try:
        completion = await backend.sample(request)
    except SampleFailed as fault:
        failed = Trace(
            problem.id, sample, plan.model, progress.request_sha, seed, "", None, "", "error",
            seconds=time.monotonic() - started, error=str(fault),
        )  # fmt: skip
        return failed, None
    trace = to_trace(plan, progress, sample, seed, completion, time.monotonic() - started)
    # a reply that was cut off is never taught, so it cannot be the correct one after which sampling stops
    judged = judge if trace.finish_reason == "stop" else None
    return trace, await asyncio.to_thread(judged, problem, trace.text, sample) if judged else None


def to_trace(plan: Plan, progress: Progress, sample: int, seed: int, completion: Completion, seconds: float) -> Trace:
    text = whole_text(completion, plan.prompt.prefill)
    thinking, answer = split_thinking(text)
    signals = completion.signals
    return Trace(
        problem_id=progress.problem.id,
        sample=sample,
        model=plan.model,
        request_sha=progress.request_sha,
        seed=seed,
        text=text,
        thinking=thinking,
        answer=answer,
        finish_reason=completion.finish_reason,
        token_ids=completion.token_ids,
        n_prompt_tokens=completion.n_prompt_tokens,
        n_tokens=completion.n_tokens,
        logprobs=signals.logprobs if signals else None,
        mean_logprob=signals.mean_logprob if signals else None,
        mean_entropy_nats=signals.mean_entropy_nats if signals else None,
        mean_entropy_upper_nats=signals.mean_entropy_upper_nats if signals else None,
        p95_entropy_nats=signals.p95_entropy_nats if signals else None,
        seconds=seconds,
    )


def whole_text(completion: Completion, prefill: str) -> str:
    """The reply as the model wrote it, from its `<think>` on: what a server split off or left out is put back."""
    if completion.thinking is not None:
        end = f"\n</think>\n\n{completion.text.lstrip()}" if completion.text else ""
        whole = f"<think>\n{completion.thinking.strip()}{end}"
        return whole if whole.startswith(prefill) else f"{prefill}{completion.thinking.rstrip()}{end}"
    if completion.text.startswith(prefill):  # some servers return the forced start, most do not
        return completion.text
    return prefill + completion.text
