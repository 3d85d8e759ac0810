"""Exact mean entropies of traces whose bounds leave [filter.entropy] undecided: the model reads them again, with whole logits.

The pass is that of the teacher cache (r1distill/cache/full_pass.py), with what [cache] says for transformers. What was scored
stays in exact_entropies.parquet, so that a changed filter scores only what is new. Needs torch and transformers.
"""

import bisect
import importlib
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from r1distill.cache.settings import scorer_of
from r1distill.cache.traces import Item, Scores, kept_items
from r1distill.console import Progress, say
from r1distill.errors import require_packages
from r1distill.generate.distributions import LEAST
from r1distill.models import load_tokenizer
from r1distill.prompting import THINK_END
from r1distill.records import Trace, content_id
from r1distill.run import Run
from r1distill.store import read_records, write_records
from r1distill.train.teacher_cache import Teacher

SAVE_EVERY_S = 60.0  # what a killed process loses at most
Key = tuple[str, int]


@dataclass(frozen=True, slots=True)
class ExactEntropy:
    """The mean entropy in nats over the tokens of a trace, of its thinking and of its answer, None of no token.

    All tokens behind the forced start count, those that `thinking_budget` put in too. `text_id` is of the text that was
    read, `scorer` of the model, its revision and the type of its weights.
    """

    problem_id: str
    sample: int
    text_id: str
    scorer: str
    n_tokens: int
    mean_entropy_nats: float | None
    thinking_mean_entropy_nats: float | None
    answer_mean_entropy_nats: float | None


def rescore(run: Run, keys: set[Key], tick: Callable[[], None] = lambda: None) -> dict[Key, ExactEntropy]:
    """The exact entropies of the traces of these keys, without those for which the model has no room.

    Raises UserError where the model or its tokenizer is not to be had, or a package is missing. `tick` is called after
    each batch.
    """
    require_packages('filter.entropy.undecided = "rescore"', "torch", "transformers")
    path = run.folder / "exact_entropies.parquet"
    scorer = scorer_of(run.recipe)
    name = content_id(scorer.model, scorer.revision, run.recipe.cache.dtype)
    known = {of(each): each for each in read_records(path, ExactEntropy)} if path.exists() else {}

    found: set[Key] = set()

    def has(trace: Trace) -> bool:
        key = trace.problem_id, trace.sample
        exact = known.get(key)
        if exact is None or exact.scorer != name or exact.text_id != content_id(trace.text):
            return False
        found.add(key)
        return True

    trust = bool(run.recipe.cache.model_args.get("trust_remote_code", False))
    tokenizer = load_tokenizer(
        scorer.tokenizer, scorer.tokenizer_revision, scorer.tokenizer_key, trust_remote_code=trust
    )
    items = kept_items(run, keys, tokenizer, has)
    first = next(items, None)
    if first is not None:
        full_pass: Any = importlib.import_module("r1distill.cache.full_pass")
        rows = full_pass.head_rows(scorer.model, scorer.revision, scorer.key, run.recipe.cache.model_args)
        teacher = Teacher(
            "transformers", scorer.model, scorer.revision, "", "raw_logprobs", LEAST, vocabulary_rows=rows
        )
        saved_at = time.monotonic()

        def keep(batch: list[tuple[Item, Scores | None]]) -> None:
            nonlocal saved_at
            for item, scores in batch:
                if scores is not None and scores.entropies is not None:
                    exact = exact_of(item, scores.entropies, tokenizer, name)
                    known[of(exact)] = exact
                    found.add(of(exact))
            if time.monotonic() - saved_at > SAVE_EVERY_S:
                write_records(path, ExactEntropy, known.values())
                saved_at = time.monotonic()
            tick()
            progress.advance(len(batch))

        say(f"  entropies: {len(keys)} traces are undecided; {scorer.model} reads those again that are not scored yet")
        with (
            full_pass.open_pass(run.recipe, scorer, teacher) as score,
            Progress("rescore", len(keys)) as progress,
        ):
            score(chain([first], items), keep)
        write_records(path, ExactEntropy, known.values())
    return {key: known[key] for key in found}


def exact_of(item: Item, entropies: NDArray[np.floating], tokenizer: Any, scorer: str) -> ExactEntropy:
    """The means of the `entropies (T,)` of a reply's tokens."""
    trace = item.trace
    cut = thinking_end(tokenizer, item.reply)
    if cut is None and trace.thinking is not None and not trace.answer:
        cut = len(item.reply)  # cut off while it thought, as while sampling
    thinking, answer = (None, None) if cut is None else (entropies[:cut], entropies[cut:])
    return ExactEntropy(
        trace.problem_id, trace.sample, content_id(trace.text), scorer, len(item.reply),
        mean_of(entropies), mean_of(thinking), mean_of(answer),
    )  # fmt: skip


def mean_of(entropies: NDArray[np.floating] | None) -> float | None:
    return None if entropies is None or not len(entropies) else float(entropies.mean(dtype=np.float64))


def thinking_end(tokenizer: Any, ids: list[int]) -> int | None:
    """How many tokens there are up to the one that completes the last `</think>`; None where there is none."""

    def ends(n: int) -> int:
        return tokenizer.decode(ids[:n], skip_special_tokens=False).count(THINK_END)

    whole = ends(len(ids))
    return bisect.bisect_left(range(len(ids) + 1), whole, key=ends) if whole else None


def of(record: ExactEntropy) -> Key:
    return record.problem_id, record.sample


def exact_column(keys: Iterable[Key], exact: dict[Key, ExactEntropy], scope: str) -> NDArray[np.float64]:
    """The exact means of a scope of [filter.entropy] for the traces of `keys` `(N,)`, NaN where not scored."""
    field = {"sequence": "", "thinking": "thinking_", "answer": "answer_"}[scope] + "mean_entropy_nats"
    values = (getattr(exact[key], field) if key in exact else None for key in keys)
    return np.array([np.nan if value is None else value for value in values], dtype=np.float64)
