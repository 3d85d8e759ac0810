"""The questions of the benchmarks as arrays: what a problem is compared with. Built once, read by every process."""

import itertools
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from r1distill.benchmark_columns import TESTS_SHOWN
from r1distill.contamination_section import Contamination
from r1distill.filter.gram_table import GramTable, Integers, gram_hashes, gram_table, joined, mixed, starts_of
from r1distill.filter.normalise import ASYMPTOTE, is_number, tokens
from r1distill.filter.word_weights import BITS, LETTER_BITS, NUMBER_BITS, RARE_BITS, bits_of
from r1distill.records import Problem

UNKNOWN, NUMBER, UNKNOWN_LETTER = range(
    3
)  # ids of words that no benchmark has; NUMBER is any number where they are masked
SHINGLE_WORDS = 3  # a text in which one word in five is another still has runs of three; two are too common
MOST_PLACES = 64  # of one n-gram in the benchmarks: what more of them share is a template, and says nothing
TESTS = re.compile(
    rf"(?m)^\s*(?:assert\b.*|{re.escape(TESTS_SHOWN)}\s*)$"
)  # lines of MBPP that say what is asked by examples
TEMPLATE_WORDS = 5
TEMPLATE_SHARE = 0.5  # of a question's runs of five words that another one has too, with other numbers


class Vocabulary(dict[str, int]):
    """Ids of the words of the benchmarks, and of common words."""

    def __missing__(self, word: str) -> int:
        if word[0].isdigit() or is_number(word):
            return NUMBER
        return UNKNOWN_LETTER if len(word) == 1 else UNKNOWN


@dataclass(frozen=True, slots=True)
class Text:
    """One way to write a question down, and whose question it is: (benchmark, id of the problem)."""

    text: str
    words: list[str]
    owners: list[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class BenchmarkIndex:
    """Questions of benchmarks, those with the same words once. `ids` (W,) are the words of all, text after text."""

    settings: Contamination
    texts: list[Text]
    vocabulary: Vocabulary
    bits: Integers  # (V,) float64: what the word with an id says
    masked: Integers  # (V,): a word's id, and NUMBER for every number
    ids: Integers
    ends: Integers  # (T,)
    weights: Integers  # (T,) bits of a whole text
    cumulated: Integers  # (W + 1,) bits of all words before a place
    is_template: Integers  # (T,) bool
    exact: dict[bytes, int]
    grams: GramTable
    whole: dict[int, GramTable]  # texts with fewer words than an n-gram, by their number of words
    shingles: GramTable  # of masked words
    without_words: list[tuple[str, str]]  # owners of questions that have no word, which nothing can be compared with

    def text_at(self, places: Integers) -> Integers:
        """Which text each place in `ids` is in."""
        return np.searchsorted(self.ends, places, side="right")


def forms_of(problem: Problem) -> Iterator[str]:
    """The ways in which a problem may be written down: alone, with its choices, without its drawing or its tests."""
    yield problem.problem
    if problem.choices:
        yield "\n".join([problem.problem, *sorted(problem.choices)])  # sorted: others shuffle them
    if "[asy]" in problem.problem:
        yield ASYMPTOTE.sub(" ", problem.problem)
    if problem.kind == "code" and (alone := TESTS.sub("", problem.problem)) != problem.problem:
        yield alone


def build_index(questions: Iterable[tuple[str, Problem]], settings: Contamination) -> BenchmarkIndex:
    """The index of (benchmark, question). A form with too few words to be told from others is left out: see `is_usable`."""
    texts: dict[tuple[str, ...], Text] = {}
    numbers: dict[tuple[str, ...], tuple[str, ...]] = {}
    without_words = []
    for benchmark, problem in questions:
        owner = (benchmark, problem.id)
        of_question = None
        for form in forms_of(problem):
            words = tuple(tokens(form))
            of_question = of_question or tuple(word for word in words if word[0].isdigit())
            if not words:
                without_words.append(owner)
            elif is_usable(words, form, problem, settings):
                text = texts.setdefault(words, Text(form, list(words), []))
                numbers.setdefault(words, of_question)
                if owner not in text.owners:
                    text.owners.append(owner)
    return arrays_of(list(texts.values()), list(numbers.values()), without_words, settings)


def is_usable(words: Sequence[str], form: str, problem: Problem, settings: Contamination) -> bool:
    """A short question that has choices or a drawing is another one with others: "What is the area?"."""
    is_part = bool(problem.choices) and form == problem.problem
    return len(words) >= settings.ngram or not (is_part or ("[asy]" in problem.problem and "[asy]" not in form))


def arrays_of(
    texts: list[Text], numbers: list[tuple[str, ...]], without_words: list[tuple[str, str]], settings: Contamination
) -> BenchmarkIndex:
    known = dict.fromkeys(itertools.chain(BITS, *(text.words for text in texts)))
    vocabulary = Vocabulary((word, id) for id, word in enumerate(known, start=UNKNOWN_LETTER + 1))
    bits = np.array([RARE_BITS, NUMBER_BITS, LETTER_BITS, *map(bits_of, vocabulary)], np.float64)
    masked = np.arange(len(bits), dtype=np.uint32)
    masked[[id for word, id in vocabulary.items() if is_number(word)]] = NUMBER
    ids, ends = joined([[vocabulary[word] for word in text.words] for text in texts])
    lengths = np.diff(ends, prepend=0)
    cumulated = np.concatenate([[0.0], np.cumsum(bits[ids])])
    n = settings.ngram
    return BenchmarkIndex(
        settings=settings,
        texts=texts,
        vocabulary=vocabulary,
        bits=bits,
        masked=masked,
        ids=ids,
        ends=ends,
        weights=cumulated[ends] - cumulated[ends - lengths],
        cumulated=cumulated,
        is_template=templates(masked[ids], ends, numbers),
        exact={
            ids[end - length : end].tobytes(): place
            for place, (end, length) in enumerate(zip(ends, lengths, strict=True))
        },
        grams=gram_table(ids, starts_of(ends, n), n, at_most=MOST_PLACES),
        whole={
            int(length): gram_table(ids, (ends - lengths)[lengths == length], int(length), at_most=MOST_PLACES)
            for length in np.unique(lengths[lengths < n])
        },
        shingles=gram_table(masked[ids], starts_of(ends, SHINGLE_WORDS), SHINGLE_WORDS, at_most=MOST_PLACES),
        without_words=without_words,
    )


def templates(masked: Integers, ends: Integers, numbers: list[tuple[str, ...]]) -> Integers:
    """(T,) whether most of a text, but for its numbers, is also in a question with other numbers."""
    starts = starts_of(ends, TEMPLATE_WORDS)
    if not len(starts):
        return np.zeros(len(ends), bool)
    hashes = gram_hashes(mixed(masked), TEMPLATE_WORDS)[starts]
    text = np.searchsorted(ends, starts, side="right")
    ids: dict[tuple[str, ...], int] = {}
    variant = np.array([ids.setdefault(each, len(ids)) for each in numbers], np.int64)[text]
    distinct, gram = np.unique(hashes, return_inverse=True)
    pairs = np.unique(np.stack([gram, variant]), axis=1)
    is_shared = np.bincount(pairs[0], minlength=len(distinct)) > 1
    of_text = np.bincount(text, minlength=len(ends))
    shared = np.bincount(text, weights=is_shared[gram], minlength=len(ends))
    return shared > TEMPLATE_SHARE * np.maximum(of_text, 1)
