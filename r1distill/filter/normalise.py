r"""One normal form of the text of a problem: its words, numbers and operators, whatever dress it comes in.

What does not count: case, punctuation, Markdown and layout of LaTeX, a label such as "Problem 3." in front, which of
several signs or commands stands for the same (≤, \leq and \le; ·, × and \cdot), full-width and mathematical letters,
invisible characters, and Cyrillic letters that look like Latin ones. Brackets are lost too, so that f(x+1) and f(x)+1
are the same words: where a text is so short that this matters, `brackets` tells them apart.
"""

import re
import unicodedata

from r1distill.records import Problem

LABEL = re.compile(
    r"(?i)[*_#\s]*(?:(?:problem|exercise|example|question|task|q|no)\.?\s*)?[#(\[]?\d{1,4}\s*[.):\]][*_]*\s+"
)
# A number, a run of letters (one character of scripts without spaces), or an operator; no punctuation.
TOKEN = re.compile(
    r"\d{1,3}(?:,\d{3})+(?!\d)(?:\.\d+)?|\d+(?:\.\d+)?|[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]|[^\W\d_]+|[-+*/^=<>!|%_∪∩√∞]"
)
# A line that is drawn and not written: a maze, a circuit, a grid. Words say nothing of those.
DRAWING = re.compile(r"(?m)^(?!.*[^\W\d_]{2}).*[^\w\s]{3}.*$")
ASYMPTOTE = re.compile(r"(?s)\[asy\].*?(?:\[/asy\]|\Z)")  # MATH's drawings, which most copies leave out

NUMBER_WORDS = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen twenty thirty forty fifty sixty seventy eighty ninety hundred thousand million half third quarter "
    "once twice thrice double triple first second fourth fifth"
).split()
NUMERALS = {word: str(number) for number, word in enumerate(NUMBER_WORDS[:21])} | {
    word: word for word in NUMBER_WORDS[21:]
}

# ------------------------------------------------------------ LaTeX
# spaces are counted, \s{0,9}, so that no text takes more than linear time

LAYOUT = re.compile(
    r"\\(?:left|right|[bB]igg?[lr]?|displaystyle|textstyle|limits|text(?:bf|it|rm|tt|sf)?|emph|math(?:rm|bf|it|sf|bb|cal|frak)"
    r"|operatorname|mbox|hbox|boldsymbol|q?quad|hspace|vspace|phantom|[clv]?dots[bcmio]?|noindent|label|tag"
    r"|(?:begin|end)\s{0,9}\{[A-Za-z]*\*?\}(?:\{[clr|]+\})?)(?![A-Za-z])"
)
DIGIT_GAP = re.compile(r"(?<=\d)(?:\\[,;:! ]|\{,\}|,\\!)(?=\d{3}(?!\d))")  # 10{,}000, 10\,000 and 10,\!000
FRACTION = re.compile(r"\\[dtc]?frac\s{0,9}(?:\{([^{}]*)\}|(\w))\s{0,9}(?:\{([^{}]*)\}|(\w))")
BRACED = re.compile(r"([_^]|\\sqrt)\s{0,9}\{([^{}]*)\}")
SYNONYMS = {
    "leq": "le", "leqslant": "le", "geq": "ge", "geqslant": "ge", "neq": "ne", "cdot": "*", "times": "*", "ast": "*",
    "div": "/", "over": "/", "colon": " ", "mid": "|", "vert": "|", "lvert": "|", "rvert": "|", "lt": "<", "gt": ">",
    "degree": "circ", "rightarrow": "to", "longrightarrow": "to", "varphi": "phi", "varepsilon": "epsilon",
    "ne": "ne", "cup": "∪", "cap": "∩", "sqrt": "√", "infty": "∞", "lbrace": " ", "rbrace": " ",
    "prime": "'", "bullet": "*", "emptyset": "varnothing", "dfrac": "frac", "tfrac": "frac",
}  # fmt: skip
COMMAND = re.compile(r"\\([A-Za-z]+)")
DEGREES = re.compile(r"\^\s{0,9}\{?\s{0,9}\\(?:circ|degree)\b\s{0,9}\}?")

# ------------------------------------------------------------ Unicode

GREEK = (
    "alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi omicron pi rho sigma sigma tau upsilon phi "
    "chi psi omega"
)
SIGNS = {
    **{chr(0x3B1 + place): f" {name} " for place, name in enumerate(GREEK.split())},
    "≤": " le ", "⩽": " le ", "≥": " ge ", "⩾": " ge ", "≠": " ne ", "×": "*", "·": "*", "⋅": "*", "∙": "*", "•": "*",
    "÷": "/", "⁄": "/", "∕": "/", "−": "-", "–": "-", "—": " ", "‐": "-", "‑": "-", "√": "√", "∈": " in ",
    "°": " circ ", "∠": " angle ", "△": " triangle ", "→": " to ", "±": " pm ", "∑": " sum ", "∏": " prod ",
    "∫": " int ", "⌊": " lfloor ", "⌋": " rfloor ", "⌈": " lceil ", "⌉": " rceil ", "≡": " equiv ", "≈": " approx ",
    "⊂": " subset ", "⊆": " subseteq ", "∥": " parallel ", "⊥": " perp ", "∣": "|", "ℓ": " ell ", "∅": " varnothing ",
    "…": " ", "⋯": " ", "’": "'", "∘": " circ ", "∗": "*", "∞": "∞",
}  # fmt: skip
# Cyrillic letters that look like Latin ones: always taken for these, in Russian texts too, where it hurts nothing
LOOKALIKES = dict(zip("асеіјорѕхуԛԝһкмтвн", "aceijopsxyqwhkmtbh", strict=True))
TABLE = str.maketrans({**SIGNS, **LOOKALIKES})
SUPERSCRIPT = re.compile("[⁰¹²³⁴-⁹ⁿ⁻]+")  # NFKC alone would make x2 of x²
INVISIBLE = re.compile("[\u00ad\u034f\u061c\u115f\u180e\u200b-\u200f\u202a-\u202e\u2060-\u2064\ufe00-\ufe0f\ufeff]")
BRACKET = re.compile(r"(?<!\\)[()]")
WORD_HYPHEN = re.compile(r"(?<=[^\W\d_]{2})-(?=\w)|(?<=\w)-(?=[^\W\d_]{2})")


def tokens(text: str) -> list[str]:
    """Words, numbers and operators of a text in the normal form. Linear in the text, for any text."""
    if not text.isascii():
        text = plain_unicode(text)
    text = without_label(text)
    if "\\" in text or "{" in text:
        text = plain_latex(text)
    if "-" in text:
        text = WORD_HYPHEN.sub(" ", text.replace("$-", "-"))  # $9$-kilometer-long
    found: list[str] = TOKEN.findall(text.lower())
    return [NUMERALS.get(token) or (token.replace(",", "") if "," in token else token) for token in found]


def without_label(text: str) -> str:
    label = LABEL.match(text)
    return text[label.end() :] if label else text


def plain_unicode(text: str) -> str:
    """Signs as the names that LaTeX has for them, letters without what only the eye cannot see."""
    text = SUPERSCRIPT.sub(lambda match: f"^{unicodedata.normalize('NFKC', match[0])}", INVISIBLE.sub("", text))
    text = text.translate(TABLE)  # before NFKC, which takes some signs apart
    return unicodedata.normalize("NFKC", text).casefold().translate(TABLE)


def plain_latex(text: str) -> str:
    """Without layout, and with one command for what several mean."""
    text = DIGIT_GAP.sub("", text).replace("\\!", "")
    text = DEGREES.sub(" circ ", text)
    text = LAYOUT.sub(" ", text)
    for _ in range(3 if "frac" in text else 0):  # a fraction in a fraction in a fraction
        text = FRACTION.sub(
            lambda match: f" {match[1] or match[2]} / {match[3] or match[4]} ", BRACED.sub(r"\1 \2 ", text)
        )
    return COMMAND.sub(lambda match: f" {SYNONYMS.get(match[1], match[1])} ", text)


def is_number(token: str) -> bool:
    return token[0].isdigit() or token in NUMERALS


def brackets(text: str) -> list[tuple[str, int]]:
    r"""(round bracket, words before it) of a short text, without those of \( … \): what the words of a formula do not say."""
    text = without_label(text)
    return [(match[0], len(tokens(text[: match.start()]))) for match in BRACKET.finditer(text)]


def whole_text(problem: Problem) -> str:
    """With the choices: "Which of these is true?" alone says nothing."""
    return "\n".join([problem.problem, *(problem.choices or [])])
