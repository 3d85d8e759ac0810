"""Quantisation-aware training: linear layers that round their weights and inputs to 8 bits in the forward pass.

torchao's FakeQuantizedLinear with straight-through gradients: weights by output channel and symmetric, to what the student's
export holds (quantize/rounding.py), and activations by token. Those are asymmetric, the only ones by token that torchao
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
from r1distill.quantize.linears import rounded_linears
from r1distill.quantize_sections import Qat, Scheme


def prepare(model: nn.Module, scheme: Scheme, ignore: Sequence[str] = ()) -> None:
    """Put fake-quantised layers in place of all linear ones but the output's and what is to be ignored.

    Parameters and their names stay the same; `ignore` are names and patterns as compressed-tensors has them.

    Raises UserError where torchao is not installed, and for layers that cannot be rounded or ignored as asked.
    """
    require_packages("[train.qat]", "torchao", "compressed_tensors")
    names = set(rounded_linears(model, "train.qat", ignore))
    quantization, qat = (importlib.import_module(f"torchao.quantization{each}") for each in ("", ".qat"))
    weights = qat.IntxFakeQuantizeConfig(torch.int8, "per_channel", is_symmetric=True)
    activations = qat.IntxFakeQuantizeConfig(torch.int8, "per_token", is_symmetric=False) if scheme == "int8" else None
    config = qat.QATConfig(activation_config=activations, weight_config=weights, step="prepare")
    quantization.quantize_(model, config, lambda module, name: name in names)
    for name, module in model.named_modules():
        if name in names:
            module.weight_fake_quantizer = AsExported(scheme)


class AsExported(nn.Module):
    """In place of torchao's rounding of weights, which has scales of another type: the student is saved in bfloat16 and
    rounded from there, and with weights alone in 8 bits the scales are bfloat16 too."""

    def __init__(self, scheme: Scheme) -> None:
        super().__init__()
        self.enabled = True
        self.scheme = scheme
        rounding = importlib.import_module("r1distill.quantize.rounding")
        self.rounded, self.arguments = rounding.rounded, rounding.preset_of(scheme).weights

    def forward(self, weight: Tensor) -> Tensor:
        if not self.enabled:
            return weight
        rounded = self.rounded(weight.detach(), self.scheme, torch.bfloat16, self.arguments)
        return weight + (rounded.to(weight.dtype) - weight.detach())  # its gradient is the weight's


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
