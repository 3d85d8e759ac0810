"""The sections of the page that come from the summaries: scores, pass@k and cons@k, groups, conditions."""

from collections.abc import Mapping, Sequence
from typing import Any

from r1distill.html_text import shown
from r1distill.report.charts import Line, line_chart, score_axis, score_strip
from r1distill.report.embedding import Measured
from r1distill.report.published import published_rows, reports_of, source_list, tables_of
from r1distill.report.reading import Scored
from r1distill.report.scales import percent
from r1distill.sections import ROLES

NONE = "–"
RATES = {
    "truncated": "truncated",
    "no_answer": "no answer",
    "verifier_timeout": "timeout",
    "repetition": "repetition",
    "failed": "failed",
}
TOKENS = {
    "mean_tokens": "mean",
    "mean_tokens_correct": "of right",
    "mean_tokens_wrong": "of wrong",
    "median_tokens": "median",
    "p95_tokens": "95th perc.",
}
CONDITIONS = (
    "model", "protocol", "temperature", "top_p", "max_tokens", "prompt", "prompt_sha256", "conditions",
    "codeforces_rating", "seconds", "tokens_per_second",
)  # fmt: skip


def series_of(models: Sequence[str]) -> dict[str, int]:
    """The number of each model's colour: the three roles have theirs, the others follow."""
    others = [model for model in models if model not in ROLES]
    return {model: ROLES.index(model) if model in ROLES else len(ROLES) + others.index(model) for model in models}


def cells(values: Sequence[str], tag: str = "td", kind: str = "number") -> str:
    return "".join(f'<{tag} class="{kind}">{shown(value)}</{tag}>' for value in values)


def scrolling(table: str, label: str) -> str:
    """A table that may be wider than the window; the keyboard can scroll it."""
    return f'<div class="scroll" role="region" tabindex="0" aria-label="{shown(label)}">{table}</div>'


# ---------------------------------------------------------------- scores


def score_table(
    title: str, scored: Sequence[Scored], series: Mapping[str, int], measured: Mapping[tuple[str, str], Measured]
) -> str:
    """A row a model, then a row for each published score. `scored` are the models of one task."""
    rows = []
    for one in scored:
        if "pass@1" in one.summary:
            rows.append(score_row(one, series[one.model]))
        else:
            verified = sum(measured[one.task, one.model].samples.values())
            rows.append(
                f'<tr><th scope="row">{shown(one.model)}</th><td colspan="{4 + len(RATES) + len(TOKENS)}" class="note">'
                f"not scored yet; {verified:,} replies are verified</td></tr>"
            )
    reports, sources = reports_of(tables_of(scored))
    rows += published_rows(reports, 2 + len(RATES) + len(TOKENS))
    head = (
        '<thead><tr><th rowspan="2" scope="col">model</th>'
        f'<th rowspan="2" scope="col">pass@1, % of questions {score_axis()}</th>'
        '<th rowspan="2" scope="col" class="number">pass@1</th><th colspan="2" scope="colgroup">95 % interval</th>'
        f'<th colspan="{len(RATES)}" scope="colgroup">share of replies</th>'
        f'<th colspan="{len(TOKENS)}" scope="colgroup">tokens of a reply</th></tr>'
        f"<tr>{cells(['other questions', 'a re-run', *RATES.values(), *TOKENS.values()], 'th')}</tr></thead>"
    )
    table = f'<table class="scores">{head}<tbody>{"".join(rows)}</tbody></table>'
    return scrolling(table, f"Scores on {title}") + source_list(sources)


def score_row(one: Scored, series: int) -> str:
    summary = one.summary
    questions, samples = summary.get("ci95"), summary.get("ci95_samples")
    return (
        f'<tr class="series-{series % 8}"><th scope="row"><span class="key" aria-hidden="true"></span>{shown(one.model)}'
        f"</th><td>{score_strip(summary['pass@1'], series, questions, samples)}</td>"
        + cells([percent(summary["pass@1"])], kind="number score")
        + cells([interval(questions), interval(samples)])
        + cells([share(summary.get(key)) for key in RATES])
        + cells([whole(summary.get(key)) for key in TOKENS])
        + "</tr>"
    )


def interval(ends: Sequence[float] | None) -> str:
    return f"{100 * ends[0]:.1f} – {100 * ends[1]:.1f}" if ends else NONE


def share(value: float | None) -> str:
    return NONE if value is None else percent(value)


def whole(value: float | None) -> str:
    return NONE if value is None else f"{value:,.0f}"


# ---------------------------------------------------------------- curves


def curves(title: str, scored: Sequence[Scored], series: Mapping[str, int]) -> str:
    """pass@k and cons@k over k on a logarithmic axis; "" where no summary has them for more than one k."""
    lines = []
    for one in scored:
        for key, dashed in (("pass@k", False), ("cons@k", True)):
            points = sorted((int(k), value) for k, value in (one.summary.get(key) or {}).items() if value is not None)
            if len(points) > 1:
                lines.append(Line(f"{one.model} {key}", series[one.model], points, dashed))
    if not lines:
        return ""
    drawn = line_chart(
        f"{title}: pass@k and cons@k",
        "k samples a question, logarithmic", "share of questions", lines, log_x=True, shares=True,
    )  # fmt: skip
    return f'<div class="chart">{drawn}</div>'


# ---------------------------------------------------------------- groups


def groups(title: str, scored: Sequence[Scored], series: Mapping[str, int]) -> str:
    """A table for each column of Problem.meta that summaries have scores for: level, subject."""
    names = dict.fromkeys(name for one in scored for name in one.summary.get("groups") or {})
    return "".join(group_table(title, name, scored, series) for name in names)


def group_table(title: str, name: str, scored: Sequence[Scored], series: Mapping[str, int]) -> str:
    having = [one for one in scored if name in (one.summary.get("groups") or {})]
    values = dict.fromkeys(value for one in having for value in one.summary["groups"][name])
    rows = []
    for value in sorted(values, key=lambda value: (not value.isdigit(), int(value) if value.isdigit() else 0, value)):
        shown_value = False
        present = [one for one in having if value in one.summary["groups"][name]]
        for one in present:
            found = one.summary["groups"][name][value]
            label = f'<th scope="rowgroup" rowspan="{len(present)}">{shown(value)}</th>' if not shown_value else ""
            shown_value = True
            rows.append(
                f"<tr>{label}<td>{shown(one.model)}</td>{cells([whole(found.get('n_problems'))])}"
                f"<td>{score_strip(found['pass@1'], series[one.model], found.get('ci95'), None)}</td>"
                f"{cells([percent(found['pass@1'])])}{cells([interval(found.get('ci95'))])}</tr>"
            )
    head = (
        f'<thead><tr><th scope="col">{shown(name)}</th><th scope="col">model</th>'
        f'{cells(["questions"], "th")}<th scope="col">pass@1, % of questions {score_axis()}</th>'
        f"{cells(['pass@1', '95 % interval'], 'th')}</tr></thead>"
    )
    table = f'<table class="groups">{head}<tbody>{"".join(rows)}</tbody></table>'
    return f"<div><h3>{shown(title)} by {shown(name)}</h3>{scrolling(table, f'{title} by {name}')}</div>"


# ---------------------------------------------------------------- conditions


def conditions(scored: Sequence[Scored]) -> str:
    """How each score was taken, folded; a row a setting, a column a model."""
    columns = [dict(flat({key: one.summary[key] for key in CONDITIONS if key in one.summary})) for one in scored]
    names = dict.fromkeys(name for column in columns for name in column)
    if not names:
        return ""
    head = f"<thead><tr><th></th>{cells([one.model for one in scored], 'th', 'text')}</tr></thead>"
    rows = [
        f'<tr><th scope="row">{shown(name)}</th>{cells([column.get(name, NONE) for column in columns], kind="text")}</tr>'
        for name in names
    ]
    table = f"<table>{head}<tbody>{''.join(rows)}</tbody></table>"
    return f"<details><summary>How these scores were taken</summary>{scrolling(table, 'Conditions')}</details>"


def flat(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Nested settings as dotted names and texts."""
    rows = []
    for name, value in values.items():
        if isinstance(value, Mapping):
            rows += flat(value, f"{prefix}{name}.")
        else:
            rows.append((f"{prefix}{name}", NONE if value is None else str(value)))
    return rows
