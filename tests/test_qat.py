"""Training and saving in eight bits."""

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import tiny_model
import torch
from pydantic import ValidationError
from safetensors import safe_open
from tiny_trainer import assert_same, make, parameters, trained
from transformers import AutoModelForCausalLM

from r1distill.errors import UserError
from r1distill.quantize.export import export
from r1distill.quantize_sections import Qat
from r1distill.train_sections import Train

pytest.importorskip("compressed_tensors", reason="the extra quantize is not installed; vLLM brings this part of it")
needs_torchao = pytest.mark.skipif(find_spec("torchao") is None, reason="the extra quantize is not installed")


@pytest.fixture(scope="module")
def model() -> Any:
    return tiny_model.make_model(tiny_model.make_tokenizer())


def rounded(x: torch.Tensor) -> torch.Tensor:
    """To the nearest of 256 values in each row, scaled by its largest, which is half-way between two where it is negative."""
    scale = x.abs().amax(-1, keepdim=True).clamp(min=1e-9) / 127.5
    return (x * (1 / scale)).round().clamp(-128, 127) * scale


def rounded_from_its_least(x: torch.Tensor) -> torch.Tensor:
    """To the nearest of 256 values between the least and the largest of each row, 0 among them."""
    low, high = x.amin(-1, keepdim=True).clamp(max=0), x.amax(-1, keepdim=True).clamp(min=0)
    scale = (high - low).clamp(min=1e-9) / 255
    zero = (-128 - (low / scale).round()).clamp(-128, 127)
    return (((x * (1 / scale)).round() + zero).clamp(-128, 127) - zero) * scale


@needs_torchao
@pytest.mark.parametrize("scheme", ["int8", "int8_weights"])
def test_the_forward_pass_is_that_of_rounded_weights_and_inputs(tmp_path: Path, model, scheme) -> None:
    trainer = make(model, tmp_path, train={"qat": Qat(start=0.0, scheme=scheme)})
    whole: Any = trainer.model
    layer = whole.model.layers[0].mlp.gate_proj
    trainer.train()
    x = torch.randn(3, 5, layer.in_features, generator=torch.Generator().manual_seed(0))
    expected = (rounded_from_its_least(x) if scheme == "int8" else x) @ rounded(layer.weight.detach()).T
    torch.testing.assert_close(layer(x).detach(), expected, rtol=1e-4, atol=1e-4)


@needs_torchao
def test_gradients_go_straight_through_to_all_weights(tmp_path: Path, model) -> None:
    before = dict(model.named_parameters())
    after = trained(make(model, tmp_path, train={"qat": Qat(start=0.0)}, learning_rate=0.1))
    assert after.keys() == before.keys()
    for name, value in after.items():
        assert torch.isfinite(value).all()
        assert not torch.equal(value, before[name]), name


@needs_torchao
def test_until_it_begins_the_training_is_the_plain_one(tmp_path: Path, model) -> None:
    options = {"max_steps": 4, "learning_rate": 0.01, "save_strategy": "steps", "save_steps": 2}
    plain = make(model, tmp_path / "plain", **options)
    plain.train()
    whole = make(model, tmp_path / "whole", train={"qat": Qat(start=0.5)}, **options)
    whole.train()
    rows = [[row["loss"] for row in each.state.log_history if "loss" in row] for each in (plain, whole)]
    assert rows[0][:2] == pytest.approx(rows[1][:2], abs=1e-6)
    assert rows[0][2:] != pytest.approx(rows[1][2:], abs=1e-7)
    resumed = make(model, tmp_path / "whole", train={"qat": Qat(start=0.5)}, **options)
    resumed.train(resume_from_checkpoint=str(tmp_path / "whole" / "checkpoint-2"))
    assert_same(parameters(resumed), parameters(whole))


@needs_torchao
def test_what_is_saved_knows_nothing_of_it(tmp_path: Path, model) -> None:
    trainer = make(model, tmp_path, train={"qat": Qat(start=0.0)})
    trainer.train()
    trainer.save_model(str(tmp_path / "student"))
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "student")
    assert_same(dict(again.named_parameters()), parameters(trainer), 0.0)


def test_adapters_are_refused() -> None:
    with pytest.raises(ValidationError, match=r"\[train.qat\] with \[train.peft\]"):
        Train(student="s", peft={"r": 8}, qat=Qat())


@pytest.mark.parametrize("scheme", ["int8", "int8_weights"])
def test_the_checkpoint_holds_the_rounded_weights_as_integers(tmp_path: Path, tiny_teacher: Path, scheme) -> None:
    counts = export(tiny_teacher, tmp_path / "quantized", scheme)
    assert counts["linears"] == 14
    assert counts["bytes"] < counts["bytes_before"]
    config = json.loads((tmp_path / "quantized" / "config.json").read_text())["quantization_config"]
    assert config["quant_method"] == "compressed-tensors"
    whole = dict(AutoModelForCausalLM.from_pretrained(tiny_teacher).named_parameters())
    with safe_open(tmp_path / "quantized" / "model.safetensors", "pt") as file:
        names = set(file.keys())
        for name in names:
            if not name.endswith("weight_scale"):
                continue
            stored, packed = (name.replace("weight_scale", each) for each in ("weight", "weight_packed"))
            if scheme == "int8_weights":
                assert packed in names
                continue
            assert file.get_tensor(stored).dtype == torch.int8
            found = file.get_tensor(stored).float() * file.get_tensor(name).float()
            torch.testing.assert_close(found, rounded(whole[stored].detach()), rtol=1e-2, atol=1e-3)
        assert "model.embed_tokens.weight" in names


def test_an_adapter_alone_is_refused(tmp_path: Path) -> None:
    (tmp_path / "student").mkdir()
    with pytest.raises(UserError, match=r"no whole model; train with train.merge_adapter = true"):
        export(tmp_path / "student", tmp_path / "quantized", "int8")
