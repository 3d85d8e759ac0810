"""The letter a reply chooses: `B`, `(B)`, `\\text{B}` or the text of a choice, boxed, or "Answer: B" or "B. text"."""

import re
from collections.abc import Sequence

from r1distill.verify.extract import answer_part, find_box, last_match
from r1distill.verify.plain import WHOLE_TEXT, normalised, same_string

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
DEFAULT_CHOICES = 10  # where a problem does not list them: MMLU-Pro has ten
MAX_BOX_CHARACTERS = 2_000

WRAPPED = r"[*_($\[{{ ]{{0,6}}(?:\\(?:text|textbf|mathrm|mathbf|boxed)\{{[( ]{{0,2}})?([{letters}])(?![a-zA-Z'’])"


def extract_choice(text: str, n_choices: int, choices: Sequence[str] = ()) -> str | None:
    """The letter that the answer part of a reply chooses, None where it chooses none or several.

    `n_choices` letters from A are possible. A box decides alone; `choices` lets it hold the text of a choice.
    """
    answer = answer_part(text)
    letters = LETTERS[:n_choices]
    has_box, content = find_box(answer)
    if has_box:
        return letter_of(content or "", letters, choices)
    return stated_letter(answer, letters) or only_letter(answer, letters)


def letter_of(content: str, letters: str, choices: Sequence[str] = ()) -> str | None:
    """The letter a short answer means: `B`, `(B)`, `B.`, `B: text`, `\\textbf{(B)} text`, or the text of a choice."""
    content = content[:MAX_BOX_CHARACTERS].strip()
    plain = re.sub(r"[*_$`]", "", WHOLE_TEXT.sub(r"\1", content)).replace("~", " ").strip()
    if match := re.fullmatch(rf"(?i:option |choice |answer )?\(?([{letters}{letters.lower()}])\)?[.:]?", plain):
        return match[1].upper()
    wanted = normalised(content)
    lettered = zip(letters, choices, strict=False)
    found = [letter for letter, choice in lettered if same_string(normalised(choice), wanted)]
    if len(found) == 1:
        return found[0]
    if match := re.match(rf"(?:\(([{letters}])\)|([{letters}])[.:)])\s*\S", plain):
        return match[1] or match[2]
    return None


LABELLED = re.compile(
    r"\$?\s*(?:\\(?:text|textbf|mathrm|mathbf)\s*\{\s*)?\(?([A-E])\)\s*\}?\s*(?:\\[ ,:;!]|\\q?quad|[~:.\s])*(.*?)\s*\$?",
    re.DOTALL,
)


def labelled_choice(answer: str) -> tuple[str, str] | None:
    """(letter, text) of `(B) 12` or `\\textbf{(E)}\\ \\frac{3}{8}`, as answers of contests with choices are kept; else None."""
    match = LABELLED.fullmatch(answer.strip())
    if not match or re.match(r"\(|,|and\b|or\b", match[2]):
        return None
    text = match[2].strip()
    return match[1], text.removesuffix("}") if text.count("}") > text.count("{") else text


def stated_letter(text: str, letters: str) -> str | None:
    """The letter after the last "answer is" or "Answer:"; where there is none, after the last "option" or "choice"."""
    wrapped = WRAPPED.format(letters=letters)
    statement = r"s?\b(?:[^.\n:=]{0,60}?\bis\b|[*_ ]{0,4}[:=])?[*_ \t]{0,8}:?\s{0,4}(?:option |choice )?"
    for word in (r"\banswer", r"\b(?:option|choice)"):
        if match := last_match(re.compile(rf"(?i:{word}{statement}){wrapped}"), text):
            return match[1]
    return None


def only_letter(text: str, letters: str) -> str | None:
    """The one letter named in the last line, or in all of the text: as `(B)`, as `B.` before a line, or alone.

    A last line that begins with its letter may be the last of a list of the choices, so that it needs the whole text.
    """
    lines = [line.strip() for line in text.strip().splitlines() if line.strip()]
    parenthesised = re.compile(rf"(?<=\S )[*_]{{0,2}}\(([{letters}])\)")
    anywhere = re.compile(rf"(?m)(?<!\w)\(([{letters}])\)|^[*_ ]{{0,4}}([{letters}])[*_ ]{{0,4}}(?:[.:)]|$)")
    for pattern, part in (parenthesised, lines[-1:]), (anywhere, lines):
        found = {next(filter(None, match.groups())) for match in pattern.finditer("\n".join(part))}
        if len(found) == 1:
            return found.pop()
    return None
