"""One row of a public set of reasoning traces, in any of the published columns, as its replies with what is said of them.

The columns are those of the sets' own cards: https://huggingface.co/datasets/open-r1/OpenR1-Math-220k,
https://huggingface.co/datasets/open-thoughts/OpenThoughts-114k (both subsets),
https://huggingface.co/datasets/open-r1/OpenThoughts-114k-math, https://huggingface.co/datasets/open-r1/Mixture-of-Thoughts.
tests/test_public_traces.py has a row of each.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

from r1distill.errors import UserError
from r1distill.prompting import THINK_END, THINK_START, split_thinking
from r1distill.public_columns import REPLYING, chat_of
from r1distill.records import FinishReason

Row = dict[str, Any]
# who sampled the sets of these names, and the licence on their cards ("" where there is none)
KNOWN_SETS = {
    "OpenR1-Math-220k": ("deepseek-ai/DeepSeek-R1", "apache-2.0"),
    "OpenThoughts-114k": ("deepseek-ai/DeepSeek-R1", "apache-2.0"),
    "OpenThoughts-114k-math": ("deepseek-ai/DeepSeek-R1", ""),
    "Mixture-of-Thoughts": ("deepseek-ai/DeepSeek-R1", ""),
}
# of OpenThoughts' system prompt
THOUGHT = re.compile(r"\s*<\|begin_of_thought\|>\s*(.*?)\s*<\|end_of_thought\|>\s*", re.DOTALL)
SOLUTION_MARKS = re.compile(r"<\|begin_of_solution\|>\s*|\s*<\|end_of_solution\|>\s*")


@dataclass(frozen=True, slots=True)
class Reply:
    """A reply, and what its set says of it: `correct` by the column `label`, None where it does not say."""

    text: str
    finish_reason: FinishReason
    n_tokens: int = 0
    correct: bool | None = None
    label: str = ""


def format_of(row: Row, place: str) -> str:
    """The format that a row is in, by its columns. Raises UserError where it is in none."""
    for name, columns in COLUMNS.items():
        if columns <= row.keys():
            return name
    if chat_of(row):
        return "chat"
    raise UserError(
        f"{place}: no traces in its columns ({', '.join(sorted(row))}); known are those of {', '.join(READERS)}: "
        "rename them"
    )


def replies_of(row: Row, format: str, place: str) -> list[Reply]:
    """The replies in a row, in their order. Raises UserError where the row is not in the format."""
    if not (COLUMNS[format] <= row.keys() if format in COLUMNS else chat_of(row)):
        raise UserError(f"{place}: not in the format {format}: it has {', '.join(sorted(row))}; correct traces.format")
    return [reply for reply in READERS[format](row) if reply.text.strip()]


def open_r1(row: Row) -> Iterator[Reply]:
    """Several generations of a problem. Math-Verify's label goes first, then that of the Llama judge."""
    lists = ("generations", "is_reasoning_complete", "finish_reasons", "correctness_math_verify", "correctness_llama")
    for text, complete, reason, by_rules, by_judge in zip_longest(*(row.get(name) or [] for name in lists)):
        if not isinstance(text, str):
            continue
        ended = reason == "stop" if reason in ("stop", "length") else complete is not False and is_closed(text)
        said = {
            name: value
            for name, value in (("correctness_math_verify", by_rules), ("correctness_llama", by_judge))
            if isinstance(value, bool)
        }
        label = next((name for name, value in said.items() if value), next(iter(said), ""))
        yield Reply(text, "stop" if ended else "length", 0, any(said.values()) if said else None, label)


def open_thoughts_metadata(row: Row) -> Iterator[Reply]:
    reasoning, solution = (str(row.get(name) or "").strip() for name in ("deepseek_reasoning", "deepseek_solution"))
    text = f"{THINK_START}\n{reasoning}\n{THINK_END}\n\n{solution}"
    yield Reply(text if reasoning or solution else "", "stop" if solution else "length")


def open_thoughts_math(row: Row) -> Iterator[Reply]:
    """`messages` is NuminaMath's solution here, and the trace is in `conversations`."""
    chat = chat_of({"conversations": row["conversations"]})
    label = "correct" if isinstance(row.get("correct"), bool) else ""
    yield from chat_replies(chat, row.get("generated_token_count"), row.get("correct") if label else None, label)


def chat(row: Row) -> Iterator[Reply]:
    """Mixture-of-Thoughts, OpenThoughts' default subset and its successors: the first reply of a chat."""
    yield from chat_replies(chat_of(row), row.get("num_tokens"), None, "")


def chat_replies(messages: list[Row], n_tokens: Any, correct: bool | None, label: str) -> Iterator[Reply]:
    replies = [message["content"] for message in messages if message["role"] in REPLYING]
    if replies:
        text = with_think_tags(replies[0])
        counted = n_tokens if isinstance(n_tokens, int) else 0
        yield Reply(text, "stop" if is_closed(text) else "length", counted, correct, label)


def with_think_tags(text: str) -> str:
    """OpenThoughts marks the thinking and the solution with words of its own."""
    text = THOUGHT.sub(lambda found: f"{THINK_START}\n{found[1]}\n{THINK_END}\n\n", text, count=1)
    return SOLUTION_MARKS.sub("", text)


def is_closed(text: str) -> bool:
    """Whether a reply, of which nobody says how it ended, ended its thinking and has an answer."""
    thinking, answer = split_thinking(text)
    return bool(answer) and (thinking is not None or THINK_START not in text)


COLUMNS = {
    "openr1-math": {"problem", "generations"},
    "openthoughts-metadata": {"problem", "deepseek_reasoning", "deepseek_solution"},
    "openthoughts-math": {"problem", "conversations", "generated_token_count"},
}
READERS: dict[str, Callable[[Row], Iterator[Reply]]] = {
    "openr1-math": open_r1,
    "openthoughts-metadata": open_thoughts_metadata,
    "openthoughts-math": open_thoughts_math,
    "chat": chat,
}
