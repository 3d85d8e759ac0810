"""The stage `train`, from the outside: start the training process, or several through `accelerate launch`."""

import os
import signal
import subprocess
import sys
from contextlib import suppress
from typing import Any

from r1distill.console import terminal_handle
from r1distill.errors import UserError
from r1distill.resources import find_file
from r1distill.run import Clock, Run
from r1distill.store import read_json

WORKER = "r1distill.train.worker"


def train_stage(run: Run, clock: Clock) -> dict[str, Any]:
    """Train in a process of its own. Raises SystemExit(2) where it has told the user what to mend."""
    join(run)
    return read_json(run.folder / "stages" / "train-result.json")


def join(run: Run) -> None:
    """Start this machine's part of the training: all of it, or what [train.launch] gives it (scripts/slurm/train.slurm)."""
    command = launch_command(run.recipe.train.launch, str(run.folder))
    terminated = False

    def pass_on(number: int, frame: Any) -> None:
        """They save a checkpoint and end; a launcher that has the signal itself would kill them after half a minute."""
        nonlocal terminated
        terminated = True
        for worker in workers_of(training.pid) if run.recipe.train.launch else [training.pid]:
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


def launch_command(launch: dict[str, Any], folder: str) -> list[str]:
    """`python -m r1distill.train.worker`, under `accelerate launch` with the flags of [train.launch] if there are any."""
    if not launch:
        return [sys.executable, "-m", WORKER, folder, str(os.getpid())]
    flags = []
    for name, value in launch.items():
        if name == "config_file":
            value = str(find_file(str(value), "train.launch.config_file"))
        flags += [f"--{name}"] if value is True else [f"--{name}", str(value)]
    return [sys.executable, "-m", "accelerate.commands.launch", *flags, "-m", WORKER, folder]
