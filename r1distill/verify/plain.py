"""Answers as normalised strings and exact numbers: the fast path, which decides nearly all answers of real models.

Nothing of an answer is ever evaluated: numbers are read by regular expressions into Fraction. Strings here are bounded
by the caller (r1distill/verify/mathematics.py), as the substitutions are not linear in the worst case.
"""

import re
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction

MAX_EXPONENT = 5_000  # of 10 in 1e5000: larger ones would be gigabytes as a Fraction, and no answer is one
ROUNDED_DIGITS = 6  # significant digits at which 0.333333 passes for 1/3; Math-Verify rounds to 6 places as well

SPACES = re.compile(r"\\[,;:! ]\s*|\\q?quad(?![a-zA-Z])|~|\s+")
SIZES = re.compile(r"\\(?:left|right|[bB]igg?[lr]?|displaystyle|textstyle|limits)(?![a-zA-Z])")
FRACTIONS = re.compile(r"\\[dtc]frac(?![a-zA-Z])")
SHORT_FRACTION = re.compile(r"\\frac\s*(?:(\d)\s*(\d)|(\d)\s*\{([^{}]*)\}|\{([^{}]*)\}\s*(\d))")
SHORT_ROOT = re.compile(r"\\sqrt\s*(?:\((\d+)\)|(\d))")
DEGREES = re.compile(r"\^\s*\{?\s*\\circ\s*\}?|\\degree(?![a-zA-Z])|°")
TEXT = r"\\(?:text(?:bf|it|rm|sf|tt|normal)?|mbox|hbox|mathrm|mathbf|mathit|operatorname)"
WHOLE_TEXT = re.compile(TEXT + r"\s*\{([^{}]*)\}")
TRAILING_TEXT = re.compile(r"(?<=[\w)}\]%])\s*" + TEXT + r"\s*\{([^{}]*)\}\s*(?:\^\s*\{?\s*[23]\s*\}?)?\s*$")
TEXT_PERCENT = re.compile(TEXT + r"\s*\{\s*(?:percent|%)\s*\}")
SPACE_TO_DROP = re.compile(r"(?<!\d)\s+|\s+(?!\d)")  # that of 1 1/2 is not: 11/2 is another number
LEADING_NAME = re.compile(r"\s*[a-zA-Z](?:_\{?\w+\}?)?\s*=(?!=)\s*")
DOLLARS = re.compile(r"^\s*(?:\$\$?([^$]*)\$\$?|\\\((.*)\\\)|\\\[(.*)\\\])\s*$", re.DOTALL)
WORDS = re.compile(r"[a-zA-Z]{2,}(?:[ '-]+[a-zA-Z]+)*")

INTEGER = r"(?:\d{1,3}(?:,\d{3})+|\d{1,3}(?: \d{3})+|\d+)"
POWER_OF_TEN = r"[eE]([+-]?\d+)|\s*(?:\\times|\\cdot|\*|x)\s*10\^(?:\{([+-]?\d+)\}|(\d))"
DECIMAL = re.compile(rf"({INTEGER})?(?:\.(\d*))?(?:{POWER_OF_TEN})?")
LATEX_FRACTION = re.compile(r"(\d+)?\s*\\frac\s*\{\s*([+-]?[\d.,]+)\s*\}\s*\{\s*([+-]?[\d.,]+)\s*\}")
PLAIN_FRACTION = re.compile(r"(?:(\d+)\s+)?([\d.,]+)\s*/\s*([\d.,]+)")
UNIT = re.compile(r"(?P<number>.*[\d.}])(?P<space>\s*)(?P<unit>[a-zA-Z][a-zA-Z .]*(?:\^\s*\{?[23]\}?|[²³])?)")
SHORT_UNITS = frozenset(
    re.findall(
        r"\w+",
        "m g s l L h J N W V K cm mm km nm kg mg ml mL dl cl ft in yd mi lb oz hr min sec ms sq cu rad deg mph kmh Hz "
        "kHz MHz kJ kW Pa kPa am pm AM PM",
    )
)
SCALES = {"hundred": 100, "thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12, "dozen": 12}
SCALE_WORD = re.compile(rf"(.*[\d.}}])\s*(?:\\text\{{)?\s*({'|'.join(SCALES)})\b\s*\}}?(.*)", re.IGNORECASE)
# Words after a number that change its value, so that they are no units.
NO_UNITS = re.compile(
    r"\b(?:hundreds?|thousands?|millions?|billions?|trillions?|dozens?|half|halves|thirds?|pi|sqrt|sin|cos|tan|log|ln"
    r"|exp|factorial|squared|cubed|over|or|and|plus|minus|times|to|mod|base|choose|root|not|is|infinity|inf|e|i|remainder|if|when|for)\b",
    re.IGNORECASE,
)
BASED = re.compile(r"([0-9A-Z]+)_\{?(\d{1,2})\}?")


@dataclass(frozen=True, slots=True)
class PlainNumber:
    """A number as written. `digits` is its number of significant digits if it was written as a decimal, else 0."""

    value: Fraction
    is_percent: bool = False
    digits: int = 0


def normalised(text: str) -> str:
    """The answer with one spelling for what means the same: sizes, spaces, \\dfrac, \\frac12, degrees, units."""
    text = text.strip()
    if inside := DOLLARS.match(text):
        text = next(group for group in inside.groups() if group is not None)
    text = text.replace("−", "-").replace("–", "-").replace("{,}", ",").replace("×", r"\times ").replace("π", r"\pi ")
    text = text.replace(r"\$", "").replace(r"\%", "%").replace("$", "").replace("**", "^")
    text = text.replace(r"\lbrace", r"\{").replace(r"\rbrace", r"\}")
    text = re.sub(r"\\!\s*", "", text)
    text = SIZES.sub("", text)
    text = DEGREES.sub("", text)
    text = SPACES.sub(" ", text).strip()
    text = FRACTIONS.sub(r"\\frac", text)
    text = SHORT_FRACTION.sub(braced_fraction, text)
    text = SHORT_ROOT.sub(lambda match: rf"\sqrt{{{match[1] or match[2]}}}", text)
    text = text.rstrip(". ")
    text = TEXT_PERCENT.sub("%", text)
    while (unit := TRAILING_TEXT.search(text)) and is_unit(unit[1]):
        text = text[: unit.start()]
    if whole := WHOLE_TEXT.fullmatch(text):
        text = whole[1].strip()
    if len(text) > 2 and text[0] == "{" and text.find("}") == len(text) - 1:
        text = text[1:-1].strip()
    return text


def braced_fraction(match: re.Match[str]) -> str:
    numerator, denominator = [group for group in match.groups() if group is not None]
    return rf"\frac{{{numerator}}}{{{denominator}}}"


def same_string(gold: str, extracted: str) -> bool:
    """Whether two normalised answers are the same text. The case of words does not matter, that of letters does."""
    gold, extracted = SPACE_TO_DROP.sub("", gold), SPACE_TO_DROP.sub("", extracted)
    if gold == extracted:
        return bool(gold)
    return gold.isalpha() and len(gold) > 1 and gold.casefold() == extracted.casefold()


def as_words(original: str) -> str | None:
    """The answer in lower case if it is words (`\\text{Evelyn}`, "no solution") and not a formula, else None."""
    text = normalised(original)
    if not WORDS.fullmatch(text):
        return None
    is_text = WHOLE_TEXT.fullmatch(original.strip().strip("$.").strip()) is not None
    return " ".join(text.casefold().split()) if is_text or (" " in text and len(text) > 4) else None


def without_name(text: str) -> str:
    """`x = 5` as `5`. Only one assignment: `x = 5, y = 3` and `x = y = 3` stay."""
    shorter = LEADING_NAME.sub("", text, count=1) if LEADING_NAME.match(text) else text
    return text if "=" in shorter else shorter


def in_base(text: str) -> tuple[str, str] | None:
    """(digits, base) of `2516_8`, else None."""
    match = BASED.fullmatch(re.sub(r"\s+", "", text))
    return (match[1].lstrip("0") or "0", match[2]) if match else None


def plain_number(text: str) -> PlainNumber | None:
    """The exact value of a normalised answer that is one number, else None.

    Integers, decimals, 1.5e-7 and 1.5\\times10^{-7}, a/b and \\frac{a}{b}, mixed numbers, thousands separators,
    percent, and a unit in words after it, which is left out.
    """
    text = text.strip()
    scale = 1
    if scaled := SCALE_WORD.fullmatch(text):
        text, scale = scaled[1] + scaled[3], SCALES[scaled[2].lower()]
    percent = re.fullmatch(r"(.*\S)\s*(?:%|percent|per cent)", text, re.DOTALL)
    if percent:
        text = percent[1]
    elif (unit := UNIT.fullmatch(text)) and is_unit(unit["unit"], unit["space"]):
        text = unit["number"]
    sign = 1
    if match := re.match(r"\s*([+-])\s*", text):
        sign = -1 if match[1] == "-" else 1
        text = text[match.end() :]
    number = unsigned_fraction(text) or unsigned_decimal(text.strip())
    if number is None:
        return None
    return PlainNumber(sign * scale * number.value, percent is not None, number.digits)


def is_unit(words: str, space: str = " ") -> bool:
    """Whether words after a number (with `space` between) can be left out: known short units, and longer words.

    `2pq` and `5 m^2 n` are products, "3 million" is another number.
    """
    names = re.sub(r"[\s.,()/^{}23²³-]+", " ", words).split()
    if NO_UNITS.search(words):
        return False
    if not space and len(names) == 1 and len(names[0]) == 1:
        return False
    return all(name in SHORT_UNITS or (name.isalpha() and len(name) >= (3 if space else 4)) for name in names)


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


def same_number(gold: PlainNumber, extracted: PlainNumber) -> bool:
    """Exact equality, with two allowances a person makes: a percent sign left out or written as a decimal, and a
    periodic fraction rounded to at least ROUNDED_DIGITS significant digits."""
    if gold.is_percent == extracted.is_percent:
        return equal_or_rounded(gold, extracted)
    percent, other = (gold, extracted) if gold.is_percent else (extracted, gold)
    hundredth = PlainNumber(percent.value / 100, digits=percent.digits)
    return equal_or_rounded(percent, other) or equal_or_rounded(hundredth, other)


def equal_or_rounded(first: PlainNumber, second: PlainNumber) -> bool:
    if first.value == second.value:
        return True
    exact, decimal = (second, first) if first.digits else (first, second)
    if exact.digits or decimal.digits < ROUNDED_DIGITS or not is_periodic(exact.value):
        return False
    # Both rounding and cutting off are within one unit of the last digit written.
    unit = Fraction(10) ** (magnitude(decimal.value) + 1 - decimal.digits)
    return abs(exact.value - decimal.value) < unit


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
