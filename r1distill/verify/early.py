"""Verdicts on replies while others are still being sampled, for the stage that writes them when all are there."""

import threading
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType

from r1distill.records import Problem, Trace, Verdict
from r1distill.verify.pool import VerifierPool

MOST_WAITING = 2048  # replies that wait for their turn; what comes beyond them is judged when all are there


class EarlyVerdicts:
    """Judges what it is given in the threads of its own, never more than the pool has workers. A context manager.

    A fault of a verdict is raised by `of`, where it is asked for.
    """

    def __init__(self, pool: VerifierPool) -> None:
        self.pool = pool
        self.threads = ThreadPoolExecutor(pool.workers, thread_name_prefix="early-verdict")
        self.room = threading.Semaphore(MOST_WAITING)
        self.found: dict[tuple[str, int], tuple[int, Future[Verdict]]] = {}

    def __enter__(self) -> "EarlyVerdicts":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.threads.shutdown(wait=True, cancel_futures=True)

    def submit(self, problem: Problem, trace: Trace) -> None:
        """Returns at once; what there is no room for is left out."""
        if not self.room.acquire(blocking=False):
            return
        future = self.threads.submit(self.pool.verify, problem, trace.text, trace.sample)
        future.add_done_callback(lambda _: self.room.release())
        self.found[problem.id, trace.sample] = (hash(trace.text), future)

    def of(self, problem: Problem, sample: int, text: str) -> Verdict | None:
        """The verdict on this very text, waited for; None where it was not submitted."""
        text_hash, future = self.found.get((problem.id, sample), (None, None))
        return future.result() if future is not None and text_hash == hash(text) else None
