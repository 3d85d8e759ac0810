"""The stage `eval`: base, teacher and student on the same questions, in the same way."""

from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

from r1distill.console import say
from r1distill.evaluate.metrics import accuracy_interval, mean_of_tasks
from r1distill.evaluate.protocols import asked, asking_of
from r1distill.evaluate.tasks import Task, load_task
from r1distill.generate.backend import Backend, Sampling
from r1distill.generate.plan import Plan
from r1distill.generate.stage import Job, problems_of, sample_jobs, teacher_backend, vllm_backend
from r1distill.models import resolve_model
from r1distill.recipe import Recipe
from r1distill.records import Problem, Trace, Verdict
from r1distill.run import Clock, Run
from r1distill.store import read_records, write_json, write_records
from r1distill.verify.stage import verify_traces


def eval_stage(run: Run, clock: Clock) -> dict[str, Any]:
    """Score every model on every task. Returns {"tokens", "new_tokens", "accuracy", "ci95", "tasks"}."""
    settings = run.recipe.eval
    tasks = [load_task(name) for name in settings.tasks]
    problems = {task.name: asked(problems_of(limited(task, settings.limit)), asking_of(task)) for task in tasks}
    scores: dict[str, dict[str, dict[str, Any]]] = {task.name: {} for task in tasks}
    new_tokens = 0
    for role in settings.models:
        jobs = [job_of(run, task, role, problems[task.name]) for task in tasks]
        counts = sample_jobs(jobs, backend_of(run, role), run.recipe.verify, clock, settings.concurrency)
        new_tokens += sum(count["new_tokens"] for count in counts)
        for task, job in zip(tasks, jobs, strict=True):
            scores[task.name][role] = score(run, task, role, job, clock)
    for task in tasks:
        # the last model (the student, where it is scored) at the top, everybody below
        last = scores[task.name][settings.models[-1]]
        write_json(run.evaluation / task.name / "summary.json", {**last, "models": scores[task.name]})
    means = {role: mean_of_tasks([triple(scores[task.name][role]) for task in tasks]) for role in settings.models}
    return {
        "tokens": sum(summary["tokens"] for roles in scores.values() for summary in roles.values()),
        "new_tokens": new_tokens,
        "accuracy": {role: accuracy for role, (accuracy, _, _) in means.items()},
        "ci95": {role: [low, high] for role, (_, low, high) in means.items()},
        "tasks": scores,
    }


def job_of(run: Run, task: Task, role: str, problems: list[Problem]) -> Job:
    folder = run.evaluation / task.name / role
    write_records(folder / "problems.parquet", Problem, problems)
    return Job(
        f"eval {task.name} {role}",
        plan_of(run, task, role),
        problems,
        folder / "journal",
        folder / "traces" / "00000.parquet",
    )


def limited(task: Task, limit: int | None) -> Any:
    return task.data.model_copy(update={"limit": limit}) if limit else task.data


def triple(summary: dict[str, Any]) -> tuple[float, float, float]:
    return summary["pass@1"], summary["ci95"][0], summary["ci95"][1]


def score(run: Run, task: Task, role: str, job: Job, clock: Clock) -> dict[str, Any]:
    folder = run.evaluation / task.name / role
    by_id = {problem.id: problem for problem in job.problems}
    verdicts = folder / "verdicts.parquet"
    outcomes, judge = verify_traces(
        folder / "traces", verdicts, by_id, run.recipe.verify, clock, label=f"{job.label}: verify"
    )
    summary = {**summarise(folder, task, job.plan, outcomes), **judge}
    write_json(folder / "summary.json", summary)
    say(f"  {job.label}: {percent(summary)}, {summary['truncated']:.1%} truncated")
    return summary


def summarise(folder: Path, task: Task, plan: Plan, outcomes: Counter[str]) -> dict[str, Any]:
    """eval/TASK/MODEL/summary.json. A truncated or failed reply counts as wrong, and is reported apart."""
    correct: dict[str, list[bool]] = defaultdict(list)
    reasons: Counter[str] = Counter()
    tokens = 0
    verdicts = read_records(folder / "verdicts.parquet", Verdict)
    for trace, verdict in zip(read_records(folder / "traces", Trace), verdicts, strict=True):
        correct[trace.problem_id].append(verdict.outcome == "correct" and trace.finish_reason == "stop")
        reasons[trace.finish_reason] += 1
        tokens += trace.n_tokens
    n_samples = reasons.total()
    accuracy, low, high = accuracy_interval(list(correct.values()))
    return {
        "task": task.name,
        "model": plan.model,
        "n_problems": len(correct),
        "samples": plan.samples,
        "pass@1": accuracy,
        "ci95": [low, high],
        "truncated": reasons["length"] / n_samples,
        "no_answer": outcomes["no_answer"] / n_samples,
        "verifier_timeout": outcomes["timeout"] / n_samples,
        "failed": reasons["error"] / n_samples,
        "tokens": tokens,
        "mean_tokens": tokens / n_samples,
        "outcomes": dict(outcomes),
        "temperature": plan.sampling.temperature,
        "top_p": plan.sampling.top_p,
        "max_tokens": plan.sampling.max_tokens,
        "prompt": plan.prompt.name,
        "prompt_sha256": plan.prompt.sha256,
    }


def percent(summary: dict[str, Any]) -> str:
    low, high = summary["ci95"]
    return f"pass@1 {summary['pass@1']:.1%} (95 % {low:.1%} to {high:.1%})"


def plan_of(run: Run, task: Task, role: str) -> Plan:
    settings = run.recipe.eval
    model, version = model_of(run, role)
    asking = asking_of(
        task,
        samples=settings.samples,
        temperature=settings.temperature,
        top_p=settings.top_p,
        max_tokens=settings.max_tokens,
        prefill=settings.prefill,
    )
    return Plan(
        model=model,
        version=version,
        prompt=asking.prompt,
        sampling=Sampling(asking.temperature, asking.top_p, asking.top_k, asking.max_tokens, logprobs=0),
        seed=run.recipe.seed,
        samples=asking.samples,
        stop_after_correct=0,
    )


def model_of(run: Run, role: str) -> tuple[str, str]:
    """(name, version) of a model; the version of the student is the training that made it."""
    recipe: Recipe = run.recipe
    if role == "teacher":
        return recipe.teacher.model, recipe.teacher.revision or ""
    if role == "base":
        return recipe.train.student, recipe.train.revision or ""
    return str(run.student), (run.record("train") or {})["finished_at"]


def backend_of(run: Run, role: str) -> Backend:
    recipe = run.recipe
    if role == "teacher":
        return teacher_backend(recipe.teacher, logprobs=0)
    if role == "base":
        return vllm_backend(
            resolve_model(recipe.train.student, "train.student"), recipe.train.revision, recipe.eval.engine, logprobs=0
        )
    return vllm_backend(str(run.student.resolve()), None, recipe.eval.engine, logprobs=0)
