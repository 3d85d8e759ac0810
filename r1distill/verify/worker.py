"""The processes that judge: `python -m r1distill.verify.worker PARENT_PID MEMORY_BYTES` imports all that they need, then
forks one for each message on the socket that is its standard input. These read JSON lines and write JSON lines.

They are expendable. The parent (r1distill/verify/workers.py) has them killed at the deadline, and they die with it.
"""

import gc
import json
import os
import resource
import signal
import socket
import sys
from typing import Any, BinaryIO

from r1distill.process import die_with_parent

MAX_EXTRACTED_CHARACTERS = 2_000
RETIRE_AT = 0.25  # of the memory limit: what an answer left in caches must not starve the answers after it


def main() -> None:
    parent, memory_bytes = int(sys.argv[1]), int(sys.argv[2])
    die_with_parent(parent)
    from r1distill.verify import checks, quick  # noqa: F401, PLC0415 - takes half a second; the line above comes first

    control = socket.socket(fileno=os.dup(0))
    nowhere = os.open(os.devnull, os.O_RDWR)
    os.dup2(nowhere, 0)
    gc.collect()
    gc.freeze()  # what is imported is not looked at again, and stays shared with the forks
    control.send(json.dumps({"ready": quick.VERIFIER}).encode())
    os.dup2(nowhere, 2)  # until here errors go to the parent, which shows why a worker did not start
    while True:
        data, descriptors, _, _ = socket.recv_fds(control, 1 << 12, 2)
        if not data:
            return
        message = json.loads(data)
        if "kill" in message:
            control.send(json.dumps({"status": end(message["kill"])}).encode())
            continue
        nursery = os.getpid()
        pid = os.fork()
        if pid == 0:
            control.close()
            die_with_parent(nursery)
            questions, replies = descriptors
            limit(memory_bytes)
            serve(os.fdopen(questions, "rb"), os.fdopen(replies, "wb", buffering=0), memory_bytes)
            os._exit(0)
        for descriptor in descriptors:
            os.close(descriptor)
        control.send(json.dumps({"pid": pid}).encode())


def end(pid: int) -> int:
    """Kill a child, if it still runs, and its wait status. Once for each: then its process id may be another's."""
    os.kill(pid, signal.SIGKILL)
    return os.waitpid(pid, 0)[1]


def serve(questions: BinaryIO, replies: Any, memory_bytes: int) -> None:
    from r1distill.records import Problem  # noqa: PLC0415 - imported by the nursery
    from r1distill.verify import checks  # noqa: PLC0415

    for line in questions:
        item = json.loads(line)
        problem = Problem(problem="", id="-", kind=item["kind"], answer=item["answer"], choices=item["choices"])
        reply: dict[str, Any]
        try:
            outcome, extracted, detail = checks.check(problem, item["text"])
            reply = {"outcome": outcome, "extracted": cut(extracted), "detail": detail, "retire": False}
        except (MemoryError, RecursionError) as error:
            detail = f"{type(error).__name__} while comparing the answer"
            reply = {"outcome": "error", "extracted": None, "detail": detail, "retire": True}
        except Exception as error:
            detail = f"{type(error).__name__}: {error}"[:500]
            reply = {"outcome": "error", "extracted": None, "detail": detail, "retire": False}
        reply["retire"] |= resident_bytes() > RETIRE_AT * memory_bytes
        send(replies, reply)


def limit(memory_bytes: int) -> None:
    """Cap the address space; no core dumps, and no file can be written."""
    for what, value in (
        (resource.RLIMIT_AS, memory_bytes),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_FSIZE, 0),
    ):
        hard = resource.getrlimit(what)[1]
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(what, (value, value))


def resident_bytes() -> int:
    """Memory in use now. Not ru_maxrss: Linux carries the parent's over exec, and a parent with torch has gigabytes."""
    try:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * resource.getpagesize()
    except OSError:
        return 0


def cut(extracted: str | None) -> str | None:
    """A bounded string that every file format can hold: lone surrogates become question marks."""
    if extracted is None:
        return None
    extracted = extracted.encode(errors="replace").decode()
    return extracted if len(extracted) <= MAX_EXTRACTED_CHARACTERS else extracted[:MAX_EXTRACTED_CHARACTERS] + "…"


def send(channel: BinaryIO | Any, message: dict[str, Any]) -> None:
    data = json.dumps(message).encode() + b"\n"
    while data:
        data = data[channel.write(data) :]


if __name__ == "__main__":
    main()
