"""An ablation for a person: what the arms teach, what their students score, and the differences."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table

from r1distill.ablate.subsets import Design
from r1distill.console import console, printable, say
from r1distill.evaluate.compare import points
from r1distill.recipe import Recipe


def show_design(recipe: Recipe, design: Design) -> None:
    """The arms with the numbers of their first subsets."""
    seeds, arms = recipe.ablate.seeds, len(design.trained)
    say(
        f"ablation: {arms} arms × {seeds} {'seed' if seeds == 1 else 'seeds'} = {arms * seeds} trainings, "
        f"each on at most {design.tokens:,} tokens of the teacher's"
    )
    table = Table(title="what is taught, with the first seed", title_justify="left")
    titles = ("keeps", "traces", "tokens", "problems", "correct", "entropy", f"in {design.baseline}")
    table.add_column("arm")
    for title in titles:
        table.add_column(title, justify="right")
    for name, of_arm in design.subsets.items():
        first = of_arm[0]
        entropy = "" if first.mean_entropy_nats is None else f"{first.mean_entropy_nats:.4f}"
        table.add_row(
            printable(name), f"{design.available[name]:,}", f"{first.traces:,}", f"{first.tokens:,}", f"{first.problems:,}",
            f"{first.correct:.0%}", entropy, f"{first.in_baseline:.0%}",
        )  # fmt: skip
    console.print(table)
    say("keeps: tokens that the arm's filter leaves; entropy: mean of the traces, nats a token")
    for name, other in design.same_as.items():
        say(f"{name} keeps the same traces as {other}, so that it is not trained", style="yellow")
    if seeds == 1:
        say("one seed tells nothing of how far another training would be from it: no intervals", style="yellow")


def show_results(results: Mapping[str, Any]) -> None:
    """Scores by seed and, of every arm against the baseline and of low against high entropy, the difference."""
    for task, found in results["differences"].items():
        console.print(scores_table(results, task))
        shown = [each for each in found if is_shown(each, results)]
        if shown:
            console.print(differences_table(task, shown))
    say(
        "differences and standard errors in points; can see: the smallest true difference that shows in 80 % of the cases"
    )
    if results["seeds"] > 1:
        say("the intervals are over seeds and questions together, each for itself: of 20 one misses")
    if missing := results["trainings"] - results["finished"]:
        say(f"{missing} of {results['trainings']} trainings are not finished; the same command continues")


def is_shown(difference: Mapping[str, Any], results: Mapping[str, Any]) -> bool:
    pair = [difference["a"], difference["b"]]
    orders = {str(results["arms"][name]["filter"].get("token_budget_by")) for name in pair}
    return results["baseline"] in pair or orders == {"lowest_entropy", "highest_entropy"}


def scores_table(results: Mapping[str, Any], task: str) -> Table:
    table = Table(title=f"{task}: pass@1 of the students", title_justify="left")
    table.add_column("arm")
    for number in range(results["seeds"]):
        table.add_column(f"seed {number}", justify="right")
    table.add_column("mean", justify="right")
    for name, arm in results["arms"].items():
        if "tasks" in arm:
            scores = [*arm["tasks"][task]["pass@1"], arm["tasks"][task]["mean"]]
            table.add_row(printable(name), *("" if score is None else f"{score:.1%}" for score in scores))
    return table


def differences_table(task: str, differences: Sequence[Mapping[str, Any]]) -> Table:
    seeds = sorted({len(each["seeds"]) for each in differences})
    trained = " to ".join(map(str, sorted({seeds[0], seeds[-1]}))) + (" seed" if seeds[-1] == 1 else " seeds")
    title = f"{task}: B less A, {trained} × {differences[0]['questions']} questions"
    table = Table(title=title, title_justify="left")
    for name in ("A", "B"):
        table.add_column(name, no_wrap=True)
    for name in ("B - A", "95 % interval", "se: seeds, questions", "can see"):
        table.add_column(name, justify="right", no_wrap=name == "95 % interval")
    for each in differences:
        ci95, se_seeds, detectable = each["ci95"], each["se_seeds"], each["detectable"]
        table.add_row(
            printable(each["a"]),
            printable(each["b"]),
            points(each["difference"]),
            "one seed: none" if ci95 is None else f"{points(ci95[0])} to {points(ci95[1])}",
            f"{'–' if se_seeds is None else f'{100 * se_seeds:.1f}'}, {100 * each['se_questions']:.1f}",
            "" if detectable is None else f"{100 * detectable:.1f}",
        )
    return table
