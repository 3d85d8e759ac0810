"""Problems from JSONL, Parquet, a folder of either, or the Hub, each checked before anything is sampled."""

import importlib
import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, get_args

import pyarrow.parquet as pq

from r1distill.code_columns import pairs, read_tests
from r1distill.errors import UserError, require_packages
from r1distill.prompting import LETTERS
from r1distill.records import Kind, Problem
from r1distill.resources import find_file
from r1distill.verify.code import kind_of_tests
from r1distill.verify.extract import last_boxed

KINDS = get_args(Kind)
# Columns of the public sets (OpenR1, OpenThoughts, OpenMathReasoning, GSM8K, MATH, Mixture-of-Thoughts), ours first.
# `solution` comes last: where a set has both, `answer` is the short form.
COLUMNS: dict[str, tuple[str, ...]] = {
    "problem": ("problem", "question", "prompt", "instruction", "question_content", "description", "text"),
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
    if unknown := (columns or {}).keys() - COLUMNS.keys():
        raise UserError(f"problems.columns: unknown {', '.join(sorted(unknown))}; known: {', '.join(COLUMNS)}")
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
    try:
        return find_file(path, "problems")
    except UserError:
        if re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", path) and not path.endswith((".jsonl", ".parquet", ".json")):
            return None
        raise


def files_of(path: Path) -> list[Path]:
    """The file itself, or all of a folder that problems can be in, sorted."""
    if not path.is_dir():
        return [path]
    return sorted(file for file in path.rglob("*") if file.suffix in (".jsonl", ".parquet") and file.is_file())


def rows(path: str, *, split: str, subset: str | None, revision: str | None) -> Iterator[tuple[str, dict[str, Any]]]:
    """(place, row) for every row, where `place` is what an error message names."""
    found = local_path(path)
    if found is None:
        yield from hub_rows(path, split=split, subset=subset, revision=revision)
        return
    files = files_of(found)
    if not files:
        raise UserError(f"{path}: a folder without .jsonl or .parquet files")
    for file in files:
        yield from parquet_rows(file) if file.suffix == ".parquet" else jsonl_rows(file)


def jsonl_rows(file: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    try:
        lines = file.open("rb")
    except OSError as error:
        raise UserError(f"{file}: cannot be read: {error.strerror}; correct problems.path") from None
    with lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            place = f"{file}:{number}"
            try:
                row = json.loads(line)
                if b"\\u" in line:
                    json.dumps(row, ensure_ascii=False).encode()  # half of a surrogate pair is no text
            except (ValueError, RecursionError) as error:
                raise UserError(f"{place}: not valid JSON ({error}); mend or delete the line") from None
            if not isinstance(row, dict):
                raise UserError(f"{place}: a JSON object is needed, this is a {type(row).__name__}")
            yield place, row


def parquet_rows(file: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    number = 0
    try:
        with pq.ParquetFile(file) as parquet:
            for batch in parquet.iter_batches(batch_size=1000):
                for row in batch.to_pylist():
                    number += 1
                    yield f"{file}:{number}", row
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{file}: not a readable Parquet file: {reason}; write it again, or delete it") from None


def hub_rows(
    path: str, *, split: str, subset: str | None, revision: str | None
) -> Iterator[tuple[str, dict[str, Any]]]:
    require_packages(f"reading {path} from the Hub", "datasets")
    datasets = importlib.import_module("datasets")
    try:
        rows: Iterable[dict[str, Any]] = datasets.load_dataset(path, subset, split=split, revision=revision)
    except (OSError, ValueError) as error:  # not found, no network, no such split: all of them are one of these two
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(
            f"problems: {path} is no local file and could not be read from the Hub: {reason}; "
            "give a local path, or check the id, the split and the network"
        ) from None
    for number, row in enumerate(rows, 1):
        yield f"{path}[{split}]:{number}", row


def to_problem(row: dict[str, Any], place: str, columns: dict[str, str], default_source: str) -> Problem:
    """One row as a Problem, its columns mapped by `columns` (ours to theirs) and then by COLUMNS."""
    names = {ours: (columns[ours],) if ours in columns else theirs for ours, theirs in COLUMNS.items()}
    values = {ours: first_value(row, theirs) for ours, theirs in names.items()}
    text = values["problem"]
    if not isinstance(text, str):
        raise UserError(f"{place}: no problem text; it is looked for in {', '.join(names['problem'])}")
    choices, tests = values["choices"], code_tests(values["tests"], row, place)
    meta = table(row.get("meta"), "meta", place) or {}
    kind = values["kind"] or ("code" if tests else "choice" if choices else "math")
    if kind not in KINDS:
        raise UserError(f"{place}: unknown kind {kind!r}; known: {', '.join(KINDS)}")
    answer = answer_of(values["answer"], place)
    if kind in ("math", "choice") and not answer:
        raise UserError(
            f"{place}: a {kind} problem without an answer; it is looked for in {', '.join(names['answer'])}: "
            'give one, or `kind = "open"` if none exists'
        )
    if choices is not None and not isinstance(choices, list):
        raise UserError(f"{place}: choices is a {type(choices).__name__}; it must be a list")
    if kind == "choice" and not choices:
        raise UserError(f"{place}: a choice problem without choices; give them as a list in `choices`")
    if kind == "choice" and choices and answer not in list(LETTERS[: len(choices)]):
        raise UserError(
            f"{place}: answer = {answer!r} is not the letter of one of its {len(choices)} choices (A, B, …)"
        )
    if kind == "code":
        check_tests(tests, place)
    return Problem(
        problem=text.strip(),
        kind=kind,
        answer=answer,
        tests=tests,
        choices=None if choices is None else [str(choice) for choice in choices],
        source=str(values["source"] or default_source),
        license=str(values["license"] or ""),
        date=str(values["date"] or ""),
        meta={**meta, **{key: row[key] for key in KEPT_IN_META if row.get(key) is not None}},
    )


def first_value(row: dict[str, Any], names: tuple[str, ...]) -> Any:
    """The first that is there: not null, not NaN (pandas' word for null), not blank."""
    for name in names:
        value = row.get(name)
        if value is not None and value == value and not (isinstance(value, str) and not value.strip()):
            return value
    return None


def table(value: Any, name: str, place: str) -> dict[str, Any] | None:
    """A value that must be an object, or the JSON text of one (as in our own Parquet files)."""
    try:
        value = json.loads(value) if isinstance(value, str) else value
    except (ValueError, RecursionError) as error:
        raise UserError(f"{place}: {name} is not valid JSON ({error}); mend it") from None
    if value is not None and not isinstance(value, dict):
        raise UserError(f"{place}: {name} is a {type(value).__name__}; it must be an object")
    return value


def code_tests(value: Any, row: dict[str, Any], place: str) -> dict[str, Any] | None:
    """The tests of a code problem: ours, or those of a public set (r1distill/code_columns.py)."""
    if isinstance(value, str) and not value.lstrip().startswith("["):
        value = table(value, "tests", place)
    if isinstance(value, dict):
        return value
    try:
        value = json.loads(value) if isinstance(value, str) else value
        if value is not None and pairs(value) is None:
            raise UserError(f"{place}: tests is a list; it must be an object, or a list of {{input, output}}")
        return read_tests({**row, "tests": value})
    except (ValueError, KeyError, TypeError, IndexError, SyntaxError, RecursionError) as error:
        raise UserError(f"{place}: its tests cannot be read ({type(error).__name__}: {error}); mend the row") from None


def check_tests(tests: dict[str, Any] | None, place: str) -> None:
    try:
        if not tests:
            raise ValueError("a code problem without tests")
        kind_of_tests(tests)
    except ValueError as error:
        raise UserError(
            f"{place}: {error}; give `tests` as stdio, function or asserts (README, code problems)"
        ) from None


def answer_of(value: Any, place: str) -> str | None:
    if isinstance(value, list | dict | bool):
        raise UserError(f"{place}: answer is a {type(value).__name__}; it must be a string or a number")
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return None if value is None else short_answer(str(value))


def short_answer(answer: str) -> str:
    """The answer itself where a set gives a solution that ends in it: GSM8K's `#### 42`, the last box of MATH's."""
    _, mark, after = answer.rpartition("####")
    answer = after if mark else answer
    box = last_boxed(answer)
    return (answer if box is None else box).strip()
