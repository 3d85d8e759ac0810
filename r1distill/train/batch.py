"""The effective batch, in sequences: what the recipe asks for, and how packed rows come nearest to it."""

import bisect
from collections.abc import Sequence
from dataclasses import dataclass

PACKED_TOGETHER = 1000  # trl.pack_dataset packs so many examples at a time
NEAR = 0.05  # share by which a batch may differ and still count as kept


@dataclass(frozen=True, slots=True)
class Batch:
    """One optimizer step: `rows` a device and forward pass, `accumulation` passes, `sequences` of all devices together."""

    rows: int
    accumulation: int
    sequences: float


def count_packs(lengths: Sequence[int], max_length: int) -> int:
    """Rows of at most `max_length` tokens that best-fit decreasing makes of sequences of these lengths, as TRL packs them."""
    return sum(
        packs_of(lengths[start : start + PACKED_TOGETHER], max_length)
        for start in range(0, len(lengths), PACKED_TOGETHER)
    )


def packs_of(lengths: Sequence[int], max_length: int) -> int:
    spaces: list[int] = []  # what is left in each row, ascending
    for length in sorted(lengths, reverse=True):
        fullest = bisect.bisect_left(spaces, length)
        space = spaces.pop(fullest) if fullest < len(spaces) else max_length
        bisect.insort(spaces, space - length)
    return len(spaces)


def packed_batch(rows: int, accumulation: int, processes: int, sequences_a_pack: float) -> Batch:
    """The batch of packed rows with as many sequences as `rows × accumulation × processes` unpacked ones.

    A row of one sequence becomes a row of `sequences_a_pack`, so that without this a step would silently be as many times
    larger. No device is given more rows than before; of batches that are within 5 % of the wanted one, that with the most
    rows a pass is taken, which is the fastest.
    """
    wanted = rows * accumulation * processes
    batches = []
    for fewer in range(1, rows + 1):
        of_a_pass = fewer * processes * sequences_a_pack
        passes = max(1, round(wanted / of_a_pass))
        batches.append(Batch(fewer, passes, passes * of_a_pass))
    return min(batches, key=lambda batch: (max(abs(batch.sequences / wanted - 1), NEAR), -batch.rows))
