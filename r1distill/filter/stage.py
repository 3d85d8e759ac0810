"""The stage `filter`: traces and verdicts → decisions, the funnel, and the dataset that `load_dataset` opens."""

import hashlib
import shutil
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from r1distill.errors import UserError
from r1distill.filter.select import KEPT, decide, paired
from r1distill.prompting import load_prompt
from r1distill.records import Decision, Problem, Trace, Verdict
from r1distill.run import Clock, Run
from r1distill.store import ROWS_A_GROUP, read_records, replacing, write_json, write_records, write_text

EXAMPLE_SCHEMA = pa.schema(
    [
        ("problem_id", pa.string()),
        ("sample", pa.int64()),
        ("prompt", pa.string()),
        ("completion", pa.string()),
        ("messages", pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))),
        ("problem", pa.string()),
        ("thinking", pa.string()),
        ("solution", pa.string()),
        ("answer", pa.string()),
        ("source", pa.string()),
        ("license", pa.string()),
        ("model", pa.string()),
        ("n_tokens", pa.int64()),
        ("mean_entropy_nats", pa.float64()),
    ]
)


def filter_stage(run: Run, clock: Clock) -> dict[str, Any]:
    """Decide on every trace and write the kept ones as a dataset. Raises UserError when none is kept."""
    problems = {problem.id: problem for problem in read_records(run.problems, Problem)}
    reasons: Counter[tuple[str, str]] = Counter()  # (source, reason)
    temporary = run.folder / ".dataset"
    shutil.rmtree(temporary, ignore_errors=True)
    examples = Examples(run, temporary)
    pairs = paired(read_records(run.traces, Trace), read_records(run.verdicts, Verdict))

    def decisions() -> Iterator[Decision]:
        for trace, decision in decide(pairs, run.recipe.filter):
            reasons[problems[trace.problem_id].source, decision.reason] += 1
            if decision.keep:
                examples.add(problems[trace.problem_id], trace)
            clock.tick()
            yield decision

    with examples:
        write_records(run.decisions, Decision, decisions())
    funnel = funnel_of(reasons)
    write_json(run.funnel, funnel)
    if not funnel["kept"]:
        shutil.rmtree(temporary, ignore_errors=True)
        dropped = ", ".join(f"{count} {reason}" for reason, count in funnel["dropped"].items())
        raise UserError(
            f"no trace is left after filtering ({funnel['sampled']} sampled; dropped: {dropped}); "
            "sample more, a stronger teacher or a longer generate.max_tokens, or loosen [filter]; the traces are kept"
        )
    if not examples.counts["train"]:
        shutil.rmtree(temporary, ignore_errors=True)
        raise UserError(
            f"all {funnel['kept']} kept traces fall into the validation split "
            f"(filter.validation_fraction = {run.recipe.filter.validation_fraction}); make it smaller or sample more problems"
        )
    write_text(temporary / "README.md", card(run, funnel, examples.counts))
    shutil.rmtree(run.dataset, ignore_errors=True)
    temporary.replace(run.dataset)
    return {**funnel, "dataset": dict(examples.counts)}


class Examples:
    """Writes kept traces to train.parquet and validation.parquet of a folder, a row group at a time."""

    def __init__(self, run: Run, folder: Path) -> None:
        settings = run.recipe
        self.prompt = load_prompt(settings.generate.prompt, settings.generate.prefill)
        self.validation_fraction = settings.filter.validation_fraction
        self.folder = folder
        self.counts: Counter[str] = Counter()
        self.rows: dict[str, list[dict[str, Any]]] = {}
        self.writers: dict[str, pq.ParquetWriter] = {}
        self.files = ExitStack()

    def __enter__(self) -> "Examples":
        return self

    def __exit__(self, *exception: Any) -> None:
        for split in self.rows:
            self.flush(split)
        for writer in self.writers.values():
            writer.close()
        self.files.close()

    def add(self, problem: Problem, trace: Trace) -> None:
        split = "validation" if share_of(problem.id) < self.validation_fraction else "train"
        self.counts[split] += 1
        message = self.prompt.user_message(problem)
        rows = self.rows.setdefault(split, [])
        rows.append(
            {
                "problem_id": problem.id,
                "sample": trace.sample,
                "prompt": message,
                "completion": trace.text,
                "messages": [{"role": "user", "content": message}, {"role": "assistant", "content": trace.text}],
                "problem": problem.problem,
                "thinking": trace.thinking,
                "solution": trace.answer,
                "answer": problem.answer,
                "source": problem.source,
                "license": problem.license,
                "model": trace.model,
                "n_tokens": trace.n_tokens,
                "mean_entropy_nats": trace.mean_entropy_nats,
            }
        )
        if len(rows) == ROWS_A_GROUP:
            self.flush(split)

    def flush(self, split: str) -> None:
        if split not in self.writers:
            path = self.files.enter_context(replacing(self.folder / f"{split}.parquet"))
            self.writers[split] = pq.ParquetWriter(path, EXAMPLE_SCHEMA)
        self.writers[split].write_table(pa.Table.from_pylist(self.rows[split], EXAMPLE_SCHEMA))
        self.rows[split] = []


def share_of(problem_id: str) -> float:
    """A number in [0, 1) that depends on the id alone, so that a problem is on one side of the split in every run."""
    return int.from_bytes(hashlib.sha256(problem_id.encode()).digest()[:8]) / 2**64


def funnel_of(reasons: Counter[tuple[str, str]]) -> dict[str, Any]:
    """Sampled → correct → kept, with the drops by reason, in all and by source. The numbers add up: see the test."""
    sources = sorted({source for source, _ in reasons})
    return {
        **stages_of(sum_by_reason(reasons)),
        "by_source": {
            source: stages_of(Counter({reason: n for (of, reason), n in reasons.items() if of == source}))
            for source in sources
        },
    }


def sum_by_reason(reasons: Counter[tuple[str, str]]) -> Counter[str]:
    total: Counter[str] = Counter()
    for (_, reason), count in reasons.items():
        total[reason] += count
    return total


def stages_of(reasons: Counter[str]) -> dict[str, Any]:
    dropped = {reason: count for reason, count in reasons.most_common() if reason != KEPT}
    return {"sampled": reasons.total(), "kept": reasons[KEPT], "dropped": dropped}


def card(run: Run, funnel: dict[str, Any], counts: Counter[str]) -> str:
    """README.md of the dataset, with the metadata that the Hub and `load_dataset` read."""
    files = "\n".join(f"  - split: {split}\n    path: {split}.parquet" for split in sorted(counts))
    dropped = "\n".join(f"| dropped: {reason} | {count} |" for reason, count in funnel["dropped"].items())
    settings = run.recipe.generate
    return f"""---
configs:
- config_name: default
  data_files:
{files}
tags: [reasoning, distillation]
---
# Reasoning traces of {run.recipe.teacher.model}

Sampled with temperature {settings.temperature}, top_p {settings.top_p}, at most {settings.max_tokens} tokens, and
filtered by r1distill. `completion` is the whole reply; `thinking` and `solution` are its two parts, `answer` the
reference. The licences of the questions are in `license`; that of the teacher's outputs is its own.

| | traces |
| --- | --- |
| sampled | {funnel["sampled"]} |
{dropped}
| **kept** | {funnel["kept"]} |
"""
