"""Sparse distributions, kept while sampling, against the whole ones; and the files that training reads."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from r1distill.errors import UserError
from r1distill.generate.chat import completion_of
from r1distill.generate.distributions import LEAST, MASS, MOST, SparseRows, empty_rows, joined_rows, sparse_rows
from r1distill.generate.journal import Entry, Journal
from r1distill.generate.signals import TokenSignals, joined, measure, unmeasured
from r1distill.records import Trace
from r1distill.train import teacher_cache
from r1distill.train.teacher_cache import CacheWriter, Teacher, TeacherCache, vocabulary_sha256

RANDOM = st.builds(np.random.default_rng, st.integers(0, 2**32 - 1))
SHARPNESS = st.sampled_from([0.0, 0.1, 1.0, 3.0, 10.0, 30.0])
TEACHER = Teacher("generation", "teacher", None, "0" * 64, "raw_logprobs", 20)


def some_rows(random: np.random.Generator, tokens: int, k: int = 20, sharpness: float = 3.0) -> SparseRows:
    logits = sharpness * random.standard_normal((tokens, 500))
    logprobs = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    ids = np.argsort(-logprobs, axis=1)[:, :k]
    logprobs = np.take_along_axis(logprobs, ids, axis=1)
    return sparse_rows(ids, logprobs, ids[:, 0], logprobs[:, 0])


def some_trace(problem_id: str, sample: int, tokens: int) -> Trace:
    return Trace(
        problem_id, sample, "teacher", "sha", 1, "text", None, "text", "stop",
        token_ids=[(7 * sample + token) % 500 for token in range(tokens)], n_tokens=tokens,
    )  # fmt: skip


def assert_equal(found: SparseRows | None, expected: SparseRows) -> None:
    assert found is not None
    for name in ("lengths", "ids", "logprobs"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))


@settings(deadline=None)
@given(RANDOM, st.integers(1, 12), st.integers(5, 200), SHARPNESS, st.data())
def test_a_row_is_the_shortest_head_of_the_distribution_with_the_mass_and_the_sampled_token(
    random, tokens, vocabulary, sharpness, data
):
    logits = sharpness * random.standard_normal((tokens, vocabulary))
    logprobs = (logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))).astype(np.float32)
    k = data.draw(st.integers(1, vocabulary))
    ids = np.argsort(-logprobs, axis=1, kind="stable")[:, :k]
    shuffled = random.permuted(ids, axis=1)
    sampled = random.integers(0, vocabulary, tokens)
    of_sampled = logprobs[np.arange(tokens), sampled]
    rows = sparse_rows(shuffled, np.take_along_axis(logprobs, shuffled, axis=1), sampled, of_sampled)
    for token in range(tokens):
        row = rows[token : token + 1]
        expected, mass = [], 0.0
        for entry in ids[token]:  # a slow oracle, one entry after the other
            if np.exp(np.float64(logprobs[token, entry])) == 0 or len(expected) == MOST:
                break
            if len(expected) >= LEAST and mass >= MASS:
                break
            expected.append(int(entry))
            mass += np.exp(np.float64(logprobs[token, entry]))
        n = len(row.ids) - (int(sampled[token]) not in row.ids[:-1].tolist() and len(row.ids) > len(expected))
        if np.exp(np.float64(of_sampled[token])) > 0:
            assert int(sampled[token]) in row.ids.tolist()
        row = SparseRows(np.array([n], np.uint16), row.ids[:n], row.logprobs[:n])
        assert sorted(logprobs[token, row.ids].tolist()) == sorted(logprobs[token, expected].tolist())
        np.testing.assert_array_equal(row.logprobs, np.minimum(logprobs[token, row.ids], 0))
        assert (np.diff(row.logprobs) <= 0).all()


@settings(deadline=None)
@given(RANDOM, st.lists(st.integers(0, 9), min_size=1, max_size=5))
def test_rows_are_cut_joined_and_stored_without_change(random, lengths):
    parts = [some_rows(random, n) if n else empty_rows(0) for n in lengths]
    whole = joined_rows(parts)
    assert len(whole) == sum(lengths)
    assert_equal(SparseRows.from_bytes(whole.to_bytes()), whole)
    for cut in range(len(whole) + 1):
        assert_equal(joined_rows([whole[:cut], whole[cut:]]), whole)


def test_tokens_that_were_put_in_have_empty_rows_between_those_that_were_sampled():
    random = np.random.default_rng(0)
    first, last = some_rows(random, 3), some_rows(random, 2)

    def measured(rows: SparseRows) -> TokenSignals:
        return dataclasses.replace(unmeasured(len(rows)), rows=rows)

    whole = joined([measured(first), unmeasured(4), measured(last)])
    assert whole is not None
    assert_equal(whole.rows, joined_rows([first, empty_rows(4), last]))
    assert_equal(whole[3:].rows, joined_rows([empty_rows(4), last]))
    assert joined([unmeasured(2), unmeasured(1)]).rows is None  # type: ignore[union-attr]


def test_a_trace_of_the_journal_comes_back_with_its_rows_and_one_that_was_cut_off_goes_on_with_them(tmp_path):
    random = np.random.default_rng(1)
    rows = some_rows(random, 6)
    signals = dataclasses.replace(measure(np.full(6, -0.1), np.full((6, 1), -0.1), 500), rows=rows)
    cut = dataclasses.replace(some_trace("b", 0, 6), finish_reason="length")
    with Journal(tmp_path) as journal:
        journal.write([Entry(some_trace("a", 0, 6), None, 100, signals), Entry(cut, None, 6, signals)])
        journal.write([Entry(some_trace("c", 0, 6), None, 100)])
        found = {
            trace.problem_id: rows for trace, rows in journal.traces_and_rows({"a": "sha", "b": "sha", "c": "sha"})
        }
        longest = journal.longest(("b", 0, "sha"), 100)
    assert_equal(found["a"], rows)
    assert_equal(found["b"], rows)
    assert found["c"] is None
    assert longest is not None
    assert longest[1] is not None
    assert_equal(longest[1].rows, rows)


def write_cache(folder: Path, traces: dict[tuple[str, int], SparseRows]) -> None:
    with CacheWriter(folder, TEACHER) as cache:
        for (problem_id, sample), rows in traces.items():
            cache.add(some_trace(problem_id, sample, len(rows)), rows)


def test_a_cache_gives_every_trace_its_rows_from_many_shards_and_counts_them(tmp_path, monkeypatch):
    monkeypatch.setattr(teacher_cache, "BYTES_A_BATCH", 2_000)
    monkeypatch.setattr(teacher_cache, "BYTES_A_SHARD", 9_000)
    random = np.random.default_rng(2)
    traces = {(f"p{n}", n % 3): some_rows(random, int(random.integers(1, 40))) for n in range(60)}
    write_cache(tmp_path, {("old", 0): some_rows(random, 5)})
    write_cache(tmp_path, traces)
    cache = TeacherCache(tmp_path)
    assert len(cache) == 60
    assert len(cache.manifest["shards"]) > 3
    for (problem_id, sample), rows in traces.items():
        assert_equal(cache.rows(some_trace(problem_id, sample, len(rows))), rows)
    assert cache.rows(some_trace("old", 0, 5)) is None
    assert cache.manifest["tokens"] == sum(map(len, traces.values()))
    assert cache.manifest["entries"] == sum(len(rows.ids) for rows in traces.values())
    mass = sum(np.exp(rows.logprobs.astype(float)).sum() for rows in traces.values()) / cache.manifest["tokens"]
    assert cache.manifest["mean_mass_a_token"] == pytest.approx(mass)
    assert (cache.manifest["model"], cache.manifest["logprobs_mode"], cache.manifest["k"]) == (
        "teacher",
        "raw_logprobs",
        20,
    )


@settings(deadline=None, max_examples=30)
@given(RANDOM, st.integers(0, 40))
def test_rows_are_gathered_from_all_over_the_cache(tmp_path_factory, random, n):
    folder = tmp_path_factory.mktemp("cache")
    traces = {
        (f"p{index}", 0): some_rows(random, int(random.integers(1, 9)), k=int(random.integers(1, 9)))
        for index in range(7)
    }
    write_cache(folder, traces)
    cache = TeacherCache(folder)
    whole = []  # every row of the cache, one by one
    for (problem_id, sample), rows in traces.items():
        found = cache.tokens_of(problem_id, sample)
        assert found is not None
        assert found[0].tolist() == some_trace(problem_id, sample, len(rows)).token_ids
        assert found[1] == len(whole)
        whole += [rows[token : token + 1] for token in range(len(rows))]
    wanted = random.integers(-1, len(whole), n)
    ids, logprobs, _ = cache.gather(wanted)
    assert ids.shape == logprobs.shape == (n, max([1, *(len(whole[row].ids) for row in wanted if row >= 0)]))
    for place, row in enumerate(wanted):
        expected = whole[row] if row >= 0 else empty_rows(0)
        length = len(expected.ids)
        np.testing.assert_array_equal(ids[place, :length], expected.ids)
        np.testing.assert_array_equal(logprobs[place, :length], expected.logprobs)
        assert (ids[place, length:] == -1).all()
        assert np.isneginf(logprobs[place, length:]).all()


def test_another_text_under_the_same_key_has_no_rows(tmp_path):
    rows = some_rows(np.random.default_rng(3), 5)
    write_cache(tmp_path, {("p", 1): rows})
    other = dataclasses.replace(some_trace("p", 1, 5), token_ids=[1, 2, 3, 4, 5])
    assert TeacherCache(tmp_path).rows(other) is None


def test_rows_of_another_length_than_the_tokens_are_refused(tmp_path):
    with pytest.raises(ValueError, match="5 distributions of 4 tokens"), CacheWriter(tmp_path, TEACHER) as cache:
        cache.add(some_trace("p", 0, 4), some_rows(np.random.default_rng(0), 5))


def test_a_cache_that_was_not_finished_is_none(tmp_path):
    write_cache(tmp_path, {("p", 1): some_rows(np.random.default_rng(3), 5)})
    with pytest.raises(RuntimeError), CacheWriter(tmp_path, TEACHER):  # the next one dies
        raise RuntimeError
    with pytest.raises(UserError, match="no teacher cache, or one that was not finished"):
        TeacherCache(tmp_path)


def test_a_damaged_shard_is_named(tmp_path):
    write_cache(tmp_path, {("p", 1): some_rows(np.random.default_rng(3), 5)})
    (tmp_path / "00000.arrow").write_bytes(b"damaged")
    with pytest.raises(UserError, match=r"00000\.arrow: cannot be read"):
        TeacherCache(tmp_path)


def test_an_empty_cache_can_be_read(tmp_path):
    write_cache(tmp_path, {})
    assert len(TeacherCache(tmp_path)) == 0


def test_vocabularies_differ_by_their_ids_and_not_by_their_order():
    assert vocabulary_sha256({"a": 0, "b": 1}) == vocabulary_sha256({"b": 1, "a": 0})
    assert vocabulary_sha256({"a": 0, "b": 1}) != vocabulary_sha256({"a": 1, "b": 0})
    assert vocabulary_sha256({"a": 0}) != vocabulary_sha256({"a": 0, "b": 1})


# ---------------------------------------------------------------- from a server


def reply_of(names: list[str], tops: list[dict[str, float]]) -> dict:
    """A chat completion of vLLM's server; the first of each `tops` is the sampled token."""
    content = [
        {
            "token": next(iter(top)),
            "bytes": list(text.encode()),
            "logprob": next(iter(top.values())),
            "top_logprobs": [{"token": name, "logprob": logprob, "bytes": None} for name, logprob in top.items()],
        }
        for text, top in zip(names, tops, strict=True)
    ]
    message = {"role": "assistant", "content": "".join(names)}
    return json.loads(
        json.dumps({"choices": [{"message": message, "finish_reason": "stop", "logprobs": {"content": content}}]})
    )


def test_a_servers_ids_make_rows_and_the_text_is_still_known():
    tops = [
        {"token_id:7": -0.1, "token_id:9": -3.0},
        # the sampled one is not among the likeliest: vLLM lists it in place of the last of them
        {"token_id:5": -9.0, "token_id:1": -0.2, "token_id:2": -2.0},
    ]
    completion = completion_of(reply_of(["hm</think>", "1"], tops), keep_rows=True)
    assert completion.token_ids == [7, 5]
    assert completion.n_thinking_tokens == 1
    assert completion.signals is not None
    assert completion.signals.rows is not None
    assert completion.signals.rows.lengths.tolist() == [2, 3]
    assert completion.signals.rows.ids.tolist() == [7, 9, 1, 2, 5]


def test_a_reply_of_which_a_server_gives_only_some_logprobs_has_no_ids():
    reply = reply_of(["1"], [{"token_id:7": -0.1, "token_id:9": -3.0}])
    reply["usage"] = {"completion_tokens": 2}
    assert completion_of(reply, keep_rows=True).token_ids is None


def test_a_server_that_names_tokens_by_text_is_refused_where_distributions_are_kept():
    with pytest.raises(UserError, match=r"names a token 'hm' and not by its id.*keep_distributions = false"):
        completion_of(reply_of(["hm"], [{"hm": -0.1}]), keep_rows=True)
