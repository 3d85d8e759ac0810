"""Answers as trees: a reader of LaTeX, unicode and plain-text mathematics. Nothing of an answer is ever evaluated by Python.

`read(text)` gives an Answer: its items, and the conditions that come with them ("k any integer", "c > 0"). What is no
mathematics raises Unreadable, and so does everything beyond the bounds below; the caller then compares words, or asks
Math-Verify. Time is linear in the length of the text, but for a bounded amount of look-ahead.
"""

import html
import re
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from typing import Any

from r1distill.verify.units import measure

MAX_CHARACTERS = 2_000
MAX_TOKENS = 600
MAX_DEPTH = 40
MAX_DIGITS = 1_000


class Unreadable(Exception):
    """The text is no mathematics that this reader knows. The message says where it stopped."""


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


@dataclass(frozen=True, slots=True)
class Token:
    kind: str  # number, letter, command, word, op, open, close, end
    text: str
    space: bool = False  # whether white space stands before it


FUNCTIONS = frozenset(
    (
        "sin cos tan cot sec csc arcsin arccos arctan arccot sinh cosh tanh coth ln log lg exp sqrt cbrt abs floor "
        "ceil max min gcd lcm det cis diag sgn"
    ).split()
)
ALIASES = {
    "asin": "arcsin",
    "acos": "arccos",
    "atan": "arctan",
    "ceiling": "ceil",
    "tg": "tan",
    "ctg": "cot",
    "arctg": "arctan",
}
GREEK = frozenset(
    (
        "alpha beta gamma delta epsilon varepsilon zeta eta theta vartheta iota kappa lambda mu nu xi rho sigma "
        "tau upsilon phi varphi chi psi omega uniti unitj unitk Gamma Delta Theta Lambda Xi Sigma Phi Psi Omega "
        "ell"
    ).split()
)
# commands that are another spelling of a character
SPELLINGS = {
    "cdot": "*", "times": "*", "ast": "*", "div": "/", "le": "≤", "leq": "≤", "leqslant": "≤", "ge": "≥", "geq": "≥",
    "geqslant": "≥", "ne": "≠", "neq": "≠", "lt": "<", "gt": ">", "pm": "±", "mp": "∓", "in": "∈", "notin": "∉", "cup": "∪",
    "cap": "∩", "setminus": "∖", "backslash": "∖", "infty": "∞", "emptyset": "∅", "varnothing": "∅", "approx": "≈", "simeq": "≈",
    "equiv": "≡", "mid": "|", "vert": "|", "lvert": "|", "rvert": "|", "Vert": "‖", "lbrace": "{s", "rbrace": "}s", "colon": ":",
    "langle": "⟨", "rangle": "⟩", "lfloor": "⌊", "rfloor": "⌋", "lceil": "⌈", "rceil": "⌉", "circ": "°", "degree": "°",
    "ldots": "…", "dots": "…", "cdots": "…", "dotsc": "…", "dotsb": "…", "vdots": "…", "prime": "'", "lor": "or", "vee": "or",
    "land": "and", "wedge": "and", "sim": "≈", "implies": "⇒", "Rightarrow": "⇒", "iff": "⇒", "to": "→", "rightarrow": "→",
    "lbrack": "[", "rbrack": "]", "lparen": "(", "rparen": ")", "triangle": "△", "angle": "∠", "forall": "∀", "cr": "\\\\",
}  # fmt: skip
UNICODE = {
    "−": "-", "–": "-", "—": "-", "×": "*", "·": "*", "⋅": "*", "∙": "*", "∗": "*", "÷": "/", "∕": "/", "⁄": "/", "⩽": "≤", "⩾": "≥",
    "≦": "≤", "≧": "≥", "≅": "≈", "≃": "≈", "∣": "|", "º": "°", "˚": "°", "′": "'", "’": "'", "⋯": "…", "∶": ":", "：": ":",
    "，": ",", "；": ";", "（": "(", "）": ")", "＝": "=", "＋": "+", "－": "-", "∧": " and ", "∨": " or ", "⟩": "⟩", "∘": "°",
    "½": " \\frac12 ", "⅓": " \\frac13 ", "⅔": " \\frac23 ", "¼": " \\frac14 ", "¾": " \\frac34 ", "⅕": " \\frac15 ", "⅛": " \\frac18 ",
    "π": " \\pi ", "θ": " \\theta ", "α": " \\alpha ", "β": " \\beta ", "γ": " \\gamma ", "λ": " \\lambda ", "μ": " \\mu ", "σ": " \\sigma ",
    "φ": " \\phi ", "ω": " \\omega ", "ℝ": " \\mathbb{R} ", "ℤ": " \\mathbb{Z} ", "ℕ": " \\mathbb{N} ", "ℚ": " \\mathbb{Q} ",
    "ℂ": " \\mathbb{C} ", "√": " \\sqrt ", "∛": " \\cbrt ", "∑": " \\sum ", "∏": " \\prod ", "\u200b": "", "\ufeff": "", "\u2009": " ",
    "⇔": "⇒", "∈": " ∈ ",
}  # fmt: skip
SUPERSCRIPTS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻ⁿ", "0123456789+-n")
SUPERSCRIPT_RUN = re.compile("[⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻ⁿ]+")
SUBSCRIPTS = str.maketrans("₀₁₂₃₄₅₆₇₈₉", "0123456789")
SUBSCRIPT_RUN = re.compile("[₀₁₂₃₄₅₆₇₈₉]+")
STYLE = re.compile(
    r"\\(?:left|right|[bB]igg?[lrm]?|displaystyle|textstyle|scriptstyle|limits|nolimits|mathstrut|strut|hline|rm|bf|it)(?![a-zA-Z])\s*\.?"
)
SPACES = re.compile(
    r"\\[,;:!> ]|\\q?quad(?![a-zA-Z])|\\(?:hspace|vspace|hskip|phantom)\*?\{[^{}]*\}|\\enspace|~|&nbsp;"
)
TEXT = r"\\(?:text(?:bf|it|rm|sf|tt|normal|up)?|mbox|hbox|mathrm|mathbf|mathit|mathsf|mathcal|mathscr|bm|boldsymbol|operatorname\*?|emph)"
TEXT_GROUP = re.compile(TEXT + r"\s*\{([^{}]*)\}")
WORDS_THAT_ARE_SHORT = frozenset(
    (
        "and or for all any the if is are of no not yes odd even with per where when let be an to by on at as so "
        "none some real int mod cm mm km kg mg ml dl cl ft yd mi lb oz hr hrs min sec mph kmh am pm deg rad rev "
        "units unit sq cu day days yes zero one two six ten six nor but its only each both has have than from in "
        "it"
    ).split()
) | {"m/s", "km/h"}
# what a text command may hold that is mathematics all the same
TOKEN = re.compile(
    r"(?P<space>\s+)|(?P<number>\d+(?:\.\d+)?(?:\.(?=\d))?|\.\d+)|\\(?P<command>[a-zA-Z]+)|(?P<escaped>\\[{}|%#&_\\])|(?P<letters>[a-zA-Z]+)|"
    r"(?P<op><=|>=|!=|==|=>|\*\*|\.\.\.|!!|.)",
    re.DOTALL,
)
THOUSANDS = re.compile(
    r"(?<![\d.,])\d{1,3}(?:(?:,|\{,\}|\\,|\\!|,\\!)\d{3})+(?![\d,])|(?<![\d.,] )(?<![\d.,])\d{1,3}(?: \d{3})+(?!\d)"
)
REPEATING = re.compile(r"(\d*)\.(\d*)(?:\\(?:overline|bar|dot)\s*\{?\s*(\d+)\s*\}?)")
UNIT_VECTOR = re.compile(r"\\(?:mathbf|hat|vec|boldsymbol|bm)\s*\{?\s*(?:\\hat\s*\{)?\\?([ijk])(?:math)?\s*\}+")
CHOOSE = re.compile(r"(?:\{\})?(?:_|\^)?\{?(?<![a-zA-Z])(\d+|n|2n)\}?\s*C_?\{?(\d+|k|r|n)\}?(?![a-zA-Z_^{])")
BASES = {
    "two": 2,
    "three": 3,
    "four": 4,
    "five": 5,
    "six": 6,
    "seven": 7,
    "eight": 8,
    "nine": 9,
    "ten": 10,
    "sixteen": 16,
}
BASE_WORD = re.compile(r"_\s*\{?\s*(?:\\text\s*\{)?\s*(" + "|".join(BASES) + r")\s*\}?\s*\}?", re.IGNORECASE)
ENVIRONMENT = re.compile(r"\\(begin|end)\s*\{(\w+\*?)\}(?:\s*\{[lcr|@ ]*\})?")
MATRICES = {
    "pmatrix",
    "bmatrix",
    "vmatrix",
    "matrix",
    "array",
    "smallmatrix",
    "Bmatrix",
    "Vmatrix",
    "bsmallmatrix",
    "psmallmatrix",
}


def clean(text: str) -> str:
    """One spelling for each character, and no styles."""
    text = html.unescape(text) if "&" in text and ";" in text else text
    text = text.replace("\\$", "＄").replace("\\\\", "\\cr ")
    text = text.strip().strip("*").strip() if text.strip().startswith("**") else text.strip()
    for wrapped in (r"\$\$(.*)\$\$", r"\$([^$]*)\$", r"\\\((.*)\\\)", r"\\\[(.*)\\\]"):
        if match := re.fullmatch(wrapped + r"\s*\.?", text, re.DOTALL):
            text = match[1]
    text = text.replace("$", " " if text.count("$") % 2 == 0 else "＄")
    text = (
        UNIT_VECTOR.sub(r"\\unit\1 ", text)
        .replace("\\not\\equiv", "≢")
        .replace("\\not=", "≠")
        .replace("\\not\\in", "∉")
    )
    text = CHOOSE.sub(r"\\binom{\1}{\2}", text)
    text = re.sub(r"^(-?0),(\d+)$", r"\1.\2", text)  # a decimal comma, where it cannot be a list
    text = re.sub(r"^(\S*\d\S*) to (\S*\d\S*)$", r"\1:\2", text)
    for character, spelling in UNICODE.items():
        if character in text:
            text = text.replace(character, spelling)
    text = SUPERSCRIPT_RUN.sub(lambda run: "^{" + run[0].translate(SUPERSCRIPTS) + "}", text)
    text = SUBSCRIPT_RUN.sub(lambda run: "_{" + run[0].translate(SUBSCRIPTS) + "}", text)
    text = (
        text.replace("\\{", "\\lbrace ")
        .replace("\\}", "\\rbrace ")
        .replace("{:}", ":")
        .replace("{=}", "=")
        .replace("\\%", "%")
    )
    text = text.replace("\\colon", ":").replace("\\,\\!", "")
    text = THOUSANDS.sub(lambda number: re.sub(r"\D", "", number[0]), text)
    text = re.sub(r"(\d)\{,\}(\d)", r"\1,\2", text)
    text = REPEATING.sub(repeating, text)
    text = BASE_WORD.sub(lambda match: f"_{{{BASES[match[1].lower()]}}}", text)
    text = re.sub(r"^\s*(?:\\approx|≈)", "", text)
    text = STYLE.sub(" ", text)
    text = SPACES.sub(" ", text)
    text = re.sub(r"\\[dtc]frac(?![a-zA-Z])", r"\\frac", text)
    text = re.sub(r"(?<![\\a-zA-Z])(frac|sqrt)(?=\s*[{\[])", r"\\\1", text)
    return text.strip().rstrip(".;,").strip()


def repeating(match: re.Match[str]) -> str:
    """0.1\\overline{6} as the fraction it is."""
    whole, plain, repeated = match[1] or "0", match[2], match[3]
    if len(whole) + len(plain) + len(repeated) > 60:
        raise Unreadable("a long repeating decimal")
    nines = int("9" * len(repeated) + "0" * len(plain))
    top = int(whole + plain + repeated) - int(whole + plain or "0")
    return rf"\frac{{{top}}}{{{nines}}}"


def tokens_of(text: str) -> list[Token]:
    tokens: list[Token] = []
    space, position = False, 0
    while position < len(text):
        if group := TEXT_GROUP.match(text, position):
            if tokens and (measure(group[1].strip()) or group[1].strip() in ("units", "unit")):
                tokens.append(Token("word", group[1].strip(), True))
                space, position = False, group.end()
                continue
            tokens += words_of(group[1], space or group[1][:1] == " ")
            space, position = group[1][-1:] == " ", group.end()
            continue
        if environment := ENVIRONMENT.match(text, position):
            kind = environment[2].rstrip("*")
            if kind not in MATRICES and kind not in ("cases", "aligned", "align", "gathered"):
                raise Unreadable(f"environment {kind}")
            tokens.append(Token(environment[1], kind, space))
            space, position = False, environment.end()
            continue
        match = TOKEN.match(text, position)
        assert match is not None
        position = match.end()
        if match["space"]:
            space = True
            continue
        tokens += token_of(match, space)
        space = False
        if len(tokens) > MAX_TOKENS:
            raise Unreadable(f"more than {MAX_TOKENS} symbols")
    return tokens


def words_of(text: str, space: bool) -> list[Token]:
    """The inside of \\text{…}: its words, and numbers and signs as what they are. A single letter is a letter."""
    tokens: list[Token] = []
    for match in re.finditer(r"(\s*)([a-zA-Z]+(?:[-'][a-zA-Z]+)*|\d+(?:\.\d+)?|[^\sa-zA-Z\d])", text):
        before, part = match[1] != "" or (not tokens and space), match[2]
        if part[0].isalpha():
            is_letter = len(part) == 1 or part in FUNCTIONS
            tokens += letters(part, before, in_text=True) if not is_letter else letters(part, before)
        elif part[0].isdigit():
            tokens.append(Token("number", part, before))
        else:
            tokens.append(Token("op", part, before))
    return tokens


def token_of(match: re.Match[str], space: bool) -> list[Token]:
    if match["number"]:
        return [Token("number", match["number"].rstrip("."), space)]
    if match["letters"]:
        return letters(match["letters"], space)
    if name := match["command"]:
        name = ALIASES.get(name, name)
        if name in SPELLINGS:
            spelling = SPELLINGS[name]
            return [Token("word" if spelling.isalpha() else "op", spelling, space)]
        if name in FUNCTIONS or name in GREEK or name == "pi":
            return [Token("function" if name in FUNCTIONS else "letter", name, space)]
        return [Token("command", name, space)]
    if match["escaped"]:
        return [
            Token(
                "op",
                {"\\{": "{s", "\\}": "}s", "\\|": "‖", "\\\\": "\\\\"}.get(match["escaped"], match["escaped"][1:]),
                space,
            )
        ]
    op = {"<=": "≤", ">=": "≥", "!=": "≠", "==": "=", "=>": "⇒", "**": "^", "...": "…"}.get(match["op"], match["op"])
    return [Token("op", op, space)]


def letters(run: str, space: bool, in_text: bool = False) -> list[Token]:
    """A run of letters as a function, a constant, a word, or as letters one by one."""
    lower = run if run in FUNCTIONS else run.lower() if len(run) > 2 else run
    lower = ALIASES.get(lower, lower)
    if not in_text or lower in ("sin", "cos", "ln", "log"):
        if lower in FUNCTIONS:
            return [Token("function", lower, space)]
        if lower in ("pi", "infinity", "infty", "inf") or lower in GREEK:
            return [Token("op", "∞", space)] if lower.startswith("inf") else [Token("letter", lower, space)]
        for name in (
            "sqrt",
            "sin",
            "cos",
            "tan",
            "log",
            "ln",
            "pi",
        ):  # "5pi" comes apart by itself, "xsin" and "pix" do not
            if run.startswith(name) and 0 < len(run) - len(name) <= 1 and run.lower() not in WORDS_THAT_ARE_SHORT:
                return letters(name, space) + letters(run[len(name) :], False)
    if len(run) >= 4 or run.lower() in WORDS_THAT_ARE_SHORT or (in_text and len(run) > 1):
        return [Token("word", run, space)]
    return [Token("letter", letter, space and index == 0) for index, letter in enumerate(run)]


RELATIONS = frozenset(["=", "<", ">", "≤", "≥", "≠", "≈", "∈", "∉", "≡", "≢"])
CLOSING = {"(": ")]", "[": ")]", "{s": ("}s",), "⟨": ("⟩",)}
STOPS_IMPLICIT = frozenset(
    [
        "+",
        "-",
        "*",
        "/",
        "^",
        "_",
        ",",
        ";",
        ")",
        "]",
        "}s",
        "⟩",
        "|",
        "=",
        "<",
        ">",
        "≤",
        "≥",
        "≠",
        "≈",
        "∈",
        "∉",
        "≡",
        ":",
        "∪",
        "∩",
        "∖",
        "&",
        "!",
        "%",
        "°",
        "'",
        "±",
        "∓",
        "}",
        "⌋",
        "⌉",
        "⇒",
        "→",
        "?",
        "‖",
        ".",
        "\\\\",
        "{",
        "∠",
        "#",
        "@",
        '"',
        "~",
        "∀",
    ]
) - {"{"}
LEADS_TO_CONDITIONS = frozenset(
    ["where", "when", "with", "for", "if", "as", "such", "since", "because", "provided", "given", "whenever"]
)
INTEGERS = {"integer": "Z", "integers": "Z", "natural": "N", "real": "R", "reals": "R", "rational": "Q", "complex": "C"}
NAMED_SETS = {"R": "R", "Z": "Z", "N": "N", "Q": "Q", "C": "C"}


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
        if not self.is_op(":") or self.peek().kind == "end":
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
            elif self.is_op("…") and self.bars == 0 and self.peek().kind != "end" and not self.peek().text == ",":
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

    # ------------------------------------------------------------ atoms

    def atom(self) -> Node:
        token = self.take()
        if token.kind == "number":
            return self.numeral(token)
        if token.kind == "letter":
            return self.letter(token)
        if token.kind == "function":
            return self.function(token.text)
        if token.kind == "begin":
            return self.environment(token.text)
        if token.kind == "command" and token.text in ATOMS:
            return ATOMS[token.text](self)
        if token.kind == "op":
            return self.bracketed(token)
        raise Unreadable(f"{token.text!r} is no mathematics" if token.text else "the end comes too early")

    def numeral(self, token: Token) -> Node:
        if len(token.text) > MAX_DIGITS:
            raise Unreadable(f"a number of more than {MAX_DIGITS} digits")
        if self.is_op("_"):  # 2516_8
            self.take()
            base = self.group()
            if base.kind != "number" or token.text.count("."):
                raise Unreadable("a subscript of a number that is no base")
            return Node("based", (), (token.text.lstrip("0") or "0", int(base.data[0])))
        if self.next.kind == "letter" and self.next.text in "eE" and not self.next.space:
            exponent = self.peek(1 if self.peek().kind == "number" else 2)
            sign = self.peek().text if self.peek().kind == "op" else ""
            if (
                exponent.kind == "number"
                and exponent.text.isdigit()
                and sign in ("", "+", "-")
                and len(exponent.text) < 5
            ):
                if sign or "." in token.text:  # 1.5e-7; 2e3 could be a product
                    self.position += 3 if sign else 2
                    power = Node("power", (number_node("10"), number_node(exponent.text, negative=sign == "-")))
                    return Node("product", (number_node(token.text), power))
        return number_node(token.text)

    def letter(self, token: Token) -> Node:
        name = token.text
        if name == "pi":
            return Node("constant", (), "pi")
        if name in ("C", "P", "A") and self.is_op("_") and self.binomial_ahead():
            return self.binomial()
        if self.is_op("_"):
            self.take()
            name += "_" + self.subscript()
        while self.is_op("'"):
            self.take()
            name += "'"
        if (
            self.is_op("^")
            and self.peek().text == "{"
            and self.peek(2).text == "-"
            and self.peek(3).text == "1"
            and name in "fgh"
        ):
            self.position += 5
            name += "^-1"
        if (
            self.is_op("(")
            and name.split("_")[0].rstrip("'").removesuffix("^-1") in FUNCTION_LETTERS
            and not self.next.space
        ):
            self.take()
            arguments = [self.sum()]
            while self.is_op(","):
                self.take()
                arguments.append(self.sum())
            self.expect(")")
            return Node("call", tuple(arguments), name)
        if name == "e":
            return Node("constant", (), "e")
        if name == "i":
            return Node("constant", (), "i")
        return Node("letter", (), name)

    def binomial_ahead(self) -> bool:
        texts = "".join(token.text for token in self.tokens[self.position : self.position + 8])
        return re.match(r"_(\{\w+\}|\w)\^(\{\w+\}|\w)", texts) is not None

    def binomial(self) -> Node:
        """C_{10}^{3}."""
        self.expect("_")
        top = self.group()
        self.expect("^")
        return Node("binomial", (top, self.group()))

    def subscript(self) -> str:
        if not self.is_op("{"):
            return self.take().text
        self.take()
        parts: list[str] = []
        while not self.is_op("}"):
            if self.next.kind == "end" or len(parts) > 20:
                raise Unreadable("a subscript without an end")
            parts.append(self.take().text)
        self.take()
        return "".join(parts)

    def function(self, name: str) -> Node:
        power = None
        base = None
        if name in ("max", "min") and self.is_op("=", ":"):
            return Node("letter", (), {"max": "maximum", "min": "minimum"}[name])
        if name == "sqrt":
            return self.root()
        if name == "log" and self.is_op("_"):
            self.take()
            base = self.short_group() if not self.is_op("{") else self.group()
        if self.is_op("^"):
            self.take()
            power = self.group()
        arguments = self.arguments(name)
        if name in ("arcsin", "arccos", "arctan") or power is None or not is_minus_one(power):
            node = Node("function", arguments if base is None else (*arguments, base), name)
            return node if power is None else Node("power", (node, power))
        inverse = "arc" + name
        if inverse not in FUNCTIONS:
            return Node("power", (Node("function", arguments, name), power))
        return Node("function", arguments, inverse)

    def arguments(self, name: str) -> tuple[Node, ...]:
        if self.is_op("(", "[") or (self.is_op("{") and name in ("max", "min", "gcd", "lcm", "diag")):
            closing = {"(": ")", "[": "]", "{": "}"}[self.take().text]
            arguments = [self.ratio()]
            while self.is_op(","):
                self.take()
                arguments.append(self.ratio())
            self.expect(closing)
            return tuple(arguments)
        if self.is_op("{s"):
            self.take()
            arguments = [self.ratio()]
            while self.is_op(","):
                self.take()
                arguments.append(self.ratio())
            self.expect("}s")
            return tuple(arguments)
        return (self.argument_without_brackets(),)

    def argument_without_brackets(self) -> Node:
        """sin 2x cos x is a product of two: an argument ends before the next function and before a bracket."""
        if self.is_op("-"):
            self.take()
            return Node("negative", (self.argument_without_brackets(),))
        node = self.factor()
        while (
            self.starts_factor() and self.next.kind in ("number", "letter", "command") and self.next.text != "sqrt"
        ) or self.is_op("/"):
            if self.is_op("/"):
                if self.peek().kind not in ("number", "letter"):
                    break
                self.take()
                node = Node("quotient", (node, self.factor()))
                continue
            node = Node("product", (node, self.factor()))
        return node

    def root(self) -> Node:
        degree = number_node("2")
        if self.is_op("["):
            self.take()
            degree = self.sum()
            self.expect("]")
        if self.is_op("{"):
            return Node("root", (self.group(), degree))
        if self.is_op("("):
            self.take()
            inside = self.sum()
            self.expect(")")
            return Node("root", (inside, degree))
        if (
            self.next.kind == "number"
            and self.tokens[self.position - 1].text == "sqrt"
            and not self.next.space
            and self.raw_sqrt_digit()
        ):
            return Node("root", (self.short_group(), degree))
        return Node("root", (self.atom(), degree))

    def raw_sqrt_digit(self) -> bool:
        return False  # \sqrt12 is read by models as the root of 12, whatever TeX makes of it

    def fraction(self) -> Node:
        top = self.short_group()
        return Node("quotient", (top, self.short_group()))

    def choose(self) -> Node:
        top = self.short_group()
        return Node("binomial", (top, self.short_group()))

    def blackboard(self) -> Node:
        if self.is_op("{"):
            self.take()
            token = self.take()
            self.expect("}")
        else:
            token = self.take()
        name = NAMED_SETS.get(token.text)
        if name is None:
            raise Unreadable(f"the set {token.text}")
        if self.is_op("^", "_"):
            self.take()
            mark = self.take().text
            if mark == "{":
                mark = ""
                while not self.is_op("}"):
                    if self.next.kind == "end":
                        raise Unreadable("no end")
                    mark += self.take().text
                self.take()
            return Node(
                "named",
                (),
                name + {"+": "+", "*": "*", ">0": "+", "≥0": "0+", "-": "-", "++": "+"}.get(mark, f"^{mark}"),
            )
        return Node("named", (), name)

    def overline(self) -> Node:
        node = self.group()
        if node.kind != "letter":
            raise Unreadable("a bar over an expression")
        return Node("letter", (), f"{node.data}-bar")

    def big(self, name: str) -> Node:
        """\\sum_{k=1}^{n} term: data is the sign, args the letter, the bounds and the term."""
        self.expect("_")
        self.expect("{")
        letter = self.atom()
        self.expect("=")
        low = self.sum()
        self.expect("}")
        self.expect("^")
        high = self.group()
        term = self.product()
        if letter.kind not in ("letter", "constant"):
            raise Unreadable("a sum over no letter")
        return Node("series", (letter, low, high, term), name)

    def underbrace(self) -> Node:
        raise Unreadable("an underbrace")

    def bracketed(self, token: Token) -> Node:
        if token.text in ("(", "[", "⟨", "{s", "]"):
            return self.deeper(lambda: self.brackets(token.text))
        if token.text == "{":
            first = self.relation_free()
            if self.next.kind == "command" and self.next.text == "choose":
                self.take()
                first = Node("binomial", (first, self.relation_free()))
            if self.is_op(","):  # braces that a model forgot to escape
                items = [first]
                while self.is_op(","):
                    self.take()
                    items.append(self.ratio())
                first = Node("set", tuple(items))
            self.expect("}")
            return first
        if token.text == "|":
            self.bars += 1
            node = self.sum()
            self.expect("|")
            self.bars -= 1
            return Node("function", (node,), "abs")
        if token.text in ("⌊", "⌈"):
            node = self.sum()
            self.expect("⌋" if token.text == "⌊" else "⌉")
            return Node("function", (node,), "floor" if token.text == "⌊" else "ceil")
        if token.text == "∞":
            return Node("constant", (), "infinity")
        if token.text == "∅":
            return Node("named", (), "empty")
        if token.text == "…":
            return Node("dots")
        if token.text == "∠":
            self.atom()  # ∠A: the angle's name
            return Node("letter", (), "angle")
        raise Unreadable(f"{token.text!r} is out of place")

    def brackets(self, opening: str) -> Node:
        """Parentheses, a tuple, an interval, or a set."""
        bars, self.bars = self.bars, 0
        self.reversed += opening == "]"
        self.in_set += opening == "{s"
        items, _ = self.items_until()
        self.in_set -= opening == "{s"
        self.reversed -= opening == "]"
        self.bars = bars
        closing = self.take()
        if closing.kind != "op":
            raise Unreadable(f"{opening} is not closed")
        if opening == "{s":
            if closing.text == "|" or closing.text == ":":
                return self.builder(items)
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

    def items_until(self) -> tuple[list[Node], set[str]]:
        items: list[Node] = []
        separators: set[str] = set()
        while True:
            items.append(self.relation())
            if self.is_op(",", ";"):
                separators.add(self.take().text)
                continue
            if self.is_word("or", "and"):
                separators.add(self.take().text.lower())
                continue
            return items, separators

    def builder(self, items: list[Node]) -> Node:
        """{x | x ≠ 2}, {x ∈ ℝ : x > 0}: args are the conditions."""
        conditions, _ = self.items_until()
        self.expect("}s")
        head = items[0]
        if head.kind == "relation" and head.data == ("∈",):
            return Node("builder", (head, *conditions))
        return Node("builder", tuple(conditions))

    def environment(self, kind: str) -> Node:
        if kind == "cases":
            return self.cases()
        if kind not in MATRICES:
            raise Unreadable(f"environment {kind}")
        rows: list[list[Node]] = [[]]
        while self.next.kind != "end" or self.next.text == kind:
            if self.next.kind == "end" and self.next.text:
                break
            if self.is_op("\\\\"):
                self.take()
                rows.append([])
            elif self.is_op("&"):
                self.take()
            else:
                rows[-1].append(self.sum())
        if self.next.kind != "end" or self.next.text != kind:
            raise Unreadable("a matrix without an end")
        self.take()
        rows = [row for row in rows if row]
        if not rows or any(len(row) != len(rows[0]) for row in rows):
            raise Unreadable("a matrix with rows of different lengths")
        node = Node("matrix", tuple(cell for row in rows for cell in row), (len(rows), len(rows[0])))
        return Node("function", (node,), "det") if kind == "vmatrix" else node

    def cases(self) -> Node:
        """args: expression, condition, expression, condition, …"""
        parts: list[Node] = []
        while not (self.next.kind == "end" and self.next.text == "cases"):
            parts.append(self.sum())
            while self.is_op(",", "&") or self.is_word("if", "for", "when"):
                self.take()
            parts.append(Node("otherwise") if self.is_word("otherwise") else self.relation())
            if self.is_word("otherwise"):
                self.take()
            while self.is_op("\\\\", ","):
                self.take()
            if self.next.kind == "end" and not self.next.text:
                raise Unreadable("cases without an end")
        self.take()
        return Node("cases", tuple(parts))


FUNCTION_LETTERS = frozenset(["f", "g", "h", "F", "G", "H", "P", "Q", "p", "q", "r", "R", "N", "T", "S"])

ATOMS: dict[str, Callable[[Reader], Node]] = {
    "frac": Reader.fraction,
    "binom": Reader.choose,
    "dbinom": Reader.choose,
    "tbinom": Reader.choose,
    "mathbb": Reader.blackboard,
    "overline": Reader.overline,
    "bar": Reader.overline,
    "vec": Reader.overline,
    "hat": Reader.overline,
    "sum": lambda reader: reader.big("sum"),
    "prod": lambda reader: reader.big("product"),
    "pmod": lambda reader: reader.group(),
    "cbrt": lambda reader: Node("root", (reader.group(), number_node("3"))),
}


def number_node(text: str, negative: bool = False) -> Node:
    """data: the exact value, and how many significant digits a decimal was written with (0 for an integer)."""
    value = Fraction(text if not text.startswith(".") else f"0{text}")
    digits = len(text.replace(".", "").lstrip("0")) if "." in text else 0
    return Node("number", (), (-value if negative else value, digits))


def is_minus_one(node: Node) -> bool:
    return node.kind == "negative" and node.args[0].kind == "number" and node.args[0].data[0] == 1


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


@lru_cache(maxsize=20_000)
def read_expression(text: str) -> Node:
    """One relation or expression, read whole. Raises Unreadable."""
    if len(text) > MAX_CHARACTERS:
        raise Unreadable(f"more than {MAX_CHARACTERS:,} characters")
    try:
        reader = Reader(tokens_of(text))
        node = reader.relation()
    except (ValueError, OverflowError, ZeroDivisionError, IndexError) as error:
        raise Unreadable(str(error)) from None
    if reader.next.kind != "end":
        raise Unreadable(f"{reader.next.text!r} is left over")
    return node
