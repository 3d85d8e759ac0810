"""The stage `cache`: kept traces → the teacher's distributions at each of their tokens, for [train.kl]."""

import importlib
import itertools
import time
from contextlib import ExitStack
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from r1distill.cache.settings import (
    Scorer,
    domains_of,
    engine_of,
    manifest_of,
    open_fitting,
    refuse_other_vocabulary,
    scorer_of,
    scoring_recipes,
)
from r1distill.cache.traces import Item, Scores, kept_items, kept_keys
from r1distill.console import Progress, console, say
from r1distill.errors import UserError
from r1distill.models import load_tokenizer
from r1distill.prompting import template_sha256
from r1distill.recipe import Recipe
from r1distill.run import Clock, Run
from r1distill.train.several_teachers import refuse_idle, weights_of
from r1distill.train.teacher_cache import CacheWriter, Teacher, TeacherCache, vocabulary_sha256

PASSES = {"vllm": "r1distill.cache.vllm_pass", "transformers": "r1distill.cache.full_pass"}


def cache_stage(run: Run, clock: Clock) -> dict[str, Any]:
    """Score what is missing, or check what generation kept. Returns the counts for the stage's record.

    With [[teachers]] each has its turn, and a cache of its own; the counts are by their names then.
    """
    keys, teachers = kept_keys(run), run.recipe.teachers
    if not teachers:
        return cache_of(run, clock, run.teacher_cache, keys)
    domains = domains_of(run)
    refuse_idle(teachers, domains.values())
    weights = {each: weights_of(teachers, *each) for each in set(domains.values())}
    found: dict[str, Any] = {}
    for place, (name, recipe) in enumerate(scoring_recipes(run.recipe).items()):
        taught = {key for key in keys if weights[domains[key[0]]][place]}
        say(f"  {name}: {recipe.cache.model}")
        found[name] = cache_of(Run(recipe), clock, run.teacher_cache / name, taught)
    return {"teachers": found, "tokens": sum(each.pop("tokens", 0) for each in found.values())}


def cache_of(run: Run, clock: Clock, folder: Path, keys: set[tuple[str, int]]) -> dict[str, Any]:
    """One cache of the traces of these keys, for the teacher that the run's recipe names."""
    if run.recipe.cache.source == "generation":
        cache = open_fitting(run.recipe, folder)
        counts = counts_of(cache, keys)
        say(f"  {folder.name}: kept while sampling, of {counts['traces']} of {len(keys)} kept traces")
        return counts
    tokenizer, teacher = check_teacher(run.recipe)
    made_for = str((run.record("filter") or {}).get("finished_at"))
    with CacheWriter(folder, teacher, resume=True, made_for=made_for) as writer:
        refused = score_missing(run, clock, writer, keys, tokenizer)
    cache = TeacherCache(folder)
    # those of an earlier time cost this one nothing, so they are no part of its speed
    tokens = sum(shard["tokens"] for shard in cache.manifest["shards"] if shard.get("made_for") == made_for)
    return {**counts_of(cache, keys), "refused": refused, "tokens": tokens}


def check_teacher(recipe: Recipe) -> tuple[Any, Teacher]:
    """The tokenizer that renders, and who scores. Raises UserError, before a model is loaded, where it is not of use.

    That is where student and teacher do not share a vocabulary.
    """
    scorer, settings = scorer_of(recipe), recipe.cache
    trust = bool({**engine_of(recipe), **settings.model_args}.get("trust_remote_code", False))
    tokenizer = load_tokenizer(
        scorer.tokenizer, scorer.tokenizer_revision, scorer.tokenizer_key, trust_remote_code=trust
    )
    train = recipe.train
    student = load_tokenizer(*train.tokenizer_used, trust_remote_code=train.trusts_remote_code)
    sha256 = vocabulary_sha256(tokenizer.get_vocab())
    refuse_other_vocabulary(train.student, vocabulary_sha256(student.get_vocab()), scorer.model, sha256)
    if not tokenizer.chat_template:
        raise UserError(
            f"{scorer.tokenizer_key} = {scorer.tokenizer}: its tokenizer has no chat template, so the prompt of sampling "
            "cannot be made again; name in cache.tokenizer the one that was sampled with"
        )
    decided = manifest_of(recipe)
    teacher = Teacher(
        **{**decided, "temperatures": tuple(decided["temperatures"])},
        vocabulary_sha256=sha256,
        logprobs_mode="raw_logprobs",
        template_sha256=template_sha256(tokenizer),
    )
    if settings.source == "transformers":
        teacher = replace(teacher, vocabulary_rows=shared_rows(recipe, scorer))
    return tokenizer, teacher


def wanted_manifest(recipe: Recipe) -> dict[str, Any]:
    """What the manifest of a cache says that can be continued, or trained on, with the recipe."""
    return manifest_of(recipe) if recipe.cache.source == "generation" else asdict(check_teacher(recipe)[1])


def shared_rows(recipe: Recipe, scorer: Scorer) -> int:
    """The rows that both heads have: they are padded to different sizes (Qwen2.5: 151,936 up to 3B, 152,064 from 7B)."""
    full_pass = importlib.import_module(PASSES["transformers"])
    train = recipe.train
    return min(
        full_pass.head_rows(scorer.model, scorer.revision, scorer.key, recipe.cache.model_args),
        full_pass.head_rows(train.student, train.revision, "train.student", train.model_args),
    )


def score_missing(run: Run, clock: Clock, writer: CacheWriter, keys: set[tuple[str, int]], tokenizer: Any) -> int:
    """Add what is not in the cache to it; the model is loaded where there is any. Returns how many it has no room for."""
    before = writer.before
    found = 0 if before is None else sum(key in before.places for key in keys)
    items = kept_items(run, keys, tokenizer, writer.has)
    first = next(items, None)
    if found:
        say(f"  {found} of {len(keys)} kept traces are in {writer.folder.name}; they are not scored again")
    if first is None:
        return 0
    tokens = refused = 0
    started = time.monotonic()

    def note() -> str:
        return f"{tokens:,} tokens, {tokens / max(time.monotonic() - started, 1e-3):,.0f}/s"

    def keep(batch: list[tuple[Item, Scores | None]]) -> None:
        nonlocal tokens, refused
        for item, scores in batch:
            if scores is None:
                refused += 1
            else:
                writer.add(item.trace, *scores)
                tokens += len(item.reply)
        writer.seal_if_due()
        clock.tick()
        progress.advance(len(batch), note=note)

    scorer = scorer_of(run.recipe)
    module = importlib.import_module(PASSES[run.recipe.cache.source])
    with ExitStack() as opened:
        with console.status(f"cache: starting {scorer.model}"):
            score = opened.enter_context(module.open_pass(run.recipe, scorer, writer.teacher))
        started = time.monotonic()
        with Progress("cache", len(keys), found) as progress:
            score(itertools.chain([first], items), keep)
    if refused:
        say(
            f"  {refused} traces are longer than {scorer.model} has room for; they have no distributions",
            style="yellow",
        )
    return refused


def counts_of(cache: TeacherCache, keys: set[tuple[str, int]]) -> dict[str, Any]:
    """{"traces": kept ones that have distributions, "without": those that have none, …}"""
    traces = sum(key in cache.places for key in keys)
    manifest = cache.manifest
    return {
        "traces": traces,
        "without": len(keys) - traces,
        "cached_tokens": manifest["tokens"],
        "entries_per_token": manifest["mean_entries_a_token"],
        "mass": manifest["mean_mass_a_token"],
        "bytes_per_token": manifest["bytes"] / max(manifest["tokens"], 1),
    }
