"""Whether two items of answers are the same thing: two values, tuples, sets, quantities, equations.

True and False are sure; None is left to others. The gold item comes first where the order matters: what it leaves open (a
unit, a name), the other may add.
"""

import itertools
from collections.abc import Iterable, Sequence
from fractions import Fraction
from typing import Any

from r1distill.verify.arrangements import UNIT_VECTORS, arrangement, is_line, is_matrix
from r1distill.verify.equations import definition, is_graph, is_name, same_curve, single_equation, solves
from r1distill.verify.expressions import same_expression
from r1distill.verify.nodes import Node, Verdict, is_scalar, letters_of, number_node
from r1distill.verify.numeric import Unknown, context, inexact, value
from r1distill.verify.phrases import same_phrase
from r1distill.verify.plain import LEAST_DIGITS, is_periodic
from r1distill.verify.realset import integers_of
from r1distill.verify.units import measure

LEAST_DIGITS_OF_IRRATIONALS = 8  # 3.1416 is also a rounded 355/113
MAX_ITEMS = 60


def signs(node: Node) -> list[Node]:
    """The values of an expression with ±: linked where ∓ stands beside it, else each sign for itself."""
    count = count_signs(node)
    if not count:
        return [node]
    if count > 4:
        return [node]
    linked = has_sign(node, "∓")
    choices = [(True,) * count, (False,) * count] if linked else list(itertools.product((True, False), repeat=count))
    found: list[Node] = []
    for choice in choices:
        variant = with_signs(node, iter(choice))
        if variant not in found:
            found.append(variant)
    return found


def count_signs(node: Node) -> int:
    return (node.kind == "plusminus") + sum(map(count_signs, node.args))


def has_sign(node: Node, sign: str) -> bool:
    return (node.kind == "plusminus" and node.data == sign) or any(has_sign(child, sign) for child in node.args)


def with_signs(node: Node, choice: Any) -> Node:
    if node.kind == "plusminus":
        positive = next(choice) == (node.data == "±")
        inner = with_signs(node.args[0], choice)
        return inner if positive else Node("negative", (inner,))
    if not node.args:
        return node
    return Node(node.kind, tuple(with_signs(child, choice) for child in node.args), node.data)


def same_multiset(ours: list[Node], theirs: list[Node]) -> Verdict:
    """Whether each of ours has its own one among theirs, repeated ones counted once."""
    ours, theirs = distinct(ours), distinct(theirs)
    if has_dots(ours) or has_dots(theirs):
        return same_ellipsis(ours, theirs)
    if len(ours) != len(theirs):
        return False
    left = list(theirs)
    for mine in ours:
        verdicts = [same_item(mine, other) for other in left]
        if True not in verdicts:
            return None if None in verdicts else False
        left.pop(verdicts.index(True))
    return True


def distinct(nodes: list[Node]) -> list[Node]:
    kept: list[Node] = []
    for node in nodes:
        if node.kind == "dots" or not any(
            node == other or (node.kind != "relation" and same_item(node, other)) for other in kept
        ):
            kept.append(node)
    return kept


def has_dots(nodes: Sequence[Node]) -> bool:
    return any(node.kind == "dots" for node in nodes)


def same_ellipsis(ours: list[Node], theirs: list[Node]) -> Verdict:
    """1, 2, …, n: the same beginnings and the same end, of arithmetic progressions; how many are written may differ."""
    if not (has_dots(ours) and has_dots(theirs)):
        return None
    first, second = progression(ours), progression(theirs)
    if first is None or second is None:
        return ours == theirs or None
    return every(same_expression(one, two) for one, two in zip(first, second, strict=True))


def progression(nodes: list[Node]) -> tuple[Node, Node, Node] | None:
    """(first, step, last) of 1, 2, …, n; None where the written ones are not evenly spaced."""
    at = next(i for i, node in enumerate(nodes) if node.kind == "dots")
    before, after = nodes[:at], nodes[at + 1 :]
    if len(before) < 2 or not after or any(not is_scalar(node) for node in (*before, *after)):
        return None
    step = Node("sum", (before[1], Node("negative", (before[0],))))
    for one, two in itertools.pairwise(before):
        if not same_expression(Node("sum", (two, Node("negative", (one,)))), step):
            return None
    return before[0], step, after[-1]


# ---------------------------------------------------------------- rules on items


def same_item(gold: Node, answer: Node, discrete: bool | None = None) -> Verdict:
    """Whether two items are the same thing: a value, a tuple, a set, an equation."""
    if gold == answer:
        return True
    gold, answer = unwrapped(gold), unwrapped(answer)
    if gold.kind in ("quantity", "quantities") or answer.kind in ("quantity", "quantities"):
        return same_quantity(gold, answer)
    if gold.kind == "relation" or answer.kind == "relation":
        return same_relation(gold, answer, discrete)
    if gold.kind == answer.kind == "phrase":
        return gold.data == answer.data
    if gold.kind == answer.kind == "words":
        return same_phrase(gold.data, answer.data)
    if "restricted" in (gold.kind, answer.kind):
        return gold.kind == answer.kind and gold.data == answer.data and same_item(gold.args[0], answer.args[0])
    if gold.kind != "set" and answer.kind == "set" and has_sign(gold, "±"):
        gold = Node("set", (gold,))
    if answer.kind != "set" and gold.kind == "set" and has_sign(answer, "±"):
        answer = Node("set", (answer,))
    if gold.kind == answer.kind == "set":
        return same_set(gold, answer)
    if has_sign(gold, "±") or has_sign(answer, "±") or has_sign(gold, "∓") or has_sign(answer, "∓"):
        ours, theirs = signs(gold), signs(answer)
        return same_multiset(ours, theirs) if max(len(ours), len(theirs)) > 1 else None
    if "builder" in (gold.kind, answer.kind):
        listed = [integers_of(node) if node.kind == "builder" else node for node in (gold, answer)]
        return None if None in listed else same_item(listed[0], listed[1])  # type: ignore[arg-type]
    if gold.kind == "set" or answer.kind == "set":
        return same_set(gold, answer)
    if gold.kind == "ratio" or answer.kind == "ratio":
        return same_ratio(gold, answer)
    if any(node.kind == "tuple" or is_matrix(node) or UNIT_VECTORS & letters_of(node) for node in (gold, answer)):
        return same_arrangement(gold, answer)
    if gold.kind in ("congruence", "divides", "named") or answer.kind in ("congruence", "divides", "named"):
        return gold == answer or None
    if is_scalar(gold) and is_scalar(answer):
        return same_scalar(gold, answer, discrete)
    return None


def unwrapped(node: Node) -> Node:
    """Without a label, and an exact value without the approximation beside it."""
    while node.kind == "labelled":
        node = node.args[0]
    if node.kind == "relation" and "≈" in node.data:
        operands = (
            node.args[: node.data.index("≈") + 1] if node.data[0] != "≈" or node.args[0].kind != "letter" else node.args
        )
        signs_left = node.data[: len(operands) - 1]
        if len(operands) == 1:
            return operands[0]
        if set(signs_left) == {"≈"}:
            return operands[1]
        return Node("relation", operands, signs_left)
    return node


def same_scalar(gold: Node, answer: Node, discrete: bool | None = None) -> Verdict:
    names = letters_of(gold), letters_of(answer)
    if names[0] != names[1] and not (names[0] and names[1]) and (names[0] | names[1]):
        verdict = same_expression(gold, answer, discrete)
        return verdict if verdict else False
    if gold.kind == "degrees" or answer.kind == "degrees":
        return same_angle(gold, answer)
    if gold.kind == "percent" or answer.kind == "percent":
        return same_percent(gold, answer)
    if gold.kind == "based" or answer.kind == "based":
        return same_based(gold, answer)
    if names[0] or names[1]:
        return same_expression(gold, answer, discrete)
    verdict = same_expression(gold, answer)
    return True if verdict is False and is_rounding(gold, answer) else verdict


def same_based(gold: Node, answer: Node) -> Verdict:
    if gold.kind == answer.kind:
        return gold.data == answer.data or (gold.data[1] != answer.data[1] and same_expression(gold, answer))
    based, other = (gold, answer) if gold.kind == "based" else (answer, gold)
    if other.kind == "number" and gold.kind == "based":
        return str(other.data[0]) == based.data[0]  # the base left out
    return same_expression(gold, answer)


def same_angle(gold: Node, answer: Node) -> Verdict:
    if gold.kind == answer.kind:
        return same_expression(gold.args[0], answer.args[0])
    angle, other = (gold, answer) if gold.kind == "degrees" else (answer, gold)
    return True if same_expression(angle.args[0], other) else same_expression(angle, other)


def same_percent(gold: Node, answer: Node) -> Verdict:
    """50 % is 0.5 and 1/2; with its sign left out it is 50, where that cannot be taken for a share."""
    if same_expression(gold, answer):
        return True
    if gold.kind == answer.kind:
        return False
    percent, other = (gold, answer) if gold.kind == "percent" else (answer, gold)
    try:
        is_share = abs(inexact(value(percent.args[0]))) < 1
    except Unknown:
        return None
    return False if is_share else bool(same_expression(percent.args[0], other))


def is_rounding(first: Node, second: Node) -> bool:
    """Whether one is a decimal of at least LEAST_DIGITS digits, and the rounded value of the other, which no decimal is.

    85.71 stands for 600/7; an irrational number needs LEAST_DIGITS_OF_IRRATIONALS: too much else begins like 3.14. Where
    the gold answer is the rounded one, whoever knows more than it says is right.
    """
    for decimal, exact in ((first, second), (second, first)):
        sign = -1 if decimal.kind == "negative" else 1
        number = decimal.args[0] if decimal.kind == "negative" else decimal
        if number.kind != "number" or number.data[1] < LEAST_DIGITS or decimal_inside(exact):
            continue
        try:
            true = value(exact)
        except Unknown:
            continue
        if isinstance(true, Fraction) and not is_periodic(true):
            continue
        is_gold = decimal is first
        if not isinstance(true, Fraction) and number.data[1] < (
            LEAST_DIGITS if is_gold else LEAST_DIGITS_OF_IRRATIONALS
        ):
            continue
        places = decimal_places(number)
        difference = abs(inexact(true) - sign * inexact(number.data[0]))
        if difference <= context.mpf(10) ** -places * context.mpf("0.5000001"):
            return True
    return False


def decimal_places(number: Node) -> int:
    whole = abs(number.data[0]).numerator // abs(number.data[0]).denominator
    return number.data[1] - (len(str(whole)) if whole else 0) + leading_zeros(number)


def leading_zeros(number: Node) -> int:
    size, zeros = abs(number.data[0]), 0
    while 0 < size < Fraction(1, 10) and zeros < 1000:
        size, zeros = size * 10, zeros + 1
    return zeros


def decimal_inside(node: Node) -> bool:
    return (node.kind == "number" and node.data[1] > 0) or any(map(decimal_inside, node.args))


def same_quantity(gold: Node, answer: Node) -> Verdict:
    ours, theirs = quantity(gold), quantity(answer)
    if ours is None or theirs is None:
        return None
    if not theirs[1]:
        theirs = unit_in_letters(theirs[0]) or theirs
    (first, first_unit), (second, second_unit) = ours, theirs
    if not first_unit or not second_unit:
        bare = first if not first_unit else second
        return False if bare.kind in ("degrees", "percent") else same_item(first, second)
    left, right = measure(first_unit), measure(second_unit)
    if left is not None and right is not None:
        if not left[0] or not right[0]:
            return same_item(first, second)  # 5 units
        if left[0] != right[0]:
            return False
        return same_item(scaled(first, left[1]), scaled(second, right[1]))
    if left is not None or right is not None:
        return False if same_item(first, second) is False else None
    return same_item(first, second) if singular(first_unit) == singular(second_unit) else False


def singular(unit: str) -> str:
    return " ".join(word.rstrip("s") for word in unit.lower().split() if word not in ("of", "the"))


def scaled(node: Node, factor: Fraction) -> Node:
    if factor == 1:
        return node
    fraction = Node("quotient", (number_node(str(factor.numerator)), number_node(str(factor.denominator))))
    return Node("product", (node, fraction))


def quantity(node: Node) -> tuple[Node, str] | None:
    """(the value, its unit) of a quantity, of 1 h 30 min in its first unit; without a unit, ""."""
    if node.kind == "quantity":
        return unwrapped(node.args[0]), node.data
    if node.kind == "relation" and node.data == ("=",) and node.args[0].kind in ("letter", "call"):
        return quantity(node.args[1])
    if node.kind == "quantities":
        first, rest = quantity(node.args[0]), quantity(node.args[1])
        if first is None or rest is None:
            return None
        units = measure(first[1]), measure(rest[1])
        if units[0] is None or units[1] is None or units[0][0] != units[1][0]:
            return None
        return Node("sum", (first[0], scaled(rest[0], units[1][1] / units[0][1]))), first[1]
    return node, ""


def unit_in_letters(node: Node) -> tuple[Node, str] | None:
    """(203, "m^2") of a bare 203 m^2, which is a product of letters where nothing speaks of units."""
    if node.kind not in ("product", "quotient") or letters_of(node.args[0]) - {"m", "s", "h", "g"}:
        return None
    if node.kind == "quotient":
        inner = unit_in_letters(node.args[0])
        below = unit_letters(node.args[1])
        return (inner[0], f"{inner[1]}/{below}") if inner and below else None
    unit = unit_letters(node.args[1])
    return (node.args[0], unit) if unit and not letters_of(node.args[0]) else None


def unit_letters(node: Node) -> str | None:
    if node.kind == "letter" and measure(node.data) is not None:
        return node.data
    if node.kind == "power" and node.args[1].kind == "number" and (base := unit_letters(node.args[0])):
        return f"{base}^{node.args[1].data[0]}"
    return None


def same_ratio(gold: Node, answer: Node) -> Verdict:
    if gold.kind == answer.kind:
        if len(gold.args) != len(answer.args):
            return False
        first, *rest = zip(gold.args, answer.args, strict=True)
        products = ((Node("product", (first[0], b)), Node("product", (a, first[1]))) for a, b in rest)
        return every(same_expression(one, two) for one, two in products)
    return same_expression(gold, answer) if is_scalar(gold) or is_scalar(answer) else None


def same_set(gold: Node, answer: Node) -> Verdict:
    if gold.kind == answer.kind:
        expanded = [[each for part in node.args for each in signs(part)] for node in (gold, answer)]
        return same_multiset(*expanded) if max(map(len, expanded)) <= MAX_ITEMS else None
    one, other = (gold, answer) if gold.kind == "set" else (answer, gold)
    if other.kind == "tuple":
        return False
    if len(one.args) == 1 and is_scalar(other):
        return same_item(one.args[0], other)
    return False if is_scalar(other) else None


def same_arrangement(gold: Node, answer: Node) -> Verdict:
    """Tuples, vectors and matrices: the same shape, and the same entry at every place."""
    ours, theirs = arrangement(gold), arrangement(answer)
    if ours is None or theirs is None:
        return False if is_scalar(gold) != is_scalar(answer) else None
    (rows, cells), (other_rows, other_cells) = ours, theirs
    if UNIT_VECTORS & (letters_of(gold) | letters_of(answer)):  # i + j lies in space where the other has three parts
        zeros = (number_node("0"),) * abs(len(cells) - len(other_cells))
        cells, other_cells = ((*part, *zeros[: 3 - len(part)]) if zeros else part for part in (cells, other_cells))
    if len(cells) != len(other_cells) or (rows != other_rows and 1 not in (rows, len(cells) // rows)):
        return False
    if rows != other_rows and not (is_line(rows, cells) and is_line(other_rows, other_cells)):
        return False
    if gold.kind == answer.kind == "tuple" and len(cells) == 2 and gold.data != answer.data:
        return False  # (1, 2) is no [1, 2]
    if has_dots(cells) or has_dots(other_cells):
        return cells == other_cells or None
    return every(same_item(one, two) for one, two in zip(cells, other_cells, strict=True))


def same_relation(gold: Node, answer: Node, discrete: bool | None) -> Verdict:
    """Equations: of the same name, the same value; else the same curve."""
    ours, theirs = definition(gold, answer), definition(answer, gold)
    if ours is not None and theirs is not None:
        (name, node), (other_name, other) = ours, theirs
        if name and other_name and name != other_name and not is_graph(gold, answer):
            are_curves = single_equation(gold) and single_equation(answer) and letters_of(gold) == letters_of(answer)
            return same_curve(gold, answer) if are_curves else False
        if contradicts(gold) or contradicts(answer):
            return False
        return same_item(node, other, discrete)
    if single_equation(gold) and single_equation(answer):
        return True if solves(gold, answer) or solves(answer, gold) else same_curve(gold, answer)
    if (gold.kind == "relation") != (answer.kind == "relation"):
        return False if is_scalar(gold) or is_scalar(answer) else None
    return None


def contradicts(node: Node) -> bool:
    """Whether a chain a = b = c is not true: then it says two things."""
    if node.kind != "relation" or set(node.data) != {"="}:
        return False
    values = node.args[1:] if node.args[0].kind in ("letter", "call") or is_name(node.args[0]) else node.args
    if letters_of(node) and len(node.args) == 2:
        return False
    return any(
        is_scalar(one) and is_scalar(two) and same_scalar(one, two) is False for one, two in itertools.pairwise(values)
    )


def every(verdicts: Iterable[Verdict]) -> Verdict:
    """True if all are, False if one is, None if one is not known."""
    result: Verdict = True
    for verdict in verdicts:
        if verdict is False:
            return False
        if verdict is None:
            result = None
    return result
