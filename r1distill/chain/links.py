"""The links of a chain and the rounds on the student's own samples, each as the recipe of an ordinary run."""

from pathlib import Path
from typing import Any

from r1distill.errors import UserError
from r1distill.recipe import Recipe, as_given, merged, validated
from r1distill.run import Run

LATER = ("on_policy", "quantized")  # whom [on_policy] and [quantize] make
LINEAGE = "lineage.json"  # in the folder of a run: who was taught by whom before it
# what a training on the student's own samples has of its own
LEFT_OUT = ("kl", "hidden", "attention", "controller", "curriculum", "restarts")


def links_of(recipe: Recipe) -> list[Run]:
    """The runs of a chain in order. The teacher of each but the first is the student of the one before it.

    [on_policy] and [quantize] are of the last one. What a link sets is put over the recipe's tables. Raises UserError where
    two links have one name, and where a link is not a recipe.
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
        folder = Run(recipe).folder / "chain" / link.name
        tables = merged(tables, {"run_dir": str(folder), "train": {"student": link.student}})
        if found:
            tables = merged(tables, {"teacher": taught_by(found[-1], recipe)})
        found.append(Run(validated(Recipe, merged(tables, link.set), Path(f"[[chain]] {link.name}"))))
    return found


def taught_by(before: Run, recipe: Recipe) -> dict[str, Any]:
    """[teacher] where the student of an earlier run teaches. When it was trained is its revision: another one samples anew."""
    trained = before.record("train") or {}
    return {
        "backend": "vllm", "model": str(before.student), "revision": trained.get("finished_at"), "tokenizer": None,
        "engine": recipe.eval.engine,
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

    Every reply is kept that ended with an answer: what is right, or thought in the right form, is no question here; the teacher
    says so token by token.
    """
    settings = recipe.on_policy
    assert settings
    train = recipe.train
    whole = recipe.model_dump(exclude={"chain", "ablate", "on_policy", "quantize", "teachers", "prune", "traces"})
    problems = {"limit": settings.limit} if settings.limit else {}
    changes = {
        "run_dir": str(Run(recipe).folder / "on_policy" / f"round-{number + 1}"),
        "seed": recipe.seed + number + 1,
        "problems": problems,
        "teacher": taught_by(before, recipe),
        "generate": {
            "samples": settings.samples, "stop_after_correct": 0, "temperature": 1.0, "top_p": 1.0, "logprobs": 0,
            "keep_distributions": False, "max_samples": None,
        },
        "filter": {
            "require_correct": False, "require_thinking": False, "max_mean_entropy_nats": 0.0, "drop_duplicates": False,
            "validation_fraction": 0.0,
        },
        "cache": {"source": "generation"},
        "eval": {"models": ["student"]},
        "train": {
            **dict.fromkeys(LEFT_OUT), "student": str(before.student), "revision": None, "label_smoothing": 0.0,
            "args": {**train.args, **settings.args},
        },
    }  # fmt: skip
    tables = merged(as_given(whole), changes)
    tables["train"]["kl"] = {
        "alpha": 0.0, "temperature": 1.0, "divergence": settings.divergence, "online": teacher_of_rounds(recipe),
        "cross_tokenizer": settings.cross_tokenizer,
    }  # fmt: skip
    return validated(Recipe, tables, Path("[on_policy]"))


def teacher_of_rounds(recipe: Recipe) -> str:
    """Raises UserError where nobody is named who can run in the training."""
    settings = recipe.on_policy
    assert settings
    named = settings.teacher or recipe.train.online_teacher
    if named:
        return named
    if recipe.teacher.backend == "vllm" and recipe.teacher.model:
        return recipe.teacher.model
    raise UserError(
        "[on_policy] needs a teacher that runs in the training, and the one of [teacher] is behind a URL; name one in "
        "on_policy.teacher"
    )


def lineage_of(runs: list[Run]) -> list[dict[str, str]]:
    """Of runs that followed each other, who was taught by whom."""
    return [
        {"run": each.folder.name, "student": each.recipe.train.student, "teacher": each.recipe.teacher.model}
        for each in runs
    ]
