"""TRL's SFTTrainer with our head: cross-entropy and the divergence from a teacher inside the model's own forward.

In there DDP, FSDP2 and ZeRO gather and reduce as for any other output. Labels and the teacher's rows stand at the token
that they are about; `at_predictor` moves them to the position that predicts it, and nothing else does.
"""

import functools
import types
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from datasets import Dataset
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler
from transformers import PreTrainedModel, Trainer
from transformers.utils.generic import ModelOutput
from trl.data_utils import pack_dataset
from trl.trainer.sft_config import SFTConfig
from trl.trainer.sft_trainer import SFTTrainer
from trl.trainer.utils import maybe_gather_lm_head_ctx

from r1distill.errors import UserError
from r1distill.train.clipping import check_clip, clip_gradients, grouped, limits_at
from r1distill.train.curriculum import PHASE, packed_by_phase
from r1distill.train.head import refuse_other_head, whole
from r1distill.train.losses import IGNORED, Divergence, HeadLosses, Mode, fused_ce_kl
from r1distill.train.online import OnlineTeacher, dense_kl
from r1distill.train.schedules import cycle_starts, share_of_peak_rate, value_at
from r1distill.train.teacher_cache import NO_ROW, TeacherCache
from r1distill.train_sections import Clip, Kl, Restarts

COLUMNS = ("input_ids", "labels", "teacher_row", "seq_lengths")


@dataclass
class LossOutput(ModelOutput):
    """`loss ()`, the mean over the tokens of this batch, and the sums of HeadLosses."""

    loss: Tensor | None = None
    ce_sum: Tensor | None = None
    kl_sum: Tensor | None = None
    n_tokens: Tensor | None = None
    n_teacher_tokens: Tensor | None = None
    nll_sum: Tensor | None = None
    teacher_mass_sum: Tensor | None = None
    n_correct: Tensor | None = None
    entropy_sum: Tensor | None = None


@dataclass(frozen=True)
class Weights:
    """L = alpha CE + (1 - alpha) T^2 KL, and how the KL is taken; without a teacher the cross-entropy alone."""

    label_smoothing: float
    alpha: float = 1.0
    temperature: float = 1.0
    mode: Mode = "conditional"
    divergence: Divergence = "forward"

    def total(self, ce_sum: Tensor, kl_sum: Tensor) -> Tensor:
        return self.alpha * ce_sum + (1 - self.alpha) * self.temperature**2 * kl_sum


def at_predictor(about: Tensor, empty: float) -> Tensor:
    """What is said of each token `(B, L, …)`, at the position that predicts it; `empty` for the last, which predicts none."""
    return torch.cat([about[:, 1:], torch.full_like(about[:, :1], empty)], dim=1)


def add_losses(model: PreTrainedModel) -> None:
    """`model(..., labels=…, weights=…)` gives a LossOutput in place of logits. `model` is the bare one, within PEFT's.

    Labels are at their tokens, `shift_labels` (of sequence parallelism) and the teacher's rows at the predictors.
    """
    original = model.forward
    config = model.config.get_text_config()
    refuse_other_head(model, "the student")
    if getattr(config, "output_router_logits", False):
        raise UserError(f"{config.model_type} with output_router_logits: the loss of the router is not supported")

    @functools.wraps(type(model).forward)
    def forward(self: Any, *args: Any, weights: Weights | None = None, **kwargs: Any) -> Any:
        if weights is None:
            return original(*args, **kwargs)
        labels, shifted = kwargs.pop("labels", None), kwargs.pop("shift_labels", None)
        if shifted is None:
            shifted = at_predictor(labels, IGNORED)
        teacher = [kwargs.pop(name, None) for name in ("teacher_ids", "teacher_logprobs", "teacher_tail")]
        online = kwargs.pop("online", None)
        kwargs["use_cache"] = False
        hidden = self.base_model(*args, **kwargs).last_hidden_state
        weight = whole(self.get_output_embeddings().weight)
        with maybe_gather_lm_head_ctx(weight):  # type: ignore[arg-type]
            found = fused_ce_kl(
                hidden.flatten(0, 1), weight, shifted.flatten(),
                *(None if each is None else each.flatten(0, 1) for each in teacher[:2]),
                teacher_tail=None if teacher[2] is None else teacher[2].flatten(), temperature=weights.temperature,
                mode=weights.mode, divergence=weights.divergence, label_smoothing=weights.label_smoothing,
                with_entropy=True,
            )  # fmt: skip
        dense = None
        if online is not None:
            taught = shifted != IGNORED
            dense = dense_kl(
                hidden[taught], weight, online[0][taught], online[1],
                temperature=weights.temperature, divergence=weights.divergence,
            )  # fmt: skip
        return as_output(found, weights, dense)

    model.forward = types.MethodType(forward, model)


def as_output(losses: HeadLosses, weights: Weights, dense: Tensor | None) -> LossOutput:
    """`dense ()`: the divergence from a teacher in the training, which takes the place of that from a cache."""

    def number(value: int) -> Tensor:
        return torch.tensor(float(value), device=losses.ce_sum.device)

    kl_sum = losses.kl_sum if dense is None else dense
    return LossOutput(
        loss=weights.total(losses.ce_sum, kl_sum) / max(losses.n_tokens, 1),
        ce_sum=losses.ce_sum,
        kl_sum=kl_sum,
        n_tokens=number(losses.n_tokens),
        n_teacher_tokens=number(losses.n_teacher_tokens if dense is None else losses.n_tokens),
        nll_sum=losses.nll_sum,
        teacher_mass_sum=losses.teacher_mass_sum if dense is None else number(losses.n_tokens),
        n_correct=losses.n_correct.float(),
        entropy_sum=losses.entropy_sum,
    )


class DistillTrainer(SFTTrainer):
    """Takes datasets of `input_ids`, `labels` and, with a `cache`, `teacher_row`: its row at each token, or NO_ROW."""

    def __init__(
        self,
        *,
        kl: Kl | None = None,
        label_smoothing: float = 0.0,
        cache: TeacherCache | None = None,
        online_teacher: PreTrainedModel | None = None,
        clip: Clip | None = None,
        restarts: Restarts | None = None,
        **kwargs: Any,
    ) -> None:
        self.kl, self.label_smoothing = kl, label_smoothing
        self.clip, self.restarts = clip, restarts
        super().__init__(**kwargs)
        if clip is not None:
            check_clip(self.accelerator.distributed_type, self.accelerator.is_fsdp2, self.args.max_grad_norm)
            grouped(self.model)  # type: ignore[arg-type] - an unknown architecture is said now, not at the first step
        bare: Any = self.model
        add_losses(bare.get_base_model() if hasattr(bare, "get_base_model") else bare)
        deepspeed = self.accelerator.state.deepspeed_plugin
        if restarts is not None and deepspeed is not None and "scheduler" in deepspeed.deepspeed_config:
            raise UserError("[train.restarts] beside the scheduler of DeepSpeed's configuration; take one of them out")
        parallelism = self.accelerator.parallelism_config
        if kl is not None and parallelism is not None and parallelism.cp_enabled:
            raise UserError("[train.kl] with context parallelism (cp_size) is not supported; use sp_size (Ulysses)")
        if cache is not None:
            self.data_collator = with_rows(self.data_collator, cache)
        self.cache = cache
        self.online = OnlineTeacher(online_teacher, self.accelerator) if online_teacher is not None else None

    def _prepare_dataset(  # type: ignore[override]
        self, dataset: Dataset, processing_class: Any, args: SFTConfig, packing: bool, *rest: Any
    ) -> Dataset:
        """Ours is tokenised and of the right length; TRL's own preparation would leave `teacher_row` out."""
        if args.shuffle_dataset:
            dataset = dataset.shuffle(seed=args.seed)
        if not packing:
            return dataset
        options = {"num_proc": args.dataset_num_proc, "desc": "Packing"}

        def pack(part: Dataset) -> Dataset:
            return pack_dataset(part, args.max_length, args.packing_strategy, options)  # type: ignore[arg-type]

        return packed_by_phase(dataset, pack, args.seed) if PHASE in dataset.column_names else pack(dataset)

    def _set_signature_columns_if_needed(self) -> None:
        self._signature_columns = list(COLUMNS)

    def weights(self, training: bool) -> Weights:
        """Of the step that is being taken: functions of it alone, so that a resumed run is the same run."""
        label_smoothing = self.label_smoothing if training else 0.0
        if self.kl is None:
            return Weights(label_smoothing)
        step, steps = self.state.global_step, self.state.max_steps
        alpha, temperature = (value_at(each, step, steps) for each in (self.kl.alpha, self.kl.temperature))
        return Weights(label_smoothing, alpha, temperature, self.kl.mode, self.kl.divergence)

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        training = self.model.training  # type: ignore[union-attr]
        weights = self.weights(training)
        tails = inputs.pop("teacher_tails", None)
        if self.cache is not None and self.kl is not None and self.kl.mode == "exact" and weights.temperature != 1.0:
            inputs["teacher_tail"] = tails[..., self.cache.temperatures.index(weights.temperature)]
        if self.online is not None:
            inputs["online"] = self.online(inputs)
        inputs["weights"] = weights
        parallelism = self.accelerator.parallelism_config
        if training and parallelism is not None and parallelism.sp_backend == "deepspeed" and parallelism.sp_enabled:
            loss, outputs = cast(
                tuple[Tensor, LossOutput], Trainer.compute_loss(self, model, inputs, return_outputs=True)
            )
        else:
            outputs = model(**inputs)
            loss = outputs.loss
            if num_items_in_batch is not None:
                # of the whole batch: of all its parts, and with average_tokens_across_devices of all processes
                total = weights.total(outputs.ce_sum, outputs.kl_sum)
                loss = total / torch.as_tensor(num_items_in_batch, device=total.device).clamp(min=1)
                if self.args.average_tokens_across_devices:
                    loss = loss * (self.accelerator.num_processes // self.get_tp_size())  # DDP and FSDP take the mean
        self.record("train" if training else "eval", outputs, weights, inputs)
        return (loss, outputs) if return_outputs else loss

    def _clip_grad_norm(self, model: Any) -> Tensor | None:
        if self.clip is None:
            return super()._clip_grad_norm(model)
        self.accelerator.unscale_gradients()  # of float16; once a step, as torch asks
        limits = limits_at(self.clip, self.args.max_grad_norm, self.state.global_step, self.state.max_steps)
        clipped = clip_gradients(grouped(model), limits)
        for group, norm in clipped.norms.items():  # the log has the means since the last one: of a 0 or 1, the rate
            self._metrics["train"][f"grad_norm/{group}"].append(norm)
            self._metrics["train"][f"clip_rate/{group}"].append(float(clipped.was_clipped[group]))
        return clipped.grad_norm

    def create_scheduler(self, num_training_steps: int, optimizer: Optimizer | None = None) -> LRScheduler:
        if self.restarts is None or self.lr_scheduler is not None:
            return super().create_scheduler(num_training_steps, optimizer)
        starts = cycle_starts(self.restarts, num_training_steps, self.args.get_warmup_steps(num_training_steps))
        share = functools.partial(share_of_peak_rate, self.restarts, starts)
        self.lr_scheduler = LambdaLR(optimizer or self.optimizer, share)  # type: ignore[arg-type]
        self._created_lr_scheduler = True
        return self.lr_scheduler

    def record(self, mode: str, outputs: LossOutput, weights: Weights, inputs: dict[str, Any]) -> None:
        names = ("nll_sum", "kl_sum", "n_tokens", "n_teacher_tokens", "teacher_mass_sum", "n_correct", "entropy_sum")
        read = inputs["attention_mask"].sum() if "attention_mask" in inputs else inputs["input_ids"].numel()
        sums = torch.stack(
            [*(outputs[name].detach().double() for name in names), torch.as_tensor(read).to(outputs.n_tokens)]
        )
        sums = self.accelerator.reduce(sums, "sum").tolist()  # type: ignore[union-attr]
        nll, kl, n, n_teacher, mass, correct, entropy, tokens = sums
        metrics = self._metrics[mode]
        metrics["ce"].append(nll / max(n, 1))
        metrics["entropy"].append(entropy / max(n, 1))
        metrics["mean_token_accuracy"].append(correct / max(n, 1))
        if self.kl is not None:
            metrics["kl"].append(kl / max(n_teacher, 1))
            metrics["teacher_mass"].append(mass / max(n_teacher, 1))
            metrics["teacher_share"].append(n_teacher / max(n, 1))
            metrics["alpha"].append(weights.alpha)
            metrics["temperature"].append(weights.temperature)
        if mode == "train":
            self._total_train_tokens += int(tokens) // self.get_tp_size()
        metrics["num_tokens"] = [self._total_train_tokens]


def with_rows(collate: Callable[[list[dict[str, Any]]], dict[str, Any]], cache: TeacherCache) -> Any:
    """A collator that adds `teacher_ids` and `teacher_logprobs` `(B, L, K)` at the predictors, K the longest row here.

    Where the cache has them also `teacher_tails (B, L, T)`, for each of its temperatures.
    """

    def collate_with_rows(examples: list[dict[str, Any]]) -> dict[str, Any]:
        rows = [np.asarray(example.pop("teacher_row"), dtype=np.int64) for example in examples]
        batch = collate(examples)
        shape = batch["input_ids"].shape
        if "attention_mask" not in batch:  # padding-free: one behind the other
            rows = [np.concatenate(rows)]
        table = np.full(shape, NO_ROW, dtype=np.int64)
        for index, row in enumerate(rows):
            table[index, : len(row)] = row
        table = at_predictor(torch.from_numpy(table), NO_ROW).numpy()
        found = cache.gather(table.reshape(-1))
        batch["teacher_ids"] = torch.from_numpy(found.ids).view(*shape, -1)
        batch["teacher_logprobs"] = torch.from_numpy(found.logprobs).view(*shape, -1)
        if found.tails is not None:
            batch["teacher_tails"] = torch.from_numpy(found.tails).view(*shape, -1)
        return batch

    return collate_with_rows
