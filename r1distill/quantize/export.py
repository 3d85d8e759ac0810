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
from compressed_tensors.utils.match import is_match
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from r1distill.errors import UserError
from r1distill.quantize.mixture import refuse_mixture
from r1distill.quantize.smooth import smooth
from r1distill.quantize_sections import Scheme
from r1distill.store import replacing_folder

PRESET = "W8A8"  # weights by output channel; that for weights alone has them by groups of 128 inputs
KEPT = ["lm_head"]
SHOWN = 7  # linear layers in an error: those of a layer of Llama


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

    `sequences` of a tokenizer are the traces by which it is smoothed. Raises UserError for an adapter without its model, for a
    mixture of experts and for what is to be ignored and is not there.
    """
    if not (source / "config.json").is_file():
        raise UserError(f"{source}: no config.json, so no whole model; train with train.merge_adapter = true")
    devices = {"device_map": "auto"} if torch.accelerator.is_available() else {}
    model = AutoModelForCausalLM.from_pretrained(source, dtype="auto", **devices)
    tokenizer = AutoTokenizer.from_pretrained(source)
    refuse_mixture(model, "[quantize]")
    check_ignored(model, ignore)
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

    Returns how many there are. A scale is the largest absolute weight of its channel over 127.5, so that rounding is to the
    nearest of 256 values. Scales and what is divided by them are float32: bfloat16 rounds the quotient before it is rounded.
    """
    preset = preset_name_to_scheme(PRESET, targets=["Linear"])
    if scheme == "int8_weights":
        preset.input_activations = None
    apply_quantization_config(model, QuantizationConfig(config_groups={"linears": preset}, ignore=[*KEPT, *ignore]))
    count = 0
    for module in model.modules():
        if not isinstance(module, nn.Linear):
            continue
        arguments = getattr(getattr(module, "quantization_scheme", None), "weights", None)
        if arguments is None:
            module.to(model.dtype)  # smoothed, and then ignored
            continue
        module.weight = nn.Parameter(module.weight.float())
        low, high = module.weight.aminmax(dim=1, keepdim=True)
        scale, zero = calculate_qparams(low, high, arguments)
        if scheme == "int8_weights":
            scale = scale.to(model.dtype).float()  # in which vLLM multiplies by it
        module.weight_scale = nn.Parameter(scale, requires_grad=False)
        if hasattr(module, "weight_zero_point"):
            module.weight_zero_point.data.copy_(zero)  # type: ignore[union-attr]
        module.quantization_status = QuantizationStatus.FROZEN  # type: ignore[assignment]
        count += 1
    return count


def check_ignored(model: Any, patterns: Sequence[str]) -> None:
    """Raise UserError for a pattern that is no linear layer's of the model, which may be on meta."""
    linears = {name: module for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    for pattern in patterns:
        if not any(is_match(name, module, pattern) for name, module in linears.items()):
            some = ", ".join(list(linears)[:SHOWN])
            raise UserError(
                f'quantize.ignore = "{pattern}" is none of the {len(linears)} linear layers ({some}, …); give a whole name or a '
                'pattern such as "re:.*down_proj", or take it out'
            )


def size_of(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.glob("*.safetensors"))
