"""What the sampler asks of a backend: one sample for one request. Two do it: vllm_engine.py and server.py."""

from dataclasses import dataclass
from typing import Any, Protocol

from r1distill.generate.signals import Signals
from r1distill.records import FinishReason


@dataclass(frozen=True, slots=True)
class Sampling:
    """The sampling parameters of a run: all that decides a text besides the prompt, the model and the seed."""

    temperature: float
    top_p: float
    top_k: int
    max_tokens: int
    logprobs: int  # does not decide the text, and so is not part of a request's identity


@dataclass(frozen=True, slots=True)
class Request:
    """One sample to take of one user message. `name` is unique within a run."""

    name: str
    user_message: str
    prefill: str
    sampling: Sampling
    seed: int


@dataclass(frozen=True, slots=True)
class Completion:
    """What came back: the text after the prefill. `thinking` only where a server splits it off by itself."""

    text: str
    finish_reason: FinishReason
    n_prompt_tokens: int
    n_tokens: int
    token_ids: list[int] | None = None
    thinking: str | None = None
    signals: Signals | None = None


class SampleFailed(Exception):
    """This one sample cannot be had (a request the backend refuses); the others can. The message is the backend's."""


class Backend(Protocol):
    """Used as an asynchronous context manager by the stages; `sample` may be awaited many times at once.

    `sample` raises SampleFailed for a fault of this request and UserError where no request can succeed.
    """

    async def sample(self, request: Request) -> Completion: ...

    async def __aenter__(self) -> "Backend": ...

    async def __aexit__(self, *exception: Any) -> None: ...
