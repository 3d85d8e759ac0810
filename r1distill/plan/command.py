"""`r1distill plan RECIPE`: memory, layouts, hours and money, as tables for a person or as JSON."""

import json
from dataclasses import asdict, dataclass
from typing import Any

from rich.table import Table

from r1distill.console import console, say
from r1distill.errors import UserError
from r1distill.gpus import visible_gpus
from r1distill.plan.counts import Assumed, Counts, Given, counts_of
from r1distill.plan.estimate import StagePlan, Step, stages_of, step_of
from r1distill.plan.layouts import Choice, layout_of, nearest, processes_of, table, try_layout, work_of
from r1distill.plan.machine import DEVICES, Machine, cpu_machine, machine_name, parse_machine
from r1distill.plan.memory import GIB, PARTS
from r1distill.plan.models import Shape, load_shape
from r1distill.plan.work import trainable_parameters
from r1distill.run import Run
from r1distill.train.stage import resolved_launch

PLANNED_FOR = "H100"  # where neither --gpus nor the GPUs of this machine say otherwise


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything that is printed. `own` is the recipe's choice on this machine, `closest` the nearest that fits."""

    recipe: str
    machine: Machine
    student: Shape
    trainable: int
    own: Choice
    closest: Choice | None
    choices: list[Choice]
    step: Step
    accumulation: (
        int | None
    )  # with which the recipe's own batch is kept on this machine; None: it is already, or cannot be
    counts: Counts
    stages: list[StagePlan]
    assumed: list[str]


def make_plan(run: Run, name: str, gpus: str | None, given: Given) -> Plan:
    """Raises UserError for a model, a launch or a machine that plan does not know."""
    recipe, train = run.recipe, run.recipe.train
    machine = parse_machine(gpus) if gpus else machine_of(run)
    student = load_shape(train.student, "train.student").pruned(recipe.prune)
    online = load_shape(train.online_teacher, "the teacher of [train]") if train.online_teacher else None
    assumed = Assumed()
    try:
        teacher = load_shape(recipe.teacher.model, "teacher.model") if recipe.teacher.model else None
    except UserError as error:  # a server may know it by any name
        if recipe.teacher.backend != "server":
            raise
        teacher = None
        assumed.say(f"nothing of the teacher: {error}")
    launch = resolved_launch(train, machine.processes) if machine.has_gpu else {}
    layout = layout_of(train, launch)
    if machine.processes % layout.sequence_parallel:
        raise UserError(
            f"parallelism_config_sp_size = {layout.sequence_parallel} does not divide the {machine.processes} GPUs of "
            f"{machine.name}; set a degree that does"
        )
    work = work_of(train, recipe.generate.logprobs, online, machine)
    own = try_layout(student, work, layout, machine)
    counts = counts_of(run, given, assumed)
    step = step_of(recipe, counts, work, layout, machine.processes)
    stages = stages_of(run, student, teacher, counts, step, work, machine, given, assumed)
    return Plan(
        recipe=name,
        machine=machine,
        student=student,
        trainable=trainable_parameters(student, work.adapters),
        own=own,
        closest=own if own.fits else nearest(student, own, machine),
        choices=table(student, work, machine),
        step=step,
        accumulation=kept_accumulation(run, step, machine),
        counts=counts,
        stages=stages,
        assumed=assumed.lines,
    )


def kept_accumulation(run: Run, step: Step, machine: Machine) -> int | None:
    """Where the machine has not as many processes as [train.launch] says, what makes up for it, if a whole number does."""
    train = run.recipe.train
    _, said = processes_of(train, train.launch)
    wanted = int(train.args.get("gradient_accumulation_steps", 1)) * said / machine.processes
    return int(wanted) if train.launch and said != machine.processes and wanted >= 1 and wanted % 1 == 0 else None


def machine_of(run: Run) -> Machine:
    """As many GPUs as [train.launch] has processes, or those that are here; of the kind that is here."""
    names = visible_gpus()
    kind = next((known for known in DEVICES for name in names[:1] if known.split("-")[0] in name), PLANNED_FOR)
    nodes, processes = processes_of(run.recipe.train, run.recipe.train.launch)
    if run.recipe.train.launch:
        gpus = max(1, processes // nodes)
    elif names:
        nodes, gpus = 1, len(names)
    else:
        return cpu_machine()
    return Machine(machine_name(nodes, gpus, kind), nodes, gpus, DEVICES[kind])


def as_json(plan: Plan) -> dict[str, Any]:
    """Sizes in GiB, rounded to hundredths; hours and dollars of each stage."""
    return {
        "recipe": plan.recipe,
        "machine": {
            "name": plan.machine.name,
            "processes": plan.machine.processes,
            "memory_gib": round(plan.machine.device.memory_gib, 1),
        },
        "student": {
            "name": plan.student.name,
            "parameters": plan.student.parameters,
            "trainable": plan.trainable,
            "config": plan.student.source,
        },
        "layout": choice_json(plan.own),
        "nearest_that_fits": choice_json(plan.closest) if plan.closest else None,
        "layouts": [choice_json(choice) for choice in plan.choices],
        "step": {**asdict(plan.step), "accumulation_that_keeps_the_recipes": plan.accumulation},
        "counts": asdict(plan.counts),
        "stages": [asdict(stage) for stage in plan.stages],
        "assumed": plan.assumed,
    }


def choice_json(choice: Choice) -> dict[str, Any]:
    return {
        "name": choice.name,
        "fits": choice.fits,
        "total_gib": round(choice.memory.total / GIB, 2),
        "parts_gib": {part: round(size / GIB, 2) for part, size in choice.memory.parts.items()},
        "at": choice.memory.moment,
        "host_gib_a_process": round(choice.memory.host / GIB, 2),
        "change": choice.change,
    }


def show(plan: Plan) -> None:
    """The same for a person."""
    limit, own = plan.machine.device.memory_gib, plan.own
    trained = "all trained" if plan.trainable == plan.student.parameters else f"{plan.trainable / 1e6:,.0f}M trained"
    say(f"recipe   {plan.recipe}")
    say(f"student  {plan.student.name}: {plan.student.parameters / 1e9:.2f}B parameters, {trained}")
    say(f"machine  {plan.machine.name}: {plan.machine.processes} of {limit:.1f} GiB")
    step = plan.step
    say(
        f"a step   {step.sequences:,} {'packs' if step.packed else 'sequences'}, about {step.tokens:,.0f} tokens, "
        f"{step.steps:,} steps over {plan.counts.examples:,.0f} examples"
    )
    if plan.accumulation:
        say(
            f"         train.args.gradient_accumulation_steps={plan.accumulation} keeps the recipe's own batch on this machine"
        )
    if not step.packed and own.work.sequences * own.work.length > 1.5 * plan.counts.tokens_an_example:
        nearest_pack = "keeps that best" if step.packed_tokens < 1.5 * step.tokens else "is the least"
        say(
            f"         packed, train.args.gradient_accumulation_steps={step.packed_accumulation} {nearest_pack}: "
            f"{step.packed_tokens:,.0f} tokens"
        )
    work = own.work
    features = (
        f"{work.sequences} x {work.length:,} tokens at once, {work.attention}, {work.optimizer}"
        + (", checkpointing" if work.checkpointing else "")
        + (", activations on the CPU" if work.offload_activations else "")
    )
    say(f"a GPU    {features}" if plan.machine.has_gpu else f"the CPU  {features}")
    say()
    memory = Table(title="memory of one device at the peak, GiB", title_justify="left")
    memory.add_column("layout")
    choices = [own, *(choice for choice in plan.choices if choice.layout != own.layout)]
    parts = [part for part in PARTS if any(choice.memory.parts[part] >= GIB / 20 for choice in choices)]
    for part in (*parts, "total"):
        memory.add_column(part, justify="right")
    memory.add_column("fits")
    memory.add_column("host of a node", justify="right")
    for choice in choices:
        sizes = [f"{choice.memory.parts[part] / GIB:.1f}" for part in parts]
        on_host = choice.memory.host * max(1, plan.machine.gpus) / GIB
        style = "bold" if choice is own else None
        label = f"{choice.layout}  ◀ recipe" if choice is own else str(choice.layout)
        total = f"{choice.memory.total / GIB:.1f}"
        fits = "yes" if choice.fits else "no"
        memory.add_row(label, *sizes, total, fits, f"{on_host:,.0f}" if on_host >= 1 else "", style=style)
    console.print(memory)
    say(
        f"its peak is at {own.memory.moment}; `layer`: what a layer computes again and its gradients, `gathered`: whole layers"
    )
    for line in verdict(plan):
        say(line, style="green" if own.fits else "bold red")
    say()
    stages = Table(title="time and money", title_justify="left")
    for column in ("stage", "tokens", "hours", "GPU hours", "$"):
        stages.add_column(column, justify="left" if column == "stage" else "right")
    stages.add_column("how")
    for stage in plan.stages:
        hours = f"{stage.hours:,.1f}" if stage.hours else ""
        gpu_hours = f"{stage.hours * stage.gpus:,.0f}" if stage.gpus else ""
        usd = f"{stage.usd:,.0f}" if stage.usd else ""
        stages.add_row(stage.stage, f"{stage.tokens:,.0f}", hours, gpu_hours, usd, stage.what)
    if len(plan.stages) > 1:
        stages.add_row(
            "all", "", f"{sum(stage.hours for stage in plan.stages):,.1f}",
            f"{sum(stage.hours * stage.gpus for stage in plan.stages):,.0f}",
            f"{sum(stage.usd for stage in plan.stages):,.0f}", "",
        )  # fmt: skip
    console.print(stages)
    say("assumed:")
    for line in plan.assumed:
        say(f"  {line}")


def verdict(plan: Plan) -> list[str]:
    own, limit = plan.own, plan.machine.device.memory_gib
    total = own.memory.total / GIB
    if own.fits:
        return [f"the recipe's layout fits: {total:.1f} of {limit:.1f} GiB"]
    lines = [f"the recipe's layout does not fit: {total:.1f} GiB of {limit:.1f}"]
    if plan.closest is None:
        return [*lines, "nothing that plan knows fits there: take more or larger GPUs, or a smaller student"]
    closest = plan.closest
    return [*lines, f"the nearest that fits: {closest.name}, {closest.memory.total / GIB:.1f} GiB: {closest.change}"]


def plan_command(run: Run, name: str, gpus: str | None, given: Given, *, json_only: bool) -> None:
    """Print the plan of a recipe. Its exit code is 0 whether or not the layout fits."""
    plan = make_plan(run, name, gpus, given)
    if json_only:
        print(json.dumps(as_json(plan), indent=1, ensure_ascii=False))
    else:
        show(plan)
