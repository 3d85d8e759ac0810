"""Kill a run with SIGKILL in the middle of every stage, continue it, and compare its counts with an undisturbed run's.

    python scripts/check_kill.py RECIPE REFERENCE_RUN [section.key=value …]      # the reference is a finished run folder

The killed run is made in REFERENCE_RUN-killed. Ends with 1 where any count differs.
"""

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

STAGES = ("generate", "verify", "filter", "train", "eval")
COMPARED = {
    "generate": ("problems", "samples", "failed", "finish_reasons", "samples_spared"),
    "verify": ("verdicts", "outcomes"),
    "filter": ("sampled", "kept", "dropped", "dataset"),
    "train": ("examples", "overlong_dropped", "steps"),
    "eval": ("accuracy",),
}


def journalled(folder: Path) -> int:
    total = 0
    for path in folder.glob("*.sqlite"):
        try:
            with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
                total += connection.execute("SELECT count(*) FROM samples").fetchone()[0]
        except sqlite3.OperationalError:  # its writer holds it just now
            continue
    return total


def record(folder: Path, stage: str) -> dict[str, Any]:
    path = folder / "stages" / f"{stage}.json"
    return json.loads(path.read_text()) if path.exists() else {}


def is_in_the_middle(folder: Path, stage: str) -> bool:
    if record(folder, stage).get("status") != "running":
        return False
    if stage == "generate":
        return journalled(folder / "journal") >= 100
    if stage == "train":
        return len(list((folder / "student" / "checkpoints").glob("checkpoint-*/trainer_state.json"))) > 0
    if stage == "eval":
        return sum(journalled(path) for path in (folder / "eval").glob("*/student/journal")) >= 60
    return True


def run_until(condition: Callable[[], bool], command: list[str]) -> int | None:
    """Run the command; kill it when the condition holds (None), or return its exit code."""
    process = subprocess.Popen(command)
    while process.poll() is None:
        if condition():
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
            return None
        time.sleep(0.002)
    return process.returncode


def main() -> None:
    recipe, reference = sys.argv[1], Path(sys.argv[2])
    folder = reference.with_name(reference.name + "-killed")
    command = [sys.executable, "-m", "r1distill", "run", recipe, *sys.argv[3:], f"run_dir={folder}"]
    for stage in STAGES:
        if record(folder, stage).get("status") == "done":
            continue
        killed = run_until(lambda stage=stage: is_in_the_middle(folder, stage), command) is None
        print(
            f"check_kill: {stage} {'killed in the middle' if killed else 'was over before it could be killed'}",
            flush=True,
        )
    code = subprocess.run(command).returncode
    print(f"check_kill: the last run ended with {code}", flush=True)
    differences = 0
    for stage in STAGES:
        for key in COMPARED[stage]:
            expected, found = record(reference, stage)["counts"][key], record(folder, stage)["counts"][key]
            differences += expected != found
            print(
                f"  {'same' if expected == found else 'DIFFERENT'}  {stage}.{key}: {expected}"
                + ("" if expected == found else f" / {found}")
            )
    sys.exit(1 if differences or code else 0)


if __name__ == "__main__":
    main()
