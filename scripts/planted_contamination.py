"""Problems of benchmarks as they turn up in training sets: what check_contamination.py plants."""

import random
import re
from collections.abc import Callable

SYNONYMS = {
    "find": "determine", "determine": "find", "compute": "calculate", "calculate": "work out", "evaluate": "compute",
    "many": "numerous", "total": "sum", "has": "owns", "have": "possess", "had": "owned", "gives": "hands", "gave": "handed",
    "buys": "purchases", "bought": "purchased", "each": "every", "every": "each", "all": "all of", "also": "additionally",
    "then": "afterwards", "if": "when", "such": "so", "given": "provided", "let": "suppose", "suppose": "assume",
    "positive": "strictly positive", "smallest": "least", "least": "smallest", "largest": "greatest", "greatest": "largest",
    "write": "implement", "check": "test", "returns": "gives", "return": "give back", "list": "sequence", "number": "count",
    "points": "marks", "spends": "uses", "spent": "used", "makes": "produces", "made": "produced", "takes": "needs",
    "day": "working day", "kids": "children", "children": "kids", "friends": "pals", "house": "home", "car": "vehicle",
    "big": "large", "small": "little", "starts": "begins", "ends": "finishes", "gets": "receives", "got": "received",
    "consists": "is composed", "contains": "holds", "different": "distinct", "distinct": "different", "using": "with",
    "value": "amount", "shown": "displayed", "people": "persons", "costs": "is priced at", "sold": "has sold",
}  # fmt: skip
FILLERS = ("exactly", "now", "in fact", "overall", "here", "then", "as usual")
LABELS = (
    "Problem {}. ",
    "{}) ",
    "{}. ",
    "**Question {}:** ",
    "({}) ",
    "Example {}: ",
    "Q{}. ",
    "Exercise {}.\n",
    "#{}: ",
)
LATEX: dict[str, tuple[str, ...]] = {  # and what may stand for it, for re.sub
    r"\\frac(?=\{)": (r"\\dfrac", r"\\tfrac", r"\\frac "),
    r"\\leq?(?![a-z])": (r"\\leq ", "≤", r"\\leqslant "),
    r"\\geq?(?![a-z])": (r"\\geq ", "≥"),
    r"\\cdot(?![a-z])": (r"\\times ", "·", "×"),
    r"\\pi(?![a-z])": ("π", r"{\\pi}"),
    r"\\theta(?![a-z])": ("θ",),
    r"\\(?:left|right)(?=[\[({)}\]|.])": ("",),
    r"(?<=\^)(\d)(?!\d)": (r"{\1}",),
    r"\\ldots|\\dots": ("…",),
    r"\\angle(?![a-z])": ("∠",),
}


def verbatim(text: str, draw: random.Random) -> str:
    return text


def reformatted(text: str, draw: random.Random) -> str:
    """Other delimiters, commands and characters for the same formulas; text without any gets some, and line ends."""
    for pattern, replacements in LATEX.items():
        text = re.sub(pattern, draw.choice(replacements), text)
    if "$" in text:
        text = re.sub(r"\$([^$]+)\$", r"\\(\1\\)" if draw.random() < 0.7 else r"$ \1 $", text)
    else:
        text = re.sub(
            r"(?<![\w.,])(\d+)(?![\w.,]\d)", lambda match: f"${match[1]}$" if draw.random() < 0.7 else match[1], text
        )
    text = re.sub(r"(\d),(\d{3})(?!\d)", r"\1{,}\2", text)
    text = re.sub(r" (?=\w)", lambda match: draw.choice(["\n", "  ", "~"]) if draw.random() < 0.08 else " ", text)
    return text.replace("'", "’").replace(" - ", " − ")


def labelled(text: str, draw: random.Random) -> str:
    """With the number that another collection has for it in front."""
    return draw.choice(LABELS).format(draw.randint(1, 400)) + text


def reworded(text: str, draw: random.Random) -> str:
    """One word in eight another one: synonyms where there are some, else a filler put in or an article left out."""
    words = re.split(r"(\s+)", text)
    places = [place for place in range(0, len(words), 2) if re.fullmatch(r"[A-Za-z]{2,}[.,?:]?", words[place])]
    wanted = max(1, round(len(places) / 8))
    known = [place for place in places if words[place].lower().strip(".,?:") in SYNONYMS]
    for place in draw.sample(known, min(wanted, len(known))):
        word = words[place].strip(".,?:")
        synonym = SYNONYMS[word.lower()]
        words[place] = words[place].replace(word, synonym.capitalize() if word[0].isupper() else synonym)
    for place in draw.sample(places, max(0, wanted - len(known))):
        words[place] = "" if words[place].lower() in ("the", "a", "an") else f"{words[place]} {draw.choice(FILLERS)}"
    return "".join(words)


def shortened(text: str, draw: random.Random) -> str:
    """About 60 % of the words, from the start or from the end."""
    words = re.split(r"(\s+)", text)
    keep = round(len(words) * 0.6)
    return "".join(words[:keep] if draw.random() < 0.5 else words[-keep:])


def with_other_numbers(text: str, draw: random.Random) -> str:
    """Every number with another one, which makes it another problem of the same form."""
    return re.sub(r"\d+", lambda match: str(int(match[0]) + draw.randint(1, 9)), text)


KINDS: dict[str, Callable[[str, random.Random], str]] = {
    "verbatim": verbatim,
    "reformatted": reformatted,
    "renumbered (label)": labelled,
    "reworded": reworded,
    "shortened": shortened,
}
