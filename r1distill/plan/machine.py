"""The devices that a plan is for: `8xH100`, `2x8xH200`, or those that are here."""

import os
import re
from dataclasses import dataclass
from typing import NamedTuple

from r1distill.errors import UserError


class Device(NamedTuple):
    """`memory_gib` is what CUDA reports; the others are of the data sheets: dense bfloat16, and the memory's speed."""

    memory_gib: float
    flops: float
    bytes_per_second: float
    usd_per_hour: float  # on demand, about what clouds asked in 2025; --usd-per-gpu-hour overrides it


DEVICES = {
    "A100-40": Device(39.4, 312e12, 1.555e12, 1.3),
    "A100-80": Device(79.2, 312e12, 2.039e12, 1.8),
    "H100": Device(79.1, 989e12, 3.35e12, 2.5),
    "H200": Device(139.8, 989e12, 4.8e12, 3.5),
    "B200": Device(178.4, 2250e12, 8.0e12, 5.5),
}
CPU = Device(0.0, 1e11, 2e10, 0.0)
PATTERN = re.compile(r"(?:(\d+)x)?(\d+)x([A-Za-z]\w*(?:-\d+)?|\d+(?:\.\d+)?GB)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Machine:
    """`nodes` of `gpus` each; without a GPU there is one process on the CPU."""

    name: str
    nodes: int
    gpus: int
    device: Device

    @property
    def processes(self) -> int:
        return max(1, self.nodes * self.gpus)

    @property
    def has_gpu(self) -> bool:
        return self.gpus > 0


def parse_machine(text: str) -> Machine:
    """`GPUSxNAME` or `NODESxGPUSxNAME`; a name of DEVICES, or so many `GB` of a GPU as fast as an H100; or `cpu`.

    Raises UserError for anything else.
    """
    if text.lower() == "cpu":
        return cpu_machine()
    found = PATTERN.fullmatch(text.strip())
    if not found:
        raise UserError(f"--gpus {text}: give GPUSxNAME or NODESxGPUSxNAME, such as 8xH100, 2x8xH200, 4x48GB, or cpu")
    nodes, gpus, name = int(found[1] or 1), int(found[2]), found[3].upper()
    if not nodes * gpus:
        raise UserError(f"--gpus {text}: there is nothing to run on; give at least 1, or cpu")
    if name.endswith("GB"):
        device = DEVICES["H100"]._replace(memory_gib=float(name[:-2]) * 1e9 / 2**30)
    elif name in DEVICES:
        device = DEVICES[name]
    else:
        raise UserError(f"--gpus {text}: no such GPU; known are {', '.join(DEVICES)}, or give its memory: {gpus}x80GB")
    return Machine(machine_name(nodes, gpus, name), nodes, gpus, device)


def machine_name(nodes: int, gpus: int, name: str) -> str:
    return (f"{nodes}x" if nodes > 1 else "") + f"{gpus}x{name}"


def cpu_machine() -> Machine:
    """This one's memory, one process."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return Machine("cpu", 1, 0, CPU._replace(memory_gib=memory))
