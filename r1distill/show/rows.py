"""Rows of Parquet files by their place, of which only the row groups that hold them are read.

Traces, verdicts, decisions and tags of a run are in one order, so that a place means the same trace in all of them.
"""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from r1distill.store import opened

REMEDY = "run the stage that makes it again"


def files_of(path: Path) -> list[Path]:
    """The Parquet files of a folder in order, the file itself, or none where it is not there."""
    if path.is_dir():
        return sorted(path.glob("*.parquet"))
    return [path] if path.is_file() else []


def n_rows(path: Path) -> int:
    """How many rows a file or folder has; nothing but its footers is read."""
    total = 0
    for file in files_of(path):
        with opened(file, REMEDY) as parquet:
            total += parquet.metadata.num_rows
    return total


def places_where(path: Path, column: str, test: Callable[[Any], bool]) -> list[int]:
    """The places of the rows whose value in one column passes the test, which is asked once for each value of a block."""
    return [place for place, value in values(path, column) if test(value)]


def values(path: Path, column: str) -> Iterator[tuple[int, Any]]:
    """(place, value) of every row. Nothing but that column is read."""
    place = 0
    for file in files_of(path):
        with opened(file, REMEDY) as parquet:
            for batch in parquet.iter_batches(columns=[column]):
                for value in batch.column(0).to_pylist():
                    yield place, value
                    place += 1


def rows_at(path: Path, places: Sequence[int], without: tuple[str, ...] = ()) -> dict[int, dict[str, Any]]:
    """{place: row} of the places that there are, with all columns but those of `without`."""
    found: dict[int, dict[str, Any]] = {}
    start = 0
    for file in files_of(path):
        with opened(file, REMEDY) as parquet:
            columns = [name for name in parquet.schema_arrow.names if name not in without]
            for group in range(parquet.num_row_groups):
                size = parquet.metadata.row_group(group).num_rows
                here = [place for place in places if start <= place < start + size]
                if here:
                    table = parquet.read_row_group(group, columns=columns)
                    for place in here:
                        found[place] = table.slice(place - start, 1).to_pylist()[0]
                start += size
    return found
