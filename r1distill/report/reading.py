"""What there is of a run, finished or not: its folders of scores and the small files beside them."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from r1distill.errors import UserError
from r1distill.pipeline import STAGE_NAMES
from r1distill.records import FinishReason, Outcome
from r1distill.sections import ROLES
from r1distill.store import read_json, read_records

ROWS = 50  # replies read at once: one of 30,000 tokens is a tenth of a megabyte


@dataclass(frozen=True, slots=True)
class Question:
    """What the page shows of a Problem; the same names, so that only these columns are read."""

    id: str
    problem: str
    kind: str
    answer: str | None
    tests: dict[str, Any] | None
    choices: list[str] | None
    source: str
    meta: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Reply:
    """What the page shows of a Trace: not its text a second time, and not the token ids."""

    problem_id: str
    sample: int
    thinking: str | None
    answer: str
    finish_reason: FinishReason
    n_tokens: int
    seconds: float
    error: str | None


@dataclass(frozen=True, slots=True)
class Judged:
    """What the page shows of a Verdict."""

    problem_id: str
    sample: int
    outcome: Outcome
    extracted: str | None
    detail: str
    verifier: str


@dataclass(frozen=True, slots=True)
class Scored:
    """eval/TASK/MODEL. `summary` is {} where the evaluation was stopped before it."""

    task: str
    model: str
    folder: Path
    summary: dict[str, Any]


@dataclass(frozen=True, slots=True)
class RunFiles:
    """Everything but the traces. What a run does not have (yet) is empty."""

    name: str
    scored: list[Scored]  # by task, then by role
    funnel: dict[str, Any]
    stages: dict[str, dict[str, Any]]  # in the order of the pipeline
    training_log: list[dict[str, Any]]
    versions: dict[str, str]


def read_run(folder: Path) -> RunFiles:
    """Raises UserError where `folder` is not the folder of a run, or a file in it cannot be read."""
    recipe = folder / "recipe.json"
    if not recipe.is_file() and not (folder / "eval").is_dir():
        raise UserError(
            f"{folder}: not a run folder, it has neither recipe.json nor eval/; give the run_dir of a recipe that was run"
        )
    stages = {name: small_file(folder / "stages" / f"{name}.json", {}) for name in STAGE_NAMES}
    return RunFiles(
        name=folder.resolve().name,
        scored=list(scored_folders(folder / "eval")),
        funnel=small_file(folder / "funnel.json", {}),
        stages={name: record for name, record in stages.items() if record},
        training_log=small_file(folder / "student" / "training_log.json", []),
        versions=small_file(recipe, {}).get("versions", {}),
    )


def scored_folders(evaluation: Path) -> Iterator[Scored]:
    for task in sorted(path for path in evaluation.glob("*") if path.is_dir()):
        models = [path for path in task.iterdir() if (path / "problems.parquet").is_file()]
        for model in sorted(models, key=lambda path: (role_rank(path.name), path.name)):
            yield Scored(task.name, model.name, model, small_file(model / "summary.json", {}))


def role_rank(model: str) -> int:
    return ROLES.index(model) if model in ROLES else len(ROLES)


def small_file(path: Path, default: Any) -> Any:
    """A JSON file of the kind of `default`, which stands for one that is not there. Raises UserError if it is no such."""
    if not path.is_file():
        return default
    try:
        value = read_json(path)
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise UserError(f"{path}: cannot be read: {error}; run the stage that made it again") from None
    if not isinstance(value, type(default)):
        kinds = {dict: "an object", list: "a list"}
        raise UserError(f"{path}: it is not {kinds[type(default)]}; run the stage that made it again")
    return value


def replies_and_verdicts(scored: Scored, questions: list[str]) -> Iterator[tuple[Reply, Judged | None]]:
    """The replies in their order, each with its verdict; None where the verifier has not come to it.

    Both files follow the order of the questions, and the verdicts of an evaluation that is being extended lack samples
    in the middle, so they are merged by (question, sample) and neither is held in memory.
    """
    if not (scored.folder / "traces").is_dir():
        return
    rank = {question: number for number, question in enumerate(questions)}

    def place(record: Reply | Judged) -> tuple[int, int]:
        return rank.get(record.problem_id, len(rank)), record.sample

    verdicts = scored.folder / "verdicts.parquet"
    judged = read_records(verdicts, Judged) if verdicts.is_file() else iter(())
    verdict = next(judged, None)
    for reply in read_records(scored.folder / "traces", Reply, rows=ROWS):
        while verdict and place(verdict) < place(reply):
            verdict = next(judged, None)
        if verdict and (verdict.problem_id, verdict.sample) == (reply.problem_id, reply.sample):
            yield reply, verdict
            verdict = next(judged, None)
        else:
            yield reply, None
