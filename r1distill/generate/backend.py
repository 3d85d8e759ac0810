"""What the sampler asks of a backend: one sample for one request. Two do it: vllm_engine.py and server.py."""

from dataclasses import dataclass
from typing import Any, Protocol

from r1distill.generate.signals import TokenSignals
from r1distill.records import FinishReason


@dataclass(frozen=True, slots=True)
class Sampling:
    """The sampling parameters of a run: all that decides a text besides the prompt, the model and the seed."""

    temperature: float
    top_p: float
    top_k: int
    max_tokens: int  # decides where a text ends, not what it says: not part of a request's identity
    logprobs: int  # decides nothing of the text
    keep_distributions: bool = False  # decides nothing of the text either
    stop_repetition: int = 0  # tokens of a loop after which a trace is ended; 0 never
    thinking_budget: int = 0  # tokens of thinking after which it is closed by force; 0 never. The sampler sees to it


@dataclass(frozen=True, slots=True)
class Request:
    """One sample to take of one user message. `name` is unique within a run.

    `raw`: the message is the text itself that the model goes on with, and no chat.
    """

    name: str
    user_message: str
    prefill: str
    sampling: Sampling
    seed: int
    begun: "Begun | None" = None
    system: str = ""
    raw: bool = False


@dataclass(frozen=True, slots=True)
class Begun:
    """A reply that was cut off before and is to be continued: what is there of it, behind the prefill.

    `forced` is put behind it before it goes on, as if the model had said it; its tokens count.
    """

    text: str
    token_ids: list[int] | None
    n_tokens: int
    forced: str = ""


@dataclass(frozen=True, slots=True)
class Completion:
    """What came back: the whole text after the prefill, what was begun before included.

    `thinking` only where a server splits it off by itself. `signals` are those of the new tokens, without what was begun.
    `n_thinking_tokens` counts the tokens of all up to `</think>`, None where that cannot be told.
    """

    text: str
    finish_reason: FinishReason
    n_prompt_tokens: int
    n_tokens: int
    token_ids: list[int] | None = None
    thinking: str | None = None
    signals: TokenSignals | None = None
    n_thinking_tokens: int | None = None


class SampleFailed(Exception):
    """This one sample cannot be had (a request the backend refuses); the others can. The message is the backend's."""


def overlong(n_prompt_tokens: int, context: int) -> str:
    """What is said of a prompt that leaves no room for a reply; known before it is sent."""
    return f"overlong prompt: {n_prompt_tokens:,} tokens, and the model has {context:,} for prompt and reply"


class Backend(Protocol):
    """Used as an asynchronous context manager by the stages; `sample` may be awaited many times at once.

    `sample` raises SampleFailed for a fault of this request and UserError where no request can succeed.
    """

    async def sample(self, request: Request) -> Completion: ...

    def facts(self) -> dict[str, Any]:
        """What scores depend on besides the request: engine, version, number format, parallelism. Asked when it is open."""
        ...

    async def __aenter__(self) -> "Backend": ...

    async def __aexit__(self, *exception: Any) -> None: ...
