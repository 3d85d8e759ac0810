"""Whether a reply has the form that a student is to learn: `<think>`, the reasoning, `</think>`, an answer, the end."""

import re
from typing import Literal

from r1distill.prompting import THINK_END, THINK_START

Format = Literal[
    "ok",
    "empty",
    "special_token",
    "text_after_end",
    "broken_characters",
    "other_tags",
    "no_thinking",
    "unopened",
    "unclosed",
    "several",
    "out_of_order",
    "text_before",
    "empty_thinking",
    "no_answer",
]

FORMATS: dict[Format, str] = {
    "ok": "one <think> at the start, one </think>, an answer after it, nothing else",
    "empty": "no text at all",
    "special_token": "a token of a chat template or tokenizer stands in the text as text: <|im_end|>, <｜User｜>, [/INST]",
    "text_after_end": "another turn follows the reply: text behind an end token, or a line that opens a user's message",
    "broken_characters": "U+FFFD, half of a character: bytes were decoded apart",
    "other_tags": "thinking stands between tags of another spelling: <thinking>, <|begin_of_thought|>, [THINK]",
    "no_thinking": "neither <think> nor </think>",
    "unopened": "</think> without <think>",
    "unclosed": "<think> without </think>: cut off while thinking",
    "several": "more than one <think> or </think>",
    "out_of_order": "</think> stands before <think>",
    "text_before": "text before <think>",
    "empty_thinking": "nothing between the tags",
    "no_answer": "nothing after </think>",
}
"""The words of the column `format`; where several are right, the first that `format_of` asks for."""

# <|im_end|>, <|eot_id|>, <|end|>: a name of two parts or a known one, since |a|<|b|>0 is mathematics.
# <｜end▁of▁sentence｜> has DeepSeek's wide bars.
SPECIAL = re.compile(
    r"<\|(?:[A-Za-z]{2,}(?:[_▁][A-Za-z0-9]+)+|endoftext|user|assistant|system|end|pad|im_\w+)\|>|<｜[^｜<>\n]{1,40}｜>"
    r"|\[/?INST\]|<</?SYS>>|</s>|<(?:start|end)_of_turn>|<(?:bos|eos|pad|unk)>"
)
END_TOKEN = re.compile(
    r"<\|(?:im_end|eot_id|end_of_text|endoftext|end|eom_id)\|>|<｜end▁of▁sentence｜>|</s>|<end_of_turn>|<eos>"
)
NEXT_TURN = re.compile(
    r"(?:^|\n)[ \t]*(?:#{1,4}[ \t]*|\*\*)?(?:User|Human|Assistant|用户|USER|HUMAN)(?:\*\*)?[ \t]*[:：]"
)
OTHER_TAGS = re.compile(
    r"<(?:/?\s*(?:thinking|thought|thoughts|reasoning|reflection)|/?THINK|/?Think|\s+/?think|/\s+think|think\s+|/think\s+)>"
    r"|<\|/?(?:begin|end)_of_(?:thought|solution)\|>|\[/?THINK\]|◁/?think▷|\\?</?think\\>"
)


def format_of(text: str) -> Format:
    """What is wrong with the form of a whole reply, in one word; FORMATS says what each means.

    A reply that was cut off at its limit is `unclosed` or `no_answer` or, cut off in its answer, `ok`: that is what
    `finish_reason` tells.
    """
    if not text.strip():
        return "empty"
    if "\ufffd" in text:
        return "broken_characters"
    if OTHER_TAGS.search(text):
        return "other_tags"
    if (end := END_TOKEN.search(text)) and text[end.end() :].strip():
        return "text_after_end"
    if SPECIAL.search(text):
        return "special_token"
    return tags_of(text)


def tags_of(text: str) -> Format:
    """What is wrong with the tags themselves and with what stands around them."""
    opened, closed = text.count(THINK_START), text.count(THINK_END)
    if not opened and not closed:
        return "no_thinking"
    if opened > 1 or closed > 1:
        return "several"
    if not opened:
        return "unopened"
    if not closed:
        return "unclosed"
    before, _, rest = text.partition(THINK_START)
    thinking, mark, answer = rest.partition(THINK_END)
    if not mark:
        return "out_of_order"
    if before.strip():
        return "text_before"
    if not thinking.strip():
        return "empty_thinking"
    if not answer.strip():
        return "no_answer"
    return "text_after_end" if NEXT_TURN.search(answer) else "ok"
