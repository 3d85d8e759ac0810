"""How much of a text says again what it said before: exact repeats, loops, and what a compressor finds.

A chain of thought repeats itself for good reasons: it tries cases, fills in tables, checks a result, writes its program a
second time. A loop is something else: a block that comes again at once, again and again. So the repeats are measured
(`longest_repeat`, `repeated_share`, `compression_ratio`), and loops are found apart (`loop_words`, `loop_at_end`): of 20,000
clean planted traces two have one, where a tenth has a `repeated_share` over 0.5. Four of the shortest loops (51 to 56 words)
found in 1,000 traces of a Qwen2.5-3B on MATH were read, and were loops.
scripts/check_tags.py prints what is found and what is missed.
"""

import zlib
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from r1distill.filter.measures.words import word_ids, words_of
from r1distill.generate.repetition import LONGEST_PERIOD, is_degenerate

Ids = NDArray[np.int64]
Hashes = NDArray[np.uint64]

NGRAM = 8  # words: a turn of phrase is shorter ("Wait, let me check this again." has six), a sentence is longer
LEAST_COUNT = 3  # a passage that stands twice is a restatement or a program's second draft; three times is a habit
LAG_NGRAM = 4  # words that have to come again before a period is looked at more closely
LIKELY_PERIODS = 8  # those looked at more closely
SAME = 0.85  # of a loop's words those that are the one a period before: a counter in seven words is forgiven
LEAST_ROUNDS = 4
LEAST_LOOP = 48  # words
OFTEN, LEAST_APERIODIC = 5, 96  # occurrences of an 8-gram, and words, of a loop without a period
DEFLATE_LEVEL = 6


class Loop(NamedTuple):
    """Words `start` to `end` (not included) repeat a block of `period` words. All 0 for none."""

    start: int
    end: int
    period: int

    @property
    def words(self) -> int:
        return self.end - self.start


NO_LOOP = Loop(0, 0, 0)


class Repetition(NamedTuple):
    """As in the columns of the same names."""

    longest_repeat: int
    repeated_share: float
    compression_ratio: float
    loop_words: int
    loop_at_end: bool


def repetition_of(thinking: str, answer: str) -> Repetition:
    """Measured on the words of thinking and answer, one behind the other.

    A loop stands at the end of the whole, or of the thinking (whose end may have been forced on the model).
    """
    before, after = words_of(thinking), words_of(answer)
    ids = word_ids(before + after)
    grams = Grams(ids)
    loop = longest_loop(ids, grams)
    return Repetition(
        longest_repeat=longest_repeat(grams),
        repeated_share=float(in_repeated(grams).mean()) if len(ids) else 0.0,
        compression_ratio=compression_ratio(f"{thinking}\n{answer}"),
        loop_words=loop.words,
        loop_at_end=any(ends_in_loop(part, loop) for part in (ids, ids[: len(before)])),
    )


# ---------------------------------------------------------------- n-grams


class Grams:
    """Hashes of all n-grams of ids `(T,)`, for any n: sums of random numbers times powers, modulo 2^64 (Karp and Rabin 1987).

    Two different n-grams have equal hashes with a probability near 2^-64, since each id stands for a random number.
    """

    def __init__(self, ids: Ids) -> None:
        self.length = len(ids)
        values = scattered(ids.astype(np.uint64) + np.uint64(1))
        # odd, so that its powers do not run out
        self.powers = np.cumprod(np.full(self.length + 1, 0x9E3779B97F4A7C15, np.uint64))
        self.sums = np.zeros(self.length + 1, np.uint64)
        np.cumsum(values * self.powers[:-1], out=self.sums[1:])

    def hashes(self, n: int, starts: Ids) -> Hashes:
        """Of the n-grams that begin at `starts`; all of them have to end within the text."""
        return (self.sums[starts + n] - self.sums[starts]) * self.powers[self.length - n - starts]

    def starts(self, n: int) -> Ids:
        """Where n-grams begin."""
        return np.arange(max(self.length - n + 1, 0))


def scattered(numbers: Hashes) -> Hashes:
    """Numbers that look random, different for different ones: the finalizer of SplitMix64 (Steele, Lea, Flood 2014)."""
    numbers = (numbers ^ (numbers >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    numbers = (numbers ^ (numbers >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return numbers ^ (numbers >> np.uint64(31))


def repeated_starts(grams: Grams, n: int, starts: Ids, least_count: int = 2) -> Ids:
    """Those of `starts`, which ascend, whose n-gram begins at `least_count` of them or more."""
    starts = starts[: np.searchsorted(starts, grams.length - n, side="right")]
    if len(starts) < least_count:
        return starts[:0]
    hashes = grams.hashes(n, starts)
    order = np.argsort(hashes, kind="stable")
    ordered = hashes[order]
    heads = np.concatenate([[0], np.flatnonzero(ordered[1:] != ordered[:-1]) + 1, [len(ordered)]])
    counts = heads[1:] - heads[:-1]
    return np.sort(starts[order[np.repeat(counts >= least_count, counts)]])


def longest_repeat(grams: Grams) -> int:
    """Words of the longest n-gram that stands twice in a text; the two may overlap, as in a loop.

    By doubling and halving n: a longer n-gram is repeated only where its beginning is, so that few places are left after
    the first sorting of ordinary text. O(T log T) there, O(T log² T) at worst.
    """
    low, high = 0, 1
    places = grams.starts(1)
    while len(found := repeated_starts(grams, high, places)):
        low, high, places = high, 2 * high, found
    while high - low > 1:  # `places` are those whose n-gram of length `low` is repeated
        middle = (low + high) // 2
        found = repeated_starts(grams, middle, places)
        if len(found):
            low, places = middle, found
        else:
            high = middle
    return low


def in_repeated(grams: Grams, n: int = NGRAM, least_count: int = LEAST_COUNT) -> NDArray[np.bool_]:
    """Of each word whether it stands in an n-gram that occurs `least_count` times or more `(T,)`."""
    starts = repeated_starts(grams, n, grams.starts(n), least_count)
    edges = np.zeros(grams.length + 1, np.int64)
    edges[starts] += 1
    edges[starts + n] -= 1
    return np.cumsum(edges[:-1]) > 0


def compression_ratio(text: str) -> float:
    """Bytes of the text over bytes of its deflate stream, as Whisper tells loops (https://arxiv.org/abs/2212.04356, 4.5).

    It grows with the length, most below a few thousand characters, so that it is to be compared at similar lengths. 1 for
    an empty text.
    """
    data = text.encode("utf-8", "surrogatepass")
    return len(data) / len(zlib.compress(data, DEFLATE_LEVEL)) if data else 1.0


# ---------------------------------------------------------------- loops


def longest_loop(ids: Ids, grams: Grams) -> Loop:
    """The longer one of the longest loop with a period and the longest without; NO_LOOP for none."""
    return max(periodic_loop(ids, grams), aperiodic_loop(grams), key=lambda loop: loop.words)


def periodic_loop(ids: Ids, grams: Grams) -> Loop:
    """The longest stretch of ids `(T,)` that repeats one block of at most LONGEST_PERIOD words.

    In a stretch of period p at least the share SAME of the words are the one p places before, so that a counter does not
    hide it. It has LEAST_LOOP words or more and LEAST_ROUNDS rounds or more, the first included. Tried are the periods with
    which 4-grams come again most often.
    """
    best = NO_LOOP
    for period in likely_periods(grams):
        begin, end = heaviest_run(ids[period:] == ids[:-period], SAME)
        # the words behind the first round repeat those a period before
        if end - begin + period >= max(LEAST_LOOP, LEAST_ROUNDS * period, best.words + 1):
            best = Loop(begin, end + period, period)
    return best


def likely_periods(grams: Grams) -> list[int]:
    """Distances at which 4-grams come again, most frequent first: those that a loop of LEAST_LOOP words would give."""
    hashes = grams.hashes(LAG_NGRAM, grams.starts(LAG_NGRAM))
    order = np.argsort(hashes, kind="stable")
    ordered = hashes[order]
    lags = (order[1:] - order[:-1])[ordered[1:] == ordered[:-1]]
    counts = np.bincount(lags[lags <= LONGEST_PERIOD], minlength=1)
    likely = np.argsort(-counts, kind="stable")[:LIKELY_PERIODS]
    return [int(lag) for lag in likely if counts[lag] >= LEAST_LOOP // LAG_NGRAM]


def aperiodic_loop(grams: Grams) -> Loop:
    """The longest stretch of words of which the share SAME stand in 8-grams that occur OFTEN times or more in the text.

    A handful of sentences that come again in any order have no period.
    """
    begin, end = heaviest_run(in_repeated(grams, NGRAM, OFTEN), SAME)
    return Loop(begin, end, 0) if end - begin >= LEAST_APERIODIC else NO_LOOP


def heaviest_run(equal: NDArray[np.bool_], same: float) -> tuple[int, int]:
    """(begin, end) of the run of `equal (N,)` that is longest for its share of True, which is at least `same`.

    The run of the largest sum, where True counts 1 - same and False -same (Bentley's maximum subarray, vectorised).
    """
    scores = np.concatenate([[0.0], np.cumsum(equal - same)])
    gains = scores - np.minimum.accumulate(scores)
    end = int(np.argmax(gains))
    return int(np.argmin(scores[: end + 1])), end


def ends_in_loop(ids: Ids, loop: Loop) -> bool:
    """Whether the last words of ids `(T,)` are a loop: the one given reaches to within a round of the end, or an exact one
    ends there. A last word may be cut off.
    """
    near = loop.start < len(ids) <= loop.end + max(loop.period, NGRAM)
    return (near and loop.words > 0) or any(is_degenerate(each, LEAST_LOOP, LEAST_ROUNDS) for each in (ids, ids[:-1]))
