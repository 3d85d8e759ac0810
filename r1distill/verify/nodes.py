"""What an answer is made of once it is read: a tree of nodes, each a kind with parts, and the conditions beside them."""

from dataclasses import dataclass
from fractions import Fraction
from typing import Any


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
