"""Scoring with transformers: one pass over the reply, and from whole distributions what training wants of them."""

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM

from r1distill.cache.settings import Scorer
from r1distill.cache.traces import Item, Keep, Score, Scores
from r1distill.generate.distributions import sparse_rows
from r1distill.models import resolve_model
from r1distill.recipe import Recipe
from r1distill.train.head import factors_dtype, numbers_dtype, refuse_other_head
from r1distill.train.head_tiles import project, spans
from r1distill.train.teacher_cache import Teacher

PAD = 0  # behind the last token of a sequence, where nothing before it sees it


def head_rows(model: str, revision: str | None, key: str, model_args: dict[str, Any]) -> int:
    config = AutoConfig.from_pretrained(
        resolve_model(model, key), revision=revision, trust_remote_code=model_args.get("trust_remote_code", False)
    )
    return int(config.get_text_config().vocab_size)


@contextmanager
def open_pass(recipe: Recipe, scorer: Scorer, teacher: Teacher) -> Iterator[Score]:
    """Load the model. Raises UserError for a head that is more than a projection."""
    settings = recipe.cache
    model: Any = AutoModelForCausalLM.from_pretrained(
        resolve_model(scorer.model, scorer.key),
        revision=scorer.revision,
        dtype=getattr(torch, settings.dtype),
        **settings.model_args,
    ).eval()
    if "device_map" not in settings.model_args and torch.accelerator.is_available():
        model.to(torch.accelerator.current_accelerator())
    refuse_other_head(model, scorer.model)
    positions = getattr(model.config.get_text_config(), "max_position_embeddings", None) or sys.maxsize

    def score(items: Iterable[Item], keep: Keep) -> None:
        for batch in batches(items, settings.batch_tokens):
            fitting = [item for item in batch if len(item) <= positions]
            scores = iter(scores_of(model, fitting, teacher, settings.batch_tokens) if fitting else ())
            keep([(item, next(scores) if len(item) <= positions else None) for item in batch])

    yield score


def batches(items: Iterable[Item], tokens: int) -> Iterator[list[Item]]:
    """Neighbours that are together, padded, of at most so many tokens; a longer one is alone.

    From any batch on they are the same whatever came before, so that a pass that was cut off goes on as it would have.
    """
    batch: list[Item] = []
    for item in items:
        if batch and (len(batch) + 1) * max(map(len, [*batch, item])) > tokens:
            yield batch
            batch = []
        batch.append(item)
    if batch:
        yield batch


@torch.inference_mode()
def scores_of(model: Any, batch: list[Item], teacher: Teacher, tokens_a_tile: int) -> list[Scores]:
    """Of each item. The logits of `tokens_a_tile` tokens are there at once, in float32."""
    longest = max(map(len, batch))
    ids = torch.full((len(batch), longest), PAD)
    for row, item in enumerate(batch):
        ids[row, : len(item)] = torch.tensor([*item.prompt, *item.reply])
    hidden = model.base_model(input_ids=ids.to(model.device), use_cache=False).last_hidden_state
    # the distribution of a token is where the one before it was read
    predictors = torch.cat([hidden[row, len(item.prompt) - 1 : len(item) - 1] for row, item in enumerate(batch)])
    said = torch.tensor([token for item in batch for token in item.reply], device=hidden.device)
    factors = factors_dtype(hidden)
    weight = model.get_output_embeddings().weight[: teacher.vocabulary_rows].to(factors)
    buffer = weight.new_empty(min(tokens_a_tile, len(said)) * len(weight), dtype=numbers_dtype(hidden))
    parts = []
    for tile in spans(len(said), tokens_a_tile):
        z = project(predictors[tile].to(weight.device, factors), weight, buffer)
        parts.append(numbers_of(z, said[tile].to(weight.device), teacher.k, teacher.temperatures))
    whole = Numbers(*(torch.cat(part).cpu().numpy() for part in zip(*parts, strict=True)))
    ends = np.cumsum([len(item.reply) for item in batch])
    rows = sparse_rows(whole.ids, whole.logprobs, said.cpu().numpy(), whole.said)
    return [
        Scores(rows[end - len(item.reply) : end], *(each[end - len(item.reply) : end] for each in whole[3:]))
        for item, end in zip(batch, ends.tolist(), strict=True)
    ]


class Numbers(NamedTuple):
    """Of N whole distributions the likeliest `ids` and `logprobs (N, K)`, and the logprob of the token that was `said (N,)`.

    `power_sums (N, G)`: log sum p^(1/temperature); `entropies (N,)` in nats.
    """

    ids: Any
    logprobs: Any
    said: Any
    power_sums: Any
    entropies: Any


def numbers_of(z: Tensor, said: Tensor, k: int, temperatures: tuple[float, ...]) -> Numbers:
    """From logits `z (N, V)`, which are overwritten. Sums over the vocabulary are in float64."""
    z -= z.amax(1, keepdim=True)
    powers = z.exp()
    total = powers.sum(1, dtype=torch.float64)
    entropies = total.log() - powers.mul_(z).sum(1, dtype=torch.float64) / total
    total = total.log()
    logits, ids = z.topk(min(k, z.shape[1]), dim=1)
    of_said = z.gather(1, said[:, None])[:, 0]
    power_sums = [
        torch.div(z, temperature, out=powers).exp_().sum(1, dtype=torch.float64).log() - total / temperature
        for temperature in temperatures
    ]
    return Numbers(
        ids,
        (logits - total[:, None]).float(),
        (of_said - total).float(),
        torch.stack(power_sums, 1).float() if power_sums else total.new_zeros((len(z), 0)).float(),
        entropies.clamp(min=0).float(),
    )
