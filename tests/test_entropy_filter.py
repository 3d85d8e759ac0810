"""The teacher-entropy filter: what the bounds decide, and what they leave open."""

import math
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from r1distill.filter.entropy_filter import (
    decide,
    entropy_words,
    filter_of,
    large_bins,
    length_bins,
    percentile_bounds,
    z_scores,
)
from r1distill.filter_sections import EntropyFilter

NAN = math.nan
# bounds of a mean: (lower, width), either of which may be unknown
bounds = st.lists(
    st.tuples(st.one_of(st.just(NAN), st.floats(0, 3)), st.one_of(st.just(NAN), st.floats(0, 1))),
    min_size=1,
    max_size=30,
)
two_sided = EntropyFilter(mode="two_sided", min_nats=0.1)


def words(rows: list[tuple[float, float]], settings: EntropyFilter, bins: Any = None) -> list[str]:
    lower, upper = np.array(rows, dtype=float).reshape(-1, 2).T
    return decide(lower, upper, settings, bins).tolist()


def table(lower: list[float], upper: list[float], **columns: Any) -> pa.Table:
    n = len(lower)
    plain = {"source": ["a"] * n, "n_tokens": [100] * n}
    return pa.table({"mean_entropy_nats": lower, "mean_entropy_upper_nats": upper, **plain, **columns})


@pytest.mark.parametrize(
    ("lower", "upper", "word"),
    [
        (0.3, 0.4, "kept"),
        (0.85, 0.85, "kept"),  # the limit itself is allowed
        (0.86, 0.9, "high_entropy"),
        (0.8, 0.9, "undecided"),
        (0.05, 0.09, "low_entropy"),
        (0.05, 0.2, "undecided"),
        (0.05, 0.9, "undecided"),
        (0.5, NAN, "undecided"),  # a backend that does not know its vocabulary gives no upper bound
        (0.9, NAN, "high_entropy"),
        (NAN, NAN, "unmeasured"),
    ],
)
def test_a_trace_is_dropped_only_where_its_bounds_are_sure(lower, upper, word):
    assert words([(lower, upper)], two_sided) == [word]


@settings(deadline=None)
@given(bounds, st.floats(0.01, 2.5))
def test_the_words_are_those_of_every_truth_between_the_bounds(rows, limit):
    given_bounds = [(lower, lower + width) for lower, width in rows]
    found = words(given_bounds, EntropyFilter(max_nats=limit))
    for (lower, upper), word in zip(given_bounds, found, strict=True):
        truths = [lower, (lower + upper) / 2, upper] if not math.isnan(upper) else [lower, lower + 9]
        over = {truth > limit for truth in truths}
        if math.isnan(lower):
            assert word == "unmeasured"
        elif word == "undecided":
            assert len(over) == 2
        else:
            assert over == {word == "high_entropy"}


@settings(deadline=None)
@given(bounds, st.floats(1, 99))
def test_a_percentile_drops_nothing_that_some_truth_between_the_bounds_would_keep(rows, percentile):
    lower = np.array([row[0] for row in rows])
    width = np.array([0.0 if math.isnan(row[1]) else row[1] for row in rows])
    found = decide(lower, lower + width, EntropyFilter(mode="percentile", max_percentile=percentile), None)
    known = ~np.isnan(lower)
    n = int(known.sum())
    for share in np.random.default_rng(0).random((20, len(lower))):
        truth = lower + share * width
        if n:
            limit = sorted(truth[known])[max(math.ceil(percentile * n / 100), 1) - 1]
            assert (truth[found == "high_entropy"] > limit).all()
            assert (truth[found == "kept"] <= limit + 1e-12).all()
    assert ((found == "unmeasured") == ~known).all()


def test_of_exact_entropies_a_percentile_leaves_nothing_open():
    values = np.random.default_rng(1).permutation(100) / 100
    settings = EntropyFilter(mode="percentile", max_percentile=95, min_percentile=10)
    found = decide(values, values, settings, None)
    assert sorted(values[found == "high_entropy"]) == [0.95, 0.96, 0.97, 0.98, 0.99]
    assert sorted(values[found == "low_entropy"]) == [n / 100 for n in range(9)]  # 0.09 is the tenth, and the limit
    assert (found == "kept").sum() == 86


@settings(deadline=None)
@given(st.lists(st.floats(0, 3), min_size=1, max_size=30), st.floats(0.1, 2), st.floats(0, 1))
def test_a_higher_limit_drops_no_more(values, limit, more):
    exact = np.array(values)
    strict = decide(exact, exact, EntropyFilter(max_nats=limit), None) == "high_entropy"
    loose = decide(exact, exact, EntropyFilter(max_nats=limit + more), None) == "high_entropy"
    assert not (loose & ~strict).any()


@settings(deadline=None)
@given(st.lists(st.tuples(st.floats(0, 3), st.sampled_from([0, 1, 2])), min_size=1, max_size=30), st.randoms())
def test_the_order_of_the_traces_changes_no_word(rows, draw):
    order = list(range(len(rows)))
    draw.shuffle(order)
    values, bins = np.array([row[0] for row in rows]), np.array([row[1] for row in rows])
    for asked in (EntropyFilter(mode="percentile", max_percentile=60), EntropyFilter(mode="z_score", max_z=1.0)):
        found = decide(values, values, asked, bins)
        # a z-score at its very limit may turn by the rounding of a sum
        sure = np.abs(z_scores(values, bins) - 1.0) > 1e-9
        again = decide(values[order], values[order], asked, bins[order])
        assert (found[order] == again)[sure[order]].all()


def test_z_scores_are_within_the_bin():
    values = np.array([1.0, 2.0, 3.0, 10.0, 20.0, NAN, 5.0, 5.0])
    bins = np.array([0, 0, 0, 1, 1, 1, 2, 2])
    expected = [-math.sqrt(1.5), 0, math.sqrt(1.5), -1, 1, NAN, 0, 0]
    np.testing.assert_allclose(z_scores(values, bins), expected, atol=1e-12)
    assert words([(0.1, 0.1)] * 50 + [(9.0, 9.5)], EntropyFilter(mode="z_score"))[-1] == "high_entropy"


def test_equal_entropies_have_no_outliers():
    for asked in (EntropyFilter(mode="z_score"), EntropyFilter(mode="percentile", max_percentile=50)):
        assert set(words([(0.1 + 0.2, 0.1 + 0.2)] * 7, asked)) == {"kept"}


def test_bins_are_of_one_source_and_of_lengths_less_than_twice_each_other():
    source = ["a", "a", "a", "b", None, "a"]
    found = length_bins(source, np.array([1024, 2047, 2048, 2047, 2047, NAN]))
    assert found[0] == found[1]
    assert len(set(found.tolist())) == 5


def test_small_bins_are_compared_with_the_whole_run():
    bins = np.array([0] * 10 + [1])
    values = np.array([0.1] * 10 + [2.0])
    assert large_bins(bins, np.ones(11, bool), 2).tolist() == [0] * 10 + [-1]
    alone = z_scores(values, bins)[-1], z_scores(values, large_bins(bins, np.ones(11, bool), 2))[-1]
    assert alone[0] == 0
    assert alone[1] == pytest.approx((2.0 - values.mean()) / values.std())
    least, most = percentile_bounds(values, values, 50, large_bins(bins, np.ones(11, bool), 2))
    assert least.tolist() == most.tolist() == [0.1] * 11


def test_the_scope_chooses_the_columns():
    none = pa.array([None, None], pa.float64())
    tags = table(
        [0.1, 0.1], [0.1, 0.1],
        thinking_mean_entropy_nats=[0.9, 0.1], thinking_mean_entropy_upper_nats=[0.9, None],
        answer_mean_entropy_nats=none, answer_mean_entropy_upper_nats=none,
    )  # fmt: skip
    assert entropy_words(tags, EntropyFilter()).tolist() == ["kept", "kept"]
    assert entropy_words(tags, EntropyFilter(scope="thinking")).tolist() == ["high_entropy", "undecided"]
    assert entropy_words(tags, EntropyFilter(scope="answer")).tolist() == ["unmeasured", "unmeasured"]


def test_what_is_undecided_is_open_until_it_is_scored_or_estimated():
    tags = table([0.8, 0.8, 0.9], [0.9, 0.9, 1.0])
    assert entropy_words(tags, EntropyFilter()).tolist() == ["undecided", "undecided", "high_entropy"]
    exact = np.array([0.86, 0.84, NAN])
    assert entropy_words(tags, EntropyFilter(), exact).tolist() == ["high_entropy", "kept", "high_entropy"]
    by_lower = EntropyFilter(undecided="lower_bound")
    assert entropy_words(tags, by_lower).tolist() == ["kept", "kept", "high_entropy"]


def test_bins_of_a_table_are_by_source_and_length():
    # 40 traces of one source are much surer than 40 of the other, and one of each is its own outlier
    low = [0.1] * 39 + [0.3]
    high = [1.0] * 39 + [1.2]
    tags = table(low + high, low + high, source=["a"] * 40 + ["b"] * 40)
    of_bin = entropy_words(tags, EntropyFilter(mode="percentile", max_percentile=97.5))
    assert np.flatnonzero(of_bin == "high_entropy").tolist() == [39, 79]
    of_run = entropy_words(tags, EntropyFilter(mode="percentile", max_percentile=97.5, within="run"))
    assert np.flatnonzero(of_run == "high_entropy").tolist() == [79]


@pytest.mark.parametrize("mode", ["absolute", "two_sided", "percentile", "z_score"])
def test_an_empty_run_has_no_words(mode):
    extra: dict[str, Any] = {"min_nats": 0.1} if mode == "two_sided" else {}
    tags = table([], []).cast(
        pa.schema([(name, pa.float64()) for name in ("mean_entropy_nats", "mean_entropy_upper_nats")]
                  + [("source", pa.string()), ("n_tokens", pa.int64())])
    )  # fmt: skip
    assert entropy_words(tags, EntropyFilter(mode=mode, **extra)).tolist() == []


def test_the_old_key_is_the_mode_absolute():
    assert filter_of(0.7, None) == EntropyFilter(max_nats=0.7)
    assert filter_of(0.0, None) is None
    assert filter_of(0.85, two_sided) is two_sided


@pytest.mark.parametrize(
    ("settings", "word"),
    [
        ({"max_z": 2.0}, "max_z"),
        ({"mode": "z_score", "undecided": "rescore"}, "undecided"),
        ({"mode": "two_sided"}, "min_nats"),
        ({"mode": "two_sided", "min_nats": 0.9}, "below"),
        ({"mode": "percentile", "min_percentile": 95.0}, "min_percentile"),
    ],
)
def test_a_key_that_would_not_be_read_is_refused(settings, word):
    with pytest.raises(ValidationError, match=word):
        EntropyFilter(**settings)
