"""The journal: every finished sample is on disk before it is counted, and a restart never samples it again.

SQLite, one file a writer, with a rollback journal instead of WAL, which needs shared memory that network file systems
do not have. A sample is known by problem, sample index and the hash of everything that decides its text, so edits to
other problems, another order or another number of workers change nothing. Beside it stands the token limit it was
sampled with: a larger one makes no other text of it, only more (`cut_off`).
"""

import dataclasses
import json
import os
import socket
import sqlite3
import threading
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from r1distill.errors import UserError
from r1distill.generate.distributions import SparseRows
from r1distill.generate.signals import TokenSignals
from r1distill.records import Outcome, Trace

VERSION = 3  # of the tables
# the keys in a table of their own: they are listed without reading past the texts
TABLES = """
CREATE TABLE IF NOT EXISTS samples (
    problem_id TEXT NOT NULL, request_sha TEXT NOT NULL, sample INTEGER NOT NULL, max_tokens INTEGER NOT NULL,
    finish_reason TEXT NOT NULL, n_tokens INTEGER NOT NULL, outcome TEXT, body INTEGER NOT NULL,
    PRIMARY KEY (problem_id, request_sha, sample, max_tokens)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS bodies (id INTEGER PRIMARY KEY, trace BLOB NOT NULL, token_ids BLOB, signals BLOB,
    distributions BLOB);
"""
NO_LIMIT = 2**62
ZSTD = pa.Codec("zstd", compression_level=1)

Key = tuple[str, int, str]  # problem id, sample, request sha


@dataclasses.dataclass(frozen=True, slots=True)
class Entry:
    """One sample to be written. Of what was measured at its tokens the distributions are kept, and all of one cut off."""

    trace: Trace
    outcome: Outcome | None = None
    max_tokens: int = 0
    token_signals: TokenSignals | None = None


class Journal:
    """Append finished samples, and find those of all writers again.

    One call at a time, from whatever thread. Close it, or use it as a context manager.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.path = folder / f"{socket.gethostname()}-{os.getpid()}.sqlite"
        self.connection = open_file(self.path)
        self.lock = threading.Lock()

    def __enter__(self) -> "Journal":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self.connection.close()

    def append(self, trace: Trace, outcome: Outcome | None, max_tokens: int = 0) -> None:
        self.write([Entry(trace, outcome, max_tokens)])

    def write(self, entries: Iterable[Entry]) -> None:
        """Durable, all of them, when this returns. Failed samples are recorded too, and replaced when sampled again.

        Raises UserError where the file cannot be written; then none of them is in it.
        """
        with self.lock:
            try:
                self.connection.execute("BEGIN IMMEDIATE")
                for entry in entries:
                    self.insert(entry)
                self.connection.execute("COMMIT")
            except sqlite3.OperationalError as error:
                if self.connection.in_transaction:
                    self.connection.execute("ROLLBACK")
                raise UserError(
                    f"{self.path}: cannot be written ({error}); mend that and run again: what was sampled is kept"
                ) from error
            except BaseException:
                if self.connection.in_transaction:
                    self.connection.execute("ROLLBACK")
                raise

    def insert(self, entry: Entry) -> None:
        trace = entry.trace
        key = (trace.problem_id, trace.request_sha, trace.sample, entry.max_tokens)
        row = {field.name: getattr(trace, field.name) for field in dataclasses.fields(trace)}
        token_ids = row.pop("token_ids")
        self.connection.execute(
            "DELETE FROM bodies WHERE id = (SELECT body FROM samples WHERE"
            " problem_id = ? AND request_sha = ? AND sample = ? AND max_tokens = ?)",
            key,
        )
        signals = entry.token_signals
        rows = signals.rows if signals else None
        is_cut = trace.finish_reason == "length"  # it may be continued
        body = self.connection.execute(
            "INSERT INTO bodies (trace, token_ids, signals, distributions) VALUES (?, ?, ?, ?)",
            (
                packed(json.dumps(row, ensure_ascii=False).encode()),
                None if token_ids is None else packed(np.asarray(token_ids, dtype="<i4").tobytes()),
                packed(signals.to_bytes()) if signals is not None and is_cut else None,
                None if rows is None else packed(rows.to_bytes()),
            ),
        ).lastrowid
        self.connection.execute(
            "INSERT OR REPLACE INTO samples VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (*key, trace.finish_reason, trace.n_tokens, entry.outcome, body),
        )

    def finished(self, max_tokens: int = NO_LIMIT) -> dict[Key, Outcome | None]:
        """Every sample of every writer that counts as finished where `max_tokens` is the limit, with its outcome.

        Those are the ones that ended by themselves within it, and those cut off by it or, without a limit, by any. Where two
        writers have the same sample, the outcome is that of the trace that `traces` gives.
        """
        query = (
            "SELECT problem_id, sample, request_sha, outcome FROM samples WHERE finish_reason != 'error' AND "
            "CASE finish_reason WHEN 'length' THEN max_tokens = ? OR ? ELSE n_tokens <= ? END"
        )
        names: dict[str, str] = {}  # each text once in memory: there may be millions of samples
        with all_files(self.folder) as files:
            return {
                (names.setdefault(problem_id, problem_id), sample, names.setdefault(request_sha, request_sha)): (
                    names.setdefault(outcome, outcome) if outcome else None  # type: ignore[misc]
                )
                for file in reversed(files.items())
                for problem_id, sample, request_sha, outcome in rows_of(
                    file, query, max_tokens, max_tokens == NO_LIMIT, max_tokens
                )
            }

    def cut_off(self, max_tokens: int) -> set[Key]:
        """The samples that ended by a smaller limit than `max_tokens`, finished meanwhile or not."""
        query = (
            "SELECT problem_id, sample, request_sha FROM samples"
            " WHERE finish_reason = 'length' AND max_tokens < ? AND n_tokens > 0"
        )
        with all_files(self.folder) as files:
            return {key for file in files.items() for key in rows_of(file, query, max_tokens)}

    def longest(self, key: Key, max_tokens: int) -> tuple[Trace, TokenSignals | None] | None:
        """Of a sample that was cut off below `max_tokens`: its longest trace, and what was measured at each token."""
        query = (
            "SELECT n_tokens, trace, token_ids, signals, distributions FROM samples JOIN bodies ON body = id"
            " WHERE problem_id = ? AND sample = ? AND request_sha = ? AND finish_reason = 'length' AND max_tokens < ?"
            " ORDER BY n_tokens DESC LIMIT 1"
        )
        with all_files(self.folder) as files:
            found = [row for file in files.items() for row in rows_of(file, query, *key, max_tokens)]
        if not found:
            return None
        _, trace, token_ids, signals, rows = max(found, key=lambda row: row[0])
        measured = None
        if signals is not None:
            measured = dataclasses.replace(TokenSignals.from_bytes(unpacked(signals)), rows=rows_from(rows))
        return trace_of(trace, token_ids), measured

    def traces(self, wanted: dict[str, str], max_tokens: int = NO_LIMIT) -> Iterator[Trace]:
        """As `traces_and_rows`, the traces alone."""
        return (trace for trace, _ in self.traces_and_rows(wanted, max_tokens))

    def traces_and_rows(
        self, wanted: dict[str, str], max_tokens: int = NO_LIMIT
    ) -> Iterator[tuple[Trace, SparseRows | None]]:
        """The traces of `wanted` (problem id → request sha), in that order and then by sample; each once, with its rows.

        Of a sample that is there for several limits: a finished one before one that was cut off, of those the longest
        within `max_tokens`. A failed one counts only if no writer has anything else.
        """
        query = (
            "SELECT sample, finish_reason, n_tokens, max_tokens, body FROM samples WHERE problem_id = ? AND"
            " request_sha = ?"
        )
        with all_files(self.folder) as files:
            opened = list(files.items())
            for problem_id, request_sha in wanted.items():
                best: dict[int, tuple[tuple[int, int], tuple[Path, sqlite3.Connection], int]] = {}
                for file in opened:
                    for sample, reason, n_tokens, limit, body in rows_of(file, query, problem_id, request_sha):
                        if n_tokens > max_tokens or (reason == "length" and limit > max_tokens):
                            continue  # sampled with a larger limit: more than was asked for
                        rank = ({"error": 0, "length": 1}.get(reason, 2), n_tokens)
                        if sample not in best or best[sample][0] < rank:
                            best[sample] = rank, file, body
                for sample in sorted(best):
                    _, file, body = best[sample]
                    [(trace, token_ids, rows)] = rows_of(
                        file, "SELECT trace, token_ids, distributions FROM bodies WHERE id = ?", body
                    )
                    yield trace_of(trace, token_ids), rows_from(rows)


def trace_of(trace: bytes, token_ids: bytes | None) -> Trace:
    ids = None if token_ids is None else np.frombuffer(unpacked(token_ids), dtype="<i4").tolist()
    return Trace(**json.loads(unpacked(trace)), token_ids=ids)


def rows_from(distributions: bytes | None) -> SparseRows | None:
    return None if distributions is None else SparseRows.from_bytes(unpacked(distributions))


def packed(data: bytes) -> bytes:
    """Compressed, behind its length in four bytes."""
    return len(data).to_bytes(4, "little") + ZSTD.compress(data, asbytes=True)


def unpacked(data: bytes) -> bytes:
    return ZSTD.decompress(data[4:], decompressed_size=int.from_bytes(data[:4], "little"), asbytes=True)


def has_samples(folder: Path) -> bool:
    """Whether any writer has finished a sample in this folder."""
    if not folder.is_dir():
        return False
    query = "SELECT 1 FROM samples WHERE finish_reason != 'error' LIMIT 1"
    with all_files(folder) as files:
        return any(list(rows_of(file, query)) for file in files.items())


def open_file(path: Path) -> sqlite3.Connection:
    with ExitStack() as undo, readable(path):
        connection = sqlite3.connect(path, isolation_level=None, timeout=60, check_same_thread=False)
        undo.callback(connection.close)
        connection.execute("PRAGMA journal_mode = TRUNCATE")
        connection.execute("PRAGMA synchronous = FULL")
        [version] = connection.execute("PRAGMA user_version").fetchone()
        is_new = not connection.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchone()
        if version != VERSION and not is_new:
            raise UserError(
                f"{path}: tables of version {version}, this is version {VERSION}; finish the run with the r1distill that "
                "began it, or set run_dir to a new folder"
            )
        connection.executescript(TABLES)  # a writer may have been killed before it made its tables
        connection.execute(f"PRAGMA user_version = {VERSION}")
        undo.pop_all()
        return connection


def rows_of(file: tuple[Path, sqlite3.Connection], query: str, *values: Any) -> Iterator[tuple[Any, ...]]:
    path, connection = file
    with readable(path):
        yield from connection.execute(query, values)


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Damage shows when a file is opened, or only when the damaged page is read."""
    try:
        yield
    except sqlite3.DatabaseError as error:
        raise UserError(
            f"{path}: not a journal that can be read ({error}); move it away to sample its share again"
        ) from None


@contextmanager
def all_files(folder: Path) -> Iterator[dict[Path, sqlite3.Connection]]:
    """A connection to each writer's file. Opening one rolls back what a killed writer left half done."""
    with ExitStack() as stack:
        yield {path: stack.enter_context(closing(open_file(path))) for path in sorted(folder.glob("*.sqlite"))}
