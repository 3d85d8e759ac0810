"""The process that runs untrusted programs: started once, warm, and forked for each of them. Standard library only.

`python -I -S zygote.py CONTROL_FD CONFIG_JSON`, as process 1 of a bubblewrap sandbox (or, in the weaker tier, as a plain
process). It takes requests from the socket CONTROL_FD, each with descriptors: the source, then what becomes 0, 1, 2
and, for a candidate and its checker, 3. It forks, confines the child, runs the source in it and answers how it ended.
Every process of the program is dead, and every file it wrote is gone, before the next request is read. It never reads
an output: the descriptors lead to the parent's files.
"""

import contextlib
import gc
import importlib
import json
import os
import resource
import select
import shutil
import signal
import site
import socket
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import confine
import roles

STACK_BYTES = 512 << 20  # deep recursion in C code (lru_cache, sort keys) is ordinary in contest programs
TMP_BYTES, TMP_INODES = 64 << 20, 4096
FIRST_TICK_S, TICK_S = 0.01, 0.04  # how often the memory and CPU time of a running tree are read
PAGE = resource.getpagesize()
TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
NOT_STARTED = 127  # exit status, as of a shell


def main() -> None:
    config = json.loads(sys.argv[2])
    if resource.getrlimit(resource.RLIMIT_STACK)[0] != STACK_BYTES and not config.get("again"):
        hard = resource.getrlimit(resource.RLIMIT_STACK)[1]
        wanted = STACK_BYTES if hard == resource.RLIM_INFINITY else min(STACK_BYTES, hard)
        resource.setrlimit(resource.RLIMIT_STACK, (wanted, hard))
        config["again"] = True  # where the address space lies is decided at exec, by the limit of the stack
        os.execv(sys.executable, [sys.executable, "-I", "-S", __file__, sys.argv[1], json.dumps(config)])
    control = socket.socket(fileno=int(sys.argv[1]))
    os.set_inheritable(control.fileno(), False)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # process 1 gets only the signals that it has a handler for
    if config["affinity"]:
        os.sched_setaffinity(0, config["affinity"])
    filter_program = confine.system_call_filter()
    if not config["namespaces"]:
        confine.adopt_orphans()
    sys.path.extend(config["packages"])
    preload(config["preload"])
    confine.hide_from_children()
    fresh_files(config, first=True)
    gc.collect()
    gc.freeze()
    control.send(
        json.dumps(
            {
                "ready": True,
                "python": sys.version.split()[0],
                "seccomp": filter_program is not None,
                "landlock": confine.landlock_version(),
            }
        ).encode()
    )
    while True:
        message, descriptors, _, _ = socket.recv_fds(control, 1 << 16, 8)
        if not message:
            return
        if not descriptors:
            continue  # a kill that crossed the answer
        control.send(json.dumps(run(json.loads(message), descriptors, control, config, filter_program)).encode())


def preload(names: list[str]) -> None:
    site.setquit()
    site.setcopyright()
    site.sethelper()
    for name in names:
        try:
            importlib.import_module(name)
        except ImportError:
            continue


def fresh_files(config: dict, first: bool = False) -> None:
    """Empty writable folders. A new tmpfs costs a millisecond, so that an unused one stays."""
    for path in config["writable"]:
        if config["namespaces"]:
            if first or is_touched(path):
                confine.mount_fresh(path, TMP_BYTES, TMP_INODES)
        elif os.listdir(path):
            for name in os.listdir(os.fsencode(path)):
                entry = os.path.join(os.fsencode(path), name)
                if os.path.isdir(entry) and not os.path.islink(entry):
                    shutil.rmtree(entry, ignore_errors=True)
                else:
                    os.unlink(entry)


def is_touched(path: str) -> bool:
    try:
        return bool(os.listdir(path)) or os.stat(path).st_mode & 0o7777 != 0o1777
    except OSError:
        return True


def run(request: dict, descriptors: list[int], control: socket.socket, config: dict, filter_program) -> dict:
    """How the program ended: {"end": exit|signal|wall|cpu|memory|killed, "code", "cpu_s", "wall_s", "memory_bytes"}."""
    limits = request["limits"]
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    started = time.monotonic()
    pid = os.fork()
    if pid == 0:
        try:
            child(request, descriptors, config, filter_program)
        except BaseException as error:
            os.write(2, f"sandbox: {type(error).__name__}: {error}\n".encode())
        finally:
            os._exit(NOT_STARTED)
    for descriptor in descriptors:
        os.close(descriptor)
    end, memory = watch(pid, limits, started, control, config)
    status = end_tree(pid, config)
    wall = time.monotonic() - started
    fresh_files(config)
    total = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = total.ru_utime + total.ru_stime - used.ru_utime - used.ru_stime
    if end is None:
        end = "signal" if os.WIFSIGNALED(status) else "exit"
        if (os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGXCPU) or cpu > limits["cpu_s"]:
            end = "cpu"
    code = os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)
    return {"end": end, "code": code, "cpu_s": cpu, "wall_s": wall, "memory_bytes": memory}


def watch(pid: int, limits: dict, started: float, control: socket.socket, config: dict) -> tuple[str | None, int]:
    """(why the program has to be ended, None where it ended itself; the most memory seen at once)."""
    process = os.pidfd_open(pid)
    poll = select.poll()
    poll.register(process, select.POLLIN)
    poll.register(control, select.POLLIN)
    tick, most = FIRST_TICK_S, 0
    try:
        while True:
            left = started + limits["wall_s"] - time.monotonic()
            if left <= 0:
                return "wall", most
            events = poll.poll(min(tick, left) * 1000)
            if any(descriptor == process for descriptor, _ in events):
                return None, most
            if events:  # the parent wants no more of it, or is gone
                return "killed", most
            tick = TICK_S
            memory, cpu = tree_use(config)
            most = max(most, memory)
            if memory > limits["resident_bytes"]:
                return "memory", most
            if cpu > limits["cpu_s"]:
                return "cpu", most
    finally:
        os.close(process)


def members(config: dict) -> list[int]:
    """The processes of the program. In a PID namespace: all but this one; else: the descendants of this one."""
    pids = [int(name) for name in os.listdir("/proc") if name.isdigit()]
    if config["namespaces"]:
        return [other for other in pids if other != 1]
    parents = {}
    for other in pids:
        fields = stat_fields(other)
        if fields:
            parents[other] = int(fields[1])
    tree, me = {os.getpid()}, os.getpid()
    while grown := {other for other, parent in parents.items() if parent in tree and other not in tree}:
        tree |= grown
    return [other for other in tree if other != me]


def stat_fields(pid: int) -> list[str]:
    """/proc/PID/stat from the state on (its second field may hold spaces); empty for a process that is gone."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return file.read().rpartition(b")")[2].decode().split()
    except OSError:
        return []


def tree_use(config: dict) -> tuple[int, float]:
    """(bytes resident, seconds of CPU time) of all processes of the program."""
    memory, cpu = 0, 0.0
    for other in members(config):
        fields = stat_fields(other)
        if fields:
            memory += int(fields[21]) * PAGE
            cpu += sum(map(int, fields[11:15])) / TICKS_PER_SECOND  # utime, stime and those of waited-for children
    return memory, cpu


def end_tree(pid: int, config: dict) -> int:
    """Kill every process of the program and wait until all are gone. Returns the wait status of the first."""
    status = 0
    while True:
        if config["namespaces"]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(-1, signal.SIGKILL)
        else:
            for other in members(config):
                try:
                    os.kill(other, signal.SIGKILL)
                except OSError:
                    continue
        try:
            while True:
                ended, code = os.waitpid(-1, 0 if config["namespaces"] else os.WNOHANG)
                if ended == 0:
                    time.sleep(0.001)
                    break
                if ended == pid:
                    status = code
        except ChildProcessError:
            return status


def child(request: dict, descriptors: list[int], config: dict, filter_program) -> None:
    """Confine this process and run the program in it. Does not return."""
    moved = [os.dup2(descriptor, 64 + index, True) for index, descriptor in enumerate(descriptors)]
    with open(moved[0], "rb") as file:
        file.seek(0)
        source = file.read()
    for target, descriptor in enumerate(moved[1:]):
        os.dup2(descriptor, target, True)
    os.closerange(len(moved) - 1, 4096)
    os.chdir(config["writable"][0])
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if not config["namespaces"]:
        os.setsid()
        confine.restrict_files(config["readable"], config["writable"])
    confine.limit_resources(request["limits"])
    confine.drop_privileges(config["uid"])
    confine.filter_system_calls(filter_program)
    gc.enable()
    roles.ROLES[request["role"]](source)


if __name__ == "__main__":
    gc.disable()
    main()
