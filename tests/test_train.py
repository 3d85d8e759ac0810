"""The training process: real TRL on a tiny model, killed and continued."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tiny_model

from r1distill.errors import UserError
from r1distill.evaluate.contestants import student_of
from r1distill.prompting import load_prompt
from r1distill.recipe import Recipe
from r1distill.resources import find_file
from r1distill.run import Run
from r1distill.sections import Candidate
from r1distill.train import loading, trainer
from r1distill.train.render import render_example
from r1distill.train.saving import last_whole_checkpoint

STEPS = 40


def make_run(folder: Path, student: Path, repeat: int = 20, **train: Any) -> Run:
    arguments = {
        "max_steps": STEPS,
        "per_device_train_batch_size": 8,
        "gradient_checkpointing": False,
        "learning_rate": 2e-3,
        "save_steps": 5,
        "logging_steps": 1,
    }
    recipe = Recipe.model_validate(
        {
            "run_dir": str(folder),
            "problems": {"path": "prompts/quickstart/train.jsonl"},
            "teacher": {"model": "quickstart:teacher"},
            "generate": {"prompt": tiny_model.PROMPT},
            "train": {"student": str(student), "dtype": "float32", "max_length": 256, "args": arguments, **train},
        }
    )
    prompt = load_prompt(tiny_model.PROMPT, "")
    rows = [{"prompt": prompt.user_message(p), "completion": tiny_model.reply(p)} for p in tiny_model.PROBLEMS * repeat]
    run = Run(recipe)
    run.dataset.mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist(rows), run.dataset / "train.parquet")
    run.save_recipe(find_file(tiny_model.PROMPT, "prompt"))
    return run


def longest() -> int:
    tokenizer = tiny_model.make_tokenizer()
    prompt = load_prompt(tiny_model.PROMPT, "<think>\n")
    rendered = [
        render_example(tokenizer, prompt.user_message(p), tiny_model.reply(p), prompt.prefill)
        for p in tiny_model.PROBLEMS
    ]
    return max(len(example.input_ids) for example in rendered)


def train(run: Run) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "r1distill.train.worker", str(run.folder)]
    return subprocess.run(command, capture_output=True, text=True)


@pytest.mark.slow
def test_training_killed_in_the_middle_continues_and_ends_as_if_it_had_not_been(
    tmp_path: Path, tiny_student: Path
) -> None:
    whole = make_run(tmp_path / "whole", tiny_student)
    assert train(whole).returncode == 0

    run = make_run(tmp_path / "killed", tiny_student)
    worker = subprocess.Popen(
        [sys.executable, "-m", "r1distill.train.worker", str(run.folder)], stdout=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 120
    while not list((run.student / "checkpoints").glob("checkpoint-*/trainer_state.json")):
        assert worker.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    os.kill(worker.pid, signal.SIGKILL)
    worker.wait()
    # the kill may as well have come in the middle of writing a checkpoint
    torn = run.student / "checkpoints" / "checkpoint-39"
    torn.mkdir()
    (torn / "trainer_state.json").write_text('{"global_st')

    result = train(run)
    assert result.returncode == 0, result.stdout
    assert "continuing from checkpoint-" in result.stdout
    assert "checkpoint-39" not in result.stdout
    log = json.loads((run.student / "training_log.json").read_text())
    losses = {entry["step"]: entry["loss"] for entry in log if "loss" in entry}
    uninterrupted = json.loads((whole.student / "training_log.json").read_text())
    assert losses == pytest.approx(
        {entry["step"]: entry["loss"] for entry in uninterrupted if "loss" in entry}, abs=1e-3
    )
    assert len(losses) == STEPS
    counts, expected = (json.loads((each.folder / "stages" / "train-result.json").read_text()) for each in (run, whole))
    assert expected.pop("peak_memory_gib") > 0
    assert counts.pop("peak_memory_gib") > 0
    assert counts == expected
    assert counts["steps"] == STEPS
    assert counts["last_loss"] < counts["first_loss"] / 3


@pytest.mark.slow
def test_a_lora_student_is_saved_merged_and_overlong_examples_are_counted(tmp_path: Path, tiny_student: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    run = make_run(
        tmp_path / "run", tiny_student, max_length=longest() - 1, peft={"r": 4, "target_modules": "all-linear"}
    )
    result = train(run)
    assert result.returncode == 0, result.stdout
    counts = json.loads((run.folder / "stages" / "train-result.json").read_text())
    assert counts["overlong_dropped"] + counts["examples"] == 160
    assert 0 < counts["overlong_dropped"] < 160
    assert f"{counts['overlong_dropped']} overlong dropped" in result.stdout
    assert (run.student / "adapter" / "adapter_model.safetensors").exists()
    for weights in (run.student / "model.safetensors", run.student / "adapter" / "adapter_model.safetensors"):
        assert weights.stat().st_mode == (run.student / "config.json").stat().st_mode  # whoever serves it can read it
    student = AutoModelForCausalLM.from_pretrained(run.student)
    base = AutoModelForCausalLM.from_pretrained(tiny_student)
    assert student.dtype == torch.bfloat16
    assert set(student.state_dict()) == set(base.state_dict())
    name = "model.layers.0.self_attn.q_proj.weight"
    assert not torch.equal(student.state_dict()[name].float(), base.state_dict()[name].bfloat16().float())


@pytest.mark.slow
def test_an_adapter_can_be_left_as_one(tmp_path: Path, tiny_student: Path) -> None:
    from peft import AutoPeftModelForCausalLM

    peft = {"r": 4, "target_modules": "all-linear"}
    run = make_run(tmp_path / "run", tiny_student, repeat=2, peft=peft, merge_adapter=False)
    assert train(run).returncode == 0
    assert not (run.student / "config.json").exists()
    assert AutoPeftModelForCausalLM.from_pretrained(run.student).active_adapters == ["default"]
    assert student_of(run) == Candidate(model=str(tiny_student), adapter=str(run.student))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"args": {"learning_rat": 1}},
            "train.args.learning_rat: SFTConfig has no such option; did you mean learning_rate?",
        ),
        ({"args": {"learning_rate": "fast"}}, "train.args.learning_rate = 'fast': SFTConfig takes float; correct it"),
        ({"args": {"max_steps": 0.5}}, "train.args.max_steps = 0.5: SFTConfig takes int; correct it"),
        ({"args": {"bf16": 1}}, "train.args.bf16 = 1: SFTConfig takes bool; correct it"),
        ({"args": {"report_to": "tensorbord"}}, "train.args.report_to = tensorbord: tensorbord is not supported"),
        (
            {"args": {"report_to": "comet_ml"}},
            "train.args.report_to = comet_ml: CometCallback requires comet-ml",
        ),
        ({"peft": {"rank": 4}}, "train.peft.rank: LoraConfig has no such option"),
        ({"max_length": 4096}, "train.max_length = 4096 is more than the 512 positions"),
        ({"max_length": 20}, "examples are longer than train.max_length = 20"),
        (
            {"max_length": 92, "overlong": "error"},
            'examples are longer than train.max_length = 92; raise it, or set train.overlong = "drop"',
        ),
    ],
)
def test_what_cannot_be_trained_is_said_in_one_line(
    tmp_path: Path, tiny_student: Path, change: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError) as raised:
        trainer.train(make_run(tmp_path / "run", tiny_student, repeat=1, **change))
    assert message in str(raised.value)


def test_the_rope_of_the_recipe_reaches_the_frequencies_and_the_saved_config(
    tmp_path: Path, tiny_student: Path
) -> None:
    """Setting `config.rope_theta` would change nothing in transformers 5."""
    import torch

    rope = {"rope_type": "default", "rope_theta": 3e5}
    shipped = loading.load_model(make_run(tmp_path / "shipped", tiny_student).recipe.train)
    run = make_run(tmp_path / "run", tiny_student, rope_parameters=rope, max_position_embeddings=4096, max_length=4096)
    model = loading.load_model(run.recipe.train)
    expected = 3e5 ** -(torch.arange(0, 64, 2) / 64)
    torch.testing.assert_close(model.model.rotary_emb.inv_freq, expected)
    assert not torch.allclose(shipped.model.rotary_emb.inv_freq, expected)
    model.save_pretrained(tmp_path / "saved")
    config = json.loads((tmp_path / "saved" / "config.json").read_text())
    assert (config["rope_parameters"], config["max_position_embeddings"]) == (rope, 4096)


def test_a_checkpoint_without_its_state_is_removed_and_the_one_before_is_used(tmp_path: Path) -> None:
    for step, state in ((5, "{}"), (10, '{"half'), (15, None)):
        folder = tmp_path / f"checkpoint-{step}"
        folder.mkdir()
        if state is not None:
            (folder / "trainer_state.json").write_text(state)
    assert last_whole_checkpoint(tmp_path) == tmp_path / "checkpoint-5"
    assert not (tmp_path / "checkpoint-10").exists()
    assert not (tmp_path / "checkpoint-15").exists()
    shutil.rmtree(tmp_path / "checkpoint-5")
    assert last_whole_checkpoint(tmp_path) is None


def test_a_tokenizer_with_more_ids_than_the_student_has_embeddings_is_refused(
    tmp_path: Path, tiny_student: Path
) -> None:
    tokenizer = tiny_model.make_tokenizer()
    settings = make_run(tmp_path / "run", tiny_student, tokenizer=str(tmp_path / "teacher")).recipe.train
    student = tiny_model.make_model(tokenizer)
    tiny_model.save(student, tokenizer, tmp_path / "teacher")
    loading.check_rows(settings, student, loading.load_tokenizer(settings))
    tokenizer.add_tokens(["<one more>"])
    tokenizer.save_pretrained(tmp_path / "teacher")
    with pytest.raises(UserError, match=rf"teacher: its tokenizer has an id {len(tokenizer) - 1}, and .* embeddings"):
        loading.check_rows(settings, student, loading.load_tokenizer(settings))


def test_adapters_are_merged_into_weights_that_are_not_quantised(tmp_path: Path, tiny_student: Path) -> None:
    settings = make_run(tmp_path, tiny_student, model_args={"quantization_config": {"load_in_4bit": True}}).recipe.train
    assert not hasattr(loading.load_model(settings, quantized=False).config, "quantization_config")
