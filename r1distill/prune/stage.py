"""The stage `prune`: the student as it is → pruned/, the smaller model that training starts from."""

import importlib
from typing import Any

from r1distill.console import console, say
from r1distill.run import Clock, Run

REPORT = "pruning.json"  # beside the model: what was measured, and what stayed


def prune_stage(run: Run, clock: Clock) -> dict[str, Any]:
    """Measure, cut and save. Returns the counts for the stage's record."""
    with console.status(f"prune: {run.recipe.train.student}"):
        counts = importlib.import_module("r1distill.prune.student").prune_student(run, run.model("pruned"))
    say(
        f"  {counts['parameters_before']:,} parameters → {counts['parameters']:,}: {counts['layers']} layers, "
        f"{counts['channels']:,} channels, {counts['heads']} heads"
    )
    return counts


def with_pruned(run: Run) -> Run:
    """The run as its training sees it: the student is the pruned one, which has its tokenizer beside it."""
    if run.recipe.prune is None:
        return run
    train = run.recipe.train.model_copy(update={"student": str(run.model("pruned")), "revision": None})
    return Run(run.recipe.model_copy(update={"train": train}))
