"""Students that teach: the recipes of the links of a chain, and of the rounds on a student's own samples."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from small_run import assert_one_error_line, r1distill, recipe_file

from r1distill.cache.settings import scorer_of
from r1distill.chain.command import chain
from r1distill.chain.lineage import lineage_of
from r1distill.chain.links import links_of, rounds_of, teacher_of_rounds
from r1distill.errors import UserError
from r1distill.pipeline import STAGES, inputs_of, names_of_run, predecessor, statuses
from r1distill.quantize_sections import Qat
from r1distill.recipe import Recipe
from r1distill.run import Run
from r1distill.sections import MADE_BY, Cache, Filter, Teacher
from r1distill.store import write_json


def recipe_in(folder: Path, **tables: Any) -> Recipe:
    return Recipe.model_validate(
        {
            "run_dir": str(folder / "run"), "seed": 3, "problems": {"path": "reasoning_gym:chain_sum", "limit": 40},
            "teacher": {"backend": "server", "model": "deepseek-ai/DeepSeek-R1", "urls": ["http://127.0.0.1:1/v1"]},
            "train": {"student": "org/student", "args": {"learning_rate": 1e-4, "num_train_epochs": 2}},
            "eval": {"tasks": ["gsm8k"], "engine": {"max_model_len": 512}},
            "chain": [
                {"name": "assistant", "student": "org/large"},
                {"name": "small", "student": "org/small", "set": {"train": {"max_length": 4096}, "generate": {"samples": 2}}},
            ],
            **tables,
        }
    )  # fmt: skip


def finish(run: Run, stage: str, at: str) -> None:
    write_json(run.record_path(stage), {"status": "done", "finished_at": at, "inputs": {}, "upstream": None})


def test_the_student_of_a_link_is_the_teacher_of_the_next(tmp_path: Path) -> None:
    recipe = recipe_in(tmp_path)
    assistant, small = links_of(recipe)
    assert assistant.recipe.teacher == recipe.teacher
    assert (assistant.recipe.train.student, small.recipe.train.student) == ("org/large", "org/small")
    assert small.recipe.teacher.model == str(assistant.student)
    assert small.recipe.teacher.backend == "vllm"
    assert small.recipe.teacher.engine == {"max_model_len": 512}
    assert [each.folder for each in (assistant, small)] == [
        tmp_path / "run/chain/assistant",
        tmp_path / "run/chain/small",
    ]
    assert (assistant.recipe.train.max_length, small.recipe.train.max_length) == (32768, 4096)
    assert small.recipe.generate.samples == 2
    assert small.recipe.problems == recipe.problems
    assert not small.recipe.chain
    assert lineage_of([assistant, small]) == [
        {"run": "assistant", "student": "org/large", "teacher": "deepseek-ai/DeepSeek-R1"},
        {"run": "small", "student": "org/small", "teacher": str(assistant.student)},
    ]


def test_the_last_link_alone_is_rounded_and_trained_for_it(tmp_path: Path) -> None:
    runs = links_of(recipe_in(tmp_path, train={"qat": {}}, quantize={}))
    assert [run.recipe.train.qat for run in runs] == [None, Qat()]
    assert [run.recipe.quantize is None for run in runs] == [True, False]


def test_how_the_first_teacher_is_opened_and_paid_is_not_how_a_student_is(tmp_path: Path) -> None:
    teacher = {
        "model": "org/big", "tokenizer": "org/its", "retries": 9, "usd_per_million_tokens": 2.0,
        "engine": {"tensor_parallel_size": 8, "quantization": "fp8"},
    }  # fmt: skip
    links = [
        {"name": "assistant", "student": "org/large", "set": {"eval": {"engine": {"tensor_parallel_size": 2}}}},
        {"name": "small", "student": "org/small"},
        {"name": "tiny", "student": "org/tiny", "set": {"teacher": {"engine": {"dtype": "float32"}}}},
    ]
    runs = links_of(recipe_in(tmp_path, teacher=teacher, chain=links))
    assert runs[0].recipe.teacher == Teacher.model_validate(teacher)
    for before, each, engine in (
        (runs[0], runs[1], {"max_model_len": 512, "tensor_parallel_size": 2}),
        (runs[1], runs[2], {"max_model_len": 512, "dtype": "float32"}),
    ):
        assert each.recipe.teacher == Teacher(model=str(before.student), engine=engine)
    [first] = rounds_of(Run(on_policy(tmp_path, teacher=teacher, on_policy={"rounds": 1})))
    assert first.recipe.teacher == Teacher(model=first.recipe.train.student, engine={"max_model_len": 512})


def test_from_the_second_link_on_nothing_names_the_first_teacher(tmp_path: Path) -> None:
    scored = {
        "source": "vllm", "model": "org/big", "revision": "main", "tokenizer": "org/its", "k": 8,
        "engine": {"tensor_parallel_size": 8},
    }  # fmt: skip
    first, second = links_of(recipe_in(tmp_path, cache=scored, train={"student": "s", "revision": "v1", "kl": {}}))
    assert first.recipe.cache == Cache.model_validate(scored)
    assert second.recipe.cache == Cache(source="vllm", k=8)
    assert scorer_of(second.recipe).model == str(first.student)
    assert first.recipe.train.revision is None  # it is one of "s"

    inside = {
        "student": "s", "kl": {"online": "org/big", "cross_tokenizer": "uld"}, "controller": {},
    }  # fmt: skip
    first, second = links_of(recipe_in(tmp_path, train=inside))
    assert first.recipe.train.kl
    assert first.recipe.train.kl.online == "org/big"
    assert second.recipe.train.kl
    assert second.recipe.train.kl.online == str(first.student)
    assert second.recipe.train.kl.cross_tokenizer == "uld"

    inside = {"student": "s", "hidden": {"teacher": "org/big", "weight": 0.5}, "attention": {"teacher": "org/big"}}
    other = {"name": "b", "student": "org/b", "set": {"train": {"attention": {"teacher": "org/c"}, "hidden": None}}}
    links = [{"name": "a", "student": "org/a"}, {"name": "same", "student": "org/b"}, other]
    first, second, third = links_of(recipe_in(tmp_path, train=inside, chain=links))
    assert second.recipe.train.hidden
    assert second.recipe.train.attention
    assert second.recipe.train.hidden.teacher == second.recipe.train.attention.teacher == str(first.student)
    assert second.recipe.train.hidden.weight == 0.5
    assert third.recipe.train.online_teacher == "org/c"


def test_from_the_second_link_on_no_others_traces_and_teachers_are_left(tmp_path: Path) -> None:
    first, second = links_of(recipe_in(tmp_path, traces={"path": "org/traces"}))
    assert first.recipe.traces is not None
    assert second.recipe.traces is None
    first, second = links_of(
        recipe_in(
            tmp_path, generate={"keep_distributions": True}, cache={"source": "transformers"},
            teachers=[{"name": "a", "model": "org/a"}, {"name": "b", "model": "org/b"}],
            train={"student": "s", "kl": {}},
        )
    )  # fmt: skip
    assert [each.name for each in first.recipe.teachers] == ["a", "b"]
    assert (second.recipe.teachers, second.recipe.generate.keep_distributions) == ([], False)
    assert scorer_of(second.recipe).model == str(first.student)


def test_an_assistant_that_was_trained_again_is_sampled_anew(tmp_path: Path) -> None:
    recipe = recipe_in(tmp_path, problems={"path": "prompts/quickstart/train.jsonl"})
    found = []
    for at in ("2026-01-01T00:00:00+00:00", "2026-01-02T00:00:00+00:00"):
        finish(links_of(recipe)[0], "train", at)
        found.append(inputs_of(STAGES[0], links_of(recipe)[1].recipe))
    assert found[0]["teacher.revision"] != found[1]["teacher.revision"]
    assert {key for key in found[0] if found[0][key] != found[1][key]} == {"teacher.revision"}


def test_chains_that_are_none_are_errors(tmp_path: Path) -> None:
    twice = [{"name": "a", "student": "org/a"}, {"name": "a", "student": "org/b"}]
    with pytest.raises(UserError, match=r'"a" is there twice'):
        links_of(recipe_in(tmp_path, chain=twice))
    with pytest.raises(UserError, match=r"\[\[chain\]\] a: unknown key train.epochs"):
        links_of(recipe_in(tmp_path, chain=[{"name": "a", "student": "org/a", "set": {"train": {"epochs": 3}}}]))
    with pytest.raises(UserError, match=r"\[\[chain\]\] is empty"):
        chain(Run(recipe_in(tmp_path, chain=[])), dry_run=False, redo=False)
    with pytest.raises(ValidationError, match="pattern"):
        recipe_in(tmp_path, chain=[{"name": "../a", "student": "org/a"}])
    alone = {"train": {"peft": {"r": 8}, "merge_adapter": False}}
    with pytest.raises(UserError, match=r"a: train.merge_adapter = false, and an adapter alone does not teach"):
        links_of(
            recipe_in(
                tmp_path, chain=[{"name": "a", "student": "org/a", "set": alone}, {"name": "b", "student": "org/b"}]
            )
        )
    with pytest.raises(ValidationError, match=r"train.merge_adapter = false"):
        recipe_in(tmp_path, train={"student": "s", "peft": {"r": 8}, "merge_adapter": False})


@pytest.mark.parametrize(
    ("wrong", "key"),
    [
        ({"run_dir": "elsewhere"}, "set.run_dir"),
        ({"chain": []}, "set.chain"),
        ({"ablate": {"seeds": 1}}, "set.ablate"),
        ({"train": {"student": "org/b"}}, "set.train.student"),
        ({"teacher": {"model": "org/b"}}, "set.teacher.model"),
    ],
)
def test_a_link_sets_nothing_that_makes_it_a_link(tmp_path: Path, wrong: dict[str, Any], key: str) -> None:
    with pytest.raises(ValidationError, match=rf'"a": {key} is not of one link; take it out \('):
        recipe_in(tmp_path, chain=[{"name": "a", "student": "org/a", "set": wrong}])
    recipe_in(tmp_path, chain=[{"name": "a", "student": "org/a", "set": {"train": {}, "teacher": {"engine": {}}}}])


@pytest.mark.parametrize("command", ["run", "train", "on-policy"])
def test_a_recipe_with_links_is_for_the_command_chain(tmp_path: Path, command: str) -> None:
    recipe = recipe_file(tmp_path, chain=[{"name": "a", "student": "org/a"}])
    told = f"`r1distill {command}` runs none of them: take `r1distill chain RECIPE`, or add chain=[]"
    assert_one_error_line(r1distill(command, recipe, "--dry-run"), "[[chain]] has the links a", told)
    assert not (tmp_path / "run").exists()


def test_a_dry_run_shows_every_link_and_makes_nothing(tmp_path: Path, capsys) -> None:
    recipe = recipe_in(tmp_path, problems={"path": "prompts/quickstart/train.jsonl"})
    chain(Run(recipe), dry_run=True, redo=False)
    shown = capsys.readouterr().out
    assert "assistant: deepseek-ai/DeepSeek-R1 → org/large" in shown
    assert "generate to do, verify to do, filter to do, train to do, eval to do\n" in shown  # and no prune
    assert "org/small" in shown
    assert not (tmp_path / "run").exists()


# ---------------------------------------------------------------- on its own samples


def on_policy(folder: Path, **tables: Any) -> Recipe:
    settings = {"teacher": "org/teacher", "rounds": 3, "samples": 2, "limit": 10, "args": {"learning_rate": 1e-6}}
    return recipe_in(folder, **{"chain": [], "on_policy": settings, **tables})


def test_every_round_samples_the_last_student_and_learns_from_the_teacher_alone(tmp_path: Path) -> None:
    run = Run(on_policy(tmp_path))
    finish(run, "train", "2026-01-01T00:00:00+00:00")
    rounds = rounds_of(run)
    assert [each.folder.name for each in rounds] == ["round-1", "round-2", "round-3"]
    students = [str(run.student), *(str(each.student) for each in rounds)]
    for place, each in enumerate(rounds):
        recipe = each.recipe
        assert recipe.teacher.model == recipe.train.student == students[place]
        assert (recipe.generate.temperature, recipe.generate.top_p, recipe.generate.samples) == (1.0, 1.0, 2)
        assert recipe.problems.limit == 10
        assert not recipe.filter.require_correct
        kl = recipe.train.kl
        assert kl is not None
        assert (kl.alpha, kl.divergence, kl.online) == (0.0, "reverse", "org/teacher")
        assert recipe.train.args == {"learning_rate": 1e-6, "num_train_epochs": 2}
        assert recipe.seed == 4 + place
    assert rounds[0].recipe.teacher.revision == "2026-01-01T00:00:00+00:00"


def test_what_was_a_technique_of_the_first_training_is_not_one_of_the_rounds(tmp_path: Path) -> None:
    train = {
        "student": "s", "hidden": {"teacher": "org/t"}, "curriculum": {}, "label_smoothing": 0.1,
        "kl": {"online": "org/t", "alpha": 0.5},
    }  # fmt: skip
    settings = {"rounds": 1}
    recipe = on_policy(tmp_path, train=train, on_policy=settings)
    [first] = rounds_of(Run(recipe))
    assert first.recipe.train.hidden is first.recipe.train.curriculum is None
    assert first.recipe.train.label_smoothing == 0
    assert teacher_of_rounds(recipe) == ("org/t", None)


def test_the_revision_of_who_teaches_in_a_round_is_that_of_where_it_is_named(tmp_path: Path) -> None:
    train: dict[str, Any] = {"student": "s", "kl": {"online": "org/t"}, "teacher_revision": "v2"}
    teacher = {"model": "org/sampled", "revision": "v1"}
    for changes, expected in (
        ({"train": {"student": "s"}}, ("org/sampled", "v1")),
        ({"train": train}, ("org/t", "v2")),
        ({"train": train, "on_policy": {"teacher": "org/judge", "revision": "v3"}}, ("org/judge", "v3")),
        ({"train": train, "on_policy": {"teacher": "org/judge"}}, ("org/judge", None)),
    ):
        rounds = rounds_of(Run(on_policy(tmp_path, **{"teacher": teacher, "on_policy": {}, **changes})))
        for each in rounds:
            assert each.recipe.train.kl is not None
            assert (each.recipe.train.kl.online, each.recipe.train.teacher_revision) == expected
    for changes, message in (
        ({"on_policy": {"revision": "v3"}}, r"revision = v3 without a teacher: name it in on_policy.teacher"),
        ({"on_policy": {}, "train": {"student": "s", "teacher_revision": "v2"}}, r"and no teacher is in the training"),
    ):
        with pytest.raises(ValidationError, match=message):
            on_policy(tmp_path, **changes)


def test_a_round_samples_the_student_as_it_speaks_and_keeps_every_answer(tmp_path: Path) -> None:
    recipe = on_policy(
        tmp_path,
        generate={"top_k": 20, "thinking_budget": 100, "top_p": 0.9, "max_tokens": 77, "max_samples": 9},
        filter={
            "token_budget": 1000, "max_per_problem": 1, "student_perplexity": True, "balance": [{"by": "source", "at_most": 5}],
            "rules": [{"name": "short", "keep": {"n_tokens": {"at_most": 100}}}], "drop_contaminated": False, "workers": 7,
            "drop_duplicate_problems": True, "validation_fraction": 0.1,
        },
    )  # fmt: skip
    for each in rounds_of(Run(recipe)):
        generate = each.recipe.generate
        assert (generate.temperature, generate.top_p, generate.top_k, generate.thinking_budget) == (1.0, 1.0, 0, 0)
        assert (generate.max_tokens, generate.max_samples) == (77, None)
        assert each.recipe.filter == Filter(
            require_correct=False, require_thinking=False, max_mean_entropy_nats=0.0, drop_duplicates=False,
            drop_contaminated=False, workers=7,
        )  # fmt: skip


def test_rounds_follow_a_training_with_any_cache_packs_validation_and_rounding(tmp_path: Path) -> None:
    cache = {
        "source": "vllm", "model": "org/big", "k": 8, "engine": {"max_model_len": 4},
    }  # fmt: skip
    args = {"packing": True, "padding_free": True, "eval_strategy": "steps", "load_best_model_at_end": True}
    train = {"student": "s", "kl": {}, "qat": {"start": 0.5, "scheme": "int8_weights"}, "args": args}
    settings: dict[str, Any] = {"teacher": "org/other", "rounds": 1, "args": {"eval_strategy": "epoch"}}
    [first] = rounds_of(Run(on_policy(tmp_path, cache=cache, train=train, on_policy=settings)))
    assert first.recipe.cache == Cache()
    assert first.recipe.train.qat == Qat(start=0.0, scheme="int8_weights")
    assert first.recipe.train.args == {
        "packing": True, "padding_free": True, "eval_strategy": "no", "load_best_model_at_end": False,
    }  # fmt: skip
    settings["cross_tokenizer"] = "aligned"
    [first] = rounds_of(Run(on_policy(tmp_path, train=train, on_policy=settings)))
    assert not first.recipe.train.args["packing"]
    assert not first.recipe.train.args["padding_free"]
    settings["args"] = {"packing": True}
    with pytest.raises(UserError, match=r"\[on_policy\]: .*cross_tokenizer with packing"):
        rounds_of(Run(on_policy(tmp_path, train=train, on_policy=settings)))


def test_a_teacher_behind_a_url_cannot_be_in_the_training(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"the one of \[teacher\] is behind a URL; name one in on_policy.teacher"):
        teacher_of_rounds(on_policy(tmp_path, on_policy={}))
    local = on_policy(tmp_path, on_policy={}, teacher={"model": "org/teacher"})
    assert teacher_of_rounds(local) == ("org/teacher", None)


def test_stages_follow_each_other_as_the_recipe_has_them(tmp_path: Path) -> None:
    plain = on_policy(tmp_path, on_policy=None)
    assert names_of_run(plain) == ["generate", "verify", "filter", "train", "eval"]
    whole = on_policy(tmp_path, prune={"depth": 0.5}, quantize={}, eval={"tasks": ["gsm8k"], "models": ["quantized"]})
    assert names_of_run(whole) == ["generate", "verify", "filter", "prune", "train", "on_policy", "quantize", "eval"]
    after = {stage.name: predecessor(stage, whole) for stage in STAGES}
    assert (after["train"], after["on_policy"], after["quantize"], after["eval"]) == (
        "prune",
        "train",
        "on_policy",
        "quantize",
    )
    cached = on_policy(
        tmp_path,
        prune={"depth": 0.5},
        cache={"source": "transformers"},
        train={"student": "s", "kl": {}},
        on_policy=None,
    )
    after = {stage.name: predecessor(stage, cached) for stage in STAGES}
    assert (after["prune"], after["train"], after["eval"]) == ("cache", "prune", "train")
    assert set(MADE_BY.values()) < {stage.name for stage in STAGES}
    fresh = Run(on_policy(tmp_path, problems={"path": "prompts/quickstart/train.jsonl"}))
    assert {status.state for status in statuses(fresh)} == {"to do"}


def test_models_that_no_stage_makes_are_errors(tmp_path: Path) -> None:
    for role in ("pruned", "on_policy", "quantized"):
        with pytest.raises(ValidationError, match=rf'eval.models has "{role}", and there is no'):
            recipe_in(tmp_path, eval={"tasks": ["gsm8k"], "models": [role]})
