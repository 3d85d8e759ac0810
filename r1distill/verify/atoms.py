"""The smallest parts of an answer: numerals, letters, functions, fractions, roots, brackets, matrices.

Each function takes the Reader (r1distill/verify/syntax.py) behind the token that announced the part.
"""

import re
from collections.abc import Callable
from typing import TYPE_CHECKING

from r1distill.verify.nodes import Node, number_node
from r1distill.verify.tokens import FUNCTIONS, Token, Unreadable

if TYPE_CHECKING:
    from r1distill.verify.syntax import Reader

MAX_DIGITS = 1_000
NAMED_SETS = frozenset("RZNQC")
MATRICES = frozenset(
    "pmatrix bmatrix vmatrix matrix array smallmatrix Bmatrix Vmatrix bsmallmatrix psmallmatrix".split()
)


def read_atom(reader: "Reader") -> Node:
    token = reader.take()
    if token.kind == "number":
        return numeral(reader, token)
    if token.kind == "letter":
        return letter(reader, token)
    if token.kind == "function":
        return function(reader, token.text)
    if token.kind == "begin":
        return environment(reader, token.text)
    if token.kind == "command" and token.text in ATOMS:
        return ATOMS[token.text](reader)
    if token.kind == "op":
        return bracketed(reader, token)
    raise Unreadable(f"{token.text!r} is no mathematics" if token.text else "the end comes too early")


def numeral(reader: "Reader", token: Token) -> Node:
    if len(token.text) > MAX_DIGITS:
        raise Unreadable(f"a number of more than {MAX_DIGITS} digits")
    if reader.is_op("_"):  # 2516_8
        reader.take()
        base = reader.group()
        if base.kind != "number" or token.text.count("."):
            raise Unreadable("a subscript of a number that is no base")
        return Node("based", (), (token.text.lstrip("0") or "0", int(base.data[0])))
    if reader.next.kind == "letter" and reader.next.text in "eE" and not reader.next.space:
        exponent = reader.peek(1 if reader.peek().kind == "number" else 2)
        sign = reader.peek().text if reader.peek().kind == "op" else ""
        is_exponent = exponent.kind == "number" and exponent.text.isdigit() and len(exponent.text) < 5
        if is_exponent and (sign in ("+", "-") or (not sign and "." in token.text)):  # 1.5e-7; 2e3 could be a product
            reader.position += 3 if sign else 2
            power = Node("power", (number_node("10"), number_node(exponent.text, negative=sign == "-")))
            return Node("product", (number_node(token.text), power))
    return number_node(token.text)


def letter(reader: "Reader", token: Token) -> Node:
    name = token.text
    if name == "pi":
        return Node("constant", (), "pi")
    if name in ("C", "P", "A") and reader.is_op("_") and binomial_ahead(reader):
        return binomial(reader)
    if reader.is_op("_"):
        reader.take()
        name += "_" + subscript(reader)
    while reader.is_op("'"):
        reader.take()
        name += "'"
    if (
        reader.is_op("^")
        and reader.peek().text == "{"
        and reader.peek(2).text == "-"
        and reader.peek(3).text == "1"
        and name in "fgh"
    ):
        reader.position += 5
        name += "^-1"
    if (
        reader.is_op("(")
        and not reader.next.space
        and (
            name.split("_")[0].rstrip("'").removesuffix("^-1") in FUNCTION_LETTERS
            or (
                name in "yuv" and reader.peek().text in "xt" and reader.peek(2).text == ")"
            )  # y(x), the unknown function
        )
    ):
        reader.take()
        arguments = [reader.sum()]
        while reader.is_op(","):
            reader.take()
            arguments.append(reader.sum())
        reader.expect(")")
        return Node("call", tuple(arguments), name)
    if name == "C" and "".join(token.text for token in reader.tokens[reader.position :][:5:2]) == "(,)":
        reader.take()  # C(10, 3)
        top = reader.sum()
        reader.expect(",")
        bottom = reader.sum()
        reader.expect(")")
        return Node("binomial", (top, bottom))
    if name == "e":
        return Node("constant", (), "e")
    if name == "i":
        return Node("constant", (), "i")
    return Node("letter", (), name)


def binomial_ahead(reader: "Reader") -> bool:
    texts = "".join(token.text for token in reader.tokens[reader.position : reader.position + 8])
    return re.match(r"_(\{\w+\}|\w)\^(\{\w+\}|\w)", texts) is not None


def binomial(reader: "Reader") -> Node:
    """C_{10}^{3}."""
    reader.expect("_")
    top = reader.group()
    reader.expect("^")
    return Node("binomial", (top, reader.group()))


def subscript(reader: "Reader") -> str:
    if not reader.is_op("{"):
        return reader.take().text
    reader.take()
    parts: list[str] = []
    while not reader.is_op("}"):
        if reader.next.kind == "end" or len(parts) > 20:
            raise Unreadable("a subscript without an end")
        parts.append(reader.take().text)
    reader.take()
    return "".join(parts)


def function(reader: "Reader", name: str) -> Node:
    power = None
    base = None
    if name in ("max", "min"):
        if reader.is_op("=", ":"):
            return Node("letter", (), EXTREMES[name])
        if reader.next.kind == "number" or reader.is_op("-"):  # max 3, min 1
            return Node("labelled", (reader.sum(),), EXTREMES[name])
    if name == "sqrt":
        return root(reader)
    if name == "log" and reader.is_op("_"):
        reader.take()
        base = reader.short_group() if not reader.is_op("{") else reader.group()
    if reader.is_op("^"):
        reader.take()
        power = reader.group()
    given = arguments(reader, name)
    if name in ("arcsin", "arccos", "arctan") or power is None or not is_minus_one(power):
        node = Node("function", given if base is None else (*given, base), name)
        return node if power is None else Node("power", (node, power))
    inverse = "arc" + name
    if inverse not in FUNCTIONS:
        return Node("power", (Node("function", given, name), power))
    return Node("function", given, inverse)


def arguments(reader: "Reader", name: str) -> tuple[Node, ...]:
    if reader.is_op("(", "[") or (reader.is_op("{") and name in ("max", "min", "gcd", "lcm", "diag")):
        closing = {"(": ")", "[": "]", "{": "}"}[reader.take().text]
        found = [reader.ratio()]
        while reader.is_op(","):
            reader.take()
            found.append(reader.ratio())
        reader.expect(closing)
        return tuple(found)
    if reader.is_op("{s"):
        reader.take()
        found = [reader.ratio()]
        while reader.is_op(","):
            reader.take()
            found.append(reader.ratio())
        reader.expect("}s")
        return tuple(found)
    return (argument_without_brackets(reader),)


def argument_without_brackets(reader: "Reader") -> Node:
    """sin 2x cos x is a product of two: an argument ends before the next function and before a bracket."""
    if reader.is_op("-"):
        reader.take()
        return Node("negative", (argument_without_brackets(reader),))
    node = reader.factor()
    while (
        reader.starts_factor() and reader.next.kind in ("number", "letter", "command") and reader.next.text != "sqrt"
    ) or reader.is_op("/"):
        if reader.is_op("/"):
            if reader.peek().kind not in ("number", "letter"):
                break
            reader.take()
            node = Node("quotient", (node, reader.factor()))
            continue
        node = Node("product", (node, reader.factor()))
    return node


def root(reader: "Reader") -> Node:
    degree = number_node("2")
    if reader.is_op("["):
        reader.take()
        degree = reader.sum()
        reader.expect("]")
    if reader.is_op("{"):
        return Node("root", (reader.group(), degree))
    if reader.is_op("("):
        reader.take()
        inside = reader.sum()
        reader.expect(")")
        return Node("root", (inside, degree))
    if reader.next.kind == "number" and reader.tokens[reader.position - 1].text == "sqrt" and not reader.next.space:
        return Node("root", (reader.short_group(), degree))
    return Node("root", (read_atom(reader), degree))


def fraction(reader: "Reader") -> Node:
    top = reader.short_group()
    bottom = reader.short_group()
    if is_differential(top) and is_differential(bottom):
        if top.kind == "letter":
            raise Unreadable("a derivative")
        return Node("letter", (), f"d{top.args[1].data}/d{bottom.args[-1].data}")
    return Node("quotient", (top, bottom))


def is_differential(node: Node) -> bool:
    """The d of d/dx, and dx."""
    d = node.args[0] if node.kind == "product" else node
    return d == Node("letter", (), "d") and all(part.kind == "letter" for part in node.args)


def choose(reader: "Reader") -> Node:
    top = reader.short_group()
    return Node("binomial", (top, reader.short_group()))


def blackboard(reader: "Reader") -> Node:
    if reader.is_op("{"):
        reader.take()
        token = reader.take()
        reader.expect("}")
    else:
        token = reader.take()
    name = token.text
    if name not in NAMED_SETS:
        raise Unreadable(f"the set {token.text}")
    if reader.is_op("^", "_"):
        reader.take()
        mark = reader.take().text
        if mark == "{":
            mark = ""
            while not reader.is_op("}"):
                if reader.next.kind == "end":
                    raise Unreadable("no end")
                mark += reader.take().text
            reader.take()
        return Node(
            "named",
            (),
            name + {"+": "+", "*": "*", ">0": "+", "≥0": "0+", "-": "-", "++": "+"}.get(mark, f"^{mark}"),
        )
    return Node("named", (), name)


def overline(reader: "Reader") -> Node:
    node = reader.group()
    if node.kind != "letter":
        raise Unreadable("a bar over an expression")
    return Node("letter", (), f"{node.data}-bar")


def big(reader: "Reader", name: str) -> Node:
    """\\sum_{k=1}^{n} term: data is the sign, args the letter, the bounds and the term."""
    reader.expect("_")
    reader.expect("{")
    letter = read_atom(reader)
    reader.expect("=")
    low = reader.sum()
    reader.expect("}")
    reader.expect("^")
    high = reader.group()
    term = reader.product()
    if letter.kind not in ("letter", "constant"):
        raise Unreadable("a sum over no letter")
    return Node("series", (letter, low, high, term), name)


def bracketed(reader: "Reader", token: Token) -> Node:
    if token.text in ("(", "[", "⟨", "{s", "]"):
        return reader.deeper(lambda: brackets(reader, token.text))
    if token.text == "{":
        first = reader.relation_free()
        if reader.next.kind == "command" and reader.next.text == "choose":
            reader.take()
            first = Node("binomial", (first, reader.relation_free()))
        if reader.is_op(","):  # braces that a model forgot to escape
            items = [first]
            while reader.is_op(","):
                reader.take()
                items.append(reader.ratio())
            first = Node("set", tuple(items))
        reader.expect("}")
        return first
    if token.text == "|":
        reader.bars += 1
        node = reader.sum()
        reader.expect("|")
        reader.bars -= 1
        return Node("function", (node,), "abs")
    if token.text in ("⌊", "⌈"):
        node = reader.sum()
        reader.expect("⌋" if token.text == "⌊" else "⌉")
        return Node("function", (node,), "floor" if token.text == "⌊" else "ceil")
    if token.text == "∞":
        return Node("constant", (), "infinity")
    if token.text == "∅":
        return Node("named", (), "empty")
    if token.text == "…":
        return Node("dots")
    if token.text == "∠":
        return Node("letter", (), "∠" + angle_name(reader))
    raise Unreadable(f"{token.text!r} is out of place")


def angle_name(reader: "Reader") -> str:
    """A, or ABC, which is CBA; also `1`."""
    name = str(read_atom(reader).data) if reader.next.kind == "letter" else reader.take().text
    while reader.next.kind == "letter" and reader.next.text.isupper() and not reader.next.space:
        name += reader.take().text
    return min(name, name[::-1])


def brackets(reader: "Reader", opening: str) -> Node:
    """Parentheses, a tuple, an interval, or a set."""
    if opening == "{s" and reader.is_op("}s"):
        reader.take()
        return Node("named", (), "empty")
    bars, reader.bars = reader.bars, 0
    reader.reversed += opening == "]"
    reader.in_set += opening == "{s"
    items, _ = items_until(reader)
    reader.in_set -= opening == "{s"
    reader.reversed -= opening == "]"
    reader.bars = bars
    closing = reader.take()
    if closing.kind != "op":
        raise Unreadable(f"{opening} is not closed")
    if opening == "{s":
        if closing.text == "|" or closing.text == ":":
            return builder(reader, items)
        if closing.text != "}s":
            raise Unreadable("a set that is not closed")
        return Node("set", tuple(items))
    if closing.text not in {"(": (")", "]", "["), "[": (")", "]", "["), "]": ("[", "]"), "⟨": ("⟩",)}[opening]:
        raise Unreadable(f"{opening} closed by {closing.text}")
    if len(items) == 1 and opening in "([" and closing.text == {"(": ")", "[": "]"}[opening]:
        return (
            items[0]
            if opening == "("
            else Node("tuple", tuple(items), "[]")
            if items[0].kind == "relation"
            else items[0]
        )
    opened = {"]": "("}.get(opening, opening)
    closed = {"[": ")"}.get(closing.text, closing.text)
    return Node("tuple", tuple(items), "()" if opened == "⟨" else opened + closed)


def items_until(reader: "Reader") -> tuple[list[Node], set[str]]:
    items: list[Node] = []
    separators: set[str] = set()
    while True:
        items.append(reader.relation())
        if reader.is_op(",", ";"):
            separators.add(reader.take().text)
            continue
        if reader.is_word("or", "and"):
            separators.add(reader.take().text.lower())
            continue
        return items, separators


def builder(reader: "Reader", items: list[Node]) -> Node:
    """{x | x ≠ 2}, {x ∈ ℝ : x > 0}: args are the conditions."""
    conditions, _ = items_until(reader)
    reader.expect("}s")
    head = items[0]
    if head.kind == "relation" and head.data == ("∈",):
        return Node("builder", (head, *conditions))
    if head.kind != "letter":  # {2k : k ∈ ℤ}
        return Node("image", (head, *conditions))
    return Node("builder", tuple(conditions))


def environment(reader: "Reader", kind: str) -> Node:
    if kind == "cases":
        return cases(reader)
    if kind not in MATRICES:
        raise Unreadable(f"environment {kind}")
    rows: list[list[Node]] = [[]]
    while reader.next.kind != "end" or reader.next.text == kind:
        if reader.next.kind == "end" and reader.next.text:
            break
        if reader.is_op("\\\\"):
            reader.take()
            rows.append([])
        elif reader.is_op("&"):
            reader.take()
        else:
            rows[-1].append(reader.sum())
    if reader.next.kind != "end" or reader.next.text != kind:
        raise Unreadable("a matrix without an end")
    reader.take()
    rows = [row for row in rows if row]
    if not rows or any(len(row) != len(rows[0]) for row in rows):
        raise Unreadable("a matrix with rows of different lengths")
    node = Node("matrix", tuple(cell for row in rows for cell in row), (len(rows), len(rows[0])))
    return Node("function", (node,), "det") if kind == "vmatrix" else node


def cases(reader: "Reader") -> Node:
    """args: expression, condition, expression, condition, …"""
    parts: list[Node] = []
    while not (reader.next.kind == "end" and reader.next.text == "cases"):
        parts.append(reader.sum())
        while reader.is_op(",", "&") or reader.is_word("if", "for", "when"):
            reader.take()
        parts.append(Node("otherwise") if reader.is_word("otherwise") else reader.relation())
        if reader.is_word("otherwise"):
            reader.take()
        while reader.is_op("\\\\", ","):
            reader.take()
        if reader.next.kind == "end" and not reader.next.text:
            raise Unreadable("cases without an end")
    reader.take()
    return Node("cases", tuple(parts))


EXTREMES = {"max": "maximum", "min": "minimum"}
FUNCTION_LETTERS = frozenset(["f", "g", "h", "F", "G", "H", "P", "Q", "p", "q", "r", "R", "N", "T", "S"])

ATOMS: dict[str, Callable[["Reader"], Node]] = {
    "frac": fraction,
    "binom": choose,
    "dbinom": choose,
    "tbinom": choose,
    "mathbb": blackboard,
    "overline": overline,
    "bar": overline,
    "vec": overline,
    "hat": overline,
    "sum": lambda reader: big(reader, "sum"),
    "prod": lambda reader: big(reader, "product"),
    "pmod": lambda reader: reader.group(),
    "cbrt": lambda reader: Node("root", (reader.group(), number_node("3"))),
}


def is_minus_one(node: Node) -> bool:
    return node.kind == "negative" and node.args[0].kind == "number" and node.args[0].data[0] == 1
