"""SmoothQuant: outliers of activations moved into the weights that they meet (https://arxiv.org/abs/2211.10438).

A few channels of what enters the projections of a layer are many times larger than the others, and with one scale a token the
others are rounded away. What a channel is divided by, its column of weights is multiplied by: the norm before it takes the
division, so that the model computes the same. What enters the last projections of attention and feed-forward layer has no norm
before it and stays as it is.
"""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from r1distill.errors import UserError
from r1distill.train.decoder import decoder_layers

REMEDY = "set quantize.smoothing = 0"
LEAST = 1e-5  # of a channel that is never used


def check_smoothing(model: Any) -> nn.ModuleList:
    """The layers of a model. Raises UserError for an architecture that smoothing is not for."""
    return decoder_layers(model, "quantize.smoothing", REMEDY)


@torch.no_grad()
def smooth(model: Any, sequences: Iterable[Tensor], strength: float) -> None:
    """Change norms and projections in place, by the largest activation of each channel over the `sequences`, each `(T,)` of ids.

    s_j = max|x_j|^strength / max|W_j|^(1 - strength) (equation 4). Projections are float32 afterwards, so that nothing is lost
    before they are rounded to integers; norms keep their type. Raises UserError for an architecture that it is not for.
    """
    layers = check_smoothing(model)
    largest: dict[nn.Module, Tensor] = {}

    def read(module: nn.Module, args: tuple[Tensor, ...]) -> None:
        found = args[0].abs().flatten(0, -2).amax(0).float()
        largest[module] = torch.maximum(largest[module], found) if module in largest else found

    smoothed = [place for layer in layers for place in places(layer)]
    hooks = [after[0].register_forward_pre_hook(read) for _, after in smoothed]
    try:
        for sequence in sequences:
            model.base_model(input_ids=sequence[None].to(model.device), use_cache=False)
    finally:
        for hook in hooks:
            hook.remove()
    for norm, after in smoothed:
        move(norm, after, largest[after[0]], strength)


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
    probe = torch.randn(1, len(before), generator=torch.Generator().manual_seed(0)).to(norm.weight)
    expected = norm(probe).float()
    norm.weight.copy_(torch.where(kept, norm.weight, divided))
    if not torch.allclose(norm(probe).float() * scale, expected, rtol=1e-2, atol=1e-4):
        raise UserError(
            f"{type(norm).__name__} does not multiply by its weights alone, so they take no division; {REMEDY}"
        )
    for each in after:
        each.weight = nn.Parameter(each.weight.float() * scale)
