"""Runs on the traces of others: whole commands, from the import to the trained student."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tiny_model
from scripted_server import ScriptedServer
from small_run import ROOT, assert_one_error_line, jsonl, r1distill, recipe_file, small_run, with_a_sample

from r1distill.doctor.command import number_of_problems, read_teacher
from r1distill.doctor.machine import check_files
from r1distill.doctor.sampling import check_sampling
from r1distill.dry_run import show_plan
from r1distill.errors import UserError
from r1distill.filter.public_traces import LABELS, TEMPORARY
from r1distill.filter.rebuild import rebuild_recipe
from r1distill.pipeline import run_stages, statuses
from r1distill.plan.command import make_plan
from r1distill.plan.counts import Given
from r1distill.preflight import needed_by
from r1distill.prompting import load_prompt
from r1distill.recipe import Recipe, load_recipe
from r1distill.records import Problem, Trace, Verdict
from r1distill.run import Run, open_run
from r1distill.store import read_json, read_records
from r1distill.summary import write_summary

MADE = ("generate", "verify", "filter")
WORDS = (ROOT / "LICENSE").read_text(encoding="utf-8").split()


def thoughts(number: int) -> str:
    """Sixty words that no other trace has in this order."""
    return " ".join(random.Random(number).choices(WORDS, k=60))


def reply(number: int, answer: int) -> str:
    return f"<think>\n{thoughts(number)}\n</think>\n\nSo it is \\boxed{{{answer}}}."


def ask(number: int) -> str:
    return f"What is {number} + {number + 7}, as {WORDS[number]} would say?"


def open_r1(n: int) -> list[dict[str, Any]]:
    """Of each problem one right trace and one wrong one; Math-Verify's label of every fifth right one says that it is wrong."""
    return [
        {
            "problem": ask(number), "solution": f"It is ${2 * number + 7}$.", "answer": str(2 * number + 7),
            "problem_type": "Algebra", "question_type": "math-word-problem", "source": "sums", "uuid": str(number),
            "is_reasoning_complete": [True, True], "generations": [reply(2 * number, 2 * number + 7), reply(2 * number + 1, 3)],
            "correctness_math_verify": [number % 5 != 0, False], "correctness_llama": None, "finish_reasons": None,
            "messages": [{"role": "user", "content": ask(number)}],
        }
        for number in range(n)
    ]  # fmt: skip


def open_thoughts(n: int) -> list[dict[str, Any]]:
    return [
        {
            "problem": ask(number), "deepseek_reasoning": thoughts(number),
            "deepseek_solution": f"So it is \\boxed{{{2 * number + 7 + number % 2}}}.",
            "ground_truth_solution": f"It is \\boxed{{{2 * number + 7}}}.", "domain": "math", "source": "sums",
            "test_cases": None, "starter_code": None,
        }
        for number in range(n)
    ]  # fmt: skip


def open_thoughts_math(n: int) -> list[dict[str, Any]]:
    return [
        {
            "source": "sums", "problem": ask(number), "solution": f"It is \\boxed{{{2 * number + 7}}}.", "messages": [],
            "system": "Think.", "generated_token_count": 70 + number, "correct": number % 2 == 0,
            "conversations": [
                {"from": "user", "value": ask(number)}, {"from": "assistant", "value": reply(number, 2 * number + 7)},
            ],
        }
        for number in range(n)
    ]  # fmt: skip


def mixture(n: int) -> list[dict[str, Any]]:
    return [
        {
            "messages": [
                {"role": "user", "content": ask(number)},
                {"role": "assistant", "content": reply(number, 2 * number + 7)},
            ],
            "num_tokens": 70 + number,
            "source": "open-r1/OpenR1-Math-220k",
        }
        for number in range(n)
    ]


def run_on(
    folder: Path, rows: list[dict[str, Any]] | None, traces: dict[str, Any] | None = None, **sections: Any
) -> Run:
    """The run on the set of these rows; None leaves the file as it is."""
    if rows is not None:
        jsonl(folder / "set.jsonl", rows)
    return small_run(folder, traces={"path": str(folder / "set.jsonl"), **(traces or {})}, **sections)


def dataset(run: Run) -> list[dict[str, Any]]:
    return pq.read_table(run.dataset / "train.parquet").to_pylist()


def states(run: Run) -> dict[str, str]:
    return {status.stage.name: status.state for status in statuses(run) if status.stage.name in MADE}


# ---------------------------------------------------------------- whole commands


def test_a_set_goes_from_its_file_to_a_published_dataset_without_a_teacher(tmp_path: Path) -> None:
    jsonl(tmp_path / "OpenR1-Math-220k.jsonl", open_r1(20))
    path = tmp_path / "recipe.toml"
    path.write_text('run_dir = "run"\n[traces]\npath = "OpenR1-Math-220k.jsonl"\nmodel = "deepseek-ai/DeepSeek-R1"\n')
    outputs = []
    for stage in MADE:
        result = r1distill(stage, path.name, cwd=tmp_path)
        assert result.returncode == 0, result.stderr
        assert f"✓ {stage}" in result.stdout
        outputs.append(result.stdout)
    assert "40 traces of 20 problems; labels of the set: 16 correct, 24 incorrect" in outputs[0]
    assert "tokens/s" not in outputs[0]
    counts = read_json(tmp_path / "run/stages/verify.json")["counts"]
    assert counts == {"verdicts": 40, "outcomes": {"correct": 20, "incorrect": 20}}
    record = read_json(tmp_path / "run/stages/generate.json")
    assert (record["tokens"], record["tokens_per_second"], record["counts"]["samples"]) == (None, None, 40)

    again = r1distill("filter", path.name, cwd=tmp_path)
    assert "✓ filter: done before" in again.stdout
    shown = r1distill("show", "run", cwd=tmp_path)
    assert shown.returncode == 0, shown.stderr
    assert "funnel: 40 sampled → 20 correct → 20 kept (dropped: 20 incorrect)" in shown.stdout
    one = r1distill("show", "run", "--dropped", "incorrect", cwd=tmp_path)
    assert one.returncode == 0, one.stderr
    assert "not measured: " in one.stdout
    published = r1distill("publish", "run", "--to", "./out", cwd=tmp_path)
    assert published.returncode == 0, published.stderr
    card = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert "# Reasoning traces of deepseek-ai/DeepSeek-R1" in card
    assert "not sampled by r1distill" in card
    assert "the question as the student is asked it" in card
    assert '[traces]\npath = "OpenR1-Math-220k.jsonl"' in card
    assert "[teacher]" not in card
    assert "[problems]" not in card


@pytest.mark.slow
def test_one_command_reads_judges_filters_trains_and_scores(tmp_path: Path, tiny_student: Path) -> None:
    rows = [
        {"problem": p.problem, "answer": p.answer, "generations": [tiny_model.reply(p)] * 2, "source": "sums"}
        for p in tiny_model.PROBLEMS
    ]
    jsonl(tmp_path / "set.jsonl", rows)
    with ScriptedServer() as server:
        recipe = recipe_file(
            tmp_path,
            traces={"path": str(tmp_path / "set.jsonl"), "model": "org/teacher"},
            teacher={"urls": [server.url]},
            generate={"prompt": tiny_model.PROMPT},
            filter={"drop_duplicates": False},
            train={
                "student": str(tiny_student), "dtype": "float32", "max_length": 256,
                "args": {"max_steps": 2, "per_device_train_batch_size": 4, "gradient_checkpointing": False},
            },
            eval={"models": ["teacher"], "limit": 2, "samples": 1},
        )  # fmt: skip
        result = r1distill("run", recipe, timeout=300)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "✓ train" in result.stdout
    card = (tmp_path / "run" / "student" / "README.md").read_text(encoding="utf-8")
    assert "on reasoning traces of org/teacher (set.jsonl)." in card
    assert read_json(tmp_path / "run/stages/train.json")["counts"]["examples"] == 16


# ---------------------------------------------------------------- the formats, and whose verdicts


@pytest.mark.parametrize(
    ("make", "verdicts", "outcomes"),
    [
        (open_r1, "ours", {"correct": 10, "incorrect": 10}),
        (open_r1, "theirs", {"correct": 8, "incorrect": 12}),
        (open_thoughts, "ours", {"correct": 5, "incorrect": 5}),
        (open_thoughts, "theirs", {"unverifiable": 10}),
        (open_thoughts_math, "ours", {"correct": 10}),
        (open_thoughts_math, "theirs", {"correct": 5, "incorrect": 5}),
        (mixture, "ours", {"unverifiable": 10}),
    ],
)
def test_the_kept_traces_are_those_that_whoever_judges_calls_right(
    tmp_path: Path, make: Callable[[int], list[dict[str, Any]]], verdicts: str, outcomes: dict[str, int]
) -> None:
    judged = "unverifiable" not in outcomes
    run = run_on(tmp_path, make(10), {"verdicts": verdicts}, filter={"require_correct": judged})
    run_stages(run, MADE)
    verified = (run.record("verify") or {})["counts"]
    assert verified == {"verdicts": sum(outcomes.values()), "outcomes": outcomes}
    assert Counter(v.outcome for v in read_records(run.verdicts, Verdict)) == outcomes
    found = dataset(run)
    assert len(found) == (outcomes["correct"] if judged else 10)
    problems = {problem.id: problem for problem in read_records(run.problems, Problem)}
    prompt = load_prompt("prompts/math.txt", "")
    for row in found:
        assert row["prompt"] == prompt.user_message(problems[row["problem_id"]])
        assert row["prompt"].startswith("What is ")
        assert row["completion"].startswith("<think>\n")
        assert (row["finish_reason"], row["mean_entropy_nats"], row["seed"], row["revision"]) == (
            "stop",
            None,
            None,
            None,
        )
    assert write_summary(run)["funnel"]["kept"] == len(found)
    card = (run.dataset / "README.md").read_text(encoding="utf-8")
    assert f"| verdicts | {'the labels of the set' if verdicts == 'theirs' else 'of r1distill'} |" in card
    assert (f"| train | {len(found)} | not counted |" in card) == (make in (open_r1, open_thoughts))


def test_what_was_not_measured_of_others_traces_speaks_neither_for_nor_against_them(tmp_path: Path) -> None:
    run = run_on(tmp_path, open_r1(5))
    run_stages(run, MADE)
    funnel = read_json(run.funnel)
    assert funnel["unmeasured"]["high_entropy"] == 5  # of those that are right
    assert (funnel["kept"], funnel["dropped"]) == (5, {"incorrect": 5})
    assert pq.read_table(run.tags)["n_tokens"].null_count == 10
    with pytest.raises(UserError, match="the tokens of 5 of the 5 traces were not counted"):
        run_stages(run_on(tmp_path, None, filter={"token_budget": 1000}), MADE)
    rescored = run_on(tmp_path, None, filter={"entropy": {"undecided": "rescore"}})
    run_stages(rescored, MADE)  # there is nothing that could be undecided, and nobody to ask
    assert read_json(run.funnel)["kept"] == 5


def test_the_shortest_traces_are_so_by_characters_where_nobody_counted_tokens(tmp_path: Path) -> None:
    rows = [
        {"problem": ask(n), "answer": "3", "generations": [reply(10 * n, 3) + " " * k + "Yes." for k in (30, 5, 60)]}
        for n in range(4)
    ]
    run = run_on(
        tmp_path, rows, filter={"max_per_problem": 1, "max_per_problem_by": "shortest", "drop_duplicates": False}
    )
    run_stages(run, MADE)
    assert [row["sample"] for row in dataset(run)] == [1] * 4


def test_the_prompt_of_the_dataset_is_the_recipes(tmp_path: Path) -> None:
    run = run_on(tmp_path, open_r1(3), generate={"prompt": "prompts/plain.txt"})
    run_stages(run, MADE)
    assert [row["prompt"] for row in dataset(run)] == [ask(n) for n in range(3)]
    changed = run_on(tmp_path, None)
    assert states(changed) == {"generate": "done", "verify": "done", "filter": "outdated"}


# ---------------------------------------------------------------- done, outdated, killed


def test_a_changed_file_is_read_again_and_what_was_made_before_is_set_aside(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = run_on(tmp_path, open_r1(4))
    run_stages(run, MADE)
    run_stages(run, MADE)
    assert capsys.readouterr().out.count("done before") == 3
    before = {name: (run.folder / name).read_bytes() for name in ("problems.parquet", "imported.json", LABELS)}
    run = run_on(tmp_path, open_r1(6))
    assert states(run) == dict.fromkeys(MADE, "outdated")
    run_stages(run, MADE)
    assert "generate has to be done again: the recipe changed: traces.sha256" in capsys.readouterr().out
    [old] = run.folder.glob("superseded/generate-*")
    assert {name: (old / name).read_bytes() for name in before} == before
    assert len(list(read_records(old / "traces", Trace))) == 8
    assert len(list(read_records(run.traces, Trace))) == 12
    assert len(dataset(run)) == 6


@pytest.mark.parametrize(
    ("traces", "sections", "outdated"),
    [
        ({"verdicts": "theirs"}, {}, {"verify", "filter"}),
        ({"limit": 2}, {}, set(MADE)),
        ({"model": "org/m"}, {}, set(MADE)),
        ({}, {"seed": 1}, {"filter"}),
        ({}, {"generate": {"prefill": ""}}, {"filter"}),
        ({}, {"generate": {"temperature": 0.1, "samples": 9}, "teacher": {"model": "org/other"}}, set()),
        ({}, {"problems": {"path": "nowhere.jsonl"}}, set()),
    ],
)
def test_only_what_decides_the_result_is_done_again(
    tmp_path: Path, traces: dict[str, Any], sections: dict[str, Any], outdated: set[str]
) -> None:
    run_stages(run_on(tmp_path, open_r1(4)), MADE)
    found = states(run_on(tmp_path, None, traces, **sections))
    assert {name for name, state in found.items() if state == "outdated"} == outdated


def test_a_file_of_a_folder_that_changed_is_noticed(tmp_path: Path) -> None:
    for part, rows in (("a", open_r1(4)[:2]), ("b", open_r1(4)[2:])):
        jsonl(tmp_path / "set" / f"{part}.jsonl", rows)
    run = small_run(tmp_path, traces={"path": str(tmp_path / "set")})
    run_stages(run, ["generate"])
    assert states(run)["generate"] == "done"
    (tmp_path / "set" / "b.jsonl").unlink()
    assert states(run)["generate"] == "outdated"


def test_samples_of_a_teacher_are_not_given_up_for_the_traces_of_others(tmp_path: Path) -> None:
    sampled = with_a_sample(small_run(tmp_path))
    (sampled.folder / "stages").mkdir()
    record = {"status": "done", "inputs": {"teacher.model": "teacher"}, "upstream": None, "seconds": 1.0}
    sampled.record_path("generate").write_text(json.dumps(record))
    run = run_on(tmp_path, open_r1(4))
    with pytest.raises(UserError, match=r"holds the samples of another recipe .*--redo"):
        run_stages(run, ["generate"])
    run_stages(run, ["generate"], redo=True)
    run_stages(run_on(tmp_path, open_r1(5)), MADE)  # another file costs nothing that the journal holds
    assert len(dataset(run)) == 5


def test_a_killed_import_loses_nothing_and_the_next_is_as_if_it_had_not_been(tmp_path: Path) -> None:
    first = run_on(tmp_path, open_r1(3))
    run_stages(first, ["generate"])
    before = {path.name: path.read_bytes() for path in (first.problems, first.folder / LABELS)}
    long = [{**row, "generations": [text * 20 for text in row["generations"]]} for row in open_r1(600)] * 10
    run = run_on(tmp_path, [{**row, "problem": f"{row['problem']} ({n})"} for n, row in enumerate(long)])
    path = recipe_file(tmp_path, traces={"path": str(tmp_path / "set.jsonl")})
    command = [sys.executable, "-m", "r1distill", "generate", str(path)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while not any(file.stat().st_size > 4 for file in run.folder.glob(f"{TEMPORARY}*/.traces.parquet.*")):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.001)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not run.traces.exists()
    [old] = run.folder.glob("superseded/generate-*")
    assert {name: (old / name).read_bytes() for name in before} == before
    assert states(run)["generate"] == "unfinished"

    run_stages(run, ["generate"])
    whole = small_run(tmp_path, run_dir=str(tmp_path / "whole"), traces={"path": str(tmp_path / "set.jsonl")})
    run_stages(whole, ["generate"])
    made = [run.problems.name, "traces/00000.parquet", LABELS, "imported.json"]
    assert all((run.folder / name).read_bytes() == (whole.folder / name).read_bytes() for name in made)
    assert not list(run.folder.glob(f"{TEMPORARY}*"))
    assert pq.read_metadata(run.traces / "00000.parquet").num_rows == 12_000


# ---------------------------------------------------------------- what cannot be read


def without_generations(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [*rows[:-1], {name: value for name, value in rows[-1].items() if name != "generations"}]


def truncated(path: Path) -> None:
    pq.write_table(pa.Table.from_pylist(open_r1(9)), path)
    path.write_bytes(path.read_bytes()[:-100])


@pytest.mark.parametrize(
    ("name", "write", "words"),
    [
        (
            "a.jsonl",
            lambda path: jsonl(path, without_generations(open_r1(3))),
            ("a.jsonl:3", "openr1-math", "traces.format"),
        ),
        ("b.jsonl", lambda path: path.write_text(""), ("traces.path", "no traces in it")),
        ("c.parquet", truncated, ("c.parquet", "not a readable Parquet file")),
        ("d.jsonl", lambda path: None, ("traces.path", "d.jsonl", "no such file or folder")),
        ("e.jsonl", lambda path: path.write_text('{"problem": '), ("e.jsonl:1", "not valid JSON")),
        ("f.jsonl", lambda path: jsonl(path, [{"question": "?"}]), ("f.jsonl:1", "no traces in its columns")),
    ],
)
def test_a_set_that_cannot_be_read_ends_in_one_line_that_says_why(
    tmp_path: Path, name: str, write: Callable[[Path], Any], words: tuple[str, ...]
) -> None:
    write(tmp_path / name)
    recipe = recipe_file(tmp_path, traces={"path": str(tmp_path / name)})
    assert_one_error_line(r1distill("generate", recipe), *words)
    assert not (tmp_path / "run" / "problems.parquet").exists()
    assert not list((tmp_path / "run").glob(f"{TEMPORARY}*"))


def test_labels_that_are_not_there_are_missed(tmp_path: Path) -> None:
    run = run_on(tmp_path, open_r1(3), {"verdicts": "theirs"})
    run_stages(run, ["generate"])
    (run.folder / LABELS).unlink()
    with pytest.raises(UserError, match=r"labels\.parquet: not there; delete stages/generate\.json"):
        run_stages(run, ["verify"])


def test_a_set_without_references_says_what_to_set(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"10 unverifiable\); loosen .*filter\.require_correct = false"):
        run_stages(run_on(tmp_path, mixture(10)), MADE)


@pytest.mark.parametrize(
    ("sections", "words"),
    [
        ({"generate": {"keep_distributions": True}}, r"generate\.keep_distributions with \[traces\]"),
        ({"train": {"kl": {}}}, r'\[train\.kl\] with \[traces\].*cache\.source = "transformers"'),
        (
            {
                "traces": {"path": "x", "verdicts": "theirs"},
                "verify": {"judge": {"model": "m", "urls": ["http://h/v1"]}},
            },
            r'\[verify\.judge\] with traces\.verdicts = "theirs"',
        ),
    ],
)
def test_sections_that_mean_nothing_for_others_traces_are_refused(
    tmp_path: Path, sections: dict[str, Any], words: str
) -> None:
    path = recipe_file(tmp_path, **{"traces": {"path": "x"}, **sections})
    with pytest.raises(UserError, match=words):
        load_recipe(path)


def test_a_run_without_a_teacher_is_opened_as_it_was(tmp_path: Path) -> None:
    tables = {"run_dir": str(tmp_path / "run"), "traces": {"path": "org/set"}, "generate": {"prefill": ""}}
    run = Run(Recipe.model_validate(tables))
    run.save_recipe(ROOT / "prompts" / "math.txt")
    assert open_run(run.folder).recipe == run.recipe


# ---------------------------------------------------------------- before anything is done


def test_no_teacher_is_needed_unless_one_scores(tmp_path: Path) -> None:
    tables = {"run_dir": str(tmp_path), "traces": {"path": "org/set"}}
    assert needed_by("generate", Recipe.model_validate(tables)) == []
    assert needed_by("cache", Recipe.model_validate(tables)) == ["teacher.model", "train.student"]
    scored = {**tables, "cache": {"source": "transformers", "model": "org/m"}}
    assert needed_by("cache", Recipe.model_validate(scored)) == ["cache.model", "train.student"]
    several = {"cache": {"source": "vllm"}, "teachers": [{"name": "a", "model": "org/a"}], "train": {"kl": {}}}
    assert needed_by("cache", Recipe.model_validate({**tables, **several})) == ["train.student"]


def test_the_plan_of_the_stages_says_what_is_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    show_plan(run_on(tmp_path, open_r1(4), {"limit": 3, "verdicts": "theirs"}), tmp_path / "r.toml")
    plan = capsys.readouterr().out
    assert "set.jsonl: 0.0 MB, the first 3 rows, columns: auto (not read in a dry run)" in plan
    assert "sampled   by nobody known, not here; licence unknown" in plan
    assert "the labels of the set (traces.verdicts), nothing is judged" in plan
    assert "teacher   teacher" not in plan
    show_plan(small_run(tmp_path, traces={"path": "open-r1/OpenR1-Math-220k", "subset": "all"}), tmp_path / "r.toml")
    plan = capsys.readouterr().out
    assert "open-r1/OpenR1-Math-220k (all/train) from the Hub" in plan
    assert "by deepseek-ai/DeepSeek-R1, not here; licence apache-2.0" in plan
    with pytest.raises(UserError, match=r"traces\.path = no/set\.jsonl: no such file or folder"):
        show_plan(small_run(tmp_path, traces={"path": "no/set.jsonl"}), tmp_path / "r.toml")


def test_memory_and_hours_are_those_of_training_on_what_was_read(tmp_path: Path, tiny_student: Path) -> None:
    jsonl(tmp_path / "set.jsonl", open_r1(4))
    path = tmp_path / "r.toml"
    path.write_text(
        f'run_dir = "{tmp_path}/run"\n[traces]\npath = "{tmp_path}/set.jsonl"\n[train]\nstudent = "{tiny_student}"\n'
    )
    result = r1distill("plan", path, "--gpus", "8xH100", "--problems", "1000", "--json")
    assert result.returncode == 0, result.stderr
    before = json.loads(result.stdout)
    assert (before["counts"]["problems"], before["counts"]["samples"]) == (1000, 1000)
    assert [stage["stage"] for stage in before["stages"]] == ["train"]
    run = Run(load_recipe(path))
    run_stages(run, ["generate"])
    counts = make_plan(run, "r.toml", "8xH100", Given()).counts
    assert (counts.problems, counts.samples) == (4, 8)


def test_doctor_looks_for_no_teacher(tmp_path: Path) -> None:
    recipe = run_on(tmp_path, open_r1(2), generate={"temperature": 0, "samples": 4}).recipe
    [found] = check_sampling(recipe, has_cache=False, makes_cache=False)
    assert (found.severity, found.check) == ("ok", "[traces]")
    findings, _, _ = check_files(small_run(tmp_path, traces={"path": "nowhere.jsonl"}).recipe, tmp_path)
    [lost] = [finding for finding in findings if finding.severity == "error"]
    assert (lost.check, lost.remedy) == ("traces.path", "correct it")
    assert read_teacher(recipe) is None
    assert number_of_problems(recipe) is None


def test_the_recipe_in_the_card_has_what_decides_the_dataset_and_no_more(tmp_path: Path) -> None:
    text = rebuild_recipe(run_on(tmp_path, open_r1(2)).recipe)
    path = tmp_path / "again.toml"
    path.write_text(text)
    again = load_recipe(path)
    assert again.traces is not None
    assert again.traces.path == "set.jsonl"
    assert "[teacher]" not in text
    assert "temperature" not in text.partition("[verify]")[0]
