"""Which layout a recipe asks for, which others there are, and which of them fit."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import yaml

from r1distill.errors import UserError
from r1distill.plan.machine import Machine
from r1distill.plan.memory import GIB, Memory, memory
from r1distill.plan.models import Shape
from r1distill.plan.work import Adapters, Kind, Layout, Work
from r1distill.resources import find_file
from r1distill.train_sections import Train

CACHED_ROWS = 20  # entries of a token, where generate.logprobs or a longer row do not say otherwise
EIGHT_BIT = "paged_adamw_8bit"
SEVERAL: tuple[Kind, ...] = ("ddp", "zero1", "zero2", "zero3", "fsdp2")


@dataclass(frozen=True, slots=True)
class Choice:
    """A way to train the student of a recipe, what it takes, and whether the machine has that."""

    layout: Layout
    work: Work
    memory: Memory
    fits: bool
    change: str = ""  # from the recipe's own, in words

    @property
    def name(self) -> str:
        return str(self.layout) + (", activations on the CPU" if self.work.offload_activations else "")


def read_accelerate(train: Train, launch: dict[str, Any]) -> dict[str, Any]:
    """The keys of accelerate's config file and the flags over them, flat. Raises UserError where it cannot be read."""
    flat: dict[str, Any] = {}
    if "config_file" in launch:
        path = find_file(str(launch["config_file"]), "train.launch.config_file")
        try:
            config = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
        except (OSError, ValueError, yaml.YAMLError) as error:
            raise UserError(f"train.launch.config_file: {path}: {' '.join(str(error).split())}") from None
        for key, value in config.items():
            flat |= value if isinstance(value, dict) else {key: value}
    return flat | launch


def layout_of(train: Train, launch: dict[str, Any]) -> Layout:
    """Of accelerate's settings `launch`. Raises UserError for FSDP 1 and for what is not known here."""
    flags = read_accelerate(train, launch)
    if not launch:
        return Layout("single")
    kind = flags.get("distributed_type", "MULTI_GPU")
    if flags.get("use_deepspeed") or kind == "DEEPSPEED":
        stage = int(flags.get("zero_stage", 2))
        if stage not in (0, 1, 2, 3):
            raise UserError(f"zero_stage = {stage}: 0, 1, 2 or 3")
        return Layout(
            SEVERAL[stage],
            offload_optimizer=flags.get("offload_optimizer_device", "none") != "none",
            offload_weights=flags.get("offload_param_device", "none") != "none",
            sequence_parallel=int(flags.get("parallelism_config_sp_size", 1)),
        )
    if flags.get("use_fsdp") or kind == "FSDP":
        if int(flags.get("fsdp_version", 1)) != 2:
            raise UserError("fsdp_version = 1: plan knows FSDP2; set fsdp_version: 2 in the config file")
        offloads = str(flags.get("fsdp_offload_params", False)).lower() == "true"
        return Layout("fsdp2", offload_optimizer=offloads, offload_weights=offloads)
    if kind in ("MULTI_GPU", "MULTI_CPU"):
        return Layout("ddp")
    if kind == "NO":
        return Layout("single")
    raise UserError(f"train.launch: distributed_type = {kind}: plan knows FSDP, DEEPSPEED, MULTI_GPU and NO")


def processes_of(train: Train, launch: dict[str, Any]) -> tuple[int, int]:
    """(machines, processes on all of them) that `launch` says."""
    flags = read_accelerate(train, launch)
    return int(flags.get("num_machines", 1)), int(flags.get("num_processes", 1)) if launch else 1


def work_of(train: Train, logprobs: int, online: Shape | None, machine: Machine) -> Work:
    """What a process does in a step, with SFTConfig's defaults. `logprobs`: of generation, where the rows come from.

    Raises UserError for adapters that are not on projections.
    """
    arguments, has_gpu = train.args, machine.has_gpu
    cached = train.kl is not None and train.kl.online is None
    return Work(
        sequences=int(arguments.get("per_device_train_batch_size", 8)),
        length=train.max_length,
        accumulation=int(arguments.get("gradient_accumulation_steps", 1)),
        dtype=train.dtype,
        mixed=bool(arguments.get("bf16", train.dtype == "bfloat16" and has_gpu)),
        checkpointing=bool(arguments.get("gradient_checkpointing", True)),
        offload_activations=bool(arguments.get("activation_offloading", False)),
        attention=str(train.model_args.get("attn_implementation", "sdpa")),
        one_row=bool(arguments.get("padding_free") or arguments.get("packing")),
        optimizer=str(arguments.get("optim", "adamw_torch_fused")),
        adapters=adapters_of(train),
        rows=(logprobs or CACHED_ROWS) + 1 if cached else 0,
        online=online,
        device="cuda" if has_gpu else "cpu",
    )


def adapters_of(train: Train) -> Adapters | None:
    if train.peft is None:
        return None
    names = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
    targets = train.peft.get("target_modules", ["q_proj", "v_proj"])
    targets = names if targets == "all-linear" else tuple([targets] if isinstance(targets, str) else targets)
    if unknown := [name for name in targets if name not in names]:
        raise UserError(f'train.peft.target_modules: plan knows "all-linear" and {", ".join(names)}, not {unknown[0]}')
    quantization = train.model_args.get("quantization_config") or {}
    return Adapters(
        int(train.peft.get("r", 8)),
        targets,
        quantized=bool(quantization.get("load_in_4bit")),
        double_quantized=bool(quantization.get("bnb_4bit_use_double_quant")),
    )


def try_layout(shape: Shape, work: Work, layout: Layout, machine: Machine, change: str = "") -> Choice:
    """What it takes on the machine, whose whole memory is used: the reserve is among the parts."""
    found = memory(shape, work, layout, machine.processes)
    return Choice(layout, work, found, found.total <= machine.device.memory_gib * GIB, change)


def possible(shape: Shape, work: Work, machine: Machine) -> list[Layout]:
    """The layouts that this student can have there, the simplest first."""
    if machine.processes == 1:
        return [Layout("single")]
    found = [
        *(Layout(kind) for kind in SEVERAL),
        *(
            Layout("zero3", sequence_parallel=degree)
            for degree in (2, 4, 8)
            if not shape.heads % degree and not machine.processes % degree
        ),
        Layout("zero3", offload_optimizer=True),
        Layout("zero3", offload_optimizer=True, offload_weights=True),
        Layout("fsdp2", offload_optimizer=True, offload_weights=True),
    ]
    if work.online:
        found = [layout for layout in found if layout.kind != "zero3"]  # trainer.py refuses it
    return [layout for layout in found if layout.sequence_parallel == 1 or work.adapters is None]


def table(shape: Shape, work: Work, machine: Machine) -> list[Choice]:
    return [try_layout(shape, work, layout, machine) for layout in possible(shape, work, machine)]


def nearest(shape: Shape, own: Choice, machine: Machine) -> Choice | None:
    """The first way that fits, those that change the least and cost the least time first; None where none does."""
    return next((choice for choice in ways(shape, own, machine) if choice.fits), None)


def ways(shape: Shape, own: Choice, machine: Machine) -> Iterator[Choice]:
    work, layout = own.work, own.layout
    layouts = possible(shape, work, machine)
    sharded = [each for each in layouts if each.kind in ("fsdp2", "zero3") and not each.offload_optimizer]
    sharded.sort(key=lambda each: (each.kind != layout.kind, each.sequence_parallel))

    def attempt(way: Work, where: Layout, *changes: str) -> Choice:
        moved = [launch_flags(where)] if where != layout else []
        if where.sequence_parallel != layout.sequence_parallel:  # fewer sequences at once, so more rounds
            way = replace(way, accumulation=way.accumulation * where.sequence_parallel // layout.sequence_parallel)
            moved.append(f"train.args.gradient_accumulation_steps={way.accumulation}")
        return try_layout(shape, way, where, machine, ", ".join([*moved, *changes]))

    if not work.checkpointing:
        work = replace(work, checkpointing=True)
        yield attempt(work, layout, "train.args.gradient_checkpointing=true")
    if work.sequences > 1:
        one = replace(work, sequences=1, accumulation=work.accumulation * work.sequences)
        yield attempt(
            one, layout, "train.args.per_device_train_batch_size=1",
            f"train.args.gradient_accumulation_steps={one.accumulation}",
        )  # fmt: skip
        work = one
    offloading = replace(work, offload_activations=True)
    words = [] if work.offload_activations else ["train.args.activation_offloading=true"]
    for where in sharded:
        yield attempt(work, where)
        yield attempt(offloading, where, *words)
    if work.adapters is None:
        for where in (each for each in sharded if each.kind == "fsdp2"):
            yield attempt(replace(offloading, optimizer=EIGHT_BIT), where, *words, f"train.args.optim={EIGHT_BIT}")
    for where in (each for each in layouts if each.offload_optimizer):
        yield attempt(offloading, where, *words)
    if work.adapters is None and machine.processes > 1:
        for where, quantized, name in (
            (Layout("fsdp2"), False, "LoRA"), (Layout("ddp"), False, "LoRA"), (Layout("ddp"), True, "QLoRA"),
        ):  # fmt: skip
            adapters = replace(work, adapters=Adapters(64, tuple(shape.linears), quantized))
            yield attempt(adapters, where, f"{name} of rank 64")


def launch_flags(layout: Layout) -> str:
    """The accelerate file that is shipped for a layout, as an override; its name where there is none."""
    files = {
        Layout("ddp"): "ddp",
        Layout("fsdp2"): "fsdp2",
        Layout("zero2"): "zero2",
        Layout("zero3"): "zero3",
        Layout("zero3", offload_optimizer=True): "zero3_offload",
        Layout("zero3", sequence_parallel=2): "zero3_ulysses",
    }
    return f"train.launch.config_file=scripts/accelerate/{files[layout]}.yaml" if layout in files else str(layout)
