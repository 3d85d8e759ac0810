"""A run on others' traces: what the stages `generate` and `verify` do for [traces], and what decides their results then."""

import functools
import hashlib
from pathlib import Path
from typing import Any

from r1distill.console import Progress, say
from r1distill.errors import UserError
from r1distill.filter.public_traces import import_traces, take_labels, traces_path
from r1distill.generate.stage import generate
from r1distill.problems import files_read
from r1distill.prompting import load_prompt
from r1distill.recipe import Recipe
from r1distill.run import Clock, Run
from r1distill.store import file_sha256
from r1distill.traces_section import Traces
from r1distill.verify.stage import verify_stage

LARGE = 64 << 20  # bytes of a file that is read once a process; to read it takes longer than a time stamp is exact


def generate_stage(run: Run, clock: Clock) -> dict[str, Any]:
    """Sample the teacher, or read the traces of [traces]. Returns the counts for the stage's record.

    What a set counted as tokens was not sampled here, and is no speed: it is in `tokens_of_the_set`.
    """
    section = run.recipe.traces
    if section is None:
        return generate(run, clock)
    with Progress("generate: rows read", None) as progress:

        def tick() -> None:
            clock.tick()
            progress.advance()

        counts = import_traces(section, run, tick)
    counts["tokens_of_the_set"] = counts.pop("tokens")
    labels = ", ".join(f"{count:,} {outcome}" for outcome, count in sorted(counts["labels"].items()))
    say(f"  {counts['samples']:,} traces of {counts['problems']:,} problems; labels of the set: {labels}")
    if unknown := counts["without_reference"]:
        judged = section.verdicts == "ours"
        so = ", and their traces cannot be judged (filter.require_correct drops them)" if judged else ""
        say(f"  {unknown:,} problems have no reference{so}")
    return counts


def verdicts_stage(run: Run, clock: Clock) -> dict[str, Any]:
    """Judge the traces, or take the labels that the set has. Returns the counts of the outcomes."""
    if run.recipe.traces is None or run.recipe.traces.verdicts == "ours":
        return verify_stage(run, clock)
    outcomes = take_labels(run)
    return {"verdicts": outcomes.total(), "outcomes": dict(outcomes)}


def decisive(stage: str, recipe: Recipe, section: Traces) -> dict[str, Any]:
    """What decides the result of a stage besides the recipe's sections, flat.

    No teacher is asked. The prompt is that of the dataset, and the seed is that of what the filter draws.
    """
    if stage == "generate":
        return {"traces.sha256": traces_sha256(section)}
    if stage == "verify":
        return {"traces.verdicts": section.verdicts}
    if stage == "filter":
        settings = recipe.generate
        prompt = load_prompt(settings.prompt, settings.prefill)
        return {
            "generate.prompt": settings.prompt,
            "generate.prompt.sha256": prompt.sha256,
            "generate.prefill": settings.prefill,
            "seed": recipe.seed,
        }
    return {}


def traces_sha256(section: Traces) -> str | None:
    """Of the file, or of the names and hashes of those of a folder; None for a set on the Hub.

    Raises UserError where there is no such file, or it cannot be read.
    """
    path = traces_path(section)
    if path is None:
        return None
    try:
        hashes = [f"{file.name} {sha256_of(file)}" for file in files_read(path, section.files)]
    except OSError as error:
        raise UserError(f"traces.path = {section.path}: cannot be read: {error.strerror}; correct it") from None
    return hashlib.sha256("\n".join(hashes).encode()).hexdigest()


def sha256_of(file: Path) -> str:
    found = file.stat()
    return large_sha256(file, found.st_size, found.st_mtime_ns) if found.st_size >= LARGE else file_sha256(file)


@functools.cache
def large_sha256(file: Path, size: int, changed_ns: int) -> str:
    """The state of the stages is asked for a dozen times, and a set may have tens of gigabytes."""
    return file_sha256(file)
