"""The stage `verify`: traces → verdicts, one each, in the same order."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from r1distill.console import Progress
from r1distill.errors import UserError
from r1distill.records import Problem, Trace, Verdict
from r1distill.run import Clock, Run
from r1distill.sections import Verify
from r1distill.store import read_records, write_records
from r1distill.verify.early import EarlyVerdicts
from r1distill.verify.judge import judge_verdicts
from r1distill.verify.settings import open_pool


def verify_stage(run: Run, clock: Clock) -> dict[str, Any]:
    """Judge every trace of the run. Returns the counts of the outcomes, and those of the judge where there is one."""
    problems = {problem.id: problem for problem in read_records(run.problems, Problem)}
    outcomes, judge = verify_traces(run.traces, run.verdicts, problems, run.recipe.verify, clock, label="verify")
    return {"verdicts": outcomes.total(), "outcomes": dict(outcomes), **judge}


def verify_traces(
    traces: Path,
    verdicts: Path,
    problems: dict[str, Problem],
    settings: Verify,
    clock: Clock,
    *,
    label: str,
    early: EarlyVerdicts | None = None,
) -> tuple[Counter[str], dict[str, Any]]:
    """Write a verdict for each trace of a file or folder, and count the outcomes. A failed sample has none to judge.

    `early`: verdicts that were asked for while sampling. Returns the outcomes and {"judge": its counts}, {} without
    `settings.judge`.
    """
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

        def judged(item: tuple[Problem, int, str]) -> Verdict:
            problem, sample, text = item
            verdict = early.of(problem, sample, text) if early else None
            return verdict or pool.verify(problem, text, sample)

        def counted() -> Iterator[Verdict]:
            found = pool.ordered(judged, items()) if early else pool.verify_many(items())
            for verdict in found:
                outcomes[verdict.outcome] += 1
                clock.tick()
                progress.advance()
                yield verdict

        write_records(verdicts, Verdict, counted())
    if settings.judge is None:
        return outcomes, {}
    outcomes, counts = judge_verdicts(traces, verdicts, problems, settings, settings.judge, clock, f"{label}: judge")
    return outcomes, {"judge": counts}
