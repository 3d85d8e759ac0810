"""The whole pipeline with a tiny model, through the real vLLM and the real TRL."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import tiny_model

from r1distill.records import Decision, Trace, Verdict
from r1distill.store import read_records

RECIPE = """
run_dir = "{run}"
[problems]
path = "{problems}"
[teacher]
model = "{teacher}"
[teacher.engine]
max_model_len = 256
dtype = "float32"
[generate]
prompt = "prompts/quickstart/prompt.txt"
samples = 3
stop_after_correct = 2
max_tokens = 120
temperature = 0.3
logprobs = 5
[filter]
validation_fraction = 0.2
[train]
student = "{student}"
dtype = "float32"
max_length = 256
[train.args]
num_train_epochs = 60
learning_rate = 2e-3
per_device_train_batch_size = 16
gradient_checkpointing = false
save_steps = 0.5
eval_strategy = "epoch"
[eval]
tasks = ["{task}"]
models = ["base", "teacher", "student"]
samples = 2
max_tokens = 120
[eval.engine]
max_model_len = 256
dtype = "float32"
"""
TASK = """
name = "sums"
title = "Eight sums"
license = "Apache-2.0"
prompt = "prompts/quickstart/prompt.txt"
samples = 4
[data]
path = "{problems}"
"""


def r1distill(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "r1distill", *arguments]
    # importing TRL, as other tests here do, leaves the level at ERROR
    environment = {key: value for key, value in os.environ.items() if key != "VLLM_LOGGING_LEVEL"}
    return subprocess.run(command, capture_output=True, text=True, env={**environment, "VLLM_CPU_KVCACHE_SPACE": "1"})


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory, tiny_teacher: Path, tiny_student: Path) -> Path:
    folder = tmp_path_factory.mktemp("run")
    problems = folder / "problems.jsonl"
    lines = [
        json.dumps({"problem": p.problem, "kind": "math", "answer": p.answer, "source": "sums"})
        for p in tiny_model.PROBLEMS
    ]
    problems.write_text("\n".join(lines))
    (folder / "sums.toml").write_text(TASK.format(problems=problems))
    path = folder / "recipe.toml"
    path.write_text(
        RECIPE.format(
            run=folder / "run", problems=problems, teacher=tiny_teacher, student=tiny_student, task=folder / "sums.toml"
        )
    )
    return path


@pytest.fixture(scope="module")
def finished(recipe: Path) -> tuple[Path, str]:
    """The run folder and what was printed."""
    result = r1distill("run", str(recipe))
    assert result.returncode == 0, result.stdout + result.stderr
    return recipe.parent / "run", result.stdout


@pytest.mark.slow
@pytest.mark.timeout(480)
def test_the_student_learns_what_the_teacher_knows(finished: tuple[Path, str]) -> None:
    folder, _ = finished
    summary: dict[str, Any] = json.loads((folder / "summary.json").read_text())
    assert summary["accuracy"]["base"] <= 0.1
    assert summary["accuracy"]["teacher"] >= 0.8
    assert summary["accuracy"]["student"] >= 0.6
    low, high = summary["ci95"]["student"]
    assert 0 <= low < summary["accuracy"]["student"] <= high <= 1
    task = json.loads((folder / "eval" / "sums" / "summary.json").read_text())
    assert task["model"].endswith("student")
    assert task["n_problems"] == 8
    assert task["samples"] == 2
    assert set(task["models"]) == {"base", "teacher", "student"}
    assert task["pass@1"] == summary["accuracy"]["student"]
    assert summary["stages"]["generate"]["tokens_per_second"] > 0


@pytest.mark.slow
def test_the_files_of_a_run_agree_with_each_other(finished: tuple[Path, str]) -> None:
    folder, _ = finished
    traces = list(read_records(folder / "traces", Trace))
    verdicts = list(read_records(folder / "verdicts.parquet", Verdict))
    decisions = list(read_records(folder / "decisions.parquet", Decision))
    keys = [(trace.problem_id, trace.sample) for trace in traces]
    assert keys == [(verdict.problem_id, verdict.sample) for verdict in verdicts]
    assert keys == [(decision.problem_id, decision.sample) for decision in decisions]
    assert len(set(keys)) == len(keys) <= 24
    for trace in traces:
        assert trace.text.startswith("<think>\n")
        assert trace.finish_reason in ("stop", "length")
        assert trace.mean_entropy_nats is not None
        assert trace.mean_entropy_upper_nats is not None
        assert 0 <= trace.mean_entropy_nats <= trace.mean_entropy_upper_nats
        assert trace.token_ids is not None
        assert len(trace.token_ids) == trace.n_tokens
    by_problem: dict[str, list[str]] = {}
    for verdict in verdicts:
        by_problem.setdefault(verdict.problem_id, []).append(verdict.outcome)
    for outcomes in by_problem.values():  # sampling stopped at the second correct trace, and not before
        assert outcomes.count("correct") == 2 or len(outcomes) == 3
    funnel = json.loads((folder / "funnel.json").read_text())
    assert funnel["sampled"] == len(traces) == funnel["kept"] + sum(funnel["dropped"].values())


@pytest.mark.slow
def test_the_dataset_opens_with_load_dataset_and_the_student_with_transformers(finished: tuple[Path, str]) -> None:
    from datasets import load_dataset
    from transformers import AutoTokenizer, GenerationConfig

    folder, _ = finished
    dataset = load_dataset(str(folder / "dataset"))
    assert set(dataset) == {"train", "validation"}
    assert not set(dataset["train"]["problem_id"]) & set(dataset["validation"]["problem_id"])
    assert dataset["train"][0]["messages"][1]["content"] == dataset["train"][0]["completion"]
    tokenizer = AutoTokenizer.from_pretrained(folder / "student")
    generation = GenerationConfig.from_pretrained(folder / "student")
    assert tokenizer.eos_token_id in generation.eos_token_id
    assert tokenizer.pad_token_id not in generation.eos_token_id


@pytest.mark.slow
def test_the_student_has_a_card_of_what_made_it_and_how_it_scores(finished: tuple[Path, str]) -> None:
    folder, _ = finished
    summary = json.loads((folder / "summary.json").read_text())
    card = (folder / "student" / "README.md").read_text()
    assert card.startswith("---\nlibrary_name: transformers\n"), "the student is a folder, which the Hub does not know"
    low, high = summary["ci95"]["student"]
    assert f"| sums | student | {summary['accuracy']['student']:.1%} | {low:.1%} – {high:.1%} | 2 |" in card
    assert f"| kept | {summary['funnel']['kept']} |" in card
    stage = summary["stages"]["train"]
    assert f"| tokens, of which taught | {stage['tokens']:,}, {stage['counts']['supervised_tokens']:,} |" in card
    assert json.loads(card.partition("```json\n")[2].partition("```")[0])["train"]["max_length"] == 256


def test_a_person_sees_progress_examples_and_a_summary_and_no_library_noise(finished: tuple[Path, str]) -> None:
    folder, printed = finished
    for expected in ("the first trace:", "the first example", "pass@1", "funnel:", "tokens/s", "serve it:"):
        assert expected in printed
    for noise in ("INFO", "WARNING", "it/s", "Warning:"):
        assert noise not in printed
    assert "INFO" in (folder / "logs" / "generate.log").read_text()


@pytest.mark.slow
def test_a_second_run_does_nothing_and_says_so(finished: tuple[Path, str], recipe: Path) -> None:
    folder, _ = finished
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*.parquet")}
    result = r1distill("run", str(recipe))
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("done before") == 5
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*.parquet")} == before
