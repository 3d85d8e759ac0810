"""The rules, in the order in which they are asked; the first that speaks gives a trace its one reason."""

from collections.abc import Iterable, Iterator
from itertools import zip_longest

from r1distill.errors import UserError
from r1distill.prompting import THINK_END, THINK_START
from r1distill.records import Decision, Trace, Verdict
from r1distill.sections import Filter

KEPT = "kept"


def reason_to_drop(trace: Trace, verdict: Verdict, settings: Filter) -> str | None:
    """The first rule that drops the trace, or None.

    A truncated trace is never taught, correct or not: it has no end, and a student would learn not to stop.
    """
    if trace.finish_reason == "error":
        return "failed"
    if trace.finish_reason != "stop":
        return "truncated" if trace.finish_reason == "length" else trace.finish_reason
    if settings.require_correct and verdict.outcome != "correct":
        return verdict.outcome
    thinks_once = trace.text.count(THINK_START) == trace.text.count(THINK_END) == 1
    if not trace.answer or (settings.require_thinking and not thinks_once):
        return "malformed"
    limit = settings.max_mean_entropy_nats
    if limit and trace.mean_entropy_nats is not None and trace.mean_entropy_nats > limit:
        return "high_entropy"
    return None


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


def decide(pairs: Iterable[tuple[Trace, Verdict]], settings: Filter) -> Iterator[tuple[Trace, Decision]]:
    """A decision for every trace. Traces of one problem come together and by sample, as the stages write them."""
    kept_of_problem: tuple[str, int] = ("", 0)
    for trace, verdict in pairs:
        reason = reason_to_drop(trace, verdict, settings)
        problem_id, kept = kept_of_problem
        kept = kept if problem_id == trace.problem_id else 0
        if reason is None and settings.max_per_problem and kept >= settings.max_per_problem:
            reason = "over_max_per_problem"
        kept_of_problem = (trace.problem_id, kept + (reason is None))
        yield trace, Decision(trace.problem_id, trace.sample, reason is None, reason or KEPT)
