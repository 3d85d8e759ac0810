"""What each layer, feed-forward channel and attention head does for given sequences.

A layer by its block influence, 1 - cos(what goes in, what comes out), the mean over tokens (ShortGPT, equation 1,
https://arxiv.org/abs/2403.03853). A channel by the norm over tokens of its activation, which enters the last projection of
the feed-forward layer, and a head by that of its output, which enters the last projection of the attention (Minitron,
section 2.2, https://arxiv.org/abs/2407.14679). One forward pass gives all three.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from r1distill.errors import UserError
from r1distill.train.decoder import decoder_layers

REMEDY = "take a student of the Llama, Mistral or Qwen family, or take [prune] out"


@dataclass(frozen=True)
class Importance:
    """`layers (L,)`; `channels (L, I)`; `heads (L, G)`, of the key-value heads with their query heads. Float64, on the CPU."""

    layers: Tensor
    channels: Tensor
    heads: Tensor


@torch.inference_mode()
def importance_of(model: Any, sequences: Iterable[Tensor], score: str) -> Importance:
    """Over all tokens of the `sequences`, each `(T,)` of ids. `score`: "l1", the mean |x|, or "l2", the root of the mean x^2."""
    layers, config = decoder_layers(model, "[prune]", REMEDY), model.config
    n_groups, n_heads = config.num_key_value_heads, config.num_attention_heads
    influence = torch.zeros(len(layers), dtype=torch.float64)
    channels = torch.zeros(len(layers), config.intermediate_size, dtype=torch.float64)
    heads = torch.zeros(len(layers), n_groups, dtype=torch.float64)
    tokens = 0

    def powers(x: Tensor) -> Tensor:
        return x.double().abs() if score == "l1" else x.double().square()

    def on_layer(place: int) -> Any:
        def read(module: nn.Module, args: tuple[Tensor, ...], output: Any) -> None:
            after = output[0] if isinstance(output, tuple) else output
            cosine = torch.cosine_similarity(args[0].double(), after.double(), dim=-1)
            influence[place] += (1 - cosine).sum().cpu()

        return read

    def on_channels(place: int) -> Any:
        def read(module: nn.Module, args: tuple[Tensor, ...]) -> None:
            channels[place] += powers(args[0]).flatten(0, -2).sum(0).cpu()

        return read

    def on_heads(place: int) -> Any:
        def read(module: nn.Module, args: tuple[Tensor, ...]) -> None:
            grouped = args[0].unflatten(-1, (n_groups, -1)).flatten(0, -3)
            heads[place] += powers(grouped).sum((0, -1)).cpu()

        return read

    hooks = []
    for place, layer in enumerate(layers):
        hooks.append(layer.register_forward_hook(on_layer(place)))
        hooks.append(layer.mlp.down_proj.register_forward_pre_hook(on_channels(place)))  # type: ignore[union-attr]
        hooks.append(layer.self_attn.o_proj.register_forward_pre_hook(on_heads(place)))  # type: ignore[union-attr]
    try:
        for sequence in sequences:
            model.base_model(input_ids=sequence[None].to(model.device), use_cache=False)
            tokens += len(sequence)
    finally:
        for hook in hooks:
            hook.remove()
    if not tokens:
        raise UserError(
            "[prune]: there are no traces in the dataset to measure layers by; run `r1distill filter` first"
        )
    width = n_heads // n_groups
    channels, heads = channels / tokens, heads / (tokens * width)
    if score == "l2":
        channels, heads = channels.sqrt(), heads.sqrt()
    return Importance(influence / tokens, channels, heads)
