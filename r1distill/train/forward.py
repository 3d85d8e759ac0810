"""The student's forward pass with the losses in it: cross-entropy, and all that the teacher gives.

In there DDP, FSDP2 and ZeRO gather and reduce as for any other output. Labels and the teacher's rows stand at the token
that they are about; `at_predictor` moves them to the position that predicts it, and nothing else does.
"""

import functools
import types
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.utils.generic import ModelOutput
from trl.trainer.utils import maybe_gather_lm_head_ctx

from r1distill.errors import UserError
from r1distill.inner_sections import Attention, Hidden
from r1distill.train.attention import blocks, maps_sum, relations_in_blocks, segments_of
from r1distill.train.cross_tokenizer import Shared, Side, Spans, Way, cross_sum
from r1distill.train.head import refuse_other_head, whole
from r1distill.train.hidden import hidden_sum
from r1distill.train.inner import Pairs, Reader
from r1distill.train.losses import IGNORED, Divergence, HeadLosses, Mode, fused_ce_kl
from r1distill.train.online import Seen, dense_kl

PROJECTIONS = "teacher_projections"  # of the student's states, in the training and not in what is saved of it


@dataclass
class LossOutput(ModelOutput):
    """`loss ()`, the mean over the tokens of this batch, the sums of HeadLosses, and those of what is read inside."""

    loss: Tensor | None = None
    ce_sum: Tensor | None = None
    kl_sum: Tensor | None = None
    n_tokens: Tensor | None = None
    n_teacher_tokens: Tensor | None = None
    nll_sum: Tensor | None = None
    teacher_mass_sum: Tensor | None = None
    n_correct: Tensor | None = None
    entropy_sum: Tensor | None = None
    hidden_sum: Tensor | None = None
    attention_sum: Tensor | None = None


@dataclass(frozen=True)
class Weights:
    """L = alpha CE + (1 - alpha) T^2 KL + hidden H + attention A, and how the KL is taken; without a teacher CE alone."""

    label_smoothing: float
    alpha: float = 1.0
    temperature: float = 1.0
    mode: Mode = "conditional"
    divergence: Divergence = "forward"
    hidden: float = 0.0
    attention: float = 0.0

    def total(self, sums: LossOutput) -> Tensor:
        assert sums.ce_sum is not None and sums.kl_sum is not None  # noqa: PT018
        found = self.alpha * sums.ce_sum + (1 - self.alpha) * self.temperature**2 * sums.kl_sum
        for weight, inner in ((self.hidden, sums.hidden_sum), (self.attention, sums.attention_sum)):
            if inner is not None:
                found = found + weight * inner
        return found


@dataclass(frozen=True)
class Inside:
    """What is compared inside the models, and which layers with which."""

    hidden: Hidden | None
    attention: Attention | None
    pairs: Pairs


class Crossed(NamedTuple):
    """Of a batch that the teacher read in its own tokens `ids (B, L')`: which of them belong to which of the student's."""

    ids: Tensor
    spans: Spans  # places in the flattened predictors of either side
    shared: Shared
    way: Way


def at_predictor(about: Tensor, empty: float) -> Tensor:
    """What is said of each token `(B, L, …)`, at the position that predicts it; `empty` for the last, which predicts none."""
    return torch.cat([about[:, 1:], torch.full_like(about[:, :1], empty)], dim=1)


def add_losses(model: PreTrainedModel, inside: Inside | None = None) -> None:
    """`model(..., labels=…, weights=…)` gives a LossOutput in place of logits. `model` is the bare one, within PEFT's.

    Labels are at their tokens, `shift_labels` (of sequence parallelism) and the teacher's rows at the predictors.
    """
    original = model.forward
    config = model.config.get_text_config()
    refuse_other_head(model, "the student")
    if getattr(config, "output_router_logits", False):
        raise UserError(f"{config.model_type} with output_router_logits: the loss of the router is not supported")
    pairs = inside.pairs if inside else Pairs([], [], 0)
    max_maps = inside.attention.max_tokens if inside and inside.attention and inside.attention.loss == "maps" else 0
    reader = Reader(
        model, [ours for ours, _ in pairs.hidden], [ours for ours, _ in pairs.attention], max_maps, "the student"
    )

    @functools.wraps(type(model).forward)
    def forward(self: Any, *args: Any, weights: Weights | None = None, **kwargs: Any) -> Any:
        if weights is None:
            return original(*args, **kwargs)
        labels, shifted = kwargs.pop("labels", None), kwargs.pop("shift_labels", None)
        if shifted is None:
            shifted = at_predictor(labels, IGNORED)
        teacher = [kwargs.pop(name, None) for name in ("teacher_ids", "teacher_logprobs", "teacher_tail")]
        seen: Seen | None = kwargs.pop("online", None)
        crossed: Crossed | None = kwargs.pop("crossed", None)
        step: int = kwargs.pop("step", 0)
        read = reader(*args, **kwargs)
        hidden = read.hidden
        weight = whole(self.get_output_embeddings().weight)
        with maybe_gather_lm_head_ctx(weight):  # type: ignore[arg-type]
            found = fused_ce_kl(
                hidden.flatten(0, 1), weight, shifted.flatten(),
                *(None if each is None else each.flatten(0, 1) for each in teacher[:2]),
                teacher_tail=None if teacher[2] is None else teacher[2].flatten(), temperature=weights.temperature,
                mode=weights.mode, divergence=weights.divergence, label_smoothing=weights.label_smoothing,
                with_entropy=True,
            )  # fmt: skip
        output = as_output(found)
        taught = shifted != IGNORED
        if seen is not None and seen.weight is not None:
            output.kl_sum, n_compared = online_kl(hidden, weight, taught, kwargs["input_ids"], seen, crossed, weights)
            output.n_teacher_tokens = output.teacher_mass_sum = number(n_compared, hidden)
        if seen is not None and inside is not None:
            add_inner(output, self, inside, read, seen.read, taught, kwargs, step)
        output.loss = weights.total(output) / max(found.n_tokens, 1)
        return output

    model.forward = types.MethodType(forward, model)


def online_kl(
    hidden: Tensor, weight: Tensor, taught: Tensor, ids: Tensor, seen: Seen, crossed: Crossed | None, weights: Weights
) -> tuple[Tensor, int]:
    """(sum of the divergence from a teacher in the training, over how many tokens or groups of them)."""
    assert seen.weight is not None
    if crossed is None:
        found = dense_kl(
            hidden[taught], weight, seen.read.hidden[taught], seen.weight,
            temperature=weights.temperature, divergence=weights.divergence,
        )  # fmt: skip
        return found, int(taught.sum())
    student, teacher = (
        Side(states[:, :-1].flatten(0, 1), head, tokens[:, 1:].flatten())
        for states, head, tokens in ((hidden, weight, ids), (seen.read.hidden, seen.weight, crossed.ids))
    )
    found = cross_sum(
        student, teacher, crossed.spans, crossed.shared,
        way=crossed.way, divergence=weights.divergence, temperature=weights.temperature,
    )  # fmt: skip
    return found, len(crossed.spans.first)


def add_inner(
    output: LossOutput,
    model: Any,
    inside: Inside,
    ours: Any,
    theirs: Any,
    taught: Tensor,
    inputs: dict[str, Any],
    step: int,
) -> None:
    """Put the sums of what is compared inside into `output`."""
    if inside.hidden:
        projections: nn.ModuleList | None = getattr(model, PROJECTIONS, None)
        output.hidden_sum = hidden_sum(
            [states[taught] for states in ours.states], [states[taught] for states in theirs.states],
            None if projections is None else list(projections), inside.hidden.loss,
        )  # fmt: skip
    if inside.attention and ours.maps:
        output.attention_sum = maps_sum(ours.maps, theirs.maps, taught)
    elif inside.attention:
        segments = segments_of(inputs.get("position_ids"), inputs.get("attention_mask"), taught.shape).to(taught.device)
        parts = blocks(taught.shape[1], inside.attention.max_tokens, step)
        heads = inside.pairs.relation_heads
        output.attention_sum = relations_in_blocks(ours.relations, theirs.relations, taught, segments, heads, parts)


def as_output(losses: HeadLosses) -> LossOutput:
    return LossOutput(
        ce_sum=losses.ce_sum,
        kl_sum=losses.kl_sum,
        n_tokens=number(losses.n_tokens, losses.ce_sum),
        n_teacher_tokens=number(losses.n_teacher_tokens, losses.ce_sum),
        nll_sum=losses.nll_sum,
        teacher_mass_sum=losses.teacher_mass_sum,
        n_correct=losses.n_correct.float(),
        entropy_sum=losses.entropy_sum,
    )


def number(value: int, beside: Tensor) -> Tensor:
    return torch.tensor(float(value), device=beside.device)
