"""Distributions of several teachers, mixed or each in its domain."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from pydantic import ValidationError

from r1distill.errors import UserError
from r1distill.generate.distributions import SparseRows
from r1distill.recipe import Recipe
from r1distill.records import Trace
from r1distill.teachers_section import ScoringTeacher
from r1distill.train.several_teachers import SeveralTeachers, mixed, weights_of
from r1distill.train.teacher_cache import NO_ROW, CacheWriter, Gathered, Teacher, TeacherCache

VOCABULARY = 12
rows_of_a_teacher = st.lists(
    st.dictionaries(st.integers(0, VOCABULARY - 1), st.floats(0.01, 1), max_size=5), min_size=4, max_size=4
)


def gathered(rows: list[dict[int, float]]) -> Gathered:
    width = max([1, *map(len, rows)])
    ids, logprobs = np.full((len(rows), width), -1), np.full((len(rows), width), -np.inf, dtype=np.float32)
    for n, row in enumerate(rows):
        total = sum(row.values()) * 1.1  # something is outside
        for column, (token, mass) in enumerate(row.items()):
            ids[n, column], logprobs[n, column] = token, np.log(mass / total)
    return Gathered(ids, logprobs, None)


def dense(found: Gathered) -> NDArray[np.float64]:
    whole = np.zeros((len(found.ids), VOCABULARY))
    for n, row in enumerate(found.ids):
        for column, token in enumerate(row):
            if token >= 0:
                assert whole[n, token] == 0, "a token is there twice"
                whole[n, token] = np.exp(np.float64(found.logprobs[n, column]))
    return whole


@settings(max_examples=200)
@given(st.lists(rows_of_a_teacher, min_size=1, max_size=3), st.data())
def test_the_mixture_is_the_weighted_mean_of_the_probabilities(teachers: list[Any], data: Any) -> None:
    weights = np.array([[data.draw(st.sampled_from([0.0, 1.0, 2.5])) for _ in teachers] for _ in range(4)])
    parts = [gathered(rows) for rows in teachers]
    whole = dense(mixed(parts, weights))
    for n in range(4):
        taking = [m for m in range(len(teachers)) if teachers[m][n] and weights[n, m]]
        total = sum(weights[n, m] for m in taking)
        expected = sum((weights[n, m] / total * dense(parts[m])[n] for m in taking), np.zeros(VOCABULARY))
        np.testing.assert_allclose(whole[n], expected, atol=1e-6)


@given(rows_of_a_teacher)
def test_two_equal_teachers_are_one(rows: list[dict[int, float]]) -> None:
    one = gathered(rows)
    np.testing.assert_allclose(dense(mixed([one, one], np.ones((4, 2)))), dense(one), atol=1e-6)


def teacher(name: str, weight: float = 1.0, *domains: str) -> ScoringTeacher:
    return ScoringTeacher(name=name, model=f"org/{name}", weight=weight, domains=list(domains))


def test_a_problem_is_taught_by_those_that_name_its_domain_and_else_by_those_without_any() -> None:
    teachers = [
        teacher("all"),
        teacher("math", 1, "math"),
        teacher("olympiad", 3, "olympiads", "math"),
        teacher("second"),
    ]
    assert weights_of(teachers, "gsm8k", "math") == [0, 0.25, 0.75, 0]
    assert weights_of(teachers, "olympiads", "open") == [0, 0, 1, 0]
    assert weights_of(teachers, "mbpp", "code") == [0.5, 0, 0, 0.5]
    assert weights_of([teacher("math", 1, "math")], "mbpp", "code") == [0]


def cache(
    folder: Path, name: str, scored: dict[tuple[str, int], list[dict[int, float]]], ids: list[int]
) -> TeacherCache:
    about = Teacher("vllm", name, None, "vocabulary", "raw_logprobs", 5)
    with CacheWriter(folder / name, about) as writer:
        for (problem_id, sample), rows in scored.items():
            lengths = np.array([len(row) for row in rows], dtype=np.uint16)
            flat = [(token, np.log(mass)) for row in rows for token, mass in row.items()]
            trace = Trace(problem_id, sample, name, "", 0, "", "", "", token_ids=ids[: len(rows)], finish_reason="stop")
            writer.add(
                trace,
                SparseRows(
                    lengths, np.array([t for t, _ in flat], np.int32), np.array([m for _, m in flat], np.float32)
                ),
            )
    return TeacherCache(folder / name)


def test_rows_are_those_of_the_first_and_tokens_are_compared(tmp_path: Path) -> None:
    first = cache(tmp_path, "a", {("p", 0): [{1: 0.6, 2: 0.3}, {3: 0.9}], ("q", 0): [{4: 0.5}]}, [7, 8])
    second = cache(tmp_path, "b", {("q", 0): [{4: 0.7, 5: 0.2}], ("p", 0): [{2: 0.8}, {3: 0.5, 6: 0.4}]}, [7, 8])
    others = cache(tmp_path, "c", {("p", 0): [{2: 0.8}, {3: 0.5}], ("q", 0): [{1: 1.0}]}, [9, 9])
    several = SeveralTeachers(["a", "b"], [first, second], lambda problem: [0.25, 0.75])
    (tokens, row), (_, other_row) = several.tokens_of("p", 0) or ([], 0), several.tokens_of("q", 0) or ([], 0)
    assert list(tokens) == [7, 8]
    found = dense(several.gather(np.array([other_row, NO_ROW, row + 1, row])))
    expected = np.zeros((4, VOCABULARY))
    expected[0, [4, 5]] = 0.25 * 0.5 + 0.75 * 0.7, 0.75 * 0.2
    expected[2, [3, 6]] = 0.25 * 0.9 + 0.75 * 0.5, 0.75 * 0.4
    expected[3, [1, 2]] = 0.25 * 0.6, 0.25 * 0.3 + 0.75 * 0.8
    np.testing.assert_allclose(found, expected, atol=1e-6)
    with pytest.raises(UserError, match=r"the cache of c has none of the traces of a; run `r1distill cache` again"):
        SeveralTeachers(["a", "c"], [first, others], lambda problem: [1, 1])
    routed = SeveralTeachers(["a", "b"], [first, second], lambda problem: [0, 1] if problem == "q" else [1, 0])
    found = dense(routed.gather(np.array([other_row, row])))
    assert found[0].nonzero()[0].tolist() == [4, 5]
    assert found[1].nonzero()[0].tolist() == [1, 2]


def recipe(**changes: Any) -> Recipe:
    tables: dict[str, Any] = {
        "run_dir": "r", "cache": {"source": "vllm"}, "train": {"student": "s", "kl": {}},
        "teachers": [{"name": "a", "model": "org/a"}, {"name": "b", "model": "org/b"}],
    }  # fmt: skip
    return Recipe.model_validate({**tables, **changes})


def test_recipes_that_do_not_fit_together_are_errors() -> None:
    assert len(recipe().teachers) == 2
    for changes, message in (
        ({"train": {"student": "s"}}, "are for .train.kl. with caches"),
        ({"train": {"student": "s", "kl": {"online": "x"}}}, "are for .train.kl. with caches"),
        ({"cache": {"source": "generation"}}, "only who samples has distributions then"),
        ({"cache": {"source": "vllm", "model": "x"}}, "both say who scores"),
        ({"teachers": [{"name": "a", "model": "x"}] * 2}, '"a" is there twice'),
        ({"teachers": [{"name": "../a", "model": "x"}]}, "pattern"),
    ):
        with pytest.raises(ValidationError, match=message):
            recipe(**changes)
