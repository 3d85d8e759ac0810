"""A run that was sampled, verified, tagged and filtered, from a few words for each trace."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from small_run import small_run

from r1distill.filter.stage import filter_stage
from r1distill.filter.tagging import tag, write_tags
from r1distill.prompting import split_thinking
from r1distill.records import Problem, Trace, Verdict
from r1distill.run import Clock, Run
from r1distill.store import write_json, write_records

GOOD = "<think>\n1 + 1 = 2\n</think>\n\n\\boxed{2}"
SIGNALS = {"n_tokens": 7, "mean_logprob": -0.25}


def problem(name: str, **fields: Any) -> Problem:
    return Problem(
        **{"problem": f"What is {name}?", "answer": "2", "source": "set", "license": "MIT", "id": name, **fields}
    )


def trace(name: str, sample: int = 0, text: str = GOOD, **fields: Any) -> Trace:
    thinking, answer = split_thinking(text)
    known: dict[str, Any] = {
        "n_tokens": 20, "n_prompt_tokens": 9, "mean_entropy_nats": 0.3, "thinking_signals": SIGNALS, "token_ids": [1, 2, 3],
    }  # fmt: skip
    return Trace(
        name, sample, "teacher", f"sha of {name}", sample, text, thinking, answer, "stop", **{**known, **fields}
    )


def filtered(
    folder: Path,
    problems: Sequence[Problem],
    traces: Sequence[Trace],
    /,
    *,
    wrong: Sequence[tuple[str, int]] = (),
    tags: pa.Table | None = None,
    **sections: Any,
) -> Run:
    """The run with its stage filter done; the traces in `wrong` are incorrect, and `tags` stand in for what was measured."""
    run = sampled(folder, problems, traces, wrong=wrong, **sections)
    if tags is not None:
        tag(run, Clock(run, "filter"))
        put_tags(run, tags)
    counts = filter_stage(run, Clock(run, "filter"))
    write_json(run.record_path("filter"), {"stage": "filter", "status": "done", "seconds": 1.0, "counts": counts})
    return run


def sampled(
    folder: Path,
    problems: Sequence[Problem],
    traces: Sequence[Trace],
    /,
    *,
    wrong: Sequence[tuple[str, int]] = (),
    **sections: Any,
) -> Run:
    # the replies of most tests are all the same words
    filter = {"drop_duplicates": False, **sections.pop("filter", {})}
    run = small_run(folder, filter=filter, **sections)
    write_records(run.problems, Problem, problems)
    half = len(traces) // 2  # two files, as a run that was continued may have
    write_records(run.traces / "00000.parquet", Trace, traces[:half])
    write_records(run.traces / "00001.parquet", Trace, traces[half:])
    verdicts = [
        Verdict(t.problem_id, t.sample, "incorrect" if (t.problem_id, t.sample) in wrong else "correct") for t in traces
    ]
    write_records(run.verdicts, Verdict, verdicts)
    write_json(run.folder / "recipe.json", {"recipe": run.recipe.model_dump()})
    return run


def put_tags(run: Run, columns: pa.Table) -> None:
    """Put columns, in the order of the traces, in the place of those of tags.parquet."""
    table = pq.read_table(run.tags)
    for name in columns.column_names:
        field = table.schema.field(name)
        table = table.set_column(table.schema.get_field_index(name), field, columns[name].cast(field.type))
    write_tags(run.tags, table)


def many(n: int = 40, samples: int = 2) -> tuple[list[Problem], list[Trace]]:
    """Problems of two sources and their traces."""
    names = [f"{number:03}" for number in range(n)]
    problems = [
        problem(name, source=f"set {number % 2}", license=["MIT", "CC-BY-NC-4.0"][number % 2])
        for number, name in enumerate(names)
    ]
    traces = [
        trace(name, sample, n_tokens=100 * number + sample, mean_entropy_nats=number / 100)
        for number, name in enumerate(names)
        for sample in range(samples)
    ]
    return problems, traces
