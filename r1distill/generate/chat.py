"""The replies of OpenAI-compatible servers, whole or streamed, as completions."""

import json
import re
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

import httpx
import numpy as np

from r1distill.errors import UserError
from r1distill.generate.backend import Completion, SampleFailed
from r1distill.generate.repetition import is_degenerate
from r1distill.generate.signals import TokenSignals, measure
from r1distill.records import FinishReason

FINISH_REASONS: dict[str, FinishReason] = {"stop": "stop", "length": "length", "repetition": "repetition"}
BROKEN_OFF = {None, "abort", "error", "insufficient_system_resource"}
CHARACTERS_A_TOKEN = 4  # of text in a loop, where a server streams text and no token ids
LOOK_EVERY_CHARACTERS = 1_024
LONGEST_PERIOD_CHARACTERS = 4_096
THINK_END = "</think>"
TOKEN_ID = "token_id:"  # how vLLM's server names a token where it is asked for ids


class PassingFault(Exception):
    """Another attempt may succeed. `retry_after_s` is what the server asked for; `for_all`: other requests fare no better."""

    def __init__(self, message: str, retry_after_s: float = 0.0, *, for_all: bool = False) -> None:
        super().__init__(message)
        self.retry_after_s, self.for_all = retry_after_s, for_all


def completion_of(reply: dict[str, Any], keep_rows: bool = False) -> Completion:
    """Of a whole chat completion. Raises PassingFault for one that was broken off, SampleFailed for one that is refused."""
    choice = reply["choices"][0]
    message = choice["message"]
    usage = reply.get("usage") or {}
    content = (choice.get("logprobs") or {}).get("content") or []
    return completion(
        message.get("content") or "",
        # servers with a reasoning parser split the thinking off, under one of two names
        message.get("reasoning_content") or message.get("reasoning"),
        choice["finish_reason"],
        usage,
        content,
        keep_rows,
    )


def completion(
    text: str,
    thinking: str | None,
    reason: str | None,
    usage: dict[str, Any],
    content: list[dict[str, Any]],
    keep_rows: bool,
) -> Completion:
    if reason in BROKEN_OFF:
        raise PassingFault(f"the reply was broken off: finish_reason {reason}")
    if reason not in FINISH_REASONS:  # content_filter, tool_calls, …
        raise SampleFailed(f"finish_reason {reason}")
    n_tokens = int(usage.get("completion_tokens") or len(content))
    has_ids = keep_rows and len(content) == n_tokens > 0  # a server may leave the logprobs of some tokens out
    return Completion(
        text=without_surrogates(text),
        finish_reason=FINISH_REASONS[reason],
        n_prompt_tokens=int(usage.get("prompt_tokens") or 0),
        n_tokens=n_tokens,
        thinking=without_surrogates(thinking) if thinking else None,
        token_ids=[token_id(token) for token in content] if has_ids else None,
        signals=signals_of(content, keep_rows),
        n_thinking_tokens=thinking_tokens(content),
    )


@dataclass
class Streamed:
    """A chat completion while it arrives in parts."""

    text: list[str] = field(default_factory=list)
    thinking: list[str] = field(default_factory=list)
    content: list[dict[str, Any]] = field(default_factory=list)
    usage: dict[str, Any] = field(default_factory=dict)
    reason: str | None = None
    n_parts: int = 0
    n_characters: int = 0
    looked_at: int = 0

    def add(self, part: dict[str, Any], words_of: Callable[[Any], str]) -> None:
        if "error" in part:
            raise PassingFault(f"the stream ended with an error: {words_of(part)}")
        self.usage = part.get("usage") or self.usage
        for choice in part.get("choices") or []:
            delta = choice.get("delta") or {}
            thinking = delta.get("reasoning_content") or delta.get("reasoning") or ""
            text = delta.get("content") or ""
            if not isinstance(text, str) or not isinstance(thinking, str):
                raise TypeError("a delta that is no text")
            if text or thinking:
                self.n_parts += 1
            self.n_characters += len(text) + len(thinking)
            self.text.append(text)
            self.thinking.append(thinking)
            self.content += (choice.get("logprobs") or {}).get("content") or []
            self.reason = choice.get("finish_reason") or self.reason

    def is_degenerate(self, least_tokens: int) -> bool:
        if not least_tokens or self.n_characters - self.looked_at < LOOK_EVERY_CHARACTERS:
            return False
        self.looked_at = self.n_characters
        tail = "".join(self.text if any(self.text[-64:]) else self.thinking)[-4 * LONGEST_PERIOD_CHARACTERS :]
        codes = np.frombuffer(tail.encode("utf-32-le", errors="replace"), dtype="<i4")
        return is_degenerate(codes, CHARACTERS_A_TOKEN * least_tokens, longest_period=LONGEST_PERIOD_CHARACTERS)

    def completion(self, keep_rows: bool = False) -> Completion:
        if not self.usage and not self.content:  # ended by us, before the server said how much it was
            self.usage = {"completion_tokens": self.n_parts}
        thinking = "".join(self.thinking) or None
        return completion("".join(self.text), thinking, self.reason, self.usage, self.content, keep_rows)


async def events(response: httpx.Response) -> AsyncIterator[dict[str, Any]]:
    """The JSON objects of server-sent events up to `[DONE]`. Raises ValueError for what is none."""
    async for line in response.aiter_lines():
        if not line.startswith("data:"):
            continue
        data = line[5:].strip()
        if data == "[DONE]":
            return
        event = json.loads(data)
        if not isinstance(event, dict):
            raise ValueError(f"an event that is no object: {data[:100]}")
        yield event


def signals_of(content: list[dict[str, Any]], keep_rows: bool = False) -> TokenSignals | None:
    """From OpenAI's form: for each token its logprob and those of the likeliest ones, whose number may vary.

    vLLM lists a sampled token that is not among the top k in place of the k-th. The tail may then hold likelier tokens
    than the last of the list, so one that is the sampled token is left out. A token without a list counts as not known.
    """
    longest = max((len(token.get("top_logprobs") or []) for token in content), default=0)
    if not longest:
        return None
    sampled = np.full(len(content), np.nan)
    top = np.full((len(content), longest), -np.inf)
    ids = np.zeros((len(content), longest), dtype=np.int64)
    for position, token in enumerate(content):
        if not token.get("top_logprobs"):
            continue
        sampled[position] = token["logprob"]
        likeliest = sorted(token["top_logprobs"], key=lambda entry: float(entry["logprob"]), reverse=True)
        if len(likeliest) > 1 and likeliest[-1]["logprob"] == token["logprob"]:
            likeliest.pop()
        top[position, : len(likeliest)] = [entry["logprob"] for entry in likeliest]
        if keep_rows:
            ids[position, : len(likeliest)] = [token_id(entry) for entry in likeliest]
    if not keep_rows:
        return measure(sampled, top, None)
    return measure(sampled, top, None, (np.array([token_id(token) for token in content]), ids))


def token_id(entry: dict[str, Any]) -> int:
    """Raises UserError where the server names tokens by their text, of which several may have the same."""
    name = str(entry.get("token"))
    if not (name.startswith(TOKEN_ID) and name.removeprefix(TOKEN_ID).isdecimal()):
        raise UserError(
            f"the server names a token {name!r} and not by its id, so its distributions cannot be kept; use a server of "
            "vLLM, or set generate.keep_distributions = false"
        )
    return int(name.removeprefix(TOKEN_ID))


def thinking_tokens(content: list[dict[str, Any]]) -> int | None:
    """How many tokens there are up to the one that completes the last `</think>`; None where there is none in them."""
    texts = [text_of(token) for token in content]
    if not all(isinstance(text, str) for text in texts):
        return None
    whole = "".join(texts)  # type: ignore[arg-type]
    at = whole.rfind(THINK_END)
    if at < 0:
        return None
    position = 0
    for index, text in enumerate(texts):
        position += len(text)  # type: ignore[arg-type]
        if position >= at + len(THINK_END):
            return index + 1
    return None


def text_of(token: dict[str, Any]) -> str | None:
    """Of one whose name is its id the text is still in its bytes."""
    name = token.get("token")
    if isinstance(name, str) and name.startswith(TOKEN_ID):
        return bytes(token["bytes"]).decode(errors="replace") if token.get("bytes") else None
    return name


def without_surrogates(text: str) -> str:
    """JSON may hold half a character (`"\\ud800"`), which neither a journal nor Parquet can."""
    return re.sub("[\ud800-\udfff]", "\ufffd", text)
