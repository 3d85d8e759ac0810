"""What a person is shown before the first step: an example with its loss mask, and what a step is made of."""

import os
from pathlib import Path

from accelerate.parallelism_config import ParallelismConfig
from transformers import PreTrainedTokenizerBase, TrainingArguments
from trl.trainer.sft_config import SFTConfig

from r1distill.console import say
from r1distill.train.curriculum import describe as describe_shares
from r1distill.train.data import Data
from r1distill.train.distill import DistillTrainer
from r1distill.train.render import IGNORED


def show_example(tokenizer: PreTrainedTokenizerBase, data: Data) -> None:
    """The first example with its loss mask, so that a wrong template is seen before it has cost a week."""
    row = data.train[0]
    boundary = next(index for index, label in enumerate(row["labels"]) if label != IGNORED)
    say("  the first example (dim: read only; bold: taught):", style="bold")
    for part, style in ((row["input_ids"][:boundary], "dim"), (row["input_ids"][boundary:], "bold green")):
        for line in str(tokenizer.decode(part, skip_special_tokens=False)).splitlines():
            say(f"  {'│' if style == 'dim' else '┃'} {line}", style=style)
    say(
        f"  └ {boundary} tokens read, {len(row['labels']) - boundary} taught, the last is {tokenizer.decode(row['labels'][-1:])}"
    )


def describe(trainer: DistillTrainer, data: Data, checkpoint: Path | None) -> str:
    """What is trained on, and the effective batch in sequences and tokens."""
    arguments = trainer.args
    rows = (
        arguments.train_batch_size * arguments.gradient_accumulation_steps * data_parallel_processes(arguments)
    )  # of one optimizer step
    all_rows = len(trainer.train_dataset)  # type: ignore[arg-type]
    examples = data.train.num_rows
    sequences, tokens = rows * examples / all_rows, rows * data.tokens / all_rows
    batch = f"{rows} sequences"
    if isinstance(arguments, SFTConfig) and arguments.packing:
        batch = (
            f"{rows} packs of {examples / all_rows:.1f} sequences (per_device_train_batch_size = "
            f"{arguments.train_batch_size}, gradient_accumulation_steps = {arguments.gradient_accumulation_steps}), "
            f"about {sequences:.0f} sequences"
        )
    left_out = "".join(
        f", {number} {what}"
        for number, what in (
            (data.overlong_dropped, "overlong dropped"),
            (data.overlong_truncated, f"truncated, {data.cut_in_thinking} of them while thinking: they teach no end"),
            *((number, f"malformed dropped ({reason})") for reason, number in data.malformed.items()),
        )
        if number
    )
    if trainer.cache is not None or trainer.cross is not None:
        left_out += f"; {data.with_rows} of them have the teacher's distributions"
    phases = f"\n{describe_shares(data.shares)}" if data.shares else ""
    resumed = f"\n  continuing from {checkpoint.name}" if checkpoint else ""
    return (
        f"  {examples} examples, {data.tokens:,} tokens of which {data.supervised_tokens:,} are taught{left_out}; "
        f"a batch is {batch}, about {tokens:,.0f} tokens{phases}{resumed}"
    )


def data_parallel_processes(arguments: TrainingArguments) -> int:
    """Processes that read different examples: those of a sequence-parallel or tensor-parallel group share one."""
    parallelism = arguments.parallelism_config
    if parallelism is None and os.environ.get("ACCELERATE_USE_PARALLELISM_CONFIG") == "true":  # of `accelerate launch`
        parallelism = ParallelismConfig()
    return arguments.world_size // (parallelism.non_data_parallel_size if parallelism else 1)
