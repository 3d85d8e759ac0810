"""The registry of what problems are compared with: every benchmark in eval/ and the user's own held-out problems, hashed.

A benchmark that cannot be read, as without a network, is never skipped in silence: it is named with the reason, in the
report and in a warning.
"""

from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from r1distill.contamination_section import Contamination
from r1distill.errors import UserError
from r1distill.evaluate.tasks import Task, data_of, data_sha256, known_copy, load_task
from r1distill.hub import offline_if_unreachable
from r1distill.models import HUB_ID
from r1distill.problems import files_of, local_path, options_of, read_problems
from r1distill.records import Problem
from r1distill.resources import shipped_names
from r1distill.sections import Problems
from r1distill.store import size_and_time


@dataclass(frozen=True, slots=True)
class Benchmark:
    """`sha256` is `data_sha256` of the questions that can be judged, as in an evaluation; `questions` counts all.

    `known_copy` names the copy with that hash, "" where the task's file knows none such.
    """

    name: str
    path: str
    revision: str
    sha256: str
    known_copy: str
    questions: int


@dataclass(frozen=True, slots=True)
class Registry:
    """`built` is the day, YYYY-MM-DD. `not_checked`: {name: why it could not be read}."""

    built: str
    benchmarks: list[Benchmark]
    not_checked: dict[str, str]
    problems: dict[str, list[Problem]]

    def questions(self) -> Iterator[tuple[str, Problem]]:
        """(benchmark, question), in the order in which they were read."""
        for name, problems in self.problems.items():
            yield from ((name, problem) for problem in problems)

    def as_table(self) -> dict[str, Any]:
        """For contamination.json: everything but the questions."""
        return {
            "built": self.built,
            "benchmarks": [asdict(benchmark) for benchmark in self.benchmarks],
            "not_checked": self.not_checked,
        }

    def warning(self) -> str | None:
        """What to say where something was not compared; None where everything was."""
        if not self.not_checked:
            return None
        return (
            f"not checked for contamination: {', '.join(self.not_checked)}; contamination.json says why. Give their files "
            "in [contamination.data] or data_dir, or name those that you mean in contamination.benchmarks"
        )


def build_registry(
    settings: Contamination, built: str, data: Mapping[str, str] | None = None, data_dir: str | None = None
) -> Registry:
    """Read the benchmarks and the user's files. `data` and `data_dir` are those of `[eval]`, after the section's own.

    Raises UserError where a name is no benchmark, where a path that the user gave cannot be read, or two have one name.
    """
    sections = sections_of(settings, data or {}, data_dir)
    if unknown := settings.data.keys() - {task.name for task, _ in sections}:
        raise UserError(
            f"contamination.data.{min(unknown)}: not among the benchmarks that are compared; correct or remove it"
        )
    registry = Registry(built, [], {}, {})
    with offline_if_unreachable() if any(is_on_the_hub(each.path) for _, each in sections) else nullcontext():
        for task, section in sections:
            try:
                add(registry, task.name, section, task)
            except UserError as error:
                if task.name in settings.data:
                    raise
                registry.not_checked[task.name] = str(error)
    for path in settings.extra:
        if path in registry.problems:
            raise UserError(f"contamination.extra: {path} is a benchmark's name, or there twice; rename or remove it")
        add(registry, path, Problems(path=path), None)
    return registry


def sources_of(settings: Contamination, data: Mapping[str, str], data_dir: str | None) -> list[Any]:
    """All that decides what `build_registry` reads, for a fingerprint: the settings, and size and time of local files."""
    benchmarks = [section for _, section in sections_of(settings, data, data_dir)]
    found: list[Any] = [settings.model_dump()]
    for section in [*benchmarks, *(Problems(path=path) for path in settings.extra)]:
        local = local_copy(section.path)
        files = files_of(local) if local else []
        found.append([section.model_dump(), [[file.name, *size_and_time(file)] for file in files]])
    return found


def local_copy(path: str) -> Path | None:
    try:
        return local_path(path)
    except UserError:  # said where it is read
        return None


def is_on_the_hub(path: str) -> bool:
    return bool(HUB_ID.fullmatch(path)) and local_copy(path) is None


def sections_of(settings: Contamination, data: Mapping[str, str], data_dir: str | None) -> list[tuple[Task, Problems]]:
    """The benchmarks that are compared, each with where its questions are read."""
    names = shipped_names("eval", ".toml") if settings.benchmarks == "all" else settings.benchmarks
    paths = {**data, **settings.data}
    return [(task, data_of(task, paths, settings.data_dir or data_dir)) for task in map(load_task, names)]


def add(registry: Registry, name: str, section: Problems, task: Task | None) -> None:
    """Questions that no reply could be judged by count too: a student may have learned them all the same."""
    reading = read_problems(section.path, **options_of(section), tolerate="unusable")
    problems = [*reading.problems, *(unusable.problem for unusable in reading.unusable)]
    sha256 = data_sha256(reading.problems)
    copy = known_copy(task, sha256) if task else None
    registry.problems[name] = problems
    registry.benchmarks.append(Benchmark(name, section.path, section.revision or "", sha256, copy or "", len(problems)))
