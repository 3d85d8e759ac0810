"""Scores as the Hub shows them on a model's page: `model-index` in the front matter of a README.md.

The form is that of https://github.com/huggingface/hub-docs/blob/main/modelcard.md; `args` of a metric is free, and holds
the intervals and the conditions.
"""

import re
from pathlib import Path
from typing import Any

from r1distill import __version__
from r1distill.evaluate.exports.scored import Scored
from r1distill.front_matter import front_matter
from r1distill.store import write_text

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
MEASURED = ("n_problems", "samples", "ci95", "ci95_samples", "se_questions", "se_samples", "truncated")
ASKED = ("temperature", "top_p", "max_tokens", "prompt", "prompt_sha256", "protocol", "conditions")


def write(model: str, scored: list[Scored], folder: Path) -> list[Path]:
    """The README.md of one model, in `folder`/MODEL. Returns its path."""
    path = folder / model / "README.md"
    write_text(path, card(scored))
    return [path]


def card(scored: list[Scored]) -> str:
    name = Path(str(scored[0].summary["model"])).name
    index = {"model-index": [{"name": name, "results": [result_of(each) for each in scored]}]}
    rows = [row_of(each) for each in scored]
    columns = ("benchmark", "questions", "samples each", "pass@1", "95 % interval over questions", "truncated")
    lines = [f"| {' | '.join(cells)} |" for cells in (columns, ["---"] * len(columns), *rows)]
    table = "\n".join(lines)
    return f"---\n{front_matter(index)}\n---\n\n## Evaluation\n\n{table}\n\nMeasured with r1distill {__version__}.\n"


def result_of(scored: Scored) -> dict[str, Any]:
    return {
        "task": {"type": "text-generation", "name": "Text Generation"},
        "dataset": dataset_of(scored),
        "metrics": metrics_of(scored.summary),
    }


def dataset_of(scored: Scored) -> dict[str, Any]:
    """The Hub data set, or the benchmark's own name where the questions came from a file."""
    data = scored.task.data if scored.task else None
    if data is None or not HUB_ID.fullmatch(data.path):
        return {"name": scored.title, "type": scored.name}
    found = {"config": data.subset, "split": data.split, "revision": data.revision}
    return {
        "name": scored.title,
        "type": data.path,
        **{name: value for name, value in found.items() if value is not None},
    }


def metrics_of(summary: dict[str, Any]) -> list[dict[str, Any]]:
    """pass@1 with all that it was measured by, and the majority of all samples where there is one."""
    samples = summary["samples"]
    conditions = {name: summary[name] for name in (*MEASURED, *ASKED) if summary.get(name) is not None}
    name = f"pass@1, mean of {samples} samples"
    metrics = [{"type": "pass@1", "value": summary["pass@1"], "name": name, "args": conditions}]
    votes = summary.get("cons@k") or {}
    if str(samples) in votes and samples > 1:
        metrics.append({"type": f"cons@{samples}", "value": votes[str(samples)], "name": f"majority of {samples}"})
    return metrics


def row_of(scored: Scored) -> list[str]:
    summary = scored.summary
    low, high = summary["ci95"]
    return [
        scored.title.replace("|", "\\|"),
        str(summary["n_problems"]),
        str(summary["samples"]),
        f"{summary['pass@1']:.1%}",
        f"{low:.1%} – {high:.1%}",
        f"{summary['truncated']:.1%}",
    ]
