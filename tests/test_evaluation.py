"""The stage `eval` over real HTTP: several models and benchmarks, again, killed, with more samples, and looked at again."""

import hashlib
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from scripted_server import Received, Reply, ScriptedServer, chat
from small_run import ROOT, jsonl, r1distill, toml

from r1distill.errors import UserError
from r1distill.evaluate.again import bands, regrade
from r1distill.evaluate.benchmarks import lengths_so_far
from r1distill.evaluate.stage import eval_stage, more_samples
from r1distill.recipe import load_recipe
from r1distill.records import Trace, Verdict
from r1distill.run import Clock, Run
from r1distill.store import read_json, read_records, write_records

NOT_THE_SAME = ("seconds", "tokens_per_second", "conditions")


class Pupil(ScriptedServer):
    """Adds numbers, right as often as `skill` says; the same seed and question have the same reply."""

    def __init__(self, skill: float, name: str = "pupil", delay_s: float = 0.0) -> None:
        super().__init__(models=(name,))
        self.skill, self.delay_s = skill, delay_s

    def reply_to(self, received: Received) -> Reply:
        super().reply_to(received)
        question = received.body["messages"][-2]["content"]
        found = re.search(r"What is (\d+) \+ (\d+)\?", question)
        assert found
        chance = int(hashlib.sha256(f"{question} {received.body['seed']}".encode()).hexdigest(), 16) % 1000 / 1000
        total = int(found[1]) + int(found[2]) + (chance >= self.skill)
        reason = "length" if chance > 0.97 else "stop"
        body = chat(f"{found[1]} and {found[2]}\n</think>\n\n\\boxed{{{total}}}", finish_reason=reason)
        body["usage"]["completion_tokens"] = 10 + int(found[1])
        return Reply(body=body, delay_s=self.delay_s)


def task_file(folder: Path, name: str, count: int, more: str = "") -> str:
    rows = [
        {"problem": f"What is {n} + {len(name)}?", "answer": str(n + len(name)), "level": n % 2} for n in range(count)
    ]
    jsonl(folder / f"{name}.jsonl", rows)
    text = (
        f'name = "{name}"\ntitle = "Sums of {name}"\nlicense = "MIT"\nsamples = 4\nmax_tokens = 200\nquestions = {count}\n'
        f'[data]\npath = "{folder / name}.jsonl"\n{more}'
    )
    (folder / f"{name}.toml").write_text(text)
    return str(folder / f"{name}.toml")


def recipe_of(folder: Path, run: str, tasks: list[str], servers: dict[str, ScriptedServer], **settings: Any) -> Path:
    """An evaluation and nothing else."""
    table = {"tasks": tasks, "models": list(servers), "concurrency": 4, **settings}
    lines = [
        f"run_dir = {toml(str(folder / run))}",
        "[eval]",
        *(f"{key} = {toml(each)}" for key, each in table.items()),
    ]
    for name, server in servers.items():
        models = server.models.body["data"]
        lines += [f"[eval.candidates.{name}]", f"model = {toml(models[0]['id'])}", f"urls = {toml([server.url])}"]
    path = folder / f"{run}.toml"
    path.write_text("\n".join(lines) + "\n")
    return path


def evaluated(path: Path, *overrides: str) -> tuple[Run, dict[str, Any]]:
    run = Run(load_recipe(path, list(overrides)))
    return run, eval_stage(run, Clock(run, "eval"))


def summary_of(run: Run, task: str, model: str) -> dict[str, Any]:
    return read_json(run.evaluation / task / model / "summary.json")


def lasting(summary: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in summary.items() if key not in NOT_THE_SAME}


def test_two_models_on_two_benchmarks_are_scored_by_a_recipe_that_only_evaluates(tmp_path: Path) -> None:
    tasks = [task_file(tmp_path, "ab", 7), task_file(tmp_path, "abc", 5)]
    with Pupil(0.5) as weak, Pupil(0.9, "better") as strong:
        path = recipe_of(tmp_path, "run", tasks, {"weak": weak, "strong": strong})
        result = r1distill("eval", path)
        assert result.returncode == 0, result.stdout + result.stderr
        assert [line[2:6] for line in result.stdout.splitlines() if line.startswith("▶")] == ["eval"]
        assert len(weak.received) == len(strong.received) == (7 + 5) * 4
        again = r1distill("eval", path)
        assert "done before" in again.stdout
        assert len(weak.received) == (7 + 5) * 4
    run = Run(load_recipe(path))
    for task, count in (("ab", 7), ("abc", 5)):
        of_task = read_json(run.evaluation / task / "summary.json")
        assert list(of_task["models"]) == ["weak", "strong"]
        for name in ("weak", "strong"):
            summary = summary_of(run, task, name)
            assert of_task["models"][name] == summary
            traces = list(read_records(run.evaluation / task / name / "traces", Trace))
            verdicts = list(read_records(run.evaluation / task / name / "verdicts.parquet", Verdict))
            right = [
                verdict.outcome == "correct" and trace.finish_reason == "stop"
                for trace, verdict in zip(traces, verdicts, strict=True)
            ]
            assert len(right) == count * 4
            assert summary["pass@1"] == pytest.approx(sum(right) / len(right))
            assert summary["truncated"] == sum(trace.finish_reason == "length" for trace in traces) / len(traces)
            assert (summary["n_problems"], summary["samples"]) == (count, 4)
            assert summary["protocol"]["name"] == "deepseek-r1"
            assert set(summary["pass@k"]) == set(summary["cons@k"]) == {"1", "2", "4"}
            assert set(summary["groups"]["level"]) == {"0", "1"}
            conditions = summary["conditions"]
            assert conditions["engine"]["name"] == "server"
            assert conditions["prompt_sha256"] == summary["prompt_sha256"]
            assert len(conditions["data_sha256"]) == 64
    record = read_json(run.record_path("eval"))["counts"]
    assert record["accuracy"]["strong"] > record["accuracy"]["weak"]


def test_more_samples_extend_those_that_are_there_and_other_questions_are_the_same_run(tmp_path: Path) -> None:
    tasks = [task_file(tmp_path, "ab", 6)]
    with Pupil(0.6) as pupil, Pupil(0.6) as other:
        path = recipe_of(tmp_path, "run", tasks, {"pupil": pupil})
        run, _ = evaluated(path, "eval.samples=2")
        first = {
            (each.problem_id, each.sample): each.text
            for each in read_records(run.evaluation / "ab/pupil/traces", Trace)
        }
        evaluated(path, "eval.samples=6")
        assert len(pupil.received) == 6 * 6
        found = {
            (each.problem_id, each.sample): each.text
            for each in read_records(run.evaluation / "ab/pupil/traces", Trace)
        }
        assert len(found) == 36
        assert found.items() >= first.items()
        at_once, _ = evaluated(recipe_of(tmp_path, "other", tasks, {"pupil": other}), "eval.samples=6")
    assert lasting(summary_of(at_once, "ab", "pupil")) == lasting(summary_of(run, "ab", "pupil"))


@pytest.mark.parametrize("kills", [2])
def test_a_killed_evaluation_ends_with_the_summary_of_an_undisturbed_one(tmp_path: Path, kills: int) -> None:
    tasks = [task_file(tmp_path, "ab", 10), task_file(tmp_path, "abc", 10)]
    with Pupil(0.6, delay_s=0.02) as pupil, Pupil(0.6) as other:
        path = recipe_of(tmp_path, "run", tasks, {"pupil": pupil})
        for kill in range(1, kills + 1):
            command = [sys.executable, "-m", "r1distill", "eval", str(path)]
            environment = {**os.environ, "PYTHONPATH": str(ROOT)}
            process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment)
            while len(pupil.received) < 20 * kill:
                assert process.poll() is None
                time.sleep(0.005)
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
        assert r1distill("eval", path).returncode == 0
        assert len(pupil.received) <= 80 + 4 * kills  # only what was in flight is asked again
        whole, _ = evaluated(recipe_of(tmp_path, "whole", tasks, {"pupil": other}))
    killed = Run(load_recipe(path))
    for task in ("ab", "abc"):
        assert lasting(summary_of(killed, task, "pupil")) == lasting(summary_of(whole, task, "pupil"))


def test_an_early_end_takes_no_more_samples_of_what_is_known_well_enough(tmp_path: Path) -> None:
    tasks = [task_file(tmp_path, "ab", 12), task_file(tmp_path, "abc", 12)]
    with Pupil(1.0) as sure:
        run, _ = evaluated(
            recipe_of(tmp_path, "run", tasks, {"sure": sure}),
            "eval.samples=64",
            "eval.enough=0.05",
            "eval.max_tokens=100",
        )
    taken = {task: summary_of(run, task, "sure")["samples"] for task in ("ab", "abc")}
    assert len(sure.received) == 12 * sum(taken.values())
    for task, samples in taken.items():
        low, high = summary_of(run, task, "sure")["ci95_samples"]
        assert samples < 64
        assert (high - low) / 2 <= 0.05


def test_what_comes_after_a_round() -> None:
    def summary(half: float) -> dict[str, Any]:
        return {"ci95_samples": [0.5 - half, 0.5 + half]}

    assert more_samples(4, 64, summary(0.2), 0.1) == 8
    assert more_samples(48, 64, summary(0.2), 0.1) == 64
    assert more_samples(4, 64, summary(0.05), 0.1) is None
    assert more_samples(64, 64, summary(0.2), 0.1) is None
    assert more_samples(4, 4, summary(0.2), None) is None


def test_the_longest_replies_of_the_model_before_are_asked_of_the_next_one_first(tmp_path: Path) -> None:
    tasks = [task_file(tmp_path, "ab", 6), task_file(tmp_path, "abc", 6)]
    with Pupil(1.0) as first, Pupil(1.0, "second") as second:
        path = recipe_of(tmp_path, "run", tasks, {"first": first, "second": second}, concurrency=1, samples=1)
        run, _ = evaluated(path)
    lengths = lengths_so_far(run.evaluation / "ab")
    assert sorted(lengths.values()) == [10, 11, 12, 13, 14, 15]
    asked = [received.body["messages"][0]["content"] for received in second.received]
    numbers = [int(re.findall(r"What is (\d+) \+", question)[0]) for question in asked]
    assert numbers == sorted(numbers, reverse=True)  # of both benchmarks together


def test_judging_again_gives_the_same_numbers_to_the_digit_and_mends_what_was_changed(tmp_path: Path) -> None:
    with Pupil(0.6) as pupil:
        path = recipe_of(tmp_path, "run", [task_file(tmp_path, "ab", 9)], {"pupil": pupil})
        run, _ = evaluated(path)
    folder = run.evaluation / "ab" / "pupil"
    before = read_json(folder / "summary.json")
    [same] = regrade(run)
    assert read_json(folder / "summary.json") == before
    assert read_json(run.evaluation / "ab" / "summary.json")["models"]["pupil"] == before
    assert (same.before, same.now, same.changed) == (before["pass@1"], before["pass@1"], Counter())
    verdicts = list(read_records(folder / "verdicts.parquet", Verdict))
    forged = [Verdict(each.problem_id, each.sample, "no_answer") for each in verdicts]
    write_records(folder / "verdicts.parquet", Verdict, forged)
    result = r1distill("eval", path, "--regrade")
    assert result.returncode == 0, result.stderr
    assert "no_answer → correct" in result.stdout
    assert list(read_records(folder / "verdicts.parquet", Verdict)) == verdicts
    assert read_json(folder / "summary.json") == before


def test_before_anything_was_evaluated_there_is_nothing_to_judge_again(tmp_path: Path) -> None:
    with Pupil(1.0) as pupil:
        run = Run(load_recipe(recipe_of(tmp_path, "run", [task_file(tmp_path, "ab", 2)], {"pupil": pupil})))
    for look in (regrade, bands):
        with pytest.raises(UserError):
            look(run)


@pytest.mark.parametrize(("skill", "code", "word"), [(0.6, 0, "inside"), (0.05, 1, "OUTSIDE")])
def test_a_known_model_is_told_to_be_inside_or_outside_of_its_band(
    tmp_path: Path, skill: float, code: int, word: str
) -> None:
    published = '[[published]]\nsource = "a paper"\nsamples = 4\n[published.scores]\n"R1-Known" = 58.0\n'
    tasks = [task_file(tmp_path, "ab", 30, published)]
    with Pupil(skill, "org/R1-Known") as pupil:
        result = r1distill("eval", recipe_of(tmp_path, "run", tasks, {"known": pupil}), "--verify-band")
    assert result.returncode == code, result.stdout + result.stderr
    assert word in result.stdout
    assert "a paper" in result.stdout


def protocol_file(folder: Path, **settings: str) -> str:
    told = {"name": "mine", "title": "t", "source": "s", **settings}
    lines = [
        *(f"{key} = {toml(text)}" for key, text in told.items()),
        "version = 1",
        "temperature = 0.6",
        "top_p = 0.9",
    ]
    (folder / "mine.toml").write_text("\n".join([*lines, "max_tokens = 99", ""]))
    return str(folder / "mine.toml")


def test_a_text_without_a_chat_is_refused_behind_a_url(tmp_path: Path) -> None:
    protocol = protocol_file(tmp_path, template="raw")
    with Pupil(1.0) as pupil:
        path = recipe_of(tmp_path, "run", [task_file(tmp_path, "ab", 2)], {"pupil": pupil}, protocol=protocol)
        with pytest.raises(UserError, match=r'asked with template = "raw" and pupil is behind a URL'):
            evaluated(path)


def test_a_system_message_of_the_protocol_is_sent_and_is_another_run(tmp_path: Path) -> None:
    with Pupil(1.0) as pupil:
        protocol, tasks = protocol_file(tmp_path, system="You add."), [task_file(tmp_path, "ab", 2)]
        path = recipe_of(tmp_path, "run", tasks, {"pupil": pupil}, protocol=protocol, samples=1)
        run, _ = evaluated(path)
        first = summary_of(run, "ab", "pupil")["protocol"]["sha256"]
        assert {received.body["messages"][0]["content"] for received in pupil.received} == {"You add."}
        protocol_file(tmp_path, system="You only add.")
        evaluated(path)
    assert len(pupil.received) == 4
    assert summary_of(run, "ab", "pupil")["protocol"]["sha256"] != first
