"""Files of a run: written beside their place and moved in whole, so that no reader ever sees half of one."""

import dataclasses
import hashlib
import json
import os
import re
import secrets
import shutil
import types
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

import pyarrow as pa
import pyarrow.parquet as pq

from r1distill.errors import UserError

Record = TypeVar("Record")
ROWS_A_GROUP = 2_000
BYTES_A_GROUP = 64 << 20  # in memory as Python objects: a trace of 30,000 tokens is a megabyte


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; it takes the place of `path` when the block ends without an exception.

    Raises UserError, before the block, where `path` cannot be written.
    """
    if path.is_dir():
        raise UserError(f"{path}: cannot be written: it is a folder; give the name of a file")
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.touch(exist_ok=False)
    except OSError as error:
        raise UserError(f"{path}: cannot be written: {error.strerror}; choose another place") from None
    try:
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def replacing_folder(path: Path) -> Iterator[Path]:
    """The same of a folder: yield an empty one beside it, which takes its place when the block ends without an exception.

    Its files are on disk before two renames put it there; what was there is deleted last.
    """
    if path.exists() and not path.is_dir():
        raise UserError(f"{path}: cannot be written: it is a file; give the name of a folder")
    take_up_leftovers(path)
    mark = secrets.token_hex(4)
    temporary, before = (path.with_name(f".{path.name}.{mark}{suffix}") for suffix in ("", ".before"))
    try:
        temporary.mkdir(parents=True)
    except OSError as error:
        raise UserError(f"{path}: cannot be written: {error.strerror}; choose another place") from None
    try:
        yield temporary
        for file in temporary.rglob("*"):
            if file.is_file():
                with file.open("rb") as handle:
                    os.fsync(handle.fileno())
        if not path.exists():
            temporary.rename(path)
            return
        path.rename(before)
        try:
            temporary.rename(path)
        except BaseException:
            before.rename(path)
            raise
        shutil.rmtree(before)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def take_up_leftovers(path: Path) -> None:
    """Of a process that was killed while it replaced this folder: what was there is put back, what was to come deleted."""
    marked = re.compile(re.escape(f".{path.name}.") + r"[0-9a-f]{8}(\.before)?")
    for left in path.parent.glob(f".{path.name}.*"):
        if (found := marked.fullmatch(left.name)) is None:
            continue
        if found[1] and not path.exists():
            left.rename(path)
        else:
            shutil.rmtree(left)


def make_readable(folder: Path) -> None:
    """safetensors 0.8 writes files that only their owner can read, and others serve them: as readable as the config beside."""
    [config, *_] = folder.glob("*config.json")
    for file in folder.glob("*.safetensors"):
        file.chmod(config.stat().st_mode)


def write_text(path: Path, text: str) -> None:
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, default=str) + "\n")


def write_jsonl(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        for row in rows:
            file.write(json.dumps(row, ensure_ascii=False, default=str) + "\n")


def read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def file_sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# ---------------------------------------------------------------- Parquet


def size_and_time(path: Path) -> tuple[int, int]:
    """Bytes, and when it was last written in nanoseconds: another pair is another content, as good as a hash and faster."""
    found = path.stat()
    return found.st_size, found.st_mtime_ns


def write_records(path: Path, record_type: type[Record], records: Iterable[Record]) -> int:
    """Write dataclass records as Parquet, a row group at a time, and return how many there were."""
    count = 0
    with writing_records(path, record_type) as write:
        for record in records:
            write(record)
            count += 1
    return count


@contextmanager
def writing_records(path: Path, record_type: type[Record]) -> Iterator[Callable[[Record], None]]:
    """Yield what writes a record to a Parquet file, which replaces `path` when the block ends without an exception."""
    schema = schema_of(record_type)
    group: list[dict[str, Any]] = []
    size = groups = 0
    with replacing(path) as temporary, pq.ParquetWriter(temporary, schema, compression="zstd") as writer:

        def flush() -> None:
            nonlocal size, groups
            writer.write_table(pa.Table.from_pylist(group, schema))
            group.clear()
            size, groups = 0, groups + 1

        def write(record: Record) -> None:
            nonlocal size
            group.append(to_row(record))
            size += sum(memory_of(value) for value in group[-1].values())
            if len(group) == ROWS_A_GROUP or size > BYTES_A_GROUP:
                flush()

        yield write
        if group or not groups:
            flush()


def read_records(path: Path, record_type: type[Record], *, rows: int = ROWS_A_GROUP) -> Iterator[Record]:
    """The records of a Parquet file, or of all in a folder in the order of their names; `rows` of them in memory at once.

    A column that an earlier version did not write has its default. Raises UserError where a file is unreadable, or lacks one
    that has none.
    """
    for file in sorted(path.glob("*.parquet")) if path.is_dir() else [path]:
        with opened(file) as parquet:
            columns = columns_of(record_type, parquet)
            for batch in parquet.iter_batches(batch_size=rows, columns=columns):
                yield from records_of(batch, record_type)


def read_rows(path: Path, record_type: type[Record], start: int, count: int) -> Iterator[Record]:
    """The records of `count` rows of a Parquet file from row `start`; only the row groups that hold them are read."""
    with opened(path) as parquet:
        columns = columns_of(record_type, parquet)
        before = 0
        for group in range(parquet.num_row_groups):
            size = parquet.metadata.row_group(group).num_rows
            first, last = max(start - before, 0), min(start + count - before, size)
            if first < last:
                table = parquet.read_row_group(group, columns=columns).slice(first, last - first)
                for batch in table.to_batches():
                    yield from records_of(batch, record_type)
            before += size


@contextmanager
def opened(
    file: Path, remedy: str = "delete the file of the stage that made it in stages/, and run again"
) -> Iterator[pq.ParquetFile]:
    """A Parquet file. Raises UserError for what cannot be read in it, now or later in the block: nothing else is for there."""
    try:
        with pq.ParquetFile(file) as parquet:
            yield parquet
    except (OSError, pa.ArrowInvalid) as error:
        raise unreadable(file, error, remedy) from None


def unreadable(file: Path, error: Exception, remedy: str) -> UserError:
    return UserError(f"{file}: cannot be read: {' '.join(str(error).split())}; {remedy}")


def remade_by(stage: str) -> str:
    """The remedy for a file of that stage."""
    return f"delete stages/{stage}.json, and run `r1distill {stage}` again"


def columns_of(record_type: type, parquet: pq.ParquetFile) -> list[str]:
    """Those of a record that the file has. Raises pa.ArrowInvalid where it lacks one without a default."""
    fields = dataclasses.fields(record_type)
    present = [field.name for field in fields if field.name in parquet.schema_arrow.names]
    needed = {each.name for each in fields if each.default is each.default_factory is dataclasses.MISSING}
    if lacking := needed.difference(present):
        raise pa.ArrowInvalid(f"it has no {', '.join(sorted(lacking))}, which every {record_type.__name__} has")
    return present


def records_of(batch: pa.RecordBatch, record_type: type[Record]) -> Iterator[Record]:
    texts = [name for name in json_columns(record_type) if name in batch.schema.names]
    for row in batch.to_pylist():
        for name in texts:
            row[name] = None if row[name] is None else json.loads(row[name])
        yield record_type(**row)


def memory_of(value: Any) -> int:
    """About how many bytes a text or a list of numbers takes."""
    return len(value) * (36 if isinstance(value, list) else 1) if isinstance(value, str | list) else 0


def to_row(record: Any) -> dict[str, Any]:
    row = {field.name: getattr(record, field.name) for field in dataclasses.fields(record)}
    for name in json_columns(type(record)):
        row[name] = (
            None if row[name] is None else json.dumps(row[name], ensure_ascii=False, sort_keys=True, default=str)
        )
    return row


@cache
def json_columns(record_type: type) -> list[str]:
    """Free-form tables are kept as JSON text: Parquet would unite the keys of all rows into one wide struct."""
    return [name for name, hint in get_type_hints(record_type).items() if get_origin(without_none(hint)) is dict]


def schema_of(record_type: type) -> pa.Schema:
    return pa.schema([(name, arrow_type(hint)) for name, hint in get_type_hints(record_type).items()])


def arrow_type(hint: Any) -> pa.DataType:
    hint = without_none(hint)
    origin = get_origin(hint)
    if origin is list:
        element = get_args(hint)[0]
        return pa.list_(pa.int32() if element is int else arrow_type(element))  # token ids fit into 32 bits
    if origin is dict or hint is str or all(isinstance(argument, str) for argument in get_args(hint) or (1,)):
        return pa.string()
    return {int: pa.int64(), float: pa.float64(), bool: pa.bool_()}[hint]


def without_none(hint: Any) -> Any:
    if get_origin(hint) in (Union, types.UnionType):
        rest = [argument for argument in get_args(hint) if argument is not type(None)]
        return rest[0] if len(rest) == 1 else hint
    return hint
