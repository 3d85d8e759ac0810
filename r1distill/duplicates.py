"""Problems that are asked twice: the same text with another answer, and nearly the same text.

Near means a Jaccard similarity of the sets of word 5-grams of at least SIMILAR, found by MinHash and banding
(https://en.wikipedia.org/wiki/MinHash) and then counted exactly. Problems with other numbers are never near: sets made
from templates consist of those.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from rensa import RMinHash  # pyright: ignore[reportAttributeAccessIssue] - a compiled module without stubs

from r1distill.filter.normalise import DRAWING, is_number, tokens, whole_text
from r1distill.records import Problem

SIMILAR = 0.7  # one changed word costs five 5-grams on either side: of 30 words 26 5-grams, so that 21/31 is not near
SHINGLE_WORDS = 5
PERMUTATIONS, BANDS = (
    64,
    16,
)  # pairs of similarity 0.7 meet in a band with a probability of 98.8 %, those of 0.8 99.98 %
ROWS = PERMUTATIONS // BANDS
SEED = 1
BATCH = 2_000
MAX_COMPARED = 100  # candidates of one problem, those of most common bands first: bounds what a template costs

What = Literal["near", "near, another answer", "conflict"]


@dataclass(frozen=True, slots=True)
class Duplicate:
    """A problem that repeats an earlier one. `similarity` is the Jaccard similarity of their 5-grams, 1 of equal texts.

    `what`: "near" has the same answer; "near, another answer" may well be another problem; "conflict" is the same text
    with another answer, so that one of the two is wrong.
    """

    id: str
    duplicate_of: str
    similarity: float
    what: What


def find_duplicates(
    problems: list[Problem], same_answer: Callable[[Problem, Problem], bool], *, near: bool = True
) -> list[Duplicate]:
    """Every problem that repeats an earlier one, with the first that it repeats; `near = False` finds conflicts only.

    `same_answer` is asked of pairs alone. Chains do not grow: what is near a duplicate is compared with what that repeats.
    """
    found: dict[int, tuple[int, float]] = {}
    first: dict[tuple[str, str, tuple[str, ...]], int] = {}
    for index, problem in enumerate(problems):
        key = (problem.kind, " ".join(problem.problem.split()), tuple(problem.choices or ()))
        original = first.setdefault(key, index)
        if original != index:
            found[index] = (original, 1.0)
    exact = set(found)
    if near:
        for index, original, similarity in near_pairs(problems, skip=exact):
            found[index] = (original, similarity)
    duplicates = []
    for index, (original, similarity) in sorted(found.items()):
        problem, other = problems[index], problems[original]
        same = same_answer(problem, other)
        what: What = "near" if same else "conflict" if index in exact else "near, another answer"
        if near or what == "conflict":
            duplicates.append(Duplicate(problem.id, other.id, round(similarity, 4), what))
    return duplicates


def near_pairs(problems: list[Problem], skip: set[int]) -> Iterator[tuple[int, int, float]]:
    """(index, index of the most similar earlier problem that repeats none, similarity), for those that have one."""

    @lru_cache(maxsize=20_000)
    def shingles_of(index: int) -> frozenset[str]:
        return shingles(tokens(whole_text(problems[index])))

    for group in groups_with_equal_numbers(problems, skip):
        bands: defaultdict[tuple[int, bytes], list[int]] = defaultdict(list)
        for start in range(0, len(group), BATCH):
            part = group[start : start + BATCH]
            # sorted: the order of a set of strings is another one in each process
            digests = RMinHash.digests_from_token_sets([sorted(shingles_of(i)) for i in part], PERMUTATIONS, SEED)
            for index, digest in zip(part, digests, strict=True):
                keys = band_keys(digest)
                together = Counter(other for key in keys for other in bands.get(key, ()))
                candidates = sorted(together, key=lambda other: (-together[other], other))[:MAX_COMPARED]
                scored = [(jaccard(shingles_of(index), shingles_of(other)), -other) for other in candidates]
                best, original = max(scored, default=(0.0, 0))
                if best >= SIMILAR:
                    yield index, -original, best
                else:
                    for key in keys:
                        bands[key].append(index)


def groups_with_equal_numbers(problems: list[Problem], skip: set[int]) -> list[list[int]]:
    """Indexes of problems of one kind with the same numbers in the same order; those that are alone are left out.

    Nothing with a drawing in it is near anything.
    """
    groups: defaultdict[tuple[str, tuple[str, ...]], list[int]] = defaultdict(list)
    for index, problem in enumerate(problems):
        text = whole_text(problem)
        if index not in skip and not DRAWING.search(text):
            numbers = tuple(token for token in tokens(text) if is_number(token))
            groups[problem.kind, numbers].append(index)
    return [group for group in groups.values() if len(group) > 1]


def band_keys(digest: list[int]) -> list[tuple[int, bytes]]:
    data = b"".join(value.to_bytes(8, "little") for value in digest)
    size = 8 * ROWS
    return [(band, data[band * size : (band + 1) * size]) for band in range(BANDS)]


def shingles(words: list[str]) -> frozenset[str]:
    """The word 5-grams; a shorter text is one by itself."""
    last = max(len(words) - SHINGLE_WORDS, 0)
    return frozenset(" ".join(words[start : start + SHINGLE_WORDS]) for start in range(last + 1))


def jaccard(first: frozenset[str], second: frozenset[str]) -> float:
    common = len(first & second)
    return common / (len(first) + len(second) - common)
