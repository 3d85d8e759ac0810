"""The problems of a run, compared with the benchmarks and with each other: contamination.json, and columns of tags.parquet."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice

import pyarrow as pa

from r1distill.console import Progress, say
from r1distill.duplicates import SIMILAR
from r1distill.filter.benchmark_index import build_index
from r1distill.filter.contamination import Hit, find_contamination
from r1distill.filter.contamination_report import contamination_report
from r1distill.filter.near_duplicates import Signatures, problem_signatures, repeats, together
from r1distill.filter.registry import build_registry
from r1distill.records import Problem
from r1distill.run import Run
from r1distill.store import write_json

PROBLEMS_AT_ONCE = 4_096


@dataclass(frozen=True, slots=True)
class Compared:
    """What was found of problems by their ids. `hits` has the contaminated ones alone; None where nobody compared them."""

    hits: dict[str, Hit] | None
    duplicate_of: dict[str, str]

    def columns(self, problem_ids: Sequence[str]) -> dict[str, pa.Array]:
        """Columns of tags.parquet for traces of the problems `(N,)`."""
        hits = None if self.hits is None else [self.hits.get(name) for name in problem_ids]
        nothing = pa.nulls(len(problem_ids), pa.string())
        return {
            "problem_duplicate_of": pa.array([self.duplicate_of.get(name, "") for name in problem_ids], pa.string()),
            **{
                column: nothing if hits is None else pa.array([(hit and getattr(hit, field)) or "" for hit in hits])
                for column, field in (
                    ("contaminated_by", "benchmark"),
                    ("contamination_method", "method"),
                    ("contamination_span", "span"),
                )
            },
        }


def compare_problems(run: Run, problems: Mapping[str, Problem], tick: Callable[[], None]) -> Compared:
    """Compare all problems, and write contamination.json. `tick` is called for each `PROBLEMS_AT_ONCE` of them.

    Raises UserError where a benchmark that the recipe gives a file for cannot be read.
    """
    settings, of_eval = run.recipe.contamination, run.recipe.eval
    today = datetime.now(UTC).date().isoformat()
    registry = build_registry(settings, today, of_eval.data, of_eval.data_dir) if settings.enabled else None
    index = build_index(registry.questions(), settings) if registry else None
    if registry and (warning := registry.warning()):
        say(f"  warning: {warning}")
    found: list[list[Hit]] = []
    hits: dict[str, Hit] = {}
    signatures: list[Signatures] = []
    rest = iter(problems.values())
    with Progress("filter: problems", len(problems)) as progress:
        while some := list(islice(rest, PROBLEMS_AT_ONCE)):
            signatures.append(problem_signatures(some))
            if index:
                of_some = find_contamination(index, some)
                found += of_some
                hits |= {problem.id: its[0] for problem, its in zip(some, of_some, strict=True) if its}
            tick()
            progress.advance(len(some))
    if registry:
        report = contamination_report(registry, settings, found)
    else:
        report = {"settings": settings.model_dump(), "problems": len(problems)}
    write_json(run.contamination, report)
    return Compared(hits if registry else None, repeated(list(problems), signatures))


def repeated(names: Sequence[str], signatures: Sequence[Signatures]) -> dict[str, str]:
    """{problem: the earlier one that it repeats}."""
    if not names:
        return {}
    original, _ = repeats(together(signatures), SIMILAR)
    return {name: names[int(place)] for name, place in zip(names, original, strict=True) if place >= 0}
