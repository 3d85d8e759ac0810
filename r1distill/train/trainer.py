"""The training itself: TRL's SFTTrainer, continued from its last whole checkpoint, and the student saved for serving."""

import resource
import signal
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from r1distill.console import Progress, say
from r1distill.run import Clock, Run
from r1distill.train.data import load_data
from r1distill.train.describe import describe, show_example
from r1distill.train.distill import DistillTrainer
from r1distill.train.interruption import SaveOnTerminate
from r1distill.train.loading import (
    cache_folders,
    check_rows,
    load_aligner,
    load_cross,
    load_model,
    load_online_teacher,
    load_tokenizer,
    open_cache,
)
from r1distill.train.options import batch_of_packs, check_trackers, curriculum_of, peft_config, sft_config
from r1distill.train.saving import last_whole_checkpoint, leave_the_others, save_student
from r1distill.train.several_teachers import SeveralTeachers

TERMINATED = 128 + signal.SIGTERM  # as a shell says it


def train(run: Run) -> dict[str, Any]:
    """Train the student of the run and save it. Returns the counts for the stage's record."""
    settings = run.recipe.train
    arguments = sft_config(run)  # first: with ZeRO-3 it decides how from_pretrained lays out the weights
    check_trackers(arguments)
    main = arguments.process_index == 0
    tokenizer = load_tokenizer(settings)
    cache = open_cache(run, tokenizer) if settings.kl and not settings.kl.online else None
    aligner = load_aligner(settings, tokenizer)
    with arguments.main_process_first():
        data = load_data(
            run.dataset, run.folder / "cache", tokenizer,
            prefill=run.recipe.generate.prefill, max_length=settings.max_length, overlong=settings.overlong,
            processes=arguments.dataset_num_proc, teacher_caches=cache_folders(run) if cache else (),
            taken=cache.taken if isinstance(cache, SeveralTeachers) else (),
            curriculum=curriculum_of(settings, arguments) if settings.curriculum else None, aligner=aligner,
        )  # fmt: skip
    if main:
        show_example(tokenizer, data)
        if isinstance(cache, SeveralTeachers):
            say("  teachers: " + ", ".join(f"{name} of {traces} traces" for name, traces in cache.taught.items()))
    changes: dict[str, Any] = {"num_train_epochs": 1} if settings.curriculum else {}  # the data is all epochs, in order
    if arguments.packing:
        changes |= batch_of_packs(arguments, data.lengths)
    if changes:
        arguments = sft_config(run, **changes)
    model = load_model(settings)
    check_rows(settings, model, tokenizer)
    teacher = load_online_teacher(settings, tokenizer) if settings.online_teacher else None
    trainer = DistillTrainer(
        settings=settings,
        cache=cache,
        online_teacher=teacher,
        cross=load_cross(settings, aligner, model, teacher),
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
        leave_the_others(trainer)
        raise SystemExit(TERMINATED)
    peak = peak_memory_bytes()  # of the training: saving a student of another dtype loads it once more
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
        "peak_memory_gib": round(peak / 2**30, 2),
        **({"curriculum": [asdict(share) for share in data.shares]} if data.shares else {}),
    }


def peak_memory_bytes() -> int:
    """Of this process on its GPU, or in all where it has none."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


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
