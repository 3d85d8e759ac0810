"""The tests of public code sets, as our `tests`: HumanEval, EvalPlus, MBPP, APPS, TACO, CodeContests, LiveCodeBench.

Each function takes a row and returns the tests, or None if the row is not of its kind. Nothing is executed.
"""

import ast
import base64
import io
import json
import pickle
import zlib
from collections.abc import Callable
from typing import Any

from r1distill.verify.inside.remote import Peer

Row = dict[str, Any]
Tests = dict[str, Any]
MAX_UNPACKED_BYTES = 1 << 30

# EvalPlus's special oracles (evalplus/eval/_special_oracle.py, Apache-2.0): what is compared instead of equality.
COMPARED_AS_SETS = (
    "similar_elements find_char_long common_in_nested_lists extract_singly larg_nnum intersection_array "
    "find_dissimilar Diff"
).split()
COMPARED_AS_PRESENCE = ("check_str", "text_match_three", "text_starta_endb")
ROOT_OF_POLYNOMIAL = """
def check(candidate):
    for coefficients in {inputs}:
        root = candidate(list(coefficients))
        assert abs(sum(c * root**i for i, c in enumerate(coefficients))) <= 1e-4, (coefficients, root)
"""


def read_tests(row: Row) -> Tests | None:
    """Our `tests` for a row of one of the public sets, None for one of another kind. Raises ValueError of a broken row."""
    for read in READERS:
        tests = read(row)
        if tests is not None:
            return tests
    return None


def pairs(value: Any) -> Tests | None:
    """[{"input", "output"}, …] (rllm, open-r1) as stdio tests."""
    if not isinstance(value, list) or not value or not all(isinstance(test, dict) for test in value):
        return None
    if not all("input" in test and "output" in test for test in value):
        return None
    return {
        "type": "stdio",
        "inputs": [text_of(test["input"]) for test in value],
        "outputs": [text_of(test["output"]) for test in value],
    }


def text_of(value: Any) -> str:
    """Some sets keep the lines of an input as a list."""
    return "\n".join(map(str, value)) if isinstance(value, list) else str(value)


def listed(row: Row) -> Tests | None:
    return pairs(row.get("tests")) or pairs(row.get("official_tests"))


def apps(row: Row) -> Tests | None:
    """APPS and TACO: `input_output` = {"inputs", "outputs", "fn_name"?} as JSON."""
    value = row.get("input_output")
    value = json.loads(value) if isinstance(value, str) and value.strip() else value
    if not isinstance(value, dict) or not value.get("inputs"):
        return None
    name = value.get("fn_name")
    if name:
        outputs = [
            output[0] if isinstance(output, list) and len(output) == 1 else output for output in value["outputs"]
        ]
        return {"type": "function", "entry_point": name, "inputs": value["inputs"], "outputs": outputs}
    return {
        "type": "stdio",
        "inputs": [text_of(text) for text in value["inputs"]],
        "outputs": [text_of(text) for text in value["outputs"]],
    }


def code_contests(row: Row) -> Tests | None:
    """CodeContests: columns of {"input": […], "output": […]}; its checker takes floats within 1e-5."""
    parts = [row.get(name) for name in ("public_tests", "private_tests", "generated_tests")]
    parts = [part for part in parts if isinstance(part, dict) and part.get("input")]
    if not parts:
        return None
    inputs, outputs = ([text for part in parts for text in part[name]] for name in ("input", "output"))
    return {"type": "stdio", "inputs": inputs, "outputs": outputs, "tolerance": 1e-5}


def live_code_bench(row: Row) -> Tests | None:
    """LiveCodeBench: cases as JSON, the private ones perhaps packed; a function where the metadata name one."""
    if "public_test_cases" not in row:
        return None
    cases = json.loads(row["public_test_cases"]) + unpacked(row.get("private_test_cases") or "[]")
    name = json.loads(row.get("metadata") or "{}").get("func_name")
    return live_code_bench_tests([case["input"] for case in cases], [case["output"] for case in cases], name)


def sandbox_fusion(row: Row) -> Tests | None:
    """SandboxFusion's copy of LiveCodeBench: `test` is {"input_output": JSON}, packed as there."""
    if not {"content", "labels", "test"} <= row.keys():
        return None
    cases = json.loads(plain_value(row["test"])["input_output"])
    return live_code_bench_tests(cases["inputs"], cases["outputs"], cases.get("fn_name"))


def live_code_bench_tests(inputs: list[str], outputs: list[str], name: str | None) -> Tests | None:
    """Arguments are JSON, a line each, where there is a function; numbers are compared exactly."""
    if name:
        return {
            "type": "function",
            "entry_point": name,
            "inputs": [[json.loads(line) for line in text.split("\n")] for text in inputs],
            "outputs": [json.loads(text) for text in outputs],
        }
    tests = pairs([{"input": given, "output": said} for given, said in zip(inputs, outputs, strict=True)])
    return None if tests is None else {**tests, "tolerance": 0.0}


def unpacked(text: str) -> list[dict[str, Any]]:
    """JSON, or base64 of zlib of a pickled string of JSON. The pickle may hold nothing but that string."""
    try:
        return json.loads(text)
    except ValueError:
        return json.loads(plain_value(text))


def plain_value(text: str) -> Any:
    """What is pickled, of plain values alone, in zlib in base64. Raises ValueError where it is anything else, or too large."""
    stream = zlib.decompressobj()
    try:
        data = stream.decompress(base64.b64decode(text), MAX_UNPACKED_BYTES)
        if not stream.eof:
            raise ValueError(f"tests that are cut off, or unpack to more than {MAX_UNPACKED_BYTES:,} bytes")
        return PlainUnpickler(io.BytesIO(data)).load()
    except (zlib.error, pickle.UnpicklingError, EOFError, AttributeError, OverflowError) as error:
        raise ValueError(f"tests that cannot be unpacked: {error}") from None


class PlainUnpickler(pickle.Unpickler):
    """A pickle is a program; without names to call it can only build plain values."""

    def find_class(self, module_name: str, global_name: str) -> Any:
        raise pickle.UnpicklingError(f"{module_name}.{global_name} in a pickle that should be plain values")


def evalplus_release(row: Row) -> Tests | None:
    """EvalPlus's JSONL: inputs, and a reference that gives the expected outputs.

    JSON has no tuples, sets or complex numbers: MBPP's arguments get their types from those of its own assertions.
    """
    if "plus_input" not in row or "canonical_solution" not in row:
        return None
    name, inputs = row["entry_point"], [*row["base_input"], *(row["plus_input"] or [])]
    reference = row["canonical_solution"]
    if not row["task_id"].startswith("Mbpp"):
        reference = row["prompt"] + reference
    if name == "find_zero":  # any root will do
        only = [arguments[0] for arguments in inputs]
        return {
            "type": "function",
            "entry_point": name,
            "prompt": row["prompt"],
            "code": ROOT_OF_POLYNOMIAL.format(inputs=only),
        }
    example = example_arguments(row.get("assertion") or "", name)
    if example is not None:
        inputs = [typed(arguments, example) for arguments in inputs]
    comparison = "set" if name in COMPARED_AS_SETS else "not_none" if name in COMPARED_AS_PRESENCE else "exact"
    return {
        "type": "function",
        "entry_point": name,
        "prompt": row["prompt"] if not row["task_id"].startswith("Mbpp") else "",
        "inputs": Peer(-1, trusting=False).encode(inputs),
        "tagged": True,
        "reference": reference,
        "atol": row.get("atol") or 0,
        "comparison": comparison,
    }


def example_arguments(assertions: str, name: str) -> list[Any] | None:
    """The arguments of the first call of `name` with literal ones."""
    for node in ast.walk(ast.parse(assertions)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == name:
            try:
                return [ast.literal_eval(argument) for argument in node.args]
            except ValueError:
                continue
    return None


def typed(value: Any, example: Any, around: type = list) -> Any:
    """`value`, as JSON gave it, in the types of `example`; lists deeper than the example become what is `around` them."""
    if isinstance(value, list):
        kind = type(example) if isinstance(example, tuple | list | set) else around
        patterns = list(example) if isinstance(example, tuple | list | set) else []
        if len(patterns) != len(value):
            patterns = patterns[:1] * len(value) if patterns else [None] * len(value)
        return kind(typed(item, pattern, kind) for item, pattern in zip(value, patterns, strict=True))
    if isinstance(example, dict) and isinstance(value, dict):
        first = next(iter(example.values()), None)
        return {key: typed(item, example.get(key, first)) for key, item in value.items()}
    if isinstance(example, complex | int | float) and isinstance(value, str):  # JSON keeps complex numbers as text
        try:
            return complex(value) if value.strip("()").endswith("j") else float(value)
        except ValueError:
            return value
    return value


def human_eval(row: Row) -> Tests | None:
    """HumanEval and the Hub's HumanEval+: `test` defines check(candidate)."""
    if not row.get("entry_point") or not isinstance(row.get("test"), str):
        return None
    return {
        "type": "function",
        "entry_point": row["entry_point"],
        "prompt": row.get("prompt") or "",
        "code": row["test"],
    }


def mbpp(row: Row) -> Tests | None:
    """MBPP, and the Hub's MBPP+, whose `test` holds all assertions."""
    if not row.get("test_list"):
        return None
    before = [*(row.get("test_imports") or []), row.get("test_setup_code") or ""]
    statements = [row["test"]] if isinstance(row.get("test"), str) else row["test_list"]
    challenges = [] if isinstance(row.get("test"), str) else row.get("challenge_test_list") or []
    return {"type": "asserts", "code": "\n".join([*before, *statements, *challenges])}


READERS: tuple[Callable[[Row], Tests | None], ...] = (
    listed,
    apps,
    code_contests,
    live_code_bench,
    sandbox_fusion,
    evalplus_release,
    human_eval,
    mbpp,
)
