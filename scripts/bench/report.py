"""report.html of synthetic runs of 100 and 10,000 traces: seconds and memory to write, size, seconds to load and to use.

    python scripts/bench/report.py [--traces 100 10000] [--screenshots DIR] [--folder DIR]

Three models on two tasks; a trace has 2,000 to 8,000 tokens, four characters each, of sentences drawn by Zipf's law
with formulas between them, and repeats itself as reasoning does. The seconds in the browser count from the start of the
navigation: until the list of traces answers, until all of the file is read, from the choice of the last trace until
its text stands on the page, and for a search through every text.
"""

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import mean
from typing import Any

from browser import MISSING, Browser, installed, opened
from machine import status_kib

from r1distill.evaluate.metrics import accuracy_interval
from r1distill.records import Outcome, Problem, Trace, Verdict
from r1distill.report.command import write_report
from r1distill.store import write_json, write_records

SKILL = {"base": 0.18, "teacher": 0.8, "student": 0.55}
TASKS = {"aime24": ("AIME 2024", 0.3), "math500": ("MATH-500", 0.7)}  # title, share of the traces
SUBJECTS = ("Algebra", "Geometry", "Number Theory", "Counting & Probability", "Precalculus")
PUBLISHED = {
    "aime24": {"DeepSeek-R1-Distill-Qwen-7B": 55.5, "DeepSeek-R1": 79.8},
    "math500": {"DeepSeek-R1-Distill-Qwen-7B": 92.8, "DeepSeek-R1": 97.3},
}


def sentences(chance: random.Random, number: int = 4_000) -> list[str]:
    words = ["".join(chance.choices("etaoinshrdlucmfwyp", k=chance.randint(2, 9))) for _ in range(6_000)]
    weights = [1 / rank for rank in range(1, len(words) + 1)]
    texts = []
    for _ in range(number):
        text = " ".join(chance.choices(words, weights, k=chance.randint(6, 18)))
        a, b = chance.randint(2, 99), chance.randint(2, 99)
        end = chance.choice([".", f": \\({a}x + {b} = {a * b}\\).", f", so {a}·{b} = {a * b}."])
        texts.append(text.capitalize() + end)
    return texts


def reasoning(chance: random.Random, pool: list[str], tokens: int) -> str:
    """About four characters a token. Every fourth sentence comes back to one of the last thirty."""
    parts: list[str] = []
    size = 0
    while size < 4 * tokens:
        again = parts[-chance.randint(1, min(30, len(parts)))] if parts and chance.random() < 0.25 else None
        parts.append(again or f"{chance.choice(pool)[:-1]} {chance.randint(0, 9999)}.")
        size += len(parts[-1]) + 1
    return "".join(f"{part}{chr(10) if number % 5 == 4 else ' '}" for number, part in enumerate(parts))


def questions_of(task: str, number: int, chance: random.Random, pool: list[str]) -> list[Problem]:
    return [
        Problem(
            f"Let $n = {one + 2}$. {chance.choice(pool)} {chance.choice(pool)} Find the remainder of $n^{{{one}}}$ by 97.",
            answer=str(pow(one + 2, one, 97)),
            source=task,
            meta={"level": str(1 + one % 5), "subject": SUBJECTS[one % len(SUBJECTS)]},
        )
        for one in range(number)
    ]


def make_run(folder: Path, traces: int, seed: int = 0) -> None:
    """A finished run of about so many traces over all models and tasks."""
    chance = random.Random(seed)
    pool = sentences(chance)
    for task, (title, part) in TASKS.items():
        samples = max(2, min(64, round(traces * part / len(SKILL) / 30))) if task == "aime24" else 4
        questions = questions_of(task, max(2, round(traces * part / len(SKILL) / samples)), chance, pool)
        difficulty = {question.id: chance.betavariate(0.8, 0.8) for question in questions}
        for model, skill in SKILL.items():
            place = folder / "eval" / task / model
            shares = {id: min(0.98, max(0.0, skill * 1.6 - one)) for id, one in difficulty.items()}
            drawn = list(samples_of(questions, samples, shares, random.Random(f"{seed} {task} {model}")))
            write_records(place / "problems.parquet", Problem, questions)
            replies = random.Random(f"{seed} {task} {model} text")
            write_records(place / "traces" / "00000.parquet", Trace, (trace_of(replies, pool, *one) for one in drawn))
            write_records(place / "verdicts.parquet", Verdict, (verdict_of(*one) for one in drawn))
            write_json(place / "summary.json", summary_of(task, title, model, questions, samples, drawn))
    write_json(folder / "recipe.json", {"versions": {"r1distill": "0.1.0", "vllm": "0.32.0", "trl": "1.16.0"}})
    dropped = {"incorrect": 4210, "truncated": 1630, "malformed": 112}
    write_json(folder / "funnel.json", {"sampled": 20000, "kept": 14048, "dropped": dropped, "by_source": {}})
    for stage, seconds in {"generate": 8140, "verify": 310, "filter": 12, "train": 15400, "eval": 6100}.items():
        write_json(folder / "stages" / f"{stage}.json", {"status": "done", "seconds": seconds})
    log = [{"step": n, "loss": 0.9 / (1 + n / 40) + 0.35 + 0.02 * chance.random()} for n in range(0, 600, 5)]
    write_json(folder / "student" / "training_log.json", log)


Drawn = tuple[Problem, int, Outcome, str, int]  # question, sample, outcome, finish reason, tokens


def samples_of(
    questions: list[Problem], samples: int, shares: dict[str, float], chance: random.Random
) -> Iterator[Drawn]:
    for question in questions:
        for sample in range(samples):
            right = chance.random() < shares[question.id]
            tokens = int(min(8000, max(2000, chance.lognormvariate(8.2 if right else 8.6, 0.4))))
            if not right and tokens == 8000:
                yield question, sample, "no_answer", "length", tokens
            else:
                yield question, sample, "correct" if right else "incorrect", "stop", tokens


def trace_of(
    chance: random.Random, pool: list[str], question: Problem, sample: int, outcome: Outcome, finish: str, tokens: int
) -> Trace:
    thinking = reasoning(chance, pool, tokens)
    answer = "" if finish == "length" else f"The remainder is \\(\\boxed{{{reply_to(question, sample, outcome)}}}\\)."
    return Trace(
        question.id, sample, "synthetic", "0" * 32, sample, f"<think>\n{thinking}</think>\n{answer}", thinking, answer,
        finish, None, 120, tokens, seconds=tokens / 55,  # type: ignore[arg-type]
    )  # fmt: skip


def reply_to(question: Problem, sample: int, outcome: Outcome) -> str:
    return question.answer or "" if outcome == "correct" else str(sample * 37 % 97)


def verdict_of(question: Problem, sample: int, outcome: Outcome, finish: str, tokens: int) -> Verdict:
    extracted = None if outcome == "no_answer" else reply_to(question, sample, outcome)
    detail = {"correct": "equal as numbers", "incorrect": f"{extracted} is not {question.answer}"}.get(
        outcome, "no box"
    )
    return Verdict(question.id, sample, outcome, extracted, detail, "math-verify 0.9.0")


def summary_of(
    task: str, title: str, model: str, questions: list[Problem], samples: int, drawn: list[Drawn]
) -> dict[str, Any]:
    """The keys that the page reads."""
    rows = [[one[2] == "correct" for one in drawn if one[0] is question] for question in questions]
    score, low, high = accuracy_interval(rows)
    by_length = sorted(one[4] for one in drawn)
    right, wrong = ([one[4] for one in drawn if (one[2] == "correct") == wanted] for wanted in (True, False))
    ks = [k for k in (1, 2, 4, 8, 16, 32, 64) if k <= samples]
    of_level = {}
    for level in range(1, 6):
        some = [row for row, question in zip(rows, questions, strict=True) if question.meta["level"] == str(level)]
        if some:
            share, *ends = accuracy_interval(some)
            of_level[str(level)] = {"n_problems": len(some), "pass@1": share, "ci95": ends}
    return {
        "task": task, "title": title, "model": f"org/{model}", "protocol": {"name": "deepseek-r1", "version": 1},
        "n_problems": len(questions), "samples": samples, "pass@1": score, "ci95": [low, high],
        "ci95_samples": [max(0, score - 0.02), min(1, score + 0.02)],
        "pass@k": {str(k): sum(1 - (1 - sum(row) / samples) ** k for row in rows) / len(rows) for k in ks},
        "cons@k": {str(k): score + score * (1 - score) * 0.6 * (1 - 1 / k) for k in ks},
        "truncated": sum(one[3] == "length" for one in drawn) / len(drawn),
        "no_answer": sum(one[2] == "no_answer" for one in drawn) / len(drawn),
        "verifier_timeout": 0.0, "failed": 0.0, "repetition": 0.004,
        "mean_tokens": mean(by_length), "mean_tokens_correct": mean(right) if right else None,
        "mean_tokens_wrong": mean(wrong) if wrong else None, "median_tokens": by_length[len(drawn) // 2],
        "p95_tokens": by_length[int(len(drawn) * 0.95)],
        "groups": {"level": of_level}, "temperature": 0.6, "top_p": 0.95, "max_tokens": 8000, "prompt": "prompts/math.txt",
        "published": {"source": "DeepSeek-R1, arXiv 2501.12948, table 5 (pass@1)", "scores": PUBLISHED[task]},
    }  # fmt: skip


# ---------------------------------------------------------------- measuring


def write(folder: Path) -> dict[str, float]:
    """In a process of its own, whose peak memory is the kernel's count."""
    started = time.perf_counter()
    write_report(folder)
    seconds = time.perf_counter() - started
    return {"seconds": seconds, "cpu": time.process_time(), "peak_mb": status_kib("VmHWM") / 1024}


def use(page: Path, browser: Browser, shots: Path | None) -> dict[str, float]:
    browser.open(f"{page.as_uri()}#traces")
    mark = "performance.getEntriesByName({!r})[0]?.startTime"
    found = {
        "interactive": browser.wait(mark.format("interactive")) / 1000,
        "all read": browser.wait("performance.getEntriesByType('navigation')[0]?.domContentLoadedEventEnd") / 1000,
    }
    browser.wait(mark.format("trace shown"))
    browser.script("performance.clearMarks('trace shown'); window.began = performance.now(); choose(total - 1)")
    found["last trace"] = (browser.wait(mark.format("trace shown")) - browser.script("return window.began")) / 1000
    started = time.perf_counter()
    browser.script("change({ search: 'no such words anywhere' })")
    browser.wait(
        "document.getElementById('count').textContent.startsWith('0 of') && !/search/.test(count.textContent)", 120
    )
    found["search"] = time.perf_counter() - started
    browser.command("HeapProfiler.collectGarbage")
    found["script heap MB"] = browser.script("return performance.memory.usedJSHeapSize") / 2**20
    found["renderer MB"] = renderer_mb()
    browser.script("change({ search: '' })")
    if shots:
        take(browser, page, shots)
    return found


def renderer_mb() -> float:
    """The largest renderer of this machine's headless browsers, resident."""
    lines = subprocess.run(["ps", "-eo", "rss,args"], capture_output=True, text=True, check=True).stdout.splitlines()
    return max(int(line.split()[0]) for line in lines if "--type=renderer" in line) / 1024


def take(browser: Browser, page: Path, shots: Path) -> None:
    name = page.parent.name
    worst = "#traces?task=0&model=2&verdict=wrong&order=hardest"
    pictures: list[tuple[str, str, dict[str, Any]]] = [
        ("overview", "#overview", {"whole": True}),
        ("overview-dark", "#overview", {"dark": True}),
        ("traces", "#traces?task=0&model=2", {}),
        ("traces-wrong-dark", worst, {"dark": True}),
        ("compare", "#traces?task=0&model=2&with=1", {}),
        ("narrow", "#overview", {"width": 420}),
    ]
    for label, address, options in pictures:
        browser.open("about:blank")
        browser.open(f"{page.as_uri()}{address}")
        browser.wait("performance.getEntriesByName('interactive')[0]")
        if "traces" in address:
            browser.wait("performance.getEntriesByName('trace shown')[0]")
        if label == "compare":
            browser.script("foldThinking()")
        browser.screenshot(shots / f"{name}-{label}.png", **options)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--traces", type=int, nargs="+", default=[100, 10_000])
    parser.add_argument("--screenshots", type=Path)
    parser.add_argument("--folder", type=Path, help="keep the runs here")
    parser.add_argument("--write", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.write:
        print(json.dumps(write(options.write)))
        return
    if options.screenshots:
        options.screenshots.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="bench-report-") as temporary:
        for traces in options.traces:
            folder = (options.folder or Path(temporary)) / f"run-{traces}"
            if not (folder / "recipe.json").exists():
                make_run(folder, traces)
            command = [sys.executable, __file__, "--write", str(folder)]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            found = json.loads(done.stdout.splitlines()[-1])
            page = folder / "report.html"
            size = page.stat().st_size / 2**20
            print(
                f"{traces:,} traces: written in {found['seconds']:.1f} s ({found['cpu']:.1f} s of one core), "
                f"peak {found['peak_mb']:,.0f} MB, {size:,.1f} MiB",
                flush=True,
            )
            if not installed():
                print(f"  not loaded: {MISSING}")
                continue
            with opened(Path(temporary)) as browser:
                for name, value in use(page, browser, options.screenshots).items():
                    print(f"  {name:16} {value:8.2f}{'' if 'MB' in name else ' s'}", flush=True)


if __name__ == "__main__":
    main()
