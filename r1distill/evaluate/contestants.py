"""Who is scored: the roles of a run, models by name, and adapters, each as something that can be opened and sampled."""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from r1distill.errors import UserError
from r1distill.generate.backend import Backend
from r1distill.generate.stage import teacher_backend, vllm_backend
from r1distill.models import check_model_name, fingerprint, resolve_model
from r1distill.prune.stage import with_pruned
from r1distill.recipe import Recipe
from r1distill.run import Run
from r1distill.sections import MADE_BY, ROLES, Candidate, Teacher


@dataclass(frozen=True, slots=True)
class Contestant:
    """A model as it is scored. `name` is that of its folder; `model` and `version` are part of every sample's identity."""

    name: str
    model: str
    version: str
    open: Callable[[], Backend]


def contestants_of(run: Run) -> list[Contestant]:
    """Those of `eval.models`, in order. Raises UserError where two would have one name."""
    found: dict[str, Contestant] = {}
    for entry in run.recipe.eval.models:
        contestant = contestant_of(run, entry)
        if contestant.name in found:
            raise UserError(
                f"eval.models: {found[contestant.name].model} and {contestant.model} would both be {contestant.name}; give one "
                "of them another name in [eval.candidates]"
            )
        found[contestant.name] = contestant
    return list(found.values())


def contestant_of(run: Run, entry: str) -> Contestant:
    recipe = run.recipe
    if entry == "teacher":
        teacher = recipe.teacher
        version = version_of(Candidate(model=teacher.model, revision=teacher.revision))
        return Contestant(entry, teacher.model, version, partial(teacher_backend, teacher, 0))
    if entry == "base":
        base = Candidate(model=recipe.train.student, revision=recipe.train.revision)
        return Contestant(entry, base.model, version_of(base), partial(engine_of, recipe, base, "train.student"))
    if entry in MADE_BY:
        made = student_of(run) if entry == "student" else Candidate(model=str(run.model(entry)))
        version = (run.record(MADE_BY[entry]) or {})["finished_at"]
        return Contestant(entry, str(run.model(entry)), version, partial(engine_of, recipe, made, f"the {entry} model"))
    candidate = recipe.eval.candidates.get(entry) or Candidate(model=entry)
    name = entry if entry in recipe.eval.candidates else Path(entry).name
    model = candidate.model if candidate.adapter is None else f"{candidate.model} + {candidate.adapter}"
    opened = partial(engine_of, recipe, candidate, "eval.models")
    if candidate.urls:
        server = Teacher(backend="server", model=model, urls=candidate.urls, api_key_env=candidate.api_key_env)
        opened = partial(teacher_backend, server, 0)
    return Contestant(name, model, version_of(candidate), opened)


def student_of(run: Run) -> Candidate:
    """The student of a run: a model, or an adapter of the one it started from."""
    if (run.student / "adapter_config.json").exists() and not (run.student / "config.json").exists():
        train = with_pruned(run).recipe.train
        return Candidate(model=train.student, revision=train.revision, adapter=str(run.student))
    return Candidate(model=str(run.student))


def engine_of(recipe: Recipe, candidate: Candidate, key: str) -> Backend:
    model = resolve_model(candidate.model, key)
    adapter = None if candidate.adapter is None else Path(candidate.adapter).expanduser().resolve()
    return vllm_backend(model, candidate.revision, {**recipe.eval.engine, **candidate.engine}, 0, adapter)


def version_of(candidate: Candidate) -> str:
    """The revision, and of what lies in folders a fingerprint: the next training may write into the same ones."""
    parts = [candidate.revision] if candidate.revision else []
    folders = (name for name in (candidate.model, candidate.adapter) if name is not None)
    return " ".join([*parts, *filter(None, map(fingerprint, folders))])


def check_contestants(recipe: Recipe, made: Collection[Path] = ()) -> None:
    """Raise UserError for a model that cannot be opened; nothing is loaded. `made`: folders that are made before it is."""
    for entry in recipe.eval.models:
        candidate = recipe.eval.candidates.get(entry)
        if entry in ROLES or (candidate and candidate.urls):
            continue
        key = f"eval.candidates.{entry}.model" if candidate else "eval.models"
        name = candidate.model if candidate else entry
        if Path(name).expanduser() not in made:
            check_model_name(name, key)
        if candidate and candidate.adapter is not None:
            adapter = Path(candidate.adapter).expanduser()
            if not (adapter / "adapter_config.json").is_file():
                raise UserError(
                    f"eval.candidates.{entry}.adapter = {candidate.adapter}: no adapter_config.json in it; give the folder of an "
                    "adapter that peft saved"
                )
