"""Problems of ours by which others' files are judged that hold no gold answer or tests, found by id or by content."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from r1distill.errors import UserError
from r1distill.evaluate.tasks import load_task
from r1distill.problems import Unusable, rows, to_problem
from r1distill.records import Problem
from r1distill.resources import shipped_names
from r1distill.sections import Problems

ID_COLUMNS = ("task_id", "question_id", "unique_id", "id")

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class KnownProblems:
    """The problems of `name`, by every id that their rows have and by their text without white space."""

    name: str
    by_id: dict[str, Problem]
    by_text: dict[str, Problem]

    def find(self, question: str | None, text: str | None) -> Problem | None:
        """The problem with this id or text; else the one whose text the prompt `text` ends with most nearly."""
        if question is not None and question in self.by_id:
            return self.by_id[question]
        squeezed = without_spaces(text or "")
        if squeezed in self.by_text:
            return self.by_text[squeezed]
        # worked examples come first in a prompt, so the question is what ends last, and the longest of those
        ends = [(end, len(known), known) for known in self.by_text if (end := last_end(squeezed, known))]
        return self.by_text[max(ends)[2]] if ends else None


def load_known(name: str, change: Callable[[Row], Row] = lambda row: row) -> KnownProblems:
    """The problems of a benchmark of eval/, a file, a folder or a Hub dataset; `change` is applied to each row.

    Raises UserError as r1distill.problems.read_problems does.
    """
    data = load_task(name).data if name.endswith(".toml") or name in shipped_names("eval", ".toml") else None
    data = data or Problems(path=name)
    by_id: dict[str, Problem] = {}
    by_text: dict[str, Problem] = {}
    for place, row in rows(data.path, split=data.split, subset=data.subset, revision=data.revision):
        row = change(row)
        try:
            problem = to_problem(row, place, data.columns, default_source=data.path)
        except Unusable:  # nothing can be judged by it, as is said of each response to it
            continue
        for column in ID_COLUMNS:
            if row.get(column) is not None:
                by_id.setdefault(str(row[column]), problem)
                if "test_list" in row:  # MBPP counts, EvalPlus calls the same Mbpp/2
                    by_id.setdefault(f"Mbpp/{row[column]}", problem)
        by_text.setdefault(without_spaces(problem.problem), problem)
    if not by_text:
        raise UserError(f"{name}: no problems in it; it needs at least one")
    return KnownProblems(name, by_id, by_text)


def without_spaces(text: str) -> str:
    return "".join(text.split())


def last_end(text: str, part: str) -> int:
    """Where the last `part` of `text` ends, 0 where it is not in it."""
    at = text.rfind(part)
    return at + len(part) if at >= 0 else 0
