"""Traces tagged per second of one core, and peak memory: python scripts/bench/tags.py [--sizes 10000,100000] [--characters 2000]

Synthetic traces are made while they are tagged and forgotten again, and the tags are written as Parquet a row group at a time,
as a stage does; the time that making takes is measured apart and taken off. Each size runs in a process of its own. Then how
long one trace of so many characters takes. Exponents: log of the ratio of the times over log of the ratio of the sizes.
"""

import argparse
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.machine import exponent, status_kib
from planted_traces import Planted, Worked, clean_thinking, planted, worked_solutions

from r1distill.filter.measures.tags import TAGS, trace_tags
from r1distill.records import Verdict

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
ROWS = 2_000
NO_VERDICT = Verdict("", 0, "unverifiable")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", default="10000,100000", help="numbers of traces, with commas")
    parser.add_argument("--characters", type=int, default=2_000, help="of each trace")
    parser.add_argument("--lengths", default="2000,20000,200000", help="characters of single traces, with commas")
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--one", type=int, help="a single size, in this process")
    options = parser.parse_args()
    if options.one:
        seconds, mebibytes = whole_set(options.data, options.one, options.characters)
        print(f"{seconds} {mebibytes}")
        return
    print(
        f"{'traces':>12}{'characters':>12}{'CPU time':>12}{'a second':>12}{'peak memory':>14}{'exponent':>10}",
        flush=True,
    )
    before: tuple[float, float] | None = None
    for size in map(int, options.sizes.split(",")):
        command = [sys.executable, __file__, "--one", str(size), "--characters", str(options.characters)]
        output = subprocess.run([*command, "--data", str(options.data)], check=True, capture_output=True, text=True)
        seconds, mebibytes = map(float, output.stdout.split())
        print(
            f"{size:12,}{options.characters:12,}{seconds:10.1f} s{size / seconds:12,.0f}{mebibytes:10,.0f} MiB"
            f"{exponent(before, (size, seconds)):>10}",
            flush=True,
        )
        before = (size, seconds)
    print(f"\n{'one trace of':>24}{'CPU time':>12}{'exponent':>34}")
    before = None
    for characters in map(int, options.lengths.split(",")):
        seconds = one_trace(options.data, characters)
        print(
            f"{characters:13,} characters{seconds * 1e3:9.1f} ms{exponent(before, (characters, seconds)):>34}",
            flush=True,
        )
        before = (characters, seconds)


def made(worked: list[Worked], number: int, characters: int) -> Iterator[Planted]:
    """Clean traces of so many characters, each another one."""
    draw = random.Random(1)
    for _ in range(number):
        own, thinking = draw.choice(worked), ""
        while len(thinking) < characters:
            thinking += clean_thinking(draw, worked, own) + "\n\n"
        yield planted("clean", own, thinking[:characters], f"The answer is \\boxed{{{own.answer}}}.")


def whole_set(data: Path, number: int, characters: int) -> tuple[float, float]:
    """(CPU seconds of tagging and writing, peak memory in MiB)."""
    worked = worked_solutions(data)
    started = time.process_time()
    making = 0.0
    with tempfile.TemporaryDirectory() as folder, pq.ParquetWriter(Path(folder) / "tags.parquet", TAGS) as writer:
        traces = made(worked, number, characters)
        for start in range(0, number, ROWS):
            before = time.process_time()
            group = [next(traces) for _ in range(min(ROWS, number - start))]
            making += time.process_time() - before
            rows = [trace_tags(each.problem, each.trace, NO_VERDICT) for each in group]
            writer.write_table(pa.Table.from_pylist(rows, TAGS))
    return time.process_time() - started - making, status_kib("VmHWM") / 1024


def one_trace(data: Path, characters: int) -> float:
    """CPU seconds, the mean over some traces."""
    some = list(made(worked_solutions(data), max(2, 400_000 // characters), characters))
    started = time.process_time()
    for each in some:
        trace_tags(each.problem, each.trace, NO_VERDICT)
    return (time.process_time() - started) / len(some)


if __name__ == "__main__":
    main()
