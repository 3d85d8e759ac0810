"""The sections of the recipe below [filter] that select among the traces: rules, and balance."""

from typing import Literal, get_args

from pydantic import Field, model_validator

from r1distill.records import FinishReason, Outcome
from r1distill.section import Between, Section

Wanted = bool | int | float | str | Between
By = Literal["source", "difficulty", "length"]
# A problem by the share of its samples that is right. All and none are bins of their own: those are not guesses of a rate.
DIFFICULTIES = ("0", "0-0.25", "0.25-0.5", "0.5-0.75", "0.75-1", "1")
# what a trace is dropped for by the built-in rules: no rule of a recipe may have such a name
BUILT_IN_REASONS = frozenset(
    {
        "kept", "failed", "truncated", "malformed", "high_entropy", "low_entropy", "contaminated", "duplicate",
        "duplicate_problem", "dense_region", "over_max_per_problem", "over_token_budget",
        *(f"balance_{by}" for by in get_args(By)), *get_args(FinishReason), *get_args(Outcome),
    }
)  # fmt: skip


class Rule(Section):
    """A rule on the columns of tags.parquet. What was not measured of a trace speaks neither for nor against it."""

    name: str = Field(pattern=r"^[A-Za-z_][A-Za-z0-9_-]*$", max_length=60)
    """The reason that its drops have in decisions.parquet and funnel.json."""
    drop: dict[str, Wanted] = {}
    """Drop what meets all of these: `{ n_tokens = { at_least = 16000 }, source = "gsm8k" }`. Of a list such as `pii` a text
    is an element, and bounds are its length."""
    keep: dict[str, Wanted] = {}
    """Or: drop what does not meet all of these."""

    @model_validator(mode="after")
    def says_something(self) -> "Rule":
        if bool(self.drop) == bool(self.keep):
            raise ValueError(
                f'rule "{self.name}" has {"both" if self.drop else "neither"} drop and keep; give one of them'
            )
        if self.name in BUILT_IN_REASONS:
            raise ValueError(f'rule "{self.name}": a built-in rule has this name; choose another')
        for column, wanted in (self.drop or self.keep).items():
            if isinstance(wanted, Between):
                check_bounds(wanted, f'rule "{self.name}": {column}')
        return self


def check_bounds(bounds: Between, place: str) -> None:
    low, high = bounds.at_least, bounds.at_most
    if low is None and high is None:
        raise ValueError(f"{place} has no bounds; give at_least or at_most")
    if low is None or high is None:
        return
    if isinstance(low, str) != isinstance(high, str):
        raise ValueError(f"{place}: at_least = {low!r} and at_most = {high!r} are not of one type; correct one")
    if (low > high[: len(low)]) if isinstance(low, str) and isinstance(high, str) else (low > high):  # type: ignore[operator]
        raise ValueError(f"{place}: at_least = {low!r} is above at_most = {high!r}; nothing is between them")


class Balance(Section):
    """How many traces of each group are kept, drawn by `filter.seed`. What was not measured of a trace leaves it as it is."""

    by: By
    """The groups: `source`; `difficulty`, by the pass rate of the problem: 0, 0-0.25, 0.25-0.5, 0.5-0.75, 0.75-1, 1;
    `length`, by tokens."""
    at_most: int | None = Field(default=None, ge=1)
    """Keep no more traces of a group."""
    shares: dict[str, float] = {}
    """Shares of the groups in what is kept, which is as much as they allow: `{ gsm8k = 0.25, math = 0.75 }`. They sum to 1."""
    edges: list[int] = Field(default=[1000, 4000, 16000], min_length=1)
    """`length` only: where the groups begin that are then called 0-1000, 1000-4000, 4000-16000 and 16000-."""

    @property
    def lengths(self) -> list[str]:
        """The names of the groups by length."""
        bounds = ["0", *map(str, self.edges)]
        return [f"{low}-{high}" for low, high in zip(bounds, [*bounds[1:], ""], strict=True)]

    @model_validator(mode="after")
    def is_one_of_two(self) -> "Balance":
        if (self.at_most is None) == (not self.shares):
            raise ValueError(f'balance by "{self.by}": give at_most, or shares')
        if self.by != "length" and self.edges != type(self).model_fields["edges"].default:
            raise ValueError(f'balance by "{self.by}": edges mean nothing there; remove them')
        if self.edges[0] < 1 or sorted(set(self.edges)) != self.edges:
            raise ValueError(f"edges = {self.edges}: above 0, and each above the one before")
        return self

    @model_validator(mode="after")
    def shares_are_of_groups(self) -> "Balance":
        if not self.shares:
            return self
        known = {"source": self.shares, "difficulty": DIFFICULTIES, "length": self.lengths}[self.by]
        if unknown := [name for name in self.shares if name not in known]:
            raise ValueError(f"shares.{unknown[0]}: no such group by {self.by}; known: {', '.join(known)}")
        if min(self.shares.values()) <= 0 or abs(sum(self.shares.values()) - 1) > 1e-6:
            raise ValueError(f"shares = {self.shares}: each above 0, and 1 in sum")
        return self
