"""Distributions of several teachers, mixed or each in its domain."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tiny_model
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from pydantic import ValidationError
from test_cache_stage import sampled_run

from r1distill.cache.stage import cache_stage
from r1distill.errors import UserError
from r1distill.generate.distributions import SparseRows
from r1distill.prompting import load_prompt
from r1distill.recipe import Recipe
from r1distill.records import Problem, Trace
from r1distill.run import Clock
from r1distill.store import write_records
from r1distill.teachers_section import ScoringTeacher
from r1distill.train.data import load_data
from r1distill.train.loading import cache_folders, open_cache
from r1distill.train.render import prepare_tokenizer
from r1distill.train.several_teachers import SeveralTeachers, mixed, refuse_idle, weights_of
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


def row_of(several: SeveralTeachers, problem: str) -> int:
    found = several.numbering.tokens_of(problem, 0)
    assert found is not None
    return found[1]


def test_every_trace_of_any_of_them_has_rows_and_tokens_are_compared(tmp_path: Path) -> None:
    first = cache(tmp_path, "a", {("p", 0): [{1: 0.6, 2: 0.3}, {3: 0.9}], ("q", 0): [{4: 0.5}]}, [7, 8])
    second = cache(
        tmp_path, "b", {("q", 0): [{4: 0.7, 5: 0.2}], ("p", 0): [{2: 0.8}, {3: 0.5, 6: 0.4}], ("r", 0): [{9: 0.5}] * 2}, [7, 8]
    )  # fmt: skip
    others = cache(tmp_path, "c", {("p", 0): [{2: 0.8}, {3: 0.5}]}, [9, 9])
    several = SeveralTeachers(["a", "b"], [first, second], lambda problem: [0.25, 0.75])
    p, q, r = (row_of(several, name) for name in "pqr")
    assert list(several.numbering.tokens_of("p", 0)[0]) == [7, 8]  # type: ignore[index]
    assert len({p, p + 1, q, r, r + 1}) == 5
    assert several.taught == {"a": 2, "b": 3}
    found = dense(several.gather(np.array([q, NO_ROW, p + 1, p, r + 1])))
    expected = np.zeros((5, VOCABULARY))
    expected[0, [4, 5]] = 0.25 * 0.5 + 0.75 * 0.7, 0.75 * 0.2
    expected[2, [3, 6]] = 0.25 * 0.9 + 0.75 * 0.5, 0.75 * 0.4
    expected[3, [1, 2]] = 0.25 * 0.6, 0.25 * 0.3 + 0.75 * 0.8
    expected[4, 9] = 0.5  # the first has no room for it
    np.testing.assert_allclose(found, expected, atol=1e-6)
    with pytest.raises(UserError, match=r"c reads all 1 traces that it shares with others in other tokens"):
        SeveralTeachers(["a", "c"], [first, others], lambda problem: [1, 1])
    routed = SeveralTeachers(["a", "b"], [first, second], lambda problem: [0, 1] if problem == "q" else [1, 0])
    found = dense(routed.gather(np.array([q, p])))
    assert found[0].nonzero()[0].tolist() == [4, 5]
    assert found[1].nonzero()[0].tolist() == [1, 2]
    assert routed.taught == {"a": 1, "b": 1}


def test_who_ends_in_another_token_says_nothing_of_the_end(tmp_path: Path) -> None:
    first = cache(tmp_path, "a", {("p", 0): [{1: 0.6}, {8: 0.9}]}, [7, 8])
    second = cache(tmp_path, "b", {("p", 0): [{2: 0.8}, {9: 0.5}]}, [7, 9])
    several = SeveralTeachers(["a", "b"], [first, second], lambda problem: [0.5, 0.5])
    found = dense(several.gather(np.array([0, 1])))
    assert found[0].nonzero()[0].tolist() == [1, 2]
    assert found[1].nonzero()[0].tolist() == [8]
    assert found[1, 8] == pytest.approx(0.9)


@pytest.mark.parametrize("order", [1, -1])
def test_the_end_is_taught_by_who_ends_as_the_student_whoever_comes_first(tmp_path: Path, order: int) -> None:
    first = cache(tmp_path, "a", {("p", 0): [{1: 0.6}, {8: 0.9}]}, [7, 8])
    second = cache(tmp_path, "b", {("p", 0): [{2: 0.8}, {9: 0.5}]}, [7, 9])
    several = SeveralTeachers(["a", "b"][::order], [first, second][::order], lambda problem: [0.5, 0.5], end=9)
    assert list(several.numbering.tokens_of("p", 0)[0]) == [7, 9]  # type: ignore[index]
    found = dense(several.gather(np.array([0, 1])))
    assert found[0].nonzero()[0].tolist() == [1, 2]
    assert found[1].nonzero()[0].tolist() == [9]


def test_what_was_scored_for_another_recipe_counts_for_nothing(tmp_path: Path) -> None:
    """Neither of a problem that its teacher does not teach any more, nor of one that is not there any more."""
    stale = cache(tmp_path, "a", {("p", 0): [{1: 0.6}, {3: 0.9}], ("gone", 0): [{4: 0.5}]}, [5, 6])
    fresh = cache(tmp_path, "b", {("p", 0): [{2: 0.8}, {3: 0.5}], ("q", 0): [{9: 0.5}]}, [7, 8])
    weights = {"p": [0.0, 1.0], "q": [0.0, 1.0]}
    several = SeveralTeachers(["a", "b"], [stale, fresh], lambda problem: weights.get(problem, [0.0, 0.0]))
    assert list(several.numbering.tokens_of("p", 0)[0]) == [7, 8]  # type: ignore[index]
    assert several.numbering.tokens_of("gone", 0) is None
    assert several.taught == {"a": 0, "b": 2}
    assert dense(several.gather(np.array([row_of(several, "p")])))[0].nonzero()[0].tolist() == [2]


def test_a_teacher_of_no_problem_is_an_error_that_names_the_domains_there_are() -> None:
    problems = [("gsm8k", "math"), ("mbpp", "code")]
    refuse_idle([teacher("all"), teacher("math", 1, "math")], problems)
    refuse_idle([teacher("all"), teacher("math", 1, "maths")], [])
    for teachers, message in (
        ([teacher("all"), teacher("math", 1, "maths")], "math teaches no problem: its domains are maths, and there are the"),
        ([teacher("math", 1, "math"), teacher("code", 1, "code"), teacher("all")], "all teaches no problem: others name all"),
    ):  # fmt: skip
        with pytest.raises(
            UserError, match=rf"\[\[teachers\]\] {message}.*sources gsm8k, mbpp and the kinds code, math"
        ):
            refuse_idle(teachers, problems)


def test_each_teacher_scores_what_it_teaches_and_training_finds_it(
    tmp_path: Path, tiny_teacher: Path, tiny_student: Path
) -> None:
    """The teachers of a run are two, one of the even problems and one of all others, which the first cache does not have."""
    even = {problem.id for problem in tiny_model.PROBLEMS[::2]}
    run = sampled_run(
        tmp_path, tiny_teacher, tiny_student, cache={"source": "transformers", "dtype": "float32"},
        train={"kl": {}, "max_length": 256},
        teachers=[
            {"name": "of_even", "model": str(tiny_teacher), "domains": ["even"]},
            {"name": "rest", "model": str(tiny_student)},
        ],
    )  # fmt: skip
    problems = [
        dataclasses.replace(problem, source="even" if problem.id in even else problem.source)
        for problem in tiny_model.PROBLEMS
    ]
    write_records(run.problems, Problem, problems)
    counts = cache_stage(run, Clock(run, "cache"))["teachers"]
    kept = {problem.id for problem in tiny_model.PROBLEMS[:7]}
    assert {name: each["traces"] for name, each in counts.items()} == {
        "of_even": len(kept & even),
        "rest": len(kept - even),
    }
    several = open_cache(run, tiny_model.make_tokenizer())
    assert isinstance(several, SeveralTeachers)
    assert {problem_id for problem_id, _ in several.numbering.places} == kept
    message = {problem.id: load_prompt(tiny_model.PROMPT, "").user_message(problem) for problem in problems}
    dataset = [
        {"problem_id": problem.id, "sample": 0, "prompt": message[problem.id], "completion": tiny_model.reply(problem)}
        for problem in problems[:7]
    ]
    run.dataset.mkdir(exist_ok=True)
    pq.write_table(pa.Table.from_pylist(dataset), run.dataset / "train.parquet")
    data = load_data(
        run.dataset, tmp_path / "work", prepared(), prefill="<think>\n", max_length=256, overlong="drop", processes=None,
        teacher_caches=cache_folders(run), taken=several.taken,
    )  # fmt: skip
    assert data.with_rows == len(kept)
    for teacher_row in data.train["teacher_row"]:
        rows = np.array([number for number in teacher_row if number != NO_ROW])
        assert len(rows) > 3
        assert (several.gather(rows).ids[:, 0] >= 0).all()

    write_records(run.problems, Problem, problems[:4])  # as with a lower problems.limit
    fewer = open_cache(run, tiny_model.make_tokenizer())
    assert isinstance(fewer, SeveralTeachers)
    assert {problem_id for problem_id, _ in fewer.numbering.places} == {problem.id for problem in problems[:4]}


def prepared() -> Any:
    tokenizer = tiny_model.make_tokenizer()
    prepare_tokenizer(tokenizer, None, None, None)
    return tokenizer


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
