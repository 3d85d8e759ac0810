"""tags.parquet: what is measured of every trace, once. Another rule or limit reads it again and measures nothing."""

import hashlib
import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from r1distill.console import Progress
from r1distill.filter.executor import measured
from r1distill.filter.measures.tags import TAGS, TRACE_COLUMNS, trace_tags
from r1distill.filter.near_duplicates import SIGNATURE, packed, trace_signatures
from r1distill.filter.pools import pools_column
from r1distill.filter.registry import sources_of
from r1distill.filter.set_columns import set_columns
from r1distill.filter.sketch import sketch_of
from r1distill.filter.units import Unit, read_unit, units_of
from r1distill.run import Clock, Run
from r1distill.store import opened, replacing, size_and_time

VERSION = 1  # of the measures: another number, and tags of an earlier one are measured anew
FINGERPRINT = b"r1distill"  # in the metadata of tags.parquet
SKETCH = pa.field(
    "sketch", pa.binary(), metadata={"description": "words of the reply, for the most diverse of a problem"}
)
ROWS_A_GROUP = 100_000
UNREAD_OF_TRAIN = {
    "args",
    "peft",
    "kl",
    "clip",
    "curriculum",
    "restarts",
    "launch",
}  # by the perplexity under the student


def tag(run: Run, clock: Clock) -> None:
    """Write tags.parquet and contamination.json, unless what is there is of these traces, verdicts and benchmarks.

    Raises UserError where traces, verdicts and problems are not of one run, and where a benchmark's file cannot be read.
    """
    settings, fingerprint = run.recipe.filter, fingerprint_of(run)
    with_sketch = settings.needs_sketch
    if is_tagged(run, fingerprint):
        return
    units = units_of(run)
    tables = []
    with Progress("filter: tags", sum(unit.rows for unit in units)) as progress:
        measure = partial(tags_of_unit, with_sketch=with_sketch)
        for table in measured(measure, units, workers=settings.workers, ray=settings.ray):
            tables.append(table)
            clock.tick()
            progress.advance(table.num_rows)
    table = pa.concat_tables(tables) if tables else trace_schema(with_sketch).empty_table()
    found = {**{name: table[name] for name in table.column_names}, **set_columns(run, table, clock)}
    schema = TAGS.append(SKETCH) if with_sketch else TAGS
    columns = [found.get(field.name, pa.nulls(table.num_rows, field.type)) for field in schema]
    write_tags(run.tags, pa.table(columns, schema=schema.with_metadata({FINGERPRINT: fingerprint})))


def is_tagged(run: Run, fingerprint: bytes | None = None) -> bool:
    """Whether tags.parquet is of the traces and verdicts that are there, and measured as the recipe says."""
    if not (run.tags.exists() and run.contamination.exists()):
        return False
    with opened(run.tags) as tags:
        written = tags.metadata.metadata.get(FINGERPRINT)
    return written == (fingerprint or fingerprint_of(run))


def write_tags(path: Path, tags: pa.Table) -> None:
    with replacing(path) as temporary:
        pq.write_table(tags, temporary, compression="zstd", row_group_size=ROWS_A_GROUP)


def put_pools(run: Run, tags: pa.Table, kept: NDArray[np.bool_]) -> None:
    """The column `pools` of tags.parquet, which is of the kept traces."""
    settings = run.recipe.filter
    assert settings.pools is not None and settings.quality_measured is not None  # noqa: PT018
    category = settings.quality_measured.category
    pools = pools_column(tags, kept, settings.pools, category, run.recipe.train.curriculum)
    whole = pq.read_table(run.tags)
    place = whole.schema.get_field_index("pools")
    write_tags(run.tags, whole.set_column(place, whole.schema.field(place), pools))


def fingerprint_of(run: Run) -> bytes:
    """Of the files that are measured, by size and time, and of all that decides how."""
    settings, of_eval = run.recipe.filter, run.recipe.eval
    student = run.recipe.train.model_dump(exclude=UNREAD_OF_TRAIN) if settings.student_perplexity else None
    files = [run.problems, run.verdicts, *sorted(run.traces.glob("*.parquet"))]
    parts: list[Any] = [
        VERSION,
        settings.needs_sketch,
        settings.require_thinking,
        settings.quality_measured and settings.quality_measured.model_dump(),
        settings.clusters and settings.clusters.model_dump(),
        student,
        sources_of(run.recipe.contamination, of_eval.data, of_eval.data_dir),
        [[file.name, *size_and_time(file)] for file in files if file.exists()],
    ]
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest().encode()


def trace_schema(with_sketch: bool) -> pa.Schema:
    """Of what a piece gives: the columns of tags.parquet that a trace alone has, and what compares it with others."""
    fields = [*(TAGS.field(name) for name in TRACE_COLUMNS), pa.field("signature", SIGNATURE)]
    return pa.schema([*fields, SKETCH] if with_sketch else fields)


def tags_of_unit(unit: Unit, with_sketch: bool) -> pa.Table:
    """The columns that a trace alone gives, of a piece."""
    texts: list[str] = []

    def rows() -> Iterator[dict[str, Any]]:
        for problem, trace, verdict in read_unit(unit):
            texts.append(trace.text)
            tags = trace_tags(problem, trace, verdict)
            yield {**tags, "sketch": sketch_of(trace.text)} if with_sketch else tags

    schema = trace_schema(with_sketch)
    table = pa.Table.from_pylist(list(rows()), schema)
    return table.set_column(schema.get_field_index("signature"), "signature", packed(trace_signatures(texts)))
