"""Near copies are found among many, the same ones however the rows are split; what only shares words is not."""

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from r1distill.filter.near_duplicates import (
    SHINGLE_WORDS,
    problem_signatures,
    repeats,
    together,
    trace_signatures,
    word_hashes,
)
from r1distill.records import Problem

DRAW = random.Random(3)
VOCABULARY = ["".join(DRAW.choices("abcdefghijklmnop", k=DRAW.randint(2, 8))) for _ in range(2_000)]
TEXTS = [" ".join(DRAW.choices(VOCABULARY, k=300)) for _ in range(60)]


def similarity(first: str, second: str) -> float:
    """The Jaccard similarity itself."""
    ours, theirs = (
        {tuple(words[i : i + SHINGLE_WORDS]) for i in range(len(words) - SHINGLE_WORDS + 1)}
        for words in (first.split(), second.split())
    )
    return len(ours & theirs) / len(ours | theirs)


def changed(text: str, number: int) -> str:
    words = text.split()
    for place in range(number):
        words[place * 11] = "zebra"
    return " ".join(words)


def test_near_copies_repeat_their_original_and_nothing_else_does() -> None:
    copies = [changed(text, 4) for text in TEXTS[:30]]
    original, similar = repeats(trace_signatures([*TEXTS, *copies]))
    assert original[:60].tolist() == [-1] * 60
    assert original[60:].tolist() == list(range(30))
    true = [similarity(text, copy) for text, copy in zip(TEXTS, copies, strict=False)]
    assert np.abs(similar[60:] - true).max() < 0.15
    assert np.abs(similar[60:] - true).mean() < 0.04


def test_a_copy_has_similarity_one_and_another_text_less() -> None:
    texts = [TEXTS[0], TEXTS[1], TEXTS[0].upper().replace(" ", " ,\n"), changed(TEXTS[0], 1)]
    original, similar = repeats(trace_signatures(texts))
    assert original.tolist() == [-1, -1, 0, 0]
    assert similar[2] == 1 > similar[3] > 0.9


def test_short_and_empty_texts() -> None:
    original, _ = repeats(trace_signatures(["", " ", "one", "One!", "one two", "two one", "?!"]))
    assert original.tolist() == [-1, -1, -1, 2, -1, -1, -1]
    assert len(repeats(trace_signatures([]))[0]) == 0


def test_what_repeats_a_repetition_repeats_the_first() -> None:
    copy = changed(TEXTS[5], 3)
    assert repeats(trace_signatures([TEXTS[5], copy, copy, TEXTS[5]]))[0].tolist() == [-1, 0, 0, 0]


@settings(deadline=None, max_examples=20)
@given(
    st.lists(st.sampled_from([*TEXTS[:4], changed(TEXTS[0], 2), changed(TEXTS[0], 3), "", "x"]), max_size=12),
    st.integers(1, 5),
)
def test_any_split_of_the_rows_gives_the_same(texts: list[str], size: int) -> None:
    parts = together(trace_signatures(texts[start : start + size]) for start in range(0, len(texts) + 1, size))
    whole = trace_signatures(texts)
    for one, other in zip(repeats(parts), repeats(whole), strict=True):
        assert one.tolist() == other.tolist()
    original, similar = repeats(whole)
    assert all(o == -1 or (o < row and original[o] == -1) for row, o in enumerate(original))
    assert ((original >= 0) == (similar > 0)).all()


@settings(deadline=None)
@given(st.lists(st.text(alphabet="ab1 É鸡.\n\0"), min_size=1, max_size=4))
def test_words_are_hashed_like_words_one_by_one(texts: list[str]) -> None:
    def split(text: str) -> list[bytes]:
        return "".join(char if char.isalnum() else " " for char in text).split(" ")  # type: ignore[return-value]

    words, ends = word_hashes([text.encode() for text in texts])
    begin = 0
    for text, end in zip(texts, ends.tolist(), strict=True):
        expected = [word_hashes([str(word).encode()])[0].tolist() for word in split(text) if word]
        assert [[word] for word in words[begin:end].tolist()] == expected
        begin = end


def test_a_thousand_copies_and_a_template_take_no_more_than_their_share() -> None:
    copies = [TEXTS[0]] * 1_000 + [f"{TEXTS[1]} {number}" for number in range(1_000)]
    original, _ = repeats(trace_signatures(copies))
    assert set(original[1:1_000].tolist()) == {0}
    assert set(original[1_001:].tolist()) == {1_000}


@pytest.mark.parametrize(
    ("other", "is_near"),
    [
        ("What is $\\frac{3}{4}$ of the length of a rope that a sailor cuts into 12 equal parts on a windy day?", True),
        (
            "What is \\(\\dfrac34\\) of the length of a rope that a sailor cuts into 12 equal parts on a rainy day?",
            True,
        ),
        (
            "What is $\\frac{3}{4}$ of the length of a rope that a sailor cuts into 15 equal parts on a windy day?",
            False,
        ),
    ],
)
def test_problems_are_compared_in_the_normal_form_and_by_their_numbers(other: str, is_near: bool) -> None:
    text = "What is $\\frac{3}{4}$ of the length of a rope that a sailor cuts into 12 equal parts on a windy day?"
    problems = [Problem(text, answer="1"), Problem(other, answer="2")]
    original, _ = repeats(problem_signatures(problems), 0.55)
    assert (original[1] == 0) == is_near
