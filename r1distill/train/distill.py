"""TRL's SFTTrainer with our head: cross-entropy and the divergence from cached distributions in one projection.

The losses are computed inside `model.forward`, so that DDP, FSDP2 and ZeRO gather and reduce as for any other output.
Labels and the teacher's rows stand at the token that they are about; the shift to the position that predicts it is here
(`predicting`) and nowhere else.
"""

import functools
import types
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from torch import Tensor
from torch.distributed.tensor import DTensor
from transformers.utils.generic import ModelOutput
from trl.data_utils import pack_dataset
from trl.models.utils import maybe_gather_lm_head_ctx
from trl.trainer.sft_trainer import SFTTrainer

from r1distill.recipe import Kl
from r1distill.train.losses import HeadLosses, fused_ce_kl
from r1distill.train.schedules import value_at
from r1distill.train.teacher_cache import NO_ROW, TeacherCache

COLUMNS = ("input_ids", "labels", "teacher_row", "seq_lengths")


@dataclass
class LossOutput(ModelOutput):
    """Sums over the tokens of a batch, as in HeadLosses."""

    loss: Tensor | None = None
    ce_sum: Tensor | None = None
    kl_sum: Tensor | None = None
    n_tokens: Tensor | None = None
    n_teacher_tokens: Tensor | None = None
    nll_sum: Tensor | None = None
    teacher_mass_sum: Tensor | None = None
    n_correct: Tensor | None = None


def predicting(hidden: Tensor, *about: Tensor | None) -> tuple[Tensor, ...]:
    """Hidden states `(B, L, H)` of the positions that predict, beside what is said of the tokens they predict `(B, L, …)`."""
    return hidden[:, :-1], *(None if each is None else each[:, 1:] for each in about)  # type: ignore[return-value]


def add_losses(model: Any) -> None:
    """`model(..., labels=…, losses={…})` gives a LossOutput in place of logits. `model` is the bare one, within PEFT's."""
    original = model.forward
    config = model.config.get_text_config()
    for name in ("final_logit_softcapping", "logit_scale", "logits_scaling", "lm_head_multiplier", "output_multiplier"):
        if getattr(config, name, None) not in (None, 1, 1.0):
            raise ValueError(f"{config.model_type} scales its logits ({name}), which the fused head does not")

    @functools.wraps(type(model).forward)
    def forward(self: Any, *args: Any, losses: dict[str, Any] | None = None, **kwargs: Any) -> Any:
        if losses is None:
            return original(*args, **kwargs)
        labels, rows = kwargs.pop("labels"), [kwargs.pop(name, None) for name in ("teacher_ids", "teacher_logprobs")]
        kwargs["use_cache"] = False
        states = self.base_model(*args, **kwargs).last_hidden_state
        hidden, labels, ids, logprobs = predicting(states, labels, *rows)
        head = self.get_output_embeddings()
        if head.bias is not None:
            raise ValueError("a head with a bias is not supported")
        weight = head.weight.full_tensor() if isinstance(head.weight, DTensor) else head.weight
        with maybe_gather_lm_head_ctx(weight, None):
            found = fused_ce_kl(
                hidden.flatten(0, 1), weight, labels.flatten(),
                None if ids is None else ids.flatten(0, 1), None if logprobs is None else logprobs.flatten(0, 1), **losses,
            )  # fmt: skip
        return as_output(found)

    model.forward = types.MethodType(forward, model)


def as_output(losses: HeadLosses) -> LossOutput:
    def number(value: int) -> Tensor:
        return torch.tensor(float(value), device=losses.ce_sum.device)

    return LossOutput(
        ce_sum=losses.ce_sum,
        kl_sum=losses.kl_sum,
        n_tokens=number(losses.n_tokens),
        n_teacher_tokens=number(losses.n_teacher_tokens),
        nll_sum=losses.nll_sum,
        teacher_mass_sum=losses.teacher_mass_sum,
        n_correct=losses.n_correct.float(),
    )


class DistillTrainer(SFTTrainer):
    """Takes datasets of `input_ids`, `labels` and, with `kl`, `teacher_row`: the row of `cache` at each token, or NO_ROW."""

    def __init__(
        self, *, kl: Kl | None = None, label_smoothing: float = 0.0, cache: TeacherCache | None = None, **kwargs: Any
    ) -> None:
        self.kl, self.label_smoothing = kl, label_smoothing
        super().__init__(**kwargs)
        bare = self.model.get_base_model() if hasattr(self.model, "get_base_model") else self.model
        add_losses(bare)
        if cache is not None:
            self.data_collator = with_rows(self.data_collator, cache)

    def _prepare_dataset(self, dataset: Dataset, *args: Any, **kwargs: Any) -> Dataset:  # type: ignore[override]
        """Ours is tokenised and of the right length; TRL's own preparation would leave `teacher_row` out."""
        settings = self.args
        if settings.shuffle_dataset:
            dataset = dataset.shuffle(seed=settings.seed)
        packing = kwargs["packing"] if "packing" in kwargs else args[2]
        if not packing:
            return dataset
        options = {"num_proc": settings.dataset_num_proc, "desc": "Packing"}
        return pack_dataset(dataset, settings.max_length, settings.packing_strategy, options)

    def _set_signature_columns_if_needed(self) -> None:
        self._signature_columns = list(COLUMNS)

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        mode = "train" if self.model.training else "eval"
        alpha, temperature, losses = 1.0, 1.0, {"label_smoothing": self.label_smoothing if mode == "train" else 0.0}
        if self.kl is not None:
            step, steps = self.state.global_step, self.state.max_steps
            alpha, temperature = (value_at(each, step, steps) for each in (self.kl.alpha, self.kl.temperature))
            losses |= {"temperature": temperature, "mode": self.kl.mode, "divergence": self.kl.divergence}
        outputs: LossOutput = model(**inputs, losses=losses)
        total = alpha * outputs.ce_sum + (1 - alpha) * temperature**2 * outputs.kl_sum  # type: ignore[operator]
        n_tokens = outputs.n_tokens if num_items_in_batch is None else num_items_in_batch
        loss = total / torch.as_tensor(n_tokens).clamp(min=1)
        if self.args.average_tokens_across_devices and num_items_in_batch is not None:
            loss = loss * self.accelerator.num_processes  # num_items_in_batch is of all, and DDP takes the mean
        self.record(mode, outputs, alpha, temperature, inputs)
        return (loss, outputs) if return_outputs else loss

    def record(self, mode: str, outputs: LossOutput, alpha: float, temperature: float, inputs: dict[str, Any]) -> None:
        names = ("nll_sum", "kl_sum", "n_tokens", "n_teacher_tokens", "teacher_mass_sum", "n_correct")
        here = torch.stack([outputs[name].detach().double() for name in names])
        seen = torch.tensor(
            [float(inputs["labels"].numel() if "position_ids" in inputs else inputs["attention_mask"].sum())]
        )
        both = torch.cat([here, seen.to(here)])
        nll, kl, n, n_teacher, mass, correct, tokens = self.accelerator.reduce(both, "sum").tolist()
        metrics = self._metrics[mode]
        metrics["ce"].append(nll / max(n, 1))
        metrics["mean_token_accuracy"].append(correct / max(n, 1))
        if self.kl is not None:
            metrics["kl"].append(kl / max(n_teacher, 1))
            metrics["teacher_mass"].append(mass / max(n_teacher, 1))
            metrics["teacher_share"].append(n_teacher / max(n, 1))
            metrics["alpha"].append(alpha)
            metrics["temperature"].append(temperature)
        if mode == "train":
            self._total_train_tokens += int(tokens)
        metrics["num_tokens"] = [self._total_train_tokens]


def with_rows(collate: Callable[[list[dict[str, Any]]], dict[str, Any]], cache: TeacherCache) -> Any:
    """A collator that adds `teacher_ids` and `teacher_logprobs` `(B, L, K)`, K the longest row of the batch."""

    def collate_with_rows(examples: list[dict[str, Any]]) -> dict[str, Any]:
        rows = [np.asarray(example.pop("teacher_row"), dtype=np.int64) for example in examples]
        batch = collate(examples)
        shape = batch["input_ids"].shape
        if len(shape) == 2 and shape[0] == 1 < len(rows):  # padding-free: one behind the other
            rows = [np.concatenate(rows)]
        table = np.full(shape, NO_ROW, dtype=np.int64)
        for index, row in enumerate(rows):
            table[index, : len(row)] = row
        ids, logprobs = cache.gather(table.reshape(-1))
        batch["teacher_ids"] = torch.from_numpy(ids).view(*shape, -1)
        batch["teacher_logprobs"] = torch.from_numpy(logprobs).view(*shape, -1)
        return batch

    return collate_with_rows
