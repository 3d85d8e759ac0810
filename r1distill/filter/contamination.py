"""Which problems a benchmark asks too, by four rules; each a pure function of a problem and the index of the benchmarks.

exact     the same words, whole. Questions of fewer words than an n-gram need the same brackets too.
ngram     `ngram` words in a row, as DeepSeek-R1 has it (https://arxiv.org/abs/2501.12948), where such runs cover enough of
          the shorter of the two, words weighed by how rare they are (word_weights.py), and the numbers agree. A question
          of fewer words is one n-gram by itself, and has to be half of the problem.
fuzzy     the whole problem with some words changed: 2 x weight of the longest common subsequence of words / (weight of
          both), with the same numbers, but for some that one of them has in addition.
renumbered  the same with other numbers, of a question that its words tell from others; not where the benchmark has several
          such questions itself, as then it is a template, and a problem made from it is another problem.

In all but the first, where one text has under FEW_WORDS words, they are not the same if an opposite stands in one of them:
"the largest" for "the smallest" (OPPOSITES in word_weights.py).

Runs that many problems share ("Find the number of ordered pairs of positive integers") weigh little, so that they alone
cover too little. What is not found: translations, and paraphrases in which hardly three words in a row are left.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Literal

import numpy as np
from rapidfuzz.distance import LCSseq

from r1distill.filter.benchmark_index import BenchmarkIndex, Text, forms_of
from r1distill.filter.gram_table import GramTable, Integers, gram_hashes, joined, mixed, starts_of
from r1distill.filter.normalise import brackets, tokens
from r1distill.filter.word_weights import ask_otherwise
from r1distill.records import Problem

Method = Literal["exact", "ngram", "fuzzy", "renumbered"]
METHODS: tuple[Method, ...] = ("exact", "ngram", "fuzzy", "renumbered")  # the surest first

MIN_RUN_BITS = 30  # that runs of `ngram` words cover: ten words of which every other one is common
MIN_FUZZY_BITS = 30  # of a whole question: shorter ones are the same or they are not
SHORT_SHARE = 0.5  # of the problem that a question of fewer words than an n-gram must be
NUMBERS_SHARED = 0.6  # of the numbers of the text with fewer, for an n-gram; all in a text of FEW_WORDS
RENUMBERED_SIMILARITY = 0.9
MIN_RENUMBERED_BITS = (
    60  # of a question that is known by its words: "Find the remainder when 2^100 is divided by 7" is not
)
CANDIDATE_SHARE = 0.3  # of a text's weight in runs of three words that both have, before two texts are compared
# of the shorter text: one word decides what it asks; of a longer one the story is given away all the same
FEW_WORDS = 30
SPAN_CHARACTERS = 200


@dataclass(frozen=True, slots=True)
class Hit:
    """A question of a benchmark that a problem repeats. `span` is the longest run of words that both have.

    `similarity`: 1 of exact; of ngram the share of the shorter text that is covered; else that of the whole texts.
    """

    benchmark: str
    question_id: str
    method: Method
    similarity: float
    span: str


def find_contamination(index: BenchmarkIndex, problems: Sequence[Problem]) -> list[list[Hit]]:
    """For each problem its hits, one a benchmark, the surest first; empty for a clean one.

    Each result depends on that problem and the index alone. Memory grows with the number of problems in one call: give
    a few thousand at a time.
    """
    found: list[dict[str, Hit]] = [{} for _ in problems]
    rows = Rows(index, [(place, form) for place, problem in enumerate(problems) for form in forms_of(problem)])
    runs = rows.runs()
    for row, text in sorted(rows.exact() | runs.keys() | rows.alike()):
        hit = rows.judged(row, text, runs.get((row, text), 0.0))
        if hit is None:
            continue
        best = found[rows.problem_of[row]]
        method, similarity = hit
        for benchmark, question_id in index.texts[text].owners:
            candidate = Hit(benchmark, question_id, method, round(similarity, 4), rows.span(row, text))
            if benchmark not in best or order_of(candidate) < order_of(best[benchmark]):
                best[benchmark] = candidate
    return [sorted(best.values(), key=order_of) for best in found]


def order_of(hit: Hit) -> tuple[int, float, str, str]:
    return METHODS.index(hit.method), -hit.similarity, hit.benchmark, hit.question_id


class Rows:
    """The forms of some problems as arrays of words, beside an index."""

    def __init__(self, index: BenchmarkIndex, forms: list[tuple[int, str]]) -> None:
        self.index = index
        self.problem_of = [place for place, _ in forms]
        self.texts = [text for _, text in forms]
        self.words = [tokens(text) for text in self.texts]
        known = index.vocabulary.__getitem__
        self.ids, self.ends = joined([list(map(known, words)) for words in self.words])
        self.begins = np.concatenate([[0], self.ends])[: len(self.ends)]
        cumulated = np.concatenate([[0.0], np.cumsum(index.bits[self.ids])])
        self.weights = cumulated[self.ends] - cumulated[self.begins]

    def exact(self) -> set[tuple[int, int]]:
        """(row, text) with the same words."""
        keys = (self.ids[begin:end].tobytes() for begin, end in zip(self.begins, self.ends, strict=True))
        return {(row, self.index.exact[key]) for row, key in enumerate(keys) if key in self.index.exact}

    def runs(self) -> dict[tuple[int, int], float]:
        """{(row, text): share of the shorter that common n-grams cover}, where that is enough. A short text: of the row."""
        index, settings = self.index, self.index.settings
        row, text, bits = self.covered(index.grams, self.ids)
        share = bits / np.minimum(self.weights[row], index.weights[text])
        enough = (share >= settings.share) & (bits >= MIN_RUN_BITS)
        found = pairs_with(row[enough], text[enough], share[enough])
        for table in index.whole.values():
            row, text, bits = self.covered(table, self.ids)
            share = bits / self.weights[row]
            enough = share >= SHORT_SHARE
            found |= pairs_with(row[enough], text[enough], share[enough])
        return found

    def alike(self) -> set[tuple[int, int]]:
        """(row, text) that may be the same but for some words: of about one weight, with enough runs of three words."""
        index, settings = self.index, self.index.settings
        lowest = min(settings.similarity, RENUMBERED_SIMILARITY if settings.other_numbers else 1)
        if lowest == 1:
            return set()
        row, text, bits = self.covered(index.shingles, index.masked[self.ids])
        ours, theirs = self.weights[row], index.weights[text]
        # similarity s needs s/2 of both weights in common, and no common part is heavier than the lighter text
        may_be = np.minimum(ours, theirs) >= lowest / 2 * (ours + theirs)
        enough = may_be & (theirs >= MIN_FUZZY_BITS) & (bits >= CANDIDATE_SHARE * theirs)
        return set(pairs_with(row[enough], text[enough], bits[enough]))

    def covered(self, table: GramTable, ids: Integers) -> tuple[Integers, Integers, Integers]:
        """(row, text, bits) of each pair with an n-gram in common: how heavy the words of the text are that these cover."""
        index, length = self.index, table.length
        starts = starts_of(self.ends, length)
        starts, places = table.find(gram_hashes(mixed(ids), length)[starts], ids, starts)
        rows = np.searchsorted(self.ends, starts, side="right")
        order = np.lexsort((places, rows))  # a place lies in one text, so that those of a text come together
        rows, places = rows[order], places[order]
        texts = index.text_at(places)
        is_first = np.ones(len(rows), bool)
        is_first[1:] = (rows[1:] != rows[:-1]) | (texts[1:] != texts[:-1])
        already = np.zeros(len(rows), np.int64)  # words before this place are counted
        already[1:] = np.where(is_first[1:], 0, places[:-1] + length)
        bits = index.cumulated[places + length] - index.cumulated[np.maximum(places, already)]
        firsts = np.flatnonzero(is_first)
        sums = np.add.reduceat(bits, firsts) if len(firsts) else np.zeros(0)
        return rows[firsts], texts[firsts], sums

    def judged(self, row: int, text: int, covered: float) -> tuple[Method, float] | None:
        """(rule, similarity) by which a row repeats a text, None where it does not. `covered` is 0 without enough runs."""
        index, other = self.index, self.index.texts[text]
        words, is_short = self.words[row], len(other.words) < index.settings.ngram
        if words == other.words:
            return ("exact", 1.0) if not is_short or brackets(self.texts[row]) == brackets(other.text) else None
        is_brief = min(len(words), len(other.words)) < FEW_WORDS
        if is_brief and ask_otherwise(words, other.words):
            return None
        ours, theirs = numbers_of(words), numbers_of(other.words)
        if is_short:
            agree = is_short_inside(self.texts[row], words, other)
        else:
            agree = shared(ours, theirs) >= (1 if is_brief else NUMBERS_SHARED)
        if covered and agree:
            return "ngram", min(covered, 1.0)
        if index.weights[text] < MIN_FUZZY_BITS:
            return None
        similarity = self.similarity(row, text)
        if similarity >= index.settings.similarity and index.settings.similarity < 1 and one_has_all(ours, theirs):
            return "fuzzy", similarity
        if (
            index.settings.other_numbers
            and similarity >= RENUMBERED_SIMILARITY
            and index.weights[text] >= MIN_RENUMBERED_BITS
            and not index.is_template[text]
        ):
            return "renumbered", similarity
        return None

    def similarity(self, row: int, text: int) -> float:
        """2 x weight of what the longest common subsequence has / weight of both, numbers masked: 0 to 1."""
        index = self.index
        ours = index.masked[self.ids[self.begins[row] : self.ends[row]]]
        end = index.ends[text]
        theirs = index.masked[index.ids[end - len(index.texts[text].words) : end]]
        blocks = LCSseq.opcodes(ours.tolist(), theirs.tolist()).as_matching_blocks()
        bits = index.bits[ours]
        common = sum(bits[block.a : block.a + block.size].sum() for block in blocks)
        return float(2 * common / (bits.sum() + index.bits[theirs].sum()))

    def span(self, row: int, text: int) -> str:
        ours, theirs = self.words[row], self.index.texts[text].words
        match = SequenceMatcher(None, ours, theirs, autojunk=False).find_longest_match()
        return " ".join(ours[match.a : match.a + match.size])[:SPAN_CHARACTERS]


def pairs_with(rows: Integers, texts: Integers, values: Integers) -> dict[tuple[int, int], float]:
    return dict(zip(zip(rows.tolist(), texts.tolist(), strict=True), values.tolist(), strict=True))


def numbers_of(words: Sequence[str]) -> list[str]:
    """Those in digits: "half" and "twice" are words that a light rewording changes."""
    return [word for word in words if word[0].isdigit()]


def shared(ours: list[str], theirs: list[str]) -> float:
    """Share of the numbers of the text with fewer that the other one has too, each as often; 1 without numbers."""
    fewer = min(len(ours), len(theirs))
    return (Counter(ours) & Counter(theirs)).total() / fewer if fewer else 1.0


def one_has_all(ours: list[str], theirs: list[str]) -> bool:
    """Whether the numbers of one text are, in their order, among those of the other."""
    fewer, more = sorted((ours, theirs), key=len)
    rest = iter(more)
    return all(number in rest for number in fewer)


def is_short_inside(text: str, words: list[str], other: Text) -> bool:
    """Whether a question of a few words is in a text with its brackets, where the rest of the text has no numbers."""
    rest = Counter(numbers_of(words)) - Counter(numbers_of(other.words))
    inner, outer = ("".join(bracket for bracket, _ in brackets(each)) for each in (other.text, text))
    return not rest and inner in outer
