"""What is read inside a model besides its last hidden states: states after layers, attention maps, queries, keys and values."""

from dataclasses import dataclass
from typing import Any, NamedTuple

from torch import Tensor, nn

from r1distill.errors import UserError
from r1distill.inner_sections import Attention, Hidden
from r1distill.train.decoder import head_size
from r1distill.train.layers import layer_pairs

KINDS = ("q_proj", "k_proj", "v_proj")


class Read(NamedTuple):
    """Of one pass: `hidden (B, L, H)` after the last layer and norm, `states` after the wanted layers, each alike.

    Of the layers whose attention is wanted either `maps` `(B, A, L, L)`, or `relations`: queries, keys, values `(B, L, D)`.
    """

    hidden: Tensor
    states: list[Tensor]
    maps: list[Tensor]
    relations: list[list[Tensor]]


@dataclass(frozen=True)
class Pairs:
    """Layers of student and teacher that belong together, numbered from 1; of attention and of hidden states."""

    hidden: list[tuple[int, int]]
    attention: list[tuple[int, int]]
    relation_heads: int


class Reader:
    """Calls a causal model's body and gives what is wanted of it. `attention` of layers is maps where `max_maps` allows.

    Raises UserError for a model whose attention gives no maps, or is not made of `q_proj`, `k_proj` and `v_proj`.
    """

    def __init__(self, model: Any, states: list[int], attention: list[int], max_maps: int, whose: str) -> None:
        self.model, self.states, self.attention, self.max_maps = model, states, attention, max_maps
        self.found: dict[tuple[int, str], Tensor] = {}
        self.is_reading = False
        implementation = model.config.get_text_config()._attn_implementation
        if max_maps and implementation != "eager":
            raise UserError(
                f'train.attention.loss = "maps": {whose} runs with attn_implementation = "{implementation}", which gives no '
                'maps; set train.model_args.attn_implementation = "eager", or train.attention.loss = "relations"'
            )
        for layer in attention:
            for kind in KINDS:
                module = getattr(model.base_model.layers[layer - 1].self_attn, kind, None)
                if module is None:
                    raise UserError(
                        f"[train.attention]: the attention of {whose} ({model.config.model_type}) has no {kind}; take it out"
                    )
                module.register_forward_hook(self.keeper(layer, kind))

    def keeper(self, layer: int, kind: str) -> Any:
        def keep(module: nn.Module, args: Any, output: Tensor) -> None:
            if self.is_reading:  # and not in the second forward pass of gradient checkpointing
                self.found[layer, kind] = output

        return keep

    def __call__(self, *args: Any, **kwargs: Any) -> Read:
        ids = kwargs.get("input_ids", args[0] if args else None)
        wants_maps = bool(self.attention) and ids is not None and ids.shape[1] <= self.max_maps
        self.is_reading = bool(self.attention) and not wants_maps
        # PEFT passes these on, empty
        kwargs |= {"use_cache": False, "output_hidden_states": bool(self.states), "output_attentions": wants_maps}
        try:
            output = self.model.base_model(*args, **kwargs)
            relations = [[self.found[layer, kind] for kind in KINDS] for layer in self.attention if self.is_reading]
        finally:
            self.is_reading = False
            self.found.clear()
        return Read(
            output.last_hidden_state,
            [output.hidden_states[layer] for layer in self.states],
            [output.attentions[layer - 1] for layer in self.attention] if wants_maps else [],
            relations,
        )


def pairs_of(hidden: Hidden | None, attention: Attention | None, student: Any, teacher: Any) -> Pairs:
    """By the configs of both models. Raises UserError where the layers or the relation heads do not fit them."""
    student, teacher = student.get_text_config(), teacher.get_text_config()
    n_student, n_teacher = student.num_hidden_layers, teacher.num_hidden_layers
    of_hidden = layer_pairs(hidden.layers, hidden.count, n_student, n_teacher, "train.hidden") if hidden else []
    if attention is None:
        return Pairs(of_hidden, [], 0)
    count = attention.count
    if count is None and not isinstance(attention.layers, dict):
        count = 1  # the last layer, as MiniLM
    of_attention = layer_pairs(attention.layers, count, n_student, n_teacher, "train.attention")
    heads = attention.heads or getattr(student, "num_key_value_heads", 1)
    for config, whose in ((student, "the student"), (teacher, "the teacher")):
        if not hasattr(config, "num_key_value_heads"):
            raise UserError(
                f"[train.attention]: {whose} ({config.model_type}) is not made of {', '.join(KINDS)}; take it out"
            )
        size = head_size(config)
        for dimensions in (size * config.num_attention_heads, size * config.num_key_value_heads):
            if dimensions % heads:
                raise UserError(
                    f"train.attention.heads = {heads}: {whose} has {dimensions} dimensions of queries, keys or values, which do "
                    "not divide into them; take a number that divides both"
                )
    return Pairs(of_hidden, of_attention, heads)
