"""Clipping in two phases: which group a parameter is in, what torch does, at which step, and the same in two processes."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import tiny_model
import torch
from accelerate.utils import DistributedType
from safetensors.torch import load_file
from small_run import ROOT
from tiny_trainer import assert_same, copy_of, make, trained
from transformers import LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM, Qwen3Config, Qwen3ForCausalLM, TrainerCallback

from r1distill.errors import UserError
from r1distill.train.clipping import GROUPS, check_clip, clip_gradients, group_of, grouped, limits_at
from r1distill.train_sections import Clip

SMALL = {
    "vocab_size": 64, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
    "num_key_value_heads": 1, "max_position_embeddings": 32,
}  # fmt: skip


@pytest.fixture
def model() -> Any:
    return tiny_model.make_model(tiny_model.make_tokenizer()).float()


def untied(model: Any) -> Any:
    twin = LlamaForCausalLM(type(model.config)(**{**model.config.to_dict(), "tie_word_embeddings": False}))
    twin.load_state_dict({**model.state_dict(), "lm_head.weight": model.lm_head.weight.detach().clone()})
    return twin


def with_gradients(model: Any, size: float = 1.0) -> dict[str, torch.Tensor]:
    """Random gradients of very different sizes; returned as they were, in float64."""
    torch.manual_seed(1)
    for number, parameter in enumerate(model.parameters()):
        parameter.grad = size * (1 + number) * torch.randn_like(parameter)
    return {name: parameter.grad.double().clone() for name, parameter in model.named_parameters()}


def norm(tensors: list[torch.Tensor]) -> float:
    return sum(float((tensor.double() ** 2).sum()) for tensor in tensors) ** 0.5


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("kind", [(Qwen2Config, Qwen2ForCausalLM), (Qwen3Config, Qwen3ForCausalLM)])
def test_every_parameter_of_qwen_is_in_one_group(kind, tied):
    model = kind[1](kind[0](**SMALL, tie_word_embeddings=tied))
    groups = grouped(model)
    assert sorted(id(p) for group in groups.values() for p in group) == sorted(map(id, model.parameters()))
    assert set(groups) == {*GROUPS} - {"adapters"} - ({"head"} if tied else set())
    names = {id(p): name for name, p in model.named_parameters()}
    of = {names[id(p)]: group for group, parameters in groups.items() for p in parameters}
    assert of["model.embed_tokens.weight"] == "embeddings"
    assert of["model.layers.1.self_attn.o_proj.weight"] == "attention"
    assert of["model.layers.1.mlp.down_proj.weight"] == "mlp"
    for name in ("model.norm.weight", "model.layers.0.input_layernorm.weight"):
        assert of[name] == "norms"
    if kind[0] is Qwen2Config:
        assert of["model.layers.0.self_attn.q_proj.bias"] == "attention"
    else:
        assert of["model.layers.0.self_attn.q_norm.weight"] == "norms"
    assert tied or of["lm_head.weight"] == "head"


def test_all_that_peft_adds_is_the_adapters_and_what_is_frozen_is_in_no_group(model):
    from peft import LoraConfig, get_peft_model

    wrapped = get_peft_model(
        untied(model),
        LoraConfig(r=2, target_modules="all-linear", use_dora=True, modules_to_save=["lm_head", "embed_tokens"]),
    )
    groups = grouped(wrapped)
    assert set(groups) == {"adapters"}
    assert len(groups["adapters"]) == sum(parameter.requires_grad for parameter in wrapped.parameters())


def test_names_that_wrappers_make_are_known_and_an_unknown_parameter_is_named():
    assert group_of("module._orig_mod.model.layers.0.mlp.experts.3.up_proj.weight") == "mlp"
    assert group_of("base_model.model.model.layers.0.self_attn.q_proj.lora_A.default.weight") == "adapters"
    with pytest.raises(UserError, match=r"transformer\.h\.0\.attn\.c_attn\.weight belongs to none of the groups embed"):
        group_of("transformer.h.0.attn.c_attn.weight")


@pytest.mark.parametrize("size", [1e-7, 1.0])
def test_a_common_limit_is_clip_grad_norm_of_torch(model, size):
    theirs = copy_of(model)
    with_gradients(model, size)
    with_gradients(theirs, size)
    expected = torch.nn.utils.clip_grad_norm_(theirs.parameters(), 0.7)
    clipped = clip_gradients(grouped(model), 0.7)
    assert float(clipped.grad_norm) == pytest.approx(float(expected), rel=1e-6)
    for ours, other in zip(model.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, other.grad, rtol=1e-5, atol=0)
    assert set(clipped.was_clipped.values()) == {size == 1.0}


def test_each_group_is_scaled_to_its_own_limit_and_keeps_its_direction(model):
    before = with_gradients(model)
    groups = grouped(model)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    of_group = {group: [before[names[id(p)]] for p in parameters] for group, parameters in groups.items()}
    limits = dict.fromkeys(GROUPS, 1e9) | {"attention": 3.0, "norms": 0.01}
    clipped = clip_gradients(groups, limits)
    assert clipped.was_clipped == {"embeddings": False, "attention": True, "mlp": False, "norms": True}
    assert float(clipped.grad_norm) == pytest.approx(norm(list(before.values())), rel=1e-5)
    for group, parameters in groups.items():
        found = norm(of_group[group])
        assert clipped.norms[group] == pytest.approx(found, rel=1e-5)
        scale = min(1.0, limits[group] / found)
        for parameter, gradient in zip(parameters, of_group[group], strict=True):
            assert parameter.grad is not None
            torch.testing.assert_close(parameter.grad.double(), gradient * scale, rtol=1e-5, atol=1e-12)
        assert norm([p.grad for p in parameters if p.grad is not None]) <= limits[group] * (1 + 1e-6)


def test_a_parameter_without_a_gradient_counts_nothing(model):
    with_gradients(model)
    for parameter in grouped(model)["norms"]:
        parameter.grad = None
    clipped = clip_gradients(grouped(model), dict.fromkeys(GROUPS, 1.0))
    assert clipped.norms["norms"] == 0.0
    assert not clipped.was_clipped["norms"]


def test_a_group_without_a_threshold_keeps_the_common_one():
    limits = limits_at(Clip(until=0.5, mlp=0.25), 2.0, step=5, steps=10)
    assert limits == dict.fromkeys(GROUPS, 2.0) | {"mlp": 0.25}


@pytest.mark.parametrize(("until", "last"), [(0.3, 2), (0.7, 6), (0.0, -1), (1.0, 9)])
def test_the_second_phase_begins_at_its_share_of_the_steps(until, last):
    """0.7 * 10 is more than 7 in floating point."""
    common = [not isinstance(limits_at(Clip(until=until), 1.0, step, 10), dict) for step in range(10)]
    assert common == [step <= last for step in range(10)]


class Gradients(TrainerCallback):
    """The norm of each group at every optimizer step, after clipping."""

    def __init__(self) -> None:
        self.norms: list[dict[str, float]] = []

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        groups = grouped(kwargs["model"])
        self.norms.append({group: norm([p.grad for p in groups[group] if p.grad is not None]) for group in groups})


def test_a_training_clips_in_two_phases_and_logs_norms_and_rates(tmp_path, model):
    clip = Clip(until=0.5, attention=0.05, mlp=100.0)
    trainer = make(
        model, tmp_path, train={"clip": clip}, max_steps=4, logging_steps=2, learning_rate=1e-3, max_grad_norm=0.5
    )
    seen = Gradients()
    trainer.add_callback(seen)
    trainer.train()
    for norms in seen.norms[:2]:
        assert sum(value**2 for value in norms.values()) ** 0.5 == pytest.approx(0.5, rel=1e-4)
    first, second = (row for row in trainer.state.log_history if "loss" in row)
    for norms in seen.norms[2:]:
        assert norms["attention"] == pytest.approx(0.05, rel=1e-4)
        assert norms["embeddings"] == pytest.approx(0.5, rel=1e-4)
        assert 0.5 < norms["mlp"] < 100
    assert second["grad_norm/mlp"] == pytest.approx(sum(norms["mlp"] for norms in seen.norms[2:]) / 2, rel=1e-5)
    assert [row["clip_rate/mlp"] for row in (first, second)] == [1.0, 0.0]
    assert second["clip_rate/attention"] == 1.0
    # transformers logs the common norm of the last step
    plain = make(model, tmp_path / "plain", max_steps=1, max_grad_norm=0.5)
    plain.train()
    both = make(model, tmp_path / "both", train={"clip": clip}, max_steps=1, max_grad_norm=0.5)
    both.train()
    assert both.state.log_history[0]["grad_norm"] == pytest.approx(plain.state.log_history[0]["grad_norm"], rel=1e-6)


def test_however_the_batch_is_accumulated_the_clipped_step_is_the_same(tmp_path, model):
    clip = Clip(until=0.0, attention=0.05, norms=0.01)
    whole = trained(
        make(model, tmp_path / "whole", train={"clip": clip}, per_device_train_batch_size=8, max_grad_norm=1.0)
    )
    cut = make(
        model,
        tmp_path / "cut",
        train={"clip": clip},
        per_device_train_batch_size=2,
        gradient_accumulation_steps=4,
        max_grad_norm=1.0,
    )
    assert_same(trained(cut), whole, 1e-6)
    rates = [row["clip_rate/norms"] for row in cut.state.log_history if "clip_rate/norms" in row]
    assert rates == [1.0]


class Float16(TrainerCallback):
    """What float16 does to gradients, on a CPU: scaled by a large number until they are unscaled, and then clipped."""

    def __init__(self, trainer: Any, patch: pytest.MonkeyPatch) -> None:
        self.trainer, self.patch = trainer, patch
        trainer.accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.patch.setattr(self.trainer.accelerator, "native_amp", True)
        self.patch.setitem(self.trainer.accelerator.state.__dict__, "_mixed_precision", "fp16")


def test_scaled_gradients_of_float16_are_unscaled_before_they_are_clipped(tmp_path, model, monkeypatch):
    clip = Clip(until=0.0, attention=0.5, embeddings=1e3)
    expected = trained(make(model, tmp_path / "plain", train={"clip": clip}, max_grad_norm=100.0))
    trainer = make(model, tmp_path / "scaled", train={"clip": clip}, max_grad_norm=100.0)
    trainer.add_callback(Float16(trainer, monkeypatch))
    assert_same(trained(trainer), expected, 1e-6)


@pytest.mark.parametrize(
    ("distributed", "is_fsdp2", "message"),
    [
        (DistributedType.FSDP, False, "FSDP version 1"),
        (DistributedType.DEEPSPEED, False, "DeepSpeed, which clips by itself"),
        (DistributedType.XLA, False, "XLA"),
    ],
)
def test_where_it_would_be_wrong_it_is_refused(distributed, is_fsdp2, message):
    with pytest.raises(UserError, match=message):
        check_clip(distributed, is_fsdp2, 1.0)
    for sound in (DistributedType.NO, DistributedType.MULTI_GPU, DistributedType.MULTI_CPU):
        check_clip(sound, False, 1.0)
    check_clip(DistributedType.FSDP, True, 1.0)


def test_a_common_norm_that_is_off_is_refused(tmp_path, model):
    with pytest.raises(UserError, match=r"max_grad_norm = 0, which turns clipping off"):
        make(model, tmp_path, train={"clip": Clip()}, max_grad_norm=0.0)


def launched(student: Path, folder: Path, how: str, processes: int) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    folder.mkdir()
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
    result = subprocess.run(
        [*command, str(ROOT / "tests" / "sharded_worker.py"), str(student), str(folder), how],
        capture_output=True, text=True, timeout=300,
        env={**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}", "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert result.returncode == 0, result.stderr[-3000:]
    return json.loads((folder / "log.json").read_text()), load_file(folder / "student" / "model.safetensors")


@pytest.mark.extended
def test_two_processes_clip_as_one_with_ddp_and_with_shards_of_fsdp2(tmp_path, model):
    student = tmp_path / "model"
    untied(model).save_pretrained(student)
    alone, weights = launched(student, tmp_path / "alone", "ddp", 1)
    steps = [row for row in alone["log"] if "loss" in row]
    assert [row["clip_rate/norms"] for row in steps] == [1.0, 1.0, 0.0, 0.0]
    for how, kind in (("ddp", "Parameter"), ("fsdp2", "DTensor")):
        found, theirs = launched(student, tmp_path / how, how, 2)
        assert found["parameters"] == [kind]
        for ours, other in zip(steps, (row for row in found["log"] if "loss" in row), strict=True):
            names = [name for name in ours if name.startswith(("grad_norm", "clip_rate")) or name == "loss"]
            assert len(names) == 2 + 2 * 5
            assert {name: other[name] for name in names} == pytest.approx(
                {name: ours[name] for name in names}, rel=1e-4
            )
        assert_same(theirs, weights, 1e-5)
