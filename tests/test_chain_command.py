"""Trainings that follow each other: what is checked before the first, what is made again, what lies beside each model."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from small_run import small_run, with_a_sample

from r1distill import pipeline
from r1distill.chain import command
from r1distill.chain.links import links_of
from r1distill.errors import UserError
from r1distill.pipeline import STAGES, names_of_run
from r1distill.preflight import preflight
from r1distill.run import Run
from r1distill.store import write_json

LINKS = [{"name": "assistant", "student": "org/large"}, {"name": "small", "student": "org/small"}]


def model(folder: Path) -> str:
    """The folder of a model, as far as anybody looks before it is loaded."""
    write_json(folder / "config.json", {})
    return str(folder)


def run_in(folder: Path, **sections: Any) -> Run:
    names = {name: model(folder / name) for name in ("teacher", "large", "small")}
    links = [{**link, "student": names[str(link["student"]).partition("/")[2]]} for link in LINKS]
    tables = {
        "teacher": {"model": names["teacher"], "backend": "vllm", "urls": []}, "train": {"student": names["small"]},
        "chain": links, **sections,
    }  # fmt: skip
    return small_run(folder, **tables)


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was made, in order: RUN.STAGE. The stages make as little as those after them read; nobody looks for models."""
    found: list[str] = []

    def stage_of(name: str) -> Callable[..., dict[str, Any]]:
        def make(run: Run, clock: Any) -> dict[str, Any]:
            found.append(f"{run.folder.name}.{name}")
            if name == "generate":
                with_a_sample(run)
            if name == "filter":
                write_json(run.funnel, {"sampled": 1, "dropped": {}, "kept": 1})
            if name == "train":
                model(run.student)
                write_json(run.student / "training_log.json", [])
            return {"tokens": 1}

        return make

    stages = tuple(
        stage if stage.name == "on_policy" else replace(stage, function=stage_of(stage.name)) for stage in STAGES
    )
    monkeypatch.setattr(pipeline, "STAGES", stages)
    for module in (pipeline, command):
        monkeypatch.setattr(module, "preflight", lambda *arguments: None)
    return found


# ---------------------------------------------------------------- before the first training


def test_what_would_stop_the_last_link_is_told_before_the_first_is_begun(tmp_path: Path) -> None:
    wrong = {"name": "small", "student": model(tmp_path / "small"), "set": {"train": {"args": {"learning_rat": 1.0}}}}
    run = run_in(tmp_path, chain=[{"name": "assistant", "student": model(tmp_path / "large")}, wrong])
    with pytest.raises(UserError, match=r'\[\[chain\]\] "small": train.args.learning_rat: SFTConfig has no such'):
        command.chain(run, dry_run=False, redo=False)
    assert not (run.folder / "chain").exists()
    command.check_links(links_of(run_in(tmp_path).recipe), redo=False)  # the assistant is not looked for


def test_a_link_whose_samples_are_of_another_recipe_is_told_before_the_first_is_begun(
    tmp_path: Path, made: list[str]
) -> None:
    command.chain(run_in(tmp_path), dry_run=False, redo=False)
    made.clear()
    assistant, small = run_in(tmp_path).recipe.chain
    colder = {**small.model_dump(), "set": {"generate": {"temperature": 0.1}}}
    changed = {
        "train": {"student": "org/s", "args": {"learning_rate": 1e-3}},
        "chain": [assistant.model_dump(), colder],
    }
    with pytest.raises(UserError, match=r'\[\[chain\]\] "small": .* another recipe \(generate.temperature 0.6 → 0.1\)'):
        command.chain(run_in(tmp_path, **changed), dry_run=False, redo=False)
    assert not made


@pytest.mark.parametrize(
    ("sections", "words"),
    [
        ({"on_policy": {"args": {"learning_rat": 1.0}}}, r"\[on_policy\]: train.args.learning_rat: SFTConfig has no"),
        ({"on_policy": {"teacher": "./nowhere"}}, r"on_policy.teacher = ./nowhere: no such folder"),
        ({"problems": {"path": "nowhere.jsonl"}}, r"\[on_policy\]: problems: no such file"),
        (
            {"traces": {"path": "traces.jsonl"}, "problems": {}},
            r"problems.path is missing, and on_policy needs it",
        ),
    ],
)
def test_what_would_stop_a_round_is_told_before_the_first_training(
    tmp_path: Path, sections: dict[str, Any], words: str
) -> None:
    run = run_in(tmp_path, **{"chain": [], "on_policy": {}, **sections})
    if sections.get("problems") == {}:
        run = Run(run.recipe.model_copy(update={"problems": type(run.recipe.problems)()}))
    with pytest.raises(UserError, match=words):
        preflight(run.recipe, ["on_policy"])


def test_a_sound_recipe_with_rounds_passes(tmp_path: Path) -> None:
    recipe = run_in(tmp_path, chain=[], on_policy={}).recipe
    preflight(recipe, [name for name in names_of_run(recipe) if name != "eval"])


# ---------------------------------------------------------------- what is made again


def test_what_follows_an_assistant_that_was_trained_again_is_made_again(tmp_path: Path, made: list[str]) -> None:
    every = [f"{name}.{stage}" for name in ("assistant", "small") for stage in names_of_run(run_in(tmp_path).recipe)]
    command.chain(run_in(tmp_path), dry_run=False, redo=False)
    assert made == every
    command.chain(run_in(tmp_path), dry_run=False, redo=False)
    assert made == every, "all of it was done"
    made.clear()
    again = run_in(tmp_path, train={"student": "org/s", "args": {"learning_rate": 1e-3}})
    command.chain(again, dry_run=False, redo=False)
    assert made == ["assistant.train", "assistant.eval", *(name for name in every if name.startswith("small"))]
    small = links_of(again.recipe)[1]
    assert list((small.folder / "superseded").glob("generate-*"))
    assert (small.record("generate") or {})["inputs"]["teacher.revision"] == small.recipe.teacher.revision
