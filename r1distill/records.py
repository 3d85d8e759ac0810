"""The records that flow between the stages. Joined by `problem_id` and `sample`, never by row number."""

import hashlib
import json
from dataclasses import dataclass, field
from typing import Any, Literal

Kind = Literal["math", "code", "choice", "open"]
FinishReason = Literal["stop", "length", "repetition", "error"]
Outcome = Literal["correct", "incorrect", "no_answer", "unverifiable", "timeout", "error"]


@dataclass(frozen=True, slots=True)
class Problem:
    """A question and what decides whether a reply to it is right. `id` is derived from the content."""

    problem: str
    kind: Kind = "math"
    answer: str | None = None
    tests: dict[str, Any] | None = None
    choices: list[str] | None = None
    source: str = ""
    license: str = ""
    date: str = ""
    meta: dict[str, Any] = field(default_factory=dict)
    id: str = ""

    def __post_init__(self) -> None:
        if not self.id:
            object.__setattr__(self, "id", content_id(self.problem, self.kind, self.answer, self.tests, self.choices))


def content_id(*parts: Any) -> str:
    """16 hexadecimal digits of the SHA-256 of the parts, written as sorted JSON."""
    text = json.dumps(parts, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class Trace:
    """One sample of a model for one problem. A truncated trace (`finish_reason = "length"`) is a fact, not a failure.

    `text` is the whole reply, with the prefilled `<think>` put back; `thinking` and `answer` are its two parts.
    Logprobs and entropies are means over the sampled tokens, at temperature 1, and None where the backend gave no
    logprobs. From the top k only bounds of the entropy can be had: `mean_entropy_nats` is the lower one, which is the
    nearer (r1distill/generate/signals.py); `logprobs` is that k. `thinking_signals` and `answer_signals` are the same
    measures of the tokens up to `</think>` and behind it. `continued_from` is the number of tokens that an earlier run
    had sampled when its limit cut this trace off, None where it was sampled in one go.
    """

    problem_id: str
    sample: int
    model: str
    request_sha: str
    seed: int
    text: str
    thinking: str | None
    answer: str
    finish_reason: FinishReason
    token_ids: list[int] | None = None
    n_prompt_tokens: int = 0
    n_tokens: int = 0
    logprobs: int | None = None
    mean_logprob: float | None = None
    mean_entropy_nats: float | None = None
    mean_entropy_upper_nats: float | None = None
    p95_entropy_nats: float | None = None
    high_entropy_share: float | None = None
    thinking_signals: dict[str, float | None] | None = None
    answer_signals: dict[str, float | None] | None = None
    continued_from: int | None = None
    seconds: float = 0.0
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the verifier says of one trace. `extracted` is the answer as found, `detail` why the outcome is what it is."""

    problem_id: str
    sample: int
    outcome: Outcome
    extracted: str | None = None
    detail: str = ""
    verifier: str = ""


@dataclass(frozen=True, slots=True)
class Decision:
    """Keep or drop, with the one named reason. `reason` is "kept" for the kept ones."""

    problem_id: str
    sample: int
    keep: bool
    reason: str
