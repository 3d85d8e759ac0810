"""Answers judged per second and core, beside Math-Verify alone; and a whole run of 100,000 traces with its peak memory.

    python scripts/bench/verify.py [--seconds 4] [--traces 100000] [--data ../shared/data]

Replies are made from GSM8K and MATH-500: thinking of 200, 2,000 or 20,000 tokens (4 characters each) made of their
worked solutions, then the final answer in a box. A third is wrong: the answer of another problem. Both graders run on one
and the same core; Math-Verify as its users call it, `verify(parse(gold), parse(reply))`, with the gold parsed once.
"""

import argparse
import contextlib
import json
import os
import random
import resource
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

from math_verify import parse
from math_verify import verify as math_verify

from r1distill.problems import short_answer
from r1distill.recipe import find_recipe, load_recipe
from r1distill.records import Problem, Trace
from r1distill.run import Clock, Run
from r1distill.sections import Verify
from r1distill.store import write_records
from r1distill.verify import VerifierPool
from r1distill.verify.stage import verify_traces

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
Item = tuple[Problem, int, str]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=4, help="for each measurement of Math-Verify")
    parser.add_argument("--traces", type=int, default=100_000, help="of the whole run; 0: none")
    parser.add_argument("--data", type=Path, default=DATA)
    options = parser.parse_args()
    sets = {name: read(options.data / path) for name, path in SETS.items() if (options.data / path).exists()}
    if not sets:
        sys.exit(f"{options.data} has neither {' nor '.join(SETS.values())}; name the folder with --data")
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(cores)})
    print(f"{'answers per second on one core':30} {'r1distill':>10} {'Math-Verify':>12} {'ratio':>7}   same verdicts")
    for name, rows in sets.items():
        for tokens in (200, 2_000, 20_000):
            compare(f"{name}, {tokens:,} tokens", replies(rows, tokens), options.seconds)
    os.sched_setaffinity(0, cores)
    if options.traces:
        whole_run([row for rows in sets.values() for row in rows], options.traces)


def read(path: Path) -> list[tuple[str, str]]:
    """(gold answer, worked solution) of each problem."""
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    return [(short_answer(str(row["answer"])), str(row.get("solution") or row["answer"])) for row in rows]


SETS = {"GSM8K": "gsm8k/test.jsonl", "MATH-500": "math500/test.jsonl"}


def replies(rows: list[tuple[str, str]], tokens: int, n: int = 1000) -> list[Item]:
    numbers = random.Random(0)
    made = []
    for index in range(n):
        gold, _ = rows[index % len(rows)]
        thinking = ""
        while len(thinking) < 4 * tokens:
            thinking += rows[numbers.randrange(len(rows))][1].replace("####", "so") + "\n\n"
        answer = gold if index % 3 else rows[numbers.randrange(len(rows))][0]
        text = f"<think>\n{thinking[: 4 * tokens]}\n</think>\n\nPutting it together, the answer is:\n\n$\\boxed{{{answer}}}$"
        made.append((Problem("", answer=gold), index, text))
    return made


def compare(name: str, items: list[Item], seconds: float) -> None:
    with VerifierPool(1, 10.0) as pool:
        list(pool.verify_many(items[:50]))
        ours, mine = timed(lambda chunk: [v.outcome == "correct" for v in pool.verify_many(chunk)], items, seconds)
    golds = {problem.answer: parse(rf"\boxed{{{problem.answer}}}") for problem, _, _ in items}
    theirs, others = timed(
        lambda chunk: [math_verify(golds[p.answer], parse(text)) for p, _, text in chunk], items, seconds
    )
    n = min(len(mine), len(others))
    same = sum(one == two for one, two in zip(mine, others, strict=False))
    print(f"{name:30} {ours:10,.0f} {theirs:12,.0f} {ours / theirs:6.1f}x   {same} of {n}")


def timed(judge: Callable[[list[Item]], list[bool]], items: list[Item], seconds: float) -> tuple[float, list[bool]]:
    """(answers a second, the verdicts of the first pass); as many passes as the seconds allow, one at least."""
    started, done, first = time.perf_counter(), 0, []
    while True:
        for at in range(0, len(items), 100):
            verdicts = judge(items[at : at + 100])
            if done < len(items):
                first += verdicts
            done += len(verdicts)
            if done >= 200 and time.perf_counter() - started > seconds:
                return done / (time.perf_counter() - started), first


def whole_run(rows: list[tuple[str, str]], n: int) -> None:
    """The stage `verify` on Parquet files of n traces of 2,000 tokens."""
    pool_of_replies = replies(rows, 2_000)
    problems = {problem.id: problem for problem, _, _ in pool_of_replies}
    with tempfile.TemporaryDirectory() as folder:
        traces, verdicts = Path(folder) / "traces.parquet", Path(folder) / "verdicts.parquet"
        made = (trace_of(*pool_of_replies[i % len(pool_of_replies)], i) for i in range(n))
        write_records(traces, Trace, made)
        peak = Peak()
        started = time.perf_counter()
        clock = Clock(Run(load_recipe(find_recipe("quickstart"), [f"run_dir={folder}"])), "verify")
        outcomes, _ = verify_traces(traces, verdicts, problems, Verify(), clock, label="verify")
        took = time.perf_counter() - started
        workers = peak.stop()
        parent = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        size = traces.stat().st_size / 2**20
    print(
        f"\n{n:,} traces of 2,000 tokens ({n * 8_000 / 2**20:,.0f} MB of text, {size:,.0f} MB of Parquet), two workers: "
        f"{took:.1f} s, {n / took:,.0f} a second; peak memory {parent:,.0f} MB, "
        f"of the workers {workers:,.0f} MB; {dict(outcomes)}"
    )


def trace_of(problem: Problem, _: int, text: str, index: int) -> Trace:
    return Trace(problem.id, index, "bench", "", 0, text, None, "", "stop")


class Peak:
    """The most memory that the children of this process had together, looked at every 50 ms."""

    def __init__(self) -> None:
        self.most, self.ended = 0.0, threading.Event()
        self.thread = threading.Thread(target=self.watch)
        self.thread.start()

    def watch(self) -> None:
        while not self.ended.wait(0.05):
            self.most = max(self.most, sum(map(resident_mb, children())))

    def stop(self) -> float:
        self.ended.set()
        self.thread.join()
        return self.most


def children() -> list[int]:
    found: list[int] = []
    for task in Path("/proc/self/task").iterdir():
        with contextlib.suppress(FileNotFoundError):  # a thread that has ended meanwhile
            found += [int(pid) for pid in (task / "children").read_text().split()]
    return found


def resident_mb(pid: int) -> float:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * resource.getpagesize() / 2**20
    except (OSError, IndexError):
        return 0.0


if __name__ == "__main__":
    main()
