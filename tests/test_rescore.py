"""Exact entropies of undecided traces, against whole distributions in float64."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import tiny_model
import torch
from small_run import small_run
from transformers import AutoModelForCausalLM

from r1distill.errors import UserError
from r1distill.filter.entropy_filter import entropy_words
from r1distill.filter.rescore import ExactEntropy, exact_column, rescore, thinking_end
from r1distill.filter_sections import EntropyFilter
from r1distill.prompting import encode, encode_prompt, load_prompt, render
from r1distill.records import Problem, Trace
from r1distill.run import Run
from r1distill.store import read_records, write_records

CUT_OFF = 5  # the sample that never closed its thinking


def sampled_run(folder: Path, teacher: Path) -> tuple[Run, list[Trace]]:
    """Replies to eight sums, one of them without its tokens and one cut off while it thought."""
    cache = {"source": "transformers", "dtype": "float32"}
    run = small_run(folder, teacher={"model": str(teacher)}, generate={"prompt": tiny_model.PROMPT}, cache=cache)
    tokenizer = tiny_model.make_tokenizer()
    traces = []
    for number, problem in enumerate(tiny_model.PROBLEMS):
        text = tiny_model.reply(problem)
        thinking, answer = "sum", problem.answer or ""
        if number == CUT_OFF:
            text, answer = text.partition("\n</think>")[0], ""
        ids = [*encode(tokenizer, text.removeprefix("<think>\n")), tokenizer.eos_token_id]
        known = None if number == 3 else ids
        traces.append(Trace(problem.id, 0, str(teacher), "sha", 0, text, thinking, answer, "stop", token_ids=known))
    write_records(run.problems, Problem, tiny_model.PROBLEMS)
    write_records(run.traces / "00000.parquet", Trace, traces)
    return run, traces


def entropies_of(teacher: Path, problem: Problem, text: str) -> np.ndarray:
    """Of each token of the reply behind its forced start, its end token too, in nats."""
    tokenizer = tiny_model.make_tokenizer()
    model: Any = AutoModelForCausalLM.from_pretrained(teacher, dtype=torch.float32)
    prompt = load_prompt(tiny_model.PROMPT, "<think>\n")
    before = encode_prompt(tokenizer, render(tokenizer, prompt.user_message(problem)), prompt.prefill)
    ids = [*encode(tokenizer, text.removeprefix("<think>\n")), tokenizer.eos_token_id]
    with torch.no_grad():
        logprobs = (
            model(input_ids=torch.tensor([before + ids])).logits[0, len(before) - 1 : -1].double().log_softmax(-1)
        )
    return -(logprobs.exp() * logprobs).sum(-1).numpy()


def test_the_entropies_are_those_of_whole_distributions_and_are_kept(tmp_path: Path, tiny_teacher: Path):
    run, traces = sampled_run(tmp_path, tiny_teacher)
    keys = {(trace.problem_id, 0) for trace in traces[1:]}
    found = rescore(run, keys)
    assert set(found) == keys
    tokenizer = tiny_model.make_tokenizer()
    for number, trace in enumerate(traces[1:], 1):
        exact = found[trace.problem_id, 0]
        expected = entropies_of(tiny_teacher, tiny_model.PROBLEMS[number], trace.text)
        assert exact.n_tokens == len(expected)
        assert exact.mean_entropy_nats == pytest.approx(expected.mean(), abs=1e-5)
        if number == CUT_OFF:
            assert exact.thinking_mean_entropy_nats == pytest.approx(expected.mean(), abs=1e-5)
            assert exact.answer_mean_entropy_nats is None
            continue
        thinking = trace.text.removeprefix("<think>\n").partition("</think>")[0] + "</think>"
        cut = len(encode(tokenizer, thinking))
        assert exact.thinking_mean_entropy_nats == pytest.approx(expected[:cut].mean(), abs=1e-5)
        assert exact.answer_mean_entropy_nats == pytest.approx(expected[cut:].mean(), abs=1e-5)


def test_only_what_is_new_or_another_is_scored(tmp_path: Path, tiny_teacher: Path):
    run, traces = sampled_run(tmp_path, tiny_teacher)
    first = {(trace.problem_id, 0) for trace in traces[:3]}
    rescore(run, first)
    path = run.folder / "exact_entropies.parquet"
    # a mark that scoring again would take away
    write_records(
        path, ExactEntropy,
        [dataclasses.replace(each, mean_entropy_nats=9.0) for each in read_records(path, ExactEntropy)],
    )  # fmt: skip
    traces[1] = dataclasses.replace(traces[1], text=traces[1].text + "!", token_ids=None)
    write_records(run.traces / "00000.parquet", Trace, traces)
    found = rescore(run, first | {(traces[4].problem_id, 0)})
    means = [found[trace.problem_id, 0].mean_entropy_nats for trace in (*traces[:3], traces[4])]
    assert [mean == 9.0 for mean in means] == [True, False, True, False]
    assert len(list(read_records(path, ExactEntropy))) == 4
    assert rescore(run, set()) == {}


def test_an_undecided_trace_is_decided_by_what_was_scored(tmp_path: Path, tiny_teacher: Path):
    run, traces = sampled_run(tmp_path, tiny_teacher)
    tags = pa.table({"mean_entropy_nats": [0.0, 0.0, 0.9], "mean_entropy_upper_nats": [2.0, 2.0, 2.0]})
    keys = [(trace.problem_id, 0) for trace in traces[:3]]
    words = entropy_words(tags, EntropyFilter(undecided="rescore"))
    assert words.tolist() == ["undecided", "undecided", "high_entropy"]
    exact = rescore(run, {key for key, word in zip(keys, words, strict=True) if word == "undecided"})
    column = exact_column(keys, exact, "sequence")
    assert np.isnan(column).tolist() == [False, False, True]
    limit = float(np.nanmean(column))
    words = entropy_words(tags, EntropyFilter(max_nats=limit, undecided="rescore"), column)
    assert words.tolist() == [*np.where(column[:2] > limit, "high_entropy", "kept"), "high_entropy"]


def test_a_model_that_is_not_there_is_named(tmp_path: Path, tiny_teacher: Path):
    run, traces = sampled_run(tmp_path, tiny_teacher)
    gone = small_run(tmp_path, teacher={"model": str(tmp_path / "gone")}, generate={"prompt": tiny_model.PROMPT})
    with pytest.raises(UserError, match="no such folder"):
        rescore(gone, {(traces[0].problem_id, 0)})
    assert not (run.folder / "exact_entropies.parquet").exists()


@pytest.mark.parametrize(
    ("text", "up_to"),
    [("a</think>b", "a</think>"), ("</think>a</think>b", "</think>a</think>"), ("a</think", None), ("", None)],
)
def test_the_thinking_ends_with_its_last_tag(text, up_to):
    tokenizer = tiny_model.make_tokenizer()
    expected = None if up_to is None else len(encode(tokenizer, up_to))
    assert thinking_end(tokenizer, encode(tokenizer, text)) == expected
