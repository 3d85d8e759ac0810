"""Recall and precision of the search for contaminated problems and of that for near-duplicate traces, on planted ones.

    python scripts/check_contamination.py [--data ../shared/data] [--half report] [--show]

500 problems made of those of the benchmarks below the folder, 100 of each kind, and 10,000 problems that no benchmark has;
500 near copies of traces, and 5,000 traces without any. The limits in r1distill/filter/contamination.py were chosen on one
half of the benchmarks' questions and of the clean problems (`--half tune`); what is reported is the other.
"""

import argparse
import hashlib
import json
import random
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import planted_contamination as planted
import planted_copies
from check_gold import local_tasks
from rich.table import Table

from r1distill.console import console
from r1distill.contamination_section import Contamination
from r1distill.filter.benchmark_index import BenchmarkIndex, build_index
from r1distill.filter.contamination import METHODS, Hit, find_contamination
from r1distill.filter.near_duplicates import repeats, trace_signatures
from r1distill.filter.normalise import tokens
from r1distill.filter.registry import build_registry
from r1distill.problems import load_problems
from r1distill.records import Problem

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
PLANTED, CLEAN = 100, 20_000  # of each kind in a half; in both halves together
FEWEST_WORDS = {"shortened": 20, "reworded": 8}  # of a question that is planted so: what is left has to be one
TASKS = "chain_sum,gcd,lcm,products,basic_arithmetic,leg_counting,simple_equations,gsm_symbolic,count_primes,dice"


def half_of(text: str) -> str:
    return ("tune", "report")[hashlib.sha256(text.encode()).digest()[0] % 2]


def plant(questions: list[tuple[str, Problem]], half: str) -> Iterator[tuple[str, str, Problem]]:
    """(kind, id of the question, problem): as many of each benchmark as there are, PLANTED of each kind."""
    draw = random.Random(7)
    by_benchmark: dict[str, list[Problem]] = {}
    for name, problem in questions:
        if half_of(problem.problem) == half:
            by_benchmark.setdefault(name, []).append(problem)
    for kind, change in [*planted.KINDS.items(), ("other numbers", planted.with_other_numbers)]:
        names = list(by_benchmark)
        count = 0
        while count < PLANTED:
            problem = draw.choice(by_benchmark[names[count % len(names)]])
            if len(tokens(problem.problem)) < FEWEST_WORDS.get(kind, 1):
                names.append(names[count % len(names)])
                draw.shuffle(names)
                continue
            count += 1
            yield (
                kind,
                problem.id,
                Problem(change(problem.problem, draw), problem.kind, answer="1", choices=problem.choices),
            )


def clean_problems(data: Path, half: str) -> Iterator[tuple[str, Problem]]:
    """(where from, problem) of problems that are no benchmark's, or of one that the index is built without."""
    found: list[tuple[str, Problem]] = []
    found += [("GSM8K, training set", problem) for problem in load_problems(str(data / "gsm8k" / "train.jsonl"))]
    found += [("quickstart, training set", problem) for problem in load_problems("prompts/quickstart/train.jsonl")]
    mbpp = [json.loads(line) for line in (data / "mbpp" / "mbpp.jsonl").read_text().splitlines()]
    tests = range(11, 511)
    found += [("MBPP, not its test set", Problem(row["text"], "open")) for row in mbpp if row["task_id"] not in tests]
    rest = CLEAN - len(found)
    found += [
        ("templates", problem)
        for problem in load_problems(f"reasoning_gym:{TASKS}?size={rest // 10 + 1}&seed=3")[:rest]
    ]
    return ((source, problem) for source, problem in found if half_of(problem.problem) == half)


def searched(index: BenchmarkIndex, problems: list[Problem]) -> list[list[Hit]]:
    found = []
    for start in range(0, len(problems), 2_000):
        found += find_contamination(index, problems[start : start + 2_000])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--half", choices=("tune", "report"), default="report")
    parser.add_argument("--show", action="store_true", help="print what was missed and what was found wrongly")
    options = parser.parse_args()
    names = [task.name for task, section in local_tasks(options.data) if section]
    settings = Contamination(benchmarks=names, data_dir=str(options.data))
    registry = build_registry(settings, "")
    questions = list(registry.questions())
    started = time.perf_counter()
    index = build_index(questions, settings)
    console.print(f"{len(questions):,} questions of {', '.join(names)}; index {time.perf_counter() - started:.1f} s")
    show_planted(index, list(plant(questions, options.half)), show=options.show)
    # MBPP+ has some of MBPP's other splits
    without_gsm8k = build_index([each for each in questions if each[0] not in ("gsm8k", "mbppplus")], settings)
    clean = list(clean_problems(options.data, options.half))
    show_clean(without_gsm8k, clean, "the benchmarks but GSM8K and MBPP+", show=options.show)
    of_gsm8k = build_index([each for each in questions if each[0] == "gsm8k"], settings)
    training = [each for each in clean if each[0].startswith("GSM8K")]
    show_clean(of_gsm8k, training, "GSM8K's test set", show=options.show)
    for name in ("math500", "deepcoder_codeforces", "aime24"):
        show_halves(name, questions, settings, show=options.show)
    show_traces(options.data, options.half)


def show_traces(data: Path, half: str) -> None:
    """Near copies of long traces among traces that repeat none, those of one template, and short ones."""
    draw = random.Random(half)
    rows = [json.loads(line) for line in (data / "gsm8k" / "train.jsonl").read_text().splitlines()]
    short = [text for text in planted_copies.solutions(rows) if half_of(text) == half]
    traces = planted_copies.long_traces(short, CLEAN // 20, draw)
    groups = {"long": traces, "GSM8K's solutions": short, "one template": planted_copies.templated_traces(300, draw)}
    copies = planted_copies.near_copies(traces, PLANTED, draw)
    clean = [text for group in groups.values() for text in group]
    original, similarity = repeats(trace_signatures([*clean, *(text for _, _, text in copies)]))
    table = Table("near copies of traces", "traces", "found", "of the right one", "lowest similarity", box=None)
    for kind in planted_copies.KINDS:
        places = [place for place, copy in enumerate(copies, len(clean)) if copy[0] == kind]
        found = [place for place in places if original[place] >= 0]
        right = sum(original[place] == copies[place - len(clean)][1] for place in found)
        lowest = f"{min(similarity[found], default=0):.2f}"
        table.add_row(kind, str(len(places)), str(len(found)), str(right), lowest)
    start = 0
    for name, group in groups.items():
        found = (original[start : start + len(group)] >= 0).sum()
        table.add_row(f"none: {name}", f"{len(group):,}", str(found), "", "")
        start += len(group)
    console.print(table)


def show_planted(index: BenchmarkIndex, rows: list[tuple[str, str, Problem]], *, show: bool) -> None:
    table = Table("planted", "problems", "found", "of them the right question", *METHODS, box=None)
    hits = searched(index, [problem for _, _, problem in rows])
    for kind in dict.fromkeys(kind for kind, _, _ in rows):
        of_kind = [(row, found) for row, found in zip(rows, hits, strict=True) if row[0] == kind]
        found = [(row, found) for row, found in of_kind if found]
        right = sum(any(hit.question_id == row[1] for hit in hits_of_it) for row, hits_of_it in found)
        methods = Counter(found[0].method for _, found in found)
        table.add_row(
            kind, str(len(of_kind)), str(len(found)), str(right), *(str(methods[method]) for method in METHODS)
        )
        if show:
            for row, found in of_kind:
                if not found:
                    console.print(f"missed {kind}: {row[2].problem[:300]!r}", markup=False)
    console.print(table)


def show_clean(index: BenchmarkIndex, rows: list[tuple[str, Problem]], against: str, *, show: bool) -> None:
    table = Table(f"clean, against {against}", "problems", "found", *METHODS, box=None)
    hits = searched(index, [problem for _, problem in rows])
    for source in dict.fromkeys(source for source, _ in rows):
        of_source = [
            (problem, hits_of_it) for (where, problem), hits_of_it in zip(rows, hits, strict=True) if where == source
        ]
        found = [(problem, hits_of_it) for problem, hits_of_it in of_source if hits_of_it]
        methods = Counter(found[0].method for _, found in found)
        table.add_row(source, f"{len(of_source):,}", str(len(found)), *(str(methods[method]) for method in METHODS))
        if show:
            texts = {owner: text.text for text in index.texts for owner in text.owners}
            for problem, hits_of_it in found:
                hit = hits_of_it[0]
                console.print(
                    f"{hit.method} {hit.similarity} {hit.benchmark}\n   {problem.problem[:300]!r}\n   "
                    f"{texts[hit.benchmark, hit.question_id][:300]!r}\n   span {hit.span!r}",
                    markup=False,
                )
    console.print(table)


def show_halves(name: str, questions: list[tuple[str, Problem]], settings: Contamination, *, show: bool) -> None:
    """One half of a benchmark against the other: problems of one kind, with the same turns of phrase."""
    own = [problem for benchmark, problem in questions if benchmark == name]
    index = build_index([(name, problem) for problem in own[::2]], settings)
    show_clean(
        index, [(f"{name}, every other question", problem) for problem in own[1::2]], "the rest of it", show=show
    )


if __name__ == "__main__":
    main()
