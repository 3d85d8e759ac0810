"""What the head does to one tile of the logits, in torch: projects it, folds it into running numbers, makes its gradient.

`fold` and `to_gradient` have a second form of the same signature in head_kernels.py, for CUDA.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from r1distill.train.tile_size import TileSize

NOTHING = -1e30  # the logarithm of an empty sum; finite, so that it makes no NaN in a difference
# a logit that is left out: less than NOTHING at any temperature, and finite, so that 0 times it is 0
MASKED = -1e36


class Settings(NamedTuple):
    temperature: float
    wants_mean: bool
    wants_entropy: bool
    tile: TileSize
    factors_dtype: torch.dtype  # of the factors of a product; it is summed in float32 at least


class Running(NamedTuple):
    """Of n tokens, each `(n,)`, over the logits z that were folded in so far.

    `top`: the largest z. `powers`: the sum of exp(z - top). `tempered`: of exp((z - top) / temperature), where that is not
    1. `moment`: of z exp(z - top), where the entropy is wanted.
    """

    top: Tensor
    powers: Tensor
    tempered: Tensor
    moment: Tensor

    def of(self, rows: slice) -> "Running":
        return Running(*(each[rows] for each in self))


class Slopes(NamedTuple):
    """What makes z its derivative: of_rest exp(z - rest) + of_tempered exp(z / temperature - tempered) + of_each.

    Of n tokens, each `(n,)`. The second term only where the temperature is not 1, the third where the mean is wanted.
    """

    rest: Tensor
    of_rest: Tensor
    tempered: Tensor
    of_tempered: Tensor
    of_each: Tensor

    def of(self, rows: slice) -> "Slopes":
        return Slopes(*(each[rows] for each in self))


class Entries(NamedTuple):
    """The asked ids that lie in a tile, each `(E,)` int64: `row` and `place` count from the tile's corner."""

    row: Tensor
    column: Tensor  # of `ids`
    place: Tensor


def fold(z: Tensor, running: Running, settings: Settings) -> None:
    """Take the logits `z (n, v)` into the running numbers. Overwrites `z`."""
    top = torch.maximum(running.top, z.amax(1))
    shift = running.top - top
    running.top.copy_(top)
    z.sub_(top[:, None])
    powers = z.exp() if settings.wants_entropy or settings.temperature != 1.0 else z.exp_()
    here, scale = powers.sum(1), shift.exp()
    running.powers.mul_(scale).add_(here)
    if settings.wants_entropy:
        running.moment.mul_(scale).add_(torch.linalg.vecdot(powers, z)).addcmul_(top, here)
    if settings.temperature != 1.0:
        warm = z.div_(settings.temperature).exp_().sum(1)
        running.tempered.mul_((shift / settings.temperature).exp()).add_(warm)


def to_gradient(z: Tensor, out: Tensor, slopes: Slopes, settings: Settings) -> None:
    """Write the derivative by the logits `z (n, v)` into `out (n, v)`, which may be `z` itself. Overwrites `z`."""
    warm = None
    if settings.temperature != 1.0:
        warm = (z / settings.temperature).sub_(slopes.tempered[:, None]).exp_()
    d_z = z.sub_(slopes.rest[:, None]).exp_().mul_(slopes.of_rest[:, None])
    if warm is not None:
        d_z.addcmul_(warm, slopes.of_tempered[:, None])
    if settings.wants_mean:
        d_z.add_(slopes.of_each[:, None])
    if out is not z:
        out.copy_(d_z)


def tiles(ids: Tensor, n_words: int, size: TileSize) -> Iterator[tuple[slice, list[tuple[slice, Entries]]]]:
    """For each span of the vocabulary those of the tokens, with the entries of `ids (N, S)` in the tile; -1 is none.

    Sorted by tile once, so that the host waits for the device once, however many tiles there are.
    """
    n, s = ids.shape
    spans_of_tokens, spans_of_words = spans(n, size.tokens), spans(n_words, size.vocabulary)
    n_tiles = len(spans_of_tokens) * len(spans_of_words)
    row = torch.arange(n, device=ids.device)[:, None]
    tile = ids // size.vocabulary * len(spans_of_tokens) + row // size.tokens
    tile, order = tile.masked_fill(ids < 0, n_tiles).flatten().sort()
    bounds = torch.searchsorted(tile, torch.arange(n_tiles + 1, device=ids.device)).tolist()
    entries = Entries(order // s % size.tokens, order % s, ids.flatten()[order] % size.vocabulary)
    for first, words in zip(range(0, n_tiles, max(len(spans_of_tokens), 1)), spans_of_words, strict=False):
        yield (
            words,
            [
                (rows, Entries(*(each[bounds[index] : bounds[index + 1]] for each in entries)))
                for index, rows in enumerate(spans_of_tokens, first)
            ],
        )


def spans(n: int, size: int) -> list[slice]:
    return [slice(start, min(start + size, n)) for start in range(0, n, size)]


def project(hidden: Tensor, part: Tensor, buffer: Tensor) -> Tensor:
    """`hidden (n, H) @ part (v, H).T`, in memory of `buffer` and summed in its dtype."""
    n, v = len(hidden), len(part)
    if hidden.is_cuda:
        z = buffer[: n * v].view(n, v)
        return torch.mm(hidden, part.mT, out=z, **sums_in(z, hidden))
    # MKL makes the product 11 % faster in this order (512 x 8,192 x 896), and the sums over a column no slower
    return torch.mm(part, hidden.mT, out=buffer[: n * v].view(v, n)).mT


def add_product(total: Tensor, left: Tensor, right: Tensor) -> None:
    """Add `left @ right` to `total`, summed in its dtype."""
    torch.addmm(total, left, right, out=total, **sums_in(total, left))


def sums_in(total: Tensor, factors: Tensor) -> Any:
    """The option that keeps a product of factors of 16 bits from being rounded to them; CUDA only."""
    return {} if factors.dtype == total.dtype else {"out_dtype": total.dtype}
