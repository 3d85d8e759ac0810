"""Evaluate the same model twice with one engine and seed, and once killed with SIGKILL and continued: equal summaries?

    python scripts/check_reruns.py FOLDER [--model quickstart:teacher] [--task quickstart] [--limit 30] [--samples 2]
                                   [--engine '{"dtype": "float32", "max_model_len": 512}'] [section.key=value …]

All of summary.json but speed and conditions (which hold the date) is compared, and every text. Ends with 1 where
something differs.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from check_kill import journalled

from r1distill.records import Trace
from r1distill.store import read_json, read_records

NAME = "scored"
NOT_THE_SAME = ("seconds", "tokens_per_second", "conditions")


def command(options: argparse.Namespace, folder: Path) -> list[str]:
    recipe = options.folder / "recipe.toml"
    recipe.write_text("[eval]\n")
    settings = {
        "run_dir": str(folder), "eval.tasks": [options.task], "eval.models": [NAME], "eval.limit": options.limit,
        "eval.samples": options.samples, f"eval.candidates.{NAME}.model": options.model,
        **{f"eval.engine.{key}": value for key, value in json.loads(options.engine).items()},
    }  # fmt: skip
    overrides = [f"{key}={json.dumps(value)}" for key, value in settings.items()]
    return [sys.executable, "-m", "r1distill", "eval", str(recipe), *overrides, *options.overrides]


def killed(options: argparse.Namespace, folder: Path) -> int:
    """Kill it when a third of the samples is in the journal. Returns how many were."""
    process = subprocess.Popen(command(options, folder), start_new_session=True, stdout=subprocess.DEVNULL)
    taken = 0
    while process.poll() is None:
        taken = sum(journalled(path) for path in folder.glob(f"eval/*/{NAME}/journal"))
        if 3 * taken >= options.limit * options.samples:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            return taken
        time.sleep(0.2)
    sys.exit(f"it ended (exit code {process.returncode}) before it was killed; take more samples")


def result(folder: Path) -> tuple[dict[str, Any], dict[tuple[str, int], str]]:
    [scored] = folder.glob(f"eval/*/{NAME}")
    summary = {key: value for key, value in read_json(scored / "summary.json").items() if key not in NOT_THE_SAME}
    return summary, {(trace.problem_id, trace.sample): trace.text for trace in read_records(scored / "traces", Trace)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("overrides", nargs="*")
    parser.add_argument("--model", default="quickstart:teacher")
    parser.add_argument("--task", default="quickstart")
    parser.add_argument("--limit", type=int, default=30)
    parser.add_argument("--samples", type=int, default=2)
    parser.add_argument("--engine", default='{"dtype": "float32", "max_model_len": 512}')
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    first, again, resumed = (options.folder / name for name in ("first", "again", "resumed"))
    for folder in (first, again):
        subprocess.run(command(options, folder), check=True, stdout=subprocess.DEVNULL)
    print(f"killed with {killed(options, resumed)} of {options.limit * options.samples} samples in its journal")
    subprocess.run(command(options, resumed), check=True, stdout=subprocess.DEVNULL)
    summary, texts = result(first)
    failed = False
    for folder in (again, resumed):
        other, other_texts = result(folder)
        keys = [key for key in summary.keys() | other.keys() if summary.get(key) != other.get(key)]
        same = sum(texts[key] == other_texts.get(key) for key in texts)
        failed |= bool(keys) or same < len(texts)
        print(f"{folder.name:8} {same} of {len(texts)} texts are the same; summary: {', '.join(keys) or 'identical'}")
    print(f"pass@1 {summary['pass@1']:.4%}, {summary['tokens']:,} tokens")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
