"""The problems of a run by their id, read a row group at a time."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from filtered_run import problem

from r1distill.errors import UserError
from r1distill.filter.problem_rows import ProblemRows
from r1distill.records import Problem
from r1distill.store import write_records


def test_threads_that_ask_at_once_find_every_problem_as_it_was_written(tmp_path: Path) -> None:
    problems = [problem(f"{n:04}", choices=["1", "2"], kind="choice", answer="A", meta={"n": n}) for n in range(800)]
    path = tmp_path / "problems.parquet"
    write_records(path, Problem, problems)
    pq.write_table(pq.read_table(path), path, row_group_size=40)
    order = [(n * 617) % len(problems) for n in range(len(problems))]  # another row group each time
    with ProblemRows(path) as found, ThreadPoolExecutor(8) as threads:
        assert list(threads.map(lambda n: found[problems[n].id], order)) == [problems[n] for n in order]
        assert list(found.values()) == problems
        with pytest.raises(UserError, match=r"not of one run.*run `r1distill verify`"):
            found["gone"]
