"""Which planted faults the tags of a trace find, and which clean traces they take for faulty: recall and precision by kind.

    python scripts/check_tags.py [--data ../shared/data] [--planted 200] [--clean 10000] [--half report|tune] [--show]
    python scripts/check_tags.py --traces TRACES.jsonl [--text response] [--problem problem] [--show]     any generations

Thresholds are constants of the measures. They were chosen by looking at traces made with other seeds (from all of the worked
solutions) and at 1,746 traces of a Qwen2.5-3B on MATH. `--half` says which half of the solutions, and which seed, is used.
With --traces: how many of
those are flagged, and the passage found, to be judged by eye.
"""

import argparse
import json
import random
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from planted_traces import Planted, Worked, clean, loops, malformed, mixed, of_text, worked_solutions

from r1distill.filter.measures.repetition import Grams, longest_loop
from r1distill.filter.measures.tags import trace_tags
from r1distill.filter.measures.words import word_ids, words_of
from r1distill.records import Verdict

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
QUANTILES = (0.5, 0.9, 0.99, 0.999, 1.0)
Row = tuple[Planted, dict[str, Any]]
NO_VERDICT = Verdict("", 0, "unverifiable")


def is_in_another_language(tags: dict[str, Any]) -> bool:
    """The whole thinking, which then is not mixed."""
    both = {tags["thinking_language"], tags["problem_language"]}
    return len(both) == 2 and "" not in both


# what each kind of fault is found by; for malformed replies the right word counts as well
FINDS: dict[str, Callable[[dict[str, Any]], bool]] = {
    "loops": lambda tags: tags["loop_words"] > 0,
    "mixed languages": lambda tags: tags["language_mixed"] or is_in_another_language(tags),
    "malformed": lambda tags: tags["format"] != "ok",
}
OTHERS: dict[str, Callable[[dict[str, Any]], bool]] = {
    "loop_at_end": lambda tags: tags["loop_at_end"],
    "foreign_script_share": lambda tags: tags["foreign_script_share"] > 0,
    "refusal": lambda tags: tags["refusal"],
    "self_identification": lambda tags: bool(tags["self_identification"]),
    "pii": lambda tags: bool(tags["pii"]),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--planted", type=int, default=200, help="of each kind of fault")
    parser.add_argument("--clean", type=int, default=10_000)
    parser.add_argument("--half", choices=("report", "tune"), default="report")
    parser.add_argument("--traces", type=Path)
    parser.add_argument("--text", default="response")
    parser.add_argument("--problem", default="problem")
    parser.add_argument("--show", action="store_true", help="print what is missed and what is flagged wrongly")
    options = parser.parse_args()
    if options.traces:
        flagged_of(list(read(options.traces, options.problem, options.text)), options.show)
        return
    if not (options.data / "gsm8k").exists():
        print(f"{options.data} has no gsm8k: made solutions instead", file=sys.stderr)
    half = options.half == "tune"
    worked = worked_solutions(options.data)[half::2]
    draw = random.Random(f"{options.half}")
    clean_rows = tagged((clean(draw, worked) for _ in range(options.clean)), timed=True)
    print_clean(clean_rows, options.show)
    for name, make in (("loops", loops), ("mixed languages", mixed), ("malformed", malformed)):
        print_planted(name, tagged(make(draw, worked, options.planted)), clean_rows, options.show)


def tagged(planted: Iterable[Planted], *, timed: bool = False) -> list[Row]:
    planted = list(planted)
    started = time.process_time()
    rows = [(each, trace_tags(each.problem, each.trace, NO_VERDICT)) for each in planted]
    took = time.process_time() - started
    if timed:
        sizes = np.array([len(each.trace.text) for each in planted])
        print(
            f"{len(rows):,} clean traces, {np.median(sizes):,.0f} characters in the middle, {sizes.max():,} at most: "
            f"{len(rows) / took:,.0f} a second of one core"
        )
    return rows


def print_clean(rows: list[Row], show: bool) -> None:
    print("\nquantiles of clean traces " + "".join(f"{quantile:>9}" for quantile in QUANTILES))
    for name in ("longest_repeat", "repeated_share", "compression_ratio", "loop_words", "foreign_script_share"):
        values = np.quantile([tags[name] for _, tags in rows], QUANTILES)
        print(f"{name:26}" + "".join(f"{value:9.2f}" for value in values))
    print("\nclean traces flagged")
    for name, find in (FINDS | OTHERS).items():
        wrong = [row for row in rows if find(row[1])]
        print(f"{name:26}{len(wrong):6} of {len(rows):,}")
        print_rows(wrong, show)


def print_planted(name: str, rows: list[Row], clean_rows: list[Row], show: bool) -> None:
    find = FINDS[name]
    by_kind: defaultdict[str, list[Row]] = defaultdict(list)
    for row in rows:
        by_kind[row[0].kind].append(row)
    print(f"\n{name:40}{'planted':>8}{'found':>7}{'recall':>9}")
    for kind, some in sorted(by_kind.items()):
        found = sum(is_right(find, row) for row in some)
        print(f"{kind:40}{len(some):8}{found:7}{found / len(some):9.1%}")
    found = sum(is_right(find, row) for row in rows)
    wrong = sum(find(tags) for _, tags in clean_rows)
    print(f"{'all':40}{len(rows):8}{found:7}{found / len(rows):9.1%}   precision {found / max(found + wrong, 1):.2%} "
          f"(with {wrong} of {len(clean_rows):,} clean ones)")  # fmt: skip
    print_rows([row for row in rows if not is_right(find, row)], show)


def is_right(find: Callable[[dict[str, Any]], bool], row: Row) -> bool:
    planted, tags = row
    return find(tags) and planted.expected in ("", tags["format"])


def print_rows(rows: list[Row], show: bool) -> None:
    for planted, tags in rows[: 20 if show else 0]:
        text = planted.trace.text
        print(f"    {planted.kind}: {tags['format']}, {loop_of(text)!r}")
        print(f"    {text[:100]!r} … {text[-200:]!r}")


def loop_of(text: str) -> str:
    words = words_of(text)
    ids = word_ids(words)
    loop = longest_loop(ids, Grams(ids))
    return " ".join(words[loop.start : loop.end])[:300]


# ---------------------------------------------------------------- other generations


def read(path: Path, problem: str, text: str) -> Iterator[Planted]:
    for line in path.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        yield of_text(path.name, Worked(str(row[problem]), "", ""), str(row[text]))


def flagged_of(planted: list[Planted], show: bool) -> None:
    rows = tagged(planted, timed=True)
    print_clean(rows, False)
    print("format", Counter(tags["format"] for _, tags in rows).most_common())
    for name, find in FINDS.items():
        if name != "malformed" and show:
            print(f"\n{name}")
            print_rows([row for row in rows if find(row[1])], show)


if __name__ == "__main__":
    main()
