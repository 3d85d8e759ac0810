"""The links of a chain and the rounds on the student's own samples, each as the recipe of an ordinary run."""

from pathlib import Path
from typing import Any

from r1distill.errors import UserError
from r1distill.recipe import Recipe, as_given, merged, validated
from r1distill.run import Run
from r1distill.section import false_is_absent
from r1distill.train_sections import WITHOUT_VALIDATION

LATER = ("on_policy", "quantized")  # whom [on_policy] and [quantize] make
# where [train] names a teacher, and what [cache] says of the model that scores and how it is opened
IN_TRAINING = (("kl", "online"), ("hidden", "teacher"), ("attention", "teacher"))
OF_WHO_SCORES = ("model", "revision", "tokenizer", "engine", "model_args")
STAGES_OF_ROUNDS = ("generate", "verify", "filter", "train")
# what a round has of its own: tables, and techniques of training
NOT_OF_ROUNDS = {
    "chain", "ablate", "on_policy", "quantize", "prune", "traces", "teacher", "teachers", "filter", "cache",
}  # fmt: skip
LEFT_OUT = ("kl", "hidden", "attention", "controller", "curriculum", "restarts")
PACKING = ("packing", "padding_free")  # which train.kl.cross_tokenizer is not to be had with


def links_of(recipe: Recipe) -> list[Run]:
    """The runs of a chain in order. The teacher of each but the first is the student of the one before it.

    [on_policy] and [quantize] are of the last one. What a link sets is put over the recipe's tables, and over what follows
    from who teaches it. Raises UserError where two links have one name, and where a link is not a recipe.
    """
    names = [link.name for link in recipe.chain]
    if twice := [name for name in names if names.count(name) > 1]:
        raise UserError(f'[[chain]]: "{twice[0]}" is there twice; each has a folder by its name')
    found: list[Run] = []
    for link in recipe.chain:
        later = set() if link is recipe.chain[-1] else {"on_policy", "quantize"}
        tables = as_given(recipe.model_dump(exclude={"chain", "ablate", *later}))
        if later:
            tables["eval"]["models"] = [name for name in recipe.eval.models if name not in LATER] or ["student"]
            tables["train"]["qat"] = None  # which is for what [quantize] makes
        folder = Run(recipe).folder / "chain" / link.name
        # a revision is one of the model that [train] names
        revision = recipe.train.revision if link.student == recipe.train.student else None
        tables = merged(tables, {"run_dir": str(folder), "train": {"student": link.student, "revision": revision}})
        if found:
            tables = after(found[-1], tables)
        found.append(
            Run(validated(Recipe, merged(tables, false_is_absent(link.set, Recipe)), Path(f"[[chain]] {link.name}")))
        )
    return found


def refuse_chain(recipe: Recipe, command: str) -> None:
    """Raise UserError where a recipe has links, which only `r1distill chain` runs."""
    if recipe.chain:
        names = ", ".join(link.name for link in recipe.chain)
        raise UserError(
            f"[[chain]] has the links {names}, and `r1distill {command}` runs none of them: take `r1distill chain RECIPE`, or "
            "add chain=[] for the recipe without them"
        )


def after(before: Run, tables: dict[str, Any]) -> dict[str, Any]:
    """The tables of a recipe with the student of an earlier run wherever they name a teacher.

    What was of the first teacher alone goes with it: traces that were not sampled here, and how it is opened.
    """
    train, generate = tables["train"], tables["generate"]
    in_training = {
        name: {**train[name], key: str(before.student)} for name, key in IN_TRAINING if train[name] and train[name][key]
    }
    if tables["teachers"]:  # they scored, so the one that is there now does, and nothing is kept while sampling
        generate = {**generate, "keep_distributions": False}
    return {
        **{name: table for name, table in tables.items() if name not in ("traces", "teachers")},
        "teacher": taught_by(before),
        "generate": generate,
        "cache": {key: value for key, value in tables["cache"].items() if key not in OF_WHO_SCORES},
        "train": {**train, **in_training, "teacher_revision": None},
    }


def taught_by(before: Run) -> dict[str, Any]:
    """[teacher], whole, where the student of an earlier run teaches, opened as it is for its own scores.

    When it was trained is its revision: another one samples anew. Raises UserError where the student is no whole model.
    """
    if before.recipe.train.peft is not None and not before.recipe.train.merge_adapter:
        raise UserError(
            f"{before.folder.name}: train.merge_adapter = false, and an adapter alone does not teach; set it to true"
        )
    trained = before.record("train") or {}
    return {
        "backend": "vllm", "model": str(before.student), "revision": trained.get("finished_at"),
        "engine": before.recipe.eval.engine,
    }  # fmt: skip


def rounds_of(run: Run) -> list[Run]:
    """The runs on the student's own samples, in order: the first with the student of [train], each next with what came out."""
    found: list[Run] = []
    settings = run.recipe.on_policy
    assert settings
    for number in range(settings.rounds):
        before = found[-1] if found else run
        found.append(Run(round_recipe(run.recipe, before, number)))
    return found


def round_recipe(recipe: Recipe, before: Run, number: int) -> Recipe:
    """Whoever was trained `before` is sampled, at temperature 1 as it speaks, and learns from the teacher alone.

    Every reply is kept that ended with an answer, but those to problems of a benchmark: what is right, or thought in the right
    form, is no question here; the teacher says so token by token. A student that was trained with rounding has it from the
    first step on.
    """
    settings, train = recipe.on_policy, recipe.train
    assert settings
    whole = recipe.model_dump(exclude=NOT_OF_ROUNDS)
    changes = {
        "run_dir": str(Run(recipe).folder / "on_policy" / f"round-{number + 1}"),
        "seed": recipe.seed + number + 1,
        "problems": {"limit": settings.limit} if settings.limit else {},
        "teacher": taught_by(before),
        "generate": {
            "samples": settings.samples, "stop_after_correct": 0, "max_samples": None, "temperature": 1.0, "top_p": 1.0,
            "top_k": 0, "thinking_budget": 0, "logprobs": 0, "keep_distributions": False,
        },
        "filter": {
            "require_correct": False, "require_thinking": False, "max_mean_entropy_nats": 0.0, "drop_duplicates": False,
            **recipe.filter.model_dump(include={"drop_contaminated", "workers", "ray"}),
        },
        "eval": {"models": ["student"]},
        "train": {
            **dict.fromkeys(LEFT_OUT), "student": str(before.student), "revision": None, "label_smoothing": 0.0,
            "qat": {"start": 0.0} if train.qat else None, "args": args_of_rounds(recipe),
        },
    }  # fmt: skip
    tables = merged(as_given(whole), changes)
    teacher, revision = teacher_of_rounds(recipe)
    tables["train"]["kl"] = {
        "alpha": 0.0, "temperature": 1.0, "divergence": settings.divergence, "online": teacher,
        "cross_tokenizer": cross_tokenizer_of_rounds(recipe),
    }  # fmt: skip
    tables["train"]["teacher_revision"] = revision
    return validated(Recipe, tables, Path("[on_policy]"))


def args_of_rounds(recipe: Recipe) -> dict[str, Any]:
    """Those of the training and of [on_policy]: without a validation split, and with another tokenizer without packs."""
    settings, train = recipe.on_policy, recipe.train
    assert settings
    without = dict.fromkeys(PACKING, False) if cross_tokenizer_of_rounds(recipe) else {}
    args = {**train.args, **{name: value for name, value in without.items() if name in train.args}, **settings.args}
    return {**args, **{name: value for name, value in WITHOUT_VALIDATION.items() if name in args}}


def cross_tokenizer_of_rounds(recipe: Recipe) -> str | None:
    """The way of [on_policy], or that of [train.kl] where its teacher goes on teaching."""
    settings, kl = recipe.on_policy, recipe.train.kl
    assert settings
    is_same = kl is not None and kl.online == teacher_of_rounds(recipe)[0]
    return settings.cross_tokenizer or (kl.cross_tokenizer if kl and is_same else None)


def teacher_of_rounds(recipe: Recipe) -> tuple[str, str | None]:
    """Name and revision. Raises UserError where nobody is named who can run in the training."""
    settings, train = recipe.on_policy, recipe.train
    assert settings
    if settings.teacher:
        return settings.teacher, settings.revision
    if train.online_teacher:
        return train.online_teacher, train.teacher_revision
    if recipe.teacher.backend == "vllm" and recipe.teacher.model:
        return recipe.teacher.model, recipe.teacher.revision
    raise UserError(
        "[on_policy] needs a teacher that runs in the training, and the one of [teacher] is behind a URL; name one in "
        "on_policy.teacher"
    )
