"""Warm restarts: peaks and floors where they should be, torch's own schedule where it has one, the same rates when resumed."""

import math
from itertools import pairwise

import pytest
import tiny_model
import torch
from pydantic import ValidationError
from small_run import small_run
from tiny_trainer import make
from torch.optim.lr_scheduler import CosineAnnealingWarmRestarts

from r1distill.errors import UserError
from r1distill.train.options import check_options
from r1distill.train.schedules import cycle_starts, share_of_peak_rate
from r1distill.train_sections import Restarts


def rates(restarts: Restarts, steps: int, warmup: int) -> list[float]:
    starts = cycle_starts(restarts, steps, warmup)
    return [share_of_peak_rate(restarts, starts, step) for step in range(steps)]


def test_peaks_stand_at_the_starts_of_the_cycles_and_decay():
    restarts = Restarts(cycles=3, length_multiplier=2.0, peak_decay=0.5, min_rate=0.1)
    found = rates(restarts, steps=80, warmup=10)
    assert cycle_starts(restarts, 80, 10) == [10, 20, 40, 80]
    assert found[:10] == pytest.approx([step / 10 for step in range(10)])
    assert (found[10], found[20], found[40]) == (1.0, 0.5, 0.25)
    assert [step for step in range(11, 80) if found[step] > found[step - 1]] == [20, 40]
    assert found[15] == pytest.approx((1.0 + 0.1) / 2)  # half-way down
    assert found[30] == pytest.approx((0.5 + 0.1) / 2)
    assert all(0.1 < rate <= 1.0 for rate in found[10:])
    assert found[79] == pytest.approx(0.1 + 0.15 * (1 + math.cos(math.pi * 39 / 40)) / 2)


def test_without_decay_it_is_the_schedule_of_torch():
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=1.0)
    theirs = CosineAnnealingWarmRestarts(optimizer, T_0=6, T_mult=2, eta_min=0.05)
    expected = []
    for _ in range(6 + 12 + 24):
        expected.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        theirs.step()
    restarts = Restarts(cycles=3, length_multiplier=2.0, min_rate=0.05)
    assert rates(restarts, steps=42, warmup=0) == pytest.approx(expected)


@pytest.mark.parametrize("steps", [97, 100, 1000])
def test_whatever_the_number_of_steps_every_peak_is_met(steps):
    restarts = Restarts(cycles=4, length_multiplier=1.5, peak_decay=0.9, min_rate=0.0)
    found = rates(restarts, steps, warmup=7)
    starts = cycle_starts(restarts, steps, 7)
    assert [found[start] for start in starts[:-1]] == pytest.approx([0.9**cycle for cycle in range(4)])
    assert starts[-1] == steps
    lengths = [end - start for start, end in pairwise(starts)]
    for first, second in pairwise(lengths):
        assert second == pytest.approx(1.5 * first, abs=2)


def test_a_training_takes_these_rates_and_a_resumed_one_continues_with_them(tmp_path):
    model = tiny_model.make_model(tiny_model.make_tokenizer()).float()
    restarts = Restarts(cycles=2, length_multiplier=2.0, peak_decay=0.5, min_rate=0.1)
    changes = {"max_steps": 8, "learning_rate": 1e-3, "warmup_steps": 2, "save_strategy": "steps", "save_steps": 5}
    whole = make(model, tmp_path, train={"restarts": restarts}, **changes)
    whole.train()
    found = [row["learning_rate"] for row in whole.state.log_history if "learning_rate" in row]
    assert found == pytest.approx([1e-3 * rate for rate in rates(restarts, 8, 2)])
    assert found[2] == pytest.approx(1e-3)
    assert found[4] == pytest.approx(5e-4)
    resumed = make(model, tmp_path, train={"restarts": restarts}, **changes)
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-5"))
    assert [row["learning_rate"] for row in resumed.state.log_history if "learning_rate" in row] == found


def test_what_cannot_be_is_refused():
    with pytest.raises(UserError, match=r"6 cycles, each 2 times as long as the one before, do not fit in 20 steps"):
        cycle_starts(Restarts(cycles=6, length_multiplier=2.0), 22, 2)
    with pytest.raises(ValidationError, match=r"the peak of cycle 4 is 0\.125 .* min_rate = 0\.2 is not below it"):
        Restarts(cycles=4, peak_decay=0.5, min_rate=0.2)


def test_beside_another_schedule_they_are_refused(tmp_path):
    run = small_run(tmp_path, train={"restarts": {}, "args": {"lr_scheduler_type": "linear"}})
    with pytest.raises(UserError, match=r"train\.args\.lr_scheduler_type beside \[train\.restarts\]"):
        check_options(run.recipe.train)
    check_options(small_run(tmp_path, train={"restarts": {}, "args": {"lr_scheduler_type": "cosine"}}).recipe.train)
