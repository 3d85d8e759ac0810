"""The quality score and its terms, against slow ones written out."""

import math
from collections import Counter
from datetime import date
from typing import Any, get_args

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from r1distill.filter.quality import (
    category_entropy,
    completeness,
    consistency,
    days_of,
    diversity,
    freshness,
    quality_columns,
    weighted_mean,
)
from r1distill.filter_sections import WEIGHT_SETS, Quality, Term

NAN = math.nan
TERMS = get_args(Term)
scores = st.one_of(st.just(NAN), st.floats(0, 1))
rows_of_terms = st.lists(st.tuples(scores, scores, scores, scores), min_size=1, max_size=20)
weight_sets = st.lists(st.floats(0, 5), min_size=4, max_size=4).filter(lambda weights: sum(weights) > 0.01)
categories = st.lists(st.one_of(st.none(), st.sampled_from(["a", "b", "c", "d", ""])), max_size=40)


def as_terms(rows: list[tuple[float, ...]]) -> dict[Term, Any]:
    return {name: np.array([row[index] for row in rows], dtype=float) for index, name in enumerate(TERMS)}


def tags(n: int = 1, **columns: Any) -> pa.Table:
    plain: dict[str, Any] = {
        "finish_reason": ["stop"] * n,
        "format": ["ok"] * n,
        "outcome": ["correct"] * n,
        "n_answer_characters": [10] * n,
        "n_samples": [4] * n,
        "consistency": [0.5] * n,
        "source": ["a"] * n,
    }
    return pa.table({**plain, **columns})


@settings(deadline=None)
@given(rows_of_terms, weight_sets)
def test_the_score_is_the_weighted_mean_of_the_known_terms(rows, weights):
    found = weighted_mean(as_terms(rows), dict(zip(TERMS, weights, strict=True)))
    for row, score in zip(rows, found, strict=True):
        known = [
            (weight, value) for weight, value in zip(weights, row, strict=True) if not math.isnan(value) and weight
        ]
        if not known:
            assert math.isnan(score)
            continue
        total = sum(weight for weight, _ in known)
        assert score == pytest.approx(sum(weight / total * value for weight, value in known), abs=1e-12)
        assert 0 <= score <= 1


@settings(deadline=None)
@given(rows_of_terms, weight_sets)
def test_the_weights_that_are_left_sum_to_one(rows, weights):
    """Ones in place of the known terms: what comes out is the sum of the weights."""
    ones = [tuple(value * 0 + 1 for value in row) for row in rows]
    found = weighted_mean(as_terms(ones), dict(zip(TERMS, weights, strict=True)))
    np.testing.assert_allclose(found[~np.isnan(found)], 1.0, atol=1e-12)


@settings(deadline=None)
@given(rows_of_terms, weight_sets, st.sampled_from(TERMS), st.floats(0, 1))
def test_no_score_falls_where_a_term_rises(rows, weights, name, by):
    terms = as_terms(rows)
    shares = dict(zip(TERMS, weights, strict=True))
    before = weighted_mean(terms, shares)
    after = weighted_mean({**terms, name: np.minimum(terms[name] + by, 1)}, shares)
    assert (np.isnan(before) == np.isnan(after)).all()
    assert (after[~np.isnan(after)] >= before[~np.isnan(before)] - 1e-12).all()


def test_the_presets_are_those_of_the_articles():
    terms = as_terms([(0.9, 0.5, 0.25, 0.1)])
    [three] = weighted_mean(terms, Quality(weights="three_terms").shares)
    [four] = weighted_mean(terms, Quality().shares)
    assert three == pytest.approx(0.4 * 0.9 + 0.35 * 0.1 + 0.25 * 0.25)
    assert four == pytest.approx(0.3 * 0.9 + 0.25 * 0.5 + 0.25 * 0.25 + 0.2 * 0.1)
    assert [sum(weights.values()) for weights in WEIGHT_SETS.values()] == [pytest.approx(1)] * 2


def test_freshness_falls_to_a_share_of_e_after_tau():
    found = freshness(["2025-01-01", "2024-12-31", "2024-01-02", "2026-01-01", "", "soon"], "2025-01-01", 365)
    expected = [1, math.exp(-1 / 365), math.exp(-1), 1, NAN, NAN]
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_without_a_reference_the_newest_problem_is_fresh():
    assert freshness(["2024-01-01", "2024-01-31"], None, 30).tolist() == [math.exp(-1), 1]
    assert np.isnan(freshness(["", ""], None, 30)).all()
    assert np.isnan(freshness(["", ""], "2025-01-01", 30)).all()
    assert freshness([], None, 30).tolist() == []


@pytest.mark.parametrize(
    ("text", "day"),
    [
        ("2024", date(2024, 1, 1)),
        ("2024-08", date(2024, 8, 1)),
        ("2024-08-09", date(2024, 8, 9)),
        ("2024-08-09T12:00:00", date(2024, 8, 9)),
        ("2024-13", None),
        ("08/2024", None),
        ("", None),
    ],
)
def test_a_month_or_a_year_is_its_first_day(text, day):
    [found] = days_of([text])
    assert math.isnan(found) if day is None else found == day.toordinal()


@settings(deadline=None)
@given(st.lists(st.dates(date(2000, 1, 1), date(2030, 1, 1)), min_size=1, max_size=20), st.floats(1, 5000))
def test_an_older_problem_is_no_fresher(days, tau):
    days = sorted(days)
    found = freshness([day.isoformat() for day in days], "2020-01-01", tau)
    assert (np.diff(found) >= 0).all()
    assert ((found >= 0) & (found <= 1)).all()


@pytest.mark.parametrize(
    ("changed", "share"),
    [
        ({}, 1),
        ({"finish_reason": ["length"]}, 2 / 3),
        ({"format": ["no_thinking"]}, 2 / 3),
        ({"outcome": ["no_answer"]}, 2 / 3),
        ({"n_answer_characters": [0]}, 2 / 3),
        ({"finish_reason": ["length"], "format": ["unclosed"], "n_answer_characters": [0]}, 0),
        ({"format": pa.array([None], pa.string())}, 1),  # two of two
        ({"format": pa.array([None], pa.string()), "finish_reason": ["length"]}, 1 / 2),
    ],
)
def test_completeness_is_the_share_of_known_checks_that_pass(changed, share):
    assert completeness(tags(**changed)).tolist() == [pytest.approx(share)]


def test_a_reply_without_thinking_is_complete_where_none_is_asked_for():
    row = tags(format=["no_thinking"])
    assert completeness(row, require_thinking=False).tolist() == [1]


def test_where_nothing_is_known_nothing_is_complete_or_not():
    unknown = {name: pa.array([None], pa.string()) for name in ("finish_reason", "format", "outcome")}
    found = completeness(tags(**unknown, n_answer_characters=pa.array([None], pa.int64())))
    assert np.isnan(found).all()


def test_the_only_sample_of_a_problem_is_not_consistent_with_anything():
    found = consistency(tags(3, n_samples=[1, 2, 2], consistency=[1.0, 0.5, None]))
    np.testing.assert_array_equal(found, [NAN, 0.5, NAN])


@settings(deadline=None)
@given(categories)
def test_diversity_is_what_a_trace_adds_to_the_entropy_of_its_set(names):
    found = diversity(names)
    counts = Counter(name for name in names if name)
    total = sum(counts.values())
    entropy = -sum(n / total * math.log(n / total) for n in counts.values())
    of_set = category_entropy(names)
    assert of_set["categories"] == len(counts)
    assert of_set["entropy_nats"] == pytest.approx(entropy, abs=1e-12)
    for name, value in zip(names, found, strict=True):
        if not name or len(counts) < 2:
            assert math.isnan(value)
        else:
            assert value == pytest.approx(min(-math.log(counts[name] / total) / math.log(len(counts)), 1), abs=1e-12)
            assert value == 1 or counts[name] * len(counts) > total
    if len(counts) > 1 and of_set["evenness"] is not None:
        assert of_set["evenness"] == pytest.approx(entropy / math.log(len(counts)))
        # the mean of what the traces add is the evenness, but for what was cut off at 1
        assert np.nanmean(found) <= of_set["evenness"] + 1e-12


@settings(deadline=None)
@given(categories, st.randoms())
def test_the_order_of_the_traces_changes_no_diversity(names, draw):
    order = list(range(len(names)))
    draw.shuffle(order)
    np.testing.assert_array_equal(diversity(names)[order], diversity([names[index] for index in order]))


def test_a_rarer_category_is_no_less_diverse():
    found = diversity(["a"] * 90 + ["b"] * 9 + ["c"])
    assert found[0] < found[90] == found[99] == 1


def test_the_score_of_a_set_and_of_one_trace():
    settings = Quality(weights="three_terms", reference_date="2025-01-01", tau_days=100)
    found = quality_columns(tags(2, source=["a", "b"], n_samples=[4, 1]), ["2025-01-01", ""], settings)
    assert found["quality"].tolist() == [pytest.approx(0.4 + 0.35 + 0.25 * 0.5), 1.0]
    [alone] = quality_columns(tags(n_samples=[1]), [""], settings)["quality"]
    assert math.isnan(alone)  # no date, one category, one sample
    assert set(found) == {"freshness", "completeness", "diversity", "quality"}


def test_an_empty_set_has_no_scores():
    empty = tags(2).slice(0, 0)
    assert quality_columns(empty, [], Quality())["quality"].tolist() == []
    assert category_entropy([]) == {"categories": 0, "entropy_nats": 0.0, "evenness": None}


@pytest.mark.parametrize("weights", [{}, {"freshness": 0.0}, {"freshness": 1.0, "diversity": -1.0}, {"speed": 1.0}])
def test_weights_without_a_meaning_are_refused(weights):
    with pytest.raises(ValidationError, match="weights"):
        Quality(weights=weights)


def test_own_weights_are_shares():
    assert Quality(weights={"consistency": 2, "diversity": 1.0}).shares == {"consistency": 2.0, "diversity": 1.0}


def test_a_reference_that_is_no_day_is_refused():
    with pytest.raises(ValidationError, match="2025-01-31"):
        Quality(reference_date="yesterday")
