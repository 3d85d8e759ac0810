"""Taking layers, feed-forward channels and attention heads out of a model, weights and config alike."""

import copy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from r1distill.errors import UserError
from r1distill.prune.heads import AS_LLAMA, as_llama, check_heads
from r1distill.prune.importance import REMEDY, Importance
from r1distill.prune_section import Prune
from r1distill.train.decoder import decoder_layers, head_size


@dataclass(frozen=True)
class Kept:
    """Places that stay, ascending: of the layers, and for each layer that there was of its channels and key-value heads."""

    layers: list[int]
    channels: list[list[int]]
    heads: list[list[int]]


def kept_of(importance: Importance, settings: Prune) -> Kept:
    """What stays by the settings: the most important. All layers keep equally many channels and heads, as a config can say."""
    n_layers, n_channels = importance.channels.shape
    layers, channels, groups = settings.sizes(n_layers, n_channels, importance.heads.shape[1])
    return Kept(
        run_of_least(importance.layers, n_layers - layers) if settings.contiguous else best(importance.layers, layers),
        [best(row, channels) for row in importance.channels],
        [best(row, groups) for row in importance.heads],
    )


def best(scores: Tensor, count: int) -> list[int]:
    """The places of the highest scores, in order; of equal ones the first."""
    return sorted(scores.argsort(descending=True, stable=True)[:count].tolist())


def run_of_least(scores: Tensor, count: int) -> list[int]:
    """The places without those `count` that follow each other and together have the least; the last of equal ones."""
    if not count:
        return list(range(len(scores)))
    sums = scores.unfold(0, count, 1).sum(1)
    start = len(sums) - 1 - int(sums.flip(0).argmin())
    return [place for place in range(len(scores)) if not start <= place < start + count]


def check_cut(model: Any, settings: Prune) -> Any:
    """Raise UserError for a model that cannot be cut as the settings say. Its weights are not read: it may be on meta.

    Returns what will be left of it, on meta: every tensor has the shape that the class of the model gives it by the config.
    """
    decoder_layers(model, "[prune]", REMEDY)
    config = model.config
    sizes = settings.sizes(config.num_hidden_layers, config.intermediate_size, config.num_key_value_heads)
    check_heads(config, sizes[2])
    layers, channels, groups = (list(range(size)) for size in sizes)
    left = on_meta(model)
    take_out(left, Kept(layers, [channels] * config.num_hidden_layers, [groups] * config.num_hidden_layers))
    found, wanted = (
        {name: tuple(tensor.shape) for name, tensor in each.state_dict().items()} for each in (left, on_meta(left))
    )
    if others := sorted(name for name in found.keys() | wanted.keys() if found.get(name) != wanted.get(name)):
        raise UserError(
            f"[prune]: {config.model_type} has {others[0]} of the shape {found.get(others[0])}, which by its config would then "
            f"be {wanted.get(others[0])}: it is none of the parts that r1distill can cut; {REMEDY}"
        )
    if why_not_computed(on_meta(model)) is None and (problem := why_not_computed(left)):
        raise UserError(f"[prune]: what is left of {config.model_type} would compute nothing: {problem}; {REMEDY}")
    return left


def why_not_computed(model: Any) -> str | None:
    """What a model on meta has against a few tokens, or None. Some have it whole already: they compute with numbers."""
    tokens = torch.zeros(1, 4, dtype=torch.long, device="meta")
    mask = torch.zeros(1, 1, 4, 4, device="meta")  # whole, since one is made by what the tokens are
    try:
        model(input_ids=tokens, attention_mask=mask, use_cache=False)
    except Exception as error:  # whatever the model's own code says of shapes that do not fit
        return (str(error).strip() or type(error).__name__).splitlines()[0]
    return None


def on_meta(model: Any) -> Any:
    """A model of the same class by the same config, without weights."""
    with torch.device("meta"):
        return type(model)(copy.deepcopy(model.config))


@torch.no_grad()
def cut(model: Any, kept: Kept) -> Any:
    """Leave in the model what is kept; the config then says so. What keeps everything changes nothing.

    Returns the model, or in its place a Llama that computes the same, where vLLM reads no other with these heads (heads.py).
    Raises UserError where there is none with so many heads.
    """
    check_heads(model.config, len(kept.heads[0]))
    fewer_heads = len(kept.heads[0]) < model.config.num_key_value_heads
    take_out(model, kept)
    return as_llama(model) if fewer_heads and model.config.model_type in AS_LLAMA else model


def take_out(model: Any, kept: Kept) -> None:
    """Leave in layers and config what is kept."""
    layers, config = decoder_layers(model, "[prune]", REMEDY), model.config
    width, size = config.num_attention_heads // config.num_key_value_heads, head_size(config)
    for layer, channels, groups in zip(layers, kept.channels, kept.heads, strict=True):
        mlp, attention = layer.mlp, layer.self_attn
        if len(channels) < config.intermediate_size:
            for each in (mlp.gate_proj, mlp.up_proj):  # type: ignore[union-attr]
                keep_rows(each, channels)  # type: ignore[arg-type]
            keep_columns(mlp.down_proj, channels)  # type: ignore[arg-type, union-attr]
        if len(groups) < config.num_key_value_heads:
            of_keys = [group * size + place for group in groups for place in range(size)]
            of_queries = [group * size * width + place for group in groups for place in range(size * width)]
            keep_rows(attention.q_proj, of_queries)  # type: ignore[arg-type, union-attr]
            for each in (attention.k_proj, attention.v_proj):  # type: ignore[union-attr]
                keep_rows(each, of_keys)  # type: ignore[arg-type]
            keep_columns(attention.o_proj, of_queries)  # type: ignore[arg-type, union-attr]
    stay = nn.ModuleList([layers[place] for place in kept.layers])
    for place, layer in enumerate(stay):
        layer.self_attn.layer_idx = place  # type: ignore[union-attr]
    model.base_model.layers = stay
    for name, values in config.to_dict().items():
        # of each layer: layer_types, and no_rope_layers of SmolLM3
        if isinstance(values, list) and len(values) == len(layers) and not name.endswith("token_id"):
            setattr(config, name, [values[place] for place in kept.layers])
    config.num_hidden_layers = len(stay)
    config.intermediate_size = len(kept.channels[0])
    if len(kept.heads[0]) < config.num_key_value_heads:
        config.head_dim = size  # without it that is hidden_size / heads
        config.num_key_value_heads = len(kept.heads[0])
        config.num_attention_heads = width * len(kept.heads[0])


def keep_rows(linear: nn.Linear, rows: list[int]) -> None:
    places = torch.tensor(rows, device=linear.weight.device)
    linear.weight = nn.Parameter(linear.weight[places].clone())
    if linear.bias is not None:
        linear.bias = nn.Parameter(linear.bias[places].clone())
    linear.out_features = len(rows)


def keep_columns(linear: nn.Linear, columns: list[int]) -> None:
    places = torch.tensor(columns, device=linear.weight.device)
    linear.weight = nn.Parameter(linear.weight[:, places].clone())
    linear.in_features = len(columns)
