"""SmoothQuant: outliers of activations moved into the weights that they meet (https://arxiv.org/abs/2211.10438).

A few channels of what enters the projections of a layer are many times larger than the others, and with one scale a token the
others are rounded away. What a channel is divided by, its column of weights is multiplied by: the norm before it takes the
division, so that the model computes the same. What enters the last projections of attention and feed-forward layer has no norm
before it and stays as it is.
"""

import copy
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from accelerate.hooks import remove_hook_from_module
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from r1distill.errors import UserError
from r1distill.train.decoder import decoder_layers, last_states

REMEDY = "set quantize.smoothing = 0"
LEAST = 1e-5  # of a channel that is never used
NORMS = ("input_layernorm", "post_attention_layernorm")
MOST_CHANGE = 0.1  # of what a model computes; norms that are rounded to bfloat16 cost 0.02 over 30 layers


def check_smoothing(model: Any) -> nn.ModuleList:
    """The layers of a model. Raises UserError for an architecture that smoothing is not for. It may be on meta."""
    layers, kind = decoder_layers(model, "quantize.smoothing", REMEDY), model.config.model_type
    for layer in layers:
        if others := [name for name, _ in layer.named_children() if "norm" in name and name not in NORMS]:
            raise UserError(
                f"quantize.smoothing: the layers of {kind} have {', '.join(others)} besides {' and '.join(NORMS)}, so that those "
                f"do not feed what is smoothed; {REMEDY}"
            )
    for name in NORMS:
        norm = getattr(layers[0], name)
        if not multiplies(norm):
            raise UserError(
                f"quantize.smoothing: {type(norm).__name__} of {kind} does not multiply by its weights alone, so they take no "
                f"division; {REMEDY}"
            )
    return layers


def multiplies(norm: nn.Module) -> bool:
    """Whether a norm with its weights times a factor gives that factor times as much: tried on one with random weights."""
    if not isinstance(getattr(norm, "weight", None), Tensor):
        return False
    tried: Any = remove_hook_from_module(copy.deepcopy(norm)).to_empty(device="cpu").float()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in tried.parameters():
            parameter.copy_(torch.rand(parameter.shape, generator=generator) + 0.5)
        x, factor = (torch.rand(tried.weight.shape, generator=generator) + 0.5 for _ in range(2))
        expected = tried(x[None]) * factor
        tried.weight.mul_(factor)
        return torch.allclose(tried(x[None]), expected, rtol=1e-4, atol=1e-6)


@torch.no_grad()
def smooth(model: Any, sequences: Iterable[Tensor], strength: float) -> None:
    """Change norms and projections in place, by the largest activation of each channel over the `sequences`, each `(T,)` of ids.

    s_j = max|x_j|^strength / max|W_j|^(1 - strength) (equation 4). Projections are float32 afterwards, so that nothing is lost
    before they are rounded to integers; norms keep their type. Raises UserError for an architecture that it is not for, and
    where the model no longer computes what it did.
    """
    smoothed = [place for layer in check_smoothing(model) for place in places(layer)]
    largest: dict[nn.Module, Tensor] = {}

    def read(module: nn.Module, args: tuple[Tensor, ...]) -> None:
        found = args[0].abs().flatten(0, -2).amax(0).float()
        largest[module] = torch.maximum(largest[module], found) if module in largest else found

    first: tuple[Tensor, Tensor] | None = None
    with hooked(after[0].register_forward_pre_hook(read) for _, after in smoothed):
        for sequence in sequences:
            found = last_states(model, sequence)
            first = first or (sequence, found)
    if first is None:
        raise UserError(f"quantize.smoothing: no traces in the dataset to measure the student by; {REMEDY}")
    for norm, after in smoothed:
        move(norm, after, largest[after[0]], strength)
    refuse_change(model, [each for _, after in smoothed for each in after], *first)


@contextmanager
def hooked(handles: Iterable[RemovableHandle]) -> Iterator[None]:
    handles = list(handles)
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def refuse_change(model: Any, projections: list[nn.Linear], sequence: Tensor, before: Tensor) -> None:
    """Raise UserError where the states of a sequence are no longer those of `before`: the norms feed something else too."""
    dtype = model.dtype
    for each in projections:
        each.float()  # its bias too, for now
    casts = [each.register_forward_pre_hook(lambda module, args: (args[0].float(),)) for each in projections]
    casts += [each.register_forward_hook(lambda module, args, output: output.to(dtype)) for each in projections]
    with hooked(casts):
        change = (last_states(model, sequence) - before).norm() / before.norm()
    for each in projections:
        if each.bias is not None:
            each.bias.data = each.bias.data.to(dtype)
    if not change <= MOST_CHANGE:  # nor where it is no number
        raise UserError(
            f"quantize.smoothing changes what {model.config.model_type} computes by {change:.0%}, and it should by nothing: its "
            f"norms feed other layers than {', '.join(NORMS)} of a Llama do; {REMEDY}"
        )


def places(layer: Any) -> list[tuple[Any, list[nn.Linear]]]:
    """The norms of a layer, each with the projections that it feeds."""
    attention, mlp = layer.self_attn, layer.mlp
    return [
        (layer.input_layernorm, [attention.q_proj, attention.k_proj, attention.v_proj]),
        (layer.post_attention_layernorm, [mlp.gate_proj, mlp.up_proj]),
    ]


def move(norm: Any, after: list[nn.Linear], largest: Tensor, strength: float) -> None:
    """Divide the channels of a norm and multiply the columns of what follows it."""
    weights = torch.stack([each.weight.abs().amax(0).float() for each in after]).amax(0)
    scale = largest.clamp(min=LEAST) ** strength / weights.clamp(min=LEAST) ** (1 - strength)
    before = norm.weight.float()
    divided = (before / scale).to(norm.weight.dtype)
    kept = divided == 0  # too small for the type
    # what the norm is really divided by, once it is rounded
    scale = torch.where(kept, torch.ones_like(scale), before / divided.float())
    norm.weight.copy_(torch.where(kept, norm.weight, divided))
    for each in after:
        each.weight = nn.Parameter(each.weight.float() * scale)
