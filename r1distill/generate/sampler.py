"""One scheduler for teachers and students: which sample of which problem is taken next, until each has enough.

With `stop_after_correct = k`, at most k minus the number already correct are under way for a problem, so none is ever
taken in vain and the set of samples does not depend on the machine's speed. Finished samples are in the journal before
they are counted; a restart takes only what is missing, and goes on with what a smaller limit cut off.
"""

import asyncio
import dataclasses
import hashlib
import json
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable, Collection, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any

from r1distill.generate.backend import Backend, Begun, Completion, Request, SampleFailed, Sampling
from r1distill.generate.journal import Entry, Journal
from r1distill.generate.signals import Signals, TokenSignals, joined, unmeasured
from r1distill.prompting import THINK_END, Prompt, split_thinking
from r1distill.records import Outcome, Problem, Trace

THINKING_CLOSED = f"\n{THINK_END}\n\n"
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
    max_samples: int = 0  # of a problem that is not solved by its `samples`; 0 is no more than these

    def request_sha(self, problem: Problem) -> str:
        """Hash of everything that decides the text of a sample, except its index and where it is cut off."""
        sampling = self.sampling
        parts = [
            self.prompt.user_message(problem),
            self.prompt.prefill,
            [sampling.temperature, sampling.top_p, sampling.top_k],
            [self.model, self.version],
            self.seed,
            # what is off leaves no mark, so that the samples of an earlier version stay good
            *([sampling.thinking_budget] if sampling.thinking_budget else []),
        ]
        return hashlib.sha256(json.dumps(parts, ensure_ascii=False).encode()).hexdigest()[:32]

    @property
    def needs_judge(self) -> bool:
        return self.stop_after_correct > 0 or self.max_samples > self.samples

    def room(self, outcomes: Collection[Outcome | None]) -> int:
        """How many more samples of a problem with these outcomes may be under way; 0 where it has enough."""
        correct = sum(outcome == "correct" for outcome in outcomes)
        if len(outcomes) >= self.samples:  # what comes now is for want of a single correct one
            return 1 if not correct and len(outcomes) < self.max_samples else 0
        left = self.samples - len(outcomes)
        return min(left, max(self.stop_after_correct - correct, 0)) if self.stop_after_correct else left

    def is_enough(self, outcomes: Collection[Outcome | None]) -> bool:
        """Whether a problem with these outcomes wants no more samples."""
        return self.room(outcomes) == 0

    def sample_seed(self, problem: Problem, sample: int, request_sha: str) -> int:
        """A seed of 31 bits, derived from the sample's identity."""
        identity = f"{self.seed}/{problem.id}/{sample}/{request_sha}"
        return int.from_bytes(hashlib.sha256(identity.encode()).digest()[:4]) >> 1


@dataclass(frozen=True, slots=True)
class Taken:
    """A sample that is in the journal, and how many further samples of its problem it made unnecessary."""

    trace: Trace
    outcome: Outcome | None
    spared: int


@dataclass(slots=True, eq=False)
class Progress:
    """Of one problem. Compared by identity."""

    problem: Problem
    request_sha: str
    done: dict[int, Outcome | None] = field(default_factory=dict)
    under_way: set[int] = field(default_factory=set)

    def next_sample(self, plan: Plan) -> int | None:
        """The index to take now, or None while (or because) no more is wanted."""
        if len(self.under_way) >= plan.room(self.done.values()):
            return None
        taken = self.done.keys() | self.under_way
        return next(sample for sample in range(len(taken) + 1) if sample not in taken)


async def sample_all(
    plan: Plan,
    problems: Iterable[Problem],
    backend: Backend,
    journal: Journal,
    *,
    concurrency: int,
    judge: Judge | None = None,
    on_running: Callable[[int], None] = lambda running: None,
) -> AsyncGenerator[Taken, None]:
    """Take every sample that is missing, and yield each when it is in the journal.

    `judge` (blocking, called in threads) gives the outcome of a finished reply; a plan that `needs_judge` needs it.
    `on_running` is told how many are under way.
    """
    if plan.needs_judge and judge is None:
        raise ValueError("stop_after_correct and max_samples need a judge")
    finished: dict[tuple[str, str], dict[int, Outcome | None]] = {}
    for (problem_id, sample, request_sha), outcome in journal.finished(plan.sampling.max_tokens).items():
        if sample < max(plan.samples, plan.max_samples):  # an earlier run may have taken more
            finished.setdefault((problem_id, request_sha), {})[sample] = outcome
    cut_off = journal.cut_off(plan.sampling.max_tokens)

    unstarted = iter(problems)
    more_wanted: deque[Progress] = deque()  # problems that may want another sample; each is in here at most once
    under_way: dict[asyncio.Task[Entry], tuple[Progress, int]] = {}
    ended: asyncio.Queue[asyncio.Task[Entry]] = asyncio.Queue()

    def next_start() -> tuple[Progress, int] | None:
        while True:
            if not more_wanted:
                problem = next(unstarted, None)
                if problem is None:
                    return None
                request_sha = plan.request_sha(problem)
                more_wanted.append(Progress(problem, request_sha, finished.pop((problem.id, request_sha), {})))
            progress = more_wanted[0]
            sample = progress.next_sample(plan)
            if sample is not None:
                return progress, sample
            more_wanted.popleft()  # comes back when a sample of it ends

    async def take_here(progress: Progress, sample: int) -> Entry:
        key = (progress.problem.id, sample, progress.request_sha)
        begun = await in_writer(journal.longest, key, plan.sampling.max_tokens) if key in cut_off else None
        return await take(plan, progress.problem, sample, progress.request_sha, backend, judge, begun)

    # a thread for the journal alone: those of the judge may all be waiting for a verdict
    with ThreadPoolExecutor(1, thread_name_prefix="journal") as writer:

        async def in_writer(function: Callable[..., Any], *arguments: Any) -> Any:
            """A commit that has begun is waited for, whatever happens meanwhile."""
            writing = asyncio.get_running_loop().run_in_executor(writer, function, *arguments)
            try:
                return await asyncio.shield(writing)
            except asyncio.CancelledError:
                await writing
                raise

        try:
            while True:
                while len(under_way) < concurrency and (start := next_start()):
                    progress, sample = start
                    progress.under_way.add(sample)
                    task = asyncio.create_task(take_here(progress, sample))
                    under_way[task] = (progress, sample)
                    task.add_done_callback(ended.put_nowait)
                on_running(len(under_way))
                if not under_way:
                    return
                batch = [await ended.get()]
                while not ended.empty():
                    batch.append(ended.get_nowait())
                # what ended together is one transaction, and all of it is kept where one of them stops the run
                fault = next((task.exception() for task in batch if task.exception()), None)
                entries = {task: task.result() for task in batch if not task.exception()}
                await in_writer(journal.write, list(entries.values()))
                taken: list[Taken] = []
                for task in batch:
                    progress, sample = under_way.pop(task)
                    if task not in entries:
                        continue
                    entry = entries[task]
                    progress.under_way.discard(sample)
                    progress.done[sample] = entry.outcome
                    if progress not in more_wanted:
                        more_wanted.append(progress)
                    enough = plan.is_enough(progress.done.values()) and not progress.under_way
                    spared = max(plan.samples - len(progress.done), 0) if enough else 0
                    taken.append(Taken(entry.trace, entry.outcome, spared))
                if fault is not None:
                    raise fault
                for each in taken:
                    yield each
        finally:
            for task in under_way:
                task.cancel()
            # of those that ended at the same moment as the one that stopped all, none is lost
            results = await asyncio.gather(*under_way, return_exceptions=True)
            if left := [result for result in results if not isinstance(result, BaseException)]:
                journal.write(left)


async def take(
    plan: Plan,
    problem: Problem,
    sample: int,
    request_sha: str,
    backend: Backend,
    judge: Judge | None,
    begun: tuple[Trace, TokenSignals | None] | None = None,
) -> Entry:
    """One sample, and its outcome where there is a judge. A fault of this sample only becomes a trace that says so."""
    seed = plan.sample_seed(problem, sample, request_sha)
    request = Request(
        name=f"{problem.id}-{sample}-{request_sha}",
        user_message=plan.prompt.user_message(problem),
        prefill=plan.prompt.prefill,
        sampling=plan.sampling,
        seed=seed,
    )
    if begun is not None:
        text = begun[0].text.removeprefix(plan.prompt.prefill)
        # with the seed of its beginning, the rest would be drawn by the same random numbers again
        rest_seed = (seed + begun[0].n_tokens) & 0x7FFFFFFF
        request = replace(request, begun=Begun(text, begun[0].token_ids, begun[0].n_tokens), seed=rest_seed)
    started = time.monotonic()
    try:
        completion = await sample_within_budget(backend, request)
    except SampleFailed as fault:
        failed = Trace(
            problem.id, sample, plan.model, request_sha, seed, "", None, "", "error",
            seconds=time.monotonic() - started, error=str(fault),
        )  # fmt: skip
        return Entry(failed, None, plan.sampling.max_tokens)
    seconds = time.monotonic() - started
    trace, signals = to_trace(plan, problem, sample, request_sha, seed, completion, seconds, begun)
    # a reply that was cut off is never taught, so it cannot be the correct one after which sampling stops
    outcome = None
    if judge is not None and trace.finish_reason == "stop":
        outcome = await asyncio.to_thread(judge, problem, trace.text, sample)
    return Entry(trace, outcome, plan.sampling.max_tokens, signals)


async def sample_within_budget(backend: Backend, request: Request) -> Completion:
    """A sample whose thinking is closed by force after `thinking_budget` tokens, with room for the answer behind it.

    As s1's budget forcing (https://arxiv.org/abs/2501.19393), in one direction. Raises what the backend raises.
    """
    sampling, begun = request.sampling, request.begun
    budget, n_begun = sampling.thinking_budget, begun.n_tokens if begun else 0
    if not budget or budget >= sampling.max_tokens or (begun and (THINK_END in begun.text or n_begun > budget)):
        return await backend.sample(request)
    if n_begun < budget:
        first = await backend.sample(replace(request, sampling=replace(sampling, max_tokens=budget)))
        text = whole_text(first, request.prefill).removeprefix(request.prefill)
        if first.finish_reason != "length" or first.n_tokens < budget:
            return first  # it ended by itself, in a loop, or with the context
        begun = Begun(text, first.token_ids, first.n_tokens)
    else:
        first = None
    assert begun is not None
    forced = "" if THINK_END in begun.text else THINKING_CLOSED
    seed = (request.seed + budget) & 0x7FFFFFFF
    rest = await backend.sample(replace(request, begun=replace(begun, forced=forced), seed=seed))
    if rest.signals is None:
        return rest
    n_forced = rest.n_tokens - begun.n_tokens - len(rest.signals)
    parts = [first.signals] if first and first.signals is not None else []
    return replace(rest, signals=joined([*parts, unmeasured(max(n_forced, 0)), rest.signals]))


def to_trace(
    plan: Plan,
    problem: Problem,
    sample: int,
    request_sha: str,
    seed: int,
    completion: Completion,
    seconds: float,
    begun: tuple[Trace, TokenSignals | None] | None,
) -> tuple[Trace, TokenSignals | None]:
    text = whole_text(completion, plan.prompt.prefill)
    thinking, answer = split_thinking(text)
    before, signals_before = begun or (None, None)
    parts = [part for part in (signals_before, completion.signals) if part is not None]
    # of half a trace there is no mean
    signals = joined(parts) if before is None or signals_before is not None else None
    whole = signals.summary() if signals else None
    cut = completion.n_thinking_tokens
    if cut is None and thinking is not None and not answer and signals:
        cut = len(signals)  # cut off while it thought
    trace = Trace(
        problem_id=problem.id,
        sample=sample,
        model=plan.model,
        request_sha=request_sha,
        seed=seed,
        text=text,
        thinking=thinking,
        answer=answer,
        finish_reason=completion.finish_reason,
        token_ids=completion.token_ids,
        n_prompt_tokens=completion.n_prompt_tokens,
        n_tokens=completion.n_tokens,
        logprobs=whole.logprobs if whole else None,
        mean_logprob=whole.mean_logprob if whole else None,
        mean_entropy_nats=whole.mean_entropy_nats if whole else None,
        mean_entropy_upper_nats=whole.mean_entropy_upper_nats if whole else None,
        p95_entropy_nats=whole.p95_entropy_nats if whole else None,
        high_entropy_share=whole.high_entropy_share if whole else None,
        thinking_signals=as_columns(signals[:cut].summary()) if signals and cut is not None else None,
        answer_signals=as_columns(signals[cut:].summary()) if signals and cut is not None else None,
        continued_from=before.n_tokens if before else None,
        seconds=seconds + (before.seconds if before else 0.0),
    )
    return trace, signals


def as_columns(signals: Signals | None) -> dict[str, float | None] | None:
    return None if signals is None else {**dataclasses.asdict(signals)}


def whole_text(completion: Completion, prefill: str) -> str:
    """The reply as the model wrote it, from its `<think>` on: what a server split off or left out is put back."""
    if completion.thinking is not None:
        end = f"\n</think>\n\n{completion.text.lstrip()}" if completion.text else ""
        whole = f"<think>\n{completion.thinking.strip()}{end}"
        return whole if whole.startswith(prefill) else f"{prefill}{completion.thinking.rstrip()}{end}"
    if completion.text.startswith(prefill):  # some servers return the forced start, most do not
        return completion.text
    return prefill + completion.text
