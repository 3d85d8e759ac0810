"""What a dataset holds, counted from its own Parquet files: for the card, and to see whether it is whole."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from r1distill.errors import UserError

SPLITS = ("train", "validation")
COUNTED = ("outcome", "model", "kind", "problem_language")  # columns whose values are counted, where they are there
NUMBERS = ("n_tokens", "mean_entropy_nats")


@dataclass(slots=True)
class Measured:
    """Counts over all splits. `values` are those of the columns `NUMBERS` that are known, one array for each."""

    rows: dict[str, int] = field(default_factory=dict)  # of each split
    problems: int = 0
    tokens: dict[str, int] = field(default_factory=dict)  # of each split
    licenses: Counter[tuple[str, str]] = field(default_factory=Counter)  # traces by source and licence as stated
    counts: Mapping[str, Counter[str]] = field(default_factory=lambda: {name: Counter() for name in COUNTED})
    pools: Counter[str] = field(default_factory=Counter)
    values: dict[str, Any] = field(default_factory=dict)
    columns: list[str] = field(default_factory=list)  # that all splits have

    @property
    def examples(self) -> int:
        return sum(self.rows.values())


def measure(folder: Path) -> Measured:
    """Count a dataset; only its short columns are read. Raises UserError for a file that is none of a dataset's."""
    found = Measured()
    numbers: dict[str, list[pa.Array]] = {name: [] for name in NUMBERS}
    for split in SPLITS:
        path = folder / f"{split}.parquet"
        if not path.is_file():
            continue
        try:
            with pq.ParquetFile(path) as file:
                names = file.schema_arrow.names
                found.columns = [name for name in found.columns or names if name in names]
                found.rows[split] = file.metadata.num_rows
                found.tokens[split] = 0
                wanted = ["problem_id", "source", "license", "pools", *NUMBERS, *COUNTED]
                last = None
                for batch in file.iter_batches(columns=[name for name in wanted if name in names]):
                    found.problems += changes(batch.column("problem_id"), last)
                    last = batch.column("problem_id")[-1]
                    count_batch(found, batch, split, numbers)
        except (OSError, pa.ArrowInvalid, KeyError) as error:
            reason = " ".join(str(error).split())
            raise UserError(f"{path}: not a file of a dataset: {reason}; run `r1distill filter` again") from None
    found.values = {name: pa.chunked_array(parts, parts[0].type).to_numpy() for name, parts in numbers.items() if parts}
    return found


def changes(ids: pa.Array, before: pa.Scalar | None) -> int:
    """How many of the ids are not the one before them; those of one problem are beside each other."""
    first = int(before is None or ids[0] != before)
    return first + pc.sum(pc.not_equal(ids[1:], ids[:-1])).as_py() if len(ids) > 1 else first  # type: ignore[attr-defined]


def count_batch(found: Measured, batch: pa.RecordBatch, split: str, numbers: dict[str, list[pa.Array]]) -> None:
    table = pa.Table.from_batches([batch])
    for row in table.group_by(["source", "license"]).aggregate([([], "count_all")]).to_pylist():
        found.licenses[row["source"] or "", row["license"] or ""] += row["count_all"]
    for name, counter in found.counts.items():
        if name in table.column_names:
            count_values(counter, table[name])
    if "pools" in table.column_names:
        count_values(found.pools, pc.list_flatten(table["pools"]))  # type: ignore[attr-defined]
    for name in NUMBERS:
        known = batch.column(name).drop_null()
        if len(known):
            numbers[name].append(known)
    found.tokens[split] += pc.sum(batch.column("n_tokens")).as_py() or 0  # type: ignore[attr-defined]


def count_values(counter: Counter[str], values: pa.ChunkedArray) -> None:
    for entry in values.value_counts().to_pylist():
        if entry["values"] is not None:
            counter[entry["values"]] += entry["counts"]


def size_category(examples: int) -> str:
    """As the Hub names it: n<1K, 1K<n<10K, …"""
    edges = ["1K", "10K", "100K", "1M", "10M", "100M", "1B"]
    below = sum(examples >= 1000 * 10**place for place in range(len(edges)))
    if below == 0:
        return "n<1K"
    return f"{edges[below - 1]}<n<{edges[below]}" if below < len(edges) else "1B<n<10B"


def quantiles(values: Sequence[float]) -> tuple[float, float, float]:
    """Median, 95th percentile and largest."""
    ordered = pa.array(values)
    middle, high = pc.quantile(ordered, [0.5, 0.95]).to_pylist()  # type: ignore[attr-defined]
    return middle, high, max(values)
