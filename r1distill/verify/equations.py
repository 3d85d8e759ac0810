"""Equations: what they define, and when two of them are the same curve."""

from r1distill.verify.expressions import assignments, is_discrete, same_value
from r1distill.verify.nodes import Node, Verdict, is_scalar, letters_of, rename
from r1distill.verify.numeric import Unknown, context, inexact, value


def is_graph(gold: Node, answer: Node) -> bool:
    """y = 2x + 1 and f(x) = 2x + 1."""
    heads = {head.kind: head for head in (gold.args[0], answer.args[0])} if gold.args and answer.args else {}
    return heads.keys() == {"letter", "call"} and heads["letter"].data == "y" and len(heads["call"].args) == 1


def single_equation(node: Node) -> bool:
    return node.kind == "relation" and node.data == ("=",)


def is_call(node: Node) -> bool:
    return node.kind == "relation" and node.args[0].kind == "call"


def definition(node: Node, other: Node) -> tuple[str, Node] | None:
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
        name = base_name(first)
        return name, rename(rest[0], renamed) if is_call(other) and len(renamed) == len(first.args) else rest[0]
    if is_scalar(first) and all(map(is_scalar, rest)) and not letters_of(node):
        return "", first
    if other.kind != "relation" and not any(map(letters_of, rest)) and is_name(first):
        return "", rest[-1]
    return None


def base_name(node: Node) -> str:
    """x of x_1, f of f_2(x)."""
    return str(node.data).split("_")[0] if node.kind in ("letter", "call") else ""


def is_name(node: Node) -> bool:
    """Whether a left side names what is asked for (m + n, ABC, ζ(2), ∠A : ∠B) and is no equation to be solved (2x)."""
    if node.kind == "number":
        return False
    if node.kind in ("call", "letter", "constant"):
        return True
    if node.kind == "power":
        return is_name(node.args[0])
    if node.kind == "product" and node.args[0].kind == "letter" and node.args[1].kind == "number":
        return node.args[0].data in ("zeta", "Gamma", "phi", "varphi", "sigma", "tau", "mu", "pi")  # ζ(2)
    return bool(node.args) and all(map(is_name, node.args))


def solves(graph: Node, equation: Node) -> bool:
    """Whether y = 1/x is what xy = 1 says: it holds there at every point, and y enters it linearly, so that none is lost."""
    letter, height = graph.args
    names = letters_of(graph)
    if letter.kind != "letter" or letter.data in letters_of(height) or len(names) < 2 or names != letters_of(equation):
        return False
    if not all(map(is_scalar, (height, *equation.args))):
        return False
    difference = Node("sum", (equation.args[0], Node("negative", (equation.args[1],))))
    agreed = 0
    for letters in assignments(names, False):
        try:
            y = value(height, letters)
            at, above, twice = (value(difference, {**letters, letter.data: y + step}) for step in (0, 1, 2))
        except Unknown:
            continue
        tolerance = context.mpf(10) ** -20 * (1 + abs(inexact(above)))
        if (
            abs(inexact(at)) > tolerance
            or abs(inexact(above)) <= tolerance
            or abs(inexact(twice - 2 * above)) > tolerance
        ):
            return False
        agreed += 1
    return agreed >= 4


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
