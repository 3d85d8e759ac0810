"""The verdict on a reply to a code problem: its program is run in the sandbox, and judged out here.

Programs that read and print are compared by their output, from bytes, in this process. Functions are called from another
sandbox that holds the tests (inside/remote.py): nothing of the tests is in the process of the program, and the verdict
comes with a nonce that only the tests were told.
"""

import contextlib
import json
import os
import queue
import secrets
import socket
import time
from dataclasses import dataclass
from typing import Any

from r1distill.console import say
from r1distill.errors import UserError
from r1distill.records import Outcome, Problem
from r1distill.verify.extract import answer_part
from r1distill.verify.programs import (
    FLOAT_TOLERANCE,
    extract_program,
    first_difference,
    imports_of,
    same_output,
    with_prompt,
)
from r1distill.verify.quick import Fields
from r1distill.verify.sandbox import Ending, Limits, Sandbox, SandboxError, Tier, contents, find_tier, memory_file

TEST_TYPES = ("stdio", "function", "asserts")
WALL_FACTOR, WALL_EXTRA_S = 3, 5  # a busy machine gives a program a third of its CPU; who only sleeps is ended then
MAX_OUTPUT_BYTES = 16 << 20  # and twice the expected one
MAX_PROGRAM_CHARACTERS = 200_000
# What LeetCode's own runner has imported, for programs written as `class Solution`.
LEETCODE = (
    "\n".join(
        f"from {module} import *"
        for module in "typing collections itertools functools heapq bisect math string operator random re".split()
    )
    + "\nimport collections, itertools, functools, heapq, bisect, math, string, operator, random, re, sys, datetime, copy\n"
)


@dataclass(frozen=True, slots=True)
class CodeSettings:
    """`test_timeout_s` is CPU time for one test, `total_timeout_s` for all of a program; wall time may be thrice that."""

    allow_unsafe: bool = False
    test_timeout_s: float = 6.0
    total_timeout_s: float = 60.0
    memory_gb: float = 2.0


class CodeChecker:
    """Sandboxes for programs and for tests, and the verdicts made with them. Not thread-safe."""

    def __init__(self, settings: CodeSettings, cpu: int | None = None) -> None:
        self.settings = settings
        self.tier: Tier = find_tier(settings.allow_unsafe)
        self.cpu = cpu
        self.sandboxes: dict[tuple[str, bool], Sandbox] = {}

    def close(self) -> None:
        for sandbox in self.sandboxes.values():
            sandbox.close()

    def sandbox(self, use: str, source: str) -> Sandbox:
        """The sandbox for "programs" or "tests". What mentions numpy gets one in which that is already imported."""
        key = (use, "numpy" in source)
        if key not in self.sandboxes:
            self.sandboxes[key] = Sandbox(self.tier, cpu=self.cpu, preload=["numpy"] if key[1] else [])
        return self.sandboxes[key]

    def check(self, problem: Problem, text: str) -> Fields:
        """(outcome, the program, detail). Never raises for what the reply contains."""
        tests = problem.tests or {}
        try:
            kind = kind_of_tests(tests)
        except ValueError as error:
            return "unverifiable", None, str(error)
        program = extract_program(answer_part(text), tests.get("entry_point"))
        if program is None:
            return "no_answer", None, "no fenced program outside the thinking"
        if len(program) > MAX_PROGRAM_CHARACTERS:
            limit = f"the limit is {MAX_PROGRAM_CHARACTERS:,}"
            return "incorrect", program, f"the program has {len(program):,} characters; {limit}"
        try:
            judged = self.check_stdio if kind == "stdio" else self.check_function
            outcome, detail = judged(problem, tests, program)
        except SandboxError as error:
            outcome, detail = "error", f"sandbox: {error}"
        return outcome, program, detail

    def limits(self, tests: dict[str, Any], left_s: float, **more: int) -> Limits:
        cpu = min(float(tests.get("time_limit_s") or self.settings.test_timeout_s), max(left_s, 0.1))
        memory = int(self.settings.memory_gb * 2**30)
        return Limits(cpu_s=cpu, wall_s=WALL_FACTOR * cpu + WALL_EXTRA_S, resident_bytes=memory, **more)

    # ------------------------------------------------------------ programs that read and print

    def check_stdio(self, problem: Problem, tests: dict[str, Any], program: str) -> tuple[Outcome, str]:
        """Run the program on each input, until one fails."""
        inputs, outputs = tests["inputs"], tests["outputs"]
        tolerance = float(tests.get("tolerance", FLOAT_TOLERANCE))
        total = float(tests.get("total_time_limit_s") or self.settings.total_timeout_s)
        cpu_left, wall_until = total, time.monotonic() + WALL_FACTOR * total
        for number, (given, expected) in enumerate(zip(inputs, outputs, strict=True), 1):
            place = f"test {number} of {len(inputs)}"
            if cpu_left <= 0 or time.monotonic() > wall_until:
                return "timeout", f"{place}: the tests before it took the {total:g} s that all may take"
            limits = self.limits(tests, cpu_left, file_bytes=MAX_OUTPUT_BYTES + 2 * len(expected))
            ending, printed, errors = self.run(program, given, limits)
            cpu_left -= ending.cpu_s
            failure = failure_of(ending, limits, errors)
            if failure is not None:
                return failure[0], f"{place}: {failure[1]}"
            if not same_output(printed, expected, tolerance):
                return "incorrect", f"{place}: {first_difference(printed, expected)}"
        return "correct", f"{len(inputs)} tests passed"

    def run(self, program: str, given: str, limits: Limits) -> tuple[Ending, bytes, bytes]:
        """(how it ended, its stdout, the end of its stderr)."""
        line_end = "" if not given or given.endswith("\n") else "\n"
        files = [memory_file((given + line_end).encode(errors="replace"), sealed=True), memory_file(), memory_file()]
        try:
            sandbox = self.sandbox("programs", program)
            sandbox.submit("program", program.encode(errors="replace"), files, limits)
            ending = sandbox.wait()
            return ending, contents(files[1], limits.file_bytes), contents(files[2], 1 << 20)
        finally:
            for file in files:
                os.close(file)

    # ------------------------------------------------------------ functions and assertions

    def check_function(self, problem: Problem, tests: dict[str, Any], program: str) -> tuple[Outcome, str]:
        """Define the functions in one sandbox and call them from the tests in the other."""
        prompt, entry_point = prompt_of(problem, tests), tests.get("entry_point")
        task = {**tests, "nonce": secrets.token_hex(16), "prompt": prompt}
        task["type"] = "cases" if "inputs" in tests else tests["type"]
        before = imports_of(prompt)
        if entry_point:
            program = with_prompt(program, prompt, entry_point)
            if "class Solution" in program:
                before = f"{LEETCODE}{before}"
        candidate = json.dumps({"before": before, "program": program}).encode()
        total = float(tests.get("total_time_limit_s") or self.settings.total_timeout_s)
        limits = self.limits({"time_limit_s": total}, total, file_bytes=MAX_OUTPUT_BYTES)
        programs, judges = self.sandbox("programs", program), self.sandbox("tests", str(tests.get("code")))
        nothing = memory_file(sealed=True)
        errors, said, verdict = memory_file(), memory_file(), memory_file()
        ours, theirs = socket.socketpair()
        try:
            programs.submit("candidate", candidate, [nothing, said, errors, ours.fileno()], limits)
            ours.close()
            try:
                judges.submit("tests", json.dumps(task).encode(), [nothing, verdict, said, theirs.fileno()], limits)
                theirs.close()
                judge = judges.wait()
            finally:
                theirs.close()
                programs.kill()
                ending = programs.wait()
            return self.judged(
                contents(verdict, 1 << 16), task["nonce"], judge, ending, limits, contents(errors, 1 << 20)
            )
        finally:
            ours.close()
            theirs.close()
            for file in (nothing, errors, said, verdict):
                os.close(file)

    def judged(
        self, said: bytes, nonce: str, judge: Ending, ending: Ending, limits: Limits, errors: bytes
    ) -> tuple[Outcome, str]:
        if judge.end in ("cpu", "wall"):
            return "timeout", f"no verdict within {limits.cpu_s:g} s of CPU and {limits.wall_s:g} s"
        if judge.end == "memory":  # what fills the tests' process comes from the program
            return "incorrect", f"over {limits.resident_bytes / 2**30:g} GB of memory for its results"
        try:
            verdict = json.loads(said)
        except ValueError:
            verdict = None
        if judge.end != "exit" or judge.code != 0 or not isinstance(verdict, dict) or verdict.get("nonce") != nonce:
            return "error", f"the tests gave no verdict ({judge.end} {judge.code})"
        if verdict["passed"] is True:
            return "correct", verdict["detail"]
        if verdict["lost"]:
            failure = failure_of(ending, limits, errors)
            return failure or ("incorrect", f"{verdict['detail']}: exit status {ending.code}{last_line(errors)}")
        return "incorrect", verdict["detail"]


def kind_of_tests(tests: dict[str, Any]) -> str:
    """The type of the tests. Raises ValueError saying what is wrong with them."""
    kind = tests.get("type")
    if kind not in TEST_TYPES:
        raise ValueError(f"tests.type = {kind!r}; it must be one of {', '.join(TEST_TYPES)}")
    if kind == "stdio":
        inputs, outputs = tests.get("inputs"), tests.get("outputs")
        if not isinstance(inputs, list) or not isinstance(outputs, list) or len(inputs) != len(outputs) or not inputs:
            raise ValueError("stdio tests need `inputs` and `outputs`: two lists of the same length, not empty")
        if not all(isinstance(text, str) for text in (*inputs, *outputs)):
            raise ValueError("stdio tests need strings as inputs and outputs")
        if not any(text.strip() for text in outputs):
            raise ValueError("all outputs of the tests are empty, so that any program would pass")
    elif kind == "function" and "inputs" in tests:
        if not isinstance(tests.get("entry_point"), str) or not ("outputs" in tests or "reference" in tests):
            raise ValueError("function tests with `inputs` need `entry_point`, and `outputs` or `reference`")
        if ("outputs" in tests and len(tests["outputs"]) != len(tests["inputs"])) or not tests["inputs"]:
            raise ValueError("function tests need as many `outputs` as `inputs`, and at least one")
    elif not isinstance(tests.get("code"), str) or not tests["code"].strip():
        raise ValueError(f"{kind} tests need `code`")
    elif kind == "function" and not isinstance(tests.get("entry_point"), str):
        raise ValueError("function tests need `entry_point`")
    return kind


def prompt_of(problem: Problem, tests: dict[str, Any]) -> str:
    """The code that the problem came with (HumanEval): given apart, or the problem itself where it is code."""
    prompt = tests.get("prompt")
    if isinstance(prompt, str):
        return prompt
    entry_point = tests.get("entry_point")
    return problem.problem if entry_point and f"def {entry_point}" in problem.problem else ""


def failure_of(ending: Ending, limits: Limits, errors: bytes) -> tuple[Outcome, str] | None:
    """The outcome of a program that did not end well, None for exit status 0."""
    if ending.end == "cpu":
        return "timeout", f"over {limits.cpu_s:g} s of CPU time"
    if ending.end == "wall":
        return "timeout", f"over {limits.wall_s:g} s ({ending.cpu_s:.1f} s of CPU time)"
    if ending.end == "memory":
        return "incorrect", f"over {limits.resident_bytes / 2**30:g} GB of memory"
    if ending.end == "signal":
        return "incorrect", f"killed by signal {ending.code}{last_line(errors)}"
    if ending.end == "exit" and ending.code:
        return "incorrect", f"exit status {ending.code}{last_line(errors)}"
    return None


def last_line(errors: bytes) -> str:
    lines = errors.decode(errors="replace").strip().splitlines()
    return f": {lines[-1][:300]}" if lines else ""


class CodePool:
    """`workers` checkers, each on a core of its own where there are enough. Thread-safe; `check` waits for an idle one."""

    def __init__(self, workers: int, settings: CodeSettings) -> None:
        self.tier = find_tier(settings.allow_unsafe)
        if self.tier.missing:
            say(f"warning: programs run without a sandbox ({self.tier.version}): {self.tier.missing}")
        self.closed = False
        self.idle: queue.LifoQueue[CodeChecker] = queue.LifoQueue()
        cores = sorted(os.sched_getaffinity(0))
        self.checkers = [CodeChecker(settings, cores[-1 - index % len(cores)]) for index in range(workers)]
        for checker in self.checkers:
            self.idle.put(checker)

    def check(self, problem: Problem, text: str) -> tuple[Fields, float]:
        """The fields of the verdict, and how many seconds it took."""
        checker = self.idle.get()
        try:
            if self.closed:
                raise RuntimeError("the verifier pool is closed")
            started = time.monotonic()
            fields = checker.check(problem, text)
            return fields, time.monotonic() - started
        except BaseException:
            with contextlib.suppress(OSError):
                checker.close()
            raise
        finally:
            self.idle.put(checker)

    def close(self) -> None:
        """End the sandboxes. A check that is under way gets an error."""
        self.closed = True
        for checker in self.checkers:
            checker.close()


def check_settings(settings: CodeSettings) -> None:
    """Raises UserError where no sandbox works, before anything is judged."""
    if settings.test_timeout_s <= 0 or settings.total_timeout_s <= 0 or settings.memory_gb <= 0:
        raise UserError(f"{settings}: the limits of code must be positive")
    find_tier(settings.allow_unsafe)
