"""Trainings that follow each other: what is checked before the first, what is made again, what lies beside each model."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from small_run import small_run, with_a_sample

from r1distill import __version__, pipeline
from r1distill.chain import command
from r1distill.chain.lineage import LINEAGE, lineage_of
from r1distill.chain.links import STAGES_OF_ROUNDS, links_of
from r1distill.errors import UserError
from r1distill.pipeline import STAGES, names_of_run, run_stages
from r1distill.preflight import preflight
from r1distill.run import Run
from r1distill.store import read_json, write_json
from r1distill.summary import write_summary

LINKS = [{"name": "assistant", "student": "org/large"}, {"name": "small", "student": "org/small"}]

COUNTS: dict[str, dict[str, Any]] = {
    "verify": {"outcomes": {"correct": 3, "incorrect": 1}},
    "prune": {"parameters_before": 4000, "parameters": 3000, "layers": 3, "channels": 64, "heads": 2, "dropped_layers": [1]},
    "train": {"examples": 4, "steps": 2, "supervised_tokens": 1},
    "quantize": {"linears": 7, "bytes_before": 2_000_000, "bytes": 1_000_000},
}  # fmt: skip


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
            if name in ("prune", "quantize"):
                model(run.model({"prune": "pruned", "quantize": "quantized"}[name]))
            if name == "train":
                model(run.student)
                write_json(run.student / "training_log.json", [])
            return {"tokens": 1, **COUNTS.get(name, {})}

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


def test_students_that_are_still_to_be_trained_are_not_looked_for(tmp_path: Path) -> None:
    assistant = links_of(run_in(tmp_path).recipe)[0].student
    models = {"tasks": ["quickstart"], "models": ["student", "teacher", f"{assistant}/", "before"]}
    of_before = {"eval": {**models, "candidates": {"before": {"model": str(assistant)}}}}
    links = [link.model_dump() for link in run_in(tmp_path).recipe.chain]
    links[1]["set"] = of_before
    command.check_links(links_of(run_in(tmp_path, chain=links).recipe), redo=False)
    links[1]["set"] = {"train": {"kl": {"online": str(assistant.parent / "other")}}}
    with pytest.raises(UserError, match=r'\[\[chain\]\] "small": the teacher of \[train\] = .*/other: no such folder'):
        command.check_links(links_of(run_in(tmp_path, chain=links).recipe), redo=False)


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


def test_another_round_leaves_those_before_it_as_they_are(tmp_path: Path, made: list[str]) -> None:
    def names(run: Run) -> list[str]:
        return [name for name in names_of_run(run.recipe) if name != "eval"]

    one = run_in(tmp_path, chain=[], on_policy={"rounds": 1, "teacher": str(tmp_path / "teacher")})
    run_stages(one, names(one))
    made.clear()
    two = run_in(tmp_path, chain=[], on_policy={"rounds": 2, "teacher": str(tmp_path / "teacher")})
    run_stages(two, names(two))
    assert made == [f"round-2.{name}" for name in STAGES_OF_ROUNDS]
    assert len((two.record("on_policy") or {})["counts"]["rounds"]) == 2
    made.clear()
    slower = {"rounds": 2, "teacher": str(tmp_path / "teacher"), "args": {"learning_rate": 1e-7}}
    run_stages(run_in(tmp_path, chain=[], on_policy=slower), names(two))
    assert made == ["round-1.train", *(f"round-2.{name}" for name in STAGES_OF_ROUNDS)]


# ---------------------------------------------------------------- who was taught by whom


def card_of(run: Run, role: str) -> str:
    return (run.model(role) / "README.md").read_text(encoding="utf-8")


def test_the_lineage_names_who_teaches_and_who_was_sampled(tmp_path: Path) -> None:
    big, large = model(tmp_path / "big"), str(tmp_path / "large")
    online = run_in(tmp_path, chain=[], train={"student": large, "kl": {"online": big}})
    sampled = {"run": "run", "student": large, "sampled_by": str(tmp_path / "teacher")}
    assert lineage_of([online]) == [{**sampled, "teacher": big}]
    scored = run_in(tmp_path, chain=[], train={"student": large, "kl": {}}, cache={"source": "vllm", "model": big})
    assert lineage_of([scored]) == [{**sampled, "teacher": big}]
    teachers = [{"name": name, "model": f"org/{name}"} for name in "ab"]
    several = run_in(
        tmp_path, chain=[], train={"student": large, "kl": {}}, cache={"source": "vllm"}, teachers=teachers
    )
    assert lineage_of([several]) == [{**sampled, "teacher": "org/a, org/b"}]
    theirs = run_in(tmp_path, chain=[], train={"student": large}, traces={"path": "org/traces", "model": "org/r1"})
    assert lineage_of([theirs]) == [{"run": "run", "student": large, "teacher": "org/r1 (org/traces)"}]


def test_every_model_of_a_run_has_a_card_that_says_how_it_was_made(tmp_path: Path, made: list[str]) -> None:
    big = model(tmp_path / "big")
    run = run_in(
        tmp_path, chain=[], prune={"depth": 0.25}, on_policy={"teacher": big, "rounds": 2},
        quantize={"scheme": "int8", "smoothing": 0.5, "ignore": ["re:.*down_proj"]},
    )  # fmt: skip
    run_stages(run, names_of_run(run.recipe))
    write_summary(run)
    first, second = (run.folder / "on_policy" / name / "student" for name in ("round-1", "round-2"))
    lineage = read_json(run.folder / LINEAGE)
    assert lineage == [
        {"run": "run", "student": str(tmp_path / "small"), "teacher": str(tmp_path / "teacher")},
        {"run": "round-1", "student": str(run.student), "teacher": big, "sampled_by": str(run.student)},
        {"run": "round-2", "student": str(first), "teacher": big, "sampled_by": str(first)},
    ]
    assert second.is_dir()

    pruned = card_of(run, "pruned")
    assert "| parameters | 4,000 → 3,000 |" in pruned
    assert "| layers left out, from 0 | 1 |" in pruned
    assert "25% of the layers" in pruned
    assert "## Lineage" not in pruned
    student = card_of(run, "student")
    assert f"fine-tuned by r1distill {__version__} on reasoning traces of {tmp_path / 'teacher'}." in student
    assert "round-1" not in student.partition("## Recipe")[0], "that came after it"
    rounds = card_of(run, "on_policy")
    assert f"each token judged by {big} (reverse divergence)" in rounds
    assert "| 2 | 4 | 2 | 3 correct, 1 incorrect |" in rounds
    assert f"| round-2 | {first} | {big} | {first} |" in rounds
    quantized = card_of(run, "quantized")
    assert "| scheme | int8: weights and activations (W8A8) |" in quantized
    assert "| smoothing | SmoothQuant, 0.5 |" in quantized
    assert "embeddings and output, `re:.*down_proj`" in quantized
    assert f"| round-2 | {first} | {big} | {first} |" in quantized

    plain = Run(run.recipe.model_copy(update={"on_policy": None, "quantize": None}))
    write_summary(plain)
    assert not (run.folder / LINEAGE).exists(), "one training follows no other"


def test_the_cards_of_a_chain_say_who_was_taught_by_whom(tmp_path: Path, made: list[str]) -> None:
    run = run_in(tmp_path, on_policy={"teacher": model(tmp_path / "big"), "rounds": 1})
    command.chain(run, dry_run=False, redo=False)
    assistant, small = links_of(run.recipe)
    assert "## Lineage" not in card_of(assistant, "student")
    told = f"| small | {tmp_path / 'small'} | {assistant.student} | {assistant.student} |"
    for role in ("student", "on_policy"):
        assert told in card_of(small, role)
    assert [each["run"] for each in read_json(small.folder / LINEAGE)] == ["assistant", "small", "round-1"]
