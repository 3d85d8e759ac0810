"""Whether the result of a function is the expected one, by the rules of the benchmarks. Standard library only.

EvalPlus (evalplus/eval/__init__.py): equal, or, where the expected value is made of floats, close: rtol 1e-7 and the
task's atol, 1e-6 if it has none. LiveCodeBench: equal, a tuple passing for a list, as JSON has no tuples.
"""

RELATIVE = 1e-7
ABSOLUTE = 1e-6


def same(result, expected, task):
    """`task`: `comparison` (exact, set, not_none), `atol`, and `tagged` where the values are not from plain JSON."""
    comparison = task.get("comparison", "exact")
    if comparison == "not_none":  # EvalPlus: what matters of a regex's match is that there is one; True says so too
        found, wanted = (value if isinstance(value, bool) else value is not None for value in (result, expected))
        return found == wanted
    if not task.get("tagged") and "outputs" in task:
        result, expected = as_lists(result), as_lists(expected)
    if comparison == "set":
        try:
            return set(result) == set(expected)
        except TypeError:
            return False
    if equal(result, expected):
        return True
    tolerance = task.get("atol") or (ABSOLUTE if floats(expected) else 0)
    return bool(tolerance) and close(result, expected, tolerance)


def as_lists(value):
    if type(value) in (list, tuple):
        return [as_lists(item) for item in value]
    if type(value) is dict:
        return {key: as_lists(item) for key, item in value.items()}
    return value


def equal(result, expected):
    """`==` as one answer: that of arrays is many."""
    try:
        outcome = result == expected
        return outcome if type(outcome) is bool else bool(outcome.all()) and result.shape == expected.shape
    except (AttributeError, TypeError, ValueError, RecursionError):
        return False


def floats(value):
    return isinstance(value, float) or (isinstance(value, (list, tuple)) and bool(value) and all(map(floats, value)))


def close(result, expected, tolerance):
    if isinstance(expected, (list, tuple)):
        return (
            type(result) is type(expected)
            and len(result) == len(expected)
            and all(close(mine, other, tolerance) for mine, other in zip(result, expected, strict=True))
        )
    if isinstance(expected, (int, float, complex)) and isinstance(result, (int, float, complex)):
        try:
            return abs(result - expected) <= tolerance + RELATIVE * abs(expected)
        except OverflowError:
            return False
    return equal(result, expected)
