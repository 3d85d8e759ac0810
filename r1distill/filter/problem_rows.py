"""The problems of a run by their id, without all of them in memory."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from threading import Lock

import pyarrow as pa
import pyarrow.parquet as pq

from r1distill.errors import UserError
from r1distill.records import Problem
from r1distill.store import remade_by, unreadable

# without the tests, which are most of a file
PROBLEM_COLUMNS = ("id", "problem", "kind", "answer", "choices", "source", "license", "date", "meta")


class ProblemRows(Mapping[str, Problem]):
    """The problems of a run by their id, a few row groups in memory at a time and without their tests.

    Use as a context manager. Traces come in the order of their problems, so that each row group is read about once. Several
    threads may ask. Raises UserError for what cannot be read, when it is opened or when it is asked.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.group = lru_cache(maxsize=4)(self.read)
        self.lock = Lock()  # a ParquetFile is not for two threads at once
        self.group_of: dict[str, int] = {}
        with self.readable():
            self.file = pq.ParquetFile(path)
            self.columns = [name for name in PROBLEM_COLUMNS if name in self.file.schema_arrow.names]
            for group in range(self.file.num_row_groups):
                for name in self.file.read_row_group(group, columns=["id"])["id"].to_pylist():
                    self.group_of[name] = group

    def __enter__(self) -> "ProblemRows":
        return self

    def __exit__(self, *error: object) -> None:
        self.file.close()

    def __getitem__(self, problem_id: str) -> Problem:
        if problem_id not in self.group_of:
            raise not_of_one_run("problems.parquet")
        with self.lock:
            return self.group(self.group_of[problem_id])[problem_id]

    def __iter__(self) -> Iterator[str]:
        return iter(self.group_of)

    def __len__(self) -> int:
        return len(self.group_of)

    def read(self, group: int) -> dict[str, Problem]:
        with self.readable():
            rows = self.file.read_row_group(group, columns=self.columns).to_pylist()
        problems = [Problem(**{**row, "meta": json.loads(row["meta"] or "{}")}) for row in rows]
        return {problem.id: problem for problem in problems}

    @contextmanager
    def readable(self) -> Iterator[None]:
        """Around what reads the file and nothing else, so that no other fault is taken for one of the file."""
        try:
            yield
        except (OSError, pa.ArrowInvalid) as error:
            raise unreadable(self.path, error, remade_by("generate")) from None


def not_of_one_run(name: str) -> UserError:
    return UserError(
        f"the traces and {name} are not of one run; delete stages/verify.json and stages/filter.json, and run "
        "`r1distill verify` and `r1distill filter` again"
    )
