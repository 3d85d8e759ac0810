"""The peak of a training step on one device, by part.

States are those of ZeRO (Rajbhandari et al. 2020, https://arxiv.org/abs/1910.02054), as accelerate 1.15, DeepSpeed 0.18
and torch 2.13 hold them. The peak is looked for at four moments, for what is large at one is gone at another.
"""

from dataclasses import dataclass

from r1distill.plan.activations import (
    by_autocast,
    cast_weights,
    head_bytes,
    offloaded_bytes,
    recomputed_bytes,
    saved_bytes,
    stream_bytes,
    teacher_bytes,
)
from r1distill.plan.models import Shape
from r1distill.plan.work import Layout, Work, layer_weights, trainable_parameters

PARTS = ("weights", "gradients", "optimizer", "activations", "layer", "head", "gathered", "teacher", "reserve")
GIB = 2**30
CONTEXT_BYTES = 2 * GIB  # CUDA, cuBLAS and NCCL
FRAGMENTED = 0.05  # of all else
# DeepSpeed's defaults, which accelerate leaves as they are: reduce_bucket_size, stage3_max_live_parameters and
# stage3_prefetch_bucket_size, sub_group_size
REDUCE_BUCKET, LIVE_PARAMETERS, SUB_GROUP = 5e8, 1e9 + 5e7, 1e9
# NF4 with blocks of 64, each with a scale in float32, or with the scales in 8 bits in blocks of 256 (arXiv 2305.14314)
NF4_BYTES, NF4_DOUBLE_BYTES = 0.5 + 4 / 64, 0.5 + 1 / 64 + 4 / (64 * 256)
EIGHT_BIT_STATE = 1 + 4 / 256  # bitsandbytes: blocks of 256, each with a scale in float32


@dataclass(frozen=True, slots=True)
class States:
    """What one device (and of all that is offloaded, one host's share) holds between steps, in bytes."""

    weights: float
    gradients: float
    optimizer: float
    host: float


@dataclass(frozen=True, slots=True)
class Memory:
    """`parts` of one device at its peak in bytes, which is at `moment`; `host`: of the CPU for each process."""

    parts: dict[str, float]
    moment: str
    host: float

    @property
    def total(self) -> float:
        return sum(self.parts.values())


def memory(shape: Shape, work: Work, layout: Layout, processes: int) -> Memory:
    """Of the largest moment of a step whose micro-batches are full, with the reserve."""
    states = states_of(shape, work, layout, processes)
    moments = moments_of(shape, work, layout, states, processes)
    name, peak = max(moments.items(), key=lambda item: sum(item[1].values()))
    peak["weights"] = states.weights
    peak["optimizer"] = peak.get("optimizer", 0.0) + states.optimizer
    peak["gradients"] = peak.get("gradients", 0.0)
    peak["teacher"] = teacher_bytes(work, layout, processes)
    if work.device == "cuda":
        peak["reserve"] = CONTEXT_BYTES + FRAGMENTED * sum(peak.values())
    parts = {part: peak.get(part, 0.0) for part in PARTS}
    return Memory(parts, name, states.host + offloaded_bytes(shape, work, layout))


def states_of(shape: Shape, work: Work, layout: Layout, processes: int) -> States:
    trained = trainable_parameters(shape, work.adapters)
    frozen = frozen_bytes(shape, work, layout)
    kind, shards = layout.kind, processes
    if kind in ("single", "ddp"):
        size = adapter_bytes(work) if work.adapters else (2 if work.dtype == "bfloat16" else 4)
        buckets = size * trained if kind == "ddp" else 0  # DDP copies gradients into its buckets
        return States(frozen + size * trained, size * trained + buckets, state_bytes(work, size, shape) * trained, 0.0)
    if kind == "fsdp2":  # accelerate makes what is trained float32
        weights, gradients = (frozen + 4 * trained) / shards, 4 * trained / shards
        optimizer = state_bytes(work, 4, shape) * trained / shards
        if layout.offload_weights:
            return States(0.0, 0.0, 0.0, weights + gradients + optimizer)
        return States(weights, gradients, optimizer, 0.0)
    # DeepSpeed: bfloat16 weights and gradients; float32 weights and the two moments of Adam are the optimizer's
    weights, gradients = frozen + 2 * trained, 2.0 * trained
    optimizer = (4 + state_bytes(work, 4, shape)) * trained / shards
    host = 0.0
    if kind in ("zero2", "zero3"):
        gradients /= shards
    if kind == "zero3":
        weights /= shards
    if layout.offload_optimizer:
        host, optimizer, gradients = optimizer + 4 * trained / shards, 0.0, 0.0 if kind != "zero1" else gradients
    if layout.offload_weights:
        host, weights = host + weights, 0.0
    return States(weights, gradients, optimizer, host)


def frozen_bytes(shape: Shape, work: Work, layout: Layout) -> float:
    """Of the weights below adapters."""
    if work.adapters is None:
        return 0.0
    each = 2 if work.dtype == "bfloat16" or layout.kind.startswith("zero") else 4
    if not work.adapters.quantized:
        return float(each * shape.parameters)
    small = layer_weights(shape)
    nf4 = NF4_DOUBLE_BYTES if work.adapters.double_quantized else NF4_BYTES
    return nf4 * small + each * (shape.parameters - small)


def adapter_bytes(work: Work) -> int:
    """peft keeps adapters in float32 beside bfloat16; TRL makes them bfloat16 where the base is quantised."""
    return 2 if work.adapters and work.adapters.quantized else 4


def state_bytes(work: Work, size: int, shape: Shape) -> float:
    """Of the optimizer's state for a parameter of `size` bytes, by the name that transformers gives the optimizer."""
    name = work.optimizer
    if "8bit" in name:
        if work.adapters:
            return 2 * EIGHT_BIT_STATE
        # transformers leaves the embedding's states in 32 bits
        share = shape.embedding_parameters / shape.parameters
        return share * 8 + (1 - share) * 2 * EIGHT_BIT_STATE
    if name == "sgd":
        return 0.0
    if name == "adafactor":
        return 0.01 * size  # rows and columns of its matrices only
    return 2.0 * size  # AdamW's two moments


def step_bytes(shape: Shape, work: Work, layout: Layout, processes: int) -> float:
    """What the optimizer needs while it steps. The fused AdamW of torch, which is transformers' choice, needs nothing.

    The other one makes the roots of all second moments at once on a GPU, and elsewhere of one parameter, twice.
    """
    if work.optimizer != "adamw_torch" or (layout.offload_optimizer and work.device == "cuda"):
        return 0.0
    each = 2 if work.dtype == "bfloat16" and layout.kind in ("single", "ddp") and not work.adapters else 4
    trained = trainable_parameters(shape, work.adapters)
    if work.device == "cuda":
        return float(each * trained) / (1 if layout.kind in ("single", "ddp") else processes)
    if work.adapters:
        largest = max(work.adapters.rank * max(shape.linears[name]) for name in work.adapters.targets)
    else:
        largest = max(shape.embedding_parameters, shape.hidden * shape.intermediate)
    return 2.0 * each * largest


def moments_of(shape: Shape, work: Work, layout: Layout, states: States, processes: int) -> dict[str, dict[str, float]]:
    """Of each moment the parts that come and go, in bytes.

    Without accumulation there are no gradients when the backward pass begins; they grow while activations go, so that one
    of its two ends is the larger.
    """
    head = head_bytes(shape, work, layout)
    saved = saved_bytes(shape, work, layout)
    layer = recomputed_bytes(shape, work, layout)
    carried = states.gradients if work.accumulation > 1 else 0.0
    if layout.kind == "ddp":
        carried = max(carried, states.gradients / 2)  # the buckets
    gathered = gathered_bytes(shape, work, layout, processes)
    of_head = head["weight_gradient"]
    a_layer = saved / shape.layers if not work.checkpointing else 0.0
    # a gradient beside the one that it is added to: of a shared embedding, or of the head while accumulating
    shared = of_head if shape.tied else 0.0
    forward_casts = cast_weights(shape, work, layout) if work.checkpointing and by_autocast(work, layout) else 0.0
    in_flight = gathered["reduced"]
    return {
        "the head, forward": {
            "gradients": carried,
            "activations": saved + forward_casts,
            "head": head["saved"],
            "gathered": gathered["head"],
        },
        "the head, backward": {
            "gradients": carried,
            "activations": saved,
            "head": head["saved"] + head["backward"] + of_head,
            "gathered": gathered["head"],
        },
        "the last layer, backward": {
            "gradients": carried,
            "activations": saved,
            "layer": layer,
            "head": 0.0 if carried else of_head,
            "gathered": gathered["layer"] + in_flight,
        },
        "the first layer, backward": {
            "gradients": states.gradients,
            "activations": a_layer,
            "layer": layer,
            "gathered": gathered["layer"] + in_flight,
        },
        "the embedding, backward": {
            "gradients": states.gradients,
            "head": shared,
            "gathered": gathered["embedding"],
        },
        "the optimizer's step": {
            "gradients": states.gradients,
            "optimizer": step_bytes(shape, work, layout, processes),
            "gathered": gathered["step"],
        },
    }


def gathered_bytes(shape: Shape, work: Work, layout: Layout, processes: int) -> dict[str, float]:
    """Of weights that are whole for a while, and of gradients on their way to where they are summed."""
    kind, stream = layout.kind, stream_bytes(work, layout)
    trained = work.adapters is None
    shard = trainable_parameters(shape, work.adapters) / processes
    a_layer, head = stream * shape.layer_parameters, stream * shape.head_parameters
    none: dict[str, float] = dict.fromkeys(("head", "layer", "reduced", "embedding", "step"), 0.0)
    if kind == "fsdp2":
        # the layer at work and the next; of gradients the layer's own and those that are being reduced
        return {
            "head": head * (2 if trained else 1),
            "layer": 2.0 * a_layer,
            "reduced": 2.0 * a_layer if trained else 0.0,
            "embedding": head * (3 if trained else 1),
            "step": 0.0,
        }
    if kind == "zero3":
        live = (
            2 * min(LIVE_PARAMETERS, shape.parameters)
            if 2 * shape.layer_parameters < LIVE_PARAMETERS
            else 2.0 * a_layer
        )
        bucket = 2 * max(REDUCE_BUCKET, shape.head_parameters) if trained else 2 * REDUCE_BUCKET
        step = 0.0 if layout.offload_optimizer else 4 * min(SUB_GROUP, shard)  # gradients in float32
        return {
            "head": live + head + bucket,
            "layer": live,
            "reduced": bucket,
            "embedding": live + bucket,
            "step": step,
        }
    if kind in ("zero1", "zero2"):
        bucket = 2 * max(REDUCE_BUCKET, shape.head_parameters) if trained else 2 * REDUCE_BUCKET
        return {**none, "reduced": bucket, "head": bucket, "embedding": bucket, "step": bucket + 4 * shard}
    return none
