"""Whether a reply has program code, and whether it stands between fences."""

import re
from typing import NamedTuple

from r1distill.verify.programs import FENCE, fenced_blocks

# Languages of fences that hold no program
NO_PROGRAM = {"text", "txt", "plaintext", "math", "latex", "tex", "markdown", "md", "output", "console", "csv"}
# A line that is code in Python, C, C++, Java, JavaScript, Go or Rust, and hardly ever prose
LINE = re.compile(
    r"^[ \t]*(?:def \w+\(.*\).*:|class \w+.*[:{]|(?:from [\w.]+ )?import [\w.*, ]+;?|#include ?[<\"].+|using namespace \w+;"
    r"|(?:for|while|if|elif) .+:|else:|return\b.*;|(?:public|private|static|void|int|let|const|var|fn|func) .*[;{]"
    r"|print\(.*\)|\w+(?:\[\w+\])? [+*/-]?= .+;|[\w.]+\(.*\);|\})[ \t]*$",
    re.MULTILINE,
)
LEAST_LINES = 2  # one line that looks like code may be prose: "if x is odd:"


class Program(NamedTuple):
    """As in the columns of the same names."""

    has_code: bool
    code_fenced: bool


def program_of(text: str, answer: str) -> Program:
    """`code_fenced`: the answer's code stands between fences that are closed; where it has none, that of the whole text."""
    if not has_code(text):
        return Program(False, False)
    return Program(True, is_fenced(answer if has_code(answer) else text))


def has_code(text: str) -> bool:
    """A fenced block that may be a program, or some lines of code in a row of prose."""
    if "```" in text or "~~~" in text:
        blocks = fenced_blocks(text)
        if any(language.lower() not in NO_PROGRAM and (language or LINE.search(code)) for language, code in blocks):
            return True
        text = "\n".join(text.split("```")[::2])
    return sum(1 for _ in zip(LINE.finditer(text), range(LEAST_LINES), strict=False)) == LEAST_LINES


def is_fenced(text: str) -> bool:
    """Whether there is a block, and each fence that opens is closed."""
    fences = [match[1] for match in FENCE.finditer(text)]
    return bool(fences) and len(fences) % 2 == 0 and bool(fenced_blocks(text))
