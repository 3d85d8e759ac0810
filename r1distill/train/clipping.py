"""Gradient clipping in two phases: all parameters by their common norm, then each group of them by its own.

Groups by what a module does, as in AGGC (https://arxiv.org/abs/2601.11864), here with fixed thresholds: a volatile group
then no longer scales down the others. Which phase it is depends on the step alone, so that a resumed run is the same run.
"""

from dataclasses import dataclass

import torch
from accelerate.utils import DistributedType
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from r1distill.errors import UserError
from r1distill.train.head import whole
from r1distill.train_sections import Clip

# A part of a parameter's name, as Llama, Mistral, Qwen 2 and Qwen 3 have them, and the group that it decides; asked in
# this order, since PEFT's and the norms of queries and keys stand within the attention
# and all that begins with lora_
ADAPTERS = ("modules_to_save", "trainable_tokens_delta", "teacher_projections")
MODULES = {"embed_tokens": "embeddings", "self_attn": "attention", "mlp": "mlp", "lm_head": "head"}
GROUPS = ("embeddings", "attention", "mlp", "norms", "head", "adapters")
# where nothing that is set here would be applied
UNSOUND = {
    DistributedType.DEEPSPEED: "DeepSpeed, which clips by itself",
    DistributedType.MEGATRON_LM: "Megatron-LM, which clips by itself",
    DistributedType.XLA: "XLA, which was not tried",
}


@dataclass(frozen=True)
class Clipped:
    """`grad_norm ()` of all gradients; of each group its norm and whether it was scaled down. Norms are before clipping."""

    grad_norm: Tensor
    norms: dict[str, float]
    was_clipped: dict[str, bool]


def group_of(name: str) -> str:
    """The group of a parameter, by its dotted name, whatever wraps the model. Raises UserError for one it cannot tell."""
    parts = name.split(".")
    if any(part in ADAPTERS or part.startswith("lora_") for part in parts):
        return "adapters"
    if any(part == "norm" or part.endswith(("_norm", "layernorm")) for part in parts):
        return "norms"
    for part in parts:
        if part in MODULES:
            return MODULES[part]
    raise UserError(
        f"[train.clip]: the parameter {name} belongs to none of the groups {', '.join(GROUPS)}; this architecture is not "
        "known to r1distill, take [train.clip] out (train.args.max_grad_norm clips any model)"
    )


def grouped(model: nn.Module) -> dict[str, list[nn.Parameter]]:
    """The parameters that are trained, each in one group; a tied head is in `embeddings`. Groups without any are left out.

    Raises UserError for a parameter that belongs to none.
    """
    groups: dict[str, list[nn.Parameter]] = {name: [] for name in GROUPS}
    for name, parameter in model.named_parameters():  # a tied one comes once, under its first name
        if parameter.requires_grad:
            groups[group_of(name)].append(parameter)
    return {name: parameters for name, parameters in groups.items() if parameters}


def check_clip(distributed: DistributedType, is_fsdp2: bool, max_grad_norm: float) -> None:
    """Raise UserError where clipping by groups would be wrong, or would not happen at all."""
    unsound = UNSOUND.get(distributed)
    if distributed == DistributedType.FSDP and not is_fsdp2:
        unsound = "FSDP version 1, where a group's norm would be that of one process's shards"
    if unsound:
        raise UserError(
            f"[train.clip] does not work with {unsound}; launch with DDP or FSDP2 (fsdp_version = 2), or take [train.clip] out"
        )
    if max_grad_norm <= 0:
        raise UserError(
            f"[train.clip] with train.args.max_grad_norm = {max_grad_norm:g}, which turns clipping off; it is the threshold of "
            "the first phase: set it above 0, or take [train.clip] out"
        )


def limits_at(clip: Clip, max_grad_norm: float, step: int, steps: int) -> float | dict[str, float]:
    """At optimizer step `step` of `steps`, from 0: the largest common norm, or in the second phase that of each group."""
    if step < round(clip.until * steps):
        return max_grad_norm
    return {group: getattr(clip, group) or max_grad_norm for group in GROUPS}


def clip_gradients(groups: dict[str, list[nn.Parameter]], limits: float | dict[str, float]) -> Clipped:
    """Scale the gradients down to the limits in place, each keeping its direction, as torch's clip_grad_norm_ does.

    Gradients that are sharded (DTensor) count whole: every process finds the same norms, and every one has to call this.
    """
    norms = torch.stack([norm_of(parameters) for parameters in groups.values()])
    grad_norm = torch.linalg.vector_norm(norms)
    if isinstance(limits, dict):
        found, largest = norms, [limits[group] for group in groups]
    else:
        found, largest = grad_norm.expand(len(norms)), [limits] * len(norms)
    for norm, limit, parameters in zip(found, largest, groups.values(), strict=True):
        for part in by_mesh(parameters):
            clip_grads_with_norm_(part, limit, norm)
    before, clipped = torch.stack([norms, (found > found.new_tensor(largest)).to(norms)]).tolist()  # one transfer
    return Clipped(
        grad_norm,
        dict(zip(groups, before, strict=True)),
        {group: bool(each) for group, each in zip(groups, clipped, strict=True)},
    )


def norm_of(parameters: list[nn.Parameter]) -> Tensor:
    """The Euclidean norm `()` of all their gradients, in float32 and on the device of the first parameter."""
    norms = [get_total_norm([each.grad for each in part if each.grad is not None]) for part in by_mesh(parameters)]
    device = parameters[0].device
    whole_norms = [whole(norm).to(device) for norm in norms]
    return torch.linalg.vector_norm(torch.stack([torch.zeros((), device=device), *whole_norms]))


def by_mesh(parameters: list[nn.Parameter]) -> list[list[nn.Parameter]]:
    """Those with a gradient, apart by the mesh that it is sharded over: torch takes no norm over several meshes."""
    parts: dict[object, list[nn.Parameter]] = {}
    for parameter in parameters:
        if parameter.grad is not None:
            mesh = parameter.grad.device_mesh if isinstance(parameter.grad, DTensor) else None
            parts.setdefault(mesh, []).append(parameter)
    return list(parts.values())
