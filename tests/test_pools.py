"""Pools of the kept traces, and the curriculum that draws from them."""

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from r1distill.errors import UserError
from r1distill.filter.pools import POOLS, by_percentile, pools_column
from r1distill.filter_sections import Pools
from r1distill.train.curriculum import plan_of
from r1distill.train_sections import Curriculum, Phase

Row = tuple[str, int | None, float | None, float | None, int | None]  # problem, cluster, quality, pass rate, tokens
NO_CURRICULUM = None
rows = st.lists(
    st.tuples(
        st.sampled_from("abcdef"), st.sampled_from([None, -1, 0, 1]), st.sampled_from([None, 0.1, 0.5, 0.9]),
        st.sampled_from([None, 0.0, 0.5, 0.75, 1.0]), st.sampled_from([None, 10, 100, 1000]),
    ),
    min_size=1, max_size=40,
)  # fmt: skip


def tags(table: list[Row], source: list[str] | None = None) -> pa.Table:
    problem, cluster, quality, pass_rate, n_tokens = (list(column) for column in zip(*table, strict=True))
    return pa.table(
        {
            "problem_id": pa.array(problem).dictionary_encode(),  # as read_tags has it
            "sample": list(range(len(table))),
            "cluster": pa.array(cluster, pa.int64()),
            "quality": pa.array(quality, pa.float64()),
            "pass_rate": pa.array(pass_rate, pa.float64()),
            "n_tokens": pa.array(n_tokens, pa.int64()),
            "source": source or ["a"] * len(table),
        }
    )


def pools(table: list[Row], settings: Pools, curriculum: Curriculum | None = None, **more: Any) -> list[list[str]]:
    kept = np.ones(len(table), dtype=bool)
    return pools_column(tags(table, **more), kept, settings, "source", curriculum).to_pylist()


def test_each_pool_has_its_own():
    table: list[Row] = [
        ("a", 0, 0.9, 1.0, 10),  # the best of a dense region, of high quality
        ("b", 0, 0.2, 1.0, 10),
        ("c", -1, 0.3, 1.0, 10),  # alone in its place
        ("c", -1, 0.25, 1.0, 10),
        ("d", 0, 0.1, 0.25, 10),  # seldom solved
        ("e", 0, 0.8, 1.0, 900),  # long
    ]
    found = pools(table, Pools(min_quality_percentile=60))
    assert found == [["diverse", "quality"], ["rest"], ["diverse", "quality"], ["rest"], ["hard"], ["quality", "hard"]]


def test_rare_categories_can_be_the_diverse_ones():
    table: list[Row] = [("a", None, None, None, None)] * 6
    source = ["x"] * 4 + ["y"] * 2
    found = pools(table, Pools(diverse="category"), source=source)
    assert found == [["rest"]] * 4 + [["diverse"]] * 2
    assert pools(table, Pools(diverse="category")) == [["diverse"]] * 6  # one category is its own even share


def test_what_would_never_be_read_is_where_it_is_nearest():
    table: list[Row] = [
        ("a", -1, 0.9, 1.0, 100),
        ("a", -1, 0.8, 1.0, 100),
        ("a", -1, 0.1, 0.6, 10),  # a pass rate of 0.6 is nearly 0.5
        ("a", -1, 0.7, 1.0, 10),  # quality 2/3 of the way, 1/3 or less for the others
    ]
    settings = Pools(max_pass_rate=0.5, min_quality_percentile=75, min_length_percentile=100)
    found = pools(table, settings, Curriculum())
    assert found == [["diverse", "quality", "hard"], ["quality", "hard"], ["hard"], ["quality"]]
    # 1/3 of the way to quality, and the fourth of its problem
    without_hard = Curriculum(phases=[Phase(until=1.0, mix={"diverse": 0.5, "quality": 0.5})])
    assert pools(table, settings, without_hard)[2] == ["quality"]
    with_rest = Curriculum(phases=[Phase(until=1.0, mix={"quality": 0.5, "rest": 0.5})])
    assert pools(table, settings, with_rest)[2:] == [["rest"], ["rest"]]


def test_a_curriculum_of_other_pools_is_refused():
    other = Curriculum(phases=[Phase(until=1.0, mix={"easy": 1.0})])
    with pytest.raises(UserError, match=r'"easy".*diverse, quality, hard and rest'):
        pools([("a", 0, 0.5, 0.5, 10)], Pools(), other)


@settings(deadline=None, max_examples=50)
@given(rows, st.sampled_from(["cluster", "category"]))
def test_the_curriculum_reads_every_kept_trace(table, diverse):
    kept = np.arange(len(table)) % 3 != 1
    found = pools_column(tags(table), kept, Pools(diverse=diverse), "source", Curriculum()).to_pylist()
    assert [bool(its) for its in found] == kept.tolist()
    assert {name for its in found for name in its} <= set(POOLS)


@settings(deadline=None, max_examples=50)
@given(rows)
def test_no_measured_pool_is_empty_and_a_curriculum_can_be_planned(table):
    measured = [(problem, cluster, q or 0.0, 0.0 if r is None else r, n or 1) for problem, cluster, q, r, n in table]
    found = pools(measured, Pools(), Curriculum())
    plan = plan_of(Curriculum(), found, lambda n_usable: 10 * n_usable + 20, seed=0)
    assert set(plan.examples.tolist()) == set(range(len(table)))
    for example, pool in zip(plan.examples, plan.pool, strict=True):
        assert plan.names[pool] in found[example]
    assert {"diverse", "quality", "hard"} == set(plan.names)
    first = plan.phase == 0
    n = int(first.sum())
    assert abs(int((plan.pool[first] == plan.names.index("diverse")).sum()) - 0.7 * n) < 1


@settings(deadline=None, max_examples=50)
@given(rows, st.randoms())
def test_the_order_of_the_traces_changes_no_pool(table, draw):
    whole = tags(table)
    kept = np.ones(len(table), dtype=bool)
    order = list(range(len(table)))
    draw.shuffle(order)
    found = pools_column(whole, kept, Pools(), "source", Curriculum()).to_pylist()
    again = pools_column(whole.take(pa.array(order)), kept, Pools(), "source", Curriculum()).to_pylist()
    assert [found[index] for index in order] == again


def test_nothing_kept_is_in_no_pool():
    table: list[Row] = [("a", 0, 0.5, 0.5, 10)] * 3
    found = pools_column(tags(table), np.zeros(3, dtype=bool), Pools(), "source", Curriculum())
    assert found.to_pylist() == [[], [], []]
    assert pools_column(tags(table).slice(0, 0), np.zeros(0, dtype=bool), Pools(), "source", None).to_pylist() == []


def test_of_what_nothing_was_measured_the_best_of_each_problem_is_diverse_and_the_others_with_it():
    table: list[Row] = [("a", None, None, None, None), ("a", None, None, None, None), ("b", None, None, None, None)]
    assert pools(table, Pools(), Curriculum()) == [["diverse"]] * 3
    assert pools(table, Pools(), None) == [["diverse"], ["rest"], ["diverse"]]


def test_ranks_are_shares_of_the_limits():
    values = np.array([1.0, 2.0, 3.0, 4.0, np.nan])
    np.testing.assert_allclose(by_percentile(values, 75), [1 / 3, 2 / 3, 1, 1, np.nan])
    np.testing.assert_allclose(by_percentile(np.array([5.0, 5.0]), 90), [1, 1])
    np.testing.assert_allclose(by_percentile(values, 0), [1, 1, 1, 1, np.nan])
    assert np.isnan(by_percentile(np.array([np.nan]), 50)).all()
