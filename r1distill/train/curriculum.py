"""The order of a curriculum: phases, each an exact mixture of pools, made up front and then read through once.

Everything follows from the pools of the examples, the length of the training and the seed, so that a resumed training,
which skips what it has read, continues in the same order on any number of processes.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from datasets import Dataset, concatenate_datasets

from r1distill.errors import UserError
from r1distill.train_sections import Curriculum, Phase

POOLS = "pools"  # the column: for each example the names of the pools that it is in
PHASE = "phase"  # the column of a dataset in the order of a curriculum


@dataclass(frozen=True)
class Plan:
    """`examples (N,)`: which example is read at each place; `phase (N,)` and `pool (N,)`: for which it was drawn.

    `pool` are places in `names`, whose pools have `sizes` examples. `is_repeat (N,)`: the example was drawn before.
    """

    names: tuple[str, ...]
    sizes: tuple[int, ...]
    examples: np.ndarray
    phase: np.ndarray
    pool: np.ndarray
    is_repeat: np.ndarray


@dataclass(frozen=True)
class Share:
    """What a phase, counted from 1, reads of a pool of `size` examples; `repeats` of them were read before."""

    phase: int
    pool: str
    size: int
    examples: int
    tokens: int
    repeats: int


def plan_of(curriculum: Curriculum, pools: Sequence[Sequence[str]], length: Callable[[int], int], seed: int) -> Plan:
    """Draw the examples of all phases. `pools` are those of each example, `length(n)` the places where n can be drawn.

    Within a phase the share of each pool is exact to one example, and so it is, nearly, in any stretch of it. A pool gives
    those of its examples that were read least, of these first the ones that fewer other pools have, in random order:
    none comes again until its pool is used up. Raises UserError for a pool that has no example, and where the training is too
    short for the mixture.
    """
    names = tuple(dict.fromkeys(name for phase in curriculum.phases for name in phase.mix))
    members = members_of(names, pools)
    usable = np.unique(np.concatenate(list(members.values())))
    ends = [round(phase.until * length(len(usable))) for phase in curriculum.phases]
    counts = [
        counts_of(phase, end - start) for phase, start, end in zip(curriculum.phases, [0, *ends], ends, strict=False)
    ]
    check_length(counts, ends[-1])
    chance = np.random.default_rng(seed)
    n_read, n_pools = np.zeros(len(pools), dtype=np.int64), np.zeros(len(pools), dtype=np.int64)
    for member in members.values():
        n_pools[member] += 1
    examples, phases, of_pool = [], [], []
    for number, count in enumerate(counts):
        drawn = {name: draw(members[name], n, n_read, n_pools, chance) for name, n in count.items()}
        # the i-th of n examples of a pool at the share (i + 1/2) / n of the phase
        place = np.concatenate([(np.arange(n) + 0.5) / n for n in count.values()])
        order = np.argsort(place, kind="stable")
        examples.append(np.concatenate(list(drawn.values()))[order])
        of_pool.append(np.repeat([names.index(name) for name in count], list(count.values()))[order])
        phases.append(np.full(len(order), number))
    everything = np.concatenate(examples)
    is_repeat = np.ones(len(everything), dtype=bool)
    is_repeat[np.unique(everything, return_index=True)[1]] = False
    sizes = tuple(len(members[name]) for name in names)
    return Plan(names, sizes, everything, np.concatenate(phases), np.concatenate(of_pool), is_repeat)


def members_of(names: Sequence[str], pools: Sequence[Sequence[str]]) -> dict[str, np.ndarray]:
    """The examples of each pool. Raises UserError for one that has none."""
    found: dict[str, list[int]] = {}
    for example, its in enumerate(pools):
        for name in set(its):
            found.setdefault(name, []).append(example)
    for name in names:
        if name not in found:
            known = ", ".join(f"{pool} ({len(members)})" for pool, members in sorted(found.items())) or "none at all"
            raise UserError(
                f'[train.curriculum]: no example is in the pool "{name}"; the dataset has {known}; correct '
                "train.curriculum.phases, or the column `pools`"
            )
    return {name: np.array(found[name]) for name in names}


def counts_of(phase: Phase, n: int) -> dict[str, int]:
    """How many of `n` examples each pool gives: the share rounded down, and what is left to the largest remainders."""
    whole = sum(phase.mix.values())  # 1, but for rounding
    exact = {name: share / whole * n for name, share in phase.mix.items()}
    counts = {name: int(value) for name, value in exact.items()}
    for name in sorted(exact, key=lambda name: counts[name] - exact[name])[: n - sum(counts.values())]:
        counts[name] += 1
    return counts


def check_length(counts: list[dict[str, int]], total: int) -> None:
    for number, count in enumerate(counts, 1):
        for name, n in count.items():
            if not n:
                raise UserError(
                    f'[train.curriculum]: phase {number} of a training of {total} examples has none for the pool "{name}"; '
                    "train longer, on more examples, or take that pool out of the phase"
                )


def draw(
    members: np.ndarray, n: int, n_read: np.ndarray, n_pools: np.ndarray, chance: np.random.Generator
) -> np.ndarray:
    """`n` of `members`; counted in `n_read`. Nothing twice before everything once."""
    drawn = []
    while n > 0:
        mixed = chance.permutation(members)
        first = mixed[np.lexsort((n_pools[mixed], n_read[mixed]))][:n]
        n_read[first] += 1
        drawn.append(chance.permutation(first))
        n -= len(first)
    return np.concatenate(drawn)


def shares_of(plan: Plan, tokens: np.ndarray) -> list[Share]:
    """What each phase reads of each pool; `tokens (E,)` of each example."""
    shares = []
    for number in range(int(plan.phase.max()) + 1):
        for index, name in enumerate(plan.names):
            here = (plan.phase == number) & (plan.pool == index)
            if here.any():
                shares.append(
                    Share(
                        phase=number + 1,
                        pool=name,
                        size=plan.sizes[index],
                        examples=int(here.sum()),
                        tokens=int(tokens[plan.examples[here]].sum()),
                        repeats=int(plan.is_repeat[here].sum()),
                    )
                )
    return shares


def describe(shares: list[Share]) -> str:
    """A line a phase: of each pool the examples and its share of examples and of tokens, and how many are repeated."""
    lines = []
    for number in sorted({share.phase for share in shares}):
        here = [share for share in shares if share.phase == number]
        n, tokens = sum(share.examples for share in here), sum(share.tokens for share in here)
        parts = []
        for share in here:
            again = f"; {share.repeats} read before, the pool has {share.size}" if share.repeats else ""
            ratios = f"{share.examples / n:.1%}, {share.tokens / tokens:.1%} of the tokens"
            parts.append(f"{share.examples} {share.pool} ({ratios}{again})")
        lines.append(f"  phase {number}: {n} examples, {tokens:,} tokens: {'; '.join(parts)}")
    return "\n".join(lines)


def packed_by_phase(dataset: Dataset, pack: Callable[[Dataset], Dataset], seed: int) -> Dataset:
    """Pack each phase by itself. Best-fit packing puts the long ones first, so the packs of a phase are mixed."""
    phases = np.asarray(dataset.with_format("numpy")[PHASE][:])
    parts = []
    for number in np.unique(phases):
        part = dataset.select(np.flatnonzero(phases == number)).remove_columns(PHASE)
        parts.append(pack(part).shuffle(seed=seed))
    return concatenate_datasets(parts)
