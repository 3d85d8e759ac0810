"""Two Ray nodes on this machine, a copy of the teacher on each, and one node killed in the middle: do all traces arrive?

    python scripts/check_two_nodes.py [RECIPE] [section.key=value …]      # default: quickstart, 240 traces; needs 12 GB

Every process of the second node gets SIGKILL once a third of the traces is there. Prints what came of it; ends with 1
where a trace is missing. The rest of what it started is ended too, however it ends itself.
"""

import json
import os
import re
import secrets
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from bench.machine import free_port
from check_kill import journalled

MARK = "R1DISTILL_CHECK"  # in the environment of all that is started here
WAIT_S = 600.0
DEFAULTS = ["problems.limit=120", "generate.samples=2", "generate.stop_after_correct=0", "generate.concurrency=32"]
BIN = Path(sys.executable).parent
ACCESS = re.compile(r"/v1/chat/completions.*? (\d{3}) ")


def main() -> None:
    recipe = sys.argv[1] if len(sys.argv) > 1 else "quickstart"
    token = secrets.token_hex(8)
    with tempfile.TemporaryDirectory(prefix="r1-", ignore_cleanup_errors=True) as name:  # short: sockets are in it
        try:
            sys.exit(check(Path(name), token, recipe, sys.argv[2:]))
        finally:
            kill_all(token)


def check(folder: Path, token: str, recipe: str, overrides: list[str]) -> int:
    gcs, port = free_port(), free_port()
    ray = ["--num-cpus=1", "--object-store-memory=100000000", "--disable-usage-stats"]
    head = [f"--port={gcs}", f"--temp-dir={folder}/ray", "--include-dashboard=false"]
    subprocess.run([BIN / "ray", "start", "--head", *head, *ray], env=environment(token, "head"), check=True, stdout=-3)
    join = [BIN / "ray", "start", f"--address=127.0.0.1:{gcs}", *ray]
    subprocess.run(join, env=environment(token, "second"), check=True, stdout=-3)

    run = folder / "run"
    common = [recipe, f"run_dir={run}", *DEFAULTS, *overrides]
    settings = [f"serve.ray=127.0.0.1:{gcs}", "serve.replicas=2", f"serve.port={port}"]
    started = time.monotonic()
    served = folder / "serve.txt"
    with served.open("w") as output:
        serve = r1distill(token, "serve", *common, *settings, stdout=output)
    wait_for(lambda: "serving " in served.read_text() or serve.poll() is not None)
    if serve.poll() is not None:
        print(served.read_text())
        return 1
    print(f"two copies on two nodes answer after {time.monotonic() - started:.0f} s", flush=True)

    wanted = int(setting(common, "problems.limit")) * int(setting(common, "generate.samples"))
    begun = time.monotonic()
    urls = f'teacher.urls=["http://127.0.0.1:{port}/v1"]'
    generate = r1distill(token, "generate", *common, "teacher.backend=server", urls)
    wait_for(lambda: journalled(run / "journal") >= wanted / 3 or generate.poll() is not None)
    before, killed = journalled(run / "journal"), kill_all(token, "second")
    died = time.monotonic()
    print(
        f"killed all {killed} processes of the second node after {died - begun:.0f} s and {before} traces", flush=True
    )
    pause = longest_pause(run / "journal", wanted, generate, died)
    code = generate.wait(WAIT_S)
    seconds = time.monotonic() - begun

    record = json.loads((run / "stages" / "generate.json").read_text())
    counts = record.get("counts", {})
    answers = [status for log in folder.glob("ray/session_2*/logs/serve/proxy_*.log") for status in statuses(log)]
    refused = sum(status != "200" for status in answers)
    serve.terminate()
    stopping = time.monotonic()
    serve_code = serve.wait(60)
    print("\n".join(line for line in served.read_text().splitlines() if "copies answer" in line))
    print(f"{counts.get('samples', 0)} of {wanted} traces, {counts.get('failed', 0)} failed, after {seconds:.0f} s")
    print(f"{len(answers)} requests, of which {refused} failed and were sent again")
    print(f"the longest wait for a trace after the kill: {pause:.1f} s")
    print(f"generate ended with {code}, serve with {serve_code} {time.monotonic() - stopping:.1f} s after SIGTERM")
    return 0 if code == 0 and counts.get("samples") == wanted and not counts.get("failed") else 1


def longest_pause(journal: Path, wanted: int, generate: "subprocess.Popen[bytes]", since: float) -> float:
    """The most seconds without a trace from `since` on, until all `wanted` ones are there."""
    found, longest = journalled(journal), 0.0
    while found < wanted and generate.poll() is None and time.monotonic() - since < WAIT_S:
        if (now := journalled(journal)) > found:
            found, since = now, time.monotonic()
        longest = max(longest, time.monotonic() - since)
        time.sleep(0.1)
    return longest


def environment(token: str, node: str) -> dict[str, str]:
    settings = {"OMP_NUM_THREADS": "1", "VLLM_CPU_KVCACHE_SPACE": "1", "HF_HUB_OFFLINE": "1"}
    ray = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token * 4}  # as generate.slurm
    return {**os.environ, **settings, **ray, MARK: f"{token}-{node}"}


def r1distill(token: str, *arguments: str, stdout: object = None) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-m", "r1distill", *arguments]
    return subprocess.Popen(command, env=environment(token, "client"), stdout=stdout)  # type: ignore[arg-type]


def setting(words: list[str], key: str) -> str:
    return [word.partition("=")[2] for word in words if word.startswith(f"{key}=")][-1]


def statuses(log: Path) -> list[str]:
    return ACCESS.findall(log.read_text(errors="replace"))


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT_S
    while not condition():
        if time.monotonic() > deadline:
            raise SystemExit(f"check_two_nodes: waited {WAIT_S:g} s in vain")
        time.sleep(0.1)


def kill_all(token: str, node: str = "") -> int:
    """SIGKILL for every process of a node, or of all of them; returns how many there were."""
    found = family(f"{MARK}={token}-{node}".encode())
    for pid in found:
        with suppress(OSError):
            os.kill(pid, signal.SIGKILL)
    return len(found)


def family(mark: bytes) -> set[int]:
    """The processes with `mark` in their environment, and all below them: Ray's and vLLM's write titles over theirs."""
    found, parents = set(), {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            with suppress(OSError):
                parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                if mark in (entry / "environ").read_bytes():
                    found.add(int(entry.name))
    while below := {pid for pid, parent in parents.items() if parent in found} - found:
        found |= below
    return found


if __name__ == "__main__":
    main()
