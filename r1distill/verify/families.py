"""Answers with a letter that runs: kπ for every integer k, cx for every real c, n ≡ 1 (mod 3), a function plus C."""

from collections.abc import Iterable, Sequence
from fractions import Fraction
from typing import Any

from r1distill.verify.expressions import assignments
from r1distill.verify.items import signs
from r1distill.verify.nodes import Answer, Node, letters_of
from r1distill.verify.numeric import Unknown, context, inexact, is_real, real, value

WINDOW = 30  # values of size up to this are compared
STEPS = 150  # of the letter, in both directions
INTEGER_DOMAINS = {"Z": None, "N": 1, "Z+": 1, "Z0+": 0, "N+": 1, "N*": 1, "N0+": 0}
REAL_DOMAINS = frozenset(("R", "C", "Q"))
SAMPLES = 7
PARAMETERS = frozenset(("k", "n", "m", "l", "ell", "t", "j"))  # what a letter that runs is called where nothing says so
NO_VALUES = frozenset(("congruence", "divides", "phrase", "tuple", "set", "relation"))
TOLERANCE = context.mpf(10) ** -20


# ---------------------------------------------------------------- integers


def same_integer_family(gold: Answer, answer: Answer) -> bool | None:
    """Whether two sets of numbers, each given by a letter that runs through integers, agree within a window."""
    gold, answer = with_parameter(gold, answer), with_parameter(answer, gold)
    ours, theirs = integer_values(gold), integer_values(answer)
    if ours is None or theirs is None:
        points = integer_points(gold), integer_points(answer)
        return None if None in points else points[0] == points[1]
    (mine, my_name), (others, other_name) = ours, theirs
    if my_name and other_name and my_name != other_name:
        return False
    if not mine and not others:
        return None
    says_parity = any(item.kind == "phrase" and item.data in ("odd", "even") for item in (*gold.items, *answer.items))
    if says_parity and not all(any(number <= 0 for number in each) for each in (mine, others)):
        mine, others = ([number for number in each if number > 0] for each in (mine, others))
    return len(mine) == len(others) and all(abs(one - two) < TOLERANCE for one, two in zip(mine, others, strict=True))


def with_parameter(answer: Answer, other: Answer) -> Answer:
    """2πn beside 2πk, k ∈ ℤ: n is taken to run through what k runs through; beside a congruence through the integers."""
    if answer.conditions or not answer.items:
        return answer
    values = [item.args[1] if item.kind == "relation" and item.data == ("=",) else item for item in answer.items]
    heads = {item.args[0].data for item in answer.items if item.kind == "relation"}
    letters = frozenset().union(*map(letters_of, values)) - heads
    if len(letters) != 1 or not letters <= PARAMETERS or any(item.kind in NO_VALUES for item in values):
        return answer
    letter = Node("letter", (), next(iter(letters)))
    running_letters = {condition.args[0] for condition in other.conditions if condition.kind == "relation"}
    if len(running_letters) == 1:
        [theirs] = running_letters
        if theirs.kind != "letter":
            return answer
        conditions = tuple(
            Node("relation", (letter, *condition.args[1:]), condition.data) for condition in other.conditions
        )
        return Answer(answer.items, answer.separators, conditions)
    if running_letters:
        return answer
    return Answer(answer.items, answer.separators, (Node("relation", (letter, Node("named", (), "Z")), ("∈",)),))


def integer_values(answer: Answer) -> tuple[list[Any], str] | None:
    """(the values within the window, sorted; what they are the values of)."""
    found: list[Any] = []
    names: set[str] = set()
    domains = integer_letters(answer)
    for item in answer.items:
        if item.kind == "phrase":
            values = phrase_values(item.data)
            if values is None:
                return None
            found += values
            continue
        if item.kind == "congruence":
            if item.args[0].kind != "letter":
                return None
            names.add(item.args[0].data)
            values = congruent(item)
        elif item.kind == "divides" and item.args[1].kind == "letter":
            names.add(item.args[1].data)
            values = multiples(item)
        else:
            node = item
            if item.kind == "relation":
                if item.data != ("=",) or item.args[0].kind != "letter":
                    return None
                names.add(item.args[0].data)
                node = item.args[1]
            values = running(node, domains)
        if values is None:
            return None
        found += values
    if not domains and not any(item.kind in ("congruence", "divides", "phrase") for item in answer.items):
        return None
    if len(names) > 1:
        return None
    return in_order(found), next(iter(names), "")


def integer_letters(answer: Answer) -> dict[str, tuple[int | None, int | None]]:
    """The letters that run through integers, with their least and greatest value."""
    found: dict[str, tuple[int | None, int | None]] = {}
    for condition in answer.conditions:
        if condition.kind == "relation" and condition.data == ("∈",) and condition.args[1].kind == "named":
            name = condition.args[0].data
            if condition.args[1].data in INTEGER_DOMAINS and isinstance(name, str):
                found[name] = (INTEGER_DOMAINS[condition.args[1].data], None)
    for condition in answer.conditions:
        if condition.kind != "relation" or len(condition.data) != 1 or condition.args[0].kind != "letter":
            continue
        sign, name = condition.data[0], condition.args[0].data
        if sign not in ("≥", ">", "≤", "<"):
            continue
        try:
            limit = value(condition.args[1])
        except Unknown:
            continue
        if not isinstance(limit, Fraction) or limit.denominator != 1:
            continue
        low, high = found.get(name, (None, None))
        if sign in ("≥", ">"):
            low = limit.numerator + (sign == ">")
        else:
            high = limit.numerator - (sign == "<")
        found[name] = (low, high)
    return found


def running(node: Node, domains: dict[str, tuple[int | None, int | None]]) -> list[Any] | None:
    """The values of an expression of one letter that runs through integers."""
    letters = letters_of(node)
    if len(letters) > 1 or (letters and not letters <= domains.keys()):
        return None
    found: list[Any] = []
    for variant in signs(node):
        if not letters:
            steps: Iterable[int] = (0,)
            name = ""
        else:
            name = next(iter(letters))
            low, high = domains[name]
            steps = range(
                -STEPS if low is None else max(low, -STEPS), (STEPS if high is None else min(high, STEPS)) + 1
            )
        misses = 0
        for step in steps:
            try:
                number = real(value(variant, {name: Fraction(step)} if name else {}))
            except Unknown:
                misses += 1
                if misses > STEPS:
                    return None
                continue
            if abs(inexact(number)) <= WINDOW:
                found.append(number)
    return found


def integer_points(answer: Answer) -> frozenset[tuple[Fraction, ...]] | None:
    """The points within the window of (3 + 5t, 1 − 2t) or x = 3 + 5t, y = 1 − 2t, with t running through integers."""
    domains = integer_letters(answer)
    parts = coordinates(answer)
    if parts is None or not domains:
        return None
    letters = frozenset().union(*map(letters_of, parts))
    if len(letters) != 1 or not letters <= domains.keys():
        return None
    name = next(iter(letters))
    low, high = domains[name]
    points = set()
    for step in range(-STEPS if low is None else max(low, -STEPS), (STEPS if high is None else min(high, STEPS)) + 1):
        try:
            point = tuple(value(part, {name: Fraction(step)}) for part in parts)
        except Unknown:
            return None
        if not all(isinstance(number, Fraction) for number in point):
            return None
        if all(abs(number) <= WINDOW for number in point):
            points.add(point)
    return frozenset(points)


def coordinates(answer: Answer) -> list[Node] | None:
    """The parts of a tuple, or of named values in the order of their names; x = y = k gives both."""
    items = answer.items
    if len(items) == 1 and items[0].kind == "relation" and items[0].data == ("=",) and items[0].args[1].kind == "tuple":
        return list(items[0].args[1].args)
    if len(items) == 1 and items[0].kind == "tuple":
        return list(items[0].args)
    named: dict[str, Node] = {}
    for item in items:
        if item.kind != "relation" or set(item.data) != {"="} or any(part.kind != "letter" for part in item.args[:-1]):
            return None
        named.update({part.data: item.args[-1] for part in item.args[:-1]})
    return [named[name] for name in sorted(named)] if len(named) > 1 else None


def phrase_values(said: str) -> list[Fraction] | None:
    if said.removeprefix("positive ") in ("odd", "even"):
        least = 1 if said.startswith("positive") else -WINDOW
        return [Fraction(n) for n in range(least, WINDOW + 1) if n % 2 == (said.endswith("odd"))]
    if said == "squares":
        return [Fraction(n * n) for n in range(0, 6)]
    return None


def congruent(item: Node) -> list[Any] | None:
    try:
        modulus = value(item.args[1])
        residues = [value(each) for residue in item.args[2:] for each in signs(residue)]
    except Unknown:
        return None
    whole = [number for number in (modulus, *residues) if isinstance(number, Fraction) and number.denominator == 1]
    if len(whole) != 1 + len(residues) or not 0 < modulus <= 10**6:
        return None
    return [
        Fraction(n)
        for n in range(-WINDOW, WINDOW + 1)
        if any((n - residue) % modulus == 0 for residue in residues) != bool(item.data)
    ]


def multiples(item: Node) -> list[Any] | None:
    try:
        divisor = value(item.args[0])
    except Unknown:
        return None
    if not isinstance(divisor, Fraction) or divisor.denominator != 1 or not divisor:
        return None
    return [Fraction(n) for n in range(-WINDOW, WINDOW + 1) if n % divisor == 0]


def in_order(numbers: list[Any]) -> list[Any]:
    """Sorted, each once."""
    ordered = sorted(map(inexact, numbers))
    return [
        number for index, number in enumerate(ordered) if index == 0 or abs(number - ordered[index - 1]) > TOLERANCE
    ]


# ---------------------------------------------------------------- reals


def same_affine_family(gold: Answer, answer: Answer) -> bool | None:
    """Whether two families f + c₁f₁ + c₂f₂ + …, with every real cᵢ, are the same: the same span, and f − f' in it.

    The functions are vectors of their values at sample points; those of a tuple one after another.
    """
    ours, theirs = family(gold), family(answer)
    if ours is None or theirs is None:
        return None
    (parts, parameters), (other_parts, other_parameters) = ours, theirs
    if len(parts) != len(other_parts) or not parameters or not other_parameters:
        return None
    variables = frozenset().union(*map(letters_of, parts)) - parameters
    if variables != frozenset().union(*map(letters_of, other_parts)) - other_parameters:
        return None
    if real_bounds(gold, parameters) or real_bounds(answer, other_parameters):
        return None if real_bounds(gold, parameters) == real_bounds(answer, other_parameters) else False
    points = list(assignments(variables, False))[: 3 * SAMPLES] if variables else [{}]
    first = affine(parts, parameters, points)
    second = affine(other_parts, other_parameters, points)
    if first is None or second is None:
        return None
    usable = [i for i in range(len(first[0])) if first[0][i] is not None and second[0][i] is not None]
    if variables and len(usable) < SAMPLES * len(parts):
        return None
    base, directions = restricted(first, usable)
    other_base, other_directions = restricted(second, usable)
    rank = rank_of(directions)
    difference = [one - two for one, two in zip(base, other_base, strict=True)]
    return (
        rank == rank_of(other_directions)
        and rank_of(directions + other_directions) == rank
        and rank_of([*directions, difference]) == rank
    )


def family(answer: Answer) -> tuple[list[Node], frozenset[str]] | None:
    """(the expressions, which letters are free constants) of an answer of one item."""
    if len(answer.items) != 1:
        return None
    node = answer.items[0]
    variables: frozenset[str] = frozenset()
    if node.kind == "relation" and node.data == ("=",) and node.args[0].kind in ("letter", "call", "tuple"):
        if node.args[0].kind == "call":
            variables = letters_of(node.args[0])
        node = node.args[1]
    if node.kind == "letter" and not variables:
        return None  # a bare D is no family
    parts = list(node.args) if node.kind in ("tuple", "matrix") else [node]
    letters = frozenset().union(*map(letters_of, parts))
    declared = {
        condition.args[0].data
        for condition in answer.conditions
        if condition.data == ("∈",) and condition.args[1].kind == "named" and condition.args[1].data in REAL_DOMAINS
        and condition.args[0].kind == "letter"
    }  # fmt: skip
    declared |= {name for name in letters if name in ("C", "K", "A", "B", "D") or name.startswith(("C_", "c_"))}
    if letters - declared and "c" in letters and not declared & letters:
        declared.add("c")
    return parts, frozenset(declared & letters - variables)


def real_bounds(answer: Answer, parameters: frozenset[str]) -> set[Node]:
    return {
        condition
        for condition in answer.conditions
        if condition.kind == "relation" and condition.data != ("∈",) and letters_of(condition) & parameters
    }


Vector = list[Any]


def affine(
    parts: Sequence[Node], parameters: frozenset[str], points: Sequence[dict[str, Any]]
) -> tuple[Vector, list[Vector]] | None:
    """(values with all constants 0, the change for each constant being 1); None if they do not enter linearly."""
    names = sorted(parameters)
    zero = dict.fromkeys(names, Fraction(0))
    base = sample(parts, points, zero)
    directions = []
    for name in names:
        moved = sample(parts, points, {**zero, name: Fraction(1)})
        directions.append([None if a is None or b is None else b - a for a, b in zip(base, moved, strict=True)])
    trial = {name: Fraction(2 + 3 * i, 3) for i, name in enumerate(names)}
    for i, got in enumerate(sample(parts, points, trial)):
        if got is None or base[i] is None or any(direction[i] is None for direction in directions):
            base[i] = None
            continue
        expected = base[i] + sum(
            inexact(trial[name]) * direction[i] for name, direction in zip(names, directions, strict=True)
        )
        if abs(got - expected) > TOLERANCE * (1 + abs(got)):
            return None
    return base, directions


def sample(parts: Sequence[Node], points: Sequence[dict[str, Any]], constants: dict[str, Any]) -> Vector:
    values: Vector = []
    for part in parts:
        for point in points:
            try:
                number = value(part, {**point, **constants})
                values.append(inexact(real(number)) if is_real(number) else None)
            except Unknown:
                values.append(None)
    return values


def restricted(sampled: tuple[Vector, list[Vector]], usable: list[int]) -> tuple[Vector, list[Vector]]:
    base, directions = sampled
    return [base[i] for i in usable], [[direction[i] for i in usable] for direction in directions]


def rank_of(vectors: list[Vector]) -> int:
    """By elimination with pivoting, to TOLERANCE."""
    rows = [list(vector) for vector in vectors]
    rank = 0
    for column in range(len(rows[0]) if rows else 0):
        pivot = max(range(rank, len(rows)), key=lambda row: abs(rows[row][column]), default=None)
        if pivot is None or abs(rows[pivot][column]) <= TOLERANCE * 1000:
            continue
        rows[rank], rows[pivot] = rows[pivot], rows[rank]
        for row in range(rank + 1, len(rows)):
            factor = rows[row][column] / rows[rank][column]
            rows[row] = [a - factor * b for a, b in zip(rows[row], rows[rank], strict=True)]
        rank += 1
        if rank == len(rows):
            break
    return rank
