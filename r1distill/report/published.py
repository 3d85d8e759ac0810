"""What others report of a benchmark, beside the scores of the run: a row a model, with all its sources."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from r1distill.html_text import shown
from r1distill.report.charts import published_strip
from r1distill.report.reading import Scored
from r1distill.report.scales import percent

PERCENT_METRICS = ("pass@1", "cons@64")


@dataclass(frozen=True, slots=True)
class Report:
    """A number that somebody reports. `value` is a share for the metrics in percent, else as it is (a rating)."""

    metric: str
    value: float
    source: int  # its number in the list of sources

    @property
    def words(self) -> str:
        value = percent(self.value) if self.metric in PERCENT_METRICS else f"{self.value:g}"
        return f"{'' if self.metric == 'pass@1' else f'{self.metric} '}{value} [{self.source}]"


def tables_of(scored: Sequence[Scored]) -> list[Mapping[str, Any]]:
    """`published` of the first summary that has it; one table or a list of them."""
    found = next((one.summary["published"] for one in scored if one.summary.get("published")), [])
    return [found] if isinstance(found, Mapping) else found


def reports_of(tables: Sequence[Mapping[str, Any]]) -> tuple[dict[str, list[Report]], list[str]]:
    """(the reports of each model, the sources): files have percent."""
    reports: dict[str, list[Report]] = defaultdict(list)
    sources: list[str] = []
    for table in tables:
        source = str(table.get("source", ""))
        if source not in sources:
            sources.append(source)
        metric = str(table.get("metric", "pass@1"))
        for model, value in table.get("scores", {}).items():
            share = value / 100 if metric in PERCENT_METRICS else value
            reports[model].append(Report(metric, share, sources.index(source) + 1))
    return reports, sources


def published_rows(reports: Mapping[str, Sequence[Report]], columns: int) -> list[str]:
    """Table rows: name, strip, first score, and all reports in words over the other `columns`."""
    rows = []
    for model, found in reports.items():
        shares = [report.value for report in found if report.metric == "pass@1"]
        first = percent(shares[0]) if shares else "–"
        words = ", ".join(report.words for report in found)
        rows.append(
            f'<tr class="published"><th scope="row">{shown(model)}</th><td>{published_strip(shares)}</td>'
            f'<td class="number">{first}</td><td colspan="{columns}" class="note">published: {shown(words)}</td></tr>'
        )
    return rows


def source_list(sources: Sequence[str]) -> str:
    if not sources:
        return ""
    words = "; ".join(f"[{number}] {source}" for number, source in enumerate(sources, 1))
    return f'<p class="caption">Published scores (◇): {shown(words)}</p>'
