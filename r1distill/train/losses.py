"""Cross-entropy and the divergence from a sparse teacher, from one projection of the hidden states.

The teacher's row of a token holds the logprobs of its likeliest tokens at temperature 1; what is left of the mass is its
tail. From that row alone the distribution at another temperature does not follow, so there are three modes, and what is
none of them raises ("Logits at T = 1": DistillKit's way gives KL(p || p) = 1.3 nats at T = 2):

- "tail": temperature 1. The row and one bucket for all other tokens: a KL of coarser distributions, never more than the
  whole one and 0 for equal models.
- "exact": any temperature, with the mass outside the row at that temperature, which only a pass over all logits gives.
- "conditional": any temperature. Both sides renormalised on the row at the temperature, beside the mass inside and outside
  at temperature 1: KL(p || q) = KL(mass) + mass KL(p in row || q in row), whose second part is tempered. Its mass, which
  is the student's in a reverse KL, then is a weight without a gradient.

Losses here are sums over tokens. Who calls divides by the number of tokens of the whole batch, once, and multiplies by T^2
(Hinton et al. 2015, https://arxiv.org/abs/1503.02531): the gradient of a tempered term shrinks with it.
"""

import math
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from r1distill.train.head import head_numbers
from r1distill.train.head_tiles import NOTHING

Mode = Literal["exact", "conditional", "tail"]
Divergence = Literal["forward", "reverse", "jensen_shannon"]
IGNORED = -100
LEAST_TAIL = 1e-7  # mass; float32 logprobs do not tell a smaller one from none
MASS_TOLERANCE = 1e-3


@dataclass(frozen=True, slots=True)
class HeadLosses:
    """Sums over the tokens with a label; `ce_sum` and `kl_sum` `()` have gradients, the others are for the log.

    `ce_sum` includes the label smoothing, `nll_sum` does not. `kl_sum` is over the `n_teacher_tokens` that have a row, in
    nats at the temperature, to be multiplied by T^2; in mode "conditional" its part at temperature 1 is divided by T^2 for
    that. `teacher_mass_sum` is the mass inside the rows, `n_correct` how often the label was the likeliest token,
    `entropy_sum` of the student's whole distributions in nats, where it was asked for.
    """

    ce_sum: Tensor
    kl_sum: Tensor
    n_tokens: int
    n_teacher_tokens: int
    nll_sum: Tensor
    teacher_mass_sum: Tensor
    n_correct: Tensor
    entropy_sum: Tensor


def fused_ce_kl(
    hidden: Tensor,
    weight: Tensor,
    labels: Tensor,
    teacher_ids: Tensor | None = None,
    teacher_logprobs: Tensor | None = None,
    *,
    teacher_tail: Tensor | None = None,
    temperature: float = 1.0,
    mode: Mode = "conditional",
    divergence: Divergence = "forward",
    label_smoothing: float = 0.0,
    with_entropy: bool = False,
) -> HeadLosses:
    """Cross-entropy and divergence of the next-token distributions softmax(hidden @ weight.T).

    `hidden (N, H)`, `weight (V, H)`, `labels (N,)`: the label of each position itself, already shifted; -100 leaves a
    token out of both. `teacher_ids (N, K)` and `teacher_logprobs (N, K)` at temperature 1, with -1 and -inf where a row is
    shorter; a token whose row is empty has a cross-entropy only. `teacher_tail (N,)` is the log of the mass outside the
    row at `temperature`, which mode "exact" needs unless that is 1.

    Raises ValueError for what has no sound meaning: other shapes, ids outside the vocabulary or twice in a row, a row with
    more mass than 1, mode "tail" at another temperature than 1, "exact" without the tail.
    """
    if not 0.0 <= label_smoothing < 1.0:
        raise ValueError(f"label_smoothing = {label_smoothing}: it is a share, at least 0 and below 1")
    taught = (labels != IGNORED).nonzero()[:, 0]
    n, hidden, labels = len(labels), hidden[taught], labels[taught]
    check_labels(labels, weight)
    wants: Any = {"wants_mean": label_smoothing > 0, "wants_entropy": with_entropy}
    if teacher_ids is None or teacher_logprobs is None:
        if teacher_ids is not None or teacher_logprobs is not None or teacher_tail is not None:
            raise ValueError("teacher_ids and teacher_logprobs come together, and teacher_tail only with them")
        numbers = head_numbers(hidden, weight, labels[:, None], **wants)
        kl_sum = mass_sum = hidden.new_zeros((), dtype=numbers.total.dtype)
        n_teacher = 0
    else:
        check_settings(mode, divergence, temperature, teacher_tail)
        check_shapes(n, teacher_ids, teacher_logprobs, teacher_tail)
        teacher_ids, teacher_logprobs = teacher_ids[taught], teacher_logprobs[taught]
        tail = None if teacher_tail is None else teacher_tail[taught]
        present = teacher_ids >= 0
        teacher_logprobs = teacher_logprobs.masked_fill(~present, -torch.inf)
        check_rows(weight, teacher_ids, teacher_logprobs, tail)
        ids = torch.cat([labels[:, None], teacher_ids], dim=1)
        numbers = head_numbers(hidden, weight, ids, temperature=temperature if mode == "exact" else 1.0, **wants)
        has_row = present.any(1).nonzero()[:, 0]
        n_teacher = len(has_row)
        teacher = teacher_logprobs[has_row].to(numbers.total.dtype)
        per_token = divergence_of(
            teacher, numbers.selected[has_row, 1:], None if tail is None else tail[has_row], numbers.outside[has_row],
            temperature, mode, divergence,
        )  # fmt: skip
        kl_sum = per_token.sum()
        mass_sum = teacher.exp().sum().detach()
    nll = numbers.total - numbers.selected[:, 0]
    nll_sum = nll.sum()
    ce_sum = nll_sum
    if label_smoothing:
        # with the distribution (1 - e) one-hot + e / V (https://arxiv.org/abs/1512.00567)
        ce_sum = (1 - label_smoothing) * nll_sum + label_smoothing * (numbers.total - numbers.mean).sum()
    n_correct = (numbers.selected[:, 0].detach() >= numbers.top).sum()
    return HeadLosses(
        ce_sum, kl_sum, len(labels), n_teacher, nll_sum.detach(), mass_sum, n_correct, numbers.entropy.sum()
    )


def divergence_of(
    teacher: Tensor,
    student: Tensor,
    teacher_tail: Tensor | None,
    student_outside: Tensor,
    temperature: float,
    mode: Mode,
    divergence: Divergence,
) -> Tensor:
    """`(N,)` from rows `(N, K)`: teacher logprobs at temperature 1, student logits, -inf for no entry.

    `student_outside (N,)` is the logsumexp of the other logits over the temperature, in "conditional" over 1.
    """
    if mode == "conditional":
        inside = of_entries((teacher / temperature).log_softmax(1), (student / temperature).log_softmax(1), divergence)
        log_p, log_q = buckets(teacher, student, None, student_outside, 1.0)
        within = log_p[:, :-1].logsumexp(1), log_q[:, :-1].logsumexp(1)
        mass = of_entries(
            torch.stack([within[0], log_p[:, -1]], 1), torch.stack([within[1], log_q[:, -1]], 1), divergence
        )
        weight = within[1 if divergence == "reverse" else 0].exp()
        if temperature != 1:  # a tempered part, the larger one, must not be escaped by leaving the row
            weight = weight.detach()
        return weight * inside + mass / temperature**2
    return of_entries(*buckets(teacher, student, teacher_tail, student_outside, temperature), divergence)


def buckets(
    teacher: Tensor, student: Tensor, teacher_tail: Tensor | None, student_outside: Tensor, temperature: float
) -> tuple[Tensor, Tensor]:
    """Logprobs `(N, K + 1)` of teacher and student at the temperature: the row, then all other tokens as one."""
    if teacher_tail is None:  # temperature 1: what the row leaves
        left = (1.0 - teacher.double().exp().sum(1)).to(teacher.dtype)
        tail = torch.where(left > LEAST_TAIL, left, 0).log()
        row = teacher
    else:
        tail = teacher_tail.to(teacher.dtype)
        # log p_T = log p / T - log sum p^(1/T), and the row and the tail together are 1
        row = (teacher / temperature).log_softmax(1) + log1mexp(tail)[:, None]
    logits = torch.cat([student / temperature, student_outside[:, None]], 1)
    return torch.cat([row, tail[:, None]], 1), logits.log_softmax(1)


def of_entries(log_p: Tensor, log_q: Tensor, divergence: Divergence) -> Tensor:
    """Divergence `(N,)` of distributions given by logprobs `(N, B)`; -inf, or less than NOTHING, is no mass."""
    if divergence == "forward":
        return relative_entropy(log_p, log_q)
    if divergence == "reverse":
        # a teacher's mass of nothing at all would make it infinite; float32 cannot tell it from LEAST_TAIL
        return relative_entropy(log_q, log_p.clamp(min=math.log(LEAST_TAIL)), log_p)
    log_m = torch.logaddexp(log_p.clamp(min=NOTHING), log_q.clamp(min=NOTHING)) - math.log(2)
    return (relative_entropy(log_p, log_m) + relative_entropy(log_q, log_m)) / 2


def relative_entropy(log_p: Tensor, log_q: Tensor, also: Tensor | None = None) -> Tensor:
    """KL(p || q) `(N,)`, where 0 log 0 = 0. `also`: an entry that has no mass here either is none at all."""
    has_mass = log_p > NOTHING / 2
    if also is not None:
        has_mass &= ~(torch.isinf(also) & torch.isinf(log_p))
    log_p = log_p.masked_fill(~has_mass, 0)
    return (log_p.exp() * (log_p - log_q.masked_fill(~has_mass, 0))).masked_fill(~has_mass, 0).sum(1)


def log1mexp(x: Tensor) -> Tensor:
    """log(1 - exp(x)) for x < 0 (Mächler 2012, https://cran.r-project.org/package=Rmpfr/vignettes/log1mexp-note.pdf)."""
    return torch.where(x > -math.log(2), torch.log(-torch.expm1(x)), torch.log1p(-torch.exp(x)))


def check_settings(mode: Mode, divergence: Divergence, temperature: float, teacher_tail: Tensor | None) -> None:
    if mode not in get_args(Mode):
        raise ValueError(f"mode = {mode!r}: one of {', '.join(get_args(Mode))}")
    if divergence not in get_args(Divergence):
        raise ValueError(f"divergence = {divergence!r}: one of {', '.join(get_args(Divergence))}")
    if not (temperature > 0 and math.isfinite(temperature)):
        raise ValueError(f"temperature = {temperature}: it is more than 0")
    if mode == "tail" and temperature != 1.0:
        raise ValueError(
            f'mode "tail" at temperature {temperature}: the tail at temperature 1 does not tell the one at another; use '
            '"conditional", or "exact" with the tail at that temperature'
        )
    if mode == "exact" and temperature != 1.0 and teacher_tail is None:
        raise ValueError(
            f'mode "exact" at temperature {temperature} needs teacher_tail, the log of the mass outside the row at that '
            "temperature, from a pass over all logits; without one use conditional"
        )
    if mode == "conditional" and teacher_tail is not None:
        raise ValueError('mode "conditional" has no use for teacher_tail; "exact" has')


def check_labels(labels: Tensor, weight: Tensor) -> None:
    if not len(labels):
        return
    least, most = torch.stack(labels.aminmax()).tolist()
    if not 0 <= least <= most < len(weight):
        raise ValueError(f"labels from {least} to {most}, and the head has {len(weight)} rows")


def check_shapes(n: int, ids: Tensor, logprobs: Tensor, tail: Tensor | None) -> None:
    if ids.ndim != 2 or ids.shape != logprobs.shape or len(ids) != n or (tail is not None and tail.shape != (n,)):
        raise ValueError(
            f"teacher_ids {tuple(ids.shape)} and teacher_logprobs {tuple(logprobs.shape)}: both are (N, K), and teacher_tail "
            f"(N,), with N = {n}"
        )


def check_rows(weight: Tensor, ids: Tensor, logprobs: Tensor, tail: Tensor | None) -> None:
    """Of the rows `(N, K)` and tails `(N,)` of the tokens that count; all facts at once, one wait for the device."""
    if not ids.numel():
        return
    ascending = ids.sort(dim=1).values
    twice = ((ascending[:, 1:] == ascending[:, :-1]) & (ascending[:, 1:] >= 0)).any()
    mass = logprobs.double().exp().sum(1).max()  # a NaN stays one
    largest_tail = ids.new_full((), -1) if tail is None else tail.masked_fill((ids < 0).all(1), -1).max()
    largest, has_twice, most, tail_most = torch.stack(
        [ids.max().double(), twice.double(), mass, largest_tail.double()]
    ).tolist()
    if largest >= len(weight):
        raise ValueError(
            f"a teacher's id {largest:.0f}, and the student's head has {len(weight)} rows: these vocabularies differ"
        )
    if has_twice:
        raise ValueError("a teacher's row has an id twice")
    if not most <= 1 + MASS_TOLERANCE:
        raise ValueError(f"a teacher's row has a mass of {most:.4f}; logprobs at temperature 1 have at most 1")
    if not tail_most < 0:
        raise ValueError("teacher_tail holds logs of masses below 1, so below 0")
