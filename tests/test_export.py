"""Exports: the numbers of summary.json to the digit, in forms that the other tools' own code reads."""

import json
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import EvalResult, ModelCard
from huggingface_hub.repocard_data import model_index_to_eval_results
from hypothesis import given
from hypothesis import strategies as st
from small_run import assert_one_error_line, jsonl, r1distill, small_run

from r1distill.errors import UserError
from r1distill.evaluate.export import export
from r1distill.evaluate.exports.lighteval import mean_of
from r1distill.evaluate.exports.model_index import card
from r1distill.evaluate.exports.scored import Scored
from r1distill.evaluate.readers import lm_eval
from r1distill.evaluate.regrade import regrade_file
from r1distill.records import FinishReason, Outcome, Problem, Trace, Verdict
from r1distill.store import file_sha256, write_json, write_records

PROBLEMS = [
    Problem("What is 1 + 1?", answer="2"),
    Problem("Which is a fruit?", kind="choice", answer="B", choices=["iron", "plum"]),
    Problem("Double it.", kind="code", tests={"type": "stdio", "inputs": ["1"], "outputs": ["2"]}),
]
REPLIES: list[list[tuple[str, Outcome, FinishReason]]] = [
    [("<think>\nhm\n</think>\n\\boxed{2}", "correct", "stop"), ("\\boxed{3}", "incorrect", "stop")],
    [("Answer: B", "correct", "stop"), ("<think>\nnever", "no_answer", "length")],
    [("```python\nprint(2 * int(input()))\n```", "correct", "stop"), ("\\boxed{2}", "no_answer", "stop")],
]


def summary(task: str, **changes: Any) -> dict[str, Any]:
    """A summary with numbers that no rounding survives."""
    return {
        "task": task, "title": f"The | of {task}", "model": "org/student", "n_problems": 1, "samples": 2,
        "pass@1": 0.1 + 0.2, "ci95": [1 / 7, 6 / 7], "ci95_samples": [1 / 3, 2 / 3], "se_questions": 1 / 9,
        "se_samples": 1 / 11, "pass@k": {"1": 0.1 + 0.2, "2": 2 / 3}, "cons@k": {"1": 1 / 3, "2": 1 / 6},
        "truncated": 1 / 12, "temperature": 0.6, "top_p": 0.95, "max_tokens": 4096, "prompt": "prompts/math.txt",
        "prompt_sha256": "0" * 64, "protocol": {"name": "deepseek-r1", "version": 1, "sha256": "f" * 64},
        "conditions": {"seed": 7, "date": "2026-11-21T10:00:00+00:00", "chat_template_sha256": "c" * 64},
        "seconds": 12.5, **changes,
    }  # fmt: skip


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run with the scores of one model on three benchmarks, one of each kind, two samples a question."""
    run = small_run(tmp_path)
    write_json(run.folder / "recipe.json", {"recipe": run.recipe.model_dump()})
    for problem, replies in zip(PROBLEMS, REPLIES, strict=True):
        folder = run.evaluation / problem.kind / "student"
        write_json(folder / "summary.json", summary(problem.kind))
        write_records(folder / "problems.parquet", Problem, [problem])
        traces = [
            Trace(problem.id, n, "org/student", "sha", n, text, None, text, reason)
            for n, (text, _, reason) in enumerate(replies)
        ]
        write_records(folder / "traces" / "00000.parquet", Trace, traces)
        verdicts = [Verdict(problem.id, n, outcome) for n, (_, outcome, _) in enumerate(replies)]
        write_records(folder / "verdicts.parquet", Verdict, verdicts)
    return run.folder


def read_card(text: str) -> tuple[str, list[EvalResult]]:
    """(the model's name, its results) as the Hub's own code reads them."""
    return model_index_to_eval_results(ModelCard(text).data.to_dict()["model-index"])


def only(folder: Path, pattern: str) -> Any:
    (path,) = folder.rglob(pattern)
    return path


def test_lm_eval_results_have_the_scores_to_the_digit_and_the_conditions(run: Path, tmp_path: Path) -> None:
    paths = export(run, "lm-eval", tmp_path / "out")
    assert len(paths) == 4
    results = json.loads(only(tmp_path / "out" / "student", "results_2026-11-21T10-00-00.json").read_text())
    scores = results["results"]["math"]
    assert scores["exact_match,none"] == 0.1 + 0.2
    assert scores["exact_match_stderr,none"] == 1 / 9
    assert (scores["pass@2,none"], scores["cons@2,none"]) == (2 / 3, 1 / 6)
    assert results["results"]["code"]["pass@1,none"] == 0.1 + 0.2
    assert "pass@1_stderr,none" in results["results"]["code"]
    assert results["n-samples"]["math"] == {"original": 1, "effective": 1}
    assert results["config"]["random_seed"] == 7
    assert results["r1distill"]["summaries"]["choice"] == summary("choice")


@pytest.mark.parametrize("kind", ["math", "choice", "code"])
def test_our_export_read_by_our_reader_has_the_same_verdicts(run: Path, tmp_path: Path, kind: str) -> None:
    export(run, "lm-eval", tmp_path / "out")
    samples = only(tmp_path / "out", f"samples_{kind}_*.jsonl")
    index = [problem.kind for problem in PROBLEMS].index(kind)
    items = list(lm_eval.read(samples, None, None))
    assert [item.right for item in items] == [True, False]
    assert [item.problem for item in items] == [items[0].problem] * 2
    assert items[0].problem is not None
    assert items[0].problem.id == PROBLEMS[index].id
    assert [item.response for item in items] == [text for text, _, _ in REPLIES[index]]
    again = regrade_file(samples, "lm-eval", tmp_path / "again.jsonl", workers=1, timeout_s=5)
    assert again.agreement == {(True, True): 1, (False, False): 1}


def test_the_prompt_in_the_samples_is_the_one_that_was_asked_while_its_hash_is_the_recorded_one(
    run: Path, tmp_path: Path
) -> None:
    prompt = tmp_path / "prompt.txt"
    prompt.write_text("Please: {problem}\n")
    path = only(run, "eval/math/student/summary.json")
    asked = []
    for sha256 in ("3" * 64, "a hash of nothing"):
        write_json(path, summary("math", prompt=str(prompt), prompt_sha256=sha256))
        export(run, "lm-eval", tmp_path / "out")
        asked.append(json.loads(only(tmp_path / "out", "samples_math_*.jsonl").read_text())["arguments"])
    assert asked[0] == asked[1]
    assert asked[0]["gen_args_0"]["arg_0"] == "What is 1 + 1?"
    jsonl(prompt, [])  # the recorded hash is that of the text without its last line end
    prompt.write_text("Please: {problem}")
    write_json(path, summary("math", prompt=str(prompt), prompt_sha256=file_sha256(prompt)))
    export(run, "lm-eval", tmp_path / "out")
    row = json.loads(only(tmp_path / "out", "samples_math_*.jsonl").read_text())
    assert row["arguments"]["gen_args_0"]["arg_0"] == "Please: What is 1 + 1?"


def test_an_old_summary_without_standard_errors_is_exported_as_lm_eval_says_that(run: Path, tmp_path: Path) -> None:
    old = summary("math")
    for name in ("se_questions", "pass@k", "cons@k", "conditions", "protocol", "title", "seconds"):
        del old[name]
    write_json(only(run, "eval/math/student/summary.json"), old)
    for to in ("lm-eval", "lighteval", "model-index"):
        export(run, to, tmp_path / to)
    results = json.loads(only(tmp_path / "lm-eval", "results_*.json").read_text())
    assert results["results"]["math"]["exact_match_stderr,none"] == "N/A"
    results = json.loads(only(tmp_path / "lighteval", "results_*.json").read_text())
    assert "pass@k:k=1&n=2_stderr" not in results["results"]["math|0"]


def test_lighteval_results_have_the_scores_to_the_digit(run: Path, tmp_path: Path) -> None:
    export(run, "lighteval", tmp_path)
    results = json.loads(only(tmp_path / "results" / "student", "results_*.json").read_text())
    assert results["results"]["math|0"] == {
        "pass@k:k=1&n=2": 0.1 + 0.2, "pass@k:k=1&n=2_stderr": 1 / 9, "pass@k:k=2&n=2": 2 / 3,
        "maj@n:n=1": 1 / 3, "maj@n:n=2": 1 / 6,
    }  # fmt: skip
    assert set(results["results"]) == {"math|0", "choice|0", "code|0", "all"}
    assert results["config_general"]["model_config"]["generation_parameters"]["temperature"] == 0.6
    assert results["r1distill"]["summaries"]["math"]["protocol"]["sha256"] == "f" * 64


def test_the_standard_error_of_the_mean_of_tasks_is_that_of_independent_ones() -> None:
    assert mean_of([{"a": 0.5, "a_stderr": 0.3}, {"a": 0.7, "a_stderr": 0.4, "b": 1.0}]) == {
        "a": 0.6, "a_stderr": 0.25, "b": 1.0,
    }  # fmt: skip


def test_the_hubs_own_code_reads_the_model_index(run: Path, tmp_path: Path) -> None:
    export(run, "model-index", tmp_path)
    text = only(tmp_path / "student", "README.md").read_text()
    name, found = read_card(text)
    assert name == "student"
    by_task = {(result.dataset_type, result.metric_type): result for result in found}
    assert len(by_task) == 6
    result = by_task["math", "pass@1"]
    assert result.metric_value == 0.1 + 0.2
    assert result.dataset_name == "The | of math"
    assert result.metric_args is not None
    assert result.metric_args["ci95"] == [1 / 7, 6 / 7]
    assert result.metric_args["protocol"]["sha256"] == "f" * 64
    assert by_task["math", "cons@2"].metric_value == 1 / 6
    assert r"| The \| of math | 1 | 2 | 30.0% | 14.3% – 85.7% | 8.3% |" in text


@given(score=st.floats(0, 1), low=st.floats(0, 1), title=st.text(st.characters(exclude_categories=["Cs"])))
def test_any_score_and_title_come_back_from_the_model_card(score: float, low: float, title: str) -> None:
    measured = {"pass@1": score, "ci95": [low, 1.0], "title": title or "-"}
    _, (first, _) = read_card(card([Scored(Path(), summary("math", **measured), None)]))
    assert (first.metric_value, first.dataset_name) == (score, title or "-")
    assert first.metric_args is not None
    assert first.metric_args["ci95"] == [low, 1.0]


def test_a_run_without_scores_and_an_unknown_format_are_refused(tmp_path: Path) -> None:
    run = small_run(tmp_path)
    write_json(run.folder / "recipe.json", {"recipe": run.recipe.model_dump()})
    with pytest.raises(UserError, match=r"no scores in .*; run the stage eval first"):
        export(run.folder, "lm-eval")
    with pytest.raises(UserError, match="--to helm: unknown; known: lm-eval, lighteval, model-index"):
        export(run.folder, "helm")


def test_the_command_prints_what_it_wrote(run: Path) -> None:
    result = r1distill("export", run, "--to", "model-index")
    assert result.stdout.split() == [str(run / "export" / "model-index" / "student" / "README.md")]
    assert_one_error_line(r1distill("export", run.parent, "--to", "lm-eval"), "not a run folder")
