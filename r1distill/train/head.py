"""The language-model head as a few numbers a token: nothing of size (N, V) is ever kept.

From one projection z = hidden @ weight.T, walked over in tiles, a loss needs per token only logsumexps and the logits at
a few ids. Any loss that is a function of these has an exact gradient: the tile is computed again in the backward pass and
each logit's derivative follows from those of the numbers. Peak memory beyond the gradients themselves is a few tiles.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from trl.trainer.utils import maybe_gather_lm_head_ctx

from r1distill.errors import UserError

TOKENS_A_TILE = 512
VOCABULARY_A_TILE = 8192
# multipliers of the logits that some architectures have
SCALINGS = ("final_logit_softcapping", "logit_scale", "logits_scaling", "lm_head_multiplier", "output_multiplier")
NOTHING = -1e30  # the logarithm of an empty sum; finite, so that it makes no NaN in a difference


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


def head_numbers(
    hidden: Tensor,
    weight: Tensor,
    ids: Tensor,
    *,
    temperature: float = 1.0,
    wants_mean: bool = False,
    wants_entropy: bool = False,
    tokens_a_tile: int = TOKENS_A_TILE,
    vocabulary_a_tile: int = VOCABULARY_A_TILE,
) -> HeadNumbers:
    """`hidden (N, H)`, `weight (V, H)`, `ids (N, S)` int64: the first column the label, the others the support.

    An id of -1 is none. An id may stand in both, but only once among the support.
    """
    has_support = ids.shape[1] > 1
    # at temperature 1 all is the support and the rest of it, and one pass of exponentials serves both
    wants_total = not has_support or temperature != 1.0
    settings = Settings(
        temperature, wants_total, has_support, wants_mean, wants_entropy, tokens_a_tile, vocabulary_a_tile,
        factors_dtype(hidden),
    )  # fmt: skip
    with torch.autocast(hidden.device.type, enabled=False):  # it would round the logits to bfloat16
        total, outside, selected, mean, top, expected = Head.apply(hidden, weight, ids, settings)  # type: ignore[misc]
    if not wants_total:
        inside = selected[:, 1:].clamp(min=NOTHING).logsumexp(1)
        total = torch.logaddexp(outside, inside)
    entropy = torch.zeros_like(top)
    if wants_entropy:
        with torch.no_grad():
            if not wants_total:  # `expected` is of the rest: put the support into it
                support = selected[:, 1:].clamp(min=NOTHING)
                chances = (support - total[:, None]).exp()
                expected = expected * (outside - total).exp() + (chances * support).sum(1)
            entropy = total - expected
    return HeadNumbers(total, outside, selected, mean, top, entropy)


class Settings(NamedTuple):
    temperature: float
    wants_total: bool
    wants_outside: bool
    wants_mean: bool
    wants_entropy: bool
    tokens_a_tile: int
    vocabulary_a_tile: int
    factors_dtype: torch.dtype


class Head(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, ids: Tensor, settings: Settings) -> tuple[Tensor, ...]:
        n, dtype = len(hidden), numbers_dtype(hidden)
        total = hidden.new_full((n,), NOTHING, dtype=dtype)
        outside, top = total.clone(), total.clone()
        mean, expected = torch.zeros_like(total), torch.zeros_like(total)  # expected: z under the softmax so far
        selected = hidden.new_full(ids.shape, -torch.inf, dtype=dtype)
        for part, words, wanted in tiles(weight, settings.vocabulary_a_tile, ids):
            for rows in spans(n, settings.tokens_a_tile):
                z = project(hidden[rows], part, settings.factors_dtype)
                row, column, place = entries(wanted, rows, words)
                selected[rows][row, column] = z[row, place]
                if settings.wants_mean:
                    mean[rows] += z.sum(1)
                largest = z.amax(1)
                top[rows] = torch.maximum(top[rows], largest)
                z.sub_(largest[:, None])
                if settings.wants_total:
                    powers = z.exp() if settings.wants_outside or settings.wants_entropy else z.exp_()
                    add_powers(total[rows], expected[rows], powers, z, largest, settings.wants_entropy)
                if settings.wants_outside:
                    if settings.temperature != 1.0:
                        z.div_(settings.temperature)
                        largest = largest / settings.temperature
                    z[row[column > 0], place[column > 0]] = NOTHING
                    of_rest = settings.wants_entropy and not settings.wants_total
                    powers = z.exp() if of_rest else z.exp_()
                    add_powers(outside[rows], expected[rows], powers, z, largest, of_rest)
        mean /= len(weight)
        ctx.save_for_backward(hidden, weight, ids, total, outside)
        ctx.settings = settings
        ctx.mark_non_differentiable(top, expected)
        return total, outside, selected, mean, top, expected

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        _, weight, *_ = ctx.saved_tensors
        with maybe_gather_lm_head_ctx(weight):  # under ZeRO-3 it is empty by now
            return Head.gradients(ctx, *gradients)

    @staticmethod
    def gradients(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        hidden, weight, ids, total, outside = ctx.saved_tensors
        settings: Settings = ctx.settings
        of_total, of_outside, of_selected, of_mean, *_ = gradients
        wants_hidden, wants_weight = ctx.needs_input_grad[:2]
        dtype = numbers_dtype(hidden)
        d_hidden = torch.zeros_like(hidden, dtype=dtype) if wants_hidden else None
        d_weight = torch.empty_like(weight) if wants_weight else None
        for part, words, wanted in tiles(weight, settings.vocabulary_a_tile, ids):
            d_part = torch.zeros_like(part, dtype=dtype) if wants_weight else None
            for rows in spans(len(hidden), settings.tokens_a_tile):
                z = project(hidden[rows], part, settings.factors_dtype)
                row, column, place = entries(wanted, rows, words)
                d_z = None
                if settings.wants_total:
                    powers = z - total[rows, None] if settings.wants_outside else z.sub_(total[rows, None])
                    d_z = powers.exp_().mul_(of_total[rows, None])
                if settings.wants_outside:
                    if settings.temperature != 1.0:
                        z.div_(settings.temperature)
                    z.sub_(outside[rows, None])
                    z[row[column > 0], place[column > 0]] = -torch.inf
                    z.exp_().mul_(of_outside[rows, None] / settings.temperature)
                    d_z = z if d_z is None else d_z.add_(z)
                assert d_z is not None
                if settings.wants_mean:
                    d_z += of_mean[rows, None] / len(weight)
                d_z.index_put_((row, place), of_selected[rows][row, column], accumulate=True)
                if d_hidden is not None:
                    d_hidden[rows] += product(d_z, part, settings.factors_dtype)
                if d_part is not None:
                    d_part += product(d_z.mT, hidden[rows], settings.factors_dtype)
            if d_weight is not None and d_part is not None:
                d_weight[words] = d_part
        return None if d_hidden is None else d_hidden.to(hidden.dtype), d_weight, None, None


def add_powers(
    logsum: Tensor, expected: Tensor, powers: Tensor, z: Tensor, largest: Tensor, wants_expected: bool
) -> None:
    """Take a tile into `logsum (n,)`, and into `expected (n,)` its z: `powers (n, v)` = exp(z), z less `largest (n,)`."""
    here = powers.sum(1)
    both = torch.logaddexp(logsum, here.log().add_(largest).clamp_(min=NOTHING))
    if wants_expected:
        sum_of_z = torch.linalg.vecdot(powers, z) + largest * here
        scale = torch.where(here > 0, largest - both, 0).exp_()  # a tile that is all support has nothing
        expected.mul_((logsum - both).exp_()).add_(sum_of_z * scale)
    logsum.copy_(both)


def numbers_dtype(hidden: Tensor) -> torch.dtype:
    return torch.float64 if hidden.dtype == torch.float64 else torch.float32


def spans(n: int, size: int) -> list[slice]:
    return [slice(start, min(start + size, n)) for start in range(0, n, size)]


def tiles(weight: Tensor, size: int, ids: Tensor) -> Any:
    """For each tile of the vocabulary its part of `weight`, its span, and the (token, column, id) of the ids in it."""
    row, column = torch.nonzero(ids >= 0, as_tuple=True)
    id_ = ids[row, column]
    for words in spans(len(weight), size):
        here = (id_ >= words.start) & (id_ < words.stop)
        yield weight[words], words, (row[here], column[here], id_[here])


def entries(wanted: tuple[Tensor, Tensor, Tensor], rows: slice, words: slice) -> tuple[Tensor, Tensor, Tensor]:
    """Of those in a tile of the vocabulary the ones in a tile of the tokens: token and id counted from the tile's start."""
    row, column, id_ = wanted
    here = slice(*torch.searchsorted(row, row.new_tensor([rows.start, rows.stop])).tolist())  # `row` ascends
    return row[here] - rows.start, column[here], id_[here] - words.start


def factors_dtype(hidden: Tensor) -> torch.dtype:
    """Of the factors of a projection: mixed precision's where it is on. Their products are summed in float32 at least."""
    kind = hidden.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else hidden.dtype


def project(hidden: Tensor, part: Tensor, factors: torch.dtype) -> Tensor:
    """`hidden (n, H) @ part (v, H).T`, summed and returned in float32 at least."""
    if hidden.is_cuda and factors in (torch.bfloat16, torch.float16):
        return torch.mm(hidden.to(factors), part.to(factors).mT, out_dtype=torch.float32)
    dtype = numbers_dtype(hidden)
    return hidden.to(dtype) @ part.to(dtype).mT


def product(left: Tensor, right: Tensor, factors: torch.dtype) -> Tensor:
    """`left @ right`; on a GPU of `factors`, summed in float32."""
    if right.is_cuda and factors in (torch.bfloat16, torch.float16):
        return torch.mm(left.to(factors), right.to(factors), out_dtype=torch.float32)
    return left @ right.to(left.dtype)
