"""What a score was measured under, kept beside the samples from the moment that they are taken."""

import platform
from datetime import datetime
from pathlib import Path
from typing import Any

from r1distill import __version__
from r1distill.gpus import visible_gpus
from r1distill.run import git_revision
from r1distill.store import read_json, write_json

FILE = "conditions.json"


def machine() -> dict[str, Any]:
    """The part of it that moves scores in their last digits, and the code that asked."""
    return {
        "gpus": visible_gpus(),
        "processor": platform.machine(),
        "r1distill": __version__,
        "git_revision": git_revision(),
    }


def note_conditions(folder: Path, found: dict[str, Any]) -> None:
    """Put the conditions of samples that are taken now beside them: a list, the latest last, each unlike the one before."""
    before = conditions_of(folder)
    if not before or {**before[-1], "date": None} != {**found, "date": None}:
        folder.mkdir(parents=True, exist_ok=True)
        write_json(
            folder / FILE, [*before, {**found, "date": datetime.now().astimezone().isoformat(timespec="seconds")}]
        )


def conditions_of(folder: Path) -> list[dict[str, Any]]:
    path = folder / FILE
    return read_json(path) if path.exists() else []
