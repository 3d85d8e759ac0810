"""The plan: its counts against real models, its sizes against real tensors, and what it says of the shipped recipes."""

import json
import random
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from small_run import ROOT, assert_one_error_line, r1distill, small_run
from transformers import AutoConfig, AutoModelForCausalLM

from r1distill.errors import UserError
from r1distill.plan import activations
from r1distill.plan.command import Plan, as_json, make_plan
from r1distill.plan.counts import Given
from r1distill.plan.layouts import layout_of
from r1distill.plan.machine import parse_machine
from r1distill.plan.memory import GIB, memory, states_of
from r1distill.plan.models import known_models, load_shape, shape_of
from r1distill.plan.speed import decoding, samples_expected, share_read, training_flops
from r1distill.plan.work import Adapters, Layout, Work, trainable_parameters
from r1distill.recipe import find_recipe, load_recipe
from r1distill.run import Run
from r1distill.train_sections import Train

LINEARS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
SMALL = {
    "model_type": "qwen2", "vocab_size": 1000, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 3,
    "num_attention_heads": 4, "num_key_value_heads": 2, "tie_word_embeddings": True, "max_position_embeddings": 64,
}  # fmt: skip
WORK = Work(
    sequences=1, length=32768, accumulation=8, dtype="bfloat16", mixed=True, checkpointing=True, offload_activations=False,
    attention="flash_attention_2", one_row=True, optimizer="adamw_torch_fused",
)  # fmt: skip
NOTHING = Given()
RECIPES = sorted(path.stem for path in (ROOT / "scripts" / "recipes").glob("*.toml"))


def model_of(config: dict[str, Any], device: str = "cpu", dtype: torch.dtype = torch.float32) -> Any:
    options = dict(config)
    family = options.pop("model_type")
    options.pop("quantization_config", None)
    with torch.device(device):
        return AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **options), dtype=dtype)


def plan_of(name: str, machine: str | None, *overrides: str, given: Given = NOTHING) -> Plan:
    return make_plan(Run(load_recipe(find_recipe(name), overrides)), name, machine, given)


@pytest.mark.parametrize("name", known_models())
def test_a_known_model_has_as_many_parameters_as_transformers_makes_of_its_config(name: str) -> None:
    model = model_of(known_models()[name]["config"], "meta")
    shape = load_shape(name, "train.student")
    assert sum(parameter.numel() for parameter in model.parameters()) == shape.parameters
    assert shape.source.startswith("https://huggingface.co/")


@pytest.mark.parametrize(
    "changes",
    [
        {"model_type": "llama", "tie_word_embeddings": False},
        {"model_type": "llama", "attention_bias": True, "mlp_bias": True, "head_dim": 32},
        {"model_type": "mistral", "head_dim": 16},
        {"model_type": "qwen3", "head_dim": 32},
        {"model_type": "qwen3", "head_dim": 16, "attention_bias": True},
    ],
)
def test_the_other_families_are_counted_as_well(changes: dict[str, Any]) -> None:
    config = {**SMALL, **changes}
    expected = sum(parameter.numel() for parameter in model_of(config, "meta").parameters())
    assert shape_of("a", "b", config, "c").parameters == expected


def test_a_config_in_a_folder_is_read_and_what_is_not_known_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(SMALL))
    assert load_shape(str(tmp_path), "train.student").layers == 3
    (tmp_path / "config.json").write_text(json.dumps({**SMALL, "model_type": "mamba"}))
    with pytest.raises(UserError, match=r"train.student = .*model_type = 'mamba'; it knows llama"):
        load_shape(str(tmp_path), "train.student")
    (tmp_path / "config.json").write_text('{"model_type": "llama", "num_attention_heads": 2}')
    with pytest.raises(UserError, match="has no 'vocab_size'"):
        load_shape(str(tmp_path), "train.student")
    (tmp_path / "config.json").unlink()
    with pytest.raises(UserError, match=r"a folder without config.json"):
        load_shape(str(tmp_path), "train.student")
    with pytest.raises(UserError, match=r"no such folder; .*Qwen/Qwen2.5-14B"):
        load_shape("./nowhere", "train.student")


def bytes_of(tensors: Any) -> int:
    return sum(tensor.nbytes for tensor in tensors if torch.is_tensor(tensor) and tensor.numel() > 1)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("rank", [0, 4])
def test_weights_gradients_and_optimizer_are_those_of_real_tensors(dtype: str, rank: int) -> None:
    from peft import LoraConfig, get_peft_model

    model = model_of(SMALL, dtype=getattr(torch, dtype))
    work = replace(WORK, dtype=dtype, mixed=False, adapters=Adapters(rank, LINEARS) if rank else None)
    if rank:
        model = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", r=rank, target_modules=list(LINEARS)))
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained)
    model(input_ids=torch.arange(10)[None]).logits.float().sum().backward()
    optimizer.step()
    shape = shape_of("small", "here", SMALL, "train.student")
    states = states_of(shape, work, Layout("single"), 1)
    assert sum(parameter.numel() for parameter in trained) == trainable_parameters(shape, work.adapters)
    assert states.weights == bytes_of(model.parameters())
    assert states.gradients == bytes_of(parameter.grad for parameter in trained)
    assert states.optimizer == bytes_of(value for state in optimizer.state.values() for value in state.values())


def test_states_over_so_many_devices_are_those_of_the_papers_table() -> None:
    """ZeRO, https://arxiv.org/abs/1910.02054, figure 1: 2 + 2 + 12 bytes a parameter, in turn divided by the devices."""
    shape, n = load_shape("Qwen/Qwen2.5-Math-7B", "x"), 64
    wanted = {"zero1": 2 + 2 + 12 / n, "zero2": 2 + (2 + 12) / n, "zero3": 16 / n, "fsdp2": 16 / n}
    for kind, bytes_a_parameter in wanted.items():
        states = states_of(shape, WORK, Layout(kind), n)  # type: ignore[arg-type]
        total = states.weights + states.gradients + states.optimizer
        assert total == pytest.approx(bytes_a_parameter * shape.parameters)
        assert states.host == 0
    offloaded = states_of(shape, WORK, Layout("fsdp2", offload_optimizer=True, offload_weights=True), n)
    assert (offloaded.weights, offloaded.gradients, offloaded.optimizer) == (0, 0, 0)
    assert offloaded.host == pytest.approx(16 / n * shape.parameters)


def test_checkpoints_are_two_bytes_a_layer_and_channel_and_sequence_parallelism_divides_them() -> None:
    shape = load_shape("Qwen/Qwen2.5-14B", "x")
    alone = activations.saved_bytes(shape, WORK, Layout("zero3"))
    assert alone == 2 * 48 * 32768 * 5120
    assert activations.saved_bytes(shape, WORK, Layout("zero3", sequence_parallel=4)) == alone / 4
    assert activations.saved_bytes(shape, replace(WORK, offload_activations=True), Layout("zero3")) == alone * 5 / 48
    assert activations.offloaded_bytes(shape, replace(WORK, offload_activations=True), Layout("zero3")) == alone
    kept = activations.saved_bytes(shape, replace(WORK, checkpointing=False), Layout("zero3"))
    assert 10 * alone < kept < 40 * alone
    masked = activations.saved_bytes(shape, replace(WORK, attention="sdpa"), Layout("zero3"))
    assert masked - alone == 32768**2 * 3


def test_what_makes_a_step_larger_makes_its_memory_larger() -> None:
    shape, fsdp2 = load_shape("Qwen/Qwen2.5-Math-1.5B", "x"), Layout("fsdp2")

    def total(processes: int = 8, layout: Layout = fsdp2, **changes: Any) -> float:
        return memory(shape, replace(WORK, **changes), layout, processes).total

    assert total(16) < total(8)
    assert total() < total(checkpointing=False)
    assert total(length=16384) < total() < total(sequences=2)
    assert total(rows=64) >= total()
    assert total(online=load_shape("deepseek-ai/DeepSeek-R1-Distill-Qwen-7B", "x")) > total() + 14 * 7e9 / 64
    assert total(layout=Layout("ddp"), optimizer="adamw_8bit") < total(layout=Layout("ddp"))
    quantized = Adapters(16, LINEARS, quantized=True)
    assert total(layout=Layout("ddp"), adapters=quantized) < total(
        layout=Layout("ddp"), adapters=replace(quantized, quantized=False)
    )


def test_a_pruned_student_is_planned_as_what_is_left_and_each_teacher_scores() -> None:
    whole = plan_of("qwen2.5-14b", None).student
    left = plan_of("qwen2.5-14b", None, "prune.depth=0.25", "prune.ffn=0.5", "prune.heads=0.5").student
    config = known_models()[whole.name]["config"]
    assert (left.layers, left.intermediate) == (36, config["intermediate_size"] // 2)
    assert (left.key_value_heads, left.heads) == (4, 20)
    pruned = config | {  # and a Llama, with a bias on the output of its attention
        "num_hidden_layers": 36, "intermediate_size": left.intermediate, "num_key_value_heads": 4, "head_dim": 128,
        "num_attention_heads": 20, "model_type": "llama", "attention_bias": True,
    }  # fmt: skip
    assert left.parameters == sum(each.numel() for each in model_of(pruned, "meta").parameters())
    teachers = '[{name="a", model="Qwen/Qwen2.5-32B"}, {name="b", model="Qwen/Qwen2.5-14B"}]'
    both = plan_of("qwen2.5-14b-kl", None, f"teachers={teachers}", "cache.source='vllm'")
    assert [stage.what.split()[0] for stage in both.stages if stage.stage == "cache"] == [
        "Qwen/Qwen2.5-32B", "Qwen/Qwen2.5-14B",
    ]  # fmt: skip


@pytest.mark.parametrize("name", RECIPES)
def test_a_shipped_recipe_fits_on_the_machine_that_its_header_names(name: str) -> None:
    text = (ROOT / "scripts" / "recipes" / f"{name}.toml").read_text(encoding="utf-8")
    named = re.search(r"Training: ((?:\d+x)?\d+x\w+(?:-\d+)?)", text)
    small = name.startswith("quickstart")
    assert named or small
    plan = plan_of(name, named[1] if named else "cpu")
    assert plan.own.fits, as_json(plan)["layout"]
    assert plan.closest is plan.own
    assert small or plan.step.sequences == 64
    processes = plan_of(name, None).machine.processes if named else 1
    assert processes == plan.machine.processes  # so many does [train.launch] say
    assert [stage.stage for stage in plan.stages if stage.tokens <= 0] == []


def test_a_layout_that_does_not_fit_is_said_with_the_nearest_that_does() -> None:
    plan = plan_of("qwen2.5-14b", "8x48GB")
    assert not plan.own.fits
    assert plan.closest is not None
    assert plan.closest.fits
    assert plan.closest.change == "train.args.activation_offloading=true"
    shared = plan_of("qwen2.5-32b", "8xH100").closest
    assert shared is not None
    assert shared.layout == Layout("zero3", sequence_parallel=2)
    assert shared.change == (
        "train.launch.config_file=scripts/accelerate/zero3_ulysses.yaml, train.args.gradient_accumulation_steps=8"
    )
    tight = plan_of("llama-3.3-70b", "8xH100")
    assert tight.closest is not None
    assert tight.closest.memory.total < tight.machine.device.memory_gib * GIB < tight.own.memory.total
    assert plan_of("llama-3.3-70b", "1x24GB").closest is None


@pytest.mark.parametrize(
    ("file", "layout"),
    [
        ("ddp", Layout("ddp")),
        ("zero2", Layout("zero2")),
        ("zero3", Layout("zero3")),
        ("zero3_offload", Layout("zero3", offload_optimizer=True)),
        ("zero3_ulysses", Layout("zero3", sequence_parallel=2)),
        ("fsdp2", Layout("fsdp2")),
    ],
)
def test_every_accelerate_file_that_is_shipped_is_read_by_plan_and_by_accelerate(file: str, layout: Layout) -> None:
    from accelerate.commands.config.config_args import load_config_from_file

    path = f"scripts/accelerate/{file}.yaml"
    assert layout_of(Train(student="a"), {"config_file": path}) == layout
    config = load_config_from_file(str(ROOT / path))
    assert config.to_dict()["num_processes"] == 8
    assert config.mixed_precision == "bf16"
    assert {each.stem for each in (ROOT / "scripts" / "accelerate").glob("*.yaml")} == {
        "ddp", "zero2", "zero3", "zero3_offload", "zero3_ulysses", "fsdp2"
    }  # fmt: skip


def test_flags_go_over_the_accelerate_file_and_fsdp_1_is_refused() -> None:
    launch = {"config_file": "scripts/accelerate/zero3.yaml", "zero_stage": 1, "offload_optimizer_device": "cpu"}
    assert layout_of(Train(student="a"), launch) == Layout("zero1", offload_optimizer=True)
    with pytest.raises(UserError, match="fsdp_version = 1"):
        layout_of(Train(student="a"), {"use_fsdp": True})
    assert layout_of(Train(student="a"), {}) == Layout("single")
    assert layout_of(Train(student="a"), {"multi_gpu": True}) == Layout("ddp")


def test_machines_are_read() -> None:
    machine = parse_machine("2x8xH200")
    assert (machine.name, machine.nodes, machine.gpus, machine.processes) == ("2x8xH200", 2, 8, 16)
    assert parse_machine("4xa100-80").device.flops == 312e12
    assert parse_machine("3x24GB").device.memory_gib == pytest.approx(22.35, abs=0.01)
    assert parse_machine("cpu").processes == 1
    for text, words in (
        ("8", "GPUSxNAME"),
        ("8xH900", "no such GPU; known are .*H100"),
        ("0xH100", "nothing to run on"),
    ):
        with pytest.raises(UserError, match=words):
            parse_machine(text)


def test_a_step_is_counted_in_sequences_and_tokens_and_packing_keeps_the_tokens() -> None:
    given = Given(problems=1000, tokens=3850.0, right=1.0)
    plan = plan_of("qwen2.5-math-7b", "8xH100", "filter.validation_fraction=0.0", given=given)
    assert plan.counts.examples == 2000  # two correct ones of each problem
    assert plan.step.tokens == 64 * 4000
    assert plan.step.steps == round(2 * 2000 / 64)
    assert plan.step.packed_tokens == pytest.approx(plan.step.tokens, rel=0.5)
    packed = plan_of(
        "qwen2.5-math-7b", "8xH100", "train.args.packing=true",
        f"train.args.gradient_accumulation_steps={plan.step.packed_accumulation}", given=given,
    )  # fmt: skip
    assert packed.step.tokens == plan.step.packed_tokens
    shared = plan_of(
        "qwen2.5-math-7b", "8xH100", "train.launch.config_file=scripts/accelerate/zero3_ulysses.yaml", given=given
    )
    assert shared.step.sequences == 32
    assert plan.accumulation is None
    assert plan_of("qwen2.5-math-7b", "2x8xH100").accumulation == 4
    assert plan_of("llama-3.3-70b", "8xH200").accumulation == 8


def test_samples_of_a_teacher_that_stops_are_those_of_a_simulation() -> None:
    chance = random.Random(0)
    for right, samples, stop in ((0.3, 8, 2), (0.75, 4, 2), (0.5, 3, 0), (1.0, 4, 1)):
        taken = kept = 0
        for _ in range(20_000):
            correct = 0
            for _ in range(samples):
                if stop and correct >= stop:
                    break
                taken += 1
                correct += chance.random() < right
            kept += correct
        expected = samples_expected(right, samples, stop)
        assert (taken / 20_000, kept / 20_000) == pytest.approx(expected, rel=0.03)


def test_training_takes_six_operations_a_parameter_and_eight_when_computed_again() -> None:
    shape = load_shape("meta-llama/Llama-3.3-70B-Instruct", "x")
    short = training_flops(shape, WORK, 0.0)
    assert short.model == 6 * shape.computing_parameters
    assert short.hardware == 8 * shape.computing_parameters
    long = training_flops(shape, WORK, 1000.0)
    assert long.model - short.model == 12 * 80 * 8192 * 1000
    lora = training_flops(shape, replace(WORK, adapters=Adapters(8, LINEARS)), 0.0)
    assert lora.model == 4 * shape.computing_parameters
    online = training_flops(shape, replace(WORK, online=shape), 0.0)
    assert online.model - short.model == 2 * shape.computing_parameters


def test_decoding_is_bound_by_what_is_read_and_a_model_that_does_not_fit_is_not_decoded() -> None:
    device = parse_machine("8xH100").device
    shape = load_shape("Qwen/Qwen2.5-32B", "x")
    one, many = (decoding(shape, device, 2, 3000.0, most) for most in (1, 64))
    assert one is not None
    assert many is not None
    assert one.tokens_per_second <= device.bytes_per_second * 2 / (2 * shape.parameters)
    assert one.tokens_per_second < many.tokens_per_second < 64 * one.tokens_per_second
    assert decoding(load_shape("deepseek-ai/DeepSeek-R1", "x"), device, 8, 3000.0, 64) is None
    mixture = load_shape("deepseek-ai/DeepSeek-R1", "x")
    assert share_read(mixture, 1) < 0.1 < share_read(mixture, 32) < share_read(mixture, 1000) <= 1.0


def test_what_is_known_of_a_run_is_not_assumed(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    run = small_run(tmp_path, train={"student": "quickstart:student"}, eval={"tasks": []})
    before = make_plan(run, "a", "cpu", Given(right=0.5))
    assert before.counts.problems == 5
    assert before.counts.examples == 2.5
    assert any("nothing of the teacher" in line for line in before.assumed)
    run.dataset.mkdir(parents=True)
    pq.write_table(pa.table({"n_tokens": [100, 300]}), run.dataset / "train.parquet")
    after = make_plan(run, "a", "cpu", Given(right=0.5))
    assert (after.counts.examples, after.counts.tokens_a_sample) == (2, 200)


def test_the_command_needs_neither_torch_nor_the_hub_and_prints_what_machines_read() -> None:
    block = (
        "import sys\nfor name in ('torch', 'transformers', 'accelerate', 'datasets', 'vllm', 'huggingface_hub'):\n"
        "    sys.modules[name] = None"
    )
    result = r1distill("plan", "llama-3.1-8b-kl", "--gpus", "8xH100", "--json", before=block)
    assert result.returncode == 0, result.stderr
    plan = json.loads(result.stdout)
    assert plan["layout"]["fits"] is True
    assert plan["layout"]["total_gib"] == pytest.approx(sum(plan["layout"]["parts_gib"].values()), abs=0.1)
    assert {choice["name"] for choice in plan["layouts"]} >= {
        "DDP",
        "ZeRO-1",
        "ZeRO-2",
        "ZeRO-3",
        "FSDP2",
        "ZeRO-3, SP 2",
    }
    assert [stage["stage"] for stage in plan["stages"]] == ["generate", "cache", "train", "eval"]
    table = r1distill(
        "plan", "qwen2.5-14b", "--gpus", "8x48GB", "--mfu", "0.5", "--usd-per-gpu-hour", "2", before=block
    )
    assert table.returncode == 0, table.stderr
    assert "the recipe's layout does not fit" in table.stdout
    assert "the nearest that fits: FSDP2, activations on the CPU" in table.stdout
    assert "50% MFU" not in table.stdout  # it was given, so it is not assumed
    assert_one_error_line(r1distill("plan", "qwen2.5-14b", "--gpus", "8xT800", before=block), "--gpus 8xT800", "H100")
