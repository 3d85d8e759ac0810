"""Public sets that are not a table of problems and answers: chats, and rows that are known to have no answer.

Every function is of one row alone, and nothing is downloaded. The columns are those of the sets' own cards on the Hub;
tests/test_public_columns.py has a row of each.
"""

import re
from typing import Any

from r1distill.verify.extract import last_boxed

Row = dict[str, Any]
TEXT_COLUMNS = ("problem", "question", "prompt", "instruction", "question_content", "description", "text")
CHAT_COLUMNS = ("messages", "conversations")
FROM_CHAT = "(from a chat)"  # a column that `adapted` adds
ASKING, REPLYING = ("user", "human"), ("assistant", "gpt")
# OpenThoughts puts this before the question; our own prompt says it too
INSTRUCTION = re.compile(r"\s*Return your final response within \\+boxed\{\}\.?\s*")
REASONING = re.compile(r".*(?:</think>|<\|end_of_thought\|>)", re.DOTALL)

# Sets with rows that nothing can be compared with (proofs, code without tests, essays), by columns that no other has.
WITHOUT_ANSWERS = {
    "OpenMathReasoning": {"expected_answer", "problem_type", "problem_source"},
    "NuminaMath-1.5": {"problem", "solution", "problem_type", "question_type"},  # and OpenR1-Math, made from it
    "NuminaMath-CoT": {"problem", "solution", "source", "messages"},
    "OpenThoughts": {"ground_truth_solution", "domain"},
    "s1K": {"question", "solution", "cot_type"},
}
NO_ANSWER_WORDS = {"proof": "a proof", "notfound": "an answer that its makers did not find"}


def adapted(row: Row) -> Row:
    """The row in columns that r1distill/problems.py knows: a chat's question, its reference, its tests."""
    row = with_test_cases(row, row.get("test_cases"))
    if any(isinstance(row.get(name), str) and row[name].strip() for name in TEXT_COLUMNS):
        return row
    chat = chat_of(row)
    asked = [message for message in chat if message["role"] in ASKING]
    if not asked:
        return row
    row = {**row, FROM_CHAT: True, "problem": INSTRUCTION.sub("", asked[0]["content"], count=1).strip()}
    # AM-DeepSeek-R1-Distilled keeps what a reply is checked with in `info`
    known = [message["info"] for message in chat if isinstance(message["info"], dict)]
    for info in known:
        row = with_test_cases(row, info.get("test_case"))
    references = [info["reference_answer"] for info in known if info.get("reference_answer")]
    replies = [message["content"] for message in chat if message["role"] in REPLYING]
    if not row.get("answer") and references:
        row = {**row, "answer": references[0]}
    elif not row.get("answer") and replies and (boxed := last_boxed(REASONING.sub("", replies[0]))):
        row = {**row, "answer": boxed, "meta": {**as_table(row.get("meta")), "answer_from": "the set's own reply"}}
    sources = [info["source"] for info in known if info.get("source")]
    return {**row, "source": row.get("source") or (sources[0] if sources else None)}


def why_no_answer(row: Row) -> str | None:
    """Why an adapted row of a public set has nothing to compare a reply with; None for rows of other sets."""
    for name, columns in WITHOUT_ANSWERS.items():
        if columns <= row.keys():
            word = NO_ANSWER_WORDS.get(str(row.get("answer") or "").strip().lower())
            named = word or row.get("problem_type") or row.get("domain") or row.get("cot_type")
            return f"{name}: {named or 'a row'}, without an answer to compare with"
    return "a chat without a reference, tests or a boxed reply" if row.get(FROM_CHAT) else None


def is_no_answer(row: Row, answer: str | None) -> bool:
    """Whether a set's answer says that there is none: NuminaMath-1.5's `proof` and `notfound`."""
    return "problem_type" in row and (answer or "").lower() in NO_ANSWER_WORDS


def chat_of(row: Row) -> list[dict[str, Any]]:
    """The messages of a row as {"role", "content", "info"}, of either spelling; empty where it has none."""
    for name in CHAT_COLUMNS:
        value = row.get(name)
        if isinstance(value, list) and value and all(isinstance(message, dict) for message in value):
            return [
                {
                    "role": message.get("role") or message.get("from"),
                    "content": str(message.get("content") or message.get("value") or ""),
                    "info": message.get("info"),
                }
                for message in value
            ]
    return []


def with_test_cases(row: Row, tests: Any) -> Row:
    """OpenThoughts' `test_cases` and AM's `test_case` are what APPS calls `input_output`."""
    return {**row, "input_output": tests} if tests and "input_output" not in row else row


def as_table(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
