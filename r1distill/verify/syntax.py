"""Answers as trees: a reader of LaTeX, unicode and plain-text mathematics. Nothing of an answer is ever evaluated by Python.

What is no mathematics raises Unreadable, and so does everything beyond the bounds below; the caller then compares words,
or asks Math-Verify. Time is linear in the length of the text, but for a bounded amount of look-ahead.
"""

from collections.abc import Callable

from r1distill.verify.atoms import ATOMS, read_atom
from r1distill.verify.nodes import Node, number_node
from r1distill.verify.tokens import Token, Unreadable

MAX_CHARACTERS = 2_000
MAX_DEPTH = 40
RELATIONS = frozenset("= < > ≤ ≥ ≠ ≈ ∈ ∉ ≡ ≢".split())


class Reader:
    """Recursive descent over tokens. Each method reads one level of precedence and returns a Node."""

    def __init__(self, tokens: list[Token]) -> None:
        self.tokens = [*tokens, Token("end", "")]
        self.position = 0
        self.depth = 0
        self.bars = 0  # open absolute values: inside, a bar closes
        self.in_set = 0  # between the braces of a set, a bar stands before its conditions
        self.reversed = 0  # open intervals written ]0, 1[: inside, [ closes

    @property
    def next(self) -> Token:
        return self.tokens[self.position]

    def peek(self, ahead: int = 1) -> Token:
        return self.tokens[min(self.position + ahead, len(self.tokens) - 1)]

    def take(self) -> Token:
        token = self.tokens[self.position]
        self.position += 1
        return token

    def is_op(self, *texts: str) -> bool:
        return self.next.kind == "op" and self.next.text in texts

    def is_word(self, *texts: str) -> bool:
        return self.next.kind == "word" and self.next.text.lower() in texts

    def expect(self, *texts: str) -> Token:
        if not self.is_op(*texts):
            raise Unreadable(f"expected {' or '.join(texts)}, found {self.next.text!r}")
        return self.take()

    def deeper(self, read: Callable[[], Node]) -> Node:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise Unreadable(f"nested more than {MAX_DEPTH} deep")
        node = read()
        self.depth -= 1
        return node

    # ------------------------------------------------------------ relations, sets, sums

    def relation(self) -> Node:
        """a = b ≤ c: args are the operands, data the signs between them. A lone operand is itself."""
        operands, signs = [self.set_expression()], []
        while self.next.kind == "op" and self.next.text in RELATIONS:
            signs.append(self.take().text)
            operands.append(self.set_expression())
        if not signs:
            if (
                self.is_op("|")
                and self.bars == 0
                and not self.in_set
                and operands[0].kind in ("number", "letter")
                and self.peek().kind != "end"
            ):
                self.take()  # 4 | n
                return Node("divides", (operands[0], self.sum()))
            return operands[0]
        if signs[-1] in "≡≢" and any(
            token.text in ("pmod", "bmod", "mod", "modulo") for token in self.tokens[self.position :]
        ):
            return self.congruence(operands, signs[-1] == "≢")
        signs = ["=" if sign == "≡" else sign for sign in signs]  # f ≡ 0
        return Node("relation", tuple(operands), tuple(signs))

    def congruence(self, operands: list[Node], negated: bool) -> Node:
        """n ≡ 1, 5 (mod 6): args are n, the modulus and the residues, data whether n is none of these."""
        residues = [operands[-1]]
        while self.is_op(",") or self.is_word("or", "and"):
            self.take()
            if self.is_op(","):
                self.take()
            residues.append(self.sum())
        modulus = self.modulus()
        return Node("congruence", (operands[0], modulus, *residues), negated)

    def modulus(self) -> Node:
        if self.next.kind == "command" and self.next.text in ("pmod", "bmod", "mod"):
            self.take()
            return self.group()
        if self.is_op("("):
            self.take()
            if not (self.is_word("mod") or (self.next.kind == "command" and self.next.text in ("bmod", "mod"))):
                raise Unreadable("a congruence without a modulus")
            self.take()
            node = self.sum()
            self.expect(")")
            return node
        if self.is_word("mod", "modulo"):
            self.take()
            return self.sum()
        raise Unreadable("a congruence without a modulus")

    def set_expression(self) -> Node:
        left = self.ratio()
        while self.is_op("∪", "∩", "∖"):
            sign = self.take().text
            right = self.ratio()
            left = Node({"∪": "union", "∩": "intersection", "∖": "difference"}[sign], (left, right))
        return left

    def ratio(self) -> Node:
        first = self.sum()
        if not self.is_op(":") or self.in_set or self.peek().kind == "end":
            return first
        parts = [first]
        while self.is_op(":"):
            self.take()
            parts.append(self.sum())
        return Node("ratio", tuple(parts))

    def sum(self) -> Node:
        return self.deeper(self.sum_here)

    def sum_here(self) -> Node:
        terms: list[Node] = []
        if self.is_op("±", "∓"):
            sign = self.take().text
            left = Node("plusminus", (self.product(),), sign)
        elif self.is_op("-", "+"):
            negative = self.take().text == "-"
            product = self.product()
            left = Node("negative", (product,)) if negative else product
        else:
            left = self.product()
        terms.append(left)
        while self.is_op("+", "-", "±", "∓"):
            sign = self.take().text
            if self.is_op("…"):  # 1 + 2 + … + n
                self.take()
                terms.append(Node("dots"))
                continue
            if sign in "+-" and self.is_op("-", "+") and not self.next.space:
                raise Unreadable("two signs")
            term = self.product()
            terms.append(
                term if sign == "+" else Node("negative", (term,)) if sign == "-" else Node("plusminus", (term,), sign)
            )
        return terms[0] if len(terms) == 1 else Node("sum", tuple(terms))

    def product(self) -> Node:
        left = self.factor()
        while True:
            if left.kind == "number" and self.next.kind == "number" and self.peek().text == "/" and left.data[1] == 0:
                left = self.mixed(left)
            elif self.is_op("*", "/"):
                sign = self.take().text
                if self.is_op("…") and sign == "*":
                    self.take()
                    left = Node("product", (left, Node("dots")))
                    if self.is_op("*"):
                        self.take()
                    continue
                right = self.signed_factor()
                left = Node("product" if sign == "*" else "quotient", (left, right))
            elif self.is_op("…") and self.bars == 0 and self.peek().kind != "end" and self.peek().text != ",":
                self.take()
                left = Node("product", (left, Node("dots")))
            elif self.starts_factor():
                before = self.tokens[self.position - 1]
                right = self.factor()
                left = juxtaposed(left, right, before)
            else:
                return left

    def mixed(self, whole: Node) -> Node:
        """1 1/2."""
        top = number_node(self.take().text)
        self.take()
        bottom = self.atom()
        if bottom.kind != "number" or not 0 < top.data[0] < bottom.data[0]:
            raise Unreadable("two numbers side by side")
        return Node("sum", (whole, Node("quotient", (top, bottom))))

    def starts_factor(self) -> bool:
        token = self.next
        if token.kind == "op":
            if token.text == "|":
                return self.bars == 0 and not self.in_set and self.closes_later("|")
            if token.text == "(" and self.peek().text in ("mod", "bmod"):
                return False
            return token.text in ("(", "{", "⌊", "⌈") or (
                token.text == "[" and self.position > 0 and not token.space and not self.reversed
            )
        return token.kind in ("number", "letter", "function", "begin") or (
            token.kind == "command" and token.text in ATOMS and token.text not in ("pmod", "bmod", "mod")
        )

    def closes_later(self, bar: str) -> bool:
        """Whether a bar here opens an absolute value that closes before the next comma or relation."""
        for token in self.tokens[self.position + 1 : self.position + 60]:
            if token.kind == "op" and token.text == bar:
                return True
            if token.kind in ("end", "word") or (token.kind == "op" and token.text in RELATIONS | {",", ";"}):
                return False
        return False

    def signed_factor(self) -> Node:
        if self.is_op("-", "+"):
            negative = self.take().text == "-"
            factor = self.factor()
            return Node("negative", (factor,)) if negative else factor
        return self.factor()

    # ------------------------------------------------------------ powers and what stands behind

    def factor(self) -> Node:
        return self.deeper(self.factor_here)

    def factor_here(self) -> Node:
        base = self.atom()
        while True:
            if self.is_op("^"):
                self.take()
                if self.is_op("°") or (self.is_op("{") and self.peek().text == "°" and self.peek(2).text == "}"):
                    base = self.degrees(base)
                    continue
                if self.is_op("'") or (self.is_op("{") and self.peek().text == "'"):
                    raise Unreadable("a derivative")
                base = Node("power", (base, self.group()))
            elif self.is_op("°"):
                base = self.degrees(base)
            elif self.is_op("!!"):
                self.take()
                base = Node("factorial2", (base,))
            elif self.is_op("!"):
                self.take()
                base = Node("factorial", (base,))
            elif self.is_op("%") or (self.is_word("percent") and base.kind != "letter"):
                self.take()
                base = Node("percent", (base,))
            else:
                return base

    def degrees(self, base: Node) -> Node:
        """36° 30' 15": the sum of its parts, in degrees."""
        while self.is_op("°", "{", "}"):
            if self.is_op("}") and self.depth_of_braces_is_done():
                break
            self.take()
        total = base
        for sign, parts in (("'", 60), ('"', 3600)):
            if (
                self.next.kind == "number"
                and self.peek().kind == "op"
                and self.peek().text in (sign, "^")
                and sign in (self.peek().text, self.peek(2).text, self.peek(3).text)
            ):
                number = self.atom()
                while self.is_op(sign, "^", "{", "}", "'"):
                    self.take()
                total = Node("sum", (total, Node("quotient", (number, number_node(str(parts))))))
        return Node("degrees", (total,))

    def depth_of_braces_is_done(self) -> bool:
        return self.tokens[self.position - 1].text == "}"

    def group(self) -> Node:
        """What a superscript, \\frac or \\sqrt takes: {…}, or one symbol (one digit of a number)."""
        if self.is_op("{"):
            self.take()
            node = self.relation_free()
            self.expect("}")
            return node
        if self.is_op("("):
            return self.atom()
        if self.is_op("-", "+"):
            negative = self.take().text == "-"
            node = self.group()
            return Node("negative", (node,)) if negative else node
        if self.next.kind == "number" and self.tokens[self.position - 1].kind in ("op", "command"):
            return number_node(self.take().text)
        return self.atom()

    def short_group(self) -> Node:
        """As group, of a number only its first digit: \\frac12 is a half."""
        if self.next.kind == "number" and self.next.text.isdigit() and len(self.next.text) > 1:
            text = self.next.text
            self.tokens[self.position] = Token("number", text[1:])
            return number_node(text[0])
        return self.group()

    def relation_free(self) -> Node:
        return self.deeper(self.ratio)

    def atom(self) -> Node:
        return read_atom(self)


def juxtaposed(left: Node, right: Node, before: Token) -> Node:
    """Side by side: a product; a mixed number where an integer stands before a fraction of integers below one."""
    if right.kind == "number" and before.kind == "number":
        raise Unreadable("two numbers side by side")
    if right.kind == "percent" and before.kind == "number":  # 66 2/3 %
        inside = juxtaposed(left, right.args[0], before)
        return Node("percent", (inside,)) if inside.kind == "sum" else Node("product", (left, right))
    if left.kind == "number" and left.data[1] == 0 and right.kind == "quotient" and before.kind == "number":
        top, bottom = right.args
        if top.kind == bottom.kind == "number" and 0 < top.data[0] < bottom.data[0]:
            return Node("sum", (left, right))
    return Node("product", (left, right))
