"""What a forked child becomes: a program with real stdin and stdout, a candidate, or the tests that check one.

Standard library only. The program and the candidate are hostile: nothing in their process is worth knowing. The tests
come from the benchmark; no code of the candidate runs in their process.
"""

import ast
import atexit
import builtins
import gc
import io
import json
import os
import sys
import threading
import traceback
import types

from outputs import same
from remote import Gone, Peer, Remote

OURS = ("zygote", "confine", "roles", "remote", "outputs")
CALLS = 3  # the descriptor of the other process
MAX_DETAIL = 500
MAX_BATCH = 64
MAX_OBJECTS_SEARCHED = 300_000


def run_program(source):
    """As `python main.py` does: real descriptors, a fresh `__main__`, exit handlers and threads waited for."""
    execute(source, "__main__")
    leave(0)


def run_candidate(source):
    """Define what the program defines, then do what the tests ask for over descriptor CALLS."""
    task = json.loads(source)
    names = execute(task["program"], "candidate", task["before"])
    peer = Peer(CALLS, trusting=True)
    peer.names = Globals(names)
    try:
        peer.serve_forever()
    except Gone:
        leave(0)
    except SystemExit as end:
        leave(end.code if isinstance(end.code, int) else 1)


def execute(source, name, before=""):
    for stream, descriptor, mode in (("stdin", 0, "r"), ("stdout", 1, "w"), ("stderr", 2, "w")):
        opened = open(descriptor, mode, encoding="utf-8", errors="surrogateescape", closefd=False)  # noqa: SIM115
        setattr(sys, stream, opened)
        setattr(sys, f"__{stream}__", opened)
    for module in OURS:
        sys.modules.pop(module, None)
    sys.path.pop(0)
    sys.path.insert(0, os.getcwd())
    sys.argv = ["main.py"]
    if "random" in sys.modules:
        sys.modules["random"].seed()  # every program is a fork of one process
    module = types.ModuleType(name)
    module.__file__ = "main.py"
    sys.modules[name] = module
    if name != "__main__":
        sys.modules["__main__"] = module
    try:
        exec(compile(before, "imports", "exec", dont_inherit=True), module.__dict__)
        exec(compile(source, "main.py", "exec", dont_inherit=True), module.__dict__)
    except SystemExit as end:
        if end.code is not None and not isinstance(end.code, int):
            print(end.code, file=sys.stderr)
            leave(1)
        leave(end.code or 0)
    except BaseException as error:
        at = error.__traceback__
        sys.excepthook(type(error), error, at.tb_next if at else None)
        leave(1)
    return module.__dict__


def leave(status):
    """End as the interpreter would, without taking its time to pieces."""
    try:
        threading._shutdown()  # type: ignore[attr-defined] - what the interpreter calls itself
        atexit._run_exitfuncs()
    except BaseException:
        status = status or 1
    for stream in open_streams():
        try:
            stream.flush()
        except BaseException:
            status = status or (120 if stream in (sys.stdout, sys.__stdout__) else 0)
    os._exit(status & 0xFF)


def open_streams():
    """What the interpreter would flush as it takes its objects to pieces."""
    streams = [sys.stdout, sys.stderr]
    objects = gc.get_objects()
    if len(objects) > MAX_OBJECTS_SEARCHED:
        objects = list(vars(sys.modules["__main__"]).values())
    streams += [
        value for value in objects if isinstance(value, (io.TextIOWrapper, io.BufferedWriter, io.BufferedRandom))
    ]
    return [*streams, sys.__stdout__, sys.__stderr__]


class Globals(dict):
    """The names of a candidate. A method of its class Solution counts as a function (LeetCode style)."""

    def __missing__(self, name):
        solution = self.get("Solution")
        if isinstance(solution, type) and hasattr(solution, name):
            return getattr(solution(), name)
        raise NameError(f"name {name!r} is not defined by the candidate")


# ---------------------------------------------------------------- the tests


class TestGlobals(dict):
    """The globals of the tests: a name that they do not define, and Python does not, is the candidate's."""

    peer: Peer

    def __missing__(self, name):
        if hasattr(builtins, name):
            return getattr(builtins, name)
        self[name] = found(self.peer, name)
        return self[name]


def found(peer, name):
    try:
        return peer.ask("global", None, name)
    except NameError as error:
        raise Failed(str(error)) from None


class Failed(BaseException):
    """A test failed. The message is the detail of the verdict."""


def run_tests(source):
    """Run the tests of the JSON in `source`, and write the verdict with its nonce to descriptor 1."""
    task = json.loads(source)
    verdicts = os.dup(1)
    os.dup2(2, 1)  # what the tests print is not the verdict
    sys.stdout = io.TextIOWrapper(open(1, "wb", closefd=False))  # noqa: SIM115
    peer = Peer(CALLS, trusting=False)
    names = TestGlobals({"__name__": "tests", "__builtins__": builtins})
    names.peer = peer
    verdict = {"nonce": task["nonce"], "passed": False, "detail": "", "lost": False}
    try:
        verdict["detail"] = TESTS[task["type"]](task, names, peer)
        verdict["passed"] = True
    except Gone:
        verdict.update(detail="the program ended before its tests did", lost=True)
    except Failed as error:
        verdict["detail"] = str(error)
    except BaseException as error:
        verdict["detail"] = explain(error, task)
    if peer.lost and verdict["passed"]:  # a bare `except:` of the tests has swallowed it
        verdict.update(passed=False, detail="the program ended before its tests did", lost=True)
    verdict["detail"] = verdict["detail"][:MAX_DETAIL]
    os.write(verdicts, json.dumps(verdict).encode())
    os._exit(0)


def check_function(task, names, peer):
    """HumanEval: `code` defines `check(candidate)`. `prompt` is the trusted code that the problem came with."""
    if task.get("prompt"):
        define(task["prompt"], names)
        names.pop(task["entry_point"], None)
    exec(compile(task["code"], "tests", "exec", dont_inherit=True), names)
    if "check" not in names:
        raise Failed("the tests do not define check(candidate)")
    names["check"](found(peer, task["entry_point"]))
    return "check(candidate) passed"


def define(prompt, names):
    """The helper functions and imports of the problem, as the tests use them (HumanEval/32's poly)."""
    try:
        exec(compile(prompt, "prompt", "exec", dont_inherit=True), names)
    except Exception:
        return  # a prompt that is prose defines nothing


def check_asserts(task, names, peer):
    """MBPP: statements, run one after another so that the first failing one can be named."""
    tree = ast.parse(task["code"], "tests")
    if name := shadowed(tree, task):
        names[name] = found(peer, name)
    total = sum(isinstance(node, ast.Assert) for node in tree.body)
    done = 0
    for node in tree.body:
        try:
            exec(compile(ast.Module([node], []), "tests", "exec", dont_inherit=True), names)
        except AssertionError as error:
            statement = ast.unparse(node)
            raise Failed(f"assertion {done + 1} of {total}: {statement[:300]}: {error}".rstrip(": ")) from None
        done += isinstance(node, ast.Assert)
    return f"{total} assertions passed"


def shadowed(tree, task):
    """The builtin that the candidate defines anew, where the tests are about that (MBPP's 126 is called `sum`).

    Any other builtin stays Python's: a `set` of the candidate's would make anything equal.
    """
    if task.get("entry_point"):
        return task["entry_point"]
    builtin_names = set(dir(builtins))
    used = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    called = {node.func.id for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)}
    return called.pop() if used <= builtin_names and len(called) == 1 else None


def check_cases(task, names, peer):
    """EvalPlus and LiveCodeBench: calls with given arguments, compared with given outputs or those of a reference."""
    candidate = found(peer, task["entry_point"])
    if task.get("tagged"):
        task = {**task, **{name: peer.decode(task[name]) for name in ("inputs", "outputs") if name in task}}
    outputs, reference = task.get("outputs") or [], None
    if "outputs" not in task:
        exec(compile(task["reference"], "reference", "exec", dont_inherit=True), names)
        reference = names[task["entry_point"]]
    inputs, done, size = task["inputs"], 0, 1
    while done < len(inputs):
        batch = inputs[done : done + size]
        for arguments, (good, result) in zip(batch, candidate._map(batch), strict=False):
            place = f"test {done + 1} of {len(inputs)}"
            expected = reference(*arguments) if reference else outputs[done]
            if not good:
                raise Failed(f"{place}: {type(result).__name__}: {result}")
            if not same(result, expected, task):
                raise Failed(f"{place}: expected {short(expected)}, got {short(result)}")
            done += 1
        size = min(4 * size, MAX_BATCH)  # a wrong program mostly fails at once
    return f"{len(inputs)} tests passed"


def short(value):
    text = repr(value) if type(value) is not Remote else Remote.__repr__(value)
    return text if len(text) <= 120 else text[:117] + "..."


def explain(error, task):
    """The exception, and the line of the tests that it came from."""
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if frame.filename == "tests" and frame.lineno]
    text = f"{type(error).__name__}: {error}".rstrip(": ")
    if lines:
        source = task["code"].splitlines()
        line = source[lines[-1] - 1].strip() if lines[-1] <= len(source) else ""
        return f"{text} at `{line[:200]}`"
    return text


TESTS = {"function": check_function, "asserts": check_asserts, "cases": check_cases}
ROLES = {"program": run_program, "candidate": run_candidate, "tests": run_tests}
