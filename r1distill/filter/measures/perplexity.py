"""How surprising a reply is to the student before it is trained on it: one pass of the model over each trace.

The only module here that needs torch: whoever wants the column imports it by name. High perplexity is a sign of garbage, or of
reasoning that the student could learn most from (arXiv 2601.14249 finds plain likelihood to prefer what teaches little), so
it is a tag and no quality.
"""

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

import torch

from r1distill.errors import UserError
from r1distill.prompting import Prompt
from r1distill.records import Problem, Trace
from r1distill.train.head import factors_dtype, numbers_dtype, refuse_other_head
from r1distill.train.head_tiles import project, spans
from r1distill.train.loading import check_rows, load_model, load_tokenizer
from r1distill.train.render import IGNORED, Example, cut, render_example
from r1distill.train_sections import Train

ROWS = 1_024  # examples that are sorted by length at once, so that little is padding
LOGITS = 512  # tokens whose logits are there at once: 0.3 GB in float32 for a vocabulary of 152,000
PAD = 0  # behind the last token of a sequence, where nothing before it sees it


def open_student(settings: Train) -> tuple[Any, Any]:
    """(model, tokenizer) of `[train]`, as training starts with them.

    Raises UserError for a head that is more than a projection.
    """
    tokenizer = load_tokenizer(settings)
    model = load_model(settings).eval()
    check_rows(settings, model, tokenizer)
    refuse_other_head(model, settings.student)
    if "device_map" not in settings.model_args and torch.accelerator.is_available():
        model.to(torch.accelerator.current_accelerator())
    return model, tokenizer


def student_perplexities(
    model: Any,
    tokenizer: Any,
    prompt: Prompt,
    pairs: Iterable[tuple[Problem, Trace]],
    max_length: int,
    batch_tokens: int = 8_192,
) -> Iterator[float | None]:
    """exp of the mean negative logprob (nats) of a reply's tokens given its prompt, for each trace in the given order.

    Rendered, masked and cut at `max_length` tokens as in training; the end token counts where the reply ended by itself. At
    most `batch_tokens` tokens with their padding are in a pass; a longer trace is alone. None where nothing of the reply is
    within `max_length`, and for a trace without text. Raises UserError where `batch_tokens` is not positive.
    """
    if batch_tokens < 1:
        raise UserError(f"batch_tokens = {batch_tokens}: it has to be positive")
    pairs = iter(pairs)
    while some := list(islice(pairs, ROWS)):
        examples = [example_of(tokenizer, prompt, problem, trace, max_length) for problem, trace in some]
        found: list[float | None] = [None] * len(examples)
        by_length = sorted(
            (index for index, example in enumerate(examples) if said_in(example)),
            key=lambda index: len(examples[index].input_ids),
        )
        for batch in batches(by_length, examples, batch_tokens):
            losses = mean_losses(model, [examples[index] for index in batch])
            for index, loss in zip(batch, losses.exp().tolist(), strict=True):
                found[index] = loss if loss < float("inf") else None
        yield from found


def example_of(tokenizer: Any, prompt: Prompt, problem: Problem, trace: Trace, max_length: int) -> Example:
    """A reply that did not end by itself has no end token: a student is not asked how likely that would be."""
    if not trace.text:
        return Example([], [])
    example = render_example(tokenizer, prompt.user_message(problem), trace.text, prompt.prefill)
    if trace.finish_reason != "stop":
        example = cut(example, len(example.input_ids) - 1)
    return cut(example, max_length)


def said_in(example: Example) -> int:
    """Tokens of the reply."""
    return len(example.labels) - example.labels.count(IGNORED)


def batches(indexes: list[int], examples: list[Example], batch_tokens: int) -> Iterator[list[int]]:
    """Neighbours, which ascend in length, so many that they are no more than `batch_tokens` with their padding."""
    batch: list[int] = []
    for index in indexes:
        if batch and (len(batch) + 1) * len(examples[index].input_ids) > batch_tokens:
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch


@torch.inference_mode()
def mean_losses(model: Any, examples: list[Example]) -> torch.Tensor:
    """The mean negative logprob of each example's labelled tokens, nats, float64 `(len(examples),)`."""
    width = max(len(example.input_ids) for example in examples)
    ids = torch.full((len(examples), width), PAD)
    labels = torch.full((len(examples), width), IGNORED)
    for row, example in enumerate(examples):
        ids[row, : len(example.input_ids)] = torch.tensor(example.input_ids)
        labels[row, : len(example.labels)] = torch.tensor(example.labels)
    hidden = model.base_model(input_ids=ids.to(model.device), use_cache=False).last_hidden_state
    labels = labels[:, 1:].to(hidden.device)  # the distribution of a token is where the one before it was read
    places = labels != IGNORED
    predictors, said = hidden[:, :-1][places], labels[places]
    weight = model.get_output_embeddings().weight.to(factors_dtype(hidden))
    buffer = weight.new_empty(min(LOGITS, len(said)) * len(weight), dtype=numbers_dtype(hidden))
    losses = torch.empty(len(said), dtype=torch.float64, device=hidden.device)
    for tile in spans(len(said), LOGITS):
        z = project(predictors[tile].to(weight.device, weight.dtype), weight, buffer)
        of_said = z.gather(1, said[tile].to(weight.device)[:, None])[:, 0]
        losses[tile] = (z.logsumexp(1).double() - of_said.double()).to(losses.device)
    rows = places.nonzero()[:, 0]
    sums = torch.zeros(len(examples), dtype=torch.float64, device=hidden.device).index_add_(0, rows, losses)
    return (sums / places.sum(1)).cpu()
