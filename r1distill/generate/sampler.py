"""One scheduler for teachers and students: which sample of which problem is taken next, until each has enough.

With `stop_after_correct = k`, at most k minus the number already correct are under way for a problem, so none is ever
taken in vain and the set of samples does not depend on the machine's speed. Finished samples are in the journal before
they are counted; a restart takes only what is missing, and goes on with what a smaller limit cut off.

Several works (the benchmarks of one model) are one queue: no engine idles at the end of each. What the last samples of a
queue take is what the whole of it waits for, so the longest come first where `expected_tokens` are known or can be learned.
"""

import asyncio
import heapq
import math
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from r1distill.generate.backend import Backend
from r1distill.generate.journal import Entry, Journal
from r1distill.generate.one_sample import Judge, take
from r1distill.generate.plan import Plan
from r1distill.records import Outcome, Problem, Trace

Turn = tuple[float, int, int]


@dataclass(frozen=True, slots=True, eq=False)
class Work:
    """Samples to take of some problems, and the journal they go to.

    `expected_tokens`: of a reply, by problem id, as far as they are known. With it the longest come first, and every
    problem that nothing is known of has a first sample before any has another; without it problems come as they are given,
    each with all of its samples, and are read only as they are needed.
    """

    plan: Plan
    problems: Iterable[Problem]
    journal: Journal
    expected_tokens: Mapping[str, float] | None = None


@dataclass(frozen=True, slots=True)
class Taken:
    """A sample that is in the journal, and how many further samples of its problem it made unnecessary."""

    trace: Trace
    outcome: Outcome | None
    spared: int
    work: int = 0


@dataclass(slots=True, eq=False)
class Progress:
    """Of one problem. Compared by identity."""

    work: int
    plan: Plan
    problem: Problem
    request_sha: str
    place: int
    expected_tokens: float | None  # None: as they come
    done: dict[int, Outcome | None] = field(default_factory=dict)
    under_way: set[int] = field(default_factory=set)
    seen: list[int] = field(default_factory=list)  # tokens of the samples taken now
    turn: Turn | None = None  # that it waits with

    def next_sample(self) -> int | None:
        """The index to take now, or None while (or because) no more is wanted."""
        if len(self.under_way) >= self.plan.room(self.done.values()):
            return None
        taken = self.done.keys() | self.under_way
        return next(sample for sample in range(len(taken) + 1) if sample not in taken)

    def next_turn(self) -> Turn:
        """The lowest is the next."""
        if self.expected_tokens is None:
            return 0.0, 0, self.place
        tokens = sum(self.seen) / len(self.seen) if self.seen else self.expected_tokens
        return -tokens, len(self.done) + len(self.under_way) if math.isinf(tokens) else 0, self.place


class Queue:
    """The problems that may want another sample, each at most once with the turn that is its own now."""

    def __init__(self, waiting: Iterator[Progress]) -> None:
        self.unread = waiting  # in their order; read while nothing else wants a sample
        self.heap: list[tuple[Turn, int, Progress]] = []  # the number tells entries of one problem apart
        self.put_so_far = 0

    def put(self, progress: Progress) -> None:
        turn = progress.next_turn()
        if turn != progress.turn:  # the entry with its old one is passed over
            progress.turn = turn
            self.put_so_far += 1
            heapq.heappush(self.heap, (turn, self.put_so_far, progress))

    def next(self) -> tuple[Progress, int] | None:
        """A problem and the sample of it to take now. It stays in the queue while it may want more."""
        while True:
            if not self.heap:
                progress = next(self.unread, None)
                if progress is None:
                    return None
                self.put(progress)
            turn, _, progress = self.heap[0]
            if turn != progress.turn:
                heapq.heappop(self.heap)
            elif (sample := progress.next_sample()) is not None:
                return progress, sample
            else:
                heapq.heappop(self.heap)
                progress.turn = None  # comes back when a sample of it ends


def open_queue(works: Sequence[Work]) -> Queue:
    places = iter(range(1 << 62))

    def progress_of(number: int, work: Work) -> Iterator[Progress]:
        plan = work.plan
        finished: dict[tuple[str, str], dict[int, Outcome | None]] = {}
        for (problem_id, sample, request_sha), outcome in work.journal.finished(plan.sampling.max_tokens).items():
            if sample < max(plan.samples, plan.max_samples):  # an earlier run may have taken more
                finished.setdefault((problem_id, request_sha), {})[sample] = outcome
        for problem in work.problems:
            request_sha = plan.request_sha(problem)
            expected = None if work.expected_tokens is None else work.expected_tokens.get(problem.id, math.inf)
            done = finished.pop((problem.id, request_sha), {})
            yield Progress(number, plan, problem, request_sha, next(places), expected, done)

    queue = Queue(progress for number, work in enumerate(works) for progress in progress_of(number, work))
    if any(work.expected_tokens is not None for work in works):
        for progress in queue.unread:
            queue.put(progress)
    return queue


async def sample_all(
    works: Sequence[Work],
    backend: Backend,
    *,
    concurrency: int,
    judge: Judge | None = None,
    on_running: Callable[[int], None] = lambda running: None,
) -> AsyncGenerator[Taken, None]:
    """Take every sample that is missing, and yield each when it is in its journal.

    `judge` (blocking, called in threads) gives the outcome of a finished reply; a plan that `needs_judge` needs it, and
    the others are not judged. `on_running` is told how many are under way.
    """
    if judge is None and any(work.plan.needs_judge for work in works):
        raise ValueError("stop_after_correct and max_samples need a judge")
    cut_off = [work.journal.cut_off(work.plan.sampling.max_tokens) for work in works]
    queue = open_queue(works)
    under_way: dict[asyncio.Task[Entry], tuple[Progress, int]] = {}
    ended: asyncio.Queue[asyncio.Task[Entry]] = asyncio.Queue()

    async def take_here(progress: Progress, sample: int) -> Entry:
        plan, journal = progress.plan, works[progress.work].journal
        key = (progress.problem.id, sample, progress.request_sha)
        begun = None
        if key in cut_off[progress.work]:
            begun = await in_writer(journal.longest, key, plan.sampling.max_tokens)
        asked = judge if plan.needs_judge else None
        return await take(plan, progress.problem, sample, progress.request_sha, backend, asked, begun)

    def write(entries: Iterable[tuple[int, Entry]]) -> None:
        """Each journal in one transaction."""
        of_work: dict[int, list[Entry]] = {}
        for number, entry in entries:
            of_work.setdefault(number, []).append(entry)
        for number, several in of_work.items():
            works[number].journal.write(several)

    # a thread for the journals alone: those of the judge may all be waiting for a verdict
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
                while len(under_way) < concurrency and (start := queue.next()):
                    progress, sample = start
                    progress.under_way.add(sample)
                    queue.put(progress)
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
                await in_writer(write, [(under_way[task][0].work, entry) for task, entry in entries.items()])
                taken: list[Taken] = []
                for task in batch:
                    progress, sample = under_way.pop(task)
                    if task not in entries:
                        continue
                    entry = entries[task]
                    progress.under_way.discard(sample)
                    progress.done[sample] = entry.outcome
                    progress.seen.append(entry.trace.n_tokens)
                    queue.put(progress)
                    plan = progress.plan
                    enough = plan.is_enough(progress.done.values()) and not progress.under_way
                    spared = max(plan.samples - len(progress.done), 0) if enough else 0
                    taken.append(Taken(entry.trace, entry.outcome, spared, progress.work))
                if fault is not None:
                    raise fault
                for each in taken:
                    yield each
        finally:
            for task in under_way:
                task.cancel()
            # of those that ended at the same moment as the one that stopped all, none is lost
            results = await asyncio.gather(*under_way, return_exceptions=True)
            tasks = zip(under_way.values(), results, strict=True)
            write((progress.work, result) for (progress, _), result in tasks if not isinstance(result, BaseException))
