"""The sections of the page that come from the traces: lengths of right and wrong replies, the worst questions."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from r1distill.html_text import shown
from r1distill.report.charts import length_histogram
from r1distill.report.embedding import Measured
from r1distill.report.scales import percent
from r1distill.report.scores import cells, scrolling

ROWS = 12


@dataclass(frozen=True, slots=True)
class Standing:
    """How the models do on one question: {model: (right, samples)} for those with verified samples."""

    number: int
    counts: dict[str, tuple[int, int]]

    @property
    def shares(self) -> list[float]:
        return [right / samples for right, samples in self.counts.values()]

    @property
    def mean(self) -> float:
        return sum(self.shares) / len(self.shares)

    @property
    def spread(self) -> float:
        return max(self.shares) - min(self.shares)


def lengths(title: str, measured: Mapping[str, Measured]) -> str:
    """A histogram for each model of a task, over common bins."""
    limits = [tokens for one in measured.values() for tokens in (*one.tokens_right, *one.tokens_wrong)]
    charts = [
        f'<div class="chart">{length_histogram(f"{model} on {title}", one.tokens_right, one.tokens_wrong, limits)}</div>'
        for model, one in measured.items()
        if one.tokens_right or one.tokens_wrong
    ]
    return f'<h3>{shown(title)}</h3><div class="charts">{"".join(charts)}</div>' if charts else ""


def standings(measured: Mapping[str, Measured]) -> list[Standing]:
    numbers = dict.fromkeys(number for one in measured.values() for number in one.samples)
    return [
        Standing(
            number,
            {
                model: (one.right[number], one.samples[number])
                for model, one in measured.items()
                if one.samples.get(number)
            },
        )
        for number in numbers
    ]


def worst_questions(title: str, task: int, measured: Mapping[str, Measured], excerpts: Sequence[str]) -> str:
    """Two tables for a task: the lowest shares of right replies, and where the models differ most."""
    found = standings(measured)
    if not found:
        return ""
    models = list(measured)
    never = sum(not standing.mean for standing in found)
    worst = sorted(found, key=lambda standing: standing.mean)[:ROWS]
    parts = [
        f"<div><h3>{shown(title)}: lowest share of right replies"
        f"<small>{never:,} of {len(found):,} never right</small></h3>"
        f"{standing_table(f'Worst questions of {title}', task, worst, models, excerpts)}</div>"
    ]
    apart = sorted(found, key=lambda standing: -standing.spread)[:ROWS]
    apart = [standing for standing in apart if standing.spread > 0]
    if apart:
        parts.append(
            f"<div><h3>{shown(title)}: where the models differ most</h3>"
            f"{standing_table(f'Differences on {title}', task, apart, models, excerpts)}</div>"
        )
    return f'<div class="halves">{"".join(parts)}</div>'


def standing_table(
    label: str, task: int, rows: Sequence[Standing], models: Sequence[str], excerpts: Sequence[str]
) -> str:
    head = (
        f'<thead><tr><th scope="col">question</th>{cells(models, "th")}'
        f"{cells(['all models', 'largest gap'] if len(models) > 1 else [], 'th')}</tr></thead>"
    )
    body = "".join(
        f'<tr><td class="question"><a href="#traces?task={task}&amp;question={row.number}">{shown(excerpts[row.number])}'
        f"</a></td>{''.join(share_cell(row.counts.get(model)) for model in models)}"
        f"{cells([percent(row.mean, 0), percent(row.spread, 0)] if len(models) > 1 else [])}</tr>"
        for row in rows
    )
    return scrolling(f"<table>{head}<tbody>{body}</tbody></table>", label)


def share_cell(counts: tuple[int, int] | None) -> str:
    if counts is None:
        return '<td class="number">–</td>'
    right, samples = counts
    return (
        f'<td class="number">{right:,} of {samples:,}<svg class="share" viewBox="0 0 60 5" aria-hidden="true">'
        f'<rect class="track" width="60" height="5"/><rect class="bar right" width="{60 * right / samples:.1f}" height="5"/>'
        "</svg></td>"
    )
