"""The program in a reply, and whether what it printed is what was expected. Pure functions of text."""

import ast
import re
from decimal import Decimal, InvalidOperation

FENCE = re.compile(r"^[ \t]{0,12}(`{3,}|~{3,})[ \t]*([\w+#.-]*)[^\n]*$", re.MULTILINE)
PYTHON = ("python", "python3", "py", "py3")
LOOKS_LIKE_CODE = re.compile(
    r"^(?:from\s+\w|import\s+\w|def\s+\w|class\s+\w|@\w|print\(|\w+\s*=|for\s|while\s|if\s)", re.MULTILINE
)
FLOAT_TOLERANCE = 1e-6
MAX_NUMBER_CHARACTERS = 400
IMPORT_LINE = re.compile(r"^(?:from\s+[\w.]+\s+import\s+[^\\\n(]+|import\s+[^\\\n]+)$", re.MULTILINE)


def extract_program(answer: str, entry_point: str | None = None) -> str | None:
    """The last fenced block of the answer part of a reply, or None where there is no program.

    A block marked as Python goes before an unmarked one, which may be an example of the output, and one that defines
    `entry_point` before both. A last block that is not closed counts. Without any fence, the text itself may be code.
    """
    blocks = fenced_blocks(answer)
    python = [code for language, code in blocks if language.lower() in PYTHON]
    candidates = python or [code for language, code in blocks if not language]
    if entry_point is not None:
        candidates = [code for code in candidates if defines(code, entry_point)] or candidates
    if candidates:
        return candidates[-1]
    if not blocks and LOOKS_LIKE_CODE.search(answer):
        return answer if is_python(answer) else None
    return None


def fenced_blocks(text: str) -> list[tuple[str, str]]:
    """(language, content) of each fenced block; a fence is closed by one of its own kind, at least as long."""
    blocks: list[tuple[str, str]] = []
    opened: re.Match[str] | None = None
    for fence in FENCE.finditer(text):
        if opened is None:
            opened = fence
        elif fence[1].startswith(opened[1]) and not fence[2]:
            blocks.append((opened[2], text[opened.end() + 1 : fence.start()]))
            opened = None
    if opened is not None:
        blocks.append((opened[2], text[opened.end() + 1 :]))
    return [(language, code) for language, code in blocks if code.strip()]


def defines(code: str, name: str) -> bool:
    return (
        re.search(rf"^[ \t]*(?:async\s+)?def\s+{re.escape(name)}\b|^{re.escape(name)}\s*=", code, re.MULTILINE)
        is not None
    )


def is_python(text: str) -> bool:
    try:
        ast.parse(text)
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        return False
    return True


def with_prompt(code: str, prompt: str, entry_point: str) -> str:
    """The code as it would run after the prompt of its problem (HumanEval): its body alone is completed by it."""
    if defines(code, entry_point) or not defines(prompt, entry_point):
        return code
    first = next((line for line in code.splitlines() if line.strip()), "")
    body = code if first.startswith((" ", "\t")) else "".join(f"    {line}" for line in code.splitlines(keepends=True))
    return f"{prompt.rstrip()}\n{body}"


def imports_of(prompt: str) -> str:
    """The lines of the prompt that import something: they are in force for the program too."""
    return "\n".join(IMPORT_LINE.findall(prompt))


def same_output(printed: bytes, expected: str, tolerance: float = FLOAT_TOLERANCE) -> bool:
    """Whether a program's output is the expected one, as contest checkers see it.

    The same words in the same order; how many spaces and line ends stand between them does not matter. Numbers are
    equal by value, and within `tolerance`, absolute or relative, where the expected one is written with a decimal point
    (Codeforces' usual checkers). With tolerance 0 they are equal exactly (LiveCodeBench).
    """
    ours, theirs = printed.decode(errors="replace").split(), expected.split()
    if ours == theirs:
        return True
    return len(ours) == len(theirs) and all(
        mine == other or same_token(mine, other, tolerance) for mine, other in zip(ours, theirs, strict=True)
    )


def same_token(printed: str, expected: str, tolerance: float) -> bool:
    if len(printed) > MAX_NUMBER_CHARACTERS or len(expected) > MAX_NUMBER_CHARACTERS:
        return False
    if "_" in printed or "_" in expected:
        return False
    try:
        mine, other = Decimal(printed), Decimal(expected)
    except InvalidOperation:
        return False
    if not (mine.is_finite() and other.is_finite()) or max(abs(mine.adjusted()), abs(other.adjusted())) > 1000:
        return False
    if mine == other:
        return True
    if not tolerance or not ("." in expected or "e" in expected.lower()):
        return False
    return abs(mine - other) <= Decimal(tolerance) * max(Decimal(1), abs(other))


def first_difference(printed: bytes, expected: str) -> str:
    """`expected "3", got "4"`, of the first words that differ."""
    ours, theirs = printed[: 1 << 20].decode(errors="replace").split(), expected.split()
    at = next((i for i, (a, b) in enumerate(zip(ours, theirs, strict=False)) if a != b), min(len(ours), len(theirs)))
    if at == len(theirs) == len(ours):  # only beyond what is looked at
        return "the outputs differ"
    wanted = repr(theirs[at][:60]) if at < len(theirs) else "the end"
    got = repr(ours[at][:60]) if at < len(ours) else "the end"
    return f"expected {wanted} as word {at + 1}, got {got}"
