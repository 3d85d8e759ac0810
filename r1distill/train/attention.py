"""Attention: whom the student's tokens attend to, drawn to the teacher's.

Maps are compared as they are: KL(teacher's || student's) of each query's distribution over the tokens that it sees, the mean
over the heads (TinyBERT compares maps too, https://arxiv.org/abs/1909.10351). They take attention that gives maps, the
square of the length in memory, and equally many heads; where student and teacher have not, the mean over the heads stands
for each. Relations ask for none of that (MiniLMv2, https://arxiv.org/abs/2012.15828): how the queries of the tokens relate
to each other, how the keys and how the values do, softmax(A A^T / sqrt(d)) in relation heads, into which the dimensions of
either model are divided anew. Every token relates to what it sees: itself and what came before it in the same sequence.
"""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import cast

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint


def sees(segments: Tensor) -> Tensor:
    """`(B, L, L)`: whether token i sees token j. `segments (B, L)`: the number of a token's sequence; padding is one too."""
    length = segments.shape[1]
    causal = torch.ones(length, length, dtype=torch.bool, device=segments.device).tril()
    return causal & (segments[:, :, None] == segments[:, None, :])


def segments_of(position_ids: Tensor | None, attention_mask: Tensor | None, shape: torch.Size) -> Tensor:
    """`(B, L)`: which sequence of its row a token is of. Packed sequences begin where the positions do; -1 is padding."""
    if position_ids is not None:
        segments = (position_ids == 0).long().cumsum(1)
    else:
        segments = torch.zeros(
            shape, dtype=torch.long, device=None if attention_mask is None else attention_mask.device
        )
    return segments if attention_mask is None else segments.masked_fill(attention_mask == 0, -1)


def maps_sum(student: Sequence[Tensor], teacher: Sequence[Tensor], taught: Tensor) -> Tensor:
    """The sum over the taught queries of the mean over heads and pairs `()`, in nats.

    `student`: of each pair `(B, A, L, L)`, rows that are distributions; `teacher` `(B, A', L, L)`; `taught (B, L)` bool.
    """
    per_pair = []
    for ours, theirs in zip(student, teacher, strict=True):
        if ours.shape[1] != theirs.shape[1]:
            ours, theirs = ours.mean(1, keepdim=True), theirs.mean(1, keepdim=True)
        per_pair.append(divergence(theirs.float(), ours.float()).mean(1)[taught].sum())
    return torch.stack(per_pair).mean()


def relations_sum(
    student: Sequence[Sequence[Tensor]],
    teacher: Sequence[Sequence[Tensor]],
    taught: Tensor,
    segments: Tensor,
    heads: int,
) -> Tensor:
    """The sum over the taught tokens of the mean over relation heads, kinds and pairs `()`, in nats.

    `student`: of each pair the queries, keys and values `(B, L, D)`, each with a D of its own; `teacher` alike. Each D is a
    multiple of `heads`. `taught (B, L)` bool, `segments (B, L)` as of `segments_of`.
    """
    visible = sees(segments)
    parts = []
    for ours, theirs in zip(student, teacher, strict=True):
        for mine, other in zip(ours, theirs, strict=True):
            found = divergence(relation(other, visible, heads), relation(mine, visible, heads))
            parts.append(found.mean(1)[taught].sum())
    return torch.stack(parts).mean()


def relations_in_blocks(
    student: Sequence[Sequence[Tensor]],
    teacher: Sequence[Sequence[Tensor]],
    taught: Tensor,
    segments: Tensor,
    heads: int,
    parts: Sequence[slice],
) -> Tensor:
    """As `relations_sum`, where a token relates only to those of its own part; one part is in memory at a time."""

    def of_part(part: slice) -> Tensor:
        ours, theirs = ([[each[:, part] for each in layer] for layer in side] for side in (student, teacher))
        return relations_sum(ours, theirs, taught[:, part], segments[:, part], heads)

    found = [
        of_part(part) if len(parts) == 1 else cast(Tensor, checkpoint(of_part, part, use_reentrant=False))
        for part in parts
        if taught[:, part].any()
    ]
    return torch.stack(found).sum() if found else taught.new_zeros((), dtype=torch.float32)


def relation(vectors: Tensor, visible: Tensor, heads: int) -> Tensor:
    """softmax(A A^T / sqrt(d)) `(B, R, L, L)` over what is visible, of `vectors (B, L, D)` in R heads of d = D / R."""
    split = vectors.float().unflatten(-1, (heads, -1)).transpose(1, 2)
    with torch.autocast(split.device.type, enabled=False):  # which would round scores of hundreds to whole numbers
        scores = split @ split.mT / math.sqrt(split.shape[-1])
    return scores.masked_fill(~visible[:, None], -torch.inf).softmax(-1)


def divergence(p: Tensor, q: Tensor) -> Tensor:
    """KL(p || q) over the last dimension; 0 log 0 = 0, and a mass of nothing at all under q counts as the least there is."""
    least = torch.finfo(p.dtype).tiny
    return (p * (p.clamp(min=least).log() - q.clamp(min=least).log())).sum(-1)


def blocks(length: int, most: int, step: int) -> list[slice]:
    """A row of `length` in parts of at most `most` tokens, cut at other places in every step."""
    if length <= most:
        return [slice(0, length)]
    first = int(torch.randint(1, most + 1, (), generator=torch.Generator().manual_seed(step)))
    ends = [*range(first, length, most), length]
    return [slice(start, end) for start, end in pairwise([0, *ends])]
