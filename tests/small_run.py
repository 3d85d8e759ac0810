"""Small recipes and runs that several tests start from, and the command line as a user calls it."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from r1distill.generate.journal import Journal
from r1distill.recipe import Recipe
from r1distill.records import Trace
from r1distill.run import Run

ROOT = Path(__file__).resolve().parents[1]
DATA = ROOT.parent / "shared" / "data"
PROBLEMS = [{"problem": f"What is {a} + 4?", "answer": str(a + 4)} for a in range(5)]


def jsonl(path: Path, rows: list[Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def settings(folder: Path, **sections: Any) -> dict[str, Any]:
    """A recipe as tables: problems in `folder`, a run folder below it, and a teacher behind a closed port."""
    problems = folder / "problems.jsonl"
    if not problems.exists():
        jsonl(problems, PROBLEMS)
    tables: dict[str, Any] = {
        "run_dir": str(folder / "run"),
        "problems": {"path": str(problems)},
        "teacher": {"model": "teacher", "backend": "server", "urls": ["http://127.0.0.1:9/v1"]},
        "train": {"student": "org/student"},
        "eval": {"tasks": ["quickstart"]},
        "contamination": {"benchmarks": ["quickstart"]},  # the only one that is here
    }
    for name, value in sections.items():
        tables[name] = {**tables.get(name, {}), **value} if isinstance(value, dict) else value
    return tables


def small_run(folder: Path, **sections: Any) -> Run:
    return Run(Recipe.model_validate(settings(folder, **sections)))


def with_a_sample(run: Run) -> Run:
    """The run with one finished sample in its journal."""
    with Journal(run.journal) as journal:
        journal.append(Trace("p", 0, "teacher", "sha", 1, "4", None, "4", "stop"), None)
    return run


def recipe_file(folder: Path, **sections: Any) -> Path:
    """The same as a TOML file."""
    tables = settings(folder, **sections)
    lines = [f"{key} = {toml(value)}" for key, value in tables.items() if not isinstance(value, dict)]
    for name, table in tables.items():
        if isinstance(table, dict):
            lines += [f"[{name}]", *(f"{key} = {toml(value)}" for key, value in table.items())]
    path = folder / "recipe.toml"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def toml(value: Any) -> str:
    """JSON's strings, numbers, lists and booleans are TOML's too."""
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{key} = {toml(each)}" for key, each in value.items()) + " }"
    if isinstance(value, list):
        return "[" + ", ".join(map(toml, value)) + "]"
    return json.dumps(value)


def r1distill(
    *arguments: str | Path, cwd: Path | None = None, before: str = "", timeout: float = 60, **env: str
) -> Any:
    """Run the command line in a process of its own; `before` is Python that it runs first."""
    code = f"{before}\nfrom r1distill.cli import main\nmain()"
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=cwd,
        timeout=timeout,
        env={**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1", "COLUMNS": "200", **env},
    )


def assert_one_error_line(result: Any, *words: str) -> None:
    """Exit code 2, and one line on stderr that says all of `words`; no traceback anywhere."""
    assert result.returncode == 2, (result.returncode, result.stdout, result.stderr)
    lines = result.stderr.strip().splitlines()
    assert len(lines) == 1, result.stderr
    assert lines[0].startswith("error: "), result.stderr
    assert "Traceback" not in result.stdout
    for word in words:
        assert word in lines[0], (word, lines[0])
