"""One sample: asked of a backend, its thinking closed where it is over budget, and made into a trace."""

import asyncio
import dataclasses
import time
from collections.abc import Callable
from dataclasses import replace

from r1distill.generate.backend import Backend, Begun, Completion, Request, SampleFailed
from r1distill.generate.journal import Entry
from r1distill.generate.plan import Plan
from r1distill.generate.signals import TokenSignals, joined, unmeasured
from r1distill.prompting import THINK_END, split_thinking
from r1distill.records import Outcome, Problem, Trace

THINKING_CLOSED = f"\n{THINK_END}\n\n"
Judge = Callable[[Problem, str, int], Outcome]


async def take(
    plan: Plan,
    problem: Problem,
    sample: int,
    request_sha: str,
    backend: Backend,
    judge: Judge | None,
    begun: tuple[Trace, TokenSignals | None] | None = None,
) -> Entry:
    """One sample, and its outcome where there is a judge. A fault of this sample only becomes a trace that says so."""
    seed = plan.sample_seed(problem, sample, request_sha)
    request = Request(
        name=f"{problem.id}-{sample}-{request_sha}",
        user_message=plan.prompt.user_message(problem),
        prefill=plan.prompt.prefill,
        sampling=plan.sampling,
        seed=seed,
        system=plan.prompt.system,
        raw=plan.prompt.template == "raw",
    )
    if begun is not None:
        text = begun[0].text.removeprefix(plan.prompt.prefill)
        # with the seed of its beginning, the rest would be drawn by the same random numbers again
        rest_seed = (seed + begun[0].n_tokens) & 0x7FFFFFFF
        request = replace(request, begun=Begun(text, begun[0].token_ids, begun[0].n_tokens), seed=rest_seed)
    started = time.monotonic()
    try:
        completion = await sample_within_budget(backend, request)
    except SampleFailed as fault:
        failed = Trace(
            problem.id, sample, plan.model, request_sha, seed, "", None, "", "error",
            seconds=time.monotonic() - started, error=str(fault),
        )  # fmt: skip
        return Entry(failed, None, plan.sampling.max_tokens)
    seconds = time.monotonic() - started
    trace, signals = to_trace(plan, problem, sample, request_sha, seed, completion, seconds, begun)
    # a reply that was cut off is never taught, so it cannot be the correct one after which sampling stops
    outcome = None
    if judge is not None and trace.finish_reason == "stop":
        outcome = await asyncio.to_thread(judge, problem, trace.text, sample)
    return Entry(trace, outcome, plan.sampling.max_tokens, signals)


async def sample_within_budget(backend: Backend, request: Request) -> Completion:
    """A sample whose thinking is closed by force after `thinking_budget` tokens, with room for the answer behind it.

    As s1's budget forcing (https://arxiv.org/abs/2501.19393), in one direction. Raises what the backend raises.
    """
    sampling, begun = request.sampling, request.begun
    budget, n_begun = sampling.thinking_budget, begun.n_tokens if begun else 0
    if not budget or budget >= sampling.max_tokens or (begun and (THINK_END in begun.text or n_begun > budget)):
        return await backend.sample(request)
    if n_begun < budget:
        first = await backend.sample(replace(request, sampling=replace(sampling, max_tokens=budget)))
        text = whole_text(first, request.prefill).removeprefix(request.prefill)
        if first.finish_reason != "length" or first.n_tokens < budget:
            return first  # it ended by itself, in a loop, or with the context
        begun = Begun(text, first.token_ids, first.n_tokens)
    else:
        first = None
    assert begun is not None
    forced = "" if THINK_END in begun.text else THINKING_CLOSED
    seed = (request.seed + budget) & 0x7FFFFFFF
    rest = await backend.sample(replace(request, begun=replace(begun, forced=forced), seed=seed))
    if rest.signals is None:
        return rest
    n_forced = rest.n_tokens - begun.n_tokens - len(rest.signals)
    parts = [first.signals] if first and first.signals is not None else []
    return replace(rest, signals=joined([*parts, unmeasured(max(n_forced, 0)), rest.signals]))


def to_trace(
    plan: Plan,
    problem: Problem,
    sample: int,
    request_sha: str,
    seed: int,
    completion: Completion,
    seconds: float,
    begun: tuple[Trace, TokenSignals | None] | None,
) -> tuple[Trace, TokenSignals | None]:
    text = whole_text(completion, plan.prompt.prefill)
    thinking, answer = split_thinking(text)
    before, signals_before = begun or (None, None)
    parts = [part for part in (signals_before, completion.signals) if part is not None]
    # of half a trace there is no mean
    signals = joined(parts) if before is None or signals_before is not None else None
    whole = signals.summary() if signals else None
    cut = completion.n_thinking_tokens
    if cut is None and thinking is not None and not answer and signals:
        cut = len(signals)  # cut off while it thought
    trace = Trace(
        problem_id=problem.id,
        sample=sample,
        model=plan.model,
        request_sha=request_sha,
        seed=seed,
        text=text,
        thinking=thinking,
        answer=answer,
        finish_reason=completion.finish_reason,
        token_ids=completion.token_ids,
        n_prompt_tokens=completion.n_prompt_tokens,
        n_tokens=completion.n_tokens,
        logprobs=whole.logprobs if whole else None,
        mean_logprob=whole.mean_logprob if whole else None,
        mean_entropy_nats=whole.mean_entropy_nats if whole else None,
        mean_entropy_upper_nats=whole.mean_entropy_upper_nats if whole else None,
        p95_entropy_nats=whole.p95_entropy_nats if whole else None,
        high_entropy_share=whole.high_entropy_share if whole else None,
        thinking_signals=as_columns(signals[:cut]) if signals and cut is not None else None,
        answer_signals=as_columns(signals[cut:]) if signals and cut is not None else None,
        continued_from=before.n_tokens if before else None,
        seconds=seconds + (before.seconds if before else 0.0),
    )
    return trace, signals


def as_columns(part: TokenSignals) -> dict[str, float | None] | None:
    """The measures of a part of a trace, and of how many tokens it is."""
    signals = part.summary()
    return None if signals is None else {"n_tokens": len(part), **dataclasses.asdict(signals)}


def whole_text(completion: Completion, prefill: str) -> str:
    """The reply as the model wrote it, from its `<think>` on: what a server split off or left out is put back."""
    if completion.thinking is not None:
        end = f"\n</think>\n\n{completion.text.lstrip()}" if completion.text else ""
        whole = f"<think>\n{completion.thinking.strip()}{end}"
        return whole if whole.startswith(prefill) else f"{prefill}{completion.thinking.rstrip()}{end}"
    if completion.text.startswith(prefill):  # some servers return the forced start, most do not
        return completion.text
    return prefill + completion.text
