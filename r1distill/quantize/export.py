"""Weights in 8-bit integers, in the format of compressed-tensors, which vLLM reads by itself.

llm-compressor writes the same format with the same library; its release that fits vllm's compressed-tensors asks for another
transformers than training does, and for round-to-nearest there is nothing more in it than this.
"""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from compressed_tensors.compressors import ModelCompressor
from compressed_tensors.quantization import QuantizationConfig, QuantizationStatus, apply_quantization_config
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from r1distill.errors import UserError
from r1distill.quantize.linears import OUTPUT, rounded_linears
from r1distill.quantize.rounding import preset_of, scale_and_zero
from r1distill.quantize.smooth import smooth
from r1distill.quantize_sections import Scheme
from r1distill.store import make_readable, replacing_folder


def export(
    source: Path,
    folder: Path,
    scheme: Scheme,
    *,
    smoothing: float = 0.0,
    sequences: Callable[[Any], Iterable[Tensor]] = lambda tokenizer: (),
    ignore: Sequence[str] = (),
    trust_remote_code: bool = False,
) -> dict[str, Any]:
    """Write the model of the folder `source` in 8 bits into `folder`, in place of what is there, tokenizer and all.

    `sequences` of a tokenizer are the traces by which it is smoothed. Raises UserError for an adapter without its model, and
    for layers that cannot be rounded, ignored or smoothed as asked.
    """
    if not (source / "config.json").is_file():
        raise UserError(f"{source}: no config.json, so no whole model; train with train.merge_adapter = true")
    devices = {"device_map": "auto"} if torch.accelerator.is_available() else {}
    code: dict[str, Any] = {"trust_remote_code": trust_remote_code}
    model = AutoModelForCausalLM.from_pretrained(source, dtype="auto", **devices, **code)
    tokenizer = AutoTokenizer.from_pretrained(source, **code)
    rounded_linears(model, "quantize", ignore)  # before the model is smoothed, which takes longer
    if smoothing:
        smooth(model, sequences(tokenizer), smoothing)
    linears = quantize(model, scheme, ignore)
    compressor = ModelCompressor.from_pretrained_model(model)
    compressor.compress_model(model)
    with replacing_folder(folder) as temporary:
        model.save_pretrained(temporary)
        compressor.update_config(str(temporary))
        tokenizer.save_pretrained(temporary)
        GenerationConfig.from_pretrained(source, **code).save_pretrained(temporary)
        make_readable(temporary)
    sizes = {"bytes_before": size_of(source), "bytes": size_of(folder)}
    return {"linears": linears, **sizes, "scheme": scheme, "smoothing": smoothing}


@torch.no_grad()
def quantize(model: Any, scheme: Scheme, ignore: Sequence[str] = ()) -> int:
    """Put scales beside the weights of every linear layer but the output and what is to be ignored, by output channel.

    Returns how many there are. Scales and what is divided by them are float32: bfloat16 rounds the quotient before it is
    rounded.
    """
    names = rounded_linears(model, "quantize", ignore)
    config = QuantizationConfig(config_groups={"linears": preset_of(scheme)}, ignore=[OUTPUT, *ignore])
    apply_quantization_config(model, config)
    for name, module in model.named_modules():
        if not isinstance(module, nn.Linear):
            continue
        if name not in names:
            module.to(model.dtype)  # smoothed, and then ignored
            continue
        arguments = module.quantization_scheme.weights  # type: ignore[union-attr]
        module.weight = nn.Parameter(module.weight.float())
        scale, zero = scale_and_zero(module.weight, scheme, model.dtype, arguments)
        module.weight_scale = nn.Parameter(scale, requires_grad=False)
        if hasattr(module, "weight_zero_point"):
            module.weight_zero_point.data.copy_(zero)  # type: ignore[union-attr]
        module.quantization_status = QuantizationStatus.FROZEN  # type: ignore[assignment]
    return len(names)


def size_of(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.glob("*.safetensors"))
