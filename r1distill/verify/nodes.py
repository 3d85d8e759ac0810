"""What an answer is made of once it is read: a tree of nodes, each a kind with parts, and the conditions beside them."""

from dataclasses import dataclass
from fractions import Fraction
from typing import Any

Verdict = bool | None  # of a comparison: True and False are sure, None is left to others


@dataclass(frozen=True, slots=True)
class Node:
    """`kind` says what `data` and `args` are; see the functions of Reader that make them."""

    kind: str
    args: tuple["Node", ...] = ()
    data: Any = None


@dataclass(frozen=True, slots=True)
class Answer:
    """The items of an answer (`1, 2`, `x = 1 or x = 2`), how they were separated, and conditions on their letters."""

    items: tuple[Node, ...]
    separators: frozenset[str] = frozenset()
    conditions: tuple[Node, ...] = ()


def number_node(text: str, negative: bool = False) -> Node:
    """data: the exact value, and how many significant digits a decimal was written with (0 for an integer)."""
    value = Fraction(text if not text.startswith(".") else f"0{text}")
    digits = len(text.replace(".", "").lstrip("0")) if "." in text else 0
    return Node("number", (), (-value if negative else value, digits))


SCALARS = frozenset(
    (
        "number letter constant sum product quotient negative power root percent degrees factorial factorial2 "
        "binomial function series based"
    ).split()
)


def is_scalar(node: Node) -> bool:
    if node.kind == "cases" or (node.kind == "function" and node.data == "det"):
        return True
    return node.kind in SCALARS and not has_kind(
        node, {"matrix", "tuple", "set", "relation", "plusminus", "call", "named"} | {"ratio"}
    )


def rename(node: Node, names: dict[str, Node]) -> Node:
    if node.kind == "letter":
        return names.get(node.data, node)
    return Node(node.kind, tuple(rename(child, names) for child in node.args), node.data) if node.args else node


def letters_of(node: Node) -> frozenset[str]:
    """The free letters of a tree; that of a sum is bound."""
    if node.kind == "letter":
        return frozenset((node.data,))
    if node.kind == "series":
        inner = frozenset().union(*(letters_of(child) for child in node.args[1:]))
        return inner - {node.args[0].data}
    return frozenset().union(*(letters_of(child) for child in node.args)) if node.args else frozenset()


def has_kind(node: Node, kinds: set[str]) -> bool:
    return node.kind in kinds or any(has_kind(child, kinds) for child in node.args)
