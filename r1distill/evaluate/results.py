"""What became of each sample of an evaluation, read from its files without the texts."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from r1distill.errors import UserError
from r1distill.generate.chat import CHARACTERS_A_TOKEN, LONGEST_PERIOD_CHARACTERS
from r1distill.generate.repetition import is_degenerate
from r1distill.records import FinishReason, Verdict
from r1distill.store import opened, read_records

LOOP_TOKENS = 512  # as generate.stop_repetition has it
LOOP_CHARACTERS = 4 * LONGEST_PERIOD_CHARACTERS  # of a text, from its end, that are looked at


@dataclass(frozen=True, slots=True)
class Ending:
    """How a trace ended. `looped`: it was stopped in a loop, or cut off in one."""

    problem_id: str
    sample: int
    finish_reason: FinishReason
    n_tokens: int
    looped: bool


@dataclass(frozen=True, slots=True)
class Result:
    """A trace and the verdict on it."""

    ending: Ending
    verdict: Verdict

    @property
    def right(self) -> bool:
        """A truncated reply is wrong, whatever it says."""
        return self.verdict.outcome == "correct" and self.ending.finish_reason == "stop"


def read_results(folder: Path) -> Iterator[Result]:
    """The results in eval/TASK/MODEL, a row group at a time. Raises UserError where its files are not of one evaluation."""
    traces, verdicts = endings(folder / "traces"), read_records(folder / "verdicts.parquet", Verdict)
    for ending, verdict in zip_longest(traces, verdicts):
        if (
            ending is None
            or verdict is None
            or (ending.problem_id, ending.sample) != (verdict.problem_id, verdict.sample)
        ):
            raise UserError(
                f"{folder}: traces/ and verdicts.parquet are not of one evaluation; delete verdicts.parquet and "
                "stages/eval.json of the run, and run `r1distill eval` again"
            )
        yield Result(ending, verdict)


def endings(traces: Path) -> Iterator[Ending]:
    """Token ids and texts are read only of row groups with a truncated reply: another got out of its loop."""
    columns = ["problem_id", "sample", "finish_reason", "n_tokens"]
    for file in sorted(traces.glob("*.parquet")):
        with opened(file, "delete the file, and run `r1distill eval` again") as parquet:
            for group in range(parquet.num_row_groups):
                rows = parquet.read_row_group(group, columns=columns).to_pylist()
                cut = [place for place, row in enumerate(rows) if row["finish_reason"] == "length"]
                looped = loops(parquet, group, cut)
                looped |= {place for place, row in enumerate(rows) if row["finish_reason"] == "repetition"}
                for place, row in enumerate(rows):
                    yield Ending(**row, looped=place in looped)


def loops(parquet: pq.ParquetFile, group: int, places: list[int]) -> set[int]:
    """Which of the rows `places` of a row group end in a loop."""
    if not places:
        return set()
    ids = parquet.read_row_group(group, columns=["token_ids"]).column(0).take(places)
    texts = parquet.read_row_group(group, columns=["text"]).column(0).take(places) if ids.null_count else None
    return {
        place
        for number, place in enumerate(places)
        if (is_loop(ids[number]) if texts is None or ids[number].is_valid else is_text_loop(texts[number].as_py()))
    }


def is_loop(ids: Any) -> bool:
    """Of one list of token ids in Arrow."""
    return is_degenerate(ids.values.to_numpy(), LOOP_TOKENS)


def is_text_loop(text: str) -> bool:
    """As the sampler finds it in what a server streams that gives no token ids."""
    codes = np.frombuffer(text[-LOOP_CHARACTERS:].encode("utf-32-le", errors="replace"), dtype="<i4")
    return is_degenerate(codes, CHARACTERS_A_TOKEN * LOOP_TOKENS, longest_period=LONGEST_PERIOD_CHARACTERS)
