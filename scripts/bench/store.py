"""The journal with a million samples: seconds, peak memory and bytes on disk to write, resume and compact it.

    python scripts/bench/store.py [--samples 1000000] [--characters 20000] [--folder DIR]

Each step is a process of its own, whose peak memory is the kernel's count. The texts are words drawn by Zipf's law, the
token ids one for four characters. Beside it, where it is the question: a dictionary of the same samples in JSON lines,
as peers resume (only with at most 20,000 samples, for its memory).
"""

import argparse
import json
import random
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from r1distill.generate.journal import Entry, Journal
from r1distill.records import Trace
from r1distill.store import write_records

SAMPLES_A_PROBLEM = 4
BATCH = 64  # what ends together in a busy run is one transaction
LARGEST_FOR_JSON_LINES = 20_000
IDS = [[int(random.Random(n).paretovariate(0.5)) % 150_000 for _ in range(8_000)] for n in range(50)]


def texts(characters: int, n: int = 500) -> list[str]:
    chance = random.Random(0)
    words = ["".join(chance.choices("etaoinshrdlucmfwyp", k=chance.randint(1, 9))) for _ in range(20_000)]
    weights = [1 / rank for rank in range(1, len(words) + 1)]
    return [" ".join(chance.choices(words, weights, k=characters // 5))[:characters] for _ in range(n)]


def trace_of(number: int, characters: int, pool: list[str]) -> Trace:
    problem, sample = divmod(number, SAMPLES_A_PROBLEM)
    text = f"{number} {pool[number % len(pool)]}"
    ids = IDS[number % len(IDS)][: characters // 4]
    return Trace(
        f"{problem:016x}", sample, "teacher", "0" * 32, number, text, text, "42", "stop", ids, 100, len(ids), 20, -0.3,
        0.3, 0.35, 1.2, 0.1, {"mean_entropy_nats": 0.3}, {"mean_entropy_nats": 0.1}, None, 60.0,
    )  # fmt: skip


def write(folder: Path, options: argparse.Namespace) -> None:
    pool = texts(options.characters)
    with Journal(folder) as journal:
        for first in range(0, options.samples, BATCH):
            last = min(first + BATCH, options.samples)
            numbers = range(first, last)
            journal.write([Entry(trace_of(n, options.characters, pool), "correct", 32_768) for n in numbers])


def resume(folder: Path, options: argparse.Namespace) -> None:
    """What a restart does before its first request."""
    with Journal(folder) as journal:
        finished = journal.finished(32_768)
        cut_off = journal.cut_off(32_768)
    assert len(finished) == options.samples
    assert not cut_off


def compact(folder: Path, options: argparse.Namespace) -> None:
    wanted = {f"{problem:016x}": "0" * 32 for problem in range(-(-options.samples // SAMPLES_A_PROBLEM))}
    with Journal(folder) as journal:
        count = write_records(folder / "traces.parquet", Trace, journal.traces(wanted, 32_768))
    assert count == options.samples


def write_lines(folder: Path, options: argparse.Namespace) -> None:
    pool = texts(options.characters)
    with (folder / "samples.jsonl").open("w") as file:
        for number in range(options.samples):
            trace = trace_of(number, options.characters, pool)
            row = {name: getattr(trace, name) for name in Trace.__dataclass_fields__}
            file.write(json.dumps(row) + "\n")


def resume_lines(folder: Path, options: argparse.Namespace) -> None:
    done = {}
    with (folder / "samples.jsonl").open() as file:
        for line in file:
            row = json.loads(line)
            done[row["problem_id"], row["sample"]] = row
    assert len(done) == options.samples


STEPS: dict[str, Any] = {
    "write": write,
    "resume": resume,
    "compact": compact,
    "write JSON lines": write_lines,
    "resume from JSON lines": resume_lines,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=1_000_000)
    parser.add_argument("--characters", type=int, default=20_000)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--step", choices=STEPS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.step:
        started = time.perf_counter()
        STEPS[options.step](options.folder, options)
        peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(json.dumps({"seconds": time.perf_counter() - started, "peak_mb": peak_mb}))
        return
    folder = options.folder or Path(tempfile.mkdtemp(prefix="bench-store-"))
    folder.mkdir(parents=True, exist_ok=True)
    print(f"{options.samples:,} samples of {options.characters:,} characters and {options.characters // 4:,} token ids")
    try:
        for step in STEPS:
            if "JSON" in step and options.samples > LARGEST_FOR_JSON_LINES:
                continue
            command = [sys.executable, __file__, "--samples", str(options.samples), "--characters"]
            command += [str(options.characters), "--folder", str(folder), "--step", step]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            found = json.loads(done.stdout)
            size = sum(file.stat().st_size for file in folder.glob("*")) / 2**30
            print(
                f"{step:24} {found['seconds']:8.1f} s  {options.samples / found['seconds']:10,.0f} a second  "
                f"peak {found['peak_mb']:7,.0f} MB  on disk {size:6.2f} GiB",
                flush=True,
            )
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
