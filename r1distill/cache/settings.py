"""What the recipe says about the teacher's distributions: who scores, what the manifest must say, and whether one is needed."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from r1distill.errors import UserError
from r1distill.prompting import load_prompt
from r1distill.recipe import Recipe
from r1distill.records import Problem
from r1distill.run import Run
from r1distill.store import read_records
from r1distill.train.teacher_cache import MANIFEST, TeacherCache, differences


@dataclass(frozen=True, slots=True)
class Scorer:
    """The model that scores, and the keys of the recipe that name it and its tokenizer."""

    model: str
    revision: str | None
    key: str
    tokenizer: str
    tokenizer_revision: str | None
    tokenizer_key: str


def scorer_of(recipe: Recipe) -> Scorer:
    """The recipe's teacher, unless [cache] names another."""
    cache, teacher = recipe.cache, recipe.teacher
    model, key = (cache.model, "cache.model") if cache.model else (teacher.model, "teacher.model")
    revision = cache.revision or (None if cache.model else teacher.revision)
    if cache.tokenizer:
        return Scorer(model, revision, key, cache.tokenizer, None, "cache.tokenizer")
    if teacher.tokenizer and not cache.model:
        return Scorer(model, revision, key, teacher.tokenizer, None, "teacher.tokenizer")
    return Scorer(model, revision, key, model, revision, key)


def scoring_recipes(recipe: Recipe) -> dict[str, Recipe]:
    """By the folder below teacher_cache, the recipe as it would be for each of [[teachers]] alone.

    Without any, the recipe itself, in which one scores, by "": its cache is the folder teacher_cache.
    """
    found = {}
    for teacher in recipe.teachers:
        changes = {"model": teacher.model, "revision": teacher.revision, "tokenizer": teacher.tokenizer}
        cache = recipe.cache.model_copy(update=changes)
        found[teacher.name] = recipe.model_copy(update={"cache": cache, "teachers": []})
    return found or {"": recipe}


def engine_of(recipe: Recipe) -> dict[str, Any]:
    """vLLM's engine arguments for scoring: those of the teacher, where it is the one that scores, under those of [cache]."""
    is_teacher = recipe.cache.model is None and recipe.teacher.backend == "vllm"
    inherited = recipe.teacher.engine if is_teacher else {}
    cut = ("dtype", "max_num_batched_tokens")  # cache.dtype, cache.batch_tokens
    return {**{key: value for key, value in inherited.items() if key not in cut}, **recipe.cache.engine}


def why_not_scored(recipe: Recipe) -> str | None:
    """Why `run` has no use for the stage `cache`; None where training takes what it makes."""
    kl = recipe.train.kl
    if kl is None:
        return "there is no [train.kl]"
    if kl.online:
        return "the teacher of train.kl.online is in the training"
    if recipe.cache.source == "generation":
        return 'cache.source = "generation"'
    return None


def manifest_of(recipe: Recipe) -> dict[str, Any]:
    """The entries of a manifest that the recipe alone decides."""
    prompt = load_prompt(recipe.generate.prompt, recipe.generate.prefill)
    cache = recipe.cache
    entries: dict[str, Any] = {"source": cache.source, "prompt_sha256": prompt.sha256, "prefill": prompt.prefill}
    if cache.source == "generation":
        return {"model": recipe.teacher.model, "revision": recipe.teacher.revision, **entries}
    scorer = scorer_of(recipe)
    return {
        "model": scorer.model,
        "revision": scorer.revision,
        **entries,
        "k": cache.k,
        "temperatures": cache.temperatures,
        "dtype": cache.dtype,
    }


def open_fitting(recipe: Recipe, folder: Path) -> TeacherCache:
    """The distributions that the recipe means. Raises UserError where there are none, or others."""
    if not (folder / MANIFEST).is_file():
        remedy = "r1distill cache RECIPE makes it"
        if recipe.cache.source == "generation":
            remedy = "generate with generate.keep_distributions = true, or score the traces (cache.source)"
        raise UserError(f"[train.kl] needs {folder}, and it is not there, or not finished: {remedy}")
    cache = TeacherCache(folder)
    if other := differences(cache.manifest, manifest_of(recipe)):
        raise UserError(
            f"{folder} holds distributions that do not fit the recipe: {other}; correct the recipe, or make them again"
        )
    return cache


def domains_of(run: Run) -> dict[str, tuple[str, str]]:
    """Source and kind of each problem, by its id: what [[teachers]] name as domains."""
    return {problem.id: (problem.source, problem.kind) for problem in read_records(run.problems, Problem)}


def refuse_other_vocabulary(
    student: str, its_sha256: str, teacher: str, sha256: str, section: str = "train.kl"
) -> None:
    """Raise UserError unless both map the same tokens to the same ids. `section` of the recipe is for the remedy."""
    if its_sha256 == sha256:
        return
    remedy = "take a teacher and a student of one family"
    if section == "train.kl":
        remedy += ', or let the teacher run in the training (train.kl.online) with train.kl.cross_tokenizer = "aligned"'
    raise UserError(
        f"[{section}]: the vocabulary of the student {student} is not that of the teacher {teacher}, so that they read "
        f"different tokens; {remedy}"
    )
