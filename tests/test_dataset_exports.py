"""The dataset in the columns of other trainers, read by what reads them."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from filtered_run import GOOD, filtered, many, problem, trace

from r1distill.errors import UserError
from r1distill.filter.exports import FORMATS, export_dataset
from r1distill.run import Run
from r1distill.store import read_json


@pytest.fixture
def run(tmp_path: Path) -> Run:
    problems, traces = many(30)
    return filtered(tmp_path, problems, traces, wrong=[("004", 0)], filter={"validation_fraction": 0.3})


def rows(run: Run, split: str = "train") -> list[dict[str, Any]]:
    return pq.read_table(run.dataset / f"{split}.parquet").to_pylist()


@pytest.mark.parametrize("format", FORMATS)
def test_load_dataset_opens_every_format(run: Run, format: str, tmp_path: Path) -> None:
    from datasets import load_dataset

    export_dataset(run.dataset, format, tmp_path / "out", "mine")
    found = load_dataset(str(tmp_path / "out"), cache_dir=str(tmp_path / "cache"))
    for split in ("train", "validation"):
        ids = [row["problem_id"] for row in rows(run, split)]
        assert found[split].num_rows == (len(set(ids)) if format == "openr1" else len(ids))


def test_trl_renders_the_messages(run: Run, tmp_path: Path) -> None:
    from datasets import load_dataset
    from tiny_model import make_tokenizer
    from trl.data_utils import apply_chat_template, is_conversational

    export_dataset(run.dataset, "trl", tmp_path / "out", "mine")
    found = load_dataset(str(tmp_path / "out"), cache_dir=str(tmp_path / "cache"))["train"]
    tokenizer = make_tokenizer()
    end = str(tokenizer.eos_token)
    for each, row in zip(found, rows(run), strict=True):
        example: dict[str, Any] = dict(each)
        assert is_conversational(example)
        text = apply_chat_template(example, tokenizer)["text"]
        assert row["prompt"] in text
        assert text.rstrip().removesuffix(end).endswith(GOOD)


def test_llama_factory_finds_its_columns_by_dataset_info(run: Run, tmp_path: Path) -> None:
    """As its data/parser.py and converter.py read them: an entry names file, columns and tags of the messages."""
    from datasets import load_dataset

    export_dataset(run.dataset, "sharegpt", tmp_path / "out", "mine")
    info = read_json(tmp_path / "out" / "dataset_info.json")
    assert sorted(info) == ["mine", "mine_validation"]
    for name, split in (("mine", "train"), ("mine_validation", "validation")):
        entry = info[name]
        assert entry["formatting"] == "sharegpt"
        file = str(tmp_path / "out" / entry["file_name"])
        found = load_dataset("json", data_files=file, split="train", cache_dir=str(tmp_path / "cache"))
        tags = entry["tags"]
        for example, row in zip(found, rows(run, split), strict=True):
            asked, replied = example[entry["columns"]["messages"]]
            assert (asked[tags["role_tag"]], replied[tags["role_tag"]]) == (tags["user_tag"], tags["assistant_tag"])
            assert (asked[tags["content_tag"]], replied[tags["content_tag"]]) == (row["prompt"], row["completion"])


def test_openr1_has_all_traces_of_a_problem_in_a_row(tmp_path: Path) -> None:
    no_end = "<think>\n1 + 1 = 2\n\\boxed{2}"
    traces = [trace("a", 0, no_end), trace("a", 1), trace("b")]
    run = filtered(
        tmp_path, [problem("a"), problem("b")], traces, wrong=[("a", 0)],
        filter={"require_correct": False, "require_thinking": False},
    )  # fmt: skip
    export_dataset(run.dataset, "openr1", tmp_path / "out", "mine")
    table = pq.read_table(tmp_path / "out" / "train.parquet").to_pylist()
    kept = [row for row in rows(run) if row["problem_id"] == "a"]
    assert [row["uuid"] for row in table] == ["a", "b"]
    first = table[0]
    assert first["generations"] == [row["completion"] for row in kept]
    assert first["correctness_math_verify"] == [row["outcome"] == "correct" for row in kept]
    assert first["is_reasoning_complete"] == [row["completion"] == GOOD for row in kept]
    assert first["correctness_count"] == sum(first["correctness_math_verify"])
    assert first["messages"][1]["content"] == GOOD
    assert (first["problem"], first["answer"], first["source"]) == ("What is a?", "2", "set")
    assert (first["solution"], first["correctness_llama"]) == (None, None)


def test_openr1_is_read_back_as_it_was_written(run: Run, tmp_path: Path) -> None:
    from small_run import small_run

    from r1distill.filter.public_traces import import_traces
    from r1distill.records import Trace, Verdict
    from r1distill.store import read_records
    from r1distill.traces_section import Traces

    export_dataset(run.dataset, "openr1", tmp_path / "out", "mine")
    other = small_run(tmp_path / "other")
    import_traces(Traces(path=str(tmp_path / "out" / "train.parquet")), other)
    expected = rows(run)
    assert [t.text for t in read_records(other.traces, Trace)] == [row["completion"] for row in expected]
    labels = read_records(other.folder / "labels.parquet", Verdict)
    assert [v.outcome for v in labels] == [row["outcome"] for row in expected]


def test_an_unknown_format_and_a_dataset_of_before_are_refused(run: Run, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--format alpaca: unknown; known: trl, sharegpt, openr1"):
        export_dataset(run.dataset, "alpaca", tmp_path / "out", "mine")
    pq.write_table(pa.table({"prompt": ["?"]}), run.dataset / "train.parquet")
    with pytest.raises(UserError, match=r"train\.parquet: no column messages; run `r1distill filter` again"):
        export_dataset(run.dataset, "trl", tmp_path / "out", "mine")
