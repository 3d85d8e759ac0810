"""What is measured of repetition, against slow obvious references, and what is a loop."""

import random
import zlib
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from r1distill.filter.measures.repetition import (
    Grams,
    compression_ratio,
    heaviest_run,
    in_repeated,
    longest_loop,
    longest_repeat,
    repetition_of,
)
from r1distill.filter.measures.words import word_ids, words_of

IDS = st.lists(st.integers(0, 3), max_size=60)


def grams(ids: list[int]) -> Grams:
    return Grams(np.array(ids, np.int64))


def occurrences(ids: list[int], n: int) -> Counter[tuple[int, ...]]:
    return Counter(tuple(ids[i : i + n]) for i in range(len(ids) - n + 1))


@settings(deadline=None)
@given(IDS)
def test_the_longest_repeat_is_that_of_trying_every_length(ids):
    expected = max((n for n in range(1, len(ids)) if max(occurrences(ids, n).values()) > 1), default=0)
    assert longest_repeat(grams(ids)) == expected


@settings(deadline=None)
@given(IDS, st.integers(1, 5), st.integers(2, 4))
def test_words_in_repeated_ngrams_are_those_of_counting_each_ngram(ids, n, least_count):
    counts = occurrences(ids, n)
    expected = [False] * len(ids)
    for start in range(len(ids) - n + 1):
        if counts[tuple(ids[start : start + n])] >= least_count:
            expected[start : start + n] = [True] * n
    assert in_repeated(grams(ids), n, least_count).tolist() == expected


@settings(deadline=None)
@given(st.lists(st.booleans(), min_size=1, max_size=40), st.sampled_from([0.5, 0.75, 0.9]))
def test_the_heaviest_run_has_the_largest_sum_of_all_runs(values, same):
    begin, end = heaviest_run(np.array(values), same)

    def weight(start: int, stop: int) -> float:
        return sum((1 - same) if value else -same for value in values[start:stop])

    best = max(weight(i, j) for i in range(len(values) + 1) for j in range(i, len(values) + 1))
    assert weight(begin, end) == pytest.approx(best, abs=1e-9)


def test_a_loop_repeats_itself_but_for_its_first_round():
    text = " ".join(f"w{i}" for i in range(500)) + " a b c d e f" * 20
    found = repetition_of(text, "")
    assert found.longest_repeat == 6 * 19
    assert found.loop_words == 6 * 20
    assert found.loop_at_end
    assert found.repeated_share == pytest.approx(120 / 620)


BLOCK = "Step {n}: Wait, let me check that again, because the sum of the two numbers should be 42."


@pytest.mark.parametrize("before", ["", "Some words that come first. "])
def test_a_counter_does_not_hide_a_loop_nor_does_an_end_in_the_middle_of_a_word(before):
    loop = " ".join(BLOCK.format(n=n) for n in range(1, 12))[:-3]
    found = repetition_of(before + loop, "")
    assert found.loop_words >= 11 * 17 - 1
    assert found.loop_at_end


def test_thinking_that_ends_in_a_loop_is_seen_although_an_answer_was_forced():
    draw = random.Random(0)
    prose = " ".join(f"w{draw.randrange(300)}" for _ in range(400))
    assert repetition_of(prose + " so we try once more" * 30, f"The answer is 5. {prose[:300]}").loop_at_end
    assert not repetition_of(prose + " so we try once more" * 30 + prose[::-1], "The answer is 5.").loop_at_end


def test_sentences_that_come_again_in_any_order_are_a_loop():
    sentences = [f"Wait, the {kind} one cannot be right since it does not fit with what we had." for kind in "abc"]
    draw = random.Random(1)
    text = " ".join(draw.choice(sentences) for _ in range(40))
    assert repetition_of(f"{text} {' '.join(f'w{i}' for i in range(200))}", "").loop_words > 500


@pytest.mark.parametrize(
    "text",
    [
        "\n".join(f"If n = {n}, then 3 * {n} + 1 = {3 * n + 1}, which is {(3 * n + 1) % 4} mod 4." for n in range(40)),
        "\n".join(f"| {n} | {n * n} | {n**3} |" for n in range(60)),
        "\n".join(f"{n:05b}" for n in range(32)),
        " ".join(str(n) for n in range(300)),
        "$" + " + ".join(["1"] * 20) + "$",
        (program := "\n".join(f"x{n} = {n} * values[{n * 7 % 31}]" for n in range(80))) + "\nAgain:\n" + program,
    ],
    ids=["cases", "table", "numbers", "counting", "a sum", "a program twice"],
)
def test_what_repeats_itself_for_a_reason_is_no_loop(text):
    found = repetition_of(text, "So the answer is 5.")
    assert found.loop_words == 0
    assert not found.loop_at_end


@pytest.mark.parametrize("unit", ["0", "哈", "ab", r"\quad", "142857"])
def test_a_loop_without_spaces_is_a_loop(unit):
    assert repetition_of("Let me write that out: 0." + unit * (4_000 // len(unit)), "").loop_at_end


def test_words_of_chinese_are_its_characters_and_long_ones_are_cut():
    assert words_of("所以 x=3，and so") == ["所", "以", "x=3，and", "so"]
    assert words_of("a" * 70) == ["a" * 32, "a" * 32, "a" * 6]
    assert words_of("") == []
    assert word_ids(["b", "a", "b"]).tolist() == [0, 1, 0]


def test_the_compression_ratio_is_that_of_bytes():
    text = "größer als 3, " * 50
    assert compression_ratio(text) == len(text.encode()) / len(zlib.compress(text.encode(), 6))
    assert compression_ratio("") == 1.0
    assert compression_ratio("\ud800") > 0  # half of a surrogate pair, as JSON can bring it


def test_hardly_anything_has_no_repetition():
    for text in ("", "a", "a b"):
        found = repetition_of(text, "")
        assert (found.longest_repeat, found.repeated_share, found.loop_words, found.loop_at_end) == (0, 0.0, 0, False)
    ids = np.zeros(0, np.int64)
    assert longest_loop(ids, Grams(ids)).words == 0
