"""Kill a generating run with SIGKILL at random moments while its servers fail in every known way, and compare the samples.

    python scripts/check_faults.py [--kills 100] [--problems 1500] [--folder DIR] [--seed 0]

Two servers (tests/faulty_server.py) meet four requests of ten with a fault, again and again, and are killed and started again
themselves. Between two attempts the problems are reordered, others are added and taken away, and the number of requests
in flight changes. At the end the samples have to be those of an undisturbed run, none twice, none missing, and none that
was in the journal may have been asked for again. Ends with 1 where any of that fails.
"""

import argparse
import json
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench.machine import free_port

from r1distill.generate.journal import Journal
from r1distill.records import Trace
from r1distill.store import read_json, read_records

ROOT = Path(__file__).resolve().parents[1]
VARYING = ("seconds",)


class Server:
    """A process on a port of its own, which can be killed and started again."""

    def __init__(self, log: Path, faults: float, delay_s: float = 0.05) -> None:
        self.port, self.log = free_port(), log
        self.options = ["--faults", str(faults), "--delay_s", str(delay_s)]
        self.process: subprocess.Popen[bytes] | None = None
        self.url = f"http://127.0.0.1:{self.port}/v1"

    def start(self) -> None:
        command = [sys.executable, str(ROOT / "tests" / "faulty_server.py"), str(self.port), str(self.log)]
        self.process = subprocess.Popen([*command, *self.options], stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
                return
            except OSError:
                time.sleep(0.05)
        raise RuntimeError("the server did not start")

    def kill(self) -> None:
        if self.process:
            self.process.kill()
            self.process.wait()


@contextmanager
def servers(log: Path, faults: float) -> Iterator[list[Server]]:
    found = [Server(log, faults) for _ in range(2)]
    try:
        for server in found:
            server.start()
        yield found
    finally:
        for server in found:
            server.kill()


def write_problems(path: Path, rows: list[dict[str, str]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def command(folder: Path, found: list[Server], concurrency: int) -> list[str]:
    recipe = folder / "recipe.toml"
    urls = json.dumps([server.url for server in found])
    recipe.write_text(
        f"""run_dir = "{folder / "run"}"
[problems]
path = "{folder / "problems.jsonl"}"
[teacher]
backend = "server"
model = "teacher"
urls = {urls}
timeout_s = 2.0
retries = 30
[generate]
samples = 4
stop_after_correct = 2
logprobs = 0
max_tokens = 4096
concurrency = {concurrency}
[train]
student = "org/student"
[eval]
tasks = ["quickstart"]
"""
    )
    return [sys.executable, "-m", "r1distill", "generate", str(recipe)]


def samples_of(folder: Path) -> list[dict[str, Any]]:
    rows = []
    for trace in read_records(folder / "run" / "traces", Trace):
        row = {name: getattr(trace, name) for name in Trace.__dataclass_fields__ if name not in VARYING}
        rows.append(row)
    return sorted(rows, key=lambda row: (row["problem_id"], row["sample"]))


def seeds_in_journal(folder: Path) -> set[int]:
    """The seeds of all samples that are finished and on disk."""
    if not (folder / "run" / "journal").exists():
        return set()
    with Journal(folder / "run" / "journal") as journal:
        wanted = {problem_id: sha for problem_id, _, sha in journal.finished()}
        return {trace.seed for trace in journal.traces(wanted) if trace.finish_reason != "error"}


def answered(log: Path) -> Counter[int]:
    return Counter(int(line) for line in log.read_text().split()) if log.exists() else Counter()


def undisturbed(folder: Path, rows: list[dict[str, str]]) -> list[dict[str, Any]]:
    folder.mkdir()
    write_problems(folder / "problems.jsonl", rows)
    with servers(folder / "answered", 0.0) as found:
        subprocess.run(command(folder, found, 64), check=True, stdout=subprocess.DEVNULL)
    return samples_of(folder)


def disturbed(
    folder: Path, rows: list[dict[str, str]], kills: int, chance: random.Random
) -> tuple[list[Any], int, int]:
    """(samples, kills that came while samples were being taken, samples asked for again although they were on disk)."""
    folder.mkdir()
    log, again, while_sampling = folder / "answered", 0, 0
    extra = [{"problem": f"What is {n} + 1000?", "answer": str(n + 1000)} for n in range(20)]
    with servers(log, 0.4) as found:
        for kill in range(kills):
            mixed = [*rows, *chance.sample(extra, chance.randint(0, 20))]
            chance.shuffle(mixed)
            write_problems(folder / "problems.jsonl", mixed)
            before, on_disk = answered(log), seeds_in_journal(folder)
            used = found if chance.random() < 0.7 else found[:1]
            process = subprocess.Popen(
                command(folder, used, chance.choice([1, 4, 16, 48])),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            time.sleep(chance.uniform(0.3, 4.0))
            if kill % 7 == 3:
                found[kill % 2].kill()
                found[kill % 2].start()
                time.sleep(chance.uniform(0.0, 1.0))
            process.send_signal(signal.SIGKILL)
            process.wait()
            now = answered(log)
            while_sampling += now.total() > before.total()
            again += sum(now[seed] > before[seed] for seed in on_disk)
        write_problems(folder / "problems.jsonl", rows)
        subprocess.run(command(folder, found, 64), check=True, stdout=subprocess.DEVNULL)
    return samples_of(folder), while_sampling, again


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--problems", type=int, default=1500)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    folder = options.folder or Path(tempfile.mkdtemp(prefix="check-faults-"))
    folder.mkdir(parents=True, exist_ok=True)
    rows = [{"problem": f"What is {n} + 7?", "answer": str(n + 7)} for n in range(options.problems)]
    started = time.monotonic()
    wanted = undisturbed(folder / "undisturbed", rows)
    found, while_sampling, again = disturbed(folder / "disturbed", rows, options.kills, random.Random(options.seed))
    seconds = time.monotonic() - started
    identities = Counter((row["problem_id"], row["sample"]) for row in found)
    twice = sum(count - 1 for count in identities.values())
    missing = len({(row["problem_id"], row["sample"]) for row in wanted} - identities.keys())
    counts = [read_json(folder / name / "run/stages/generate.json")["counts"] for name in ("undisturbed", "disturbed")]
    files = len(list((folder / "disturbed/run/journal").glob("*.sqlite")))
    print(
        f"{options.kills} kills, {while_sampling} of them while samples were taken, {files} journal files, {seconds:.0f} s\n"
        f"{len(wanted)} samples undisturbed, {len(found)} disturbed: {missing} missing, {twice} twice, "
        f"{sum(one != two for one, two in zip(wanted, found, strict=False))} different, "
        f"{again} asked for again although on disk; failed {counts[1]['failed']}"
    )
    is_same = wanted == found and not again and counts[0]["samples"] == counts[1]["samples"]
    print("the same" if is_same else f"NOT the same; see {folder}")
    if is_same and options.folder is None:
        shutil.rmtree(folder)
    sys.exit(0 if is_same else 1)


if __name__ == "__main__":
    main()
