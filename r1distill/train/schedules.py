"""Numbers that change over a training: pure functions of the step, so that a resumed run is the same run."""

import math
from bisect import bisect_right
from itertools import pairwise

from r1distill.errors import UserError
from r1distill.train_sections import Restarts, Schedule


def value_at(schedule: float | Schedule, step: int, steps: int) -> float:
    """The schedule's value at optimizer step `step` of `steps`, counted from 0; the last step is the end of it."""
    if not isinstance(schedule, Schedule):
        return float(schedule)
    progress = min(step / max(steps - 1, 1), 1.0)
    if schedule.values is not None and schedule.at is not None:
        passed = sum(at <= progress for at in schedule.at)
        return schedule.values[passed - 1]
    share = progress if schedule.kind == "linear" else (1 - math.cos(math.pi * progress)) / 2
    assert schedule.start is not None and schedule.end is not None  # noqa: PT018 - the recipe has checked it
    return schedule.start + (schedule.end - schedule.start) * share


def all_values(schedule: float | Schedule) -> list[float] | None:
    """The values it takes, where they are few; None where it moves through a range."""
    if not isinstance(schedule, Schedule):
        return [float(schedule)]
    return list(dict.fromkeys(schedule.values)) if schedule.values is not None else None


def cycle_starts(restarts: Restarts, steps: int, warmup: int) -> list[int]:
    """The step at which each cycle is at its peak, and then `steps`, where the last one ends.

    Cycles are whole steps long, so that every peak is met. Raises UserError where a cycle would have none.
    """
    lengths = [restarts.length_multiplier**cycle for cycle in range(restarts.cycles)]
    ends = [warmup + round((steps - warmup) * sum(lengths[: n + 1]) / sum(lengths)) for n in range(restarts.cycles)]
    starts = [warmup, *ends]
    if any(end <= start for start, end in pairwise(starts)):
        raise UserError(
            f"[train.restarts]: {restarts.cycles} cycles, each {restarts.length_multiplier:g} times as long as the one before, "
            f"do not fit in {steps - warmup} steps ({steps} less {warmup} of warm-up); take fewer cycles or train longer"
        )
    return starts


def share_of_peak_rate(restarts: Restarts, starts: list[int], step: int) -> float:
    """The learning rate of optimizer step `step` as a share of its peak; `starts` are those of `cycle_starts`.

    Warm-up is linear from 0. In cycle i, of T_i steps, t steps after its start (SGDR, equation 5,
    https://arxiv.org/abs/1608.03983): min + (peak_decay^i - min) (1 + cos(pi t / T_i)) / 2.
    """
    if step < starts[0]:
        return step / starts[0]
    if step >= starts[-1]:  # torch asks for the rate after the last step too
        return restarts.min_rate
    cycle = bisect_right(starts, step) - 1
    elapsed = (step - starts[cycle]) / (starts[cycle + 1] - starts[cycle])
    peak = restarts.peak_decay**cycle
    return restarts.min_rate + (peak - restarts.min_rate) * (1 + math.cos(math.pi * elapsed)) / 2
