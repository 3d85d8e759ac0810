"""The characters of an answer as tokens: one spelling for what means the same, in LaTeX, unicode and plain text."""

import html
import re
from dataclasses import dataclass

from r1distill.verify.units import measure

MAX_TOKENS = 600


class Unreadable(Exception):
    """The text is no mathematics that this reader knows. The message says where it stopped."""


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
    "cap": "∩", "setminus": "∖", "backslash": "∖", "infty": "∞", "emptyset": "∅", "varnothing": "∅", "approx": "≈",
    "simeq": "≈",
    "equiv": "≡", "mid": "|", "vert": "|", "lvert": "|", "rvert": "|", "Vert": "‖", "lbrace": "{s", "rbrace": "}s",
    "colon": ":",
    "langle": "⟨", "rangle": "⟩", "lfloor": "⌊", "rfloor": "⌋", "lceil": "⌈", "rceil": "⌉", "circ": "°", "degree": "°",
    "ldots": "…", "dots": "…", "cdots": "…", "dotsc": "…", "dotsb": "…", "vdots": "…", "prime": "'", "lor": "or", "vee": "or",
    "land": "and", "wedge": "and", "sim": "≈", "implies": "⇒", "Rightarrow": "⇒", "iff": "⇒", "to": "→", "rightarrow": "→",
    "lbrack": "[", "rbrack": "]", "lparen": "(", "rparen": ")", "triangle": "△", "angle": "∠", "forall": "for", "cr": "\\\\",
}  # fmt: skip
UNICODE = {
    "−": "-", "–": "-", "—": "-", "×": "*", "·": "*", "⋅": "*", "∙": "*", "∗": "*", "÷": "/", "∕": "/", "⁄": "/",
    "⩽": "≤", "⩾": "≥",
    "≦": "≤", "≧": "≥", "≅": "≈", "≃": "≈", "∣": "|", "º": "°", "˚": "°", "′": "'", "’": "'", "⋯": "…", "∶": ":", "：": ":",
    "，": ",", "；": ";", "（": "(", "）": ")", "＝": "=", "＋": "+", "－": "-", "∧": " and ", "∨": " or ", "⟩": "⟩", "∘": "°",
    "½": " \\frac12 ", "⅓": " \\frac13 ", "⅔": " \\frac23 ", "¼": " \\frac14 ", "¾": " \\frac34 ", "⅕": " \\frac15 ",
    "⅛": " \\frac18 ",
    "π": " \\pi ", "θ": " \\theta ", "α": " \\alpha ", "β": " \\beta ", "γ": " \\gamma ", "λ": " \\lambda ",
    "μ": " \\mu ", "σ": " \\sigma ",
    "φ": " \\phi ", "ω": " \\omega ", "ℝ": " \\mathbb{R} ", "ℤ": " \\mathbb{Z} ", "ℕ": " \\mathbb{N} ", "ℚ": " \\mathbb{Q} ",
    "ℂ": " \\mathbb{C} ", "√": " \\sqrt ", "∛": " \\cbrt ", "∑": " \\sum ", "∏": " \\prod ", "\u200b": "",
    "\ufeff": "", "\u2009": " ",
    "⇔": "⇒", "元": " \\text{yuan} ", "∀": " for ", "∈": " ∈ ",
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
TEXT = (
    r"\\(?:text(?:bf|it|rm|sf|tt|normal|up)?|mbox|hbox|mathrm|mathbf|mathit|mathsf|mathcal|mathscr|bm|boldsymbol|"
    r"operatorname\*?|emph)"
)
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
    text = re.sub(r"\\underline\s*\{([^{}]*)\}", r"\1", text)
    text = re.sub(r"\\triangle\s+(?=[A-Z]{3})", "", text)
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
            if not re.fullmatch(r"\w*matrix|array|cases", kind):
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
