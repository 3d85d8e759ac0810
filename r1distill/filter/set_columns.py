"""The columns of tags.parquet that several traces together give: difficulty, agreement, duplicates, contamination, quality."""

import importlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from r1distill.console import Progress, say
from r1distill.errors import require_packages
from r1distill.filter.clusters import Clustering, cluster_columns, cluster_problems, cluster_texts
from r1distill.filter.compared import compare_problems
from r1distill.filter.measures.groups import consistencies, difficulty, entropy_z
from r1distill.filter.near_duplicates import apart, repeats, unpacked
from r1distill.filter.problem_rows import ProblemRows
from r1distill.filter.quality import quality_columns
from r1distill.prompting import load_prompt
from r1distill.records import Trace, Verdict
from r1distill.run import Clock, Run
from r1distill.store import read_records
from r1distill.verify.settings import open_pool

Columns = dict[str, Any]
SHORT_REPLY = (
    400  # characters: "4 + 5 = 9, so that the answer is 9." is right for many questions, and each is an example
)


def set_columns(run: Run, table: pa.Table, clock: Clock) -> Columns:
    """Columns by name `(N,)`, from those that each trace has alone: `table` of tags_of_unit. Writes contamination.json."""
    settings = run.recipe.filter
    names, outcomes = table["problem_id"].to_pylist(), table["outcome"].to_pylist()
    with ProblemRows(run.problems) as problems:
        found = difficulty(names, outcomes)
        with open_pool(run.recipe.verify) as pool:
            agreement = list(consistencies(read_records(run.verdicts, Verdict), problems, pool))
        scores = entropy_z(
            table["mean_entropy_nats"].to_pylist(), table["source"].to_pylist(), table["n_tokens"].to_pylist()
        )
        columns: Columns = {
            "n_samples": pa.array(found.n_samples),
            "pass_rate": pa.array(found.pass_rate, from_pandas=True),  # NaN is not measured
            "consistency": pa.array(agreement, pa.float64()),
            "entropy_z": pa.array(scores, from_pandas=True),
            **(compared := compare_problems(run, problems, clock.tick)).columns(names),
            **duplicate_columns(table, compared.duplicate_of),
        }
        if settings.clusters:
            clustering = clustered(run, names, problems)
            regions, alone = len(set(clustering.labels.tolist()) - {-1}), int((clustering.labels < 0).sum())
            say(f"  clusters: {regions} dense regions at a radius of {clustering.eps:.3g}, {alone} traces in none")
            columns |= {name: pa.array(values) for name, values in cluster_columns(clustering.labels).items()}
        if settings.quality_measured:
            columns |= quality(run, table, columns, [problems[name].date for name in names])
        if settings.student_perplexity:
            columns["student_perplexity"] = pa.array(perplexities(run, problems, clock.tick), pa.float64())
    return columns


def duplicate_columns(table: pa.Table, problem_duplicate_of: Mapping[str, str]) -> Columns:
    """Which earlier trace each one repeats, and how closely. A short one only in reply to nearly the same question."""
    names, samples, lengths = (table[name].to_pylist() for name in ("problem_id", "sample", "n_characters"))
    questions = [
        problem_duplicate_of.get(name, name) if length < SHORT_REPLY else ""
        for name, length in zip(names, lengths, strict=True)
    ]
    original, similarity = repeats(apart(unpacked(table["signature"]), questions))
    keys = [f"{name}/{sample}" for name, sample in zip(names, samples, strict=True)]
    return {
        "duplicate_of": pa.array([keys[place] if place >= 0 else "" for place in original.tolist()], pa.string()),
        "duplicate_similarity": pa.array(similarity, pa.float64()),
    }


def quality(run: Run, table: pa.Table, columns: Columns, dates: list[str]) -> Columns:
    settings = run.recipe.filter
    assert settings.quality_measured
    known = table.drop_columns([name for name in columns if name in table.column_names])
    for name, values in columns.items():
        known = known.append_column(name, values)
    found = quality_columns(known, dates, settings.quality_measured, require_thinking=settings.require_thinking)
    return {name: pa.array(values, from_pandas=True) for name, values in found.items()}


def clustered(run: Run, names: list[str], problems: ProblemRows) -> Clustering:
    settings, seed = run.recipe.filter.clusters, run.recipe.seed
    assert settings is not None
    if settings.text == "problem":
        return cluster_problems({name: problems[name].problem for name in dict.fromkeys(names)}, names, settings, seed)
    texts = (getattr(trace, settings.text) or "" for trace in read_records(run.traces, Trace))
    return cluster_texts(texts, settings, seed)


def perplexities(run: Run, problems: ProblemRows, tick: Callable[[], None]) -> Iterator[float | None]:
    """Of every trace under the student as training starts with it."""
    require_packages("filter.student_perplexity", "torch", "transformers")
    perplexity: Any = importlib.import_module("r1distill.filter.measures.perplexity")
    model, tokenizer = perplexity.open_student(run.recipe.train)
    prompt = load_prompt(run.recipe.generate.prompt, run.recipe.generate.prefill)
    pairs = ((problems[trace.problem_id], trace) for trace in read_records(run.traces, Trace))
    total = sum(pq.read_metadata(file).num_rows for file in run.traces.glob("*.parquet"))
    with Progress("filter: perplexity under the student", total) as progress:
        for value in perplexity.student_perplexities(model, tokenizer, prompt, pairs, run.recipe.train.max_length):
            yield value
            tick()
            progress.advance(1)
