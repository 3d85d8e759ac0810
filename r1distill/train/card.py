"""The model cards of what a run makes: from what and how, who taught it, how it scores; for the Hub and for a person."""

import json
import re
from collections.abc import Callable
from typing import Any

from r1distill import __version__
from r1distill.chain.lineage import Row, rounds_in, sampler_of, teacher_of
from r1distill.run import Run
from r1distill.sections import MADE_BY
from r1distill.store import read_json, write_text

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
THINKS = "It thinks between `<think>` and `</think>` before it answers."
ROUNDED = {"int8": "weights and activations (W8A8)", "int8_weights": "weights alone (W8A16)"}


def write_cards(run: Run, summary: dict[str, Any], lineage: list[Row]) -> None:
    """README.md beside each model that the run has made, from its records; `summary` as in summary.json.

    `lineage`: the trainings that led to the run's last model, in order, with the rounds on its own samples at the end.
    """
    recipe = read_json(run.folder / "recipe.json")
    rounds = len(rounds_in(run))
    upto = lineage[: len(lineage) - rounds]
    cards: dict[str, tuple[Callable[..., list[str]], list[Row]]] = {
        "pruned": (about_pruned, []), "student": (about_student, upto), "on_policy": (about_rounds, lineage),
        "quantized": (about_quantized, lineage),
    }  # fmt: skip
    for role, (about, rows) in cards.items():
        stage = MADE_BY[role]
        if stage in summary["stages"] and getattr(run.recipe, stage) is not None and run.model(role).is_dir():
            text = card(run, recipe, summary, about(run, summary["stages"][stage]), rows)
            write_text(run.model(role) / "README.md", text)


def card(run: Run, recipe: dict[str, Any], summary: dict[str, Any], about: list[str], rows: list[Row]) -> str:
    """A whole card: `about` is what the model is and how it was made, `rows` who taught whom before."""
    student = run.recipe.train.student
    base = [f"base_model: {student}"] if HUB_ID.fullmatch(student) else []
    parts = [
        "---", *base, "library_name: transformers", "pipeline_tag: text-generation", "tags: [reasoning, distillation]", "---",
        *about, "",
        *lineage_rows(rows), "## Data", "", *data_rows(summary["funnel"]), "",
        *evaluation(summary["tasks"]),
        "## Recipe", "",
        f"Versions: {', '.join(f'{name} {version}' for name, version in recipe['versions'].items())}.", "",
        "```json", json.dumps(recipe["recipe"], indent=2, ensure_ascii=False), "```", "",
    ]  # fmt: skip
    return "\n".join(parts)


def about_student(run: Run, stage: dict[str, Any]) -> list[str]:
    settings = run.recipe.train
    counts = stage.get("counts", {})
    steps = [entry for entry in read_json(run.student / "training_log.json") if "loss" in entry]
    rows = {
        "examples": f"{counts.get('examples', 0):,}",
        "tokens, of which taught": f"{stage.get('tokens', 0):,}, {counts.get('supervised_tokens', 0):,}",
        "steps": f"{counts.get('steps', 0):,}",
        "peak memory of a process": f"{counts.get('peak_memory_gib', 0):.1f} GiB",
        "method": "LoRA" if settings.peft else "full fine-tuning",
        "learning rate": f"{max((entry['learning_rate'] for entry in steps), default=0):g} at its peak",
        **{f"{name}, first and last": ends(steps, name) for name in ("loss", "ce", "kl") if ends(steps, name)},
    }
    taught = teacher_of(run.recipe) or sampler_of(run)
    kl = f"; the loss has the divergence from the distributions of {taught} in it" if settings.kl else ""
    pruned = " (pruned before)" if run.recipe.prune else ""
    return [
        f"# {run.folder.name}", "",
        f"{settings.student}{pruned}, fine-tuned by r1distill {__version__} on reasoning traces of {sampler_of(run)}{kl}.",
        THINKS, "", "## Training", "", *table(("", ""), list(rows.items())),
    ]  # fmt: skip


def about_pruned(run: Run, stage: dict[str, Any]) -> list[str]:
    settings, counts = run.recipe.prune, stage.get("counts", {})
    assert settings
    left_out = ", ".join(str(place) for place in counts.get("dropped_layers", [])) or "none"
    stayed = ", ".join(f"{counts.get(name, 0):,} {name}" for name in ("layers", "channels", "heads"))
    rows = {
        "parameters": f"{counts.get('parameters_before', 0):,} → {counts.get('parameters', 0):,}",
        "asked for": f"{settings.depth:.0%} of the layers, {settings.ffn:.0%} of the channels, {settings.heads:.0%} of the heads",
        "layers left out, from 0": left_out,
        "what is left": stayed,
    }
    return [
        f"# {run.folder.name}, pruned", "",
        f"{run.recipe.train.student}, from which r1distill {__version__} took what mattered least for {settings.examples} "
        f"reasoning traces of {sampler_of(run)}. Nobody has taught it since: the training begins with it.", "",
        "## What was cut", "", *table(("", ""), list(rows.items())),
    ]  # fmt: skip


def about_rounds(run: Run, stage: dict[str, Any]) -> list[str]:
    settings = run.recipe.on_policy
    assert settings
    lineage = rounds_in(run)
    teacher = lineage[-1]["teacher"] if lineage else "its teacher"
    rows = [
        (str(number), f"{each.get('examples', 0):,}", f"{each.get('steps', 0):,}", ", ".join(
            f"{count:,} {outcome}" for outcome, count in each.get("outcomes", {}).items()
        ))
        for number, each in enumerate(stage.get("counts", {}).get("rounds", []), 1)
    ]  # fmt: skip
    return [
        f"# {run.folder.name}, on its own samples", "",
        f"The student that came of {run.recipe.train.student}, trained on by r1distill {__version__} on what it says itself, "
        f"each token judged by {teacher} ({settings.divergence} divergence).", THINKS, "",
        "## Rounds", "", *table(("round", "examples", "steps", "replies"), rows),
    ]  # fmt: skip


def about_quantized(run: Run, stage: dict[str, Any]) -> list[str]:
    settings, counts = run.recipe.quantize, stage.get("counts", {})
    assert settings
    strength = settings.strength(after_qat=run.recipe.train.qat is not None)
    rows = {
        "scheme": f"{settings.scheme}: {ROUNDED[settings.scheme]}",
        "layers in 8 bits": f"{counts.get('linears', 0):,}",
        "left as they are": ", ".join(["embeddings and output", *(f"`{each}`" for each in settings.ignore)]),
        "smoothing": f"SmoothQuant, {strength:g}" if strength else "none",
        "MB": f"{counts.get('bytes_before', 0) / 1e6:,.1f} → {counts.get('bytes', 0) / 1e6:,.1f}",
    }
    source = "its rounds on its own samples" if run.recipe.on_policy else "its training"
    return [
        f"# {run.folder.name}, in 8 bits", "",
        f"The student that came of {run.recipe.train.student}, as it was after {source}, rounded to 8-bit integers by r1distill "
        f"{__version__}, in the format of compressed-tensors, which vLLM reads.", THINKS, "",
        "## Rounding", "", *table(("", ""), list(rows.items())),
    ]  # fmt: skip


def lineage_rows(rows: list[Row]) -> list[str]:
    """Who was taught by whom, where one training followed another."""
    if len(rows) < 2:
        return []
    told = [(each["run"], each["student"], each["teacher"], each.get("sampled_by", each["teacher"])) for each in rows]
    return ["## Lineage", "", *table(("run", "student", "taught by", "on samples of"), told), ""]


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
