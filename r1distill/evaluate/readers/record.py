"""What every reader gives: one response that someone else sampled and graded."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from r1distill.evaluate.readers.known import KnownProblems
from r1distill.records import Problem


@dataclass(frozen=True, slots=True)
class Generation:
    """One response with its published verdict.

    `question` is what the file calls the question, `sample` the place of the response among those to it. `problem` is
    None where nothing is known to judge by, and `missing` says what. `right` is the published verdict on this response,
    `score` the published share of right responses to the question, in [0, 1]; None where the file does not tell.
    `metric` names the score as its tool does.
    """

    place: str
    question: str
    sample: int
    problem: Problem | None
    response: str
    right: bool | None
    score: float | None
    metric: str
    missing: str = ""


Reader = Callable[[Path, KnownProblems | None, str | None], Iterator[Generation]]


def share_of(value: Any) -> float | None:
    """A published score as a share; None for what is none: NaN, text, or a value outside [0, 1]."""
    try:
        share = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return share if 0 <= share <= 1 and not math.isnan(share) else None


def verdicts_of(score: float | None, responses: int) -> list[bool | None]:
    """The verdict on each response as far as the score of all tells: all are right at 1 and wrong at 0."""
    return [score == 1 if score in (0, 1) else None] * responses


def score_of(verdicts: Sequence[bool | None]) -> float | None:
    """The share of right ones where all verdicts are known."""
    known = [verdict for verdict in verdicts if verdict is not None]
    return sum(known) / len(known) if known and len(known) == len(verdicts) else None
