"""The divergence from a teacher that cuts the text into other tokens than the student.

Both read the same reply, and alignment.py says which of their tokens stand for the same bytes. Two ways to compare:

- "aligned": where a token of one is a token of the other, their distributions follow the same text and are compared token by
  token on what both vocabularies have, with one bucket for the rest; what only one side has is compared by rank. Where the
  same bytes are several tokens of either, the probability of the whole is, against that of anything else. With equal
  vocabularies this is the plain divergence (GOLD, https://huggingface.co/spaces/HuggingFaceH4/on-policy-distillation, merges
  distributions over the last token instead, which are then over different texts).
- "uld": nothing is known of which token is which. Both distributions are sorted, and the loss is the sum of absolute
  differences by rank (https://arxiv.org/abs/2402.12030); several tokens are one by the chain rule: the last one's
  distribution times the probability of those before it.

The temperature is that of the distributions that are compared: texts of several tokens are weighed at temperature 1 first,
since a product of tempered probabilities would depend on how many tokens a text is cut into. Differences by rank are divided
by it: their gradients shrink as 1 / T where those of a divergence do as 1 / T^2, and the caller multiplies by T^2.

Logits are made for a few groups at a time, and again in the backward pass: of size (N, V) nothing is kept.
"""

from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from r1distill.train.losses import Divergence, of_entries

Way = Literal["aligned", "uld"]
GROUPS_AT_ONCE = 256
LEAST = 1e-12  # of a probability: below it is none


class Side(NamedTuple):
    """A model's hidden states `(N, H)`, which predict its tokens `ids (N,)`, and its head `(V, H)`."""

    hidden: Tensor
    weight: Tensor
    ids: Tensor


class Spans(NamedTuple):
    """G groups, first and last token of either side: each `(G,)`, places in `Side.ids`."""

    first: Tensor
    last: Tensor
    teacher_first: Tensor
    teacher_last: Tensor

    def part(self, rows: slice) -> "Spans":
        return Spans(*(each[rows] for each in self))


class Shared(NamedTuple):
    """The tokens that both vocabularies have, `(M,)` ids of either, and what only one has, `(R,)` and `(R',)`."""

    student: Tensor
    teacher: Tensor
    student_rest: Tensor
    teacher_rest: Tensor


def shared_of(student: list[int], teacher: list[int], rows: int, teacher_rows: int) -> Shared:
    """`rows`, `teacher_rows`: of the heads, which may be padded beyond their vocabularies; padding is among the rest."""
    ours, theirs = torch.tensor(student), torch.tensor(teacher)
    rest, teacher_rest = torch.ones(rows, dtype=torch.bool), torch.ones(teacher_rows, dtype=torch.bool)
    rest[ours], teacher_rest[theirs] = False, False
    return Shared(ours, theirs, rest.nonzero()[:, 0], teacher_rest.nonzero()[:, 0])


def cross_sum(
    student: Side,
    teacher: Side,
    spans: Spans,
    shared: Shared,
    *,
    way: Way,
    divergence: Divergence = "forward",
    temperature: float = 1.0,
    at_once: int = GROUPS_AT_ONCE,
) -> Tensor:
    """The sum over the groups `()`, in float32; gradients reach the student's hidden states and head."""
    total = student.hidden.new_zeros((), dtype=torch.float32)
    for start in range(0, len(spans.first), at_once):
        part = spans.part(slice(start, start + at_once))
        total = total + checkpoint(
            part_sum, student.hidden, student.weight, student.ids, teacher, part, shared, way, divergence, temperature,
            use_reentrant=False,
        )  # fmt: skip
    return total


def part_sum(
    hidden: Tensor,
    weight: Tensor,
    ids: Tensor,
    teacher: Side,
    spans: Spans,
    shared: Shared,
    way: Way,
    divergence: Divergence,
    temperature: float,
) -> Tensor:
    ours = Part.of(Side(hidden, weight, ids), spans.first, spans.last, temperature)
    with torch.no_grad():
        theirs = Part.of(teacher, spans.teacher_first, spans.teacher_last, temperature)
    if way == "uld":
        ranked = by_rank(*(side.log_probs.exp() * side.before.exp()[:, None] for side in (ours, theirs)))
        return ranked.sum() / temperature
    is_pair = (spans.first == spans.last) & (spans.teacher_first == spans.teacher_last)
    whole = matched(ours.log_probs[is_pair], theirs.log_probs[is_pair], shared, divergence, temperature)
    spoken = two_outcomes(ours.said[~is_pair], theirs.said[~is_pair], divergence, temperature)
    return whole.sum() + spoken.sum()


class Part(NamedTuple):
    """Of G groups: `log_probs (G, V)` at the last token and at the temperature; logprobs `before (G,)` of the tokens before
    it and `said (G,)` of all, at temperature 1."""

    log_probs: Tensor
    before: Tensor
    said: Tensor

    @staticmethod
    def of(side: Side, first: Tensor, last: Tensor, temperature: float) -> "Part":
        logits = logits_at(side, last)
        said = said_in(logits, side.ids[last])
        lengths = last - first
        group = torch.repeat_interleave(torch.arange(len(first), device=first.device), lengths)
        # places first .. last - 1 of every group
        starts = torch.repeat_interleave(lengths.cumsum(0) - lengths, lengths)
        places = first[group] + torch.arange(len(group), device=first.device) - starts
        before = said.new_zeros(len(first))
        if len(places):
            before = before.index_add(0, group, said_in(logits_at(side, places), side.ids[places]))
        return Part((logits / temperature).log_softmax(1), before, said + before)


def logits_at(side: Side, places: Tensor) -> Tensor:
    with torch.autocast(side.hidden.device.type, enabled=False):
        return side.hidden[places].float() @ side.weight.float().T


def said_in(logits: Tensor, ids: Tensor) -> Tensor:
    """Logprobs `(G,)` of the tokens that were said, of logits `(G, V)`."""
    return logits.gather(1, ids[:, None])[:, 0] - logits.logsumexp(1)


def matched(ours: Tensor, theirs: Tensor, shared: Shared, divergence: Divergence, temperature: float) -> Tensor:
    """`(G,)` of logprobs `(G, V)` and `(G, V')`: the divergence on shared tokens and a bucket, and the rest by rank."""
    common, other = ours[:, shared.student], theirs[:, shared.teacher]
    if not len(shared.student_rest) and not len(shared.teacher_rest):
        return of_entries(other, common, divergence)
    rest, other_rest = ours[:, shared.student_rest], theirs[:, shared.teacher_rest]
    found = of_entries(with_bucket(other, other_rest), with_bucket(common, rest), divergence)
    return found + by_rank(rest.exp(), other_rest.exp()) / temperature


def with_bucket(common: Tensor, rest: Tensor) -> Tensor:
    bucket = rest.logsumexp(1, keepdim=True) if rest.shape[1] else common.new_full((len(common), 1), -torch.inf)
    return torch.cat([common, bucket.clamp(min=torch.tensor(LEAST).log().item())], 1)


def two_outcomes(ours: Tensor, theirs: Tensor, divergence: Divergence, temperature: float) -> Tensor:
    """`(G,)`: of the same text being said or not, from its logprobs `(G,)` at temperature 1."""

    def both(said: Tensor) -> Tensor:
        said = said.clamp(max=-1e-6)
        return (torch.stack([said, torch.log(-torch.expm1(said))], 1) / temperature).log_softmax(1)

    return of_entries(both(theirs), both(ours), divergence)


def by_rank(ours: Tensor, theirs: Tensor) -> Tensor:
    """sum over r of |p_(r) - q_(r)| `(G,)` of probabilities `(G, V)` and `(G, V')`, sorted; the shorter side ends in zeros."""
    most = max(ours.shape[1], theirs.shape[1])
    first, second = (
        torch.nn.functional.pad(each.sort(1, descending=True).values, (0, most - each.shape[1]))
        for each in (ours, theirs)
    )
    return (first - second).abs().sum(1)
