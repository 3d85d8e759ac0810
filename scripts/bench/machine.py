"""What benches and checks ask of the machine: memory of this process, a free port, how a figure grows."""

import math
import socket
from pathlib import Path


def status_kib(name: str) -> int:
    """VmRSS or VmHWM of this process."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name))


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def exponent(before: tuple[float, float] | None, now: tuple[float, float]) -> str:
    """By how much seconds grow with the size, both as (size, seconds): 1 is linear. Empty without an earlier one."""
    return "" if before is None else f"{math.log(now[1] / before[1]) / math.log(now[0] / before[0]):.2f}"
