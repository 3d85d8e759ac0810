"""Benchmarks whose rows are no question yet: options in columns of their own, a statement in parts, tests to be shown.

Every function takes a row and returns what our columns need beside its own, or None if it is not of its kind. Nothing is
executed. The columns are those of the sets' own files; tests/test_benchmark_columns.py has a row of each.
"""

import hashlib
import json
from collections.abc import Callable
from typing import Any

from r1distill.prompting import LETTERS

Row = dict[str, Any]
TESTS_SHOWN = "Your code should pass these tests:"


def as_question(row: Row) -> Row:
    """The row with its question, its options and its answer in columns that r1distill/problems.py knows."""
    for read in READERS:
        question = read(row)
        if question is not None:
            return {**row, **question}
    return row


def gpqa(row: Row) -> Row | None:
    """GPQA has the right answer in one column and three wrong ones in others: put in an order that says nothing.

    The order is that of the options' hashes, which any process on any machine finds again; evaluation shuffles on top.
    """
    right = row.get("Correct Answer")
    wrong = [row.get(f"Incorrect Answer {number}") for number in (1, 2, 3)]
    question = row.get("Question")
    if right is None or None in wrong or not isinstance(question, str):
        return None
    options = [str(option).strip() for option in (right, *wrong)]
    order = sorted(range(len(options)), key=lambda index: digest(question, options[index]))
    return {
        "problem": question,
        "choices": [options[index] for index in order],
        "answer": LETTERS[order.index(0)],
        "subject": row.get("High-level domain"),
        "unique_id": row.get("Record ID"),
    }


def digest(*texts: str) -> str:
    return hashlib.sha256("\n".join(texts).encode(errors="surrogatepass")).hexdigest()


def mmlu_pro(row: Row) -> Row | None:
    """MMLU-Pro is a question with up to ten options and its letter already; its subject is called category."""
    return {"subject": row["category"]} if {"options", "answer_index", "category"} <= row.keys() else None


def olympiad_bench(row: Row) -> Row | None:
    """OlympiadBench: a list of final answers, and what several questions share in `context`."""
    answers = row.get("final_answer")
    if "subfield" not in row or not isinstance(answers, list) or not all(isinstance(each, str) for each in answers):
        return None
    return {
        "problem": "\n".join(part for part in (row.get("context"), row["question"]) if part),
        "answer": ", ".join(answers),
        "subject": row["subfield"],
    }


def mbpp(row: Row) -> Row | None:
    """MBPP names the function in its tests alone, so they are part of the question: https://arxiv.org/abs/2108.07732.

    The Hub's MBPP+ is asked as EvalPlus's own release is, with the first test below the text in a docstring.
    """
    tests, text = row.get("test_list"), row.get("text") or row.get("prompt")
    if not isinstance(tests, list) or not tests or not isinstance(text, str):
        return None
    if isinstance(row.get("test"), str):
        return {"problem": f'"""\n{text}\n{tests[0]}\n"""'}
    return {"problem": "\n\n".join([text, TESTS_SHOWN, "\n".join(tests)])}


def codeforces(row: Row) -> Row | None:
    """open-r1/codeforces has the parts of the statement in columns. Its tests are `official_tests`."""
    if not isinstance(row.get("description"), str) or not {"input_format", "official_tests"} <= row.keys():
        return None
    parts = [row["description"]]
    if row.get("title"):
        parts.insert(0, f"# {row['title']}")
    for title, column in (("Input", "input_format"), ("Output", "output_format")):
        if row.get(column):
            parts.append(f"## {title}\n\n{row[column]}")
    for number, example in enumerate(row.get("examples") or [], 1):
        given, said = example["input"].strip(), example["output"].strip()
        parts.append(f"## Example {number}\n\nInput:\n```\n{given}\n```\n\nOutput:\n```\n{said}\n```")
    if row.get("note"):
        parts.append(f"## Note\n\n{row['note']}")
    return {"problem": "\n\n".join(part.strip() for part in parts), "unique_id": row.get("id")}


def sandbox_fusion(row: Row) -> Row | None:
    """SandboxFusion's copy of LiveCodeBench: `content` is a whole prompt, `labels` is JSON."""
    if not {"content", "labels", "test"} <= row.keys():
        return None
    labels = json.loads(row["labels"])
    return {
        "problem": row["content"],
        "difficulty": labels.get("difficulty"),
        "platform": labels.get("category"),
        "unique_id": labels.get("task_id"),
    }


READERS: tuple[Callable[[Row], Row | None], ...] = (gpqa, mmlu_pro, olympiad_bench, mbpp, codeforces, sandbox_fusion)
