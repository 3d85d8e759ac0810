"""The funnel of a run as tables: by difficulty, by source, and what became of the problems."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.table import Table

from r1distill.console import console, printable, say
from r1distill.errors import UserError
from r1distill.store import read_json

SOURCES = 30


def show_funnel(folder: Path) -> None:
    """Print funnel.json. Raises UserError where there is none."""
    path = folder / "funnel.json"
    if not path.is_file():
        raise UserError(f"{folder}: no funnel.json; run `r1distill filter` first")
    funnel = read_json(path)
    console.print(funnel_table("traces by the pass rate of their problem", funnel, funnel.get("by_difficulty", {})))
    by_source = funnel.get("by_source", {})
    if len(by_source) > 1:
        largest = sorted(by_source.items(), key=lambda each: (-each[1]["sampled"], each[0]))[:SOURCES]
        more = f", the largest {SOURCES} of {len(by_source)}" if len(by_source) > SOURCES else ""
        console.print(funnel_table(f"traces by source{more}", funnel, dict(largest)))
    if problems := funnel.get("problems"):
        console.print(problem_table(problems))
    for name, count in funnel.get("unmeasured", {}).items():
        say(f"not measured of {count:,} traces, which are not dropped for it: {name}")
    for warning in funnel.get("warnings", []):
        say(f"warning: {warning}", style="yellow")


def funnel_table(title: str, funnel: Mapping[str, Any], parts: Mapping[str, Mapping[str, Any]]) -> Table:
    """A row for what was sampled, each reason, and what was kept; a column for all and each part."""
    table = Table(title=title, title_justify="left")
    table.add_column("")
    for name in ("all", "share", *parts):
        table.add_column(printable(name or "(none)"), justify="right")
    columns = [funnel, *parts.values()]

    def add(name: str, counts: list[int], style: str | None = None) -> None:
        share = f"{counts[0] / funnel['sampled']:.1%}" if funnel["sampled"] else ""
        table.add_row(
            printable(name), f"{counts[0]:,}", share, *(f"{n:,}" if n else "" for n in counts[1:]), style=style
        )

    add("sampled", [each["sampled"] for each in columns])
    for reason in funnel["dropped"]:
        add(f"− {reason}", [each["dropped"].get(reason, 0) for each in columns])
    add("kept", [each["kept"] for each in columns], style="bold")
    return table


def problem_table(problems: Mapping[str, Any]) -> Table:
    """Problems by pass rate, and their share before and after."""
    table = Table(title="problems by pass rate", title_justify="left")
    for name in ("pass rate", "sampled", "share", "with a kept trace", "share"):
        table.add_column(name, justify="left" if name == "pass rate" else "right")
    for name, each in [*problems["by_difficulty"].items(), ("all", problems)]:
        cells = []
        for what in ("sampled", "kept"):
            cells += [f"{each[what]:,}", f"{each[what] / problems[what]:.1%}" if problems[what] else ""]
        table.add_row(printable(name), *cells, style="bold" if name == "all" else None)
    return table
