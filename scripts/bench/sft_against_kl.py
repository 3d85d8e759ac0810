"""SFT against SFT + KL on the quickstart's models: the same traces, steps and seeds, held-out accuracy with intervals.

    python scripts/bench/sft_against_kl.py OUT [--problems 110] [--seeds 0 1 2] [--questions 120] [--samples 1]

Two ways of KL: alpha and temperature falling, and alpha falling at temperature 1. The interval of a run is over its questions;
another seed is another order of the data and other adapters, which moves a run of so few steps more than that.

The teacher is sampled once, with its distributions kept; every training then starts from that dataset, so that all of them
see equal tokens. OUT keeps the run folders; the same command continues.
"""

import argparse
import json
import math
import shutil
import statistics
import subprocess
import sys
from pathlib import Path

from r1distill.evaluate.metrics import wilson

ALPHA = 'train.kl.alpha={kind = "linear", start = 0.9, end = 0.3}'
VARIANTS = {  # by the name of their folders
    "sft": [],
    "sft-kl": [ALPHA, 'train.kl.temperature={kind = "staged", values = [5.0, 2.0, 1.0], at = [0.0, 0.4, 0.8]}'],
    "sft-kl-t1": [ALPHA, "train.kl.temperature=1.0"],
}


def r1distill(*arguments: str) -> None:
    subprocess.run([sys.executable, "-m", "r1distill", *arguments], check=True, stdout=sys.stderr)


def score(folder: Path, overrides: list[str], asked: int) -> int:
    """How many of the answers asked for the student has right."""
    for stage in ("train", "eval"):
        r1distill(stage, "quickstart", f"run_dir={folder}", *overrides)
    summary = json.loads((folder / "eval" / "quickstart" / "summary.json").read_text())
    if summary["n_problems"] * summary["samples"] != asked:
        raise SystemExit(
            f"{asked} answers were asked for, and {folder} has {summary['n_problems'] * summary['samples']}"
        )
    return round(summary["pass@1"] * asked)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--problems", type=int, default=110)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--questions", type=int, default=120)
    parser.add_argument("--samples", type=int, default=1)
    options = parser.parse_args()
    shared = [
        f"problems.limit={options.problems}", "generate.keep_distributions=true", "generate.samples=2",
        'eval.models=["student"]', f"eval.limit={options.questions}", f"eval.samples={options.samples}",
    ]  # fmt: skip
    source = options.out / "source"
    for stage in ("generate", "verify", "filter"):
        r1distill(stage, "quickstart", f"run_dir={source}", *shared)
    right: dict[str, list[int]] = {name: [] for name in VARIANTS}
    asked = options.questions * options.samples
    for seed in options.seeds:
        for name, settings in VARIANTS.items():
            folder = options.out / f"{name}-{seed}"
            if not folder.exists():
                shutil.copytree(
                    source, folder, ignore=lambda path, names: {"logs", ".lock", "recipe.json"} & set(names)
                )
            correct = score(folder, [*shared, *settings, f"train.args.seed={seed}"], asked)
            right[name].append(correct)
            low, high = wilson(correct / asked, asked)
            print(f"{name:10} seed {seed}: {correct / asked:6.1%} ({low:.1%} - {high:.1%})", flush=True)
    for name, counts in right.items():
        shares = [count / asked for count in counts]
        deviation = statistics.stdev(shares) if len(shares) > 1 else math.nan
        print(
            f"{name:10} {len(shares)} seeds: mean {statistics.mean(shares):6.1%}, standard deviation between seeds "
            f"{deviation:.1%}, standard error of the mean {deviation / math.sqrt(len(shares)):.1%}"
        )


if __name__ == "__main__":
    main()
