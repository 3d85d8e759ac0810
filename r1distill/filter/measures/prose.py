"""What people would read aloud: a text without its formulas, programs and addresses, and the scripts of its letters."""

import re
import unicodedata
from collections import Counter
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

FENCED = re.compile(r"(```|~~~).*?(?:\1|\Z)", re.DOTALL)  # models close a fence in the middle of a line too
# Inline formulas by pandoc's rule: no space behind the first dollar nor before the last, no digit behind it; so "$5 or
# $10" is money. None is longer than a few lines, so that a dollar too many does not take a paragraph away.
FORMULA = re.compile(
    r"\$\$.{1,2000}?\$\$|\\\[.{1,2000}?\\\]|\\\(.{1,500}?\\\)|\\begin\{(\w+\*?)\}.{1,4000}?\\end\{\1\}"
    r"|\$(?=[^\s$])[^$]{0,300}?(?<=[^\s$])\$(?!\d)",
    re.DOTALL,
)
MARKUP = re.compile(r"`[^`\n]{1,200}`|https?://\S+|\\[A-Za-z]+|</?\w+>")


def prose_of(text: str) -> str:
    """Fenced and quoted code, formulas, LaTeX commands, addresses and tags become a space each."""
    if "```" in text or "~~~" in text:
        text = FENCED.sub(" ", text)
    if "$" in text or "\\" in text:
        text = FORMULA.sub(" ", text)
    return MARKUP.sub(" ", text)


# ---------------------------------------------------------------- scripts

SHORTEST_WORD = 3  # letters: one or two Latin or Greek letters are a variable, a unit or an angle

# The blocks of the scripts that models write (https://www.unicode.org/Public/UNIDATA/Scripts.txt), with first and last
# letter. Japanese is Kana and Han; "Han" with kana beside it is no other script.
BLOCKS = (
    ("Latin", 0x41, 0x24F), ("Greek", 0x370, 0x3FF), ("Cyrillic", 0x400, 0x52F), ("Armenian", 0x530, 0x58F),
    ("Hebrew", 0x590, 0x5FF), ("Arabic", 0x600, 0x77F), ("Devanagari", 0x900, 0x97F), ("Bengali", 0x980, 0x9FF),
    ("Gurmukhi", 0xA00, 0xA7F), ("Gujarati", 0xA80, 0xAFF), ("Tamil", 0xB80, 0xBFF), ("Telugu", 0xC00, 0xC7F),
    ("Kannada", 0xC80, 0xCFF), ("Malayalam", 0xD00, 0xD7F), ("Sinhala", 0xD80, 0xDFF), ("Thai", 0xE00, 0xE7F),
    ("Lao", 0xE80, 0xEFF), ("Tibetan", 0xF00, 0xFFF), ("Myanmar", 0x1000, 0x109F), ("Georgian", 0x10A0, 0x10FF),
    ("Hangul", 0x1100, 0x11FF), ("Ethiopic", 0x1200, 0x139F), ("Khmer", 0x1780, 0x17FF), ("Mongolian", 0x1800, 0x18AF),
    ("Latin", 0x1E00, 0x1EFF), ("Greek", 0x1F00, 0x1FFF), ("Kana", 0x3041, 0x30FF), ("Hangul", 0x3130, 0x318F),
    ("Kana", 0x31F0, 0x31FF), ("Han", 0x3400, 0x4DBF), ("Han", 0x4E00, 0x9FFF), ("Hangul", 0xAC00, 0xD7AF),
    ("Han", 0xF900, 0xFAFF), ("Arabic", 0xFB50, 0xFDFF), ("Arabic", 0xFE70, 0xFEFF), ("Kana", 0xFF66, 0xFF9F),
    ("Han", 0x20000, 0x323AF),
)  # fmt: skip
FIRST = np.array([block[1] for block in BLOCKS], np.int64)
LAST = np.array([block[2] for block in BLOCKS], np.int64)
SCRIPTS = tuple(dict.fromkeys(block[0] for block in BLOCKS))
SCRIPT_OF_BLOCK = np.array([SCRIPTS.index(block[0]) for block in BLOCKS], np.int8)
Letters = Counter[str]
NONE, COMMON_TABLE = -1, 0x3400  # characters of no script; below this number a table says the script of each
SHORT_RUN = re.compile(
    r"(?<![A-Za-z\u00c0-\u024f\u0370-\u03ff])[A-Za-z\u00c0-\u024f\u0370-\u03ff]"
    rf"{{1,{SHORTEST_WORD - 1}}}(?![A-Za-z\u00c0-\u024f\u0370-\u03ff])"
)


@lru_cache(maxsize=1)
def small_table() -> NDArray[np.int8]:
    """The script of each character below COMMON_TABLE; digits, punctuation, accents and symbols have none."""
    table = np.full(COMMON_TABLE, NONE, np.int8)
    for (_, first, last), script in zip(BLOCKS, SCRIPT_OF_BLOCK, strict=True):
        for code in range(first, min(last + 1, COMMON_TABLE)):
            if unicodedata.category(chr(code)).startswith("L"):
                table[code] = script
    return table


def scripts_at(text: str) -> NDArray[np.int8]:
    """Of each character the number of its script in SCRIPTS, NONE for what is no letter `(characters,)`."""
    codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), "<u4").astype(np.int64)
    scripts = small_table()[np.minimum(codes, COMMON_TABLE - 1)]
    beyond = np.flatnonzero(codes >= COMMON_TABLE)
    if len(beyond):
        block = np.searchsorted(FIRST, codes[beyond], side="right") - 1
        scripts[beyond] = np.where(codes[beyond] <= LAST[block], SCRIPT_OF_BLOCK[block], NONE)
    return scripts


def letters_by_script(prose: str) -> Letters:
    """How many letters of each script are in words of a text; Latin and Greek ones count in words of SHORTEST_WORD or more."""
    scripts = scripts_at(SHORT_RUN.sub(" ", prose))
    counts = np.bincount(scripts[scripts != NONE], minlength=len(SCRIPTS))
    return Counter({script: int(count) for script, count in zip(SCRIPTS, counts, strict=True) if count})


def used_scripts(problem: Letters) -> set[str]:
    """The scripts of a problem. Latin where it has no letter, since prompts have; kana come with Han."""
    return {*problem, *(("Han",) if "Kana" in problem else ())} or {"Latin"}
