"""Tokens a second and peak memory of training: our SFT beside TRL's SFTTrainer, SFT + KL beside SFT, packed beside not.

    python scripts/bench/train.py [--model quickstart:student] [--steps 6] [--rounds 2] [--examples 48] [--k 8]

The same examples (random tokens of lengths like those of the quickstart's traces, a prompt of a third that is not taught),
settings and weights (float32, bfloat16 autocast), each in a process of its own, in turns. Tokens are those of the examples,
without padding; seconds are of the steps after the first. Memory is the peak of the process over what its imports take.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from machine import status_kib
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
from trl.trainer.sft_config import SFTConfig
from trl.trainer.sft_trainer import SFTTrainer

from r1distill.generate.distributions import SparseRows
from r1distill.models import resolve_model
from r1distill.records import Trace
from r1distill.train.distill import DistillTrainer
from r1distill.train.teacher_cache import NO_ROW, CacheWriter, Teacher, TeacherCache
from r1distill.train_sections import Kl, Train

BATCH = 4
LONGEST = 256
CONTESTANTS = ("TRL SFT", "r1distill SFT", "r1distill SFT + KL", "r1distill SFT, packed")


def examples(n: int) -> list[dict[str, list[int]]]:
    chance, rows, row = np.random.default_rng(0), [], 0
    for length in chance.integers(64, LONGEST, n).tolist():
        ids, prompt = chance.integers(100, 40_000, length).tolist(), length // 3
        teacher_row = [NO_ROW] * prompt + list(range(row, row + length - prompt))
        row += length - prompt
        rows.append({"input_ids": ids, "labels": [-100] * prompt + ids[prompt:], "teacher_row": teacher_row})
    return rows


def make_cache(folder: Path, rows: list[dict[str, list[int]]], k: int) -> TeacherCache:
    chance = np.random.default_rng(1)
    with CacheWriter(folder, Teacher("generation", "random", None, "", "raw_logprobs", k)) as cache:
        for number, row in enumerate(rows):
            n = sum(each != NO_ROW for each in row["teacher_row"])
            ids = np.stack([chance.permutation(40_000)[:k] for _ in range(n)]).astype(np.int32)
            logprobs = np.log(chance.dirichlet(np.ones(k + 1), n))[:, :k].astype(np.float32)
            trace = Trace(f"p{number}", 0, "t", "", 0, "", None, "", "stop", token_ids=list(range(n)))
            cache.add(trace, SparseRows(np.full(n, k, np.uint16), ids.reshape(-1), logprobs.reshape(-1)))
    return TeacherCache(folder)


class Watch(TrainerCallback):
    def __init__(self) -> None:
        self.times: list[float] = []

    def on_step_end(self, *args: Any, **kwargs: Any) -> None:
        self.times.append(time.perf_counter())


def measure(name: str, options: argparse.Namespace) -> dict[str, float]:
    torch.manual_seed(0)
    before = status_kib("VmRSS")
    path = resolve_model(options.model, "--model")
    model, tokenizer = (
        AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32),
        AutoTokenizer.from_pretrained(path),
    )
    rows, watch = examples(options.examples), Watch()
    packed = "packed" in name
    with tempfile.TemporaryDirectory() as folder:
        arguments = SFTConfig(
            output_dir=folder, report_to="none", use_cpu=True, bf16=True, max_steps=options.steps, disable_tqdm=True,
            per_device_train_batch_size=1 if packed else BATCH, max_length=BATCH * LONGEST, packing=packed,
            gradient_checkpointing=False, save_strategy="no", logging_steps=1, learning_rate=1e-5,
        )  # fmt: skip
        columns = ["input_ids", "labels", *(["teacher_row"] if "KL" in name else [])]
        shared = {
            "model": model, "args": arguments, "processing_class": tokenizer, "callbacks": [watch],
            "train_dataset": Dataset.from_list(rows).select_columns(columns),
        }  # fmt: skip
        if "TRL" in name:
            trainer: SFTTrainer = SFTTrainer(**shared)
        elif "KL" in name:
            cache = make_cache(Path(folder) / "cache", rows, options.k)
            trainer = DistillTrainer(
                settings=Train(student="made", kl=Kl(alpha=0.5, temperature=2.0)), cache=cache, **shared
            )
        else:
            trainer = DistillTrainer(settings=Train(student="made"), **shared)
        trainer.train()
        tokens = [entry["num_tokens"] for entry in trainer.state.log_history if "num_tokens" in entry]
    return {
        "tokens_per_second": (tokens[-1] - tokens[0]) / (watch.times[-1] - watch.times[0]),
        "mib": (status_kib("VmHWM") - before) / 1024,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="quickstart:student")
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--examples", type=int, default=48)
    parser.add_argument("--k", type=int, default=8)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        return print(json.dumps(measure(options.one, options)))
    found: dict[str, list[dict[str, float]]] = {name: [] for name in CONTESTANTS}
    for _ in range(options.rounds):
        for name in CONTESTANTS:
            command = [sys.executable, __file__, *sys.argv[1:], "--one", name]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
            found[name].append(json.loads(done.stdout.strip().splitlines()[-1]))
    speed = {name: statistics.median(one["tokens_per_second"] for one in all_) for name, all_ in found.items()}
    memory = {name: statistics.median(one["mib"] for one in all_) for name, all_ in found.items()}
    for name in CONTESTANTS:
        print(f"{name:24} {speed[name]:7.1f} tokens/s {memory[name]:8,.0f} MiB")
    for name, other in zip(CONTESTANTS[1:], ("TRL SFT", "r1distill SFT", "r1distill SFT"), strict=True):
        print(f"{name} over {other}: speed {speed[name] / speed[other]:.2f}, memory {memory[name] / memory[other]:.2f}")


if __name__ == "__main__":
    main()
