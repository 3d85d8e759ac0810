"""The traces inside the page: chunks of compressed JSON that the browser opens one by one, and an index of them all.

A chunk is zlib's deflate in base64 in a script element of a type that no browser runs, so nothing of a text is ever
parsed as HTML. Deflate looks back 32 KB, so chunks beyond some hundred kilobytes compress no better; they are as small
as they can be, because one click decodes one of them. The chunks go to a file of their own while the Parquet files are
read: the index has to stand before them on the page, and they may be larger than the memory.
"""

import json
import math
import zlib
from base64 import b64encode
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any, BinaryIO

from r1distill.report.reading import Judged, Question, Reply, Scored, replies_and_verdicts
from r1distill.store import read_records

CHUNK_BYTES = 1 << 19  # of JSON: a dozen milliseconds to decode
EXCERPT_CHARACTERS = 140
TESTS_CHARACTERS = 3_000  # tests of a program can be megabytes
UNVERIFIED = "unverified"  # beside the outcomes of a Verdict


class Chunks:
    """Writes records as chunks into a binary file. `firsts` are the numbers of the first record of each."""

    def __init__(self, file: BinaryIO, name: str) -> None:
        self.file = file
        self.name = name
        self.firsts: list[int] = []
        self.count = 0
        self.pending: list[bytes] = []
        self.pending_bytes = 0

    def add(self, record: dict[str, Any]) -> None:
        data = json.dumps(record, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        text = data.encode(errors="backslashreplace")  # half a surrogate pair, as JSON writes it
        if self.pending and self.pending_bytes + len(text) > CHUNK_BYTES:
            self.flush()
        self.pending.append(text)
        self.pending_bytes += len(text)

    def flush(self) -> None:
        """Write what is pending. To be called at the end."""
        if not self.pending:
            return
        data = b64encode(zlib.compress(b"[" + b",".join(self.pending) + b"]"))
        self.file.write(f'<script type="text/plain" id="{self.name}{len(self.firsts)}">'.encode())
        self.file.write(data + b"</script>\n")
        self.firsts.append(self.count)
        self.count += len(self.pending)
        self.pending, self.pending_bytes = [], 0


@dataclass
class Columns:
    """The index, a list a column: what the list of traces, its filters and the comparison need without the texts."""

    question: list[int] = field(default_factory=list)  # number of the question on the page
    sample: list[int] = field(default_factory=list)
    outcome: list[int] = field(default_factory=list)  # number in `outcomes`
    finish: list[int] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)
    extracted: list[str | None] = field(default_factory=list)


@dataclass(frozen=True)
class Measured:
    """What the charts need of the traces of a model on a task."""

    tokens_right: list[int]
    tokens_wrong: list[int]
    right: dict[int, int]  # by the number of the question
    samples: dict[int, int]


class Embedding:
    """Questions and traces of a run, written to `file` as they are read."""

    def __init__(self, file: BinaryIO, samples: int | None) -> None:
        """With `samples`, only so many traces a question are embedded; all are measured."""
        self.samples = samples
        self.questions = Chunks(file, "q")
        self.traces = Chunks(file, "t")
        self.columns = Columns()
        self.outcomes: list[str] = []
        self.finishes: list[str] = []
        self.numbers: dict[tuple[str, str], int] = {}  # of (task, problem id)
        self.excerpts: list[str] = []
        self.sets: list[tuple[Scored, int]] = []  # with the number of its first trace
        self.first_questions: dict[str, int] = {}  # of each task: its questions follow one another
        self.measured: dict[tuple[str, str], Measured] = {}
        self.left_out = 0

    def add(self, scored: Scored) -> None:
        self.first_questions.setdefault(scored.task, len(self.excerpts))
        ids = []
        for question in read_records(scored.folder / "problems.parquet", Question):
            ids.append(question.id)
            if (scored.task, question.id) not in self.numbers:
                self.numbers[scored.task, question.id] = len(self.excerpts)
                self.excerpts.append(excerpt(question.problem, EXCERPT_CHARACTERS))
                self.questions.add(question_record(question))
        self.sets.append((scored, len(self.columns.question)))
        found = Measured([], [], defaultdict(int), defaultdict(int))
        for reply, verdict in replies_and_verdicts(scored, ids):
            number = self.number_of(scored.task, reply.problem_id)
            if verdict:
                right = is_right(reply, verdict)
                (found.tokens_right if right else found.tokens_wrong).append(reply.n_tokens)
                found.right[number] += right
                found.samples[number] += 1
            if self.samples is None or reply.sample < self.samples:
                self.embed(number, reply, verdict)
            else:
                self.left_out += 1
        self.measured[scored.task, scored.model] = found

    def number_of(self, task: str, problem_id: str) -> int:
        """Of a question; one that problems.parquet does not have any more is shown by its id."""
        if (task, problem_id) not in self.numbers:
            self.numbers[task, problem_id] = len(self.excerpts)
            self.excerpts.append(f"({problem_id}: not in problems.parquet)")
            self.questions.add(question_record(Question(problem_id, "", "open", None, None, None, "")))
        return self.numbers[task, problem_id]

    def embed(self, number: int, reply: Reply, verdict: Judged | None) -> None:
        columns = self.columns
        columns.question.append(number)
        columns.sample.append(reply.sample)
        columns.outcome.append(position(self.outcomes, verdict.outcome if verdict else UNVERIFIED))
        columns.finish.append(position(self.finishes, reply.finish_reason))
        columns.tokens.append(reply.n_tokens)
        extracted = verdict.extracted if verdict else None
        columns.extracted.append(None if extracted is None else excerpt(extracted, 40))
        self.traces.add(
            {
                "thinking": reply.thinking,
                "answer": reply.answer,
                "error": reply.error,
                "seconds": reply.seconds if math.isfinite(reply.seconds) else None,
                "extracted": extracted,
                "detail": verdict.detail if verdict else "",
                "verifier": verdict.verifier if verdict else "",
            }
        )

    def index(self, titles: dict[str, str]) -> dict[str, Any]:
        """What the script of the page reads first; `titles` of the tasks. Closes the chunks."""
        self.questions.flush()
        self.traces.flush()
        tasks = list(self.first_questions)
        models = list(dict.fromkeys(scored.model for scored, _ in self.sets))
        return {
            "tasks": [titles[task] for task in tasks],
            "models": models,
            "firstQuestions": list(self.first_questions.values()),
            "sets": [[tasks.index(one.task), models.index(one.model), first] for one, first in self.sets],
            "excerpts": self.excerpts,
            "outcomes": self.outcomes,
            "finishes": self.finishes,
            "questionChunks": self.questions.firsts,
            "traceChunks": self.traces.firsts,
            "question": self.columns.question,
            "sample": self.columns.sample,
            "outcome": self.columns.outcome,
            "finish": self.columns.finish,
            "tokens": self.columns.tokens,
            "extracted": self.columns.extracted,
        }


def is_right(reply: Reply, verdict: Judged) -> bool:
    """As scores count: a reply that was cut off is wrong, whatever stands in it."""
    return verdict.outcome == "correct" and reply.finish_reason == "stop"


def question_record(question: Question) -> dict[str, Any]:
    tests = json.dumps(question.tests, ensure_ascii=False, indent=1) if question.tests else None
    return {
        "id": question.id,
        "problem": question.problem,
        "kind": question.kind,
        "answer": question.answer,
        "tests": tests and excerpt(tests, TESTS_CHARACTERS, keep_lines=True),
        "choices": question.choices,
        "source": question.source,
        "meta": json.dumps(question.meta, ensure_ascii=False) if question.meta else "",
    }


def excerpt(text: str, characters: int, *, keep_lines: bool = False) -> str:
    """The beginning of a text; on one line unless asked otherwise."""
    beginning = text[: 4 * characters]
    if not keep_lines:
        beginning = " ".join(beginning.split())
    return beginning if len(beginning) <= characters and len(text) <= 4 * characters else beginning[:characters] + "…"


def position(names: list[str], name: str) -> int:
    """Where a name stands in a list; at its end if it is new."""
    if name not in names:
        names.append(name)
    return names.index(name)


def as_json_block(value: Any) -> str:
    """JSON for a script element of the page: ASCII alone, and no character that HTML knows."""
    text = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
