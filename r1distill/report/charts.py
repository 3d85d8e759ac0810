"""Charts as SVG: each function takes numbers and returns text for the page. Colours are classes of page.css.

No style attributes, which the content security policy would refuse; every text goes through `shown`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from r1distill.html_text import shown
from r1distill.report.scales import Scale, compact, counts_in, edges_of, log_ticks, percent, ticks

WIDTH = 440
STRIP_WIDTH, STRIP_HEIGHT, STRIP_MARGIN = 200, 26, 12
COLOURS = 8  # classes series-0 … of page.css


@dataclass(frozen=True, slots=True)
class Line:
    """Points (x, y) of one line, x ascending. `series` is the number of its colour."""

    label: str
    series: int
    points: Sequence[tuple[float, float]]
    dashed: bool = False


def text(x: float, y: float, words: str, kind: str = "tick", anchor: str = "middle") -> str:
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{shown(words)}</text>'


def rule(x1: float, y1: float, x2: float, y2: float, kind: str = "grid") -> str:
    return f'<line class="{kind}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'


def svg(title: str, width: int, height: int, parts: Sequence[str], describe: str = "") -> str:
    """`describe` says in words what is drawn, for whoever cannot see it; the title stands above the chart too."""
    return (
        f'<figure><figcaption>{shown(title)}</figcaption><svg viewBox="0 0 {width} {height}" role="img" '
        f'aria-label="{shown(f"{title}. {describe}")}">{"".join(parts)}</svg></figure>'
    )


# ---------------------------------------------------------------- scores, in a row of a table


def score_axis() -> str:
    """Head of a column of `score_strip`: 0 to 100 %."""
    x = Scale(0, 1, STRIP_MARGIN, STRIP_WIDTH - STRIP_MARGIN)
    marks = [text(x(share), 12, f"{100 * share:.0f}") for share in (0, 0.25, 0.5, 0.75, 1)]
    return f'<svg class="strip" viewBox="0 0 {STRIP_WIDTH} 16" aria-hidden="true">{"".join(marks)}</svg>'


def score_strip(score: float, series: int, questions: Sequence[float] | None, samples: Sequence[float] | None) -> str:
    """A dot at the score, whiskers over questions and a band over samples; the numbers stand beside it."""
    x, y = Scale(0, 1, STRIP_MARGIN, STRIP_WIDTH - STRIP_MARGIN), STRIP_HEIGHT / 2
    parts = []
    if questions:
        low, high = map(x, questions)
        parts += [rule(low, y, high, y, "whisker"), rule(low, y - 5, low, y + 5, "whisker")]
        parts.append(rule(high, y - 5, high, y + 5, "whisker"))
    if samples:
        low, high = map(x, samples)
        parts.append(
            f'<rect class="band" x="{low:.1f}" y="{y - 9}" width="{max(high - low, 1):.1f}" height="18" rx="2"/>'
        )
    parts.append(f'<circle class="dot" cx="{x(score):.1f}" cy="{y}" r="5"/>')
    return strip(f"series-{series % COLOURS}", parts)


def published_strip(scores: Sequence[float]) -> str:
    """A hollow diamond at each score."""
    x, y = Scale(0, 1, STRIP_MARGIN, STRIP_WIDTH - STRIP_MARGIN), STRIP_HEIGHT / 2
    return strip("", [f'<path class="hollow" d="M{x(score):.1f} {y - 5}l5 5l-5 5l-5 -5z"/>' for score in scores])


def strip(kind: str, parts: Sequence[str]) -> str:
    x = Scale(0, 1, STRIP_MARGIN, STRIP_WIDTH - STRIP_MARGIN)
    grid = [rule(x(share), 0, x(share), STRIP_HEIGHT) for share in (0, 0.25, 0.5, 0.75, 1)]
    return (
        f'<svg class="strip {kind}" viewBox="0 0 {STRIP_WIDTH} {STRIP_HEIGHT}" aria-hidden="true">'
        f"{''.join([*grid, *parts])}</svg>"
    )


# ---------------------------------------------------------------- lines


def line_chart(
    title: str, x_label: str, y_label: str, lines: Sequence[Line], *, log_x: bool = False, shares: bool = False
) -> str:
    """Lines over a common axis; with `shares`, y runs from 0 to 100 %, else from 0 to the largest value."""
    height, left, right, top, bottom = 250, 56, 12, 10, 44
    xs = [x for line in lines for x, _ in line.points]
    high_y = 1.0 if shares else max(y for line in lines for _, y in line.points) * 1.05 or 1.0
    low_y = 0.0 if shares else min(0.0, *(y for line in lines for _, y in line.points))
    x = Scale(min(xs), max(xs) if max(xs) > min(xs) else min(xs) + 1, left, WIDTH - right, log_x)
    y = Scale(low_y, high_y, height - bottom, top)
    x_ticks = apart(sorted(set(xs)), x) if log_x else ticks(x.low, x.high)
    parts = []
    for value in ticks(low_y, high_y):
        parts += [
            rule(left, y(value), WIDTH - right, y(value)),
            text(left - 8, y(value) + 4, percent(value, 0) if shares else compact(value), anchor="end"),
        ]
    parts += [text(x(value), height - bottom + 18, compact(value)) for value in x_ticks]
    parts += axis_labels(x_label, y_label, left, height, bottom)
    parts.append(rule(left, height - bottom, WIDTH - right, height - bottom, "axis"))
    for line in lines:
        path = " ".join(f"{x(one):.1f},{y(two):.1f}" for one, two in line.points)
        kind = f"series-{line.series % COLOURS}{' dashed' if line.dashed else ''}"
        parts.append(f'<g class="{kind}"><polyline class="line" points="{path}"/>')
        if len(line.points) <= 16:
            parts += [f'<circle class="dot" cx="{x(one):.1f}" cy="{y(two):.1f}" r="3"/>' for one, two in line.points]
        parts.append(f"<title>{shown(line.label)}</title></g>")
    say = "; ".join(
        f"{line.label} from {said(line.points[0][1], shares)} to {said(line.points[-1][1], shares)}" for line in lines
    )
    return svg(title, WIDTH, height, parts, say) + legend([(line.label, line.series, line.dashed) for line in lines])


def apart(values: Sequence[float], scale: Scale, pixels: float = 22) -> list[float]:
    """The ascending values that can be written side by side, the last one among them."""
    kept: list[float] = []
    for value in reversed(values):
        if not kept or scale(kept[-1]) - scale(value) >= pixels:
            kept.append(value)
    return kept[::-1]


def said(value: float, shares: bool) -> str:
    return percent(value) if shares else f"{value:.4g}"


def axis_labels(x_label: str, y_label: str, left: int, height: int, bottom: int) -> list[str]:
    middle = (height - bottom) / 2
    return [
        text((left + WIDTH) / 2, height - 6, x_label, "label"),
        f'<text class="label" x="12" y="{middle:.0f}" text-anchor="middle" transform="rotate(-90 12 {middle:.0f})">'
        f"{shown(y_label)}</text>",
    ]


def legend(entries: Sequence[tuple[str, int, bool]]) -> str:
    """Names of the lines, with a piece of each."""
    items = [
        f'<li class="series-{series % COLOURS}{" dashed" if dashed else ""}"><svg viewBox="0 0 26 10" aria-hidden="true">'
        f'<line class="line" x1="1" y1="5" x2="25" y2="5"/></svg>{shown(label)}</li>'
        for label, series, dashed in entries
    ]
    return f'<ul class="legend">{"".join(items)}</ul>'


# ---------------------------------------------------------------- lengths of right and wrong answers


def length_histogram(title: str, right: Sequence[int], wrong: Sequence[int], limits: Sequence[int]) -> str:
    """Tokens of the right answers upwards and of the wrong ones downwards, over bins that `limits` (all values) span."""
    height, left, right_edge, top, bottom = 210, 56, WIDTH - 12, 14, 44
    edges, log = edges_of(limits, 32)
    up, down = counts_in(right, edges, log=log), counts_in(wrong, edges, log=log)
    largest_up, largest_down = max(up), max(down)
    y = Scale(-largest_down, largest_up or 1, height - bottom, top)
    x = Scale(edges[0], edges[-1], left, right_edge, log)
    parts = []
    for value in filter(float.is_integer, ticks(-largest_down, largest_up or 1, 4)):
        parts += [
            rule(left, y(value), right_edge, y(value)),
            text(left - 8, y(value) + 4, compact(abs(value)), anchor="end"),
        ]
    for (low, high), n_right, n_wrong in zip(pairwise(edges), up, down, strict=True):
        for count, kind in ((n_right, "right"), (-n_wrong, "wrong")):
            if count:
                ends = sorted((y(0), y(count)))
                parts.append(
                    f'<rect class="bar {kind}" x="{x(low):.1f}" y="{ends[0]:.1f}" width="{max(x(high) - x(low) - 1, 1):.1f}" '
                    f'height="{ends[1] - ends[0]:.1f}"><title>{low:,.0f} to {high:,.0f} tokens: {abs(count):,} {kind}'
                    "</title></rect>"
                )
    chosen = log_ticks(edges[0], edges[-1]) if log else ticks(edges[0], edges[-1])
    parts += [text(x(value), height - bottom + 18, compact(value)) for value in chosen]
    parts += axis_labels(f"tokens of a reply{', logarithmic' if log else ''}", "← wrong  right →", left, height, bottom)
    parts.append(rule(left, y(0), right_edge, y(0), "axis"))
    said = {
        kind: f"{len(values):,} {kind}{f', {median(values):,} tokens in the median' if values else ''}"
        for kind, values in (("right", right), ("wrong", wrong))
    }
    words = "<br>".join(f'<span class="swatch {kind}" aria-hidden="true"></span>{line}' for kind, line in said.items())
    return svg(title, WIDTH, height, parts, "; ".join(said.values())) + f'<p class="caption">{words}</p>'


def median(values: Sequence[int]) -> int:
    return sorted(values)[len(values) // 2]


# ---------------------------------------------------------------- bars


def bar_chart(title: str, x_label: str, rows: Mapping[str, float], written: Mapping[str, str]) -> str:
    """A bar for each name, with its value as `written`."""
    left = 14 + 7 * min(26, max(map(len, rows)))
    right = 14 + 6.5 * min(28, max(map(len, written.values())))
    row = 26
    height = row * len(rows) + 40
    x = Scale(0, max(rows.values()) or 1, left, WIDTH - right)
    parts = []
    for number, (name, value) in enumerate(rows.items()):
        y = 6 + number * row
        parts += [
            text(left - 10, y + 15, name, "name", "end"),
            f'<rect class="bar plain" x="{left}" y="{y}" width="{max(x(value) - left, 1):.1f}" height="{row - 8}"/>',
            text(x(value) + 8, y + 14, written[name], "tick", "start"),
        ]
    parts += [rule(left, 0, left, row * len(rows) + 4, "axis"), text(left, height - 8, x_label, "label", "start")]
    return svg(title, WIDTH, height, parts, "; ".join(f"{name} {written[name]}" for name in rows))
