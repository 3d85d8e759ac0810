"""The journal: every finished sample is on disk before it is counted, and a restart never samples it again.

SQLite, one file a writer, with a rollback journal instead of WAL, which needs shared memory that network file systems
do not have. A sample is known by problem, sample index and the hash of everything that decides its text, so edits to
other problems, another order or another number of workers change nothing.
"""

import dataclasses
import json
import os
import socket
import sqlite3
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

from r1distill.errors import UserError
from r1distill.records import Outcome, Trace

TABLE = """
CREATE TABLE IF NOT EXISTS samples (
    problem_id TEXT NOT NULL, sample INTEGER NOT NULL, request_sha TEXT NOT NULL,
    outcome TEXT, failed INTEGER NOT NULL, trace TEXT NOT NULL,
    PRIMARY KEY (problem_id, sample, request_sha)
) WITHOUT ROWID"""


class Journal:
    """Append finished samples, and find those of all writers again.

    Not for two threads at once. Close it, or use it as a context manager.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.path = folder / f"{socket.gethostname()}-{os.getpid()}.sqlite"
        self.connection = open_file(self.path)

    def __enter__(self) -> "Journal":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self.connection.close()

    def append(self, trace: Trace, outcome: Outcome | None) -> None:
        """Durable when this returns. A failed sample is recorded too, and replaced when it is sampled again."""
        row = json.dumps(dataclasses.asdict(trace), ensure_ascii=False)
        failed = trace.finish_reason == "error"
        try:
            self.connection.execute(
                "INSERT OR REPLACE INTO samples VALUES (?, ?, ?, ?, ?, ?)",
                (trace.problem_id, trace.sample, trace.request_sha, outcome, failed, row),
            )
        except sqlite3.OperationalError as error:
            raise UserError(
                f"{self.path}: cannot be written ({error}); mend that and run again: what was sampled is kept"
            ) from error

    def finished(self) -> dict[tuple[str, int, str], Outcome | None]:
        """(problem id, sample, request sha) of every sample of every writer that did not fail, with its outcome.

        Where two writers have the same sample, the outcome is that of the trace that `traces` gives.
        """
        query = "SELECT problem_id, sample, request_sha, outcome FROM samples WHERE NOT failed"
        with all_files(self.folder) as files:
            return {
                (problem_id, sample, request_sha): outcome
                for file in reversed(files.items())
                for problem_id, sample, request_sha, outcome in rows_of(file, query)
            }

    def traces(self, wanted: dict[str, str]) -> Iterator[Trace]:
        """The traces of `wanted` (problem id → request sha), in that order and then by sample; each once.

        A failed sample counts only if no writer has it finished.
        """
        query = "SELECT sample, failed, trace FROM samples WHERE problem_id = ? AND request_sha = ?"
        with all_files(self.folder) as files:
            for problem_id, request_sha in wanted.items():
                best: dict[int, tuple[bool, str]] = {}
                for file in files.items():
                    for sample, failed, row in rows_of(file, query, problem_id, request_sha):
                        if sample not in best or (best[sample][0] and not failed):
                            best[sample] = (bool(failed), row)
                for sample in sorted(best):
                    yield Trace(**json.loads(best[sample][1]))


def has_samples(folder: Path) -> bool:
    """Whether any writer has finished a sample in this folder."""
    if not folder.is_dir():
        return False
    query = "SELECT 1 FROM samples WHERE NOT failed LIMIT 1"
    with all_files(folder) as files:
        return any(list(rows_of(file, query)) for file in files.items())


def open_file(path: Path) -> sqlite3.Connection:
    with ExitStack() as undo, readable(path):
        connection = sqlite3.connect(path, isolation_level=None, timeout=60)  # every statement is its own transaction
        undo.callback(connection.close)
        connection.execute("PRAGMA journal_mode = TRUNCATE")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute(TABLE)  # a writer may have been killed before it made its table
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
