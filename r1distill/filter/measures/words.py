"""A text as words, and words as numbers: what the measures of repetition count."""

import re

import numpy as np
from numpy.typing import NDArray

LONGEST_WORD = 32  # characters; "aaaa…" and a formula without spaces would else be one word, whatever is repeated in it
# Chinese, Japanese kana and Korean have no spaces or few: each character is a word
UNSPACED = re.compile(r"([\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff])")
CHUNK = re.compile(rf"\S{{1,{LONGEST_WORD}}}")


def words_of(text: str) -> list[str]:
    """What stands between white space, with its punctuation; each character of Chinese, Japanese and Korean.

    Anything longer than LONGEST_WORD is cut into pieces of that many characters.
    """
    if not text.isascii():
        text = UNSPACED.sub(r" \1 ", text)
    words = text.split()
    if len(max(words, key=len, default="")) > LONGEST_WORD:
        words = CHUNK.findall(text)
    return words


def word_ids(words: list[str]) -> NDArray[np.int64]:
    """`(T,)`: equal words have equal numbers, counted from 0 in the order in which they first appear."""
    numbers = {word: number for number, word in enumerate(dict.fromkeys(words))}
    return np.fromiter(map(numbers.__getitem__, words), np.int64, len(words))
