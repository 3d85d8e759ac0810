"""Which layers of a model are rounded to 8 bits."""

import importlib
from collections.abc import Sequence
from typing import Any

from torch import nn

from r1distill.errors import UserError
from r1distill.train.forward import PROJECTIONS

OUTPUT = "lm_head"
KEPT = {OUTPUT, PROJECTIONS}  # the latter are of the training alone
SHOWN = 7  # linear layers in an error: those of a layer of Llama
# what vLLM has as one layer, which is rounded or not, and the pattern of all
FUSED = {("q_proj", "k_proj", "v_proj"): "re:.*[qkv]_proj", ("gate_proj", "up_proj"): "re:.*(gate|up)_proj"}


def rounded_linears(model: Any, section: str, ignore: Sequence[str]) -> list[str]:
    """Names of all linear layers but the output's and those that a name or pattern of `ignore` means; it may be on meta.

    Raises UserError, which names `section` of the recipe, for a mixture of experts, for what is to be ignored and is not
    there, for what vLLM could not read, and where nothing is left.
    """
    refuse_mixture(model, section)
    is_match = importlib.import_module("compressed_tensors.utils.match").is_match
    linears = {name: module for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    for pattern in ignore:
        if not any(is_match(name, module, pattern) for name, module in linears.items()):
            some = ", ".join(list(linears)[:SHOWN])
            raise UserError(
                f'{section}.ignore = "{pattern}" is none of the {len(linears)} linear layers ({some}, …); give a whole name or a '
                'pattern such as "re:.*down_proj", or take it out'
            )
    found = [
        name
        for name, module in linears.items()
        if KEPT.isdisjoint(name.split(".")) and not any(is_match(name, module, pattern) for pattern in ignore)
    ]
    refuse_parts(set(linears), set(found), section)
    if not found:
        why = "all are ignored" if ignore else f"{model.config.model_type} has none but the output's"
        raise UserError(
            f"[{section}] rounds linear layers, and there are none: {why}; take other layers out, another student, or "
            f"[{section}] out"
        )
    return found


def refuse_mixture(model: Any, section: str) -> None:
    """Raise UserError for a mixture whose experts are one tensor."""
    convolutions = tuple(name for name, module in model.named_modules() if isinstance(module, nn.Conv1d))
    for name, parameter in model.named_parameters():
        if parameter.ndim == 3 and name.rpartition(".")[0] not in convolutions:
            raise UserError(
                f"[{section}]: {model.config.model_type} is a mixture whose experts are no linear layers ({name} is one tensor "
                f"of {tuple(parameter.shape)}), and only those are rounded; take [{section}] out, or take a dense student"
            )


def refuse_parts(linears: set[str], rounded: set[str], section: str) -> None:
    """Raise UserError where of the layers that vLLM makes one some are rounded and others are not."""
    for parent in sorted({name.rpartition(".")[0] for name in linears - rounded}):
        for parts, pattern in FUSED.items():
            members = {f"{parent}.{part}" for part in parts} & linears
            left = members - rounded
            if 0 < len(left) < len(members):
                raise UserError(
                    f"{section}.ignore leaves {', '.join(sorted(left))} as it is, and not {', '.join(sorted(members - left))}: "
                    f'vLLM makes them one layer, of one type; ignore all of them ("{pattern}"), or none'
                )
