"""The command line killed with SIGKILL while it samples a real server, and started again."""

import dataclasses
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from scripted_server import Received, Reply, ScriptedServer, chat
from small_run import jsonl, r1distill, recipe_file

from r1distill.records import Trace
from r1distill.store import read_json, read_records

PROBLEMS = [{"problem": f"What is {a} + 4?", "answer": str(a + 4)} for a in range(30)]
VARYING = ("seconds",)


class SeededServer(ScriptedServer):
    """Answers as a model at a temperature would: what it says, and whether it is right, depends on the seed alone."""

    def reply_to(self, received: Received) -> Reply:
        with self.lock:
            self.received.append(received)
        seed = received.body["seed"]
        number = int(re.search(r"What is (\d+)", received.body["messages"][0]["content"])[1])  # type: ignore[index]
        answer = number + 4 + (seed % 3 == 0)
        return Reply(body=chat(f"{seed}</think>\\boxed{{{answer}}}"), delay_s=0.02)


def recipe(folder: Path, server: ScriptedServer) -> Path:
    folder.mkdir()
    jsonl(folder / "problems.jsonl", PROBLEMS)
    generate: dict[str, Any] = {"samples": 4, "stop_after_correct": 2, "concurrency": 4, "logprobs": 0}
    return recipe_file(folder, teacher={"urls": [server.url]}, generate=generate)


def traces(folder: Path) -> list[dict[str, Any]]:
    rows = [dataclasses.asdict(trace) for trace in read_records(folder / "run" / "traces", Trace)]
    return [{key: value for key, value in row.items() if key not in VARYING} for row in rows]


def test_generation_killed_three_times_ends_with_the_same_traces_and_repeats_none(tmp_path: Path) -> None:
    with SeededServer() as server:
        assert r1distill("generate", recipe(tmp_path / "whole", server)).returncode == 0
        requests = len(server.received)
    with SeededServer() as server:
        path = recipe(tmp_path / "killed", server)
        for target in (15, 35, 60):
            command = [sys.executable, "-m", "r1distill", "generate", str(path)]
            process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            while len(server.received) < target:
                assert process.poll() is None
                time.sleep(0.001)
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
        last = r1distill("generate", path)
        assert last.returncode == 0, last.stderr
        assert "finished samples found in the journal" in last.stdout
        # a kill costs no more than what was under way, and what had been answered in the same instant
        assert requests <= len(server.received) <= requests + 3 * 2 * 4
    assert traces(tmp_path / "killed") == traces(tmp_path / "whole")
    counts = [read_json(tmp_path / name / "run" / "stages" / "generate.json")["counts"] for name in ("killed", "whole")]
    assert {**counts[0], "new_tokens": 0} == {**counts[1], "new_tokens": 0}
    assert counts[0]["samples_spared"] > 0
