"""The error controller: when it acts, within which bounds, and that a resumed training decides as the whole one."""

import json
import math
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import tiny_model
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from tiny_trainer import assert_same, copy_of, make, parameters

from r1distill.controller_section import Controller, ErrorBound, Signals
from r1distill.errors import UserError
from r1distill.train.controller import (
    Running,
    Sparsity,
    State,
    alpha_taken,
    error_bound,
    observe,
    rate_factor,
    state_of,
)
from r1distill.train_sections import Kl, Train

RATE = Controller(action="learning_rate", warmup=10, cooldown=5, memory=20)


def steps(
    settings: Controller, norms: list[float], losses: list[float] | None = None
) -> list[tuple[State, float, bool]]:
    state, found = State(), []
    for step, norm in enumerate(norms, 1):
        loss = losses[step - 1] if losses else 1.0 + 0.01 * math.sin(step)
        state, score, acts = observe(state, settings, step, {"gradient_norm": norm, "loss": loss})
        found.append((state, score, acts))
    return found


def noise(n: int) -> list[float]:
    return [1.0 + 0.1 * math.sin(1.7 * step) for step in range(n)]


def test_a_steady_training_is_left_alone() -> None:
    assert not any(acts for _, _, acts in steps(RATE, noise(300)))


def test_a_spike_is_answered_once_and_taken_back_after_calm_steps() -> None:
    norms = [*noise(50), 50.0, 50.0, 50.0, *noise(60)]
    found = steps(RATE, norms)
    assert [place for place, (_, _, acts) in enumerate(found) if acts] == [50]
    factors = [rate_factor(state, RATE) for state, _, _ in found]
    assert factors[49] == 1.0
    assert factors[50] == 0.5
    assert factors[-1] == 1.0
    assert len(set(factors)) == 2


def test_it_is_armed_again_only_below_the_release() -> None:
    """Spikes that follow each other within the hysteresis are one."""
    settings = RATE.model_copy(update={"cooldown": 1, "memory": 1000})
    found = steps(settings, [*noise(50), *([30.0] * 4), *noise(3), *([30.0] * 4), *noise(3)])
    acted = [place for place, (_, _, acts) in enumerate(found) if acts]
    assert acted == [50, 57]


@given(st.lists(st.floats(1e-6, 1e9), min_size=1, max_size=200), st.sampled_from(["log", "learning_rate", "teacher"]))
def test_bounds_and_the_cool_down_hold_whatever_happens(norms: list[float], action: Any) -> None:
    settings = Controller(action=action, warmup=2, cooldown=7, memory=5, threshold=1.5)
    found = steps(settings, norms)
    acted = [place for place, (_, _, acts) in enumerate(found) if acts]
    assert all(second - first >= 7 for first, second in pairwise(acted))
    assert all(place >= 2 for place in acted)
    for state, _, _ in found:
        assert settings.least_factor <= rate_factor(state, settings) <= 1
        assert 0 <= alpha_taken(state, settings) <= settings.most_alpha
        if action == "log":
            assert (rate_factor(state, settings), alpha_taken(state, settings)) == (1, 0)


@given(st.lists(st.floats(1e-3, 1e3), min_size=2, max_size=80), st.integers(1, 79))
def test_a_state_that_was_saved_goes_on_as_it_would_have(norms: list[float], cut: int) -> None:
    cut = min(cut, len(norms) - 1)
    whole = steps(RATE, norms)
    state = state_of(json.loads(json.dumps(asdict(whole[cut - 1][0]))))
    for step, norm in enumerate(norms[cut:], cut + 1):
        state, score, acts = observe(state, RATE, step, {"gradient_norm": norm, "loss": 1.0 + 0.01 * math.sin(step)})
        assert (state, score, acts) == whole[step - 1]


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_what_is_not_finite_is_answered_and_spoils_no_mean(value: float) -> None:
    found = steps(RATE, [*noise(50), value, *noise(20)])
    assert found[50][2]
    assert found[50][1] == math.inf
    assert all(math.isfinite(score) for _, score, _ in found[51:])
    losses = [1.0] * 50 + [value] + [1.0] * 20
    assert steps(RATE, noise(71), losses)[50][2]


def test_one_loss_is_no_variance() -> None:
    """The signal has as many values as there are variances, and none of them is that of a single loss."""
    losses = [2.0, 2.5, 1.5, 2.2]
    found = steps(RATE, noise(4), losses)
    assert [state.signals.get("loss_variance", Running()).count for state, _, _ in found] == [0, 1, 2, 3]
    variances = [math.log(state.loss.variance) for state, _, _ in found[1:]]
    assert found[-1][0].signals["loss_variance"].mean == pytest.approx(sum(variances) / 3)
    alone = RATE.model_copy(update={"signals": Signals(gradient_norm=0)})
    assert [score for _, score, _ in steps(alone, noise(2), losses)] == [0, 0]


@given(st.lists(st.floats(-100, 100), min_size=1, max_size=50))
def test_the_running_mean_starts_as_the_plain_one(values: list[float]) -> None:
    running = Running()
    for value in values:
        running = running.after(value, memory=10_000)
    assert running.mean == pytest.approx(sum(values) / len(values), abs=1e-9)
    variance = sum((value - running.mean) ** 2 for value in values) / len(values)
    assert running.variance == pytest.approx(variance, abs=1e-6)


def test_the_bound_is_the_articles_formula() -> None:
    bound = ErrorBound(alpha=0.4, beta=3.0, gamma=0.5, teacher_error=0.1)
    assert error_bound(bound, 0.5, 0.3) == pytest.approx(0.4 * (1 - math.exp(-1.5)) + 0.5 * 0.2)
    assert error_bound(bound, 0.0, 0.1) == 0


def test_settings_that_mean_nothing_are_errors() -> None:
    with pytest.raises(ValidationError, match=r"release = 5 is not below threshold = 4"):
        Controller(release=5)
    with pytest.raises(ValidationError, match=r"all are 0, so that nothing is watched"):
        Controller(signals=Signals(gradient_norm=0, loss_variance=0))
    with pytest.raises(ValidationError, match=r"changes alpha, and there is no \[train.kl\]"):
        Train(student="s", controller=Controller(action="teacher"))


# ---------------------------------------------------------------- in the trainer

TOUCHY = Controller(
    action="learning_rate", warmup=2, cooldown=2, memory=3, threshold=0.01, release=-5, signals=Signals(sparsity=1)
)


@pytest.fixture(scope="module")
def model():
    return tiny_model.make_model(tiny_model.make_tokenizer())


def test_sparsity_is_the_share_of_each_token_that_is_next_to_nothing_whoever_has_the_token(model) -> None:
    model = copy_of(model).train()
    sparsity, entered = Sparsity(model), []
    for layer in model.model.layers:
        layer.mlp.down_proj.register_forward_pre_hook(
            lambda module, inputs: entered.append(inputs[0].detach().double())
        )
    with torch.no_grad():
        for layer in model.model.layers:
            layer.mlp.gate_proj.weight[::3] *= 1e-4  # a third of the channels
    ids = torch.arange(24).reshape(4, 6)
    model(input_ids=ids)
    shares = [
        (x.abs() < 0.01 * x.pow(2).mean().sqrt()).double().mean().item()
        for layer in entered
        for x in layer.flatten(0, 1)
    ]
    total, tokens = sparsity.take(torch.device("cpu")).tolist()
    assert tokens == len(shares) == 48
    assert total == pytest.approx(sum(shares), abs=1e-4)
    assert total / tokens > 0.3
    model(input_ids=ids[:1])
    model(input_ids=ids[1:])
    assert sparsity.take(torch.device("cpu")).tolist() == pytest.approx([total, tokens])
    model.eval()
    model(input_ids=ids)
    assert sparsity.take(torch.device("cpu")).tolist() == [0, 0]


def test_it_lowers_the_rate_says_why_and_is_resumed(tmp_path: Path, model, capsys) -> None:
    options = {
        "max_steps": 8, "save_strategy": "steps", "save_steps": 4, "learning_rate": 1e-2, "max_grad_norm": 1.0,
        "lr_scheduler_type": "linear",
    }  # fmt: skip
    whole = make(model, tmp_path / "run", train={"controller": TOUCHY}, **options)
    whole.train()
    assert "the learning rate is multiplied by 0.5" in capsys.readouterr().out
    rows = [row for row in whole.state.log_history if "loss" in row]
    factors = [row["learning_rate"] / (1e-2 * (8 - place) / 8) for place, row in enumerate(rows)]
    assert any(factor == pytest.approx(0.5) for factor in factors)
    assert all(0.1 <= factor <= 1.0001 for factor in factors)
    logged = {f"controller/{name}" for name in ("score", "error", "error_bound", "sparsity")}
    assert all(logged <= row.keys() for row in rows)
    assert rows[-1]["controller/error"] == pytest.approx(1 - rows[-1]["mean_token_accuracy"])
    resumed = make(model, tmp_path / "run", train={"controller": TOUCHY}, **options)
    resumed.train(resume_from_checkpoint=str(tmp_path / "run" / "checkpoint-4"))
    assert resumed.watch is not None
    assert whole.watch is not None
    assert resumed.watch.now == whole.watch.now
    assert_same(parameters(resumed), parameters(whole), 1e-6)


def test_only_watching_changes_nothing_of_the_training(tmp_path: Path, model) -> None:
    watching = TOUCHY.model_copy(update={"action": "log"})
    options = {"max_steps": 4, "learning_rate": 1e-2, "max_grad_norm": 1.0}
    with_it, without = (
        make(model, tmp_path / name, train=train, **options)
        for name, train in (("with", {"controller": watching}), ("without", None))
    )
    with_it.train()
    without.train()
    assert_same(parameters(with_it), parameters(without), 0.0)


def test_the_teacher_counts_for_more_and_alpha_says_so(tmp_path: Path, model) -> None:
    touchy = TOUCHY.model_copy(update={"action": "teacher"})
    trainer = make(
        model, tmp_path, kl=Kl(alpha=0.9, online="t"), online_teacher=tiny_model.make_model(tiny_model.make_tokenizer()),
        train={"controller": touchy}, max_steps=8, learning_rate=1e-2, max_grad_norm=1.0,
    )  # fmt: skip
    trainer.train()
    alphas = [row["alpha"] for row in trainer.state.log_history if "alpha" in row]
    assert alphas[0] == pytest.approx(0.9)
    assert min(alphas) == pytest.approx(0.8, abs=0.11)
    assert min(alphas) >= 0.6 - 1e-9
    assert len(set(alphas)) > 1


def test_without_clipping_there_is_no_norm_to_watch(tmp_path: Path, model) -> None:
    with pytest.raises(UserError, match=r"\[train.controller\] with train.args.max_grad_norm = 0"):
        make(model, tmp_path, train={"controller": RATE}, max_grad_norm=0.0)
