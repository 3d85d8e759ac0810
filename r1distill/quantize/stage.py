"""The stage `quantize`: the trained student → quantized/."""

import importlib
from pathlib import Path
from typing import Any

from r1distill.console import console, say
from r1distill.run import Clock, Run

FOLDER = "quantized"


def quantize_stage(run: Run, clock: Clock) -> dict[str, Any]:
    """Round the weights and save them. Returns the counts for the stage's record."""
    settings = run.recipe.quantize
    assert settings
    source = last_student(run)
    with console.status(f"quantize: {source}"):
        module = importlib.import_module("r1distill.quantize.export")
        counts = module.export(source, run.folder / FOLDER, settings.scheme)
    say(
        f"  {counts['bytes_before'] / 1e6:,.1f} MB → {counts['bytes'] / 1e6:,.1f} MB, {counts['linears']} layers in 8 bits"
    )
    return counts


def last_student(run: Run) -> Path:
    """What came out of the last training: that on its own samples where there is one."""
    return run.folder / "on_policy" / "student" if run.recipe.on_policy else run.student
