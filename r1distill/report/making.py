"""The sections of the page on how the student was made: funnel, losses, time."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from r1distill.console import clock
from r1distill.html_text import shown
from r1distill.report.charts import Line, bar_chart, line_chart
from r1distill.report.scores import cells, scrolling

LOSSES = ("loss", "ce", "kl", "eval_loss")
SOURCES = 30


def funnel(counts: Mapping[str, Any]) -> str:
    """What became of the traces, as in funnel.json."""
    if "sampled" not in counts:
        return ""
    rows = {"sampled": counts["sampled"], **{f"− {name}": count for name, count in dropped(counts).items()}}
    rows["kept"] = counts.get("kept", 0)
    whole = counts["sampled"] or 1
    written = {name: f"{count:,} ({100 * count / whole:.1f} %)" for name, count in rows.items()}
    chart = bar_chart("What became of the teacher's traces", "traces", rows, written)
    return f'<div class="chart">{chart}</div>'


def dropped(counts: Mapping[str, Any]) -> dict[str, int]:
    """How many for each reason, the most frequent first."""
    return dict(sorted(counts.get("dropped", {}).items(), key=lambda entry: -entry[1]))


def funnel_by_source(counts: Mapping[str, Any]) -> str:
    """The same by the source of the problems, folded; the largest ones."""
    by_source, reasons = counts.get("by_source", {}), list(dropped(counts))
    if len(by_source) < 2:
        return ""
    largest = sorted(by_source.items(), key=lambda entry: -entry[1]["sampled"])[:SOURCES]
    head = f'<thead><tr><th scope="col">source</th>{cells(["sampled", *reasons, "kept"], "th")}</tr></thead>'
    body = "".join(
        f'<tr><th scope="row">{shown(name)}</th>'
        + cells(
            [f"{count:,}" for count in (row["sampled"], *(row["dropped"].get(one, 0) for one in reasons), row["kept"])]
        )
        + "</tr>"
        for name, row in largest
    )
    table = scrolling(f"<table>{head}<tbody>{body}</tbody></table>", "The funnel by source")
    few = "" if len(by_source) <= SOURCES else f", the largest {SOURCES} of {len(by_source)}"
    return f"<details><summary>What became of them by source{few}</summary>{table}</details>"


def losses(log: Sequence[Mapping[str, Any]]) -> str:
    lines = []
    for series, name in enumerate(LOSSES):
        points = [(entry["step"], entry[name]) for entry in log if "step" in entry and is_number(entry.get(name))]
        if len(points) > 1:
            lines.append(Line(name, series + 2, points))
    if not lines:
        return ""
    return f'<div class="chart">{line_chart("Losses in training", "step", "loss, nats a token", lines)}</div>'


def is_number(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def stage_times(stages: Mapping[str, Mapping[str, Any]]) -> str:
    seconds = {name: record["seconds"] for name, record in stages.items() if is_number(record.get("seconds"))}
    if not seconds:
        return ""
    written = {name: stage_words(stages[name]) for name in seconds}
    return f'<div class="chart">{bar_chart("Time of the stages", "hours:minutes:seconds", seconds, written)}</div>'


def stage_words(record: Mapping[str, Any]) -> str:
    words = clock(record["seconds"])
    if record.get("status", "done") != "done":
        words += ", not done"
    speed = record.get("tokens_per_second")
    return f"{words}, {speed:,.0f} tokens/s" if speed else words
