"""The processes that judge replies, seen from outside: forked from one that has imported everything, killed at will."""

import contextlib
import json
import os
import select
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from r1distill.errors import UserError

START_TIMEOUT_S = 120.0  # importing sympy takes 0.5 s, on a loaded machine with a cold disk a good deal longer
MAX_REPLY_BYTES = 1_000_000
PACKAGE_ROOT = Path(__file__).resolve().parents[2]


class WorkerDied(Exception):
    """The worker ended, or said something that is no reply. The message says which."""


class Nursery:
    """The process that workers are forked from (r1distill/verify/worker.py), so that a killed one is replaced within
    milliseconds. Thread-safe.

    It is the parent of the workers: they end with it, and their process ids stay theirs until it is told to reap them.
    Raises UserError where it does not start.
    """

    def __init__(self, memory_gb: float) -> None:
        self.lock = threading.Lock()
        self.control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with tempfile.TemporaryFile() as errors, theirs:
            self.process = subprocess.Popen(
                [sys.executable, "-P", "-m", "r1distill.verify.worker", str(os.getpid()), str(int(memory_gb * 2**30))],
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                stderr=errors,
                start_new_session=True,  # Ctrl-C is for the parent, which then ends its workers
                env={**os.environ, "PYTHONPATH": python_path(), "PYTHONHASHSEED": "0"},  # sympy orders sets by hash
            )
            theirs.close()  # the only end left is the nursery's, so that its death is seen
            self.control.settimeout(START_TIMEOUT_S)
            try:
                self.version = str(self.reply()["ready"])
            except (OSError, ValueError, KeyError) as error:
                errors.seek(0)
                lines = errors.read()[-10_000:].decode(errors="replace").strip().splitlines()
                self.close()
                reason = next((line for line in reversed(lines) if "Error" in line), lines[-1] if lines else error)
                raise UserError(
                    f"the verifier's worker did not start: {reason}; "
                    f"`{sys.executable} -m r1distill.verify.worker {os.getpid()} {2**32}` shows why"
                ) from None
            except BaseException:
                self.close()
                raise

    def reply(self) -> dict[str, Any]:
        return json.loads(self.control.recv(1 << 16))

    def is_alive(self) -> bool:
        return self.process.poll() is None

    def start(self) -> "Worker":
        """A fresh worker. Raises UserError where the nursery has died."""
        questions, stdin = os.pipe()
        stdout, replies = os.pipe()
        try:
            with self.lock:
                socket.send_fds(self.control, [b'{"start": true}'], [questions, replies])
                pid = int(self.reply()["pid"])
        except (OSError, ValueError) as error:
            os.close(stdin)
            os.close(stdout)
            raise UserError(f"the verifier's workers cannot be started any more ({error}); run again") from error
        finally:
            os.close(questions)
            os.close(replies)
        return Worker(self, pid, stdin, stdout)

    def kill(self, pid: int) -> int:
        """Kill a worker, if it still runs, and return its wait status; SIGKILL's where it is gone with the nursery.

        Once for each: its process id may then be another's.
        """
        with self.lock, contextlib.suppress(OSError, ValueError):
            self.control.send(json.dumps({"kill": pid}).encode())
            return int(self.reply()["status"])
        return 9

    def close(self) -> None:
        """End it, and with it every worker."""
        self.process.kill()
        self.process.wait()
        with self.lock:
            self.control.close()


class Worker:
    """One process and its two pipes. Not thread-safe: whoever took it from the pool's queue owns it."""

    def __init__(self, nursery: Nursery, pid: int, stdin: int, stdout: int) -> None:
        self.nursery, self.pid, self.stdin, self.stdout = nursery, pid, stdin, stdout
        self.version = nursery.version
        self.lock = threading.Lock()
        self.status: int | None = None  # how it ended
        os.set_blocking(stdin, False)
        os.set_blocking(stdout, False)

    def has_ended(self) -> bool:
        """Of an idle worker: it says nothing by itself, so anything to read is the end."""
        poll = select.poll()
        poll.register(self.stdout, select.POLLIN)
        return bool(poll.poll(0))

    def ask(self, question: dict[str, Any], timeout_s: float) -> dict[str, Any]:
        """The reply to a question. Raises TimeoutError at the deadline and WorkerDied; both end its use."""
        deadline = time.monotonic() + timeout_s
        self.write(json.dumps(question).encode() + b"\n", deadline)
        return self.read_line(deadline)

    def write(self, data: bytes, deadline: float) -> None:
        view = memoryview(data)
        while view:
            wait_for(self.stdin, select.POLLOUT, deadline)
            try:
                view = view[os.write(self.stdin, view) :]
            except BlockingIOError:
                continue
            except BrokenPipeError:
                raise WorkerDied(self.cause_of_death()) from None

    def read_line(self, deadline: float) -> dict[str, Any]:
        line = b""
        while not line.endswith(b"\n"):
            wait_for(self.stdout, select.POLLIN, deadline)
            chunk = os.read(self.stdout, 1 << 16)
            if not chunk:
                raise WorkerDied(self.cause_of_death())
            line += chunk
            if len(line) > MAX_REPLY_BYTES:
                raise WorkerDied(f"the worker replied with more than {MAX_REPLY_BYTES:,} bytes")
        try:
            reply = json.loads(line)
        except ValueError:
            reply = None
        if not isinstance(reply, dict):
            raise WorkerDied("the worker replied with something that is not JSON")
        return reply

    def cause_of_death(self) -> str:
        code = os.waitstatus_to_exitcode(self.end())
        return f"the worker was killed by signal {-code}" if code < 0 else f"the worker ended with exit code {code}"

    def end(self) -> int:
        """Kill it, if it still runs, from any thread; its wait status."""
        with self.lock:
            if self.status is None:
                self.status = self.nursery.kill(self.pid)
            return self.status

    def close(self) -> None:
        """End it, and its pipes."""
        self.end()
        os.close(self.stdin)
        os.close(self.stdout)


def python_path() -> str:
    """PYTHONPATH with this package in it. The worker runs with -P: no file of the current folder is imported."""
    return os.pathsep.join([str(PACKAGE_ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])


def wait_for(descriptor: int, event: int, deadline: float) -> None:
    """Block until the descriptor is ready or hung up. Raises TimeoutError at the deadline (`time.monotonic`)."""
    poll = select.poll()
    poll.register(descriptor, event)
    if not poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
        raise TimeoutError
