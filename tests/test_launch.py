"""What starts the training: the GPUs that are there, and what the recipe says of them."""

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
from small_run import ROOT
from test_train import make_run

from r1distill.errors import UserError
from r1distill.gpus import visible_gpus
from r1distill.train.stage import SEVERAL_GPUS, check_processes, launch_command, resolved_launch
from r1distill.train_sections import Train

LISTING = """GPU 0: NVIDIA H100 80GB HBM3 (UUID: GPU-0aa1)
GPU 1: NVIDIA H100 80GB HBM3 (UUID: GPU-1bb2)
GPU 2: NVIDIA A100-SXM4-80GB (UUID: GPU-2cc3)
  MIG 1g.10gb     Device  0: (UUID: MIG-3dd4)
"""


def student(launch: dict[str, Any], **args: Any) -> Train:
    return Train(student="a", launch=launch, args=args)


def machine(folder: Path, monkeypatch: pytest.MonkeyPatch, listing: str | None, chosen: str | None = None) -> None:
    """A machine whose nvidia-smi prints this, or ends with an error, and the environment of a job on it."""
    program = folder / "nvidia-smi"
    program.write_text("#!/bin/sh\nexit 9\n" if listing is None else f"#!/bin/sh\ncat <<'END'\n{listing}END\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    if chosen is None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    else:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", chosen)


@pytest.mark.parametrize(
    ("chosen", "names"),
    [
        (None, ["H100", "H100", "A100"]),
        ("2,0", ["A100", "H100"]),
        ("GPU-1", ["H100"]),
        ("0,7,1", ["H100"]),  # as CUDA reads it
        ("", []),
        ("-1", []),
    ],
)
def test_the_gpus_are_those_that_cuda_would_show(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chosen: str | None, names: list[str]
) -> None:
    machine(tmp_path, monkeypatch, LISTING, chosen)
    assert [name[7:11] for name in visible_gpus()] == names


def test_a_machine_without_gpus_has_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    machine(tmp_path, monkeypatch, None)
    assert visible_gpus() == []
    (tmp_path / "nvidia-smi").unlink()
    assert visible_gpus() == []


def test_what_the_recipe_does_not_say_is_a_process_for_each_gpu() -> None:
    silent = student({})
    assert resolved_launch(silent, 0) == resolved_launch(silent, 1) == {}
    assert resolved_launch(silent, 4) == {"config_file": SEVERAL_GPUS, "num_processes": 4}
    sharded = student({"config_file": "scripts/accelerate/zero3.yaml"})
    assert resolved_launch(sharded, 2) == {"config_file": "scripts/accelerate/zero3.yaml", "num_processes": 2}
    nodes = student({"config_file": "a.yaml", "num_machines": 3})
    assert resolved_launch(nodes, 8)["num_processes"] == 24
    said = {"config_file": "a.yaml", "num_processes": 2}
    assert resolved_launch(student(said), 8) == said


def test_several_gpus_are_started_through_accelerate_with_the_shipped_file() -> None:
    command = launch_command(resolved_launch(student({}), 4), "runs/a")
    assert command[1:3] == ["-m", "accelerate.commands.launch"]
    assert command[command.index("--config_file") + 1].endswith("scripts/accelerate/fsdp2.yaml")
    assert command[command.index("--num_processes") + 1] == "4"
    assert command[-3:] == ["-m", "r1distill.train.worker", "runs/a"]
    assert "accelerate.commands.launch" not in launch_command(resolved_launch(student({}), 1), "runs/a")


def test_more_processes_than_gpus_are_refused_with_the_batch_that_stays_the_same() -> None:
    eight = student({"num_processes": 8}, gradient_accumulation_steps=2)
    with pytest.raises(
        UserError, match=r"num_processes = 8, and this machine has 4 GPUs; set .*=4 .*accumulation_steps=4 for"
    ):
        check_processes(eight, 4)
    check_processes(eight, 8)
    check_processes(eight, 0)  # unknown: another accelerator than NVIDIA's
    check_processes(student({"num_processes": 8, "num_machines": 2}), 4)
    with pytest.raises(UserError, match=r"2 machines like this one have 6 GPUs; set train.launch.num_processes=6$"):
        check_processes(student({"num_processes": 16, "num_machines": 2}), 3)


@pytest.mark.extended
def test_the_shipped_fsdp2_file_trains_adapters_in_shards_and_saves_a_whole_student(
    tmp_path: Path, tiny_student: Path
) -> None:
    from transformers import AutoModelForCausalLM

    launch = {"config_file": "scripts/accelerate/fsdp2.yaml", "num_processes": 2, "mixed_precision": "no"}
    adapters = {"r": 4, "target_modules": "all-linear"}
    run = make_run(tmp_path / "run", tiny_student, repeat=4, launch={**launch, "main_process_port": 0}, peft=adapters)
    command = launch_command(run.recipe.train.launch, str(run.folder))
    command[command.index("r1distill.train.worker")] = "fsdp_worker"  # CPUs in the place of GPUs
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}", "OMP_NUM_THREADS": "1"}
    result = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
    [last] = (run.student / "checkpoints").glob("checkpoint-40")
    assert {"pytorch_model_fsdp_0", "optimizer_0"} <= {path.name for path in last.iterdir()}
    whole, before = (AutoModelForCausalLM.from_pretrained(path) for path in (run.student, tiny_student))
    assert sum(each.numel() for each in whole.parameters()) == sum(each.numel() for each in before.parameters())
