"""A dataset in the columns of other trainers: TRL's messages, LLaMA-Factory's ShareGPT, OpenR1-Math's.

Each writes a folder that `datasets.load_dataset` opens too, with the dataset's own card. What was filtered out is in none.
"""

from collections.abc import Callable, Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from r1distill.errors import UserError
from r1distill.filter.card import with_files
from r1distill.filter.dataset import MESSAGES
from r1distill.filter.measured import SPLITS
from r1distill.prompting import THINK_END, THINK_START
from r1distill.store import opened, replacing, write_json, write_jsonl, write_text

Row = dict[str, Any]
ROWS_AT_ONCE = 256
ROWS_A_GROUP = 512  # of a Parquet file; an OpenR1 row holds all traces of a problem
TRL_SCHEMA = pa.schema([("messages", MESSAGES)])
# as on https://huggingface.co/datasets/open-r1/OpenR1-Math-220k
OPEN_R1_SCHEMA = pa.schema(
    [
        ("problem", pa.string()),
        ("solution", pa.string()),
        ("answer", pa.string()),
        ("problem_type", pa.string()),
        ("question_type", pa.string()),
        ("source", pa.string()),
        ("uuid", pa.string()),
        ("is_reasoning_complete", pa.list_(pa.bool_())),
        ("generations", pa.list_(pa.string())),
        ("correctness_math_verify", pa.list_(pa.bool_())),
        ("correctness_llama", pa.list_(pa.bool_())),
        ("finish_reasons", pa.list_(pa.string())),
        ("correctness_count", pa.int64()),
        ("messages", MESSAGES),
    ]
)
OPEN_R1_COLUMNS = (
    "problem_id", "problem", "answer", "source", "prompt", "completion", "finish_reason", "outcome",
)  # fmt: skip


def export_dataset(dataset: Path, format: str, folder: Path, name: str) -> list[Path]:
    """Write a dataset in another format into `folder`, a batch at a time. `name` is what LLaMA-Factory is to call it.

    Returns the files. Raises UserError for an unknown format.
    """
    if format not in FORMATS:
        raise UserError(f"--format {format}: unknown; known: {', '.join(FORMATS)}")
    splits = [split for split in SPLITS if (dataset / f"{split}.parquet").is_file()]
    write, columns = FORMATS[format]
    files = write(dataset, splits, folder, name)
    card = (dataset / "README.md").read_text(encoding="utf-8")
    write_text(folder / "README.md", with_files(card, {split: path.name for split, path in files.items()}, columns))
    return sorted(folder.iterdir())


def trl(dataset: Path, splits: list[str], folder: Path, name: str) -> dict[str, Path]:
    """The column `messages`, TRL's conversational language modelling: https://huggingface.co/docs/trl/dataset_formats.

    Beware of chat templates that take the reasoning out of a reply, as DeepSeek-R1's own does.
    """
    return {
        split: write_parquet(
            folder / f"{split}.parquet", TRL_SCHEMA, rows_of(dataset / f"{split}.parquet", ["messages"])
        )
        for split in splits
    }


def sharegpt(dataset: Path, splits: list[str], folder: Path, name: str) -> dict[str, Path]:
    """JSON lines of `conversations`, and dataset_info.json with an entry for each split, as LLaMA-Factory's data/ has them.

    https://github.com/hiyouga/LLaMA-Factory/blob/main/data/README.md; the validation split is NAME_validation.
    """
    files = {}
    for split in splits:
        files[split] = folder / f"{split}.jsonl"
        columns = ["prompt", "completion"]
        write_jsonl(files[split], map(conversation, rows_of(dataset / f"{split}.parquet", columns)))
    info = {name if split == "train" else f"{name}_{split}": factory_entry(path.name) for split, path in files.items()}
    write_json(folder / "dataset_info.json", info)
    return files


def conversation(row: Row) -> Row:
    return {
        "conversations": [
            {"from": "human", "value": row["prompt"]},
            {"from": "gpt", "value": row["completion"]},
        ]
    }


def factory_entry(file_name: str) -> dict[str, Any]:
    return {
        "file_name": file_name,
        "formatting": "sharegpt",
        "columns": {"messages": "conversations"},
        "tags": {"role_tag": "from", "content_tag": "value", "user_tag": "human", "assistant_tag": "gpt"},
    }


def open_r1(dataset: Path, splits: list[str], folder: Path, name: str) -> dict[str, Path]:
    """A row for each problem with all of its traces. `solution` and the types of a problem are not known, and null."""
    return {
        split: write_parquet(
            folder / f"{split}.parquet",
            OPEN_R1_SCHEMA,
            by_problem(rows_of(dataset / f"{split}.parquet", OPEN_R1_COLUMNS)),
        )
        for split in splits
    }


def by_problem(rows: Iterator[Row]) -> Iterator[Row]:
    """Traces of one problem, which come together, as one row; `messages` is the first correct one, else the first."""
    for problem_id, found in groupby(rows, key=lambda row: row["problem_id"]):
        traces = list(found)
        correct = [row["outcome"] == "correct" for row in traces]
        chosen = traces[correct.index(True) if any(correct) else 0]
        yield {
            "problem": chosen["problem"],
            "answer": chosen["answer"],
            "source": chosen["source"],
            "uuid": problem_id,
            "is_reasoning_complete": [is_complete(row) for row in traces],
            "generations": [row["completion"] for row in traces],
            "correctness_math_verify": correct,
            "finish_reasons": [row["finish_reason"] for row in traces],
            "correctness_count": sum(correct),
            "messages": [
                {"role": "user", "content": chosen["prompt"]},
                {"role": "assistant", "content": chosen["completion"]},
            ],
        }


def is_complete(row: Row) -> bool:
    """Whether the thinking was begun and ended once and the reply ended by itself."""
    text = row["completion"]
    return row["finish_reason"] == "stop" and text.count(THINK_START) == text.count(THINK_END) == 1


def rows_of(path: Path, columns: list[str] | tuple[str, ...]) -> Iterator[Row]:
    """The rows of a Parquet file, `ROWS_AT_ONCE` in memory. Raises UserError where it lacks one of the columns."""
    remedy = "run `r1distill filter` again"
    with opened(path, remedy) as file:
        if missing := [name for name in columns if name not in file.schema_arrow.names]:
            raise UserError(f"{path}: no column {', '.join(missing)}; {remedy}")
        for batch in file.iter_batches(ROWS_AT_ONCE, columns=list(columns)):
            yield from batch.to_pylist()


def write_parquet(path: Path, schema: pa.Schema, rows: Iterator[Row]) -> Path:
    with replacing(path) as temporary, pq.ParquetWriter(temporary, schema, compression="zstd") as writer:
        group: list[Row] = []
        for row in rows:
            group.append(row)
            if len(group) == ROWS_A_GROUP:
                writer.write_table(pa.Table.from_pylist(group, schema))
                group = []
        if group:
            writer.write_table(pa.Table.from_pylist(group, schema))
    return path


Writer = Callable[[Path, list[str], Path, str], dict[str, Path]]
# each with what the card says of its columns
FORMATS: dict[str, tuple[Writer, str]] = {
    "trl": (
        trl,
        "`messages`, a chat as TRL takes it: the reasoning is in the reply, between `<think>` and `</think>`.",
    ),
    "sharegpt": (sharegpt, "`conversations`, as LLaMA-Factory takes them: dataset_info.json has the entries."),
    "openr1": (open_r1, "Those of OpenR1-Math-220k: a row for each problem, its traces in `generations`."),
}
