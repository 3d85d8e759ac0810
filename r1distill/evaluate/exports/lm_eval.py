"""Scores as lm-evaluation-harness writes them: `results_DATE.json`, and `samples_TASK_DATE.jsonl` with every reply.

The keys are those of lm_eval/result_schema.py (https://github.com/EleutherAI/lm-evaluation-harness). What has no place
there is under "r1distill": the summaries with their conditions.
"""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from r1distill import __version__
from r1distill.errors import UserError
from r1distill.evaluate.exports.scored import Scored, is_right
from r1distill.evaluate.readers.lm_eval import EACH
from r1distill.prompting import Prompt, load_prompt
from r1distill.records import Problem
from r1distill.store import write_json, write_jsonl

FILTER = "none"
NO_ERROR = "N/A"  # what lm-eval writes where there is no standard error


def write(model: str, scored: list[Scored], folder: Path) -> list[Path]:
    """The files of one model, in `folder`/MODEL. Returns their paths."""
    date = max(each.date for each in scored).replace(tzinfo=None).isoformat().replace(":", "-")
    results = folder / model / f"results_{date}.json"
    write_json(results, results_of(scored))
    paths = [results]
    for each in scored:
        paths.append(folder / model / f"samples_{each.name}_{date}.jsonl")
        write_jsonl(paths[-1], samples_of(each))
    return paths


def metric_of(kind: str) -> str:
    """lm-eval's name for the share of right replies."""
    return "pass@1" if kind == "code" else "exact_match"


def results_of(scored: list[Scored]) -> dict[str, Any]:
    first = scored[0].summary
    model = str(first["model"])
    metrics = {each.name: metric_of(each.problems()[0].kind) for each in scored}
    return {
        "results": {each.name: scores_of(each, metrics[each.name]) for each in scored},
        "group_subtasks": {each.name: [] for each in scored},
        "configs": {each.name: config_of(each) for each in scored},
        "versions": {each.name: each.summary.get("protocol", {}).get("version") for each in scored},
        "n-shot": {each.name: 0 for each in scored},
        "higher_is_better": {name: {metric: True} for name, metric in metrics.items()},
        "n-samples": {
            each.name: {"original": each.summary["n_problems"], "effective": each.summary["n_problems"]}
            for each in scored
        },
        "config": {
            "model": "r1distill",
            "model_args": f"pretrained={model}",
            "gen_kwargs": generation_arguments(first),
            "random_seed": first.get("conditions", {}).get("seed"),
        },
        "date": max(each.date for each in scored).timestamp(),
        "model_source": "r1distill",
        "model_name": model,
        "model_name_sanitized": model.replace("/", "__"),
        "chat_template_sha": first.get("conditions", {}).get("chat_template_sha256"),
        "r1distill": {"version": __version__, "summaries": {each.name: each.summary for each in scored}},
    }


def scores_of(scored: Scored, metric: str) -> dict[str, Any]:
    """pass@1 under lm-eval's name with its standard error over questions, then pass@k and cons@k."""
    summary, error = scored.summary, scored.standard_error
    scores = {
        "alias": scored.title,
        "sample_len": summary["n_problems"],
        f"{metric},{FILTER}": summary["pass@1"],
        f"{metric}_stderr,{FILTER}": NO_ERROR if error is None else error,
    }
    for name in ("pass", "cons"):
        for k, value in (summary.get(f"{name}@k") or {}).items():
            if f"{name}@{k}" != "pass@1":
                scores[f"{name}@{k},{FILTER}"] = value
                scores[f"{name}@{k}_stderr,{FILTER}"] = NO_ERROR
    return scores


def config_of(scored: Scored) -> dict[str, Any]:
    data = scored.task.data if scored.task else None
    return {
        "task": scored.name,
        "dataset_path": data.path if data else None,
        "dataset_name": data.subset if data else None,
        "test_split": data.split if data else None,
        "output_type": "generate_until",
        "generation_kwargs": generation_arguments(scored.summary),
        "repeats": scored.summary["samples"],
        "num_fewshot": 0,
        "metadata": {"prompt": scored.summary["prompt"], "prompt_sha256": scored.summary["prompt_sha256"]},
    }


def generation_arguments(summary: dict[str, Any]) -> dict[str, Any]:
    temperature = summary["temperature"]
    return {
        "do_sample": temperature > 0,
        "temperature": temperature,
        "top_p": summary["top_p"],
        "max_gen_toks": summary["max_tokens"],
    }


def samples_of(scored: Scored) -> Iterator[dict[str, Any]]:
    """A line a question: its replies, the share of right ones, and under METRIC_each the score of every reply."""
    problems = scored.problems()
    index = {problem.id: number for number, problem in enumerate(problems)}
    prompt = prompt_of(scored.summary)
    for problem_id, samples in scored.samples():
        number = index[problem_id]
        problem = problems[number]
        metric = metric_of(problem.kind)
        scores = [float(is_right(sample)) for sample in samples]
        doc = doc_of(problem)
        asked = problem.problem if prompt is None else prompt.user_message(problem)
        target = problem.answer or ""
        texts = [trace.text for trace, _ in samples]
        yield {
            "doc_id": number,
            "doc": doc,
            "target": target,
            "arguments": {"gen_args_0": {"arg_0": asked, "arg_1": generation_arguments(scored.summary)}},
            "resps": [texts],
            "filtered_resps": texts,
            "filter": FILTER,
            "metrics": [metric],
            "doc_hash": sha256(json.dumps(doc, indent=2, ensure_ascii=False)),
            "prompt_hash": sha256(asked),
            "target_hash": sha256(target),
            metric: sum(scores) / len(scores),
            f"{metric}{EACH}": scores,
            "finish_reasons": [trace.finish_reason for trace, _ in samples],
            "outcomes": [verdict.outcome for _, verdict in samples],
        }


def doc_of(problem: Problem) -> dict[str, Any]:
    values = {"id": problem.id, "problem": problem.problem, "kind": problem.kind, "answer": problem.answer}
    return {
        name: value
        for name, value in {**values, "choices": problem.choices, "tests": problem.tests}.items()
        if value is not None
    }


def prompt_of(summary: dict[str, Any]) -> Prompt | None:
    """The prompt that was used; None where the file of that name is another one now."""
    try:
        prompt = load_prompt(str(summary["prompt"]), "")
    except UserError:
        return None
    return prompt if prompt.sha256 == summary["prompt_sha256"] else None


def sha256(text: str) -> str:
    return hashlib.sha256(text.encode(errors="replace")).hexdigest()
