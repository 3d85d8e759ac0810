"""Positions: what the student's RoPE reaches, and whether what is sampled, taught and asked fits into it."""

from typing import Any

from r1distill.doctor.findings import Finding, Group, error, ok, warning
from r1distill.doctor.reading import Model
from r1distill.evaluate.benchmarks import asking_in
from r1distill.evaluate.tasks import Task
from r1distill.recipe import Recipe
from r1distill.train_sections import Train

TOKENS: Group = "models and tokens"
PROMPT_ROOM = 256  # tokens that a question with its template takes at the least
SILENT = ("rope_theta", "rope_scaling", "max_position_embeddings")  # keys of the config, not of `from_pretrained`


def context_of(student: Model, settings: Train) -> int | None:
    """Positions of the student as it is trained and saved."""
    return settings.max_position_embeddings or student.positions


def check_rope(student: Model, settings: Train) -> list[Finding]:
    """The traps of a longer context: keys that transformers 5 ignores, a base that stays what it was, no base at all."""
    findings = []
    for key in SILENT:
        if key in settings.model_args:
            remedy = "take it out, and set train.rope_parameters and train.max_position_embeddings"
            findings.append(
                error(
                    TOKENS, f"train.model_args.{key}", settings.model_args[key], "transformers 5 does not take it there", remedy
                )
            )  # fmt: skip
    parameters = settings.rope_parameters
    if parameters is not None:
        missing = [key for key in ("rope_type", "rope_theta") if key not in parameters]
        if missing:
            remedy = '{ rope_type = "default", rope_theta = 3e5 }'
            findings.append(error(TOKENS, "train.rope_parameters", parameters, f"needs {missing[0]}", remedy))
        elif parameters["rope_type"] == "linear":
            limit = "linear scaling of a model that was not trained with it gives garbage (open-r1#444)"
            findings.append(
                warning(
                    TOKENS, "train.rope_parameters", parameters, limit, 'rope_type = "default" and a larger rope_theta'
                )
            )
    before, now = student.positions, context_of(student, settings)
    if before and now and now > before and parameters is None:
        theta = rope_theta(student.config)
        limit = f"{before:,} as shipped, with rope_theta {theta:g}" if theta else f"{before:,} as shipped"
        remedy = 'set train.rope_parameters too: { rope_type = "default", rope_theta = 3e5 } (OpenR1 for Qwen2.5-Math)'
        findings.append(warning(TOKENS, "train.max_position_embeddings", f"{now:,}", limit, remedy))
    if now and settings.max_length > now:
        remedy = "lower it, or set train.max_position_embeddings with train.rope_parameters"
        findings.append(
            error(
                TOKENS, "train.max_length", f"{settings.max_length:,}", f"{now:,} positions of {student.name}", remedy
            )
        )
    if findings:
        return findings
    theta = (parameters or {}).get("rope_theta") or rope_theta(student.config)
    return (
        [ok(TOKENS, f"{student.name}: positions", f"{now:,}" + (f", rope_theta {theta:g}" if theta else ""))]
        if now
        else []
    )


def rope_theta(config: Any) -> float | None:
    parameters = getattr(config.get_text_config(), "rope_parameters", None)
    theta = parameters.get("rope_theta") if isinstance(parameters, dict) else None
    return float(theta) if theta else None


def check_sampling_room(recipe: Recipe, teacher: Model | None) -> list[Finding]:
    """A reply of `max_tokens` and its prompt must fit into the teacher's engine, and into what the student is trained on."""
    settings = recipe.generate
    findings = []
    positions = teacher.positions if teacher else None
    room = recipe.teacher.engine.get("max_model_len") or positions
    if positions and isinstance(room, int) and room > positions:
        remedy = "lower teacher.engine.max_model_len; vLLM refuses more"
        findings.append(error(TOKENS, "teacher.engine.max_model_len", f"{room:,}", f"{positions:,} positions", remedy))
    if isinstance(room, int) and settings.max_tokens >= room:
        remedy = f"lower it, or raise teacher.engine.max_model_len to {settings.max_tokens + PROMPT_ROOM:,} at least"
        limit = f"{room:,} tokens of the engine, prompt included"
        findings.append(warning(TOKENS, "generate.max_tokens", f"{settings.max_tokens:,}", limit, remedy))
    if settings.max_tokens > recipe.train.max_length:
        remedy = (
            f'raise train.max_length, or sample less; longer traces are: train.overlong = "{recipe.train.overlong}"'
        )
        limit = f"train.max_length = {recipe.train.max_length:,}"
        findings.append(warning(TOKENS, "generate.max_tokens", f"{settings.max_tokens:,}", limit, remedy))
    return findings or [ok(TOKENS, "generate.max_tokens", f"{settings.max_tokens:,} fits")]


def check_evaluation_room(recipe: Recipe, tasks: list[Task], student: Model) -> list[Finding]:
    """vLLM refuses to open a model for more positions than its config has, and cuts what does not fit."""
    settings = recipe.eval
    contexts = {"student": context_of(student, recipe.train), "base": student.positions}
    asked = settings.engine.get("max_model_len")
    findings = []
    for role, positions in contexts.items():
        if role not in settings.models or positions is None:
            continue
        if isinstance(asked, int) and asked > positions:
            remedy = f"lower it, or take {role} out of eval.models"
            limit = f"{positions:,} positions of the {role}"
            findings.append(error(TOKENS, "eval.engine.max_model_len", f"{asked:,}", limit, remedy))
        room = min(asked, positions) if isinstance(asked, int) else positions
        for task in tasks:
            wanted = asking_in(recipe, task).max_tokens
            if wanted > room:
                remedy = "raise eval.engine.max_model_len, or lower eval.max_tokens to what is meant"
                limit = f"{room:,} tokens of the {role}, question included; longer replies count as truncated"
                findings.append(warning(TOKENS, f"{task.name}: max_tokens", f"{wanted:,}", limit, remedy))
    return findings or [ok(TOKENS, "evaluation fits into the context", "yes")]


def check_base_can_be_asked(recipe: Recipe, template_as_shipped: str | None) -> list[Finding]:
    """The base is scored with its own template, and a base model may have none."""
    if "base" not in recipe.eval.models or template_as_shipped:
        return []
    remedy = 'take "base" out of eval.models; it would end the evaluation after the training'
    value = f"{recipe.train.student} has no chat template"
    return [error("template", "eval.models", value, "base is asked with its own", remedy)]
