"""Benchmarks as files: eval/*.toml says where the questions are, what decides an answer, and what others measured.

BigCodeBench is not among them: its tests are unittest cases that patch the module under test and need some 140 packages,
and here the tests run in a process that never holds the program, with nothing but the standard library and numpy.
"""

import hashlib
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from r1distill.errors import UserError
from r1distill.problem_files import ALONE, SUFFIXES
from r1distill.recipe import read_toml, validated
from r1distill.records import Problem
from r1distill.resources import SHIPPED, shipped_names
from r1distill.section import Section
from r1distill.sections import Problems

Z_BAND = 2.0  # standard deviations on either side


class Published(Section):
    """Scores that others report: percent, or a Codeforces rating."""

    source: str
    protocol: str = ""
    """Name of the protocol that they were measured with; "" where it is none of eval/protocols."""
    metric: Literal["pass@1", "cons@64", "rating"] = "pass@1"
    samples: int | None = Field(default=None, ge=1)
    """Replies a question that a score is the mean of, where they say it."""
    scores: dict[str, float]
    """By the name of the model, without its owner."""
    deviations: dict[str, float] = Field(default={})
    """Standard deviation of a run with one reply a question, in points, over runs that differ in the seed."""


class Task(Section):
    """One benchmark. What it does not say of the asking, its protocol does."""

    name: str
    title: str
    license: str
    kind: Literal["math", "choice", "code"] = "math"
    questions: int | None = Field(default=None, ge=1)
    """How many there are, where that is known."""
    samples: int = Field(ge=1)
    """Replies a question where the protocol names no number for this task."""
    protocol: str = "deepseek-r1"
    """Asked so where the recipe names no protocol."""
    prompt: str | None = None
    """The benchmark's own prompt, a file; absent, the protocol's for its kind."""
    starter_prompt: str | None = None
    """The same for questions that come with code to complete."""
    choice_line: str | None = None
    """How an option is written in its own prompt: `{letter}) {choice}`."""
    temperature: float | None = Field(default=None, ge=0)
    """Its own, over the protocol's."""
    top_p: float | None = Field(default=None, gt=0, le=1)
    """Its own, over the protocol's."""
    max_tokens: int | None = Field(default=None, ge=1)
    """Its own, over the protocol's."""
    data: Problems
    local: str = ""
    """The file or folder below `eval.data_dir`; "" is the task's name."""
    sha256: dict[str, str] = Field(default={})
    """`data_sha256` of the copies of this set that are known, by where they are from."""
    published: list[Published] = Field(default=[])


def load_task(name: str) -> Task:
    """A task by the name of its file in eval/, or by a path. Raises UserError with the names there are."""
    path = Path(name).expanduser() if name.endswith(".toml") else SHIPPED / "eval" / f"{name}.toml"
    if not path.is_file():
        known = ", ".join(shipped_names("eval", ".toml"))
        raise UserError(f"eval.tasks: no such task: {name}; give the path of a TOML file or one of: {known}")
    return validated(Task, read_toml(path), path)


# ------------------------------------------------------------ the data


def data_of(task: Task, paths: Mapping[str, str] | None = None, folder: str | None = None) -> Problems:
    """Where the questions are read from: `paths` by the name of the task, else below `folder`, else what the task says.

    Only the place changes: rows are chosen and columns renamed as the task says. Raises UserError where `folder` is none.
    """
    if paths and task.name in paths:
        return task.data.model_copy(update={"path": paths[task.name]})
    if folder is None:
        return task.data
    root = Path(folder).expanduser()
    if not root.is_dir():
        raise UserError(f"eval.data_dir = {folder!r}: no such folder; correct it")
    name = task.local or task.name
    for candidate in (root / name, *(root / f"{name}{suffix}" for suffix in (*SUFFIXES, *ALONE))):
        if candidate.exists():
            return task.data.model_copy(update={"path": str(candidate)})
    return task.data


def data_sha256(problems: Iterable[Problem]) -> str:
    """Of the questions with what decides them: of their ids in order, so that neither format nor order of the rows counts."""
    return hashlib.sha256("\n".join(sorted(problem.id for problem in problems)).encode()).hexdigest()


def known_copy(task: Task, sha256: str) -> str | None:
    """Which of the known copies of a task's data has this hash, None where it is none of them."""
    return next((name for name, known in task.sha256.items() if known == sha256), None)


def data_warning(task: Task, sha256: str) -> str | None:
    """What to say of data that is none of the known copies; None where it is one, or none is known."""
    if not task.sha256 or known_copy(task, sha256):
        return None
    return (
        f"{task.name}: the data (sha256 {sha256[:12]}) is none of the known copies ({', '.join(task.sha256)}): "
        "its scores may differ from those of others for that alone"
    )


# ------------------------------------------------------------ what others measured


def published_scores(task: Task, model: str, metric: str = "pass@1") -> list[tuple[float, Published]]:
    """(score, where from) of a model, by its name with or without owner or folder, in the order of the file."""
    name = model.rstrip("/").rpartition("/")[2]
    return [(each.scores[name], each) for each in task.published if each.metric == metric and name in each.scores]


def published_with(task: Task, protocol: str) -> dict[str, Any] | None:
    """{"source", "protocol", "scores"} for summary.json: pass@1 as measured with `protocol`, else the first there is."""
    tables = [each for each in task.published if each.metric == "pass@1"]
    tables.sort(key=lambda each: each.protocol != protocol)  # stable: the first of the file stays first
    return tables[0].model_dump(include={"source", "protocol", "scores"}) if tables else None


def rerun_band(task: Task, model: str, samples: int) -> tuple[float, float] | None:
    """(low, high), in percent: where a re-run with `samples` replies a question lands; None where nobody published pass@1.

    From the lowest to the highest published score, and two standard deviations further: of the difference of two runs,
    with as many replies as each had. A run's deviation is the published one, at least the root mean square of those of
    all models on the benchmark (one is of as few as three seeds); where there is none, that of independent questions,
    which is an upper bound. Prompts, graders and engines move scores by more than chance, so that the published scores
    themselves span the band; it is narrow, and a reason to look closer rather than a proof, where one source is all.
    """
    scores = published_scores(task, model)
    if not scores:
        return None
    name = model.rstrip("/").rpartition("/")[2]
    own = [each.deviations[name] for each in task.published if name in each.deviations]
    all_models = [value for each in task.published for value in each.deviations.values()]
    typical = math.sqrt(sum(value**2 for value in all_models) / len(all_models)) if all_models else None
    edges = []
    for score, published in scores:
        independent = math.sqrt(score * (100 - score) / task.questions) if task.questions else None
        deviation = independent if typical is None else max([typical, *own])
        if deviation is None:
            return None
        half = Z_BAND * deviation * math.sqrt(1 / samples + 1 / (published.samples or task.samples))
        edges += [score - half, score + half]
    return max(0.0, min(edges)), min(100.0, max(edges))
