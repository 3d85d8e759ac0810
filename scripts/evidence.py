"""Write docs/evidence.md: what each technique of the articles was said to do, and what it did here.

    r1distill ablate scripts/evidence.toml             # the trainings
    python scripts/evidence.py runs/evidence [--out docs/evidence.md]

Every row is one arm of the ablation against its baseline: the difference in points with its interval over seeds and questions,
and time and peak memory of the training as shares of the baseline's. A verdict follows from the interval alone.
"""

import argparse
import re
import statistics
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from r1distill.store import read_json, write_text

RECIPE = Path(__file__).with_name("evidence.toml")


@dataclass(frozen=True)
class Technique:
    """`arm` of the evidence recipe; `claim` is what the articles say; `source` the sound form of it; `test` holds it against
    an oracle. `against`: another arm than the baseline of all."""

    arm: str
    title: str
    claim: str
    source: str
    test: str
    against: str | None = None


TECHNIQUES = (
    Technique(
        "kl", "Logit KL, alpha from 0.9 to 0.3", "The teacher's distributions tell more than its words.",
        "https://arxiv.org/abs/1503.02531", "test_losses",
    ),
    Technique(
        "kl_annealed", "The same at temperature 5, 2, 1", "Soft distributions first and sharp ones last.",
        "https://arxiv.org/abs/2104.07163", "test_losses",
    ),
    Technique(
        "kl_then_both", "KL alone, then both losses", "Two stages beat a fixed mixture.",
        "https://arxiv.org/abs/2407.14679", "test_distill",
    ),
    Technique(
        "two_teachers", "Two teachers, mixed", "Several teachers correct each other.",
        "https://arxiv.org/abs/1702.01802", "test_several_teachers", "kl",
    ),
    Technique(
        "qwen", "A teacher with another tokenizer", "A teacher of another family can guide as well.",
        "https://arxiv.org/abs/2402.12030", "test_cross_tokenizer",
    ),
    Technique(
        "hidden", "Hidden states", "Drawing the states to the teacher's speeds up learning.",
        "https://arxiv.org/abs/1909.10351", "test_hidden",
    ),
    Technique(
        "attention", "Attention relations", "The student should attend to what the teacher attends to.",
        "https://arxiv.org/abs/2012.15828", "test_inside",
    ),
    Technique(
        "on_policy", "A round on its own samples", "The student has to learn from its own errors.",
        "https://arxiv.org/abs/2306.13649", "test_chain",
    ),
    Technique(
        "pruned", "A quarter of the layers pruned first", "What is pruned is won back by distillation.",
        "https://arxiv.org/abs/2407.14679", "test_prune",
    ),
    Technique(
        "int8_plain", "Eight bits, rounded as it is", "INT8 costs next to no accuracy.",
        "https://arxiv.org/abs/2208.07339", "test_qat",
    ),
    Technique(
        "int8", "Eight bits, smoothed first", "With outliers moved into the weights INT8 costs nothing.",
        "https://arxiv.org/abs/2211.10438", "test_qat",
    ),
    Technique(
        "full", "All weights instead of LoRA", "(what the next two are measured against)",
        "https://arxiv.org/abs/2106.09685", "test_train",
    ),
    Technique(
        "full_int8", "Eight bits after training all weights", "INT8 costs next to no accuracy.",
        "https://arxiv.org/abs/2208.07339", "test_qat", "full",
    ),
    Technique(
        "full_int8_plain", "The same, rounded as it is", "INT8 costs next to no accuracy.",
        "https://arxiv.org/abs/2208.07339", "test_qat", "full",
    ),
    Technique(
        "full_qat_int8", "Trained for eight bits", "Training with rounding wins back what rounding costs.",
        "https://arxiv.org/abs/2305.17888", "test_qat", "full_int8_plain",
    ),
    Technique(
        "controller", "Error controller", "Holding back at spikes protects the student.",
        "https://arxiv.org/abs/2204.02311", "test_controller",
    ),
    Technique(
        "clipping", "Clipping in two phases", "Groups that are clipped apart train more steadily.",
        "https://arxiv.org/abs/2601.11864", "test_clipping",
    ),
    Technique(
        "restarts", "Warm restarts", "Restarts leave poor minima.",
        "https://arxiv.org/abs/1608.03983", "test_restarts",
    ),
    Technique(
        "label_smoothing", "Label smoothing 0.1", "Smoothed labels generalise better.",
        "https://arxiv.org/abs/1512.00567", "test_losses",
    ),
    Technique(
        "curriculum", "Curriculum of pools", "Diverse traces first and hard ones last.",
        "https://arxiv.org/abs/1904.03626", "test_curriculum",
    ),
    Technique(
        "all", "Wrong traces too", "Wrong traces harm.", "https://arxiv.org/abs/2501.12948", "test_filter",
    ),
    Technique(
        "low_entropy", "Traces of the lowest entropy", "Certain traces teach best.",
        "https://arxiv.org/abs/2506.01939", "test_entropy_filter",
    ),
)  # fmt: skip
UNTESTED = (
    "A chain teacher → assistant → student closes large gaps of size (https://arxiv.org/abs/1902.03393): the quickstart's "
    "teacher and student are of one size, so there is no gap here. That it runs, and goes on when killed, is in the README.",
    "Pruned models recover after billions of tokens (https://arxiv.org/abs/2407.14679): here they are taught 6,000.",
    "Speed and memory of GPUs, of FP8, FSDP and ZeRO: there was none.",
    "Figures of 7B to 70B students, and of traces of 10,000 tokens.",
)
HEAD = """# Evidence

What the articles that began this project say of each technique, and what it did on the quickstart's models: SmolLM2-135M on
two CPU cores, equal tokens of the teacher's for each arm and seed, one baseline of plain fine-tuning. Made by
`scripts/evidence.py` from `r1distill ablate scripts/evidence.toml`. Points are of pass@1 on held-out problems; the interval is
of 95 %, over seeds and questions at once. A difference is told only where it leaves 0 out; beside those that are not stands
what could have been seen in four of five such trials. Time and memory are of everything that makes the student, against
the baseline's (medians over the seeds; the peak is of the process that trains, in RAM).
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, nargs="+", help="run folders of the ablation, or their results.json")
    parser.add_argument("--out", type=Path, default=Path("docs/evidence.md"))
    options = parser.parse_args()
    parts, shown = [], set()
    for run in options.run:
        path = run if run.is_file() else run / "ablate" / "results.json"
        if not path.is_file():
            sys.exit(f"error: {path}: not there; run `r1distill ablate scripts/evidence.toml run_dir={run}` first")
        results = read_json(path)
        parts += tables(results)
        shown |= results["arms"].keys()
    details = [line for each in TECHNIQUES if each.arm in shown for line in detail(each)]
    untested = [f"- {each}" for each in UNTESTED]
    write_text(
        options.out,
        "\n".join([HEAD, *parts, "## What was set", "", *details, "## Not tested here", "", *untested, ""]),
    )
    print(options.out)


def tables(results: dict[str, Any]) -> list[str]:
    """One for each task of an ablation."""
    lines, base = [], results["baseline"]
    for task, differences in results["differences"].items():
        scores = results["arms"][base]["tasks"][task]
        each = ", ".join(f"{score:.1%}" for score in scores["pass@1"] if score is not None)
        lines += [
            f"## {task}: plain fine-tuning scores {scores['mean']:.1%} ({each})", "",
            "| technique | arm | against | difference | 95 % | time | memory | verdict |",
            "| --- | --- | --- | --: | --- | --: | --: | --- |",
        ]  # fmt: skip
        for technique in TECHNIQUES:
            if found := compared(differences, technique.against or base, technique.arm):
                lines.append(row(technique, found, results))
        lines.append("")
    return lines


def compared(differences: list[dict[str, Any]], a: str, b: str) -> dict[str, Any] | None:
    """The difference B less A, also where it was noted the other way round; None where one of them was not trained."""
    for each in differences:
        if (each["a"], each["b"]) == (a, b):
            return each
        if (each["a"], each["b"]) == (b, a):
            low, high = each["ci95"] or (None, None)
            ends = None if low is None or high is None else [-high, -low]
            return {**each, "a": a, "b": b, "difference": -each["difference"], "ci95": ends}
    return None


def row(technique: Technique, found: dict[str, Any], results: dict[str, Any]) -> str:
    base, arm = (results["arms"][name]["trainings"] for name in (results["baseline"], found["b"]))
    interval = "{:+.1f} to {:+.1f}".format(*(100 * each for each in found["ci95"])) if found["ci95"] else "one seed"
    cells = [
        technique.title, f"`{technique.arm}`", f"`{found['a']}`", f"{100 * found['difference']:+.1f}", interval,
        share(seconds(arm), seconds(base)), share(memory(arm), memory(base)), verdict(found),
    ]  # fmt: skip
    return f"| {' | '.join(cells)} |"


def seconds(trainings: list[dict[str, Any] | None]) -> float | None:
    found = [sum(filter(None, each["seconds_of"].values())) for each in trainings if each]
    return statistics.median(found) if found else None


def memory(trainings: list[dict[str, Any] | None]) -> float | None:
    found = [each["peak_memory_gib"] for each in trainings if each and each.get("peak_memory_gib")]
    return statistics.median(found) if found else None


def share(value: float | None, of: float | None) -> str:
    return f"{value / of:.2f}" if value and of else "–"


def verdict(found: dict[str, Any]) -> str:
    if found["ci95"] is None:
        return "not told by one seed"
    low, high = found["ci95"]
    if low > 0:
        return "helps here"
    if high < 0:
        return "harms here"
    return f"none shown ({100 * found['detectable']:.0f} points would be)" if found["detectable"] else "none shown"


def detail(technique: Technique) -> list[str]:
    """The claim, its source and test, and the lines of the recipe."""
    return [
        f"**{technique.title}** (`{technique.arm}`). {technique.claim} {technique.source}, `tests/{technique.test}.py`",
        "", "```toml", *recipe_lines(technique.arm), "```", "",
    ]  # fmt: skip


def recipe_lines(arm: str) -> list[str]:
    """What the evidence recipe sets for an arm, as lines of an ordinary recipe."""
    for part in RECIPE.read_text(encoding="utf-8").split("[[ablate.arms]]")[1:]:
        if re.search(rf'^name = "{arm}"', part, re.MULTILINE):
            given = re.findall(r"^(?:set\.(.+)|(filter = .+))$", part, re.MULTILINE)
            return [ours or filtered for ours, filtered in given]
    return []


if __name__ == "__main__":
    main()
