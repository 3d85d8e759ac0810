"""Quantisation-aware training: linear layers that round their weights and inputs to 8 bits in the forward pass.

torchao's FakeQuantizedLinear with straight-through gradients: weights by output channel and symmetric, as the student is
exported afterwards (quantize/export.py), and activations by token. Those are asymmetric, the only ones by token that torchao
trains with, and symmetric when they are served: a range that is at most twice as wide. It begins at a share of the steps,
which is a function of the step alone, so that a resumed run is the same run; until then the layers round nothing.
"""

import importlib
from typing import Any

import torch
from torch import nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from r1distill.errors import require_packages
from r1distill.quantize_sections import Qat, Scheme

KEPT = "lm_head"


def prepare(model: nn.Module, scheme: Scheme) -> None:
    """Put fake-quantised layers in place of all linear ones but the output's; parameters and their names stay the same.

    Raises UserError where torchao is not installed.
    """
    require_packages("[train.qat]", "torchao")
    quantization, qat = (importlib.import_module(f"torchao.quantization{each}") for each in ("", ".qat"))
    weights = qat.IntxFakeQuantizeConfig(torch.int8, "per_channel", is_symmetric=True)
    activations = qat.IntxFakeQuantizeConfig(torch.int8, "per_token", is_symmetric=False) if scheme == "int8" else None
    config = qat.QATConfig(activation_config=activations, weight_config=weights, step="prepare")
    quantization.quantize_(
        model, config, lambda module, name: isinstance(module, nn.Linear) and not name.endswith(KEPT)
    )


def switch(model: nn.Module, on: bool) -> None:
    linear = importlib.import_module("torchao.quantization.qat.linear")
    for module in model.modules():
        linear.enable_linear_fake_quant(module, on)


class RoundFrom(TrainerCallback):
    """Switches the rounding on where its share of the steps begins."""

    def __init__(self, settings: Qat, model: Any) -> None:
        self.settings, self.model = settings, model
        switch(model, False)

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        switch(self.model, state.global_step >= round(self.settings.start * state.max_steps))
