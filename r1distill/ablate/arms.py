"""The trainings of an ablation as ordinary runs: the recipe of each, and what it takes over from the run that was sampled."""

import os
import secrets
from pathlib import Path
from typing import Any

from r1distill.ablate_section import Arm
from r1distill.cache.settings import scoring_recipes
from r1distill.cache.stage import wanted_manifest
from r1distill.filter.tagging import is_tagged
from r1distill.pipeline import names_of_run
from r1distill.recipe import Recipe, as_given, merged, refuse_rounding_for_nothing, validated
from r1distill.run import Run
from r1distill.section import false_is_absent
from r1distill.store import write_json
from r1distill.train.teacher_cache import MANIFEST, TeacherCache, differences
from r1distill.train_sections import WITHOUT_VALIDATION

SAMPLED = ("generate", "verify")  # stages whose results are taken over


def folder_of(recipe: Recipe) -> Path:
    """Where the trainings and results.json are."""
    return Run(recipe).folder / "ablate"


def recipe_of(recipe: Recipe, arm: Arm, number: int, tokens: int | None) -> Recipe:
    """The recipe of training `number` of an arm, from 0, on `tokens` of the teacher's: RUN/ablate/ARM-seedNUMBER.

    The recipe's own seed stays, since the teacher was sampled with it. That of what is drawn among the traces and that of the
    training (order, new adapters) are higher by `number`. A student's samples have its training in their identity, so that
    those of two trainings are drawn independently without a seed of their own.
    """
    filter = arm.over(recipe.filter)
    recipe = recipe_with(recipe, arm)
    whole = recipe.model_dump(exclude={"ablate"})
    filter_seed = recipe.seed if filter.seed is None else filter.seed
    args: dict[str, Any] = recipe.train.args
    seeds = {"seed": args.get("seed", recipe.seed), **({"data_seed": args["data_seed"]} if "data_seed" in args else {})}
    whole |= {
        "run_dir": str(folder_of(recipe) / f"{arm.name}-seed{number}"),
        "filter": {
            **filter.model_dump(), "token_budget": tokens, "validation_fraction": 0.0, "seed": filter_seed + number,
        },
        "train": {
            **whole["train"],
            "args": {
                **args,
                **{name: seed + number for name, seed in seeds.items()},
                **{name: value for name, value in WITHOUT_VALIDATION.items() if name in args},
            },
        },
        "eval": {**whole["eval"], "models": [scored_role(recipe)]},
    }  # fmt: skip
    return Recipe.model_validate(whole)


def recipe_with(recipe: Recipe, arm: Arm) -> Recipe:
    """The recipe with what the arm sets besides its filter. Raises UserError where that is no recipe."""
    if not arm.set:
        return recipe
    tables = merged(as_given(recipe.model_dump(exclude={"ablate"})), false_is_absent(arm.set, Recipe))
    where = Path(f"[[ablate.arms]] {arm.name}")
    return refuse_rounding_for_nothing(validated(Recipe, tables, where), where)


def scored_role(recipe: Recipe) -> str:
    """Whom of a training eval scores: the last student that it makes."""
    return "quantized" if recipe.quantize else "on_policy" if recipe.on_policy else "student"


def stages_of(recipe: Recipe) -> list[str]:
    """The stages of a training, in order."""
    return [name for name in names_of_run(recipe) if name not in SAMPLED]


def with_filter(run: Run, arm: Arm) -> Run:
    """The run itself, as if the filter of the arm were its own."""
    return Run(run.recipe.model_copy(update={"filter": arm.over(run.recipe.filter)}))


def take_over(source: Run, target: Run, tags: Path | None) -> None:
    """Let `target` have the problems, traces, verdicts and `tags` of `source`, with the records of the stages that made them.

    Nothing is copied. Called again it changes nothing, unless `source` was sampled or verified again since: the records
    then tell `target` that all it made is outdated. A student's stages only ever replace whole files, so that those
    of `source` stay as they are.
    """
    records = {name: source.record(name) for name in SAMPLED}
    if target.record("generate") != records["generate"]:
        link_all([source.problems, *source.traces.glob("*.parquet"), *fitting_caches(source, target)], source, target)
        for other in target.traces.glob("*.parquet"):
            if not (source.traces / other.name).exists():
                other.unlink()  # a link to what an earlier sampling had made
    link_all([source.verdicts, source.folder / "exact_entropies.parquet"], source, target)
    for name, record in records.items():  # last: a process that is killed before does it all again
        if target.record(name) != record:
            write_json(target.record_path(name), record)
    if tags is not None and not is_tagged(target):
        link(tags, target.tags)
        if (report := tags.with_name("contamination.json")).exists():
            link(report, target.folder / report.name)


def fitting_caches(source: Run, target: Run) -> list[Path]:
    """Files of the distributions that `target` would score alike; where an arm says others, it scores for itself."""
    kl = target.recipe.train.kl
    if kl is None or kl.online:
        return []
    found: list[Path] = []
    for name, recipe in scoring_recipes(target.recipe).items():
        folder = source.teacher_cache / name
        if (folder / MANIFEST).is_file() and not differences(TeacherCache(folder).manifest, wanted_manifest(recipe)):
            found += folder.glob("*")
    return found


def link_all(paths: list[Path], source: Run, target: Run) -> None:
    for path in paths:
        if path.is_file():
            link(path, target.folder / path.relative_to(source.folder))


def link(source: Path, target: Path) -> None:
    """Make `target` the file `source`, in place of whatever it is: a hard link, or a symbolic one where there are none."""
    if target.exists() and target.samefile(source):
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(4)}")
    try:
        os.link(source.resolve(), temporary)
    except OSError:  # another file system, or one without hard links
        os.symlink(source.resolve(), temporary)
    os.replace(temporary, target)
