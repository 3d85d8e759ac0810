"""LiveCodeBench: `Scenario.codegeneration_*_eval_all.json`, or the same without verdicts.

Of https://github.com/LiveCodeBench/LiveCodeBench, lcb_runner/benchmarks/code_generation.py: a list of questions with
`output_list` (replies), `code_list` (the programs found in them) and `graded_list`. The tests are in its data set.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from r1distill.errors import UserError
from r1distill.evaluate.readers.files import as_reply, json_file, needed, texts
from r1distill.evaluate.readers.known import KnownProblems
from r1distill.evaluate.readers.record import Generation, score_of

METRIC = "pass@1"


def read(path: Path, known: KnownProblems | None, metric: str | None) -> Iterator[Generation]:
    """The replies of an output; where it holds programs alone, these. Raises UserError naming the question."""
    if metric not in (None, METRIC):
        raise UserError(f"--metric {metric}: LiveCodeBench has {METRIC} alone")
    if known is None:
        raise UserError("LiveCodeBench's files hold no tests: give --problems with its data set")
    for number, row in enumerate(needed(json_file(path), list, str(path))):
        place = f"{path}[{number}]"
        row = needed(row, dict, place)
        question = needed(row.get("question_id"), str, f"{place}: question_id")
        responses = replies(row, place)
        verdicts = verdicts_of(row.get("graded_list"), len(responses), place)
        content = row.get("question_content")
        problem = known.find(question, content if isinstance(content, str) else None)
        missing = "" if problem else f"no problem of {known.name} has its id or text"
        for sample, (response, right) in enumerate(zip(responses, verdicts, strict=True)):
            score = score_of(verdicts)
            yield Generation(place, question, sample, problem, response, right, score, METRIC, missing)


def replies(row: dict[str, Any], place: str) -> list[str]:
    """The replies as sampled; the programs that were found in them where the replies were not kept."""
    if row.get("output_list"):
        return texts(row["output_list"], f"{place}: output_list")
    return [as_reply(program) for program in texts(row.get("code_list"), f"{place}: code_list")]


def verdicts_of(graded: Any, responses: int, place: str) -> list[bool | None]:
    if graded is None:
        return [None] * responses
    verdicts = needed(graded, list, f"{place}: graded_list")
    if len(verdicts) != responses or not all(verdict in (True, False) for verdict in verdicts):
        raise UserError(f"{place}: graded_list is not one true or false for each of its {responses} outputs")
    return [bool(verdict) for verdict in verdicts]
