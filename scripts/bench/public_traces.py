"""Seconds and peak memory of filtering a public set of traces: python scripts/bench/public_traces.py [ROWS …]

Made-up rows in the columns of OpenR1-Math-220k, each with two generations of about 8,000 characters (2,000 tokens), of which
the set calls one right. The commands run as a user runs them, with one process that measures. CPU seconds and peak memory
are those of a command and of the processes that it has waited for.
"""

import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

STEPS = ("generate", "verify", "filter")
WORDS_A_TRACE = 1_300


def write_set(path: Path, rows: int) -> None:
    draw = random.Random(1)
    vocabulary = ["".join(draw.choices("abcdefghijklmnopqrstuvwxyz", k=draw.randint(2, 9))) for _ in range(5_000)]
    with path.open("w", encoding="utf-8") as file:
        for number in range(rows):
            texts = [
                f"<think>\n{' '.join(draw.choices(vocabulary, k=WORDS_A_TRACE))}\n</think>\n\nIt is \\boxed{{{number + k}}}."
                for k in range(2)
            ]
            question = " ".join(draw.choices(vocabulary, k=30))
            row = {
                "problem": f"{question}: what is {number}?", "answer": str(number), "solution": "", "source": "made up",
                "generations": texts, "correctness_math_verify": [True, False], "is_reasoning_complete": [True, True],
            }  # fmt: skip
            file.write(json.dumps(row) + "\n")


def measured(*command: str) -> tuple[float, float, float]:
    """Wall seconds, CPU seconds and the peak of memory in MiB of a command and those that it starts."""
    started = time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)}: exit code {process.returncode}")
    return time.monotonic() - started, used.ru_utime + used.ru_stime, used.ru_maxrss / 2**10


def main() -> None:
    print(f"{'rows':>8}  {'step':<16}{'seconds':>8}{'CPU time':>10}{'peak memory':>13}")
    for rows in [int(text) for text in sys.argv[1:]] or [1_000, 20_000]:
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary)
            write_set(folder / "set.jsonl", rows)
            recipe = folder / "recipe.toml"
            recipe.write_text(
                f'run_dir = "{folder}/run"\n[traces]\npath = "{folder}/set.jsonl"\nverdicts = "theirs"\n[filter]\nworkers = 1\n'
            )
            for step in STEPS:
                seconds, cpu, memory = measured(sys.executable, "-m", "r1distill", step, str(recipe))
                print(f"{rows:8,}  {step:<16}{seconds:6,.0f} s{cpu:8,.0f} s{memory:9,.0f} MiB", flush=True)


if __name__ == "__main__":
    main()
