"""What is done to the layers of a student, tried on its architecture alone, before anything is sampled for it."""

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM

from r1distill import models
from r1distill.errors import UserError
from r1distill.prune.cut import check_cut
from r1distill.quantize.linears import rounded_linears
from r1distill.quantize.smooth import check_smoothing
from r1distill.recipe import Recipe
from r1distill.train.inner import pairs_of
from r1distill.train.loading import TEACHER_KEY
from r1distill.train_sections import Train


def check_student(recipe: Recipe, names: Sequence[str], made: Collection[Path] = ()) -> None:
    """Raise UserError where the stages `names` cannot cut, compare or round the student as the recipe says.

    A model with code of its own is not made for this.
    """
    train, prune, quantize = recipe.train, recipe.prune, recipe.quantize
    if train.trusts_remote_code:
        return
    model = without_weights(train)
    if prune:
        model = check_cut(model, prune)  # whose layers then are rounded
    if "train" in names and (train.hidden or train.attention):
        check_inside(train, model.config, made)
    if train.qat and "train" in names:
        rounded_linears(model, "train.qat", train.qat.ignore)
    if quantize and "quantize" in names:
        rounded_linears(model, "quantize", quantize.ignore)
        if quantize.strength(after_qat=train.qat is not None):
            check_smoothing(model)


def check_inside(train: Train, student: Any, made: Collection[Path]) -> None:
    """The layers and heads of [train.hidden] and [train.attention], by the configs of student and teacher."""
    name = train.online_teacher
    assert name
    if Path(name).expanduser() not in made:
        path = models.resolve_model(name, TEACHER_KEY)
        pairs_of(
            train.hidden, train.attention, student, AutoConfig.from_pretrained(path, revision=train.teacher_revision)
        )


def without_weights(train: Train) -> Any:
    """The student on the device meta. Raises UserError for a config that is none of a causal model."""
    path = models.resolve_model(train.student, "train.student")
    try:
        config = AutoConfig.from_pretrained(path, revision=train.revision)
        with torch.device("meta"):
            return AutoModelForCausalLM.from_config(config)
    except (OSError, ValueError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(
            f"train.student = {train.student}: its config cannot be read: {reason}; give a causal language model"
        ) from None
