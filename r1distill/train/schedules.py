"""Numbers that change over a training: pure functions of the step, so that a resumed run is the same run."""

import math

from r1distill.train_sections import Schedule


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
