"""Weights to 8-bit integers and back, as an export holds them and as QAT trains for."""

from typing import Any

import torch
from compressed_tensors.quantization import QuantizationScheme, preset_name_to_scheme
from compressed_tensors.quantization.utils import calculate_qparams
from torch import Tensor

from r1distill.quantize_sections import Scheme

PRESET = "W8A8"  # weights by output channel; that for weights alone has them by groups of 128 inputs


def preset_of(scheme: Scheme) -> QuantizationScheme:
    preset = preset_name_to_scheme(PRESET, targets=["Linear"])
    if scheme == "int8_weights":
        preset.input_activations = None
    return preset


def scale_and_zero(weight: Tensor, scheme: Scheme, dtype: torch.dtype, arguments: Any) -> tuple[Tensor, Tensor]:
    """Of each output channel of a float32 `weight (out, in)`, `(out, 1)`; `dtype` is the model's, in which it is served.

    A scale is the largest absolute weight of its channel over 127.5, so that rounding is to the nearest of 256 values.
    """
    low, high = weight.aminmax(dim=1, keepdim=True)
    scale, zero = calculate_qparams(low, high, arguments)
    if scheme == "int8_weights":
        scale = scale.to(dtype).float()  # in which vLLM multiplies by it
    return scale, zero


def rounded(weight: Tensor, scheme: Scheme, dtype: torch.dtype, arguments: Any) -> Tensor:
    """What the integers of a weight of this type stand for, float32."""
    weight = weight.to(dtype).float()
    scale, _ = scale_and_zero(weight, scheme, dtype, arguments)
    return (weight / scale).round().clamp(-128, 127) * scale
