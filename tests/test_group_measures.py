"""Difficulty, agreement and the z-score of entropy over the traces of a set."""

import random
import statistics

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from r1distill.filter.measures.groups import NEIGHBOURS, consistencies, difficulty, entropy_z
from r1distill.records import Problem, Verdict
from r1distill.verify.pool import VerifierPool


def test_the_pass_rate_is_the_share_of_the_samples_that_were_judged():
    ids = ["b", "b", "a", "b", "a", "c"]
    outcomes = ["correct", "incorrect", "unverifiable", "no_answer", "timeout", "correct"]
    found = difficulty(ids, outcomes)
    assert found.n_samples.tolist() == [3, 3, 2, 3, 2, 1]
    np.testing.assert_array_equal(found.pass_rate, [1 / 3, 1 / 3, np.nan, 1 / 3, np.nan, 1.0])
    assert difficulty([], []).pass_rate.tolist() == []


def test_consistency_counts_equal_answers_however_they_are_written():
    problems = {
        kind: Problem("?", kind=kind, answer="A", choices=["x", "y"], id=kind) for kind in ("math", "choice", "code")
    } | {"alone": Problem("?", answer="1", id="alone")}
    answers = {
        "math": ["1/2", "0.5", "3", None, r"\frac{1}{2}"],
        "choice": ["A", "B", "A"],
        "code": ["1", "1"],
        "alone": ["1"],
    }
    verdicts = [
        Verdict(problem_id, sample, "incorrect", answer)
        for problem_id, group in answers.items()
        for sample, answer in enumerate(group)
    ]
    with VerifierPool(1, 10.0) as pool:
        found = list(consistencies(verdicts, problems, pool))
    assert found[:5] == [3 / 5, 3 / 5, 1 / 5, None, 3 / 5]
    assert found[5:8] == [2 / 3, 1 / 3, 2 / 3]
    assert found[8:] == [None, None, None]


def slow_entropy_z(x, sources, lengths):
    """As the docstring writes it."""

    def middle_and_scale(values):
        middle = statistics.median(values)
        deviations = [abs(value - middle) for value in values]
        return middle, 1.482602 * statistics.median(deviations) or 1.253314 * statistics.fmean(deviations)

    def lean(values, towards):
        n = len(values)
        own = middle_and_scale(values)
        return tuple(
            (n * mine + NEIGHBOURS * theirs) / (n + NEIGHBOURS) for mine, theirs in zip(own, towards, strict=True)
        )

    known = [i for i in range(len(x)) if x[i] is not None]
    everything = middle_and_scale([x[i] for i in known]) if known else None
    result = []
    for i in range(len(x)):
        if x[i] is None:
            result.append(np.nan)
            continue
        source = [j for j in known if sources[j] == sources[i]]
        inside = [j for j in source if max(lengths[j], 1).bit_length() == max(lengths[i], 1).bit_length()]
        middle, scale = lean([x[j] for j in inside], lean([x[j] for j in source], everything))
        result.append((x[i] - middle) / scale if scale else 0.0)
    return result


@given(st.integers(0, 60), st.integers(0, 10_000))
def test_entropy_z_is_the_formula(n, seed):
    draw = random.Random(seed)
    x = [draw.choice([None, 0.3, round(draw.random(), 3)]) for _ in range(n)]
    sources = [draw.choice("ab") for _ in range(n)]
    lengths = [draw.choice([0, 1, 2, 3, 127, 128, 5000]) for _ in range(n)]
    np.testing.assert_allclose(entropy_z(x, sources, lengths), slow_entropy_z(x, sources, lengths), atol=1e-9)


def test_a_degenerate_trace_stands_out_among_its_like_and_a_long_one_does_not():
    draw = random.Random(3)
    short = [0.3 + 0.05 * draw.gauss(0, 1) for _ in range(500)]
    long = [
        0.7 + 0.05 * draw.gauss(0, 1) for _ in range(500)
    ]  # harder problems: more entropy, and nothing wrong with it
    broken = [2.5] * 50
    z = entropy_z(short + broken + long, ["s"] * 1050, [300] * 550 + [9000] * 500)
    assert z[500:550].min() > 10
    assert abs(np.median(z[550:])) < 0.5
    assert np.abs(z[:500]).max() < 5


def test_one_trace_alone_in_its_bin_is_judged_by_its_source():
    x = [0.3, 0.32, 0.28] * 30 + [0.31, 2.0]
    z = entropy_z(x, ["s"] * 92, [300] * 90 + [5000, 70_000])
    assert abs(z[90]) < 1
    assert z[91] > 10
    assert entropy_z([0.5] * 4, list("aabb"), [1, 2, 3, 4]).tolist() == [0.0] * 4
    assert np.isnan(entropy_z([None, None], ["a", "a"], [1, 2])).all()


@pytest.mark.parametrize("count", [1, 2, 3])
def test_tiny_sets_have_finite_scores(count):
    assert np.isfinite(entropy_z([0.1 * n for n in range(count)], list("abc")[:count], [10] * count)).all()
