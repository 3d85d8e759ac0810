"""`r1distill ablate`: equal subsets of one set of traces, ordinary trainings of them, and differences as they are by hand."""

import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import tiny_model
from filtered_run import problem, sampled, trace
from scored_run import scored_run
from scripted_server import Received, Reply, ScriptedServer, chat
from small_run import ROOT, assert_one_error_line, jsonl, r1distill, recipe_file

from r1distill.ablate.arms import link, recipe_of, stages_of, take_over
from r1distill.ablate.command import show_plan
from r1distill.ablate.crossed import crossed_difference
from r1distill.ablate.results import results_of, trainings_of
from r1distill.ablate.show import show_design, show_results
from r1distill.ablate.subsets import Design, design_of
from r1distill.ablate_section import DEFAULT_ARMS
from r1distill.errors import UserError
from r1distill.filter.tagging import tag
from r1distill.pipeline import STAGES, inputs_of, run_stages, statuses
from r1distill.recipe import load_recipe
from r1distill.records import Problem, Trace, Verdict
from r1distill.run import Clock, Run
from r1distill.store import read_json, read_records, write_json, write_records

PROBLEMS = [problem(f"{n:03}") for n in range(60)]
WRONG = [(f"{n:03}", 1) for n in range(0, 60, 2)]


def traces(*, over_the_limit: bool = True) -> list[Trace]:
    """Two of each problem, of 20 to 59 tokens; their entropies go up to 1.2 nats, or 0.8."""
    highest = 1.2 if over_the_limit else 0.8
    return [
        trace(
            each.id, sample, n_tokens=20 + (7 * n + sample) % 40, mean_entropy_nats=highest * ((13 * n + sample) % 60) / 60
        )
        for n, each in enumerate(PROBLEMS)
        for sample in (0, 1)
    ]  # fmt: skip


def record(run: Run, *names: str, finished_at: str = "1") -> None:
    """Write the records of these stages as if they had been run."""
    for stage in STAGES:
        if stage.name in names:
            upstream = (run.record(stage.after) or {}).get("finished_at") if stage.after else None
            about = {"stage": stage.name, "status": "done", "upstream": upstream, "seconds": 1.0, "counts": {}}
            write_json(
                run.record_path(stage.name),
                {**about, "inputs": inputs_of(stage, run.recipe), "finished_at": f"{stage.name} {finished_at}"},
            )


def ready(folder: Path, given: Sequence[Trace] | None = None, **sections: Any) -> Run:
    """A run that was sampled, verified and measured."""
    # every trace says the same, which is not what is looked at here
    filter = {"workers": 1, "drop_duplicates": False, "drop_contaminated": False, **sections.pop("filter", {})}
    run = sampled(folder, PROBLEMS, given or traces(), wrong=WRONG, filter=filter, **sections)
    record(run, "generate", "verify")
    tag(run, Clock(run, "ablate"))
    return run


def designed(run: Run) -> Design:
    return design_of(run, Clock(run, "ablate"))


def states(run: Run) -> dict[str, str]:
    return {each.stage.name: each.state for each in statuses(run)}


# ---------------------------------------------------------------- the subsets


def test_every_subset_has_equally_many_tokens_to_within_a_trace(tmp_path: Path) -> None:
    run = ready(tmp_path)
    design = designed(run)
    right = [each for each in traces() if (each.problem_id, each.sample) not in WRONG]
    assert design.available["correct"] == sum(t.n_tokens for t in right if (t.mean_entropy_nats or 0) <= 0.85)
    assert design.tokens == min(design.available.values()) // 2
    assert [arm.name for arm in design.trained] == [arm.name for arm in DEFAULT_ARMS]
    for name, of_arm in design.subsets.items():
        assert len(of_arm) == 3
        for subset, baseline in zip(of_arm, design.subsets["correct"], strict=True):
            kept = [each for each, is_kept in zip(traces(), subset.kept, strict=True) if is_kept]
            assert subset.tokens == sum(each.n_tokens for each in kept)
            assert design.tokens - 59 <= subset.tokens <= design.tokens
            assert (subset.traces, subset.problems) == (len(kept), len({each.problem_id for each in kept}))
            wrong = [each for each in kept if (each.problem_id, each.sample) in WRONG]
            assert subset.correct == pytest.approx(1 - len(wrong) / len(kept))
            assert (name == "all") == bool(wrong)
            assert subset.mean_entropy_nats == pytest.approx(np.mean([each.mean_entropy_nats or 0.0 for each in kept]))
            assert subset.in_baseline == (subset.kept & baseline.kept).sum() / subset.kept.sum()
    firsts = {name: of_arm[0] for name, of_arm in design.subsets.items()}
    entropy = {name: first.mean_entropy_nats or 0 for name, first in firsts.items()}
    assert entropy["low_entropy"] < entropy["correct"] < entropy["high_entropy"]
    assert not (firsts["low_entropy"].kept & firsts["high_entropy"].kept).any()
    high = [each for each, kept in zip(traces(), firsts["high_entropy"].kept, strict=True) if kept]
    assert max(each.mean_entropy_nats or 0 for each in high) <= 0.85  # of what the recipe's limit leaves


def test_other_seeds_draw_other_subsets_and_an_order_has_one(tmp_path: Path) -> None:
    subsets = designed(ready(tmp_path)).subsets
    drawn, lowest = ([tuple(each.kept) for each in subsets[name]] for name in ("correct", "low_entropy"))
    assert len(set(drawn)) == 3
    assert len(set(lowest)) == 1


def test_an_arm_that_keeps_what_another_keeps_is_not_trained(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = ready(tmp_path, traces(over_the_limit=False))
    design = designed(run)
    assert design.same_as == {"no_entropy_filter": "correct"}
    assert [arm.name for arm in design.trained] == ["correct", "all", "low_entropy", "high_entropy"]
    assert len(list(trainings_of(run.recipe, design))) == 12
    show_design(run.recipe, design)
    assert "no_entropy_filter keeps the same traces as correct" in capsys.readouterr().out


def test_the_baseline_comes_first_and_is_the_one_that_is_trained(tmp_path: Path) -> None:
    run = ready(tmp_path, traces(over_the_limit=False), ablate={"against": "no_entropy_filter", "seeds": 1})
    design = designed(run)
    assert design.same_as == {"correct": "no_entropy_filter"}
    assert design.trained[0].name == design.baseline == "no_entropy_filter"


# ---------------------------------------------------------------- the trainings


def test_a_training_has_the_recipe_of_its_arm_and_the_seeds_of_its_number(tmp_path: Path) -> None:
    run = ready(tmp_path, seed=4, filter={"validation_fraction": 0.2}, eval={"models": ["base", "teacher"]})
    low = next(arm for arm in DEFAULT_ARMS if arm.name == "low_entropy")
    recipes = [recipe_of(run.recipe, low, number, 500) for number in range(3)]
    assert [Path(each.run_dir).relative_to(run.folder).as_posix() for each in recipes] == [
        f"ablate/low_entropy-seed{number}" for number in range(3)
    ]
    assert {each.seed for each in recipes} == {4}  # the teacher was sampled with it
    assert [each.filter.seed for each in recipes] == [each.train.args["seed"] for each in recipes] == [4, 5, 6]
    for each in recipes:
        assert (each.filter.token_budget, each.filter.token_budget_by) == (500, "lowest_entropy")
        assert (each.filter.validation_fraction, each.eval.models) == (0, ["student"])
    given = ready(tmp_path / "given", filter={"seed": 9}, train={"args": {"seed": 7, "eval_strategy": "epoch"}})
    second = recipe_of(given.recipe, low, 1, 500)
    assert (second.filter.seed, second.train.args) == (10, {"seed": 8, "eval_strategy": "no"})
    assert stages_of(second) == ["filter", "train", "eval"]


def test_a_training_is_taught_the_subset_and_nothing_is_measured_or_copied(tmp_path: Path) -> None:
    run = ready(tmp_path)
    before = run.tags.stat()
    design = designed(run)
    for arm, number, training in list(trainings_of(run.recipe, design))[:6]:
        take_over(run, training, design.material[arm.name].path)
        assert states(training) == {
            "generate": "done", "verify": "done", "filter": "to do", "cache": "to do", "prune": "to do", "train": "to do",
            "on_policy": "to do", "quantize": "to do", "eval": "to do",
        }  # fmt: skip
        run_stages(training, ["filter"])
        for path in (run.problems, run.verdicts, run.tags, *run.traces.glob("*.parquet")):
            assert (training.folder / path.relative_to(run.folder)).samefile(path)
        keys = [(each.problem_id, each.sample) for each in read_records(training.traces, Trace)]
        kept = {key for key, is_kept in zip(keys, design.subsets[arm.name][number].kept, strict=True) if is_kept}
        table = pq.read_table(training.dataset / "train.parquet")
        assert set(zip(table["problem_id"].to_pylist(), table["sample"].to_pylist(), strict=True)) == kept
        assert not (training.dataset / "validation.parquet").exists()
        assert read_json(training.funnel)["kept"] == design.subsets[arm.name][number].traces
    assert (run.tags.stat().st_ino, run.tags.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert not run.decisions.exists()


def test_what_was_verified_again_outdates_the_trainings(tmp_path: Path) -> None:
    run = ready(tmp_path)
    design = designed(run)
    arm, _, training = next(trainings_of(run.recipe, design))
    take_over(run, training, run.tags)
    run_stages(training, ["filter"])
    assert states(training)["filter"] == "done"
    take_over(run, training, run.tags)
    assert states(training)["filter"] == "done"
    write_records(run.verdicts, Verdict, list(read_records(run.verdicts, Verdict)))
    record(run, "verify", finished_at="2")
    tag(run, Clock(run, "ablate"))
    take_over(run, training, design.material[arm.name].path)
    assert training.verdicts.samefile(run.verdicts)
    assert training.tags.samefile(run.tags)
    [filter] = [each for each in statuses(training) if each.stage.name == "filter"]
    assert (filter.state, filter.why) == ("outdated", "verify ran again since")


def test_traces_that_were_sampled_again_take_the_place_of_the_earlier_ones(tmp_path: Path) -> None:
    run = ready(tmp_path)
    training = Run(recipe_of(run.recipe, DEFAULT_ARMS[0], 0, 500))
    take_over(run, training, run.tags)
    (run.traces / "00001.parquet").rename(tmp_path / "set aside")
    write_records(run.traces / "00000.parquet", Trace, traces())
    record(run, "generate", "verify", finished_at="2")
    take_over(run, training, None)
    assert [path.name for path in training.traces.iterdir()] == ["00000.parquet"]
    assert (training.traces / "00000.parquet").samefile(run.traces / "00000.parquet")
    assert (tmp_path / "set aside").stat().st_size


def test_an_arm_that_measures_otherwise_has_tags_of_its_own_and_measures_once(tmp_path: Path) -> None:
    filter = {"max_per_problem": 1, "max_per_problem_by": "most_diverse"}
    run = ready(
        tmp_path, ablate={"seeds": 2, "arms": [{"name": "plain"}, {"name": "diverse", "filter": filter}]}
    )  # fmt: skip
    before = run.tags.stat()
    design = designed(run)
    own = run.folder / "ablate" / "diverse-seed0" / "tags.parquet"
    assert {name: each.path for name, each in design.material.items()} == {"plain": run.tags, "diverse": own}
    measured_at = own.stat().st_mtime_ns
    assert designed(run).subsets["diverse"][0].tokens == design.subsets["diverse"][0].tokens
    second = Run(recipe_of(run.recipe, design.material["diverse"].arm, 1, design.tokens))
    take_over(run, second, own)
    run_stages(second, ["filter"])
    assert second.tags.samefile(own)
    assert own.stat().st_mtime_ns == measured_at
    assert (run.tags.stat().st_ino, run.tags.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_where_there_are_no_hard_links_a_symbolic_one_is_made(tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "in" / "target"
    source.write_text("1")
    link(source, target)
    assert not target.is_symlink()
    assert target.samefile(source)
    shared = Path("/dev/shm")
    if not shared.is_dir() or shared.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("no other file system is at hand")
    with tempfile.TemporaryDirectory(dir=shared) as other:
        link(source, Path(other) / "far")
        link(source, Path(other) / "far")
        assert (Path(other) / "far").is_symlink()
        assert (Path(other) / "far").read_text() == "1"
        assert len(list(Path(other).iterdir())) == 1


# ---------------------------------------------------------------- the results


def test_the_results_are_those_by_hand_and_what_is_missing_is_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = ready(tmp_path, traces(over_the_limit=False))
    design = designed(run)
    chance = np.random.default_rng(0)
    questions = [f"q{n}" for n in range(10)]
    right: dict[tuple[str, int], dict[str, list[int]]] = {}
    for arm, number, training in trainings_of(run.recipe, design):
        if (arm.name, number) == ("high_entropy", 2):
            continue
        take_over(run, training, design.material[arm.name].path)
        asked = {name: chance.integers(0, 2, 4).tolist() for name in chance.permutation(questions).tolist()}
        scored_run(training.folder, "quickstart", {"student": asked})
        record(training, "filter", "train", "eval")
        right[arm.name, number] = asked
    results = results_of(run.recipe, design)
    assert (results["trainings"], results["finished"], results["baseline"]) == (12, 11, "correct")
    assert results["arms"]["no_entropy_filter"]["same_as"] == "correct"
    for name in ("correct", "all", "low_entropy", "high_entropy"):
        about = results["arms"][name]
        numbers = [n for n in range(3) if (name, n) in right]
        by_seed = [sum(map(sum, right[name, n].values())) / 40 for n in numbers]
        assert about["tasks"]["quickstart"]["pass@1"] == pytest.approx([*by_seed, *[None] * (3 - len(numbers))])
        assert about["tasks"]["quickstart"]["mean"] == pytest.approx(sum(by_seed) / len(by_seed))
        assert [each["tokens"] for each in about["subsets"]] == [each.tokens for each in design.subsets[name]]
        assert [each and each["seed"] for each in about["trainings"]] == [*numbers, *[None] * (3 - len(numbers))]
    found = {(each["a"], each["b"]): each for each in results["differences"]["quickstart"]}
    assert len(found) == 6
    for (a, b), difference in found.items():
        numbers = [0, 1] if "high_entropy" in (a, b) else [0, 1, 2]
        assert (difference["seeds"], difference["questions"]) == (numbers, 10)
        by_hand = sum(
            (sum(right[b, n][q]) - sum(right[a, n][q])) / 4 for n in numbers for q in questions
        ) / (10 * len(numbers))  # fmt: skip
        assert difference["difference"] == pytest.approx(by_hand)
        shares_a, shares_b = (
            [[sum(right[name, n][q]) / 4 for q in questions] for n in numbers] for name in (a, b)
        )  # fmt: skip
        whole = crossed_difference(shares_a, shares_b)
        assert difference["ci95"] == pytest.approx(whole.ci95)
        assert whole.detectable is not None
        assert difference["detectable"] == pytest.approx(whole.detectable)
    show_results(results)
    shown = capsys.readouterr().out
    pairs = re.findall(r"│ (\w+) +│ (\w+) +│ +[+-]", shown)
    assert pairs == [
        ("correct", "all"), ("correct", "low_entropy"), ("correct", "high_entropy"), ("low_entropy", "high_entropy"),
    ]  # fmt: skip
    assert "2 to 3 seeds × 10 questions" in shown
    assert "1 of 12 trainings are not finished" in shown


def test_questions_that_not_all_were_asked_are_refused(tmp_path: Path) -> None:
    run = ready(tmp_path, traces(over_the_limit=False), ablate={"seeds": 1})
    design = designed(run)
    for place, (arm, _, training) in enumerate(trainings_of(run.recipe, design)):
        take_over(run, training, design.material[arm.name].path)
        scored_run(training.folder, "quickstart", {"student": {"q0": [1], f"of {place}": [0]}})
        record(training, "filter", "train", "eval")
    with pytest.raises(UserError, match="all-seed0 was not asked the questions that the others were"):
        results_of(run.recipe, design)


def test_one_seed_has_no_interval_and_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = ready(tmp_path, traces(over_the_limit=False), ablate={"seeds": 1})
    design = designed(run)
    for arm, _, training in trainings_of(run.recipe, design):
        take_over(run, training, design.material[arm.name].path)
        scored_run(training.folder, "quickstart", {"student": {"q0": [1, 0], "q1": [len(arm.name) % 2, 1]}})
        record(training, "filter", "train", "eval")
    results = results_of(run.recipe, design)
    for each in results["differences"]["quickstart"]:
        assert (each["ci95"], each["se_seeds"], each["detectable"]) == (None, None, None)
    show_design(run.recipe, design)
    show_results(results)
    shown = capsys.readouterr().out
    assert "no intervals" in shown
    assert shown.count("one seed: none") == 4


# ---------------------------------------------------------------- refusals and plans


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("ablate.arms=[{name='a'},{name='A'}]", ['"a" is there twice']),
        ("ablate.against=best", ['against = "best"', "known: correct, all"]),
        ("ablate.arms=[{name='a'},{name='b',filter={require_corect=true}}]", ['"b"', "did you mean require_correct?"]),
        ("ablate.arms=[{name='a'},{name='b',filter={max_per_problem=0}}]", ['"b"', "max_per_problem = 0"]),
        ("ablate.arms=[{name='a'},{name='b',filter={token_budget=9}}]", ['"b"', "ablate.tokens is the budget"]),
        ("ablate.arms=[{name='a'}]", ["ablate.arms", "at least 2"]),
        ("ablate.seeds=0", ["ablate.seeds = 0", "greater than or equal to 1"]),
    ],
)
def test_what_is_no_ablation_is_refused_when_the_recipe_is_read(
    tmp_path: Path, override: str, words: list[str]
) -> None:
    path = recipe_file(tmp_path)
    with pytest.raises(UserError) as refused:
        load_recipe(path, [override])
    for word in words:
        assert word in str(refused.value)


def test_a_table_of_the_recipe_can_be_replaced_or_taken_out(tmp_path: Path) -> None:
    arms = "ablate.arms=[{name='with'},{name='without',filter={entropy=false}},{name='z',filter={entropy={mode='z_score'}}}]"
    recipe = load_recipe(recipe_file(tmp_path), ["filter.entropy.max_nats=0.5", arms])
    with_it, without, other = (arm.over(recipe.filter).entropy for arm in recipe.ablate.arms)
    assert with_it is not None
    assert with_it.max_nats == 0.5
    assert without is None
    assert other is not None
    assert (other.mode, other.max_nats) == ("z_score", 0.85)


@pytest.mark.parametrize(
    ("ablate", "words"),
    [
        ({"tokens": 100_000}, "ablate.tokens = 100000: the arm correct keeps \\d+ tokens; lower it"),
        ({"tokens": 3}, "3 tokens are less than the first trace of the arm correct has; raise ablate.tokens"),
        (
            {"arms": [{"name": "some"}, {"name": "none", "filter": {"rules": [{"name": "r", "keep": {"sample": 9}}]}}]},
            r"the arm none keeps none of 120 traces \(dropped: .*\d+ r.*\); loosen its filter",
        ),
        ({"arms": [{"name": "a"}, {"name": "b"}]}, "all arms \\(a, b\\) keep the same traces at [\\d,]+ tokens"),
    ],
)  # fmt: skip
def test_what_cannot_be_compared_is_refused(tmp_path: Path, ablate: dict[str, Any], words: str) -> None:
    run = ready(tmp_path, ablate=ablate)
    with pytest.raises(UserError, match=words):
        designed(run)


def test_tokens_that_nobody_counted_are_refused(tmp_path: Path) -> None:
    run = ready(tmp_path, [trace(each.id, n_tokens=0) for each in PROBLEMS])
    with pytest.raises(UserError, match="the tokens of some traces that the arm correct keeps were not counted"):
        designed(run)


def test_a_dry_run_tells_the_arms_and_changes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = ready(tmp_path)
    before = sorted(path.as_posix() for path in tmp_path.rglob("*"))
    show_plan(run)
    shown = capsys.readouterr().out
    assert "5 arms × 3 seeds = 15 trainings" in shown
    assert f"at most {designed(run).tokens:,} tokens" in shown
    assert sorted(path.as_posix() for path in tmp_path.rglob("*")) == before
    run.record_path("verify").unlink()
    show_plan(run)
    shown = capsys.readouterr().out
    assert "correct (baseline): filter {'require_correct': True}" in shown
    assert "known after verify, which ablate runs first" in shown


def test_the_command_ends_in_one_line_and_code_2(tmp_path: Path) -> None:
    run = ready(tmp_path)
    path = recipe_file(tmp_path, filter={"drop_duplicates": False, "drop_contaminated": False})
    assert r1distill("ablate", path, "--dry-run").returncode == 0
    assert_one_error_line(r1distill("ablate", path, "ablate.tokens=99999", "--dry-run"), "ablate.tokens = 99999")
    assert_one_error_line(r1distill("ablate", path, "eval.tasks=[]"), "eval.tasks is missing, and ablate needs it")
    run.record_path("verify").unlink()
    assert_one_error_line(r1distill("ablate", path), "train.student = org/student")  # before anything is made
    arms = f"ablate.arms=[{{name='a'}},{{name='b',set={{train={{hidden={{teacher='{tmp_path}/none'}}}}}}}}]"
    error = r1distill("ablate", path, "train.student=quickstart:student", arms)  # before the first arm is trained
    assert_one_error_line(error, '[[ablate.arms]] "b"', "none: no such folder")
    assert not (tmp_path / "run" / "ablate").exists()


# ---------------------------------------------------------------- all of it


class Teacher(ScriptedServer):
    """Adds as the tiny model is taught to, and is wrong for one seed in three."""

    def reply_to(self, received: Received) -> Reply:
        super().reply_to(received)
        found = re.search(r"What is (\d+) \+ (\d+)\?", received.body["messages"][0]["content"])
        assert found
        total = int(found[1]) + int(found[2]) + (received.body["seed"] % 3 == 0)
        body = chat(f"{found[1]} + {found[2]} = {total}\n</think>\n\n\\boxed{{{total}}}")
        body["usage"]["completion_tokens"] = 20 + int(found[1])
        return Reply(body=body)


def whole_recipe(folder: Path, teacher: ScriptedServer, student: Path) -> Path:
    rows = [{"problem": each.problem, "answer": each.answer} for each in tiny_model.PROBLEMS]
    path = jsonl(folder / "problems.jsonl", rows)
    task = folder / "sums.toml"
    prompt = tiny_model.PROMPT
    task.write_text(
        f'name = "sums"\ntitle = "Sums"\nlicense = "MIT"\nprompt = "{prompt}"\nsamples = 2\nmax_tokens = 60\n'
        f'[data]\npath = "{path}"\n'
    )
    args = {
        "max_steps": 30, "per_device_train_batch_size": 8, "gradient_checkpointing": False, "learning_rate": 2e-3,
        "save_steps": 15, "logging_steps": 1,
    }  # fmt: skip
    return recipe_file(
        folder,
        teacher={"urls": [teacher.url]},
        generate={"prompt": prompt, "samples": 4, "stop_after_correct": 0, "logprobs": 0},
        filter={"drop_duplicates": False},
        train={"student": str(student), "dtype": "float32", "max_length": 256, "args": args},
        eval={"tasks": [str(task)], "engine": {"max_model_len": 256, "dtype": "float32"}},
        ablate={"seeds": 1, "arms": [{"name": "correct"}, {"name": "all", "filter": {"require_correct": False}}]},
    )


@pytest.mark.extended
@pytest.mark.timeout(480)
def test_an_ablation_from_an_empty_folder_is_killed_and_continued_and_counts_as_by_hand(
    tmp_path: Path, tiny_student: Path
) -> None:
    ablation = tmp_path / "run" / "ablate"
    with Teacher() as teacher:
        path = whole_recipe(tmp_path, teacher, tiny_student)
        process = subprocess.Popen(
            [sys.executable, "-m", "r1distill", "ablate", str(path)],
            stdout=subprocess.DEVNULL,
            env={**os.environ, "VLLM_CPU_KVCACHE_SPACE": "1", "PYTHONPATH": str(ROOT)},
        )
        while not (ablation / "all-seed0" / "stages" / "train.json").exists():
            assert process.poll() is None
            time.sleep(0.05)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        asked = len(teacher.received)
        assert asked == 8 * 4
        results = read_json(ablation / "results.json")
        assert (results["finished"], results["trainings"]) == (1, 2)
        assert results["differences"] == {"sums": []}
        first = times_of(ablation / "correct-seed0")
        tags = (tmp_path / "run" / "tags.parquet").stat()
        result = r1distill("ablate", path, timeout=400, VLLM_CPU_KVCACHE_SPACE="1")
        assert result.returncode == 0, result.stdout + result.stderr
        assert len(teacher.received) == asked
    assert "correct-seed0: done before (1 of 2)" in result.stdout
    assert "▶ all, seed 0: training 2 of 2" in result.stdout
    assert times_of(ablation / "correct-seed0") == first
    for training in ablation.glob("*-seed*"):
        assert (training / "tags.parquet").stat().st_ino == tags.st_ino
        assert (training / "student" / "config.json").is_file()
    assert (tmp_path / "run" / "tags.parquet").stat().st_mtime_ns == tags.st_mtime_ns
    results = read_json(ablation / "results.json")
    shares = {arm: [by_hand(ablation / f"{arm}-seed0")] for arm in ("correct", "all")}
    for arm, [row] in shares.items():
        assert results["arms"][arm]["tasks"]["sums"]["pass@1"] == pytest.approx([sum(row) / 8])
    [difference] = results["differences"]["sums"]
    whole = crossed_difference(shares["correct"], shares["all"])
    assert (difference["a"], difference["b"], difference["seeds"]) == ("correct", "all", [0])
    assert difference["difference"] == pytest.approx(whole.difference)
    for about in results["arms"].values():
        assert results["tokens"] - 29 < about["subsets"][0]["tokens"] <= results["tokens"]
        assert about["trainings"][0]["steps"] == 30
    # another seed reads other examples first
    recipe = load_recipe(path)
    other = Run(recipe_of(recipe, recipe.ablate.arms[0], 1, results["tokens"]))
    take_over(Run(recipe), other, tmp_path / "run" / "tags.parquet")
    run_stages(other, ["filter", "train"])
    logs = [read_json(ablation / f"correct-seed{n}" / "student" / "training_log.json")[0]["loss"] for n in (0, 1)]
    assert logs[0] != logs[1]


def times_of(folder: Path) -> dict[Path, int]:
    """Of all that the stages made. Not of logs: helpers of the engine that outlive a killed process write there at their end."""
    made = (
        each for each in folder.rglob("*") if each.is_file() and each.name != ".lock" and each.parent.name != "logs"
    )
    return {each: each.stat().st_mtime_ns for each in made}


def by_hand(training: Path) -> list[float]:
    """The share of right samples of each question, in the order of their ids."""
    folder = training / "eval" / "sums" / "student"
    rows: dict[str, list[bool]] = {
        each.id: [] for each in sorted(read_records(folder / "problems.parquet", Problem), key=lambda each: each.id)
    }
    verdicts = read_records(folder / "verdicts.parquet", Verdict)
    for found, verdict in zip(read_records(folder / "traces", Trace), verdicts, strict=True):
        rows[verdict.problem_id].append(verdict.outcome == "correct" and found.finish_reason == "stop")
    return [sum(row) / len(row) for row in rows.values()]
