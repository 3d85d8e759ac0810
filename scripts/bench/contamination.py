"""CPU seconds and peak memory of decontamination and of the search for near duplicates, beside two peers' methods.

    python scripts/bench/contamination.py [--sizes 10000 100000 1000000] [--peers 10000 100000] [--questions 10000]

Problems: 20 to 90 words drawn by Zipf's law, some of them numbers, one in a hundred a benchmark's with a word changed.
Traces: 400 words, passages of twenty from a pool of a million words, one in ten a near copy. Each line is a process of its
own on one core; making the texts is not counted, building the index is. "a second" is of texts.

  8-gram dictionary   open-r1's method, written down here from its description (scripts/decontaminate.py of
                      github.com/huggingface/open-r1: lower case, single spaces, a dictionary of word 8-grams of the benchmark,
                      a row leaves if one of its 8-grams is in it): not its code.
  datatrove           its own classes (MinhashDedup* with 5-grams, 14 bands of 8; NGramsDecont* with 12-grams), where it is
                      installed: pip install --target DIR datatrove orjson spacy "xxhash<4", PYTHONPATH=DIR. It reads JSON lines
                      from disk, as it has to.
"""

import argparse
import importlib
import importlib.util
import json
import os
import random
import resource
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.machine import exponent

from r1distill.contamination_section import Contamination
from r1distill.filter.benchmark_index import build_index
from r1distill.filter.contamination import find_contamination
from r1distill.filter.near_duplicates import problem_signatures, repeats, together, trace_signatures
from r1distill.records import Problem

BATCH = 2_000
TRACE_WORDS = 400
VOCABULARY = 50_000


def words_by_zipf(seed: int) -> Iterator[str]:
    """Words without end: a few very common ones, many rare ones, and numbers."""
    draw = np.random.default_rng(0)
    letters = np.array(list("abcdefghijklmnopqrstuvwxyz"))
    words = ["".join(draw.choice(letters, draw.integers(2, 9))) for _ in range(VOCABULARY)]
    numbered = [str(number) if number % 20 == 19 else word for number, word in enumerate(words)]
    shares = np.cumsum(1 / np.arange(1, VOCABULARY + 1))
    draw = np.random.default_rng(seed)
    while True:
        ranks = np.searchsorted(shares, draw.random(100_000) * shares[-1])
        yield from (numbered[rank] for rank in ranks)


def problems(count: int, questions: list[str]) -> Iterator[str]:
    stream, draw = words_by_zipf(1), random.Random(1)
    for number in range(count):
        if number % 100 == 99:
            words = draw.choice(questions).split()
            words[draw.randrange(len(words))] = "changed"
            yield " ".join(words)
        else:
            yield " ".join(islice(stream, draw.randint(20, 90)))


def questions_of(count: int) -> list[str]:
    stream, draw = words_by_zipf(2), random.Random(2)
    return [" ".join(islice(stream, draw.randint(20, 90))) for _ in range(count)]


def traces(count: int) -> Iterator[str]:
    """The last tenth are near copies of the first."""
    draw = random.Random(3)

    pool = list(islice(words_by_zipf(3), 1_000_000))
    for number in range(count):
        source = number - (count - count // 10)
        chosen = random.Random(source if source >= 0 else number)
        places = [chosen.randrange(len(pool) - 20) for _ in range(TRACE_WORDS // 20)]
        words = [word for place in places for word in pool[place : place + 20]]
        if source >= 0:
            words[draw.randrange(TRACE_WORDS)] = "changed"
        yield " ".join(words)


def batches(texts: Iterator[str]) -> Iterator[list[str]]:
    while batch := list(islice(texts, BATCH)):
        yield batch


def cpu_seconds() -> float:
    """Of this process and those that it waited for."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


class Clock:
    """Seconds of a processor that what is measured takes, without those of making the texts: other work on the machine
    does not count."""

    seconds = 0.0

    def __enter__(self) -> "Clock":
        self.started = cpu_seconds()
        return self

    def __exit__(self, *exception: Any) -> None:
        self.seconds += cpu_seconds() - self.started


# ------------------------------------------------------------ ours


def our_decontamination(count: int, n_questions: int, clock: Clock) -> int:
    questions = questions_of(n_questions)
    with clock:
        index = build_index((("bench", Problem(text, answer="1")) for text in questions), Contamination())
    found = 0
    for batch in batches(problems(count, questions)):
        rows = [Problem(text, "open", id="-") for text in batch]
        with clock:
            found += sum(map(bool, find_contamination(index, rows)))
    return found


def our_near_problems(count: int, n_questions: int, clock: Clock) -> int:
    parts = []
    for batch in batches(problems(count, questions_of(n_questions))):
        rows = [Problem(text, "open", id="-") for text in batch]
        with clock:
            parts.append(problem_signatures(rows))
    with clock:
        return int((repeats(together(parts), 0.7)[0] >= 0).sum())


def our_near_traces(count: int, n_questions: int, clock: Clock) -> int:
    parts = []
    for batch in batches(traces(count)):
        with clock:
            parts.append(trace_signatures(batch))
    with clock:
        return int((repeats(together(parts))[0] >= 0).sum())


# ------------------------------------------------------------ peers


def eight_grams(text: str) -> set[str]:
    words = " ".join(text.lower().split()).split(" ")
    return {" ".join(words[start : start + 8]) for start in range(len(words) - 7)}


def eight_gram_dictionary(count: int, n_questions: int, clock: Clock) -> int:
    questions = questions_of(n_questions)
    with clock:
        lookup: dict[str, set[int]] = {}
        for number, text in enumerate(questions):
            for gram in eight_grams(text):
                lookup.setdefault(gram, set()).add(number)
    found = 0
    for batch in batches(problems(count, questions)):
        with clock:
            found += sum(any(gram in lookup for gram in eight_grams(text)) for text in batch)
    return found


def datatrove(*modules: str) -> Iterator[Any]:
    return (importlib.import_module(f"datatrove.{module}") for module in modules)


def documents(folder: Path, texts: Iterator[str]) -> Path:
    folder.mkdir()
    with (folder / "0.jsonl").open("w") as file:
        for number, text in enumerate(texts):
            file.write(json.dumps({"text": text, "id": str(number)}) + "\n")
    return folder


def datatrove_near_traces(count: int, n_questions: int, clock: Clock) -> int:
    executor, dedup, readers, writers = datatrove("executor", "pipeline.dedup", "pipeline.readers", "pipeline.writers")
    folder = Path(tempfile.mkdtemp(prefix="bench-datatrove-"))
    try:
        reader = readers.JsonlReader(str(documents(folder / "texts", traces(count))))
        config = dedup.MinhashConfig()
        places = {name: str(folder / name) for name in ("signatures", "buckets", "removed", "kept", "dropped")}
        with clock:
            steps: list[list[Any]] = [
                [reader, dedup.MinhashDedupSignature(places["signatures"], config=config)],
                [dedup.MinhashDedupBuckets(places["signatures"], places["buckets"], config=config)],
                [dedup.MinhashDedupCluster(places["buckets"], places["removed"], config=config)],
                [reader, dedup.MinhashDedupFilter(places["removed"], writers.JsonlWriter(places["dropped"], compression=None)),
                 writers.JsonlWriter(places["kept"], compression=None)],
            ]  # fmt: skip
            for number, pipeline in enumerate(steps):
                tasks = config.num_buckets if number == 1 else 1
                executor.LocalPipelineExecutor(
                    pipeline, tasks=tasks, workers=1, logging_dir=str(folder / f"logs{number}")
                ).run()
        return sum(sum(1 for _ in file.open()) for file in Path(places["dropped"]).rglob("*.jsonl"))
    finally:
        shutil.rmtree(folder)


def datatrove_decontamination(count: int, n_questions: int, clock: Clock) -> int:
    """Its indexer reads tasks of lighteval only, so that the index is written here, with the filter's tokenizer and hash."""
    executor, decont, readers, writers = datatrove(
        "executor", "pipeline.decont", "pipeline.readers", "pipeline.writers"
    )
    simplify_text = next(datatrove("utils.text")).simplify_text
    folder = Path(tempfile.mkdtemp(prefix="bench-datatrove-"))
    try:
        questions = questions_of(n_questions)
        reader = readers.JsonlReader(str(documents(folder / "texts", problems(count, questions))))
        config = decont.NGramsDecontConfig()
        writer = writers.JsonlWriter(str(folder / "dropped"), output_filename="${rank}.jsonl", compression=None)
        (folder / "index").mkdir()
        with clock:
            step = decont.NGramsDecontFilter(str(folder / "index"), config=config, exclusion_writer=writer)
            hashes = set()
            for text in questions:
                words = step.tokenizer.word_tokenize(simplify_text(text, config.norm_config))
                grams = (words[start : start + config.n_grams] for start in range(len(words) - config.n_grams + 1))
                hashes.update(step.hash_func(" ".join(gram)) for gram in grams)
            np.array(sorted(hashes), config.hash_config.np_descr).tofile(folder / "index" / "bench.index.hashes")
            executor.LocalPipelineExecutor([reader, step], tasks=1, workers=1, logging_dir=str(folder / "logs")).run()
        return sum(sum(1 for _ in file.open()) for file in (folder / "dropped").rglob("*.jsonl"))
    finally:
        shutil.rmtree(folder)


OURS: dict[str, Callable[[int, int, Clock], int]] = {
    "decontamination": our_decontamination,
    "near-duplicate problems": our_near_problems,
    "near-duplicate traces": our_near_traces,
}
PEERS: dict[str, Callable[[int, int, Clock], int]] = {
    "8-gram dictionary (open-r1's method)": eight_gram_dictionary,
    "datatrove, decontamination": datatrove_decontamination,
    "datatrove, near-duplicate traces": datatrove_near_traces,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--peers", type=int, nargs="*", default=[10_000, 100_000])
    parser.add_argument("--questions", type=int, default=10_000)
    parser.add_argument("--only", nargs="+", choices=[*OURS, *PEERS], default=[*OURS, *PEERS])
    parser.add_argument("--step", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.step:
        name, count = options.step
        clock = Clock()
        found = {**OURS, **PEERS}[name](int(count), options.questions, clock)
        peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(json.dumps({"seconds": clock.seconds, "found": found, "peak_mb": peak_mb}))
        return
    print(f"{options.questions:,} questions; traces of {TRACE_WORDS} words", flush=True)
    for name in options.only:
        if name.startswith("datatrove") and importlib.util.find_spec("datatrove") is None:
            print(f"{name}: not installed", flush=True)
            continue
        before: tuple[float, float] | None = None
        for size in options.sizes if name in OURS else options.peers:
            command = [sys.executable, __file__, "--questions", str(options.questions), "--step", name, str(size)]
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode:
                print(
                    f"{name}, {size:,}: failed: {(done.stderr.strip().splitlines() or ['no message'])[-1]}", flush=True
                )
                break
            got = json.loads(done.stdout.strip().splitlines()[-1])
            now = size, got["seconds"]
            grown = f"  exponent {exponent(before, now)}" if before else ""
            before = now
            print(
                f"{name:38}{size:>10,}{got['found']:>9,} found{got['seconds']:>9.1f} s"
                f"{size / got['seconds']:>10,.0f} a second{got['peak_mb']:>8,.0f} MB{grown}",
                flush=True,
            )


if __name__ == "__main__":
    main()
