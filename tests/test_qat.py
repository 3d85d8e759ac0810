"""Training and saving in eight bits."""

import copy
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import tiny_model
import torch
from pydantic import ValidationError
from safetensors import safe_open
from test_train import make_run
from tiny_trainer import assert_same, make, parameters, trained
from transformers import AutoModelForCausalLM, GemmaConfig, GemmaForCausalLM, GPT2Config, GPT2LMHeadModel

from r1distill.errors import UserError
from r1distill.quantize.export import export
from r1distill.quantize.smooth import smooth
from r1distill.quantize.stage import quantize_stage
from r1distill.quantize_sections import Qat, Quantize
from r1distill.run import Clock, Run
from r1distill.train_sections import Train


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


@pytest.mark.parametrize("scheme", ["int8", "int8_weights"])
def test_the_forward_pass_is_that_of_rounded_weights_and_inputs(tmp_path: Path, model, scheme) -> None:
    trainer = make(model, tmp_path, train={"qat": Qat(start=0.0, scheme=scheme)})
    whole: Any = trainer.model
    layer = whole.model.layers[0].mlp.gate_proj
    trainer.train()
    x = torch.randn(3, 5, layer.in_features, generator=torch.Generator().manual_seed(0))
    expected = (rounded_from_its_least(x) if scheme == "int8" else x) @ rounded(layer.weight.detach()).T
    torch.testing.assert_close(layer(x).detach(), expected, rtol=1e-4, atol=1e-4)


def test_gradients_go_straight_through_to_all_weights(tmp_path: Path, model) -> None:
    before = dict(model.named_parameters())
    after = trained(make(model, tmp_path, train={"qat": Qat(start=0.0)}, learning_rate=0.1))
    assert after.keys() == before.keys()
    for name, value in after.items():
        assert torch.isfinite(value).all()
        assert not torch.equal(value, before[name]), name


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


def with_outliers(folder: Path) -> Any:
    """A model whose norms make a few channels fifty times larger than the others."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    generator = torch.Generator().manual_seed(0)
    for layer in model.model.layers:
        for norm in (layer.input_layernorm, layer.post_attention_layernorm):
            norm.weight.data = torch.rand(len(norm.weight), generator=generator) + 0.5
            norm.weight.data[::16] *= 50
    return model


def sequences(model: Any) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randint(0, model.config.vocab_size, (size,), generator=generator) for size in (7, 30)]


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return torch.cat([model(each[None]).logits[0] for each in sequences(model)])


def in_eight_bits(model: Any) -> torch.Tensor:
    """The logits with weights by channel and activations by token rounded."""
    rounding: Any = copy.deepcopy(model)
    for name, module in rounding.named_modules():
        if isinstance(module, torch.nn.Linear) and name != "lm_head":
            module.weight.data = rounded(module.weight.data)
            module.register_forward_pre_hook(lambda module, args: (rounded(args[0]),))
    return logits(rounding)


def test_smoothing_changes_nothing_but_what_rounding_costs(tiny_teacher: Path) -> None:
    model = with_outliers(tiny_teacher)
    before, rough = logits(model), in_eight_bits(model)
    smooth(model, sequences(model), 0.5)
    torch.testing.assert_close(logits(model), before, rtol=1e-3, atol=1e-4)
    errors = [(each - before).square().mean().item() for each in (in_eight_bits(model), rough)]
    assert errors[0] < errors[1] / 4


def test_a_channel_is_divided_by_what_the_paper_says(tiny_teacher: Path) -> None:
    model = with_outliers(tiny_teacher)
    seen: list[torch.Tensor] = []
    layer = model.model.layers[1]
    hook = layer.self_attn.k_proj.register_forward_pre_hook(lambda module, args: seen.append(args[0][0]))
    logits(model)
    hook.remove()
    norm, projections = layer.input_layernorm, [getattr(layer.self_attn, f"{kind}_proj") for kind in "qkv"]
    before, weights = norm.weight.clone(), torch.stack([each.weight.abs().amax(0) for each in projections]).amax(0)
    scale = torch.cat(seen).abs().amax(0) ** 0.8 / weights**0.2
    smooth(model, sequences(model), 0.8)
    torch.testing.assert_close(norm.weight, before / scale)
    assert [norm.weight.dtype, projections[0].weight.dtype] == [torch.float32] * 2


def test_norms_that_add_one_to_their_weights_are_refused_and_unknown_layers(tiny_teacher: Path) -> None:
    config = GemmaConfig(
        vocab_size=50, hidden_size=32, intermediate_size=48, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=1, head_dim=16,
    )  # fmt: skip
    gemma: Any = GemmaForCausalLM(config)
    torch.nn.init.constant_(gemma.model.layers[0].input_layernorm.weight, 0.3)
    with pytest.raises(UserError, match=r"GemmaRMSNorm does not multiply by its weights alone.*quantize.smoothing = 0"):
        smooth(gemma, [torch.arange(9)], 0.5)
    other = GPT2LMHeadModel(GPT2Config(vocab_size=50, n_embd=32, n_layer=1, n_head=2))
    with pytest.raises(
        UserError, match=r"quantize.smoothing: gpt2 is not made of the layers .*; set quantize.smoothing = 0"
    ):
        smooth(other, [torch.arange(9)], 0.5)


def test_the_stage_smooths_by_the_traces_of_the_dataset_and_leaves_what_is_ignored(
    tmp_path: Path, tiny_teacher: Path
) -> None:
    run = make_run(tmp_path / "run", tiny_teacher)
    shutil.copytree(tiny_teacher, run.student)
    settings = Quantize(examples=4, max_tokens=64, ignore=["re:.*down_proj"])
    run = Run(run.recipe.model_copy(update={"quantize": settings}))
    counts = quantize_stage(run, Clock(run, "quantize"))
    assert (counts["linears"], counts["smoothing"]) == (12, 0.8)
    with safe_open(run.model("quantized") / "model.safetensors", "pt") as file:
        dtypes = {name: file.get_tensor(name).dtype for name in file.keys() if name.endswith("proj.weight")}  # noqa: SIM118
        assert {name.split(".")[-2] for name, dtype in dtypes.items() if dtype != torch.int8} == {"down_proj"}
        norm = file.get_tensor("model.layers.0.input_layernorm.weight")
    whole = AutoModelForCausalLM.from_pretrained(tiny_teacher)
    assert not torch.equal(norm, whole.model.layers[0].input_layernorm.weight)


def test_strength_of_smoothing_is_that_of_the_recipe_or_the_usual_one() -> None:
    assert Quantize().strength(after_qat=False) == 0.8
    assert Quantize().strength(after_qat=True) == 0.0
    assert Quantize(smoothing=0.3).strength(after_qat=True) == 0.3
    assert Quantize(scheme="int8_weights", smoothing=0.3).strength(after_qat=False) == 0.0


def test_an_adapter_alone_is_refused(tmp_path: Path) -> None:
    (tmp_path / "student").mkdir()
    with pytest.raises(UserError, match=r"no whole model; train with train.merge_adapter = true"):
        export(tmp_path / "student", tmp_path / "quantized", "int8")
