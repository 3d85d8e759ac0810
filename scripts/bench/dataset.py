"""CPU seconds and peak memory of writing, checking, exporting and importing a dataset: python scripts/bench/dataset.py [N …]

N made-up traces of about 8,000 characters, four a problem. Each step runs in a process of its own.
"""

import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np

from r1distill.filter.card import dataset_card
from r1distill.filter.dataset import write_dataset
from r1distill.filter.exports import FORMATS, export_dataset
from r1distill.filter.public_traces import import_traces
from r1distill.filter.whole import check_dataset
from r1distill.recipe import Recipe
from r1distill.records import Decision, Problem, Trace, Verdict
from r1distill.run import Run
from r1distill.store import read_json, write_json, write_records, write_text
from r1distill.traces_section import Traces

SAMPLES = 4
WORDS_A_TRACE = 1_300
STEPS = ("write", "card", "check", *FORMATS, "import")


def make_run(folder: Path, number: int) -> None:
    draw = random.Random(1)
    vocabulary = ["".join(draw.choices("abcdefghijklmnopqrstuvwxyz", k=draw.randint(2, 9))) for _ in range(5_000)]
    problems = [Problem(f"What is {n}?", answer="2", source="made up", license="mit") for n in range(number // SAMPLES)]
    run = Run(Recipe.model_validate({"run_dir": str(folder)}))

    def traces() -> Iterator[Trace]:
        for problem in problems:
            for sample in range(SAMPLES):
                thinking = " ".join(draw.choices(vocabulary, k=WORDS_A_TRACE))
                text = f"<think>\n{thinking}\n</think>\n\n\\boxed{{2}}"
                ids = [7] * (len(text) // 4)
                yield Trace(
                    problem.id, sample, "m", "s", sample, text, thinking, "\\boxed{2}", "stop", ids, 9, len(ids)
                )

    write_records(run.problems, Problem, problems)
    write_records(run.traces / "00000.parquet", Trace, traces())
    each = [(problem.id, sample) for problem in problems for sample in range(SAMPLES)]
    write_records(run.verdicts, Verdict, (Verdict(*key, "correct") for key in each))
    write_records(run.decisions, Decision, (Decision(*key, True, "kept") for key in each))
    write_json(run.funnel, {"sampled": number, "kept": number, "dropped": {}, "by_source": {}})
    write_json(run.record_path("filter"), {"stage": "filter", "status": "done"})


def steps_of(folder: Path, number: int) -> dict[str, Callable[[], object]]:
    run, other = (Run(Recipe.model_validate({"run_dir": str(path)})) for path in (folder, folder / "other"))

    def card() -> None:
        write_text(run.dataset / "README.md", dataset_card(run, run.dataset, read_json(run.funnel)))

    formats = {format: partial(export_dataset, run.dataset, format, folder / format, "mine") for format in FORMATS}
    back = Traces(path=str(folder / "trl" / "train.parquet"))
    return {
        "write": partial(write_dataset, run, run.dataset, np.zeros(number, dtype=bool)),
        "card": card, "check": partial(check_dataset, run),
        **formats, "import": partial(import_traces, back, other),
    }  # fmt: skip


def measure(step: str, number: int, folder: Path) -> None:
    if step == "make":
        make_run(folder, number)
        return
    do = steps_of(folder, number)[step]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
    started = time.process_time()
    do()
    seconds = time.process_time() - started
    megabytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
    print(
        f"{step:10}{number:>10,}{seconds:>9.1f} s{number / seconds:>10,.0f}/s{megabytes:>9,.0f} MB ({before:,.0f} before)",
        flush=True,
    )


if __name__ == "__main__":
    if len(sys.argv) > 3:
        measure(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]))
    else:
        print(f"{'':10}{'traces':>10}{'CPU time':>11}{'traces':>10}{'peak memory':>15}", flush=True)
        for number in map(int, sys.argv[1:] or ["10000", "40000"]):
            with tempfile.TemporaryDirectory() as folder:
                for step in ("make", *STEPS):
                    subprocess.run([sys.executable, __file__, step, str(number), folder], check=True)
