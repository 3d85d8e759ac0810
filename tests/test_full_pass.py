"""The pass over whole distributions, in batches and tiles, against float64."""

from typing import Any

import numpy as np
import pytest
import tiny_model
import torch
from transformers import AutoModelForCausalLM

from r1distill.cache.full_pass import batches, numbers_of, scores_of
from r1distill.cache.traces import Item
from r1distill.generate.distributions import sparse_rows
from r1distill.records import Trace
from r1distill.train.teacher_cache import Teacher


@pytest.mark.parametrize("sharpness", [0.0, 1.0, 10.0, 60.0])
def test_the_numbers_of_wide_and_of_certain_distributions_are_those_of_float64(sharpness):
    z = sharpness * torch.randn(7, 5000, generator=torch.Generator().manual_seed(1))
    z[0, 3] += 100  # certain
    logprobs = z.double().log_softmax(1)
    said = torch.arange(7)
    found = numbers_of(z, said, 64, (0.5, 2.0, 5.0))
    expected = -(logprobs.exp() * logprobs).nan_to_num().sum(1)
    np.testing.assert_allclose(found.entropies, expected, atol=2e-6 * max(sharpness, 1), rtol=1e-5)
    np.testing.assert_allclose(found.logprobs, logprobs.gather(1, found.ids), atol=1e-5)
    np.testing.assert_allclose(found.said, logprobs[torch.arange(7), said], atol=2e-5)
    sums = torch.stack([(logprobs / temperature).logsumexp(1) for temperature in (0.5, 2.0, 5.0)], 1)
    np.testing.assert_allclose(found.power_sums, sums, atol=1e-5)


def test_a_batch_is_no_larger_than_its_tokens_and_does_not_depend_on_those_before():
    trace = Trace("p", 0, "m", "s", 0, "", None, "", "stop", token_ids=[1, 2, 3])
    items = [Item(trace, [1] * n) for n in (1, 50, 1, 1, 1, 4, 2, 90, 3)]
    found = list(batches(items, 24))
    assert [len(batch) for batch in found] == [1, 1, 3, 2, 1, 1]
    assert [item for batch in found for item in batch] == items
    assert list(batches(items[2:], 24)) == found[2:]


def test_padding_changes_nothing(tiny_teacher):
    model: Any = AutoModelForCausalLM.from_pretrained(tiny_teacher, dtype=torch.float32)
    teacher = Teacher("transformers", "m", None, "0" * 64, "raw_logprobs", 64, (2.0,))
    traces = [
        Trace("p", n, "m", "s", 0, "", None, "", "stop", token_ids=list(range(5, 5 + length)))
        for n, length in enumerate((9, 40, 1))
    ]
    items = [Item(trace, list(range(20 + trace.sample))) for trace in traces]
    together = scores_of(model, items, teacher, tokens_a_tile=7)
    for item, scores in zip(items, together, strict=True):
        [alone] = scores_of(model, [item], teacher, tokens_a_tile=1000)
        np.testing.assert_array_equal(scores.rows.ids, alone.rows.ids)
        np.testing.assert_allclose(scores.rows.logprobs, alone.rows.logprobs, atol=1e-4)
        np.testing.assert_allclose(scores.power_sums, alone.power_sums, atol=1e-5)  # type: ignore[arg-type]


def test_a_head_of_more_rows_than_the_students_is_a_distribution_over_the_shared_ones(tiny_teacher):
    model: Any = AutoModelForCausalLM.from_pretrained(tiny_teacher, dtype=torch.float32)
    model.resize_token_embeddings(len(tiny_model.make_tokenizer()) + 50)
    with torch.no_grad():
        model.get_output_embeddings().weight[-50:] += 1.0
    rows = len(tiny_model.make_tokenizer())
    teacher = Teacher("transformers", "m", None, "0" * 64, "raw_logprobs", 64, vocabulary_rows=rows)
    item = Item(Trace("p", 0, "m", "s", 0, "", None, "", "stop", token_ids=[5, 6, 7]), [9, 10])
    [found] = scores_of(model, [item], teacher, tokens_a_tile=2)
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([[9, 10, 5, 6, 7]])).logits[0, 1:-1, :rows].double()
    top = logits.log_softmax(1).topk(64)
    expected = sparse_rows(
        top.indices.numpy(), top.values.numpy(), np.array(item.reply),
        logits.log_softmax(1)[range(3), item.reply].numpy(),
    )  # fmt: skip
    np.testing.assert_array_equal(found.rows.ids, expected.ids)
    np.testing.assert_allclose(found.rows.logprobs, expected.logprobs, atol=1e-5)
