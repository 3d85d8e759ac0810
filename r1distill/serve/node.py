"""vLLM's server as a child of this process."""

import errno
import importlib
import os
import signal
import socket
import subprocess
import time
from contextlib import suppress
from pathlib import Path

import httpx

from r1distill.console import console, say
from r1distill.errors import UserError
from r1distill.serve.teacher import Teacher

STOP_S = 8.0  # what vLLM is given to end by itself before it is killed
LOOK_EVERY_S = 0.5
LINES_OF_LOG = 15


def serve_here(command: list[str], environment: dict[str, str], health: str, ready_line: str, log: Path) -> int:
    """Run vLLM's server until it ends, and return its exit code, or until an exception (a signal) ends this function.

    `ready_line` is said once the URL `health` answers. The output of vLLM is added to `log`.
    """
    before = log.stat().st_size if log.exists() else 0
    with log.open("ab") as output:
        child = subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C is for this process, which then ends the child in order
        )
    try:
        with console.status(f"serve: starting vLLM, its log is {log}"):
            ready = wait_until_ready(child, health)
        if ready:
            say(ready_line)
            child.wait()
    finally:
        end(child)
    code = child.returncode if child.returncode >= 0 else 128 - child.returncode
    say(f"vLLM ended with exit code {code}{'' if ready else ' before it was ready'}; the end of {log}:")
    with log.open(encoding="utf-8", errors="replace") as text:
        text.seek(before)
        for line in text.read().splitlines()[-LINES_OF_LOG:]:
            say(f"  │ {line}", style="dim")
    return code


def wait_until_ready(child: "subprocess.Popen[bytes]", health: str) -> bool:
    """Whether the server answers; False once the child has ended."""
    with httpx.Client(trust_env=False, timeout=5.0) as client:  # a proxy has no way to this machine
        while child.poll() is None:
            with suppress(httpx.HTTPError):  # it does not listen yet
                if client.get(health).status_code == 200:
                    return True
            time.sleep(LOOK_EVERY_S)
    return False


def end(child: "subprocess.Popen[bytes]") -> None:
    """End the child and its whole group: asked first, and killed after STOP_S seconds."""
    if child.poll() is None:
        child.terminate()
        with suppress(subprocess.TimeoutExpired):
            child.wait(STOP_S)
    with suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()


def check_port(host: str, port: int) -> None:
    """Raise UserError where this machine cannot listen on host:port."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise UserError(
                f"serve.port = {port}: another program listens on {host}:{port}; stop it, or set another serve.port"
            ) from None
        if error.errno == errno.EACCES:
            raise UserError(f"serve.port = {port}: only root may listen below 1024; set serve.port=8000") from None
        raise UserError(
            f"serve.host = {host}: not an address of this machine ({error.strerror}); set 127.0.0.1, or 0.0.0.0 for all"
        ) from None


def count_gpus() -> int:
    return importlib.import_module("torch").cuda.device_count()


def check_gpus(teacher: Teacher) -> None:
    """Raise UserError where this node has fewer GPUs than the teacher takes."""
    if not teacher.is_cpu and teacher.devices > (count := count_gpus()):
        raise UserError(
            f"{teacher.name} needs {teacher.needs}, this node has {count}; "
            "lower teacher.engine.tensor_parallel_size, or serve over several nodes with serve.ray"
        )
