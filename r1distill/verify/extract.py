"""The final answer of a reply, as text. Nothing is judged here, and every function takes time linear in the reply."""

import re
from collections import deque

MAX_LINE_CHARACTERS = 300  # of what follows "the answer is": anything longer is prose, not an answer

BOX = re.compile(r"\\(?:boxed|fbox)(?![a-zA-Z])")
BARE_BOX_CONTENT = re.compile(r"[ \t]*([^\s${}\\][^\s$]*|\\[^\s$]+)")
THE_ANSWER_IS = re.compile(
    r"\banswers?\b(?:[^.\n:=]{0,60}?\b(?:is|are)\b|[*_ ]{0,4}[:=])[*_ \t]{0,8}:?[*_ \t]{0,4}\n{0,2}", re.IGNORECASE
)
INLINE_MATH = re.compile(r"\$\$?([^$]{1,500})\$\$?|\\\(([^$]{1,500}?)\\\)|\\\[([^$]{1,500}?)\\\]")
NUMBER = re.compile(r"(?<![\w.)\]}])-?(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)?(?:\.\d+)?(?<=\d)(?:/\d+(?![\d.]))?\s?\\?%?")
NUMBER_THEN_PROSE = re.compile(r"(-?\$?-?\d[\d,]*(?:\.\d+)?(?:/\d+)?%?)[,;]?\s+(?!pi\b|sqrt\b|or\b|and\b)[a-zA-Z]{2,}")


def last_match(pattern: re.Pattern[str], text: str) -> re.Match[str] | None:
    return next(iter(deque(pattern.finditer(text), maxlen=1)), None)


def answer_part(text: str) -> str:
    """What the reply says outside its thinking: the text after the last `</think>`, all of it where there is no tag.

    Thinking that is opened and never closed has no answer part: a truncated reply does not answer.
    """
    _, closed, answer = text.rpartition("</think>")
    before, opened, _ = answer.partition("<think>")
    if opened and not closed:
        return ""
    return before


def find_box(text: str) -> tuple[bool, str | None]:
    """(whether there is a box, the content of the last one); the content is None where the box is not closed."""
    end = len(text)
    while True:  # from the back by rfind, which is a hundred times faster than looking through all of a long reply
        at = max(text.rfind("\\boxed", 0, end), text.rfind("\\fbox", 0, end))
        if at < 0:
            return False, None
        if box := BOX.match(text, at):
            break
        end = at
    start = box.end()
    while start < len(text) and text[start].isspace():
        start += 1
    if start < len(text) and text[start] == "{":
        return True, balanced(text, start)
    bare = BARE_BOX_CONTENT.match(text, box.end())
    return True, bare.group(1).rstrip(".,;") if bare else None


def balanced(text: str, start: int) -> str | None:
    """The inside of the braces that open at `start`; None where they do not close. `\\{` and `\\}` are no braces."""
    depth = 0
    position = start
    while position < len(text):
        character = text[position]
        if character == "\\":
            position += 2
            continue
        if character == "{":
            depth += 1
        elif character == "}":
            depth -= 1
            if depth == 0:
                return text[start + 1 : position].strip()
        position += 1
    return None


def last_boxed(text: str) -> str | None:
    """The content of the last `\\boxed{…}`, `\\fbox{…}` or `\\boxed 5`; None for no box and one that never closes."""
    return find_box(text)[1]


def final_answer(text: str) -> str | None:
    """The final answer of a reply: its last box, else what follows the last "answer is", else its last expression.

    A box decides alone: an empty or unclosed one gives None and not a number from elsewhere (Math-Verify takes any
    number of the reply for an empty box). Returns None where there is nothing that could be an answer.
    """
    answer = answer_part(text)
    has_box, content = find_box(answer)
    if has_box:
        return content or None
    return stated_answer(answer) or last_expression(answer)


def stated_answer(text: str) -> str | None:
    """What follows the last "the answer is" or "Answer:", up to the end of its line or sentence."""
    lower, end = text.lower(), len(text)
    if len(lower) != len(text):  # a character that is longer in lower case (İ)
        lower = text
    while True:
        at = lower.rfind("answer", 0, end)
        if at < 0:
            return None
        if last := THE_ANSWER_IS.match(text, at):
            break
        end = at
    line = text[last.end() :].lstrip()[: MAX_LINE_CHARACTERS + 1].split("\n", 1)[0]
    if len(line) > MAX_LINE_CHARACTERS:
        line = re.split(r"\.\s", line, maxsplit=1)[0]
    line = line.strip().strip("*_`").strip()
    if inline := INLINE_MATH.match(line):
        return inner(inline)
    sentence = re.split(r"\.(?:\s|$)|[!?](?:\s|$)", line, maxsplit=1)[0].strip().strip("*_`").strip()
    if number := NUMBER_THEN_PROSE.match(sentence):
        return number.group(1)
    return sentence or None


def last_expression(text: str) -> str | None:
    """The last formula between dollars or LaTeX brackets, or the last number, whichever ends later."""
    formula, number = last_match(INLINE_MATH, text), last_match(NUMBER, text)
    if formula is not None and (number is None or number.start() < formula.end()):
        return inner(formula)
    return number.group().strip() if number else None


def inner(formula: re.Match[str]) -> str | None:
    return next(group for group in formula.groups() if group is not None).strip() or None
