"""One normal form for what is written in several ways, another one for what means something else; linear in any text."""

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from r1distill.filter.normalise import tokens


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (r"$\frac{1}{2}$", "1/2"),
        (r"\dfrac12", r"\tfrac{1}{2}"),
        (r"\frac{1}{\sqrt{2}}", "1/√2"),
        (r"\frac{\frac{a}{b}}{c}", "a/b/c"),
        (r"x^{2} \leq 3", "x² ≤ 3"),
        (r"10,\!000", "10000"),
        (r"10{,}000", "10,000"),
        (r"\(60^\circ\)", "60°"),
        (r"60^{\circ}", r"60 \degree"),
        (r"\angle ABC", "∠ABC"),
        (r"2 \cdot 3 \times 4", "2 · 3 × 4"),
        (r"\left( x \right)", "(x)"),
        (r"5\,\text{cm}", "5 cm"),
        (r"\begin{align*} x &= 2 \end{align*}", "x = 2"),
        (r"2\pi r", "2πr"),
        ("9-kilometer-long", "9 kilometer long"),
        ("a − b", "a - b"),
        ("𝑥+𝟐", "x+2"),
        ("ＡＢＣ１２", "abc12"),
        ("zero\u200bwidth", "zerowidth"),
        ("\u0441\u0430t", "cat"),  # two Cyrillic letters
        ("three", "3"),
        ("(12) Find x", "Find x"),
        ("**Problem 3.** Find x", "Find x"),
    ],
)
def test_the_same_in_two_ways(first: str, second: str) -> None:
    assert tokens(first) == tokens(second)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("a+b", "a-b"),
        ("x_n", "x^n"),
        ("12", "1, 2"),
        ("x²", "x2"),
        (r"\sin x", r"\cos x"),
        ("1.5", "15"),
        ("a<b", "a>b"),
    ],
)
def test_what_means_something_else_is_something_else(first: str, second: str) -> None:
    assert tokens(first) != tokens(second)


@settings(deadline=None)
@given(st.text())
def test_any_text_has_a_normal_form_of_words(text: str) -> None:
    assert all(word and not word.isspace() for word in tokens(text))


@pytest.mark.parametrize(
    "piece",
    ["\\frac{", "^ ", "^", "\\frac ", "#", "1,", "_ {", "\\circ", "aa-", "\\begin{", "{^", "²", "* ", "\\begin ", " "],
)
def test_hostile_texts_take_linear_time(piece: str) -> None:
    """A hundred thousand pieces would take hours if it were the square of that."""
    started = time.process_time()
    tokens(piece * 100_000 + "\\")
    assert time.process_time() - started < 60
