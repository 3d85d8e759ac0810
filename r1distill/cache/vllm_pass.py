"""Scoring with vLLM: the top k prompt logprobs of prompt and reply, in one prefill a trace."""

import asyncio
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from vllm.platforms import current_platform

from r1distill.cache.settings import Scorer, engine_of
from r1distill.cache.traces import Item, Keep, Score, Scores
from r1distill.generate.backend import SampleFailed
from r1distill.generate.vllm_engine import VllmEngine
from r1distill.models import resolve_model
from r1distill.recipe import Recipe
from r1distill.train.teacher_cache import Teacher

IN_FLIGHT = 64  # requests; each waits with its logprobs until those before it are written
GPU_MEMORY = 0.85  # the logits of prompts are no part of what vLLM plans for (vllm#38830)


@contextmanager
def open_pass(recipe: Recipe, scorer: Scorer, teacher: Teacher) -> Iterator[Score]:
    """Start the engine, and end it."""
    engine = VllmEngine(
        resolve_model(scorer.model, scorer.key), scorer.revision, arguments_of(recipe), logprobs=teacher.k
    )
    with asyncio.Runner() as runner, ExitStack() as opened:
        runner.run(engine.__aenter__())
        opened.push(lambda *exception: runner.run(engine.__aexit__(*exception)))
        yield lambda items, keep: runner.run(score_all(engine, items, keep, teacher.k))


def arguments_of(recipe: Recipe) -> dict[str, Any]:
    """Prompts are cut into steps of few tokens, since the logits of all of a step's are there at once."""
    engine = engine_of(recipe)
    if not current_platform.is_cpu():
        engine["gpu_memory_utilization"] = recipe.cache.engine.get(
            "gpu_memory_utilization", min(engine.get("gpu_memory_utilization", GPU_MEMORY), GPU_MEMORY)
        )
    return {
        "enable_chunked_prefill": True,
        "max_num_seqs": IN_FLIGHT,
        **engine,
        "dtype": recipe.cache.dtype,
        "max_num_batched_tokens": recipe.cache.batch_tokens,
        "enable_prefix_caching": False,  # of a prefix that is read from a cache there are no logprobs
    }


async def score_all(engine: VllmEngine, items: Iterable[Item], keep: Keep, k: int) -> None:
    """Hand over in the order of the items, IN_FLIGHT ahead."""
    waiting: deque[tuple[Item, asyncio.Task[Scores | None]]] = deque()

    async def scores_of(item: Item) -> Scores | None:
        try:
            return Scores(
                await engine.score(f"{item.trace.problem_id}-{item.trace.sample}", item.prompt, item.reply, k)
            )
        except SampleFailed:
            return None

    try:
        for item in items:
            waiting.append((item, asyncio.create_task(scores_of(item))))
            if len(waiting) == IN_FLIGHT:
                await hand_over(waiting, keep)
        while waiting:
            await hand_over(waiting, keep)
    finally:
        for _, task in waiting:
            task.cancel()


async def hand_over(waiting: deque[tuple[Item, asyncio.Task[Scores | None]]], keep: Keep) -> None:
    item, task = waiting.popleft()
    keep([(item, await task)])
