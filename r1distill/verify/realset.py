"""Sets of real numbers as unions of intervals: of intervals, inequalities, set-builders, ℝ without points."""

from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from r1distill.verify.expressions import same_value
from r1distill.verify.nodes import Answer, Node, letters_of, number_node
from r1distill.verify.numeric import Unknown, context, inexact, is_real, value

Bound = Any  # Fraction, a number of `context`, or ±infinity as a float
MAX_MEMBERS = 60
INFINITY = float("inf")
FLIPPED = {"<": ">", ">": "<", "≤": "≥", "≥": "≤"}


@dataclass(frozen=True)
class Interval:
    low: Bound
    high: Bound
    has_low: bool
    has_high: bool


@dataclass(frozen=True)
class RealSet:
    """Disjoint intervals in their order. `letter` is the name of what lies in the set, "" where it has none."""

    intervals: tuple[Interval, ...]
    letter: str = ""

    def is_everything(self) -> bool:
        return len(self.intervals) == 1 and self.intervals[0].low == -INFINITY and self.intervals[0].high == INFINITY

    def same_as(self, other: "RealSet") -> bool:
        ours, theirs = merged(self.intervals), merged(other.intervals)
        return len(ours) == len(theirs) and all(
            same_bound(one.low, two.low)
            and same_bound(one.high, two.high)
            and (one.has_low == two.has_low or is_infinite(one.low))
            and (one.has_high == two.has_high or is_infinite(one.high))
            for one, two in zip(ours, theirs, strict=True)
        )


def real_set(answer: Answer, tuples: bool = False) -> RealSet | None:
    """The set an answer describes, None if it describes none. `tuples`: whether a pair in brackets is an interval."""
    try:
        sets = [of_node(item, tuples or half_open(item) or is_unbounded(item)) for item in answer.items]
        if len(sets) == 1:
            return sets[0]
        found = [each for each in sets if each is not None]
        if len(found) != len(sets) or len({each.letter for each in found}) > 1:
            return None
        if "and" in answer.separators and "or" not in answer.separators:
            return intersect_all(found)
        if "or" in answer.separators or all(item.kind == "relation" for item in answer.items):
            everything = tuple(interval for each in found for interval in each.intervals)
            if "or" not in answer.separators:  # x > 1, x ≠ 2: both, where one of them is no plain alternative
                return intersect_all(found)
            return RealSet(merged(everything), found[0].letter)
    except Unknown:
        return None
    return None


def half_open(node: Node) -> bool:
    return node.kind == "tuple" and node.data in ("(]", "[)") and len(node.args) == 2


def is_unbounded(node: Node) -> bool:
    return node.kind == "tuple" and len(node.args) == 2 and any(is_infinity(part) for part in node.args)


def is_infinity(node: Node) -> bool:
    inner = node.args[0] if node.kind == "negative" else node
    return inner.kind == "constant" and inner.data == "infinity"


def of_node(node: Node, tuples: bool) -> RealSet | None:
    if node.kind == "labelled":
        return of_node(node.args[0], tuples)
    if node.kind == "tuple" and tuples and len(node.args) == 2:
        low, high = bound(node.args[0]), bound(node.args[1])
        if not less(low, high):
            return None
        return RealSet((Interval(low, high, node.data[0] == "[", node.data[1] == "]"),))
    if node.kind == "named":
        return named(node.data)
    if node.kind == "phrase":
        return named("R") if node.data == "reals" else None
    if node.kind in ("union", "intersection", "difference"):
        return combined(node)
    if node.kind == "builder":
        return builder(node)
    if node.kind == "relation":
        return relation(node)
    return None


def named(name: str) -> RealSet | None:
    if name == "R":
        return RealSet((Interval(-INFINITY, INFINITY, False, False),))
    if name in ("R+", "0R+"):
        return RealSet((Interval(Fraction(0), INFINITY, False, False),))
    return None


def combined(node: Node) -> RealSet | None:
    left = of_node(node.args[0], True)
    if left is None:
        return None
    right_node = node.args[1]
    if node.kind == "difference" or right_node.kind == "set":
        if right_node.kind != "set":
            return None
        points = [bound(part) for part in right_node.args]
        if node.kind == "difference":
            return intersect_all([left, *(without(point) for point in points)])
        extra = tuple(Interval(point, point, True, True) for point in points)
        return RealSet(merged(left.intervals + extra)) if node.kind == "union" else None
    right = of_node(right_node, True)
    if right is None:
        return None
    if node.kind == "union":
        return RealSet(merged(left.intervals + right.intervals), left.letter)
    return intersect_all([left, right])


def without(point: Bound) -> RealSet:
    return RealSet((Interval(-INFINITY, point, False, False), Interval(point, INFINITY, False, False)))


def builder(node: Node) -> RealSet | None:
    parts = [of_node(condition, True) for condition in node.args]
    found = [part for part in parts if part is not None]
    if len(found) != len(parts):
        return None
    return RealSet(intersect_all(found).intervals)


def relation(node: Node) -> RealSet | None:
    """x > 1, 1 < x ≤ 5, x ≠ 2, |x| > 1, x ∈ (1, 2)."""
    if node.data == ("∈",):
        inner = of_node(node.args[1], True)
        if inner is None or node.args[0].kind != "letter":
            return None
        return RealSet(inner.intervals, node.args[0].data)
    operands, signs = node.args, node.data
    if not set(signs) <= {"<", ">", "≤", "≥", "≠"}:
        return None
    names = [index for index, operand in enumerate(operands) if letters_of(operand)]
    if len(names) != 1:
        return None
    index = names[0]
    name = operands[index]
    if signs == ("≠",) and name.kind == "letter" and operands[1 - index].kind == "plusminus":
        point = operands[1 - index].args[0]
        points = without(bound(point)), without(bound(Node("negative", (point,))))
        return RealSet(intersect_all(list(points)).intervals, name.data)
    if signs == ("≠",):
        return RealSet(without(bound(operands[1 - index])).intervals, name.data) if name.kind == "letter" else None
    if "≠" in signs:
        return None
    if name.kind == "function" and name.data == "abs" and name.args[0].kind == "letter" and len(signs) == 1:
        return of_absolute(name.args[0].data, signs[0] if index == 0 else FLIPPED[signs[0]], bound(operands[1 - index]))
    if name.kind != "letter":
        return None
    whole = Interval(-INFINITY, INFINITY, False, False)
    for position, sign in enumerate(signs):
        if position == index:  # letter, sign, bound
            whole = narrowed(whole, sign, bound(operands[position + 1]))
        elif position + 1 == index:
            whole = narrowed(whole, FLIPPED[sign], bound(operands[position]))
        else:
            return None
    if not less(whole.low, whole.high):
        return None
    return RealSet((whole,), name.data)


def of_absolute(letter: str, sign: str, limit: Bound) -> RealSet | None:
    if is_infinite(limit) or not less(Fraction(0), limit):
        return None
    closed = sign in ("≤", "≥")
    if sign in ("<", "≤"):
        return RealSet((Interval(-limit, limit, closed, closed),), letter)
    return RealSet((Interval(-INFINITY, -limit, False, closed), Interval(limit, INFINITY, closed, False)), letter)


def narrowed(interval: Interval, sign: str, limit: Bound) -> Interval:
    if sign in (">", "≥"):
        return Interval(limit, interval.high, sign == "≥", interval.has_high)
    return Interval(interval.low, limit, interval.has_low, sign == "≤")


def bound(node: Node) -> Bound:
    if is_infinity(node):
        return -INFINITY if node.kind == "negative" else INFINITY
    number = value(node)
    if not is_real(number):
        raise Unknown("a bound that is not real")
    return number if isinstance(number, Fraction) else number.real


def is_infinite(limit: Bound) -> bool:
    return isinstance(limit, float)


def same_bound(one: Bound, two: Bound) -> bool:
    if is_infinite(one) or is_infinite(two):
        return one is two or (is_infinite(one) and is_infinite(two) and one == two)
    return same_value(one, two)


def less(one: Bound, two: Bound) -> bool:
    if is_infinite(one) or is_infinite(two):
        return (one if is_infinite(one) else 0.0) < (two if is_infinite(two) else 0.0)
    if isinstance(one, Fraction) and isinstance(two, Fraction):
        return one < two
    return bool(inexact(one) < inexact(two)) and not same_value(one, two)


def merged(intervals: tuple[Interval, ...]) -> tuple[Interval, ...]:
    """Sorted, with those that touch put together."""
    if len(intervals) > 50:
        raise Unknown("more than 50 intervals")
    ordered = sorted(intervals, key=lambda interval: (as_float(interval.low), not interval.has_low))
    result: list[Interval] = []
    for interval in ordered:
        last = result[-1] if result else None
        if last is not None and (less(interval.low, last.high) or touches(last, interval)):
            high_wins = less(last.high, interval.high)
            has_high = (
                interval.has_high
                if high_wins
                else last.has_high or (same_bound(last.high, interval.high) and interval.has_high)
            )
            result[-1] = Interval(last.low, interval.high if high_wins else last.high, last.has_low, has_high)
        else:
            result.append(interval)
    return tuple(result)


def touches(last: Interval, interval: Interval) -> bool:
    return same_bound(last.high, interval.low) and (last.has_high or interval.has_low)


def as_float(limit: Bound) -> Any:
    return context.mpf(limit) if is_infinite(limit) else inexact(limit)


def intersect_all(sets: list[RealSet]) -> RealSet:
    result = sets[0].intervals
    for other in sets[1:]:
        result = tuple(
            part for one in result for two in other.intervals if (part := intersection(one, two)) is not None
        )
        if len(result) > 50:
            raise Unknown("more than 50 intervals")
    return RealSet(merged(result), next((each.letter for each in sets if each.letter), ""))


def intersection(one: Interval, two: Interval) -> Interval | None:
    if less(one.low, two.low) or (same_bound(one.low, two.low) and not two.has_low):
        low, has_low = two.low, two.has_low
    else:
        low, has_low = one.low, one.has_low
    if less(two.high, one.high) or (same_bound(one.high, two.high) and not two.has_high):
        high, has_high = two.high, two.has_high
    else:
        high, has_high = one.high, one.has_high
    if less(low, high) or (same_bound(low, high) and has_low and has_high):
        return Interval(low, high, has_low, has_high)
    return None


def integers_of(node: Node) -> Node | None:
    """{x ∈ ℤ : |x| ≤ 1} as the set of its members, None where it is none, or has more than MAX_MEMBERS."""
    heads = [
        part for part in node.args if part.kind == "relation" and part.data == ("∈",) and part.args[1].kind == "named"
    ]
    others = [part for part in node.args if part not in heads]
    if len(heads) != 1 or heads[0].args[1].data not in ("Z", "N", "Z+", "N+") or not others:
        return None
    try:
        found = [of_node(part, True) for part in others]
        sets = [each for each in found if each is not None]
        if len(sets) != len(found):
            return None
        members: list[Node] = []
        for interval in intersect_all(sets).intervals:
            if is_infinite(interval.low) or is_infinite(interval.high) or interval.high - interval.low > MAX_MEMBERS:
                return None
            low, high = inexact(interval.low), inexact(interval.high)
            for n in range(int(context.ceil(low)), int(context.floor(high)) + 1):
                inside = (n > low or interval.has_low) and (n < high or interval.has_high)
                if inside and (heads[0].args[1].data == "Z" or n > 0):
                    members.append(number_node(str(abs(n)), negative=n < 0))
    except Unknown:
        return None
    return Node("set", tuple(members))
