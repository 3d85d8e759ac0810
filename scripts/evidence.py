"""Write docs/evidence.md: what each technique of the articles was said to do, and what it did here.

    r1distill ablate scripts/evidence.toml             # the trainings
    python scripts/evidence.py runs/evidence [--out docs/evidence.md]

Every row is one arm of the ablation against its baseline: the difference in points with its interval over seeds and questions,
and time and peak memory of the training as shares of the baseline's. A verdict follows from the interval alone.
"""

import argparse
import statistics
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from r1distill.store import read_json, write_text


@dataclass(frozen=True)
class Technique:
    """`arm` of the evidence recipe; `claim` is what the articles say; `source` the sound form of it."""

    arm: str
    title: str
    claim: str
    source: str


TECHNIQUES = (
    Technique("kl", "Logit KL, alpha from 0.9 to 0.3", "The teacher's distributions tell more than its words.", "https://arxiv.org/abs/1503.02531"),
    Technique("kl_annealed", "The same, temperature 5, 2, 1", "Soft distributions first, sharp ones last.", "https://arxiv.org/abs/2104.07163"),
    Technique("kl_then_both", "KL alone, then both", "Two stages beat a fixed mixture.", "https://arxiv.org/abs/2407.14679"),
    Technique("hidden", "Hidden states", "Drawing states to the teacher's speeds up learning.", "https://arxiv.org/abs/1909.10351"),
    Technique("attention", "Attention relations", "The student should attend as the teacher does.", "https://arxiv.org/abs/2012.15828"),
    Technique("clipping", "Clipping in two phases", "Groups that are clipped apart train more steadily.", "https://arxiv.org/abs/2601.11864"),
    Technique("restarts", "Warm restarts", "Restarts leave poor minima.", "https://arxiv.org/abs/1608.03983"),
    Technique("label_smoothing", "Label smoothing 0.1", "Smoothed labels generalise better.", "https://arxiv.org/abs/1512.00567"),
    Technique("controller", "Error controller", "Holding back at spikes protects the student.", "https://arxiv.org/abs/2204.02311"),
    Technique("on_policy", "A round on its own samples", "The student has to learn from its own errors.", "https://arxiv.org/abs/2306.13649"),
    Technique("pruned", "A quarter of the layers pruned first", "What is pruned is won back by distillation.", "https://arxiv.org/abs/2407.14679"),
    Technique("int8", "Eight bits afterwards", "INT8 costs next to no accuracy.", "https://arxiv.org/abs/2208.07339"),
    Technique("correct", "Correct traces only, against all", "Wrong traces harm.", "https://arxiv.org/abs/2501.12948"),
    Technique("low_entropy", "Traces of the lowest entropy", "Certain traces teach best.", "https://arxiv.org/abs/2506.01939"),
)  # fmt: skip
UNTESTED = (
    "A chain teacher → assistant → student closes large gaps of size (https://arxiv.org/abs/1902.03393): the quickstart's "
    "teacher and student are of one size, so there is no gap here.",
    "FP8 and INT8 training speed, ZeRO and FSDP layouts: there was no GPU.",
    "Figures of 7B to 70B students, and of traces of 10,000 tokens.",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, nargs="+", help="runs with ablate/results.json; later ones add arms")
    parser.add_argument("--out", type=Path, default=Path("docs/evidence.md"))
    options = parser.parse_args()
    parts = []
    for run in options.run:
        path = run / "ablate" / "results.json"
        if not path.is_file():
            sys.exit(f"error: {path}: not there; run `r1distill ablate scripts/evidence.toml run_dir={run}` first")
        parts += section(read_json(path))
    write_text(
        options.out, "\n".join([HEAD, *parts, "## Not tested here", "", *(f"- {each}" for each in UNTESTED), ""])
    )
    print(options.out)


HEAD = """# Evidence

What the articles that began this project say of each technique, and what it did on the quickstart's models: SmolLM2-135M on
two CPU cores, three seeds an arm, equal tokens of the teacher's, one baseline. Made by `scripts/evidence.py`; the recipe
lines that switch a technique on are those of its arm in `scripts/evidence.toml`. A difference is told only where its
95 % interval, over seeds and questions, leaves 0 out; what could have been seen stands beside those that are not.
"""


def section(results: dict[str, Any]) -> list[str]:
    """A table for each task of one ablation."""
    lines, base = [], results["baseline"]
    for task, differences in results["differences"].items():
        found = {each["b"]: each for each in differences if each["a"] == base}
        own = results["arms"][base]["tasks"][task]["mean"]
        lines += [
            f"## {task}: against `{base}`, which scores {own:.1%}", "",
            "| technique | the claim | difference | 95 % | time | memory | verdict |",
            "| --- | --- | --: | --- | --: | --: | --- |",
            *(row(technique, found[technique.arm], results) for technique in TECHNIQUES if technique.arm in found), "",
        ]  # fmt: skip
    return lines


def row(technique: Technique, found: dict[str, Any], results: dict[str, Any]) -> str:
    base, arm = (results["arms"][name]["trainings"] for name in (found["a"], found["b"]))
    interval = "{:+.1f} to {:+.1f}".format(*(100 * each for each in found["ci95"])) if found["ci95"] else "one seed"
    cells = [
        f"[{technique.title}]({technique.source})", technique.claim, f"{100 * found['difference']:+.1f}", interval,
        share(seconds(arm), seconds(base)), share(memory(arm), memory(base)), verdict(found),
    ]  # fmt: skip
    return f"| {' | '.join(cells)} |"


def seconds(trainings: list[dict[str, Any] | None]) -> float | None:
    found = [sum(filter(None, each["seconds_of"].values())) for each in trainings if each]
    return statistics.median(found) if found else None


def memory(trainings: list[dict[str, Any] | None]) -> float | None:
    found = [each["peak_memory_gib"] for each in trainings if each and "peak_memory_gib" in each]
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
    return (
        f"none shown; {100 * found['detectable']:.0f} points could have been" if found["detectable"] else "none shown"
    )


if __name__ == "__main__":
    main()
