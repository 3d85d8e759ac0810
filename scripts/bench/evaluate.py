"""Seconds of `r1distill eval` beside bare vLLM on the same requests, and those to judge 100,000 stored replies again.

    python scripts/bench/evaluate.py [--model quickstart:teacher] [--task quickstart] [--samples 4] [--rounds 3]
                                     [--concurrency 64] [--engine '{"dtype": "float32", "max_model_len": 512}']
                                     [--stored 100000] [--data ../shared/data/math500/test.jsonl]

The same prompts, seeds and sampling parameters, in turns on one machine, each in a process of its own. What is timed is
from the open engine to the last summary.json: journal, traces, verdicts, intervals and all. Bare vLLM is given all
requests at once; it writes nothing and judges nothing. The stored replies are those of bench/verify.py, with 2,000 tokens
of thinking each, of 500 questions; one in three is wrong, and the verdicts that stand there say that all are.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bare_vllm import printed, sample_bare
from verify import DATA, read, replies

from r1distill.evaluate.benchmarks import asking_in, open_benchmark
from r1distill.recipe import Recipe, load_recipe
from r1distill.records import Problem, Trace, Verdict
from r1distill.store import read_json, write_json, write_records

NAME = "scored"


def settings_of(options: argparse.Namespace, folder: Path) -> list[str]:
    """Overrides over an empty recipe."""
    engine = {**json.loads(options.engine), "max_num_seqs": options.concurrency}
    settings = {
        "run_dir": str(folder), "eval.tasks": [options.task], "eval.models": [NAME], "eval.samples": options.samples,
        "eval.concurrency": options.concurrency, f"eval.candidates.{NAME}.model": options.model,
        **{f"eval.engine.{key}": value for key, value in engine.items()},
    }  # fmt: skip
    return [f"{key}={json.dumps(value)}" for key, value in settings.items()]


def empty_recipe(folder: Path) -> Path:
    path = folder / "recipe.toml"
    path.write_text("[eval]\n")
    return path


# ---------------------------------------------------------------- beside bare vLLM


def bare(options: argparse.Namespace) -> None:
    from r1distill.evaluate.contestants import contestants_of  # noqa: PLC0415
    from r1distill.evaluate.stage import plan_of  # noqa: PLC0415
    from r1distill.run import Run  # noqa: PLC0415

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        run = Run(load_recipe(empty_recipe(folder), settings_of(options, folder)))
        [contestant] = contestants_of(run)
        benchmark = open_benchmark(run.recipe, options.task)
    sample_bare(plan_of(run, contestant, benchmark), benchmark.problems, run.recipe.eval.engine)


def ours(options: argparse.Namespace) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        command = [sys.executable, "-m", "r1distill", "eval", empty_recipe(folder), *settings_of(options, folder)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        [path] = folder.glob(f"eval/*/{NAME}/summary.json")
        summary = read_json(path)
    return {"tokens": summary["tokens"], "seconds": summary["seconds"]}


def beside_bare_vllm(options: argparse.Namespace) -> None:
    print(f"{options.task} x {options.samples} samples of {options.model}, {options.concurrency} at once")
    taken: dict[str, list[float]] = {"bare vLLM": [], "r1distill": []}
    for _ in range(options.rounds):
        command = [sys.executable, __file__, *sys.argv[1:], "--bare"]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        for name, found in (("bare vLLM", printed(done.stdout)), ("r1distill", ours(options))):
            taken[name].append(found["seconds"] / found["tokens"])
            print(f"  {name:10} {found['tokens']:8,} tokens {found['seconds']:7.1f} s", flush=True)
    ratios = [mine / its for its, mine in zip(taken["bare vLLM"], taken["r1distill"], strict=True)]
    print(
        f"seconds a token beside bare vLLM's, by round: {', '.join(f'{ratio:.3f}' for ratio in ratios)}; "
        f"median {statistics.median(ratios):.3f}"
    )


# ---------------------------------------------------------------- judged again


def again(options: argparse.Namespace) -> None:
    """`eval --regrade` on so many stored replies, and whether it found each that is right."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        data = folder / "math500.jsonl"
        rows = [json.loads(line) for line in options.data.read_text().splitlines()]
        data.write_text("\n".join(json.dumps(row) for row in rows[:500]) + "\n")
        overrides = [
            f"run_dir={folder}/run", 'eval.tasks=["math500"]', f'eval.models=["{NAME}"]', f"eval.data.math500={data}",
            f"eval.samples={options.stored // 500}", f"eval.candidates.{NAME}.model={NAME}",
            f'eval.candidates.{NAME}.urls=["http://127.0.0.1:9/v1"]',
        ]  # fmt: skip
        recipe = empty_recipe(folder)
        expected = store_replies(folder, load_recipe(recipe, overrides), options)
        command = [sys.executable, "-m", "r1distill", "eval", recipe, "--regrade", *overrides]
        started = time.perf_counter()
        subprocess.run(command, check=True)
        seconds = time.perf_counter() - started
        found = read_json(folder / "run" / "eval" / "math500" / NAME / "summary.json")["outcomes"]
    total = options.stored // 500 * 500
    print(
        f"{total:,} stored replies judged again in {seconds:.1f} s, {total / seconds:,.0f} a second, cons@k and the start "
        f"of the command with them; right: {found['correct']:,}, made so: {expected:,} and what is right by chance"
    )


def store_replies(folder: Path, recipe: Recipe, options: argparse.Namespace) -> int:
    """As an evaluation would have left them, with verdicts that are wrong. Returns how many are right."""
    benchmark = open_benchmark(recipe, "math500")
    samples = options.stored // 500
    scored = folder / "run" / "eval" / "math500" / NAME
    made = replies(read(options.data), 2_000, n=3_000)  # the reply to question q of 500, right unless its place is 3n
    of_question: dict[int, list[tuple[str, bool]]] = {}
    for place, (_, _, text) in enumerate(made):
        of_question.setdefault(place % 500, []).append((text, place % 3 != 0))
    right = 0

    def traces() -> Iterator[Trace]:
        nonlocal right
        for question, problem in enumerate(benchmark.problems):
            for sample in range(samples):
                text, is_right = of_question[question][sample % len(of_question[question])]
                right += is_right
                yield Trace(problem.id, sample, NAME, "", sample, text, None, "", "stop", n_tokens=2_000)

    write_records(scored / "traces" / "00000.parquet", Trace, traces())
    write_records(
        scored / "verdicts.parquet",
        Verdict,
        (Verdict(p.id, sample, "incorrect") for p in benchmark.problems for sample in range(samples)),
    )
    write_records(scored / "problems.parquet", Problem, benchmark.problems)
    asking = asking_in(recipe, benchmark.task)
    write_json(scored / "summary.json", {"samples": samples, "pass@1": 0.0, "protocol": asking.summary()})
    return right


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="quickstart:teacher")
    parser.add_argument("--task", default="quickstart")
    parser.add_argument("--samples", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--concurrency", type=int, default=64)
    parser.add_argument("--engine", default='{"dtype": "float32", "max_model_len": 512}')
    parser.add_argument("--stored", type=int, default=100_000, help="replies that are judged again, a multiple of 500")
    parser.add_argument("--data", type=Path, default=DATA / "math500" / "test.jsonl", help="MATH-500")
    parser.add_argument("--bare", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.bare:
        bare(options)
        return
    if options.rounds:
        beside_bare_vllm(options)
    if options.stored:
        if not options.data.exists():
            sys.exit(f"{options.data}: no such file; name MATH-500 with --data")
        again(options)


if __name__ == "__main__":
    main()
