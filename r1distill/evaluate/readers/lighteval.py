"""lighteval: `details_TASK_DATE.parquet`, in the three layouts that there have been.

Since June 2025 (0.11) a row is {doc, model_response, metric}; before, its columns were flat (example, predictions, gold,
choices, gold_index, metrics, specifics), and until February 2025 each of them was the `str` of its value
(https://github.com/huggingface/lighteval, src/lighteval/logging/info_loggers.py: DetailsLogger.Detail).
"""

import ast
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from r1distill.code_columns import read_tests
from r1distill.errors import UserError
from r1distill.evaluate.readers.files import needed, texts
from r1distill.evaluate.readers.known import KnownProblems
from r1distill.evaluate.readers.record import Generation, share_of, verdicts_of
from r1distill.problems import short_answer
from r1distill.prompting import LETTERS
from r1distill.records import Problem

# without the tokens, which are most of a file
NESTED = ("doc.query", "doc.choices", "doc.gold_index", "doc.specific", "doc.id", "model_response.text", "metric")
FLAT = ("example", "full_prompt", "predictions", "gold", "choices", "gold_index", "metrics", "specifics")
MAX_LITERAL_CHARACTERS = 32 << 20
ROWS_AT_ONCE = 16  # of 64 replies of 100,000 characters each
# the share of right responses, whatever their number; others say something of the best or the commonest one
SHARES = ("pass@1", "pass@k:k=1", "avg@", "extractive_match", "exact_match", "em", "acc")

Row = dict[str, Any]


def read(path: Path, known: KnownProblems | None, metric: str | None) -> Iterator[Generation]:
    """The responses of a file of details. `metric` is a name as in it (`pass@k:k=1&n=8`); else a share of right ones.

    Raises UserError naming `path:row`.
    """
    for number, row in enumerate(parquet_rows(path), 1):
        place = f"{path}:{number}"
        query, responses, golds, choices, specific, scores, name = fields_of(row, place)
        if metric is None:
            metric = default_metric(scores, place)
        if metric not in scores:
            raise UserError(f"{place}: no score {metric!r}; --metric can be one of: {', '.join(scores)}")
        problem, missing = problem_of(query, golds, choices, specific, known)
        score = share_of(scores[metric])
        if len(responses) > 1 and not is_share(metric):
            score = None
        for sample, (response, right) in enumerate(zip(responses, verdicts_of(score, len(responses)), strict=True)):
            question = name or str(number)
            yield Generation(place, question, sample, problem, response, right, score, metric, missing)


def parquet_rows(path: Path) -> Iterator[Row]:
    try:
        with pq.ParquetFile(path) as parquet:
            names = parquet.schema_arrow.names
            columns = NESTED if "model_response" in names else FLAT
            if not {column.partition(".")[0] for column in columns} & set(names):
                raise UserError(f"{path}: its columns are {', '.join(names)[:200]}; lighteval's details are needed")
            for batch in parquet.iter_batches(batch_size=ROWS_AT_ONCE, columns=list(columns)):
                yield from batch.to_pylist()
    except (OSError, pa.ArrowException) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{path}: not a readable Parquet file: {reason}; give lighteval's details_*.parquet") from None


def fields_of(row: Row, place: str) -> tuple[str, list[str], list[str], list[str], Row | None, Row, str]:
    """(query, responses, golds, choices, specific, scores, id) of a row of any layout."""
    if "model_response" in row:
        doc, reply = (needed(row.get(name), dict, f"{place}: {name}") for name in ("doc", "model_response"))
        choices = needed(doc.get("choices") or [], list, f"{place}: choices")
        query, responses, specific, scores = doc.get("query"), reply.get("text"), doc.get("specific"), row.get("metric")
        golds = golds_of(choices, doc.get("gold_index"))
        name = str(doc.get("id") or "")
    else:
        values = {column: literal(row.get(column), f"{place}: {column}") for column in FLAT[2:]}
        query = row.get("example") or row.get("full_prompt")
        responses, choices = values["predictions"], needed(values["choices"] or [], list, f"{place}: choices")
        specific, scores = values["specifics"], values["metrics"]
        golds = as_list(values["gold"]) or golds_of(choices, values["gold_index"])
        name = ""
    return (
        needed(query, str, f"{place}: query"),
        texts(responses, f"{place}: responses"),
        [str(gold) for gold in golds],
        [str(choice) for choice in choices],
        specific if isinstance(specific, dict) else None,
        needed(scores, dict, f"{place}: metric"),
        name,
    )


def literal(value: Any, place: str) -> Any:
    """The value of a column that was written as the `str` of it; others as they are."""
    if not isinstance(value, str):
        return value
    if len(value) > MAX_LITERAL_CHARACTERS:
        raise UserError(f"{place}: {len(value):,} characters; at most {MAX_LITERAL_CHARACTERS:,} are read")
    try:
        return ast.literal_eval(value)
    except (ValueError, SyntaxError, MemoryError, RecursionError) as error:
        raise UserError(f"{place}: not the text of a Python value ({type(error).__name__}); write it again") from None


def golds_of(choices: Any, indices: Any) -> list[Any]:
    """The right ones of the choices; a single index or several."""
    found = []
    for index in as_list(indices):
        if isinstance(index, int) and 0 <= index < len(choices):
            found += as_list(choices[index])
    return found


def as_list(value: Any) -> list[Any]:
    return [] if value is None else value if isinstance(value, list) else [value]


def default_metric(scores: Row, place: str) -> str:
    names = [name for name, value in scores.items() if share_of(value) is not None]
    if not names:
        raise UserError(f"{place}: no score between 0 and 1; nothing to compare with")
    return next((name for name in names if is_share(name)), names[0])


def is_share(metric: str) -> bool:
    """Whether a metric is the mean over all responses of a question: `math_pass@1:4_samples`, `pass@k:k=1&n=4`."""
    name = metric.removeprefix("math_").removeprefix("gpqa_").removeprefix("codegen_")
    return any(name == share or name.startswith((f"{share}:", f"{share}&", "avg@")) for share in SHARES)


def problem_of(
    query: str, golds: list[str], choices: list[str], specific: Row | None, known: KnownProblems | None
) -> tuple[Problem | None, str]:
    """(the problem, why there is none), from the known ones, else from what the row says itself."""
    if known is not None:
        found = known.find(None, query)
        return found, "" if found else f"no problem of {known.name} is in its prompt"
    if specific and specific.get("inputs"):
        try:
            return Problem(query, kind="code", tests=tests_of(specific)), ""
        except (ValueError, KeyError, TypeError) as error:
            return None, f"its tests cannot be read ({type(error).__name__}: {error})"
    if len(golds) != 1:
        return None, f"{len(golds)} right answers instead of one; give --problems"
    if len(choices) > 1 and golds[0] in choices:  # their texts, or only the letters that stand before them in the query
        letter = LETTERS[choices.index(golds[0])]
        return Problem(query, kind="choice", answer=letter, choices=choices), ""
    answer = short_answer(golds[0])
    return (Problem(query, answer=answer), "") if answer else (None, "an empty right answer; give --problems")


def tests_of(specific: Row) -> Row:
    """The tests that lighteval keeps beside a question of LiveCodeBench. Raises ValueError, KeyError or TypeError."""
    cases = [{"input": i, "output": o} for i, o in zip(specific["inputs"], specific["outputs"], strict=True)]
    metadata = {"func_name": specific.get("fn_name")}
    tests = read_tests({"public_test_cases": json.dumps(cases), "metadata": json.dumps(metadata)})
    if tests is None:
        raise ValueError("no tests in them")
    return tests
