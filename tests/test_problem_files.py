"""The files that problems come in, and which of their rows are taken."""

import csv
import gzip
import importlib.util
import json
import os
import subprocess
import sys
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_run import ROOT, jsonl

from r1distill.errors import UserError
from r1distill.problem_files import files_of
from r1distill.problems import is_within, load_problems, read_problems
from r1distill.sections import Between

ROWS = [
    {"problem": f"What is {n} + 1?\nSay it.", "answer": str(n + 1), "day": f"2024-{n:02}-15T00:00:00"}
    for n in range(1, 7)
]


def written(folder: Path, name: str, rows: list[dict[str, Any]]) -> Path:
    path = folder / name
    text = "".join(json.dumps(row) + "\n" for row in rows)
    if name.endswith(".jsonl.gz"):
        path.write_bytes(gzip.compress(text.encode()))
    elif name.endswith(".csv"):
        with path.open("w", newline="", encoding="utf-8-sig") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    elif name.endswith(".parquet"):
        pq.write_table(pa.Table.from_pylist(rows), path)
    else:
        path.write_text(json.dumps(rows, indent=2) if name == "array.json" else text)
    return path


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz", "a.csv", "a.parquet", "array.json", "lines.json"])
def test_every_kind_of_file_gives_the_same_problems(tmp_path: Path, name: str) -> None:
    expected = [problem.id for problem in load_problems(str(jsonl(tmp_path / "expected" / "p.jsonl", ROWS)))]
    path = written(tmp_path, name, ROWS)
    assert [problem.id for problem in load_problems(str(path))] == expected
    folder = tmp_path / "folder"
    folder.mkdir()
    path.rename(folder / name)
    assert [problem.id for problem in load_problems(str(folder))] == expected


def test_a_card_beside_the_data_of_a_folder_is_no_data(tmp_path: Path) -> None:
    written(tmp_path, "a.jsonl", ROWS)
    (tmp_path / "dataset_infos.json").write_text('{"features": {}}')
    assert [file.name for file in files_of(tmp_path)] == ["a.jsonl"]


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.jsonl.gz", b"no gzip", "cannot be read: Not a gzipped file"),
        ("a.jsonl.gz", gzip.compress(b'{"problem": "x", "answer": 1}' * 1000)[:-20], "cannot be read"),
        ("a.csv", b"problem,answer\nx,1,2\n", "row 1: not as many cells"),
        ("a.csv", b"problem,answer\nx\n", "row 1: not as many cells"),
        ("a.csv", b"problem,answer\n\xff,1\n", "not a readable CSV file"),
        ("a.json", b'[{"problem": "x"', "not valid JSON"),
        ("a.json", b"[1]", r"a\.json\[0\]: a JSON object is needed"),
    ],
)
def test_a_broken_file_is_named(tmp_path: Path, name: str, content: bytes, words: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=words) as refused:
        load_problems(str(tmp_path / name))
    assert str(refused.value).startswith(str(tmp_path / name))


def test_only_the_rows_of_a_window_are_read(tmp_path: Path) -> None:
    path = str(written(tmp_path, "a.jsonl", ROWS))

    def days(**bounds: str) -> list[int]:
        problems = load_problems(path, where={"day": Between(**bounds)})
        return [int(problem.answer or "") - 1 for problem in problems]

    assert days(at_least="2024-03", at_most="2024-05") == [3, 4, 5]
    assert days(at_least="2024-03-16") == [4, 5, 6]
    assert days(at_most="2024-03-15") == [1, 2, 3]  # that whole day, whatever its hour
    assert days(at_most="2024-03-14") == [1, 2]
    assert len(load_problems(path, where={"answer": "3"})) == 1
    with pytest.raises(
        UserError, match=r"a\.jsonl:1: no column days, which problems\.where asks for; known: answer, day"
    ):
        load_problems(path, where={"days": "x"})
    with pytest.raises(UserError, match="no problems in it that are"):
        load_problems(path, where={"answer": "no"})


def test_a_limit_counts_the_rows_that_are_taken(tmp_path: Path) -> None:
    path = str(written(tmp_path, "a.jsonl", ROWS))
    reading = read_problems(path, where={"day": Between(at_least="2024-03")}, limit=2)
    assert [problem.answer for problem in reading.problems] == ["4", "5"]


@pytest.mark.parametrize(
    ("value", "bounds", "inside"),
    [
        (5, Between(at_least=5), True),
        (4.9, Between(at_least=5), False),
        (None, Between(at_least=0), False),
        ("5", Between(at_least=5), False),
        (5, Between(at_most="5"), False),
        (None, Between(), True),
        (datetime(2024, 1, 31, 9).isoformat(), Between(at_most="2024-01"), True),
    ],
)
def test_a_value_of_another_type_is_outside(value: Any, bounds: Between, inside: bool) -> None:
    assert is_within(value, bounds) is inside


@given(st.integers(), st.integers(), st.integers())
def test_bounds_are_inclusive(value: int, low: int, high: int) -> None:
    assert is_within(value, Between(at_least=low, at_most=high)) == (low <= value <= high)


def test_files_of_a_folder_are_those_that_are_asked_for(tmp_path: Path) -> None:
    written(tmp_path, "test.jsonl", ROWS[:2])
    written(tmp_path, "test2.jsonl", ROWS[2:])
    assert len(load_problems(str(tmp_path), files=["test.jsonl"])) == 2
    assert len(load_problems(str(tmp_path))) == 6
    assert len(load_problems(str(tmp_path), files=["other.jsonl"])) == 6  # a copy under names of its owner's


@pytest.mark.skipif(importlib.util.find_spec("datasets") is None, reason="needs datasets, of the extra train")
def test_files_of_the_hub_are_read_from_its_cache_without_a_script(tmp_path: Path) -> None:
    """What `hf download` leaves is found again by the commit, with no network; a file that is not there is named."""
    commit = "0123456789abcdef0123456789abcdef01234567"
    snapshot = tmp_path / "hub" / "datasets--org--set" / "snapshots" / commit
    snapshot.mkdir(parents=True)
    written(snapshot, "test.jsonl", ROWS[:2])
    written(snapshot, "test2.csv", ROWS[2:])
    code = (
        "from r1distill.problems import load_problems; import sys;"
        f"print(*[p.answer for p in load_problems('org/set', files=sys.argv[1:], revision={commit!r})])"
    )

    def read(*files: str) -> Any:
        return subprocess.run(
            [sys.executable, "-c", code, *files], capture_output=True, text=True, cwd=tmp_path,
            env={**os.environ, "HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT)},
        )  # fmt: skip

    assert read("test.jsonl", "test2.csv").stdout == "2 3 4 5 6 7\n"
    assert (
        "problems: org/set/test3.jsonl is no local file and could not be read from the Hub"
        in read("test3.jsonl").stderr
    )
