"""Training settings that libraries take without a word and that cost a run: masks, clipping, checkpoints, rates."""

import importlib.util
import re
from typing import Any

from r1distill.doctor.findings import Finding, error, ok, warning
from r1distill.doctor.reading import Launch
from r1distill.recipe import Recipe
from r1distill.train_sections import Train

QUADRATIC = ("sdpa", "eager")
LONG_ROW = 8192  # tokens above which a mask of S² is the trap
FAR = 5.0  # a learning rate so many times off a known one is worth a word
# peak rates of DeepSeek-R1's six students (arXiv 2501.12948, supplement), full fine-tuning
RATES = {
    "Qwen2.5-Math-1.5B": 1e-4, "Qwen2.5-Math-7B": 8e-5, "Llama-3.1-8B": 5e-5,
    "Qwen2.5-14B": 7e-5, "Qwen2.5-32B": 6e-5, "Llama-3.3-70B-Instruct": 2e-5,
}  # fmt: skip
LORA_TIMES = 10.0  # what LoRA's rate is of that of full fine-tuning (thinkingmachines.ai/blog/lora)
LOGGERS = {"tensorboard": "tensorboard", "wandb": "wandb", "trackio": "trackio", "mlflow": "mlflow"}


def check_training(recipe: Recipe, launch: Launch, tied: bool | None) -> list[Finding]:
    """Everything that the recipe alone decides. `tied`: whether embeddings and head of the student are one matrix."""
    settings = recipe.train
    findings = [
        *check_attention_rows(settings),
        *check_parallelism(settings, launch),
        *check_clipping(settings, launch),
        *check_gradient_checkpointing(settings, launch),
        *check_loss(settings, launch),
        *check_adapter(settings, tied),
        *check_rate(settings),
        *check_weights(settings, launch),
        *check_checkpoints(recipe, launch),
        *check_loggers(settings),
    ]
    return findings or [ok("training", "settings", "no trap known here")]


def check_attention_rows(settings: Train) -> list[Finding]:
    """Without a kernel for packs, their block-diagonal mask has S² entries (1 GB at 32k), and eager attention S² a head."""
    implementation = settings.model_args.get("attn_implementation") or "sdpa"
    packing, padding_free = settings.args.get("packing"), settings.args.get("padding_free")
    rows = settings.args.get("per_device_train_batch_size", 8) if padding_free and not packing else 1
    tokens = settings.max_length * rows
    remedy = 'train.model_args.attn_implementation = "flash_attention_2" or "flex_attention"'
    if implementation == "eager" and tokens > LONG_ROW:
        limit = f"eager attention makes {tokens:,}² scores a head; up to {LONG_ROW:,} tokens it fits"
        return [error("training", "attn_implementation", implementation, limit, remedy)]
    if implementation in QUADRATIC and (packing or padding_free) and tokens > LONG_ROW:
        limit = (
            f"its mask of packed rows is {tokens:,}² = {tokens**2 / 1e9:.1f} GB; up to {LONG_ROW:,} tokens it is small"
        )
        return [warning("training", "attn_implementation", implementation, limit, remedy)]
    return []


def check_parallelism(settings: Train, launch: Launch) -> list[Finding]:
    findings = []
    if launch.context_parallel > 1:
        size = f"{launch.context_parallel}"
        remedy = "use sequence parallelism (parallelism_config_sp_size, Ulysses)"
        if settings.kl is not None:
            limit = "[train.kl] would lose the teacher's rows"
            findings.append(error("training", "parallelism_config_cp_size", size, limit, remedy))
        if settings.args.get("packing"):
            limit = "context parallelism drops the mask between packed examples"
            findings.append(error("training", "parallelism_config_cp_size", size, limit, remedy))
    if launch.processes > 1 and settings.args.get("average_tokens_across_devices") is False:
        limit = "short and long batches of different processes would count alike"
        remedy = "take it out (true is the default)"
        findings.append(error("training", "train.args.average_tokens_across_devices", "false", limit, remedy))
    return findings


def check_clipping(settings: Train, launch: Launch) -> list[Finding]:
    """DeepSpeed clips by its own configuration and in no other way; FSDP 1 knows the norm of its local shard only."""
    findings = []
    groups = settings.clip is not None
    if launch.kind == "deepspeed":
        if groups:
            limit = "DeepSpeed clips by one norm and ignores any other"
            findings.append(error("training", "[train.clip]", "with DeepSpeed", limit, "use FSDP2, or take it out"))
        if launch.gradient_clipping in (None, "none") and "deepspeed" not in settings.args:
            limit = "DeepSpeed ignores train.args.max_grad_norm where its own configuration has no clipping"
            remedy = "gradient_clipping: auto in train.launch.config_file"
            findings.append(warning("training", "gradient_clipping", "not set", limit, remedy))
    if launch.kind == "fsdp" and launch.fsdp_version == 1 and groups:
        limit = "FSDP 1 has the norm of a group of its local shard only, which is wrong"
        findings.append(error("training", "[train.clip]", "with FSDP 1", limit, "fsdp_version: 2"))
    return findings


def check_gradient_checkpointing(settings: Train, launch: Launch) -> list[Finding]:
    own = settings.args.get("gradient_checkpointing", True)  # TRL's default
    if launch.kind == "fsdp" and launch.activation_checkpointing and own:
        limit = "the Trainer refuses both at once, and every layer would be computed three times"
        remedy = "train.args.gradient_checkpointing = false"
        return [error("training", "gradient checkpointing", "by FSDP and by the Trainer", limit, remedy)]
    return []


def check_loss(settings: Train, launch: Launch) -> list[Finding]:
    if settings.kl is None or not settings.label_smoothing:
        return []
    limit = "the divergence smooths already, towards the teacher"
    return [warning("training", "train.label_smoothing", f"{settings.label_smoothing:g}", limit, "set it to 0")]


def check_adapter(settings: Train, tied: bool | None) -> list[Finding]:
    if settings.peft is None:
        return []
    targets = settings.peft.get("target_modules") or []
    # peft takes a string as a regular expression over whole names, but for "all-linear", which leaves the head out
    adapts_head = (
        targets != "all-linear" and re.fullmatch(targets, "lm_head") is not None
        if isinstance(targets, str)
        else "lm_head" in targets
    )
    if adapts_head:
        limit = "the loss takes the head's own weight, so an adapter on it would never be trained"
        remedy = 'train it whole: modules_to_save = ["lm_head"]'
        return [error("training", "train.peft.target_modules", targets, limit, remedy)]
    saved = set(settings.peft.get("modules_to_save") or []) & {"lm_head", "embed_tokens"}
    if tied and len(saved) == 1:
        limit = "embeddings and head of this student are one matrix, and would come apart"
        return [
            error("training", "train.peft.modules_to_save", sorted(saved)[0], limit, "name both, or none, of the two")
        ]
    return []


def check_rate(settings: Train) -> list[Finding]:
    """Against the rates of the six students: DeepSeek's for full fine-tuning, ten times that for LoRA."""
    known = next((rate for name, rate in RATES.items() if settings.student.endswith(f"/{name}")), None)
    rate = settings.args.get("learning_rate")
    if rate is None:
        return [warning("training", "train.args.learning_rate", "not set", "TRL's default is 2e-5", "set it")]
    if not isinstance(rate, int | float) or known is None:
        return [ok("training", "train.args.learning_rate", rate)]
    usual = known * (LORA_TIMES if settings.peft is not None else 1)
    if not usual / FAR <= rate <= usual * FAR:
        kind = "LoRA" if settings.peft is not None else "full fine-tuning"
        limit = f"about {usual:g} for {kind} of {settings.student}"
        return [
            warning("training", "train.args.learning_rate", f"{rate:g}", limit, "set it near that, unless it is meant")
        ]
    return [ok("training", "train.args.learning_rate", f"{rate:g} (known for this student: {usual:g})")]


def check_weights(settings: Train, launch: Launch) -> list[Finding]:
    """bfloat16 has 8 bits: an AdamW step of 1e-4 of a weight is rounded away. FSDP and DeepSpeed keep float32 masters."""
    if settings.dtype != "bfloat16" or settings.peft is not None or launch.kind in ("fsdp", "deepspeed"):
        return []
    limit = "no float32 master weights without FSDP or DeepSpeed: small steps are rounded away"
    remedy = 'train.dtype = "float32" with train.args.bf16 = true (twice the memory)'
    return [warning("training", "train.dtype", "bfloat16", limit, remedy)]


def check_checkpoints(recipe: Recipe, launch: Launch) -> list[Finding]:
    arguments = recipe.train.args
    findings = []
    if arguments.get("save_only_model"):
        limit = "a training that is killed goes on with a fresh optimizer"
        findings.append(warning("training", "train.args.save_only_model", "true", limit, "take it out"))
    if arguments.get("save_strategy") == "no":
        limit = "a training that is killed begins anew"
        findings.append(warning("training", "train.args.save_strategy", "no", limit, 'save_strategy = "steps"'))
    if arguments.get("ignore_data_skip"):
        limit = "a training that goes on reads its first examples again, and others never"
        findings.append(warning("training", "train.args.ignore_data_skip", "true", limit, "take it out"))
    if launch.kind == "fsdp" and "8bit" in str(arguments.get("optim", "")):
        limit = "FSDP cannot save its state (open-r1 OlympicCoder), so no checkpoint can be continued"
        findings.append(warning("training", "train.args.optim", arguments["optim"], limit, 'optim = "adamw_torch"'))
    if arguments.get("eval_strategy", "no") != "no" and not recipe.filter.validation_fraction:
        limit = "there is no validation split"
        remedy = "filter.validation_fraction = 0.01, or take it out"
        findings.append(error("training", "train.args.eval_strategy", arguments["eval_strategy"], limit, remedy))
    return findings


def check_loggers(settings: Train) -> list[Finding]:
    named: Any = settings.args.get("report_to") or []
    names = [named] if isinstance(named, str) else named
    return [
        error("training", "train.args.report_to", name, "not installed", f"pip install {LOGGERS[name]}")
        for name in names
        if name in LOGGERS and importlib.util.find_spec(LOGGERS[name]) is None
    ]
