"""`r1distill ablate RECIPE`: students taught by subsets of the same traces, equal in tokens, and what the difference makes."""

from typing import Any

from r1distill.ablate.arms import SAMPLED, folder_of, recipe_of, stages_of, take_over
from r1distill.ablate.results import is_finished, results_of, trainings_of
from r1distill.ablate.show import show_design, show_results
from r1distill.ablate.subsets import Design, design_of, is_measured
from r1distill.ablate_section import Arm
from r1distill.console import library_output_to, say
from r1distill.errors import UserError
from r1distill.filter.tagging import tag
from r1distill.pipeline import run_stages, statuses
from r1distill.preflight import preflight
from r1distill.recipe import Recipe
from r1distill.run import Clock, Run, locked
from r1distill.store import write_json
from r1distill.summary import write_summary


def ablate(run: Run, *, dry_run: bool, redo: bool) -> None:
    """Sample and verify where that is not done, then train and score every arm with every seed, and compare them.

    Continues where it was stopped. Raises UserError before any work for what would stop the last training.
    """
    if dry_run:
        show_plan(run)
        return
    with locked(run):
        with library_output_to(run.log("preflight")):  # before hours of sampling and of the arms before it
            for arm in unfinished(run.recipe):
                check_arm(run.recipe, arm)
        run_stages(run, SAMPLED, redo=redo)
        clock = Clock(run, "ablate")
        with library_output_to(run.log("ablate")):
            tag(run, clock)
            design = design_of(run, clock)
        show_design(run.recipe, design)
        train_all(run, design)
        results = write_results(run, design)
    show_results(results)
    say(f"all of it: {folder_of(run.recipe) / 'results.json'}; the students: {folder_of(run.recipe)}/ARM-seedN/student")


def undone(run: Run) -> list[str]:
    """The stages before an ablation that have to run."""
    return [each.stage.name for each in statuses(run) if each.stage.name in SAMPLED and each.state != "done"]


def unfinished(recipe: Recipe) -> list[Arm]:
    """The arms that have trainings which were not scored."""
    return [
        arm
        for arm in recipe.ablate.arms
        if not all(Run(recipe_of(recipe, arm, n, None)).is_done("eval") for n in range(recipe.ablate.seeds))
    ]


def check_arm(recipe: Recipe, arm: Arm) -> None:
    """Raise UserError for what would stop a training of the arm."""
    training = recipe_of(recipe, arm, 0, None)
    try:
        preflight(training, stages_of(training)[1:])
    except UserError as error:
        raise (UserError(f'[[ablate.arms]] "{arm.name}": {error}') if arm.set else error) from None


def show_plan(run: Run) -> None:
    """What would be trained, as far as it is known without sampling or measuring anything."""
    ablate = run.recipe.ablate
    missing = undone(run)
    if not missing and is_measured(run):
        show_design(run.recipe, design_of(run, Clock(run, "ablate"), rescore=False))
        return
    most = len(ablate.arms) * ablate.seeds
    say(f"ablation: {len(ablate.arms)} arms × {ablate.seeds} seeds, {most} trainings at most")
    for arm in ablate.arms:
        say(f"  {arm.name}{' (baseline)' if arm.name == ablate.baseline else ''}: filter {arm.filter}")
    before = (
        f"{' and '.join(missing)}, which ablate runs first" if missing else "r1distill filter has measured the traces"
    )
    say(f"how many tokens each arm has is known after {before}")


def train_all(run: Run, design: Design) -> None:
    trainings = list(trainings_of(run.recipe, design))
    for place, (arm, number, training) in enumerate(trainings, 1):
        with locked(training):
            take_over(run, training, design.material[arm.name].path)
            if is_finished(training):
                say(f"✓ {training.folder.name}: done before ({place} of {len(trainings)})", style="green")
                continue
            say(f"▶ {arm.name}, seed {number}: training {place} of {len(trainings)}", style="bold")
            run_stages(training, stages_of(training.recipe))
            write_summary(training)
        write_results(run, design)


def write_results(run: Run, design: Design) -> dict[str, Any]:
    results = results_of(run.recipe, design)
    write_json(folder_of(run.recipe) / "results.json", results)
    return results
