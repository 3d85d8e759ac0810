"""The whole selection in plain Python, a row at a time: slow and obvious, to hold the one over columns against."""

import hashlib
from collections import defaultdict
from typing import Any

from r1distill.sections import Filter
from r1distill.selection_sections import Between, Rule, Wanted

Row = dict[str, Any]
Key = tuple[str, int]
STEP = 0x9E3779B97F4A7C15


def key_of(row: Row) -> Key:
    return row["problem_id"], row["sample"]


def drawn(row: Row, seed: int, purpose: str) -> int:
    """Number `sample` of SplitMix64."""
    start = hashlib.sha256(f"{seed}/{purpose}/{row['problem_id']}".encode()).digest()[:8]
    state = (int.from_bytes(start) + (row["sample"] + 1) * STEP) % 2**64
    state = (state ^ (state >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
    state = (state ^ (state >> 27)) * 0x94D049BB133111EB % 2**64
    return state ^ (state >> 31)


def select_by_hand(rows: list[Row], settings: Filter) -> tuple[dict[Key, str], dict[str, int]]:
    """The reason of each trace, and how many each rule could not speak of."""
    reasons: dict[Key, str] = {}
    unmeasured: dict[str, int] = defaultdict(int)

    def left() -> list[Row]:
        return [row for row in rows if key_of(row) not in reasons]

    def rule(name: str, speaks: Any) -> None:
        """`speaks(row)`: true, false, or None where it is not measured."""
        for row in left():
            said = speaks(row)
            unmeasured[name] += said is None
            if said:
                reasons[key_of(row)] = name

    for row in left():
        if row["finish_reason"] != "stop":
            finish = str(row["finish_reason"])
            reasons[key_of(row)] = {"error": "failed", "length": "truncated"}.get(finish, finish)
    if settings.require_correct:
        for row in left():
            if row["outcome"] != "correct":
                reasons[key_of(row)] = row["outcome"]
    rule("malformed", lambda row: malformed(row, settings))
    if settings.max_mean_entropy_nats:
        rule("high_entropy", lambda row: over(row["mean_entropy_nats"], settings.max_mean_entropy_nats))
    if settings.drop_contaminated:
        rule("contaminated", lambda row: None if row["contaminated_by"] is None else row["contaminated_by"] != "")
    if settings.drop_duplicate_problems:
        rule("duplicate_problem", repeated(left(), "problem_duplicate_of", lambda row: row["problem_id"]))
    if settings.drop_duplicates:
        rule("duplicate", repeated(left(), "duplicate_of", lambda row: f"{row['problem_id']}/{row['sample']}", key_of))
    for each in settings.rules:
        rule(each.name, lambda row, each=each: of_recipe(row, each))
    seed = settings.seed or 0

    def keep(name: str, group: list[Row], sort_by: Any, most: int) -> None:
        for row in sorted(group, key=lambda row: (*sort_by(row), *key_of(row)))[most:]:
            reasons[key_of(row)] = name

    if most := settings.max_per_problem:
        for group in groups(left(), lambda row: row["problem_id"]).values():
            if settings.max_per_problem_by == "most_diverse":
                chosen = diverse(group, most)
                for row in group:
                    if key_of(row) not in chosen:
                        reasons[key_of(row)] = "over_max_per_problem"
                continue
            keep("over_max_per_problem", group, lambda row: first_by(row, settings.max_per_problem_by, seed), most)
    for balance in settings.balance:
        name = f"balance_{balance.by}"
        grouped = groups(left(), lambda row, balance=balance: group_name(row, balance.by, balance.edges))
        unmeasured[name] += len(grouped.pop(None, []))
        scarcest = min((len(grouped.get(group, [])) / share for group, share in balance.shares.items()), default=0)
        for group, its in grouped.items():
            most = balance.at_most or min(len(its), round(scarcest * balance.shares.get(group, 0)))
            keep(name, its, lambda row, name=name: (drawn(row, seed, name),), most)
    if budget := settings.token_budget:
        order = []
        for its in groups(left(), lambda row: row["source"]).values():
            its.sort(
                key=lambda row: (
                    *budget_first(row, settings.token_budget_by), drawn(row, seed, "token budget"), *key_of(row)
                )
            )  # fmt: skip
            order += [
                ((n + 0.5) / len(its), drawn(row, seed, "token budget"), *key_of(row), row) for n, row in enumerate(its)
            ]
        spent = 0
        for *_, row in sorted(order, key=lambda each: each[:-1]):
            spent += row["n_tokens"]
            if spent > budget:
                reasons[key_of(row)] = "over_token_budget"
    return (
        {key_of(row): reasons.get(key_of(row), "kept") for row in rows},
        {name: n for name, n in unmeasured.items() if n},
    )


def malformed(row: Row, settings: Filter) -> bool | None:
    if row["n_answer_characters"] == 0:
        return True
    if settings.require_thinking and row["format"] is not None and row["format"] != "ok":
        return True
    return (
        None if row["n_answer_characters"] is None or (settings.require_thinking and row["format"] is None) else False
    )


def over(value: float | None, limit: float) -> bool | None:
    return None if value is None else value > limit


def of_recipe(row: Row, rule: Rule) -> bool | None:
    met = [meets(row[name], wanted) for name, wanted in (rule.drop or rule.keep).items()]
    all_of_them = False if False in met else None if None in met else True
    return all_of_them if rule.drop or all_of_them is None else not all_of_them


def meets(value: Any, wanted: Wanted) -> bool | None:
    if value is None:
        return None
    if isinstance(value, list):
        if not isinstance(wanted, Between):
            return wanted in value
        value = len(value)
    if not isinstance(wanted, Between):
        return value == wanted
    for limit, sign in ((wanted.at_least, 1), (wanted.at_most, -1)):
        part = value[: len(limit)] if isinstance(limit, str) else value
        if limit is not None and ((part < limit) if sign == 1 else (part > limit)):
            return False
    return True


def repeated(left: list[Row], column: str, name_of: Any, unit_of: Any = lambda row: row["problem_id"]) -> Any:
    """Whether a row repeats what its class keeps: the original if it is left, else the first by id."""
    said = {row[column] for row in left if row[column]}
    classes = defaultdict(list)
    for row in left:
        if name := row[column] or (name_of(row) if name_of(row) in said else ""):
            classes[name].append(row)
    kept = {}
    for name, its in classes.items():
        originals = [row for row in its if name_of(row) == name and not row[column]]
        kept[name] = min(unit_of(row) for row in originals or its)

    def speaks(row: Row) -> bool | None:
        if row[column] is None:
            return None
        return bool(row[column]) and kept[row[column]] != unit_of(row)

    return speaks


def groups(rows: list[Row], group: Any) -> dict[Any, list[Row]]:
    found = defaultdict(list)
    for row in rows:
        found[group(row)].append(row)
    return found


def first_by(row: Row, by: str, seed: int) -> tuple[Any, ...]:
    if by == "random":
        return (drawn(row, seed, "per problem"),)
    value = {"shortest": row["n_tokens"], "lowest_entropy": row["mean_entropy_nats"], "first": 0}[by]
    return value is None, value or 0


def budget_first(row: Row, by: str) -> tuple[Any, ...]:
    if by == "random":
        return ()
    value = row["n_tokens"] if by == "shortest" else row["mean_entropy_nats"]
    return value is None, (value or 0) * (-1 if by == "highest_entropy" else 1)


def diverse(group: list[Row], most: int) -> set[Key]:
    group = sorted(group, key=key_of)
    chosen = group[:1]
    while len(chosen) < min(most, len(group)):
        rest = [row for row in group if row not in chosen]
        chosen.append(max(rest, key=lambda row: (min(distance(row, other) for other in chosen), -row["sample"])))
    return {key_of(row) for row in chosen}


def distance(row: Row, other: Row) -> int:
    return sum(a != b for a, b in zip(row["sketch"], other["sketch"], strict=True))


def group_name(row: Row, by: str, edges: list[int]) -> str | None:
    if by == "source":
        return row["source"]
    if by == "difficulty":
        rate = row["pass_rate"]
        if rate is None or rate in (0, 1):
            return None if rate is None else str(int(rate))
        return "0-0.25" if rate <= 0.25 else "0.25-0.5" if rate <= 0.5 else "0.5-0.75" if rate <= 0.75 else "0.75-1"
    if row["n_tokens"] is None:
        return None
    below = max((edge for edge in edges if edge <= row["n_tokens"]), default=0)
    return f"{below}-{min((edge for edge in edges if edge > row['n_tokens']), default='')}"
