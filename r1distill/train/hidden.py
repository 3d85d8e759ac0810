"""Hidden states: the student's after a layer drawn to the teacher's after another, token by token.

The scale of the states grows with depth and differs between models, so neither loss depends on it. Where the widths differ
the student's are projected by a learned matrix (TinyBERT, equation 8, https://arxiv.org/abs/1909.10351), which is part of
the training and not of the student.
"""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

Loss = Literal["cosine", "mse"]


def hidden_sum(
    student: Sequence[Tensor], teacher: Sequence[Tensor], projections: Sequence[nn.Module] | None, loss: Loss
) -> Tensor:
    """The sum over N tokens of the mean over the pairs `()`, in float32 (float64 where the student is).

    `student`: of each pair `(N, H)`, `teacher`: `(N, H')`; `projections` from H to H' where these differ.
    """
    per_pair = []
    for place, (ours, theirs) in enumerate(zip(student, teacher, strict=True)):
        projected = ours if projections is None else projections[place](ours)
        per_pair.append(distance(exact(projected), exact(theirs), loss).sum())
    return torch.stack(per_pair).mean()


def distance(ours: Tensor, theirs: Tensor, loss: Loss) -> Tensor:
    """`(N,)` of states `(N, H)`: 1 - cos, or the mean squared difference of the layer-normalised states.

    The latter is 2 (1 - cos) of the states less their mean over the dimensions.
    """
    if loss == "cosine":
        return 1 - nn.functional.cosine_similarity(ours, theirs, dim=-1)
    return (normalised(ours) - normalised(theirs)).square().mean(-1)


def normalised(states: Tensor) -> Tensor:
    """Mean 0 and variance 1 over the dimensions, without weights."""
    return nn.functional.layer_norm(states, states.shape[-1:], eps=1e-8)  # early states are small


def exact(states: Tensor) -> Tensor:
    return states if states.dtype == torch.float64 else states.float()


def new_projections(pairs: int, width: int, teacher_width: int, seed: int) -> nn.ModuleList | None:
    """A linear map for each pair, which keeps angles at first; None where the widths are one."""
    if width == teacher_width:
        return None
    made = nn.ModuleList(nn.Linear(width, teacher_width, bias=False) for _ in range(pairs))
    generator = torch.Generator().manual_seed(seed)
    for linear in made:
        nn.init.orthogonal_(linear.weight, generator=generator)  # type: ignore[arg-type]
    return made
