"""The language-model head as a few numbers a token: nothing of size (N, V) is ever kept.

From one projection z = hidden @ weight.T, walked over in tiles, a loss needs per token only logsumexps and the logits at
a few ids. Any loss that is a function of these has an exact gradient: the tile is computed again in the backward pass and
each logit's derivative follows from those of the numbers. Peak memory beyond the gradients themselves is a few tiles.

The ids asked for are taken out of the tiles, which give the numbers of the rest of the vocabulary. What is of both is put
together from the two: nothing is ever subtracted from a sum, and a rest of 1e-9 beside the ids is as exact as any.
"""

from importlib.util import find_spec
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.distributed.tensor import DTensor
from trl.trainer.utils import maybe_gather_lm_head_ctx

from r1distill.errors import UserError
from r1distill.train import head_tiles
from r1distill.train.head_tiles import MASKED, NOTHING, Running, Settings, Slopes, add_product, project, tiles
from r1distill.train.tile_size import CPU_TILE, CUDA_TILE, TileSize

if find_spec("triton"):
    from r1distill.train import head_kernels
else:
    head_kernels = None

# multipliers of the logits that some architectures have
SCALINGS = ("final_logit_softcapping", "logit_scale", "logits_scaling", "lm_head_multiplier", "output_multiplier")


class HeadNumbers(NamedTuple):
    """Of each of N tokens, in float32 (float64 where the hidden states are).

    `total (N,)`: logsumexp of all logits z. `outside (N,)`: logsumexp of z / temperature over the vocabulary without the
    support. `selected (N, S)`: z at the asked ids, -inf where the id is -1. `mean (N,)`: of all z. Without a gradient:
    `top (N,)`, the largest z, and `entropy (N,)` of softmax(z) in nats, 0 where it was not asked for.
    """

    total: Tensor
    outside: Tensor
    selected: Tensor
    mean: Tensor
    top: Tensor
    entropy: Tensor


def refuse_other_head(model: Any, whose: str) -> None:
    """Raise UserError where logits are not `hidden @ weight.T`: some architectures scale them, or have a bias."""
    config = model.config.get_text_config()
    for name in SCALINGS:
        if getattr(config, name, None) not in (None, 1, 1.0):
            raise UserError(f"{whose}: {config.model_type} scales its logits ({name}), which is not supported here")
    if getattr(model.get_output_embeddings(), "bias", None) is not None:
        raise UserError(f"{whose}: the head of {config.model_type} has a bias, which is not supported here")


def whole(tensor: Tensor) -> Tensor:
    """All of a tensor that FSDP2 may have sharded; every process has to call this."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def head_numbers(
    hidden: Tensor,
    weight: Tensor,
    ids: Tensor,
    *,
    temperature: float = 1.0,
    wants_mean: bool = False,
    wants_entropy: bool = False,
    tile: TileSize | None = None,
) -> HeadNumbers:
    """`hidden (N, H)`, `weight (V, H)`, `ids (N, S)` int64: the first column the label, the others the support.

    An id of -1 is none. An id may stand in both, but only once among the support.
    """
    # each id is asked for once: a label that stands in the support is read there
    is_label = (ids == ids[:, :1]) & (ids >= 0)
    is_label[:, 0] &= ~is_label[:, 1:].any(1)
    once = torch.cat([ids[:, :1].masked_fill(~is_label[:, :1], -1), ids[:, 1:]], 1)
    size = tile or (CUDA_TILE if hidden.is_cuda else CPU_TILE)
    settings = Settings(temperature, wants_mean, wants_entropy, size, factors_dtype(hidden))
    with torch.autocast(hidden.device.type, enabled=False):  # it would round the logits to bfloat16
        rest, tempered, asked, mean, top, expected = Head.apply(hidden, weight, once, settings)  # type: ignore[misc]
    label = asked.gather(1, is_label.int().argmax(1, keepdim=True))
    total = torch.cat([asked, rest[:, None]], 1).logsumexp(1)
    outside = torch.logaddexp(tempered if temperature != 1.0 else rest, asked[:, 0] / temperature)
    entropy = torch.zeros_like(top)
    if wants_entropy:
        with torch.no_grad():
            of_asked = ((asked - total[:, None]).exp() * asked.clamp(min=NOTHING)).sum(1)
            entropy = total - of_asked - (rest - total).exp() * expected
    return HeadNumbers(
        total, outside, torch.cat([label, asked[:, 1:]], 1), mean, torch.maximum(top, asked.detach().amax(1)), entropy
    )


class Head(torch.autograd.Function):
    """`rest (N,)` and `tempered (N,)`: logsumexp of z and of z / temperature over the vocabulary without `ids (N, S)`.

    Then z at the ids `(N, S)`, the mean of all z `(N,)`, and of the rest the largest z and its mean under the softmax.
    """

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, ids: Tensor, settings: Settings) -> tuple[Tensor, ...]:
        dtype = numbers_dtype(hidden)
        zeros = hidden.new_zeros(len(hidden), dtype=dtype)
        running = Running(torch.full_like(zeros, NOTHING), zeros, zeros.clone(), zeros.clone())
        asked = hidden.new_full(ids.shape, -torch.inf, dtype=dtype)
        factors, sum_of_weight = hidden.to(settings.factors_dtype), hidden.new_zeros(hidden.shape[1], dtype=dtype)
        buffer = hidden.new_empty(room(hidden, weight, settings.tile), dtype=dtype)
        for words, parts in tiles(ids, len(weight), settings.tile):
            part = weight[words].to(settings.factors_dtype)
            if settings.wants_mean:
                sum_of_weight += part.sum(0, dtype=dtype)
            for rows, entries in parts:
                z = project(factors[rows], part, buffer)
                at = entries.row, entries.place
                asked[rows][entries.row, entries.column] = z[at]
                z[at] = MASKED
                on_tiles(z).fold(z, running.of(rows), settings)
        mean = hidden.to(dtype) @ sum_of_weight / len(weight)
        rest = (running.powers.log() + running.top).clamp_(min=NOTHING)
        tempered = (running.tempered.log() + running.top / settings.temperature).clamp_(min=NOTHING)
        expected = running.moment / running.powers.clamp(min=torch.finfo(dtype).tiny)
        ctx.save_for_backward(hidden, weight, ids, rest, tempered)
        ctx.settings = settings
        ctx.mark_non_differentiable(running.top, expected)
        return rest, tempered, asked, mean, running.top, expected

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        _, weight, *_ = ctx.saved_tensors
        # as in the forward pass; and under ZeRO-3 the weight is empty by now
        with torch.autocast(weight.device.type, enabled=False), maybe_gather_lm_head_ctx(weight):
            return Head.gradients(ctx, *gradients)

    @staticmethod
    def gradients(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        hidden, weight, ids, rest, tempered = ctx.saved_tensors
        settings: Settings = ctx.settings
        of_rest, of_tempered, of_asked, of_mean, *_ = gradients
        wants_hidden, wants_weight = ctx.needs_input_grad[:2]
        dtype = rest.dtype
        of_each = of_mean / len(weight)
        of_tempered = of_tempered / settings.temperature
        slopes = Slopes(rest, of_rest.contiguous(), tempered, of_tempered.contiguous(), of_each.contiguous())
        of_asked = of_asked + of_each[:, None]
        factors = hidden.to(settings.factors_dtype)
        d_hidden = torch.zeros_like(hidden, dtype=dtype) if wants_hidden else None
        d_weight = torch.zeros_like(weight) if wants_weight else None
        buffer = hidden.new_empty(room(hidden, weight, settings.tile), dtype=dtype)
        rounded = buffer if factors.dtype == dtype else torch.empty_like(buffer, dtype=factors.dtype)
        for words, parts in tiles(ids, len(weight), settings.tile):
            part = weight[words].to(factors.dtype)
            d_part = None
            if d_weight is not None:
                d_part = d_weight[words].to(dtype)  # where that is its dtype the memory of the gradient itself
            for rows, entries in parts:
                z = project(factors[rows], part, buffer)
                z[entries.row, entries.place] = MASKED
                d_z = z if rounded is buffer else rounded[: z.numel()].view(z.shape)
                on_tiles(z).to_gradient(z, d_z, slopes.of(rows), settings)
                d_z[entries.row, entries.place] = of_asked[rows][entries.row, entries.column].to(d_z.dtype)
                if d_hidden is not None:
                    add_product(d_hidden[rows], d_z, part)
                if d_part is not None:
                    add_product(d_part, d_z.mT, factors[rows])
            if d_weight is not None and d_part is not None and d_weight.dtype != dtype:
                d_weight[words] = d_part
        return None if d_hidden is None else d_hidden.to(hidden.dtype), d_weight, None, None


def on_tiles(z: Tensor) -> Any:
    """The module whose `fold` and `to_gradient` serve this tile."""
    return head_kernels if head_kernels is not None and z.is_cuda and z.dtype == torch.float32 else head_tiles


def room(hidden: Tensor, weight: Tensor, size: TileSize) -> int:
    """Elements of the largest tile."""
    return min(len(hidden), size.tokens) * min(len(weight), size.vocabulary)


def numbers_dtype(hidden: Tensor) -> torch.dtype:
    return torch.float64 if hidden.dtype == torch.float64 else torch.float32


def factors_dtype(hidden: Tensor) -> torch.dtype:
    """Mixed precision's where it is on, else that of the hidden states; a CPU multiplies without rounding to either."""
    if not hidden.is_cuda:
        return numbers_dtype(hidden)
    return torch.get_autocast_dtype("cuda") if torch.is_autocast_enabled("cuda") else hidden.dtype
