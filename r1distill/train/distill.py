"""TRL's SFTTrainer with our losses, which are inside the model's own forward pass (forward.py)."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from datasets import Dataset
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler
from transformers import PreTrainedModel, Trainer
from trl.data_utils import pack_dataset
from trl.trainer.sft_config import SFTConfig
from trl.trainer.sft_trainer import SFTTrainer

from r1distill.errors import UserError
from r1distill.train.clipping import check_clip, clip_gradients, grouped, limits_at
from r1distill.train.controller import Sparsity, Watch
from r1distill.train.cross_data import GROUPS, TEACHER_IDS, Cross, with_teacher_tokens
from r1distill.train.curriculum import PHASE, packed_by_phase
from r1distill.train.forward import PROJECTIONS, Crossed, Inside, LossOutput, Weights, add_losses, at_predictor
from r1distill.train.hidden import new_projections
from r1distill.train.inner import pairs_of
from r1distill.train.online import OnlineTeacher
from r1distill.train.qat import RoundFrom, prepare
from r1distill.train.schedules import cycle_starts, share_of_peak_rate, value_at
from r1distill.train.several_teachers import SeveralTeachers
from r1distill.train.teacher_cache import NO_ROW, TeacherCache
from r1distill.train_sections import Train

PROJECTIONS_FILE = f"{PROJECTIONS}.safetensors"  # of a checkpoint
COLUMNS = ("input_ids", "labels", "teacher_row", "seq_lengths", TEACHER_IDS, GROUPS)


class DistillTrainer(SFTTrainer):
    """Takes datasets of `input_ids`, `labels` and, with a `cache`, `teacher_row`: its row at each token, or NO_ROW.

    With `cross` they have the teacher's tokens too, and which belong to which (cross_data.py).
    """

    def __init__(
        self,
        *,
        settings: Train,
        cache: TeacherCache | SeveralTeachers | None = None,
        online_teacher: PreTrainedModel | None = None,
        cross: Cross | None = None,
        **kwargs: Any,
    ) -> None:
        self.settings, self.kl, self.cache, self.cross = settings, settings.kl, cache, cross
        self.sums: dict[str, dict[str, list[float]]] = {"train": {}, "eval": {}}
        super().__init__(**kwargs)
        bare = base_of(self.model)
        self.refuse_unsound()
        if settings.qat is not None:
            # before anything is read in the layers, which it replaces, and before what is no part of the student is there
            prepare(bare, settings.qat.scheme, settings.qat.ignore)
            self.add_callback(RoundFrom(settings.qat, bare))
        inside = None
        if settings.hidden or settings.attention:
            assert online_teacher is not None
            inside = self.inside_of(bare, online_teacher)
        if settings.clip is not None:
            grouped(self.model)  # type: ignore[arg-type] - an unknown architecture is said now, not at the first step
        add_losses(bare, inside)
        if cache is not None:
            self.data_collator = with_rows(self.data_collator, cache)
        if cross is not None:
            self.data_collator = with_teacher_tokens(self.data_collator, cross)
        self.online = None
        if online_teacher is not None:
            self.online = OnlineTeacher(
                online_teacher, self.accelerator, with_head=self.kl is not None and cache is None,
                **(teacher_side(inside) if inside else {}),
            )  # fmt: skip
        self.watch = None
        if settings.controller is not None:
            sparsity = Sparsity(bare) if settings.controller.signals.sparsity else None
            self.watch = Watch(settings.controller, sparsity, self._metrics["train"])
            self.add_callback(self.watch)

    def refuse_unsound(self) -> None:
        """Raise UserError for options that would not do together what they say."""
        settings, parallelism = self.settings, self.accelerator.parallelism_config
        if settings.clip is not None:
            check_clip(self.accelerator.distributed_type, self.accelerator.is_fsdp2, self.args.max_grad_norm)
        deepspeed = self.accelerator.state.deepspeed_plugin
        if settings.restarts is not None and deepspeed is not None and "scheduler" in deepspeed.deepspeed_config:
            raise UserError("[train.restarts] beside the scheduler of DeepSpeed's configuration; take one of them out")
        if settings.controller is not None and self.args.max_grad_norm <= 0:
            raise UserError(
                f"[train.controller] with train.args.max_grad_norm = {self.args.max_grad_norm:g}: the norm of the gradient, "
                "which it watches, is only taken where it is clipped; set it above 0"
            )
        checkpointing = self.args.gradient_checkpointing and self.args.gradient_checkpointing_kwargs
        reentrant = isinstance(checkpointing, dict) and checkpointing.get("use_reentrant", False)
        if settings.attention is not None and reentrant:
            raise UserError(
                "[train.attention] with train.args.gradient_checkpointing_kwargs.use_reentrant = true: queries and keys have no "
                "gradient there, so that nothing would be learned from them; set it to false"
            )
        if settings.kl is not None and parallelism is not None and parallelism.cp_enabled:
            raise UserError("[train.kl] with context parallelism (cp_size) is not supported; use sp_size (Ulysses)")
        if parallelism is not None and (parallelism.cp_enabled or parallelism.sp_enabled):
            for name in ("hidden", "attention"):
                if getattr(settings, name) is not None:
                    raise UserError(f"[train.{name}] with sequences that are divided among processes is not supported")

    def inside_of(self, bare: Any, teacher: Any) -> Inside:
        """What is compared inside; a projection of the states, where the widths differ, becomes part of the model."""
        hidden, attention = self.settings.hidden, self.settings.attention
        pairs = pairs_of(hidden, attention, bare.config, teacher.config)
        width, teacher_width = (each.config.get_text_config().hidden_size for each in (bare, teacher))
        projections = new_projections(len(pairs.hidden), width, teacher_width, self.args.seed) if hidden else None
        if projections is not None:
            bare.add_module(PROJECTIONS, projections.to(bare.device, bare.dtype))
        return Inside(hidden, attention, pairs)

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
        settings = self.settings
        label_smoothing = settings.label_smoothing if training else 0.0
        inner = {name: each.weight for name in ("hidden", "attention") if (each := getattr(settings, name)) is not None}
        if self.kl is None:
            return Weights(label_smoothing, **inner)
        step, steps = self.state.global_step, self.state.max_steps
        alpha, temperature = (value_at(each, step, steps) for each in (self.kl.alpha, self.kl.temperature))
        if self.watch is not None:
            alpha = max(alpha - self.watch.alpha_taken, 0.0)
        return Weights(label_smoothing, alpha, temperature, self.kl.mode, self.kl.divergence, **inner)

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        training = self.model.training  # type: ignore[union-attr]
        weights = self.weights(training)
        tails = inputs.pop("teacher_tails", None)
        if self.cache is not None and self.kl is not None and self.kl.mode == "exact" and weights.temperature != 1.0:
            inputs["teacher_tail"] = tails[..., self.cache.temperatures.index(weights.temperature)]
        if self.cross is not None:
            ids, mask, groups = (inputs.pop(name) for name in (TEACHER_IDS, "teacher_attention_mask", GROUPS))
            spans = self.cross.spans(groups, inputs["input_ids"], ids)
            inputs["crossed"] = Crossed(ids, spans, self.cross.on(ids.device), self.cross.way)
            assert self.online is not None
            inputs["online"] = self.online({"input_ids": ids, "attention_mask": mask})
        elif self.online is not None:
            inputs["online"] = self.online(inputs)
        inputs |= {"weights": weights, "step": self.state.global_step}
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
                total = weights.total(outputs)
                loss = total / torch.as_tensor(num_items_in_batch, device=total.device).clamp(min=1)
                if self.args.average_tokens_across_devices:
                    loss = loss * (self.accelerator.num_processes // self.get_tp_size())  # DDP and FSDP take the mean
        self.record("train" if training else "eval", outputs, weights, inputs)
        return (loss, outputs) if return_outputs else loss

    def _clip_grad_norm(self, model: Any) -> Tensor | None:
        found = super()._clip_grad_norm(model) if self.settings.clip is None else self.clip_groups(model)
        if self.watch is not None:
            assert found is not None
            self.watch.end_of_step(float(found), self.accelerator)
        return found

    def clip_groups(self, model: Any) -> Tensor:
        assert self.settings.clip
        self.accelerator.unscale_gradients()  # of float16; once a step, as torch asks
        limits = limits_at(self.settings.clip, self.args.max_grad_norm, self.state.global_step, self.state.max_steps)
        clipped = clip_gradients(grouped(model), limits)
        for group, norm in clipped.norms.items():  # the log has the means since the last one: of a 0 or 1, the rate
            self._metrics["train"][f"grad_norm/{group}"].append(norm)
            self._metrics["train"][f"clip_rate/{group}"].append(float(clipped.was_clipped[group]))
        return clipped.grad_norm

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        """The projections of [train.hidden] in a file of their own: they are no part of the student."""
        bare = self.accelerator.unwrap_model(self.model)
        if getattr(base_of(bare), PROJECTIONS, None) is None:
            super()._save(output_dir, state_dict)
            return
        state: dict[str, Any] = bare.state_dict() if state_dict is None else state_dict
        projections = {name: value for name, value in state.items() if PROJECTIONS in name.split(".")}
        super()._save(output_dir, {name: value for name, value in state.items() if name not in projections})
        if self.args.should_save:
            save_file(
                {name.rpartition(f"{PROJECTIONS}.")[2]: value.contiguous() for name, value in projections.items()},
                Path(output_dir or str(self.args.output_dir)) / PROJECTIONS_FILE,
            )

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        super()._load_from_checkpoint(resume_from_checkpoint, model)
        path = Path(resume_from_checkpoint) / PROJECTIONS_FILE
        if path.is_file():
            getattr(base_of(model or self.model), PROJECTIONS).load_state_dict(load_file(path))

    def _get_learning_rate(self) -> float:
        """For the log: with what the controller has made of it."""
        return super()._get_learning_rate() * (self.watch.rate_factor if self.watch else 1.0)

    def create_scheduler(self, num_training_steps: int, optimizer: Optimizer | None = None) -> LRScheduler:
        restarts = self.settings.restarts
        if restarts is None or self.lr_scheduler is not None:
            return super().create_scheduler(num_training_steps, optimizer)
        starts = cycle_starts(restarts, num_training_steps, self.args.get_warmup_steps(num_training_steps))
        share = functools.partial(share_of_peak_rate, restarts, starts)
        self.lr_scheduler = LambdaLR(optimizer or self.optimizer, share)  # type: ignore[arg-type]
        self._created_lr_scheduler = True
        return self.lr_scheduler

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Means are of all tokens since the last time: parts of a batch have not equally many, and some none of a teacher's."""
        mode = "train" if self.model.training else "eval"  # type: ignore[union-attr]
        for name, (total, count) in self.sums[mode].items():
            self._metrics[mode][name] = [total / max(count, 1)]
        self.sums[mode].clear()
        super().log(logs, start_time)

    def record(self, mode: str, outputs: LossOutput, weights: Weights, inputs: dict[str, Any]) -> None:
        names = ("nll_sum", "kl_sum", "n_tokens", "n_teacher_tokens", "teacher_mass_sum", "n_correct", "entropy_sum")
        read = inputs["attention_mask"].sum() if "attention_mask" in inputs else inputs["input_ids"].numel()
        inside = [name for name in ("hidden", "attention") if getattr(self.settings, name) is not None]
        found = [outputs[name].detach().double() for name in (*names, *(f"{name}_sum" for name in inside))]
        found.append(torch.as_tensor(read).to(outputs.n_tokens))
        over_all = self.accelerator.reduce(torch.stack(found), "sum").tolist()  # type: ignore[union-attr]
        nll, kl, n, n_teacher, mass, correct, entropy, *inner, tokens = over_all
        metrics = self._metrics[mode]
        if self.watch is not None and mode == "train":
            self.watch.add(nll, correct, n)
        means = {"ce": (nll, n), "entropy": (entropy, n), "mean_token_accuracy": (correct, n)}
        if self.kl is not None:
            means |= {"kl": (kl, n_teacher), "teacher_mass": (mass, n_teacher), "teacher_share": (n_teacher, n)}
            metrics["alpha"].append(weights.alpha)
            metrics["temperature"].append(weights.temperature)
        means |= {name: (total, n) for name, total in zip(inside, inner, strict=True)}
        for name, (total, count) in means.items():
            sums = self.sums[mode].setdefault(name, [0.0, 0.0])
            sums[0], sums[1] = sums[0] + total, sums[1] + count
        if mode == "train":
            self._total_train_tokens += int(tokens) // self.get_tp_size()
        metrics["num_tokens"] = [self._total_train_tokens]


def base_of(model: Any) -> Any:
    """The model within PEFT's, or itself."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def teacher_side(inside: Inside) -> dict[str, Any]:
    """What the teacher has to be read for."""
    attention = inside.attention
    return {
        "states": tuple(theirs for _, theirs in inside.pairs.hidden),
        "attention": tuple(theirs for _, theirs in inside.pairs.attention),
        "max_maps": attention.max_tokens if attention and attention.loss == "maps" else 0,
    }


def with_rows(collate: Callable[[list[dict[str, Any]]], dict[str, Any]], cache: TeacherCache | SeveralTeachers) -> Any:
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
