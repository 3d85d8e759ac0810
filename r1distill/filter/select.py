"""Which traces are taught: every rule in its order over the columns of tags.parquet, and the decision on each trace.

Decisions follow from the rows, the settings and the seed. The order of the rows decides nothing, and neither do the blocks of
the table, the number of processes that measured them, or the time.
"""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from r1distill.errors import UserError
from r1distill.filter.balance import balanced, within_budget
from r1distill.filter.clusters import kept_of_clusters
from r1distill.filter.columns import Flags, Floats, Keys, Places, draws, keys_of, words
from r1distill.filter.conditions import NO, UNMEASURED, YES, Answers
from r1distill.filter.copies import repeated_problems, repeated_traces
from r1distill.filter.entropy_filter import PREFIX
from r1distill.filter.groups import groups_of
from r1distill.filter.per_problem import of_problem
from r1distill.filter.rules import built_in, measured, own
from r1distill.records import Decision
from r1distill.sections import Filter
from r1distill.store import opened, replacing, schema_of

KEPT = "kept"
REQUIRED = ("problem_id", "sample", "source", "finish_reason", "outcome")
# read where they are there
USED = (
    *REQUIRED, "format", "n_tokens", "n_characters", "n_answer_characters", "pass_rate", "contaminated_by", "duplicate_of",
    "problem_duplicate_of",
)  # fmt: skip
DECISIONS_A_GROUP = 100_000


@dataclass(slots=True)
class Selection:
    """What became of each trace. `reason (N,)` are places in `names`, of which the first is "kept".

    `unmeasured`: how many traces each rule could not speak of, since what it asks for was not measured of them.
    """

    reason: Places
    names: list[str] = field(default_factory=lambda: [KEPT])
    unmeasured: dict[str, int] = field(default_factory=dict)

    @property
    def kept(self) -> Flags:
        """`(N,)`."""
        return self.reason == 0

    def drop(self, name: str, answers: Answers) -> None:
        """Give the reason `name` to those `(N,)` that are still there and for which the answer is YES."""
        kept = self.kept
        if unmeasured := int((kept & (answers == UNMEASURED)).sum()):
            self.unmeasured[name] = self.unmeasured.get(name, 0) + unmeasured
        dropped = kept & (answers == YES)
        if dropped.any():
            if name not in self.names:
                self.names.append(name)
            self.reason[dropped] = self.names.index(name)

    def keep_only(self, name: str, rows: Places, is_kept: Flags) -> None:
        """Give the reason `name` to those of `rows (M,)` that are not kept `(M,)`."""
        answers = np.full(len(self.reason), NO)
        answers[rows[~is_kept]] = YES
        self.drop(name, answers)


def read_tags(path: Path, settings: Filter) -> pa.Table:
    """The columns of tags.parquet that the settings ask for, in the order of the traces.

    Raises UserError where the file cannot be read. A column that it lacks is left to the rule that asks for it.
    """
    asked = [column for rule in settings.rules for column in (*rule.drop, *rule.keep)]
    prefix = PREFIX[settings.entropy.scope if settings.entropy else "sequence"]
    entropies = [f"{prefix}mean_entropy_nats", f"{prefix}mean_entropy_upper_nats", "mean_entropy_nats"]
    more = [
        *(("sketch",) if settings.needs_sketch else ()),
        *(("cluster", "quality") if settings.clusters or settings.pools else ()),
        *((settings.quality_measured.category,) if settings.pools and settings.quality_measured else ()),
    ]
    with opened(path, "delete it and run `r1distill filter` again") as parquet:
        there = parquet.schema_arrow.names
        texts = [name for name in there if pa.types.is_string(parquet.schema_arrow.field(name).type)]
        unknown = any(name not in there for name in asked)  # the rule will say so, and which columns there are
        names = [name for name in there if unknown or name in {*USED, *entropies, *more, *asked}]
        return pq.read_table(path, columns=names, read_dictionary=[name for name in texts if name in names])


def select(tags: pa.Table, settings: Filter, seed: int, exact: Floats | None = None) -> Selection:
    """Decide on every row of `tags`: the rules on one trace, copies, rules of the recipe, then how many are kept of what.

    `seed` is what is drawn with where `settings.seed` is absent, `exact (N,)` mean entropies that were scored again, NaN
    elsewhere. Raises UserError for a column that a rule needs and that is
    not there, for one of another type, and where a row is there twice.
    """
    if missing := [name for name in REQUIRED if name not in tags.column_names]:
        raise UserError(f"tags.parquet has no {', '.join(missing)}; delete it and run `r1distill filter` again")
    keys = keys_of(tags)
    selection = Selection(np.zeros(tags.num_rows, dtype=np.int64))
    for name, answers in built_in(tags, settings, exact):
        selection.drop(name, answers)
    if settings.drop_duplicate_problems:
        selection.drop("duplicate_problem", repeated_problems(tags, keys, selection.kept))
    if settings.drop_duplicates:
        selection.drop("duplicate", repeated_traces(tags, keys, selection.kept))
    for name, answers in own(tags, settings.rules):
        selection.drop(name, answers)
    if settings.clusters:
        rows = np.flatnonzero(selection.kept)
        selection.keep_only("dense_region", rows, kept_of_clusters(tags.take(rows), settings.clusters))
    limit(selection, tags, keys, settings, seed if settings.seed is None else settings.seed)
    return selection


def limit(selection: Selection, tags: pa.Table, keys: Keys, settings: Filter, seed: int) -> None:
    """Drop what is too much: of one problem, of one group, and in all."""
    if most := settings.max_per_problem:
        rows = np.flatnonzero(selection.kept)
        is_kept = of_problem(tags.take(rows), keys.of(rows), most, settings.max_per_problem_by, seed)
        selection.keep_only("over_max_per_problem", rows, is_kept)
    for balance in settings.balance:
        name, groups = f"balance_{balance.by}", groups_of(tags, balance)
        rows = np.flatnonzero(selection.kept)
        here = groups.of(rows)
        if unmeasured := here.n_missing:
            selection.unmeasured[name] = unmeasured
        selection.keep_only(name, rows, balanced(keys.of(rows), here, draws(keys, seed, name)[rows], balance))
    if settings.token_budget:
        rows = np.flatnonzero(selection.kept)
        n_tokens, sources = measured(tags, "n_tokens")[rows], words(tags, "source").places[rows]
        drawn = draws(keys, seed, "token budget")[rows]
        values = budget_values(tags, settings.token_budget_by)
        values = None if values is None else values[rows]
        is_kept = within_budget(keys.of(rows), n_tokens, sources, drawn, settings.token_budget, values)
        selection.keep_only("over_token_budget", rows, is_kept)


def budget_values(tags: pa.Table, by: str) -> Floats | None:
    """What `(N,)` a token budget takes the lowest of first; None where it draws."""
    column = {"random": None, "shortest": "n_tokens"}.get(by, "mean_entropy_nats")
    values = None if column is None else measured(tags, column)
    return -values if values is not None and by == "highest_entropy" else values


def write_decisions(path: Path, tags: pa.Table, selection: Selection) -> None:
    """decisions.parquet, in the order of the rows; the same bytes for the same decisions."""
    schema = schema_of(Decision)
    reasons = pa.array(selection.names)
    with replacing(path) as temporary, pq.ParquetWriter(temporary, schema, compression="zstd") as writer:
        for start in range(0, max(tags.num_rows, 1), DECISIONS_A_GROUP):
            rows = slice(start, start + DECISIONS_A_GROUP)
            part = tags.select(["problem_id", "sample"]).slice(start, DECISIONS_A_GROUP)
            columns = [
                part.column("problem_id").cast(pa.string()).combine_chunks(),
                part.column("sample").cast(pa.int64()).combine_chunks(),
                pa.array(selection.kept[rows]),
                reasons.take(pa.array(selection.reason[rows])),
            ]
            writer.write_table(pa.table(columns, schema=schema))
