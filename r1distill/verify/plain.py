"""Answers as normalised strings and exact numbers: the fast path, which decides nearly all answers of real models.

Nothing of an answer is ever evaluated: numbers are read by regular expressions into Fraction. Strings here are bounded
by the caller (r1distill/verify/mathematics.py), as the substitutions are not linear in the worst case.
"""

import re
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from functools import lru_cache

MAX_EXPONENT = 5_000  # of 10 in 1e5000: larger ones would be gigabytes as a Fraction, and no answer is one
LEAST_DIGITS = 4  # significant digits with which a decimal may stand for a fraction that it rounds: 0.3333 for 1/3

SPACES = re.compile(r"\\[,;:! ]\s*|\\q?quad(?![a-zA-Z])|~|\s+")
SIZES = re.compile(r"\\(?:left|right|[bB]igg?[lr]?|displaystyle|textstyle|limits)(?![a-zA-Z])")
FRACTIONS = re.compile(r"\\[dtc]frac(?![a-zA-Z])")
SHORT_FRACTION = re.compile(r"\\frac\s*(?:(\d)\s*(\d)|(\d)\s*\{([^{}]*)\}|\{([^{}]*)\}\s*(\d))")
SHORT_ROOT = re.compile(r"\\sqrt\s*(?:\((\d+)\)|(\d))")
TEXT = r"\\(?:text(?:bf|it|rm|sf|tt|normal)?|mbox|hbox|mathrm|mathbf|mathit|operatorname)"
WHOLE_TEXT = re.compile(TEXT + r"\s*\{([^{}]*)\}")
SPACE_TO_DROP = re.compile(r"(?<!\d)\s+|\s+(?!\d)")  # that of 1 1/2 is not: 11/2 is another number
DOLLARS = re.compile(r"^\s*(?:\$\$?([^$]*)\$\$?|\\\((.*)\\\)|\\\[(.*)\\\])\s*$", re.DOTALL)

INTEGER = r"(?:\d{1,3}(?:,\d{3})+|\d{1,3}(?: \d{3})+|\d+)"
POWER_OF_TEN = r"[eE]([+-]?\d+)|\s*(?:\\times|\\cdot|\*|x)\s*10\^(?:\{([+-]?\d+)\}|(\d))"
DECIMAL = re.compile(rf"({INTEGER})?(?:\.(\d*))?(?:{POWER_OF_TEN})?")
LATEX_FRACTION = re.compile(r"(\d+)?\s*\\frac\s*\{\s*([+-]?[\d.,]+)\s*\}\s*\{\s*([+-]?[\d.,]+)\s*\}")
PLAIN_FRACTION = re.compile(r"(?:(\d+)\s+)?([\d.,]+)\s*/\s*([\d.,]+)")


@dataclass(frozen=True, slots=True)
class PlainNumber:
    """A number as written. `digits` is its number of significant digits if it was written as a decimal, else 0."""

    value: Fraction
    is_percent: bool = False
    digits: int = 0


@lru_cache(maxsize=10_000)  # a gold answer is compared with many
def normalised(text: str) -> str:
    """The answer with one spelling for what means the same: sizes, spaces, \\dfrac, \\frac12."""
    text = text.strip()
    if inside := DOLLARS.match(text):
        text = next(group for group in inside.groups() if group is not None)
    text = text.replace("−", "-").replace("–", "-").replace("{,}", ",").replace("×", r"\times ").replace("π", r"\pi ")
    text = text.replace(r"\$", "").replace(r"\%", "%").replace("$", "").replace("**", "^")
    text = text.replace(r"\lbrace", r"\{").replace(r"\rbrace", r"\}")
    text = re.sub(r"\\!\s*", "", text)
    text = SIZES.sub("", text)
    text = SPACES.sub(" ", text).strip()
    text = FRACTIONS.sub(r"\\frac", text)
    text = SHORT_FRACTION.sub(braced_fraction, text)
    text = SHORT_ROOT.sub(lambda match: rf"\sqrt{{{match[1] or match[2]}}}", text)
    text = text.rstrip(". ")
    if whole := WHOLE_TEXT.fullmatch(text):
        text = whole[1].strip()
    if len(text) > 2 and text[0] == "{" and text.find("}") == len(text) - 1:
        text = text[1:-1].strip()
    return text


def check_plain(gold: str, extracted: str) -> tuple[bool, str] | None:
    """The fast exact path: the same text, and two plain numbers. None where it cannot decide."""
    left, right = normalised(gold), normalised(extracted)
    if same_string(left, right):
        return True, "same text"
    gold_number, number = plain_number(left), plain_number(right)
    if gold_number is None or number is None or gold_number.is_percent != number.is_percent:
        return None
    return equal_or_rounded(gold_number, number), "exact numbers"


def braced_fraction(match: re.Match[str]) -> str:
    numerator, denominator = [group for group in match.groups() if group is not None]
    return rf"\frac{{{numerator}}}{{{denominator}}}"


def same_string(gold: str, extracted: str) -> bool:
    """Whether two normalised answers are the same text. The case of words does not matter, that of letters does."""
    gold, extracted = SPACE_TO_DROP.sub("", gold), SPACE_TO_DROP.sub("", extracted)
    if gold == extracted:
        return bool(gold)
    return gold.isalpha() and len(gold) > 1 and gold.casefold() == extracted.casefold()


def plain_number(text: str) -> PlainNumber | None:
    """The exact value of a normalised answer that is one number, else None.

    Integers, decimals, 1.5e-7 and 1.5\\times10^{-7}, a/b and \\frac{a}{b}, mixed numbers, thousands separators,
    percent. Units, names and words are left to r1distill/verify/compare.py.
    """
    text = text.strip()
    is_percent = text.endswith("%")
    text = text.removesuffix("%")
    sign = 1
    if match := re.match(r"\s*([+-])\s*", text):
        sign = -1 if match[1] == "-" else 1
        text = text[match.end() :]
    number = unsigned_fraction(text) or unsigned_decimal(text.strip())
    if number is None:
        return None
    return PlainNumber(sign * number.value, is_percent, number.digits)


def unsigned_decimal(text: str) -> PlainNumber | None:
    match = DECIMAL.fullmatch(text)
    if not match or not (match[1] or match[2]):
        return None
    whole, places = re.sub("[, ]", "", match[1] or ""), match[2] or ""
    exponent = match[3] or match[4] or match[5] or "0"
    if len(exponent) > 6 or abs(int(exponent)) > MAX_EXPONENT:
        return None
    value = Fraction(Decimal(f"{whole or 0}.{places or 0}")) * Fraction(10) ** int(exponent)
    is_decimal = match[2] is not None or exponent != "0"
    return PlainNumber(value, digits=len((whole + places).lstrip("0")) if is_decimal else 0)


def unsigned_fraction(text: str) -> PlainNumber | None:
    match = LATEX_FRACTION.fullmatch(text) or PLAIN_FRACTION.fullmatch(text)
    if not match:
        return None
    numerator, denominator = signed_decimal(match[2]), signed_decimal(match[3])
    if numerator is None or not denominator:
        return None
    if match[1] and not 0 <= numerator < denominator:
        return None  # 2\frac{5}{3} is no mixed number
    return PlainNumber(int(match[1] or 0) + numerator / denominator)


def signed_decimal(text: str) -> Fraction | None:
    number = unsigned_decimal(text.lstrip("+-"))
    if number is None:
        return None
    return -number.value if text.startswith("-") else number.value


def equal_or_rounded(gold: PlainNumber, answer: PlainNumber) -> bool:
    if gold.value == answer.value:
        return True
    exact, decimal = (answer, gold) if gold.digits else (gold, answer)
    least = LEAST_DIGITS - (decimal is gold)  # a gold answer is rounded by whoever wrote it
    if exact.digits or decimal.digits < least or not is_periodic(exact.value):
        return False
    unit = Fraction(10) ** (magnitude(decimal.value) + 1 - decimal.digits)
    # 0.6666 for 2/3, cut off, shows what repeats; 3.142 for 22/7 does not, and is rather pi
    is_cut_off_seen = not is_periodic(exact.value * 99)
    return abs(exact.value - decimal.value) < (unit if is_cut_off_seen else unit * Fraction("0.5000001"))


def is_periodic(value: Fraction) -> bool:
    denominator = value.denominator
    for prime in (2, 5):
        while denominator % prime == 0:
            denominator //= prime
    return denominator != 1


def magnitude(value: Fraction) -> int:
    """The power of ten of the first significant digit: 2 for 123, -3 for 0.001; 0 for 0."""
    if not value:
        return 0
    guess = len(str(abs(value.numerator))) - len(str(value.denominator))
    return guess if abs(value) >= Fraction(10) ** guess else guess - 1
