"""Scores looked at again, without a model: from the stored replies, and against the band in which a re-run lands."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from rich.table import Table

from r1distill.console import console, say
from r1distill.errors import UserError
from r1distill.evaluate.benchmarks import open_benchmark
from r1distill.evaluate.contestants import contestants_of
from r1distill.evaluate.stage import Summary, score, write_task_summary
from r1distill.evaluate.tasks import load_task, published_scores, rerun_band
from r1distill.records import Outcome, Verdict
from r1distill.run import Clock, Run
from r1distill.store import read_json, read_records
from r1distill.verify.settings import open_pool


@dataclass(frozen=True, slots=True)
class Regraded:
    """pass@1 of a model on a task before and now, and how many verdicts are others, by "incorrect → correct"."""

    task: str
    model: str
    before: float
    now: float
    changed: Counter[str]


def regrade(run: Run) -> list[Regraded]:
    """Judge every stored reply of the evaluation again, and write verdicts and summaries anew. No model is opened.

    The same verifier gives the same numbers to the digit; another one gives its own, and of the old ones only what is
    returned is left. Raises UserError where nothing was evaluated yet.
    """
    found = []
    with open_pool(run.recipe.verify) as pool:
        for benchmark in (open_benchmark(run.recipe, name) for name in run.recipe.eval.tasks):
            task, models = benchmark.task.name, {}
            for contestant in contestants_of(run):
                folder = run.evaluation / task / contestant.name
                if not (folder / "summary.json").exists():
                    continue
                before, old = read_json(folder / "summary.json"), outcomes_of(folder)
                now = score(run, contestant, benchmark, before["samples"], Clock(run, "regrade"), pool)
                models[contestant.name] = now
                changed = Counter(
                    f"{old.get(key)} → {outcome}"
                    for key, outcome in outcomes_of(folder).items()
                    if outcome != old.get(key)
                )
                found.append(Regraded(task, contestant.name, before["pass@1"], now["pass@1"], changed))
            if models:
                write_task_summary(run, task, models)
    if not found:
        raise UserError(f"{run.evaluation}: nothing was evaluated yet; `r1distill eval` first")
    return found


def outcomes_of(folder: Path) -> dict[tuple[str, int], Outcome]:
    return {(each.problem_id, each.sample): each.outcome for each in read_records(folder / "verdicts.parquet", Verdict)}


def show_regraded(found: list[Regraded]) -> None:
    table = Table(title="judged again", title_justify="left")
    for column in ("task", "model", "before", "now", "verdicts that are others"):
        table.add_column(column, justify="right" if column in ("before", "now") else "left")
    for each in found:
        words = ", ".join(f"{count} {change}" for change, count in each.changed.most_common()) or "none"
        table.add_row(each.task, each.model, f"{each.before:.4%}", f"{each.now:.4%}", words)
    console.print(table)


@dataclass(frozen=True, slots=True)
class Band:
    """Where a score is beside the band (both in percent) in which a re-run of a known model lands."""

    task: str
    model: str
    score: float
    low: float
    high: float
    published: list[tuple[float, str, str]]  # score, source, protocol
    protocol: str

    @property
    def inside(self) -> bool:
        return self.low <= self.score <= self.high


def bands(run: Run) -> list[Band]:
    """Of every score of the run whose model somebody published. Raises UserError where there is none."""
    found = []
    for name in run.recipe.eval.tasks:
        task = load_task(name)
        for contestant in contestants_of(run):
            path = run.evaluation / task.name / contestant.name / "summary.json"
            if not path.exists():
                continue
            summary: Summary = read_json(path)
            band = rerun_band(task, contestant.model, summary["samples"])
            if band is not None:
                known = [
                    (score, each.source, each.protocol) for score, each in published_scores(task, contestant.model)
                ]
                protocol = summary["protocol"]["name"] + (" (changed)" if "changed" in summary["protocol"] else "")
                found.append(Band(task.name, contestant.name, 100 * summary["pass@1"], *band, known, protocol))
    if not found:
        raise UserError(
            f"{run.evaluation}: no score there is of a model and benchmark that somebody published; "
            "`r1distill eval --list --published MODEL` shows which are"
        )
    return found


def show_bands(found: list[Band]) -> bool:
    """Print them; whether all scores are inside."""
    table = Table(title="beside what others measured", title_justify="left")
    for column in ("task", "model", "protocol", "here", "band of a re-run", "", "published"):
        table.add_column(column, justify="right" if column in ("here", "band of a re-run") else "left")
    for each in found:
        sources = "; ".join(f"{score:g} ({protocol or 'its own way'})" for score, _, protocol in each.published)
        verdict = "inside" if each.inside else "OUTSIDE"
        table.add_row(
            each.task,
            each.model,
            each.protocol,
            f"{each.score:.1f}",
            f"{each.low:.1f} – {each.high:.1f}",
            verdict,
            sources,
        )
    console.print(table)
    for source in dict.fromkeys(source for each in found for _, source, _ in each.published):
        say(f"  {source}")
    return all(each.inside for each in found)
