"""A decoder as pruning and quantisation see it: layers by the names of Llama and Qwen, and traces to measure them by."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from r1distill.errors import UserError
from r1distill.run import Run
from r1distill.store import opened, remade_by
from r1distill.train.render import render_example

PARTS = (
    "input_layernorm", "self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj",
    "post_attention_layernorm", "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj",
)  # fmt: skip


def decoder_layers(model: Any, key: str, remedy: str) -> nn.ModuleList:
    """Raises UserError, with the key and remedy, for an architecture whose layers are not made of the parts of Llama's."""
    layers = getattr(model.base_model, "layers", None)
    if layers is None or any(not dict(layer.named_modules()).keys() >= set(PARTS) for layer in layers):
        raise UserError(
            f"{key}: {model.config.model_type} is not made of the layers that r1distill can cut or smooth "
            f"({', '.join(PARTS)}); {remedy}"
        )
    return layers


def head_size(config: Any) -> int:
    """Dimensions of one attention head."""
    return getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads


def last_states(model: Any, sequence: Tensor) -> Tensor:
    """The last hidden states `(1, T, H)` of token ids `(T,)`, float32."""
    return model.base_model(input_ids=sequence[None].to(model.device), use_cache=False).last_hidden_state.float()


def token_sequences(run: Run, tokenizer: Any, count: int, most_tokens: int) -> Iterator[Tensor]:
    """Token ids `(T,)` of examples that are spread evenly over the dataset, each cut at `most_tokens`."""
    path = run.dataset / "train.parquet"
    if not path.is_file():
        raise UserError(
            f"{path}: not there, and [prune] and [quantize] measure the student on it; run `r1distill filter` first"
        )
    place, prefill = 0, run.recipe.generate.prefill
    with opened(path, remade_by("filter")) as parquet:
        wanted = {n * parquet.metadata.num_rows // count for n in range(count)}
        for batch in parquet.iter_batches(columns=["prompt", "completion"]):
            for row in batch.to_pylist():
                if place in wanted:
                    example = render_example(tokenizer, row["prompt"], row["completion"], prefill)
                    yield torch.tensor(example.input_ids[:most_tokens])
                place += 1
