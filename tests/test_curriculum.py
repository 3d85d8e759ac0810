"""The curriculum: exact mixtures, the same order every time and after a resumption, and packs of one phase."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import test_train
import tiny_model
import torch
from accelerate.data_loader import prepare_data_loader
from datasets import Dataset
from pydantic import ValidationError
from small_run import small_run
from tiny_trainer import copy_of, settings
from torch.utils.data import DataLoader, SequentialSampler

from r1distill.errors import UserError
from r1distill.train import trainer
from r1distill.train.curriculum import PHASE, Plan, counts_of, describe, plan_of, shares_of
from r1distill.train.distill import DistillTrainer
from r1distill.train.options import check_options
from r1distill.train_sections import Curriculum, Phase, Train

DEFAULT = Curriculum()


def make_pools(diverse: int = 400, quality: int = 500, hard: int = 300, none: int = 50) -> list[list[str]]:
    """Every third quality example is hard as well."""
    both = quality // 3
    pools = [["diverse"]] * diverse + [["quality", "hard"]] * both + [["quality"]] * (quality - both)
    return pools + [["hard"]] * (hard - both) + [[]] * none


def plan(pools: list[list[str]], length: int, seed: int = 0, curriculum: Curriculum = DEFAULT) -> Plan:
    return plan_of(curriculum, pools, lambda n_usable: length, seed)


def counts(found: Plan, phase: int) -> Counter[str]:
    return Counter(found.names[pool] for pool in found.pool[found.phase == phase])


@pytest.mark.parametrize("length", [100, 997, 1000])
def test_ratios_are_exact_in_every_phase(length):
    found = plan(make_pools(), length)
    first, second = counts(found, 0), counts(found, 1)
    assert first.total() + second.total() == len(found.examples) == length
    assert abs(first.total() - 0.5 * length) <= 0.5
    for count, mix in ((first, {"diverse": 0.7, "quality": 0.3}), (second, {"quality": 0.6, "hard": 0.4})):
        for pool, share in mix.items():
            assert abs(count[pool] - share * count.total()) < 1
    pools = make_pools()
    for example, pool in zip(found.examples, found.pool, strict=True):
        assert found.names[pool] in pools[example]
    if length == 1000:
        assert (first, second) == ({"diverse": 350, "quality": 150}, {"quality": 300, "hard": 200})


@pytest.mark.parametrize("n", [1, 2, 3, 7, 10, 99, 12345])
def test_what_rounding_leaves_goes_to_the_largest_remainders(n):
    mix = {"a": 0.1, "b": 0.2, "c": 0.3, "d": 0.4}
    found = counts_of(Phase(until=1, mix=mix), n)
    assert sum(found.values()) == n
    exact = {name: share * n for name, share in mix.items()}
    up = {name for name in mix if found[name] > exact[name] + 1e-9}
    down = {name for name in mix if found[name] < exact[name] - 1e-9}
    assert all(abs(found[name] - exact[name]) < 1 for name in mix)
    assert all(exact[a] % 1 >= exact[b] % 1 - 1e-9 for a in up for b in down)


def test_any_stretch_of_a_phase_has_nearly_its_mixture():
    found = plan(make_pools(), 1000)
    first = found.pool[found.phase == 0] == found.names.index("diverse")
    for size in (10, 64):
        shares = [first[start : start + size].sum() for start in range(0, 500 - size)]
        assert max(shares) - min(shares) <= 2
        assert abs(np.mean(shares) - 0.7 * size) < 0.5


def test_nothing_is_read_twice_before_its_pool_is_used_up_and_repeats_are_counted():
    found = plan(make_pools(), 900)
    assert not found.is_repeat.any()
    assert len(set(found.examples)) == 900
    # 450 of quality and 200 of hard, which together have 634 examples: 16 have to be read again
    assert plan(make_pools(), 1000).is_repeat.sum() == 16
    pools = make_pools(hard=170)  # all but 4 of the hard ones are quality too
    small = plan(pools, 1000)
    shares = shares_of(small, np.full(len(pools), 10))
    reads = Counter(small.examples.tolist())
    assert sum(share.repeats for share in shares) == sum(reads.values()) - len(reads) == 450 + 200 - 504
    assert all(share.phase == 2 for share in shares if share.repeats)
    of_hard = [reads[example] for example, its in enumerate(pools) if "hard" in its]
    assert max(of_hard) - min(of_hard) <= 1
    assert "read before, the pool has 170" in describe(shares)


def test_the_order_is_that_of_the_seed():
    first, again, other = plan(make_pools(), 500, 3), plan(make_pools(), 500, 3), plan(make_pools(), 500, 4)
    assert (first.examples == again.examples).all()
    assert (first.pool == again.pool).all()
    assert not (first.examples == other.examples).all()


def test_shares_are_told_in_examples_and_in_tokens():
    pools = [["diverse"]] * 70 + [["quality"]] * 90 + [["hard"]] * 40
    tokens = np.array([100] * 70 + [200] * 90 + [300] * 40)
    text = describe(shares_of(plan(pools, 200), tokens))
    assert text.splitlines() == [
        "  phase 1: 100 examples, 13,000 tokens: "
        "70 diverse (70.0%, 53.8% of the tokens); 30 quality (30.0%, 46.2% of the tokens)",
        "  phase 2: 100 examples, 24,000 tokens: "
        "60 quality (60.0%, 50.0% of the tokens); 40 hard (40.0%, 50.0% of the tokens)",
    ]


def test_what_no_order_can_be_made_of_is_refused():
    with pytest.raises(UserError, match=r'in the pool "hard"; the dataset has diverse \(5\), quality \(2\)'):
        plan([["diverse"]] * 5 + [["quality"]] * 2, 10)
    with pytest.raises(UserError, match=r'phase 1 of a training of 2 examples has none for the pool "quality"'):
        plan(make_pools(), 2)
    with pytest.raises(ValidationError, match="shares above 0 that together are 1"):
        Phase(until=1.0, mix={"a": 0.5, "b": 0.4})
    with pytest.raises(ValidationError, match=r"ascending, and the last at 1"):
        Curriculum(phases=[Phase(until=0.5, mix={"a": 1.0})])


def in_order(lengths: list[int], phases: list[int]) -> Dataset:
    """Examples whose tokens tell which one it is."""
    ids = [[3 + number] * length for number, length in enumerate(lengths)]
    return Dataset.from_dict({"input_ids": ids, "labels": ids, PHASE: phases})


class Seen(DistillTrainer):
    """Remembers what each optimizer step has read."""

    batches: list[list[int]]

    def training_step(self, model: Any, inputs: Any, *rest: Any, **named: Any) -> torch.Tensor:
        self.batches = [*getattr(self, "batches", []), torch.unique_consecutive(inputs["input_ids"]).tolist()]
        return super().training_step(model, inputs, *rest, **named)


def seen(model: Any, folder: Path, dataset: Dataset, checkpoint: str | None = None, **changes: Any) -> list[list[int]]:
    options = {"max_steps": -1, "num_train_epochs": 1, "train_sampling_strategy": "sequential", "padding_free": True}
    options |= {"per_device_train_batch_size": 2, "learning_rate": 1e-3, "save_strategy": "steps", "save_steps": 4}
    arguments = settings(folder, **{**options, **changes})
    made = Seen(
        settings=Train(student="tiny"), model=copy_of(model), args=arguments, train_dataset=dataset,
        processing_class=tiny_model.make_tokenizer(),
    )  # fmt: skip
    made.train(resume_from_checkpoint=checkpoint)
    return made.batches


@pytest.fixture
def model() -> Any:
    return tiny_model.make_model(tiny_model.make_tokenizer()).float()


@pytest.mark.parametrize("packing", [False, True])
def test_a_resumed_training_reads_on_in_the_same_order(tmp_path, model, packing):
    chance = np.random.default_rng(0)
    dataset = in_order(chance.integers(5, 30, 60).tolist(), [0] * 30 + [1] * 30)
    changes = {"packing": True, "padding_free": False, "max_length": 64} if packing else {}
    whole = seen(model, tmp_path, dataset, **changes)
    if not packing:
        assert [number - 3 for batch in whole for number in batch] == list(range(60))
    resumed = seen(model, tmp_path, dataset, str(tmp_path / "checkpoint-4"), **changes)
    assert len(whole) > 6
    assert resumed == whole[4:]


def test_packs_are_of_one_phase_and_the_phases_in_order(tmp_path, model):
    chance = np.random.default_rng(0)
    phases = [0] * 50 + [1] * 30 + [2] * 40
    dataset = in_order(chance.integers(5, 30, 120).tolist(), phases)
    batches = seen(
        model, tmp_path, dataset, packing=True, padding_free=False, max_length=64, per_device_train_batch_size=1,
        save_strategy="no",
    )  # fmt: skip
    of_pack = [{phases[number - 3] for number in pack} for pack in batches]
    assert all(len(phase) == 1 for phase in of_pack)
    order = [phase.pop() for phase in of_pack]
    assert order == sorted(order)
    assert sorted(number for pack in batches for number in pack) == list(range(3, 123))
    # best-fit packing fills with the longest first; a student should not read by length
    lengths = [max(len(dataset[number - 3]["input_ids"]) for number in pack) for pack in batches]
    assert lengths[: order.count(0)] != sorted(lengths[: order.count(0)], reverse=True)


def test_two_processes_read_different_examples_and_together_the_order():
    found = plan(make_pools(), 400)
    read = []
    for process in range(2):
        loader = DataLoader(found.examples.tolist(), batch_size=4, sampler=SequentialSampler(found.examples))
        shard = prepare_data_loader(loader, num_processes=2, process_index=process, put_on_device=False)
        read.append([batch.tolist() for batch in shard])
    assert not {x for batch in read[0] for x in batch} & {x for batch in read[1] for x in batch}
    together = [x for pair in zip(*read, strict=True) for batch in pair for x in batch]
    assert together == found.examples.tolist()


def run_with_pools(folder: Path, student: Path, pools: list[Any], **train: Any) -> Any:
    run = test_train.make_run(folder, student, repeat=len(pools) // 8, **train)
    path = run.dataset / "train.parquet"
    pq.write_table(pq.read_table(path).append_column("pools", pa.array(pools)), path)
    return run


@pytest.mark.slow
def test_a_run_reads_its_dataset_in_the_order_of_the_curriculum(tmp_path, tiny_student, capsys):
    pools = [["diverse"]] * 32 + [["quality"]] * 28 + [["hard", "unused"]] * 20
    arguments = {"num_train_epochs": 1.5, "per_device_train_batch_size": 4, "gradient_checkpointing": False}
    run = run_with_pools(tmp_path / "run", tiny_student, pools, curriculum={}, args=arguments)
    counted = trainer.train(run)
    assert counted["steps"] == 30  # 120 examples, four at a time
    assert counted["examples"] == 120
    shares = {(share["phase"], share["pool"]): share["examples"] for share in counted["curriculum"]}
    assert shares == {(1, "diverse"): 42, (1, "quality"): 18, (2, "quality"): 36, (2, "hard"): 24}
    assert sum(share["tokens"] for share in counted["curriculum"]) == counted["tokens"]
    repeats = {(share["phase"], share["pool"]): share["repeats"] for share in counted["curriculum"]}
    assert repeats == {(1, "diverse"): 10, (1, "quality"): 0, (2, "quality"): 26, (2, "hard"): 4}
    out = capsys.readouterr().out
    assert "phase 1: 60 examples" in out
    assert json.loads((run.student / "training_log.json").read_text())[-1]["epoch"] == 1.0


@pytest.mark.slow
def test_steps_decide_the_length_where_they_are_given(tmp_path, tiny_student):
    pools = ["diverse"] * 16 + ["quality"] * 16 + ["hard"] * 8
    arguments = {"max_steps": 3, "per_device_train_batch_size": 4, "gradient_accumulation_steps": 2}
    run = run_with_pools(tmp_path / "run", tiny_student, pools, curriculum={}, args=arguments)
    counted = trainer.train(run)
    assert (counted["steps"], counted["examples"]) == (3, 24)


@pytest.mark.slow
def test_a_dataset_without_pools_and_options_beside_the_curriculum_are_refused(tmp_path, tiny_student):
    run = test_train.make_run(tmp_path / "run", tiny_student, repeat=1, curriculum={})
    with pytest.raises(
        UserError, match=r"needs the column `pools` in .*train\.parquet: .* there are prompt, completion"
    ):
        trainer.train(run)
    for arguments, message in (
        ({"shuffle_dataset": True}, r"train\.args\.shuffle_dataset beside \[train\.curriculum\]"),
        ({"packing": True, "max_steps": 10}, r"max_steps = 10 with \[train\.curriculum\] and packing"),
    ):
        recipe = small_run(tmp_path, train={"curriculum": {}, "args": arguments}).recipe
        with pytest.raises(UserError, match=message):
            check_options(recipe.train)
