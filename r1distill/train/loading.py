"""The student, its tokenizer, and whoever gives the teacher's distributions."""

from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerBase
from transformers.integrations.deepspeed import is_deepspeed_zero3_enabled

from r1distill import models
from r1distill.cache.settings import domains_of, open_fitting, refuse_other_vocabulary, scoring_recipes
from r1distill.errors import UserError
from r1distill.run import Run
from r1distill.train.cross_data import Aligner, Cross
from r1distill.train.online import every_process_reads
from r1distill.train.render import prepare_tokenizer, turn_end
from r1distill.train.several_teachers import SeveralTeachers, refuse_idle, weights_of
from r1distill.train.teacher_cache import TeacherCache, vocabulary_sha256
from r1distill.train_sections import Train, chat_template_text

TEACHER_KEY = "the teacher of train.kl.online, train.hidden or train.attention"


def cache_folders(run: Run) -> list[Path]:
    """Of the teacher's distributions; with [[teachers]] one for each."""
    return [run.teacher_cache / name for name in scoring_recipes(run.recipe)]


def open_cache(run: Run, tokenizer: PreTrainedTokenizerBase) -> TeacherCache | SeveralTeachers:
    """Raises UserError where there is none, and where it is of another teacher, prompt or vocabulary than the recipe's."""
    recipe = run.recipe
    its_sha256 = vocabulary_sha256(tokenizer.get_vocab())
    caches = []
    for name, each in scoring_recipes(recipe).items():
        cache = open_fitting(each, run.teacher_cache / name)
        manifest = cache.manifest
        refuse_other_vocabulary(recipe.train.student, its_sha256, manifest["model"], manifest["vocabulary_sha256"])
        caches.append(cache)
    if not recipe.teachers:
        return caches[0]
    domains = domains_of(run)
    refuse_idle(recipe.teachers, domains.values())
    names = [teacher.name for teacher in recipe.teachers]
    nobody = [0.0] * len(names)  # teaches a problem that was left out since it was scored

    def weigh(problem_id: str) -> list[float]:
        return weights_of(recipe.teachers, *domains[problem_id]) if problem_id in domains else nobody

    end: Any = tokenizer.eos_token_id
    return SeveralTeachers(names, caches, weigh, end)


def load_online_teacher(settings: Train, tokenizer: PreTrainedTokenizerBase) -> PreTrainedModel:
    """The teacher in the training.

    Raises UserError where its vocabulary is another unasked, where it has fewer positions than the student reads, and under
    ZeRO-3.
    """
    name = settings.online_teacher
    assert name
    path, trust = models.resolve_model(name, TEACHER_KEY), settings.trusts_remote_code
    if settings.kl is None or not settings.kl.cross_tokenizer:
        theirs = models.load_tokenizer(name, settings.teacher_revision, TEACHER_KEY, trust_remote_code=trust)
        ours, other = (vocabulary_sha256(each.get_vocab()) for each in (tokenizer, theirs))
        refuse_other_vocabulary(settings.student, ours, name, other, settings.online_section)
        positions = positions_of(name, settings)
        if positions is not None and positions < settings.max_length:
            raise UserError(
                f"{name}, {TEACHER_KEY}, has {positions} positions, and train.max_length = {settings.max_length}; lower that, "
                "or take a teacher that reads as much"
            )
    if is_deepspeed_zero3_enabled():
        raise UserError("train.kl.online with DeepSpeed ZeRO-3 is not supported: use FSDP2, or make a cache")
    with every_process_reads():
        return AutoModelForCausalLM.from_pretrained(
            path, revision=settings.teacher_revision, dtype=getattr(torch, settings.dtype), **settings.model_args
        )


def positions_of(name: str, settings: Train) -> int | None:
    """How many tokens the teacher can read; None where its config does not say."""
    path = models.resolve_model(name, TEACHER_KEY)
    config = AutoConfig.from_pretrained(
        path, revision=settings.teacher_revision, trust_remote_code=settings.trusts_remote_code
    )
    return getattr(config.get_text_config(), "max_position_embeddings", None)


def load_aligner(settings: Train, tokenizer: PreTrainedTokenizerBase) -> Aligner | None:
    """For `train.kl.cross_tokenizer`; None without. Raises UserError for tokenizers that cannot be aligned."""
    if settings.kl is None or not settings.kl.cross_tokenizer:
        return None
    name = settings.online_teacher
    assert name
    theirs = models.load_tokenizer(
        name, settings.teacher_revision, TEACHER_KEY, trust_remote_code=settings.trusts_remote_code
    )
    if not theirs.chat_template:
        raise UserError(
            f"train.kl.online = {name}: its tokenizer has no chat template, so that it cannot be asked the problem; take the "
            "instruct model of its family"
        )
    if (end := turn_end(theirs)) is not None:  # where a base model's end token is not that of its template
        theirs.eos_token_id = end
    if theirs.pad_token_id in (None, theirs.eos_token_id):  # masked, so that any other token does
        theirs.pad_token = next(token for token in theirs.get_vocab() if token != theirs.eos_token)
    return Aligner.of(tokenizer, theirs, positions_of(name, settings))


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
