"""The stage `verify`: traces → verdicts, one each, in the same order."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from r1distill.console import Progress
from r1distill.errors import UserError
from r1distill.recipe import Verify
from r1distill.records import Problem, Trace, Verdict
from r1distill.run import Clock, Run
from r1distill.store import read_records, write_records
from r1distill.verify.code import CodeSettings
from r1distill.verify.pool import VerifierPool


def verify_stage(run: Run, clock: Clock) -> dict[str, Any]:
    """Judge every trace of the run. Returns the counts of the outcomes."""
    problems = {problem.id: problem for problem in read_records(run.problems, Problem)}
    outcomes = verify_traces(run.traces, run.verdicts, problems, run.recipe.verify, clock, label="verify")
    return {"verdicts": outcomes.total(), "outcomes": dict(outcomes)}


def open_pool(settings: Verify) -> VerifierPool:
    """The pool that the recipe asks for."""
    return VerifierPool(settings.workers, settings.timeout_s, settings.memory_gb, code_settings(settings))


def code_settings(settings: Verify) -> CodeSettings:
    return CodeSettings(
        allow_unsafe=settings.sandbox == "unsafe",
        test_timeout_s=settings.test_timeout_s,
        total_timeout_s=settings.total_timeout_s,
        memory_gb=settings.program_memory_gb,
    )


def verify_traces(
    traces: Path, verdicts: Path, problems: dict[str, Problem], settings: Verify, clock: Clock, *, label: str
) -> Counter[str]:
    """Write a verdict for each trace of a file or folder, and count the outcomes. A failed sample has none to judge."""
    files = sorted(traces.glob("*.parquet")) if traces.is_dir() else [traces]
    total = sum(pq.read_metadata(file).num_rows for file in files)
    if not total:
        raise UserError(f"{traces}: no traces to verify; generate some first")
    outcomes: Counter[str] = Counter()

    def items() -> Iterator[tuple[Problem, int, str]]:
        for trace in read_records(traces, Trace):
            yield problems[trace.problem_id], trace.sample, trace.text

    with (
        open_pool(settings) as pool,
        Progress(label, total) as progress,
    ):

        def counted() -> Iterator[Verdict]:
            for verdict in pool.verify_many(items()):
                outcomes[verdict.outcome] += 1
                clock.tick()
                progress.advance()
                yield verdict

        write_records(verdicts, Verdict, counted())
    return outcomes
