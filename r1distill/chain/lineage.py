"""Who was taught by whom: the trainings that led to the models of a run, each as a row of lineage.json."""

from collections.abc import Sequence
from typing import Any

from r1distill.cache.settings import scorer_of
from r1distill.filter.card import IMPORTED
from r1distill.filter.dataset import public_source
from r1distill.recipe import Recipe
from r1distill.run import Run
from r1distill.store import read_json, write_json

LINEAGE = "lineage.json"  # in the folder of a run that followed others, or was followed by rounds
Row = dict[str, str]


def lineage_of(runs: Sequence[Run]) -> list[Row]:
    """Of runs that followed each other, who was taught by whom, and by whose samples where those are not the teacher's."""
    rows = []
    for run in runs:
        sampled_by = sampler_of(run)
        teacher = teacher_of(run.recipe) or sampled_by
        row = {"run": run.folder.name, "student": run.recipe.train.student, "teacher": teacher}
        rows.append(row if teacher == sampled_by else {**row, "sampled_by": sampled_by})
    return rows


def teacher_of(recipe: Recipe) -> str | None:
    """Whose distributions the training takes; None where it takes none, or those of who sampled."""
    train = recipe.train
    if train.online_teacher:
        return train.online_teacher
    if train.kl is None or recipe.cache.source == "generation":
        return None
    return ", ".join(each.model for each in recipe.teachers) or scorer_of(recipe).model


def sampler_of(run: Run) -> str:
    """The teacher that was sampled, or where the traces are others', who is said to have been."""
    section = run.recipe.traces
    if section is None:
        return run.recipe.teacher.model
    path = run.folder / IMPORTED
    found: dict[str, Any] = read_json(path) if path.is_file() else {}
    return f"{found.get('model') or section.model or 'an unknown teacher'} ({found.get('path') or public_source(section.path)})"


def rounds_in(run: Run) -> list[Row]:
    """The rows of the rounds on the student's own samples, as they were when they were made."""
    record = run.record("on_policy") if run.recipe.on_policy and run.is_done("on_policy") else None
    return (record or {}).get("counts", {}).get("lineage", [])


def write_lineage(run: Run, before: Sequence[Run]) -> list[Row]:
    """LINEAGE of a run and the links before it, and with its rounds, if there is more than its own training. Returns the rows."""
    rows = [*lineage_of([*before, run]), *rounds_in(run)]
    if len(rows) > 1:
        write_json(run.folder / LINEAGE, rows)
    else:
        (run.folder / LINEAGE).unlink(missing_ok=True)
    return rows
