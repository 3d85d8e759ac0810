"""The whole stage `filter` as a user runs it: seconds and peak memory of each part, by the number of traces.

    python scripts/bench/filter_stage.py [--sizes 10000,100000] [--characters 2000] [--samples 4] [--workers 2]

A run folder of synthetic traces with verdicts is made first. Then, each in a process of its own: `measured` is everything up
to tags.parquet (measures of each trace, agreement, near duplicates, contamination by every benchmark of --data that eval/ knows),
`another rule` the same command again with another limit, which decides anew, writes the dataset anew and measures nothing.
Exponents: log of the ratio of the times over log of the ratio of the sizes. Peak memory is that of the command's own process
and of the largest of its workers.
"""

import argparse
import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.machine import exponent
from planted_traces import clean_thinking, planted, worked_solutions

from r1distill.recipe import Recipe
from r1distill.records import Problem, Trace, Verdict
from r1distill.run import Clock, Run
from r1distill.store import read_json, write_json, writing_records

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
LIMITS = {"measured": 0.85, "another rule": 0.6}  # nats


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", default="10000,100000", help="numbers of traces, with commas")
    parser.add_argument("--characters", type=int, default=2_000, help="of each trace")
    parser.add_argument("--samples", type=int, default=4, help="traces of each problem")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--data", type=Path, default=DATA, help="a folder with the benchmarks")
    parser.add_argument("--run", type=Path, help="one stage in this process, of the run in that folder")
    options = parser.parse_args()
    if options.run:
        one_stage(options.run)
        return
    print(
        f"{'traces':>10}{'':4}{'':14}{'seconds':>10}{'a second':>10}{'own memory':>14}{'a worker':>12}{'exponent':>10}"
    )
    before: dict[str, tuple[float, float]] = {}
    for size in map(int, options.sizes.split(",")):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            make_run(folder, size, options)
            found: dict[str, Any] = {}
            for what, limit in LIMITS.items():
                found = measured(folder, limit)
                now = size, found["seconds"]
                grown = exponent(before.get(what), now)
                before[what] = now
                print(
                    f"{size:10,}{'':4}{what:14}{found['seconds']:9.1f} {size / found['seconds']:10,.0f}"
                    f"{found['own_mib']:10,.0f} MiB{found['worker_mib']:8,.0f} MiB{grown:>10}",
                    flush=True,
                )
            print(f"{'':14}kept {found['kept']:,}, dropped {found['dropped']}", flush=True)


def make_run(folder: Path, size: int, options: argparse.Namespace) -> None:
    recipe = Recipe.model_validate(
        {
            "run_dir": str(folder),
            "problems": {"path": "made up"},
            "teacher": {"model": "teacher"},
            "train": {"student": "student"},
            "filter": {"workers": options.workers},
            "contamination": {"data_dir": str(options.data)},
        }
    )
    run = Run(recipe)
    write_json(folder / "recipe.json", recipe.model_dump())
    with (
        writing_records(run.problems, Problem) as write_problem,
        writing_records(run.traces / "00000.parquet", Trace) as write_trace,
        writing_records(run.verdicts, Verdict) as write_verdict,
    ):
        for problem, traces in made(size, options):
            write_problem(problem)
            for trace in traces:
                write_trace(trace)
                is_right = hash_of(trace) % 4 > 0
                answer = problem.answer if is_right else "0"
                write_verdict(Verdict(problem.id, trace.sample, "correct" if is_right else "incorrect", answer))


def made(size: int, options: argparse.Namespace) -> Iterator[tuple[Problem, list[Trace]]]:
    """Problems, each another one, with their traces; the words are of real worked solutions."""
    worked, draw = worked_solutions(options.data), random.Random(1)
    for number in range(0, size, options.samples):
        own = draw.choice(worked)
        question = f"It was written that: {draw.choice(worked).solution[:300]} What does one get with {number} instead?"
        problem = Problem(question, answer=own.answer or "1", source=f"set {number % 3}", license="MIT")
        traces = []
        for sample in range(min(options.samples, size - number)):
            thinking = ""
            while len(thinking) < options.characters:
                thinking += clean_thinking(draw, worked, own) + "\n\n"
            text = planted(
                "clean", own, thinking[: options.characters], f"The answer is \\boxed{{{own.answer}}}."
            ).trace
            traces.append(
                Trace(
                    problem.id, sample, "teacher", "sha", sample, text.text, text.thinking, text.answer, "stop",
                    n_tokens=options.characters // 4, mean_entropy_nats=draw.random(),
                )
            )  # fmt: skip
        yield problem, traces


def hash_of(trace: Trace) -> int:
    return sum(map(ord, trace.problem_id)) + trace.sample


def measured(folder: Path, limit: float) -> dict[str, Any]:
    """One stage in a process of its own."""
    recipe = read_json(folder / "recipe.json")
    recipe["filter"]["max_mean_entropy_nats"] = limit
    write_json(folder / "recipe.json", recipe)
    done = subprocess.run(
        [sys.executable, __file__, "--run", str(folder)], check=True, stdout=subprocess.PIPE, text=True
    )
    return json.loads(done.stdout.splitlines()[-1])


def one_stage(folder: Path) -> None:
    from r1distill.filter.stage import filter_stage  # noqa: PLC0415 - its import is part of what is measured

    run = Run(Recipe.model_validate(read_json(folder / "recipe.json")))
    started = time.perf_counter()
    funnel = filter_stage(run, Clock(run, "filter"))
    seconds = time.perf_counter() - started
    own, worker = (resource.getrusage(who).ru_maxrss / 1024 for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    found = {"seconds": seconds, "own_mib": own, "worker_mib": worker}
    print(json.dumps({**found, "kept": funnel["kept"], "dropped": funnel["dropped"]}), flush=True)


if __name__ == "__main__":
    main()
