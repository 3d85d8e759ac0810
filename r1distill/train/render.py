"""From a message and a reply to token ids and labels, without the chat template's traps.

Prompt and reply are rendered and tokenised apart and joined as ids. A template that is given the whole conversation may
delete the reasoning (R1-Distill's does), add a second beginning-of-text token or leave the end token unsupervised.
"""

import unicodedata
from dataclasses import dataclass
from typing import Any

from r1distill.errors import UserError
from r1distill.prompting import THINK_END, THINK_START, encode, render
from r1distill.train.teacher_cache import NO_ROW

IGNORED = -100  # the label that every loss here skips
SPARE_PADS = ("<|finetune_right_pad_id|>", "<|vision_pad|>", "<pad>", "<|endoftext|>", "<|end_of_text|>", "<unk>")


@dataclass(frozen=True, slots=True)
class Example:
    """`input_ids (T,)` and `labels (T,)`: IGNORED over the prompt, the ids themselves over the reply and its end token."""

    input_ids: list[int]
    labels: list[int]


def prepare_tokenizer(tokenizer: Any, chat_template: str | None, eos_token: str | None, pad_token: str | None) -> None:
    """Set template, end and padding token, and check that they fit together. Raises UserError where they do not."""
    if chat_template:
        tokenizer.chat_template = chat_template
    if eos_token:
        tokenizer.eos_token = known_token(tokenizer, eos_token, "train.eos_token")
    # with pad == eos every end token is masked as padding, and the model never learns to stop (open-r1#492)
    if pad_token:
        tokenizer.pad_token = known_token(tokenizer, pad_token, "train.pad_token")
        if pad_token == tokenizer.eos_token:
            raise UserError(f"train.pad_token = {pad_token} is the end token too; choose another")
    elif tokenizer.pad_token in (None, tokenizer.eos_token):
        vocabulary = tokenizer.get_vocab()
        spare = next((pad for pad in SPARE_PADS if pad in vocabulary and pad != tokenizer.eos_token), None)
        if spare is None:
            raise UserError(
                f"the padding token is the end token ({tokenizer.eos_token}) and no usual one is spare: set train.pad_token"
            )
        tokenizer.pad_token = spare
    check_turn_end(tokenizer)


def known_token(tokenizer: Any, token: str, key: str) -> str:
    if token not in tokenizer.get_vocab():
        raise UserError(f"{key} = {token}: not in the vocabulary of {tokenizer.name_or_path}; choose one that is")
    return token


def check_turn_end(tokenizer: Any) -> None:
    """The end token that is taught must be the one with which the template ends a turn."""
    render(tokenizer, "?")  # says so where there is no template
    after = behind_reply(tokenizer)
    if after and not after.startswith(tokenizer.eos_token):
        raise UserError(
            f"the chat template ends a turn with {after.split()[0]!r}, but the end token is {tokenizer.eos_token!r}; "
            "set train.eos_token to the former"
        )


def behind_reply(tokenizer: Any) -> str:
    """What the chat template puts behind a reply."""
    reply = "@@reply@@"
    messages = [{"role": "user", "content": "?"}, {"role": "assistant", "content": reply}]
    return tokenizer.apply_chat_template(messages, tokenize=False).partition(reply)[2].strip()


def turn_end(tokenizer: Any) -> int | None:
    """The special token that the template puts behind a reply."""
    if not tokenizer.chat_template:
        return None
    after = behind_reply(tokenizer)
    ids = tokenizer(after, add_special_tokens=False)["input_ids"] if after else []
    special = {number for number, token in tokenizer.added_tokens_decoder.items() if token.special}
    return ids[0] if ids and ids[0] in special | set(tokenizer.all_special_ids) else None


def render_example(tokenizer: Any, user_message: str, reply: str, prefill: str) -> Example:
    """Ids and labels of one example. The forced start of the reply is encoded apart, as it is when sampling."""
    prompt = encode(tokenizer, render(tokenizer, user_message))
    head = prefill if reply.startswith(prefill) else ""
    completion = [*encode(tokenizer, head), *encode(tokenizer, reply[len(head) :]), tokenizer.eos_token_id]
    return Example(prompt + completion, [IGNORED] * len(prompt) + completion)


def render_sampled(
    tokenizer: Any, user_message: str, reply: str, prefill: str, sampled: list[int], first_row: int
) -> tuple[Example, list[int]] | None:
    """As `render_example`, with the reply as the very tokens `sampled` of it, and for each token the number of its row.

    The rows of `sampled` are numbered from `first_row`; NO_ROW is that of a token that was not sampled: the prompt, the
    forced start and an end token that is not the teacher's. None where `sampled` is not this reply.
    """
    prompt = encode(tokenizer, render(tokenizer, user_message))
    head = prefill if reply.startswith(prefill) else ""
    n = tokens_of_text(tokenizer, sampled, reply[len(head) :])
    if n is None:
        return None
    end = tokenizer.eos_token_id
    end_row = first_row + n if sampled[n:] == [end] else NO_ROW
    before = [*prompt, *encode(tokenizer, head)]
    completion = [*before[len(prompt) :], *sampled[:n], end]
    example = Example(prompt + completion, [IGNORED] * len(prompt) + completion)
    return example, [NO_ROW] * len(before) + list(range(first_row, first_row + n)) + [end_row]


def tokens_of_text(tokenizer: Any, sampled: list[int], text: str) -> int | None:
    """How many of the `sampled` are the `text`: all, or all but the last, which ended it. None where they are not it."""
    for n in (len(sampled), len(sampled) - 1):
        if n >= 0 and tokenizer.decode(sampled[:n], skip_special_tokens=False) == text:
            return n
    return None


def sampled_or_encoded(tokenizer: Any, reply: str, prefill: str, sampled: list[int] | None) -> tuple[str, list[int]]:
    """(the forced start, the tokens behind it) of a reply: those that were sampled where they are it, else its text's.

    The latter end with the tokenizer's end token, as the examples of training do.
    """
    head = prefill if reply.startswith(prefill) else ""
    rest = reply[len(head) :]
    if sampled and tokens_of_text(tokenizer, sampled, rest) is not None:
        return head, sampled
    return head, [*encode(tokenizer, rest), tokenizer.eos_token_id]


def cut(example: Example, max_length: int) -> Example:
    """The first `max_length` tokens. The end token is cut off with the rest, so the student is not taught to stop there."""
    return Example(example.input_ids[:max_length], example.labels[:max_length])


def malformed(tokenizer: Any, example: Example, reply: str) -> str | None:
    """What is wrong with a reply itself, whatever the template: the reason to leave it out, or None."""
    if not reply.strip():
        return "empty"
    if tokenizer.eos_token_id in [label for label in example.labels[:-1] if label != IGNORED]:
        return "end_token_inside"  # the student would be taught to stop in the middle
    return None


def check_example(tokenizer: Any, example: Example, reply: str) -> None:
    """Raise UserError unless the whole reply, its tags and its end token are supervised, once, and the prompt is not."""
    boundary = next((index for index, label in enumerate(example.labels) if label != IGNORED), len(example.labels))
    supervised = example.labels[boundary:]
    name = tokenizer.name_or_path
    if not boundary or supervised != example.input_ids[boundary:]:
        raise UserError(
            f"{name}: the labels are not the reply, whole and in its place: taught is from token {boundary} on"
        )
    text = tokenizer.decode(supervised, skip_special_tokens=False, clean_up_tokenization_spaces=False)
    for tag in (THINK_START, THINK_END):
        if tag in reply and tag not in text:
            raise UserError(
                f"{name}: {tag} is not supervised; its tokenizer drops it, use another student or chat template"
            )
        if text.count(tag) != reply.count(tag):
            raise UserError(
                f"{name}: {tag} is supervised {text.count(tag)} times and is {reply.count(tag)} times in the reply"
            )
    if not supervised or supervised[-1] != tokenizer.eos_token_id:
        raise UserError(
            f"{name}: the end token {tokenizer.eos_token} is not supervised, so the student would not learn to stop"
        )
    answer = reply.rpartition(THINK_END)[2].strip()
    if plain(answer) not in plain(text):
        raise UserError(f"{name}: the answer {answer[:80]!r} is not what the labels decode to: {text[-120:]!r}")
    beginning = tokenizer.bos_token_id
    if beginning is not None and example.input_ids[:2] == [beginning, beginning]:
        raise UserError(
            f"{name}: two beginning-of-text tokens (open-r1#462); take {tokenizer.bos_token} out of the chat template"
        )


def plain(text: str) -> str:
    """Without white space, and composed: tokenizers such as Qwen's compose what they are given (NFC)."""
    return "".join(unicodedata.normalize("NFC", text).split())
