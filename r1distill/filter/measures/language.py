"""The language of a text, and whether thinking goes over to another one on the way.

Languages are told by CLD2 (https://github.com/CLD2Owners/cld2): no model to load, 7 µs for a sentence. On 15,000 sentences of
GSM8K and MATH, of 40 letters or more, it named no wrong language; on 1,000 of them fastText's lid.176 did not either, and took
five times as long. py3langid took seconds to start. Words that repeat themselves, and lists of names, made it sure and wrong
(sapphires: Danish), hence LEAST_WORDS. Whole traces: scripts/check_tags.py.
"""

import re
from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

import pycld2

from r1distill.filter.measures.prose import Letters, letters_by_script, prose_of, used_scripts

LEAST_LETTERS, LEAST_WORDS = 40, 6  # of a window, the words all different: below, CLD2 is now and then sure and wrong
PIECE = 60  # letters: about what one language is told from another with, where both are in a sentence
LETTERS_A_CHARACTER = 3  # what a character of these says in letters of an alphabet
UNSPACED_SCRIPTS = ("Han", "Kana", "Hangul")
LEAST_FOREIGN = 24  # letters of a foreign script that are more than a quoted name: eight Chinese characters
QUOTED = 2  # times its letters that a problem in another language may be quoted
LANGUAGE_OF_SCRIPT = {"Kana": "ja", "Hangul": "ko", "Han": "zh"}  # asked in this order
SENTENCE_END = re.compile(r"[.!?。！？\n]+")  # a decimal point too: digits say nothing of the language
UNSPACED = r"\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af"
WORD = re.compile(rf"[{UNSPACED}]|[^\W\d_{UNSPACED}]{{2,}}")  # a character of Chinese, Japanese or Korean is one


class Languages(NamedTuple):
    """As in the columns of the same names. ISO 639-1, "" for unknown."""

    foreign_script_share: float
    problem_language: str
    thinking_language: str
    answer_language: str
    language_mixed: bool


class Window(NamedTuple):
    """Some sentences in a row: `letters` as in the alphabet, and the language, "" for unknown."""

    letters: int
    language: str


def languages_of(problem: str, thinking: str, answer: str) -> Languages:
    """Of what is prose in them."""
    asked, thought, said = prose_of(problem), prose_of(thinking), prose_of(answer)
    in_problem, in_thinking, in_answer = map(letters_by_script, (asked, thought, said))
    used = used_scripts(in_problem)
    return Languages(
        foreign_script_share=foreign_share(used, in_thinking + in_answer),
        problem_language=(of_problem := language_of(list(windows(asked)), in_problem)),
        thinking_language=(main := language_of(found := list(windows(thought)), in_thinking)),
        answer_language=language_of(list(windows(said)), in_answer),
        language_mixed=changes_script(in_thinking, used)
        or changes_language(found, main, of_problem, letters_of(in_problem)),
    )


def foreign_share(used: set[str], letters: Letters) -> float:
    """The share of letters that are of scripts which the problem does not use. 0 without letters."""
    total = letters.total()
    return sum(count for script, count in letters.items() if script not in used) / total if total else 0.0


def language_of(found: list[Window], letters: Letters) -> str:
    """The language of the most letters; where no window is sure, that of the script."""
    counts = Counter[str]()
    for window in found:
        if window.language:
            counts[window.language] += window.letters
    if counts:
        return counts.most_common(1)[0][0]
    return next((language for script, language in LANGUAGE_OF_SCRIPT.items() if letters[script]), "")


def changes_script(letters: Letters, used: set[str]) -> bool:
    """Whether the thinking has more than a word in a script that neither it nor the problem is written in.

    Latin is in every mathematical text, and does not count; English within Chinese is found by its language.
    """
    main = max(letters, key=lambda script: weight(script) * letters[script], default="Latin")
    own = used | {main, "Latin", *(("Kana", "Han") if main == "Kana" or letters["Kana"] > letters["Han"] / 4 else ())}
    return sum(weight(script) * count for script, count in letters.items() if script not in own) >= LEAST_FOREIGN


def changes_language(found: list[Window], main: str, of_problem: str, problem_letters: int) -> bool:
    """Whether a window is in another language than most are. A problem in another language may be quoted."""
    others = Counter[str]()
    for window in found:
        if window.language not in ("", main):
            others[window.language] += window.letters
    if main == "ja":
        del others["zh"]  # Japanese without kana: headings
    if others[of_problem] <= QUOTED * problem_letters:
        del others[of_problem]
    return bool(others)


def weight(script: str) -> int:
    return LETTERS_A_CHARACTER if script in UNSPACED_SCRIPTS else 1


def letters_of(letters: Letters) -> int:
    return sum(weight(script) * count for script, count in letters.items())


def windows(prose: str) -> Iterator[Window]:
    """The sentences and lines of LEAST_LETTERS or more, long ones in pieces, and the shorter ones put together.

    So a short sentence does not hide the language of the one beside it.
    """
    short: list[str] = []
    for sentence in SENTENCE_END.split(prose):
        words = WORD.findall(sentence)
        if size(words) >= LEAST_LETTERS:
            yield from (Window(size(piece), identified(piece)) for piece in pieces(words))
            continue
        short += words
        if size(short) >= LEAST_LETTERS:
            yield Window(size(short), identified(short))
            short = []
    if short:
        yield Window(size(short), identified(short))


def pieces(words: list[str]) -> Iterator[list[str]]:
    """The words of a sentence, cut into pieces of PIECE letters; none has fewer than LEAST_LETTERS."""
    sizes = [LETTERS_A_CHARACTER if length == 1 else length for length in map(len, words)]
    left, letters, start = sum(sizes), 0, 0
    for index, letters_here in enumerate(sizes, 1):
        letters += letters_here
        if letters >= PIECE and left - letters >= LEAST_LETTERS:
            yield words[start:index]
            left, letters, start = left - letters, 0, index
    yield words[start:]


def size(words: list[str]) -> int:
    """Letters of words of WORD: one character alone is of a script without spaces, and says as much as several."""
    lengths = list(map(len, words))
    return sum(lengths) + (LETTERS_A_CHARACTER - 1) * lengths.count(1)


def identified(words: list[str]) -> str:
    """What CLD2 says of some words, "" where it is not sure, or there are too few."""
    if size(words) < LEAST_LETTERS or len(set(words)) < LEAST_WORDS:
        return ""
    text = "".join(word if len(word) == 1 else f" {word} " for word in words)
    try:
        reliable, _, found = pycld2.detect(text, isPlainText=True)
    except pycld2.error:  # a character that is not in its Unicode: younger than the library
        return ""
    language = found[0][1].partition("-")[0]
    return language if reliable and len(language) == 2 else language_of_characters(words)


def language_of_characters(words: list[str]) -> str:
    """Of words that are mostly characters of Chinese, Japanese or Korean, of which CLD2 wants more to be sure; else ""."""
    characters = [word for word in words if len(word) == 1]
    if LETTERS_A_CHARACTER * len(characters) <= size(words) / 2:
        return ""
    if any("\u3040" <= character <= "\u30ff" for character in characters):
        return "ja"
    return "ko" if sum(character >= "\uac00" for character in characters) > len(characters) / 2 else "zh"
