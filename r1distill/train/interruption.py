"""SIGTERM, which Slurm and Kubernetes send before they kill: the step is finished, a checkpoint written, and training ends.

transformers' own enable_jit_checkpoint waits three seconds and asks each process by itself; processes that learn of the
signal in different steps then wait for each other for ever. Here all agree at the end of a step.
"""

import signal
from typing import Any

import torch
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from r1distill.console import say


class SaveOnTerminate(TrainerCallback):
    """`stopped` says whether the training was ended by it."""

    def __init__(self, trainer: Trainer) -> None:
        self.accelerator = trainer.accelerator
        self.asked = self.stopped = False
        self.handler: Any = None

    def ask(self, number: int, frame: Any) -> None:
        self.asked = True

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.handler = signal.signal(signal.SIGTERM, self.ask)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        asked = torch.tensor(float(self.asked), device=self.accelerator.device)
        if self.accelerator.reduce(asked, "sum") > 0 and state.global_step < state.max_steps:  # type: ignore[operator]
            self.stopped = control.should_save = control.should_training_stop = True

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        signal.signal(signal.SIGTERM, self.handler)
        if self.stopped and state.is_world_process_zero:
            say(
                f"\n  stopped by SIGTERM after step {state.global_step} of {state.max_steps}, saved; run again to go on"
            )
