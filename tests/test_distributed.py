"""Two processes are one: FSDP2 and DDP over gloo, checkpoints that another number of processes continues, SIGTERM."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tiny_model
from small_run import ROOT
from test_train import make_run

from r1distill.generate.distributions import sparse_rows
from r1distill.prompting import load_prompt
from r1distill.records import Trace
from r1distill.run import Run
from r1distill.train.render import encode
from r1distill.train.stage import launch_command, workers_of
from r1distill.train.teacher_cache import CacheWriter, Teacher, vocabulary_sha256

FSDP2 = {
    "use_fsdp": True, "fsdp_version": 2, "fsdp_auto_wrap_policy": "TRANSFORMER_BASED_WRAP",
    "fsdp_transformer_layer_cls_to_wrap": "LlamaDecoderLayer", "fsdp_state_dict_type": "SHARDED_STATE_DICT",
    "fsdp_reshard_after_forward": "true",
}  # fmt: skip
DDP = {"multi_gpu": True}
ARGS = {
    "max_steps": 6, "learning_rate": 2e-3, "gradient_checkpointing": False, "save_steps": 2, "logging_steps": 1,
    "max_grad_norm": 4.0,  # the first steps are over it, the last under
}  # fmt: skip
CLIP = {"until": 0.5, "attention": 0.05, "mlp": 0.1, "norms": 10.0}
CLIPPED = [
    f"{name}/{group}" for name in ("grad_norm", "clip_rate") for group in ("embeddings", "attention", "mlp", "norms")
]
LOGGED = ("loss", "grad_norm", "ce", "kl", "teacher_share", "alpha", "temperature", "mean_token_accuracy", *CLIPPED)
KL = {
    "alpha": {"kind": "linear", "start": 0.9, "end": 0.3},
    "temperature": {"kind": "staged", "values": [2.0, 1.0], "at": [0.0, 0.5]},
}


def make(folder: Path, student: Path, processes: int, sharding: dict[str, Any] | None, **changes: Any) -> Run:
    """A run whose global batch is 8 ragged sequences, and a cache of distributions of all but one of its traces."""
    launch = {}
    if sharding:
        launch = {"num_processes": processes, "num_machines": 1, "mixed_precision": "no", "dynamo_backend": "no"}
        launch |= {"main_process_port": 0, **sharding}
    args = {**ARGS, "per_device_train_batch_size": 8 // processes, **changes.pop("args", {})}
    run = make_run(folder, student, repeat=6, args=args, launch=launch, **{"kl": KL, "clip": CLIP, **changes})
    tokenizer, prompt, chance = (
        tiny_model.make_tokenizer(),
        load_prompt(tiny_model.PROMPT, "<think>\n"),
        np.random.default_rng(0),
    )
    rows = []
    teacher = Teacher(
        "generation", run.recipe.teacher.model, None, vocabulary_sha256(tokenizer.get_vocab()), "raw_logprobs", 5,
        prompt_sha256=prompt.sha256, prefill=prompt.prefill,
    )  # fmt: skip
    with CacheWriter(run.teacher_cache, teacher) as cache:
        for number, problem in enumerate(tiny_model.PROBLEMS * 6):
            reply = tiny_model.reply(problem).replace(" = ", " = " * (1 + number % 5))  # of different lengths
            ids = encode(tokenizer, reply.removeprefix(prompt.prefill))
            trace = Trace(
                f"p{number}",
                0,
                "t",
                "sha",
                0,
                reply,
                None,
                "",
                "stop",
                token_ids=[*ids, tiny_model.SPECIAL.index("<|im_end|>")],
            )
            logprobs = np.log(chance.dirichlet(np.ones(6), len(ids) + 1))[:, :5]
            likeliest = np.stack([chance.permutation(200)[:5] for _ in range(len(ids) + 1)])
            if number:
                cache.add(trace, sparse_rows(likeliest, logprobs, likeliest[:, 0], logprobs[:, 0]))
            rows.append(
                {
                    "problem_id": trace.problem_id,
                    "sample": 0,
                    "prompt": prompt.user_message(problem),
                    "completion": reply,
                }
            )
    pq.write_table(pa.Table.from_pylist(rows), run.dataset / "train.parquet")
    return run


def command(run: Run) -> list[str]:
    launch = launch_command(run.recipe.train.launch, str(run.folder))
    if run.recipe.train.launch.get("use_fsdp"):
        launch[launch.index("-m", 3) :] = [str(ROOT / "tests" / "fsdp_worker.py"), str(run.folder)]
    return launch if run.recipe.train.launch else launch[:-1]


def train(run: Run) -> list[dict[str, Any]]:
    result = subprocess.run(command(run), capture_output=True, text=True, env=environment())
    assert result.returncode == 0, result.stdout + result.stderr
    return log_of(run)


def environment() -> dict[str, str]:
    return {**os.environ, "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}


def log_of(run: Run) -> list[dict[str, Any]]:
    return [entry for entry in json.loads((run.student / "training_log.json").read_text()) if "loss" in entry]


def assert_same_training(
    found: list[dict[str, Any]], expected: list[dict[str, Any]], logged: Sequence[str] = LOGGED
) -> None:
    assert [entry["step"] for entry in found] == [entry["step"] for entry in expected]
    for name in logged:
        assert [entry[name] for entry in found] == pytest.approx([entry[name] for entry in expected], rel=1e-3), name


def assert_same_student(found: Run, expected: Run) -> None:
    from safetensors.torch import load_file

    ours, theirs = (load_file(run.student / "model.safetensors") for run in (found, expected))
    assert ours.keys() == theirs.keys()
    for name, value in theirs.items():
        difference = (ours[name].float() - value.float()).abs().max().item()
        assert difference <= 2**-7 * value.float().abs().max().item(), (name, difference)  # a step of bfloat16


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, tiny_student: Path) -> Run:
    """Trained by one process, uninterrupted."""
    run = make(tmp_path_factory.mktemp("whole"), tiny_student, 1, None)
    train(run)
    return run


@pytest.mark.extended
@pytest.mark.parametrize("sharding", [FSDP2, DDP], ids=["fsdp2", "ddp"])
def test_two_processes_train_and_clip_as_one_in_losses_norms_and_saved_weights(
    tmp_path: Path, tiny_student: Path, whole: Run, sharding: dict[str, Any]
) -> None:
    log = log_of(whole)
    norms = [entry["grad_norm"] for entry in log]
    assert min(norms) < ARGS["max_grad_norm"] < max(norms)
    for entry in log[:3]:  # one limit for all, then each group its own
        assert {entry[name] for name in CLIPPED if name.startswith("clip_rate")} == {entry["grad_norm"] > 4.0}
    assert [(entry["clip_rate/attention"], entry["clip_rate/norms"]) for entry in log[3:]] == [(1.0, 0.0)] * 3
    run = make(tmp_path, tiny_student, 2, sharding)
    assert_same_training(train(run), log_of(whole))
    assert_same_student(run, whole)
    shards = list((run.student / "checkpoints" / "checkpoint-6").glob("pytorch_model_fsdp_0/*.distcp"))
    assert len(shards) == (2 if sharding is FSDP2 else 0)


@pytest.fixture(scope="module")
def taught_inside(tiny_teacher: Path) -> dict[str, Any]:
    """Everything that a teacher in the training gives, and a controller that acts soon."""
    controller = {"action": "learning_rate", "warmup": 2, "cooldown": 1, "memory": 3, "threshold": 0.1, "release": -5.0}
    return {
        "kl": {"alpha": 0.5, "online": str(tiny_teacher)}, "hidden": {"weight": 0.5}, "attention": {"weight": 0.5},
        "controller": controller, "clip": None, "args": {"learning_rate": 1e-4, "max_steps": 8},
    }  # fmt: skip


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory, tiny_student: Path, taught_inside: dict[str, Any]) -> Run:
    run = make(tmp_path_factory.mktemp("watched"), tiny_student, 1, None, **taught_inside)
    train(run)
    return run


@pytest.mark.extended
@pytest.mark.parametrize("sharding", [FSDP2, DDP], ids=["fsdp2", "ddp"])
def test_two_processes_hear_a_teacher_in_the_training_and_are_controlled_as_one(
    tmp_path: Path, tiny_student: Path, watched: Run, taught_inside: dict[str, Any], sharding: dict[str, Any]
) -> None:
    expected = log_of(watched)
    assert {entry["controller/actions"] for entry in expected} > {0.0}
    inner = ("hidden", "attention", "controller/score", "controller/actions")
    run = make(tmp_path, tiny_student, 2, sharding, **taught_inside)
    assert_same_training(train(run), expected, ("loss", "grad_norm", "kl", "learning_rate", *inner))
    assert_same_student(run, watched)


@pytest.mark.extended
def test_a_checkpoint_of_two_processes_is_continued_by_one(tmp_path: Path, tiny_student: Path, whole: Run) -> None:
    run = make(tmp_path, tiny_student, 2, FSDP2)
    stop_with(signal.SIGKILL, run)
    fewer = make(tmp_path / "again", tiny_student, 1, FSDP2)
    fewer.student.mkdir()
    (run.student / "checkpoints").rename(fewer.student / "checkpoints")
    assert_same_training(train(fewer), log_of(whole))
    assert_same_student(fewer, whole)


@pytest.mark.extended
@pytest.mark.parametrize(("processes", "sharding"), [(1, None), (2, DDP)], ids=["one", "ddp"])
def test_sigterm_finishes_the_step_saves_and_the_run_goes_on_from_there(
    tmp_path: Path, tiny_student: Path, processes: int, sharding: dict[str, Any] | None
) -> None:
    # far more steps than are taken, and no checkpoint but that of the signal
    run = make(tmp_path / "run", tiny_student, processes, sharding, args={"max_steps": 4000, "save_strategy": "no"})
    code = "import sys; from pathlib import Path; from r1distill.run import open_run; from r1distill.train.stage import join"
    stage = [sys.executable, "-c", f"{code}; join(open_run(Path(sys.argv[1])))", str(run.folder)]
    training = subprocess.Popen(stage, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment())
    log = run.folder / "logs" / "train.log"
    wait_for(lambda: log.exists() and "'loss'" in log.read_text(), training)
    training.send_signal(signal.SIGTERM)
    output, _ = training.communicate(timeout=120)
    assert training.returncode == 128 + signal.SIGTERM, output
    [checkpoint] = (run.student / "checkpoints").glob("checkpoint-*")
    step = int(checkpoint.name.rpartition("-")[2])
    assert f"stopped by SIGTERM after step {step} of 4000, saved" in output
    assert not (run.student / "model.safetensors").exists()

    run.recipe.train.args["max_steps"] = step + 3
    run.save_recipe(Path(tiny_model.PROMPT))
    assert [entry["step"] for entry in train(run)][-3:] == [step + 1, step + 2, step + 3]


def stop_with(number: signal.Signals, run: Run) -> None:
    """Send the signal to the workers once there is a checkpoint, and wait for the end."""
    training = subprocess.Popen(
        command(run), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment()
    )
    checkpoints = run.student / "checkpoints"
    wait_for(lambda: any(checkpoints.glob("checkpoint-*/trainer_state.json")), training)
    for worker in workers_of(training.pid):
        os.kill(worker, number)
    training.communicate(timeout=120)
    assert not (run.student / "model.safetensors").exists(), "it was too fast to be stopped"


def wait_for(condition: Callable[[], bool], training: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 200
    while not condition():
        assert training.poll() is None, training.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.01)
