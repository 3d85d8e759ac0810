"""The dataset: what was kept, with all that is known of it, and what others open it with."""

import hashlib
import json
import os
import subprocess
import sys
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from filtered_run import GOOD, filtered, many, problem, sampled, trace
from hypothesis import given
from hypothesis import strategies as st

from r1distill.errors import UserError
from r1distill.filter import dataset
from r1distill.filter.dataset import EXAMPLE_SCHEMA, messages_sha256, public_source, write_dataset
from r1distill.filter.measures.tags import TAGS
from r1distill.filter.split import is_validation
from r1distill.filter.stage import filter_stage
from r1distill.records import Decision, Trace
from r1distill.run import Clock, Run
from r1distill.store import write_records


def rows(run: Run, split: str = "train") -> list[dict[str, Any]]:
    return pq.read_table(run.dataset / f"{split}.parquet").to_pylist()


def write_again(run: Run, folder: Path) -> None:
    """The dataset of the run's decisions in another folder."""
    write_dataset(run, folder, is_validation(pq.read_table(run.tags), run.recipe.filter.validation_fraction))


def tags_of(traces: list[Trace], **columns: list[Any]) -> pa.Table:
    keys = {"problem_id": [t.problem_id for t in traces], "sample": [t.sample for t in traces]}
    return pa.table({**keys, **columns})


def test_a_row_has_where_it_is_from_and_what_was_measured(tmp_path: Path) -> None:
    run = filtered(tmp_path, [problem("a")], [trace("a"), trace("a", 1)], teacher={"revision": "abc"})
    first, second = rows(run)
    assert (first["finish_reason"], first["outcome"], first["pools"]) == ("stop", "correct", [])
    assert (first["n_tokens"], first["n_prompt_tokens"], first["n_thinking_tokens"]) == (20, 9, 7)
    assert (first["model"], first["revision"], first["request_sha"]) == ("teacher", "abc", "sha of a")
    assert (first["seed"], second["seed"]) == (0, 1)
    said = json.dumps(first["messages"], ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    assert first["sha256"] == hashlib.sha256(said.encode()).hexdigest()
    assert first["messages"][1]["content"] == GOOD


def test_what_nobody_measured_is_null(tmp_path: Path) -> None:
    bare = trace("a", n_tokens=0, n_prompt_tokens=0, mean_entropy_nats=None, thinking_signals=None)
    [row] = rows(filtered(tmp_path, [problem("a")], [bare]))
    assert [row[name] for name in ("n_tokens", "n_prompt_tokens", "n_thinking_tokens", "mean_entropy_nats")] == [
        None
    ] * 4


def test_the_tags_that_were_measured_are_columns_and_belong_to_their_trace(tmp_path: Path) -> None:
    problems, traces = many(30)
    places = list(range(len(traces)))
    tags = tags_of(
        traces,
        pools=[["hard"] if place % 3 == 0 else None for place in places],
        quality=[place / 10 for place in places],
        pii=[["email"] if place == 6 else [] for place in places],
        student_perplexity=pa.nulls(len(places), pa.float64()),
        n_tokens=[0 for _ in places],
    )
    wrong = [(t.problem_id, t.sample) for place, t in enumerate(traces) if place % 5 == 0]
    run = filtered(tmp_path, problems, traces, wrong=wrong, tags=tags, filter={"validation_fraction": 0.3})
    kept = rows(run) + rows(run, "validation")
    assert "student_perplexity" not in kept[0]
    assert len(kept) == 48
    place_of = {(t.problem_id, t.sample): place for place, t in enumerate(traces)}
    for row in kept:
        place = place_of[row["problem_id"], row["sample"]]
        assert row["quality"] == place / 10
        assert row["pools"] == (["hard"] if place % 3 == 0 else [])
        assert row["pii"] == (["email"] if place == 6 else [])
        assert row["n_tokens"] == (traces[place].n_tokens or None)  # the trace's own, and not the tag's


@pytest.mark.parametrize("name", ["verdicts.parquet", "decisions.parquet", "tags.parquet"])
@pytest.mark.parametrize("fault", ["shorter", "longer", "other"])
def test_files_of_two_runs_are_never_put_together(tmp_path: Path, name: str, fault: str) -> None:
    problems, traces = many(4)
    run = filtered(tmp_path, problems, traces, tags=tags_of(traces, quality=[1.0] * len(traces)))
    table = pq.read_table(run.folder / name)
    first = table.slice(0, 1)
    changed = {
        "shorter": table.slice(0, len(table) - 1),
        "longer": pa.concat_tables([table, first]),
        "other": pa.concat_tables([table.slice(1), first]),
    }
    pq.write_table(changed[fault], run.folder / name)
    with pytest.raises(UserError, match=rf"{name} are not of one run; delete stages"):
        write_dataset(run, tmp_path / "out", np.zeros(len(traces), bool))
    assert not list((tmp_path / "out").glob("*"))


@pytest.mark.parametrize(
    ("name", "stage"),
    [
        ("problems", "generate"),
        ("traces/00001", "generate"),
        ("verdicts", "verify"),
        ("decisions", "filter"),
        ("tags", "filter"),
    ],
)
def test_a_file_that_is_cut_off_is_named_with_the_stage_that_makes_it(tmp_path: Path, name: str, stage: str) -> None:
    problems, traces = many(4)
    run = filtered(tmp_path, problems, traces, tags=tags_of(traces, quality=[1.0] * len(traces)))
    path = run.folder / f"{name}.parquet"
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(UserError, match=rf"{name}\.parquet: cannot be read: .*delete stages/{stage}\.json"):
        write_dataset(run, tmp_path / "out", np.zeros(len(traces), bool))


def test_a_trace_of_no_problem_is_refused(tmp_path: Path) -> None:
    run = sampled(tmp_path, [problem("a")], [trace("a"), trace("b")])
    write_records(run.decisions, Decision, [Decision(name, 0, True, "kept") for name in "ab"])
    with pytest.raises(UserError, match=r"problems\.parquet are not of one run"):
        write_dataset(run, tmp_path / "out", np.zeros(2, bool))


def test_a_filtering_that_fails_leaves_the_dataset_of_before(tmp_path: Path) -> None:
    problems, traces = many(4)
    run = filtered(tmp_path, problems, traces)
    before = {path.name: path.read_bytes() for path in run.dataset.iterdir()}
    (run.traces / "00001.parquet").write_bytes(b"PAR1 cut off")
    with pytest.raises(UserError, match=r"00001\.parquet: cannot be read"):
        filter_stage(run, Clock(run, "filter"))
    assert {path.name: path.read_bytes() for path in run.dataset.iterdir()} == before
    assert [path.name for path in run.folder.glob(".dataset*")] == []


def test_the_rows_are_the_same_however_few_are_read_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    problems, traces = many(50, 3)
    run = filtered(tmp_path, problems, traces, wrong=[("007", 1)], filter={"validation_fraction": 0.2})
    whole = {split: rows(run, split) for split in ("train", "validation")}
    monkeypatch.setattr(dataset, "TRACES_AT_ONCE", 7)
    monkeypatch.setattr(dataset, "ROWS_A_GROUP", 5)
    write_again(run, tmp_path / "again")
    for split, expected in whole.items():
        with pq.ParquetFile(tmp_path / "again" / f"{split}.parquet") as file:
            assert file.read().to_pylist() == expected
            assert file.num_row_groups > 2


def test_memory_is_that_of_a_batch_and_not_of_the_dataset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Four times as many traces take no more of Python's memory, nor of Arrow's."""
    monkeypatch.setattr(dataset, "TRACES_AT_ONCE", 8)
    monkeypatch.setattr(dataset, "BYTES_A_GROUP", 1 << 20)
    peaks = []
    for n in (64, 256):
        problems, _ = many(n)
        traces = [trace(each.id, 0, GOOD + "x" * 20_000) for each in problems]
        run = sampled(tmp_path / str(n), problems, traces)
        write_records(run.decisions, Decision, [Decision(t.problem_id, 0, True, "kept") for t in traces])
        del traces
        before, arrow = pa.total_allocated_bytes(), []
        tracemalloc.start()
        held_out = np.zeros(n, bool)
        write_dataset(
            run, tmp_path / f"out {n}", held_out, lambda arrow=arrow: arrow.append(pa.total_allocated_bytes())
        )
        peaks.append((tracemalloc.get_traced_memory()[1], max(arrow) - before))
        tracemalloc.stop()
    assert peaks[1][0] < peaks[0][0] + (1 << 20)  # the ids of the problems
    assert peaks[1][1] < 1.3 * peaks[0][1] + (4 << 20)


def test_load_dataset_opens_it_in_a_clean_cache(tmp_path: Path) -> None:
    problems, traces = many(40)
    tags = tags_of(traces, quality=[0.5] * len(traces), pii=[[] for _ in traces])
    run = filtered(tmp_path, problems, traces, tags=tags, filter={"validation_fraction": 0.3})
    program = (
        "import datasets, json, sys\n"
        "found = datasets.load_dataset(sys.argv[1])\n"
        "print(json.dumps({split: [each.num_rows, each[0]['messages'], each.column_names] for split, each in found.items()}))"
    )
    clean = {
        "HF_HOME": str(tmp_path / "cache"),
        "HF_HUB_OFFLINE": "1",
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path),
    }
    result = subprocess.run(
        [sys.executable, "-c", program, str(run.dataset)], capture_output=True, text=True, env=clean, timeout=120
    )
    assert result.returncode == 0, result.stderr
    found = json.loads(result.stdout)
    for split in ("train", "validation"):
        expected = rows(run, split)
        assert found[split] == [len(expected), expected[0]["messages"], list(expected[0])]
        tags = [name for name in TAGS.names if name not in EXAMPLE_SCHEMA.names]
        assert found[split][2] == [*EXAMPLE_SCHEMA.names, *(name for name in tags if name in expected[0])]
        assert {"quality", "pii", "contaminated_by", "repeated_share"} <= set(found[split][2])


@given(st.lists(st.fixed_dictionaries({"role": st.sampled_from(["user", "assistant"]), "content": st.text()})))
def test_the_hash_is_of_the_content_and_not_of_the_order_of_keys(messages: list[dict[str, str]]) -> None:
    turned = [{"content": message["content"], "role": message["role"]} for message in messages]
    assert messages_sha256(messages) == messages_sha256(turned)
    assert messages_sha256([*messages, {"role": "user", "content": ""}]) != messages_sha256(messages)


def test_folders_of_this_machine_are_not_told() -> None:
    assert public_source("/home/somebody/secret project/p.jsonl") == "p.jsonl"
    assert public_source("~/p.jsonl") == "p.jsonl"
    assert public_source("open-r1/OpenR1-Math-220k") == "open-r1/OpenR1-Math-220k"
