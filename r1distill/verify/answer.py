"""From the text of an answer to its items and conditions: what is said, without the sentence around it."""

import itertools
import re
from collections.abc import Iterable
from functools import lru_cache

from r1distill.verify.nodes import Answer, Node, number_node
from r1distill.verify.phrases import MEANINGS, calendar_date, circled, clock_time, meaning, number_word, plain
from r1distill.verify.syntax import MAX_CHARACTERS, RELATIONS, Reader
from r1distill.verify.tokens import Token, Unreadable, clean, tokens_of
from r1distill.verify.units import measure

LEADS_TO_CONDITIONS = frozenset("where when with for if as such since because provided given whenever".split())
OPENING, CLOSING = frozenset(["(", "[", "{s", "{", "⟨", "⌊", "⌈"]), frozenset([")", "]", "}s", "}", "⟩", "⌋", "⌉"])
STATING = frozenset(["is", "are", "equals", "equal", "be", "becomes", "was", "were"])
ENDING = frozenset(
    "is are attained achieved occurs occurring obtained respectively rejecting reject exactly only because since being holds "
    "works satisfies satisfy depending assuming reached which".split()
)
# words after which a sentence takes back what it said
TAKEN_BACK = frozenset(
    "not no wrong impossible incorrect rejected excluded extraneous invalid unless except but however never".split()
)
RESTRICTING = frozenset(
    (
        "most least less more fewer greater than under over below above about nearly almost up exactly approximately"
    ).split()
)
DOMAINS = {
    "integer": "Z", "integers": "Z", "natural": "N", "naturals": "N", "real": "R", "reals": "R",
    "constant": "R", "constants": "R",
    "rational": "Q", "complex": "C",
}  # fmt: skip
CONDITION_FILLERS = frozenset(
    (
        "is are an a any all every each some arbitrary for where with and of the number numbers constant constants "
        "where be being to when if as such that natural integer integers real reals positive nonnegative "
        "non-negative negative nonzero non-zero"
    ).split()
)
LABELS = re.compile(r"(?:^|(?<=[\s;,.]))\(?(?:\\text\{)?([a-f]|iv|i{1,3}|[1-6])\}?\)(?=[\s\\])")


@lru_cache(maxsize=20_000)
def read(text: str) -> Answer:
    """The items of an answer and the conditions on their letters. Raises Unreadable for what is not mathematics."""
    if len(text) > MAX_CHARACTERS:
        raise Unreadable(f"more than {MAX_CHARACTERS:,} characters")
    text = LEADS_IN.sub("", clean(text))
    if (said := meaning(text)) is not None:
        return Answer((Node("phrase", (), said),))
    if (number := number_word(text)) is not None:
        return Answer((number_node(str(number)),))
    if match := re.fullmatch(r"(?:\\(?:text|mathrm)\{)?([0-9A-Fa-f]+)\}?_\{?(\d{1,2})\}?", text) or re.fullmatch(
        r"([0-9a-f]*\d[0-9a-f]*) (?:in )?base[- ]?(\d{1,2})", plain(text)
    ):
        return Answer((based(match[1], int(match[2])),))
    if match := re.fullmatch(r"(-?)0(x[0-9a-fA-F]+|b[01]+)", text):
        number = based(match[2][1:], 16 if match[2][0] == "x" else 2)
        return Answer((Node("negative", (number,)) if match[1] else number,))
    if NUMBERS_IN_A_ROW.fullmatch(text):  # 1 2 3
        row = [number_node(each.lstrip("-"), negative=each[0] == "-") for each in text.split()]
        return Answer((Node("tuple", tuple(row), "()"),))
    if (marks := circled(text)) is not None:
        return Answer((Node("set", tuple(number_node(str(mark)) for mark in sorted(marks))),))
    if (time := clock_time(text)) is not None and re.search(r"[ap]\.?m|noon|midnight|past| to ", plain(text)):
        return Answer((Node("time", (), time),))
    if (date := calendar_date(text)) is not None:
        return Answer((Node("date", (), date),))
    if (parts := labelled_parts(text)) is not None:
        return Answer(tuple(read(part).items[0] for part in parts), frozenset(("parts",)))
    if match := re.fullmatch(
        r"(?:all |any )?(?:the )?real(?:s| numbers)?(?: [a-z])? (?:except|other than|but|not equal to)(?: for)? (.+)",
        plain(text),
    ):
        rest = read(text[-len(match[1]) :]).items
        return Answer((Node("difference", (Node("named", (), "R"), Node("set", rest))),))
    if re.fullmatch(
        r"(?:all |any )?(?:the )?real(?:s| numbers)? (?:that|which) are not integers|(?:all )?non-?integers?(?: real numbers)?",
        plain(text),
    ):
        return Answer((Node("difference", (Node("named", (), "R"), Node("named", (), "Z"))),))
    if (rewritten := reworded(plain(text))) is not None:
        return read(rewritten)
    try:
        tokens = without_explanations(tokens_of(text))
    except IndexError:
        raise Unreadable("out of place") from None
    if not tokens:
        raise Unreadable("nothing to read")
    try:
        return items_of(tokens)
    except (ValueError, OverflowError, ZeroDivisionError, IndexError, RecursionError) as error:
        raise Unreadable(str(error)) from None


def reworded(words: str) -> str | None:
    """A few sentences that stand for a formula, as that formula."""
    if match := COMPARED.fullmatch(words):
        letter, sign, or_equal, limit = match.groups()
        return f"{letter} {'>' if sign in ('greater', 'larger', 'more') else '<'}{'=' if or_equal else ''} {limit}"
    if match := re.fullmatch(r"(?:all |the )?(?:positive )?(?:divisors|factors) of (\d{1,4})", words):
        n = int(match[1])
        return ", ".join(str(d) for d in range(1, n + 1) if n % d == 0) if n <= MAX_DIVIDED else None
    if match := REAL_NUMBERS.fullmatch(words):
        return {
            "positive": r"(0,\infty)", "negative": r"(-\infty,0)", "non-negative": r"[0,\infty)",
            "nonnegative": r"[0,\infty)", "non-positive": r"(-\infty,0]", "nonpositive": r"(-\infty,0]",
            "nonzero": r"\mathbb{R}\setminus\{0\}", "non-zero": r"\mathbb{R}\setminus\{0\}",
        }[match[1]]  # fmt: skip
    if match := re.fullmatch(r"(?:all |the |any )?(positive )?(?:integer )?multiples? of (\d{1,6})", words):
        return rf"{match[2]}k, k \in \mathbb{{Z}}" + ("^+" if match[1] else "")
    if (match := re.fullmatch(r"([a-z]+)[ -]([a-z]+)", words)) and (part := PARTS.get(match[2].removesuffix("s"))):
        top = number_word(match[1])
        return None if top is None else rf"\frac{{{top}}}{{{part}}}"
    if match := re.fullmatch(r"([a-z -]+) (percent|degrees|dollars|cents)", words):
        number = number_word(match[1])
        return None if number is None else f"{number} {match[2]}"
    return None


NUMBERS_IN_A_ROW = re.compile(r"-?\d+(?:\.\d+)?(?:\s+-?\d+(?:\.\d+)?)+")
LEADS_IN = re.compile(
    r"^(?:(?:so|thus|hence|therefore),? )?(?:we (?:get|have|find|obtain)|it is|it's|exactly|precisely)\s+(?=\S)",
    re.IGNORECASE,
)
REAL_NUMBERS = re.compile(
    r"(?:(?:all|any|the|every|set of)(?: the)? )*"
    r"(positive|negative|non-?negative|non-?positive|non-?zero) reals?(?: numbers?)?(?: [a-z])?"
)
PARTS = {
    "half": 2, "halve": 2, "third": 3, "quarter": 4, "fourth": 4, "fifth": 5, "sixth": 6, "seventh": 7, "eighth": 8,
    "ninth": 9, "tenth": 10, "hundredth": 100,
}  # fmt: skip
MAX_DIVIDED = 5_000
COMPARED = re.compile(
    r"(?:all |any |every )?(?:real )?(?:numbers? |values? )?(?:of )?([a-z])(?: is| are)?(?: strictly)? "
    r"(greater|larger|more|less|smaller) than (or equal to )?(\S+)"
)


def based(digits: str, base: int) -> Node:
    try:
        int(digits, base)
    except ValueError:
        raise Unreadable(f"{digits} is no number in base {base}") from None
    return Node("based", (), (digits.upper().lstrip("0") or "0", base))


def labelled_parts(text: str) -> list[str] | None:
    """The parts of `(a) 3 (b) 4`, in their order; None where there are no such labels."""
    marks = list(LABELS.finditer(text))
    names = [mark[1] for mark in marks]
    if len(marks) < 2 or names not in (
        [*"abcdef"[: len(marks)]],
        [*"123456"[: len(marks)]],
        ["i", "ii", "iii", "iv"][: len(marks)],
    ):
        return None
    if text[: marks[0].start()].strip():
        return None
    ends = [mark.start() for mark in marks[1:]] + [len(text)]
    parts = [text[mark.end() : end].strip(" ;,.") for mark, end in zip(marks, ends, strict=True)]
    return parts if all(parts) else None


def without_explanations(tokens: list[Token]) -> list[Token]:
    """The tokens without remarks in brackets, the words before a final "is" and those after the statement."""
    tokens = without_remarks(tokens)
    tokens = after_statement(tokens)
    depth = 0
    for index, token in enumerate(tokens):
        depth += (token.text in OPENING) - (token.text in CLOSING) if token.kind == "op" else 0
        if depth == 0 and index and token.kind == "word" and token.text.lower() in ENDING:
            rest = {other.text.lower() for other in tokens[index:] if other.kind == "word"}
            if rest & TAKEN_BACK:
                raise Unreadable("a sentence that takes something back")
            tokens = tokens[:index]
            while tokens and tokens[-1].kind == "op" and tokens[-1].text in (",", ";", "("):
                tokens = tokens[:-1]
            break
    return tokens


def without_remarks(tokens: list[Token]) -> list[Token]:
    """Without (since 2^5 = 32), (≈ 12.57), (base 2): brackets that begin with a word or ≈, behind something."""
    kept: list[Token] = []
    index = 0
    if not any(token.kind == "word" and token.text != "to" for token in tokens):
        tokens = [Token("op", ":") if token.kind == "word" else token for token in tokens]  # 3 to 5
    while index < len(tokens):
        token, after = tokens[index], tokens[index + 1] if index + 1 < len(tokens) else None
        is_remark = (
            token.kind == "op" and token.text in "([" and kept and after is not None
            and ((after.kind == "word" and after.text.lower() not in ("mod", "base")) or after.text in ("≈", "="))
        )  # fmt: skip
        if token.kind == "op" and token.text == "(" and after is not None and after.text.lower() == "base":
            close = matching(tokens, index)
            kept += [Token("op", "_"), Token("op", "{"), *tokens[index + 2 : close], Token("op", "}")]
            index = close + 1
            continue
        beyond = tokens[index + 2].text if index + 2 < len(tokens) else ""
        if (
            token.text == "("
            and kept
            and after is not None
            and after.kind == "letter"
            and beyond in ("∈", "≥", ">", "≠")
        ):
            close = matching(tokens, index)  # (k ∈ ℤ)
            kept += [Token("op", ","), *tokens[index + 1 : close]]
            index = close + 1
            continue
        if is_remark:
            index = matching(tokens, index) + 1
            continue
        kept.append(token)
        index += 1
    return kept


def matching(tokens: list[Token], index: int) -> int:
    """Where the bracket at `index` closes; the last token if nowhere."""
    depth = 0
    for position in range(index, len(tokens)):
        if tokens[position].kind == "op":
            depth += (tokens[position].text in OPENING) - (tokens[position].text in CLOSING)
            if depth <= 0:
                return position
    return len(tokens) - 1


def after_statement(tokens: list[Token]) -> list[Token]:
    """What follows "the maximum value is" or "final answer:", up to the end of that clause."""
    for index in range(len(tokens) - 1, 0, -1):
        token = tokens[index]
        before = tokens[:index]
        says = (token.kind == "word" and token.text.lower() in STATING) or (
            token.kind == "op" and token.text in (":", "=")
        )
        if not says or index + 1 >= len(tokens):
            continue
        words = [other for other in before if other.kind == "word"]
        said = {other.text.lower() for other in words}
        if "answer" in said:
            return until_comma(tokens[index + 1 :])
        if words and all(other.kind == "word" or (other.kind == "letter" and other.text in "aA") for other in before):
            if said & TAKEN_BACK:
                raise Unreadable("a sentence that denies something")
            if len(said - {"the", "a"}) >= 1 and not (said <= {"min", "max"}) and not label_follows(tokens, index):
                return until_comma(tokens[index + 1 :]) if token.kind == "word" else tokens[index + 1 :]
    return tokens


def label_follows(tokens: list[Token], index: int) -> bool:
    """Whether another label with its value comes behind: length = 5, width = 3."""
    rest = tokens[index + 1 :]
    return token_is_sign(tokens[index]) and any(
        one.kind == "word" and (token_is_sign(two) or two.kind == "number") for one, two in itertools.pairwise(rest)
    )


def token_is_sign(token: Token) -> bool:
    return token.kind == "op" and token.text in (":", "=")


def until_comma(tokens: list[Token]) -> list[Token]:
    """The clause before a comma after which words go on."""
    for index, token in enumerate(tokens):
        if token.text == "," and index + 1 < len(tokens) and tokens[index + 1].kind == "word":
            return tokens[:index]
    return tokens


def pieces(tokens: list[Token]) -> tuple[list[list[Token]], frozenset[str]]:
    """The tokens between the commas, semicolons and "or"s that stand outside of brackets."""
    parts: list[list[Token]] = [[]]
    separators: set[str] = set()
    depth = 0
    half_open = bool(tokens) and tokens[0].text == "]"
    for index, token in enumerate(tokens):
        if token.kind == "op" and not half_open:
            depth += (token.text in OPENING) - (token.text in CLOSING)
        elif token.kind in ("begin", "end"):
            depth += 1 if token.kind == "begin" else -1
        is_separator = (token.kind == "op" and token.text in (",", ";", "⇒", "\\\\")) or (
            token.kind == "word" and token.text.lower() in ("or", "and")
        )
        if is_separator and depth == 0 and not half_open and not in_congruence(tokens, index):
            if parts[-1]:
                separators.add(token.text.lower())
                parts.append([])
            elif parts[:-1]:
                separators.add(token.text.lower())  # ", and"
        else:
            parts[-1].append(token)
    return [part for part in parts if part], frozenset(separators)


def in_congruence(tokens: list[Token], index: int) -> bool:
    """n ≡ 1, 5 (mod 6) is one item."""
    before = any(token.text == "≡" for token in tokens[:index])
    after = any(token.text in ("pmod", "mod", "modulo") for token in tokens[index:])
    between = any(token.text in ("pmod", "mod", "modulo") for token in tokens[:index])
    return before and after and not between and not any(token.text in RELATIONS for token in tokens[index:])


def items_of(tokens: list[Token]) -> Answer:
    parts, separators = pieces(tokens)
    items: list[Node] = []
    conditions: list[Node] = []
    for part in parts:
        part = without_label(part)
        head, clause = split_clause(part)
        if head:
            node = read_item(head)
            (conditions if items and is_condition(node, items) else items).append(node)
        if clause:
            conditions += clause_conditions(clause, items)
    if len(items) == 1 and items[0].kind == "image":
        items, conditions = [items[0].args[0]], [*conditions, *items[0].args[1:]]
    if len(items) > 1 and items[0].kind == "relation" and items[0].data == ("≠",):  # x ≠ 1, 2
        items = [
            item if item.kind == "relation" else Node("relation", (items[0].args[0], item), ("≠",)) for item in items
        ]
    names = {name for item in items for name in names_in(item)}
    conditions = [
        condition for condition in conditions if names_in(condition.args[0]) & names or condition.data == ("∈",)
    ]
    if not items:
        raise Unreadable("no item")
    if len(items) == 2 and separators == {"and"} and all(item.kind == "quantity" for item in items):
        first, second = (measure(item.data) for item in items)
        if first is not None and second is not None and first[0] == second[0]:  # 12 dollars and 40 cents
            items = [Node("quantities", tuple(items))]
    return Answer(tuple(items), separators if len(items) > 1 else frozenset(), tuple(conditions))


def without_label(part: list[Token]) -> list[Token]:
    """(a) 3 as 3, if something follows."""
    texts = [token.text for token in part[:3]]
    is_label = len(part) > 3 and texts[0] == "(" and texts[2] == ")" and texts[1] in "abcd1234"
    return part[3:] if is_label and (part[3].kind != "op" or part[3].text in ("-", "(")) else part


def split_clause(part: list[Token]) -> tuple[list[Token], list[Token]]:
    """(what is said, the clause that begins with where, with, for …)."""
    depth = 0
    for index, token in enumerate(part):
        if token.kind == "op":
            depth += (token.text in OPENING) - (token.text in CLOSING)
        if depth == 0 and token.kind == "word" and token.text.lower() in LEADS_TO_CONDITIONS:
            return part[:index], part[index + 1 :]
        if (
            depth == 0
            and token.kind == "op"
            and token.text in (":", "|")
            and index + 1 < len(part)
            and part[index + 1].kind == "word"
        ):
            return part[:index], part[index + 1 :]
    for index, token in enumerate(part):
        if index and token.kind == "word" and token.text.lower() in ("any", "every", "all"):
            return part[:index], part[index:]
    return part, []


def clause_conditions(clause: list[Token], items: list[Node]) -> list[Node]:
    """What a clause says of letters: `k ∈ ℤ`, `c > 0`, "k any integer". A clause about anything else says nothing here."""
    found: list[Node] = []
    words = [token.text.lower() for token in clause if token.kind == "word"]
    if set(words) & TAKEN_BACK:
        raise Unreadable("a condition that excludes something")
    mathematics = [token for token in clause if token.kind != "word"]
    letters = [token.text for token in mathematics if token.kind == "letter"]
    domain = next((DOMAINS[word] for word in words if word in DOMAINS), None)
    if domain is not None and len(mathematics) == len(letters):
        if domain == "Z" and "positive" in words:
            domain = "Z+"
        elif domain == "Z" and ("nonnegative" in words or "non-negative" in words):
            domain = "Z0+"
        elif domain == "R" and ("positive" in words or "nonzero" in words or "non-zero" in words):
            domain = "R+" if "positive" in words else "R*"
        for letter in letters or []:
            found.append(Node("relation", (Node("letter", (), letter), Node("named", (), domain)), ("∈",)))
        return found
    if not set(words) <= CONDITION_FILLERS:
        return found  # an explanation
    parts, _ = pieces([token for token in clause if token.kind != "word" or token.text.lower() in ("or", "and", "mod")])
    for part in parts:
        node = read_item(part)
        if node.kind == "relation":
            found.append(node)
    return found


def is_condition(node: Node, items: Iterable[Node]) -> bool:
    """Whether an item restricts a letter of the items before it: `k ∈ ℤ`, `k ≥ 1`."""
    if node.kind != "relation" or node.args[0].kind != "letter":
        return False
    name = node.args[0].data
    if node.data == ("∈",) and node.args[1].kind == "named":
        return any(defines(item, None) or item.kind != "relation" for item in items)
    if node.data[0] in (">", "<", "≥", "≤", "≠") and len(node.data) == 1:
        return any(
            item.kind in ("relation", "tuple", "call") and name in names_in(item) and not is_bound(item, name)
            for item in items
        )
    return False


def is_bound(item: Node, name: str) -> bool:
    if item.kind == "relation" and "=" not in item.data:
        return any(operand.kind == "letter" and operand.data == name for operand in item.args)
    return item.kind == "relation" and item.args[0].kind == "letter" and item.args[0].data == name


def defines(item: Node, name: str | None) -> bool:
    return item.kind == "relation" and item.data == ("=",) and (name is None or is_bound(item, name))


def names_in(node: Node) -> set[str]:
    names = {node.data} if node.kind == "letter" else set()
    for child in node.args:
        names |= names_in(child)
    return names


def read_item(tokens: list[Token]) -> Node:
    """A relation or an expression, with a unit behind it if words are left over; else words that mean something."""
    text = " ".join(token.text for token in tokens)
    if all(token.kind == "word" for token in tokens):
        if (number := number_word(text)) is not None:
            return number_node(str(number))
        said = next((said for pattern, said in MEANINGS if pattern.fullmatch(text.lower())), None)
        return Node("phrase", (), said) if said else Node("words", (), text)
    if tokens[0].text in ("＄", "€", "£", "¥"):  # what money is counted in comes first
        return Node(
            "quantity",
            (read_item([*tokens[1:]]),),
            {"＄": "dollar", "€": "euro", "£": "£", "¥": "yuan"}[tokens[0].text],
        )
    while tokens and tokens[0].kind == "word":
        if tokens[0].text.lower() in TAKEN_BACK or len(tokens) < 2:
            raise Unreadable("words before mathematics")
        label = []
        while tokens and tokens[0].kind == "word":
            label.append(tokens[0].text.lower())
            tokens = tokens[1:]
        if tokens and tokens[0].text in ("=", ":"):
            tokens = tokens[1:]
        kind = "restricted" if RESTRICTING & set(label) else "labelled"
        return Node(kind, (read_item(tokens),), " ".join(word for word in label if word not in ("the", "value", "of")))
    reader = Reader(tokens)
    try:
        node = reader.relation()
    except Unreadable:
        at = next((i for i, token in enumerate(tokens) if token.text == "="), 0)
        if not 0 < at < len(tokens) - 1 or any(token.kind == "word" for token in tokens[:at]):
            raise
        return Node("labelled", (read_item(tokens[at + 1 :]),), " ".join(token.text for token in tokens[:at]))
    if reader.next.kind == "end" and not reader.next.text:
        return node
    rest = tokens[reader.position :]
    if scale := scale_word(rest):
        node, rest = Node("product", (node, number_node(str(scale)))), rest[1:]
        if not rest:
            return node
    is_unit = all(token.kind in ("word", "number", "letter") or token.text in "^/*＄¢°{}-" for token in rest)
    if is_unit and (rest[0].space or rest[0].kind == "word"):
        return with_unit(node, rest)
    raise Unreadable(f"{rest[0].text!r} is left over")


SCALES = {"hundred": 10**2, "thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12, "dozen": 12}


def scale_word(rest: list[Token]) -> int | None:
    return SCALES.get(rest[0].text.lower()) if rest and rest[0].kind == "word" else None


def with_unit(node: Node, rest: list[Token]) -> Node:
    """1 hour 30 minutes is a sum of quantities; anything else is one quantity."""
    unit: list[str] = []
    for index, token in enumerate(rest):
        if token.kind == "number" and token.text not in ("2", "3"):
            following = read_item(rest[index:])
            return Node("quantities", (Node("quantity", (node,), " ".join(unit)), following))
        if token.kind == "word" and token.text.lower() in TAKEN_BACK:
            raise Unreadable("words that take something back")
        unit.append(token.text)
    text = re.sub(r"\s*\^\s*\{?\s*(\d)\s*\}?", r"^\1", " ".join(unit)).replace(" / ", "/")
    if text.lower() in ("degree", "degrees"):
        return Node("degrees", (node,))
    if node.kind == "degrees" and text.lower() in ("c", "f", "celsius", "fahrenheit"):
        return Node("quantity", (node.args[0],), f"°{text[0].upper()}")
    if text.lower() in ("rad", "radian", "radians"):
        return node
    if node.kind == "relation" and node.data == ("=",):
        return Node("relation", (*node.args[:-1], Node("quantity", (node.args[-1],), text)), node.data)
    return Node("quantity", (node,), text)
