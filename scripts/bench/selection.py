"""Seconds and memory of selecting among synthetic traces: python scripts/bench/selection.py [NUMBER…]

Eight traces a problem, every rule on: two rules of a recipe, the three most diverse of a problem, balance by source and
difficulty, a token budget. Each number of traces runs in a process of its own.
"""

import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from r1distill.filter.funnel import funnel_of
from r1distill.filter.select import read_tags, select, write_decisions
from r1distill.filter.sketch import SKETCH_BYTES
from r1distill.sections import Filter
from r1distill.store import write_json

SAMPLES = 8
ROWS_AT_ONCE = 100_000
ALL_RULES = {
    "rules": [
        {"name": "too_long", "drop": {"n_tokens": {"at_least": 16_000}}},
        {"name": "loops", "drop": {"repeated_share": {"at_least": 0.5}, "loop_at_end": True}},
    ],
    "drop_duplicate_problems": True,
    "max_per_problem": 3,
    "max_per_problem_by": "most_diverse",
    "balance": [{"by": "source", "at_most": 60_000}, {"by": "difficulty", "at_most": 100_000}],
}


def write_tags(path: Path, number: int) -> None:
    chance = np.random.default_rng(0)
    writer = None
    for start in range(0, number, ROWS_AT_ONCE):
        rows = np.arange(start, min(number, start + ROWS_AT_ONCE))
        n, problem = len(rows), rows // SAMPLES
        ids = [f"{each * 0x9E3779B97F4A7C15 % 2**64:016x}" for each in problem.tolist()]
        repeats = chance.random(n) < 0.02
        table = pa.table(
            {
                "problem_id": ids,
                "sample": rows % SAMPLES,
                "source": np.array(["gsm8k", "math", "aime", "code"])[problem % 4],
                "finish_reason": np.where(chance.random(n) < 0.05, "length", "stop"),
                "outcome": np.where(chance.random(n) < 0.3, "incorrect", "correct"),
                "format": np.where(chance.random(n) < 0.01, "several", "ok"),
                "n_tokens": chance.lognormal(8, 0.8, n).astype(np.int64),
                "n_answer_characters": chance.integers(0, 500, n),
                "mean_entropy_nats": chance.gamma(4, 0.1, n),
                "pass_rate": (problem * 7919 % 9) / 8,
                "contaminated_by": np.where(problem % 500 == 0, "aime24", ""),
                "duplicate_of": [f"{name}/0" if copy else "" for name, copy in zip(ids, repeats, strict=True)],
                "problem_duplicate_of": np.where(problem % 50 == 1, ids[0], ""),
                "repeated_share": chance.beta(1, 20, n),
                "loop_at_end": chance.random(n) < 0.01,
                "sketch": pa.array(
                    [bytes(each) for each in chance.integers(0, 9, (n, SKETCH_BYTES), dtype=np.uint8)], pa.binary()
                ),
            }
        )
        writer = writer or pq.ParquetWriter(path, table.schema, compression="zstd")
        writer.write_table(table)
    if writer:
        writer.close()


def measure(tags_path: Path, number: int, which: str) -> None:
    settings = (
        Filter() if which == "the defaults" else Filter.model_validate({**ALL_RULES, "token_budget": 800 * number})
    )
    started = time.perf_counter()
    tags = read_tags(tags_path, settings)
    read = time.perf_counter()
    selection = select(tags, settings, 0)
    selected = time.perf_counter()
    write_decisions(tags_path.with_name("decisions.parquet"), tags, selection)
    funnel = funnel_of(tags, selection)
    write_json(tags_path.with_name("funnel.json"), funnel)
    ended = time.perf_counter()
    gigabytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    times = (read - started, selected - read, ended - selected, time.process_time())
    print(
        f"{which:14}{number:>10,}{funnel['kept']:>10,}"
        + "".join(f"{each:>8.2f} s" for each in times)
        + f"{gigabytes:>8.2f} GB",
        flush=True,
    )


def main() -> None:
    if sys.argv[1:2] == ["--make"]:
        write_tags(Path(sys.argv[2]), int(sys.argv[3]))
        return
    if sys.argv[1:2] == ["--measure"]:
        measure(Path(sys.argv[2]), int(sys.argv[3]), sys.argv[4])
        return
    columns = ("traces", "kept", "read", "select", "write", "CPU, all")
    print(" " * 14 + "".join(f"{name:>10}" for name in columns) + f"{'memory':>11}", flush=True)
    for number in sys.argv[1:] or ("10000", "100000", "1000000"):
        with tempfile.TemporaryDirectory() as folder:
            tags = str(Path(folder) / "tags.parquet")
            # in a process of its own: the peak of a child counts what its parent had when it began
            subprocess.run([sys.executable, __file__, "--make", tags, number], check=True)
            for which in ("the defaults", "all rules"):
                subprocess.run([sys.executable, __file__, "--measure", tags, number, which], check=True)


if __name__ == "__main__":
    main()
