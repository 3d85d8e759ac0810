"""Packed examples do not see each other, and a step over packs is as large as the recipe says."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_model
import torch
from datasets import Dataset
from test_train import make_run
from torch import Tensor
from trl.data_utils import pack_dataset
from trl.trainer.sft_config import SFTConfig

from r1distill.train.batch import Batch, count_packs, packed_batch
from r1distill.train.distill import DistillTrainer
from r1distill.train.render import IGNORED
from r1distill.train.trainer import train
from r1distill.train_sections import Train

ATTENTION = ("sdpa", "eager", pytest.param("flex_attention", marks=pytest.mark.slow))
MAX_LENGTH = 48


@pytest.fixture(scope="module")
def batch(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the collator of the trainer makes of two packs of ragged examples."""
    chance = np.random.default_rng(0)
    tokenizer = tiny_model.make_tokenizer()
    rows = []
    for length in (9, 17, 5, 30, 12, 7):
        ids = chance.integers(3, len(tokenizer), length).tolist()
        rows.append({"input_ids": ids, "labels": [IGNORED] * 3 + ids[3:]})
    settings = SFTConfig(
        output_dir=str(tmp_path_factory.mktemp("packing")), report_to="none", use_cpu=True, bf16=False,
        packing=True, max_length=MAX_LENGTH, per_device_train_batch_size=2,
    )  # fmt: skip
    trainer = DistillTrainer(
        settings=Train(student="tiny"),
        model=tiny_model.make_model(tokenizer), args=settings, train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
    )  # fmt: skip
    [found] = trainer.get_train_dataloader()
    assert found["input_ids"].shape == (1, 80)  # two packs, one behind the other
    return found


def model_with(attention: str) -> Any:
    model = tiny_model.make_model(tiny_model.make_tokenizer()).float().eval()
    model.set_attn_implementation(attention)
    return model


def separate_logits(model: Any, batch: dict[str, Any]) -> Tensor:
    """Each example by itself, and the logits `(1, L, V)` one behind the other."""
    starts = (batch["position_ids"][0] == 0).nonzero().flatten().tolist()
    ends = [*starts[1:], batch["input_ids"].shape[1]]
    return torch.cat(
        [model(input_ids=batch["input_ids"][:, a:b]).logits for a, b in zip(starts, ends, strict=True)], dim=1
    )


@pytest.mark.parametrize("attention", ATTENTION)
def test_packed_examples_have_the_logits_that_they_have_alone(batch: dict[str, Any], attention: str) -> None:
    assert "attention_mask" not in batch
    # with a cache transformers does not look for packs; add_losses switches it off in training
    inputs = {**batch, "labels": None, "use_cache": False}
    with torch.no_grad():
        model = model_with(attention)
        packed, alone = model(**inputs).logits, separate_logits(model, batch)
    torch.testing.assert_close(packed, alone, atol=1e-5, rtol=1e-5)


def test_an_attention_mask_of_ones_lets_packed_examples_see_each_other(batch: dict[str, Any]) -> None:
    with torch.no_grad():
        model = model_with("sdpa")
        seen = model(
            input_ids=batch["input_ids"],
            position_ids=batch["position_ids"],
            attention_mask=torch.ones_like(batch["input_ids"]),
            use_cache=False,
        ).logits
        assert (seen - separate_logits(model, batch)).abs().max() > 0.05


def test_no_example_is_taught_from_the_one_before_it(batch: dict[str, Any]) -> None:
    starts = batch["position_ids"] == 0
    assert starts.sum() == 6
    assert (batch["labels"][starts] == IGNORED).all()


@pytest.mark.parametrize("seed", range(5))
def test_packs_are_counted_as_trl_makes_them(seed: int) -> None:
    lengths = np.random.default_rng(seed).integers(1, 101, size=2300).tolist()
    packed = pack_dataset(Dataset.from_dict({"input_ids": [[0] * length for length in lengths]}), 100, "bfd")
    assert count_packs(lengths, 100) == len(packed)


def test_a_step_over_packs_has_the_sequences_of_the_recipe() -> None:
    # 64 sequences on 8 devices; six of them fill a row
    assert packed_batch(1, 8, 8, 6.0) == Batch(1, 1, 48.0)
    assert packed_batch(8, 1, 1, 2.0) == Batch(4, 1, 8.0)
    assert packed_batch(4, 8, 2, 4.0) == Batch(4, 2, 64.0)
    # nothing shorter than a row: packing changes nothing
    assert packed_batch(4, 8, 2, 1.0) == Batch(4, 8, 64.0)


@pytest.mark.parametrize("seed", range(20))
def test_no_other_batch_is_much_nearer_and_no_device_is_given_more_rows(seed: int) -> None:
    chance = np.random.default_rng(seed)
    rows, accumulation, processes = (int(chance.integers(1, most)) for most in (9, 33, 17))
    sequences_a_pack = float(chance.uniform(1, 12))
    wanted = rows * accumulation * processes
    found = packed_batch(rows, accumulation, processes, sequences_a_pack)
    assert found.rows <= rows
    assert found.sequences == pytest.approx(found.rows * found.accumulation * processes * sequences_a_pack)
    nearest = min(
        abs(r * a * processes * sequences_a_pack - wanted) for r in range(1, rows + 1) for a in range(1, wanted + 1)
    )
    assert abs(found.sequences - wanted) <= max(nearest, 0.05 * wanted) + 1e-9


@pytest.mark.slow
def test_the_batch_is_said_in_sequences_and_tokens_and_kept_when_packing_is_switched_on(
    tmp_path: Path, tiny_student: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """160 examples and 16 in a batch are ten steps, whatever a pack holds."""
    said, steps = {}, {}
    for packing, length in ((False, {"max_steps": 1}), (True, {"num_train_epochs": 1})):
        run = make_run(
            tmp_path / str(packing), tiny_student, max_length=512,
            args={
                "packing": packing, "per_device_train_batch_size": 2, "gradient_accumulation_steps": 8,
                "gradient_checkpointing": False, "save_strategy": "no", **length,
            },
        )  # fmt: skip
        steps[packing] = train(run)["steps"]
        [said[packing]] = [line for line in capsys.readouterr().out.splitlines() if "a batch is" in line]
    assert "a batch is 16 sequences, about 1,480 tokens" in said[False]
    assert "a batch is 3 packs of 5.0 sequences" in said[True]
    assert "gradient_accumulation_steps = 3), about 15 sequences, about 1,388 tokens" in said[True]
    assert steps[True] == 11
