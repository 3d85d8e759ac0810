"""The dataset of the run as token ids: rendered, checked, and without what is too long."""

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from datasets import Dataset, load_dataset

from r1distill.errors import UserError
from r1distill.store import file_sha256
from r1distill.train.render import IGNORED, check_example, render_example, render_sampled
from r1distill.train.teacher_cache import MANIFEST, NO_ROW, TeacherCache


@dataclass(frozen=True)
class Data:
    """`train` and `validation` have the columns input_ids and labels, and with a cache teacher_row."""

    train: Dataset
    validation: Dataset | None
    overlong: int
    tokens: int
    supervised_tokens: int
    with_rows: int  # examples of `train` whose tokens have distributions


def load_data(
    folder: Path,
    work: Path,
    tokenizer: Any,
    *,
    prefill: str,
    max_length: int,
    overlong: str,
    processes: int | None,
    teacher_cache: Path | None = None,
) -> Data:
    """Raises UserError when nothing is left, and for overlong examples with `overlong = "error"`.

    With a `teacher_cache` the examples are the very tokens that were sampled, and each knows its row there.
    """
    files = {
        split: str(folder / f"{split}.parquet")
        for split in ("train", "validation")
        if (folder / f"{split}.parquet").exists()
    }
    loaded = load_dataset("parquet", data_files=files, cache_dir=str(work))
    first = loaded["train"][0]
    check_example(
        tokenizer, render_example(tokenizer, first["prompt"], first["completion"], prefill), first["completion"]
    )

    # decides the fingerprint under which `datasets` keeps the result
    made_by = None if teacher_cache is None else file_sha256(teacher_cache / MANIFEST)

    def to_ids(row: dict[str, Any], made_by: str | None) -> dict[str, Any]:
        example, rows = None, None
        if teacher_cache is not None:
            found = opened(teacher_cache).tokens_of(row["problem_id"], row["sample"])
            if found is not None:
                sampled, first = found[0].tolist(), found[1]
                whole = render_sampled(tokenizer, row["prompt"], row["completion"], prefill, sampled, first)
                example, rows = whole or (None, None)
        example = example or render_example(tokenizer, row["prompt"], row["completion"], prefill)
        supervised = sum(label != IGNORED for label in example.labels)
        return {
            "input_ids": example.input_ids,
            "labels": example.labels,
            **({} if teacher_cache is None else {"teacher_row": rows or [NO_ROW] * len(example.labels)}),
            "has_rows": rows is not None,
            "length": len(example.labels),
            "supervised": supervised,
        }

    tokenised = loaded.map(
        to_ids, remove_columns=loaded["train"].column_names, num_proc=processes, fn_kwargs={"made_by": made_by}
    )
    kept = tokenised.filter(lambda length: length <= max_length, input_columns="length")
    n_overlong = sum(tokenised[split].num_rows - kept[split].num_rows for split in files)
    if n_overlong and overlong == "error":
        raise UserError(
            f'{n_overlong} examples are longer than train.max_length = {max_length}; raise it, or set train.overlong = "drop"'
        )
    if not kept["train"].num_rows:
        raise UserError(f"all {n_overlong} examples are longer than train.max_length = {max_length}; raise it")
    columns = ["input_ids", "labels", *([] if teacher_cache is None else ["teacher_row"])]
    return Data(
        train=kept["train"].select_columns(columns),
        validation=kept["validation"].select_columns(columns) if "validation" in files else None,
        overlong=n_overlong,
        tokens=sum(kept["train"]["length"]),
        supervised_tokens=sum(kept["train"]["supervised"]),
        with_rows=sum(kept["train"]["has_rows"]),
    )


@cache
def opened(folder: Path) -> TeacherCache:
    """One a process: it is memory-mapped and cannot be sent to another."""
    return TeacherCache(folder)
