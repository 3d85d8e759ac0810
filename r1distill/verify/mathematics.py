"""Whether two mathematical answers are equal: exactly where both are plain, by Math-Verify where they are not.

Runs only inside a worker (r1distill/verify/worker.py): Math-Verify's own limit is SIGALRM, which hangs in some calls
(https://github.com/huggingface/Math-Verify/issues/65), so it is off and the worker is killed from outside. Nothing here
evaluates text; Math-Verify's only `parse_expr` is not used either (LaTeX extraction alone).
"""

import logging
import re
from fractions import Fraction
from functools import lru_cache
from typing import Any

import sympy
from math_verify import LatexExtractionConfig, parse, verify

from r1distill.verify.answer import NUMBERS_IN_A_ROW
from r1distill.verify.choice import labelled_choice
from r1distill.verify.compare import same_answer
from r1distill.verify.phrases import contradict, same_phrase
from r1distill.verify.plain import check_plain, normalised
from r1distill.verify.tokens import Unreadable

MAX_ANSWER_CHARACTERS = 2_000
GUARD_DIGITS = 30  # Math-Verify chops differences below about 1e-15 to 0, so that 1/2^99 passes for 1/2^98
GUARD_RELATIVE = sympy.Float("1e-9")
HAS_WORDS = re.compile(r"\\(?:text|mathrm|mbox)\w*\s*\{[^}]*[a-zA-Z]{2}|(?<![\\a-zA-Z])[a-zA-Z]{4,}")
LOWER_WORDS = re.compile(r"[a-z ]*[a-z]{3}[a-z ]*")
LETTER_LIST = re.compile(r"\(?[A-H]\)?(?:(?:,|,? and) ?\(?[A-H]\)?)+")
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
    for rule in (check_plain, check_spelling, check_choice, check_engine, check_words):
        decided = rule(gold, extracted)
        if decided is not None:
            return decided
    if HAS_WORDS.search(gold) or HAS_WORDS.search(extracted):
        return False, "words and mathematics that are not understood"
    return check_symbolic(gold, extracted)


def check_spelling(gold: str, extracted: str) -> tuple[bool, str] | None:
    """dab is not bad, cat dog not dog cat. xyz and zyx are the same product: one of the two has its letters in order.

    Numbers in rows, as a table of them, are compared one by one.
    """
    if NUMBERS_IN_A_ROW.fullmatch(gold.strip()) and NUMBERS_IN_A_ROW.fullmatch(extracted.strip()):
        numbers = [list(map(Fraction, text.split())) for text in (gold, extracted)]
        return numbers[0] == numbers[1], "rows of numbers"
    ours, theirs = (text.split() for text in (gold, extracted))
    if ours == theirs or not all(LOWER_WORDS.fullmatch(text.strip()) for text in (gold, extracted)):
        return None
    letters = ["".join(words) for words in (ours, theirs)]
    if sorted(letters[0]) != sorted(letters[1]) or "".join(sorted(letters[0])) in letters:
        return None
    return False, "the same letters in another order"


def check_choice(gold: str, extracted: str) -> tuple[bool, str] | None:
    """(B) 12 is B and is 12; two letters decide alone."""
    if re.fullmatch("[A-H]{2,8}", gold) and LETTER_LIST.fullmatch(extracted.strip()):  # ABD and A, B, D
        return gold == "".join(re.findall("[A-H]", extracted)), "letters of choices"
    ours, theirs = labelled_choice(gold), labelled_choice(extracted)
    if ours is None and theirs is None:
        return None
    if ours is not None and theirs is not None:
        return ours[0] == theirs[0], "letters of choices"
    labelled, other = (ours, extracted) if ours is not None else (theirs, gold)
    assert labelled is not None
    letter, text = labelled
    bare = re.sub(r"\\text(?:bf)?\s*\{\(?([A-E])\)?\}", r"\1", other.strip().strip("$ .()"))
    if re.fullmatch("[A-E]", bare):
        return bare == letter, "letters of choices"
    if not text:
        return None
    return check_math(text, other) if ours is not None else check_math(other, text)


def check_engine(gold: str, extracted: str) -> tuple[bool, str] | None:
    try:
        verdict = same_answer(gold, extracted)
    except Unreadable:
        return None
    if verdict and contradict(gold, extracted):
        return False, "words of opposite meaning"
    return None if verdict is None else (verdict, "equal" if verdict else "not equal")


def check_words(gold: str, extracted: str) -> tuple[bool, str] | None:
    verdict = same_phrase(gold, extracted)
    return None if verdict is None else (verdict, "words")


def check_symbolic(gold: str, extracted: str) -> tuple[bool, str]:
    """Math-Verify's opinion, with its known false positives overruled: tiny constants, and equations read as 0."""
    if ("=" in gold) != ("=" in extracted):
        return False, "an equation and none"
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
