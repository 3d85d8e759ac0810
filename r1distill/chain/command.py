"""`r1distill chain RECIPE`, and the stage `on_policy`: the runs one after the other, each continued where it stopped."""

import os
import shutil
from typing import Any

from r1distill.chain.links import LINEAGE, lineage_of, links_of, rounds_of
from r1distill.console import library_output_to, say
from r1distill.errors import UserError
from r1distill.models import check_model_name
from r1distill.pipeline import names_of_run, preflight, run_stages, statuses
from r1distill.run import Clock, Run, locked
from r1distill.store import replacing_folder, write_json
from r1distill.summary import show_summary, write_summary


def chain(run: Run, *, dry_run: bool, redo: bool) -> None:
    """Teach every link by the one before it. Raises UserError before any work for what would stop the last of them."""
    if not run.recipe.chain:
        raise UserError("[[chain]] is empty: add a table for each student, from the assistant to the last one")
    runs = links_of(run.recipe)
    if dry_run:
        for each in runs:
            state = ", ".join(f"{status.stage.name} {status.state}" for status in statuses(each))
            say(f"{each.folder.name}: {each.recipe.teacher.model} → {each.recipe.train.student}", style="bold")
            say(f"  {each.folder}: {state}")
        return
    with locked(run):
        with library_output_to(run.log("preflight")):
            for each in runs:
                check_model_name(each.recipe.train.student, f"chain.{each.folder.name}.student")
            preflight(runs[0].recipe, names_of_run(runs[0].recipe))
        for place in range(len(runs)):
            each = links_of(run.recipe)[place]  # made anew: now it is known when its teacher was trained
            say(
                f"▶ {each.folder.name} ({place + 1} of {len(runs)}), taught by {each.recipe.teacher.model}",
                style="bold",
            )
            with locked(each):
                run_stages(each, names_of_run(each.recipe), redo=redo)
                write_json(each.folder / LINEAGE, lineage_of(links_of(run.recipe)[: place + 1]))
                summary = write_summary(each)
            if place == len(runs) - 1:
                show_summary(each, summary)


def on_policy_stage(run: Run, clock: Clock) -> dict[str, Any]:
    """Every round in its own run folder; the last student is RUN/on_policy/student. Returns the counts for the record."""
    settings = run.recipe.on_policy
    assert settings
    counts: list[dict[str, Any]] = []
    for number in range(settings.rounds):
        each = rounds_of(run)[number]
        say(f"  round {number + 1} of {settings.rounds}: {each.recipe.teacher.model} on its own samples")
        with locked(each):
            run_stages(each, ("generate", "verify", "filter", "train"), redo=True)
            write_json(each.folder / LINEAGE, lineage_of([run, *rounds_of(run)[: number + 1]]))
        trained, verified = (each.record(name) or {} for name in ("train", "verify"))
        counts.append({**trained.get("counts", {}), "outcomes": verified.get("counts", {}).get("outcomes", {})})
        clock.tick()
    last = rounds_of(run)[-1]
    with replacing_folder(run.model("on_policy")) as folder:
        for file in last.student.iterdir():
            if file.is_file():
                try:
                    os.link(file, folder / file.name)
                except OSError:  # another file system, or one without hard links
                    shutil.copy2(file, folder / file.name)
    return {"rounds": counts}
