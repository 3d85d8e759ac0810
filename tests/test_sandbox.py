"""What is run in the sandbox does no harm: hostile programs, and what they could leave behind."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hostile_programs import FORBIDDEN, FUNCTIONS, PRELUDE, READS_INPUT_AND_OUTPUT

from r1distill.errors import UserError
from r1distill.records import Problem
from r1distill.verify import code, sandbox
from r1distill.verify.code import CodeChecker, CodeSettings
from r1distill.verify.sandbox import Limits, Sandbox, contents, find_tier, memory_file

SECRET = "SECRET-41734"
ECHO = "```python\nprint(input())\n```"
QUICK = CodeSettings(test_timeout_s=0.5, total_timeout_s=1.0, memory_gb=0.7)


def fenced(program: str) -> str:
    return f"```python\n{program}\n```"


@pytest.fixture(scope="module")
def checker() -> Iterator[CodeChecker]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(code, "WALL_EXTRA_S", 0.5)
        patch.setenv("HF_TOKEN", "TOKEN-OF-THE-PARENT")
        checker = CodeChecker(QUICK, cpu=min(os.sched_getaffinity(0)))
        yield checker
        checker.close()


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def stdio(expected: str = SECRET, **more: object) -> Problem:
    return Problem("", kind="code", tests={"type": "stdio", "inputs": ["1 2\n"], "outputs": [expected], **more})


def processes_of_the_sandbox(checker: CodeChecker) -> int:
    """How many processes are in the PID namespaces of the zygotes, them included."""
    spaces = {namespace_of(pid) for box in checker.sandboxes.values() if box.process for pid in zygotes(box)}
    return sum(namespace_of(int(name)) in spaces for name in os.listdir("/proc") if name.isdigit())


def zygotes(box: Sandbox) -> list[int]:
    assert box.process is not None
    return sandbox.children_of(box.process.pid)


def namespace_of(pid: int) -> str | None:
    try:
        return os.readlink(f"/proc/{pid}/ns/pid")
    except OSError:
        return None


@pytest.mark.parametrize("name", READS_INPUT_AND_OUTPUT)
def test_hostile_program_neither_passes_nor_escapes_nor_leaves_anything(
    checker: CodeChecker, port: int, tmp_path: Path, name: str
) -> None:
    canary = tmp_path / "canary"
    canary.write_text("READ")
    source = f"{PRELUDE}CANARY, PORT = {str(canary)!r}, {port}\n{READS_INPUT_AND_OUTPUT[name]}"
    outcome, _, detail = checker.check(stdio(), fenced(source))
    assert outcome in ("incorrect", "timeout"), detail
    assert canary.read_text() == "READ"
    # what it found out, with nothing to compare it with
    limits = Limits(cpu_s=0.5, wall_s=1.5, resident_bytes=700 << 20, file_bytes=4 << 20)
    _, printed, errors = checker.run(source, "1 2\n", limits)
    said = (printed + errors).decode(errors="replace")
    assert [word for word in FORBIDDEN if word in said] == []
    assert [word for word in ("SyntaxError", "NameError", "ImportError", "ModuleNotFoundError") if word in said] == []
    # the next program finds the place as if nothing had been there
    assert checker.check(stdio("1 2"), ECHO)[0] == "correct"
    look = "import os\nprint(os.listdir('/tmp'), os.listdir('/dev/shm'), len([n for n in os.listdir('/proc') if n.isdigit()]))"
    assert checker.check(stdio("[] [] 2"), fenced(look))[0] == "correct"
    assert processes_of_the_sandbox(checker) == len(checker.sandboxes)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_hostile_function_does_not_pass_its_tests(checker: CodeChecker, name: str) -> None:
    number = 4_173_401_928_374
    tests = f"NUMBER = {number}\ndef check(candidate):\n    got = candidate(20)\n"
    tests += "    if isinstance(got, list): got = got[0]\n"
    tests += "    assert got == NUMBER or abs(got - NUMBER) < 1e-6 or NUMBER in set(got)\n"
    problem = Problem("", kind="code", tests={"type": "function", "entry_point": "f", "code": tests})
    outcome, _, detail = checker.check(problem, fenced(FUNCTIONS[name]))
    assert outcome in ("incorrect", "timeout"), detail
    honest = Problem("", kind="code", tests={"type": "function", "entry_point": "f", "code": tests})
    assert checker.check(honest, fenced(f"def f(x): return {number}"))[0] == "correct"


def test_at_least_forty_programs_and_twenty_functions_are_hostile() -> None:
    assert len(READS_INPUT_AND_OUTPUT) >= 40
    assert len(FUNCTIONS) >= 20


def test_an_input_of_100_mb_that_is_never_read_does_no_harm(checker: CodeChecker) -> None:
    problem = Problem("", kind="code", tests={"type": "stdio", "inputs": ["x" * (100 << 20)], "outputs": ["hello"]})
    assert checker.check(problem, fenced("print('hello')"))[0] == "correct"


def test_sleeping_just_below_the_limit_in_every_test_ends_at_the_limit_for_all(checker: CodeChecker) -> None:
    problem = Problem("", kind="code", tests={"type": "stdio", "inputs": ["1"] * 50, "outputs": ["1"] * 50})
    started = time.monotonic()
    outcome, _, detail = checker.check(problem, fenced("import time; time.sleep(0.9); print(1)"))
    assert outcome == "timeout"
    assert "that all may take" in detail
    assert time.monotonic() - started < 15  # of 45


def test_a_sandbox_that_is_killed_gives_an_error_and_a_new_one(checker: CodeChecker) -> None:
    assert checker.check(stdio("1 2"), ECHO)[0] == "correct"
    for box in checker.sandboxes.values():
        if box.process is not None:
            box.kill_group()
            box.process.wait()
    assert checker.check(stdio("1 2"), ECHO)[0] == "correct"


def test_closing_leaves_no_process_behind() -> None:
    checker = CodeChecker(QUICK)
    assert checker.check(stdio("1 2"), ECHO)[0] == "correct"
    pids = [pid for box in checker.sandboxes.values() for pid in zygotes(box)]
    assert pids
    checker.close()
    assert [pid for pid in pids if os.path.exists(f"/proc/{pid}")] == []


def test_a_sealed_input_is_read_only_and_an_output_is_read_from_its_start() -> None:
    sealed = memory_file(b"abc", sealed=True)
    with pytest.raises(OSError, match="not permitted"):
        os.write(sealed, b"x")
    output = memory_file()
    os.write(output, b"abc")
    assert contents(output, 2) == b"ab"
    os.close(sealed)
    os.close(output)


@pytest.mark.skipif(os.geteuid() != 0, reason="these tests are running as an ordinary user already")
def test_all_of_it_holds_for_an_ordinary_user_too(tmp_path: Path) -> None:
    """Root's sandbox is made otherwise than that of a user, so that the harshest programs are tried in both."""
    if subprocess.run(["unshare", "-m", "true"], capture_output=True).returncode:
        pytest.skip("root may not make a mount namespace here (unshare -m), which as_ordinary_user.sh needs")
    script = Path(__file__).resolve().parents[1] / "scripts" / "as_ordinary_user.sh"
    names = "bomb or odd or frames or mounts or outside or shm or privileges or equal or memory or daemon or namespaces"
    command = [
        script,
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "--no-cov",
        __file__,
        "-k",
        names,
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-2000:]
    assert " passed" in done.stdout


def test_without_bubblewrap_code_is_refused_and_unsafe_says_what_is_not_covered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sandbox, "find_bubblewrap", lambda: None)
    find_tier.cache_clear()
    with pytest.raises(UserError, match=r"bubblewrap .* is not installed; install it"):
        find_tier(allow_unsafe=False)
    tier = find_tier(allow_unsafe=True)
    find_tier.cache_clear()
    assert tier.name in ("landlock", "rlimits")
    assert "Not covered" in tier.missing


@pytest.mark.parametrize(
    "name", ["a fork bomb", "writes outside", "connects by TCP", "a daemon that keeps the output open"]
)
def test_the_weaker_tier_stops_the_plainest_attacks(
    monkeypatch: pytest.MonkeyPatch, port: int, tmp_path: Path, name: str
) -> None:
    monkeypatch.setattr(sandbox, "find_bubblewrap", lambda: None)
    monkeypatch.setattr(code, "WALL_EXTRA_S", 0.5)
    find_tier.cache_clear()
    checker = CodeChecker(CodeSettings(True, 0.5, 1.0, 0.7))
    find_tier.cache_clear()
    canary = tmp_path / "canary"
    canary.write_text("READ")
    source = f"{PRELUDE}CANARY, PORT = {str(canary)!r}, {port}\n{READS_INPUT_AND_OUTPUT[name]}"
    _, printed, _ = checker.run(source, "1 2\n", Limits(cpu_s=0.5, wall_s=1.5, file_bytes=4 << 20))
    outcome = checker.check(stdio("1 2"), ECHO)[0]
    folder = next(iter(checker.sandboxes.values())).folder
    checker.close()
    assert [word for word in FORBIDDEN if word in printed.decode(errors="replace")] == []
    assert outcome == "correct"
    assert folder is not None
    assert not os.path.exists(folder.name)
