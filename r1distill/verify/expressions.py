"""Whether two expressions have the same value: exactly, to many digits, or at points."""

import random
from collections.abc import Iterable, Iterator
from fractions import Fraction

from r1distill.verify.nodes import Node, has_kind, letters_of
from r1distill.verify.numeric import DIGITS, Number, Unknown, context, inexact, is_real, is_zero_of_noise, value

POINTS = 6


CONFIRMING_DIGITS = 1_250  # more than any single term below MAX_EXPONENT_BITS is away from 1: e^-500 + 1 is not 1


def same_value(first: Number, second: Number, digits: int = DIGITS - 15) -> bool:
    """Exactly for rationals, else to `digits` significant digits."""
    if isinstance(first, Fraction) and isinstance(second, Fraction):
        return first == second
    if first and second and abs(size_in_bits(first) - size_in_bits(second)) > 3:
        return False  # also where an exact one has too many digits to stand beside one that is not
    left, right = inexact(first), inexact(second)
    largest = max(abs(left), abs(right))
    return abs(left - right) <= context.mpf(10) ** -digits * largest


def size_in_bits(number: Number) -> int:
    """The power of two next to a number that is not 0, to within 2."""
    if isinstance(number, Fraction):
        return number.numerator.bit_length() - number.denominator.bit_length()
    return context.mag(number)


DISCRETE = {"factorial", "factorial2", "binomial", "series", "dots"}


def is_discrete(node: Node) -> bool:
    """Whether the letters of an expression are to be natural numbers: under factorials, bounds of sums, (-1)^n."""
    if has_kind(node, DISCRETE):
        return True
    if node.kind == "power" and node.args[0].kind == "negative" and letters_of(node.args[1]):
        return True
    if (
        node.kind == "function"
        and node.data in ("floor", "ceil")
        and letters_of(node)
        and letters_of(node) <= {"n", "m", "k"}
    ):
        return True
    return any(is_discrete(child) for child in node.args)


def assignments(names: Iterable[str], discrete: bool) -> Iterator[dict[str, Number]]:
    """Values for letters: the same for the same letters, so that verdicts do not depend on chance."""
    ordered = sorted(names)
    numbers = random.Random(repr(ordered))
    for index in range(4 * POINTS):
        if discrete:
            yield {name: Fraction(numbers.randint(2, 9) + index // 3) for name in ordered}
        else:
            sign = -1 if index % 3 == 2 else 1
            yield {
                name: sign * Fraction(numbers.randint(100, 2000), 700) * numbers.choice((1, 1, sign))
                for name in ordered
            }


def same_expression(first: Node, second: Node, discrete: bool | None = None) -> bool | None:
    """Whether two expressions have the same value wherever both have one; None where that cannot be found out."""
    names = letters_of(first) | letters_of(second)
    if not names:
        return same_constant(first, second)
    if discrete is None:
        discrete = is_discrete(first) or is_discrete(second)
    complex_is_meant = has_constant_i(first) or has_constant_i(second)
    agreed = 0
    for kind in (discrete, True) if has_steps(first) or has_steps(second) else (discrete,):
        points = 0
        for letters in assignments(names, kind):
            try:
                left, right = value(first, letters), value(second, letters)
            except Unknown:
                continue
            if not complex_is_meant and not (is_real(left) and is_real(right)):
                continue  # outside the domain of one of them
            if not same_value(left, right) and not near_zero(left, right):
                return False
            points += 1
            if points == POINTS:
                break
        agreed += points
    return True if agreed >= 3 else None


def is_confirmed(first: Node, second: Node) -> bool:
    """Whether two values that agree to DIGITS still do with CONFIRMING_DIGITS."""
    context.dps = CONFIRMING_DIGITS
    try:
        return same_value(value(first), value(second), CONFIRMING_DIGITS - 20)
    except Unknown:
        return True
    finally:
        context.dps = DIGITS


def has_steps(node: Node) -> bool:
    """Whether an expression has floors or ceilings: integers are where those differ that agree elsewhere."""
    return (node.kind == "function" and node.data in ("floor", "ceil")) or any(map(has_steps, node.args))


def near_zero(left: Number, right: Number) -> bool:
    return max(abs(inexact(left)), abs(inexact(right))) < context.mpf(10) ** (-DIGITS + 12)


def has_constant_i(node: Node) -> bool:
    return (node.kind == "constant" and node.data == "i") or any(has_constant_i(child) for child in node.args)


def same_constant(first: Node, second: Node) -> bool | None:
    """As same_expression, without letters. A bare log may be natural or decimal: beside an ln it has to hold for both."""
    natural = equal_constants(first, second)
    logarithms = [{name for name in ("log", "ln") if has_function(node, name)} for node in (first, second)]
    if "log" not in logarithms[0] | logarithms[1]:
        return natural
    decimal = equal_constants(decimal_logarithms(first), decimal_logarithms(second))
    if logarithms in ([{"log"}, {"ln"}], [{"ln"}, {"log"}]):
        return decimal if natural else natural
    return decimal or natural


def has_function(node: Node, name: str) -> bool:
    is_it = node.kind == "function" and node.data == name and len(node.args) == 1
    return is_it or any(has_function(child, name) for child in node.args)


def decimal_logarithms(node: Node) -> Node:
    """The tree with log as log₁₀ where it has no base."""
    data = "lg" if node.kind == "function" and node.data == "log" and len(node.args) == 1 else node.data
    return Node(node.kind, tuple(map(decimal_logarithms, node.args)), data)


def equal_constants(first: Node, second: Node) -> bool | None:
    try:
        left, right = value(first), value(second)
    except Unknown:
        return None
    if same_value(left, right):
        is_exact = isinstance(left, Fraction) and isinstance(right, Fraction)
        return is_exact or has_kind(first, {"series"}) or has_kind(second, {"series"}) or is_confirmed(first, second)
    if not isinstance(left, Fraction) or not isinstance(right, Fraction):
        tiny = context.mpf(10) ** (-DIGITS + 12)
        if (
            all(not number or size_in_bits(number) < 0 for number in (left, right))
            and max(abs(inexact(left)), abs(inexact(right))) < tiny
        ):
            return is_zero_of_noise(first, {}) and is_zero_of_noise(second, {})
    return False
