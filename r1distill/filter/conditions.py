"""Whether a row is what a rule of the recipe describes: yes, no, or not measured.

The three are ordered numbers, so that Kleene's logic is the smaller of two for "and", the larger for "or"
(https://en.wikipedia.org/wiki/Three-valued_logic): what one known condition settles is settled.
"""

import difflib
from collections.abc import Callable, Mapping

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from r1distill.errors import UserError
from r1distill.filter.columns import MISSING, numbers, words
from r1distill.problems import is_within
from r1distill.section import Between
from r1distill.selection_sections import Wanted

Answers = NDArray[np.int8]
NO, UNMEASURED, YES = np.int8(0), np.int8(1), np.int8(2)


def answers_of(tags: pa.Table, conditions: Mapping[str, Wanted], place: str) -> Answers:
    """Whether each row `(N,)` meets all conditions. Raises UserError for a column that is not there or of another type."""
    found = np.full(tags.num_rows, YES)
    for name, wanted in conditions.items():
        found = np.minimum(found, answer_of(tags, name, wanted, place))
    return found


def negated(answers: Answers) -> Answers:
    return YES - answers


def answer(is_so: np.ndarray, is_measured: np.ndarray) -> Answers:
    """Of two arrays of flags `(N,)`."""
    return np.where(is_measured, np.where(is_so, YES, NO), UNMEASURED)


def answer_of(tags: pa.Table, name: str, wanted: Wanted, place: str) -> Answers:
    """Whether each row `(N,)` meets one condition; of a list, its elements (a text) or how many they are (bounds)."""
    if name not in tags.column_names:
        nearest = difflib.get_close_matches(name, tags.column_names, n=1)
        meant = f"did you mean {nearest[0]}? " if nearest else ""
        raise UserError(f"{place}: no column {name}; {meant}known: {', '.join(sorted(tags.column_names))}")
    kind = tags.schema.field(name).type
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return answer_of_list(tags, name, wanted, place)
    if pa.types.is_boolean(kind):
        check_type(isinstance(wanted, bool), place, name, wanted, "true or false")
    elif pa.types.is_integer(kind) or pa.types.is_floating(kind):
        check_type(all(map(is_number, parts_of(wanted))), place, name, wanted, "a number, or bounds that are numbers")
    elif pa.types.is_string(kind) or pa.types.is_large_string(kind):
        check_type(all(isinstance(part, str) for part in parts_of(wanted)), place, name, wanted, "a text")
        column = words(tags, name)
        return by_word(column.places, column.known, test_of(wanted))
    else:
        raise UserError(f"{place}: column {name} is a {kind}, which no rule can ask for; take it out of the rule")
    values = numbers(tags, name)
    return answer(within(values, wanted), ~np.isnan(values))


def answer_of_list(tags: pa.Table, name: str, wanted: Wanted, place: str) -> Answers:
    column = tags.column(name).combine_chunks()
    measured = np.asarray(column.is_valid())
    lengths = np.asarray(column.value_lengths().fill_null(0)).astype(np.int64)
    if isinstance(wanted, Between):
        check_type(
            all(map(is_number, parts_of(wanted))), place, name, wanted, "a text that is in the list, or its length"
        )
        return answer(within(lengths.astype(np.float64), wanted), measured)
    check_type(isinstance(wanted, str), place, name, wanted, "a text that is in the list, or bounds of its length")
    row = np.repeat(np.arange(len(lengths)), lengths)
    has = np.zeros(len(lengths), dtype=bool)
    has[row[np.asarray([element == wanted for element in column.flatten().to_pylist()], dtype=bool)]] = True
    return answer(has, measured)


def by_word(places: np.ndarray, known: list[str], test: Callable[[str], bool]) -> Answers:
    """A test of texts, asked once for each that occurs."""
    table = np.array([*(YES if test(word) else NO for word in known), UNMEASURED], dtype=np.int8)
    return table[np.where(places == MISSING, len(known), places)]


def test_of(wanted: Wanted) -> Callable[[str], bool]:
    return (lambda word: is_within(word, wanted)) if isinstance(wanted, Between) else (lambda word: word == wanted)


def within(values: np.ndarray, wanted: Wanted) -> np.ndarray:
    if not isinstance(wanted, Between):
        return values == wanted
    low = -np.inf if wanted.at_least is None else wanted.at_least
    high = np.inf if wanted.at_most is None else wanted.at_most
    return (values >= low) & (values <= high)


def parts_of(wanted: Wanted) -> list[bool | int | float | str]:
    if not isinstance(wanted, Between):
        return [wanted]
    return [limit for limit in (wanted.at_least, wanted.at_most) if limit is not None]


def is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def check_type(is_right: bool, place: str, name: str, wanted: Wanted, what: str) -> None:
    if not is_right:
        shown = wanted.model_dump(exclude_none=True) if isinstance(wanted, Between) else repr(wanted)
        raise UserError(f"{place}: {name} = {shown}: the column holds other values; give {what}")
