"""One verifier for generation, filtering and evaluation: is this reply right?

    from r1distill.verify import VerifierPool, verify
    verify(Problem("What is 2 + 2?", answer="4"), r"It is \\boxed{4}.").outcome   # "correct"

sympy and Math-Verify are imported in the workers only, so importing this is cheap.
"""

import atexit
import os
from functools import lru_cache

from r1distill.records import Problem, Verdict
from r1distill.verify.pool import VerifierPool

__all__ = ["VerifierPool", "verify"]

TIMEOUT_S = 10.0


def verify(problem: Problem, text: str) -> Verdict:
    """The verdict on one reply, by a worker process that stays until this program ends. Thread-safe.

    For many replies take a VerifierPool with more workers. Never raises for what a reply contains.
    """
    return default_pool(os.getpid()).verify(problem, text)


@lru_cache(maxsize=1)
def default_pool(process: int) -> VerifierPool:
    """One pool of one worker for each process: a fork must not write into its parent's pipes."""
    pool = VerifierPool(workers=1, timeout_s=TIMEOUT_S)
    atexit.register(pool.close)
    return pool
