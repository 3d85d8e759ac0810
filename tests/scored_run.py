"""The files of an evaluation, as the stage writes them, from a few words for each sample."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from r1distill.records import FinishReason, Outcome, Problem, Trace, Verdict
from r1distill.store import write_json, write_records

ENDS: dict[str, tuple[FinishReason, Outcome]] = {
    "right": ("stop", "correct"),
    "wrong": ("stop", "incorrect"),
    "cut": ("length", "no_answer"),
    "cut but right": ("length", "correct"),
    "silent": ("stop", "no_answer"),
    "late": ("stop", "timeout"),
    "failed": ("error", "no_answer"),
    "loop": ("repetition", "no_answer"),
}
Sample = tuple[str, str | None]  # one of ENDS, and the extracted answer


def scored(
    folder: Path,
    samples: Mapping[str, Sequence[Sample]],
    problems: Sequence[Problem],
    *,
    token_ids: Mapping[tuple[str, int], list[int] | None] | None = None,
    texts: Mapping[tuple[str, int], str] | None = None,
    summary: dict[str, Any] | None = None,
) -> Path:
    """eval/TASK/MODEL at `folder`: samples by problem id. The trace of sample i has 100 (i + 1) tokens."""
    traces, verdicts = [], []
    for name, row in samples.items():
        for i, (end, extracted) in enumerate(row):
            reason, outcome = ENDS[end]
            text = (texts or {}).get((name, i), f"reply {i}")
            ids = (token_ids or {}).get((name, i), [1, 2, 3])
            traces.append(Trace(name, i, "m", "sha", 1, text, None, text, reason, ids, n_tokens=100 * (i + 1)))
            verdicts.append(Verdict(name, i, outcome, extracted))
    write_records(folder / "problems.parquet", Problem, problems)
    write_records(folder / "traces" / "00000.parquet", Trace, traces)
    write_records(folder / "verdicts.parquet", Verdict, verdicts)
    write_json(folder / "summary.json", summary or {})
    return folder


def scored_run(run: Path, task: str, models: Mapping[str, Mapping[str, Sequence[int]]], **summary: Any) -> Path:
    """RUN/eval/TASK with, for each model, whether each sample of a problem is right; the problems are the ids."""
    told = {"prompt_sha256": "prompt", "temperature": 0.6, **summary}
    for model, rows in models.items():
        problems = [Problem(f"What of {name}?", answer="1", id=name) for name in rows]
        words = {name: [("right" if each else "wrong", "1") for each in row] for name, row in rows.items()}
        scored(run / "eval" / task / model, words, problems, summary={"model": model, **told})
    everybody = {model: {"model": model, **told} for model in models}
    write_json(run / "eval" / task / "summary.json", {**list(everybody.values())[-1], "models": everybody})
    return run
