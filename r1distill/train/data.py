"""The dataset of the run as token ids: rendered, every example checked, and none longer than the student reads."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset, DatasetDict, load_dataset

from r1distill.errors import UserError
from r1distill.prompting import THINK_END
from r1distill.store import file_sha256
from r1distill.train.cross_data import GROUPS, TEACHER_IDS, Aligner
from r1distill.train.curriculum import PHASE, POOLS, Plan, Share, shares_of
from r1distill.train.render import IGNORED, Example, check_example, cut, malformed, render_example, render_sampled
from r1distill.train.several_teachers import Numbering
from r1distill.train.teacher_cache import MANIFEST, NO_ROW, TeacherCache


@dataclass(frozen=True)
class Data:
    """`train` and `validation` have the columns input_ids and labels, and with a cache teacher_row.

    With a curriculum `train` is the whole training in its order, every example as often as it is read, and has `phase`.
    """

    train: Dataset
    validation: Dataset | None
    overlong_dropped: int
    overlong_truncated: int
    cut_in_thinking: int  # of those truncated; they teach no answer
    malformed: dict[str, int]  # left out, by reason
    lengths: list[int]  # tokens of each example of `train`
    supervised_tokens: int
    with_rows: int  # examples of `train` whose tokens have distributions
    shares: list[Share]  # what the phases of a curriculum read; empty without one

    @property
    def tokens(self) -> int:
        return sum(self.lengths)


def load_data(
    folder: Path,
    work: Path,
    tokenizer: Any,
    *,
    prefill: str,
    max_length: int,
    overlong: str,
    processes: int | None,
    teacher_caches: Sequence[Path] = (),
    taken: tuple[bytes, ...] = (),
    curriculum: Callable[[list[list[str]]], Plan] | None = None,
    aligner: Aligner | None = None,
) -> Data:
    """Raises UserError where an example is not taught as it should be, and for overlong ones with `overlong = "error"`.

    With `teacher_caches` the examples are the very tokens that were sampled, and each knows its row there; of several
    caches `taken` is that of SeveralTeachers. A `curriculum` makes an order of the pools of each example. With an `aligner`
    they have the tokens of another teacher too.
    """
    files = {
        split: str(folder / f"{split}.parquet")
        for split in ("train", "validation")
        if (folder / f"{split}.parquet").exists()
    }
    loaded = load_dataset("parquet", data_files=files, cache_dir=str(work))
    if curriculum is not None and POOLS not in loaded["train"].column_names:
        raise UserError(
            f"[train.curriculum] needs the column `{POOLS}` in {files['train']}: of each example the names of its pools, a "
            f"list or one string; there are {', '.join(loaded['train'].column_names)}; add it, or take [train.curriculum] out"
        )
    # decides the fingerprint under which `datasets` keeps the result
    made_by = [file_sha256(cache / MANIFEST) for cache in teacher_caches]
    caches = tuple(teacher_caches)

    def to_ids(row: dict[str, Any], made_by: list[str]) -> dict[str, Any]:
        example, rows = tokenised(row, tokenizer, prefill, caches, taken)
        found = checked(row, example, tokenizer, max_length if overlong == "truncate" else None)
        if curriculum is not None:
            found[POOLS] = pools_of(row.get(POOLS))
        if aligner is not None:
            found |= aligner.columns(row["prompt"], row["completion"], example, found["length"])
        if not caches:
            return found
        length = found["length"]
        return {**found, "teacher_row": (rows or [NO_ROW] * length)[:length], "has_rows": rows is not None}

    mapped = loaded.map(
        to_ids, remove_columns=loaded["train"].column_names, num_proc=processes, fn_kwargs={"made_by": made_by}
    )
    faults = [fault for fault in of_splits(mapped, "fault") if fault]
    if faults:
        examples = sum(mapped.num_rows.values())
        raise UserError(f"{len(faults)} of {examples} examples cannot be taught; the first is {faults[0]}")
    reasons = Counter(reason for reason in of_splits(mapped, "malformed") if reason)
    sound = mapped.filter(lambda reason: not reason, input_columns="malformed")
    if not sound["train"].num_rows:
        raise UserError(f"{folder}: no example is left, all are malformed: {dict(reasons)}; sample others")
    kept = sound.filter(lambda length: length <= max_length, input_columns="length")
    n_overlong = sum(sound.num_rows.values()) - sum(kept.num_rows.values())
    if n_overlong and overlong == "error":
        raise UserError(
            f'{n_overlong} examples are longer than train.max_length = {max_length}; raise it, or set train.overlong = "drop"'
        )
    if not kept["train"].num_rows:
        raise UserError(f"all {n_overlong} examples are longer than train.max_length = {max_length}; raise it")
    columns = ["input_ids", "labels", *(["teacher_row"] if caches else [])]
    columns += [] if aligner is None else [TEACHER_IDS, GROUPS]
    train, shares = kept["train"], []
    if curriculum is not None:
        plan = curriculum(train[POOLS][:])
        shares = shares_of(plan, np.array(train["length"][:]))
        train = train.select(plan.examples).add_column(PHASE, plan.phase)
    with_rows = sum(train["has_rows"]) if caches else 0
    if aligner is not None:
        with_rows = sum(bool(groups) for groups in train[GROUPS])
        if not with_rows:
            raise UserError(
                "train.kl.cross_tokenizer: no example reads the same in the tokens of both, so that nothing can be compared; the "
                "template or tokenizer of the teacher, or of the student, changes the reply: take others"
            )
    return Data(
        train=train.select_columns([*columns, *([PHASE] if shares else [])]),
        validation=kept["validation"].select_columns(columns) if "validation" in files else None,
        overlong_dropped=n_overlong,
        overlong_truncated=sum(of_splits(kept, "cut")),
        cut_in_thinking=sum(of_splits(kept, "cut_in_thinking")),
        malformed=dict(reasons),
        lengths=list(train["length"]),
        supervised_tokens=sum(train["supervised"]),
        with_rows=with_rows,
        shares=shares,
    )


def pools_of(value: str | list[str] | None) -> list[str]:
    return [value] if isinstance(value, str) else list(value or [])


def of_splits(dataset: DatasetDict, column: str) -> Iterator[Any]:
    for split in dataset.values():
        yield from split[column]


def tokenised(
    row: dict[str, Any], tokenizer: Any, prefill: str, teacher_caches: tuple[Path, ...], taken: tuple[bytes, ...]
) -> tuple[Example, list[int] | None]:
    """An example, and the row of each of its tokens in the caches where it has them."""
    if teacher_caches:
        found = opened(teacher_caches, taken).tokens_of(row["problem_id"], row["sample"])
        if found is not None:
            sampled, first = found[0].tolist(), found[1]
            with_rows = render_sampled(tokenizer, row["prompt"], row["completion"], prefill, sampled, first)
            if with_rows is not None:
                return with_rows
    return render_example(tokenizer, row["prompt"], row["completion"], prefill), None


def checked(row: dict[str, Any], example: Example, tokenizer: Any, cut_at: int | None) -> dict[str, Any]:
    """The row of the tokenised dataset, with all that is counted, and what is wrong with it.

    An example longer than `cut_at` is cut there, unless its prompt alone is: then nothing would be taught.
    """
    reply = row["completion"]
    reason = malformed(tokenizer, example, reply)
    fault = ""
    if reason is None:
        try:
            check_example(tokenizer, example, reply)
        except UserError as error:  # a column, so that it is known how many there are
            fault = f"problem {row.get('problem_id')}, sample {row.get('sample')}: {error}"
    is_cut = cut_at is not None and len(example.labels) > cut_at and example.labels[cut_at - 1] != IGNORED
    if is_cut:
        assert cut_at is not None
        example = cut(example, cut_at)
    taught = [label for label in example.labels if label != IGNORED]
    return {
        "input_ids": example.input_ids,
        "labels": example.labels,
        "length": len(example.labels),
        "supervised": len(taught),
        "cut": is_cut,
        "cut_in_thinking": is_cut and THINK_END in reply and THINK_END not in tokenizer.decode(taught),
        "malformed": reason or "",
        "fault": fault,
    }


@cache
def opened(folders: tuple[Path, ...], taken: tuple[bytes, ...]) -> TeacherCache | Numbering:
    """One a process: they are memory-mapped and cannot be sent to another."""
    caches = [TeacherCache(folder) for folder in folders]
    return Numbering(caches, taken) if taken else caches[0]
