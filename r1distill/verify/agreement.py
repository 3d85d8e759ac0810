"""Which samples of a problem say the same: classes of equal answers, the majority, and verdicts that stand against it.

Answers are grouped by what they mean, not by how they are written: `1/2` and `0.5` are one class and vote together
(voting on strings splits them, as every published harness does). The reference answer plays no part in it.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

from r1distill.records import Kind, Outcome, Problem, Verdict
from r1distill.verify.pool import VerifierPool

MAX_UNDECIDED = 2  # comparisons without a result after which an answer is compared no more: each may cost the deadline
MAX_ANSWER_CHARACTERS = 2_000  # a worker cuts longer ones off, so that nothing is known of how they end

Equivalent = Callable[[str, str], bool | None]


@dataclass(frozen=True, slots=True)
class Panel:
    """The verdicts on the samples of one problem, side by side."""

    verdicts: list[Verdict]
    classes: list[int | None]
    against: list[bool]  # as `disagreements` finds them
    undecided: int  # comparisons that ended without a result


def panels(verdicts: Iterable[Verdict], problems: Mapping[str, Problem], pool: VerifierPool) -> Iterator[Panel]:
    """A panel for each problem, in order. Verdicts of one problem come together, as the stages write them."""

    def panel_of(group: list[Verdict]) -> Panel:
        results: list[bool | None] = []

        def equivalent(first: str, second: str) -> bool | None:
            results.append(pool.equivalent(first, second))
            return results[-1]

        kind = problems[group[0].problem_id].kind
        classes = answer_classes(kind, [verdict.extracted for verdict in group], equivalent)
        against = disagreements([verdict.outcome for verdict in group], classes)
        return Panel(group, classes, against, results.count(None))

    groups = (list(group) for _, group in groupby(verdicts, key=lambda verdict: verdict.problem_id))
    return pool.ordered(panel_of, groups)


def answer_classes(kind: Kind, answers: Sequence[str | None], equivalent: Equivalent) -> list[int | None]:
    """The class of each extracted answer to one problem, as `classes_of` numbers them.

    Mathematical answers are compared by `equivalent`; choices are letters, equal or not. Programs and open answers have
    no classes: None for each.
    """
    if kind == "math":
        return classes_of(answers, equivalent)
    return classes_of(answers, different) if kind == "choice" else [None] * len(answers)


def different(first: str, second: str) -> bool:
    """For answers that are equal only where they are the same text."""
    return False


def classes_of(answers: Sequence[str | None], equivalent: Equivalent) -> list[int | None]:
    """The class of each answer, numbered from 0 in the order in which they first appear; None for no answer.

    `equivalent` is asked for different texts only, with one representative a class, its most frequent text; None from
    it (no result) counts as not equal. Near-equalities are not transitive (0.333333 ≈ 1/3 ≈ 0.33333333), so frequent
    texts come first, then short ones, then the alphabet decides: the classes depend on the answers and not on the order
    of the samples.
    """
    texts = Counter(answer for answer in answers if answer is not None)
    class_of: dict[str, str] = {}  # text → the representative of its class
    representatives: list[str] = []
    strikes: Counter[str] = Counter()  # comparisons without a result; either of the two texts may be to blame
    comparable: set[str] = set()  # texts that are not: a comparison with them once had a result
    for text in sorted(texts, key=lambda text: (-texts[text], len(text), text)):
        class_of[text] = text
        if len(text) > MAX_ANSWER_CHARACTERS:
            continue
        for representative in representatives:
            if strikes[text] == MAX_UNDECIDED:
                break
            if strikes[representative] >= MAX_UNDECIDED and representative not in comparable:
                continue
            equal = equivalent(representative, text)
            if equal is None:
                strikes.update((representative, text))
                continue
            comparable.update((representative, text))
            if equal:
                class_of[text] = representative
                break
        if class_of[text] == text:
            representatives.append(text)
    numbers: dict[str, int] = {}
    return [None if text is None else numbers.setdefault(class_of[text], len(numbers)) for text in answers]


def majority(classes: Sequence[int | None]) -> dict[int, float]:
    """The largest class → 1.0. A tie of m classes gives each 1/m, the chance with which a fair draw would take it.

    So the expectation of majority voting is the sum of the weights of the right classes. Samples without an answer do
    not vote; {} where no sample has one.
    """
    sizes = Counter(number for number in classes if number is not None)
    largest = max(sizes.values(), default=0)
    leading = [number for number, size in sizes.items() if size == largest]
    return {number: 1 / len(leading) for number in leading}


def disagreements(outcomes: Sequence[Outcome], classes: Sequence[int | None]) -> list[bool]:
    """Which verdicts on the samples of one problem stand against the other samples.

    Where two samples or more agree on the largest class, and no other class is as large: an `incorrect` in it (the
    rules may have missed that it equals the reference, or the reference is wrong) and a `correct` outside it (a lucky
    guess, or an answer that was accepted wrongly). Anywhere: an `incorrect` whose equal was called `correct`. Verdicts
    that are neither correct nor incorrect, and samples without an answer, stand against nobody.
    """
    sizes = Counter(number for number in classes if number is not None)
    leading = majority(classes)
    sole = next(iter(leading)) if len(leading) == 1 else None
    if sole is not None and sizes[sole] < 2:
        sole = None
    accepted = {number for number, outcome in zip(classes, outcomes, strict=True) if outcome == "correct"}

    def stands_against(outcome: Outcome, number: int | None) -> bool:
        if number is None:
            return False
        if outcome == "correct":
            return sole is not None and number != sole
        return outcome == "incorrect" and (number == sole or number in accepted)

    return [stands_against(outcome, number) for outcome, number in zip(outcomes, classes, strict=True)]
