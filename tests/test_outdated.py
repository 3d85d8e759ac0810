"""What a changed recipe makes to be done again where others than [teacher] teach, sample or are scored; and what it leaves."""

from pathlib import Path
from typing import Any

import pytest
from small_run import jsonl, small_run
from test_contestants import model_folder
from test_pipeline import finish, why
from test_several_teachers import cache as scored_by

from r1distill.ablate.arms import fitting_caches, recipe_with
from r1distill.ablate_section import Arm
from r1distill.cache.settings import manifest_of
from r1distill.chain.links import rounds_of
from r1distill.errors import UserError
from r1distill.pipeline import STAGE_NAMES, STAGES, run_stages, set_aside, statuses
from r1distill.run import Run
from r1distill.store import read_json, write_json, write_text
from r1distill.train.teacher_cache import MANIFEST

MATHEMATICS = {"name": "m", "model": "org/m", "domains": ["math"]}
OTHER = {"name": "o", "model": "org/o"}


def taught_by(folder: Path, *teachers: dict[str, Any], **cache: Any) -> Run:
    tables = {"cache": {"source": "transformers", **cache}, "train": {"kl": {}}, "teachers": list(teachers)}
    return small_run(folder, **tables)


def put_aside(run: Run) -> list[str]:
    """The names of the caches that are left after what a changed recipe does to the stage `cache`."""
    [status] = [each for each in statuses(run) if each.stage.name == "cache"]
    assert (status.state, status.changed) == ("outdated", True)
    set_aside(run, status.stage, changed=status.changed)
    return sorted(path.name for path in run.teacher_cache.glob("*")) if run.teacher_cache.exists() else []


def scored(folder: Path, *teachers: dict[str, Any]) -> None:
    run = taught_by(folder, *teachers)
    finish(run, *STAGE_NAMES)
    for teacher in teachers:
        write_text(run.teacher_cache / teacher["name"] / "00000.arrow", "scores")


@pytest.mark.parametrize(
    ("changed", "left"),
    [
        ([{**MATHEMATICS, "domains": []}, OTHER], ["m", "o"]),  # more to score, and nothing less
        ([MATHEMATICS, OTHER, {"name": "third", "model": "org/t"}], ["m", "o"]),
        ([MATHEMATICS], ["m", "o"]),
        ([{**MATHEMATICS, "revision": "abc"}, OTHER], ["o"]),
        ([MATHEMATICS, {**OTHER, "model": "org/else"}], ["m"]),
    ],
)
def test_of_several_teachers_only_what_another_scored_is_put_aside(tmp_path: Path, changed, left: list[str]) -> None:
    scored(tmp_path, MATHEMATICS, OTHER)
    assert put_aside(taught_by(tmp_path, *changed)) == left


def test_what_all_teachers_scored_otherwise_is_put_aside(tmp_path: Path) -> None:
    scored(tmp_path / "k", MATHEMATICS, OTHER)
    assert put_aside(taught_by(tmp_path / "k", MATHEMATICS, OTHER, k=16)) == []
    scored(tmp_path / "one", MATHEMATICS, OTHER)
    assert put_aside(small_run(tmp_path / "one", cache={"source": "transformers"}, train={"kl": {}})) == []


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"problems": {"limit": 2}}, "problems.limit absent → 2"),
        ({"teacher": {"model": "other"}}, "teacher.model teacher → other"),
        ({"generate": {"max_tokens": 50}}, "generate.max_tokens"),
    ],
)
def test_rounds_behind_others_traces_are_made_again_where_what_they_sample_changed(
    tmp_path: Path, change: dict[str, Any], word: str
) -> None:
    traces = jsonl(tmp_path / "traces.jsonl", [{"problem": "1 + 1?", "solution": "2", "generation": "2"}])
    tables = {"traces": {"path": str(traces)}, "on_policy": {"teacher": "org/t"}}
    finish(small_run(tmp_path, **tables), *STAGE_NAMES)
    found = why(small_run(tmp_path, **tables, **change))
    assert word in found["on_policy"]
    assert not found["train"]
    jsonl(tmp_path / "problems.jsonl", [{"problem": "1 + 2?", "answer": "3"}])
    assert "problems.sha256" in why(small_run(tmp_path, **tables))["on_policy"]


def test_a_model_is_cut_again_where_its_template_changed(tmp_path: Path) -> None:
    template = tmp_path / "template.jinja"
    template.write_text("{{ messages }}")
    tables = {"prune": {"depth": 0.5}, "train": {"chat_template": str(template)}}
    finish(small_run(tmp_path, **tables), *STAGE_NAMES)
    assert not why(small_run(tmp_path, **tables))["prune"]
    template.write_text("{{ messages }}{{ eos_token }}")
    assert "train.chat_template.sha256" in why(small_run(tmp_path, **tables))["prune"]


@pytest.mark.parametrize(
    ("models", "change", "word"),
    [
        (["base"], {"train": {"student": "org/other"}}, "eval.models.base.model org/student → org/other"),
        (["base"], {"train": {"revision": "abc"}}, "eval.models.base.version"),
        (["teacher"], {"teacher": {"model": "other"}}, "eval.models.teacher.model teacher → other"),
    ],
)
def test_who_is_scored_is_an_input_of_the_scores(tmp_path: Path, models: list[str], change, word: str) -> None:
    tables: dict[str, Any] = {"eval": {"tasks": ["quickstart"], "models": models}}
    finish(small_run(tmp_path, **tables), *STAGE_NAMES)
    assert not why(small_run(tmp_path, **tables))["eval"]
    assert word in why(small_run(tmp_path, **tables, **change))["eval"]


@pytest.mark.parametrize("entry", ["base", "teacher", "mine"])
def test_a_folder_that_was_trained_into_again_is_another_model(tmp_path: Path, entry: str) -> None:
    folder = tmp_path / "model"
    write_json(folder / "config.json", {})
    write_text(folder / "model.safetensors", "one")
    tables: dict[str, Any] = {
        "train": {"student": str(folder)}, "teacher": {"model": str(folder), "backend": "vllm", "urls": []},
        "eval": {"tasks": ["quickstart"], "models": [entry], "candidates": {"mine": {"model": str(folder)}}},
    }  # fmt: skip
    finish(small_run(tmp_path, **tables), *STAGE_NAMES)
    assert not why(small_run(tmp_path, **tables))["eval"]
    write_text(folder / "model.safetensors", "two")
    assert f"eval.models.{entry}.version" in why(small_run(tmp_path, **tables))["eval"]


@pytest.mark.parametrize(("name", "section"), [("prune", {"depth": 0.5}), ("on_policy", {}), ("quantize", {})])
def test_a_stage_without_its_section_is_an_error_and_moves_nothing(tmp_path: Path, name: str, section: Any) -> None:
    teacher = {"teacher": {"model": "org/t", "backend": "vllm", "urls": []}}
    finish(small_run(tmp_path, **teacher, **{name: section}), *STAGE_NAMES)
    run = small_run(tmp_path, **teacher)
    [stage] = [each for each in STAGES if each.name == name]
    made = run.folder / stage.outputs[0] / "config.json"
    write_json(made, {})
    before = read_json(run.record_path(name))
    with pytest.raises(UserError, match=rf"^{name}: there is no \[{name}\] in the recipe; add it"):
        run_stages(run, [name])
    assert made.exists()
    assert read_json(run.record_path(name)) == before


# ---------------------------------------------------------------- rounds


def test_rounds_cross_tokenizers_as_the_training_before_them_does(tmp_path: Path) -> None:
    kl = {"online": "org/t", "cross_tokenizer": "aligned"}
    tables: dict[str, Any] = {"train": {"kl": kl, "args": {"packing": False}}, "on_policy": {"rounds": 1}}
    [found] = rounds_of(small_run(tmp_path, **tables))
    assert found.recipe.train.kl is not None
    assert found.recipe.train.kl.cross_tokenizer == "aligned"
    tables["on_policy"]["teacher"] = "org/another"
    [found] = rounds_of(small_run(tmp_path, **tables))
    assert found.recipe.train.kl is not None
    assert found.recipe.train.kl.cross_tokenizer is None


# ---------------------------------------------------------------- arms


def test_an_arm_is_given_the_distributions_that_it_would_score_alike(tmp_path: Path) -> None:
    source = small_run(tmp_path, train={"kl": {}})
    scored_by(source.folder, "teacher_cache", {("p", 0): [{1: 0.5}]}, [1])
    manifest = source.teacher_cache / MANIFEST
    write_json(manifest, {**read_json(manifest), **manifest_of(source.recipe)})

    def given(**tables: Any) -> list[str]:
        arm = Run(recipe_with(source.recipe, Arm(name="a", set=tables)))
        return sorted(path.name for path in fitting_caches(source, arm))

    assert given(train={"kl": {"alpha": 0.5}}) == ["00000.arrow", MANIFEST]
    assert not given(teacher={"model": "other"})
    assert not given(train={"kl": False})
    assert not given(train={"kl": {"online": "org/t"}})


@pytest.mark.parametrize("key", ["student", "kl.online", "hidden.teacher", "on_policy"])
def test_a_model_that_was_replaced_in_its_folder_is_trained_with_again(tmp_path: Path, key: str) -> None:
    """As the student of an earlier run is, which teaches here: its name stays."""
    folder = model_folder(tmp_path / "model")
    train: dict[str, Any] = {"student": str(folder)} if key == "student" else {"student": "org/student"}
    if "." in key:
        section, name = key.split(".")
        train[section] = {name: str(folder)}
    tables: dict[str, Any] = {"train": train}
    if key == "on_policy":
        tables["on_policy"] = {"teacher": str(folder)}
    run = small_run(tmp_path, **tables)
    finish(run, *STAGE_NAMES)
    stage = "on_policy" if key == "on_policy" else "train"
    assert why(run)[stage] == ""
    model_folder(tmp_path / "model", b"trained on")
    assert "fingerprint" in why(run)[stage]
