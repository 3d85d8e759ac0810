"""The student, its tokenizer, and whoever gives the teacher's distributions."""

from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerBase
from transformers.integrations.deepspeed import is_deepspeed_zero3_enabled

from r1distill import models
from r1distill.cache.settings import open_fitting, refuse_other_vocabulary
from r1distill.errors import UserError
from r1distill.run import Run
from r1distill.train.render import prepare_tokenizer
from r1distill.train.teacher_cache import TeacherCache, vocabulary_sha256
from r1distill.train_sections import Train, chat_template_text


def open_cache(run: Run, tokenizer: PreTrainedTokenizerBase) -> TeacherCache:
    """Raises UserError where there is none, and where it is of another teacher, prompt or vocabulary than the recipe's."""
    cache = open_fitting(run)
    its_sha256 = vocabulary_sha256(tokenizer.get_vocab())
    manifest = cache.manifest
    refuse_other_vocabulary(run.recipe.train.student, its_sha256, manifest["model"], manifest["vocabulary_sha256"])
    return cache


def load_online_teacher(settings: Train, tokenizer: PreTrainedTokenizerBase) -> PreTrainedModel:
    """The teacher of `train.kl.online`. Raises UserError where its vocabulary is another, and under ZeRO-3."""
    assert settings.kl
    assert settings.kl.online
    path = models.resolve_model(settings.kl.online, "train.kl.online")
    trust = settings.trusts_remote_code
    theirs = models.load_tokenizer(settings.kl.online, None, "train.kl.online", trust_remote_code=trust)
    ours, other = (vocabulary_sha256(each.get_vocab()) for each in (tokenizer, theirs))
    refuse_other_vocabulary(settings.student, ours, settings.kl.online, other)
    if is_deepspeed_zero3_enabled():
        raise UserError("train.kl.online with DeepSpeed ZeRO-3 is not supported: use FSDP2, or make a cache")
    return AutoModelForCausalLM.from_pretrained(path, dtype=getattr(torch, settings.dtype), **settings.model_args)


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
