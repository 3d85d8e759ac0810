"""Markdown for the Hub. Names of models, sources and benchmarks are others' text: they must show as what they are."""

import math
import re
from collections.abc import Sequence

from r1distill.html_text import is_hidden

MOST_CHARACTERS = 200
# whatever can begin or end markup, a link or an entity; a character reference never does (CommonMark 0.31, section 6.2)
MARKUP = re.compile(r"[\\`*_\[\]<>&|~:@#!$\"'^={}()]|(?<=www)\.")
BAR_CELLS = 24


def plain(text: str, most: int = MOST_CHARACTERS) -> str:
    """Text for the inside of a line, which a Markdown renderer shows as it is; what cannot be seen is spelled out.

    White space becomes one space, and what is over `most` characters is cut off.
    """
    text = " ".join(text.split())
    text = text if len(text) <= most else f"{text[: most - 1]}…"
    text = "".join(f"⟨U+{ord(one):04X}⟩" if is_hidden(one) else one for one in text)
    return MARKUP.sub(lambda found: f"&#{ord(found[0])};", text)


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """The lines of a table. Its cells are Markdown: what is not ours goes through `plain` first."""
    return [f"| {' | '.join(head)} |", "|" + " --- |" * len(head), *(f"| {' | '.join(row)} |" for row in rows)]


def histogram(values: Sequence[float], bins: int = 12) -> list[tuple[float, float, int]]:
    """(from, to, count) of at most `bins` bins of equal, round width from 0 on. A value is in the bin that it is less than
    the end of; the values are not negative and not all missing."""
    width = round_width(max(values), bins)
    counts = [0] * (int(max(values) // width) + 1)
    for value in values:
        counts[int(value // width)] += 1
    return [(width * place, width * (place + 1), count) for place, count in enumerate(counts)]


def round_width(largest: float, bins: int) -> float:
    """The smallest of 1, 2 and 5 times a power of ten of which less than `bins` go into `largest`."""
    if largest < 1e-12:
        return 1.0
    power = 10.0 ** (math.floor(math.log10(largest / bins)) - 1)
    return next(
        width for step in range(4) for factor in (1, 2, 5) if largest / (width := factor * power * 10**step) < bins
    )


def bar(count: int, largest: int) -> str:
    """A bar of eighths of a character; something for everything that is not 0."""
    eighths = max(round(8 * BAR_CELLS * count / largest), 1) if count else 0
    return "█" * (eighths // 8) + (" ▏▎▍▌▋▊▉"[eighths % 8] if eighths % 8 else "")


def histogram_table(what: str, values: Sequence[float], unit: str, number: str) -> list[str]:
    """A table of bars. `number` is the format of the bins' ends."""
    bins = histogram(values)
    most = max(count for _, _, count in bins)
    rows = [(f"{low:{number}} – {high:{number}}", f"{count:,}", bar(count, most)) for low, high, count in bins]
    return table((f"{what}, {unit}", "traces", ""), rows)
