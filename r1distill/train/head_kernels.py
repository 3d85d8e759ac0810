"""`fold` and `to_gradient` of head_tiles.py in Triton: the logits of a tile are read once, where torch reads them each time.

Imported only where Triton is installed; used on CUDA.
"""

from typing import Any

import triton
import triton.language as tl
from torch import Tensor

from r1distill.train.head_tiles import MASKED, Running, Settings, Slopes

WORDS_A_BLOCK = 2048
WARPS = 8
LEFT_OUT = tl.constexpr(MASKED)


def fold(z: Tensor, running: Running, settings: Settings) -> None:
    """Take the logits `z (n, v)` into the running numbers."""
    n, v = z.shape
    launch: Any = fold_kernel[(n,)]
    launch(
        z, *z.stride(), v, *running, settings.temperature,
        IS_TEMPERED=settings.temperature != 1.0, WANTS_ENTROPY=settings.wants_entropy, BLOCK=WORDS_A_BLOCK,
        num_warps=WARPS,
    )  # fmt: skip


def to_gradient(z: Tensor, out: Tensor, slopes: Slopes, settings: Settings) -> None:
    """Write the derivative by the logits `z (n, v)` into `out (n, v)`, which may be `z` itself."""
    n, v = z.shape
    launch: Any = gradient_kernel[(n, triton.cdiv(v, WORDS_A_BLOCK))]
    launch(
        z, *z.stride(), out, *out.stride(), v, *slopes, settings.temperature,
        IS_TEMPERED=settings.temperature != 1.0, WANTS_MEAN=settings.wants_mean, BLOCK=WORDS_A_BLOCK, num_warps=WARPS,
    )  # fmt: skip


@triton.jit
def fold_kernel(
    z_pointer,
    z_row,
    z_column,
    v,
    top_pointer,
    powers_pointer,
    tempered_pointer,
    moment_pointer,
    temperature,
    IS_TEMPERED: tl.constexpr,
    WANTS_ENTROPY: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """One program a token: its sums are relative to the largest logit so far, and are scaled down whenever that grows."""
    row = tl.program_id(0).to(tl.int64)
    top = tl.load(top_pointer + row)
    powers = tl.load(powers_pointer + row)
    tempered = tl.load(tempered_pointer + row)
    moment = tl.load(moment_pointer + row)
    for start in range(0, v, BLOCK):
        place = start + tl.arange(0, BLOCK)
        z = tl.load(z_pointer + row * z_row + place * z_column, mask=place < v, other=LEFT_OUT)
        new_top = tl.maximum(top, tl.max(z, axis=0))
        power = tl.exp(z - new_top)
        scale = tl.exp(top - new_top)
        powers = powers * scale + tl.sum(power, axis=0)
        if WANTS_ENTROPY:
            moment = moment * scale + tl.sum(power * z, axis=0)
        if IS_TEMPERED:
            scale = tl.exp((top - new_top) / temperature)
            tempered = tempered * scale + tl.sum(tl.exp((z - new_top) / temperature), axis=0)
        top = new_top
    tl.store(top_pointer + row, top)
    tl.store(powers_pointer + row, powers)
    if WANTS_ENTROPY:
        tl.store(moment_pointer + row, moment)
    if IS_TEMPERED:
        tl.store(tempered_pointer + row, tempered)


@triton.jit
def gradient_kernel(
    z_pointer,
    z_row,
    z_column,
    out_pointer,
    out_row,
    out_column,
    v,
    rest_pointer,
    of_rest_pointer,
    tempered_pointer,
    of_tempered_pointer,
    of_each_pointer,
    temperature,
    IS_TEMPERED: tl.constexpr,
    WANTS_MEAN: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """One program a token and BLOCK words."""
    row = tl.program_id(0).to(tl.int64)
    place = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    z = tl.load(z_pointer + row * z_row + place * z_column, mask=place < v, other=LEFT_OUT)
    gradient = tl.exp(z - tl.load(rest_pointer + row)) * tl.load(of_rest_pointer + row)
    if IS_TEMPERED:
        power = tl.exp(z / temperature - tl.load(tempered_pointer + row))
        gradient += power * tl.load(of_tempered_pointer + row)
    if WANTS_MEAN:
        gradient += tl.load(of_each_pointer + row)
    tl.store(
        out_pointer + row * out_row + place * out_column, gradient.to(out_pointer.dtype.element_ty), mask=place < v
    )
