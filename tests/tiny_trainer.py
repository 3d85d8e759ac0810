"""A DistillTrainer of the tiny model on eight ragged sequences; a step of gradient descent at rate 1 is the gradient."""

from pathlib import Path
from typing import Any

import numpy as np
import tiny_model
import torch
from datasets import Dataset
from trl.trainer.sft_config import SFTConfig
from trl.trainer.sft_trainer import SFTTrainer

from r1distill.train.distill import DistillTrainer
from r1distill.train.render import IGNORED
from r1distill.train.teacher_cache import NO_ROW, TeacherCache
from r1distill.train_sections import Kl, Train

LENGTHS = (9, 17, 5, 30, 12, 7, 22, 11)
PROMPT = 3  # tokens


def examples(vocabulary: int) -> list[dict[str, list[int]]]:
    chance = np.random.default_rng(0)
    rows, row = [], 0
    for length in LENGTHS:
        ids = chance.integers(3, vocabulary, length).tolist()
        labels = [IGNORED] * PROMPT + ids[PROMPT:]
        teacher_row = [NO_ROW] * (PROMPT + 1) + list(range(row, row + length - PROMPT - 1))  # the first was put in
        row += length - PROMPT - 1
        rows.append({"input_ids": ids, "labels": labels, "teacher_row": teacher_row})
    return rows


def settings(folder: Path, **changes: Any) -> SFTConfig:
    options: dict[str, Any] = {
        "output_dir": str(folder), "report_to": "none", "use_cpu": True, "bf16": False, "max_length": 64, "max_steps": 1,
        "gradient_checkpointing": False, "per_device_train_batch_size": 4, "optim": "sgd", "learning_rate": 1.0,
        "lr_scheduler_type": "constant", "max_grad_norm": 1e9, "shuffle_dataset": False, "save_strategy": "no",
        "disable_tqdm": True, "logging_steps": 1, **changes,
    }  # fmt: skip
    if changes.get("padding_free"):
        options["max_length"] = None
    return SFTConfig(**options)


def trained(trainer: SFTTrainer) -> dict[str, torch.Tensor]:
    trainer.train()
    return {name: value.clone() for name, value in parameters(trainer).items()}


def parameters(trainer: SFTTrainer) -> dict[str, torch.Tensor]:
    assert trainer.model is not None
    return {name: value.detach() for name, value in trainer.model.named_parameters()}


def assert_same(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor], tolerance: float = 2e-5) -> None:
    for name, value in expected.items():
        torch.testing.assert_close(
            found[name], value, atol=tolerance, rtol=tolerance, msg=lambda text, n=name: f"{n}: {text}"
        )


def copy_of(model: Any) -> Any:
    twin = type(model)(model.config)
    twin.load_state_dict(model.state_dict())
    return twin


def of_columns(rows: list[dict[str, list[int]]], *columns: str) -> Dataset:
    return Dataset.from_list([{name: row[name] for name in columns} for row in rows])


def make(
    model: Any,
    folder: Path,
    cache: TeacherCache | None = None,
    kl: Kl | None = None,
    online_teacher: Any = None,
    train: dict[str, Any] | None = None,
    **changes: Any,
) -> DistillTrainer:
    """`train`: sections of [train] besides `kl`; `changes` are TRL's options."""
    columns = ("input_ids", "labels", *(["teacher_row"] if cache else []))
    return DistillTrainer(
        settings=Train(student="tiny", kl=kl, **(train or {})), cache=cache, online_teacher=online_teacher, model=copy_of(model),
        args=settings(folder, **changes),
        train_dataset=of_columns(examples(model.config.vocab_size), *columns),
        processing_class=tiny_model.make_tokenizer(),
    )  # fmt: skip
