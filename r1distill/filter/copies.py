"""Of what says the same, one is kept: the one that the others repeat, or, where a rule has dropped that, the first by id."""

import numpy as np
import pyarrow as pa

from r1distill.filter.columns import MISSING, Flags, Keys, Places, words
from r1distill.filter.conditions import UNMEASURED, Answers, answer


def repeated_traces(tags: pa.Table, keys: Keys, alive: Flags) -> Answers:
    """Whether each trace `(N,)` repeats another one that is alive and kept, by the column `duplicate_of`."""
    if "duplicate_of" not in tags.column_names:
        return np.full(tags.num_rows, UNMEASURED)
    column = words(tags, "duplicate_of")
    place_of_id = {name: place for place, name in enumerate(keys.ids)}
    # every trace has a number by which it can be looked up
    width = int(keys.sample.max(initial=0)) + 1
    unit = keys.problem * width + keys.sample
    rows = np.argsort(unit)
    originals = np.full(len(column.known), MISSING, dtype=np.int64)  # the row that each name in the column means
    for name, text in enumerate(column.known):
        problem_id, _, sample = text.rpartition("/")
        if problem_id in place_of_id and sample.isdecimal() and int(sample) < width:
            wanted = place_of_id[problem_id] * width + int(sample)
            found = np.searchsorted(unit, wanted, sorter=rows)
            if found < len(rows) and unit[rows[found]] == wanted:
                originals[name] = rows[found]
    group = group_of(column.places, column.known)
    first = np.zeros(len(unit), dtype=bool)
    for name in np.flatnonzero(originals != MISSING):
        row = originals[name]
        if group[row] == MISSING:
            group[row], first[row] = name, True
    return answer(repeats(group, unit, first, alive), column.places != MISSING)


def repeated_problems(tags: pa.Table, keys: Keys, alive: Flags) -> Answers:
    """The same of problems, by the column `problem_duplicate_of`: all traces of a problem go or none."""
    if "problem_duplicate_of" not in tags.column_names:
        return np.full(tags.num_rows, UNMEASURED)
    column = words(tags, "problem_duplicate_of")
    place_of_name = {name: place for place, name in enumerate(column.known) if name}
    own_name = np.array([place_of_name.get(name, MISSING) for name in keys.ids], dtype=np.int64)[keys.problem]
    group = group_of(column.places, column.known)
    first = (group == MISSING) & (own_name != MISSING)
    group = np.where(first, own_name, group)
    return answer(repeats(group, keys.problem, first, alive), column.places != MISSING)


def group_of(places: Places, known: list[str]) -> Places:
    """What each row repeats; MISSING for nothing, which is the empty text."""
    return np.where(places == (known.index("") if "" in known else MISSING), MISSING, places)


def repeats(group: Places, unit: Places, first: Flags, alive: Flags) -> Flags:
    """Whether each row `(N,)` is alive and of another unit than the one that its group keeps.

    That is the unit of the row marked `first` if it is alive, else the smallest alive one. Rows without a group stay.
    """
    rows = np.flatnonzero(alive & (group != MISSING))
    order = rows[np.lexsort((unit[rows], ~first[rows], group[rows]))]
    groups, heads = np.unique(group[order], return_index=True)
    kept = unit[order[heads]]
    found = np.zeros(len(group), dtype=bool)
    found[rows] = unit[rows] != kept[np.searchsorted(groups, group[rows])]
    return found
