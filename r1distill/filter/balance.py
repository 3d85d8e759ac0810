"""So many traces of each group, and so many tokens in all: what is left out is drawn, and follows from the ids and the seed."""

import numpy as np

from r1distill.errors import UserError
from r1distill.filter.columns import MISSING, Draws, Flags, Floats, Keys, Places, Words, rank_within
from r1distill.selection_sections import Balance


def balanced(keys: Keys, groups: Words, drawn: Draws, balance: Balance) -> Flags:
    """Which rows `(N,)` are kept: of each group the first by `drawn (N,)`, a random number for each row."""
    quotas = quotas_of(groups, balance)
    is_grouped = groups.places != MISSING
    rank = rank_within(groups.places, [drawn, keys.problem, keys.sample])
    return ~is_grouped | (rank < np.append(quotas, 0)[groups.places])


def quotas_of(groups: Words, balance: Balance) -> Places:
    """How many of each group `(G,)` are kept.

    With shares as many as the scarcest group allows, and of each group its share of them to half a trace; a group without a
    share gives none. Raises UserError for a share of a group that has no trace.
    """
    counts = np.bincount(groups.places[groups.places != MISSING], minlength=len(groups.known))
    if balance.at_most is not None:
        return np.minimum(counts, balance.at_most)
    n_of_group = dict(zip(groups.known, counts.tolist(), strict=True))
    for name in balance.shares:
        if not n_of_group.get(name):
            there = ", ".join(f"{group} ({n})" for group, n in n_of_group.items() if n) or "none at all"
            raise UserError(
                f'filter.balance by "{balance.by}": no trace is left of {name}, which is to have a share of '
                f"{balance.shares[name]}; left are {there}; correct the shares, or loosen the rules before"
            )
    total = min(n_of_group[name] / share for name, share in balance.shares.items())
    shares = np.array([balance.shares.get(name, 0.0) for name in groups.known])
    return np.minimum(counts, np.rint(total * shares).astype(np.int64))


def within_budget(
    keys: Keys, n_tokens: Floats, sources: Places, drawn: Draws, budget: int, values: Floats | None = None
) -> Flags:
    """Which rows `(N,)` are kept: the longest prefix of a mixed order with no more than `budget` tokens in all.

    In that order the i-th of n traces of a source stands at (i + 1/2) / n of the way, so that a prefix has nearly as much of
    each source as all have. Those of a source are sorted by `values (N,)`, the lowest first and NaN last, equal ones and all
    without `values` by `drawn`. A larger budget keeps what a smaller one does. Raises UserError where a length is not known.
    """
    if unknown := int(np.isnan(n_tokens).sum()):
        raise UserError(
            f"filter.token_budget = {budget}: the tokens of {unknown} of the {len(n_tokens)} traces were not counted, so that no "
            "budget can be kept; take it out, or count them"
        )
    rank = rank_within(sources, [*([] if values is None else [values]), drawn, keys.problem, keys.sample])
    size = np.bincount(sources - MISSING)[sources - MISSING] if len(sources) else rank
    order = np.lexsort((keys.sample, keys.problem, drawn, (rank + 0.5) / np.maximum(size, 1)))
    kept = np.zeros(len(order), dtype=bool)
    kept[order] = np.cumsum(n_tokens[order].astype(np.int64)) <= budget
    return kept
