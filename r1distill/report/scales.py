"""Axes of the charts: where a value stands, which ticks to draw, and how numbers are written."""

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Scale:
    """Maps [low, high] of the data to [start, end] of the drawing; by the logarithm if `log`."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        low, high, value = (math.log(one) if self.log else one for one in (self.low, self.high, value))
        return self.start + (value - low) / (high - low) * (self.end - self.start)


def ticks(low: float, high: float, number: int = 5) -> list[float]:
    """About `number` round values within [low, high]: multiples of 1, 2 or 5 times a power of ten."""
    step = (high - low) / number
    magnitude = 10.0 ** math.floor(math.log10(step))
    step = magnitude * next(one for one in (1, 2, 5, 10) if one * magnitude >= step * 0.7)
    first = math.ceil(low / step - 1e-9)
    return [round(n * step, 12) for n in range(first, math.floor(high / step + 1e-9) + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    """1, 2 and 5 times the powers of ten within [low, high]; the powers alone where that would be too many."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    fine = [factor * 10.0**power for power in powers for factor in (1, 2, 5)]
    inside = [one for one in fine if low <= one <= high]
    return inside if len(inside) <= 8 else [one for one in inside if math.log10(one).is_integer()]


def edges_of(values: Sequence[int], bins: int) -> tuple[list[float], bool]:
    """(edges of a histogram, whether they are spaced by the logarithm): they are where the values span a factor of 20."""
    low, high = max(1, min(values)), max(2, *values)
    if high / low >= 20:
        return [low * (high / low) ** (n / bins) for n in range(bins + 1)], True
    low = min(low, high - 1)
    return [low + (high - low) * n / bins for n in range(bins + 1)], False


def counts_in(values: Sequence[int], edges: Sequence[float], *, log: bool) -> list[int]:
    """How many values are in each bin; what lies outside counts in the first or the last."""
    counts = [0] * (len(edges) - 1)
    scale = Scale(edges[0], edges[-1], 0, len(counts), log)
    for value in values:
        counts[min(len(counts) - 1, max(0, int(scale(max(value, edges[0])))))] += 1
    return counts


def percent(share: float, digits: int = 1) -> str:
    return f"{100 * share:.{digits}f} %"


def compact(value: float) -> str:
    """A number for an axis: 500, 1k, 2.5k, 1M, 0.02."""
    for limit, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= limit:
            return f"{value / limit:g}{letter}"
    return f"{value:g}"
