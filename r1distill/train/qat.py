"""Quantisation-aware training: linear layers that round their weights and inputs to 8 bits in the forward pass.

torchao's FakeQuantizedLinear with straight-through gradients: weights by output channel and symmetric, as the student is
exported afterwards (quantize/export.py), and activations by token. Those are asymmetric, the only ones by token that torchao
trains with, and symmetric when they are served: a range that is at most twice as wide. It begins at a share of the steps,
which is a function of the step alone, so that a resumed run is the same run; until then the layers round nothing.
"""

import importlib
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from r1distill.errors import require_packages
from r1distill.quantize.mixture import refuse_mixture
from r1distill.quantize_sections import Qat, Scheme
from r1distill.train.forward import PROJECTIONS

KEPT = {"lm_head", PROJECTIONS}  # the latter are of the training alone


def prepare(model: nn.Module, scheme: Scheme, ignore: Sequence[str] = ()) -> None:
    """Put fake-quantised layers in place of all linear ones but the output's and what is to be ignored.

    Parameters and their names stay the same; `ignore` are names and patterns as compressed-tensors has them.

    Raises UserError where torchao is not installed, and for a mixture of experts.
    """
    require_packages("[train.qat]", "torchao", "compressed_tensors")
    refuse_mixture(model, "[train.qat]")
    quantization, qat = (importlib.import_module(f"torchao.quantization{each}") for each in ("", ".qat"))
    weights = qat.IntxFakeQuantizeConfig(torch.int8, "per_channel", is_symmetric=True)
    activations = qat.IntxFakeQuantizeConfig(torch.int8, "per_token", is_symmetric=False) if scheme == "int8" else None
    config = qat.QATConfig(activation_config=activations, weight_config=weights, step="prepare")
    is_match = importlib.import_module("compressed_tensors.utils.match").is_match

    def is_rounded(module: nn.Module, name: str) -> bool:
        usual = isinstance(module, nn.Linear) and KEPT.isdisjoint(name.split("."))
        return usual and not any(is_match(name, module, pattern) for pattern in ignore)

    quantization.quantize_(model, config, is_rounded)
    for module in model.modules():
        if (rounding := getattr(module, "weight_fake_quantizer", None)) is not None:
            rounding.register_forward_pre_hook(as_saved)


def as_saved(rounding: Any, weights: tuple[Tensor]) -> tuple[Tensor]:
    """The student is saved in bfloat16 and rounded to integers from there: to another one now and then. Straight-through."""
    (weight,) = weights
    return (weight + (weight.bfloat16().to(weight.dtype) - weight).detach() if rounding.enabled else weight,)


def switch(model: nn.Module, on: bool) -> None:
    linear = importlib.import_module("torchao.quantization.qat.linear")
    for module in model.modules():
        linear.enable_linear_fake_quant(module, on)


class RoundFrom(TrainerCallback):
    """Switches the rounding on where its share of the steps begins, at the last step at the latest."""

    def __init__(self, settings: Qat, model: Any) -> None:
        self.settings, self.model = settings, model
        switch(model, False)

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        first = min(round(self.settings.start * state.max_steps), state.max_steps - 1)
        switch(self.model, state.global_step >= first)
