"""The student, its tokenizer, and whoever gives the teacher's distributions."""

from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerBase
from transformers.integrations.deepspeed import is_deepspeed_zero3_enabled

from r1distill import models
from r1distill.cache.settings import open_fitting, recipes_of, refuse_other_vocabulary
from r1distill.errors import UserError
from r1distill.records import Problem
from r1distill.run import Run
from r1distill.store import read_records
from r1distill.train.cross_data import Aligner, Cross
from r1distill.train.render import prepare_tokenizer
from r1distill.train.several_teachers import SeveralTeachers, weights_of
from r1distill.train.teacher_cache import TeacherCache, vocabulary_sha256
from r1distill.train_sections import Train, chat_template_text

TEACHER_KEY = "the teacher of train.kl.online, train.hidden or train.attention"


def open_cache(run: Run, tokenizer: PreTrainedTokenizerBase) -> TeacherCache | SeveralTeachers:
    """Raises UserError where there is none, and where it is of another teacher, prompt or vocabulary than the recipe's."""
    recipe = run.recipe
    folders = {run.teacher_cache: recipe}
    if recipe.teachers:
        folders = {run.teacher_cache / name: each for name, each in recipes_of(recipe).items()}
    its_sha256 = vocabulary_sha256(tokenizer.get_vocab())
    caches = []
    for folder, each in folders.items():
        cache = open_fitting(each, folder)
        manifest = cache.manifest
        refuse_other_vocabulary(recipe.train.student, its_sha256, manifest["model"], manifest["vocabulary_sha256"])
        caches.append(cache)
    if not recipe.teachers:
        return caches[0]
    domains = {problem.id: (problem.source, problem.kind) for problem in read_records(run.problems, Problem)}
    names = [teacher.name for teacher in recipe.teachers]
    return SeveralTeachers(names, caches, lambda problem_id: weights_of(recipe.teachers, *domains[problem_id]))


def load_online_teacher(settings: Train, tokenizer: PreTrainedTokenizerBase) -> PreTrainedModel:
    """The teacher in the training. Raises UserError where its vocabulary is another unasked, and under ZeRO-3."""
    name = settings.online_teacher
    assert name
    path = models.resolve_model(name, TEACHER_KEY)
    if settings.kl is None or not settings.kl.cross_tokenizer:
        trust = settings.trusts_remote_code
        theirs = models.load_tokenizer(name, None, TEACHER_KEY, trust_remote_code=trust)
        ours, other = (vocabulary_sha256(each.get_vocab()) for each in (tokenizer, theirs))
        refuse_other_vocabulary(settings.student, ours, name, other)
    if is_deepspeed_zero3_enabled():
        raise UserError("train.kl.online with DeepSpeed ZeRO-3 is not supported: use FSDP2, or make a cache")
    return AutoModelForCausalLM.from_pretrained(path, dtype=getattr(torch, settings.dtype), **settings.model_args)


def load_aligner(settings: Train, tokenizer: PreTrainedTokenizerBase) -> Aligner | None:
    """For `train.kl.cross_tokenizer`; None without. Raises UserError for tokenizers that cannot be aligned."""
    if settings.kl is None or not settings.kl.cross_tokenizer:
        return None
    name = settings.online_teacher
    assert name
    theirs = models.load_tokenizer(name, None, TEACHER_KEY, trust_remote_code=settings.trusts_remote_code)
    prepare_tokenizer(theirs, None, None, None)
    return Aligner.of(tokenizer, theirs)


def load_cross(settings: Train, aligner: Aligner | None, student: Any, teacher: Any) -> Cross | None:
    if aligner is None:
        return None
    assert settings.kl
    assert settings.kl.cross_tokenizer
    rows, teacher_rows = (each.config.get_text_config().vocab_size for each in (student, teacher))
    return Cross(aligner, settings.kl.cross_tokenizer, rows, teacher_rows, aligner.teacher_tokenizer.pad_token_id)


def load_tokenizer(settings: Train) -> PreTrainedTokenizerBase:
    tokenizer = models.load_tokenizer(*settings.tokenizer_used, trust_remote_code=settings.trusts_remote_code)
    prepare_tokenizer(tokenizer, chat_template_text(settings), settings.eos_token, settings.pad_token)
    return tokenizer


def check_rows(settings: Train, model: Any, tokenizer: PreTrainedTokenizerBase) -> None:
    """Raise UserError where the tokenizer, which may be another's, has ids that the student has no embedding for."""
    rows, largest = model.get_input_embeddings().num_embeddings, max(tokenizer.get_vocab().values())
    if largest >= rows:
        raise UserError(
            f"{settings.tokenizer_used[0]}: its tokenizer has an id {largest}, and {settings.student} has "
            f"{rows} embeddings; set train.tokenizer to one of the student's family"
        )


def load_model(settings: Train, *, quantized: bool = True) -> Any:
    """The student as it is trained; `quantized=False` leaves out model_args.quantization_config, to merge adapters into."""
    options = {key: value for key, value in settings.model_args.items() if quantized or key != "quantization_config"}
    path = models.resolve_model(settings.student, "train.student")
    config = AutoConfig.from_pretrained(path, revision=settings.revision, trust_remote_code=settings.trusts_remote_code)
    if settings.rope_parameters is not None:
        # setting config.rope_theta is a silent no-op in transformers 5
        config.rope_parameters = settings.rope_parameters
    if settings.max_position_embeddings is not None:
        config.max_position_embeddings = settings.max_position_embeddings
    positions = getattr(config, "max_position_embeddings", None)
    if positions is not None and settings.max_length > positions:
        raise UserError(
            f"train.max_length = {settings.max_length} is more than the {positions} positions of {settings.student}; "
            "lower it, or set train.max_position_embeddings with train.rope_parameters"
        )
    return AutoModelForCausalLM.from_pretrained(
        path, revision=settings.revision, config=config, dtype=getattr(torch, settings.dtype), **options
    )
