"""The stage `eval`: every model on every benchmark, each model's in one queue, with one start of its engine."""

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from r1distill.console import say
from r1distill.errors import UserError
from r1distill.evaluate.benchmarks import Benchmark, lengths_so_far, open_benchmark
from r1distill.evaluate.conditions import conditions_of, machine, note_conditions
from r1distill.evaluate.contestants import Contestant, contestants_of
from r1distill.evaluate.metrics import mean_of_tasks
from r1distill.evaluate.summarise import summarise
from r1distill.evaluate.tasks import published_with
from r1distill.generate.backend import Sampling
from r1distill.generate.plan import Plan
from r1distill.generate.stage import Job, sample_jobs
from r1distill.records import Problem
from r1distill.run import Clock, Run
from r1distill.store import read_json, write_json, write_records
from r1distill.verify.early import EarlyVerdicts
from r1distill.verify.pool import VerifierPool
from r1distill.verify.settings import open_pool
from r1distill.verify.stage import verify_traces

FIRST_ROUND = 4  # samples of each question before `eval.enough` is looked at; then twice as many, and so on

Summary = dict[str, Any]


def eval_stage(run: Run, clock: Clock) -> dict[str, Any]:
    """Score every model on every task. Returns {"tokens", "new_tokens", "accuracy", "ci95", "tasks"}."""
    benchmarks = [open_benchmark(run.recipe, name) for name in run.recipe.eval.tasks]
    contestants = contestants_of(run)
    refuse_raw_by_chat(run, benchmarks)
    scores: dict[str, dict[str, Summary]] = {each.task.name: {} for each in benchmarks}
    new_tokens = 0
    for contestant in contestants:
        found, new = score_model(run, contestant, benchmarks, clock)
        new_tokens += new
        for name, summary in found.items():
            scores[name][contestant.name] = summary
            write_task_summary(run, name, scores[name])
    means = {
        each.name: mean_of_tasks([triple(of_task[each.name]) for of_task in scores.values()]) for each in contestants
    }
    return {
        "tokens": sum(summary["tokens"] for models in scores.values() for summary in models.values()),
        "new_tokens": new_tokens,
        "accuracy": {name: accuracy for name, (accuracy, _, _) in means.items()},
        "ci95": {name: [low, high] for name, (_, low, high) in means.items()},
        "tasks": scores,
    }


def refuse_raw_by_chat(run: Run, benchmarks: list[Benchmark]) -> None:
    """Servers are asked by their chat endpoint."""
    settings = run.recipe.eval
    served = [name for name in settings.models if name in settings.candidates and settings.candidates[name].urls]
    if "teacher" in settings.models and run.recipe.teacher.backend == "server":
        served.append("teacher")
    raw = [each.task.name for each in benchmarks if each.asking.prompt.template == "raw"]
    if served and raw:
        raise UserError(
            f'{raw[0]} is asked with template = "raw" and {served[0]} is behind a URL, whose chat endpoint is asked; '
            "open the model in this process, or choose another eval.protocol"
        )


def write_task_summary(run: Run, task: str, models: dict[str, Summary]) -> None:
    """eval/TASK/summary.json: the model that was scored last (the student, where it is) at the top, everybody below."""
    *_, last = models.values()
    write_json(run.evaluation / task / "summary.json", {**last, "models": models})


def triple(summary: Summary) -> tuple[float, float, float]:
    return summary["pass@1"], summary["ci95"][0], summary["ci95"][1]


def score_model(
    run: Run, contestant: Contestant, benchmarks: list[Benchmark], clock: Clock
) -> tuple[dict[str, Summary], int]:
    """A model on all benchmarks: {task: summary}, and how many tokens were sampled now."""
    settings = run.recipe.eval
    scores: dict[str, Summary] = {}
    opened = 0.0
    with open_pool(run.recipe.verify) as pool, EarlyVerdicts(pool) as early:

        def note(facts: dict[str, Any], lacking: list[Job]) -> None:
            nonlocal opened
            opened = opened or time.monotonic()
            here = machine()
            for job in lacking:
                note_conditions(job.journal.parent, {"engine": facts, "seed": run.recipe.seed, **here})

        def next_round(jobs: list[Job]) -> list[Job]:
            """Score what is there, and return the jobs that want more samples."""
            wanted = []
            for job in jobs:
                benchmark = next(each for each in benchmarks if each.task.name == job.name)
                scores[job.name] = score(run, contestant, benchmark, job.plan.samples, clock, pool, early)
                if more := more_samples(job.plan.samples, benchmark.asking.samples, scores[job.name], settings.enough):
                    wanted.append(replace(job, plan=replace(job.plan, samples=more)))
            return wanted

        jobs = [job_of(run, contestant, each, early.submit) for each in benchmarks]
        counts = sample_jobs(
            jobs, contestant.open(), run.recipe.verify, clock, settings.concurrency,
            label=f"eval {contestant.name}: {len(jobs)} tasks", on_open=note, next_round=next_round,
        )  # fmt: skip
    new_tokens = sum(each["new_tokens"] for each in counts)
    if new_tokens:
        seconds = time.monotonic() - opened  # of all tasks, whose samples are one queue; its start is not in it
        speed = {"seconds": seconds, "tokens_per_second": new_tokens / seconds}
        for name in scores:
            scores[name] |= speed
            write_json(run.evaluation / name / contestant.name / "summary.json", scores[name])
    return scores, new_tokens


def more_samples(taken: int, most: int, summary: Summary, enough: float | None) -> int | None:
    """How many samples of each question to go on to; None where it is enough.

    What is looked at is the interval over samples: that over questions gets no narrower by asking them again.
    """
    if taken >= most:
        return None
    low, high = summary["ci95_samples"]
    if enough is not None and (high - low) / 2 <= enough:
        return None
    return min(2 * taken, most)


def label_of(benchmark: Benchmark, contestant: Contestant) -> str:
    return f"eval {benchmark.task.name} {contestant.name}"


def plan_of(run: Run, contestant: Contestant, benchmark: Benchmark) -> Plan:
    """All samples of a benchmark."""
    asking = benchmark.asking
    return Plan(
        model=contestant.model,
        version=contestant.version,
        prompt=asking.prompt,
        sampling=Sampling(asking.temperature, asking.top_p, asking.top_k, asking.max_tokens, logprobs=0),
        seed=run.recipe.seed,
        samples=asking.samples,
        stop_after_correct=0,
    )


def job_of(run: Run, contestant: Contestant, benchmark: Benchmark, submit: Callable[..., None]) -> Job:
    name = benchmark.task.name
    folder = run.evaluation / name / contestant.name
    write_records(folder / "problems.parquet", Problem, benchmark.problems)
    by_id = {problem.id: problem for problem in benchmark.problems}
    plan = plan_of(run, contestant, benchmark)
    if run.recipe.eval.enough is not None:
        plan = replace(plan, samples=min(FIRST_ROUND, plan.samples))
    return Job(
        label_of(benchmark, contestant),
        plan,
        benchmark.problems,
        folder / "journal",
        folder / "traces" / "00000.parquet",
        name=name,
        expected_tokens=lengths_so_far(run.evaluation / name),
        on_trace=lambda trace: submit(by_id[trace.problem_id], trace),
    )


def score(
    run: Run,
    contestant: Contestant,
    benchmark: Benchmark,
    samples: int,
    clock: Clock,
    pool: VerifierPool,
    early: EarlyVerdicts | None = None,
) -> Summary:
    """Verdicts and summary.json of a model on a task, from its traces, which are of so many samples a question."""
    label = label_of(benchmark, contestant)
    folder = run.evaluation / benchmark.task.name / contestant.name
    by_id = {problem.id: problem for problem in benchmark.problems}
    _, judge = verify_traces(
        folder / "traces", folder / "verdicts.parquet", by_id, run.recipe.verify, clock,
        label=f"{label}: verify", early=early,
    )  # fmt: skip
    summary = {**summarise(folder, about(run, contestant, benchmark, folder), pool), **judge}
    if summary["samples"] != samples or summary["n_problems"] != len(benchmark.problems):
        raise UserError(
            f"{folder}: {summary['n_problems']} questions with up to {summary['samples']} samples, and "
            f"{len(benchmark.problems)} with {samples} were asked for; run `r1distill eval` again"
        )
    write_json(folder / "summary.json", summary)
    say(f"  {label}: {percent(summary)}, {summary['truncated']:.1%} truncated")
    return summary


def about(run: Run, contestant: Contestant, benchmark: Benchmark, folder: Path) -> Summary:
    """What the records do not know."""
    task, asking = benchmark.task, benchmark.asking
    conditions = conditions_of(folder)
    before = folder / "summary.json"
    kept = read_json(before) if before.exists() else {}
    return {
        "task": task.name,
        "title": task.title,
        "model": contestant.model,
        "protocol": asking.summary(),
        "temperature": asking.temperature,
        "top_p": asking.top_p,
        "max_tokens": asking.max_tokens,
        "prompt": asking.prompt.name,
        "prompt_sha256": asking.prompt.sha256,
        "conditions": {
            "data_sha256": benchmark.sha256,
            "prompt_sha256": asking.prompt.sha256,
            "seed": run.recipe.seed,
            **(conditions[-1] if conditions else {}),
            **({"earlier": conditions[:-1]} if conditions[1:] else {}),
        },
        "published": published_with(task, asking.protocol),
        "seconds": kept.get("seconds"),
        "tokens_per_second": kept.get("tokens_per_second"),
    }


def percent(summary: Summary) -> str:
    (low, high), (least, most) = summary["ci95"], summary["ci95_samples"]
    return (
        f"pass@1 {summary['pass@1']:.1%} (95 %: other questions {low:.1%} to {high:.1%}, "
        f"these again {least:.1%} to {most:.1%})"
    )
