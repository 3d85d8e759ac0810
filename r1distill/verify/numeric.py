"""The value of an expression: exact where it is rational, else to 60 digits. Bounded: no answer costs more than moments.

Rational arithmetic is exact below MAX_BITS. What would be larger, a tower of powers for one, raises Unknown: two numbers
that agree in their first digits are not the same number.
"""

import math
import operator
from collections.abc import Mapping
from fractions import Fraction
from typing import Any

import mpmath
from mpmath.libmp import NoConvergence

from r1distill.verify.nodes import Node, has_kind

DIGITS = 60
MAX_BITS = 60_000
MAX_FACTORIAL = 3_000
MAX_TERMS = 2_000
MAX_EXPONENT_BITS = 4_000  # of a number that is not exact: beyond, its digits say nothing of it
context = mpmath.mp.clone()
context.dps = DIGITS

Number = Any  # Fraction, or mpf or mpc of `context`


class Unknown(Exception):
    """The expression has no value here: a letter without one, a division by zero, something too large."""


def value(node: Node, letters: Mapping[str, Number] | None = None) -> Number:
    """The value of an expression, given those of its letters. Raises Unknown."""
    try:
        return evaluate(node, letters or {})
    except (ZeroDivisionError, ValueError, OverflowError, TypeError, NoConvergence) as error:
        raise Unknown(str(error)) from None


def evaluate(node: Node, letters: Mapping[str, Number]) -> Number:
    kind = node.kind
    if kind == "number":
        return node.data[0]
    if kind == "letter":
        if node.data not in letters:
            raise Unknown(f"no value for {node.data}")
        return letters[node.data]
    if kind == "constant":
        if node.data == "infinity":
            raise Unknown("infinity")
        return {"pi": context.pi, "e": context.e, "i": context.mpc(0, 1)}[node.data] * context.mpf(1)
    if kind in ("sum", "product") and has_kind(node, {"dots"}):
        return ellipsis(node, letters)
    if kind in SIMPLE:
        return SIMPLE[kind](*(evaluate(child, letters) for child in node.args))
    if kind == "function":
        return function(node, letters)
    if kind == "series":
        return series(node, letters)
    if kind == "cases":
        return piecewise(node, letters)
    if kind == "based":
        return Fraction(int(*node.data))
    if kind == "ratio" and len(node.args) == 2:
        return divide(*(evaluate(child, letters) for child in node.args))
    raise Unknown(f"{kind} has no value")


def inexact(number: Number) -> Number:
    """As a number of `context`. A huge exact one becomes its first digits, which is why it is not allowed to."""
    if isinstance(number, Fraction):
        if max(number.numerator.bit_length(), number.denominator.bit_length()) > MAX_EXPONENT_BITS:
            raise Unknown("too large beside something that is not exact")
        return context.mpf(number.numerator) / number.denominator
    return number


def checked(number: Number) -> Number:
    if isinstance(number, Fraction):
        if max(number.numerator.bit_length(), number.denominator.bit_length()) > MAX_BITS:
            raise Unknown("too large")
        return number
    for part in (number.real, number.imag):
        if not context.isfinite(part) or (part and abs(context.mag(part)) > MAX_EXPONENT_BITS):
            raise Unknown("too large")
    return number


def total(*terms: Number) -> Number:
    if all(isinstance(term, Fraction) for term in terms):
        return checked(sum(terms, Fraction(0)))
    return checked(sum(map(inexact, terms), context.mpf(0)))


def multiply(first: Number, second: Number) -> Number:
    if isinstance(first, Fraction) and isinstance(second, Fraction):
        return checked(first * second)
    return checked(inexact(first) * inexact(second))


def divide(first: Number, second: Number) -> Number:
    if second == 0:
        raise Unknown("division by zero")
    if isinstance(first, Fraction) and isinstance(second, Fraction):
        return checked(first / second)
    return checked(inexact(first) / inexact(second))


def raise_to(base: Number, exponent: Number) -> Number:
    if isinstance(exponent, Fraction) and exponent.denominator == 1 and isinstance(base, Fraction):
        bits = max(base.numerator.bit_length(), base.denominator.bit_length())
        if abs(exponent.numerator) * bits > MAX_BITS and abs(base) not in (0, 1):
            raise Unknown("too large a power")
        if base == 0 and exponent <= 0:
            raise Unknown("a power of zero")
        if abs(base) == 1:
            return base if exponent.numerator % 2 else Fraction(1)
        return base**exponent.numerator
    if base == 0:
        if inexact(exponent).real > 0:
            return Fraction(0)
        raise Unknown("a power of zero")
    size = abs(context.log(abs(inexact(base)))) * abs(inexact(exponent))
    if size > MAX_EXPONENT_BITS:
        raise Unknown("too large a power")
    if (
        isinstance(exponent, Fraction)
        and isinstance(base, Fraction)
        and (exact := exact_root(base, exponent)) is not None
    ):
        return exact
    return checked(context.power(inexact(base), inexact(exponent)))


def exact_root(base: Fraction, exponent: Fraction) -> Fraction | None:
    """8^(2/3) = 4, exactly; None for what is irrational, or negative."""
    degree = exponent.denominator
    if base < 0 or degree > 50:
        return None
    parts = []
    for part in (base.numerator, base.denominator):
        if part.bit_length() > MAX_EXPONENT_BITS:
            return None
        guess = math.isqrt(part) if degree == 2 else round(float(part) ** (1 / degree)) if part < 10**15 else None
        if guess is None or guess**degree != part:
            return None
        parts.append(guess)
    return raise_to(Fraction(parts[0], parts[1]), Fraction(exponent.numerator))


def root(radicand: Number, degree: Number) -> Number:
    if degree == 0:
        raise Unknown("a root of degree 0")
    is_real = isinstance(radicand, Fraction) or not inexact(radicand).imag
    if (
        isinstance(degree, Fraction)
        and degree.denominator == 1
        and degree % 2 == 1
        and is_real
        and inexact(radicand).real < 0
    ):
        return multiply(Fraction(-1), root(multiply(Fraction(-1), radicand), degree))  # the real cube root
    return raise_to(radicand, divide(Fraction(1), degree))


def factorial(number: Number, step: int = 1) -> Number:
    if not isinstance(number, Fraction) or number.denominator != 1 or not 0 <= number <= MAX_FACTORIAL:
        raise Unknown("a factorial of no small natural number")
    n = number.numerator
    return checked(Fraction(math.factorial(n) if step == 1 else math.prod(range(n, 0, -2))))


def choose(top: Number, bottom: Number) -> Number:
    if not (isinstance(bottom, Fraction) and bottom.denominator == 1 and isinstance(top, Fraction)):
        raise Unknown("a binomial of no integers")
    if not 0 <= bottom <= MAX_FACTORIAL:
        return Fraction(0) if bottom < 0 else unknown("a large binomial")
    if top.denominator != 1 or abs(top) > 10 * MAX_FACTORIAL:
        raise Unknown("a binomial of no integers")
    if top < 0:
        n, k = top.numerator, bottom.numerator
        return Fraction((-1) ** k * math.comb(k - n - 1, k))
    return checked(Fraction(math.comb(top.numerator, bottom.numerator)))


def unknown(reason: str) -> Number:
    raise Unknown(reason)


SIMPLE: dict[str, Any] = {
    "sum": total,
    "product": multiply,
    "quotient": divide,
    "negative": lambda number: -number,
    "power": raise_to,
    "root": root,
    "percent": lambda number: divide(number, Fraction(100)),
    "degrees": lambda number: multiply(number, context.pi / 180),
    "factorial": factorial,
    "factorial2": lambda number: factorial(number, 2),
    "binomial": choose,
}


def real(number: Number) -> Number:
    number = number if isinstance(number, Fraction) else context.mpmathify(number)
    if not isinstance(number, Fraction) and number.imag:
        if abs(number.imag) > context.mpf(10) ** (-DIGITS + 8) * (1 + abs(number)):
            raise Unknown("not real")
        return number.real
    return number


def round_to(number: Number, upwards: bool) -> Number:
    number = real(number)
    if isinstance(number, Fraction):
        return Fraction(math.ceil(number) if upwards else math.floor(number))
    nearest = context.nint(number)
    if abs(number - nearest) < context.mpf(10) ** (-DIGITS + 10) * (1 + abs(number)):
        return Fraction(int(nearest))
    return Fraction(int(context.ceil(number) if upwards else context.floor(number)))


def function(node: Node, letters: Mapping[str, Number]) -> Number:
    name = node.data
    if name == "det":
        return determinant(node.args[0], letters)
    arguments = [evaluate(child, letters) for child in node.args]
    if name == "abs":
        number = arguments[0]
        return abs(number) if isinstance(number, Fraction) else checked(abs(number))
    if name in ("floor", "ceil"):
        return round_to(arguments[0], name == "ceil")
    if name in ("max", "min"):
        reals = [real(number) for number in arguments]
        return (max if name == "max" else min)(reals, key=inexact)
    if name in ("gcd", "lcm"):
        if not all(isinstance(number, Fraction) and number.denominator == 1 for number in arguments):
            raise Unknown(f"{name} of no integers")
        return Fraction((math.gcd if name == "gcd" else math.lcm)(*(number.numerator for number in arguments)))
    if name == "sgn":
        number = inexact(real(arguments[0]))
        return Fraction((number > 0) - (number < 0))
    first = arguments[0]
    if name in ("ln", "log", "lg"):
        base = arguments[1] if len(arguments) > 1 else Fraction(10) if name == "lg" else None
        return logarithm(first, base)
    if name == "exp":
        return raise_to(context.e * context.mpf(1), first)
    if name == "cis":
        return context.expj(inexact(first))
    if len(arguments) != 1 or name not in ELEMENTARY:
        raise Unknown(f"the function {name}")
    number = inexact(first)
    if abs(number) > 10**9:
        raise Unknown("too large an angle")
    result = ELEMENTARY[name](number)
    if abs(result) > context.mpf(10) ** 30:  # tan 90°
        raise Unknown("not defined there")
    return checked(result)


ELEMENTARY: dict[str, Any] = {
    "sin": context.sin, "cos": context.cos, "tan": context.tan, "cot": context.cot, "sec": context.sec, "csc": context.csc,
    "arcsin": context.asin, "arccos": context.acos, "arctan": context.atan, "arccot": lambda x: context.pi / 2 - context.atan(x),
    "sinh": context.sinh, "cosh": context.cosh, "tanh": context.tanh, "coth": context.coth,
}  # fmt: skip


def logarithm(number: Number, base: Number | None) -> Number:
    if number == 0:
        raise Unknown("the logarithm of zero")
    top = context.log(inexact(number))
    if base is None:
        return top
    bottom = context.log(inexact(base))
    if not bottom:
        raise Unknown("a logarithm to base 1")
    return top / bottom


def determinant(matrix: Node, letters: Mapping[str, Number]) -> Number:
    if matrix.kind != "matrix" or matrix.data[0] != matrix.data[1] or matrix.data[0] > 4:
        raise Unknown("a determinant of no small square matrix")
    cells = [evaluate(cell, letters) for cell in matrix.args]
    size = matrix.data[0]
    return minor([cells[row * size : (row + 1) * size] for row in range(size)])


def minor(rows: list[list[Number]]) -> Number:
    if len(rows) == 1:
        return rows[0][0]
    result: Number = Fraction(0)
    for column, cell in enumerate(rows[0]):
        term = multiply(cell, minor([[*row[:column], *row[column + 1 :]] for row in rows[1:]]))
        result = total(result, term if column % 2 == 0 else -term)
    return result


def series(node: Node, letters: Mapping[str, Number]) -> Number:
    letter, low_node, high_node, term = node.args
    low = evaluate(low_node, letters)
    if high_node.kind == "constant" and high_node.data == "infinity":
        return infinite(letter.data, low, term, letters, node.data)
    high = evaluate(high_node, letters)
    if not all(isinstance(bound, Fraction) and bound.denominator == 1 for bound in (low, high)):
        raise Unknown("a sum between no integers")
    if high - low > MAX_TERMS:
        raise Unknown(f"a sum of more than {MAX_TERMS} terms")
    result: Number = Fraction(0 if node.data == "sum" else 1)
    for k in range(low.numerator, high.numerator + 1):
        each = evaluate(term, {**letters, letter.data: Fraction(k)})
        result = total(result, each) if node.data == "sum" else multiply(result, each)
    return result


def piecewise(node: Node, letters: Mapping[str, Number]) -> Number:
    for expression, condition in zip(node.args[::2], node.args[1::2], strict=True):
        if holds(condition, letters):
            return evaluate(expression, letters)
    raise Unknown("no case applies")


def holds(condition: Node, letters: Mapping[str, Number]) -> bool:
    if condition.kind == "otherwise":
        return True
    if condition.kind != "relation" or not set(condition.data) <= COMPARED.keys():
        raise Unknown("a condition that cannot be decided")
    values = [inexact(real(evaluate(operand, letters))) for operand in condition.args]
    return all(COMPARED[sign](one, two) for sign, one, two in zip(condition.data, values, values[1:], strict=False))


COMPARED: dict[str, Any] = {
    "<": operator.lt, ">": operator.gt, "≤": operator.le, "≥": operator.ge, "=": operator.eq, "≠": operator.ne,
}  # fmt: skip


def ellipsis(node: Node, letters: Mapping[str, Number]) -> Number:
    """1 + 2 + … + n and 1·3·5⋯(2n−1): the terms go on as the first ones do, in equal steps or by equal factors."""
    terms = flattened(node, node.kind)
    at = next((i for i, term in enumerate(terms) if term.kind == "dots"), -1)
    if at < 2 or at != len(terms) - 2:
        raise Unknown("dots whose meaning is not plain")
    first = [evaluate(term, letters) for term in terms[:at]]
    last = evaluate(terms[-1], letters)
    if not all(isinstance(number, Fraction) for number in (*first, last)):
        raise Unknown("dots between no rational numbers")
    for follow in (
        lambda number: number + first[1] - first[0],
        lambda number: number * first[1] / first[0] if first[0] else None,
    ):
        progression = [first[0]]
        while progression[-1] is not None and progression[-1] != last and len(progression) < MAX_TERMS:
            progression.append(follow(progression[-1]))
        if progression[-1] == last and len(progression) >= at and progression[:at] == first[: len(progression)]:
            return total(*progression) if node.kind == "sum" else checked(math.prod(progression, start=Fraction(1)))
    raise Unknown("dots whose meaning is not plain")


def flattened(node: Node, kind: str) -> list[Node]:
    if node.kind != kind:
        return [node]
    return [part for child in node.args for part in flattened(child, kind)]


def infinite(name: str, low: Number, term: Node, letters: Mapping[str, Number], sign: str) -> Number:
    """By Richardson and Levin extrapolation (mpmath.nsum), to 20 digits and for at most a few hundred terms."""
    if sign != "sum" or not isinstance(low, Fraction) or low.denominator != 1:
        raise Unknown("an infinite product")
    calls = 0

    def each(k: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls > MAX_TERMS:
            raise Unknown("a series that converges slowly")
        return inexact(evaluate(term, {**letters, name: Fraction(int(k))}))

    return context.nsum(each, [low.numerator, context.inf], tol=context.mpf(10) ** -25, maxterms=MAX_TERMS)


# ---------------------------------------------------------------- equality of values


def is_zero_of_noise(node: Node, letters: Mapping[str, Number]) -> bool:
    """Whether a tiny value is rounding alone: with twice the digits it becomes far smaller; e^-500 stays what it is."""
    try:
        before = abs(inexact(value(node, letters)))
        context.dps = 2 * DIGITS
        after = abs(inexact(value(node, letters)))
        return bool(after <= before * context.mpf(10) ** (-DIGITS // 2))
    except Unknown:
        return False
    finally:
        context.dps = DIGITS


def is_real(number: Number) -> bool:
    return isinstance(number, Fraction) or abs(number.imag) <= context.mpf(10) ** (-DIGITS + 10) * (1 + abs(number))
