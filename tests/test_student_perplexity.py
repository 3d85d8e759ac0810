"""The perplexity of a reply under the student, in batches, against a pass of its own in float64."""

import dataclasses
import math
from typing import Any

import pytest
import tiny_model
import torch
from transformers import AutoModelForCausalLM

from r1distill.errors import UserError
from r1distill.filter.measures.perplexity import student_perplexities
from r1distill.prompting import load_prompt
from r1distill.records import Trace
from r1distill.train.render import IGNORED, render_example

PROMPT = load_prompt(tiny_model.PROMPT, "<think>\n")


def pairs() -> list[tuple[Any, Trace]]:
    """Replies of several lengths; one was cut off, one failed."""
    made = []
    for n, problem in enumerate(tiny_model.PROBLEMS):
        text = tiny_model.reply(problem).replace("</think>", "So it is.\n" * (3 * n % 8) + "</think>")
        made.append((problem, Trace(problem.id, 0, "m", "", 0, text, None, "", "stop")))
    problem, trace = made[0]
    cut_off = dataclasses.replace(trace, text=trace.text[:30], finish_reason="length")
    failed = dataclasses.replace(trace, text="", finish_reason="error")
    return [*made, (problem, cut_off), (problem, failed)]


def slow_perplexity(model: Any, tokenizer: Any, problem: Any, trace: Trace) -> float | None:
    """One trace alone, whole logits in float64."""
    if not trace.text:
        return None
    example = render_example(tokenizer, PROMPT.user_message(problem), trace.text, PROMPT.prefill)
    ids, labels = example.input_ids, example.labels
    if trace.finish_reason != "stop":
        ids, labels = ids[:-1], labels[:-1]
    with torch.no_grad():
        logprobs = model(input_ids=torch.tensor([ids])).logits[0].double().log_softmax(-1)
    losses = [-float(logprobs[i - 1, label]) for i, label in enumerate(labels) if label != IGNORED]
    return math.exp(sum(losses) / len(losses))


def load(folder: Any, dtype: torch.dtype = torch.float32) -> Any:
    return AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).eval()


@pytest.mark.parametrize("batch_tokens", [1, 300, 8_192])
def test_perplexity_is_that_of_each_trace_alone_whatever_it_is_batched_with(tiny_teacher, batch_tokens):
    model, tokenizer = load(tiny_teacher), tiny_model.make_tokenizer()
    found = list(student_perplexities(model, tokenizer, PROMPT, pairs(), 512, batch_tokens))
    expected = [slow_perplexity(model, tokenizer, problem, trace) for problem, trace in pairs()]
    assert found == [None if value is None else pytest.approx(value, rel=1e-4) for value in expected]
    assert found[-1] is None


def test_a_student_is_less_surprised_by_what_it_knows(tiny_teacher, tiny_student):
    tokenizer = tiny_model.make_tokenizer()
    known = [(problem, Trace(problem.id, 0, "m", "", 0, tiny_model.reply(problem), None, "", "stop"))
             for problem in tiny_model.PROBLEMS]  # fmt: skip
    taught = list(student_perplexities(load(tiny_teacher), tokenizer, PROMPT, known, 512))
    untaught = list(student_perplexities(load(tiny_student), tokenizer, PROMPT, known, 512))
    assert max(filter(None, taught)) < 1.2 < 50 < min(filter(None, untaught))


def test_half_precision_is_near(tiny_teacher):
    tokenizer = tiny_model.make_tokenizer()
    whole = list(student_perplexities(load(tiny_teacher), tokenizer, PROMPT, pairs(), 512))
    half = list(student_perplexities(load(tiny_teacher, torch.bfloat16), tokenizer, PROMPT, pairs(), 512))
    for one, other in zip(whole[:-1], half[:-1], strict=True):
        assert other == pytest.approx(one, rel=0.15)


def test_what_is_behind_max_length_is_not_measured(tiny_teacher):
    model, tokenizer = load(tiny_teacher), tiny_model.make_tokenizer()
    problem, trace = pairs()[0]
    prompt = len(render_example(tokenizer, PROMPT.user_message(problem), "", "").input_ids) - 1
    [none] = student_perplexities(model, tokenizer, PROMPT, [(problem, trace)], prompt)
    [one] = student_perplexities(model, tokenizer, PROMPT, [(problem, trace)], prompt + 1)
    assert none is None
    assert one is not None


def test_no_tokens_at_once_is_an_error(tiny_teacher):
    with pytest.raises(UserError, match="batch_tokens = 0"):
        list(student_perplexities(load(tiny_teacher), tiny_model.make_tokenizer(), PROMPT, pairs(), 512, 0))
