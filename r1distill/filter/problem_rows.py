"""The problems of a run by their id, without all of them in memory."""

import json
from collections.abc import Iterator, Mapping
from functools import lru_cache
from threading import Lock

import pyarrow.parquet as pq

from r1distill.errors import UserError
from r1distill.records import Problem

# without the tests, which are most of a file
PROBLEM_COLUMNS = ("id", "problem", "kind", "answer", "choices", "source", "license", "date", "meta")


class ProblemRows(Mapping[str, Problem]):
    """The problems of a run by their id, a few row groups in memory at a time and without their tests.

    Traces come in the order of their problems, so that each row group is read about once. Several threads may ask.
    """

    def __init__(self, file: pq.ParquetFile) -> None:
        self.file = file
        self.columns = [name for name in PROBLEM_COLUMNS if name in file.schema_arrow.names]
        self.group_of: dict[str, int] = {}
        for group in range(file.num_row_groups):
            for name in file.read_row_group(group, columns=["id"])["id"].to_pylist():
                self.group_of[name] = group
        self.group = lru_cache(maxsize=4)(self.read)
        self.lock = Lock()  # a ParquetFile is not for two threads at once

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
        rows = self.file.read_row_group(group, columns=self.columns).to_pylist()
        problems = [Problem(**{**row, "meta": json.loads(row["meta"] or "{}")}) for row in rows]
        return {problem.id: problem for problem in problems}


def not_of_one_run(name: str) -> UserError:
    return UserError(
        f"the traces and {name} are not of one run; delete stages/verify.json and stages/filter.json, and run "
        "`r1distill verify` and `r1distill filter` again"
    )
