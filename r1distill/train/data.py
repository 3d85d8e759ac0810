"""The dataset of the run as token ids: rendered, checked, and without what is too long."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datasets import Dataset, load_dataset

from r1distill.errors import UserError
from r1distill.train.render import IGNORED, check_example, render_example


@dataclass(frozen=True)
class Data:
    """`train` and `validation` have the columns input_ids and labels."""

    train: Dataset
    validation: Dataset | None
    overlong: int
    tokens: int
    supervised_tokens: int


def load_data(
    folder: Path, cache: Path, tokenizer: Any, *, prefill: str, max_length: int, overlong: str, processes: int | None
) -> Data:
    """Raises UserError when nothing is left, and for overlong examples with `overlong = "error"`."""
    files = {
        split: str(folder / f"{split}.parquet")
        for split in ("train", "validation")
        if (folder / f"{split}.parquet").exists()
    }
    loaded = load_dataset("parquet", data_files=files, cache_dir=str(cache))
    first = loaded["train"][0]
    check_example(
        tokenizer, render_example(tokenizer, first["prompt"], first["completion"], prefill), first["completion"]
    )

    def to_ids(row: dict[str, Any]) -> dict[str, Any]:
        example = render_example(tokenizer, row["prompt"], row["completion"], prefill)
        supervised = sum(label != IGNORED for label in example.labels)
        return {
            "input_ids": example.input_ids,
            "labels": example.labels,
            "length": len(example.labels),
            "supervised": supervised,
        }

    tokenised = loaded.map(to_ids, remove_columns=loaded["train"].column_names, num_proc=processes)
    kept = tokenised.filter(lambda length: length <= max_length, input_columns="length")
    n_overlong = sum(tokenised[split].num_rows - kept[split].num_rows for split in files)
    if n_overlong and overlong == "error":
        raise UserError(
            f'{n_overlong} examples are longer than train.max_length = {max_length}; raise it, or set train.overlong = "drop"'
        )
    if not kept["train"].num_rows:
        raise UserError(f"all {n_overlong} examples are longer than train.max_length = {max_length}; raise it")
    return Data(
        train=kept["train"].select_columns(["input_ids", "labels"]),
        validation=kept["validation"].select_columns(["input_ids", "labels"]) if "validation" in files else None,
        overlong=n_overlong,
        tokens=sum(kept["train"]["length"]),
        supervised_tokens=sum(kept["train"]["supervised"]),
    )
