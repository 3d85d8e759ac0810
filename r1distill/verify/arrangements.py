"""Tuples, vectors and matrices as rows of entries."""

import re
from collections.abc import Sequence

from r1distill.verify.nodes import Node, has_kind, is_scalar, letters_of, number_node, rename


def is_matrix(node: Node) -> bool:
    return has_kind(node, {"matrix"}) and not (node.kind == "function" and node.data == "det")


def is_line(rows: int, cells: Sequence[Node]) -> bool:
    return rows in (1, len(cells))


def vector(node: Node) -> Sequence[Node] | None:
    found = arrangement(node) if is_matrix(node) else None
    return found[1] if found is not None and is_line(*found) else None


def arrangement(node: Node) -> tuple[int, tuple[Node, ...]] | None:
    """(rows, entries) of a tuple, a matrix, or a multiple of one."""
    if node.kind == "tuple":
        if len({len(row.args) if row.kind == "tuple" and row.data == "[]" else 0 for row in node.args} | {0}) == 2 and (
            node.data == "[]" and node.args[0].kind == "tuple"
        ):  # [[1, 2], [3, 4]]
            return len(node.args), tuple(cell for row in node.args for cell in row.args)
        return 1, node.args
    if node.kind == "matrix":
        return node.data[0], node.args
    if node.kind == "power" and node.args[1] == Node("letter", (), "T"):
        inner = arrangement(node.args[0])
        return transposed(*inner) if inner else None
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
        names = ("uniti", "unitj", "unitk") if "unitk" in letters_of(node) else ("uniti", "unitj")
        return 1, tuple(coordinate(node, name) for name in names)
    if node.kind == "negative":
        inner = arrangement(node.args[0])
        return None if inner is None else (inner[0], tuple(Node("negative", (cell,)) for cell in inner[1]))
    return None


def transposed(rows: int, cells: tuple[Node, ...]) -> tuple[int, tuple[Node, ...]]:
    columns = len(cells) // rows
    return columns, tuple(cells[row * columns + column] for column in range(columns) for row in range(rows))


UNIT_VECTORS = frozenset(("uniti", "unitj", "unitk"))


def coordinate(node: Node, name: str) -> Node:
    """The coefficient of a unit vector in a sum of multiples of them: the sum with that one being 1 and the others 0."""
    return rename(node, {other: number_node(str(int(other == name))) for other in UNIT_VECTORS})
