"""`r1distill chain RECIPE`, and the stage `on_policy`: the runs one after the other, each continued where it stopped."""

import os
import shutil
from pathlib import Path
from typing import Any

from r1distill.chain.lineage import lineage_of
from r1distill.chain.links import STAGES_OF_ROUNDS, links_of, rounds_of
from r1distill.console import library_output_to, say
from r1distill.errors import UserError
from r1distill.pipeline import names_of_run, refuse_other_recipe, run_stages, statuses
from r1distill.preflight import preflight
from r1distill.run import Clock, Run, locked
from r1distill.store import replacing_folder
from r1distill.summary import show_summary, write_summary

# what is another where a link's teacher was trained again: that is no other recipe, and its samples are taken anew
TRAINED_AGAIN = ("teacher.revision",)


def chain(run: Run, *, dry_run: bool, redo: bool) -> None:
    """Teach every link by the one before it. Raises UserError before any work for what would stop the last of them."""
    if not run.recipe.chain:
        raise UserError("[[chain]] is empty: add a table for each student, from the assistant to the last one")
    runs = links_of(run.recipe)
    if dry_run:
        for each in runs:
            names = names_of_run(each.recipe)
            found = [status for status in statuses(each) if status.stage.name in names]
            state = ", ".join(f"{status.stage.name} {status.state}" for status in found)
            say(f"{each.folder.name}: {each.recipe.teacher.model} → {each.recipe.train.student}", style="bold")
            say(f"  {each.folder}: {state}")
        return
    with locked(run):
        with library_output_to(run.log("preflight")):
            check_links(runs, redo)
        for place in range(len(runs)):
            each = links_of(run.recipe)[place]  # made anew: now it is known when its teacher was trained
            say(
                f"▶ {each.folder.name} ({place + 1} of {len(runs)}), taught by {each.recipe.teacher.model}",
                style="bold",
            )
            with locked(each):
                run_stages(each, names_of_run(each.recipe), redo=redo, may_change=TRAINED_AGAIN if place else ())
                summary = write_summary(each, links_of(run.recipe)[:place])
            if place == len(runs) - 1:
                show_summary(each, summary)


def check_links(runs: list[Run], redo: bool) -> None:
    """Raise UserError for what would stop one of them. The students that are still to be trained are not looked for."""
    to_be_made: list[Path] = []
    for place, each in enumerate(runs):
        names = names_of_run(each.recipe)
        try:
            refuse_other_recipe(each, redo, TRAINED_AGAIN if place else ())
            found = [status.stage.name for status in statuses(each) if status.state != "done"]
            todo = [name for name in names if name in found or to_be_made]  # whom another teaches does all again
            preflight(each.recipe, todo, to_be_made)
        except UserError as error:
            raise UserError(f'[[chain]] "{each.folder.name}": {error}') from None
        if "train" in todo:
            to_be_made.append(each.student)


def on_policy_stage(run: Run, clock: Clock) -> dict[str, Any]:
    """Every round in its own run folder; the last student is RUN/on_policy/student. Returns the counts for the record."""
    settings = run.recipe.on_policy
    assert settings
    counts: list[dict[str, Any]] = []
    for number in range(settings.rounds):
        each = rounds_of(run)[number]
        say(f"  round {number + 1} of {settings.rounds}: {each.recipe.teacher.model} on its own samples")
        try:
            with locked(each):
                run_stages(each, STAGES_OF_ROUNDS, redo=True)
        except UserError as error:
            raise UserError(f"[on_policy] round {number + 1}: {error}") from None
        trained, verified = (each.record(name) or {} for name in ("train", "verify"))
        counts.append({**trained.get("counts", {}), "outcomes": verified.get("counts", {}).get("outcomes", {})})
        clock.tick()
    rounds = rounds_of(run)
    with replacing_folder(run.model("on_policy")) as folder:
        for file in rounds[-1].student.iterdir():
            if file.is_file():
                try:
                    os.link(file, folder / file.name)
                except OSError:  # another file system, or one without hard links
                    shutil.copy2(file, folder / file.name)
    return {"rounds": counts, "lineage": lineage_of(rounds)}
