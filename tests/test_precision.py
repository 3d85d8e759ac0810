"""Gradient checkpointing changes nothing, and mixed precision leaves the head in float32."""

from typing import Any

import pytest
import tiny_model
import torch
from tiny_trainer import make
from transformers import TrainerCallback

from r1distill.train.losses import fused_ce_kl
from r1distill.train_sections import Clip


@pytest.fixture
def model() -> Any:
    return tiny_model.make_model(tiny_model.make_tokenizer()).float()


class Gradients(TrainerCallback):
    """Those of the first optimizer step."""

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.found = {name: p.grad.detach().clone() for name, p in kwargs["model"].named_parameters()}


def step(model: Any, folder: Any, **changes: Any) -> tuple[dict[str, float], dict[str, torch.Tensor]]:
    """What the first step logs, and its gradients by parameter."""
    trainer = make(model, folder, per_device_train_batch_size=8, **changes)
    gradients = Gradients()
    trainer.add_callback(gradients)
    trainer.train()
    return trainer.state.log_history[0], gradients.found


def relative(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> float:
    """The norm of the difference over the norm, of all parameters together."""
    difference = sum(float((found[name] - value).double().square().sum()) for name, value in expected.items())
    return (difference / sum(float(value.double().square().sum()) for value in expected.values())) ** 0.5


@pytest.mark.parametrize("changes", [{}, {"train": {"clip": Clip(until=0.0, attention=0.1)}, "max_grad_norm": 1.0}])
def test_gradient_checkpointing_changes_neither_loss_nor_gradients(tmp_path, model, changes):
    expected, gradients = step(model, tmp_path / "off", **changes)
    found, theirs = step(model, tmp_path / "on", gradient_checkpointing=True, **changes)
    assert found["loss"] == pytest.approx(expected["loss"], rel=1e-6)
    for name, gradient in gradients.items():
        torch.testing.assert_close(theirs[name], gradient, rtol=1e-6, atol=1e-6)


def test_mixed_precision_is_near_float32_and_keeps_weights_and_gradients_in_it(tmp_path, model):
    expected, gradients = step(model, tmp_path / "float32")
    found, theirs = step(model, tmp_path / "bfloat16", bf16=True)
    assert {gradient.dtype for gradient in theirs.values()} == {torch.float32}
    assert found["loss"] != expected["loss"]  # it was on
    assert found["loss"] == pytest.approx(expected["loss"], rel=2**-8)  # the unit roundoff of bfloat16
    assert relative(theirs, gradients) < 0.03


@pytest.mark.parametrize("with_teacher", [False, True])
def test_under_autocast_the_head_computes_in_float32(with_teacher):
    torch.manual_seed(0)
    hidden, weight = torch.randn(12, 64), torch.randn(300, 64)
    labels = torch.randint(0, 300, (12,))
    teacher: list[torch.Tensor] = []
    if with_teacher:
        top = torch.randn(12, 300).log_softmax(1).topk(8)
        teacher = [top.indices, top.values]

    def losses() -> list[torch.Tensor]:
        inputs = hidden.clone().requires_grad_(), weight.clone().requires_grad_()
        found = fused_ce_kl(*inputs, labels, *teacher)
        total = found.ce_sum + found.kl_sum
        return [total.detach(), *torch.autograd.grad(total, inputs)]

    expected = losses()
    with torch.autocast("cpu", torch.bfloat16):
        assert (hidden @ weight.T).dtype == torch.bfloat16
        found = losses()
    for ours, other in zip(found, expected, strict=True):
        assert ours.dtype == torch.float32
        torch.testing.assert_close(ours, other, rtol=1e-6, atol=1e-6)
