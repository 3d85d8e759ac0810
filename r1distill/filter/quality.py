"""The quality score of a trace: a weighted mean of freshness, completeness, consistency and diversity, each in [0, 1].

    quality = sum of w_t s_t / sum of w_t, over the terms t that are known of the trace

The articles give the weights (r1distill/filter_sections.py: WEIGHT_SETS) and the names of the terms; what they leave open is
settled here, each in the docstring of its function.
"""

from collections.abc import Mapping, Sequence
from datetime import date

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from r1distill.filter.columns import numbers
from r1distill.filter_sections import Quality, Term

Floats = NDArray[np.float64]


def quality_columns(
    tags: pa.Table, dates: Sequence[str], settings: Quality, *, require_thinking: bool = True
) -> dict[str, Floats]:
    """freshness, completeness, diversity and quality `(N,)` of each trace, NaN where not known.

    `tags` has the columns of tags.parquet that come from one trace or problem; `dates (N,)` are those of the problems.
    `require_thinking` as in [filter]: whether a reply without `<think>` is an incomplete one.
    """
    terms: dict[Term, Floats] = {
        "freshness": freshness(dates, settings.reference_date, settings.tau_days),
        "completeness": completeness(tags, require_thinking=require_thinking),
        "consistency": consistency(tags),
        "diversity": diversity(tags[settings.category].to_pylist()),
    }
    quality = weighted_mean(terms, settings.shares)
    return {**{name: values for name, values in terms.items() if name != "consistency"}, "quality": quality}


def weighted_mean(terms: Mapping[Term, Floats], weights: Mapping[Term, float]) -> Floats:
    """sum w s / sum w over the terms that are not NaN, `(N,)`: the weights of a row that are left sum to 1 again.

    NaN where no term with a weight above 0 is known. Each term is `(N,)`, in [0, 1].
    """
    used: list[Term] = [name for name, weight in weights.items() if weight > 0]
    values = np.stack([terms[name] for name in used], axis=1)
    shares = np.where(np.isnan(values), 0.0, np.array([weights[name] for name in used]))
    total = shares.sum(axis=1)
    # first the shares, then their sum: where all terms are equal, so is the mean, to rounding
    shares = np.divide(shares, total[:, None], out=np.zeros_like(shares), where=total[:, None] > 0)
    mean = np.clip((shares * np.nan_to_num(values)).sum(axis=1), 0.0, 1.0)
    return np.where(total > 0, mean, np.nan)


def freshness(dates: Sequence[str], reference: str | None, tau_days: float) -> Floats:
    """exp(-Δt / τ) with Δt the days from the problem's date to `reference`, `(N,)`; NaN without a date.

    A month or a year stands for its first day. A problem that is newer than the reference is as fresh as one of that day.
    The reference is of the recipe and not today, so that a run gives the same scores next year; None is the newest of
    `dates`.
    """
    days = days_of(dates)
    if np.isnan(days).all():
        return days
    origin = float(date.fromisoformat(reference).toordinal()) if reference else np.nanmax(days)
    return np.exp(-np.maximum(origin - days, 0.0) / tau_days)


def days_of(dates: Sequence[str]) -> Floats:
    """The number of the day of "2025-01-31", "2025-01" or "2025", `(N,)`; what follows a day, such as a time, is not read."""
    known: dict[str, float] = {}
    for text in set(dates):
        whole = text[:10] + "-01-01"[len(text) - 4 :] if len(text) in (4, 7) else text[:10]
        try:
            known[text] = float(date.fromisoformat(whole).toordinal())
        except ValueError:
            known[text] = np.nan
    return np.array([known[text] for text in dates], dtype=np.float64)


def completeness(tags: pa.Table, *, require_thinking: bool = True) -> Floats:
    """The share of three checks that a trace passes, `(N,)`, of those that are known; NaN where none is.

    It ended by itself (`finish_reason` is stop); it has its form (`format` is ok, or no_thinking where no thinking is asked
    for); it has an answer (some text behind the thinking, and an outcome other than no_answer).
    """
    forms = ("ok",) if require_thinking else ("ok", "no_thinking")
    checks = zip(
        (None if reason is None else reason == "stop" for reason in tags["finish_reason"].to_pylist()),
        (None if form is None else form in forms for form in tags["format"].to_pylist()),
        map(has_answer, tags["n_answer_characters"].to_pylist(), tags["outcome"].to_pylist()),
        strict=True,
    )
    known = ([check for check in of_trace if check is not None] for of_trace in checks)
    return np.array([sum(each) / len(each) if each else np.nan for each in known], dtype=np.float64)


def has_answer(n_characters: int | None, outcome: str | None) -> bool | None:
    """None where what is known of the two does not decide it."""
    if n_characters == 0 or outcome == "no_answer":
        return False
    return None if n_characters is None or outcome is None else True


def consistency(tags: pa.Table) -> Floats:
    """The share of the samples of its problem that give the same answer, `(N,)`.

    NaN for the only sample of a problem: it agrees with itself, which says nothing.
    """
    return np.where(numbers(tags, "n_samples") >= 2, numbers(tags, "consistency"), np.nan)


def diversity(categories: Sequence[str | int | None]) -> Floats:
    """min(1, ln(1 / p) / ln C) for a trace whose category has the share p of the set, of C categories, `(N,)`.

    The articles measure the diversity of a set, the entropy H = -sum p ln p of its category shares. ln(1 / p) is what one
    trace adds to it: the mean over the traces is H, and H / ln C is at most 1 (Pielou's evenness). So a trace of a category
    no larger than an even share, p <= 1 / C, has 1, and a larger category has less. NaN without a category, and for all where
    there is but one, which tells no trace from another.
    """
    place, counts = category_counts(categories)
    if len(counts) < 2:
        return np.full(len(categories), np.nan)
    known = np.where(place < 0, 0, place)
    information = np.log(counts.sum() / counts[known]) / np.log(len(counts))
    # an even share itself is 1, not a little less by rounding
    even = counts[known] * len(counts) <= counts.sum()
    return np.where(place < 0, np.nan, np.where(even, 1.0, np.minimum(information, 1.0)))


def category_entropy(categories: Sequence[str | int | None]) -> dict[str, float | int | None]:
    """The diversity of a set: its number of categories, H in nats, and the evenness H / ln C, None of fewer than two."""
    counts = category_counts(categories)[1]
    if not len(counts):
        return {"categories": 0, "entropy_nats": 0.0, "evenness": None}
    shares = counts / counts.sum()
    entropy = max(float(-(shares * np.log(shares)).sum()), 0.0)
    evenness = entropy / float(np.log(len(counts))) if len(counts) > 1 else None
    return {"categories": len(counts), "entropy_nats": entropy, "evenness": evenness}


def category_counts(categories: Sequence[str | int | None]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The number of each trace's category `(N,)`, -1 without one ("" is none), and how many traces each has `(C,)`."""
    numbers: dict[str | int, int] = {}
    place = np.array(
        [-1 if name in (None, "") else numbers.setdefault(name, len(numbers)) for name in categories], dtype=np.int64
    )
    return place, np.bincount(place[place >= 0], minlength=len(numbers))
