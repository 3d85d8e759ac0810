"""What is checked before the first stage: everything that would stop one of them, hours later."""

import importlib
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from r1distill.cache.settings import scorer_of, scoring_recipes
from r1distill.chain.links import STAGES_OF_ROUNDS, rounds_of, teacher_of_rounds
from r1distill.errors import UserError, require_packages
from r1distill.evaluate.benchmarks import asking_in, data_in
from r1distill.evaluate.contestants import check_contestants
from r1distill.evaluate.tasks import load_task
from r1distill.filter.public_traces import traces_path
from r1distill.gpus import visible_gpus
from r1distill.models import check_model_name
from r1distill.problems import local_path
from r1distill.prompting import load_prompt
from r1distill.recipe import Recipe, refuse_missing
from r1distill.resources import find_file
from r1distill.run import Run
from r1distill.train_sections import chat_template_text
from r1distill.verify.judge import load_judge_prompt


def needed_by(stage: str, recipe: Recipe) -> list[str]:
    """The keys without which a stage cannot run."""
    if stage == "eval":
        of_role = {"base": "train.student", "teacher": "teacher.model"}
        return [key for role, key in of_role.items() if role in recipe.eval.models]
    is_import = recipe.traces is not None
    scorer = [] if recipe.teachers else ["cache.model" if is_import and recipe.cache.model else "teacher.model"]
    return {
        "generate": [] if is_import else ["problems.path", "teacher.model"],
        "cache": [*scorer, "train.student"],
        "prune": ["train.student"],
        "train": ["train.student"],
        "on_policy": ["problems.path", "train.student"],
        "quantize": ["train.student"],
    }.get(stage, [])


def preflight(recipe: Recipe, names: Sequence[str], made: Collection[Path] = ()) -> None:
    """Find before the first hour what would stop the last: missing extras, files, models, tasks, misspelt options.

    `made`: folders of the models that trainings before these stages make, which need not be there yet. Raises UserError.
    """

    def check_model(name: str, key: str) -> None:
        if Path(name).expanduser() not in made:
            check_model_name(name, key)

    for name in names:
        refuse_missing(recipe, name, *needed_by(name, recipe))
    engines: dict[str, dict[str, Any]] = {}
    if "generate" in names:
        load_prompt(recipe.generate.prompt, recipe.generate.prefill)
        if recipe.traces is not None:
            if traces_path(recipe.traces) is None:
                require_packages(f"reading {recipe.traces.path} from the Hub", "datasets")
        else:
            local_path(recipe.problems.path)
        if recipe.traces is None and recipe.teacher.backend == "vllm":
            require_packages("generate", "vllm")
            check_model(recipe.teacher.model, "teacher.model")
            engines["teacher.engine"] = recipe.teacher.engine
    if {"verify", "eval"} & set(names) and recipe.verify.judge:
        load_judge_prompt(recipe.verify.judge.prompt)
    if "cache" in names and recipe.cache.source != "generation":
        require_packages("cache", "torch", "transformers")
        for each in scoring_recipes(recipe).values():
            scorer = scorer_of(each)
            check_model(scorer.model, scorer.key)
        if recipe.cache.source == "vllm":
            require_packages("cache", "vllm")
            engines["cache.engine"] = recipe.cache.engine
    if "prune" in names:
        require_packages("prune", "torch", "transformers")
        check_model(recipe.train.student, "train.student")
    if "on_policy" in names and recipe.on_policy:
        check_model(teacher_of_rounds(recipe)[0], "on_policy.teacher")
    if "quantize" in names:
        require_packages("quantize", "torch", "transformers", "compressed_tensors")
    if "train" in names and recipe.train.qat:
        require_packages("[train.qat]", "torchao", "compressed_tensors")
    if "train" in names:
        require_packages("train", "torch", "transformers", "trl", "peft", "datasets", "accelerate")
        check_model(recipe.train.student, "train.student")
        if recipe.train.online_teacher:
            check_model(recipe.train.online_teacher, "the teacher of [train]")
        chat_template_text(recipe.train)
        if "config_file" in recipe.train.launch:
            find_file(str(recipe.train.launch["config_file"]), "train.launch.config_file")
    if "eval" in names:
        if not recipe.eval.tasks:
            raise UserError("eval.tasks is empty; name a task (r1distill run quickstart --dry-run shows one)")
        for each in recipe.eval.tasks:
            task = load_task(each)
            asking_in(recipe, task)
            local_path(data_in(recipe, task).path)
        check_contestants(recipe, made)
        scheme = recipe.quantize.scheme if recipe.quantize and "quantized" in recipe.eval.models else None
        if scheme == "int8_weights" and not visible_gpus():
            raise UserError(
                'quantize.scheme = "int8_weights" with "quantized" in eval.models: vLLM computes that on GPUs alone, and this '
                'machine has none; take quantize.scheme = "int8", or "quantized" out of eval.models'
            )
        if recipe.eval.models != ["teacher"] or recipe.teacher.backend == "vllm":
            require_packages("eval", "vllm")
            engines["eval.engine"] = recipe.eval.engine
            engines |= {f"eval.candidates.{name}.engine": each.engine for name, each in recipe.eval.candidates.items()}
    # these imports take seconds, so they come after everything that needs none
    for section, engine in engines.items():
        importlib.import_module("r1distill.generate.vllm_engine").check_engine_arguments(section, engine)
    if "train" in names:
        importlib.import_module("r1distill.train.options").check_options(recipe.train)
    is_there = Path(recipe.train.student).expanduser() not in made
    touched = (recipe.train.qat, recipe.quantize, recipe.train.hidden, recipe.train.attention)
    if is_there and ("prune" in names or ("train" in names and any(touched))):
        importlib.import_module("r1distill.student_check").check_student(recipe, names, made)
    if "on_policy" in names and recipe.on_policy:
        check_rounds(recipe, made)


def check_rounds(recipe: Recipe, made: Collection[Path]) -> None:
    """A round on the student's own samples is checked as the run that it is; they differ in folder and seed alone."""
    first = rounds_of(Run(recipe))[0].recipe
    try:
        preflight(first, STAGES_OF_ROUNDS, (*made, Path(first.train.student)))
    except UserError as error:
        raise UserError(f"[on_policy]: {error}") from None
