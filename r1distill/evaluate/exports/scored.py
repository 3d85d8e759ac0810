"""What is exported: one model on one benchmark, from the files of a run's evaluation."""

import datetime
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from r1distill.errors import UserError
from r1distill.evaluate.tasks import Task, load_task
from r1distill.records import Problem, Trace, Verdict
from r1distill.run import open_run
from r1distill.store import read_json, read_records

Sample = tuple[Trace, Verdict]


@dataclass(frozen=True, slots=True)
class Scored:
    """`folder` is RUN/eval/TASK/MODEL, `summary` its summary.json, `task` the benchmark's file where it is still there."""

    folder: Path
    summary: dict[str, Any]
    task: Task | None

    @property
    def name(self) -> str:
        return str(self.summary["task"])

    @property
    def title(self) -> str:
        return str(self.summary.get("title") or (self.task.title if self.task else self.name))

    @property
    def standard_error(self) -> float | None:
        """Of pass@1, over questions, which is the one that other tools report."""
        return self.summary.get("se_questions")

    @property
    def date(self) -> datetime.datetime:
        """When it was measured: as recorded, else that of the file. In UTC."""
        recorded = self.summary.get("conditions", {}).get("date")
        if recorded:
            return datetime.datetime.fromisoformat(str(recorded)).astimezone(datetime.UTC)
        return datetime.datetime.fromtimestamp((self.folder / "summary.json").stat().st_mtime, datetime.UTC)

    def problems(self) -> list[Problem]:
        return list(read_records(self.folder / "problems.parquet", Problem))

    def samples(self) -> Iterator[tuple[str, list[Sample]]]:
        """(problem id, its samples) of every question: the traces are in the order of problem and sample."""
        traces = read_records(self.folder / "traces", Trace)
        pairs = zip(traces, read_records(self.folder / "verdicts.parquet", Verdict), strict=True)
        for problem_id, samples in groupby(pairs, key=lambda pair: pair[0].problem_id):
            yield problem_id, list(samples)


def is_right(sample: Sample) -> bool:
    """As in the summary: a truncated reply counts as wrong."""
    trace, verdict = sample
    return verdict.outcome == "correct" and trace.finish_reason == "stop"


def scored_models(folder: Path) -> dict[str, list[Scored]]:
    """Model → what it was scored on, of a run's folder. Raises UserError where nothing was."""
    run = open_run(folder)
    tasks = known_tasks(run.recipe.eval.tasks)
    found: dict[str, list[Scored]] = {}
    for path in sorted(run.evaluation.glob("*/*/summary.json")):
        summary = read_json(path)
        found.setdefault(path.parent.name, []).append(Scored(path.parent, summary, tasks.get(str(summary["task"]))))
    if not found:
        raise UserError(f"{folder}: no scores in {run.evaluation}; run the stage eval first")
    return found


def known_tasks(names: list[str]) -> dict[str, Task]:
    """The files of the benchmarks by name. One that is gone is left out: its scores are still those that were measured."""
    tasks = {}
    for name in names:
        try:
            task = load_task(name)
        except UserError:
            continue
        tasks[task.name] = task
    return tasks
