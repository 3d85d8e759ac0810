"""Worker processes that judge replies and are killed from outside at the deadline.

The limit is not a signal in the process that computes: Math-Verify's is, and it hangs where sympy sits in C code or
swallows the exception (https://github.com/huggingface/Math-Verify/issues/65).
"""

import contextlib
import os
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Any, TypeVar, get_args

from r1distill.errors import UserError
from r1distill.records import Outcome, Problem, Verdict
from r1distill.verify.code import CodePool, CodeSettings
from r1distill.verify.quick import VERIFIER, quick_fields
from r1distill.verify.worker import cut
from r1distill.verify.workers import Nursery, Worker, WorkerDied

LOOK_AHEAD = 64  # items a worker, so that none idles while the first of the row is slow
OUTCOMES = get_args(Outcome)
CODE_VERIFIER = "r1distill code 2"  # raise it when a rule changes so that a verdict could differ

Item = TypeVar("Item")
Result = TypeVar("Result")


class VerifierPool:
    """`workers` processes, started when first needed, each item killed after `timeout_s` seconds.

    Thread-safe: any number of threads may call `verify` at once, each waits for an idle worker. Starting a worker does
    not count against the deadline of an item. Use it as a context manager; `close` kills every worker.
    """

    def __init__(
        self,
        workers: int = 1,
        timeout_s: float = 10.0,
        memory_gb: float = 4.0,
        code: CodeSettings = CodeSettings(),  # noqa: B008 - frozen
    ) -> None:
        if workers < 1 or timeout_s <= 0 or memory_gb <= 0:
            raise UserError(
                f"workers = {workers}, timeout_s = {timeout_s}, memory_gb = {memory_gb}: all of them must be positive"
            )
        self.workers, self.timeout_s, self.memory_gb = workers, timeout_s, memory_gb
        self.code_settings = code
        self.code: CodePool | None = None  # started by the first code problem
        self.idle: queue.LifoQueue[Worker | None] = queue.LifoQueue()  # None: one that is not started
        for _ in range(workers):
            self.idle.put(None)
        self.lock = threading.Lock()
        self.alive: set[Worker] = set()
        self.nursery: Nursery | None = None  # only the starter's thread makes one
        self.closed = False
        self.owner = os.getpid()
        # Linux sends a child its parent-death signal when the *thread* that started it ends, so that one thread
        # which lives as long as the pool starts them all.
        self.starter = ThreadPoolExecutor(1, thread_name_prefix="verifier-start")

    def __enter__(self) -> "VerifierPool":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Kill every worker. Items still being judged raise RuntimeError in the threads that wait for them."""
        waiting: list[None] = []
        if self.owner != os.getpid():
            return  # a fork inherited the pool, but the workers are its parent's
        with self.lock:
            self.closed = True
        if self.code is not None:
            self.code.close()
        with contextlib.suppress(RuntimeError):  # closed twice
            self.starter.submit(self.end_here).result()  # behind the starts that are under way
        self.starter.shutdown()
        # A busy worker's pipes are closed by the thread that reads from them, those of the idle ones here.
        with contextlib.suppress(queue.Empty):
            for _ in range(self.workers):
                if worker := self.idle.get_nowait():
                    worker.close()
                waiting.append(None)
        for slot in waiting:
            self.idle.put(slot)

    def verify(self, problem: Problem, text: str, sample: int = 0) -> Verdict:
        """The verdict on one reply. Never raises for what a reply contains; UserError if no worker can be started."""
        return self.verify_timed(problem, text, sample)[0]

    def verify_timed(self, problem: Problem, text: str, sample: int = 0) -> tuple[Verdict, float]:
        """The verdict and how many seconds it took, without the wait for an idle worker and its start."""
        if (verdict := quick_verdict(problem, text, sample)) is not None:
            return verdict, 0.0
        return self.judge(problem, text, sample)

    def judge(self, problem: Problem, text: str, sample: int) -> tuple[Verdict, float]:
        """As verify_timed, of what the calling process could not decide."""
        if problem.kind == "code":
            return self.verify_program(problem, text, sample)
        worker = self.idle.get()
        try:
            if worker is not None and worker.has_ended():  # it died while idle: not the item's fault
                self.discard(worker)
                worker = None
            if worker is None:
                worker = self.start()
            started = time.monotonic()
            reply = self.ask(worker, problem, text)
            seconds = time.monotonic() - started
            if reply.pop("retire", True):
                self.discard(worker)
                worker = None
            with self.lock:
                if self.closed:
                    raise RuntimeError("the verifier pool was closed while it judged")
        except BaseException:  # also KeyboardInterrupt: the worker still owes a reply, which is nobody else's
            if worker is not None:
                self.discard(worker)
                worker = None
            raise
        finally:
            self.idle.put(worker)
        verdict = Verdict(problem_id=problem.id, sample=sample, **reply)
        return verdict, seconds

    def verify_program(self, problem: Problem, text: str, sample: int) -> tuple[Verdict, float]:
        """As verify_timed, by running the program. Raises UserError where no sandbox works."""
        with self.lock:
            if self.closed:
                raise RuntimeError("the verifier pool is closed")
            if self.code is None:
                self.code = CodePool(self.workers, self.code_settings)
        (outcome, extracted, detail), seconds = self.code.check(problem, text)
        verdict = Verdict(
            problem.id, sample, outcome, cut(extracted), detail, f"{CODE_VERIFIER} / {self.code.tier.version}"
        )
        return verdict, seconds

    def verify_many(self, items: Iterable[tuple[Problem, int, str]]) -> Iterator[Verdict]:
        """Verdicts of (problem, sample, text) in the order of the items, which are read only a little ahead."""
        return self.ordered(
            lambda item: self.judge(item[0], item[2], item[1])[0],
            items,
            quick=lambda item: quick_verdict(item[0], item[2], item[1]),
        )

    def equivalent(self, first: str, second: str) -> bool | None:
        """Whether two mathematical answers are equal; None where a comparison ended without a result (deadline, fault).

        Math-Verify's comparison is not symmetric by design (the reference comes first), so both directions are asked, the
        second only where the first says no.
        """
        for gold, answer in ((first, second), (second, first)):
            verdict = self.verify(Problem("", answer=gold, id="-"), rf"\boxed{{{answer}}}")
            if verdict.outcome in ("timeout", "error"):
                return None
            if verdict.outcome == "correct":
                return True
        return False

    def ordered(
        self,
        function: Callable[[Item], Result],
        items: Iterable[Item],
        quick: Callable[[Item], Result | None] = lambda item: None,
    ) -> Iterator[Result]:
        """`map` over the workers: in order, with at most LOOK_AHEAD items a worker in memory.

        `quick` is asked first, in this thread: handing an item to another takes longer than most verdicts.
        """
        pending: deque[Future[Result] | Result] = deque()
        threads = ThreadPoolExecutor(self.workers, thread_name_prefix="verifier")
        try:
            for item in items:
                result = quick(item)
                if result is not None and not pending:
                    yield result
                    continue
                pending.append(threads.submit(function, item) if result is None else result)
                while pending and (len(pending) >= LOOK_AHEAD * self.workers or is_ready(pending[0])):
                    yield finished(pending.popleft())
            while pending:
                yield finished(pending.popleft())
        finally:
            threads.shutdown(wait=True, cancel_futures=True)

    def start(self) -> Worker:
        with self.lock:
            if self.closed:
                raise RuntimeError("the verifier pool is closed")
            future = self.starter.submit(self.start_here)
        return future.result()

    def start_here(self) -> Worker:
        """Start a worker from this thread, and note it at once: the thread that asked may have been interrupted."""
        if self.nursery is None or not self.nursery.is_alive():
            self.nursery = Nursery(self.memory_gb)
        worker = self.nursery.start()
        with self.lock:
            self.alive.add(worker)
        return worker

    def end_here(self) -> None:
        with self.lock:
            workers, self.alive = self.alive, set()
        for worker in workers:
            worker.end()
        if self.nursery is not None:
            self.nursery.close()

    def discard(self, worker: Worker) -> None:
        with self.lock:
            self.alive.discard(worker)
        worker.close()

    def ask(self, worker: Worker, problem: Problem, text: str) -> dict[str, Any]:
        """The fields of the verdict, and under "retire" whether the worker has to go."""
        question = {"kind": problem.kind, "answer": problem.answer, "choices": problem.choices, "text": text}
        try:
            reply = worker.ask(question, self.timeout_s)
        except TimeoutError:
            return failure("timeout", f"no verdict within {self.timeout_s:g} s", worker.version)
        except WorkerDied as error:
            return failure("error", str(error), worker.version)
        outcome, extracted, detail = reply.get("outcome"), reply.get("extracted"), reply.get("detail")
        if outcome not in OUTCOMES or not isinstance(detail, str) or not isinstance(extracted, str | None):
            return failure("error", "the worker's reply is not a verdict", worker.version)
        return {
            "outcome": outcome,
            "extracted": extracted,
            "detail": detail,
            "verifier": worker.version,
            "retire": reply.get("retire") is not False,
        }


def quick_verdict(problem: Problem, text: str, sample: int) -> Verdict | None:
    fields = quick_fields(problem.answer, text) if problem.kind == "math" else None
    if fields is None:
        return None
    outcome, extracted, detail = fields
    return Verdict(problem.id, sample, outcome, cut(extracted), detail, VERIFIER)


def is_ready(pending: Any) -> bool:
    return not isinstance(pending, Future) or pending.done()


def finished(pending: Any) -> Any:
    return pending.result() if isinstance(pending, Future) else pending


def failure(outcome: Outcome, detail: str, version: str) -> dict[str, Any]:
    return {"outcome": outcome, "extracted": None, "detail": detail, "verifier": version, "retire": True}
