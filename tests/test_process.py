"""Nothing is left behind by a process that is killed."""

import os
import signal
import subprocess
import sys
import time

import pytest

PARENT = """
import subprocess, sys, time
from r1distill.process import children_die_with_me
children_die_with_me()
code = "import subprocess, sys, time; p = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'], " \\
       "start_new_session=True); print(p.pid, flush=True); time.sleep(600)"
child = subprocess.Popen([sys.executable, "-c", code], start_new_session=True)
print(child.pid, flush=True)
time.sleep(600)
"""


def is_alive(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.skipif(sys.platform != "linux", reason="the marks are found in /proc")
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_children_and_theirs_die_with_a_killed_parent_and_nobody_else_does(how: signal.Signals) -> None:
    bystander = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    parent = subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True)
    try:
        assert parent.stdout is not None
        family = [int(parent.stdout.readline()), int(parent.stdout.readline())]
        assert all(map(is_alive, family))
        os.kill(parent.pid, how)
        parent.wait()
        deadline = time.monotonic() + 30
        while any(map(is_alive, family)) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not any(map(is_alive, family))
        assert bystander.poll() is None
    finally:
        bystander.kill()
        bystander.wait()
