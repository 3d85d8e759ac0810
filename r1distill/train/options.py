"""What TRL and peft are given: the recipe's options over ours, and errors for those that they would not take."""

import difflib
from collections.abc import Callable
from dataclasses import fields
from typing import Any, get_args, get_type_hints

import torch
from peft import LoraConfig
from transformers.integrations.integration_utils import get_reporting_integration_callbacks
from trl.trainer.sft_config import SFTConfig

from r1distill.errors import UserError
from r1distill.run import Run
from r1distill.train.batch import count_packs, packed_batch
from r1distill.train.curriculum import Plan, plan_of
from r1distill.train.describe import data_parallel_processes
from r1distill.train_sections import Train

# options of TRL that are ours, or that would change nothing, and where to say it instead
OURS = {
    "output_dir": "run_dir decides it",
    "max_length": "train.max_length is the length",
    "truncation_mode": "train.overlong says what happens to long examples",
    "dataset_text_field": "the dataset is tokenised by r1distill",
    "assistant_only_loss": "the whole reply is taught and nothing else",
    "completion_only_loss": "the whole reply is taught and nothing else",
    "chat_template_path": "it is train.chat_template",
    "eos_token": "it is train.eos_token",
    "pad_token": "it is train.pad_token",
    "model_init_kwargs": "they are [train.model_args]",
    "label_smoothing_factor": "it is train.label_smoothing; TRL's makes all logits once more",
    "loss_type": "the loss is the cross-entropy, with [train.kl] the divergence too",
}
RATE_OPTIONS = ("lr_scheduler_type", "lr_scheduler_kwargs")
ORDER_OPTIONS = ("train_sampling_strategy", "shuffle_dataset")


def sft_config(run: Run, **changes: Any) -> SFTConfig:
    """TRL's configuration: ours where the recipe is silent. Raises UserError for names and values TRL does not take."""
    settings = run.recipe.train
    check_options(settings)
    defaults: dict[str, Any] = {
        "seed": run.recipe.seed,
        "report_to": "none",
        "logging_steps": 10,
        "logging_first_step": True,
        "save_strategy": "steps",
        "save_steps": 0.1,
        "save_total_limit": 2,
        "disable_tqdm": True,
        "bf16": settings.dtype == "bfloat16" and torch.cuda.is_available(),
        "use_cpu": not torch.accelerator.is_available(),
        **({"train_sampling_strategy": "sequential"} if settings.curriculum else {}),
    }
    try:
        return SFTConfig(
            **{**defaults, **settings.args, **changes},
            output_dir=str(run.student / "checkpoints"),
            # of a pack; examples that are longer are gone by then, and without packing TRL wants none for padding_free
            max_length=settings.max_length if settings.args.get("packing") else None,
        )
    except (ValueError, TypeError) as error:
        raise UserError(f"[train.args]: {' '.join(str(error).split())}") from error


def check_trackers(arguments: SFTConfig) -> None:
    """Raise UserError for a `report_to` that is unknown or not installed, before the model is loaded."""
    for tracker in arguments.report_to or []:
        try:
            get_reporting_integration_callbacks([tracker])[0]()
        except (ValueError, RuntimeError, ImportError) as error:
            raise UserError(f"train.args.report_to = {tracker}: {' '.join(str(error).split())}") from None


def batch_of_packs(arguments: SFTConfig, lengths: list[int]) -> dict[str, int]:
    """The options with which a step over packs has as many sequences as the recipe says; DeepSpeed wants them from the start."""
    assert arguments.max_length is not None
    batch = packed_batch(
        arguments.per_device_train_batch_size,
        arguments.gradient_accumulation_steps,
        data_parallel_processes(arguments),
        len(lengths) / count_packs(lengths, arguments.max_length),
    )
    return {"per_device_train_batch_size": batch.rows, "gradient_accumulation_steps": batch.accumulation}


def check_options(settings: Train) -> None:
    """Raise UserError for options that TRL or peft do not have; nothing is loaded, so it is cheap enough to do first."""
    check_names("train.args", settings.args, SFTConfig, OURS)
    check_types("train.args", settings.args, SFTConfig)
    check_names("train.peft", settings.peft or {}, LoraConfig, {})
    if settings.args.get("packing_strategy") == "wrapped":
        raise UserError('train.args.packing_strategy = "wrapped" lets examples run into each other; take "bfd"')
    for section, taken in (("restarts", RATE_OPTIONS), ("curriculum", ORDER_OPTIONS)):
        for key in taken:
            given = settings.args.get(key)
            # what restarts is a cosine: a recipe that says so need not be rewritten for it
            agrees = key not in settings.args or (key, given) == ("lr_scheduler_type", "cosine")
            if getattr(settings, section) is not None and not agrees:
                raise UserError(f"train.args.{key} beside [train.{section}], which decides that; take one of them out")
    if settings.curriculum and settings.args.get("packing") and settings.args.get("max_steps", -1) > 0:
        raise UserError(
            f"train.args.max_steps = {settings.args['max_steps']} with [train.curriculum] and packing: how many examples that "
            "is, only packing would tell; give the length of the training as train.args.num_train_epochs"
        )


def check_types(section: str, options: dict[str, Any], owner: type) -> None:
    """Raise UserError for a value of another type, where the option is a number, a truth value or text and nothing else."""
    hints = get_type_hints(owner)
    for key, value in options.items():
        taken = set(get_args(hints[key]) or (hints[key],)) - {type(None)}
        if not taken <= {int, float, bool, str}:
            continue
        if type(value) not in (taken | {int} if float in taken else taken):
            names = " or ".join(sorted(each.__name__ for each in taken))
            raise UserError(f"{section}.{key} = {value!r}: {owner.__name__} takes {names}; correct it")


def check_names(section: str, options: dict[str, Any], owner: type, reserved: dict[str, str]) -> None:
    known = [field.name for field in fields(owner) if field.init]
    for key in options:
        if key in reserved:
            raise UserError(f"{section}.{key} is set by r1distill; take it out ({reserved[key]})")
        if key not in known:
            nearest = difflib.get_close_matches(key, known, n=1)
            hint = f"; did you mean {nearest[0]}?" if nearest else ""
            raise UserError(f"{section}.{key}: {owner.__name__} has no such option{hint}")


def peft_config(settings: Train) -> LoraConfig | None:
    if settings.peft is None:
        return None
    return LoraConfig(**{"task_type": "CAUSAL_LM", **settings.peft})


def curriculum_of(settings: Train, arguments: SFTConfig) -> Callable[[list[list[str]]], Plan]:
    """The order in which examples are read, of their pools: as many as `max_steps` or `num_train_epochs` say."""
    curriculum = settings.curriculum
    assert curriculum

    def length(n_usable: int) -> int:
        if arguments.max_steps > 0:
            a_pass = arguments.train_batch_size * data_parallel_processes(arguments)
            return arguments.max_steps * arguments.gradient_accumulation_steps * a_pass
        return round(arguments.num_train_epochs * n_usable)

    return lambda pools: plan_of(curriculum, pools, length, arguments.seed)
