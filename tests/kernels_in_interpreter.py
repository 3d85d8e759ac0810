"""The tests of the losses once more, with the Triton kernels in place of torch's passes over a tile, and the kernels alone.

Whether Triton interprets is settled when it is imported: test_head_kernels.py runs this in a process with TRITON_INTERPRET=1.
"""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from test_losses import *  # noqa: F403
from torch import Tensor

from r1distill.train import head, head_kernels, head_tiles
from r1distill.train.head_tiles import MASKED, NOTHING, Running, Settings, Slopes
from r1distill.train.tile_size import CPU_TILE, TileSize

TEMPERATURES = [1.0, 2.0, 3.7]
# thousands of programs, each of which takes the interpreter milliseconds
del test_how_it_is_tiled_changes_nothing, test_the_gradient_is_that_of_finite_differences  # noqa: F821

in_torch = {"fold": head_tiles.fold, "to_gradient": head_tiles.to_gradient}


@pytest.fixture(autouse=True, scope="module")
def several_tiles_and_no_other_passes() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(head, "CPU_TILE", TileSize(7, 32))
        patch.setattr(head, "on_tiles", lambda z: head_kernels)
        for name in in_torch:
            patch.delattr(head_tiles, name)
        yield


def logits(n: int = 6, v: int = 5000, scale: float = 5.0) -> Tensor:
    """More than two blocks and not a multiple of one; a row of one certain word, one half and one wholly left out."""
    z = scale * torch.randn(n, v, generator=torch.Generator().manual_seed(0))
    z[0, v - 1] = 500.0
    z[1, ::2] = MASKED
    z[2] = MASKED
    return z


def folded(fold: Any, z: Tensor, settings: Settings) -> Running:
    nothing = z.new_full((len(z),), NOTHING)
    running = Running(nothing, *(torch.zeros_like(nothing) for _ in range(3)))
    for part in z.split(2300, dim=1):
        fold(part.clone(), running, settings)
    return running


@pytest.mark.parametrize("temperature", TEMPERATURES)
@pytest.mark.parametrize("layout", ["rows", "columns"])
def test_folded_numbers_are_those_of_float64(temperature, layout):
    z = logits()
    if layout == "columns":
        z = z.mT.contiguous().mT
    options = Settings(temperature, False, True, CPU_TILE, torch.float32)
    found = folded(head_kernels.fold, z, options)
    exact = folded(in_torch["fold"], z.double(), options)
    for name in Running._fields:
        if name == "tempered" and temperature == 1.0:
            continue
        torch.testing.assert_close(getattr(found, name).double(), getattr(exact, name), rtol=3e-6, atol=1e-5)


@pytest.mark.parametrize("temperature", TEMPERATURES)
@pytest.mark.parametrize("wants_mean", [False, True])
def test_the_gradient_is_that_of_float64_in_place_and_in_a_smaller_dtype(temperature, wants_mean):
    z = logits()
    options = Settings(temperature, wants_mean, False, CPU_TILE, torch.float32)
    chance = torch.Generator().manual_seed(1)
    rest, tempered = ((z / t).logsumexp(1).clamp(min=NOTHING) for t in (1.0, temperature))
    of_rest, of_tempered, of_each = torch.randn(3, len(z), generator=chance).unbind()
    slopes = Slopes(rest, of_rest, tempered, of_tempered, of_each)
    exact = torch.empty_like(z, dtype=torch.double)
    in_torch["to_gradient"](z.double(), exact, Slopes(*(each.double() for each in slopes)), options)
    rounded = torch.empty_like(z, dtype=torch.bfloat16)
    head_kernels.to_gradient(z, rounded, slopes, options)
    head_kernels.to_gradient(z, z, slopes, options)
    torch.testing.assert_close(z.double(), exact, rtol=1e-4, atol=1e-6)  # of exp(z - rest), both about 500
    # one unit of bfloat16: the interpreter cuts off, a GPU rounds
    torch.testing.assert_close(rounded.double(), exact, rtol=2**-7, atol=1e-6)
