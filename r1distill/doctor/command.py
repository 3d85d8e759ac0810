"""`r1distill doctor RECIPE`: read, check, print."""

import importlib
import importlib.util
import json
import os
from collections import Counter
from dataclasses import asdict, replace
from pathlib import Path
from typing import get_args

from r1distill.cache.settings import scorer_of, scoring_recipes
from r1distill.console import library_output_to, say
from r1distill.doctor.context import (
    check_base_can_be_asked,
    check_evaluation_room,
    check_rope,
    check_sampling_room,
)
from r1distill.doctor.data import check_data
from r1distill.doctor.findings import Finding, Group, Severity, attempt, ok
from r1distill.doctor.machine import check_disk, check_files, parameters_of, sampling_bytes, student_bytes
from r1distill.doctor.reading import Launch, Model, read_launch, read_model
from r1distill.doctor.sampling import check_sampling
from r1distill.doctor.tokens import (
    check_ends,
    check_parity,
    check_student_tokens,
    check_template,
    check_vocabularies,
)
from r1distill.doctor.training import check_training
from r1distill.doctor.versions import check_attention, check_versions, installed_versions, requirements_of
from r1distill.evaluate.benchmarks import asking_in
from r1distill.gpus import visible_gpus
from r1distill.models import load_tokenizer
from r1distill.problems import local_path, options_of, read_problems
from r1distill.procedural import is_procedural
from r1distill.recipe import Recipe
from r1distill.run import Run
from r1distill.train.stage import resolved_launch
from r1distill.train.teacher_cache import MANIFEST
from r1distill.train_sections import Train

TRAINING = ("torch", "transformers", "trl", "peft", "datasets", "accelerate")
MARKS: dict[Severity, tuple[str, str]] = {"ok": ("✓", "green"), "warning": ("!", "yellow"), "error": ("✗", "bold red")}


def doctor(run: Run, *, as_json: bool) -> int:
    """Print the findings; the exit code is 2 where there are errors, else 0."""
    with library_output_to(Path(os.devnull)):  # what libraries say while they are imported
        findings = findings_of(run)
    counts: Counter[Severity] = Counter(finding.severity for finding in findings)
    if as_json:
        found = [asdict(finding) for finding in findings]
        print(json.dumps({"errors": counts["error"], "warnings": counts["warning"], "findings": found}, indent=2))
    else:
        show(findings, counts)
    return 2 if counts["error"] else 0


def show(findings: list[Finding], counts: Counter[Severity]) -> None:
    for group in get_args(Group):
        of_group = [finding for finding in findings if finding.group == group]
        if of_group:
            say(f"\n{group}", style="bold")
        for finding in of_group:
            mark, style = MARKS[finding.severity]
            limit = f" ({finding.limit})" if finding.limit else ""
            say(f"  {mark} {finding.check}: {finding.value}{limit}", style=None if mark == "✓" else style)
            if finding.remedy:
                say(f"      → {finding.remedy}")
    say(f"\n{counts['error']} errors, {counts['warning']} warnings, {counts['ok']} checks passed")


def findings_of(run: Run) -> list[Finding]:
    """All checks, in the order in which they are shown."""
    recipe = run.recipe
    gpus = len(visible_gpus())
    findings = check_installation(recipe, gpus)
    of_files, tasks, prompts = check_files(recipe, run.folder)
    launch, problem = attempt("training", "[train.launch]", lambda: launch_of(recipe, gpus))
    findings += of_files + problem
    student, problem = attempt("models and tokens", "student", lambda: read_student(recipe))
    findings += problem
    teacher, problem = attempt("models and tokens", "teacher", lambda: read_teacher(recipe))
    findings += problem
    tied = None
    if student is not None:
        tied = bool(getattr(student.config.get_text_config(), "tie_word_embeddings", False))
        findings += check_base_can_be_asked(recipe, student.tokenizer.chat_template)
        if "base" in recipe.eval.models:
            findings += check_ends(student, "base")
        prepared = check_student_tokens(student, recipe.train)
        findings += prepared + check_rope(student, recipe.train) + check_evaluation_room(recipe, tasks, student)
        findings += check_template(student, recipe.generate.prefill)
        taught = recipe.generate.prefill
        forced = {asking_in(recipe, task).prompt.prefill for task in tasks} - {taught}
        findings += check_parity(student, taught, min(forced, default=taught), prompts)
        findings += check_divergence(recipe, student)
    if teacher is not None:
        findings += check_ends(teacher, "teacher")
    if recipe.traces is None:
        findings += check_sampling_room(recipe, teacher)
    has_cache = (run.teacher_cache / MANIFEST).is_file()
    findings += check_sampling(recipe, has_cache, makes_distributions(recipe))
    if launch is not None:
        findings += check_training(recipe, launch, tied)
    found, problem = attempt("data", "dataset", lambda: check_data(run.dataset, recipe, student, launch))
    findings += (found or []) + problem
    return findings + check_room(run, student, launch or Launch("process"))


def launch_of(recipe: Recipe, gpus: int) -> Launch:
    """How training would be started on this machine."""
    return read_launch(recipe.train.model_copy(update={"launch": resolved_launch(recipe.train, gpus)}))


def check_installation(recipe: Recipe, gpus: int) -> list[Finding]:
    """Versions, and the options that TRL, peft and vLLM would not know."""
    installed = installed_versions()
    has_engine = recipe.teacher.backend == "vllm"
    samples_here = has_engine and recipe.traces is None
    scores_here = bool(recipe.eval.tasks) and (has_engine or recipe.eval.models != ["teacher"])
    needed = [*TRAINING, *(["vllm"] if samples_here or scores_here else [])]
    findings = check_versions(installed, requirements_of(installed), needed)
    findings += check_attention(recipe.train.model_args.get("attn_implementation"), installed, gpus)
    if all(importlib.util.find_spec(name) for name in TRAINING):
        check_options = importlib.import_module("r1distill.train.options").check_options
        findings += attempt("training", "[train.args], [train.peft]", lambda: check_options(recipe.train))[1]
    if "vllm" in needed and importlib.util.find_spec("vllm"):
        check = importlib.import_module("r1distill.generate.vllm_engine").check_engine_arguments
        for section, engine in (("teacher.engine", recipe.teacher.engine), ("eval.engine", recipe.eval.engine)):
            if engine:
                findings += attempt("sampling", f"[{section}]", lambda s=section, e=engine: check(s, e))[1]
    return findings


def read_student(recipe: Recipe) -> Model:
    settings = recipe.train
    trust = settings.trusts_remote_code
    model = read_model(settings.student, settings.revision, "train.student", trust)
    if not settings.tokenizer:
        return model
    return replace(model, tokenizer=load_tokenizer(*settings.tokenizer_used, trust_remote_code=trust))


def read_teacher(recipe: Recipe) -> Model | None:
    """None where a server has it: what it is called there is no name of a model for us. Nor where no stage opens it."""
    teacher = recipe.teacher
    is_opened = recipe.traces is None or "teacher" in recipe.eval.models
    if teacher.backend == "server" or not is_opened:
        return None
    return read_model(teacher.model, teacher.revision, "teacher.model", teacher.engine.get("trust_remote_code", False))


def check_divergence(recipe: Recipe, student: Model) -> list[Finding]:
    """The vocabulary of whoever teaches besides by its words, against the student's."""
    train = recipe.train
    if (name := train.online_teacher) is not None:
        if train.kl is not None and train.kl.cross_tokenizer:
            return check_alignment(train, student, name)
        return check_tokens_of(
            student, train.online_section, name, train.teacher_revision, "the teacher in the training"
        )
    if train.kl is None:
        return []
    scorers = [scorer_of(each) for each in scoring_recipes(recipe).values()]
    return [
        finding
        for each in scorers
        if each.tokenizer
        for finding in check_tokens_of(student, "train.kl", each.tokenizer, each.tokenizer_revision, each.tokenizer_key)
    ]


def check_tokens_of(student: Model, section: str, name: str, revision: str | None, key: str) -> list[Finding]:
    tokenizer, problem = attempt(
        "models and tokens", f"[{section}]: {name}", lambda: load_tokenizer(name, revision, key)
    )
    return problem if tokenizer is None else check_vocabularies(student, tokenizer.get_vocab(), name, section)


def check_alignment(train: Train, student: Model, name: str) -> list[Finding]:
    """What `train.kl.cross_tokenizer` asks of both tokenizers; nothing where torch, which it computes with, is not there."""
    if importlib.util.find_spec("torch") is None:
        return []
    check = f"[train.kl]: {student.name} and {name}"
    load_aligner = importlib.import_module("r1distill.train.loading").load_aligner
    aligner, problem = attempt("models and tokens", check, lambda: load_aligner(train, student.tokenizer))
    if aligner is None:
        return problem
    shared = len(set(aligner.student.of_id.values()) & set(aligner.teacher.of_id.values()))
    return [ok("models and tokens", check, f"tokenizers can be aligned, {shared:,} tokens are the same bytes")]


def makes_distributions(recipe: Recipe) -> bool:
    return recipe.generate.keep_distributions or recipe.cache.source != "generation"


def check_room(run: Run, student: Model | None, launch: Launch) -> list[Finding]:
    """Disk for the student where its config is known, and for the traces where the number of problems is."""
    recipe = run.recipe
    parts: dict[str, int] = {}
    problems = number_of_problems(recipe)
    if problems is not None and not run.is_done("generate"):
        parts |= sampling_bytes(recipe, problems)
    if student is not None and importlib.util.find_spec("torch"):
        parameters = parameters_of(student)
        parts |= student_bytes(parameters, recipe.train, launch)
        size = [ok("disk and memory", f"{student.name}: parameters", f"{parameters:,}")]
    else:
        size = []
    return size + check_disk(run.folder, parts)


def number_of_problems(recipe: Recipe) -> int | None:
    """Of a file; of a set on the Hub only what `problems.limit` says."""
    section = recipe.problems
    if recipe.traces is not None:
        return None

    def count() -> int | None:
        if not is_procedural(section.path) and local_path(section.path) is None:
            return section.limit
        return len(read_problems(section.path, **options_of(section), tolerate="unusable").problems)

    return attempt("files", "problems", count)[0]  # what is wrong with them the stage `generate` says, one by one
