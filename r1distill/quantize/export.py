"""Weights in 8-bit integers, in the format of compressed-tensors, which vLLM reads by itself.

llm-compressor writes the same format with the same library; its release that fits vllm's compressed-tensors asks for another
transformers than training does, and for round-to-nearest there is nothing more in it than this.
"""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from compressed_tensors.compressors import ModelCompressor
from compressed_tensors.quantization import (
    QuantizationConfig,
    QuantizationStatus,
    apply_quantization_config,
    preset_name_to_scheme,
)
from compressed_tensors.quantization.utils import calculate_qparams
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from r1distill.errors import UserError
from r1distill.quantize.smooth import smooth
from r1distill.quantize_sections import Scheme
from r1distill.store import replacing_folder

PRESETS = {"int8": "W8A8", "int8_weights": "W8A16"}
KEPT = ["lm_head"]


def export(
    source: Path,
    folder: Path,
    scheme: Scheme,
    *,
    smoothing: float = 0.0,
    sequences: Callable[[Any], Iterable[Tensor]] = lambda tokenizer: (),
    ignore: Sequence[str] = (),
) -> dict[str, Any]:
    """Write the model of the folder `source` in 8 bits into `folder`, in place of what is there, tokenizer and all.

    `sequences` of a tokenizer are the traces by which it is smoothed. Raises UserError for an adapter without its model.
    """
    if not (source / "config.json").is_file():
        raise UserError(f"{source}: no config.json, so no whole model; train with train.merge_adapter = true")
    devices = {"device_map": "auto"} if torch.accelerator.is_available() else {}
    model = AutoModelForCausalLM.from_pretrained(source, dtype="auto", **devices)
    tokenizer = AutoTokenizer.from_pretrained(source)
    if smoothing:
        smooth(model, sequences(tokenizer), smoothing)
    linears = quantize(model, scheme, ignore)
    compressor = ModelCompressor.from_pretrained_model(model)
    compressor.compress_model(model)
    with replacing_folder(folder) as temporary:
        model.save_pretrained(temporary)
        compressor.update_config(str(temporary))
        tokenizer.save_pretrained(temporary)
        GenerationConfig.from_pretrained(source).save_pretrained(temporary)
    sizes = {"bytes_before": size_of(source), "bytes": size_of(folder)}
    return {"linears": linears, **sizes, "scheme": scheme, "smoothing": smoothing}


@torch.no_grad()
def quantize(model: Any, scheme: Scheme, ignore: Sequence[str] = ()) -> int:
    """Put scales beside the weights of every linear layer but the output and what is to be ignored, by output channel.

    Returns how many there are.

    A scale is the largest absolute weight of its channel over 127.5, so that rounding is to the nearest of 256 values.
    """
    preset = preset_name_to_scheme(PRESETS[scheme], targets=["Linear"])
    apply_quantization_config(model, QuantizationConfig(config_groups={"linears": preset}, ignore=[*KEPT, *ignore]))
    count = 0
    for module in model.modules():
        arguments = getattr(getattr(module, "quantization_scheme", None), "weights", None)
        if not isinstance(module, nn.Linear) or arguments is None:
            continue
        low, high = module.weight.aminmax(dim=1, keepdim=True)
        scale, zero = calculate_qparams(low, high, arguments)
        module.weight_scale.data.copy_(scale)  # type: ignore[union-attr]
        if hasattr(module, "weight_zero_point"):
            module.weight_zero_point.data.copy_(zero)  # type: ignore[union-attr]
        module.quantization_status = QuantizationStatus.FROZEN  # type: ignore[assignment]
        count += 1
    return count


def size_of(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.glob("*.safetensors"))
