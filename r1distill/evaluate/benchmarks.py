"""A benchmark as it is asked here: the task, how its questions are asked, and the questions."""

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import pyarrow.dataset as pads

from r1distill.console import say
from r1distill.evaluate.protocols import Asking, asked, asking_of
from r1distill.evaluate.tasks import Task, data_of, data_sha256, data_warning, load_task
from r1distill.generate.stage import problems_of
from r1distill.recipe import Recipe
from r1distill.records import Problem
from r1distill.sections import Problems


@dataclass(frozen=True, slots=True)
class Benchmark:
    """`sha256` is of the questions as they are asked, `limit` and all."""

    task: Task
    asking: Asking
    problems: list[Problem]
    sha256: str


def asking_in(recipe: Recipe, task: Task) -> Asking:
    """How the recipe asks a task: its protocol, with the changes that `[eval]` makes."""
    settings = recipe.eval
    return asking_of(
        task, settings.protocol,
        samples=settings.samples, temperature=settings.temperature, top_p=settings.top_p,
        max_tokens=settings.max_tokens, prefill=settings.prefill,
    )  # fmt: skip


def data_in(recipe: Recipe, task: Task) -> Problems:
    """Where the recipe has the questions of a task from."""
    found = data_of(task, recipe.eval.data, recipe.eval.data_dir)
    return found.model_copy(update={"limit": recipe.eval.limit}) if recipe.eval.limit else found


def open_benchmark(recipe: Recipe, name: str) -> Benchmark:
    """Read the questions, and say where they are none of the known copies."""
    task = load_task(name)
    asking = asking_in(recipe, task)
    problems = asked(problems_of(data_in(recipe, task)), asking)
    sha256 = data_sha256(problems)
    if recipe.eval.limit is None and (warning := data_warning(task, sha256)):
        say(f"  {warning}", style="yellow")
    return Benchmark(task, asking, problems, sha256)


def lengths_so_far(folder: Path) -> dict[str, float]:
    """Mean tokens of a reply by problem id, over all models that were scored on a task below `folder` (eval/TASK)."""
    tokens: dict[str, list[int]] = defaultdict(list)
    for traces in folder.glob("*/traces"):
        for batch in pads.dataset(traces, format="parquet").to_batches(columns=["problem_id", "n_tokens"]):
            for problem_id, n in zip(*(column.to_pylist() for column in batch.columns), strict=True):
                tokens[problem_id].append(n)
    return {problem_id: sum(of_it) / len(of_it) for problem_id, of_it in tokens.items()}
