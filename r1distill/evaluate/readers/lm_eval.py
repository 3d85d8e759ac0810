"""lm-evaluation-harness: `samples_TASK_DATE.jsonl`, which `--log_samples` writes.

A line is a question under one filter of the answer (https://github.com/EleutherAI/lm-evaluation-harness, the docstrings
of lm_eval/result_schema.py): `doc` is the row of the data set, `resps` what was sampled, `filtered_resps` what the
filter made of it, `metrics` the names of the keys that hold scores.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from r1distill.errors import UserError
from r1distill.evaluate.readers.files import as_reply, json_lines, needed, texts
from r1distill.evaluate.readers.known import KnownProblems
from r1distill.evaluate.readers.record import Generation, share_of, verdicts_of
from r1distill.problems import COLUMNS, to_problem
from r1distill.prompting import LETTERS
from r1distill.records import Problem
from r1distill.verify.programs import is_python

EACH = "_each"  # our own export adds METRIC_each: the score of every response, which lm-eval has no place for
SHARES = ("exact_match", "math_verify", "acc", "pass@1", "pass_at_1")  # means over responses, where there are several

Row = dict[str, Any]


def read(path: Path, known: KnownProblems | None, metric: str | None) -> Iterator[Generation]:
    """The responses of a file of samples. `metric` is a name as in lm-eval's results: `exact_match,flexible-extract`.

    Without it, the first metric of the first line, under the filter of that line. Raises UserError naming `path:line`.
    """
    score_name, _, filter_name = (metric or "").partition(",")
    for place, row in json_lines(path):
        if not filter_name:
            filter_name = str(row.get("filter", "none"))
        if not score_name:
            score_name = first_metric(row, place)
        if str(row.get("filter", "none")) == filter_name:
            yield from generations(row, place, known, score_name, filter_name)


def first_metric(row: Row, place: str) -> str:
    names = metrics_of(row)
    if not names:
        raise UserError(
            f"{place}: no score in it; a line of --log_samples is needed, or the name of a score in --metric"
        )
    return names[0]


def metrics_of(row: Row) -> list[str]:
    """The names of the scores; lm-eval before 0.4.6 did not say them."""
    names = row.get("metrics")
    known = names if isinstance(names, list) else SHARES
    return [name for name in known if isinstance(name, str) and name in row]


def generations(
    row: Row, place: str, known: KnownProblems | None, score_name: str, filter_name: str
) -> Iterator[Generation]:
    doc = needed(row.get("doc"), dict, f"{place}: doc")
    if score_name not in row:
        names = ", ".join(f"{name},{filter_name}" for name in metrics_of(row))
        raise UserError(f"{place}: no score {score_name!r}; --metric can be one of: {names}")
    problem, missing = problem_of(row, doc, place, known)
    responses = responses_of(row, place, is_code=problem is not None and problem.kind == "code")
    score = share_of(row[score_name])
    each = row.get(f"{score_name}{EACH}")
    if isinstance(each, list) and len(each) == len(responses):
        verdicts = [verdicts_of(share_of(value), 1)[0] for value in each]
    else:
        if len(responses) > 1 and score_name not in SHARES:
            score = None  # of the best or the commonest of them, perhaps
        verdicts = verdicts_of(score, len(responses))
    for sample, (response, right) in enumerate(zip(responses, verdicts, strict=True)):
        yield Generation(
            place=place,
            question=str(row.get("doc_id", place)),
            sample=sample,
            problem=problem,
            response=response,
            right=right,
            score=score,
            metric=f"{score_name},{filter_name}",
            missing=missing,
        )


def responses_of(row: Row, place: str, *, is_code: bool) -> list[str]:
    """What was sampled; of code what the filter left of it, which is the program that was run."""
    name = "filtered_resps" if is_code else "resps"
    value = needed(row.get(name), list, f"{place}: {name}")
    if not value:
        raise UserError(f"{place}: {name} is empty; there is nothing to judge")
    if len(value) > 1 and not is_code:
        raise UserError(
            f"{place}: {len(value)} requests for one question: these are log-likelihoods of choices and not generated text; "
            "give the samples of a task that generates"
        )
    found = texts(value, f"{place}: {name}")
    return [with_fence(text) for text in found] if is_code else found


def with_fence(text: str) -> str:
    """A program, or the body of a function, as a reply; what is neither is a reply as it stands."""
    return as_reply(text) if is_python(text) or is_python(f"def completed():\n{text}") else text


def problem_of(row: Row, doc: Row, place: str, known: KnownProblems | None) -> tuple[Problem | None, str]:
    """(the problem, why there is none), from the known ones, else from what the row of the data set says itself."""
    columns = {**{str(key).lower(): value for key, value in doc.items()}, **doc}
    if columns.get("answer") is None:
        columns["answer"] = row.get("target")
    with_letter(columns)
    if not any(isinstance(columns.get(name), str) for name in COLUMNS["problem"]):
        columns["problem"] = prompt_of(row)
    if known is not None:
        question = next((str(doc[name]) for name in ("task_id", "question_id", "unique_id") if doc.get(name)), None)
        text = next((columns[name] for name in COLUMNS["problem"] if isinstance(columns.get(name), str)), None)
        found = known.find(question, text) or known.find(None, prompt_of(row))
        return found, "" if found else f"no problem of {known.name} has its id or text"
    try:
        return to_problem(columns, place, {}, default_source="lm-eval"), ""
    except UserError as error:
        return None, str(error).removeprefix(f"{place}: ")


def with_letter(columns: Row) -> None:
    """The answer of a question with choices as its letter: it may be `(B)`, an index or the text of the choice."""
    choices, answer = columns.get("choices") or columns.get("options"), columns.get("answer")
    if not isinstance(choices, list) or not choices:
        return
    letters = LETTERS[: len(choices)]
    if isinstance(answer, int) and 0 <= answer < len(letters):
        columns["answer"] = letters[answer]
    elif isinstance(answer, str) and (match := re.fullmatch(r"\(?([A-Z])\)?\.?", answer.strip())):
        columns["answer"] = match[1]
    elif answer in choices:
        columns["answer"] = letters[choices.index(answer)]


def prompt_of(row: Row) -> str:
    """The prompt of the first request; a chat is kept as JSON."""
    arguments = row.get("arguments")
    first = arguments.get("gen_args_0") if isinstance(arguments, dict) else None
    prompt = first.get("arg_0") if isinstance(first, dict) else None
    return prompt if isinstance(prompt, str) else ""
