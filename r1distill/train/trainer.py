"""The training itself: TRL's SFTTrainer, continued from its last whole checkpoint, and the student saved for serving."""

import difflib
import json
import resource
import shutil
import signal
import sys
from collections.abc import Callable
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    GenerationConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)
from transformers.integrations.deepspeed import is_deepspeed_zero3_enabled
from transformers.integrations.integration_utils import get_reporting_integration_callbacks
from trl.trainer.sft_config import SFTConfig

from r1distill.cache.settings import open_fitting, refuse_other_vocabulary
from r1distill.console import Progress, say
from r1distill.errors import UserError
from r1distill.models import resolve_model
from r1distill.run import Clock, Run
from r1distill.store import write_json
from r1distill.train.batch import count_packs, packed_batch
from r1distill.train.curriculum import Plan, plan_of
from r1distill.train.data import load_data
from r1distill.train.describe import data_parallel_processes, describe, show_example
from r1distill.train.distill import DistillTrainer
from r1distill.train.interruption import SaveOnTerminate
from r1distill.train.render import prepare_tokenizer
from r1distill.train.teacher_cache import TeacherCache, vocabulary_sha256
from r1distill.train_sections import Train, chat_template_text

TERMINATED = 128 + signal.SIGTERM  # as a shell says it
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
STATE = "trainer_state.json"  # the last file that transformers writes into a checkpoint


def train(run: Run) -> dict[str, Any]:
    """Train the student of the run and save it. Returns the counts for the stage's record."""
    settings = run.recipe.train
    arguments = sft_config(run)  # first: with ZeRO-3 it decides how from_pretrained lays out the weights
    check_trackers(arguments)
    main = arguments.process_index == 0
    tokenizer = load_tokenizer(settings)
    cache = open_cache(run, tokenizer) if settings.kl and not settings.kl.online else None
    with arguments.main_process_first():
        data = load_data(
            run.dataset, run.folder / "cache", tokenizer,
            prefill=run.recipe.generate.prefill, max_length=settings.max_length, overlong=settings.overlong,
            processes=arguments.dataset_num_proc, teacher_cache=run.teacher_cache if cache else None,
            curriculum=curriculum_of(settings, arguments) if settings.curriculum else None,
        )  # fmt: skip
    if main:
        show_example(tokenizer, data)
    changes: dict[str, Any] = {"num_train_epochs": 1} if settings.curriculum else {}  # the data is all epochs, in order
    if arguments.packing:
        changes |= batch_of_packs(arguments, data.lengths)
    if changes:
        arguments = sft_config(run, **changes)
    model = load_model(settings)
    check_rows(settings, model, tokenizer)
    trainer = DistillTrainer(
        kl=settings.kl,
        label_smoothing=settings.label_smoothing,
        clip=settings.clip,
        restarts=settings.restarts,
        cache=cache,
        online_teacher=load_online_teacher(settings, tokenizer) if settings.kl and settings.kl.online else None,
        model=model,
        args=arguments,
        train_dataset=data.train,
        eval_dataset=data.validation if arguments.eval_strategy != "no" else None,
        processing_class=tokenizer,
        peft_config=peft_config(settings),
        callbacks=[ShowProgress(Clock(run, "train"))] if main else [],
    )
    with arguments.main_process_first(desc="checkpoints"):
        checkpoint = last_whole_checkpoint(Path(str(arguments.output_dir)))
    if main:
        say(describe(trainer, data, checkpoint))
    ending = SaveOnTerminate(trainer)
    trainer.add_callback(ending)
    trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    if ending.stopped:
        raise SystemExit(TERMINATED)
    save_student(run, trainer, tokenizer, main)
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    return {
        "examples": data.train.num_rows,
        "overlong_dropped": data.overlong_dropped,
        "overlong_truncated": data.overlong_truncated,
        "malformed_dropped": data.malformed,
        "tokens": round(data.tokens * (trainer.state.epoch or 0)),
        "supervised_tokens": round(data.supervised_tokens * (trainer.state.epoch or 0)),
        "steps": trainer.state.global_step,
        "first_loss": losses[0] if losses else None,
        "last_loss": losses[-1] if losses else None,
        "peak_memory_gib": round(peak_memory_bytes() / 2**30, 2),
        **({"curriculum": [asdict(share) for share in data.shares]} if data.shares else {}),
    }


def peak_memory_bytes() -> int:
    """Of this process on its GPU, or in all where it has none."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


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


def open_cache(run: Run, tokenizer: PreTrainedTokenizerBase) -> TeacherCache:
    """Raises UserError where there is none, and where it is of another teacher, prompt or vocabulary than the recipe's."""
    cache = open_fitting(run)
    its_sha256 = vocabulary_sha256(tokenizer.get_vocab())
    manifest = cache.manifest
    refuse_other_vocabulary(run.recipe.train.student, its_sha256, manifest["model"], manifest["vocabulary_sha256"])
    return cache


def load_online_teacher(settings: Train, tokenizer: PreTrainedTokenizerBase) -> PreTrainedModel:
    """The teacher of `train.kl.online`. Raises UserError where its vocabulary is another, and under ZeRO-3."""
    assert settings.kl
    assert settings.kl.online
    path = resolve_model(settings.kl.online, "train.kl.online")
    trust = settings.model_args.get("trust_remote_code", False)
    theirs = AutoTokenizer.from_pretrained(path, trust_remote_code=trust)
    ours, other = (vocabulary_sha256(each.get_vocab()) for each in (tokenizer, theirs))
    refuse_other_vocabulary(settings.student, ours, settings.kl.online, other)
    if is_deepspeed_zero3_enabled():
        raise UserError("train.kl.online with DeepSpeed ZeRO-3 is not supported: use FSDP2, or make a cache")
    return AutoModelForCausalLM.from_pretrained(path, dtype=getattr(torch, settings.dtype), **settings.model_args)


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
    check_names("train.peft", settings.peft or {}, LoraConfig, {})
    if settings.args.get("packing_strategy") == "wrapped":
        raise UserError('train.args.packing_strategy = "wrapped" lets examples run into each other; take "bfd"')
    for section, taken in (("restarts", RATE_OPTIONS), ("curriculum", ORDER_OPTIONS)):
        for key in taken:
            if getattr(settings, section) is not None and key in settings.args:
                raise UserError(f"train.args.{key} beside [train.{section}], which decides that; take one of them out")
    if settings.curriculum and settings.args.get("packing") and settings.args.get("max_steps", -1) > 0:
        raise UserError(
            f"train.args.max_steps = {settings.args['max_steps']} with [train.curriculum] and packing: how many examples that "
            "is, only packing would tell; give the length of the training as train.args.num_train_epochs"
        )


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


def load_tokenizer(settings: Train) -> PreTrainedTokenizerBase:
    tokenizer = AutoTokenizer.from_pretrained(
        resolve_model(
            settings.tokenizer or settings.student, "train.tokenizer" if settings.tokenizer else "train.student"
        ),
        revision=None if settings.tokenizer else settings.revision,
        trust_remote_code=settings.model_args.get("trust_remote_code", False),
    )
    prepare_tokenizer(tokenizer, chat_template_text(settings), settings.eos_token, settings.pad_token)
    return tokenizer


def check_rows(settings: Train, model: Any, tokenizer: PreTrainedTokenizerBase) -> None:
    """Raise UserError where the tokenizer, which may be another's, has ids that the student has no embedding for."""
    rows, largest = model.get_input_embeddings().num_embeddings, max(tokenizer.get_vocab().values())
    if largest >= rows:
        raise UserError(
            f"{settings.tokenizer or settings.student}: its tokenizer has an id {largest}, and {settings.student} has "
            f"{rows} embeddings; set train.tokenizer to one of the student's family"
        )


def load_model(settings: Train, *, quantized: bool = True) -> Any:
    """The student as it is trained; `quantized=False` leaves out model_args.quantization_config, to merge adapters into."""
    options = {key: value for key, value in settings.model_args.items() if quantized or key != "quantization_config"}
    path = resolve_model(settings.student, "train.student")
    config = AutoConfig.from_pretrained(
        path, revision=settings.revision, trust_remote_code=settings.model_args.get("trust_remote_code", False)
    )
    if settings.rope_parameters is not None:
        # setting config.rope_theta is a silent no-op in transformers 5
        config.rope_parameters = settings.rope_parameters
    if settings.max_position_embeddings is not None:
        config.max_position_embeddings = settings.max_position_embeddings
    positions = getattr(config, "max_position_embeddings", None)
    if positions is not None and settings.max_length > positions:
        raise UserError(
            f"train.max_length = {settings.max_length} is more than the {positions} positions of {settings.student}; "
            "lower it, or set train.max_position_embeddings with train.rope_parameters"
        )
    return AutoModelForCausalLM.from_pretrained(
        path, revision=settings.revision, config=config, dtype=getattr(torch, settings.dtype), **options
    )


def last_whole_checkpoint(folder: Path) -> Path | None:
    """The newest checkpoint that was written to its end; a kill in the middle leaves one without its state, removed here."""
    found = sorted(folder.glob("checkpoint-*"), key=lambda path: int(path.name.rpartition("-")[2]), reverse=True)
    for checkpoint in found:
        try:
            json.loads((checkpoint / STATE).read_text(encoding="utf-8"))
            return checkpoint
        except (FileNotFoundError, json.JSONDecodeError):
            shutil.rmtree(checkpoint, ignore_errors=True)
    return None


def save_student(run: Run, trainer: DistillTrainer, tokenizer: PreTrainedTokenizerBase, main: bool) -> None:
    """The final model as `vllm serve` opens it: whole, merged, in bfloat16, with the template and both end tokens."""
    temporary = run.folder / ".student"
    if trainer.is_fsdp_enabled:
        # checkpoints are in shards; of these save_model would write nothing
        trainer.accelerator.state.fsdp_plugin.set_state_dict_type("FULL_STATE_DICT")  # type: ignore[union-attr]
    trainer.save_model(str(temporary))  # gathers the shards of FSDP and DeepSpeed; every process takes part
    if not main:
        return
    settings = run.recipe.train
    if settings.peft is not None and settings.merge_adapter:
        base = load_model(settings, quantized=False)
        model = PeftModel.from_pretrained(base, str(temporary)).merge_and_unload()
        shutil.move(temporary, run.student / "adapter")
        save_whole(model, temporary, settings)
    elif settings.peft is None and settings.dtype != "bfloat16":
        save_whole(AutoModelForCausalLM.from_pretrained(temporary, dtype=torch.bfloat16), temporary, settings)
    tokenizer.save_pretrained(temporary)
    generation_config(settings, tokenizer).save_pretrained(temporary)
    # config.json (adapter_config.json) last: a folder that has it is complete
    for file in sorted(temporary.iterdir(), key=lambda path: path.name in ("config.json", "adapter_config.json")):
        file.replace(run.student / file.name)
    temporary.rmdir()
    write_json(run.student / "training_log.json", trainer.state.log_history)


def save_whole(model: Any, folder: Path, settings: Train) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    model.to(torch.bfloat16).save_pretrained(folder)


def generation_config(settings: Train, tokenizer: PreTrainedTokenizerBase) -> GenerationConfig:
    """Both ends: of the chat template and of the base model, which ends documents with another token (Qwen: 151643)."""
    base = AutoConfig.from_pretrained(resolve_model(settings.student, "train.student"), revision=settings.revision)
    ends = base.eos_token_id if isinstance(base.eos_token_id, list) else [base.eos_token_id]
    return GenerationConfig(
        do_sample=True,
        temperature=0.6,
        top_p=0.95,
        bos_token_id=base.bos_token_id,
        eos_token_id=list(dict.fromkeys(end for end in [tokenizer.eos_token_id, *ends] if end is not None)),
        pad_token_id=tokenizer.pad_token_id,
    )


class ShowProgress(TrainerCallback):
    """A progress bar over the steps, with the loss."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.progress: Progress | None = None
        self.loss = ""

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.progress = Progress("train", state.max_steps, state.global_step)
        self.progress.__enter__()

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        self.clock.tick()
        if self.progress:
            self.progress.advance(note=lambda: self.loss)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        if logs and "loss" in logs:
            self.loss = f"loss {float(logs['loss']):.4f}"

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if self.progress:
            self.progress.__exit__()
