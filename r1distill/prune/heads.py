"""Fewer attention heads than hidden_size / head_dim: which configs can say so, and for which models vLLM reads it.

vLLM's model of Qwen2 takes hidden_size / heads for the size of a head, whatever the config says. A Qwen2 is a Llama with biases
on queries, keys and values, so what is left of it is saved as one, whose head_dim is read; the bias of the output projection,
which a Llama then has too, is 0.
"""

import copy
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from transformers import LlamaConfig, LlamaForCausalLM

from r1distill.errors import UserError
from r1distill.train.decoder import head_size

AS_LLAMA = ("qwen2",)
UNREAD = ("stablelm",)  # vLLM reads no head_dim here either, and no other model is the same function
SHARED = (
    "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads",
    "hidden_act", "max_position_embeddings", "initializer_range", "rms_norm_eps", "use_cache", "tie_word_embeddings",
    "rope_parameters", "attention_dropout", "pad_token_id", "bos_token_id", "eos_token_id", "dtype",
)  # fmt: skip
REMEDY = "set prune.heads = 0 and take out layers or channels (prune.depth, prune.ffn)"


def check_heads(config: Any, groups: int) -> None:
    """Raise UserError where a model of this config cannot be saved or served with so many key-value heads a layer."""
    if groups == config.num_key_value_heads:
        return
    if config.model_type in UNREAD:
        raise UserError(f"prune.heads: vLLM serves {config.model_type} with all its heads alone; {REMEDY}")
    if config.model_type in AS_LLAMA and set(config.layer_types) != {"full_attention"}:
        raise UserError(
            f"prune.heads: a {config.model_type} with fewer heads is saved as a Llama, which has no sliding window, and this "
            f"one has (use_sliding_window); {REMEDY}"
        )
    if problem := refused(config, groups):
        total = config.num_key_value_heads
        shares = [f"{1 - each / total:.3g}" for each in range(total - 1, 0, -1) if not refused(config, each)]
        take = f"take one of prune.heads = {', '.join(shares)}, or " if shares else ""
        raise UserError(f"prune.heads leaves {groups} of {total} key-value heads: {problem}; {take}{REMEDY}")


def refused(config: Any, groups: int) -> str | None:
    """What the config's class has against so many key-value heads, or None."""
    try:
        with_heads(config, groups).validate()
    except StrictDataclassError as error:
        return str(error).splitlines()[-1].strip().removeprefix("ValueError: ").rstrip(".")
    return None


def with_heads(config: Any, groups: int) -> Any:
    """A config like this one with so many key-value heads a layer and as many query heads to each as before."""
    size, width = head_size(config), config.num_attention_heads // config.num_key_value_heads
    changed = copy.deepcopy(config)
    changed.num_key_value_heads, changed.num_attention_heads = groups, width * groups
    changed.head_dim = size  # without it that is hidden_size / heads
    return llama_config(changed) if config.model_type in AS_LLAMA else changed


def llama_config(config: Any) -> LlamaConfig:
    """Of the Llama that computes the same. `validate` says whether its sizes are those of one."""
    shared = {name: getattr(config, name) for name in SHARED}
    # its sizes are checked when it is made, so those that might not do are put in later
    heads = {name: shared.pop(name) for name in ("num_attention_heads", "num_key_value_heads")}
    made = LlamaConfig(**shared, num_attention_heads=1, attention_bias=True, head_dim=config.head_dim)
    for name, value in heads.items():
        setattr(made, name, value)
    return made


@torch.no_grad()
def as_llama(model: Any) -> LlamaForCausalLM:
    """The Llama that computes the same as this Qwen2, whose heads and config are cut already."""
    state = model.state_dict()
    for name, weight in list(state.items()):
        if name.endswith("o_proj.weight"):
            state[name.replace("weight", "bias")] = weight.new_zeros(len(weight))
    config = llama_config(model.config)
    llama = LlamaForCausalLM.from_pretrained(None, config=config, state_dict=state, dtype=model.dtype)
    llama.generation_config = model.generation_config
    return llama.eval()
