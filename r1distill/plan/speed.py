"""How many floating-point operations and bytes the stages take, and so how long: pure functions of counts.

Operations are those of matrices: 2 for each parameter that a token is multiplied with, and as many twice more for the
gradients (Kaplan et al. 2020, https://arxiv.org/abs/2001.08361, table 1); attention over S tokens adds 4 S for each
layer and query channel, thrice for a training step (Chowdhery et al. 2022, https://arxiv.org/abs/2204.02311, appendix B,
which counts what the causal mask leaves out too). Model FLOPs utilisation (MFU) leaves out what checkpointing computes
again; hardware FLOPs utilisation (HFU) counts it (https://arxiv.org/abs/2205.05198, section 6.3).
"""

import math
from dataclasses import dataclass

from r1distill.plan.machine import Device
from r1distill.plan.memory import GIB
from r1distill.plan.models import Shape
from r1distill.plan.work import Work

HFU = 0.40  # of training, where --mfu does not say otherwise: what long sequences reach on NVLink and InfiniBand
PREFILL_HFU = 0.40  # of a prompt's tokens, as while evaluating a cache
BANDWIDTH_USED = 0.5  # of the memory's, while decoding: the rest waits for kernels, all-reduces and the scheduler
SERVED_MEMORY = 0.9  # of a GPU, for weights and key-value cache (vLLM's gpu_memory_utilization)


@dataclass(frozen=True, slots=True)
class Flops:
    """For a token of training. `model` as MFU counts, `hardware` with what is computed again."""

    model: float
    hardware: float


def training_flops(shape: Shape, work: Work, mean_length: float) -> Flops:
    """`mean_length`: tokens of an example, which are what a token attends to, however examples are packed."""
    layers = 2.0 * shape.layers_parameters(True)
    attention = 4.0 * shape.layers * shape.query_size * mean_length
    head = 2.0 * shape.head_parameters
    # forward, the gradient of the input, and that of the weight where it is trained
    passes = 2 if work.adapters else 3
    model = passes * (layers + head) + 3 * attention
    hardware = model + head + (layers + attention if work.checkpointing else 0.0)  # the head is never kept
    if work.online:
        teacher = work.online
        forward = 2.0 * teacher.computing_parameters + 4.0 * teacher.layers * teacher.query_size * mean_length
        model, hardware = model + forward, hardware + forward + 2.0 * teacher.head_parameters
    return Flops(model, hardware)


def scoring_flops(teacher: Shape, mean_length: float) -> float:
    """For a token that a teacher reads without writing: of a cache made after generation."""
    return 2.0 * teacher.computing_parameters + 4.0 * teacher.layers * teacher.query_size * mean_length


@dataclass(frozen=True, slots=True)
class Decoding:
    """How a model is sampled: so many GPUs for a copy, `batch` sequences at once in each, tokens/s of a copy."""

    gpus: int
    batch: int
    tokens_per_second: float


def decoding(shape: Shape, device: Device, gpus: int, mean_context: float, most: int) -> Decoding | None:
    """Of a copy over `gpus`; None where its weights and one sequence do not fit.

    Each step reads the weights (of a mixture the experts that the batch wants) and the key-value cache of every sequence,
    and computes 2 operations a parameter and sequence; the slower of the two decides. Latent attention keeps its cache on
    every GPU, grouped keys are shared out as far as there are heads. `most`: requests in flight at once.
    """
    weights = shape.stored_bytes * shape.parameters
    room = SERVED_MEMORY * device.memory_gib * GIB * gpus - weights
    copies = gpus if shape.latent else max(1.0, gpus / shape.key_value_heads)
    a_sequence = shape.cache_bytes_a_token * mean_context * copies
    batch = min(most, int(room // a_sequence)) if room > 0 else 0
    if batch < 1:
        return None
    read = weights * share_read(shape, batch) + batch * a_sequence
    by_memory = read / (device.bytes_per_second * gpus * BANDWIDTH_USED)
    by_compute = 2.0 * shape.computing_parameters * batch / (device.flops * gpus * HFU)
    return Decoding(gpus, batch, batch / max(by_memory, by_compute))


def share_read(shape: Shape, batch: int) -> float:
    """Of the weights in a step: an expert is left out where no sequence of the batch chose it."""
    if not shape.experts:
        return 1.0
    active = shape.computing_parameters / shape.parameters
    chosen = 1 - (1 - shape.experts.active / shape.experts.routed) ** batch
    return active + (1 - active) * chosen


def smallest_copy(shape: Shape, device: Device, mean_context: float, most: int) -> Decoding | None:
    """Over the fewest GPUs, 1 to 64 in powers of 2, that hold a reasonable batch."""
    found = None
    for gpus in (1, 2, 4, 8, 16, 32, 64):
        found = decoding(shape, device, gpus, mean_context, most)
        if found and found.batch >= min(16, most):
            break
    return found


def samples_expected(right: float, samples: int, stop_after: int) -> tuple[float, float]:
    """(samples, correct ones) a problem, of a teacher that is right with probability `right` in each of them.

    With `stop_after` correct ones it stops, after `samples` in any case.
    """
    if not stop_after:
        return float(samples), samples * right
    taken = kept = 0.0
    # before sample i + 1 there were j correct ones among i, and j < stop_after
    for i in range(samples):
        goes_on = sum(math.comb(i, j) * right**j * (1 - right) ** (i - j) for j in range(min(i, stop_after - 1) + 1))
        taken += goes_on
        kept += goes_on * right
    return taken, kept
