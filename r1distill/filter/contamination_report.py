"""contamination.json: what the problems were compared with, what was not, and how many were found of each benchmark."""

from collections import Counter, defaultdict
from collections.abc import Iterable
from typing import Any

from r1distill.contamination_section import Contamination
from r1distill.filter.contamination import METHODS, Hit
from r1distill.filter.registry import Registry


def contamination_report(registry: Registry, settings: Contamination, hits: Iterable[list[Hit]]) -> dict[str, Any]:
    """Counts of problems; `hits` are those of every problem, as find_contamination gives them.

    A problem that two benchmarks ask counts for both, and once in `contaminated`; `by_method` has its surest hit.
    `questions_found` are the questions of a benchmark that some problem repeats.
    """
    by_benchmark: defaultdict[str, Counter[str]] = defaultdict(Counter)
    questions: defaultdict[str, set[str]] = defaultdict(set)
    by_method: Counter[str] = Counter()
    count = 0
    for of_problem in hits:
        count += 1
        by_method.update(hit.method for hit in of_problem[:1])
        for hit in of_problem:
            by_benchmark[hit.benchmark][hit.method] += 1
            questions[hit.benchmark].add(hit.question_id)
    table = registry.as_table()
    for benchmark in table["benchmarks"]:
        name = benchmark["name"]
        benchmark["problems"] = {method: by_benchmark[name][method] for method in METHODS}
        benchmark["questions_found"] = len(questions[name])
    return {
        "settings": settings.model_dump(),
        "problems": count,
        "contaminated": by_method.total(),
        "by_method": {method: by_method[method] for method in METHODS},
        **table,
    }
