"""Which stages are done, which a changed recipe makes to be done again, and who may work in a run folder."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from small_run import PROBLEMS, ROOT, jsonl, small_run, with_a_sample

from r1distill.dry_run import show_plan
from r1distill.errors import UserError
from r1distill.pipeline import (
    EXTENDING,
    SPEED_ONLY,
    STAGE_NAMES,
    STAGES,
    changes,
    inputs_of,
    names_of_run,
    predecessor,
    refuse_other_recipe,
    run_stages,
    set_aside,
    statuses,
    without,
)
from r1distill.preflight import preflight
from r1distill.recipe import Recipe, all_keys
from r1distill.records import Decision, Problem, Trace, Verdict
from r1distill.run import Clock, Run, locked, open_run
from r1distill.store import read_json, read_records, write_json, write_records, write_text
from r1distill.summary import summarise, write_summary

EVERY = ("generate", "verify", "filter", "cache", "train", "eval")
GOOD = "<think>\n1 + 1 = 2\n</think>\n\n\\boxed{2}"


def finish(run: Run, *names: str, status: str = "done") -> None:
    """Write the records of these stages as if they had been run."""
    for stage in STAGES:
        if stage.name in names:
            after = predecessor(stage, run.recipe)
            upstream = run.record(after) if after else None
            record = {
                "stage": stage.name,
                "status": status,
                "inputs": inputs_of(stage, run.recipe),
                "upstream": (upstream or {}).get("finished_at"),
                "seconds": 61.0,
                "finished_at": f"{stage.name}-1",
                "counts": {},
            }
            write_json(run.record_path(stage.name), record)


def states(run: Run) -> dict[str, str]:
    """Of the stages of every recipe; the others are not needed here."""
    return {status.stage.name: status.state for status in statuses(run) if status.stage.name in EVERY}


def why(run: Run) -> dict[str, str]:
    return {status.stage.name: status.why for status in statuses(run)}


def test_a_new_run_has_everything_to_do_and_a_finished_one_nothing(tmp_path: Path) -> None:
    run = small_run(tmp_path)
    assert states(run) == dict.fromkeys(EVERY, "to do")
    finish(run, *STAGE_NAMES)
    assert states(run) == dict.fromkeys(EVERY, "done")
    assert states(small_run(tmp_path)) == dict.fromkeys(EVERY, "done")


def test_a_stage_that_was_begun_is_continued(tmp_path: Path) -> None:
    run = small_run(tmp_path)
    finish(run, "generate", "verify", "filter", "cache")
    finish(run, "train", status="running")
    assert states(run) == {**dict.fromkeys(EVERY, "done"), "train": "unfinished", "eval": "to do"}


def test_a_changed_filter_outdates_what_comes_after_and_says_why(tmp_path: Path) -> None:
    finish(small_run(tmp_path), *STAGE_NAMES)
    run = small_run(tmp_path, filter={"max_mean_entropy_nats": 0.5})
    done, outdated = ["generate", "verify"], ["filter", "cache", "train", "eval"]
    assert states(run) == {**dict.fromkeys(done, "done"), **dict.fromkeys(outdated, "outdated")}
    assert why(run)["filter"] == "the recipe changed: filter.max_mean_entropy_nats 0.85 → 0.5"
    assert why(run)["train"] == "filter runs again"
    assert why(run)["eval"] == "train runs again"


def test_a_stage_that_ran_again_outdates_the_next(tmp_path: Path) -> None:
    run = small_run(tmp_path)
    finish(run, *STAGE_NAMES)
    write_json(run.record_path("verify"), {**(run.record("verify") or {}), "finished_at": "verify-2"})
    assert why(run)["filter"] == "verify ran again since"
    assert states(run)["train"] == "outdated"


@pytest.mark.parametrize(
    "sections",
    [
        {"teacher": {"urls": ["http://127.0.0.1:10/v1"], "timeout_s": 5.0, "retries": 1, "api_key_env": "K"}},
        {"teacher": {"engine": {"tensor_parallel_size": 8, "x": {"y": 1}}}},
        {"generate": {"concurrency": 3}, "eval": {"concurrency": 3, "engine": {"max_model_len": 5}}},
        {"train": {"launch": {"num_processes": 8}}},
        {"cache": {"source": "vllm", "batch_tokens": 64, "engine": {"max_model_len": 5}}},
        {"verify": {"workers": 7}},
    ],
)
def test_what_only_changes_the_speed_outdates_nothing(tmp_path: Path, sections: dict[str, Any]) -> None:
    finish(small_run(tmp_path, cache={"source": "vllm"} if "cache" in sections else {}), *STAGE_NAMES)
    assert states(small_run(tmp_path, **sections)) == dict.fromkeys(EVERY, "done")


@pytest.mark.parametrize(
    ("stage", "sections"),
    [
        ("generate", {"seed": 1}),
        ("generate", {"teacher": {"model": "another"}}),
        ("generate", {"generate": {"prefill": ""}}),
        ("cache", {"cache": {"source": "vllm", "k": 8}}),
        ("cache", {"cache": {"source": "vllm", "dtype": "float32"}}),
        ("cache", {"cache": {"source": "vllm", "model": "org/another"}}),
        ("train", {"train": {"args": {"learning_rate": 1e-3}}}),
        ("train", {"train": {"peft": {"r": 8}}}),
        ("train", {"train": {"chat_template": "prompts/chatml.jinja"}}),
        ("eval", {"eval": {"samples": 3}}),
        ("eval", {"eval": {"models": ["student"]}}),
    ],
)
def test_what_changes_the_result_outdates_its_stage(tmp_path: Path, stage: str, sections: dict[str, Any]) -> None:
    finish(small_run(tmp_path, cache={"source": "vllm"} if stage == "cache" else {}), *STAGE_NAMES)
    run = small_run(tmp_path, **sections)
    first = next(status for status in statuses(run) if status.state != "done")
    assert (first.stage.name, first.state) == (stage, "outdated")
    assert "\n" not in first.why


def test_a_changed_file_outdates_the_stage_that_reads_it(tmp_path: Path) -> None:
    prompt, template, heldout = tmp_path / "prompt.txt", tmp_path / "chat.jinja", tmp_path / "heldout.jsonl"
    task = tmp_path / "mine.toml"
    folder = tmp_path / "folder"

    def write(mark: str) -> None:
        prompt.write_text(f"{mark} {{problem}}")
        template.write_text(f"{mark}\n" * 100)
        jsonl(heldout, [{"problem": mark, "answer": "1"}])
        jsonl(folder / "a.jsonl", [{"problem": mark, "answer": "1"}])
        task.write_text(f'name = "mine"\ntitle = "M"\nlicense = ""\nsamples = 1\n[data]\npath = "{heldout}"\n')

    def changed(file: Path, text: str) -> list[tuple[str, str]]:
        write("a")
        run = small_run(
            tmp_path, generate={"prompt": str(prompt)}, train={"chat_template": str(template)},
            eval={"tasks": [str(task)]}, problems={"path": str(folder)},
        )  # fmt: skip
        finish(run, *STAGE_NAMES)
        file.write_text(text)
        return [
            (status.stage.name, status.why) for status in statuses(run) if status.why.startswith("the recipe changed")
        ]

    assert changed(prompt, "b {problem}")[0][0] == "generate"
    assert changed(folder / "a.jsonl", '{"problem": "b", "answer": "1"}\n')[0][0] == "generate"
    [(stage, reason)] = changed(template, "b\n" * 100)
    assert stage == "train"
    assert "train.chat_template.sha256" in reason
    assert changed(heldout, '{"problem": "b", "answer": "1"}\n')[0][0] == "eval"
    [(stage, reason)] = changed(task, task.read_text().replace("samples = 1", "samples = 2"))
    assert stage == "eval"
    assert "samples 1 → 2" in reason


def test_keys_are_cut_whole_and_with_all_below_them() -> None:
    flat = {"a.b": 1, "a.b.c": 2, "a.bc": 3, "a": 4, "b.a.b": 5}
    assert without(("a.b",), flat) == {"a.bc": 3, "a": 4, "b.a.b": 5}


def test_the_lists_name_keys_that_there_are() -> None:
    assert set(SPEED_ONLY) <= set(all_keys(Recipe))
    assert set(EXTENDING) - {"problems.sha256"} <= set(all_keys(Recipe))


def test_changes_are_said_in_one_line() -> None:
    assert changes({"a": 1, "b": "x", "c": [1]}, {"a": 2, "c": [1], "d": True}) == [
        "a 1 → 2",
        "b x → absent",
        "d absent → True",
    ]
    assert changes({"p": "<think>\n"}, {"p": ""}) == ['p <think>\\n → ""']
    [long] = changes({"t": "x" * 100}, {"t": "y" * 100})
    assert len(long) < 90


SCORED = {"cache": {"source": "transformers"}, "train": {"kl": {}}}


@pytest.mark.parametrize(
    ("sections", "reason"),
    [
        ({}, "there is no [train.kl]"),
        ({"cache": {"source": "vllm"}}, "there is no [train.kl]"),
        ({"train": {"kl": {}}}, 'cache.source = "generation"'),
        ({"cache": {"source": "vllm"}, "train": {"kl": {"online": "org/t"}}}, "the teacher of train.kl.online is in"),
        (SCORED, None),
    ],
)
def test_a_run_scores_only_where_training_takes_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], sections: dict[str, Any], reason: str | None
) -> None:
    run = small_run(tmp_path, **sections)
    assert ("cache" in names_of_run(run.recipe)) == (reason is None)
    show_plan(run, tmp_path)
    assert (f"cache  [not needed: {reason}" if reason else "cache  [to do]") in capsys.readouterr().out
    finish(run, *STAGE_NAMES)
    write_json(run.record_path("cache"), {**(run.record("cache") or {}), "finished_at": "cache-2"})
    again = "cache ran again since" if reason is None else ""
    assert why(run)["train"] == again


def test_training_with_scored_distributions_waits_for_them(tmp_path: Path) -> None:
    write_json(tmp_path / "student" / "config.json", {})
    run = small_run(tmp_path, cache=SCORED["cache"], train={**SCORED["train"], "student": str(tmp_path / "student")})
    finish(run, "generate", "verify", "filter")
    with pytest.raises(UserError, match=r"train needs what cache makes, which is to do: r1distill cache RECIPE first"):
        run_stages(run, ["train"])
    finish(run, "cache", "train", "eval")
    other = small_run(tmp_path, train={"kl": {}})
    assert states(other)["train"] == "outdated"
    assert "train.kl.source transformers → generation" in why(other)["train"]


def test_what_was_scored_stays_while_only_the_kept_traces_change(tmp_path: Path) -> None:
    run = small_run(tmp_path, **SCORED)
    finish(run, *STAGE_NAMES)
    write_text(run.teacher_cache / "00000.arrow", "scores")
    looser = {
        status.stage.name: status for status in statuses(small_run(tmp_path, **SCORED, filter={"max_per_problem": 2}))
    }
    assert (looser["cache"].state, looser["cache"].changed) == ("outdated", False)
    set_aside(run, looser["cache"].stage, changed=looser["cache"].changed)
    assert (run.teacher_cache / "00000.arrow").exists()
    set_aside(run, STAGES[0])  # more samples
    assert (run.teacher_cache / "00000.arrow").exists()
    finish(run, "cache")
    another = small_run(tmp_path, train={"kl": {}}, cache={"source": "transformers", "temperatures": [2.0]})
    status = next(status for status in statuses(another) if status.stage.name == "cache")
    assert status.changed
    set_aside(another, status.stage, changed=status.changed)
    assert not run.teacher_cache.exists()
    assert [path.read_text() for path in run.folder.glob("superseded/cache-*/teacher_cache/00000.arrow")] == ["scores"]


# ---------------------------------------------------------------- another recipe


def test_a_recipe_that_was_mended_before_anything_was_sampled_is_not_another_one(tmp_path: Path) -> None:
    finish(small_run(tmp_path), "generate", status="running")
    refuse_other_recipe(small_run(tmp_path, generate={"temperature": 0.7}), redo=False)


def test_samples_of_another_recipe_are_not_continued_by_mistake(tmp_path: Path) -> None:
    finish(with_a_sample(small_run(tmp_path)), "generate")
    other = small_run(tmp_path, generate={"temperature": 0.7})
    with pytest.raises(UserError, match=r"another recipe \(generate\.temperature 0\.6 → 0\.7\).*run_dir.*--redo"):
        refuse_other_recipe(other, redo=False)
    refuse_other_recipe(other, redo=True)
    assert states(other)["generate"] == "outdated"


@pytest.mark.parametrize(
    "sections", [{"generate": {"samples": 4, "stop_after_correct": 1, "logprobs": 0}}, {"problems": {"limit": 2}}]
)
def test_more_of_the_same_extends_a_run(tmp_path: Path, sections: dict[str, Any]) -> None:
    finish(with_a_sample(small_run(tmp_path)), "generate")
    more = small_run(tmp_path, **sections)
    refuse_other_recipe(more, redo=False)
    assert states(more)["generate"] == "outdated"


def test_more_problems_in_the_file_extend_a_run(tmp_path: Path) -> None:
    run = small_run(tmp_path)
    finish(with_a_sample(run), "generate")
    jsonl(tmp_path / "problems.jsonl", [*PROBLEMS, {"problem": "one more", "answer": "1"}])
    refuse_other_recipe(run, redo=False)
    assert "problems.sha256" in why(run)["generate"]


def test_what_an_outdated_stage_made_is_set_aside(tmp_path: Path) -> None:
    run = small_run(tmp_path)
    finish(run, *STAGE_NAMES)
    write_text(run.student / "model.safetensors", "weights")
    write_text(run.journal / "x.sqlite", "samples")
    for stage in STAGES:
        set_aside(run, stage)
    [kept] = run.folder.glob("superseded/train-*")
    assert (kept / "student" / "model.safetensors").read_text() == "weights"
    assert read_json(kept / "train.json")["finished_at"] == "train-1"
    assert not run.student.exists()
    assert run.record("train") is None
    assert (run.journal / "x.sqlite").read_text() == "samples"  # what was sampled stays where it is found
    set_aside(run, next(stage for stage in STAGES if stage.name == "train"))  # nothing more to move
    assert len(list(run.folder.glob("superseded/train-*"))) == 1


# ---------------------------------------------------------------- running


def sampled(tmp_path: Path, **sections: Any) -> Run:
    """A run with traces and verdicts, whose filter is still to do."""
    run = small_run(tmp_path, **sections)
    problems = [Problem(f"{n}?", answer="2") for n in range(4)]
    rows = [
        Trace(p.id, 0, "m", "s", 0, GOOD, "1 + 1 = 2", "\\boxed{2}", "stop", mean_entropy_nats=n / 10)
        for n, p in enumerate(problems)
    ]
    write_records(run.problems, Problem, problems)
    write_records(run.traces / "00000.parquet", Trace, rows)
    write_records(run.verdicts, Verdict, [Verdict(row.problem_id, 0, "correct") for row in rows])
    finish(run, "generate", "verify")
    return run


def test_a_stage_runs_once_and_leaves_its_record(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = sampled(tmp_path)
    run_stages(run, ["filter"])
    record = run.record("filter") or {}
    assert record["status"] == "done"
    assert record["counts"]["kept"] == 4
    assert record["upstream"] == "verify-1"
    assert read_json(run.folder / "recipe.json")["recipe"] == run.recipe.model_dump()
    run_stages(run, ["filter"])
    assert run.record("filter") == record
    assert "✓ filter: done before" in capsys.readouterr().out


def test_a_changed_filter_is_done_again_and_the_old_dataset_kept(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_stages(sampled(tmp_path), ["filter"])
    changed = small_run(tmp_path, filter={"max_mean_entropy_nats": 0.15})
    run_stages(changed, ["filter"])
    assert "filter has to be done again: the recipe changed: filter.max_mean" in capsys.readouterr().out
    assert (changed.record("filter") or {})["counts"]["kept"] == 2
    [old] = changed.folder.glob("superseded/filter-*")
    assert len(list(read_records(old / "decisions.parquet", Decision))) == 4
    assert (old / "dataset" / "train.parquet").exists()


def test_a_stage_that_fails_is_continued_and_loses_nothing(tmp_path: Path) -> None:
    strict = sampled(tmp_path, filter={"max_mean_entropy_nats": 1e-9, "require_correct": False})
    write_records(
        strict.traces / "00000.parquet", Trace,
        [Trace("p", 0, "m", "s", 0, GOOD, "", "2", "stop", mean_entropy_nats=1.0)],
    )  # fmt: skip
    write_records(strict.problems, Problem, [Problem("?", answer="2", id="p")])
    write_records(strict.verdicts, Verdict, [Verdict("p", 0, "correct")])
    with pytest.raises(UserError, match="no trace is left"):
        run_stages(strict, ["filter"])
    assert states(strict)["filter"] == "unfinished"
    assert [d.reason for d in read_records(strict.decisions, Decision)] == ["high_entropy"]
    run_stages(small_run(tmp_path, filter={"require_correct": False, "max_mean_entropy_nats": 2.0}), ["filter"])


def test_a_stage_is_not_made_from_what_is_not_there_or_outdated(tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"filter needs what verify makes, which is to do: r1distill verify RECIPE first"
    ):
        run_stages(small_run(tmp_path / "new"), ["filter"])
    sampled(tmp_path)
    more = small_run(tmp_path, generate={"samples": 2})
    with pytest.raises(UserError, match=r"verify makes, which is outdated \(generate runs again\)"):
        run_stages(more, ["filter"])
    assert not more.dataset.exists()


def test_what_would_stop_the_last_stage_is_found_before_the_first(tmp_path: Path) -> None:
    write_json(tmp_path / "student" / "config.json", {})
    for sections, words in (
        ({"eval": {"tasks": ["nothing"]}}, "no such task: nothing"),
        ({"generate": {"prompt": "nowhere.txt"}}, "prompt: no such file"),
        ({"problems": {"path": "nowhere.jsonl"}}, "problems: no such file"),
        ({"train": {"chat_template": "nowhere.jinja"}}, r"train\.chat_template: no such file"),
    ):
        student = {"student": str(tmp_path / "student"), **sections.pop("train", {})}
        run = small_run(tmp_path, train=student, **sections)
        with pytest.raises(UserError, match=words):
            run_stages(run, names_of_run(run.recipe))
        assert not (run.folder / "stages").exists()
    with pytest.raises(UserError, match=r"eval\.tasks is empty"):
        preflight(small_run(tmp_path, eval={"tasks": []}).recipe, ["eval"])


def test_the_time_of_attempts_that_were_cut_off_counts(tmp_path: Path) -> None:
    run = small_run(tmp_path)
    finish(run, "generate", status="running")
    clock = Clock(run, "generate")
    assert 61.0 <= clock.seconds < 62.0
    clock.saved -= 10
    clock.tick()
    assert (run.record("generate") or {})["seconds"] == pytest.approx(61.0, abs=1)
    assert states(run)["generate"] == "unfinished"


def test_the_summary_tells_what_is_done_so_far(tmp_path: Path) -> None:
    run = sampled(tmp_path)
    run_stages(run, ["filter"])
    summary = write_summary(run)
    assert summary == read_json(run.summary)
    assert summary["funnel"]["kept"] == 4
    assert list(summary["stages"]) == ["generate", "verify", "filter"]
    assert summary["student"] is None
    finish(run, "train")
    assert summarise(run)["student"] == str(run.student)


def test_a_run_folder_is_known_wherever_it_was_moved(tmp_path: Path) -> None:
    run = sampled(tmp_path)
    run_stages(run, ["filter"])
    moved = tmp_path / "moved"
    run.folder.rename(moved)
    assert open_run(moved).folder == moved
    assert summarise(open_run(moved))["funnel"]["kept"] == 4
    for content, words in (("{", "not the recipe.json"), ('{"recipe": {"new": 1}}', "not the recipe.json")):
        (moved / "recipe.json").write_text(content)
        with pytest.raises(UserError, match=words) as refused:
            open_run(moved)
        assert "\n" not in str(refused.value)


# ---------------------------------------------------------------- the lock

HOLDER = """
import sys, time
from pathlib import Path
sys.path.insert(0, "tests")
from small_run import small_run
from r1distill.run import locked
with locked(small_run(Path(sys.argv[1]))):
    print("locked", flush=True)
    time.sleep(60)
"""


def test_a_folder_is_for_one_command_until_that_one_ends_however_it_ends(tmp_path: Path) -> None:
    run = small_run(tmp_path)
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path)], stdout=subprocess.PIPE, text=True, cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert holder.stdout is not None
    assert holder.stdout.readline() == "locked\n"
    with pytest.raises(UserError, match=f"in use by process {holder.pid}; wait for it"), locked(run):
        pytest.fail("both have it")
    holder.send_signal(signal.SIGKILL)
    assert holder.wait() == -signal.SIGKILL
    holder.stdout.close()
    with locked(run):
        assert (run.folder / ".lock").read_text() == str(os.getpid())


def test_a_run_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("a file")
    with pytest.raises(UserError, match=r"cannot be written: File exists; choose another"), locked(small_run(tmp_path)):
        pytest.fail("locked a file")
