"""Traces, each with its problem and verdict, in pieces that a process can read by itself: the row groups of the traces.

A piece is told by a few numbers, so that another process or machine that sees the run's folder needs nothing else. Traces and
verdicts are in the order of problems.parquet, as the stages write them, so that the problems of a piece are a few of its rows.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import pyarrow.parquet as pq

from r1distill.errors import UserError
from r1distill.records import Problem, Trace, Verdict
from r1distill.run import Run
from r1distill.store import opened, read_rows

Record = TypeVar("Record")


@dataclass(frozen=True, slots=True)
class Unit:
    """Rows `start` to `start + rows` of all traces, which are row group `group` of `traces`.

    Their problems are among `n_problems` rows of `problems` from row `first_problem`.
    """

    traces: str
    group: int
    start: int
    rows: int
    verdicts: str
    problems: str
    first_problem: int
    n_problems: int


def units_of(run: Run) -> list[Unit]:
    """All pieces, in order. Only the columns of ids are read.

    Raises UserError for a trace of a problem that problems.parquet does not hold, and where traces and verdicts are not
    equally many.
    """
    place = {name: row for row, name in enumerate(ids(run.problems, "id"))}
    found, start = [], 0
    for file in sorted(run.traces.glob("*.parquet")):
        with opened(file) as parquet:
            for group in range(parquet.num_row_groups):
                names = parquet.read_row_group(group, columns=["problem_id"]).column(0).unique().to_pylist()
                if not names:
                    continue
                if lost := next((name for name in names if name not in place), None):
                    raise UserError(
                        f"{file}: a trace of problem {lost}, which {run.problems.name} does not hold; they are not of one run: "
                        "delete stages/generate.json and run `r1distill generate` again"
                    )
                rows = parquet.metadata.row_group(group).num_rows
                places = [place[name] for name in names]
                first, last = min(places), max(places)
                found.append(
                    Unit(str(file), group, start, rows, str(run.verdicts), str(run.problems), first, last - first + 1)
                )
                start += rows
    verdicts = pq.read_metadata(run.verdicts).num_rows
    if verdicts != start:
        raise UserError(
            f"{run.folder}: {start} traces and {verdicts} verdicts; delete stages/verify.json and run `r1distill verify` again"
        )
    return found


def ids(path: Path, column: str) -> Iterator[str]:
    with opened(path) as parquet:
        for batch in parquet.iter_batches(columns=[column]):
            yield from batch.column(0).to_pylist()


def read_unit(unit: Unit) -> Iterator[tuple[Problem, Trace, Verdict]]:
    """The traces of a piece in their order. Raises UserError where the verdicts are not theirs."""
    problems = {
        problem.id: problem for problem in read_rows(Path(unit.problems), Problem, unit.first_problem, unit.n_problems)
    }
    offset = group_start(unit)
    traces = read_rows(Path(unit.traces), Trace, offset, unit.rows)
    verdicts = read_rows(Path(unit.verdicts), Verdict, unit.start, unit.rows)
    for trace, verdict in zip(traces, verdicts, strict=True):
        if (trace.problem_id, trace.sample) != (verdict.problem_id, verdict.sample):
            raise UserError(
                f"{unit.traces} and {unit.verdicts} are not of one run: trace {trace.problem_id}/{trace.sample}, verdict "
                f"{verdict.problem_id}/{verdict.sample}; delete stages/verify.json and run `r1distill verify` again"
            )
        yield problems[trace.problem_id], trace, verdict


def group_start(unit: Unit) -> int:
    """The first row of its row group in the file."""
    metadata = pq.read_metadata(unit.traces)
    return sum(metadata.row_group(group).num_rows for group in range(unit.group))
