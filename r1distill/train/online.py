"""The dense teacher in the training itself: for small teachers and a single epoch, where a cache would not pay.

The teacher's hidden states are computed without a gradient, and the divergence of the whole distributions from both heads,
tile by tile (trl.kernels.chunked_divergence): its logits are never whole either.
"""

import functools
import os
import types
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from transformers import PreTrainedModel
from trl.kernels.chunked_divergence import ChunkedDivergenceFunction
from trl.models.utils import prepare_deepspeed, prepare_fsdp

from r1distill.train.head import refuse_other_head, whole
from r1distill.train.inner import Read, Reader

SPARING = "FSDP_CPU_RAM_EFFICIENT_LOADING"
BETA = {"forward": 0.0, "reverse": 1.0, "jensen_shannon": 0.5}
READ = ("input_ids", "attention_mask", "position_ids", "cu_seq_lens_q", "cu_seq_lens_k", "max_length_q", "max_length_k")


class Seen(NamedTuple):
    """What a teacher gives for a batch: what was read in it, and the head `(V, H)` where its distributions are wanted."""

    read: Read
    weight: Tensor | None


class OnlineTeacher:
    """Reads batches. `states` and `attention`: layers that are wanted besides the last hidden states, numbered from 1.

    Raises UserError for a model whose logits are not hidden states and head multiplied, where its distributions are wanted.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        accelerator: Any,
        *,
        with_head: bool = True,
        states: tuple[int, ...] = (),
        attention: tuple[int, ...] = (),
        max_maps: int = 0,
    ) -> None:
        if with_head:
            refuse_other_head(model, "the teacher of train.kl.online")
        reader = Reader(model.requires_grad_(False).eval(), list(states), list(attention), max_maps, "the teacher")
        read_instead(model, reader, with_head)
        self.model: Any = model
        if accelerator.distributed_type == "DEEPSPEED":
            self.model = prepare_deepspeed(model, accelerator)  # type: ignore[arg-type]
        elif accelerator.is_fsdp2:
            # accelerate prepares no model for FSDP2 without an optimizer: it would stay where it is
            shard(model, accelerator)
        elif accelerator.distributed_type == "FSDP":
            self.model = prepare_fsdp(model, accelerator)
        else:
            self.model = accelerator.prepare_model(model, evaluation_mode=True)

    @torch.no_grad()
    def __call__(self, inputs: dict[str, Any]) -> Seen:
        return self.model(**{name: inputs[name] for name in READ if name in inputs})


@contextmanager
def every_process_reads() -> Iterator[None]:
    """Within it `from_pretrained` gives every process the weights.

    FSDP's sparing way gives them to the first alone, and zeros to the others, which accelerate fills in when it prepares a
    model with its optimizer; a teacher has none.
    """
    before = os.environ.get(SPARING)
    os.environ[SPARING] = "false"
    try:
        yield
    finally:
        os.environ.pop(SPARING)
        if before is not None:
            os.environ[SPARING] = before


def shard(model: PreTrainedModel, accelerator: Any) -> None:
    """FSDP2 over the processes as the student's, in place: a layer is whole at a time, embeddings and head from the first on."""
    plugin, mesh = accelerator.state.fsdp_plugin, getattr(accelerator, "torch_device_mesh", None)
    options = {
        "mp_policy": plugin.mixed_precision_policy or MixedPrecisionPolicy(), "offload_policy": plugin.cpu_offload,
        **({} if mesh is None else {"mesh": mesh[tuple(accelerator.parallelism_config.fsdp_dim_names)]}),
    }  # fmt: skip
    layers = set(model._no_split_modules or ())
    for module in [each for each in model.modules() if type(each).__name__ in layers]:
        fully_shard(module, **options)
    fully_shard(model, **options)


def read_instead(model: Any, reader: Reader, with_head: bool) -> None:
    """`model(...)` gives a Seen, its head whole, in place of logits."""

    @functools.wraps(type(model).forward)
    def forward(self: Any, *args: Any, **kwargs: Any) -> Seen:
        return Seen(reader(*args, **kwargs), whole(self.get_output_embeddings().weight) if with_head else None)

    model.forward = types.MethodType(forward, model)


def dense_kl(
    hidden: Tensor,
    weight: Tensor,
    teacher_hidden: Tensor,
    teacher_weight: Tensor,
    *,
    temperature: float,
    divergence: str,
) -> Tensor:
    """The sum over N tokens of the divergence at the temperature, in nats, over the ids that both heads have.

    `hidden (N, H)`, `weight (V, H)`, `teacher_hidden (N, H')`, `teacher_weight (V', H')`. Heads are padded to different
    sizes (Qwen2.5: 151,936 and 152,064) beyond the tokens of one vocabulary; the rows that one alone has are left out.
    """
    words = min(len(weight), len(teacher_weight))
    weight, teacher_weight = (each if len(each) == words else each[:words] for each in (weight, teacher_weight))
    per_token, _ = ChunkedDivergenceFunction.apply(
        hidden, weight, None, teacher_hidden, teacher_weight, None, BETA[divergence], temperature
    )  # type: ignore[misc]
    return per_token.sum()
