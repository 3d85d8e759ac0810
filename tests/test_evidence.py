"""The page of evidence: every arm of its recipe is a technique, and a row says what results.json does."""

from pathlib import Path
from typing import Any

import evidence
import pytest

from r1distill.ablate.arms import recipe_with
from r1distill.recipe import load_recipe
from r1distill.store import write_json

RECIPE = load_recipe(evidence.RECIPE, [])


def test_every_arm_is_a_technique_with_a_test_of_its_own() -> None:
    arms = {arm.name for arm in RECIPE.ablate.arms}
    techniques = {each.arm for each in evidence.TECHNIQUES}
    assert techniques == arms - {RECIPE.ablate.baseline}
    assert {each.against for each in evidence.TECHNIQUES} - {None} <= arms
    for each in evidence.TECHNIQUES:
        assert Path(__file__).with_name(f"{each.test}.py").is_file()


@pytest.mark.parametrize("arm", RECIPE.ablate.arms, ids=lambda arm: arm.name)
def test_every_arm_is_a_recipe_and_its_lines_are_told(arm: Any) -> None:
    made = recipe_with(RECIPE, arm)
    assert bool(evidence.recipe_lines(arm.name)) == bool(arm.set or arm.filter)
    if arm.name == "full_qat_int8":
        assert (made.train.peft, made.train.args["learning_rate"]) == (None, 2e-4)
        assert evidence.recipe_lines(arm.name) == [
            "train = { peft = false, args = { learning_rate = 2e-4 }, qat = {} }",
            "quantize = {}",
        ]


def arm_of(scores: list[float], seconds: float, memory: float) -> dict[str, Any]:
    training = {"seconds_of": {"train": seconds, "quantize": None}, "peak_memory_gib": memory}
    task = {"pass@1": scores, "mean": sum(scores) / len(scores)}
    return {"trainings": [training, None, training], "tasks": {"quickstart": task}}


def difference(a: str, b: str, points: float, ci95: list[float] | None) -> dict[str, Any]:
    return {"a": a, "b": b, "difference": points, "ci95": ci95, "detectable": 0.3}


def test_the_page_has_difference_interval_cost_and_verdict(tmp_path: Path, monkeypatch, capsys) -> None:
    arms = {
        "sft": arm_of([0.5, 0.7], 100, 2.0), "hidden": arm_of([0.7, 0.7], 150, 3.0), "kl": arm_of([0.6, 0.6], 110, 2.0),
        "two_teachers": arm_of([0.1, 0.1], 110, 2.0), "attention": arm_of([0.5, 0.6], 110, 2.0),
    }  # fmt: skip
    differences = [
        difference("sft", "hidden", 0.1, [0.02, 0.18]), difference("sft", "attention", -0.05, [-0.2, 0.1]),
        difference("sft", "kl", 0.0, None), difference("two_teachers", "kl", 0.5, [0.4, 0.6]),
    ]  # fmt: skip
    results = {"baseline": "sft", "arms": arms, "differences": {"quickstart": differences}}
    write_json(tmp_path / "run" / "ablate" / "results.json", results)
    monkeypatch.setattr("sys.argv", ["evidence.py", str(tmp_path / "run"), "--out", str(tmp_path / "page.md")])
    evidence.main()
    page = (tmp_path / "page.md").read_text()
    assert "plain fine-tuning scores 60.0% (50.0%, 70.0%)" in page
    assert "| Hidden states | `hidden` | `sft` | +10.0 | +2.0 to +18.0 | 1.50 | 1.50 | helps here |" in page
    assert "| `attention` | `sft` | -5.0 | -20.0 to +10.0 | 1.10 | 1.00 | none shown (30 points would be) |" in page
    assert "| `two_teachers` | `kl` | -50.0 | -60.0 to -40.0 | 1.10 | 1.00 | harms here |" in page
    assert "| not told by one seed |" in page
    assert 'train.hidden = { teacher = "quickstart:teacher" }' in page
    assert "`tests/test_prune.py`" not in page


def test_a_run_without_results_is_told_what_to_do(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("sys.argv", ["evidence.py", str(tmp_path)])
    with pytest.raises(SystemExit, match=r"run `r1distill ablate scripts/evidence.toml"):
        evidence.main()
