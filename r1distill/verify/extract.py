"""The final answer of a reply, as text. Nothing is judged here, and every function takes time linear in the reply."""

import re
from collections import deque

MAX_LINE_CHARACTERS = 300  # of what follows "the answer is": anything longer is prose, not an answer

BOX = re.compile(r"\\(?:boxed|fbox)(?![a-zA-Z])")
BRACE = re.compile(r"\\.|[{}]", re.DOTALL)
BARE_BOX_CONTENT = re.compile(r"[ \t]*([^\s${}\\][^\s$]*|\\[^\s$]+)")
THE_ANSWER_IS = re.compile(
    r"(?<!-)\banswers?\b(?:[^.\n:=]{0,60}?\b(?:is|are)\b|[*_ ]{0,4}[:=])[*_ \t]{0,8}:?[*_ \t]{0,4}\n{0,2}",
    re.IGNORECASE,
)
INLINE_MATH = re.compile(r"\$\$?([^$]{1,500})\$\$?|\\\(([^$]{1,500}?)\\\)|\\\[([^$]{1,500}?)\\\]")
NUMBER = re.compile(r"(?<![\w.)\]}])-?(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)?(?:\.\d+)?(?<=\d)(?:/\d+(?![\d.]))?\s?\\?%?")
NUMBER_THEN_PROSE = re.compile(r"(-?\$?-?\d[\d,]*(?:\.\d+)?(?:/\d+)?%?)[,;]?\s+(?!pi\b|sqrt\b|or\b|and\b)[a-zA-Z]{2,}")

TAKEN_BACK = re.compile(
    r"(?:\s|[$.)*]|\\[\])]){0,8}(?:is|was)\s{1,3}(?:wrong|incorrect|not\s{1,3}(?:right|correct|the\s{1,3}answer))\b",
    re.I,
)
BETWEEN_BOXES = re.compile(
    r"(?:[\s$.,;:*()\[\]\\]|\b(?:and|or|with|also|then|the|is|are|other|second|minimum|maximum|[a-z]\s?=))*", re.I
)
MAX_BETWEEN_BOXES = 60  # characters between two boxes that are parts of one answer
MAX_BOXES = 12


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


def last_box(text: str, end: int | None = None) -> re.Match[str] | None:
    """The command of the last `\\boxed` or `\\fbox` before `end`."""
    end = len(text) if end is None else end
    while True:  # from the back by rfind, which is a hundred times faster than looking through all of a long reply
        at = max(text.rfind("\\boxed", 0, end), text.rfind("\\fbox", 0, end))
        if at < 0:
            return None
        if box := BOX.match(text, at):
            return box
        end = at


def find_box(text: str) -> tuple[bool, str | None]:
    """(whether there is a box, the content of the last one); the content is None where it cannot be read."""
    box = last_box(text)
    return (False, None) if box is None else (True, content_of(text, box.end())[0])


def content_of(text: str, after: int) -> tuple[str | None, int]:
    """(content, where it ends) of the box whose command ends at `after`.

    A brace that is never closed is forgiven where the rest of its line can be the answer: `\\boxed{27`.
    """
    start = after
    while start < len(text) and text[start].isspace():
        start += 1
    if start < len(text) and text[start] == "{":
        end = closing_brace(text, start)
        if end is not None:
            return text[start + 1 : end].strip(), end + 1
        line = re.split(r"\n|\$|\\\)|\\\]", text[start + 1 : start + MAX_LINE_CHARACTERS], maxsplit=1)[0].strip(" .")
        return (line if line.count("{") == line.count("}") and not BOX.search(line) else None), len(text)
    bare = BARE_BOX_CONTENT.match(text, after)
    return (bare.group(1).rstrip(".,;"), bare.end()) if bare else (None, after)


def closing_brace(text: str, start: int) -> int | None:
    """Where the braces that open at `start` close; None where they do not. `\\{` and `\\}` are no braces."""
    depth = 0
    for match in BRACE.finditer(text, start):
        depth += (match.group() == "{") - (match.group() == "}")
        if depth == 0:
            return match.start()
    return None


def last_boxed(text: str) -> str | None:
    """The content of the last `\\boxed{…}`, `\\fbox{…}` or `\\boxed 5`; None for no box and one that cannot be read."""
    return find_box(text)[1]


def final_answers(text: str) -> tuple[str, ...]:
    """The final answer of a reply: its last box, else its last line `#### 5`, else what follows the last "answer is",
    else its last expression. Where it ends with several boxes side by side, also all of these as one list.

    A box decides alone: an empty one gives nothing and not a number from elsewhere (Math-Verify takes any number of the
    reply for an empty box). Only a box that is taken back (`\\boxed{5} is wrong, the answer is 3`) gives way to what is
    stated behind it. Returns nothing where there is nothing that could be an answer.
    """
    answer = answer_part(text)
    box = last_box(answer)
    if box is None:
        only = marked_answer(answer) or stated_answer(answer) or last_expression(answer)
        return (only,) if only else ()
    content, end = content_of(answer, box.end())
    if TAKEN_BACK.match(answer, end):
        stated = stated_answer(answer[end:])
        return (stated,) if stated else ()
    if not content:
        return ()
    together = boxes_together(answer, box.start(), content)
    return (content, together) if together else (content,)


def final_answer(text: str) -> str | None:
    """The first of `final_answers`, None where there is none."""
    return next(iter(final_answers(text)), None)


def boxes_together(text: str, start: int, last: str) -> str | None:
    """The last box, which starts at `start`, and those just before it as a list; None where it stands alone."""
    contents = [last]
    while len(contents) < MAX_BOXES and (box := last_box(text, start)):
        content, end = content_of(text, box.end())
        if not content or not 0 <= start - end <= MAX_BETWEEN_BOXES or not BETWEEN_BOXES.fullmatch(text, end, start):
            break
        contents.append(content)
        start = box.start()
    return ", ".join(reversed(contents)) if len(contents) > 1 else None


def marked_answer(text: str) -> str | None:
    """`#### 18` of GSM8K's solutions, where it is the last line."""
    line = text[-MAX_LINE_CHARACTERS:].rstrip().rpartition("\n")[2]
    return line[5:].strip() or None if line.startswith("#### ") and NUMBER.search(line) else None


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
