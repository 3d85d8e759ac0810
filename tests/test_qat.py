"""Training and saving in eight bits."""

import copy
import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import tiny_model
import torch
from compressed_tensors.compressors.pack_quantized.helpers import unpack_from_int32
from pydantic import ValidationError
from safetensors import safe_open
from small_run import small_run
from test_train import make_run
from tiny_trainer import assert_same, make, parameters, trained
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    Gemma4TextConfig,
    GemmaConfig,
    GemmaForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    OlmoConfig,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3MoeConfig,
    Qwen3MoeForCausalLM,
    StableLmConfig,
    TrainerState,
)

from r1distill.ablate.arms import recipe_with
from r1distill.ablate_section import Arm
from r1distill.chain.links import rounds_of
from r1distill.errors import UserError
from r1distill.pipeline import preflight
from r1distill.quantize.export import export
from r1distill.quantize.smooth import smooth
from r1distill.quantize.stage import quantize_stage
from r1distill.quantize_sections import Qat, Quantize
from r1distill.run import Clock, Run
from r1distill.train.forward import PROJECTIONS
from r1distill.train.qat import RoundFrom, prepare
from r1distill.train_sections import Train


@pytest.fixture(scope="module")
def model() -> Any:
    return tiny_model.make_model(tiny_model.make_tokenizer())


def rounded(x: torch.Tensor, scheme: str = "int8") -> torch.Tensor:
    """To the nearest of 256 values in each row, scaled by its largest, which is half-way between two where it is negative."""
    scale = x.abs().amax(-1, keepdim=True).clamp(min=1e-9) / 127.5
    if scheme == "int8_weights":
        scale = scale.bfloat16().float()
    return (x / scale).round().clamp(-128, 127) * scale


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
    weight = layer.weight.detach().bfloat16().float()  # as the student is saved and exported
    expected = (rounded_from_its_least(x) if scheme == "int8" else x) @ rounded(weight, scheme).T
    torch.testing.assert_close(layer(x).detach(), expected, rtol=1e-4, atol=1e-4)


def test_what_is_left_as_it_is_in_the_end_is_so_in_the_training(model) -> None:
    prepare(model, "int8", ["re:.*down_proj", "model.layers.0.self_attn.o_proj"])
    kinds = {name: type(module).__name__ for name, module in model.named_modules() if name.endswith("_proj")}
    plain = {name for name, kind in kinds.items() if kind == "Linear"}
    assert plain == {"model.layers.0.self_attn.o_proj", *(name for name in kinds if name.endswith("down_proj"))}
    assert set(kinds.values()) == {"Linear", "FakeQuantizedLinear"}


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


def test_an_arm_trains_for_the_rounding_that_it_gets(tmp_path: Path) -> None:
    recipe = small_run(tmp_path).recipe
    both = recipe_with(recipe, Arm(name="a", set={"train": {"qat": {}}, "quantize": {}}))
    assert (both.train.qat, both.quantize) == (Qat(), Quantize())
    with pytest.raises(
        UserError, match=r"^\[\[ablate.arms\]\] a: \[train.qat\] without \[quantize\]: .*; add \[quantize\]"
    ):
        recipe_with(recipe, Arm(name="a", set={"train": {"qat": {}}}))
    other = {"train": {"qat": {}}, "quantize": {"scheme": "int8_weights"}}
    with pytest.raises(
        UserError, match=r'\[\[ablate.arms\]\] a: train.qat.scheme = "int8" and quantize.scheme = "int8_w'
    ):
        recipe_with(recipe, Arm(name="a", set=other))


def test_layers_that_are_ignored_in_one_are_in_the_other(tmp_path: Path) -> None:
    tables: dict[str, Any] = {"train": {"student": "org/m", "qat": {"ignore": ["re:.*down_proj"]}}}
    with pytest.raises(ValidationError, match=r"train.qat.ignore = \['re:.\*down_proj'\] and quantize.ignore = \[\]"):
        small_run(tmp_path, **tables, quantize={})
    tables |= {"quantize": {"ignore": ["re:.*down_proj"]}, "on_policy": {"teacher": "org/t", "rounds": 1}}
    (found,) = rounds_of(small_run(tmp_path, **tables))
    assert found.recipe.train.qat == Qat(start=0.0, ignore=["re:.*down_proj"])


def test_rounds_of_a_student_that_is_rounded_at_the_end_train_with_rounding(tmp_path: Path) -> None:
    tables: dict[str, Any] = {"train": {"student": "org/m", "qat": {}}, "quantize": {}}
    (found,) = rounds_of(small_run(tmp_path, **tables, on_policy={"teacher": "org/t", "rounds": 1}))
    assert (found.recipe.train.qat, found.recipe.quantize) == (Qat(start=0.0), None)


SHAPE: dict[str, Any] = {
    "vocab_size": 50, "hidden_size": 24, "num_hidden_layers": 2, "intermediate_size": 8, "num_attention_heads": 12,
}  # fmt: skip
LLAMA = LlamaConfig(**SHAPE)
GPT2 = GPT2Config(vocab_size=50, n_embd=32, n_layer=1, n_head=2)
GEMMA, OLMO, STABLELM = GemmaConfig(**SHAPE), OlmoConfig(**SHAPE), StableLmConfig(**SHAPE)
GEMMA4 = Gemma4TextConfig(
    **{**SHAPE, "num_hidden_layers": 4, "global_head_dim": 16}, num_key_value_heads=4, head_dim=16, sliding_window=8,
    hidden_size_per_layer_input=0, layer_types=["sliding_attention", "full_attention"] * 2,
)  # fmt: skip


@pytest.mark.parametrize(
    ("config", "tables", "message"),
    [
        (None, {"qat": True, "quantize": {}}, r"\[train.qat\]: qwen3_moe is a mixture"),
        (None, {"quantize": {}}, r"\[quantize\]: qwen3_moe is a mixture"),
        (LLAMA, {"quantize": {"ignore": ["lm_haed"]}}, r'quantize.ignore = "lm_haed" is none of the 15 linear layers'),
        (LLAMA, {"quantize": {"ignore": ["re:.*q_proj"]}}, r"vLLM makes them one layer.*re:.\*\[qkv\]_proj"),
        (LLAMA, {"quantize": {"ignore": ["Linear"]}}, r"^\[quantize\] rounds linear layers.*all are ignored"),
        (
            LLAMA,
            {"prune": {"depth": 0.5}, "quantize": {"ignore": ["model.layers.1.mlp.down_proj"]}},
            r"is none of the 8 linear layers",
        ),
        (
            GPT2,
            {"quantize": {}},
            r"^\[quantize\] rounds linear layers, and there are none: gpt2 has none but the output's",
        ),
        (GPT2, {"qat": True, "quantize": {}}, r"^\[train.qat\] rounds linear layers, and there are none: gpt2"),
        (GEMMA, {"quantize": {}}, "quantize.smoothing: GemmaRMSNorm of gemma does not multiply by its weights alone"),
        (OLMO, {"quantize": {}}, "quantize.smoothing: OlmoLayerNorm of olmo does not multiply by its weights alone"),
        (
            STABLELM,
            {"quantize": {}},
            "quantize.smoothing: LayerNorm of stablelm does not multiply by its weights alone",
        ),
        (GEMMA4, {"quantize": {}}, "quantize.smoothing: the layers of gemma4_text have pre_feedforward_layernorm"),
        (GPT2, {"prune": {"depth": 0.5}}, r"\[prune\]: gpt2 is not made of the layers"),
        (LLAMA, {"prune": {"heads": 0.1}}, r"prune.heads leaves 11 of 12 key-value heads"),
    ],
)
def test_what_cannot_be_done_to_a_student_is_said_before_anything_is_sampled(
    tmp_path: Path, config: Any, tables: dict[str, Any], message: str
) -> None:
    """By its config: there are no weights."""
    (config or mixture().config).save_pretrained(tmp_path / "student")
    train = {"student": str(tmp_path / "student"), **({"qat": {}} if tables.pop("qat", False) else {})}
    recipe = small_run(tmp_path, train=train, eval={"models": ["student"]}, **tables).recipe
    names = ["prune", "train", "quantize"] if recipe.prune else ["train", "quantize"]
    with pytest.raises(UserError, match=message):
        preflight(recipe, names)


def test_a_student_that_all_can_be_done_to_is_let_through(tmp_path: Path) -> None:
    LLAMA.save_pretrained(tmp_path / "student")
    preflight(
        small_run(
            tmp_path, train={"student": str(tmp_path / "student"), "qat": {"ignore": ["re:.*down_proj"]}},
                prune={"depth": 0.5, "heads": 0.5},
            quantize={"ignore": ["re:.*down_proj"], "smoothing": 0.5},
        ).recipe,
        ["prune", "train", "quantize"],
    )  # fmt: skip


@pytest.mark.parametrize(("start", "steps", "expected"), [(0.96, 10, 1), (0.5, 10, 5), (0.0, 3, 3), (0.99, 1, 1)])
def test_at_least_the_last_step_rounds(model, start: float, steps: int, expected: int) -> None:
    layers: Any = copy.deepcopy(model)
    prepare(layers, "int8_weights")
    callback = RoundFrom(Qat(start=start), layers)
    layer, found = layers.model.layers[0].mlp.up_proj, 0
    for step in range(steps):
        callback.on_step_begin(None, TrainerState(global_step=step, max_steps=steps), None)  # type: ignore[arg-type]
        found += layer.weight_fake_quantizer.enabled
    assert found == expected


def test_output_and_projections_to_the_teacher_are_not_rounded(model) -> None:
    whole: Any = copy.deepcopy(model)
    setattr(whole, PROJECTIONS, torch.nn.ModuleList([torch.nn.Linear(128, 64)]))
    prepare(whole, "int8")
    plain = {name for name, each in whole.named_modules() if type(each) is torch.nn.Linear}
    assert plain == {"lm_head", f"{PROJECTIONS}.0"}


def mixture() -> Any:
    return Qwen3MoeForCausalLM(
        Qwen3MoeConfig(
            vocab_size=50, hidden_size=32, intermediate_size=48, moe_intermediate_size=16, num_experts=4,
            num_experts_per_tok=2, num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=1,
        )
    )  # fmt: skip


def test_mixtures_are_refused_with_a_remedy_that_helps(tmp_path: Path, tiny_teacher: Path) -> None:
    """Their experts are no linear layers: they would stay as they are, and the config would call them integers."""
    reason = r"qwen3_moe is a mixture whose experts are no linear layers \(.*\), and only those are rounded; take"
    with pytest.raises(UserError, match=rf"\[train.qat\]: {reason} \[train.qat\] out, or take a dense student"):
        prepare(mixture(), "int8")
    source = tmp_path / "student"
    mixture().save_pretrained(source)
    AutoTokenizer.from_pretrained(tiny_teacher).save_pretrained(source)
    for smoothing in (0.0, 0.8):
        with pytest.raises(UserError, match=rf"\[quantize\]: {reason} \[quantize\] out, or take a dense student"):
            export(source, tmp_path / "quantized", "int8", smoothing=smoothing)


def integers_of(folder: Path) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """Of an export: (what is stored as integers, unpacked, their scales, all other tensors), by the names of the weights."""
    with safe_open(folder / "model.safetensors", "pt") as file:
        stored = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    integers, scales = {}, {}
    for name in [name for name in stored if name.endswith("weight_scale")]:
        weight = name.removesuffix("_scale")
        scales[weight] = stored.pop(name)
        if f"{weight}_packed" in stored:
            packed, shape = stored.pop(f"{weight}_packed"), stored.pop(f"{weight}_shape")
            integers[weight] = unpack_from_int32(packed, 8, torch.Size(shape.tolist()))
        else:
            integers[weight] = stored.pop(weight)
    return integers, scales, stored


def student(folder: Path, tokenizer_of: Path, dtype: torch.dtype, width: int, wide: int) -> dict[str, torch.Tensor]:
    """A model in `folder`; returns its weights."""
    torch.manual_seed(0)
    config: Any = LlamaConfig(
        vocab_size=300, hidden_size=width, intermediate_size=wide, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, head_dim=20,
    )  # fmt: skip
    model: Any = LlamaForCausalLM(config)
    model.to(dtype)
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(tokenizer_of).save_pretrained(folder)
    return {name: weight.detach() for name, weight in model.named_parameters()}


@pytest.mark.parametrize("scheme", ["int8", "int8_weights"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("width", "wide"), [(128, 256), (100, 300)])
def test_the_checkpoint_holds_the_nearest_integers_by_output_channel(
    tmp_path: Path, tiny_teacher: Path, scheme, dtype: torch.dtype, width: int, wide: int
) -> None:
    weights = student(tmp_path / "student", tiny_teacher, dtype, width, wide)
    counts = export(tmp_path / "student", tmp_path / "quantized", scheme)
    assert counts["linears"] == 14
    assert counts["bytes"] < counts["bytes_before"]
    config = json.loads((tmp_path / "quantized" / "config.json").read_text())["quantization_config"]
    assert config["quant_method"] == "compressed-tensors"
    (group,) = config["config_groups"].values()
    assert (group["weights"]["strategy"], group["weights"]["group_size"]) == ("channel", None)
    assert (group["input_activations"] or {}).get("strategy") == ("token" if scheme == "int8" else None)
    integers, scales, others = integers_of(tmp_path / "quantized")
    assert len(integers) == 14
    for name, found in integers.items():
        weight, scale = weights[name].double(), scales[name]
        assert (found.dtype, scale.dtype, tuple(scale.shape)) == (torch.int8, torch.float32, (len(weight), 1))
        # vLLM multiplies by it in the model's type where weights alone are integers
        exact = dtype == torch.float32 or scheme == "int8"
        torch.testing.assert_close(
            scale.double(), weight.abs().amax(1, keepdim=True) / 127.5, rtol=1e-6 if exact else 2**-8, atol=0
        )
        assert exact or torch.equal(scale.bfloat16().float(), scale)
        missed = (found - (weight / scale.double()).clamp(-128, 127)).abs()
        assert missed.max() <= 0.5 + 1e-4
    assert {each.dtype for each in others.values()} == {dtype}
    for name, found in others.items():
        assert torch.equal(found, weights[name])


def test_smoothed_weights_are_rounded_once(tmp_path: Path, tiny_teacher: Path) -> None:
    """What smoothing makes of a bfloat16 weight is rounded to an integer, not to a bfloat16 first; what is ignored is one."""
    weights = student(tmp_path / "student", tiny_teacher, torch.bfloat16, 100, 300)
    generator = torch.Generator().manual_seed(0)
    seen = [torch.randint(0, 300, (30,), generator=generator)]
    options: Any = {"smoothing": 0.8, "sequences": lambda tokenizer: seen, "ignore": ["re:.*gate_proj", "re:.*up_proj"]}
    export(tmp_path / "student", tmp_path / "quantized", "int8", **options)
    integers, scales, others = integers_of(tmp_path / "quantized")
    assert {each.dtype for each in others.values()} == {torch.bfloat16}
    for layer in range(2):
        norm = f"model.layers.{layer}.input_layernorm.weight"
        factor = weights[norm].double() / others[norm].double()
        assert factor.max() > 1.5 * factor.min()
        for kind in "qkv":
            name = f"model.layers.{layer}.self_attn.{kind}_proj.weight"
            exact = (weights[name].double() * factor / scales[name].double()).clamp(-128, 127)
            assert (integers[name] - exact).abs().max() <= 0.5 + 1e-4


def test_what_is_to_be_ignored_has_to_be_there(tmp_path: Path, tiny_teacher: Path) -> None:
    for pattern in ("down_proj", "model.layers.7.mlp.down_proj", "re:.*dwon_proj"):
        with pytest.raises(
            UserError,
            match=rf'quantize.ignore = "{re.escape(pattern)}" is none of the 15 linear layers '
            r'\(model.layers.0.self_attn.q_proj, .*, …\); give a whole name or a pattern such as "re:.\*down_proj"',
        ):
            export(tiny_teacher, tmp_path / "quantized", "int8", ignore=["re:.*up_proj", pattern])
    assert export(tiny_teacher, tmp_path / "q", "int8", ignore=["model.layers.1.mlp.down_proj"])["linears"] == 13


def with_outliers(folder: Path) -> Any:
    """A model whose norms make a few channels fifty times larger than the others."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    generator = torch.Generator().manual_seed(0)
    for layer in model.model.layers:
        for norm in (layer.input_layernorm, layer.post_attention_layernorm):
            norm.weight.data = torch.rand(len(norm.weight), generator=generator) + 0.5
            norm.weight.data[::16] *= 50
    return model


def test_a_model_whose_norms_feed_something_else_is_not_smoothed(tiny_teacher: Path) -> None:
    """Whatever its layers are called."""
    model = with_outliers(tiny_teacher)
    mlp = model.model.layers[0].mlp
    forward = mlp.forward
    mlp.forward = lambda x: forward(x) + x
    with pytest.raises(
        UserError, match=r"quantize.smoothing changes what llama computes by \d+%, .*set quantize.smoothing = 0"
    ):
        smooth(model, sequences(model), 0.8)
    with pytest.raises(UserError, match=r"no traces in the dataset to measure the student by"):
        smooth(model, [], 0.8)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_biases_stay_as_they_are_when_a_model_is_smoothed(dtype: torch.dtype) -> None:
    model: Any = Qwen2ForCausalLM(Qwen2Config(**SHAPE, num_key_value_heads=4))
    model.to(dtype)
    before = {name: each.detach().clone() for name, each in model.named_parameters() if name.endswith("bias")}
    assert len(before) == 6
    for each in before.values():
        each.normal_()
    model.load_state_dict(before, strict=False)
    smooth(model, sequences(model), 0.8)
    assert_same({name: each for name, each in model.named_parameters() if name in before}, before, 0.0)
    assert {each.dtype for name, each in model.named_parameters() if name in before} == {dtype}


@pytest.mark.parametrize("scheme", ["int8", "int8_weights"])
def test_what_is_trained_for_is_what_is_exported(tmp_path: Path, tiny_teacher: Path, scheme) -> None:
    """Every weight of the forward pass of QAT is the integer of the checkpoint times its scale."""
    weights = student(tmp_path / "student", tiny_teacher, torch.bfloat16, 100, 300)
    export(tmp_path / "student", tmp_path / "quantized", scheme)
    integers, scales, _ = integers_of(tmp_path / "quantized")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "student", dtype=torch.float32)
    prepare(model, scheme)
    for name, found in integers.items():
        layer: Any = model.get_submodule(name.removesuffix(".weight"))
        assert torch.equal(layer.weight, weights[name].float())
        assert torch.equal(layer.weight_fake_quantizer(layer.weight).detach(), found.float() * scales[name])


def test_what_is_exported_is_as_readable_as_its_config(tmp_path: Path, tiny_teacher: Path) -> None:
    export(tiny_teacher, tmp_path / "quantized", "int8")
    modes = {(tmp_path / "quantized" / name).stat().st_mode for name in ("model.safetensors", "config.json")}
    assert len(modes) == 1


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
    with pytest.raises(
        UserError, match=r"GemmaRMSNorm of gemma does not multiply by its weights alone.*quantize.smoothing = 0"
    ):
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
    assert Quantize(scheme="int8_weights").strength(after_qat=False) == 0.0
    with pytest.raises(ValidationError, match=r"smoothing = 0.3 with scheme = .int8_weights.: it is for activations"):
        Quantize(scheme="int8_weights", smoothing=0.3)


def test_what_no_engine_here_computes_is_not_made_to_be_scored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    quantize, evaluation = {"scheme": "int8_weights"}, {"models": ["quantized"], "tasks": ["gsm8k"]}
    recipe = small_run(tmp_path, quantize=quantize, eval=evaluation).recipe
    monkeypatch.setattr("r1distill.preflight.visible_gpus", list)
    with pytest.raises(
        UserError, match=r"vLLM computes that on GPUs alone, and this machine has none; take quantize.scheme"
    ):
        preflight(recipe, ["eval"])


@pytest.mark.parametrize("name", ["hidden", "attention"])
def test_layers_that_are_not_there_are_named_before_anything_is_sampled(tmp_path: Path, name: str) -> None:
    LLAMA.save_pretrained(tmp_path / "student")
    train = {"student": str(tmp_path / "student"), name: {"teacher": str(tmp_path / "student"), "layers": {"9": 1}}}
    with pytest.raises(UserError, match=rf'train.{name}.layers: "9" = 1, and the student has 2 layers'):
        preflight(small_run(tmp_path, train=train).recipe, ["train"])


def test_an_embedded_student_is_tried_too(tmp_path: Path) -> None:
    tables = {"train": {"student": "quickstart:student"}, "quantize": {"ignore": ["re:.*nonsense"]}}
    with pytest.raises(UserError, match=r'quantize.ignore = "re:\.\*nonsense" is none of the 211 linear layers'):
        preflight(small_run(tmp_path, **tables).recipe, ["train", "quantize"])


def test_an_adapter_alone_is_refused(tmp_path: Path) -> None:
    (tmp_path / "student").mkdir()
    with pytest.raises(UserError, match=r"no whole model; train with train.merge_adapter = true"):
        export(tmp_path / "student", tmp_path / "quantized", "int8")
