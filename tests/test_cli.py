"""The command line, from outside: what it imports, and what each kind of bad input ends in."""

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from small_run import PROBLEMS, ROOT, assert_one_error_line, jsonl, r1distill, recipe_file, settings, with_a_sample

from r1distill import __version__
from r1distill.pipeline import STAGES, inputs_of
from r1distill.recipe import Recipe
from r1distill.run import Run
from r1distill.store import write_json

HEAVY = "{'torch', 'vllm', 'transformers', 'trl', 'datasets', 'accelerate', 'ray', 'sympy'}"
ON_EXIT = f"import atexit, sys; atexit.register(lambda: print('HEAVY', sorted({HEAVY} & set(sys.modules))))"
WITHOUT_VLLM = "import sys; sys.modules['vllm'] = None"
COMMANDS = ("run", "generate", "verify", "filter", "cache", "train", "eval", "show", "compare", "report", "export")


def test_importing_the_package_imports_nothing_heavy() -> None:
    code = (
        "import r1distill, sys; print(len([m for m in ('torch', 'vllm', 'pydantic', 'pyarrow') if m in sys.modules]))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert found.stdout == "0\n"


def test_help_names_every_command_and_imports_nothing_heavy(tmp_path: Path) -> None:
    result = r1distill("--help", cwd=tmp_path, before=ON_EXIT)
    assert result.returncode == 0
    assert all(f" {command} " in result.stdout for command in COMMANDS)
    assert all(section in result.stdout for section in ("[train.kl]", "[prune]", "[[chain]]"))
    assert "HEAVY []" in result.stdout


def test_a_plan_needs_nothing_heavy_and_works_from_anywhere(tmp_path: Path) -> None:
    result = r1distill("run", "quickstart", "--dry-run", f"run_dir={tmp_path}/run", cwd=tmp_path, before=ON_EXIT)
    assert result.returncode == 0, result.stderr
    assert "HEAVY []" in result.stdout
    assert "eval  [to do]" in result.stdout
    assert os.listdir(tmp_path) == []


def test_a_plan_tells_what_is_taught_besides_the_words(tmp_path: Path) -> None:
    overrides = [
        "train.hidden.teacher=quickstart:teacher",
        "train.controller={ threshold = 3.5 }",
        "train.kl={ alpha = 0.25 }",
    ]
    result = r1distill("run", "quickstart", "--dry-run", f"run_dir={tmp_path}/run", *overrides, "train.hidden.weight=7")
    assert result.returncode == 0, result.stderr
    shown = {line.split()[0]: line for line in result.stdout.splitlines() if line.startswith("  ")}
    assert "alpha = 0.25" in shown["kl"]
    assert "teacher = quickstart:teacher" in shown["hidden"]
    assert "weight = 7" in shown["hidden"]
    assert "threshold = 3.5" in shown["controller"]


def test_a_terminal_that_is_not_utf8_ends_nothing(tmp_path: Path) -> None:
    result = r1distill("run", "quickstart", "--dry-run", f"run_dir={tmp_path}/run", PYTHONIOENCODING="ascii")
    assert result.returncode == 0, result.stderr
    assert "eval  [to do]" in result.stdout


def test_the_version_is_told() -> None:
    assert r1distill("--version").stdout.strip() == __version__


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("generate.sampels=2", ("unknown key generate.sampels", "did you mean generate.samples?")),
        ("generate.samples=two", ("generate.samples = 'two'", "integer")),
        ("generate.samples", ("section.key=value",)),
        ("problems.path=nowhere.jsonl", ("problems: no such file: nowhere.jsonl", "correct the path")),
        ("generate.prompt=nowhere.txt", ("prompt: no such file: nowhere.txt",)),
        ("teacher.urls=[]", ("needs teacher.urls",)),
        ('teacher.urls=["localhost:8000"]', ("localhost:8000 is not a URL",)),
        ("run_dir=/proc/nothing/run", ("run_dir /proc/nothing/run: cannot be written",)),
    ],
)
def test_a_bad_setting_ends_in_one_line(tmp_path: Path, override: str, words: tuple[str, ...]) -> None:
    assert_one_error_line(r1distill("generate", recipe_file(tmp_path), override), *words)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ('{"problem": "x", ', ("problems.jsonl:6: not valid JSON", "mend or delete the line")),
        ('{"problem": "x"}', ("problems.jsonl:6: a math problem without an answer", 'kind = "open"')),
    ],
)
@pytest.mark.parametrize("dry", [True, False])
def test_a_bad_problem_ends_in_one_line(tmp_path: Path, line: str, words: tuple[str, ...], dry: bool) -> None:
    path = recipe_file(tmp_path)
    with (tmp_path / "problems.jsonl").open("a") as problems:
        problems.write(line + "\n")
    assert_one_error_line(r1distill("generate", path, *(["--dry-run"] if dry else [])), *words)


def test_a_recipe_that_is_not_there_ends_in_one_line(tmp_path: Path) -> None:
    assert_one_error_line(r1distill("run", "nowhere.toml", cwd=tmp_path), "no such recipe: nowhere.toml", "quickstart")
    (tmp_path / "broken.toml").write_text("[train")
    assert_one_error_line(r1distill("run", "broken.toml", cwd=tmp_path), "broken.toml: not valid TOML")


def test_a_server_that_is_down_ends_in_one_line(tmp_path: Path) -> None:
    result = r1distill("generate", recipe_file(tmp_path))
    assert_one_error_line(result, "http://127.0.0.1:9/v1", "start one (vllm serve teacher) or correct teacher.urls")


@pytest.mark.parametrize(
    ("model", "words"),
    [
        ("./nowhere", ("train.student = ./nowhere", "no such folder")),
        ("nowhere", ("train.student = nowhere", "no such folder", "Hub id")),
        ("empty", ("train.student = empty", "without config.json")),
    ],
)
def test_a_model_that_is_not_there_ends_in_one_line_before_any_work(
    tmp_path: Path, model: str, words: tuple[str, ...]
) -> None:
    if importlib.util.find_spec("trl") is None:
        pytest.skip("the extra `train` is not installed, which is asked for first")
    (tmp_path / "empty").mkdir()
    result = r1distill("run", recipe_file(tmp_path), f"train.student={model}", cwd=tmp_path)
    assert_one_error_line(result, *words)
    assert set(os.listdir(tmp_path / "run")) == {".lock", "logs"}


def test_a_missing_extra_ends_in_one_line_before_any_work(tmp_path: Path) -> None:
    path = recipe_file(tmp_path, teacher={"backend": "vllm", "model": "quickstart:teacher"})
    result = r1distill("generate", path, before=WITHOUT_VLLM)
    assert_one_error_line(result, "generate needs vllm, which is not installed", 'pip install "r1distill[gpu]"')
    assert set(os.listdir(tmp_path / "run")) == {".lock", "logs"}


def generated(folder: Path) -> Run:
    """A run folder whose samples were taken with another recipe."""
    run = with_a_sample(Run(Recipe.model_validate(settings(folder, generate={"temperature": 0.9}))))
    record = {"status": "done", "inputs": inputs_of(STAGES[0], run.recipe), "upstream": None, "seconds": 1.0}
    write_json(run.record_path("generate"), {**record, "finished_at": "1", "counts": {}})
    (run.folder / "traces").mkdir()
    (run.folder / "traces" / "00000.parquet").write_text("precious")
    return run


def test_a_run_folder_of_another_recipe_ends_in_one_line_and_redo_goes_on(tmp_path: Path) -> None:
    run = generated(tmp_path)
    path = recipe_file(tmp_path)
    result = r1distill("generate", path)
    assert_one_error_line(result, "another recipe (generate.temperature 0.9 → 0.6)", "--redo", "run_dir")
    assert (run.traces / "00000.parquet").read_text() == "precious"
    redone = r1distill("generate", path, "--redo")
    assert_one_error_line(redone, "no server answers")  # it went on to sample
    assert "generate has to be done again" in redone.stdout
    [kept] = run.folder.glob("superseded/generate-*")
    assert (kept / "traces" / "00000.parquet").read_text() == "precious"


def test_a_stage_too_early_ends_in_one_line(tmp_path: Path) -> None:
    path = recipe_file(tmp_path)
    assert_one_error_line(r1distill("verify", path), "verify needs what generate makes", "r1distill generate RECIPE")
    assert_one_error_line(r1distill("filter", path), "filter needs what verify makes")


def test_show_of_no_run_ends_in_one_line_and_of_a_begun_one_shows_it(tmp_path: Path) -> None:
    assert_one_error_line(r1distill("show", tmp_path), f"{tmp_path}: not a run folder", "run_dir")
    r1distill("generate", recipe_file(tmp_path))  # ends at the closed port
    shown = r1distill("show", "run", cwd=tmp_path)
    assert shown.returncode == 0, shown.stderr
    assert "run folder: run" in shown.stdout


def test_verify_of_files_ends_bad_calls_in_one_line(tmp_path: Path) -> None:
    good = jsonl(tmp_path / "in.jsonl", [{"id": "1", "response": "\\boxed{3}", "answer": "3"}])
    assert_one_error_line(r1distill("verify"), "verify needs a recipe, or --file IN.jsonl --out OUT.jsonl")
    assert_one_error_line(r1distill("verify", "--file", good), "needs --out OUT.jsonl")
    assert_one_error_line(r1distill("verify", "--file", tmp_path / "no", "--out", tmp_path / "o"), "cannot be read")
    assert_one_error_line(r1distill("verify", "--file", good, "--out", tmp_path), "cannot be written: it is a folder")
    bad = jsonl(tmp_path / "bad.jsonl", [{"id": "1", "response": "x"}])
    assert_one_error_line(r1distill("verify", "--file", bad, "--out", tmp_path / "o"), "bad.jsonl:1: answer missing")
    assert sorted(os.listdir(tmp_path)) == ["bad.jsonl", "in.jsonl"]


def test_ctrl_c_says_how_to_go_on(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo.toml"
    os.mkfifo(fifo)  # a recipe that never comes
    command = subprocess.Popen(
        [sys.executable, "-m", "r1distill", "run", str(fifo)], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True, start_new_session=True, preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )  # fmt: skip
    time.sleep(1.5)
    command.send_signal(signal.SIGINT)
    _, stderr = command.communicate(timeout=20)
    assert stderr.strip() == "stopped; the same command continues from here"
    assert command.returncode == 130


def test_the_recipe_helper_writes_what_it_says(tmp_path: Path) -> None:
    path = recipe_file(tmp_path)
    assert len((tmp_path / "problems.jsonl").read_text().splitlines()) == len(PROBLEMS)
    assert json.dumps(str(tmp_path / "run")) in path.read_text()
