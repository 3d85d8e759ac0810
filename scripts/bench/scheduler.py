"""Many problems through the scheduler, the journal and a server that answers at once: what r1distill itself costs.

    python scripts/bench/scheduler.py [--problems 100000] [--samples 4] [--characters 2000] [--concurrency 128]

The server is tests/faulty_server.py without faults, in a process of its own. Prints wall time, requests a second, peak
memory of the generator, bytes of the journal, and then the same for a second start, which finds everything done but has
to look (resume) and for writing the Parquet again (compact).
"""

import argparse
import json
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from machine import free_port

ROOT = Path(__file__).resolve().parents[2]


def timed(command: list[str]) -> tuple[float, float]:
    """(seconds, peak MB) of a command. The peak is that of all children so far, so later ones only show where they are larger."""
    started = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--problems", type=int, default=100_000)
    parser.add_argument("--samples", type=int, default=4)
    parser.add_argument("--characters", type=int, default=2_000)
    parser.add_argument("--concurrency", type=int, default=128)
    options = parser.parse_args()
    folder, port = Path(tempfile.mkdtemp(prefix="bench-scheduler-")), free_port()
    server = subprocess.Popen(
        [
            sys.executable, str(ROOT / "tests" / "faulty_server.py"), str(port), str(folder / "answered"),
            "--delay_s", "0", "--characters", str(options.characters),
        ]
    )  # fmt: skip
    try:
        problems = folder / "problems.jsonl"
        with problems.open("w") as file:
            for n in range(options.problems):
                file.write(json.dumps({"problem": f"What is {n} + 7?", "answer": str(n + 7)}) + "\n")
        recipe = folder / "recipe.toml"
        recipe.write_text(
            f"""run_dir = "{folder / "run"}"
[problems]
path = "{problems}"
[teacher]
backend = "server"
model = "teacher"
urls = ["http://127.0.0.1:{port}/v1"]
[generate]
samples = {options.samples}
logprobs = 0
concurrency = {options.concurrency}
[train]
student = "org/student"
[eval]
tasks = ["quickstart"]
"""
        )
        command = [sys.executable, "-m", "r1distill", "generate", str(recipe)]
        total = options.problems * options.samples
        seconds, peak = timed(command)
        size = sum(file.stat().st_size for file in (folder / "run" / "journal").glob("*")) / 2**20
        print(
            f"{options.problems:,} problems x {options.samples} samples of {options.characters:,} characters, "
            f"{options.concurrency} at once: {seconds:.0f} s, {total / seconds:,.0f} a second; "
            f"peak {peak:,.0f} MB; journal {size:,.0f} MB"
        )
        (folder / "run" / "stages" / "generate.json").unlink()  # as if killed at the very end
        seconds, peak = timed(command)
        print(
            f"started again, all found in the journal, Parquet written again: {seconds:.0f} s; peak so far {peak:,.0f} MB"
        )
    finally:
        server.kill()
        server.wait()
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
