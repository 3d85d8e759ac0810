"""The rules that look at one trace each, in the order in which they are asked: the built-in ones, then the recipe's."""

from collections.abc import Iterator

import numpy as np
import pyarrow as pa

from r1distill.filter.columns import MISSING, Floats, numbers, words
from r1distill.filter.conditions import NO, UNMEASURED, YES, Answers, answer, answers_of, by_word, negated
from r1distill.filter.entropy_filter import PREFIX, entropy_words, filter_of
from r1distill.filter_sections import EntropyFilter
from r1distill.sections import Filter
from r1distill.selection_sections import Rule

FINISHED = {"error": "failed", "length": "truncated"}  # the reason where it is not the finish_reason itself


def built_in(tags: pa.Table, settings: Filter, exact: Floats | None = None) -> Iterator[tuple[str, Answers]]:
    """(reason, whether it speaks against each trace `(N,)`) of the rules of [filter] on one trace.

    A truncated trace is never taught, correct or not: it has no end, and a student would learn not to stop. A column that is
    not there was not measured. `exact (N,)` are mean entropies that were scored again, NaN elsewhere.
    """
    yield from by_value(tags, "finish_reason", "stop", FINISHED)
    if settings.require_correct:
        yield from by_value(tags, "outcome", "correct", {})
    yield "malformed", malformed(tags, require_thinking=settings.require_thinking)
    if entropy := filter_of(settings.max_mean_entropy_nats, settings.entropy):
        yield from by_entropy(tags, entropy, exact)
    if settings.drop_contaminated:
        yield "contaminated", word_is(tags, "contaminated_by", other_than="")


def by_entropy(tags: pa.Table, settings: EntropyFilter, exact: Floats | None) -> Iterator[tuple[str, Answers]]:
    """What lies between the bounds of a limit counts as not measured."""
    prefix = PREFIX[settings.scope]
    if f"{prefix}mean_entropy_nats" not in tags.column_names:
        yield "high_entropy", np.full(tags.num_rows, UNMEASURED)
        return
    found = entropy_words(tags, settings, exact)
    unknown = np.isin(found, ["unmeasured", "undecided"])
    yield "high_entropy", np.where(found == "high_entropy", YES, np.where(unknown, UNMEASURED, NO))
    yield "low_entropy", np.where(found == "low_entropy", YES, NO)


def own(tags: pa.Table, rules: list[Rule]) -> Iterator[tuple[str, Answers]]:
    """The same of the rules in `filter.rules`. Raises UserError for a column that is not there or of another type."""
    for rule in rules:
        place = f'filter.rules, "{rule.name}"'
        if rule.drop:
            yield rule.name, answers_of(tags, rule.drop, place)
        else:
            yield rule.name, negated(answers_of(tags, rule.keep, place))


def malformed(tags: pa.Table, *, require_thinking: bool) -> Answers:
    """Whether there is no answer, or the tags of thinking are not as they must be."""
    characters = measured(tags, "n_answer_characters")
    no_answer = answer(characters == 0, ~np.isnan(characters))
    return np.maximum(no_answer, word_is(tags, "format", other_than="ok")) if require_thinking else no_answer


def by_value(tags: pa.Table, name: str, wanted: str, reasons: dict[str, str]) -> Iterator[tuple[str, Answers]]:
    """One rule for each value of a column but the wanted one. What is not measured is counted once, under the column's name."""
    column = words(tags, name)
    for place, word in enumerate(column.known):
        if word != wanted:
            yield reasons.get(word, word), np.where(column.places == place, YES, NO)
    yield name, np.where(column.places == MISSING, UNMEASURED, NO)


def word_is(tags: pa.Table, name: str, *, other_than: str) -> Answers:
    if name not in tags.column_names:
        return np.full(tags.num_rows, UNMEASURED)
    column = words(tags, name)
    return by_word(column.places, column.known, lambda word: word != other_than)


def measured(tags: pa.Table, name: str) -> np.ndarray:
    """A column of numbers, NaN where there is none."""
    return numbers(tags, name) if name in tags.column_names else np.full(tags.num_rows, np.nan)
