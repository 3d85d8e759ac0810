"""What a person, a file and a Prometheus are told of a run."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from scripted_server import Reply, ScriptedServer, chat
from small_run import jsonl, recipe_file

from r1distill.errors import UserError
from r1distill.generate.journal import Journal
from r1distill.generate.meter import Meter, metrics_server
from r1distill.generate.sampler import Taken
from r1distill.records import Trace

STOPPED = Trace("p", 0, "m", "sha", 1, "four", None, "four", "stop", n_prompt_tokens=10, n_tokens=100)


def test_the_numbers_add_up() -> None:
    meter = Meter("generate", usd_per_million_tokens=2.0)
    meter.count(Taken(STOPPED, "correct", 0))
    meter.count(Taken(STOPPED, "incorrect", 0))
    meter.count(Taken(dataclasses.replace(STOPPED, n_tokens=400, continued_from=100), "correct", 0))
    meter.count(Taken(dataclasses.replace(STOPPED, finish_reason="error", n_tokens=0, n_prompt_tokens=0), None, 0))
    numbers = meter.numbers()
    assert (numbers["traces"], numbers["failed"], numbers["correct"]) == (4, 1, 2)
    assert (numbers["tokens_in"], numbers["tokens_out"]) == (30, 500)  # what was there before is not sampled again
    assert numbers["tokens_per_kept_trace"] == 250
    assert numbers["usd"] == 0.001
    assert "2 correct, 500 tokens" in meter.note()


def test_where_nothing_is_judged_those_that_ended_by_themselves_are_kept() -> None:
    meter = Meter("eval")
    meter.count(Taken(STOPPED, None, 0))
    meter.count(Taken(dataclasses.replace(STOPPED, finish_reason="length"), None, 0))
    assert meter.numbers()["finished"] == 1
    assert "correct" not in meter.numbers()


def test_the_file_has_a_json_object_a_line(tmp_path: Path) -> None:
    meter = Meter("generate", tmp_path / "generate.jsonl")
    for _ in range(2):
        meter.count(Taken(STOPPED, None, 0))
        meter.write_line()
    lines = [json.loads(line) for line in (tmp_path / "generate.jsonl").read_text().splitlines()]
    assert [line["traces"] for line in lines] == [1, 2]
    assert {"time", "seconds", "stage", "tokens_out_per_second", "requests_running", "requests_waiting"} <= lines[
        0
    ].keys()


def test_the_metrics_are_those_of_the_line() -> None:
    meter = Meter("generate")
    meter.count(Taken(STOPPED, "correct", 0))
    with metrics_server(18477, [meter]):
        text = urllib.request.urlopen("http://127.0.0.1:18477/metrics", timeout=5).read().decode()
        assert 'r1distill_tokens_out{stage="generate"} 100.0' in text
        assert 'r1distill_correct{stage="generate"} 1.0' in text
        with pytest.raises(UserError, match=r"metrics_port = 18477: cannot be opened"), metrics_server(18477, []):
            pass
    with metrics_server(18477, []):  # the port is free again
        pass


@pytest.fixture
def memory_path(tmp_path: Path) -> Iterator[Path]:
    """A folder in memory where there is one: the journal's last commit must not wait for what other tests write to the disk."""
    memory = Path("/dev/shm")
    if not os.access(memory, os.W_OK):
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir=memory) as folder:
        yield Path(folder)


def test_ctrl_c_ends_within_five_seconds_keeps_what_was_sampled_and_says_how_to_go_on(memory_path: Path) -> None:
    jsonl(memory_path / "problems.jsonl", [{"problem": f"What is {n} + 4?", "answer": str(n + 4)} for n in range(200)])
    generate = {"samples": 2, "concurrency": 8, "logprobs": 0}
    with ScriptedServer(always=Reply(body=chat(r"</think>\boxed{4}"), delay_s=0.1)) as server:
        recipe = recipe_file(memory_path, teacher={"urls": [server.url]}, generate=generate)
        process = subprocess.Popen(
            [sys.executable, "-m", "r1distill", "generate", str(recipe)],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
        )  # fmt: skip
        while len(server.received) < 30:
            assert process.poll() is None
            time.sleep(0.01)
        started = time.monotonic()
        os.killpg(process.pid, signal.SIGINT)
        _, errors = process.communicate(timeout=30)
        assert time.monotonic() - started < 5
        asked = len(server.received)
    assert process.returncode == 130
    assert "stopped; the same command continues from here" in errors
    assert "Traceback" not in errors
    with Journal(memory_path / "run" / "journal") as journal:
        assert asked - 16 <= len(journal.finished()) <= asked
