"""Traces beside their verdicts, which are in the same order."""

from collections.abc import Iterable, Iterator
from itertools import zip_longest

from r1distill.errors import UserError
from r1distill.records import Trace, Verdict


def paired(traces: Iterable[Trace], verdicts: Iterable[Verdict]) -> Iterator[tuple[Trace, Verdict]]:
    """Each trace with its verdict. Raises UserError where they are not of one run."""
    for trace, verdict in zip_longest(traces, verdicts):
        if trace is None or verdict is None or (trace.problem_id, trace.sample) != (verdict.problem_id, verdict.sample):
            raise UserError(
                f"the traces and verdicts.parquet are not of one run ({name_of(trace, 'trace')}, "
                f"{name_of(verdict, 'verdict')}); delete stages/verify.json and run `r1distill verify` again"
            )
        yield trace, verdict


def name_of(record: Trace | Verdict | None, what: str) -> str:
    return f"{what} {record.problem_id}/{record.sample}" if record else f"no {what}"
