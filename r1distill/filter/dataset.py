"""The dataset of a run: its kept traces as Parquet that `datasets.load_dataset` opens, each with all that is known of it."""

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from r1distill.filter.problem_rows import ProblemRows, not_of_one_run
from r1distill.prompting import Prompt, load_prompt
from r1distill.records import Problem
from r1distill.run import Run
from r1distill.store import BYTES_A_GROUP, ROWS_A_GROUP, remade_by, replacing, unreadable

TRACES_AT_ONCE = 256
KEYS = ["problem_id", "sample"]
MESSAGES = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))
EXAMPLE_SCHEMA = pa.schema(
    [
        ("problem_id", pa.string()),
        ("sample", pa.int64()),
        ("prompt", pa.string()),
        ("completion", pa.string()),
        ("messages", MESSAGES),
        ("problem", pa.string()),
        ("thinking", pa.string()),
        ("solution", pa.string()),
        ("answer", pa.string()),
        ("source", pa.string()),
        ("license", pa.string()),
        ("model", pa.string()),
        ("n_tokens", pa.int64()),
        ("mean_entropy_nats", pa.float64()),
        ("finish_reason", pa.string()),
        ("outcome", pa.string()),
        ("n_prompt_tokens", pa.int64()),
        ("n_thinking_tokens", pa.int64()),
        ("pools", pa.list_(pa.string())),
        ("sha256", pa.string()),
        ("revision", pa.string()),
        ("request_sha", pa.string()),
        ("seed", pa.int64()),
    ]
)
COLUMNS = {
    "problem_id, sample": "the problem, by a hash of its content, and which of its samples this is",
    "prompt, completion": "what the teacher was asked, and its whole reply",
    "messages": "the two as a chat; the reasoning is in the reply, between `<think>` and `</think>`",
    "problem, answer": "the question alone, and the reference",
    "thinking, solution": "the two parts of the reply",
    "source, license": "where the question is from, and under which licence",
    "model, revision": "the teacher",
    "n_tokens, n_prompt_tokens, n_thinking_tokens": "tokens of the teacher's: reply, prompt, and reply up to `</think>`",
    "mean_entropy_nats": "mean entropy of the teacher's tokens, the lower bound",
    "finish_reason, outcome": "why the reply ended, and what the verifier says of it",
    "pools": "the sampling pools that the example is in",
    "sha256": "of `messages`, as JSON with sorted keys and without spaces, in UTF-8",
    "request_sha, seed": "hash of all that decides the text but the sample's number, and the seed",
}
# what the columns of traces are that were not sampled here
COLUMNS_OF_OTHERS = {
    "prompt, completion": "the question as the student is asked it, and the whole reply, which was given to another prompt",
    "n_tokens, n_prompt_tokens, n_thinking_tokens": "tokens of the reply as the set counted them, if it did; the rest is unknown",
    "mean_entropy_nats": "unknown, as nothing of the sampling but its text is",
    "finish_reason, outcome": "whether the reply ended, by the set or by its text; what the verifier, or the set's label, says",
    "request_sha, seed": "hash of the reply; no seed is known",
}
# of a trace; its token ids, which are most of a file, are not among them
TRACE_COLUMNS = (
    "problem_id", "sample", "model", "request_sha", "seed", "text", "thinking", "answer", "finish_reason",
    "n_prompt_tokens", "n_tokens", "mean_entropy_nats", "thinking_signals",
)  # fmt: skip


def write_dataset(
    run: Run, folder: Path, held_out: NDArray[np.bool_], tick: Callable[[], None] = lambda: None
) -> Counter[str]:
    """Write what decisions.parquet keeps to train.parquet and validation.parquet of `folder`. Returns the rows of each.

    `held_out (N,)`: which of the traces are for validation, if they are kept. Traces, verdicts, decisions and tags are read
    side by side, `TRACES_AT_ONCE` of them at a time. `tick` is called for each such batch. Raises UserError where they are
    not of one run.
    """
    settings = run.recipe
    prompt = load_prompt(settings.generate.prompt, settings.generate.prefill)
    # of traces of others neither is known
    unknown = {} if settings.traces is None else {"revision": None, "seed": None}
    tags = run.tags
    tag_columns = measured_tags(tags) if tags.is_file() else []
    with ExitStack() as files:
        problems = files.enter_context(ProblemRows(run.problems))
        verdicts = Rows(files.enter_context(opened(run.verdicts, "verify")), ["problem_id", "sample", "outcome"])
        decisions = Rows(files.enter_context(opened(run.decisions, "filter")), ["problem_id", "sample", "keep"])
        beside = {"verdicts.parquet": verdicts, "decisions.parquet": decisions}
        if tags.is_file():
            beside[tags.name] = Rows(files.enter_context(opened(tags, "filter")), [*KEYS, *tag_columns])
        writer = files.enter_context(Splits(folder))
        start = 0
        for traces in batches(run.traces):
            taken = {name: rows.take(len(traces)) for name, rows in beside.items()}
            for name, rows in taken.items():
                check_same_traces(traces, rows, name)
            kept = taken["decisions.parquet"]["keep"]
            outcomes = taken["verdicts.parquet"]["outcome"].filter(kept).to_pylist()
            of_tags = taken[tags.name].select(tag_columns).filter(kept) if tags.name in taken else pa.table({})
            rows = [
                {**example(problems[row["problem_id"]], row, outcome, prompt, settings.teacher.revision), **unknown}
                for row, outcome in zip(traces.filter(kept).to_pylist(), outcomes, strict=True)
            ]
            later = pa.array(held_out[start : start + len(traces)])
            start += len(traces)
            writer.add(with_tags(rows, of_tags), later.filter(kept.combine_chunks()))
            tick()
        for name, rows in beside.items():
            if len(rows.take(1)):
                raise not_of_one_run(name)
    return writer.counts


def example(
    problem: Problem, row: dict[str, Any], outcome: str, prompt: Prompt, revision: str | None
) -> dict[str, Any]:
    """A row of the dataset, without the tags, from a trace's columns."""
    message = prompt.user_message(problem)
    messages = [{"role": "user", "content": message}, {"role": "assistant", "content": row["text"]}]
    of_thinking = json.loads(row.get("thinking_signals") or "{}")
    return {
        "problem_id": problem.id,
        "sample": row["sample"],
        "prompt": message,
        "completion": row["text"],
        "messages": messages,
        "problem": problem.problem,
        "thinking": row["thinking"],
        "solution": row["answer"],
        "answer": problem.answer,
        "source": public_source(problem.source),
        "license": problem.license,
        "model": row["model"],
        "n_tokens": row["n_tokens"] or None,  # 0 where nobody counted them
        "mean_entropy_nats": row["mean_entropy_nats"],
        "finish_reason": row["finish_reason"],
        "outcome": outcome,
        "n_prompt_tokens": row["n_prompt_tokens"] or None,
        "n_thinking_tokens": of_thinking.get("n_tokens"),
        "pools": [],
        "sha256": messages_sha256(messages),
        "revision": revision,
        "request_sha": row["request_sha"],
        "seed": row["seed"],
    }


def messages_sha256(messages: list[dict[str, str]]) -> str:
    """Of the messages as JSON with sorted keys and without spaces, in UTF-8."""
    text = json.dumps(messages, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def public_source(source: str) -> str:
    """A source without the folders of this machine: problems that name none have the path of their file."""
    return Path(source).name if source.startswith(("/", "~")) else source


# ---------------------------------------------------------------- tags


def measured_tags(path: Path) -> list[str]:
    """The columns of tags.parquet that hold anything and that the dataset has not by itself."""
    with opened(path, "filter") as file:
        names = [name for name in file.schema_arrow.names if name not in EXAMPLE_SCHEMA.names or name == "pools"]
        unseen = set(names)
        for batch in file.iter_batches(columns=names):
            unseen -= {name for name in unseen if batch.column(name).null_count < len(batch)}
            if not unseen:
                break
    return [name for name in names if name not in unseen]


def with_tags(rows: list[dict[str, Any]], tags: pa.Table) -> pa.Table:
    """The examples with the columns of their tags, which are in the same order."""
    table = pa.Table.from_pylist(rows, EXAMPLE_SCHEMA)
    for name in tags.column_names:
        if name == "pools":
            pools = pc.fill_null(tags[name], pa.scalar([], EXAMPLE_SCHEMA.field(name).type))
            table = table.set_column(EXAMPLE_SCHEMA.get_field_index(name), EXAMPLE_SCHEMA.field(name), pools)
        else:
            table = table.append_column(tags.schema.field(name), tags[name])
    return table


# ---------------------------------------------------------------- reading side by side


class Rows:
    """The rows of a Parquet file, as many at a time as are asked for."""

    def __init__(self, file: pq.ParquetFile, columns: list[str]) -> None:
        self.batches = file.iter_batches(columns=columns)
        self.left = pa.Table.from_batches([], pa.schema([file.schema_arrow.field(name) for name in columns]))

    def take(self, count: int) -> pa.Table:
        """The next `count` rows, fewer at the end."""
        parts = [self.left]
        while sum(map(len, parts)) < count and (batch := next(self.batches, None)) is not None:
            parts.append(pa.Table.from_batches([batch], self.left.schema))
        table = pa.concat_tables(parts)
        self.left = table.slice(count)
        return table.slice(0, count).combine_chunks()


def batches(folder: Path) -> Iterator[pa.Table]:
    """The traces of a run, `TRACES_AT_ONCE` at a time, without their token ids. Raises UserError for what cannot be read."""
    for path in sorted(folder.glob("*.parquet")):
        with opened(path, "generate") as file:
            columns = [name for name in TRACE_COLUMNS if name in file.schema_arrow.names]
            for batch in file.iter_batches(TRACES_AT_ONCE, columns=columns):
                yield pa.Table.from_batches([batch])


def opened(path: Path, stage: str) -> pq.ParquetFile:
    """A Parquet file that `stage` made. Raises UserError where it is none."""
    try:
        return pq.ParquetFile(path)
    except (OSError, pa.ArrowInvalid) as error:
        raise unreadable(path, error, remade_by(stage)) from None


def check_same_traces(traces: pa.Table, rows: pa.Table, name: str) -> None:
    if len(rows) != len(traces) or any(not traces[key].equals(rows[key].cast(traces[key].type)) for key in KEYS):
        raise not_of_one_run(name)


# ---------------------------------------------------------------- writing


class Splits:
    """Writes train.parquet and validation.parquet of a folder, a row group at a time. Use as a context manager."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.counts: Counter[str] = Counter()
        self.waiting: dict[str, list[pa.Table]] = {}
        self.writers: dict[str, pq.ParquetWriter] = {}
        self.files = ExitStack()

    def __enter__(self) -> "Splits":
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: Any) -> None:
        try:
            if kind is None:
                for split in list(self.waiting):
                    self.flush(split)
        finally:
            self.files.__exit__(kind, *rest)

    def add(self, table: pa.Table, held_out: pa.BooleanArray) -> None:
        for split, mask in (("validation", held_out), ("train", pc.invert(held_out))):  # type: ignore[attr-defined]
            part = table.filter(mask)
            if len(part):
                self.counts[split] += len(part)
                waiting = self.waiting.setdefault(split, [])
                waiting.append(part)
                if sum(map(len, waiting)) >= ROWS_A_GROUP or sum(each.nbytes for each in waiting) >= BYTES_A_GROUP:
                    self.flush(split)

    def flush(self, split: str) -> None:
        if not self.waiting[split]:
            return
        table = pa.concat_tables(self.waiting[split])
        if split not in self.writers:
            path = self.files.enter_context(replacing(self.folder / f"{split}.parquet"))
            writer = pq.ParquetWriter(path, table.schema, compression="zstd", write_page_index=True)
            self.writers[split] = self.files.enter_context(writer)
        self.writers[split].write_table(table, row_group_size=len(table))
        self.waiting[split] = []
