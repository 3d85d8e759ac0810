"""Tokens, hours and money of the stages, and what a step of training is."""

from dataclasses import dataclass
from typing import Any

from r1distill.plan.counts import Assumed, Counts, Given, eval_tokens
from r1distill.plan.machine import Machine
from r1distill.plan.models import Shape, load_shape
from r1distill.plan.speed import (
    BANDWIDTH_USED,
    HFU,
    PREFILL_HFU,
    Decoding,
    decoding,
    scoring_flops,
    smallest_copy,
    training_flops,
)
from r1distill.plan.work import Layout, Work
from r1distill.recipe import Recipe
from r1distill.run import Run
from r1distill.sections import ROLES

PROMPT_HALF = 75.0  # tokens
CACHED_BYTES_A_TOKEN = 12 * 8 + 6  # 12 entries of an id and a logprob in the mean, and what a token has of its own


@dataclass(frozen=True, slots=True)
class StagePlan:
    """One stage: what it does, tokens, hours on `gpus`, and dollars."""

    stage: str
    what: str
    tokens: float
    hours: float
    gpus: int
    usd: float


@dataclass(frozen=True, slots=True)
class Step:
    """An optimizer step: `sequences` examples (or packs) of all processes, tokens in the mean, and how many there are."""

    sequences: int
    packed: bool
    tokens: float
    steps: int
    packed_accumulation: int  # with packing, the accumulation that has the tokens of a step without it
    packed_tokens: float


def step_of(recipe: Recipe, counts: Counts, work: Work, layout: Layout, processes: int) -> Step:
    """The batch in sequences and in tokens. With packing a sequence is a pack of max_length tokens."""
    arguments = recipe.train.args
    packed = bool(arguments.get("packing"))
    at_once = work.sequences * max(1, processes // layout.sequence_parallel)
    sequences = at_once * work.accumulation
    mean = min(counts.tokens_an_example, work.length)
    tokens = sequences * (work.length if packed else mean)
    epochs = float(arguments.get("num_train_epochs", 3))
    total = counts.examples * mean * epochs
    steps = int(arguments.get("max_steps", -1))
    steps = steps if steps > 0 else max(1, round(total / tokens))
    accumulation = max(1, round(sequences * mean / (at_once * work.length)))
    return Step(sequences, packed, tokens, steps, accumulation, float(accumulation * at_once * work.length))


def stages_of(
    run: Run, student: Shape, teacher: Shape | None, counts: Counts, step: Step, work: Work, machine: Machine,
    given: Given, assumed: Assumed,
) -> list[StagePlan]:  # fmt: skip
    """Generation, caching, training and evaluation, as far as the recipe has them. `teacher` None is not known."""
    recipe = run.recipe
    price = machine.device.usd_per_hour if given.usd_per_gpu_hour is None else given.usd_per_gpu_hour
    if machine.has_gpu:
        said = "" if given.usd_per_gpu_hour is None else " as given"
        assumed.say(f"{price:g} dollars for an hour of one GPU{said or ': --usd-per-gpu-hour'}")
    found = []

    def add(stage: str, what: str, tokens: float, hours: float, gpus: int) -> None:
        found.append(StagePlan(stage, what, tokens, hours, gpus, hours * gpus * price))

    context = counts.tokens_an_example / 2 + PROMPT_HALF
    if teacher is not None and recipe.traces is None:
        engine = recipe.teacher.engine
        copies = recipe.serve.replicas if recipe.teacher.backend == "server" else 1
        way, words = served(teacher, engine, machine, context, recipe.generate.concurrency)
        if way is not None:
            copies *= int(engine.get("data_parallel_size", 1))
            tokens = counts.samples * counts.tokens_a_sample
            hours = tokens / (way.tokens_per_second * copies) / 3600
            what = f"{teacher.name}{words}: {way.batch} at once, {way.tokens_per_second * copies:,.0f} tokens/s"
            add("generate", what, tokens, hours, way.gpus * copies)
    scoring = [load_shape(each.model, f"teachers.{each.name}.model") for each in recipe.teachers]
    for each in scoring or ([teacher] if teacher else []):
        caching(run, each, counts, machine, add)
    train_hours(recipe, student, counts, step, work, machine, given, assumed, add)
    for model in (model for model in recipe.eval.models if model in ROLES):
        shape, engine = (teacher, recipe.teacher.engine) if model == "teacher" else (student, recipe.eval.engine)
        tasks = eval_tokens(run, assumed)
        if shape is None or not tasks:
            continue
        way, words = served(shape, engine, machine, 4000.0, recipe.eval.concurrency)
        if way is None:
            continue
        copies = int(engine.get("data_parallel_size", 1))
        tokens = sum(each for _, each in tasks.values())
        what = f"{model}{words} on {', '.join(tasks)}: {way.tokens_per_second * copies:,.0f} tokens/s"
        add("eval", what, tokens, tokens / (way.tokens_per_second * copies) / 3600, way.gpus * copies)
    assumed.say(f"decoding uses {BANDWIDTH_USED:.0%} of the memory's bandwidth")
    return found


def served(
    shape: Shape, engine: dict[str, Any], machine: Machine, context: float, concurrency: int
) -> tuple[Decoding | None, str]:
    """A copy over tensor_parallel_size * pipeline_parallel_size GPUs, or where that is too small over enough of them."""
    asked = int(engine.get("tensor_parallel_size", 1)) * int(engine.get("pipeline_parallel_size", 1))
    way = decoding(shape, machine.device, asked, context, concurrency)
    if way is not None:
        return way, f" on {asked} GPU{'s' if asked > 1 else ''}" if machine.has_gpu else ""
    enough = smallest_copy(shape, machine.device, context, concurrency)
    words = f" does not fit on {asked} GPU{'s' if asked > 1 else ''}"
    return enough, f"{words}, on {enough.gpus}" if enough else words


def caching(run: Run, teacher: Shape, counts: Counts, machine: Machine, add: Any) -> None:
    """The teacher's distributions: kept while sampling, or read again by a pass over what was sampled."""
    recipe = run.recipe
    if recipe.train.kl is None or recipe.train.kl.online is not None:
        return
    tokens = counts.examples * counts.tokens_a_sample
    if recipe.cache.source == "generation":
        tokens = counts.samples * counts.tokens_a_sample
        add("cache", f"kept while sampling, about {tokens * CACHED_BYTES_A_TOKEN / 1e9:,.0f} GB", tokens, 0.0, 0)
        return
    rate = machine.processes * machine.device.flops * PREFILL_HFU / scoring_flops(teacher, counts.tokens_an_example)
    what = f"{teacher.name} reads what it wrote, about {tokens * CACHED_BYTES_A_TOKEN / 1e9:,.0f} GB"
    add("cache", what, tokens, tokens / rate / 3600, machine.processes)


def train_hours(
    recipe: Recipe, student: Shape, counts: Counts, step: Step, work: Work, machine: Machine, given: Given,
    assumed: Assumed, add: Any,
) -> None:  # fmt: skip
    tokens = step.steps * step.tokens
    flops = training_flops(student, work, min(counts.tokens_an_example, work.length))
    mfu = given.mfu or HFU * flops.model / flops.hardware
    if given.mfu is None:
        assumed.say(f"training reaches {mfu:.0%} MFU ({HFU:.0%} with what checkpointing computes again): --mfu")
    rate = machine.processes * machine.device.flops * mfu / flops.model
    what = f"{recipe.train.student}: {step.steps:,} steps, {rate:,.0f} tokens/s"
    add("train", what, tokens, tokens / rate / 3600, machine.processes if machine.has_gpu else 0)
