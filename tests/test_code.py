"""Code problems: which program a reply holds, what it may look like, and when it is right."""

import gzip
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from stdin_styles import STYLES

from r1distill.code_columns import read_tests
from r1distill.records import Problem
from r1distill.verify.code import CodeChecker, CodeSettings, kind_of_tests
from r1distill.verify.inside.remote import Peer
from r1distill.verify.programs import extract_program, same_output

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="module")
def checker() -> Iterator[CodeChecker]:
    checker = CodeChecker(CodeSettings(test_timeout_s=2.0, total_timeout_s=30.0), cpu=max(os.sched_getaffinity(0)))
    yield checker
    checker.close()


def judged(checker: CodeChecker, tests: dict[str, Any], program: str, problem: str = "") -> tuple[str, str]:
    outcome, _, detail = checker.check(Problem(problem, kind="code", tests=tests), f"```python\n{program}\n```")
    return outcome, detail


# ---------------------------------------------------------------- extraction


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("```python\na = 1\n```", "a = 1\n"),
        ("```\na = 1\n```", "a = 1\n"),
        ("~~~py\na = 1\n~~~", "a = 1\n"),
        ("````python\ns = '```'\n````", "s = '```'\n"),
        ("First\n```python\na = 1\n```\nbetter:\n```python\na = 2\n```\n", "a = 2\n"),
        ("```python\na = 1\n```\nIt prints\n```\n1\n```", "a = 1\n"),
        ("```text\n1\n```\nand\n```\na = 1\n```", "a = 1\n"),
        ("```python\na = 1", "a = 1"),
        ("1. So:\n   ```python\n   a = 1\n   ```", "   a = 1\n"),
        ("print(1)", "print(1)"),
        ("I would print(1) here.", None),
        ("```json\n{}\n```", None),
        ("no program", None),
        ("", None),
    ],
)
def test_the_last_fenced_python_block_is_the_program(answer: str, expected: str | None) -> None:
    program = extract_program(answer)
    assert program == expected or (expected and program and program.strip() == expected.strip())


def test_a_block_that_defines_the_function_goes_before_an_example_of_its_use() -> None:
    answer = "```python\ndef f(x):\n    return x\n```\nUse it so:\n```python\nprint(f(1))\n```"
    assert extract_program(answer, "f") == "def f(x):\n    return x\n"


def test_the_thinking_holds_no_program(checker: CodeChecker) -> None:
    problem = Problem("", kind="code", tests={"type": "stdio", "inputs": ["1"], "outputs": ["1"]})
    right, wrong = "```python\nprint(1)\n```", "```python\nprint(2)\n```"
    assert checker.check(problem, f"<think>{wrong}</think>{right}")[0] == "correct"
    assert checker.check(problem, f"<think>{right}</think>{wrong}")[0] == "incorrect"
    assert checker.check(problem, f"<think>{right}</think>That is it.")[0] == "no_answer"
    assert checker.check(problem, f"<think>{right}")[0] == "no_answer"


@given(st.text(alphabet="`~ python\n\tdef():=1", max_size=120))
def test_extraction_never_raises(text: str) -> None:
    extract_program(text, "f")


# ---------------------------------------------------------------- programs that read and print

PAIRS = {"type": "stdio", "inputs": ["3\n1 2\n3 4\n5 6\n"], "outputs": ["3\n7\n11\n"]}


@pytest.mark.parametrize("style", STYLES)
def test_an_ordinary_way_to_read_and_print_passes(checker: CodeChecker, style: str) -> None:
    assert judged(checker, PAIRS, STYLES[style]) == ("correct", "1 tests passed")


@pytest.mark.parametrize(
    ("printed", "expected", "is_same"),
    [
        (b"1 2\n3\n", "1 2\n3", True),
        (b"1 2 \r\n 3 \n\n", "1 2\n3\n", True),
        (b"1\n2\n3\n", "1 2 3", True),
        (b"1 2", "1 2 3", False),
        (b"1 2 3", "1 2", False),
        (b"", "1", False),
        (b"YES", "yes", False),
        (b"12", "1 2", False),
        (b"3.0000001", "3.0", True),
        (b"3", "3.0", True),
        (b"3.1", "3.0", False),
        (b"1e3", "1000.0", True),
        (b"1000000.4", "1000000.0", True),  # within 1e-6 of its size
        (b"1000002.0", "1000000.0", False),
        (b"3.0", "3", True),  # equal by value
        (b"3.0000001", "3", False),  # an integer is expected
        (b"0.1", "0.10000000001", True),
        (b"nan", "nan", True),
        (b"nan", "1.0", False),
        (b"inf", "1.0", False),
        (b"1_0", "10", False),
        (b"1e999999999", "1.0", False),
        (b"01", "1", True),
        (b"\xff\xfe", "a", False),
        (b"9007199254740993", "9007199254740992", False),
    ],
)
def test_outputs_are_compared_as_contest_checkers_do(printed: bytes, expected: str, is_same: bool) -> None:
    assert same_output(printed, expected) is is_same


def test_without_a_tolerance_numbers_are_equal_exactly() -> None:
    assert same_output(b"3.0", "3", tolerance=0)
    assert not same_output(b"3.0000001", "3.0", tolerance=0)


def test_the_first_failing_test_is_named(checker: CodeChecker) -> None:
    tests = {"type": "stdio", "inputs": ["1", "2", "3"], "outputs": ["1", "4", "9"]}
    assert judged(checker, tests, "print(int(input()) ** 2)") == ("correct", "3 tests passed")
    assert judged(checker, tests, "n = int(input()); print(n * n if n < 3 else 8)") == (
        "incorrect",
        "test 3 of 3: expected '9' as word 1, got '8'",
    )
    outcome, detail = judged(checker, tests, "print(1 // (int(input()) - 2))")
    assert outcome == "incorrect"
    assert detail.startswith("test 1 of 3: expected '1' as word 1, got '-1'")
    outcome, detail = judged(checker, tests, "n = int(input()); print(n * n // (n < 2))")
    assert detail == "test 2 of 3: exit status 1: ZeroDivisionError: integer division or modulo by zero"


def test_a_program_that_is_too_slow_is_a_timeout_and_one_too_large_is_wrong(checker: CodeChecker) -> None:
    tests = {"type": "stdio", "inputs": ["1"], "outputs": ["1"], "time_limit_s": 0.3}
    assert judged(checker, tests, "while True: pass") == ("timeout", "test 1 of 1: over 0.3 s of CPU time")
    outcome, detail = judged(checker, PAIRS, "a = [0] * 10**9\nprint(len(a))")
    assert outcome == "incorrect"
    assert "memory" in detail.lower()


def test_a_program_with_a_right_output_and_a_bad_end_is_wrong(checker: CodeChecker) -> None:
    tests = {"type": "stdio", "inputs": ["1"], "outputs": ["1"]}
    assert judged(checker, tests, "print(1)\nraise ValueError('late')")[0] == "incorrect"
    assert judged(checker, tests, "print(1)\nimport sys; sys.exit(3)")[0] == "incorrect"


# ---------------------------------------------------------------- functions and assertions


def function(code: str, name: str = "f", **more: Any) -> dict[str, Any]:
    return {"type": "function", "entry_point": name, "code": code, **more}


def test_values_of_every_plain_type_pass_to_a_function_and_back(checker: CodeChecker) -> None:
    code = """
import datetime, decimal, fractions, collections, math
VALUES = [None, True, 1, -1, 2**100, -(2**70), 1.5, float('inf'), 1e-300, 'a', '\\ud800', 'ü', b'\\x00', (1, (2,)), [1, [2]],
          {1: 'a', 'b': [1]}, {1, 2}, frozenset({3}), 1 + 2j, range(3), decimal.Decimal('1.10'), fractions.Fraction(1, 3),
          datetime.date(2024, 1, 2), datetime.timedelta(1, 2), collections.deque([1, 2], 5), collections.Counter('aab'),
          collections.OrderedDict(a=1), int, [], (), {}, set(), '', ..., bytearray(b'a'), slice(1, 2)]
def check(candidate):
    for value in VALUES:
        got = candidate(value)
        assert got == value and type(got) is type(value), value
    assert math.isnan(candidate(math.nan))
    assert candidate([True, 1.0, 1]) == [True, 1.0, 1] and [type(x) for x in candidate([True, 1.0, 1])] == [bool, float, int]
"""
    assert judged(checker, function(code), "def f(x): return x") == ("correct", "check(candidate) passed")


PROGRAM_OF_MANY = """
class Node:
    def __init__(self, value): self.value = value; self.left = None; self.right = None
def depth(node): return 0 if node is None else 1 + max(depth(node.left), depth(node.right))
def reverse(items): items.reverse()
def nested(table): table['a'].append(1)
def squares(n): return (i * i for i in range(n))
def apply(function, x): return function(x) + 1
def total(items): return sum(items)
def fails(x): raise ValueError(f'bad {x}')
class Own(KeyError): pass
def fails_own(x): raise Own(x)
def adder(n): return lambda x: x + n
def keywords(a, *, b=2): return a, b
def mapped(xs): return map(str, xs)
def keys(d): return d.keys()
class Solution:
    def twice(self, x): return 2 * x
"""


@pytest.mark.parametrize(
    "test",
    [
        "root = Node(1)\nroot.left = Node(2)\nroot.left.right = Node(3)\nassert depth(root) == 3",
        "items = [1, 2, 3]\nreverse(items)\nassert items == [3, 2, 1]",
        "t = {'a': []}\nnested(t)\nassert t == {'a': [1]}",
        "assert list(squares(4)) == [0, 1, 4, 9]",
        "assert next(squares(4)) == 0",
        "assert apply(lambda x: x * 10, 2) == 21",
        "assert total(x for x in [1, 2, 3]) == 6",
        "try:\n    fails(3)\n    assert False\nexcept ValueError as e:\n    assert str(e) == 'bad 3'",
        "try:\n    fails_own(3)\n    assert False\nexcept KeyError:\n    pass",
        "assert adder(3)(4) == 7",
        "assert keywords(1, b=5) == (1, 5)",
        "assert list(mapped([1, 2])) == ['1', '2']",
        "assert set(keys({'a': 1})) == {'a'}",
        "assert sorted(keys({'b': 1, 'a': 1})) == ['a', 'b']",
        "assert twice(4) == 8",
        "import math\nassert math.isclose(total([0.1, 0.2]), 0.3)",
        "from collections import Counter\nassert Counter(list(squares(2))) == Counter([0, 1])",
    ],
)
def test_tests_in_another_process_work_as_if_they_were_in_the_same(checker: CodeChecker, test: str) -> None:
    outcome, detail = judged(checker, {"type": "asserts", "code": test}, PROGRAM_OF_MANY)
    assert outcome == "correct", detail


def test_a_failing_assertion_is_named(checker: CodeChecker) -> None:
    tests = {"type": "asserts", "code": "assert f(1) == 1\nassert f(2) == 4\nassert f(3) == 9"}
    assert judged(checker, tests, "def f(x): return x") == ("incorrect", "assertion 2 of 3: assert f(2) == 4")
    assert judged(
        checker, function("def check(candidate):\n    assert candidate(2) == 4, 'squares'"), "def f(x): return x"
    ) == (
        "incorrect",
        "AssertionError: squares at `assert candidate(2) == 4, 'squares'`",
    )


def test_a_builtin_is_the_candidates_only_where_the_tests_are_about_it(checker: CodeChecker) -> None:
    assert (
        judged(checker, {"type": "asserts", "code": "assert sum(10, 15) == 6"}, "def sum(a, b): return 6")[0]
        == "correct"
    )
    cheat = "def f(x): return 0\nset = len = sorted = lambda x: 1"
    assert judged(checker, {"type": "asserts", "code": "assert set(f(1)) == set((4, 5))"}, cheat)[0] == "incorrect"


def test_the_problems_own_helpers_and_imports_are_in_force(checker: CodeChecker) -> None:
    prompt = (
        "from typing import List\n\ndef poly(xs: list, x):\n    return sum(c * x ** i for i, c in enumerate(xs))\n\n"
    )
    prompt += 'def find_zero(xs: List):\n    """A zero of the polynomial."""\n'
    tests = function(
        "def check(candidate):\n    assert abs(poly([-2, 1], candidate([-2, 1]))) < 1e-6", "find_zero", prompt=prompt
    )
    assert judged(checker, tests, "def find_zero(xs: List): return -xs[0] / xs[1]")[0] == "correct"
    assert judged(checker, tests, "    return -xs[0] / xs[1]")[0] == "correct"  # the body alone completes the prompt
    assert judged(checker, tests, "def poly(xs, x): return 0\ndef find_zero(xs): return 7")[0] == "incorrect"


def test_cases_compare_by_the_rules_of_evalplus_and_livecodebench(checker: CodeChecker) -> None:
    cases: dict[str, Any] = {"type": "function", "entry_point": "f", "inputs": [[1, 2], [3, 4]], "outputs": [3, 7]}
    assert judged(checker, cases, "def f(a, b): return a + b") == ("correct", "2 tests passed")
    assert (
        judged(checker, cases, "class Solution:\n    def f(self, a: int, b: List[int]) -> int: return a + b")[0]
        == "correct"
    )
    assert judged(checker, cases, "def f(a, b): return 3") == ("incorrect", "test 2 of 2: expected 7, got 3")
    assert judged(checker, cases, "def f(a, b): return a / (b - 4)")[0] == "incorrect"
    nested = {**cases, "inputs": [[1]], "outputs": [[[1, 2]]]}
    assert judged(checker, nested, "def f(a): return ((1, 2),)")[0] == "correct"  # JSON has no tuples
    floats = {**cases, "inputs": [[1]], "outputs": [0.3]}
    assert judged(checker, floats, "def f(a): return 0.1 + 0.2")[0] == "correct"
    assert judged(checker, floats, "def f(a): return 0.31")[0] == "incorrect"
    reference = {"type": "function", "entry_point": "f", "inputs": [[1], [2]], "reference": "def f(x): return (x, x)"}
    assert judged(checker, reference, "def f(x): return (x, x)")[0] == "correct"
    assert judged(checker, reference, "def f(x): return (x, 2)")[0] == "incorrect"


def test_where_a_match_is_expected_its_presence_counts_and_true_says_so_too(checker: CodeChecker) -> None:
    reference = "import re\ndef f(x): return re.search('a', x)"
    tests = {"type": "function", "entry_point": "f", "inputs": [["a"], ["b"]], "reference": reference}
    for program, outcome in {
        reference: "correct",
        "def f(x): return 'a' in x": "correct",
        "def f(x): return x if 'a' in x else None": "correct",
        "def f(x): return False": "incorrect",
        "def f(x): return True": "incorrect",
        "def f(x): return x": "incorrect",
    }.items():
        assert judged(checker, {**tests, "comparison": "not_none"}, program)[0] == outcome


def test_rows_of_the_evalplus_release_are_compared_with_their_reference(checker: CodeChecker) -> None:
    row = {
        "task_id": "Mbpp/0", "prompt": "", "entry_point": "f", "assertion": "assert f((1, 2), 2j) == (1, 2)", "atol": 0,
        "canonical_solution": "def f(t, z):\n    return tuple(x * int(z.imag) for x in t)\n",
        "base_input": [[[1, 2], "2j"]], "plus_input": [[[3], "1j"], [[], "(1+5j)"]],
    }  # fmt: skip
    tests = read_tests(row)
    assert tests is not None
    assert judged(checker, tests, row["canonical_solution"]) == ("correct", "3 tests passed")
    assert judged(checker, tests, "def f(t, z): return [x * int(z.imag) for x in t]")[0] == "incorrect"  # no tuple
    outcome, detail = judged(checker, tests, "def f(t, z): return t if len(t) < 2 else (2, 4)")
    assert (outcome, detail) == ("correct", "3 tests passed")
    assert judged(checker, tests, "def f(t, z): return (2, 4)")[1] == "test 2 of 3: expected (3,), got (2, 4)"


@pytest.mark.parametrize(
    "tests",
    [
        {},
        {"type": "shell", "code": "x"},
        {"type": "stdio", "inputs": [], "outputs": []},
        {"type": "stdio", "inputs": ["1"], "outputs": ["1", "2"]},
        {"type": "stdio", "inputs": ["1", "2"], "outputs": ["", " \n"]},
        {"type": "function", "code": "def check(c): pass"},
        {"type": "function", "entry_point": "f"},
        {"type": "asserts", "code": "  "},
    ],
)
def test_tests_that_could_judge_nothing_are_refused(checker: CodeChecker, tests: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"tests|outputs"):
        kind_of_tests(tests)
    assert judged(checker, tests, "print(1)")[0] == "unverifiable"


plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text()
    | st.binary()
    | st.complex_numbers(allow_nan=False),
    lambda inner: (
        st.lists(inner)
        | st.tuples(inner, inner)
        | st.dictionaries(st.text() | st.integers(), inner)
        | st.sets(st.integers())
    ),
    max_leaves=20,
)


@given(plain)
def test_what_is_encoded_is_decoded_to_the_same_value_of_the_same_type(value: Any) -> None:
    peer = Peer(-1, trusting=False)
    decoded = peer.decode(json.loads(json.dumps(peer.encode(value))))
    assert decoded == value
    assert type(decoded) is type(value)


# ---------------------------------------------------------------- the public sets


@pytest.mark.parametrize(
    ("row", "kind"),
    [
        ({"tests": [{"input": "1", "output": "2"}]}, "stdio"),
        ({"official_tests": [{"input": ["1", "2"], "output": "2"}]}, "stdio"),
        ({"input_output": '{"inputs": ["1\\n"], "outputs": ["2\\n"]}'}, "stdio"),
        ({"input_output": {"fn_name": "f", "inputs": [[1]], "outputs": [[2]]}}, "function"),
        ({"public_tests": {"input": ["1"], "output": ["2"]}, "private_tests": {"input": [], "output": []}}, "stdio"),
        ({"public_test_cases": '[{"input": "1", "output": "2", "testtype": "stdin"}]', "metadata": "{}"}, "stdio"),
        ({"public_test_cases": '[{"input": "[1]\\n2", "output": "3"}]', "metadata": '{"func_name": "f"}'}, "function"),
        (
            {"prompt": "def f(x):\n", "test": "def check(candidate): assert candidate(1) == 2", "entry_point": "f"},
            "function",
        ),
        ({"test_list": ["assert f(1) == 2"], "test_setup_code": ""}, "asserts"),
    ],
)
def test_the_columns_of_public_sets_become_our_tests(checker: CodeChecker, row: dict[str, Any], kind: str) -> None:
    tests = read_tests(row)
    assert tests is not None
    assert kind_of_tests(tests) == kind


def test_a_packed_livecodebench_case_may_hold_nothing_but_text() -> None:
    import base64
    import pickle
    import zlib

    def packed(value: Any) -> dict[str, Any]:
        data = base64.b64encode(zlib.compress(pickle.dumps(value))).decode()
        return {"public_test_cases": "[]", "private_test_cases": data, "metadata": "{}"}

    tests = read_tests(packed('[{"input": "1", "output": "2"}]'))
    assert tests is not None
    assert tests["inputs"] == ["1"]
    with pytest.raises(ValueError, match="should be plain values"):
        read_tests(packed(os.getcwd))


def read(path: Path) -> list[dict[str, Any]]:
    if not path.exists():
        pytest.skip(f"{path.name} is not there: {path} (benchmark data are not part of the project)")
    text = gzip.decompress(path.read_bytes()).decode() if path.suffix == ".gz" else path.read_text()
    return [json.loads(line) for line in text.splitlines()]


@pytest.mark.parametrize(
    ("path", "solution"),
    [
        ("humaneval/HumanEval.jsonl.gz", lambda row: row["prompt"] + row["canonical_solution"]),
        ("humaneval/HumanEval.jsonl.gz", lambda row: row["canonical_solution"]),
        ("mbpp/mbpp.jsonl", lambda row: row["code"]),
    ],
    ids=["HumanEval", "HumanEval, bodies alone", "MBPP"],
)
def test_canonical_solutions_pass(checker: CodeChecker, path: str, solution: Any) -> None:
    wrong = []
    for row in read(DATA / path):
        tests = read_tests(row)
        assert tests is not None
        outcome, detail = judged(checker, tests, solution(row))
        if outcome != "correct":
            wrong.append((row["task_id"], detail))
    assert wrong == []
