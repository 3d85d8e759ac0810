"""results.json of an ablation: what each arm taught and scores, and every difference of two arms with its interval."""

import statistics
from collections.abc import Iterator
from dataclasses import asdict
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from r1distill.ablate.arms import recipe_of, scored_role
from r1distill.ablate.crossed import crossed_difference
from r1distill.ablate.subsets import Design, Subset
from r1distill.ablate_section import Arm
from r1distill.errors import UserError
from r1distill.evaluate.compare import scored, share
from r1distill.evaluate.tasks import load_task
from r1distill.pipeline import status_of
from r1distill.recipe import Recipe
from r1distill.run import Run

MADE_OF = ("cache", "prune", "train", "on_policy", "quantize")  # stages whose time an arm may take
Shares = dict[str, float]  # of right samples, by problem id
Scores = dict[tuple[str, int], dict[str, Shares]]  # by arm and number of the training, then by task
COUNTED = ("examples", "overlong_dropped", "overlong_truncated", "malformed_dropped", "supervised_tokens", "steps")


def is_finished(training: Run) -> bool:
    """Whether a training was made and scored for the recipe as it is now."""
    return status_of(training, "eval")[0].state == "done"


def trainings_of(recipe: Recipe, design: Design) -> Iterator[tuple[Arm, int, Run]]:
    """(arm, number, run), all arms with one seed before the next, so that there is something to compare early."""
    for number in range(recipe.ablate.seeds):
        for arm in design.trained:
            yield arm, number, Run(recipe_of(recipe, arm, number, design.tokens))


def results_of(recipe: Recipe, design: Design) -> dict[str, Any]:
    """Everything that is known so far, in the form of results.json. Trainings that are not finished are null in it."""
    trainings = {(arm.name, number): run for arm, number, run in trainings_of(recipe, design)}
    done = {key: run for key, run in trainings.items() if is_finished(run)}
    tasks = [load_task(name).name for name in recipe.eval.tasks]
    scores: Scores = {
        key: {task: shares_of(run, task) for task in tasks} for key, run in done.items()
    }  # fmt: skip
    return {
        "tokens": design.tokens,
        "seeds": recipe.ablate.seeds,
        "baseline": design.baseline,
        "trainings": len(trainings),
        "finished": len(done),
        "arms": {name: about_arm(recipe, design, name, done, scores, tasks) for name in design.material},
        "differences": {task: differences(recipe, design, scores, task) for task in tasks},
    }


def shares_of(run: Run, task: str) -> Shares:
    counts = scored(run.evaluation / task / scored_role(run.recipe)).counts
    return {name: share(count) for name, count in counts.items()}


def about_arm(
    recipe: Recipe, design: Design, name: str, done: dict[tuple[str, int], Run], scores: Scores, tasks: list[str]
) -> dict[str, Any]:
    subsets, numbers = design.subsets[name], range(recipe.ablate.seeds)
    about = {
        "filter": design.material[name].arm.filter,
        "set": design.material[name].arm.set,
        "available_tokens": design.available[name],
        "same_as": design.same_as.get(name),
        "subsets": [about_subset(each) for each in subsets],
    }
    if name in design.same_as:
        return about
    passed = {task: [mean_share(scores, name, number, task) for number in numbers] for task in tasks}
    return about | {
        "trainings": [about_training(done[name, number]) if (name, number) in done else None for number in numbers],
        "tasks": {task: {"pass@1": found, "mean": mean_of(found)} for task, found in passed.items()},
    }


def about_subset(subset: Subset) -> dict[str, Any]:
    return {key: value for key, value in asdict(subset).items() if key != "kept"}


def about_training(run: Run) -> dict[str, Any]:
    record = run.record("train") or {}
    counts = record.get("counts", {})
    return {
        "folder": run.folder.name,
        "seed": run.recipe.train.args["seed"],
        "seconds": record.get("seconds"),
        "seconds_of": {name: (run.record(name) or {}).get("seconds") for name in MADE_OF if run.is_done(name)},
        "peak_memory_gib": max(peaks_of(counts, (run.record("on_policy") or {}).get("counts", {})), default=None),
        **{name: counts[name] for name in COUNTED if name in counts},
    }


def peaks_of(counts: dict[str, Any], on_its_own: dict[str, Any]) -> list[float]:
    """Of the training, and of those on the student's own samples."""
    return [each["peak_memory_gib"] for each in (counts, *on_its_own.get("rounds", [])) if "peak_memory_gib" in each]


def mean_share(scores: Scores, name: str, number: int, task: str) -> float | None:
    found = scores.get((name, number))
    return None if found is None else statistics.fmean(found[task].values())


def mean_of(found: list[float | None]) -> float | None:
    known = [each for each in found if each is not None]
    return statistics.fmean(known) if known else None


def differences(recipe: Recipe, design: Design, scores: Scores, task: str) -> list[dict[str, Any]]:
    """B less A for every two arms, over the seeds that both were trained with; those with the baseline come first."""
    found = []
    for a, b in combinations([arm.name for arm in design.trained], 2):
        numbers = [n for n in range(recipe.ablate.seeds) if (a, n) in scores and (b, n) in scores]
        if not numbers:
            continue
        questions = list(scores[a, numbers[0]][task])
        shares_a, shares_b = (matrix(scores, name, numbers, task, questions) for name in (a, b))
        difference = crossed_difference(shares_a, shares_b)
        found.append({"a": a, "b": b, "seeds": numbers, "questions": len(questions), **asdict(difference)})
    return found


def matrix(scores: Scores, name: str, numbers: list[int], task: str, questions: list[str]) -> NDArray[np.float64]:
    """The shares `(S, Q)` of an arm. Raises UserError where its trainings were not asked the same questions."""
    rows = [scores[name, number][task] for number in numbers]
    for number, row in zip(numbers, rows, strict=True):
        if row.keys() != set(questions):
            raise UserError(
                f"{task}: {name}-seed{number} was not asked the questions that the others were; delete its stages/eval.json and "
                "run `r1distill ablate` again"
            )
    return np.array([[row[question] for question in questions] for row in rows])
