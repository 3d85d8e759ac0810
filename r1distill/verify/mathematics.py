"""Whether two mathematical answers are equal: exactly where both are plain, by Math-Verify where they are not.

Runs only inside a worker (r1distill/verify/worker.py): Math-Verify's own limit is SIGALRM, which hangs in some calls
(https://github.com/huggingface/Math-Verify/issues/65), so it is off and the worker is killed from outside. Nothing here
evaluates text; Math-Verify's only `parse_expr` is not used either (LaTeX extraction alone).
"""

import logging
import re
from functools import lru_cache
from typing import Any

import sympy
from math_verify import LatexExtractionConfig, parse, verify

from r1distill.verify.plain import (
    as_words,
    in_base,
    normalised,
    plain_number,
    same_number,
    same_string,
    without_name,
)

MAX_ANSWER_CHARACTERS = 2_000
GUARD_DIGITS = 30  # Math-Verify chops differences below about 1e-15 to 0, so that 1/2^99 passes for 1/2^98
GUARD_RELATIVE = sympy.Float("1e-9")
LETTER = re.compile(r"[a-zA-Z]|\([a-zA-Z]\)")
LATEX = [LatexExtractionConfig(boxed_match_priority=0)]

logging.getLogger("math_verify").setLevel(logging.ERROR)  # it warns at every start that its own timeout is off


@lru_cache(maxsize=10_000)
def check_math(gold: str, extracted: str) -> tuple[bool, str]:
    """Whether `extracted` is the answer `gold`, and by which rule.

    Raises MemoryError and RecursionError; takes for ever on a hostile answer.
    """
    for name, text in (("answer", extracted), ("gold answer", gold)):
        if len(text) > MAX_ANSWER_CHARACTERS:
            return False, f"the {name} has {len(text):,} characters; the limit is {MAX_ANSWER_CHARACTERS:,}"
    decided = check_plain(gold, extracted)
    return check_symbolic(gold, extracted) if decided is None else decided


def check_plain(gold: str, extracted: str) -> tuple[bool, str] | None:
    """The fast exact path; None where it cannot decide."""
    left, right = normalised(gold), normalised(extracted)
    if same_string(left, right):
        return True, "same text"
    if ("=" in left) != ("=" in right):
        left, right = without_name(left), without_name(right)
        if same_string(left, right):
            return True, "same text"
    gold_number, number = plain_number(left), plain_number(right)
    if gold_number and number:
        return same_number(gold_number, number), "exact numbers"
    gold_base, base = in_base(left), in_base(right)
    if gold_base and base:
        return gold_base == base, "numbers in a base"
    if gold_base and right.isdigit():
        return gold_base[0] == right.lstrip("0"), "numbers in a base"
    gold_words, words = as_words(gold), as_words(extracted)
    if gold_words and words:
        return gold_words == words, "words"
    if LETTER.fullmatch(left) and LETTER.fullmatch(right) and "(" in left + right:
        return left.strip("()") == right.strip("()"), "letters"
    if (is_set(left) and is_tuple(right)) or (is_tuple(left) and is_set(right)):
        return False, "a set is not a tuple"
    return None


def is_set(text: str) -> bool:
    return text.startswith(r"\{") and text.endswith(r"\}")


def is_tuple(text: str) -> bool:
    return text.startswith("(") and text.endswith(")") and "," in text


def check_symbolic(gold: str, extracted: str) -> tuple[bool, str]:
    """Math-Verify's opinion, with its known false positives on tiny constants overruled."""
    for left in parsed(gold):
        for right in parsed(extracted):
            if compared(left, right):
                if differ_as_constants(left, right):
                    return False, f"constants differ in {GUARD_DIGITS} digits"
                return True, "Math-Verify: equal"
    return False, "Math-Verify: not equal"


@lru_cache(maxsize=1_000)
def parsed(text: str) -> tuple[Any, ...]:
    """What Math-Verify makes of an answer: the expression and its text, or the text alone where it does not parse."""
    latex = re.sub(r"(?<![\\a-zA-Z])(pi|infty)(?![a-zA-Z])", r"\\\1", normalised(text))
    return tuple(
        parse(rf"\boxed{{{latex}}}", extraction_config=LATEX, extraction_mode="first_match", parsing_timeout=None)  # type: ignore[arg-type]
    )


def compared(gold: Any, extracted: Any) -> bool:
    try:
        return verify(gold, extracted, allow_set_relation_comp=True, timeout_seconds=None, raise_on_error=True)
    except (MemoryError, RecursionError):
        raise
    except Exception:  # sympy raises of every kind on what it cannot compare, and that is not equal
        return False


def differ_as_constants(left: Any, right: Any) -> bool:
    """Whether two expressions without variables differ by more than GUARD_RELATIVE of the larger."""
    if not (isinstance(left, sympy.Expr) and isinstance(right, sympy.Expr)) or left.free_symbols or right.free_symbols:
        return False
    if left.has(sympy.Float) or right.has(sympy.Float):
        return False
    try:
        first, second = sympy.N(left.doit(), GUARD_DIGITS), sympy.N(right.doit(), GUARD_DIGITS)
        return bool(abs(first - second) > GUARD_RELATIVE * max(abs(first), abs(second)))
    except (TypeError, ValueError, ArithmeticError, AttributeError):
        return False
