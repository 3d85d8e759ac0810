"""Rows of the files that problems come in: JSONL (also gzipped), a JSON array, CSV, Parquet, or a dataset of the Hub."""

import csv
import gzip
import importlib
import json
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any

import pyarrow.parquet as pq

from r1distill.errors import UserError, require_packages

Row = dict[str, Any]
SUFFIXES = (".jsonl", ".jsonl.gz", ".csv", ".parquet")  # what is read of a folder
ALONE = (".json",)  # in a folder with none of these only: beside them it is a card or a manifest
MAX_CELL_CHARACTERS = (
    1 << 30
)  # of a CSV file; the default of 131,072 is less than one question with its solution may have


def files_of(path: Path) -> list[Path]:
    """The file itself, or all of a folder that problems can be in, sorted."""
    if not path.is_dir():
        return [path]
    files = sorted(file for file in path.rglob("*") if file.is_file())
    return [file for file in files if file.name.endswith(SUFFIXES)] or [
        file for file in files if file.name.endswith(ALONE)
    ]


def file_rows(file: Path) -> Iterator[tuple[str, Row]]:
    """(place, row) of one file, by its suffix; JSONL where that is none of those known."""
    if file.suffix == ".parquet":
        return parquet_rows(file)
    if file.suffix == ".csv":
        return csv_rows(file)
    return json_rows(file) if file.suffix == ".json" else jsonl_rows(file)


def jsonl_rows(file: Path) -> Iterator[tuple[str, Row]]:
    try:
        with opened(file) as lines:
            for number, line in enumerate(lines, 1):
                if line.strip():
                    yield f"{file}:{number}", parsed(line, f"{file}:{number}")
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{file}: cannot be read: {reason(error)}; correct problems.path") from None


def json_rows(file: Path) -> Iterator[tuple[str, Row]]:
    """A file that is one array, or JSONL in spite of its name."""
    try:
        with file.open("rb") as stream:
            is_array = stream.read(1 << 16).lstrip()[:1] == b"["
    except OSError as error:
        raise UserError(f"{file}: cannot be read: {reason(error)}; correct problems.path") from None
    if not is_array:
        yield from jsonl_rows(file)
        return
    try:
        rows = json.loads(file.read_bytes())
    except (ValueError, RecursionError) as error:
        raise UserError(f"{file}: not valid JSON ({error}); mend it") from None
    for number, row in enumerate(rows):
        yield f"{file}[{number}]", table(row, f"{file}[{number}]")


def csv_rows(file: Path) -> Iterator[tuple[str, Row]]:
    """Every cell is a text, and an empty one is null. A cell may hold line ends, so that the place is the row's."""
    csv.field_size_limit(MAX_CELL_CHARACTERS)
    try:
        with file.open(encoding="utf-8-sig", newline="") as stream:
            for number, row in enumerate(csv.DictReader(stream, strict=True), 1):
                if None in row or None in row.values():
                    raise UserError(f"{file}: row {number}: not as many cells as the first row has; mend it")
                yield f"{file}: row {number}", {name: cell or None for name, cell in row.items()}
    except (OSError, ValueError, csv.Error) as error:
        raise UserError(f"{file}: not a readable CSV file: {reason(error)}; mend it") from None


def parquet_rows(file: Path) -> Iterator[tuple[str, Row]]:
    number = 0
    try:
        with pq.ParquetFile(file) as parquet:
            for batch in parquet.iter_batches(batch_size=1000):
                for row in batch.to_pylist():
                    number += 1
                    yield f"{file}:{number}", row
    except (OSError, ValueError) as error:
        raise UserError(f"{file}: not a readable Parquet file: {reason(error)}; write it again, or delete it") from None


def hub_rows(path: str, *, split: str, subset: str | None, revision: str | None) -> Iterator[tuple[str, Row]]:
    """The rows of a split of a dataset of the Hub."""
    require_packages(f"reading {path} from the Hub", "datasets")
    datasets = importlib.import_module("datasets")
    try:
        rows: Iterable[Row] = datasets.load_dataset(path, subset, split=split, revision=revision)
    except (OSError, ValueError) as error:  # not found, no network, no such split: all of them are one of these two
        raise not_from_the_hub(path, error) from None
    for number, row in enumerate(rows, 1):
        yield f"{path}[{split}]:{number}", row


def hub_file_rows(path: str, files: Iterable[str], *, revision: str | None) -> Iterator[tuple[str, Row]]:
    """The rows of files of a dataset of the Hub, read as they are and by no script of the set's."""
    require_packages(f"reading {path} from the Hub", "datasets")
    download = importlib.import_module("huggingface_hub").hf_hub_download  # which datasets brings
    for name in files:
        try:
            file = Path(download(path, name, repo_type="dataset", revision=revision))
        except (OSError, ValueError) as error:
            raise not_from_the_hub(f"{path}/{name}", error) from None
        for number, (_, row) in enumerate(file_rows(file), 1):
            yield f"{path}/{name}:{number}", row


def not_from_the_hub(path: str, error: Exception) -> UserError:
    said = (str(error).strip() or type(error).__name__).splitlines()[0]
    return UserError(
        f"problems: {path} is no local file and could not be read from the Hub: {said}; "
        "give a local path, or check the id, the split and the network"
    )


def opened(file: Path) -> IO[bytes] | gzip.GzipFile:
    return gzip.open(file) if file.suffix == ".gz" else file.open("rb")


def parsed(line: bytes, place: str) -> Row:
    try:
        row = json.loads(line)
        if b"\\u" in line:
            json.dumps(row, ensure_ascii=False).encode()  # half of a surrogate pair is no text
    except (ValueError, RecursionError) as error:
        raise UserError(f"{place}: not valid JSON ({error}); mend or delete the line") from None
    return table(row, place)


def table(row: Any, place: str) -> Row:
    if not isinstance(row, dict):
        raise UserError(f"{place}: a JSON object is needed, this is a {type(row).__name__}")
    return row


def reason(error: Exception) -> str:
    return " ".join(str(getattr(error, "strerror", None) or error).split())
