"""What `r1distill plan` says of a training step's memory beside what one takes, for small models of random weights.

    python scripts/check_plan.py [--only NAME] [--jobs N] [--json FILE]

Each case trains in a process of its own on the CPU, by DistillTrainer with a real optimizer. Measured is the peak of its
resident memory (VmHWM) less what Python and the libraries had taken before the model was made, after a step of another
model has made them take it. Blocks of 64 KiB and more are mapped and unmapped one by one, so that none is held back.
"""

import argparse
import gc
import json
import os
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from bench.machine import status_kib
from datasets import Dataset
from peft import LoraConfig
from tokenizers import Tokenizer, models
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast
from trl.trainer.sft_config import SFTConfig

from r1distill.plan.memory import GIB, memory
from r1distill.plan.models import shape_of
from r1distill.plan.work import Adapters, Layout, Work
from r1distill.train.distill import DistillTrainer
from r1distill.train_sections import Train

LINEARS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
ALLOCATOR = {"MALLOC_ARENA_MAX": "1", "MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}


@dataclass(frozen=True)
class Case:
    """A model and a step. `hidden` … as in its config; `rank`: of LoRA, 0 is full fine-tuning."""

    name: str
    family: str = "llama"
    vocabulary: int = 32_000
    hidden: int = 384
    intermediate: int = 1024
    layers: int = 8
    heads: int = 8
    key_value_heads: int = 2
    tied: bool = False
    sequences: int = 2
    length: int = 512
    accumulation: int = 1
    dtype: Literal["float32", "bfloat16"] = "float32"
    mixed: bool = False
    checkpointing: bool = True
    rank: int = 0
    optimizer: str = "adamw_torch_fused"
    attention: str = "sdpa"
    one_row: bool = False

    @property
    def config(self) -> dict[str, Any]:
        return {
            "model_type": self.family,
            "vocab_size": self.vocabulary,
            "hidden_size": self.hidden,
            "intermediate_size": self.intermediate,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads,
            "num_key_value_heads": self.key_value_heads,
            "tie_word_embeddings": self.tied,
            "max_position_embeddings": 4096,
        }

    @property
    def work(self) -> Work:
        return Work(
            sequences=self.sequences, length=self.length, accumulation=self.accumulation, dtype=self.dtype,
            mixed=self.mixed, checkpointing=self.checkpointing, offload_activations=False, attention=self.attention,
            one_row=self.one_row, optimizer=self.optimizer, adapters=Adapters(self.rank, LINEARS) if self.rank else None,
            device="cpu",
        )  # fmt: skip


CASES = [
    Case("37M, float32"),
    Case("37M, float32, AdamW that is not fused", optimizer="adamw_torch"),
    Case("37M, float32, kept", checkpointing=False),
    Case("37M, float32, kept, accumulated", checkpointing=False, accumulation=2),
    Case("37M, bfloat16", dtype="bfloat16"),
    Case("37M, bfloat16, kept", dtype="bfloat16", checkpointing=False),
    Case("37M, autocast", mixed=True),
    Case("37M, autocast, kept", mixed=True, checkpointing=False),
    Case("Qwen2 of 152k words, float32", "qwen2", 151_936, 256, 1024, 4, 4, 2, True, 1, 2048),
    Case("Qwen2 of 152k words, bfloat16", "qwen2", 151_936, 256, 1024, 4, 4, 2, True, 1, 2048, dtype="bfloat16"),
    Case("Qwen2 of 152k words, untied, kept", "qwen2", 151_936, 192, 768, 6, 4, 2, False, 1, 2048, checkpointing=False),
    Case("128k words, bfloat16, accumulated", vocabulary=128_256, hidden=256, layers=6, accumulation=2, dtype="bfloat16"),
    Case("37M, LoRA, float32", rank=16),
    Case("37M, LoRA, float32, kept", rank=16, checkpointing=False),
    Case("37M, LoRA, bfloat16, kept", rank=16, checkpointing=False, dtype="bfloat16"),
    Case("37M, eager, 512 tokens, kept", attention="eager", sequences=2, length=512, checkpointing=False),
    Case("24 thin layers, 4 x 256 tokens", hidden=256, intermediate=768, layers=24, heads=4, sequences=4, length=256),
    Case("24 thin layers, 4 x 256 tokens, kept", hidden=256, intermediate=768, layers=24, heads=4, sequences=4, length=256,
         checkpointing=False),
    Case("padding-free, SDPA with a mask", one_row=True, sequences=2, length=1024, hidden=256, intermediate=768, layers=4),
]  # fmt: skip
WARM_UP = Case("", vocabulary=512, hidden=64, intermediate=128, layers=2, heads=2, length=64)


def train(case: Case, folder: Path) -> None:
    """Two steps, so that the optimizer has its states in the second."""
    options = dict(case.config)
    config = AutoConfig.for_model(options.pop("model_type"), **options)
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(
        config, dtype=getattr(torch, case.dtype), attn_implementation=case.attention
    )
    steps = 2
    rows = torch.randint(0, case.vocabulary, (case.sequences * case.accumulation * steps, case.length)).tolist()
    if case.one_row:  # unlike lengths, as in life, of the same sum
        rows = [
            row[: case.length // 2] if index % 2 else row + row[: case.length // 2] for index, row in enumerate(rows)
        ]
    arguments = SFTConfig(
        output_dir=str(folder), report_to="none", use_cpu=True, bf16=case.mixed, max_length=None, max_steps=steps,
        gradient_checkpointing=case.checkpointing, per_device_train_batch_size=case.sequences, optim=case.optimizer,
        gradient_accumulation_steps=case.accumulation, learning_rate=1e-5, save_strategy="no", disable_tqdm=True,
        padding_free=case.one_row, shuffle_dataset=False, dataloader_pin_memory=False, train_sampling_strategy="sequential",
    )  # fmt: skip
    trainer = DistillTrainer(
        settings=Train(student="made"),
        model=model,
        args=arguments,
        train_dataset=Dataset.from_list([{"input_ids": row, "labels": row} for row in rows]),
        processing_class=PreTrainedTokenizerFast(
            tokenizer_object=Tokenizer(models.WordLevel({"<end>": 0, "<pad>": 1})), eos_token="<end>", pad_token="<pad>"
        ),
        peft_config=LoraConfig(task_type="CAUSAL_LM", r=case.rank, target_modules=list(LINEARS)) if case.rank else None,
    )
    trainer.train()


def measure(case: Case) -> int:
    """Bytes at the peak over those before; in the process of the case."""
    with tempfile.TemporaryDirectory() as folder:
        train(replace(WARM_UP, dtype=case.dtype, mixed=case.mixed, rank=min(case.rank, 4)), Path(folder))
        gc.collect()
        base = status_kib("VmRSS")
        Path("/proc/self/clear_refs").write_text("5")  # VmHWM starts again
        train(case, Path(folder))
    return (status_kib("VmHWM") - base) * 1024


def measured_bytes(index: int) -> int:
    """The same from outside. Ends the script where the case fails."""
    command = [sys.executable, __file__, "--measure", str(index)]
    environment = {**os.environ, **ALLOCATOR, "HF_HUB_OFFLINE": "1"}
    result = subprocess.run(command, capture_output=True, text=True, env=environment)
    if result.returncode:
        sys.exit(f"{CASES[index].name}: {result.stderr}")
    return int(result.stdout.split()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="cases whose names have this in them")
    parser.add_argument("--jobs", type=int, default=1, help="cases at once")
    parser.add_argument("--json", type=Path, help="write the numbers here too")
    parser.add_argument("--measure", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure is not None:
        print(measure(CASES[arguments.measure]))
        return
    chosen = [index for index, case in enumerate(CASES) if arguments.only in case.name]
    errors, found = [], []
    print(f"{'model and step':42} {'plan':>7} {'measured':>9} {'error':>7}  the peak, by plan")
    with ThreadPoolExecutor(arguments.jobs) as pool:
        for index, measured in zip(chosen, pool.map(measured_bytes, chosen), strict=True):
            case = CASES[index]
            expected = memory(shape_of(case.name, "here", case.config, ""), case.work, Layout("single"), 1)
            error = expected.total / measured - 1
            errors.append(abs(error))
            found.append({"case": case.name, "plan": expected.total, "measured": measured, "parts": expected.parts})
            sizes = f"{expected.total / GIB:7.3f} {measured / GIB:9.3f}"
            print(f"{case.name:42} {sizes} {error:+7.1%}  {expected.moment}", flush=True)
    print(
        f"GiB; mean absolute error {sum(errors) / len(errors):.1%}, largest {max(errors):.1%}, of {len(errors)} cases"
    )
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
