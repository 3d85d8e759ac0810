"""One trace on the terminal: the question, the reasoning in grey and folded, the answer, the verdict, and what was measured."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from r1distill.console import console, printable
from r1distill.show.rows import places_where, rows_at

HEAD, TAIL = 700, 500  # characters of a folded text
PAIRS = 2  # measures beside each other
# of a trace where there is no tags.parquet
MEASURES = (
    "finish_reason", "n_tokens", "n_prompt_tokens", "mean_logprob", "mean_entropy_nats", "mean_entropy_upper_nats",
    "p95_entropy_nats", "high_entropy_share", "continued_from",
)  # fmt: skip
KEYS = (
    "problem_id",
    "sample",
    "source",
    "kind",
    "outcome",
    "sketch",
)  # of tags.parquet, and shown elsewhere or for no person
LONG = ("token_ids",)


@dataclass(frozen=True, slots=True)
class Shown:
    """Rows of the files about one trace; {} for what a run does not have yet."""

    trace: dict[str, Any]
    problem: dict[str, Any]
    verdict: dict[str, Any]
    decision: dict[str, Any]
    tags: dict[str, Any]


def read(folder: Path, places: list[int]) -> list[Shown]:
    """All that is known of the traces at some places. Rows of another trace at the same place are left out: an old file."""
    traces = rows_at(folder / "traces", places, without=LONG)
    beside = [rows_at(folder / f"{name}.parquet", places) for name in ("verdicts", "decisions", "tags")]
    wanted = {row["problem_id"] for row in traces.values()}
    of_problems = places_where(folder / "problems.parquet", "id", lambda name: name in wanted)
    problems = {
        row["id"]: row for row in rows_at(folder / "problems.parquet", of_problems, without=("tests",)).values()
    }
    found = []
    for place in places:
        trace = traces[place]
        key = trace["problem_id"], trace["sample"]
        verdict, decision, tags = (
            row if (row := rows.get(place, {})) and (row["problem_id"], row["sample"]) == key else {} for rows in beside
        )
        found.append(Shown(trace, problems.get(key[0], {}), verdict, decision, tags))
    return found


def show(shown: Shown, *, full: bool) -> None:
    trace, problem = shown.trace, shown.problem
    title = [f"{trace['problem_id']}/{trace['sample']}", problem.get("kind"), problem.get("source"), trace["model"]]
    console.print(Rule(printable(" · ".join(str(part) for part in title if part)), align="left"))
    section("problem", text_of(problem.get("problem") or "(not in problems.parquet)", full=full))
    for number, choice in enumerate(problem.get("choices") or []):
        console.print(printable(f"  {chr(ord('A') + number)}. {choice}", lines=True))
    if trace["thinking"]:
        section("thinking", text_of(trace["thinking"], full=full), style="dim")
    section("answer", text_of(trace["answer"] or "(none)", full=full))
    if trace["error"]:
        section("error", text_of(trace["error"], full=full))
    console.print(facts(shown))
    console.print(measures(shown))


def section(name: str, text: Text, style: str = "") -> None:
    console.print(Text(name, style="bold"))
    text.stylize(style)
    console.print(text)
    console.print()


def text_of(text: str, *, full: bool) -> Text:
    return printable(text if full else folded(text), lines=True)


def folded(text: str) -> str:
    """Its head and its tail, and how much is between them."""
    between = len(text) - HEAD - TAIL
    if between <= 0:
        return text
    return f"{text[:HEAD]}\n\n      … {between:,} characters, shown by --full …\n\n{text[-TAIL:]}"


def facts(shown: Shown) -> Table:
    """Reference, verdict and decision."""
    table = Table.grid(padding=(0, 2))
    verdict, decision = shown.verdict, shown.decision
    rows = [("reference", shown.problem.get("answer"))]
    if verdict:
        parts = [verdict["outcome"], verdict["extracted"], verdict["detail"], verdict["verifier"]]
        rows.append(("verdict", " · ".join(str(part) for part in parts if part)))
    else:
        rows.append(("verdict", "none yet"))
    if decision:
        rows.append(("decision", "kept" if decision["keep"] else f"dropped: {decision['reason']}"))
    for name, value in rows:
        if value is not None:
            table.add_row(Text(name, style="bold"), printable(folded(" ".join(str(value).split()))))
    return table


def measures(shown: Shown) -> Table:
    """The tags, or where there are none what a trace has itself. What was not measured is named in the last line."""
    source = {name: value for name, value in shown.tags.items() if name not in KEYS}
    source = source or {name: shown.trace.get(name) for name in MEASURES}
    table = Table.grid(padding=(0, 2))
    pairs = [(name, printable(written(value))) for name, value in source.items() if value is not None]
    for start in range(0, len(pairs), PAIRS):
        cells = [cell for name, value in pairs[start : start + PAIRS] for cell in (Text(name, style="dim"), value)]
        table.add_row(*cells)
    unmeasured = [name for name, value in source.items() if value is None]
    whole = Table.grid()
    whole.add_row(table)
    if unmeasured:
        whole.add_row(printable(f"not measured: {', '.join(unmeasured)}"), style="dim")
    return whole


def written(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "–"
    return folded(str(value)) or "–"
