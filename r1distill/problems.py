"""Problems from files, a folder of them, or the Hub, each checked before anything is sampled."""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any, Literal, get_args

from r1distill.benchmark_columns import as_question
from r1distill.code_columns import pairs, read_tests
from r1distill.errors import UserError
from r1distill.problem_files import ALONE, SUFFIXES, file_rows, files_of, hub_file_rows, hub_rows
from r1distill.procedural import check_path, is_procedural, procedural_rows
from r1distill.prompting import LETTERS
from r1distill.public_columns import TEXT_COLUMNS, adapted, is_no_answer, why_no_answer
from r1distill.records import Kind, Problem
from r1distill.resources import find_file
from r1distill.sections import Between, Problems
from r1distill.verify.code import kind_of_tests
from r1distill.verify.extract import last_boxed

KINDS = get_args(Kind)
# Columns of the public sets, ours first; what is no table of problems and answers: r1distill/public_columns.py.
# Solutions come last: where a set has both, `answer` is the short form.
SOLUTIONS = ("solution", "ground_truth_solution")
COLUMNS: dict[str, tuple[str, ...]] = {
    "problem": TEXT_COLUMNS,
    "kind": ("kind",),
    "answer": ("answer", "expected_answer", "final_answer", "gold", "target", "ground_truth", *SOLUTIONS),
    "tests": ("tests",),
    "choices": ("choices", "options"),
    "source": ("source", "data_source", "problem_source"),
    "license": ("license",),
    "date": ("date", "contest_date"),
}
MAX_ANSWER_IN_SOLUTION = 100  # characters: a longer solution without a box or #### is a text, and not an answer
KEPT_IN_META = (
    *("level", "subject", "difficulty", "rating", "problem_type", "question_type", "unique_id"),
    *("task_id", "question_id", "contest_id", "platform", "starter_code"),
)


class Unusable(UserError):
    """A problem that no reply can be judged by. `reason` is the message without its place and remedy.

    `expected` ones are rows that a public set is known to hold, such as proofs.
    """

    def __init__(self, message: str, problem: Problem, reason: str, *, expected: bool = False) -> None:
        super().__init__(message)
        self.problem, self.reason, self.expected = problem, reason, expected


@dataclass(slots=True)
class Reading:
    """What was read: the problems, how many were there before with the same content, and those that are unusable."""

    problems: list[Problem]
    exact_duplicates: int = 0
    unusable: list[Unusable] = field(default_factory=list)


def options_of(section: Problems) -> dict[str, Any]:
    """The options of read_problems that a section [problems], or [data] of a task, asks for."""
    names = ("split", "subset", "revision", "columns", "files", "where", "limit")
    return {name: getattr(section, name) for name in names}


def load_problems(path: str, **options: Any) -> list[Problem]:
    """The problems alone, of options as those of read_problems; an unusable one raises UserError."""
    return read_problems(path, **options).problems


def read_problems(
    path: str,
    *,
    split: str = "train",
    subset: str | None = None,
    revision: str | None = None,
    columns: dict[str, str] | None = None,
    files: list[str] | None = None,
    where: Mapping[str, Any] | None = None,
    limit: int | None = None,
    tolerate: Literal["none", "expected", "unusable"] = "none",
) -> Reading:
    """Read and check the problems; the same question twice is kept once. `limit` counts those that are kept.

    `tolerate` says which Unusable ones are returned and not raised: none, those that a public set is known to hold, or
    all. Raises UserError naming the place (`path:line`) of a malformed row, a problem without an answer, an unknown kind.
    """
    if unknown := (columns or {}).keys() - COLUMNS.keys():
        raise UserError(f"problems.columns: unknown {', '.join(sorted(unknown))}; known: {', '.join(COLUMNS)}")
    problems: dict[str, Problem] = {}
    reading = Reading([])
    for place, row in rows(path, split=split, subset=subset, revision=revision, files=files):
        if where and not is_selected(row, where, place):
            continue
        try:
            problem = to_problem(row, place, columns or {}, default_source=path)
        except Unusable as unusable:
            if tolerate == "none" or (tolerate == "expected" and not unusable.expected):
                raise
            reading.unusable.append(unusable)
            continue
        reading.exact_duplicates += problem.id in problems
        problems.setdefault(problem.id, problem)
        if len(problems) == limit:
            break
    if not problems and not reading.unusable:
        which = f" that are {dict(where)}" if where else ""
        raise UserError(f"{path}: no problems in it{which}; it needs at least one")
    reading.problems = list(problems.values())
    return reading


def local_path(path: str) -> Path | None:
    """The file or folder that `path` means, or None for a Hub dataset id and for `reasoning_gym:…`.

    Raises UserError where it must be a file, and for a task or parameter that is not known.
    """
    if is_procedural(path):
        check_path(path)
        return None
    try:
        return find_file(path, "problems")
    except UserError:
        if re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", path) and not path.endswith((*SUFFIXES, *ALONE)):
            return None
        raise


def rows(
    path: str, *, split: str, subset: str | None, revision: str | None, files: list[str] | None = None
) -> Iterator[tuple[str, dict[str, Any]]]:
    """(place, row) for every row, where `place` is what an error message names."""
    if is_procedural(path):
        yield from procedural_rows(path)
        return
    found = local_path(path)
    if found is None:
        if files:
            yield from hub_file_rows(path, files, revision=revision)
        else:
            yield from hub_rows(path, split=split, subset=subset, revision=revision)
        return
    local = files_read(found, files)
    if not local:
        raise UserError(f"{path}: a folder without {', '.join(SUFFIXES)} files")
    for file in local:
        yield from file_rows(file)


def files_read(path: Path, files: list[str] | None) -> list[Path]:
    """The file, or those of a folder, of which `files` may name some."""
    local = files_of(path)
    if files and path.is_dir():  # a copy of the Hub's folder may hold the files of later releases too
        local = [file for file in local if file.name in files] or local
    return local


def is_selected(row: dict[str, Any], where: Mapping[str, Any], place: str) -> bool:
    """Whether a row is one of those that `problems.where` takes. Raises UserError where it has no such column.

    A bound is compared with as much of a text as it has characters: every day of January is at most "2025-01".
    """
    for column, wanted in where.items():
        if column not in row:
            raise UserError(
                f"{place}: no column {column}, which problems.where asks for; known: {', '.join(sorted(row))}"
            )
        value = row[column]
        value = value.isoformat() if isinstance(value, date) else value
        if not isinstance(wanted, Between):
            if (value if value is not None else "") != wanted:
                return False
            continue
        if not is_within(value, wanted):
            return False
    return True


def is_within(value: Any, bounds: Between) -> bool:
    """Whether a value is within the bounds; one of another type, or none at all, is not."""
    for limit, is_lower in ((bounds.at_least, True), (bounds.at_most, False)):
        if limit is None:
            continue
        part: Any = value[: len(limit)] if isinstance(value, str) and isinstance(limit, str) else value
        if part is None or isinstance(part, str) != isinstance(limit, str):
            return False
        if (part < limit) if is_lower else (part > limit):
            return False
    return True


def to_problem(row: dict[str, Any], place: str, columns: dict[str, str], default_source: str) -> Problem:
    """One row as a Problem, its columns mapped by `columns` (ours to theirs) and then by COLUMNS."""
    try:
        row = as_question(adapted(row))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"{place}: its question cannot be read ({type(error).__name__}: {error}); mend the row"
        ) from None
    names = {ours: (columns[ours],) if ours in columns else theirs for ours, theirs in COLUMNS.items()}
    values = {ours: first_value(row, theirs) for ours, theirs in names.items()}
    text = values["problem"]
    if not isinstance(text, str):
        raise UserError(f"{place}: no problem text; it is looked for in {', '.join(names['problem'])}")
    choices = values["choices"]
    if choices is not None and not isinstance(choices, list):
        raise UserError(f"{place}: choices is a {type(choices).__name__}; it must be a list")
    answer = answer_of(values["answer"], place)
    if is_no_answer(row, answer) or (first_name(row, names["answer"]) in SOLUTIONS and is_prose(values["answer"])):
        answer = None
    common: dict[str, Any] = {
        "problem": text.strip(),
        "answer": answer,
        "choices": None if choices is None else [str(choice) for choice in choices],
        "source": str(values["source"] or default_source),
        "license": str(values["license"] or ""),
        "date": values["date"].isoformat() if isinstance(values["date"], date) else str(values["date"] or ""),
        "meta": {
            **(table(row.get("meta"), "meta", place) or {}),
            **{key: row[key] for key in KEPT_IN_META if row.get(key) not in (None, "")},
        },
    }
    try:
        tests = code_tests(values["tests"], row, place)
    except UserError as error:
        reason = str(error).removeprefix(f"{place}: ").removesuffix("; mend the row")
        raise Unusable(str(error), Problem(**common, kind="code"), reason) from None
    kind = values["kind"] or ("code" if tests else "choice" if choices else "math")
    if kind not in KINDS:
        raise UserError(f"{place}: unknown kind {kind!r}; known: {', '.join(KINDS)}")
    problem = Problem(**common, kind=kind, tests=tests)
    check_problem(problem, row, place, names["answer"])
    return problem


def check_problem(problem: Problem, row: dict[str, Any], place: str, looked_in: tuple[str, ...]) -> None:
    """Raise Unusable where no reply to the problem could be judged, UserError where an answer was forgotten."""
    kind, answer, choices = problem.kind, problem.answer, problem.choices
    if kind in ("math", "choice") and not answer:
        message = (
            f"{place}: a {kind} problem without an answer; it is looked for in {', '.join(looked_in)}: "
            'give one, or `kind = "open"` if none exists'
        )
        if reason := why_no_answer(row):
            raise Unusable(message, problem, reason, expected=True)
        raise UserError(message)
    if kind == "choice" and not choices:
        raise UserError(f"{place}: a choice problem without choices; give them as a list in `choices`")
    if kind == "choice" and choices and answer not in list(LETTERS[: len(choices)]):
        reason = f"answer = {answer!r} is not the letter of one of its {len(choices)} choices (A, B, …)"
        raise Unusable(f"{place}: {reason}", problem, reason)
    if kind == "code":
        try:
            if not problem.tests:
                raise ValueError("a code problem without tests")
            kind_of_tests(problem.tests)
        except ValueError as error:
            remedy = "give `tests` as stdio, function or asserts (README, code problems)"
            raise Unusable(f"{place}: {error}; {remedy}", problem, str(error)) from None


def first_value(row: dict[str, Any], names: tuple[str, ...]) -> Any:
    name = first_name(row, names)
    return None if name is None else row[name]


def first_name(row: dict[str, Any], names: tuple[str, ...]) -> str | None:
    """The first that is there: not null, not NaN (pandas' word for null), not blank."""
    for name in names:
        value = row.get(name)
        if value is not None and value == value and not (isinstance(value, str) and not value.strip()):
            return name
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


def answer_of(value: Any, place: str) -> str | None:
    if isinstance(value, list | dict | bool):
        raise UserError(f"{place}: answer is a {type(value).__name__}; it must be a string or a number")
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return None if value is None else short_answer(str(value))


def is_prose(solution: Any) -> bool:
    """Whether a solution has neither a box nor ####, and is too long to be the answer itself."""
    if not isinstance(solution, str) or "####" in solution or last_boxed(solution) is not None:
        return False
    return len(solution.strip()) > MAX_ANSWER_IN_SOLUTION or "\n" in solution.strip()


def short_answer(answer: str) -> str:
    """The answer itself where a set gives a solution that ends in it: GSM8K's `#### 42`, the last box of MATH's."""
    _, mark, after = answer.rpartition("####")
    answer = after if mark else answer
    box = last_boxed(answer)
    return (answer if box is None else box).strip()
