"""The student's model card: what it was made from and how, and how it scores; for the Hub and for a person."""

import json
import re
from typing import Any

from r1distill import __version__
from r1distill.filter.card import IMPORTED
from r1distill.run import Run
from r1distill.store import read_json, write_text

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")


def write_card(run: Run, summary: dict[str, Any]) -> None:
    """README.md of the student, from the records of the run; `summary` as in summary.json."""
    recipe = read_json(run.folder / "recipe.json")
    write_text(
        run.student / "README.md", model_card(run, recipe, summary, read_json(run.student / "training_log.json"))
    )


def model_card(run: Run, recipe: dict[str, Any], summary: dict[str, Any], log: list[dict[str, Any]]) -> str:
    settings = run.recipe.train
    imported = read_json(run.folder / IMPORTED) if (run.folder / IMPORTED).is_file() else {}
    traces = run.recipe.teacher.model
    if imported:
        traces = f"{imported['model'] or 'an unknown teacher'} ({imported['path']})"
    base = [f"base_model: {settings.student}"] if HUB_ID.fullmatch(settings.student) else []
    head = [
        "---",
        *base,
        "library_name: transformers",
        "pipeline_tag: text-generation",
        "tags: [reasoning, distillation]",
    ]
    stage = summary["stages"].get("train", {})
    counts = stage.get("counts", {})
    steps = [entry for entry in log if "loss" in entry]
    rows = {
        "examples": f"{counts.get('examples', 0):,}",
        "tokens, of which taught": f"{stage.get('tokens', 0):,}, {counts.get('supervised_tokens', 0):,}",
        "steps": f"{counts.get('steps', 0):,}",
        "peak memory of a process": f"{counts.get('peak_memory_gib', 0):.1f} GiB",
        "method": "LoRA" if settings.peft else "full fine-tuning",
        "learning rate": f"{max((entry['learning_rate'] for entry in steps), default=0):g} at its peak",
        **{f"{name}, first and last": ends(steps, name) for name in ("loss", "ce", "kl") if ends(steps, name)},
    }
    kl = "; the loss has the divergence from the teacher's distributions in it" if settings.kl else ""
    parts = [
        *head, "---", f"# {run.folder.name}", "",
        f"{settings.student}, fine-tuned by r1distill {__version__} on reasoning traces of {traces}{kl}.",
        "It thinks between `<think>` and `</think>` before it answers.", "",
        "## Training", "", *table(("", ""), list(rows.items())), "",
        *lineage(run), "## Data", "", *data_rows(summary["funnel"]), "",
        *evaluation(summary["tasks"]),
        "## Recipe", "",
        f"Versions: {', '.join(f'{name} {version}' for name, version in recipe['versions'].items())}.", "",
        "```json", json.dumps(recipe["recipe"], indent=2, ensure_ascii=False), "```", "",
    ]  # fmt: skip
    return "\n".join(parts)


def lineage(run: Run) -> list[str]:
    """Who was taught by whom before, in a chain or in rounds."""
    path = run.folder / "lineage.json"
    if not path.is_file():
        return []
    rows = [(each["run"], each["student"], each["teacher"]) for each in read_json(path)]
    return ["## Lineage", "", *table(("run", "student", "taught by"), rows), ""]


def ends(steps: list[dict[str, Any]], name: str) -> str:
    values = [entry[name] for entry in steps if name in entry]
    return f"{values[0]:.4f}, {values[-1]:.4f}" if values else ""


def data_rows(funnel: dict[str, Any]) -> list[str]:
    if not funnel:
        return ["The dataset was not made by this run."]
    dropped = [(f"dropped: {reason}", f"{count:,}") for reason, count in funnel["dropped"].items()]
    return table(("traces", ""), [("sampled", f"{funnel['sampled']:,}"), *dropped, ("kept", f"{funnel['kept']:,}")])


def evaluation(tasks: dict[str, Any]) -> list[str]:
    rows = [
        (task, role, f"{found['pass@1']:.1%}", "{:.1%} – {:.1%}".format(*found["ci95"]), str(found["samples"]))
        for task, models in tasks.items()
        for role, found in models.items()
    ]
    if not rows:
        return []
    return ["## Evaluation", "", *table(("task", "model", "pass@1", "95 % interval", "samples a question"), rows), ""]


def table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> list[str]:
    return [f"| {' | '.join(head)} |", "|" + " --- |" * len(head), *(f"| {' | '.join(row)} |" for row in rows)]
