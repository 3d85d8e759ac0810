"""Whether two answers say the same. True and False are sure; None is left to others (words, Math-Verify).

The gold answer comes first where the order matters at all: what it leaves open (a unit, a name, the order of a list), the
other may add.
"""

import itertools
import re
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any

from r1distill.verify.answer import read
from r1distill.verify.families import same_affine_family, same_integer_family
from r1distill.verify.numeric import (
    Unknown,
    assignments,
    context,
    has_kind,
    inexact,
    is_discrete,
    letters_of,
    same_expression,
    same_value,
    value,
)
from r1distill.verify.phrases import same_phrase
from r1distill.verify.plain import LEAST_DIGITS
from r1distill.verify.realset import real_set
from r1distill.verify.syntax import Answer, Node, Unreadable, number_node
from r1distill.verify.units import measure

MAX_ITEMS = 60
SCALARS = frozenset(
    (
        "number letter constant sum product quotient negative power root percent degrees factorial factorial2 "
        "binomial function series based"
    ).split()
)

Verdict = bool | None


def same_answer(gold: str, answer: str) -> Verdict:
    """Raises Unreadable where one of them is no mathematics."""
    return compare(read(gold), read(answer))


def compare(gold: Answer, answer: Answer) -> Verdict:
    for rule in RULES:
        verdict = rule(gold, answer)
        if verdict is not None:
            return verdict
    return None


# ---------------------------------------------------------------- rules on whole answers


def by_meaning(gold: Answer, answer: Answer) -> Verdict:
    """Phrases, times and dates."""
    ours, theirs = only(gold), only(answer)
    if ours is None or theirs is None:
        return (
            False
            if any(item.kind == "phrase" for item in (ours, theirs) if item is not None) and not families(gold, answer)
            else None
        )
    if ours.kind == theirs.kind and ours.kind in ("phrase", "date"):
        return ours.data == theirs.data
    if ours.kind == theirs.kind == "time":
        (first, first_sure), (second, second_sure) = ours.data, theirs.data
        return first == second if first_sure and second_sure else first % 720 == second % 720
    for one, other in ((ours, theirs), (theirs, ours)):
        if one.kind == "time":
            minutes, _ = one.data
            if other.kind == "relation" and len(other.args) == 2:
                other = other.args[1]
            if other.kind == "ratio" and all(part.kind == "number" for part in other.args):
                hour, minute = (part.data[0] for part in other.args[:2])
                return (hour * 60 + minute) % 720 == minutes % 720 and (hour <= 12 or hour * 60 + minute == minutes)
            return False
        if one.kind == "phrase":
            return phrase_is(one.data, other)
    return None


def phrase_is(said: str, node: Node) -> Verdict:
    if said == "none":
        return (node.kind == "named" and node.data == "empty") or (node.kind == "set" and not node.args)
    if said == "reals":
        found = real_set(Answer((node,)))
        return found is not None and found.is_everything()
    if said == "right angle":
        return node.kind == "degrees" and node.args[0] == number_node("90")
    if said == "identity":
        return node.kind == "relation" and node.args[0].kind == "call" and node.args[1:] == node.args[0].args
    if said == "constant functions":
        return node.kind == "relation" and node.args[0].kind == "call" and node.args[1].kind == "letter"
    if said in ("odd", "even", "squares", "primes"):
        return None
    return False


def by_parts(gold: Answer, answer: Answer) -> Verdict:
    """(a) 3 (b) 4 is ordered; what answers it has to have as many parts in its order."""
    if "parts" not in gold.separators | answer.separators:
        return None
    if len(gold.items) != len(answer.items):
        return False
    return every(same_item(ours, theirs) for ours, theirs in zip(gold.items, answer.items, strict=True))


def by_labels(gold: Answer, answer: Answer) -> Verdict:
    """minimum 2, maximum 7: by their labels, whatever the order; 25 dogs and 10 cats likewise."""
    ours, theirs = labelled(gold), labelled(answer)
    if ours is None or theirs is None:
        return None
    if ours.keys() == theirs.keys():
        return every(same_item(node, theirs[name]) for name, node in ours.items())
    if len(ours) != len(theirs):
        return False
    if matched := match_initials(list(ours), list(theirs)):
        return every(same_item(ours[mine], theirs[other]) for mine, other in matched)
    return None


LABEL_WORDS = {
    "min": "minimum",
    "max": "maximum",
    "smallest": "minimum",
    "largest": "maximum",
    "least": "minimum",
    "greatest": "maximum",
}


def labelled(answer: Answer) -> dict[str, Node] | None:
    """The values by their labels, if every item has one and there are two or more."""
    found: dict[str, Node] = {}
    for item in answer.items:
        if item.kind == "labelled":
            name, node = item.data, item.args[0]
        elif item.kind == "quantity" and measure(item.data) is None:
            name, node = item.data.rstrip("s"), item.args[0]
        elif item.kind == "relation" and item.data == ("=",) and item.args[0].kind in ("letter", "call", "function"):
            name, node = str(item.args[0].data), item.args[1]
        else:
            return None
        name = LABEL_WORDS.get(name, name)
        if name in found:
            return None
        found[name] = node
    return found if len(found) > 1 else None


def match_initials(ours: list[str], theirs: list[str]) -> list[tuple[str, str]] | None:
    """center ~ C, radius ~ r, quotient ~ q: each label is the first letter of the other."""
    pairs = []
    left = list(theirs)
    for mine in ours:
        found = [other for other in left if other[:1].lower() == mine[:1].lower() and min(len(mine), len(other)) == 1]
        if len(found) != 1 or len(mine) == len(found[0]):
            return None
        pairs.append((mine, found[0]))
        left.remove(found[0])
    return pairs


def by_names(gold: Answer, answer: Answer) -> Verdict:
    """x = 1, y = 2 and (x, y) = (1, 2): by their names; without names in the order of a tuple."""
    ours, theirs = named_values(gold), named_values(answer)
    if ours is None and theirs is None:
        return None
    if ours is not None and theirs is not None:
        if ours.keys() != theirs.keys():
            return None
        return every(same_item(node, theirs[name]) for name, node in ours.items())
    names = ours if ours is not None else theirs
    other = answer if ours is not None else gold
    assert names is not None
    plain = tuple_items(other) if len(names) > 1 else None
    if plain is None or len(plain) != len(names):
        return None
    in_order = [node for _, node in sorted(names.items())] if list(names) != sorted(names) else list(names.values())
    pairs = zip(in_order, plain, strict=True)
    return every(same_item(one, two) if ours is not None else same_item(two, one) for one, two in pairs)


def named_values(answer: Answer) -> dict[str, Node] | None:
    """The values by their letters: x = 1, y = 2; (x, y) = (1, 2); x = y = 0. None for anything else."""
    found: dict[str, Node] = {}
    if len(answer.items) == 1 and answer.items[0].kind == "relation":
        item = answer.items[0]
        if item.data == ("=",) and item.args[0].kind == "tuple" and item.args[1].kind == "tuple":
            names, values = item.args[0].args, item.args[1].args
            if len(names) == len(values) and all(name.kind == "letter" for name in names):
                return {name.data: node for name, node in zip(names, values, strict=True)}
            return None
    for item in answer.items:
        if item.kind != "relation" or set(item.data) != {"="} or item.args[0].kind != "letter":
            return None
        for name in item.args[:-1]:
            if name.kind != "letter":
                break
            if name.data in found:
                return None
            found[name.data] = item.args[-1]
    return found if len(found) > 1 else None


def tuple_items(answer: Answer) -> Sequence[Node] | None:
    node = only(answer)
    if node is None:
        return (
            answer.items if all(is_scalar(item) for item in answer.items) and answer.separators <= {",", ";"} else None
        )
    return node.args if node.kind == "tuple" else vector(node)


def by_families(gold: Answer, answer: Answer) -> Verdict:
    """Answers with a letter that runs through the integers or the reals."""
    if not families(gold, answer):
        return None
    for rule in (same_integer_family, same_affine_family):
        verdict = rule(gold, answer)
        if verdict is not None:
            return verdict
    return None


def families(gold: Answer, answer: Answer) -> bool:
    return any(
        each.conditions
        or any(item.kind in ("congruence", "divides") or has_constants(item) for item in each.items)
        or any(item.kind == "phrase" and item.data in ("odd", "even", "squares") for item in each.items)
        for each in (gold, answer)
    )


def has_constants(node: Node) -> bool:
    """Whether a constant of integration may be meant: C, K, C_1."""
    return any(name in ("C", "K", "c") or name.startswith(("C_", "c_")) for name in letters_of(node))


def by_real_sets(gold: Answer, answer: Answer) -> Verdict:
    """Intervals, inequalities, set-builders, unions."""
    ours, theirs = real_set(gold), real_set(answer)
    if ours is None and theirs is None:
        return None
    if ours is None or theirs is None:
        known, other = (ours, answer) if ours is not None else (theirs, gold)
        theirs_too = real_set(other, tuples=True)
        if theirs_too is None or known is None:
            return False if is_finite(other) else None
        return known.same_as(theirs_too)
    if ours.letter and theirs.letter and ours.letter != theirs.letter:
        return False
    return ours.same_as(theirs)


def is_finite(answer: Answer) -> bool:
    return all(is_scalar(item) or item.kind == "set" for item in answer.items)


def by_items(gold: Answer, answer: Answer) -> Verdict:
    """One thing against one thing."""
    ours, theirs = only(gold), only(answer)
    if ours is None or theirs is None:
        return None
    if not conditions_allow(gold, answer):
        return False
    return same_item(ours, theirs, discrete=True if integer_conditions(gold, answer) else None)


def conditions_allow(gold: Answer, answer: Answer) -> bool:
    """What restricts letters must restrict them alike; that they are real or integers may be left out."""
    ours, theirs = bounds(gold), bounds(answer)
    if not ours and not theirs:
        return True
    return ours == theirs


def bounds(answer: Answer) -> set[Node]:
    return {
        condition
        for condition in answer.conditions
        if condition.data != ("∈",) or condition.args[1].kind != "named" or condition.args[1].data in ("R+", "R*")
    }


def integer_conditions(gold: Answer, answer: Answer) -> bool:
    return any(
        condition.data == ("∈",)
        and condition.args[1].kind == "named"
        and condition.args[1].data in ("Z", "N", "Z+", "Z0+")
        for condition in (*gold.conditions, *answer.conditions)
    )


def by_solutions(gold: Answer, answer: Answer) -> Verdict:
    """Several solutions, as a set or one after another: the same ones, in any order."""
    ours, theirs = solutions(grouped(gold)), solutions(grouped(answer))
    if ours is None or theirs is None:
        return None
    (ours_list, ours_name), (theirs_list, theirs_name) = ours, theirs
    if ours_name and theirs_name and ours_name != theirs_name:
        return False
    if not conditions_allow(gold, answer):
        return False
    return same_multiset(ours_list, theirs_list)


def solutions(answer: Answer) -> tuple[list[Node], str] | None:
    """(the values, the name that all of them have, or "")."""
    found: list[Node] = []
    names: set[str] = set()
    for item in answer.items:
        name, node = "", item
        if item.kind == "relation":
            if item.data in (("=",), ("≈",)) and item.args[0].kind in ("letter", "call"):
                name, node = base_name(item.args[0]), item.args[1]
                if item.args[0].kind == "call":
                    node = item
            elif item.data == ("∈",) and item.args[0].kind in ("letter", "tuple") and item.args[1].kind == "set":
                name, node = base_name(item.args[0]), item.args[1]
            elif item.data == ("=",) and item.args[0].kind == "tuple" and item.args[1].kind == "tuple":
                name, node = "", item.args[1]
            else:
                return None
        if node.kind == "labelled":
            return None
        names.add(name)
        parts = node.args if node.kind == "set" else (node,)
        for part in parts:
            found += signs(part)
    names.discard("")
    if len(names) > 1 or len(found) > MAX_ITEMS:
        return None
    return found, next(iter(names), "")


def grouped(answer: Answer) -> Answer:
    """x = 1, y = 2 or x = 3, y = 4 as two tuples, in the order of the letters."""
    groups: list[dict[str, Node]] = [{}]
    for item in answer.items:
        if item.kind != "relation" or set(item.data) != {"="} or any(name.kind != "letter" for name in item.args[:-1]):
            return answer
        names = [name.data for name in item.args[:-1]]
        if set(names) & groups[-1].keys():
            groups.append({})
        groups[-1].update(dict.fromkeys(names, item.args[-1]))
    if len(groups) < 2 or len(groups[0]) < 2 or any(group.keys() != groups[0].keys() for group in groups):
        return answer
    return Answer(
        tuple(Node("tuple", tuple(group[name] for name in sorted(group)), "()") for group in groups), frozenset(("or",))
    )


def base_name(node: Node) -> str:
    return str(node.data).split("_")[0] if node.kind in ("letter", "call") else ""


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


def by_order(gold: Answer, answer: Answer) -> Verdict:
    """A list against a tuple: in its order."""
    for one, other in ((gold, answer), (answer, gold)):
        node = only(other)
        if len(one.items) > 1 and node is not None and node.kind == "tuple" and one.separators <= {",", ";", "parts"}:
            if node.data != "()" or len(node.args) != len(one.items):
                return False
            return every(same_item(a, b) for a, b in zip(one.items, node.args, strict=True))
    return None


def by_count(gold: Answer, answer: Answer) -> Verdict:
    """One value is not several."""
    if only(gold) is not None and only(answer) is not None:
        return None
    ours, theirs = solutions(gold), solutions(answer)
    if ours is not None and theirs is not None and len(ours[0]) != len(theirs[0]):
        return False
    return None


RULES: tuple[Callable[[Answer, Answer], Verdict], ...] = (
    by_meaning,
    by_parts,
    by_names,
    by_labels,
    by_families,
    by_real_sets,
    by_items,
    by_order,
    by_solutions,
    by_count,
)


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


def is_scalar(node: Node) -> bool:
    if node.kind == "function" and node.data == "det":
        return True
    return node.kind in SCALARS and not has_kind(
        node, {"matrix", "tuple", "set", "relation", "plusminus", "call", "named"} | {"ratio"}
    )


def is_matrix(node: Node) -> bool:
    return has_kind(node, {"matrix"}) and not (node.kind == "function" and node.data == "det")


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

    0.3333 stands for 1/3 and 3.142 for π, 3.14 does not: too much else begins like that.
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
        if isinstance(true, Fraction) and ends(true):
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


def ends(number: Fraction) -> bool:
    """Whether a fraction is a finite decimal."""
    denominator = number.denominator
    for prime in (2, 5):
        while denominator % prime == 0:
            denominator //= prime
    return denominator == 1


def same_quantity(gold: Node, answer: Node) -> Verdict:
    ours, theirs = quantity(gold), quantity(answer)
    if ours is None or theirs is None:
        return None
    if not theirs[1]:
        theirs = unit_in_letters(theirs[0]) or theirs
    (first, first_unit), (second, second_unit) = ours, theirs
    if not first_unit or not second_unit:
        return same_item(first, second)
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
    if len(cells) != len(other_cells) or (rows != other_rows and 1 not in (rows, len(cells) // rows)):
        return False
    if rows != other_rows and not (is_line(rows, cells) and is_line(other_rows, other_cells)):
        return False
    if gold.kind == answer.kind == "tuple" and len(cells) == 2 and gold.data != answer.data:
        return False  # (1, 2) is no [1, 2]
    if has_dots(cells) or has_dots(other_cells):
        return cells == other_cells or None
    return every(same_item(one, two) for one, two in zip(cells, other_cells, strict=True))


def is_line(rows: int, cells: Sequence[Node]) -> bool:
    return rows in (1, len(cells))


def vector(node: Node) -> Sequence[Node] | None:
    found = arrangement(node) if is_matrix(node) else None
    return found[1] if found is not None and is_line(*found) else None


def arrangement(node: Node) -> tuple[int, tuple[Node, ...]] | None:
    """(rows, entries) of a tuple, a matrix, or a multiple of one."""
    if node.kind == "tuple":
        return 1, node.args
    if node.kind == "matrix":
        return node.data[0], node.args
    if node.kind == "function" and node.data == "diag":
        size = len(node.args)
        zero = number_node("0")
        return size, tuple(node.args[i] if i == j else zero for i in range(size) for j in range(size))
    if node.kind in ("product", "quotient") and len(node.args) == 2:
        for factor, matrix in (node.args, node.args[::-1]):
            inner = arrangement(matrix)
            if inner is not None and is_scalar(factor) and (node.kind == "product" or matrix is node.args[0]):
                parts = ((cell, factor) if node.kind == "quotient" else (factor, cell) for cell in inner[1])
                return inner[0], tuple(Node(node.kind, pair) for pair in parts)
    if node.kind == "letter" and (match := re.fullmatch(r"I_(\d)", node.data)):
        size = int(match[1])
        return size, tuple(number_node(str(int(i == j))) for i in range(size) for j in range(size))
    if UNIT_VECTORS & letters_of(node):
        return 1, tuple(coordinate(node, name) for name in ("uniti", "unitj", "unitk"))
    if node.kind == "negative":
        inner = arrangement(node.args[0])
        return None if inner is None else (inner[0], tuple(Node("negative", (cell,)) for cell in inner[1]))
    return None


UNIT_VECTORS = frozenset(("uniti", "unitj", "unitk"))


def coordinate(node: Node, name: str) -> Node:
    """The coefficient of a unit vector in a sum of multiples of them: the sum with that one being 1 and the others 0."""
    return rename(node, {other: number_node(str(int(other == name))) for other in UNIT_VECTORS})


def same_relation(gold: Node, answer: Node, discrete: bool | None) -> Verdict:
    """Equations: of the same name, the same value; else the same curve."""
    ours, theirs = definition(gold, is_call(answer)), definition(answer, is_call(gold))
    if ours is not None and theirs is not None:
        (name, node), (other_name, other) = ours, theirs
        if name and other_name and name != other_name:
            if gold.kind == answer.kind == "relation" and single_equation(gold) and single_equation(answer):
                if letters_of(gold) == letters_of(answer):
                    return same_curve(gold, answer)
            return False
        if contradicts(gold) or contradicts(answer):
            return False
        verdict = same_item(node, other, discrete)
        if (
            verdict is not True
            and gold.kind == answer.kind == "relation"
            and len(letters_of(gold)) > 1
            and name == other_name
        ):
            return verdict
        return verdict
    if single_equation(gold) and single_equation(answer):
        return same_curve(gold, answer)
    if (gold.kind == "relation") != (answer.kind == "relation"):
        return False if is_scalar(gold) or is_scalar(answer) else None
    return None


def single_equation(node: Node) -> bool:
    return node.kind == "relation" and node.data == ("=",)


def is_call(node: Node) -> bool:
    return node.kind == "relation" and node.args[0].kind == "call"


def definition(node: Node, rename_variable: bool) -> tuple[str, Node] | None:
    """(name, value) of x = 5, f(x) = …, k = 12/5 = 2.4; ("", node) of a bare value. None for other relations.

    The variable of a function is renamed where asked: f(n) = n + 1 and f(m) = m + 1 are the same function.
    """
    if node.kind != "relation":
        return "", node
    if set(node.data) != {"="}:
        return None
    first, *rest = node.args
    if first.kind == "letter":
        return (first.data, rest[0]) if first.data not in letters_of(rest[0]) else None
    if first.kind == "call" and all(argument.kind == "letter" for argument in first.args):
        renamed = {argument.data: Node("letter", (), f"argument {i}") for i, argument in enumerate(first.args)}
        return first.data, rename(rest[0], renamed) if rename_variable and len(renamed) == len(first.args) else rest[0]
    if is_scalar(first) and all(is_scalar(other) for other in rest) and not letters_of(node):
        return "", first
    return None


def rename(node: Node, names: dict[str, Node]) -> Node:
    if node.kind == "letter":
        return names.get(node.data, node)
    return Node(node.kind, tuple(rename(child, names) for child in node.args), node.data) if node.args else node


def contradicts(node: Node) -> bool:
    """Whether a chain a = b = c is not true: then it says two things."""
    if node.kind != "relation" or len(node.args) < 3 or set(node.data) != {"="}:
        start = 0
        if node.kind != "relation" or len(node.args) != 2 or letters_of(node):
            return False
    else:
        start = 1 if node.args[0].kind in ("letter", "call") else 0
    values = node.args[start:]
    return any(
        is_scalar(one) and is_scalar(two) and same_scalar(one, two) is False for one, two in itertools.pairwise(values)
    )


def same_curve(gold: Node, answer: Node) -> Verdict:
    """Whether one equation is the other times a constant: the ratio of left − right is the same at every point."""
    names = letters_of(gold) | letters_of(answer)
    if letters_of(gold) != letters_of(answer) or not names:
        return False if names else None
    if not all(is_scalar(side) for side in (*gold.args, *answer.args)):
        return None
    sides = [Node("sum", (node.args[0], Node("negative", (node.args[1],)))) for node in (gold, answer)]
    ratio, agreed = None, 0
    for letters in assignments(names, is_discrete(gold) or is_discrete(answer)):
        try:
            left, right = value(sides[0], letters), value(sides[1], letters)
        except Unknown:
            continue
        if left == 0 or right == 0:
            if (left == 0) != (right == 0):
                return False
            continue
        now = inexact(left) / inexact(right)
        if ratio is not None and not same_value(now, ratio):
            return False
        ratio, agreed = now, agreed + 1
    return True if agreed >= 4 else None


# ---------------------------------------------------------------- small helpers


def only(answer: Answer) -> Node | None:
    return answer.items[0] if len(answer.items) == 1 else None


def every(verdicts: Any) -> Verdict:
    """True if all are, False if one is, None if one is not known."""
    result: Verdict = True
    for verdict in verdicts:
        if verdict is False:
            return False
        if verdict is None:
            result = None
    return result


__all__ = ["Unreadable", "compare", "same_answer"]
