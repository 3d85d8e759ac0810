"""The stage `train`, from the outside: start the training process, or several through `accelerate launch`."""

import os
import signal
import subprocess
import sys
from contextlib import suppress
from typing import Any

from r1distill.console import terminal_handle
from r1distill.errors import UserError
from r1distill.gpus import visible_gpus
from r1distill.resources import find_file
from r1distill.run import Clock, Run
from r1distill.store import read_json
from r1distill.train_sections import Train

WORKER = "r1distill.train.worker"
SEVERAL_GPUS = "scripts/accelerate/fsdp2.yaml"  # where [train.launch] does not say how


def train_stage(run: Run, clock: Clock) -> dict[str, Any]:
    """Train in a process of its own. Raises SystemExit(2) where it has told the user what to mend."""
    join(run)
    return read_json(run.folder / "stages" / "train-result.json")


def join(run: Run) -> None:
    """Start this machine's part of the training: all of it, or what [train.launch] gives it (scripts/slurm/train.slurm)."""
    gpus = len(visible_gpus())
    check_processes(run.recipe.train, gpus)
    launch = resolved_launch(run.recipe.train, gpus)
    command = launch_command(launch, str(run.folder))
    terminated = False

    def pass_on(number: int, frame: Any) -> None:
        """They save a checkpoint and end; a launcher that has the signal itself would kill them after half a minute."""
        nonlocal terminated
        terminated = True
        for worker in workers_of(training.pid) if launch else [training.pid]:
            os.kill(worker, number)

    with terminal_handle() as terminal:
        training = subprocess.Popen(command, stdout=terminal, stderr=subprocess.STDOUT)
        before = signal.signal(signal.SIGTERM, pass_on)
        try:
            code = training.wait()
        except BaseException:
            training.kill()
            raise
        finally:
            signal.signal(signal.SIGTERM, before)
    if terminated and code:
        raise SystemExit(128 + signal.SIGTERM)
    if code == 2:
        raise SystemExit(2)  # the worker has said why
    if code:
        raise UserError(f"training ended with exit code {code}; see {run.log('train')}, then run again: it continues")


def workers_of(launcher: int) -> list[int]:
    """The processes that `accelerate launch` has started and that live."""
    import psutil  # noqa: PLC0415 - comes with accelerate

    with suppress(psutil.NoSuchProcess):
        return [child.pid for child in psutil.Process(launcher).children()]
    return []


def resolved_launch(train: Train, gpus: int) -> dict[str, Any]:
    """[train.launch] as it is used on a machine of so many GPUs; {} is one process without a launcher.

    What is not said is a process for each GPU, and with several of them FSDP2, which fits the most.
    """
    launch = train.launch
    if not launch:
        return {"config_file": SEVERAL_GPUS, "num_processes": gpus} if gpus > 1 else {}
    if "num_processes" in launch or not gpus:
        return launch
    return {**launch, "num_processes": gpus * int(launch.get("num_machines", 1))}


def check_processes(train: Train, gpus: int) -> None:
    """Raise UserError where [train.launch] wants more processes than this machine has GPUs, if it has any."""
    launch = train.launch
    nodes, wanted = int(launch.get("num_machines", 1)), int(launch.get("num_processes", 0))
    if not gpus or wanted <= gpus * nodes or launch.get("use_cpu") or launch.get("cpu"):
        return
    accumulation = int(train.args.get("gradient_accumulation_steps", 1)) * wanted / (gpus * nodes)
    where = "this machine has" if nodes == 1 else f"{nodes} machines like this one have"
    raise UserError(
        f"train.launch.num_processes = {wanted}, and {where} {gpus * nodes} GPUs; set train.launch.num_processes={gpus * nodes}"
        + (
            f" train.args.gradient_accumulation_steps={accumulation:g} for the same batch"
            if accumulation % 1 == 0
            else ""
        )
    )


def launch_command(launch: dict[str, Any], folder: str) -> list[str]:
    """`python -m r1distill.train.worker`, under `accelerate launch` with these flags if there are any."""
    if not launch:
        return [sys.executable, "-m", WORKER, folder, str(os.getpid())]
    flags = []
    for name, value in launch.items():
        if name == "config_file":
            value = str(find_file(str(value), "train.launch.config_file"))
        flags += [f"--{name}"] if value is True else [f"--{name}", str(value)]
    return [sys.executable, "-m", "accelerate.commands.launch", *flags, "-m", WORKER, folder]
