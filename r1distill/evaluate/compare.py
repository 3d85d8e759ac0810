"""`r1distill compare A B`: two models on every task that both were scored on, question by question."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.table import Table

from r1distill.console import console, printable, say
from r1distill.errors import UserError
from r1distill.evaluate.paired import Difference, difference_of
from r1distill.evaluate.results import read_results
from r1distill.records import Problem
from r1distill.store import read_json, read_records

SHOWN = 10  # questions of a task on the terminal; --json has all
TEXT_CHARACTERS = 60
ALIKE = ("protocol", "prompt_sha256", "data_sha256", "temperature", "top_p", "max_tokens")


@dataclass(frozen=True, slots=True)
class Scored:
    """A model on a task: eval/TASK/MODEL, its summary.json, and (right, samples) of each problem id."""

    folder: Path
    summary: dict[str, Any]
    counts: dict[str, tuple[int, int]]


@dataclass(frozen=True, slots=True)
class Change:
    """A question that the two do not answer right equally often: (right, samples) of A and of B."""

    problem_id: str
    problem: str
    a: tuple[int, int]
    b: tuple[int, int]


@dataclass(frozen=True, slots=True)
class Comparison:
    """A and B on one task. `unpaired` questions are those that only one of them was asked."""

    task: str
    samples: tuple[int, int]
    unpaired: int
    difference: Difference
    changed: list[Change]
    different_conditions: list[str]


def compare_command(a: str, b: str, *, any_protocol: bool, as_json: bool) -> None:
    """Print the comparison. Raises UserError where there is none to be made."""
    comparisons = compare(a, b, any_protocol=any_protocol)
    if as_json:
        print(
            json.dumps({"a": a, "b": b, "tasks": [asdict(each) for each in comparisons]}, indent=2, ensure_ascii=False)
        )
    else:
        show(a, b, comparisons)


def compare(a: str, b: str, *, any_protocol: bool = False) -> list[Comparison]:
    """B against A on every task that both have.

    Each is the folder of a run (its last model, the student where it was scored), RUN:MODEL, or RUN/eval/TASK/MODEL.
    Raises UserError for one that is none, without a common task or question, and, unless `any_protocol`, where scores
    were not taken under the same protocol, prompt, data and sampling.
    """
    folders_a, folders_b = score_folders(a), score_folders(b)
    tasks = [task for task in folders_a if task in folders_b]
    if not tasks:
        raise UserError(
            f"no task that both have: {a} has {', '.join(folders_a)}, {b} has {', '.join(folders_b)}; "
            "evaluate both on the same [eval] tasks"
        )
    if all(folders_a[task].resolve() == folders_b[task].resolve() for task in tasks):
        raise UserError(f"{a} and {b} are the same scores ({folders_a[tasks[0]]}); name another model, as in RUN:MODEL")
    pairs = [(task, scored(folders_a[task]), scored(folders_b[task])) for task in tasks]
    differing = {task: different_conditions(one.summary, other.summary) for task, one, other in pairs}
    if any(differing.values()) and not any_protocol:
        task, found = next((task, found) for task, found in differing.items() if found)
        raise UserError(
            f"{task}: the scores were not taken alike: {'; '.join(found)}; evaluate one of them again, "
            "or give --any-protocol to compare them all the same"
        )
    return [compare_task(task, one, other, differing[task]) for task, one, other in pairs]


# ---------------------------------------------------------------- which scores


def score_folders(name: str) -> dict[str, Path]:
    """The folder of scores of each task that `name` means."""
    path, _, model = (name, "", "") if Path(name).is_dir() else name.rpartition(":")
    folder = Path(path).expanduser()
    if not model and (folder / "verdicts.parquet").is_file() and folder.parent.parent.name == "eval":
        return {folder.parent.name: folder}
    tasks = sorted(path.parent for path in folder.glob("eval/*/summary.json"))
    if not tasks:
        raise UserError(
            f"{name}: no scores in it; give the folder of a run that has an eval/, RUN:MODEL, or RUN/eval/TASK/MODEL"
        )
    found = {task.name: task / (model or last_model(task)) for task in tasks}
    found = {task: place for task, place in found.items() if (place / "summary.json").is_file()}
    if not found:
        known = sorted({place.parent.name for task in tasks for place in task.glob("*/summary.json")})
        raise UserError(
            f"{name}: no scores of a model {model} in {folder / 'eval'}; it has {', '.join(known) or 'none'}"
        )
    return found


def last_model(task: Path) -> str:
    """The model whose scores stand at the top of eval/TASK/summary.json: the last that was scored."""
    models = read_json(task / "summary.json").get("models")
    if not models:
        raise UserError(f"{task / 'summary.json'}: no models in it; run `r1distill eval` again")
    return list(models)[-1]


def scored(folder: Path) -> Scored:
    for name in ("summary.json", "verdicts.parquet"):
        if not (folder / name).is_file():
            raise UserError(f"{folder}: no {name} in it; let `r1distill eval` finish first")
    counts: dict[str, tuple[int, int]] = {}
    for result in read_results(folder):
        right, samples = counts.get(result.verdict.problem_id, (0, 0))
        counts[result.verdict.problem_id] = (right + result.right, samples + 1)
    return Scored(folder, read_json(folder / "summary.json"), counts)


def different_conditions(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[str]:
    """What the scores were not taken alike in, in words. Something that neither of them tells is alike."""
    pairs = {name: (condition(a, name), condition(b, name)) for name in ALIKE}
    return [f"{name} {told(one)} and {told(other)}" for name, (one, other) in pairs.items() if one != other]


def condition(summary: Mapping[str, Any], name: str) -> Any:
    if name == "protocol":
        protocol = summary.get("protocol") or {}
        return tuple(protocol.get(key) for key in ("name", "version", "sha256")) if protocol else None
    return summary.get(name, (summary.get("conditions") or {}).get(name))


def told(value: Any) -> str:
    if value is None:
        return "not recorded"
    return " ".join(str(part)[:12] for part in value) if isinstance(value, tuple) else str(value)[:12]


# ---------------------------------------------------------------- the comparison


def compare_task(task: str, a: Scored, b: Scored, different: list[str]) -> Comparison:
    common = [name for name in a.counts if name in b.counts]
    if not common:
        raise UserError(
            f"{task}: no question that both were asked ({a.folder}, {b.folder}); use the same data and limit"
        )
    pairs = [(a.counts[name], b.counts[name]) for name in common]
    difference = difference_of(
        [one[0] for one, _ in pairs], [one[1] for one, _ in pairs],
        [other[0] for _, other in pairs], [other[1] for _, other in pairs],
    )  # fmt: skip
    texts = {problem.id: problem.problem for problem in read_records(b.folder / "problems.parquet", Problem)}
    changed = [
        Change(name, texts.get(name, ""), one, other)
        for name, (one, other) in zip(common, pairs, strict=True)
        if one[0] * other[1] != other[0] * one[1]
    ]
    changed.sort(key=lambda change: (-abs(share(change.b) - share(change.a)), change.problem_id))
    samples = max(one[1] for one, _ in pairs), max(other[1] for _, other in pairs)
    unpaired = len(a.counts) + len(b.counts) - 2 * len(common)
    return Comparison(task, samples, unpaired, difference, changed, different)


def share(count: tuple[int, int]) -> float:
    return count[0] / count[1]


# ---------------------------------------------------------------- for a person


def show(a: str, b: str, comparisons: list[Comparison]) -> None:
    say(f"A: {a}\nB: {b}")
    table = Table(title="pass@1, B less A", title_justify="left")
    for column in ("task", "questions", "A", "B", "difference", "95 % interval", "p", "better", "worse", "can see"):
        table.add_column(column, justify="left" if column == "task" else "right")
    for each in comparisons:
        found, (n_a, n_b) = each.difference, each.samples
        better = sum(share(change.b) > share(change.a) for change in each.changed)
        table.add_row(
            printable(each.task),
            f"{found.n_questions} × {n_a}" + (f", {n_b}" if n_b != n_a else ""),
            f"{found.a:.1%}",
            f"{found.b:.1%}",
            points(found.difference),
            f"{points(found.ci95[0])} to {points(found.ci95[1])}",
            f"{found.p_value:.3f}" if found.p_value >= 0.001 else "< 0.001",
            str(better),
            str(len(each.changed) - better),
            f"{100 * found.detectable:.1f}",
        )
    console.print(table)
    say("differences in points; can see: the smallest true difference that shows (p ≤ 5 %) in 80 % of the cases")
    for each in comparisons:
        if each.different_conditions:
            say(f"{each.task}: not taken alike: {'; '.join(each.different_conditions)}")
        if each.unpaired:
            say(f"{each.task}: {each.unpaired} questions that only one of them was asked are left out")
        if each.changed:
            console.print(changed_table(each))


def changed_table(comparison: Comparison) -> Table:
    changed = comparison.changed
    more = f", the first {SHOWN} of {len(changed)}" if len(changed) > SHOWN else ""
    table = Table(title=f"{comparison.task}: questions that changed most{more}", title_justify="left")
    for column in ("question", "id", "A right", "B right"):
        table.add_column(column, justify="right" if "right" in column else "left")
    for change in changed[:SHOWN]:
        text = " ".join(change.problem.split())
        cut = text if len(text) <= TEXT_CHARACTERS else text[: TEXT_CHARACTERS - 1] + "…"
        counts = [f"{right} of {samples}" for right, samples in (change.a, change.b)]
        table.add_row(printable(cut), printable(change.problem_id), *counts)
    return table


def points(share: float) -> str:
    return f"{100 * share:+.1f}"
