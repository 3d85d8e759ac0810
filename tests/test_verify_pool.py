"""The pool against hostile answers, killed workers and dead parents: real processes, no hooks."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hostile_answers import ANSWERS

import r1distill.verify
from r1distill.errors import UserError
from r1distill.records import Problem, Verdict
from r1distill.verify import VerifierPool
from r1distill.verify.pool import LOOK_AHEAD
from r1distill.verify.rescore import rescore_file

ROOT = Path(__file__).resolve().parents[1]
UNGUESSED = Problem("What is 7 to the ninth?", answer="40353607")
SEVEN = Problem("What is 3 + 4?", answer="7")
FOR_A_WORKER = r"\boxed{\sqrt{49}}"  # right, and nothing the calling process decides itself
TOWER = r"\boxed{10^{10^{10}}}"  # runs for ever in sympy, without any hook


@pytest.fixture(scope="module")
def pool() -> Iterator[VerifierPool]:
    with VerifierPool(workers=2, timeout_s=1.0) as pool:
        yield pool


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


def wait_until(condition, seconds: float = 10.0) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def pids(pool: VerifierPool) -> list[int]:
    return [worker.pid for worker in list(pool.alive)]


def test_a_verdict_names_problem_sample_answer_and_verifier(pool: VerifierPool) -> None:
    verdict = pool.verify(SEVEN, rf"<think>…</think> It is {FOR_A_WORKER}.", sample=3)
    assert verdict == Verdict(SEVEN.id, 3, "correct", r"\sqrt{49}", "equal", verdict.verifier)
    assert verdict.verifier.startswith("math-verify")


@pytest.mark.parametrize("name", ANSWERS)
def test_a_hostile_answer_costs_at_most_the_deadline_and_nothing_else(
    pool: VerifierPool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    pool.verify(SEVEN, FOR_A_WORKER)  # the start of a worker is not what is timed
    answer = ANSWERS[name].replace("PLACE", str(tmp_path / "place"))
    for reply in (rf"\boxed{{{answer}}}", f"The answer is {answer}", answer):
        verdict, seconds = pool.verify_timed(UNGUESSED, reply)
        assert verdict.outcome != "correct"
        assert seconds < pool.timeout_s + 0.5
    assert list(tmp_path.iterdir()) == []
    assert pool.verify(SEVEN, FOR_A_WORKER).outcome == "correct"


def test_at_least_forty_answers_are_hostile() -> None:
    assert len(ANSWERS) >= 40


def test_the_timeout_kills_the_worker_and_says_so() -> None:
    with VerifierPool(workers=1, timeout_s=0.5) as pool:
        assert pool.verify(SEVEN, FOR_A_WORKER).outcome == "correct"
        [pid] = pids(pool)
        verdict, seconds = pool.verify_timed(SEVEN, TOWER)
        assert (verdict.outcome, verdict.detail) == ("timeout", "no verdict within 0.5 s")
        assert 0.5 <= seconds < 1.0
        assert not Path(f"/proc/{pid}").exists()  # reaped as well
        assert pool.verify(SEVEN, FOR_A_WORKER).outcome == "correct"


@pytest.mark.parametrize(
    "answer",
    [
        "__import__('os').mknod('PLACE')",
        "open('PLACE','w')",
        r"\text{__import__('pathlib').Path('PLACE').touch()}",
        "exec(\"open('PLACE','w')\")",
        "$(touch PLACE)",
        "`touch PLACE`",
        "lambda: open('PLACE','w')",
        "(1).__class__.__base__.__subclasses__()",
    ],
)
@pytest.mark.parametrize("as_gold", [False, True])
def test_code_in_an_answer_is_not_run(pool: VerifierPool, tmp_path: Path, answer: str, as_gold: bool) -> None:
    place = tmp_path / "created"
    code = answer.replace("PLACE", str(place))
    gold, reply = (code, FOR_A_WORKER) if as_gold else ("7", rf"\boxed{{{code}}}")
    assert pool.verify(Problem("q", answer=gold), reply).outcome == "incorrect"
    assert not place.exists()


def test_a_worker_killed_while_it_judges_is_an_error_and_is_replaced() -> None:
    with VerifierPool(workers=1, timeout_s=30) as pool, ThreadPoolExecutor(1) as thread:
        pool.verify(SEVEN, FOR_A_WORKER)
        [pid] = pids(pool)
        waiting = thread.submit(pool.verify, SEVEN, TOWER)
        time.sleep(0.3)
        os.kill(pid, signal.SIGKILL)
        verdict = waiting.result(5)
        assert (verdict.outcome, verdict.detail) == ("error", "the worker was killed by signal 9")
        assert pool.verify(SEVEN, FOR_A_WORKER).outcome == "correct"


def test_a_worker_killed_while_idle_costs_no_item() -> None:
    with VerifierPool(workers=1, timeout_s=5) as pool:
        pool.verify(SEVEN, FOR_A_WORKER)
        [pid] = pids(pool)
        os.kill(pid, signal.SIGKILL)
        assert wait_until(lambda: not is_running(pid))
        assert pool.verify(SEVEN, FOR_A_WORKER).outcome == "correct"


def test_a_stopped_worker_cannot_block_the_parent_even_with_a_full_pipe() -> None:
    with VerifierPool(workers=1, timeout_s=0.5) as pool:
        pool.verify(SEVEN, FOR_A_WORKER)
        os.kill(pids(pool)[0], signal.SIGSTOP)
        assert pool.verify(SEVEN, "x" * 1_000_000).outcome == "timeout"
        assert pool.verify(SEVEN, FOR_A_WORKER).outcome == "correct"


def test_the_memory_of_a_worker_is_limited() -> None:
    with VerifierPool(workers=1, timeout_s=20, memory_gb=0.4) as pool:
        pool.verify(SEVEN, FOR_A_WORKER)
        limits = Path(f"/proc/{pids(pool)[0]}/limits").read_text()
        assert f"Max address space         {int(0.4 * 2**30)}" in limits
        assert "Max file size             0 " in limits
        verdict = pool.verify(SEVEN, "<think>" + "x" * 120_000_000 + r"</think>\boxed{\sqrt{49}}")
        assert (verdict.outcome, verdict.extracted) == ("error", None), verdict
        assert pool.verify(SEVEN, FOR_A_WORKER).outcome == "correct"


def test_many_threads_share_few_workers_and_each_gets_its_own_verdict(pool: VerifierPool) -> None:
    def judge(number: int) -> Verdict:
        return pool.verify(Problem("q", answer=str(number), id=f"p{number}"), rf"\boxed{{{number}}}", number)

    with ThreadPoolExecutor(32) as threads:
        verdicts = list(threads.map(judge, range(300)))
    assert all(
        v.outcome == "correct" and v.problem_id == f"p{v.sample}" and v.extracted == str(v.sample) for v in verdicts
    )
    assert [verdict.sample for verdict in verdicts] == list(range(300))
    assert len(pids(pool)) <= 2


def test_workers_outlive_the_threads_that_first_used_them() -> None:
    with VerifierPool(workers=1, timeout_s=5) as pool:
        before = threading.Thread(target=pool.verify, args=(SEVEN, FOR_A_WORKER))
        before.start()
        before.join()
        time.sleep(0.2)
        [pid] = pids(pool)
        assert is_running(pid)
        assert pool.verify(SEVEN, FOR_A_WORKER).outcome == "correct"
        assert pids(pool) == [pid]


def test_verify_many_keeps_the_order_and_reads_only_a_little_ahead(pool: VerifierPool) -> None:
    read = 0

    def items() -> Iterator[tuple[Problem, int, str]]:
        nonlocal read
        for sample in range(200):
            read += 1
            yield SEVEN, sample, TOWER if sample == 3 else rf"\boxed{{{sample}}}"

    farthest = 0
    verdicts = []
    for verdict in pool.verify_many(items()):
        verdicts.append(verdict)
        farthest = max(farthest, read - len(verdicts))
    assert [verdict.sample for verdict in verdicts] == list(range(200))
    assert [verdict.sample for verdict in verdicts if verdict.outcome == "correct"] == [7]
    assert verdicts[3].outcome == "timeout"
    assert farthest <= LOOK_AHEAD * 2


def test_leaving_verify_many_early_leaves_a_usable_pool(pool: VerifierPool) -> None:
    verdicts = pool.verify_many((SEVEN, sample, FOR_A_WORKER) for sample in range(1000))
    assert next(verdicts).outcome == "correct"
    verdicts.close()  # type: ignore[attr-defined]
    assert pool.verify(SEVEN, FOR_A_WORKER).outcome == "correct"


def test_no_process_is_left_after_an_exception() -> None:
    left: list[int] = []
    with pytest.raises(ZeroDivisionError), VerifierPool(workers=2, timeout_s=5) as pool:  # noqa: PT012
        list(pool.verify_many([(SEVEN, 0, FOR_A_WORKER)] * 8))
        left += pids(pool)
        assert left
        raise ZeroDivisionError
    assert not any(Path(f"/proc/{pid}").exists() for pid in left)


def test_closing_ends_the_threads_that_wait_and_every_worker() -> None:
    pool = VerifierPool(workers=1, timeout_s=60)
    pool.verify(SEVEN, FOR_A_WORKER)
    [pid] = pids(pool)
    with ThreadPoolExecutor(3) as threads:
        waiting = [threads.submit(pool.verify, SEVEN, TOWER) for _ in range(3)]
        time.sleep(0.3)
        pool.close()
        assert all(isinstance(future.exception(timeout=5), RuntimeError) for future in waiting)
    assert not Path(f"/proc/{pid}").exists()
    with pytest.raises(RuntimeError, match="closed"):
        pool.verify(SEVEN, FOR_A_WORKER)
    pool.close()


PARENT = f"""
import threading, time
from r1distill.records import Problem
from r1distill.verify import VerifierPool
pool = VerifierPool(workers=1, timeout_s=60)
pool.verify(Problem("q", answer="7"), r"{FOR_A_WORKER}")
threading.Thread(target=pool.verify, args=(Problem("q", answer="7"), r"{TOWER}"), daemon=True).start()
time.sleep(0.3)
print([worker.pid for worker in pool.alive][0], flush=True)
time.sleep(60)
"""


def test_a_busy_worker_dies_with_a_parent_killed_by_sigkill(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, env=environment) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        assert is_running(pid)
        parent.kill()
    assert wait_until(lambda: not is_running(pid))


def test_a_file_of_the_current_folder_is_not_imported_by_a_worker(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "sympy.py").write_text("open('imported', 'w')")
    monkeypatch.chdir(tmp_path)
    with VerifierPool(timeout_s=5) as pool:
        assert pool.verify(SEVEN, r"\boxed{6 + 1}").outcome == "correct"
    assert not (tmp_path / "imported").exists()


def test_a_worker_that_cannot_start_says_why(monkeypatch) -> None:
    monkeypatch.setenv("PYTHONHOME", "/nonexistent")
    with VerifierPool(timeout_s=5) as pool, pytest.raises(UserError, match=r"worker did not start: .*encodings"):
        pool.verify(SEVEN, FOR_A_WORKER)


def test_limits_that_are_not_positive_are_refused() -> None:
    with pytest.raises(UserError, match="workers = 0"):
        VerifierPool(workers=0)


def test_the_convenience_function_verifies_without_importing_sympy_here() -> None:
    assert r1distill.verify.verify(SEVEN, FOR_A_WORKER).outcome == "correct"
    code = """
import sys
from r1distill.records import Problem
from r1distill.verify import verify
assert verify(Problem("q", answer="1/2"), "The answer is 0.5.").outcome == "correct"
assert not {"sympy", "math_verify"} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60, env={**os.environ, "PYTHONPATH": str(ROOT)})


# ---------------------------------------------------------------- r1distill verify --file


def write_lines(path: Path, *rows: object) -> Path:
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path


def test_a_file_is_rescored_in_its_order(tmp_path: Path) -> None:
    source = write_lines(
        tmp_path / "in.jsonl",
        {"id": "slow", "kind": "math", "response": TOWER, "answer": "7"},
        {"id": 2, "response": FOR_A_WORKER, "answer": 7},
        "",
        {"id": "c", "kind": "choice", "response": "Answer: B", "answer": "A", "choices": ["x", "y"]},
        {"id": "p", "kind": "code", "response": "```\n```", "tests": {"type": "asserts", "code": ""}},
        {
            "id": "q",
            "kind": "code",
            "response": "```py\nprint(int(input()) + 1)\n```",
            "tests": {"type": "stdio", "inputs": ["1", "2"], "outputs": ["2", "3"]},
        },
        {"id": "r", "kind": "code", "response": "```py\nprint(2)\n```", "tests": [{"input": "1", "output": "2"}]},
        {"id": "o", "kind": "open", "response": "hm"},
    )
    done: list[int] = []
    counts = rescore_file(source, tmp_path / "out.jsonl", workers=2, timeout_s=1, on_progress=done.append)
    rows = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [(row["id"], row["outcome"]) for row in rows] == [
        ("slow", "timeout"), (2, "correct"), ("c", "incorrect"), ("p", "unverifiable"),
        ("q", "correct"), ("r", "correct"), ("o", "unverifiable"),
    ]  # fmt: skip
    assert all(list(row) == ["id", "outcome", "extracted", "detail", "seconds"] for row in rows)
    assert counts == {"timeout": 1, "correct": 3, "incorrect": 1, "unverifiable": 2}
    assert done == list(range(1, 8))
    assert rows[0]["seconds"] >= 1


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "in.jsonl:2: not valid JSON"),
        ("[1]", "in.jsonl:2: a JSON object is needed, this is a list"),
        (
            '{"kind": "math", "response": "7"}',
            "in.jsonl:2: id, answer missing; a math line needs id, response and answer",
        ),
        ('{"id": 1, "kind": "maths", "response": "7"}', "unknown kind 'maths'; known: math, code, choice, open"),
        ('{"id": 1, "kind": [], "response": "7"}', r"unknown kind \[\]"),
        ('{"id": 1, "kind": "code", "response": "7"}', "tests missing"),
        ('{"id": 1, "response": 7, "answer": "7"}', "response is a int; it must be a string"),
        ('{"id": 1, "response": "7", "answer": ["7"]}', "answer is a list"),
        ('{"id": 1, "kind": "choice", "response": "7", "answer": "A", "choices": "AB"}', "choices is a str"),
    ],
)
def test_a_line_that_cannot_be_judged_is_named_and_nothing_is_written(tmp_path: Path, line: str, message: str) -> None:
    source = write_lines(tmp_path / "in.jsonl", {"id": 1, "kind": "open", "response": ""}, line)
    with pytest.raises(UserError, match=message):
        rescore_file(source, tmp_path / "out.jsonl", workers=1, timeout_s=5)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.jsonl"]


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"none\.jsonl: cannot be read: No such file"):
        rescore_file(tmp_path / "none.jsonl", tmp_path / "out.jsonl", workers=1, timeout_s=5)
