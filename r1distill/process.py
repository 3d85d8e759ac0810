"""Processes that must not outlive the one that started them, however it ends."""

import ctypes
import functools
import os
import secrets
import signal
import subprocess
import sys

PR_SET_PDEATHSIG = 1  # <linux/prctl.h>
FAMILY = "R1DISTILL_FAMILY"
# waits until its parent is gone, then kills every process that has the family's mark in its environment
REAPER = """
import os, signal, sys, time
parent, mark = int(sys.argv[1]), sys.argv[2].encode()
while os.getppid() == parent:
    time.sleep(0.2)
for name in os.listdir("/proc"):
    if name.isdigit() and int(name) != os.getpid():
        try:
            with open(f"/proc/{name}/environ", "rb") as file:
                if mark in file.read().split(b"\\0"):
                    os.kill(int(name), signal.SIGKILL)
        except OSError:
            continue
"""


def die_with_parent(parent: int) -> None:
    """Ask Linux for SIGKILL when the parent's thread that started this process ends. `parent` is its process id."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it died before the call
        sys.exit(0)


@functools.cache
def children_die_with_me() -> None:
    """From now on, every process that descends from this one is killed when this one ends, by SIGKILL too.

    vLLM's engine and its workers, which are not ours to change, otherwise stay behind with the model in memory. They
    are known by a mark in the environment that they inherit. Linux only; elsewhere this does nothing.
    """
    if sys.platform != "linux":
        return
    mark = f"{FAMILY}={secrets.token_hex(16)}"
    environment = {key: value for key, value in os.environ.items() if key != FAMILY}
    subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", REAPER, str(os.getpid()), mark],
        env=environment,
        stdin=subprocess.DEVNULL,
        start_new_session=True,  # Ctrl-C is for the parent
    )
    os.environ[FAMILY] = mark.partition("=")[2]
