"""Public sets of reasoning traces as the files of a run, so that what was sampled elsewhere is verified and filtered here."""

import hashlib
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from r1distill.errors import UserError
from r1distill.filter.card import IMPORTED
from r1distill.filter.dataset import public_source
from r1distill.filter.public_rows import KNOWN_SETS, Reply, format_of, replies_of
from r1distill.problems import Unusable, local_path, rows, to_problem
from r1distill.procedural import is_procedural
from r1distill.prompting import split_thinking
from r1distill.records import Problem, Trace, Verdict
from r1distill.run import Run
from r1distill.store import read_records, replacing, write_json, writing_records
from r1distill.traces_section import Traces

LABELS = "labels.parquet"  # in the run folder: verdicts that a set has of its own traces, in their order
TEMPORARY = ".traces-"  # in the run folder, while it is read
BYTES_AT_ONCE = 512 << 20  # of traces in memory, where they have to be brought together
MOST_PARTS = 32  # files that are written at once for that, each with a row group in memory
Pair = tuple[Trace, Verdict]


def import_traces(section: Traces, run: Run, tick: Callable[[], None] = lambda: None) -> dict[str, Any]:
    """Write problems.parquet, traces/00000.parquet and labels.parquet of a run, and imported.json, which says what they are.

    A row at a time is in memory. Where a problem comes back later in the set its traces are brought together through files.
    `tick` is called for each row. Returns the counts. Raises UserError for what cannot be read; what was there stays then.
    """
    traces_path(section)
    run.folder.mkdir(parents=True, exist_ok=True)
    for left in run.folder.glob(f"{TEMPORARY}*"):  # of an import that was killed
        shutil.rmtree(left)
    with tempfile.TemporaryDirectory(prefix=TEMPORARY, dir=run.folder) as temporary:
        reading = Reading(section, Path(temporary))
        reading.read(tick)
        traces, labels = reading.traces, reading.labels
        if reading.is_scattered:
            traces, labels = brought_together(reading, Path(temporary))
        about = reading.about()
        for source, target in (
            (reading.problems, run.problems),
            (traces, run.traces / "00000.parquet"),
            (labels, run.folder / LABELS),
        ):
            target.parent.mkdir(parents=True, exist_ok=True)
            source.replace(target)
    for other in run.traces.glob("*.parquet"):
        if other.name != "00000.parquet":
            other.unlink()
    write_json(run.folder / IMPORTED, about)
    return {"problems": len(reading.places), **reading.counts}


def traces_path(section: Traces) -> Path | None:
    """The file or folder of the set, None where it is on the Hub. Raises UserError where it can be neither."""
    try:
        if not is_procedural(section.path):
            return local_path(section.path)
    except UserError:
        pass
    raise UserError(f"traces.path = {section.path}: no such file or folder, and no Hub id (org/name); correct it")


def take_labels(run: Run) -> Counter[str]:
    """Make the labels of the set the verdicts of the run, and count the outcomes: for `traces.verdicts = "theirs"`.

    Raises UserError where there are none.
    """
    if not (run.folder / LABELS).is_file():
        raise UserError(
            f"{run.folder / LABELS}: not there; delete stages/generate.json, and run `r1distill generate` again"
        )
    with replacing(run.verdicts) as temporary:
        shutil.copyfile(run.folder / LABELS, temporary)
    return Counter(verdict.outcome for verdict in read_records(run.verdicts, Verdict))


def named_set(section: Traces) -> tuple[str, str]:
    """Who sampled the set, and its licence; "" for what is not known."""
    model, license = KNOWN_SETS.get(Path(section.path).name, ("", ""))
    return section.model or model, section.license or license


def rows_of(section: Traces) -> Iterator[tuple[str, dict[str, Any]]]:
    """(place, row) of the set. The readers are those of problems, and name that section where they have none to read."""
    options = {name: getattr(section, name) for name in ("split", "subset", "revision", "files")}
    try:
        yield from rows(section.path, **options)
    except UserError as error:
        reason = str(error).replace("problems.path", "traces.path").replace("problems: ", "traces: ", 1)
        raise UserError(reason) from None


class Reading:
    """A pass over a set. `places` is the row in problems.parquet of each problem, `taken` how many traces it has."""

    def __init__(self, section: Traces, folder: Path) -> None:
        self.section = section
        self.problems, self.traces, self.labels = (
            folder / f"{name}.parquet" for name in ("problems", "traces", "labels")
        )
        self.places: dict[str, int] = {}
        self.taken: Counter[str] = Counter()
        self.is_scattered = False
        self.format = section.format
        self.counts: dict[str, Any] = {
            "samples": 0,
            "tokens": 0,
            "without_reference": 0,
            "without_reply": 0,
            "labels": {},
        }
        self.model, self.license = named_set(section)

    def read(self, tick: Callable[[], None]) -> None:
        section = self.section
        with (
            writing_records(self.problems, Problem) as write_problem,
            writing_records(self.traces, Trace) as write_trace,
            writing_records(self.labels, Verdict) as write_label,
        ):
            last = ""
            for place, row in islice(rows_of(section), section.limit):
                tick()
                if self.format == "auto":
                    self.format = format_of(row, place)
                replies = replies_of(row, self.format, place)
                if not replies:
                    self.counts["without_reply"] += 1
                    continue
                problem = self.problem_of(row, place)
                if problem.id not in self.places:
                    self.places[problem.id] = len(self.places)
                    self.counts["without_reference"] += problem.kind == "open"
                    write_problem(problem)
                elif problem.id != last:
                    self.is_scattered = True
                last = problem.id
                for reply in replies:
                    trace, label = self.pair(problem, reply)
                    write_trace(trace)
                    write_label(label)
        if not self.places:
            raise UserError(f"traces.path = {section.path}: no traces in it; it needs at least one")

    def problem_of(self, row: dict[str, Any], place: str) -> Problem:
        """The question of a row. What only the reply itself answers, or nothing, is `open`: there is nothing to judge by."""
        try:
            problem = to_problem(row, place, {}, default_source=public_source(self.section.path))
            can_be_judged = "answer_from" not in problem.meta
        except Unusable as unusable:
            problem, can_be_judged = unusable.problem, False
        if not can_be_judged:
            meta = {name: value for name, value in problem.meta.items() if name != "answer_from"}
            problem = replace(problem, kind="open", answer=None, tests=None, meta=meta, id="")
        return replace(problem, license=problem.license or self.license)

    def pair(self, problem: Problem, reply: Reply) -> Pair:
        sample = self.taken[problem.id]
        self.taken[problem.id] += 1
        self.counts["samples"] += 1
        self.counts["tokens"] += reply.n_tokens
        thinking, answer = split_thinking(reply.text)
        # what decided the text is not known, so that it is known by itself
        sha = hashlib.sha256(reply.text.encode()).hexdigest()[:32]
        trace = Trace(
            problem.id,
            sample,
            self.model,
            sha,
            0,
            reply.text,
            thinking,
            answer,
            reply.finish_reason,
            n_tokens=reply.n_tokens,
        )
        outcome = "unverifiable" if reply.correct is None else "correct" if reply.correct else "incorrect"
        self.counts["labels"][outcome] = self.counts["labels"].get(outcome, 0) + 1
        detail = f"label of the set: {reply.label}" if reply.label else "the set has no label"
        return trace, Verdict(problem.id, sample, outcome, None, detail, f"{self.format}: {reply.label}")

    def about(self) -> dict[str, Any]:
        """imported.json: what the card says instead of how a teacher was sampled."""
        section = self.section
        split = section.split if traces_path(section) is None else None
        return {
            "path": public_source(section.path), "split": split, "subset": section.subset, "revision": section.revision,
            "format": self.format, "model": self.model, "license": self.license, "problems": len(self.places),
            "traces": self.counts["samples"],
        }  # fmt: skip


def brought_together(reading: Reading, folder: Path) -> tuple[Path, Path]:
    """The traces and labels in the order of their problems: distributed to files by ranges of problems, each then sorted."""
    metadata = pq.read_metadata(reading.traces)
    n_bytes = sum(metadata.row_group(group).total_byte_size for group in range(metadata.num_row_groups))
    parts = min(1 + n_bytes // BYTES_AT_ONCE, MOST_PARTS)
    with ExitStack() as files:
        writers = [
            (
                files.enter_context(writing_records(folder / f"traces.{part}", Trace)),
                files.enter_context(writing_records(folder / f"labels.{part}", Verdict)),
            )
            for part in range(parts)
        ]
        for trace, label in pairs(reading.traces, reading.labels):
            write_trace, write_label = writers[reading.places[trace.problem_id] * parts // len(reading.places)]
            write_trace(trace)
            write_label(label)
    traces, labels = folder / "traces.sorted", folder / "labels.sorted"
    with writing_records(traces, Trace) as write_trace, writing_records(labels, Verdict) as write_label:
        for part in range(parts):
            found = list(pairs(folder / f"traces.{part}", folder / f"labels.{part}"))
            for trace, label in sorted(found, key=lambda pair: (reading.places[pair[0].problem_id], pair[0].sample)):
                write_trace(trace)
                write_label(label)
    return traces, labels


def pairs(traces: Path, labels: Path) -> Iterator[Pair]:
    yield from zip(read_records(traces, Trace), read_records(labels, Verdict), strict=True)
