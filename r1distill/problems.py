"""Problems from JSONL, Parquet, a folder of either, or the Hub, each checked before anything is sampled."""

import importlib
import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, get_args

import pyarrow.parquet as pq

from r1distill.errors import UserError, require_packages
from r1distill.records import Kind, Problem
from r1distill.resources import find_file

KINDS = get_args(Kind)
# Columns of the public sets (OpenR1, OpenThoughts, OpenMathReasoning, GSM8K, MATH, Mixture-of-Thoughts), ours first.
# `solution` comes last: where a set has both, `answer` is the short form.
COLUMNS: dict[str, tuple[str, ...]] = {
    "problem": ("problem", "question", "prompt", "instruction"),
    "kind": ("kind",),
    "answer": ("answer", "expected_answer", "final_answer", "gold", "target", "ground_truth", "solution"),
    "tests": ("tests",),
    "choices": ("choices", "options"),
    "source": ("source", "data_source", "problem_source"),
    "license": ("license",),
    "date": ("date", "contest_date"),
}
KEPT_IN_META = ("level", "subject", "difficulty", "rating", "problem_type", "question_type", "unique_id")


def load_problems(
    path: str,
    *,
    split: str = "train",
    subset: str | None = None,
    revision: str | None = None,
    columns: dict[str, str] | None = None,
    limit: int | None = None,
) -> list[Problem]:
    """Read and check the problems; the same question twice is kept once.

    Raises UserError naming the place (`path:line`) of a malformed row, a problem without an answer, an unknown kind.
    """
    problems: dict[str, Problem] = {}
    for place, row in rows(path, split=split, subset=subset, revision=revision):
        problem = to_problem(row, place, columns or {}, default_source=path)
        problems.setdefault(problem.id, problem)
        if len(problems) == limit:
            break
    if not problems:
        raise UserError(f"{path}: no problems in it; it needs at least one")
    return list(problems.values())


def local_path(path: str) -> Path | None:
    """The file or folder that `path` means, or None for a Hub dataset id. Raises UserError where it must be a file."""
    if re.fullmatch(r"[\w.-]+/[\w.-]+", path) and not path.endswith((".jsonl", ".parquet", ".json")):
        return Path(path).resolve() if Path(path).exists() else None
    return find_file(path, "problems")


def rows(path: str, *, split: str, subset: str | None, revision: str | None) -> Iterator[tuple[str, dict[str, Any]]]:
    """(place, row) for every row, where `place` is what an error message names."""
    found = local_path(path)
    if found is None:
        yield from hub_rows(path, split=split, subset=subset, revision=revision)
        return
    files = sorted([*found.rglob("*.jsonl"), *found.rglob("*.parquet")]) if found.is_dir() else [found]
    if not files:
        raise UserError(f"{path}: a folder without .jsonl or .parquet files")
    for file in files:
        yield from parquet_rows(file) if file.suffix == ".parquet" else jsonl_rows(file)


def jsonl_rows(file: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    with file.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            place = f"{file}:{number}"
            try:
                row = json.loads(line)
            except (json.JSONDecodeError, UnicodeDecodeError) as error:
                raise UserError(f"{place}: not valid JSON ({error}); mend or delete the line") from None
            if not isinstance(row, dict):
                raise UserError(f"{place}: a JSON object is needed, this is a {type(row).__name__}")
            yield place, row


def parquet_rows(file: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    try:
        parquet = pq.ParquetFile(file)
    except (OSError, ValueError) as error:
        raise UserError(f"{file}: not a readable Parquet file: {error}") from None
    number = 0
    with parquet:
        for batch in parquet.iter_batches(batch_size=1000):
            for row in batch.to_pylist():
                number += 1
                yield f"{file}:{number}", row


def hub_rows(
    path: str, *, split: str, subset: str | None, revision: str | None
) -> Iterator[tuple[str, dict[str, Any]]]:
    require_packages(f"reading {path} from the Hub", "datasets")
    datasets = importlib.import_module("datasets")
    try:
        rows: Iterable[dict[str, Any]] = datasets.load_dataset(path, subset, split=split, revision=revision)
    except (OSError, ValueError) as error:  # not found, no network, no such split: all of them are one of these two
        reason = str(error).strip().splitlines()[0]
        raise UserError(
            f"problems: {path} is no local file and could not be read from the Hub: {reason}; "
            "give a local path, or check the id, the split and the network"
        ) from None
    for number, row in enumerate(rows, 1):
        yield f"{path}[{split}]:{number}", row


def to_problem(row: dict[str, Any], place: str, columns: dict[str, str], default_source: str) -> Problem:
    """One row as a Problem, its columns mapped by `columns` (ours to theirs) and then by COLUMNS."""
    values = {
        ours: first_value(row, (columns[ours],) if ours in columns else theirs) for ours, theirs in COLUMNS.items()
    }
    text = values["problem"]
    if not isinstance(text, str) or not text.strip():
        raise UserError(f"{place}: no problem text; it is looked for in {', '.join(COLUMNS['problem'])}")
    choices, tests = values["choices"], values["tests"]
    if isinstance(tests, str):
        tests = parse_tests(tests, place)
    kind = values["kind"] or ("code" if tests else "choice" if choices else "math")
    if kind not in KINDS:
        raise UserError(f"{place}: unknown kind {kind!r}; known: {', '.join(KINDS)}")
    answer = None if values["answer"] is None else short_answer(str(values["answer"]))
    if kind in ("math", "choice") and not answer:
        raise UserError(
            f'{place}: a {kind} problem without an answer; give `answer`, or `kind = "open"` if none exists'
        )
    if kind == "choice" and not choices:
        raise UserError(f"{place}: a choice problem without choices; give them as a list in `choices`")
    if kind == "code" and not tests:
        raise UserError(f"{place}: a code problem without tests; give `tests` (design: stdio, function or asserts)")
    return Problem(
        problem=text.strip(),
        kind=kind,
        answer=answer,
        tests=tests,
        choices=None if choices is None else [str(choice) for choice in choices],
        source=str(values["source"] or default_source),
        license=str(values["license"] or ""),
        date=str(values["date"] or ""),
        meta={**(row.get("meta") or {}), **{key: row[key] for key in KEPT_IN_META if row.get(key) is not None}},
    )


def first_value(row: dict[str, Any], names: tuple[str, ...]) -> Any:
    return next((row[name] for name in names if row.get(name) is not None), None)


def parse_tests(text: str, place: str) -> dict[str, Any]:
    try:
        tests = json.loads(text)
    except json.JSONDecodeError as error:
        raise UserError(f"{place}: tests are not valid JSON ({error})") from None
    if not isinstance(tests, dict):
        raise UserError(f"{place}: tests must be an object, this is a {type(tests).__name__}")
    return tests


def short_answer(answer: str) -> str:
    """The answer itself where a set gives a solution that ends in it: GSM8K's `#### 42`."""
    _, mark, after = answer.rpartition("#### ")
    return (after if mark else answer).strip()
