"""Scores as lighteval writes them: `results_DATE.json`.

The sections are those of EvaluationTracker.results, the names of the metrics those that lighteval gives to a sampled
mean (`pass@k:k=1&n=64`, https://github.com/huggingface/lighteval, src/lighteval/metrics/utils/metric_utils.py). What has
no place there is under "r1distill": the summaries with their conditions.
"""

import math
from pathlib import Path
from typing import Any

from r1distill import __version__
from r1distill.evaluate.exports.scored import Scored
from r1distill.store import write_json


def write(model: str, scored: list[Scored], folder: Path) -> list[Path]:
    """The file of one model, in `folder`/results/MODEL. Returns its path."""
    date = max(each.date for each in scored).replace(tzinfo=None).isoformat().replace(":", "-")
    path = folder / "results" / model / f"results_{date}.json"
    write_json(path, results_of(scored))
    return [path]


def results_of(scored: list[Scored]) -> dict[str, Any]:
    first = scored[0].summary
    results = {key_of(each): scores_of(each) for each in scored}
    return {
        "config_general": {
            "lighteval_sha": "?",  # as lighteval writes outside a checkout
            "num_fewshot_seeds": 1,
            "max_samples": None,
            "job_id": "",
            "total_evaluation_time_secondes": str(sum(each.summary.get("seconds") or 0.0 for each in scored)),
            "model_name": first["model"],
            "model_config": {
                "model_name": first["model"],
                "generation_parameters": {
                    "temperature": first["temperature"],
                    "top_p": first["top_p"],
                    "max_new_tokens": first["max_tokens"],
                    "seed": first.get("conditions", {}).get("seed"),
                },
            },
        },
        "results": {**results, "all": mean_of(list(results.values()))},
        "versions": {key_of(each): each.summary.get("protocol", {}).get("version") for each in scored},
        "config_tasks": {key_of(each): config_of(each) for each in scored},
        "summary_tasks": {},
        "summary_general": {},
        "r1distill": {"version": __version__, "summaries": {each.name: each.summary for each in scored}},
    }


def key_of(scored: Scored) -> str:
    return f"{scored.name}|0"  # without worked examples


def scores_of(scored: Scored) -> dict[str, Any]:
    """pass@1 with its standard error over questions where it is known, then pass@k and the majority."""
    summary, samples = scored.summary, scored.summary["samples"]
    name = f"pass@k:k=1&n={samples}"
    scores = {name: summary["pass@1"]}
    if scored.standard_error is not None:
        scores[f"{name}_stderr"] = scored.standard_error
    for k, value in (summary.get("pass@k") or {}).items():
        scores.setdefault(f"pass@k:k={k}&n={samples}", value)
    for k, value in (summary.get("cons@k") or {}).items():
        scores[f"maj@n:n={k}"] = value
    return scores


def mean_of(results: list[dict[str, Any]]) -> dict[str, float]:
    """The mean over the tasks that have a score, as lighteval's `all`; a standard error is that of this mean."""
    means: dict[str, float] = {}
    for name in dict.fromkeys(name for scores in results for name in scores):
        values = [scores[name] for scores in results if name in scores]
        total = math.hypot(*values) if name.endswith("_stderr") else math.fsum(values)
        means[name] = total / len(values)
    return means


def config_of(scored: Scored) -> dict[str, Any]:
    data = scored.task.data if scored.task else None
    return {
        "name": scored.name,
        "prompt_function": scored.summary["prompt"],
        "hf_repo": data.path if data else None,
        "hf_subset": data.subset if data else None,
        "hf_revision": data.revision if data else None,
        "evaluation_splits": [data.split] if data else [],
        "generation_size": scored.summary["max_tokens"],
        "num_samples": [scored.summary["samples"]],
        "num_fewshots": 0,
        "original_num_docs": scored.summary["n_problems"],
        "effective_num_docs": scored.summary["n_problems"],
    }
