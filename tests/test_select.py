"""Selection over columns: the same as by hand, for any order and any blocks of the rows, and exact where it counts."""

from collections import Counter
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from selection_by_hand import key_of, select_by_hand
from small_run import recipe_file

from r1distill.errors import UserError
from r1distill.filter.columns import draws, keys_of, rank_within
from r1distill.filter.funnel import funnel_of
from r1distill.filter.select import Selection, read_tags, select, write_decisions
from r1distill.filter.sketch import SKETCH_BYTES, sketch_of
from r1distill.filter.split import is_validation, share_of
from r1distill.recipe import load_recipe
from r1distill.records import Decision, FinishReason, Outcome
from r1distill.sections import Filter
from r1distill.selection_sections import DIFFICULTIES
from r1distill.store import read_records

SCHEMA = pa.schema(
    [
        ("problem_id", pa.string()), ("sample", pa.int64()), ("source", pa.string()), ("finish_reason", pa.string()),
        ("outcome", pa.string()), ("format", pa.string()), ("n_answer_characters", pa.int64()), ("n_tokens", pa.int64()),
        ("mean_entropy_nats", pa.float64()), ("pass_rate", pa.float64()), ("contaminated_by", pa.string()),
        ("duplicate_of", pa.string()), ("problem_duplicate_of", pa.string()), ("sketch", pa.binary()),
        ("pii", pa.list_(pa.string())), ("has_code", pa.bool_()), ("thinking_language", pa.string()),
    ]
)  # fmt: skip
GOOD: dict[str, Any] = {
    "sample": 0, "source": "a", "finish_reason": "stop", "outcome": "correct", "format": "ok", "n_answer_characters": 9,
    "n_tokens": 100, "mean_entropy_nats": 0.3, "pass_rate": 0.5, "contaminated_by": "", "duplicate_of": "",
    "problem_duplicate_of": "", "sketch": bytes(SKETCH_BYTES), "pii": [], "has_code": False, "thinking_language": "en",
}  # fmt: skip
Row = dict[str, Any]
BUDGET_BY = ("random", "shortest", "lowest_entropy", "highest_entropy")


def table(rows: list[Row]) -> pa.Table:
    """The tags of these rows, whose entropies are exact: both bounds are the same."""
    tags = pa.Table.from_pylist(rows, SCHEMA)
    return tags.append_column("mean_entropy_upper_nats", tags["mean_entropy_nats"])


def good(problem_id: str = "p", **changed: Any) -> Row:
    return {"problem_id": problem_id, **GOOD, **changed}


def reasons(rows: list[Row], **filter: Any) -> list[str]:
    return words_of(select(table(rows), Filter.model_validate(filter), 0))


def words_of(selection: Selection) -> list[str]:
    return [selection.names[place] for place in selection.reason]


# ---------------------------------------------------------------- tables and settings of any kind

IDS = ("p0", "p1", "p2", "p3", "p4")
NAMES = [f"{problem}/{sample}" for problem in IDS for sample in range(3)]
row_values = st.fixed_dictionaries(
    {
        "source": st.sampled_from("abc"),
        "finish_reason": st.sampled_from(["stop"] * 12 + list(get_args(FinishReason))),
        "outcome": st.sampled_from(["correct"] * 12 + list(get_args(Outcome))),
        "format": st.sampled_from(["ok"] * 12 + ["several", None]),
        "n_answer_characters": st.sampled_from([9] * 12 + [0, None]),
        "n_tokens": st.integers(0, 300),
        "mean_entropy_nats": st.none() | st.sampled_from([0.1, 0.5, 0.85, 0.9]),
        "contaminated_by": st.sampled_from([""] * 12 + ["aime24", None]),
        "duplicate_of": st.sampled_from([""] * 12 + [None, "gone/0", *NAMES]),
        "sketch": st.binary(min_size=2, max_size=2).map(lambda two: two * (SKETCH_BYTES // 2)),
        "pii": st.none() | st.lists(st.sampled_from(["email", "phone"]), max_size=2),
        "has_code": st.none() | st.booleans(),
        "thinking_language": st.sampled_from(["en", "zh", "", None]),
    }
)
problem_values = st.fixed_dictionaries(
    {
        "pass_rate": st.none() | st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.6, 0.9, 1.0]),
        "problem_duplicate_of": st.sampled_from(["", "", "", None, *IDS]),
    }
)


@st.composite
def tables(draw: st.DrawFn) -> list[Row]:
    keys = draw(st.lists(st.tuples(st.sampled_from(IDS), st.integers(0, 7)), max_size=25, unique=True))
    of_problem = {name: draw(problem_values) for name in IDS}
    for name, values in of_problem.items():
        if values["problem_duplicate_of"] == name:
            values["problem_duplicate_of"] = ""
    return [{"problem_id": name, "sample": sample, **draw(row_values), **of_problem[name]} for name, sample in keys]


bounds = st.sampled_from([{"at_least": 50}, {"at_most": 200}, {"at_least": 20, "at_most": 250}])
conditions = st.fixed_dictionaries(
    {},
    optional={
        "n_tokens": bounds | st.integers(0, 300),
        "mean_entropy_nats": st.sampled_from([{"at_most": 0.5}, 0.1]),
        "has_code": st.booleans(),
        "thinking_language": st.sampled_from(["en", "", {"at_least": "f"}, {"at_most": "e"}]),
        "pii": st.sampled_from(["email", {"at_least": 1}, {"at_most": 1}]),
    },
).filter(bool)
rules = st.builds(
    lambda keep, found: {"keep" if keep else "drop": found}, st.booleans(), conditions
)  # fmt: skip
balances = st.lists(
    st.one_of(
        st.fixed_dictionaries({"by": st.sampled_from(["source", "difficulty"]), "at_most": st.integers(1, 6)}),
        st.fixed_dictionaries({"by": st.just("length"), "at_most": st.integers(1, 6), "edges": st.just([100, 200])}),
    ),
    max_size=2,
    unique_by=lambda each: str(each["by"]),
)
filters = st.fixed_dictionaries(
    {
        "require_correct": st.booleans(),
        "require_thinking": st.booleans(),
        "max_mean_entropy_nats": st.sampled_from([0.0, 0.85]),
        "drop_contaminated": st.booleans(),
        "drop_duplicates": st.booleans(),
        "drop_duplicate_problems": st.booleans(),
        "rules": st.lists(rules, max_size=2).map(
            lambda found: [{"name": f"rule_{n}", **rule} for n, rule in enumerate(found)]
        ),
        "max_per_problem": st.none() | st.integers(1, 4),
        "max_per_problem_by": st.sampled_from(["first", "shortest", "lowest_entropy", "most_diverse", "random"]),
        "balance": balances,
        "token_budget": st.none() | st.integers(1, 2000),
        "token_budget_by": st.sampled_from(BUDGET_BY),
        "seed": st.integers(0, 3),
    }
).map(Filter.model_validate)


@settings(max_examples=250, deadline=None)
@given(tables(), filters)
def test_every_trace_has_the_reason_that_it_has_by_hand(rows: list[Row], filter: Filter) -> None:
    expected, unmeasured = select_by_hand(rows, filter)
    found = select(table(rows), filter, 0)
    assert dict(zip(map(key_of, rows), words_of(found), strict=True)) == expected
    assert found.unmeasured == unmeasured


@settings(max_examples=60, deadline=None)
@given(tables(), filters, st.randoms(use_true_random=False), st.integers(1, 9))
def test_neither_the_order_of_the_rows_nor_their_blocks_decide(
    rows: list[Row], filter: Filter, chance: Any, size: int
) -> None:
    expected = dict(zip(map(key_of, rows), words_of(select(table(rows), filter, 0)), strict=True))
    chance.shuffle(rows)
    blocks = [table(rows[start : start + size]) for start in range(0, len(rows), size)]
    tags = pa.concat_tables(blocks) if blocks else table([])
    assert dict(zip(map(key_of, rows), words_of(select(tags, filter, 0)), strict=True)) == expected


@settings(max_examples=60, deadline=None)
@given(tables(), filters)
def test_the_funnel_adds_up_to_the_decisions(rows: list[Row], filter: Filter) -> None:
    tags = table(rows)
    selection = select(tags, filter, 0)
    funnel = funnel_of(tags, selection)
    counted = Counter(words_of(selection))
    assert funnel["sampled"] == len(rows) == funnel["kept"] + sum(funnel["dropped"].values())
    assert (funnel["kept"], funnel["dropped"]) == (counted.pop("kept", 0), dict(counted))
    assert list(funnel["dropped"].values()) == sorted(funnel["dropped"].values(), reverse=True)
    crossed = [each for by_bin in funnel["by_source_and_difficulty"].values() for each in by_bin.values()]
    for parts in (list(funnel["by_source"].values()), list(funnel["by_difficulty"].values()), crossed):
        for what in ("sampled", "kept"):
            assert funnel[what] == sum(each[what] for each in parts)
        for reason, count in funnel["dropped"].items():
            assert count == sum(each["dropped"].get(reason, 0) for each in parts) > 0
    of_cell = Counter((row["source"], word) for row, word in zip(rows, words_of(selection), strict=True))
    for (source, reason), count in of_cell.items():
        assert {**funnel["by_source"][source]["dropped"], "kept": funnel["by_source"][source]["kept"]}[reason] == count
    kept = {row["problem_id"] for row, keep in zip(rows, selection.kept, strict=True) if keep}
    problems = funnel["problems"]
    assert (problems["sampled"], problems["kept"]) == (len({row["problem_id"] for row in rows}), len(kept))
    for what in ("sampled", "kept"):
        assert problems[what] == sum(each[what] for each in problems["by_difficulty"].values())


# ---------------------------------------------------------------- the parts


def test_a_rule_has_the_first_word_and_gives_its_name() -> None:
    rows = [good("a", n_tokens=20_000, pii=["email"]), good("b", pii=["email"]), good("c", n_tokens=20_000), good("d")]
    rules = [
        {"name": "too_long", "drop": {"n_tokens": {"at_least": 16_000}}},
        {"name": "personal", "keep": {"pii": {"at_most": 0}}},
    ]
    assert reasons(rows, rules=rules) == ["too_long", "personal", "too_long", "kept"]
    assert reasons(rows, rules=rules[::-1]) == ["personal", "personal", "too_long", "kept"]
    assert reasons(rows, rules=[]) == ["kept"] * 4


def test_what_is_not_measured_is_kept_and_counted() -> None:
    rows = [
        good("a", mean_entropy_nats=None),
        good("b", mean_entropy_nats=float("nan")),
        good("c", mean_entropy_nats=0.9),
    ]
    rules = [{"name": "unsure", "keep": {"mean_entropy_nats": {"at_most": 0.5}}}]
    selection = select(table(rows), Filter.model_validate({"rules": rules}), 0)
    assert words_of(selection) == ["kept", "kept", "high_entropy"]
    assert selection.unmeasured == {"high_entropy": 2, "unsure": 2}
    assert funnel_of(table(rows), selection)["unmeasured"] == {"high_entropy": 2, "unsure": 2}


def test_tags_without_a_measure_count_every_trace_as_unmeasured() -> None:
    tags = table([good("a"), good("b")]).drop_columns(["contaminated_by", "duplicate_of", "mean_entropy_nats"])
    selection = select(tags, Filter(), 0)
    assert words_of(selection) == ["kept", "kept"]
    assert selection.unmeasured == {"high_entropy": 2, "contaminated": 2, "duplicate": 2}


@pytest.mark.parametrize(
    ("conditions", "words"),
    [
        ({"n_tokns": 3}, r'filter\.rules, "mine": no column n_tokns; did you mean n_tokens\? known: .*pass_rate'),
        ({"n_tokens": "3"}, "n_tokens = '3': the column holds other values; give a number"),
        ({"n_tokens": {"at_least": "a"}}, "give a number, or bounds"),
        ({"source": 3}, "source = 3: .*give a text"),
        ({"has_code": 1}, "has_code = 1: .*give true or false"),
        ({"n_tokens": True}, "give a number"),
        ({"pii": True}, "a text that is in the list, or bounds of its length"),
        ({"sketch": "x"}, "column sketch is a binary, which no rule can ask for"),
    ],
)
def test_a_rule_that_cannot_be_asked_is_refused(conditions: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        reasons([good()], rules=[{"name": "mine", "drop": conditions}])


@pytest.mark.parametrize(
    ("filter", "words"),
    [
        ({"rules": [{"name": "x"}]}, "neither drop and keep; give one"),
        ({"rules": [{"name": "x", "drop": {"a": 1}, "keep": {"a": 1}}]}, "both drop and keep"),
        ({"rules": [{"name": "truncated", "drop": {"a": 1}}]}, "a built-in rule has this name"),
        ({"rules": [{"name": "[red]", "drop": {"a": 1}}]}, "pattern"),
        ({"rules": [{"name": "x", "drop": {"a": 1}}] * 2}, '"x" is there twice'),
        ({"rules": [{"name": "x", "drop": {"a": {}}}]}, "has no bounds"),
        ({"rules": [{"name": "x", "drop": {"a": {"at_least": 2, "at_most": 1}}}]}, "nothing is between"),
        ({"rules": [{"name": "x", "drop": {"a": {"at_least": 2, "at_most": "z"}}}]}, "not of one type"),
        ({"balance": [{"by": "source"}]}, "give at_most, or shares"),
        ({"balance": [{"by": "source", "at_most": 1}] * 2}, '"source" is there twice'),
        ({"balance": [{"by": "source", "shares": {"a": 0.5}}]}, "1 in sum"),
        ({"balance": [{"by": "difficulty", "shares": {"hard": 1.0}}]}, "no such group by difficulty; known: 0, 0-0.25"),
        ({"balance": [{"by": "length", "shares": {"0-5": 1.0}}]}, "known: 0-1000, 1000-4000"),
        ({"balance": [{"by": "length", "at_most": 1, "edges": [5, 5]}]}, "each above the one before"),
        ({"balance": [{"by": "source", "at_most": 1, "edges": [5]}]}, "edges mean nothing"),
    ],
)
def test_settings_without_a_meaning_are_refused(filter: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        Filter.model_validate(filter)


def test_a_window_of_texts_takes_in_what_begins_with_its_last() -> None:
    rows = [good(name, thinking_language=name) for name in ("2024-12-31", "2025-01-31", "2025-02-01")]
    rule = {"name": "window", "keep": {"thinking_language": {"at_least": "2025-01", "at_most": "2025-01"}}}
    assert reasons(rows, rules=[rule]) == ["window", "kept", "window"]


def test_a_copy_is_kept_where_the_original_is_dropped() -> None:
    rows = [
        good("a", sample=0, outcome="incorrect"),
        good("a", sample=2, duplicate_of="a/0"),
        good("a", sample=1, duplicate_of="a/0"),
        good("b", sample=0),
        good("b", sample=1, duplicate_of="b/0"),
    ]
    assert reasons(rows) == ["incorrect", "duplicate", "kept", "kept", "duplicate"]
    assert reasons(rows, drop_duplicates=False).count("duplicate") == 0


def test_of_problems_that_are_alike_one_keeps_all_its_traces() -> None:
    rows = [good(name, sample=n, problem_duplicate_of="" if name == "a" else "a") for name in "abc" for n in (0, 1)]
    assert set(reasons(rows)) == {"kept"}  # they are reported, and not dropped unless it is asked for
    assert reasons(rows, drop_duplicate_problems=True) == ["kept"] * 2 + ["duplicate_problem"] * 4
    gone = [{**row, "outcome": "incorrect"} if row["problem_id"] == "a" else row for row in rows]
    assert reasons(gone, drop_duplicate_problems=True)[2:] == ["kept"] * 2 + ["duplicate_problem"] * 2


def test_the_most_diverse_of_a_problem_are_in_other_words() -> None:
    texts = [
        "add the two numbers and the sum is four " * 3,
        "add the two numbers and the sum is four " * 3 + "indeed",
        "by induction on the length of the list we find that nothing remains",
        "add the two numbers and the sum is four " * 3 + "yes",
        "draw a circle through all three points; its radius follows from the law of sines",
    ]
    rows = [good(sample=n, sketch=sketch_of(text)) for n, text in enumerate(texts)]
    found = reasons(rows, max_per_problem=3, max_per_problem_by="most_diverse")
    assert found == ["kept", "over_max_per_problem", "kept", "over_max_per_problem", "kept"]
    with pytest.raises(UserError, match="needs the column sketch"):
        select(
            table(rows).drop_columns(["sketch"]),
            Filter(max_per_problem=2, max_per_problem_by="most_diverse"),
            0,
        )


@pytest.mark.parametrize("shared", [0, 50, 90, 100])
def test_sketches_agree_as_much_as_the_texts_do(shared: int) -> None:
    ones = [f"w{n}" for n in range(102)]
    others = [*ones[: shared + 2], *(f"x{n}" for n in range(100 - shared))] if shared else [f"x{n}" for n in range(102)]
    a, b = ({" ".join(words[n : n + 3]) for n in range(100)} for words in (ones, others))
    jaccard = len(a & b) / len(a | b)
    one, other = sketch_of(" ".join(ones)), sketch_of(" ".join(others))
    agree = sum(x == y for x, y in zip(one, other, strict=True)) / SKETCH_BYTES
    assert agree == pytest.approx(jaccard, abs=4 * 0.0625)
    assert sketch_of("") == sketch_of("  ")
    assert len(sketch_of("")) == SKETCH_BYTES


def test_shares_are_exact_to_one_trace_and_keep_as_much_as_they_allow() -> None:
    counts = {"a": 100, "b": 30, "c": 7}
    rows = [good(f"{source}{n}", source=source) for source, count in counts.items() for n in range(count)]
    balance = [{"by": "source", "shares": {"a": 0.7, "b": 0.3}}]
    found = reasons(rows, balance=balance)
    kept = Counter(row["source"] for row, word in zip(rows, found, strict=True) if word == "kept")
    assert kept == {"a": 70, "b": 30}
    assert set(found) == {"kept", "balance_source"}
    with pytest.raises(UserError, match=r"no trace is left of d.*left are a \(100\), b \(30\), c \(7\)"):
        reasons(rows, balance=[{"by": "source", "shares": {"a": 0.5, "d": 0.5}}])


@settings(max_examples=60, deadline=None)
@given(
    st.dictionaries(st.sampled_from("abcd"), st.integers(1, 40), min_size=1), st.lists(st.integers(1, 9), min_size=4)
)
def test_the_shares_of_the_kept_are_the_wanted_ones(counts: dict[str, int], weights: list[int]) -> None:
    rows = [good(f"{source}{n}", source=source) for source, count in counts.items() for n in range(count)]
    whole = sum(weights[: len(counts)])
    shares = {source: weight / whole for source, weight in zip(counts, weights, strict=False)}
    found = reasons(rows, balance=[{"by": "source", "shares": shares}])
    kept = Counter(row["source"] for row, word in zip(rows, found, strict=True) if word == "kept")
    total = min(counts[source] / shares[source] for source in counts)
    for source, share in shares.items():
        assert abs(kept[source] - share * total) <= 0.5 + 1e-9
    assert any(kept[source] == counts[source] for source in counts)


def test_each_difficulty_and_length_has_its_own_cap() -> None:
    rates = [0.0, 0.1, 0.25, 0.3, 0.5, 0.75, 0.76, 0.99, 1.0]
    rows = [good(f"{n}", pass_rate=rate) for n, rate in enumerate(rates)]
    kept = reasons(rows, balance=[{"by": "difficulty", "at_most": 1}])
    of_bins = [[0], [1, 2], [3, 4], [5], [6, 7], [8]]
    assert len(of_bins) == len(DIFFICULTIES)
    for places in of_bins:
        assert sorted(kept[place] == "kept" for place in places) == [*([False] * (len(places) - 1)), True]
    rows = [good(str(n), n_tokens=n) for n in (0, 999, 1000, 3999, 4000, 16_000, 99_999)]
    kept = reasons(rows, balance=[{"by": "length", "at_most": 1}])
    for first, last in ((0, 2), (2, 4), (4, 5), (5, 7)):
        assert kept[first:last].count("kept") == 1


@settings(max_examples=80, deadline=None)
@given(st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 50)), min_size=1, max_size=40), st.integers(1, 900))
def test_a_budget_is_the_longest_prefix_and_a_larger_one_keeps_it(rows_of: list[tuple[str, int]], budget: int) -> None:
    rows = [good(str(n), source=source, n_tokens=tokens) for n, (source, tokens) in enumerate(rows_of)]
    small, large = (reasons(rows, token_budget=tokens) for tokens in (budget, budget + 100))
    spent = sum(row["n_tokens"] for row, word in zip(rows, small, strict=True) if word == "kept")
    left = [row["n_tokens"] for row, word in zip(rows, small, strict=True) if word != "kept"]
    assert spent <= budget
    assert not left or spent + max(left) > budget  # the next one, whichever it is, is no longer than the longest
    assert all(after == "kept" for before, after in zip(small, large, strict=True) if before == "kept")


def test_a_budget_is_spread_over_the_sources() -> None:
    rows = [good(f"{n}", source="a" if n % 4 else "b") for n in range(400)]
    found = reasons(rows, token_budget=100 * 100)
    kept = Counter(row["source"] for row, word in zip(rows, found, strict=True) if word == "kept")
    assert kept == {"a": 75, "b": 25}
    with pytest.raises(UserError, match="the tokens of 1 of the 2 traces were not counted"):
        reasons([good("a"), good("b", n_tokens=None)], token_budget=5)


entropies = st.none() | st.sampled_from([0.0, 0.1, 0.4, 0.8])


@settings(max_examples=120, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from("ab"), st.integers(1, 50), entropies), min_size=1, max_size=30),
    st.sampled_from(BUDGET_BY),
    st.integers(1, 900),
    st.randoms(use_true_random=False),
)
def test_a_budget_in_an_order_is_a_prefix_of_it_in_each_source(
    rows_of: list[tuple[str, int, float | None]], by: str, budget: int, chance: Any
) -> None:
    rows = [
        good(str(n), source=source, n_tokens=tokens, mean_entropy_nats=entropy)
        for n, (source, tokens, entropy) in enumerate(rows_of)
    ]
    options: dict[str, Any] = {"token_budget_by": by, "max_mean_entropy_nats": 0.0}
    kept, more = (words_by_key(rows, token_budget=tokens, **options) for tokens in (budget, budget + 100))
    assert sum(row["n_tokens"] for row in rows if kept[key_of(row)] == "kept") <= budget
    assert all(more[key] == "kept" for key, word in kept.items() if word == "kept")
    shuffled = rows.copy()
    chance.shuffle(shuffled)
    assert words_by_key(shuffled, token_budget=budget, **options) == kept
    for source in "ab" if by != "random" else "":
        its = [row for row in rows if row["source"] == source]
        taken, left = ([row for row in its if (kept[key_of(row)] == "kept") == is_kept] for is_kept in (True, False))
        for first in taken:
            for later in left:
                assert value_by(first, by) <= value_by(later, by)


def words_by_key(rows: list[Row], **filter: Any) -> dict[tuple[str, int], str]:
    return dict(zip(map(key_of, rows), reasons(rows, **filter), strict=True))


def value_by(row: Row, by: str) -> float:
    value = row["n_tokens"] if by == "shortest" else row["mean_entropy_nats"]
    return float("inf") if value is None else -value if by == "highest_entropy" else value


def test_equal_values_are_drawn_and_another_seed_draws_others() -> None:
    rows = [good(str(n), mean_entropy_nats=0.1 if n < 50 else 0.2) for n in range(100)]
    found = [reasons(rows, token_budget=2500, token_budget_by="lowest_entropy", seed=seed) for seed in (0, 0, 1)]
    assert found[0] == found[1] != found[2]
    for words in found:
        assert (words[:50].count("kept"), words[50:].count("kept")) == (25, 0)


def test_what_is_drawn_follows_from_the_seed_and_is_even() -> None:
    keys = keys_of(table([good(str(n), sample=sample) for n in range(2_000) for sample in range(5)]))
    one, again, other = (draws(keys, seed, "x") for seed in (1, 1, 2))
    assert (one == again).all()
    assert (one == other).mean() == (one == draws(keys, 1, "y")).mean() == 0
    assert len(set(one.tolist())) == len(one)
    counts = np.bincount((one >> np.uint64(60)).astype(int), minlength=16)
    assert counts == pytest.approx([625] * 16, abs=5 * 25)
    rows = [good("p", sample=sample) for sample in range(60)]
    of_seeds = [reasons(rows, max_per_problem=30, max_per_problem_by="random", seed=seed) for seed in range(3)]
    assert len({tuple(found) for found in of_seeds}) == 3
    assert of_seeds[0] == reasons(rows, max_per_problem=30, max_per_problem_by="random")  # the recipe's seed is 0


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3), st.floats(0, 1)), max_size=30))
def test_ranks_within_groups_are_those_of_sorting(rows: list[tuple[int, int, float]]) -> None:
    columns = [np.array(column) for column in zip(*rows, strict=True)] or [np.zeros(0, dtype=np.int64)] * 3
    found = rank_within(columns[0], [columns[1], columns[2], np.arange(len(rows))])
    for n, (group, *rest) in enumerate(rows):
        before = [m for m, (other, *its) in enumerate(rows) if other == group and (its, m) < (rest, n)]
        assert found[n] == len(before)


def test_a_trace_that_is_there_twice_is_refused() -> None:
    with pytest.raises(UserError, match="trace p/3 is there twice"):
        reasons([good(sample=3), good("q"), good(sample=3)])


def test_problems_that_are_alike_are_on_one_side_of_the_split() -> None:
    rows = [good(str(n), problem_duplicate_of=str(n - n % 3) if n % 3 else "") for n in range(300)]
    held_out = is_validation(table(rows), 0.3).tolist()
    assert held_out == [share_of(str(n - n % 3)) < 0.3 for n in range(300)]
    assert is_validation(table(rows).drop_columns(["problem_duplicate_of"]), 0.3).tolist() == [
        share_of(str(n)) < 0.3 for n in range(300)
    ]


# ---------------------------------------------------------------- hard problems


def test_a_person_is_warned_when_hard_problems_are_lost() -> None:
    rows = [
        good(f"{rate}-{n}", sample=sample, pass_rate=rate, outcome="correct" if sample < 4 * rate else "incorrect")
        for rate, count in ((0.0, 30), (0.25, 20), (0.75, 30), (1.0, 20))
        for n in range(count)
        for sample in range(4)
    ]
    tags = table(rows)
    funnel = funnel_of(tags, select(tags, Filter(), 0))
    assert funnel["problems"]["by_difficulty"] == {
        "0": {"sampled": 30, "kept": 0}, "0-0.25": {"sampled": 20, "kept": 20},
        "0.5-0.75": {"sampled": 30, "kept": 30}, "1": {"sampled": 20, "kept": 20},
    }  # fmt: skip
    (warning,) = funnel["warnings"]
    assert "are 50.0% of the 100 problems sampled and 28.6% of the 70 kept" in warning
    assert "0: 30.0% → 0.0%, 0-0.25: 20.0% → 28.6%" in warning
    everything = select(tags, Filter(require_correct=False), 0)
    assert funnel_of(tags, everything)["warnings"] == []
    assert funnel_of(tags, everything)["by_difficulty"]["0"] == {"sampled": 120, "kept": 120, "dropped": {}}


# ---------------------------------------------------------------- files


def test_the_same_tags_make_the_same_bytes(tmp_path: Path) -> None:
    rows = [good(f"{n % 50:02}", sample=n // 50, n_tokens=n) for n in range(500)]
    filter = Filter(max_per_problem=3, max_per_problem_by="random", token_budget=20_000)
    files = []
    for name, size in (("one", 500), ("blocks", 7)):
        pq.write_table(table(rows), tmp_path / f"{name}.parquet", row_group_size=size)
        tags = read_tags(tmp_path / f"{name}.parquet", filter)
        selection = select(tags, filter, 0)
        write_decisions(tmp_path / f"decisions-{name}.parquet", tags, selection)
        files.append((tmp_path / f"decisions-{name}.parquet").read_bytes())
    assert files[0] == files[1]
    decisions = list(read_records(tmp_path / "decisions-one.parquet", Decision))
    assert [(each.problem_id, each.sample) for each in decisions] == [key_of(row) for row in rows]
    assert {each.reason for each in decisions if not each.keep} == {"over_max_per_problem", "over_token_budget"}
    assert all(each.keep == (each.reason == "kept") for each in decisions)


def test_only_the_columns_that_are_asked_for_are_read(tmp_path: Path) -> None:
    path = tmp_path / "tags.parquet"
    pq.write_table(table([good()]), path)
    assert not {"pii", "has_code", "sketch"} & set(read_tags(path, Filter()).column_names)
    asked = Filter.model_validate({"rules": [{"name": "x", "drop": {"pii": "email"}}]})
    assert "pii" in read_tags(path, asked).column_names
    misspelt = Filter.model_validate({"rules": [{"name": "x", "drop": {"has_cod": True}}]})
    with pytest.raises(UserError, match="did you mean has_code"):
        select(read_tags(path, misspelt), misspelt, 0)
    path.write_bytes(b"PAR1")
    with pytest.raises(UserError, match=r"cannot be read.*delete it and run `r1distill filter` again"):
        read_tags(path, Filter())


def test_an_empty_table_is_selected_and_written(tmp_path: Path) -> None:
    tags = table([])
    filter = Filter(max_per_problem=1, max_per_problem_by="most_diverse", token_budget=1)
    selection = select(tags, filter, 0)
    write_decisions(tmp_path / "decisions.parquet", tags, selection)
    assert list(read_records(tmp_path / "decisions.parquet", Decision)) == []
    assert funnel_of(tags, selection)["sampled"] == 0


def test_rules_and_balance_are_written_in_a_recipe(tmp_path: Path) -> None:
    path = recipe_file(tmp_path)
    text = path.read_text(encoding="utf-8")
    path.write_text(
        f"""{text}
[[filter.rules]]
name = "too_long"
drop = {{ n_tokens = {{ at_least = 16000 }} }}
[[filter.balance]]
by = "source"
shares = {{ gsm8k = 0.25, math = 0.75 }}
""",
        encoding="utf-8",
    )
    filter = load_recipe(path).filter
    assert Filter.model_validate(filter.model_dump()) == filter  # as recipe.json has it
    assert reasons([good(n_tokens=16_000)], rules=[filter.rules[0].model_dump()]) == ["too_long"]
