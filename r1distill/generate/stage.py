"""The stage `generate`: problems → traces, through the journal."""

import asyncio
import importlib
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import AsyncExitStack, ExitStack, aclosing, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from r1distill.console import Progress, console, say
from r1distill.errors import UserError
from r1distill.generate.backend import Backend, Sampling
from r1distill.generate.journal import Journal
from r1distill.generate.meter import Meter, metrics_server
from r1distill.generate.one_sample import Judge
from r1distill.generate.plan import Plan
from r1distill.generate.sampler import Work, sample_all
from r1distill.generate.server import ServerBackend
from r1distill.models import load_tokenizer, resolve_model
from r1distill.problem_checks import prepare_problems
from r1distill.problems import load_problems, options_of
from r1distill.prompting import load_prompt, template_sha256
from r1distill.recipe import Recipe
from r1distill.records import Outcome, Problem, Trace
from r1distill.run import Clock, Run
from r1distill.sections import Problems, Teacher, Verify
from r1distill.store import write_records
from r1distill.train.teacher_cache import CacheWriter, vocabulary_sha256
from r1distill.train.teacher_cache import Teacher as CachedTeacher
from r1distill.verify.code import check_settings
from r1distill.verify.settings import code_settings, open_pool


@dataclass(frozen=True, slots=True)
class Job:
    """Samples to take of one set of problems, and where they go. Those of several jobs are one queue, see Work."""

    label: str
    plan: Plan
    problems: list[Problem]
    journal: Path
    traces: Path
    cache: CacheWriter | None = None  # of the distributions, where they are kept
    name: str = ""
    expected_tokens: Mapping[str, float] | None = None  # of a reply to a problem: the longest first
    on_trace: Callable[[Trace], None] | None = None  # told of each new one


@dataclass(frozen=True, slots=True)
class Watch:
    """How a run can be watched from outside: a file of JSON lines, a port for metrics, and the price of a token."""

    file: Path | None = None
    metrics_port: int = 0
    usd_per_million_tokens: float | None = None


def generate(run: Run, clock: Clock) -> dict[str, Any]:
    """Sample the teacher. Returns the counts for the stage's record."""
    recipe = run.recipe
    problems, checked = prepare_problems(run)
    write_records(run.problems, Problem, problems)
    cache = CacheWriter(run.teacher_cache, teacher_of(recipe)) if recipe.generate.keep_distributions else None
    job = Job("generate", plan_of(recipe), problems, run.journal, run.traces / "00000.parquet", cache)
    backend = teacher_backend(recipe.teacher, recipe.generate.logprobs)
    file = run.log("generate").with_suffix(".jsonl")
    watch = Watch(file, recipe.generate.metrics_port, recipe.teacher.usd_per_million_tokens)
    [counts] = sample_jobs(
        [job], backend, recipe.verify, clock, recipe.generate.concurrency, show_first=True, watch=watch
    )
    if counts["failed"] == counts["samples"]:
        raise UserError(f"every sample failed, the last with: {counts['last_error']}; correct the recipe and run again")
    return {"problems": len(problems), **checked, **counts}


def problems_of(section: Problems) -> list[Problem]:
    return load_problems(section.path, **options_of(section))


def plan_of(recipe: Recipe) -> Plan:
    settings = recipe.generate
    return Plan(
        model=recipe.teacher.model,
        version=recipe.teacher.revision or "",
        prompt=load_prompt(settings.prompt, settings.prefill),
        sampling=Sampling(
            settings.temperature,
            settings.top_p,
            settings.top_k,
            settings.max_tokens,
            settings.logprobs,
            settings.keep_distributions,
            settings.stop_repetition,
            settings.thinking_budget,
        ),
        seed=recipe.seed,
        samples=settings.samples,
        stop_after_correct=settings.stop_after_correct,
        max_samples=settings.max_samples or settings.samples,
    )


def teacher_of(recipe: Recipe) -> CachedTeacher:
    """Who the kept distributions are from. Reads the tokenizer: better now than when everything is sampled."""
    teacher = recipe.teacher
    prompt = load_prompt(recipe.generate.prompt, recipe.generate.prefill)
    name, key = (teacher.tokenizer, "teacher.tokenizer") if teacher.tokenizer else (teacher.model, "teacher.model")
    try:
        tokenizer = load_tokenizer(name, None if teacher.tokenizer else teacher.revision, key)
    except UserError as error:
        raise UserError(f"{error}, or name one in teacher.tokenizer") from None
    mode = teacher.engine.get("logprobs_mode", "raw_logprobs") if teacher.backend == "vllm" else "unknown"
    if mode not in ("raw_logprobs", "unknown"):
        raise UserError(
            f'teacher.engine.logprobs_mode = "{mode}": keep_distributions keeps those of the model itself; remove it'
        )
    return CachedTeacher(
        source="generation",
        model=teacher.model,
        revision=teacher.revision,
        vocabulary_sha256=vocabulary_sha256(tokenizer.get_vocab()),
        logprobs_mode=mode,
        k=recipe.generate.logprobs,
        template_sha256=template_sha256(tokenizer) if teacher.backend == "vllm" else None,
        prompt_sha256=prompt.sha256,
        prefill=prompt.prefill,
    )


def teacher_backend(teacher: Teacher, logprobs: int) -> Backend:
    if teacher.backend == "server":
        return ServerBackend(
            teacher.model,
            teacher.urls,
            api_key_env=teacher.api_key_env,
            timeout_s=teacher.timeout_s,
            retries=teacher.retries,
        )
    return vllm_backend(resolve_model(teacher.model, "teacher.model"), teacher.revision, teacher.engine, logprobs)


def vllm_backend(
    model: str, revision: str | None, engine: dict[str, Any], logprobs: int, adapter: Path | None = None
) -> Backend:
    # vLLM takes seconds to import, so only a stage that samples with it does
    module = importlib.import_module("r1distill.generate.vllm_engine")
    return module.VllmEngine(model, revision, engine, logprobs, adapter)


def sample_jobs(
    jobs: list[Job],
    backend: Backend,
    verify: Verify,
    clock: Clock,
    concurrency: int,
    *,
    label: str = "",
    show_first: bool = False,
    watch: Watch = Watch(),
    on_open: Callable[[dict[str, Any], list[Job]], None] = lambda facts, jobs: None,
    next_round: Callable[[list[Job]], list[Job]] = lambda jobs: [],
) -> list[dict[str, Any]]:
    """Sample what is missing into the journals, then write all traces as Parquet; the model is opened once, if at all.

    `label` is what several jobs are called together. `on_open` is told the facts of the backend, and which jobs it is
    going to sample. When all traces are written `next_round` is given the jobs, and those that it returns are next, with
    the model still open.

    Returns for each job of each round counts over all attempts, and of this one: {"samples", "failed", "tokens",
    "new_tokens", …}.
    """
    if any(problem.kind == "code" for job in jobs for problem in job.problems):
        check_settings(code_settings(verify))  # before the first sample: no sandbox, no verdict
    meters: list[Meter] = []
    counts: list[dict[str, Any]] = []
    with open_pool(verify) as pool, metrics_server(watch.metrics_port, meters):

        def judge(problem: Problem, text: str, sample: int) -> Outcome:
            return pool.verify(problem, text, sample).outcome

        async def rounds(jobs: list[Job]) -> None:
            is_open = False
            async with AsyncExitStack() as opened:

                async def opening(what: str, lacking: list[Job]) -> None:
                    nonlocal is_open
                    if not is_open:
                        with console.status(f"{what}: starting {jobs[0].plan.model}"):
                            await opened.enter_async_context(backend)
                        is_open = True
                    on_open(backend.facts(), lacking)

                while jobs:
                    new_tokens = await sample_missing(
                        jobs, backend, opening, judge, clock, concurrency, label, show_first, watch, meters
                    )
                    counts.extend(
                        {**compact(job), "new_tokens": new} for job, new in zip(jobs, new_tokens, strict=True)
                    )
                    # in a thread, where it may sample by itself: the judge of the replies is a model too
                    jobs = await asyncio.to_thread(next_round, jobs)

        asyncio.run(rounds(jobs))
    return counts


def compact(job: Job) -> dict[str, Any]:
    """Write the traces of a job from its journal, ordered by problem and sample, and count them."""
    plan = job.plan
    wanted = {problem.id: plan.request_sha(problem) for problem in job.problems}
    counts: dict[str, Any] = {"samples": 0, "failed": 0, "tokens": 0, "finish_reasons": {}, "last_error": None}
    saved = {"stop_after_correct": 0, "repetition": 0, "continuation": 0}
    kept = 0
    with Journal(job.journal) as journal, job.cache or nullcontext() as cache:

        def counted() -> Iterator[Trace]:
            nonlocal kept
            for trace, rows in journal.traces_and_rows(wanted, plan.sampling.max_tokens):
                if trace.sample < max(plan.samples, plan.max_samples):
                    # of tokens put in by a server, or left out by it, there is nothing to be kept
                    if cache and rows is not None and trace.token_ids and len(rows) == len(trace.token_ids):
                        cache.add(trace, rows)
                        kept += 1
                    count(trace, counts)
                    if trace.finish_reason == "repetition":
                        saved["repetition"] += plan.sampling.max_tokens - trace.n_tokens
                    saved["continuation"] += trace.continued_from or 0
                    yield trace

        write_records(job.traces, Trace, counted())
    counts["samples_spared"] = max(len(job.problems) * plan.samples - counts["samples"], 0)
    sampled = counts["samples"] - counts["failed"]
    if sampled:  # a sample that was never taken would have been as long as these
        saved["stop_after_correct"] = round(counts["samples_spared"] * counts["tokens"] / sampled)
    counts["tokens_saved"] = saved
    if job.cache:  # of the others, sampled by a run that did not keep them, there are none
        counts["distributions"] = {"traces": kept, "without": sampled - kept}
        if kept < sampled:
            say(
                f"  {job.cache.folder.name}: {sampled - kept} of {sampled} traces were sampled without their distributions"
            )
    return counts


def count(trace: Trace, counts: dict[str, Any]) -> None:
    counts["samples"] += 1
    counts["tokens"] += trace.n_tokens
    reasons = counts["finish_reasons"]
    reasons[trace.finish_reason] = reasons.get(trace.finish_reason, 0) + 1
    if trace.finish_reason == "error":
        counts["failed"] += 1
        counts["last_error"] = trace.error


async def sample_missing(
    jobs: list[Job],
    backend: Backend,
    opening: Callable[[str, list[Job]], Awaitable[None]],
    judge: Judge,
    clock: Clock,
    concurrency: int,
    label: str,
    show_first: bool,
    watch: Watch,
    meters: list[Meter],
) -> list[int]:
    """Take the missing samples of all jobs, as one queue; `opening` is awaited if there are any. Returns new tokens a job."""
    new_tokens = [0] * len(jobs)
    with ExitStack() as journals:
        works, missing, total, done = [], [], 0, 0
        for number, job in enumerate(jobs):
            journal = journals.enter_context(Journal(job.journal))
            of_job, found, done_of_job = progress_of(job, journal)
            if done_of_job == of_job:
                continue
            total, done = total + of_job, done + done_of_job
            if found:
                say(f"  {job.label}: {found} finished samples found in the journal; they are not sampled again")
            missing.append(number)
            works.append(Work(job.plan, job.problems, journal, job.expected_tokens))
        if not works:
            return new_tokens
        label = jobs[missing[0]].label if len(works) == 1 else label
        meter = Meter(label, watch.file, watch.usd_per_million_tokens)
        meters.append(meter)
        await opening(label, [jobs[number] for number in missing])
        samples = sample_all(
            works, backend, concurrency=concurrency, judge=judge, on_running=partial(setattr, meter, "running")
        )
        with Progress(label, total, done) as progress:
            # closed here and not by the garbage collector, so that what ended meanwhile still reaches the journal
            async with aclosing(samples):
                async for taken in samples:
                    number = missing[taken.work]
                    job = jobs[number]
                    meter.count(taken)
                    clock.tick()
                    if job.on_trace is not None:
                        job.on_trace(taken.trace)
                    if show_first:
                        show_first = False
                        show_trace(taken.trace, job.problems)
                    if taken.trace.sample >= job.plan.samples:
                        progress.total += 1  # more than its share, for want of a correct one
                    meter.waiting = max(progress.total - progress.done - 1 - taken.spared - meter.running, 0)
                    new_tokens[number] += taken.trace.n_tokens - (taken.trace.continued_from or 0)
                    progress.advance(1 + taken.spared, note=meter.note)
        meter.running = 0
        meter.write_line()
    return new_tokens


def progress_of(job: Job, journal: Journal) -> tuple[int, int, int]:
    """(samples at most, samples found in the journal, samples found or no longer wanted)."""
    plan = job.plan
    shas = {problem.id: plan.request_sha(problem) for problem in job.problems}
    taken: dict[str, list[Outcome | None]] = {problem_id: [] for problem_id in shas}
    for (problem_id, sample, request_sha), outcome in journal.finished(plan.sampling.max_tokens).items():
        if shas.get(problem_id) == request_sha and sample < max(plan.samples, plan.max_samples):
            taken[problem_id].append(outcome)
    total = done = 0
    for outcomes in taken.values():
        most = max(plan.samples, len(outcomes) + (plan.room(outcomes) if len(outcomes) >= plan.samples else 0))
        total += most
        done += most if plan.is_enough(outcomes) else len(outcomes)
    return total, sum(map(len, taken.values())), done


def show_trace(trace: Trace, problems: list[Problem]) -> None:
    """The first trace, so that a wrong prompt or template is seen before it has cost a day."""
    problem = next(problem for problem in problems if problem.id == trace.problem_id)
    entropy = "" if trace.mean_entropy_nats is None else f", mean entropy {trace.mean_entropy_nats:.3f} nats"
    say("  the first trace:", style="bold")
    for line in f"{problem.problem}\n{trace.text}".splitlines():
        say(f"  │ {line}", style="dim")
    say(f"  └ {trace.n_tokens} tokens, finish_reason {trace.finish_reason}{entropy}")
